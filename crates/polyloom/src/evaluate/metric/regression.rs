//! How far predicted numbers are from the true ones.

use crate::evaluate::error::same_length;
use crate::evaluate::sum::{Sum, mean, sum};
use crate::evaluate::{EvalError, Result};

/// Errors of predictions, filled one by one and merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Errors {
    squared: Sum,
    absolute: Sum,
    relative: Sum,
    max: f64,
}

/// The finished means of [`Errors`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorMeans {
    /// Mean squared error.
    pub mse: f64,
    /// Its root, in the unit of the values.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Mean of |y − ŷ| / max(|y|, 2.2e-16): a fraction, huge where a true value is 0.
    pub mape: f64,
    /// Largest absolute error.
    pub max: f64,
}

impl Errors {
    /// Adds a true and a predicted value.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn add(&mut self, truth: f64, predicted: f64) -> Result<()> {
        if !truth.is_finite() || !predicted.is_finite() {
            let problem = format!("{predicted} predicted for {truth}");
            return Err(EvalError::invalid("regression", problem));
        }
        let error = (truth - predicted).abs();
        self.squared.add(error * error);
        self.absolute.add(error);
        self.relative.add(error / truth.abs().max(f64::EPSILON));
        self.max = self.max.max(error);
        Ok(())
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        self.squared.merge(&other.squared);
        self.absolute.merge(&other.absolute);
        self.relative.merge(&other.relative);
        self.max = self.max.max(other.max);
    }

    /// The means. Source: scikit-learn `mean_squared_error`, `mean_absolute_error`, `mean_absolute_percentage_error`,
    /// `max_error`.
    ///
    /// # Errors
    /// Nothing was added.
    pub fn finish(&self) -> Result<ErrorMeans> {
        if self.squared.count() == 0 {
            return Err(EvalError::Empty { what: "regression" });
        }
        Ok(ErrorMeans {
            mse: self.squared.mean(),
            rmse: self.squared.mean().sqrt(),
            mae: self.absolute.mean(),
            mape: self.relative.mean(),
            max: self.max,
        })
    }
}

/// Refuses lists that are empty, of different lengths or hold what is not finite.
fn check(truth: &[f64], predicted: &[f64]) -> Result<()> {
    errors(truth, predicted).map(|_| ())
}

/// Errors of two lists.
///
/// # Errors
/// Lists that are empty or of different lengths, or a value that is not finite.
pub fn errors(truth: &[f64], predicted: &[f64]) -> Result<Errors> {
    same_length("true and predicted values", truth.len(), predicted.len())?;
    let mut all = Errors::default();
    let mut pairs = truth.iter().zip(predicted);
    pairs.try_for_each(|(&t, &p)| all.add(t, p))?;
    Ok(all)
}

/// Median absolute error; of an even number the mean of the middle two. Cost: O(n).
///
/// Source: scikit-learn `median_absolute_error`.
///
/// # Errors
/// As [`errors`].
pub fn median_absolute_error(truth: &[f64], predicted: &[f64]) -> Result<f64> {
    check(truth, predicted)?;
    let mut each: Vec<f64> = truth
        .iter()
        .zip(predicted)
        .map(|(t, p)| (t - p).abs())
        .collect();
    let half = each.len() / 2;
    let even = each.len().is_multiple_of(2);
    let (below, middle, _) = each.select_nth_unstable_by(half, f64::total_cmp);
    let middle = *middle;
    if !even {
        return Ok(middle);
    }
    let before = below.iter().copied().fold(0.0, f64::max);
    Ok(before + (middle - before) / 2.0)
}

/// Squared distances from the mean, exactly 0 where all values are equal.
fn spread(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let mut others = values.clone();
    let first = others.next();
    if others.all(|x| Some(x) == first) {
        return 0.0;
    }
    let centre = mean(values.clone());
    sum(values.map(|x| (x - centre).powi(2)))
}

/// 1 − left over / all; without anything to explain 1 where nothing is left, else 0.
fn explained(left: f64, all: f64) -> f64 {
    if all == 0.0 {
        return f64::from(left == 0.0);
    }
    1.0 - left / all
}

/// R², the share of the squared distances from the mean that the predictions explain: at most 1, 0 for the mean itself,
/// below 0 for worse. For a constant truth 1 where all is right, else 0. `NaN` for one example.
///
/// Source: scikit-learn `r2_score`.
///
/// # Errors
/// As [`errors`].
pub fn r2(truth: &[f64], predicted: &[f64]) -> Result<f64> {
    check(truth, predicted)?;
    if truth.len() < 2 {
        return Ok(f64::NAN);
    }
    let left = sum(truth.iter().zip(predicted).map(|(t, p)| (t - p).powi(2)));
    Ok(explained(left, spread(truth.iter().copied())))
}

/// Explained variance: as [`r2`], but a constant error costs nothing, and one example is explained.
///
/// Source: scikit-learn `explained_variance_score`.
///
/// # Errors
/// As [`errors`].
pub fn explained_variance(truth: &[f64], predicted: &[f64]) -> Result<f64> {
    check(truth, predicted)?;
    let left = spread(truth.iter().zip(predicted).map(|(t, p)| t - p));
    Ok(explained(left, spread(truth.iter().copied())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let (truth, predicted) = ([1.0, 2.0, 4.0, 5.0], [1.0, 3.0, 4.0, 8.0]);
        let all = errors(&truth, &predicted).unwrap().finish().unwrap();
        assert_eq!((all.mse, all.mae, all.max), (2.5, 1.0, 3.0));
        assert!((all.mape - (0.5 + 0.6) / 4.0).abs() < 1e-15);
        assert_eq!(median_absolute_error(&truth, &predicted).unwrap(), 0.5);
        // Distances from 3: 4 + 1 + 1 + 4 = 10; errors squared 10; about their mean of 1: 6.
        assert_eq!(r2(&truth, &predicted).unwrap(), 0.0);
        assert_eq!(explained_variance(&truth, &predicted).unwrap(), 0.4);
    }

    #[test]
    fn nothing_to_explain() {
        let tenths = [0.1; 3];
        assert_eq!(r2(&tenths, &tenths).unwrap(), 1.0);
        assert_eq!(r2(&tenths, &[0.2; 3]).unwrap(), 0.0);
        assert_eq!(explained_variance(&tenths, &[0.2; 3]).unwrap(), 1.0);
        assert!(r2(&[1.0], &[1.0]).unwrap().is_nan());
    }

    #[test]
    fn refuses() {
        assert!(r2(&[], &[]).is_err() && errors(&[1.0], &[]).is_err());
        assert!(median_absolute_error(&[1.0, f64::NAN], &[1.0, 1.0]).is_err());
        assert!(errors(&[1.0], &[f64::INFINITY]).is_err());
        assert!(Errors::default().finish().is_err());
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(
            rows in prop::collection::vec((-50i32..50, -50i32..50), 1..40),
            cut in 0usize..40,
        ) {
            let fill = |rows: &[(i32, i32)]| {
                let mut all = Errors::default();
                for &(t, p) in rows {
                    all.add(f64::from(t) / 4.0, f64::from(p) / 4.0).unwrap();
                }
                all
            };
            let cut = cut.min(rows.len());
            let mut merged = fill(&rows[cut..]);
            merged.merge(&fill(&rows[..cut]));
            let (merged, whole) = (merged.finish().unwrap(), fill(&rows).finish().unwrap());
            prop_assert_eq!((merged.mse, merged.mae, merged.max), (whole.mse, whole.mae, whole.max));
            let close = (merged.mape - whole.mape).abs() <= 4.0 * f64::EPSILON * whole.mape;
            prop_assert!(close);
        }
    }
}
