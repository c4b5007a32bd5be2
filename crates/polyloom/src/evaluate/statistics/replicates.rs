//! Intervals from the draws of a bootstrap.

use super::mean::standard_deviation;
use super::special::{normal_cdf, normal_quantile};
use super::{Interval, check_level};
use crate::evaluate::error::{EvalError, Result};
use crate::evaluate::sum::Sum;

/// A statistic on the examples and on every draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicates {
    /// The statistic on the examples themselves.
    pub point: f64,
    /// The statistic on each draw, in the order of the draws; `NaN` where it is not defined.
    pub values: Vec<f64>,
}

/// The bias-corrected and accelerated interval, with what it was computed from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bca {
    /// Normal quantile of the share of draws below the point estimate, ties counted one half.
    pub z0: f64,
    /// Acceleration: a sixth of the jackknife values' skewness; 0 where they are all equal.
    pub acceleration: f64,
    /// Shares of the draws at which the bounds are read.
    pub alpha: [f64; 2],
    /// The interval.
    pub interval: Interval,
}

impl Replicates {
    /// How many draws have no defined statistic. They enter no interval; a report names their number.
    pub fn undefined(&self) -> usize {
        self.values.iter().filter(|x| x.is_nan()).count()
    }

    /// Standard deviation of the draws (divisor B - 1): the standard error of the statistic.
    pub fn standard_error(&self) -> f64 {
        standard_deviation(&self.sorted())
    }

    /// The middle `level` of the draws.
    ///
    /// # Errors
    /// A level outside (0, 1), or no defined draw.
    pub fn percentile(&self, level: f64) -> Result<Interval> {
        let tail = self.tail(level)?;
        let sorted = self.sorted();
        let at = |p| quantile_of_sorted(&sorted, p);
        Ok(Interval::new(at(tail), at(1.0 - tail)))
    }

    /// The percentile interval mirrored at the point estimate ("reverse percentile", Davison and Hinkley 1997); may
    /// leave the range of the statistic.
    ///
    /// # Errors
    /// A level outside (0, 1), or no defined draw.
    pub fn basic(&self, level: f64) -> Result<Interval> {
        let percentile = self.percentile(level)?;
        let mirror = 2.0 * self.point;
        Ok(Interval::new(
            mirror - percentile.high,
            mirror - percentile.low,
        ))
    }

    /// Efron's BCa interval (1987): corrects the percentile interval for bias and skewness.
    ///
    /// `jackknife` holds the statistic without each example, as pairs of a value and how many examples give it
    /// ([`super::bootstrap::jackknife_counts`] and its siblings). Bounds are `NaN` where all draws lie on one side of the
    /// point estimate. Peer: `scipy.stats.bootstrap(method="BCa")`, which counts ties with the point estimate one half too.
    ///
    /// # Errors
    /// A level outside (0, 1), no defined draw, or no jackknife values.
    pub fn bca(&self, level: f64, jackknife: &[(f64, u64)]) -> Result<Bca> {
        let tail = self.tail(level)?;
        if jackknife.is_empty() {
            return Err(EvalError::Empty {
                what: "jackknife of a BCa interval",
            });
        }
        let sorted = self.sorted();
        let below = sorted.partition_point(|&x| x < self.point);
        let up_to = sorted.partition_point(|&x| x <= self.point);
        let share = (below + up_to) as f64 / (2 * sorted.len()) as f64;
        let z0 = normal_quantile(share);
        let acceleration = acceleration(jackknife);
        let z = normal_quantile(tail);
        let alpha = [z, -z].map(|z| {
            let shifted = z0 + z;
            normal_cdf(z0 + shifted / (1.0 - acceleration * shifted))
        });
        let [low, high] = alpha.map(|a| quantile_of_sorted(&sorted, a));
        Ok(Bca {
            z0,
            acceleration,
            alpha,
            interval: Interval::new(low, high),
        })
    }

    fn tail(&self, level: f64) -> Result<f64> {
        const WHAT: &str = "bootstrap interval";
        check_level(WHAT, level)?;
        if self.values.len() == self.undefined() {
            return Err(EvalError::Empty { what: WHAT });
        }
        Ok(0.5 * (1.0 - level))
    }

    fn sorted(&self) -> Vec<f64> {
        let defined = self.values.iter().copied().filter(|x| !x.is_nan());
        let mut sorted: Vec<f64> = defined.collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }
}

/// A sixth of the skewness, as Efron's formula has it.
fn acceleration(jackknife: &[(f64, u64)]) -> f64 {
    let examples: u64 = jackknife.iter().map(|(_, n)| n).sum();
    let power_sum = |centre: f64, power: i32| {
        let terms = jackknife.iter();
        let terms = terms.map(|&(x, n)| n as f64 * (centre - x).powi(power));
        terms.collect::<Sum>().total()
    };
    let centre = -power_sum(0.0, 1) / examples as f64;
    let squares = power_sum(centre, 2);
    if squares == 0.0 {
        return 0.0;
    }
    power_sum(centre, 3) / (6.0 * squares.powf(1.5))
}

/// Quantile of ascending values, linear between them (type 7: numpy's and R's default); `NaN` for `p` outside `[0, 1]`
/// or no values.
pub fn quantile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    if sorted.is_empty() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let place = p * (sorted.len() - 1) as f64;
    let low = place.floor() as usize;
    let share = place - low as f64;
    match sorted.get(low + 1) {
        Some(next) if share > 0.0 => sorted[low] + share * (next - sorted[low]),
        _ => sorted[low],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_by_hand() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let found = [0.0, 0.25, 0.5, 0.9, 1.0].map(|p| quantile_of_sorted(&sorted, p));
        for (f, wanted) in found.iter().zip([1.0, 1.75, 3.0, 6.8, 8.0]) {
            assert!((f - wanted).abs() < 1e-14);
        }
        assert!(quantile_of_sorted(&sorted, f64::NAN).is_nan());
        assert!(quantile_of_sorted(&[], 0.5).is_nan());
    }

    #[test]
    fn intervals_by_hand() {
        let replicates = Replicates {
            point: 2.0,
            values: vec![4.0, f64::NAN, 0.0, 3.0, 1.0, 2.0],
        };
        assert_eq!(replicates.undefined(), 1);
        assert_eq!(replicates.percentile(0.5).unwrap(), Interval::new(1.0, 3.0));
        assert_eq!(replicates.basic(0.5).unwrap(), Interval::new(1.0, 3.0));
        // Nothing to correct: symmetric draws, jackknife without skewness.
        let bca = replicates.bca(0.5, &[(1.0, 2), (2.0, 2)]).unwrap();
        assert!((bca.interval.low - 1.0).abs() < 1e-12 && (bca.interval.high - 3.0).abs() < 1e-12);
        assert!(bca.z0.abs() < 1e-15 && bca.acceleration == 0.0);
        assert!(replicates.percentile(1.0).is_err() && replicates.bca(0.5, &[]).is_err());
        let none = Replicates {
            point: f64::NAN,
            values: vec![f64::NAN],
        };
        assert!(none.basic(0.9).is_err());
    }

    #[test]
    fn skewness_by_hand() {
        // Deviations from the mean 1: 1, 1, -2; cubes sum to -6, squares to 6.
        let found = acceleration(&[(0.0, 2), (3.0, 1)]);
        assert!((found + 6.0 / (6.0 * 6f64.powf(1.5))).abs() < 1e-16);
    }

    proptest! {
        #[test]
        fn higher_levels_are_wider(values in prop::collection::vec(-5.0..5.0f64, 2..50), point in -5.0..5.0f64) {
            let replicates = Replicates { point, values };
            let (narrow, wide) = (replicates.percentile(0.5).unwrap(), replicates.percentile(0.9).unwrap());
            prop_assert!(wide.low <= narrow.low && narrow.low <= narrow.high && narrow.high <= wide.high);
            let mut backwards = replicates.clone();
            backwards.values.reverse();
            prop_assert_eq!(backwards.percentile(0.9).unwrap(), wide);
        }
    }
}
