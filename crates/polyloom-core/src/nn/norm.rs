//! Layer norm and RMS norm over the last axis.

use rayon::prelude::*;

use super::{column_sums, dot, rows_of, sum};
use crate::wide;

/// What a norm needs of its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Scale<'a> {
    /// Factor of every feature; its length is the width of a row.
    pub gain: &'a [f32],
    /// Added to `gain`: 1 for Gemma's `(1 + w)` norms, else 0.
    pub offset: f32,
    /// Added at the end; empty for none.
    pub bias: &'a [f32],
    /// Added to the variance (or the mean square).
    pub eps: f32,
    /// Whether the mean is taken off first: layer norm; else RMS norm.
    pub centred: bool,
}

/// What the backward pass reads again: mean and 1 / deviation of every row.
pub type Moments = Vec<[f32; 2]>;

/// Norm of every row of `x`.
///
/// # Panics
/// If `x` is not whole rows.
pub fn forward(x: &[f32], scale: Scale<'_>) -> (Vec<f32>, Moments) {
    let width = scale.gain.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "rows of a norm");
    let size = rows_of(width);
    let mut out = vec![0f32; x.len()];
    let mut moments: Moments = vec![[0.0; 2]; x.len() / width];
    out.par_chunks_mut(size * width)
        .zip(x.par_chunks(size * width))
        .zip(moments.par_chunks_mut(size))
        .for_each(|((out, x), moments)| {
            wide(
                #[inline(always)]
                || {
                    for ((out, x), moments) in out
                        .chunks_exact_mut(width)
                        .zip(x.chunks_exact(width))
                        .zip(moments)
                    {
                        *moments = row(out, x, scale);
                    }
                },
            );
        });
    (out, moments)
}

#[inline(always)]
fn row(out: &mut [f32], x: &[f32], scale: Scale<'_>) -> [f32; 2] {
    let n = x.len() as f32;
    let mean = if scale.centred { sum(x) / n } else { 0.0 };
    for (o, x) in out.iter_mut().zip(x) {
        *o = x - mean;
    }
    let rstd = 1.0 / (dot(out, out) / n + scale.eps).sqrt();
    for (o, g) in out.iter_mut().zip(scale.gain) {
        *o = *o * rstd * (g + scale.offset);
    }
    out.iter_mut().zip(scale.bias).for_each(|(o, b)| *o += b);
    [mean, rstd]
}

/// Gradient of the input.
///
/// # Panics
/// If the lengths do not fit together.
pub fn backward(x: &[f32], moments: &Moments, grad: &[f32], scale: Scale<'_>) -> Vec<f32> {
    let width = scale.gain.len();
    assert!(
        x.len() == grad.len() && x.len() == moments.len() * width,
        "rows of a norm"
    );
    let size = rows_of(width) * width;
    let mut out = vec![0f32; x.len()];
    super::blocks(&mut out, size, |block, out| {
        let at = block * size;
        let rows = out
            .chunks_exact_mut(width)
            .zip(x[at..].chunks_exact(width))
            .zip(grad[at..].chunks_exact(width));
        let rows = rows.zip(&moments[at / width..]);
        wide(
            #[inline(always)]
            || {
                for (((out, x), grad), &[mean, rstd]) in rows {
                    for ((o, g), w) in out.iter_mut().zip(grad).zip(scale.gain) {
                        *o = g * (w + scale.offset);
                    }
                    let n = x.len() as f32;
                    // The product with the normalised row: sum g (x - mean) rstd.
                    let along = (dot(out, x) - mean * sum(out)) * rstd / n;
                    let level = if scale.centred { sum(out) / n } else { 0.0 };
                    for (o, x) in out.iter_mut().zip(x) {
                        *o = rstd * (*o - level - (x - mean) * rstd * along);
                    }
                }
            },
        );
    });
    out
}

/// Adds the gradients of gain and bias (`bias` empty where there is none).
///
/// # Panics
/// If the lengths do not fit together.
pub fn add_backward_scale(
    gain: &mut [f32],
    bias: &mut [f32],
    x: &[f32],
    moments: &Moments,
    grad: &[f32],
) {
    let width = gain.len();
    assert!(
        x.len() == grad.len() && x.len() == moments.len() * width,
        "rows of a norm"
    );
    let size = rows_of(width) * width;
    column_sums(gain, x.len().div_ceil(size.max(1)), |block, sums| {
        let at = block * size;
        let end = (at + size).min(x.len());
        let rows = x[at..end]
            .chunks_exact(width)
            .zip(grad[at..end].chunks_exact(width))
            .zip(&moments[at / width..]);
        wide(
            #[inline(always)]
            || {
                for ((x, grad), &[mean, rstd]) in rows {
                    for ((s, x), g) in sums.iter_mut().zip(x).zip(grad) {
                        *s += g * (x - mean) * rstd;
                    }
                }
            },
        );
    });
    if !bias.is_empty() {
        super::elementwise::add_column_sums(bias, grad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_and_by_differences() {
        let (gain, bias) = ([1.0, 2.0, -1.0], [0.5, 0.0, 0.0]);
        let x = [1.0, 2.0, 6.0, -1.0, 0.0, 4.0];
        for (centred, offset) in [(true, 0.0), (false, 1.0)] {
            let scale = Scale {
                gain: &gain,
                offset,
                bias: if centred { &bias } else { &[] },
                eps: 1e-6,
                centred,
            };
            let (out, moments) = forward(&x, scale);
            if centred {
                let d = (14.0f32 / 3.0).sqrt();
                let expected = [-2.0 / d + 0.5, -2.0 / d, -3.0 / d];
                assert!(
                    out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
                    "{out:?}"
                );
            } else {
                let d = (41.0f32 / 3.0).sqrt();
                assert!((out[0] - 2.0 / d).abs() < 1e-5 && out[2].abs() < 1e-5);
            }
            let grad = [0.3, -0.2, 0.7, 1.0, 0.1, -0.4];
            let loss = |x: &[f32], gain: &[f32]| -> f64 {
                let (out, _) = forward(x, Scale { gain, ..scale });
                out.iter().zip(&grad).map(|(o, g)| f64::from(o * g)).sum()
            };
            let found = backward(&x, &moments, &grad, scale);
            let (mut dgain, mut dbias) = ([0.0; 3], [0.0; 3]);
            add_backward_scale(&mut dgain, &mut dbias, &x, &moments, &grad);
            assert!((dbias[0] - 1.3).abs() < 1e-6);
            let h = 1e-2;
            for i in 0..6 {
                let moved = |d: f32| {
                    let mut y = x;
                    y[i] += d;
                    loss(&y, &gain)
                };
                let numeric = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                assert!(
                    (f64::from(found[i]) - numeric).abs() < 1e-3,
                    "{i}: {} {numeric}",
                    found[i]
                );
            }
            for i in 0..3 {
                let moved = |d: f32| {
                    let mut g = gain;
                    g[i] += d;
                    loss(&x, &g)
                };
                let numeric = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                assert!((f64::from(dgain[i]) - numeric).abs() < 1e-3);
            }
        }
    }
}
