//! Softmax over rows, and the logarithm of its sum.

use super::math::exp;
use super::{dot, rows_of, sum};
use crate::wide;

/// Softmax of a row in place; returns the logarithm of the sum of exponentials. Values of minus infinity get 0; a row of
/// nothing else becomes all zeros.
#[inline(always)]
pub fn row(x: &mut [f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = x.chunks_exact(16);
    for (i, v) in chunks.remainder().iter().enumerate() {
        lanes[i] = lanes[i].max(*v);
    }
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] {
                chunk[i]
            } else {
                lanes[i]
            };
        }
    }
    let top = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if top == f32::NEG_INFINITY {
        // Nothing to choose from, or not a number: the sum tells which.
        let bad = sum(x);
        x.fill(if bad.is_nan() { bad } else { 0.0 });
        return top;
    }
    x.iter_mut().for_each(|v| *v = exp(*v - top));
    let total = sum(x);
    let factor = 1.0 / total;
    x.iter_mut().for_each(|v| *v *= factor);
    top + total.ln()
}

/// Softmax of every row of `width`, in place.
///
/// # Panics
/// If `x` is not whole rows.
pub fn forward(x: &mut [f32], width: usize) {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "rows of a softmax"
    );
    super::blocks(x, rows_of(width) * width, |_, block| {
        wide(
            #[inline(always)]
            || {
                for x in block.chunks_exact_mut(width) {
                    row(x);
                }
            },
        );
    });
}

/// Turns the gradient of a row of probabilities into that of the scores, in place: `g <- p (g - sum p g)`.
#[inline(always)]
pub fn row_backward(grad: &mut [f32], probabilities: &[f32]) {
    let along = dot(grad, probabilities);
    for (g, p) in grad.iter_mut().zip(probabilities) {
        *g = p * (*g - along);
    }
}

/// Gradient of the scores of every row.
///
/// # Panics
/// If the lengths differ or are not whole rows.
pub fn backward(probabilities: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
    assert!(
        width > 0 && probabilities.len() == grad.len() && grad.len().is_multiple_of(width),
        "rows of a softmax"
    );
    let mut out = grad.to_vec();
    let size = rows_of(width) * width;
    super::blocks(&mut out, size, |block, out| {
        let p = &probabilities[block * size..];
        wide(
            #[inline(always)]
            || {
                for (g, p) in out.chunks_exact_mut(width).zip(p.chunks_exact(width)) {
                    row_backward(g, p);
                }
            },
        );
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut x = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        assert!((row(&mut x) - 4f32.ln()).abs() < 1e-6);
        assert!((x[0] - 0.25).abs() < 1e-6 && (x[1] - 0.75).abs() < 1e-6 && x[2] == 0.0);
        let mut none = [f32::NEG_INFINITY; 20];
        row(&mut none);
        assert_eq!(none, [0.0; 20]);
        let mut bad = [1.0, f32::NAN];
        row(&mut bad);
        assert!(bad[0].is_nan());
        // p = (1/4, 3/4), g = (1, 0): p0 (1 - 1/4), p1 (0 - 1/4).
        let g = backward(&[0.25, 0.75], &[1.0, 0.0], 2);
        assert!((g[0] - 0.1875).abs() < 1e-7 && (g[1] + 0.1875).abs() < 1e-7);
    }
}
