//! Losses over rows of scores.

use rayon::prelude::*;

use super::softmax;
use crate::wide;

/// A label that does not count.
pub const IGNORED: u32 = u32::MAX;

/// Cross-entropy of every row: `-sum_c q_c log softmax(x)_c`, q = one at the label mixed with `smoothing / classes`
/// everywhere. Returns the losses (0 for rows with [`IGNORED`]) and the probabilities, which the backward pass reads.
///
/// # Panics
/// If the lengths do not fit together or a label is not below the number of classes.
pub fn cross_entropy(
    scores: &[f32],
    classes: usize,
    labels: &[u32],
    smoothing: f32,
) -> (Vec<f32>, Vec<f32>) {
    assert!(
        classes > 0 && scores.len() == labels.len() * classes,
        "rows of a cross-entropy"
    );
    let mut probabilities = scores.to_vec();
    let mut losses = vec![0f32; labels.len()];
    let rows = probabilities
        .par_chunks_mut(classes)
        .zip(&mut losses)
        .with_min_len((super::BLOCK / classes).max(1));
    rows.enumerate().for_each(|(i, (p, loss))| {
        let label = labels[i];
        let scores = &scores[i * classes..][..classes];
        wide(
            #[inline(always)]
            || {
                let log_sum = softmax::row(p);
                if label != IGNORED {
                    let mean = super::sum(scores) / classes as f32;
                    *loss = log_sum
                        - (1.0 - smoothing) * scores[label as usize]
                        - if smoothing > 0.0 {
                            smoothing * mean
                        } else {
                            0.0
                        };
                }
            },
        );
    });
    (losses, probabilities)
}

/// Gradient of the scores from the gradient of every row's loss.
///
/// # Panics
/// If the lengths do not fit together.
pub fn cross_entropy_backward(
    probabilities: &[f32],
    classes: usize,
    labels: &[u32],
    smoothing: f32,
    grad: &[f32],
) -> Vec<f32> {
    assert!(
        probabilities.len() == labels.len() * classes && grad.len() == labels.len(),
        "rows of a cross-entropy"
    );
    let mut out = vec![0f32; probabilities.len()];
    let rows = out
        .par_chunks_mut(classes)
        .with_min_len((super::BLOCK / classes).max(1));
    rows.enumerate().for_each(|(i, out)| {
        let (label, g) = (labels[i], grad[i]);
        if label == IGNORED || g == 0.0 {
            return;
        }
        let share = smoothing / classes as f32;
        for (o, p) in out.iter_mut().zip(&probabilities[i * classes..]) {
            *o = g * (p - share);
        }
        out[label as usize] -= g * (1.0 - smoothing);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let x = [0.0, 3f32.ln(), 5.0, 5.0];
        let (loss, p) = cross_entropy(&x, 2, &[1, IGNORED], 0.0);
        assert!((loss[0] - (4f32 / 3.0).ln()).abs() < 1e-6 && loss[1] == 0.0);
        let g = cross_entropy_backward(&p, 2, &[1, IGNORED], 0.0, &[2.0, 2.0]);
        assert!((g[0] - 0.5).abs() < 1e-6 && (g[1] + 0.5).abs() < 1e-6 && g[2..] == [0.0, 0.0]);
        // Smoothed by 0.2: q = (0.1, 0.9).
        let (loss, p) = cross_entropy(&x[..2], 2, &[1], 0.2);
        assert!((loss[0] - (0.1 * 4f32.ln() + 0.9 * (4f32 / 3.0).ln())).abs() < 1e-6);
        let g = cross_entropy_backward(&p, 2, &[1], 0.2, &[1.0]);
        assert!((g[0] - 0.15).abs() < 1e-6 && (g[1] + 0.15).abs() < 1e-6);
    }
}
