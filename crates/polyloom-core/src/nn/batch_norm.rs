//! Batch norm: every column of a batch brought to mean 0 and variance 1, then scaled and moved.
//!
//! Ioffe and Szegedy, ICML 2015. Rows are samples, columns features; the variance that divides is the biased one.

use std::mem::MaybeUninit;

use super::{column_sums, rows_of};
use crate::wide;

/// Mean and variance of every column.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f32>,
    /// Variances: over the number of rows, not one less.
    pub variance: Vec<f32>,
}

/// What normalises: means, and `1 / √(variance + eps)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl Scale {
    /// Means, and what their differences are multiplied by.
    #[must_use]
    pub fn parts(&self) -> (&[f32], &[f32]) {
        (&self.mean, &self.rstd)
    }
}

impl Moments {
    /// Of the rows of `x`, which have `width` columns; the variance is taken around the mean in a second pass.
    ///
    /// # Panics
    /// If `x` is not whole rows; so for every function of this file.
    pub fn of(x: &[f32], width: usize) -> Self {
        assert!(
            width > 0 && x.len().is_multiple_of(width),
            "rows of a batch norm"
        );
        let share = 1.0 / (x.len() / width).max(1) as f32;
        let mut mean = vec![0f32; width];
        super::elementwise::add_column_sums(&mut mean, x);
        mean.iter_mut().for_each(|m| *m *= share);
        let mut variance = vec![0f32; width];
        sums(&mut variance, x, |_, sums, x| {
            for ((s, x), m) in sums.iter_mut().zip(x).zip(&mean) {
                *s += (x - m) * (x - m);
            }
        });
        variance.iter_mut().for_each(|v| *v *= share);
        Self { mean, variance }
    }

    /// What normalises by them.
    pub fn scale(self, eps: f32) -> Scale {
        let rstd = self.variance.iter().map(|v| 1.0 / (v + eps).sqrt());
        Scale {
            rstd: rstd.collect(),
            mean: self.mean,
        }
    }
}

/// Sums over the rows of `x` by blocks: `add(number of the row, sums, row)`.
fn sums(out: &mut [f32], x: &[f32], add: impl Fn(usize, &mut [f32], &[f32]) + Sync) {
    let width = out.len();
    let rows = rows_of(width);
    let size = rows * width;
    column_sums(out, x.len().div_ceil(size.max(1)), |block, sums| {
        let part = &x[block * size..];
        wide(
            #[inline(always)]
            || {
                for (i, x) in part.chunks_exact(width).take(rows).enumerate() {
                    add(block * rows + i, sums, x);
                }
            },
        );
    });
}

/// `(x - mean) rstd gain + bias`, column by column.
pub fn forward(x: &[f32], scale: &Scale, gain: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = gain.len();
    let factor: Vec<f32> = gain.iter().zip(&scale.rstd).map(|(g, r)| g * r).collect();
    by_rows(x, width, |_, out, x| {
        for i in 0..width {
            out[i].write((x[i] - scale.mean[i]) * factor[i] + bias[i]);
        }
    })
}

/// Rows made from rows: `f(number, out, row)` writes all of `out`.
fn by_rows(
    x: &[f32],
    width: usize,
    f: impl Fn(usize, &mut [MaybeUninit<f32>], &[f32]) + Sync,
) -> Vec<f32> {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "rows of a batch norm"
    );
    let rows = rows_of(width);
    let write = |block: usize, out: &mut [MaybeUninit<f32>]| {
        let x = &x[block * rows * width..][..out.len()];
        wide(
            #[inline(always)]
            || {
                let both = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for (i, (out, x)) in both.enumerate() {
                    f(block * rows + i, out, x);
                }
            },
        );
    };
    // SAFETY: blocks are whole rows, as many in `out` as in `x`, and both callers write every column of a row.
    unsafe { super::fresh(x.len(), rows * width, write) }
}

/// Adds the gradients of gain and bias: `sum g (x - mean) rstd` and `sum g`.
pub fn add_backward_scale(
    gain: &mut [f32],
    bias: &mut [f32],
    x: &[f32],
    scale: &Scale,
    grad: &[f32],
) {
    assert_eq!(x.len(), grad.len(), "rows of a batch norm");
    let width = gain.len();
    sums(gain, x, |row, sums, x| {
        let grad = &grad[row * width..][..width];
        for i in 0..width {
            sums[i] += grad[i] * (x[i] - scale.mean[i]) * scale.rstd[i];
        }
    });
    super::elementwise::add_column_sums(bias, grad);
}

/// Gradient of the input, where mean and variance are those of `x` itself (`dgain`, `dbias`: what
/// [`add_backward_scale`] finds), or with `None` where they are given numbers.
pub fn backward(
    x: &[f32],
    scale: &Scale,
    grad: &[f32],
    gain: &[f32],
    found: Option<(&[f32], &[f32])>,
) -> Vec<f32> {
    assert_eq!(x.len(), grad.len(), "rows of a batch norm");
    let width = gain.len();
    let factor: Vec<f32> = gain.iter().zip(&scale.rstd).map(|(g, r)| g * r).collect();
    let Some((dgain, dbias)) = found else {
        return by_rows(grad, width, |_, out, g| {
            for i in 0..width {
                out[i].write(g[i] * factor[i]);
            }
        });
    };
    let share = 1.0 / (x.len() / width).max(1) as f32;
    // What the means of the gradient take off: one number of every column, and one for each deviation of x.
    let level: Vec<f32> = dbias.iter().map(|d| d * share).collect();
    let slope: Vec<f32> = dgain
        .iter()
        .zip(&scale.rstd)
        .map(|(d, r)| d * share * r)
        .collect();
    by_rows(x, width, |row, out, x| {
        let g = &grad[row * width..][..width];
        for i in 0..width {
            out[i].write(factor[i] * (g[i] - level[i] - (x[i] - scale.mean[i]) * slope[i]));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let x = [1.0, 0.0, 3.0, 4.0, 5.0, 8.0];
        let moments = Moments::of(&x, 2);
        assert_eq!(moments.mean, [3.0, 4.0]);
        assert!((moments.variance[0] - 8.0 / 3.0).abs() < 1e-6);
        assert!((moments.variance[1] - 32.0 / 3.0).abs() < 1e-5);
        let scale = moments.scale(0.0);
        let out = forward(&x, &scale, &[1.0, 2.0], &[0.5, 0.0]);
        let unit = 1.5f32.sqrt();
        for (a, b) in out
            .iter()
            .zip([0.5 - unit, -2.0 * unit, 0.5, 0.0, 0.5 + unit, 2.0 * unit])
        {
            assert!((a - b).abs() < 1e-5, "{out:?}");
        }
    }

    #[test]
    fn by_differences() {
        let x = [1.0, 0.2, 3.0, -1.4, 0.5, 0.8, 2.0, 0.1];
        let (gain, bias) = ([1.5, -0.7], [0.1, 0.2]);
        let grad = [0.3, -0.2, 0.7, 1.0, 0.1, -0.4, -0.9, 0.6];
        let loss = |x: &[f32]| -> f64 {
            let out = forward(x, &Moments::of(x, 2).scale(1e-5), &gain, &bias);
            out.iter().zip(&grad).map(|(o, g)| f64::from(o * g)).sum()
        };
        let scale = Moments::of(&x, 2).scale(1e-5);
        let (mut dgain, mut dbias) = ([0.0; 2], [0.0; 2]);
        add_backward_scale(&mut dgain, &mut dbias, &x, &scale, &grad);
        let found = backward(&x, &scale, &grad, &gain, Some((&dgain, &dbias)));
        for i in 0..x.len() {
            let moved = |d: f32| {
                let mut y = x;
                y[i] += d;
                loss(&y)
            };
            let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!(
                (f64::from(found[i]) - numeric).abs() < 2e-3,
                "{i}: {} {numeric}",
                found[i]
            );
        }
        let still = backward(&x, &scale, &grad, &gain, None);
        assert!((still[1] - grad[1] * gain[1] * scale.rstd[1]).abs() < 1e-6);
    }

    #[test]
    fn the_same_for_any_number_of_rows_of_a_block() {
        let (rows, width) = (5_000, 7);
        let x: Vec<f32> = (0..rows * width).map(|i| (i % 13) as f32).collect();
        let moments = Moments::of(&x, width);
        for (column, (mean, variance)) in moments.mean.iter().zip(&moments.variance).enumerate() {
            let of = |f: &dyn Fn(f64) -> f64| -> f64 {
                let all = x.iter().skip(column).step_by(width);
                all.map(|x| f(f64::from(*x))).sum::<f64>() / rows as f64
            };
            let m = of(&|x| x);
            assert!((f64::from(*mean) - m).abs() < 1e-4);
            assert!((f64::from(*variance) - of(&|x| (x - m).powi(2))).abs() < 1e-3);
        }
    }
}
