//! Adam with moments for every task, where a step is of one task: the correction of unmixed sampling.

use rayon::prelude::*;

use super::BLOCK;
use crate::wide;

/// One step: the moments of the task that was drawn take its gradient, then the weights move by the moments of all tasks
/// seen so far,
/// `w <- w (1 - rate decay) - rate (sum_k w_k m_k / (1 - b1^n_k)) / (sqrt(sum_k w_k^2 v_k / (p_k (1 - b2^n_k))) + eps)`,
/// with w_k the weights of the tasks (of sum 1 over those seen), p_k how likely each is drawn and n_k its steps so far.
/// With one task this is Adam.
#[derive(Debug, Clone, Copy)]
pub struct Unmixed {
    /// Learning rate of this step.
    pub rate: f32,
    /// Decay of the first and second moments.
    pub betas: [f32; 2],
    /// Added to the root.
    pub eps: f32,
    /// Weight decay: times rate off the parameter, or added to the gradient where `coupled`.
    pub decay: f32,
    /// Adam in place of AdamW.
    pub coupled: bool,
    /// Factor of the gradients: what clipping leaves.
    pub scale: f32,
}

/// What a step takes of a task's moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// `w_k / (1 - b1^n_k)`.
    pub first: f32,
    /// `w_k^2 / (p_k (1 - b2^n_k))`.
    pub second: f32,
}

impl Part {
    /// Of a task of weight `w` and share `p` after `n` steps; nothing of one that was not seen.
    #[must_use]
    pub fn of(w: f64, p: f64, n: u32, betas: [f32; 2]) -> Self {
        if n == 0 {
            return Self {
                first: 0.0,
                second: 0.0,
            };
        }
        let left = |b: f32| 1.0 - f64::from(b).powi(n.min(i32::MAX as u32) as i32);
        Self {
            first: (w / left(betas[0])) as f32,
            second: (w * w / (p * left(betas[1]))) as f32,
        }
    }
}

impl Unmixed {
    /// Moves `weights` by the gradient of the task `task`; `moments` has the first and second moments of every task one
    /// after the other, zeros before the first step, `parts` what each of them counts after this step.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn step(
        &self,
        weights: &mut [f32],
        gradients: &[f32],
        moments: &mut [&mut [f32]],
        task: usize,
        parts: &[Part],
    ) {
        let n = weights.len();
        assert!(
            gradients.len() == n
                && moments.len() == 2 * parts.len()
                && moments.iter().all(|m| m.len() == n),
            "lengths of an optimiser"
        );
        let coupled = if self.coupled { self.decay } else { 0.0 };
        let keep = match self.coupled {
            true => 1.0,
            false => 1.0 - self.rate * self.decay,
        };
        let [b1, b2] = self.betas;
        if let [m, v] = &mut moments[2 * task..2 * task + 2] {
            let blocks = weights
                .par_chunks(BLOCK)
                .zip(gradients.par_chunks(BLOCK))
                .zip(m.par_chunks_mut(BLOCK))
                .zip(v.par_chunks_mut(BLOCK));
            blocks.for_each(|(((w, g), m), v)| {
                wide(
                    #[inline(always)]
                    || {
                        for (((w, g), m), v) in w.iter().zip(g).zip(m).zip(v) {
                            let g = g * self.scale + coupled * w;
                            *m += (1.0 - b1) * (g - *m);
                            *v = b2 * *v + (1.0 - b2) * g * g;
                        }
                    },
                );
            });
        }
        let moments: &[&mut [f32]] = moments;
        let blocks = weights.par_chunks_mut(BLOCK).enumerate();
        blocks.for_each(|(block, weights)| {
            let start = block * BLOCK;
            for (i, w) in weights.iter_mut().enumerate() {
                let (mut first, mut second) = (0.0, 0.0);
                for (part, of) in parts.iter().zip(moments.chunks_exact(2)) {
                    first += part.first * of[0][start + i];
                    second += part.second * of[1][start + i];
                }
                *w = *w * keep - self.rate * first / (second.sqrt() + self.eps);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::optim::Adam;
    use super::*;

    const RULE: Unmixed = Unmixed {
        rate: 0.1,
        betas: [0.9, 0.99],
        eps: 1e-3,
        decay: 0.2,
        coupled: false,
        scale: 0.5,
    };

    /// Runs tasks one after the other, `course` the drawn ones with their gradients.
    fn run(rule: Unmixed, w: &[f64], p: &[f64], course: &[(usize, [f32; 2])]) -> [f32; 2] {
        let mut weights = [1.0, -2.0];
        let mut all = vec![vec![0f32; 2]; 2 * w.len()];
        let mut seen = vec![0u32; w.len()];
        for (task, g) in course {
            seen[*task] += 1;
            let here: f64 = w
                .iter()
                .zip(&seen)
                .filter(|(_, n)| **n > 0)
                .map(|(w, _)| w)
                .sum();
            let parts: Vec<Part> = (0..w.len())
                .map(|k| Part::of(w[k] / here, p[k], seen[k], rule.betas))
                .collect();
            let mut moments: Vec<&mut [f32]> = all.iter_mut().map(|m| &mut m[..]).collect();
            rule.step(&mut weights, g, &mut moments, *task, &parts);
        }
        weights
    }

    #[test]
    fn with_one_task_it_is_adam() {
        let course = [[1.0, -3.0], [0.5, 2.0], [-4.0, 0.25]];
        for coupled in [false, true] {
            let rule = Unmixed { coupled, ..RULE };
            let of_one: Vec<(usize, [f32; 2])> = course.iter().map(|g| (0, *g)).collect();
            let found = run(rule, &[1.0], &[1.0], &of_one);
            let (mut w, mut m, mut v) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
            for (i, g) in course.iter().enumerate() {
                let adam = Adam {
                    rate: rule.rate,
                    betas: rule.betas,
                    eps: rule.eps,
                    decay: rule.decay,
                    coupled,
                    step: i as u32 + 1,
                    scale: rule.scale,
                };
                adam.step(&mut w, g, &mut m, &mut v);
            }
            for (a, b) in found.iter().zip(w) {
                assert!((a - b).abs() < 1e-6, "{a} and {b}");
            }
        }
    }

    /// Two tasks of the same constant gradient: however they are drawn, m is that gradient and v its square, so once both
    /// were seen every step is that of Adam on the mixture.
    #[test]
    fn two_tasks_that_are_the_same_move_as_their_mixture() {
        let rule = Unmixed {
            decay: 0.0,
            eps: 0.0,
            ..RULE
        };
        let g = [2.0, -0.5];
        let course = [(0, g), (1, g), (1, g), (0, g), (0, g)];
        let two = run(rule, &[0.5, 0.5], &[0.5, 0.5], &course);
        // The first step knows one task alone, whose second moment counts 1 / p: its length is sqrt(p).
        let first = 0.1 * 0.5f32.sqrt();
        for (found, (start, sign)) in two.iter().zip([(1.0, 1.0), (-2.0, -1.0)]) {
            let wanted = start - sign * (first + 4.0 * 0.1);
            assert!((found - wanted).abs() < 1e-5, "{found} and {wanted}");
        }
    }

    #[test]
    fn by_hand() {
        let rule = Unmixed {
            decay: 0.0,
            eps: 0.0,
            scale: 1.0,
            ..RULE
        };
        // After one step of each, corrected moments are g and g^2: w = 3/4, 1/4; p = 1/4, 3/4.
        let found = run(
            rule,
            &[0.75, 0.25],
            &[0.25, 0.75],
            &[(0, [1.0, 1.0]), (1, [-2.0, 4.0])],
        );
        let second = |a: f32, b: f32| {
            (0.75 * a + 0.25 * b) / (0.5625 * a * a / 0.25 + 0.0625 * b * b / 0.75).sqrt()
        };
        let first = 0.1 * 0.25f32.sqrt();
        assert!(
            (found[0] - (1.0 - first - 0.1 * second(1.0, -2.0))).abs() < 1e-5,
            "{found:?}"
        );
        assert!(
            (found[1] - (-2.0 - first - 0.1 * second(1.0, 4.0))).abs() < 1e-5,
            "{found:?}"
        );
    }
}
