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

/// Entropy of the softmax of every row of scores, in nats, and the probabilities, which the backward pass reads.
///
/// # Panics
/// If `scores` is not whole rows.
pub fn entropy(scores: &[f32], classes: usize) -> (Vec<f32>, Vec<f32>) {
    assert!(
        classes > 0 && scores.len().is_multiple_of(classes),
        "rows of an entropy"
    );
    let mut probabilities = scores.to_vec();
    softmax::forward(&mut probabilities, classes);
    // What has no probability adds nothing.
    let part = |p: f32| {
        if p > 0.0 {
            -f64::from(p) * f64::from(p).ln()
        } else {
            0.0 * f64::from(p)
        }
    };
    let rows = probabilities
        .par_chunks(classes)
        .with_min_len((super::BLOCK / classes).max(1));
    let found = rows.map(|row| row.iter().map(|p| part(*p)).sum::<f64>() as f32);
    (found.collect(), probabilities)
}

/// Gradient of the scores from the gradient of every row's entropy: `-g p (ln p + H)`.
///
/// # Panics
/// If the lengths do not fit together.
pub fn entropy_backward(
    probabilities: &[f32],
    classes: usize,
    entropies: &[f32],
    grad: &[f32],
) -> Vec<f32> {
    assert!(
        probabilities.len() == entropies.len() * classes && grad.len() == entropies.len(),
        "rows of an entropy"
    );
    let mut out = vec![0f32; probabilities.len()];
    let rows = out
        .par_chunks_mut(classes)
        .with_min_len((super::BLOCK / classes).max(1));
    rows.enumerate().for_each(|(i, out)| {
        let (h, g) = (entropies[i], grad[i]);
        for (o, p) in out.iter_mut().zip(&probabilities[i * classes..]) {
            if *p > 0.0 {
                *o = -g * p * (p.ln() + h);
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_by_hand() {
        // Probabilities 1/4 and 3/4; one that is certain; a fair one.
        let x = [0.0, 3f32.ln(), 500.0, 0.0, 2.0, 2.0];
        let (h, p) = entropy(&x, 2);
        let first = 0.25 * 4f32.ln() + 0.75 * (4f32 / 3.0).ln();
        assert!((h[0] - first).abs() < 1e-6 && h[1] == 0.0 && (h[2] - 2f32.ln()).abs() < 1e-6);
        let g = entropy_backward(&p, 2, &h, &[2.0, 1.0, 1.0]);
        // dH/dx of the larger one: -p (ln p + H).
        let by_hand = -2.0 * 0.75 * (0.75f32.ln() + first);
        assert!((g[1] - by_hand).abs() < 1e-6 && (g[0] + by_hand).abs() < 1e-6);
        assert!(g[2..].iter().all(|x| x.abs() < 1e-6));
        assert!(entropy(&[f32::NAN, 0.0], 2).0[0].is_nan());
    }

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
