//! Losses of targets: gradients and second derivatives by the scores.

use super::data::{Labels, Sample, Target};

/// Sigmoid that does not overflow.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// Logits to probabilities, in place. The log of the sum of exponentials is returned.
pub(super) fn softmax(x: &mut [f64]) -> f64 {
    let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - most).exp();
        sum += *x;
    }
    x.iter_mut().for_each(|x| *x /= sum);
    most + sum.ln()
}

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// `(y - f)^2 / 2`.
    Squared,
    /// `ln(1 + e^f) - y f` of two classes, one score.
    Logistic,
    /// `-ln softmax(f)_y` of so many classes, a score for each.
    Softmax(usize),
}

impl Loss {
    pub fn of(target: &Target) -> Self {
        match target.classes() {
            0 => Self::Squared,
            2 => Self::Logistic,
            n => Self::Softmax(n),
        }
    }

    /// Scores.
    pub fn width(self) -> usize {
        match self {
            Self::Softmax(n) => n,
            _ => 1,
        }
    }

    /// The loss of a label; writes negative gradients and, where asked for, second derivatives, both by weight.
    #[inline(always)]
    pub fn derive(
        self,
        label: f64,
        scores: &[f64],
        weight: f64,
        gradients: &mut [f32],
        hessians: Option<&mut [f32]>,
    ) -> f64 {
        match self {
            Self::Squared => {
                let r = label - scores[0];
                gradients[0] = (weight * r) as f32;
                if let Some(h) = hessians {
                    h[0] = weight as f32;
                }
                weight * r * r / 2.0
            }
            Self::Logistic => {
                let f = scores[0];
                let e = (-f.abs()).exp();
                let p = if f >= 0.0 { 1.0 } else { e } / (1.0 + e);
                gradients[0] = (weight * (label - p)) as f32;
                if let Some(h) = hessians {
                    h[0] = (weight * p * (1.0 - p)) as f32;
                }
                weight * (f.max(0.0) + e.ln_1p() - label * f)
            }
            Self::Softmax(n) => {
                let mut p = scores[..n].to_vec();
                let log = softmax(&mut p);
                let class = label as usize;
                for (k, (g, p)) in gradients.iter_mut().zip(&p).enumerate() {
                    let right = if k == class { 1.0 } else { 0.0 };
                    *g = (weight * (right - p)) as f32;
                }
                if let Some(h) = hessians {
                    for (h, p) in h.iter_mut().zip(&p) {
                        *h = (weight * p * (1.0 - p)) as f32;
                    }
                }
                weight * (log - scores[class])
            }
        }
    }
}

/// What labels say before anything is learned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Start {
    /// The first score, one for each of the loss's.
    pub scores: Vec<f64>,
    /// What numbers are divided by, less their mean, to be learned.
    pub scale: f64,
    /// Whether labels differ at all.
    pub varies: bool,
}

/// Least weight of a class in the first scores, so that one that is not there has odds.
const LEAST: f64 = 0.5;

impl Start {
    /// Mean and standard deviation, or logs of shares (of two classes their difference), by weight.
    pub fn of(sample: &Sample<'_>, target: &Target) -> Self {
        let rows = (0..sample.table.rows).filter_map(|row| {
            let weight = sample.weight(target, row);
            target.label(row).map(|y| (y, weight))
        });
        let rows = rows.filter(|(_, w)| *w > 0.0);
        match &target.labels {
            Labels::Regression(_) => {
                let sum = |f: &dyn Fn(f64) -> f64| rows.clone().map(|(y, w)| w * f(y)).sum::<f64>();
                let all = sum(&|_| 1.0);
                let mean = if all > 0.0 { sum(&|y| y) / all } else { 0.0 };
                // Relative to the largest difference: its square may be too large or too small for a number.
                let most = rows.clone().map(|(y, _)| (y - mean).abs());
                let most = most.fold(f64::MIN_POSITIVE, f64::max);
                let variance = sum(&|y| ((y - mean) / most).powi(2)) / all;
                let first = rows.clone().next().map(|r| r.0);
                let varies = rows.clone().any(|(y, _)| Some(y) != first);
                let spread = most * variance.sqrt();
                Self {
                    scores: vec![if varies { mean } else { first.unwrap_or(0.0) }],
                    scale: if varies && spread > 0.0 { spread } else { 1.0 },
                    varies: varies && spread > 0.0,
                }
            }
            Labels::Classification { classes, .. } => {
                let mut counts = vec![0f64; *classes];
                rows.for_each(|(y, w)| counts[y as usize] += w);
                let varies = counts.iter().filter(|n| **n > 0.0).count() > 1;
                let all: f64 = counts.iter().sum();
                let log = |n: &f64| (n.max(LEAST) / all.max(LEAST)).ln();
                let logs: Vec<f64> = counts.iter().map(log).collect();
                Self {
                    scores: match logs[..] {
                        [no, yes] => vec![yes - no],
                        _ => logs,
                    },
                    scale: 1.0,
                    varies,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{Table, UNKNOWN};
    use super::*;

    #[test]
    fn gradients_are_those_of_the_losses() {
        for (loss, label, scores) in [
            (Loss::Squared, 0.7, vec![0.2]),
            (Loss::Logistic, 1.0, vec![-0.4]),
            (Loss::Logistic, 0.0, vec![3.0]),
            (Loss::Softmax(3), 2.0, vec![0.1, -0.5, 1.2]),
        ] {
            let n = loss.width();
            let (mut g, mut h) = (vec![0f32; n], vec![0f32; n]);
            let at = |scores: &[f64]| loss.derive(label, scores, 2.0, &mut vec![0.0; n], None);
            loss.derive(label, &scores, 2.0, &mut g, Some(&mut h));
            for k in 0..n {
                let moved = |by: f64| {
                    let mut scores = scores.clone();
                    scores[k] += by;
                    scores
                };
                let e = 1e-4;
                let (up, down, here) = (at(&moved(e)), at(&moved(-e)), at(&scores));
                assert!((f64::from(-g[k]) - (up - down) / (2.0 * e)).abs() < 1e-6);
                assert!((f64::from(h[k]) - (up + down - 2.0 * here) / (e * e)).abs() < 1e-5);
            }
        }
        assert!(sigmoid(-800.0) >= 0.0 && sigmoid(800.0) == 1.0);
    }

    #[test]
    fn first_scores_are_means_and_logs_of_odds() {
        let table = |n: usize| Table {
            rows: n,
            ..Table::default()
        };
        let start = |labels: Labels| {
            let target = Target {
                name: "y".into(),
                labels,
                weights: None,
            };
            let table = table(target.len());
            let sample = Sample {
                table: &table,
                targets: std::slice::from_ref(&target),
            };
            Start::of(&sample, &target)
        };
        let classes = |classes, labels: &[u32]| Labels::Classification {
            classes,
            labels: labels.to_vec(),
        };
        let s = start(Labels::Regression(vec![1.0, f64::NAN, 5.0]));
        assert_eq!((s.scores[0], s.scale, s.varies), (3.0, 2.0, true));
        let s = start(Labels::Regression(vec![0.1; 3]));
        assert_eq!((s.scores[0], s.scale, s.varies), (0.1, 1.0, false));
        assert!(!start(Labels::Regression(vec![f64::NAN])).varies);
        for unit in [1e-200, 1e100] {
            let s = start(Labels::Regression(vec![0.0, unit]));
            assert!(s.varies && (s.scale / unit - 0.5).abs() < 1e-12, "{s:?}");
        }
        let s = start(classes(2, &[1, 1, 1, 0, UNKNOWN]));
        assert!((s.scores[0] - 3f64.ln()).abs() < 1e-12);
        let s = start(classes(2, &[1, 1]));
        assert_eq!((s.scores[0], s.varies), (4f64.ln(), false));
        let s = start(classes(3, &[0, 0, 1, 1]));
        assert_eq!(s.scores, [0.5f64.ln(), 0.5f64.ln(), 0.125f64.ln()]);
        assert!(start(classes(1, &[])).scores[0].is_finite());
    }
}
