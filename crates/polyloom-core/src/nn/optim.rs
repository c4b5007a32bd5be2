//! Steps of optimisers, in place over flat buffers: every parameter, its gradient and its moments are read and written
//! once.

use rayon::prelude::*;

use super::BLOCK;
use crate::wide;

/// One step of Adam or AdamW, as PyTorch computes it.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Learning rate of this step.
    pub rate: f32,
    /// Decay of the first and second moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay: times rate off the parameter (AdamW), or added to the gradient where `coupled`.
    pub decay: f32,
    /// Adam in place of AdamW.
    pub coupled: bool,
    /// Number of this step, from 1.
    pub step: u32,
    /// Factor of the gradients: what clipping leaves.
    pub scale: f32,
}

impl Adam {
    /// Moves `weights` by their gradients; `first` and `second` are the moments, zeros before the first step.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn step(
        &self,
        weights: &mut [f32],
        gradients: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let n = weights.len();
        assert!(
            gradients.len() == n && first.len() == n && second.len() == n,
            "lengths of an optimiser"
        );
        let factors = self.factors();
        let blocks = weights
            .par_chunks_mut(BLOCK)
            .zip(gradients.par_chunks(BLOCK))
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK));
        blocks.for_each(|(((w, g), m), v)| self.block(w, g, m, v, factors));
    }

    /// The same for some rows of a table of `width`: `gradients` holds theirs, one after the other, in rising order of the
    /// numbers. All other rows and their moments stay as they are, decay included.
    ///
    /// # Panics
    /// If the lengths differ, a row is not there or the numbers do not rise.
    pub fn step_rows(
        &self,
        width: usize,
        rows: &[u32],
        gradients: &[f32],
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let factors = self.factors();
        by_rows(
            width,
            rows,
            gradients,
            [weights, first, second],
            &|g, [w, m, v]| self.block(w, g, m, v, factors),
        );
    }

    fn factors(&self) -> Factors {
        let [b1, b2] = self.betas;
        let correction = |b: f32| 1.0 - f64::from(b).powi(self.step.min(i32::MAX as u32) as i32);
        let decay = if self.coupled {
            [1.0, self.decay]
        } else {
            [1.0 - self.rate * self.decay, 0.0]
        };
        Factors {
            size: (f64::from(self.rate) / correction(b1)) as f32,
            root: correction(b2).sqrt() as f32,
            keep: decay[0],
            coupled: decay[1],
        }
    }

    fn block(&self, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        let [b1, b2] = self.betas;
        wide(
            #[inline(always)]
            || {
                for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * self.scale + f.coupled * *w;
                    *m += (1.0 - b1) * (g - *m);
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *w = *w * f.keep - f.size * *m / (v.sqrt() / f.root + self.eps);
                }
            },
        );
    }
}

/// What a step of Adam multiplies by, the same for all elements.
#[derive(Clone, Copy)]
struct Factors {
    size: f32,
    root: f32,
    keep: f32,
    coupled: f32,
}

/// `f(gradient, rows)` for every row of some tables of one shape, on all threads.
fn by_rows<const N: usize>(
    width: usize,
    rows: &[u32],
    gradients: &[f32],
    tables: [&mut [f32]; N],
    f: &(impl Fn(&[f32], [&mut [f32]; N]) + Sync),
) {
    assert_eq!(gradients.len(), rows.len() * width, "rows of an optimiser");
    assert!(rows.is_sorted_by(|a, b| a < b), "rows in order");
    split(width, 0, rows, gradients, tables, f);
}

/// The tables begin with row `start`.
fn split<const N: usize>(
    width: usize,
    start: usize,
    rows: &[u32],
    gradients: &[f32],
    tables: [&mut [f32]; N],
    f: &(impl Fn(&[f32], [&mut [f32]; N]) + Sync),
) {
    if rows.len() * width <= BLOCK || rows.len() < 2 {
        let mut tables = tables;
        for (row, g) in rows.iter().zip(gradients.chunks_exact(width.max(1))) {
            let at = (*row as usize - start) * width..(*row as usize + 1 - start) * width;
            f(g, tables.each_mut().map(|t| &mut t[at.clone()]));
        }
        return;
    }
    let half = rows.len() / 2;
    let middle = rows[half] as usize;
    let (low, high) = gradients.split_at(half * width);
    let mut upper = tables.map(|t| t.split_at_mut((middle - start) * width));
    let below = upper.each_mut().map(|t| std::mem::take(&mut t.0));
    let above = upper.map(|t| t.1);
    rayon::join(
        || split(width, start, &rows[..half], low, below, f),
        || split(width, middle, &rows[half..], high, above, f),
    );
}

/// One step of stochastic gradient descent with momentum: `v <- momentum v + g`, `w <- w - rate v`, g with weight decay
/// added.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// Learning rate of this step.
    pub rate: f32,
    /// Share of the velocity that stays; 0 for none.
    pub momentum: f32,
    /// Times the parameter, added to the gradient.
    pub decay: f32,
    /// Looks ahead by the momentum (Nesterov).
    pub nesterov: bool,
    /// Factor of the gradients.
    pub scale: f32,
}

impl Sgd {
    /// Moves `weights` by their gradients; `velocity` is zeros before the first step.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn step(&self, weights: &mut [f32], gradients: &[f32], velocity: &mut [f32]) {
        let n = weights.len();
        assert!(
            gradients.len() == n && velocity.len() == n,
            "lengths of an optimiser"
        );
        let blocks = weights
            .par_chunks_mut(BLOCK)
            .zip(gradients.par_chunks(BLOCK))
            .zip(velocity.par_chunks_mut(BLOCK));
        blocks.for_each(|((w, g), v)| self.block(w, g, v));
    }

    /// The same for some rows of a table, as [`Adam::step_rows`].
    ///
    /// # Panics
    /// As [`Adam::step_rows`].
    pub fn step_rows(
        &self,
        width: usize,
        rows: &[u32],
        gradients: &[f32],
        weights: &mut [f32],
        velocity: &mut [f32],
    ) {
        by_rows(width, rows, gradients, [weights, velocity], &|g, [w, v]| {
            self.block(w, g, v);
        });
    }

    fn block(&self, w: &mut [f32], g: &[f32], v: &mut [f32]) {
        wide(
            #[inline(always)]
            || {
                for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
                    let g = g * self.scale + self.decay * *w;
                    *v = self.momentum * *v + g;
                    let step = if self.nesterov {
                        g + self.momentum * *v
                    } else {
                        *v
                    };
                    *w -= self.rate * step;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        let adam = Adam {
            rate: 0.1,
            betas: [0.9, 0.99],
            eps: 0.0,
            decay: 0.5,
            coupled: false,
            step: 1,
            scale: 1.0,
        };
        let (mut w, mut m, mut v) = ([1.0], [0.0], [0.0]);
        // The first step moves by the rate, whatever the gradient, after the decay: 1 * 0.95 - 0.1.
        adam.step(&mut w, &[4.0], &mut m, &mut v);
        assert!(
            (w[0] - 0.85).abs() < 1e-6 && (m[0] - 0.4).abs() < 1e-6 && (v[0] - 0.16).abs() < 1e-6
        );
        // Then m = 0.36 - 0.1 = 0.26 over 0.19, v = 0.1584 + 0.01 over 0.0199.
        Adam { step: 2, ..adam }.step(&mut w, &[-1.0], &mut m, &mut v);
        let step = 0.1 * (0.26 / 0.19) / (0.1684f32 / 0.0199).sqrt();
        assert!((w[0] - (0.85 * 0.95 - step)).abs() < 1e-6, "{}", w[0]);
        let sgd = Sgd {
            rate: 0.1,
            momentum: 0.9,
            decay: 0.0,
            nesterov: false,
            scale: 0.5,
        };
        let (mut w, mut velocity) = ([1.0], [0.0]);
        sgd.step(&mut w, &[2.0], &mut velocity);
        sgd.step(&mut w, &[2.0], &mut velocity);
        assert!((w[0] - (1.0 - 0.1 - 0.19)).abs() < 1e-6);
        let mut w = [1.0];
        Sgd {
            nesterov: true,
            ..sgd
        }
        .step(&mut w, &[2.0], &mut [0.0]);
        assert!((w[0] - (1.0 - 0.19)).abs() < 1e-6);
    }
    /// Rows of a large table on several threads are the rows of the whole.
    #[test]
    fn rows_as_in_the_whole() {
        let (count, width) = (5000usize, 24);
        let noise =
            |k: f32| -> Vec<f32> { (0..count * width).map(|i| (i as f32 * k).sin()).collect() };
        let (start, gradients) = (noise(0.37), noise(0.11));
        let rows: Vec<u32> = (0..count as u32).filter(|r| r % 7 < 3).collect();
        let some: Vec<f32> = rows
            .iter()
            .flat_map(|r| gradients[*r as usize * width..][..width].to_vec())
            .collect();
        assert!(some.len() > 2 * BLOCK);
        let adam = Adam {
            rate: 0.1,
            betas: [0.9, 0.99],
            eps: 1e-8,
            decay: 0.1,
            coupled: false,
            step: 3,
            scale: 0.7,
        };
        let sgd = Sgd {
            rate: 0.1,
            momentum: 0.9,
            decay: 0.1,
            nesterov: true,
            scale: 0.7,
        };
        let moments = [noise(0.5), noise(0.2).iter().map(|x| x * x).collect()];
        let run = |whole: bool, adam_too: bool| {
            let (mut w, mut m, mut v) = (start.clone(), moments[0].clone(), moments[1].clone());
            match (whole, adam_too) {
                (true, true) => adam.step(&mut w, &gradients, &mut m, &mut v),
                (false, true) => adam.step_rows(width, &rows, &some, &mut w, &mut m, &mut v),
                (true, false) => sgd.step(&mut w, &gradients, &mut m),
                (false, false) => sgd.step_rows(width, &rows, &some, &mut w, &mut m),
            }
            [w, m, v]
        };
        for adam_too in [true, false] {
            let (whole, found) = (run(true, adam_too), run(false, adam_too));
            let before = [&start, &moments[0], &moments[1]];
            for ((whole, found), before) in whole.iter().zip(&found).zip(before) {
                for row in 0..count {
                    let at = row * width..(row + 1) * width;
                    let wanted = if row % 7 < 3 { whole } else { before };
                    assert_eq!(found[at.clone()], wanted[at], "row {row}");
                }
            }
        }
    }
}
