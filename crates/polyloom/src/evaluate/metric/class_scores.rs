//! A score per class and example, and what is read off it directly: log loss, Brier score, accuracy within the best k.

use super::confusion::check_weight;
use crate::evaluate::error::same_length;
use crate::evaluate::sum::Sum;
use crate::evaluate::{EvalError, Result};

/// Scores or probabilities by rows: one row per example, one column per class.
#[derive(Debug, Clone, Copy)]
pub struct ClassScores<'a> {
    values: &'a [f64],
    classes: usize,
}

impl<'a> ClassScores<'a> {
    /// Rows of `classes` values.
    ///
    /// # Errors
    /// No values or classes, a last row that is not full, or a value that is `NaN`.
    pub fn new(values: &'a [f64], classes: usize) -> Result<Self> {
        let what = "scores of classes";
        if values.is_empty() || classes == 0 {
            return Err(EvalError::Empty { what });
        }
        if !values.len().is_multiple_of(classes) {
            let problem = format!("{} values do not fill rows of {classes}", values.len());
            return Err(EvalError::invalid(what, problem));
        }
        if let Some(i) = values.iter().position(|v| v.is_nan()) {
            let problem = format!("row {}, column {} is NaN", i / classes, i % classes);
            return Err(EvalError::invalid(what, problem));
        }
        Ok(Self { values, classes })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of examples.
    pub fn rows(&self) -> usize {
        self.values.len() / self.classes
    }

    /// Scores of an example.
    pub fn row(&self, i: usize) -> &'a [f64] {
        &self.values[i * self.classes..(i + 1) * self.classes]
    }

    /// The best class of an example and its score; the first of equal ones.
    pub fn best(&self, i: usize) -> (usize, f64) {
        let row = self.row(i);
        let better = |a: usize, b: usize| if row[b] > row[a] { b } else { a };
        let best = (0..row.len()).reduce(better).unwrap_or(0);
        (best, row[best])
    }

    /// Refuses what is not a probability distribution: a value outside [0, 1], a row whose sum is not 1 within 1e-5.
    ///
    /// # Errors
    /// The first such row.
    pub fn check_probabilities(&self) -> Result<()> {
        for (i, row) in self.values.chunks(self.classes).enumerate() {
            let total: f64 = row.iter().sum();
            let inside = row.iter().all(|p| (0.0..=1.0).contains(p));
            if !inside || (total - 1.0).abs() > 1e-5 {
                let problem = format!("row {i} is no distribution (sum {total})");
                return Err(EvalError::invalid("probabilities", problem));
            }
        }
        Ok(())
    }

    pub(crate) fn check_truth(&self, truth: &[u32]) -> Result<()> {
        same_length("truth and scores", truth.len(), self.rows())?;
        match truth.iter().find(|&&t| t as usize >= self.classes) {
            None => Ok(()),
            Some(t) => {
                let problem = format!("class {t} has no column (there are {})", self.classes);
                Err(EvalError::invalid("truth", problem))
            }
        }
    }
}

/// Mean of values by weights that were checked; 1 each unless given.
fn weighted_mean(values: impl Iterator<Item = f64>, weight: Option<&[f64]>) -> Result<f64> {
    let Some(weight) = weight else {
        return Ok(values.collect::<Sum>().mean());
    };
    let (mut above, mut below, mut count) = (Sum::default(), Sum::default(), 0);
    for (x, &w) in values.zip(weight) {
        check_weight("mean", w)?;
        above.add(x * w);
        below.add(w);
        count += 1;
    }
    same_length("examples and weights", count, weight.len())?;
    Ok(above.total() / below.total())
}

fn check_binary(truth: &[bool], p: &[f64], weight: Option<&[f64]>) -> Result<()> {
    same_length("truth and probabilities", truth.len(), p.len())?;
    if let Some(weight) = weight {
        same_length("examples and weights", truth.len(), weight.len())?;
    }
    match p.iter().position(|p| !(0.0..=1.0).contains(p)) {
        None => Ok(()),
        Some(i) => {
            let problem = format!("value {i} is {}, outside [0, 1]", p[i]);
            Err(EvalError::invalid("probabilities", problem))
        }
    }
}

/// The loss of an example whose right class got probability `p`: −ln p in nats, with p kept 2.2e-16 away from 0 and 1.
///
/// In [2.2e-16, 36.04].
pub fn surprise(p: f64) -> f64 {
    -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// Log loss of binary truth and probabilities of the positive class: the mean [`surprise`].
///
/// `NaN` where all weights are 0. Source: scikit-learn `log_loss`.
///
/// # Errors
/// Lists that are empty or of different lengths, a probability outside [0, 1], a bad weight.
pub fn log_loss_binary(truth: &[bool], p: &[f64], weight: Option<&[f64]>) -> Result<f64> {
    check_binary(truth, p, weight)?;
    let each = truth.iter().zip(p);
    weighted_mean(
        each.map(|(&t, &p)| surprise(if t { p } else { 1.0 - p })),
        weight,
    )
}

/// Log loss of several classes: the mean [`surprise`] of the probability that the right class got.
///
/// Source: scikit-learn `log_loss`. Differs: rows that are no distributions are refused, not warned about.
///
/// # Errors
/// Rows that are no distributions, a class without a column, lists of different lengths, a bad weight.
pub fn log_loss(truth: &[u32], p: &ClassScores<'_>, weight: Option<&[f64]>) -> Result<f64> {
    p.check_truth(truth)?;
    p.check_probabilities()?;
    let each = truth.iter().enumerate();
    weighted_mean(each.map(|(i, &t)| surprise(p.row(i)[t as usize])), weight)
}

/// Brier score of binary truth: the mean of (p − y)², in [0, 1], lower is better.
///
/// It is half of [`brier`] with two columns. Source: Brier 1950, scikit-learn `brier_score_loss`.
///
/// # Errors
/// As [`log_loss_binary`].
pub fn brier_binary(truth: &[bool], p: &[f64], weight: Option<&[f64]>) -> Result<f64> {
    check_binary(truth, p, weight)?;
    let each = truth.iter().zip(p);
    weighted_mean(each.map(|(&t, &p)| (p - f64::from(t)).powi(2)), weight)
}

/// Brier score of several classes: the mean of Σ (p − y)² over the columns, in [0, 2], lower is better.
///
/// Source: Brier 1950; the form of lm-eval's `brier_score`.
///
/// # Errors
/// As [`log_loss`].
pub fn brier(truth: &[u32], p: &ClassScores<'_>, weight: Option<&[f64]>) -> Result<f64> {
    p.check_truth(truth)?;
    p.check_probabilities()?;
    let each = truth.iter().enumerate().map(|(i, &t)| {
        let row = p.row(i).iter().enumerate();
        row.map(|(c, p)| (p - f64::from(c == t as usize)).powi(2))
            .sum()
    });
    weighted_mean(each, weight)
}

/// Share of examples whose right class is among the `k` best, in [0, 1]; chance is k over the number of classes.
///
/// Of equal scores the larger class comes first, as in scikit-learn's `top_k_accuracy_score`: where scores tie, k = 1
/// differs from the accuracy of the first best class. Cost: O(n classes).
///
/// # Errors
/// `k` of 0, a class without a column, lists of different lengths.
pub fn top_k_accuracy(truth: &[u32], scores: &ClassScores<'_>, k: usize) -> Result<f64> {
    scores.check_truth(truth)?;
    if k == 0 {
        return Err(EvalError::invalid("top-k accuracy", "k is 0"));
    }
    let among = |(i, &t): (usize, &u32)| {
        let (row, t) = (scores.row(i), t as usize);
        let above = |pair: &(usize, &f64)| *pair.1 > row[t] || *pair.1 == row[t] && pair.0 > t;
        row.iter().enumerate().filter(above).count() < k
    };
    let hits = truth.iter().enumerate().filter(|&pair| among(pair)).count();
    Ok(hits as f64 / truth.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (truth, p) = ([true, false], [0.5, 0.75]);
        let loss = log_loss_binary(&truth, &p, None).unwrap();
        assert!((loss - (2f64.ln() + 4f64.ln()) / 2.0).abs() < 1e-15);
        assert_eq!(
            brier_binary(&truth, &p, None).unwrap(),
            (0.25 + 0.5625) / 2.0
        );
        assert_eq!(
            brier_binary(&truth, &p, Some(&[3.0, 1.0])).unwrap(),
            1.3125 / 4.0
        );
        let rows = [0.5, 0.5, 0.25, 0.75];
        let rows = ClassScores::new(&rows, 2).unwrap();
        assert_eq!(brier(&[1, 0], &rows, None).unwrap(), 0.8125);
        assert!((log_loss(&[1, 0], &rows, None).unwrap() - loss).abs() < 1e-15);
        assert!((surprise(0.0) - 36.04365338911715).abs() < 1e-12 && surprise(1.0) > 0.0);
    }

    #[test]
    fn ties_favour_the_larger_class() {
        let rows = [0.2, 0.4, 0.4, 0.2, 0.4, 0.4];
        let scores = ClassScores::new(&rows, 3).unwrap();
        let top = |k| top_k_accuracy(&[1, 2], &scores, k).unwrap();
        assert_eq!((top(1), top(2)), (0.5, 1.0));
        assert_eq!(scores.best(0), (1, 0.4));
        assert!(top_k_accuracy(&[1, 2], &scores, 0).is_err());
    }

    #[test]
    fn refuses() {
        assert!(ClassScores::new(&[], 2).is_err() && ClassScores::new(&[0.1; 3], 2).is_err());
        assert!(ClassScores::new(&[f64::NAN], 1).is_err());
        let rows = [0.5, 0.4];
        let rows = ClassScores::new(&rows, 2).unwrap();
        assert!(log_loss(&[0], &rows, None).is_err());
        assert!(top_k_accuracy(&[2], &rows, 1).is_err());
        assert!(brier_binary(&[true], &[1.5], None).is_err());
        assert!(brier_binary(&[true], &[f64::NAN], None).is_err());
        assert!(log_loss_binary(&[true], &[0.5], Some(&[])).is_err());
        assert!(log_loss_binary(&[true], &[0.5], Some(&[f64::NAN])).is_err());
    }
}
