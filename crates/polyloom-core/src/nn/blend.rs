//! Weighted sums of experts: every row of a batch has its own weights.

use super::{dot, rows_of};
use crate::wide;

/// Outputs of some experts: `[rows, count * width]`, those of an expert side by side.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// Experts.
    pub count: usize,
}

fn check(weights: &[f32], parts: &[Part<'_>], width: usize) -> (usize, usize) {
    let experts: usize = parts.iter().map(|p| p.count).sum();
    assert!(
        width > 0 && experts > 0 && weights.len().is_multiple_of(experts),
        "rows of a blend"
    );
    let rows = weights.len() / experts;
    assert!(
        parts
            .iter()
            .all(|p| p.values.len() == rows * p.count * width),
        "parts of a blend"
    );
    (rows, experts)
}

/// `sum_e weights[b, e] expert_e[b]`: `[rows, width]` of `weights [rows, experts]`, experts in the order of the parts.
///
/// # Panics
/// If the lengths do not fit together; so for every function of this file.
pub fn forward(weights: &[f32], parts: &[Part<'_>], width: usize) -> Vec<f32> {
    let (rows, experts) = check(weights, parts, width);
    let step = rows_of(experts * width);
    let mut out = vec![0f32; rows * width];
    super::blocks(&mut out, step * width, |block, out| {
        wide(
            #[inline(always)]
            || {
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    let row = block * step + i;
                    let mut weights = weights[row * experts..][..experts].iter();
                    for part in parts {
                        let size = part.count * width;
                        let values = part.values[row * size..][..size].chunks_exact(width);
                        for (values, w) in values.zip(weights.by_ref()) {
                            out.iter_mut().zip(values).for_each(|(o, v)| *o += w * v);
                        }
                    }
                }
            },
        );
    });
    out
}

/// Gradient of the weights: `[rows, experts]`, the dot products of `grad [rows, width]` with the experts.
pub fn backward_weights(grad: &[f32], parts: &[Part<'_>], width: usize) -> Vec<f32> {
    let experts: usize = parts.iter().map(|p| p.count).sum();
    let mut out = vec![0f32; grad.len() / width * experts];
    check(&out, parts, width);
    let step = rows_of(experts * width);
    super::blocks(&mut out, step * experts, |block, out| {
        wide(
            #[inline(always)]
            || {
                for (i, out) in out.chunks_exact_mut(experts).enumerate() {
                    let row = block * step + i;
                    let grad = &grad[row * width..][..width];
                    let mut out = out.iter_mut();
                    for part in parts {
                        let size = part.count * width;
                        let values = part.values[row * size..][..size].chunks_exact(width);
                        for (values, out) in values.zip(out.by_ref()) {
                            *out = dot(grad, values);
                        }
                    }
                }
            },
        );
    });
    out
}

/// Where the experts of a part stand among all.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Experts before it.
    pub first: usize,
    /// Its experts.
    pub count: usize,
    /// Experts in all.
    pub experts: usize,
}

/// Gradient of a part: `weights[b, e] grad[b]`, written over `out`, or with `add` added to it.
pub fn backward_part(
    out: &mut [f32],
    add: bool,
    grad: &[f32],
    weights: &[f32],
    width: usize,
    at: Place,
) {
    let size = at.count * width;
    assert!(
        out.len() == grad.len() * at.count
            && grad.len() * at.experts == weights.len() * width
            && at.first + at.count <= at.experts,
        "parts of a blend"
    );
    let step = rows_of(size);
    super::blocks(out, step * size, |block, out| {
        wide(
            #[inline(always)]
            || {
                for (i, out) in out.chunks_exact_mut(size).enumerate() {
                    let row = block * step + i;
                    let grad = &grad[row * width..][..width];
                    let weights = &weights[row * at.experts + at.first..][..at.count];
                    for (out, w) in out.chunks_exact_mut(width).zip(weights) {
                        if add {
                            out.iter_mut().zip(grad).for_each(|(o, g)| *o += w * g);
                        } else {
                            out.iter_mut().zip(grad).for_each(|(o, g)| *o = w * g);
                        }
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Two rows; two experts in one part, one in another; width 2.
        let weights = [0.5, 0.25, 2.0, 1.0, 0.0, -1.0];
        let (two, one) = (
            [1.0, 2.0, 4.0, 8.0, 1.0, 1.0, 9.0, 9.0],
            [3.0, 5.0, 2.0, 4.0],
        );
        let parts = [
            Part {
                values: &two,
                count: 2,
            },
            Part {
                values: &one,
                count: 1,
            },
        ];
        assert_eq!(forward(&weights, &parts, 2), [7.5, 13.0, -1.0, -3.0]);
        let grad = [1.0, -1.0, 2.0, 0.5];
        assert_eq!(
            backward_weights(&grad, &parts, 2),
            [-1.0, -4.0, -2.0, 2.5, 22.5, 6.0]
        );
        let place = |first, count| Place {
            first,
            count,
            experts: 3,
        };
        let mut out = [1.0; 8];
        backward_part(&mut out, true, &grad, &weights, 2, place(0, 2));
        assert_eq!(out, [1.5, 0.5, 1.25, 0.75, 3.0, 1.5, 1.0, 1.0]);
        let mut out = [9.0; 4];
        backward_part(&mut out, false, &grad, &weights, 2, place(2, 1));
        assert_eq!(out, [2.0, -2.0, -2.0, -0.5]);
    }

    #[test]
    fn many_rows() {
        let (rows, width) = (9_000, 3);
        let values: Vec<f32> = (0..rows * 2 * width)
            .map(|i| (i / (2 * width)) as f32)
            .collect();
        let parts = [Part {
            values: &values,
            count: 2,
        }];
        let out = forward(&vec![0.5; rows * 2], &parts, width);
        assert!(
            out.iter()
                .enumerate()
                .all(|(i, o)| *o == (i / width) as f32)
        );
    }
}
