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
        let [b1, b2] = self.betas;
        let correction = |b: f32| 1.0 - f64::from(b).powi(self.step.min(i32::MAX as u32) as i32);
        let size = (f64::from(self.rate) / correction(b1)) as f32;
        let root = correction(b2).sqrt() as f32;
        let keep = if self.coupled {
            1.0
        } else {
            1.0 - self.rate * self.decay
        };
        let coupled = if self.coupled { self.decay } else { 0.0 };
        let blocks = weights
            .par_chunks_mut(BLOCK)
            .zip(gradients.par_chunks(BLOCK))
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK));
        blocks.for_each(|(((w, g), m), v)| {
            wide(
                #[inline(always)]
                || {
                    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                        let g = g * self.scale + coupled * *w;
                        *m += (1.0 - b1) * (g - *m);
                        *v = b2 * *v + (1.0 - b2) * g * g;
                        *w = *w * keep - size * *m / (v.sqrt() / root + self.eps);
                    }
                },
            );
        });
    }
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
        blocks.for_each(|((w, g), v)| {
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
        });
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
}
