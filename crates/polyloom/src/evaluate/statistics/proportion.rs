//! Intervals for a share of successes, such as an accuracy.

use super::special::{beta_quantile, normal_quantile};
use super::{Interval, check_level};
use crate::evaluate::error::{EvalError, Result};

/// How the interval of a proportion is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProportionMethod {
    /// Wilson's score interval (1927): right on average over all proportions, also near 0 and 1. The default.
    #[default]
    Wilson,
    /// Wilson's with the continuity correction: wider, closer to [`Self::ClopperPearson`].
    WilsonCorrected,
    /// Clopper and Pearson (1934), "exact": covers at least the level for every proportion, and so is wider than needed.
    ClopperPearson,
    /// The textbook's `p ± z sqrt(p(1-p)/n)`: of width 0 when all or none succeed. For comparison with other reports.
    Wald,
}

/// Interval at `level` (0.95, say) for the success probability after `successes` of `n` trials, as fractions.
///
/// The bounds stay in `[0, 1]` except Wald's. Cost: constant; Clopper–Pearson solves for two beta quantiles.
/// Peers: `scipy.stats.binomtest(k, n).proportion_ci` (`wilson`, `wilsoncc`, `exact`), which these equal.
///
/// # Errors
/// No trials, more successes than trials, or a level outside (0, 1).
pub fn proportion(
    successes: u64,
    n: u64,
    level: f64,
    method: ProportionMethod,
) -> Result<Interval> {
    const WHAT: &str = "interval of a proportion";
    check_level(WHAT, level)?;
    if n == 0 {
        return Err(EvalError::Empty { what: WHAT });
    }
    if successes > n {
        let problem = format!("{successes} successes in {n} trials");
        return Err(EvalError::invalid(WHAT, problem));
    }
    let (k, total) = (successes as f64, n as f64);
    let p = k / total;
    let z = -normal_quantile(0.5 * (1.0 - level));
    Ok(match method {
        ProportionMethod::Wald => {
            let half = z * (p * (1.0 - p) / total).sqrt();
            Interval::new(p - half, p + half)
        }
        ProportionMethod::Wilson => {
            let centre = p + z * z / (2.0 * total);
            let half = z * (p * (1.0 - p) / total + z * z / (4.0 * total * total)).sqrt();
            let scale = 1.0 + z * z / total;
            bounded(
                successes,
                n,
                (centre - half) / scale,
                (centre + half) / scale,
            )
        }
        ProportionMethod::WilsonCorrected => {
            let scale = 2.0 * (total + z * z);
            let centre = 2.0 * k + z * z;
            let spread = |sign: f64| {
                let inner = z * z - 1.0 / total + 4.0 * k * (1.0 - p) - sign * (4.0 * p - 2.0);
                1.0 + z * inner.max(0.0).sqrt()
            };
            let low = (centre - spread(-1.0)) / scale;
            bounded(successes, n, low, (centre + spread(1.0)) / scale)
        }
        ProportionMethod::ClopperPearson => {
            let tail = 0.5 * (1.0 - level);
            let low = beta_quantile(tail, k, total - k + 1.0);
            let high = 1.0 - beta_quantile(tail, total - k, k + 1.0);
            bounded(successes, n, low, high)
        }
    })
}

/// Nothing below 0 or above 1, and exactly those where none or all succeeded.
fn bounded(successes: u64, n: u64, low: f64, high: f64) -> Interval {
    let low = if successes == 0 { 0.0 } else { low.max(0.0) };
    let high = if successes == n { 1.0 } else { high.min(1.0) };
    Interval::new(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_of_one() {
        // Clopper-Pearson: the p at which one success has probability 0.025 is 0.025 itself.
        let exact = proportion(1, 1, 0.95, ProportionMethod::ClopperPearson).unwrap();
        assert!((exact.low - 0.025).abs() < 1e-15 && exact.high == 1.0);
        // Wilson: the p with (1 - p)^2 / (p (1 - p)) = z^2, so 1 / (1 + z^2).
        let wilson = proportion(1, 1, 0.95, ProportionMethod::Wilson).unwrap();
        assert!((wilson.low - 1.0 / (1.0 + 1.959_963_984_540_054f64.powi(2))).abs() < 1e-14);
    }

    #[test]
    fn all_methods_agree_on_many_trials() {
        use ProportionMethod::{ClopperPearson, Wald, Wilson, WilsonCorrected};
        let found = [Wilson, WilsonCorrected, ClopperPearson, Wald]
            .map(|method| proportion(300_000_000, 1_000_000_000, 0.9, method).unwrap());
        for interval in found {
            assert!((interval.low - found[3].low).abs() < 2e-8);
            assert!((interval.high - found[3].high).abs() < 2e-8);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(proportion(0, 0, 0.95, ProportionMethod::Wilson).is_err());
        assert!(proportion(2, 1, 0.95, ProportionMethod::Wilson).is_err());
        for level in [0.0, 1.0, f64::NAN, 95.0] {
            assert!(proportion(1, 2, level, ProportionMethod::Wilson).is_err());
        }
    }
}
