//! Before the run: how many examples a difference needs, and which difference so many examples can show.
//!
//! Both are for a paired comparison of means with a two-sided test and normal approximation, where `sd_difference` is the
//! standard deviation of the per-example differences. Source: any textbook; methods/evaluation.md 3.11.

use super::special::{normal_cdf, normal_quantile, normal_sf};
use crate::evaluate::error::{EvalError, Result};

/// Examples needed so that a true difference `delta` is found with probability `power` at level `alpha`:
/// `ceil(((z_(1-alpha/2) + z_power) sd / delta)^2)`.
///
/// # Errors
/// A standard deviation below 0, a difference of 0, or `alpha` or `power` outside (0, 1).
pub fn examples_needed(sd_difference: f64, delta: f64, alpha: f64, power: f64) -> Result<u64> {
    let z = quantiles(sd_difference, alpha, power)?;
    if !delta.is_finite() || delta == 0.0 {
        let problem = format!("no number of examples shows a difference of {delta}");
        return Err(EvalError::invalid("examples needed", problem));
    }
    Ok((z * sd_difference / delta).powi(2).ceil() as u64)
}

/// The smallest true difference that `n` examples show with probability `power` at level `alpha`:
/// `(z_(1-alpha/2) + z_power) sd / sqrt(n)`, in the unit of the metric. Smaller ones may be there and stay unseen.
///
/// # Errors
/// No examples, a standard deviation below 0, or `alpha` or `power` outside (0, 1).
pub fn minimum_detectable(sd_difference: f64, n: u64, alpha: f64, power: f64) -> Result<f64> {
    let z = quantiles(sd_difference, alpha, power)?;
    if n == 0 {
        return Err(EvalError::Empty {
            what: "minimum detectable difference",
        });
    }
    Ok(z * sd_difference / (n as f64).sqrt())
}

/// Probability that the two-sided test at level `alpha` finds a true difference `delta` on `n` examples, both tails
/// counted; 1 for any difference where the differences do not vary.
///
/// # Errors
/// No examples, a standard deviation below 0, or `alpha` outside (0, 1).
pub fn power(sd_difference: f64, delta: f64, n: u64, alpha: f64) -> Result<f64> {
    quantiles(sd_difference, alpha, 0.5)?;
    if n == 0 || !delta.is_finite() {
        let problem = format!("a difference of {delta} on {n} examples");
        return Err(EvalError::invalid("power", problem));
    }
    let critical = -normal_quantile(0.5 * alpha);
    if sd_difference == 0.0 {
        return Ok(if delta == 0.0 { alpha } else { 1.0 });
    }
    let shift = delta.abs() * (n as f64).sqrt() / sd_difference;
    Ok(normal_sf(critical - shift) + normal_cdf(-critical - shift))
}

fn quantiles(sd_difference: f64, alpha: f64, power: f64) -> Result<f64> {
    let inside = |p: f64| p > 0.0 && p < 1.0;
    let possible = sd_difference >= 0.0 && sd_difference.is_finite();
    if !possible || !inside(alpha) || !inside(power) {
        let problem = format!(
            "standard deviation {sd_difference}, alpha {alpha}, power {power}: wanted >= 0, in (0, 1), in (0, 1)"
        );
        return Err(EvalError::invalid("power", problem));
    }
    Ok(-normal_quantile(0.5 * alpha) + normal_quantile(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_agree() {
        // (1.96 + 0.8416) * 0.5 / 0.1 = 14.008, squared 196.2
        assert_eq!(examples_needed(0.5, 0.1, 0.05, 0.8).unwrap(), 197);
        let least = minimum_detectable(0.5, 197, 0.05, 0.8).unwrap();
        assert!(least < 0.1 && least > 0.0997);
        assert!((power(0.5, least, 197, 0.05).unwrap() - 0.8).abs() < 1e-5);
        assert!((power(0.5, 0.0, 197, 0.05).unwrap() - 0.05).abs() < 1e-15);
        assert_eq!(examples_needed(0.5, -0.1, 0.05, 0.8).unwrap(), 197);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(examples_needed(0.5, 0.0, 0.05, 0.8).is_err());
        assert!(examples_needed(-0.5, 0.1, 0.05, 0.8).is_err());
        assert!(minimum_detectable(0.5, 0, 0.05, 0.8).is_err());
        assert!(minimum_detectable(f64::NAN, 10, 0.05, 0.8).is_err());
        assert!(power(0.5, 0.1, 10, 1.0).is_err());
    }
}
