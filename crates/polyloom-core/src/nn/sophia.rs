//! Sophia (Liu et al., ICLR 2024): descent along the sign of a momentum, cut by an estimate of the curvature of every
//! parameter, in place over flat buffers.

use rayon::prelude::*;

use super::BLOCK;
use crate::wide;

/// One step: `m <- b1 m + (1 - b1) g`, `w <- w (1 - rate decay) - size sign(m) min(|m| / (factor max(h, 0) + floor), 1)`,
/// where h is the estimate of the curvature. Where h is not above 0 the step is `size` whole.
#[derive(Debug, Clone, Copy)]
pub struct Sophia {
    /// Learning rate of this step.
    pub rate: f32,
    /// Decay of the momentum.
    pub beta: f32,
    /// Factor of the curvature: rho times the batch of Sophia-G, gamma of Sophia-H.
    pub factor: f32,
    /// Added to it: 1e-15 of Sophia-G, 1e-12 of Sophia-H.
    pub floor: f32,
    /// Weight decay, times rate off the parameter.
    pub decay: f32,
    /// Number of this step, from 1, where `size = rate / (1 - b1^step)` (Sophia-H); none where it is the rate (Sophia-G).
    pub step: Option<u32>,
    /// Factor of the gradients: what clipping leaves.
    pub scale: f32,
}

impl Sophia {
    /// Moves `weights` by their gradients; `momentum` is zeros before the first step, `curvature` comes from [`average`].
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn step(
        &self,
        weights: &mut [f32],
        gradients: &[f32],
        momentum: &mut [f32],
        curvature: &[f32],
    ) {
        let n = weights.len();
        assert!(
            gradients.len() == n && momentum.len() == n && curvature.len() == n,
            "lengths of an optimiser"
        );
        let size = match self.step {
            Some(step) => {
                let left = f64::from(self.beta).powi(step.min(i32::MAX as u32) as i32);
                (f64::from(self.rate) / (1.0 - left)) as f32
            }
            None => self.rate,
        };
        let keep = 1.0 - self.rate * self.decay;
        let blocks = weights
            .par_chunks_mut(BLOCK)
            .zip(gradients.par_chunks(BLOCK))
            .zip(momentum.par_chunks_mut(BLOCK))
            .zip(curvature.par_chunks(BLOCK));
        blocks.for_each(|(((w, g), m), h)| self.block(w, g, m, h, keep, size));
    }

    fn block(&self, w: &mut [f32], g: &[f32], m: &mut [f32], h: &[f32], keep: f32, size: f32) {
        wide(
            #[inline(always)]
            || {
                for (((w, g), m), h) in w.iter_mut().zip(g).zip(m).zip(h) {
                    *m += (1.0 - self.beta) * (g * self.scale - *m);
                    let share = m.abs() / (self.factor * h.max(0.0) + self.floor);
                    // A momentum of 0 has no sign.
                    let sign = if *m == 0.0 { 0.0 } else { m.signum() };
                    *w = *w * keep - size * sign * share.min(1.0);
                }
            },
        );
    }
}

/// `h <- beta h + (1 - beta) x` of a new estimate x of the curvature; of its root where `squared`.
///
/// # Panics
/// If the lengths differ.
pub fn average(curvature: &mut [f32], estimate: &[f32], beta: f32, squared: bool) {
    assert_eq!(curvature.len(), estimate.len(), "lengths of an optimiser");
    let blocks = curvature
        .par_chunks_mut(BLOCK)
        .zip(estimate.par_chunks(BLOCK));
    blocks.for_each(|(h, x)| {
        wide(
            #[inline(always)]
            || {
                for (h, x) in h.iter_mut().zip(x) {
                    let x = if squared { x * x } else { *x };
                    *h = beta * *h + (1.0 - beta) * x;
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_by_hand() {
        let g = Sophia {
            rate: 0.1,
            beta: 0.5,
            factor: 2.0,
            floor: 1e-15,
            decay: 0.5,
            step: None,
            scale: 0.5,
        };
        // m = 0.5 * 0.5 * g = (1, -1, 0, 2); ratios 1 / 4, whole where there is no curvature or a negative one, 0 of no momentum.
        let (mut w, mut m) = ([1.0, 1.0, 1.0, 1.0], [0.0; 4]);
        let h = [2.0, 0.0, 0.0, -3.0];
        g.step(&mut w, &[4.0, -4.0, 0.0, 8.0], &mut m, &h);
        assert_eq!(m, [1.0, -1.0, 0.0, 2.0]);
        for (found, wanted) in w.iter().zip([0.925, 1.05, 0.95, 0.85]) {
            assert!((found - wanted).abs() < 1e-6, "{w:?}");
        }
        // The first step of Sophia-H is 1 / (1 - 0.5) as long.
        let (mut w, mut m) = ([1.0], [0.0]);
        Sophia {
            step: Some(1),
            decay: 0.0,
            ..g
        }
        .step(&mut w, &[4.0], &mut m, &[2.0]);
        assert!((w[0] - (1.0 - 0.2 * 0.25)).abs() < 1e-6);
        let mut h = [1.0, 1.0];
        average(&mut h, &[3.0, -3.0], 0.75, true);
        assert_eq!(h, [3.0, 3.0]);
        average(&mut h, &[3.0, -3.0], 0.75, false);
        assert_eq!(h, [3.0, 1.5]);
    }
}
