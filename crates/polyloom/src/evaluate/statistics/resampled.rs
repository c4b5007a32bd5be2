//! Scores of models whose training sets overlap, as those of the folds of a cross-validation do: how far their mean can be
//! believed.

use super::mean::standard_deviation;
use super::special::{t_quantile, t_two_sided};
use super::{Interval, check_finite, check_level};
use crate::evaluate::error::{EvalError, Result, same_length};
use crate::evaluate::sum::mean;

/// The mean of resampled scores, or of their differences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampled {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the values (divisor n - 1).
    pub deviation: f64,
    /// Corrected standard error of the mean.
    pub stderr: f64,
    /// Student's interval by it.
    pub interval: Interval,
    /// Mean over its standard error; `NaN` where all values are 0, infinite where they are all alike.
    pub t: f64,
    /// Two-sided p-value with n - 1 degrees of freedom; `NaN` with `t`.
    pub p: f64,
}

/// The corrected resampled t test: variance `s^2 (1/n + ratio)` of the mean, `ratio` being test rows over training rows of a
/// value, and n - 1 degrees of freedom.
///
/// Values of training sets that overlap are correlated, and `s^2/n` makes intervals too short by far: in k-fold
/// cross-validation two training sets share `(k-2)/(k-1)` of their rows. The correction takes the correlation to be
/// `test / (test + training)`, which is an approximation: no estimate of that variance from one data set is unbiased (Bengio
/// and Grandvalet 2004). Nadeau and Bengio, "Inference for the Generalization Error" (Machine Learning 2003), section 5, for
/// random splits; Bouckaert and Frank (PAKDD 2004) for repeated k-fold cross-validation, `ratio = 1/(k-1)`.
///
/// # Errors
/// Fewer than two values, one that is not finite, a ratio that is negative or not finite, a level outside (0, 1).
pub fn resampled(values: &[f64], ratio: f64, level: f64) -> Result<Resampled> {
    const WHAT: &str = "corrected resampled t test";
    same_length(WHAT, values.len(), values.len())?;
    check_finite(WHAT, values)?;
    check_level(WHAT, level)?;
    if values.len() < 2 {
        return Err(EvalError::invalid(WHAT, "one value has no spread"));
    }
    if !(ratio.is_finite() && ratio >= 0.0) {
        let problem = format!("test rows over training rows are {ratio}");
        return Err(EvalError::invalid(WHAT, problem));
    }
    let n = values.len() as f64;
    let centre = mean(values.iter().copied());
    let deviation = standard_deviation(values);
    let stderr = deviation * (1.0 / n + ratio).sqrt();
    let half = t_quantile(0.5 + 0.5 * level, n - 1.0) * stderr;
    let t = centre / stderr;
    Ok(Resampled {
        mean: centre,
        deviation,
        stderr,
        interval: Interval::new(centre - half, centre + half),
        t,
        p: t_two_sided(t, n - 1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::statistics::mean::t_interval;

    #[test]
    fn two_values_by_hand() {
        // s^2 = 2, so the error is sqrt(2 (1/2 + 1/2)); p of a Cauchy value at sqrt 2.
        let found = resampled(&[1.0, 3.0], 0.5, 0.5).unwrap();
        let root = std::f64::consts::SQRT_2;
        assert!((found.stderr - root).abs() < 1e-15 && found.mean == 2.0);
        assert!((found.p - (1.0 - 2.0 / std::f64::consts::PI * root.atan())).abs() < 1e-14);
        // t with one degree of freedom at 0.75 is 1.
        assert!((found.interval.low - (2.0 - root)).abs() < 1e-14);
        assert!((found.interval.high - (2.0 + root)).abs() < 1e-14);
    }

    #[test]
    fn ten_folds_as_another_program_has_them() {
        // scipy: std(ddof=1) * sqrt(1/10 + 1/9), 2 * t.sf(|t|, 9), t.ppf(0.975, 9).
        let values = [
            0.012, -0.004, 0.02, 0.007, 0.015, 0.001, -0.01, 0.018, 0.006, 0.009,
        ];
        let found = resampled(&values, 1.0 / 9.0, 0.95).unwrap();
        assert!((found.mean - 0.0074).abs() < 1e-15);
        assert!(
            (found.stderr - 0.004_408_129_414_873_343).abs() < 1e-12,
            "{found:?}"
        );
        assert!(
            (found.p - 0.127_514_968_822_558_7).abs() < 1e-10,
            "{found:?}"
        );
        assert!(
            (found.interval.high - 0.017_371_881_530_397_194).abs() < 1e-10,
            "{found:?}"
        );
    }

    #[test]
    fn apart_from_the_correction_it_is_students() {
        let values = [0.3, 0.1, 0.4, 0.1, 0.5];
        let plain = t_interval(&values, 0.9).unwrap();
        let found = resampled(&values, 0.0, 0.9).unwrap();
        assert!((found.interval.low - plain.low).abs() < 1e-15);
        let wide = resampled(&values, 0.25, 0.9).unwrap();
        assert!(wide.interval.low < plain.low && wide.interval.high > plain.high);
    }

    #[test]
    fn what_has_no_answer() {
        assert!(resampled(&[], 0.1, 0.95).is_err() && resampled(&[1.0], 0.1, 0.95).is_err());
        assert!(resampled(&[1.0, f64::NAN], 0.1, 0.95).is_err());
        assert!(resampled(&[1.0, 2.0], -0.1, 0.95).is_err());
        assert!(resampled(&[1.0, 2.0], 0.1, 1.0).is_err());
        assert!(resampled(&[0.0, 0.0], 0.1, 0.95).unwrap().p.is_nan());
        assert_eq!(resampled(&[2.0, 2.0], 0.1, 0.95).unwrap().p, 0.0);
    }
}
