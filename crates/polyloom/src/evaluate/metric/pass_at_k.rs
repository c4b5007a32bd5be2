//! Repeated sampling: how often at least one of k answers passes, how that grows with k, and how rare passes grow with
//! the size of the model.

use crate::evaluate::error::same_length;
use crate::evaluate::sum::{Sum, mean, sum};
use crate::evaluate::{EvalError, Result};

fn check(what: &'static str, samples: u64, passes: u64, k: u64) -> Result<()> {
    if passes > samples {
        let problem = format!("{passes} passes of {samples} samples");
        return Err(EvalError::invalid(what, problem));
    }
    if k == 0 {
        return Err(EvalError::invalid(what, "k is 0"));
    }
    Ok(())
}

/// pass@k of one problem: the chance that at least one of k samples passes, estimated without bias from more samples,
/// 1 − C(n − c, k) / C(n, k) (Chen et al. 2021). None where k is larger than n: that cannot be known. O(min(c, k)), and
/// small values keep their digits.
///
/// # Errors
/// More passes than samples, k = 0.
pub fn pass_at_k(samples: u64, passes: u64, k: u64) -> Result<Option<f64>> {
    check("pass@k", samples, passes, k)?;
    if k > samples {
        return Ok(None);
    }
    if passes > samples - k {
        return Ok(Some(1.0));
    }
    // C(n − c, k) / C(n, k) is a product of min(c, k) factors, the same for c and k exchanged.
    let (few, many) = (passes.min(k), passes.max(k));
    let logs = (samples - few + 1..=samples).map(|i| (-(many as f64) / i as f64).ln_1p());
    Ok(Some(-sum(logs).exp_m1()))
}

/// pass^k of one problem: the chance that all of k samples pass, C(c, k) / C(n, k). None where k is larger than n. O(k).
///
/// # Errors
/// More passes than samples, k = 0.
pub fn pass_hat_k(samples: u64, passes: u64, k: u64) -> Result<Option<f64>> {
    check("pass^k", samples, passes, k)?;
    if k > samples {
        return Ok(None);
    }
    if k > passes {
        return Ok(Some(0.0));
    }
    let logs = (0..k).map(|i| ((passes - i) as f64 / (samples - i) as f64).ln());
    Ok(Some(sum(logs).exp()))
}

/// Coverage: mean pass@k over problems, given as (samples, passes), for each k. None for a k that is larger than the
/// samples of some problem.
///
/// # Errors
/// No problems, and as [`pass_at_k`].
pub fn coverage(problems: &[(u64, u64)], ks: &[u64]) -> Result<Vec<Option<f64>>> {
    if problems.is_empty() {
        return Err(EvalError::Empty { what: "coverage" });
    }
    ks.iter()
        .map(|&k| {
            let mut total = Sum::default();
            for &(samples, passes) in problems {
                match pass_at_k(samples, passes, k)? {
                    Some(p) => total.add(p),
                    None => return Ok(None),
                }
            }
            Ok(Some(total.mean()))
        })
        .collect()
}

/// 1, 2, 4, ... below `most`, and `most`: the ks of a curve.
pub fn doublings(most: u64) -> Vec<u64> {
    let powers = std::iter::successors(Some(1u64), |k| k.checked_mul(2));
    powers.take_while(|k| *k < most).chain([most]).collect()
}

/// The curve c(k) = exp(a · k^b) (Brown et al. 2024, "Large Language Monkeys").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerLaw {
    /// Logarithm of the coverage at k = 1.
    pub a: f64,
    /// Exponent; below 0 where coverage grows.
    pub b: f64,
    /// Root mean square of the residuals of log coverage.
    pub residual: f64,
}

impl PowerLaw {
    /// Coverage that the curve has at k.
    pub fn at(&self, k: f64) -> f64 {
        (self.a * k.powf(self.b)).exp()
    }

    /// Least squares on the logarithm of coverage. Points without coverage are left out, since they have no logarithm. Far
    /// beyond the largest k the curve is biased where coverage is near 0; check it on ks that were held out.
    ///
    /// For each b the best a has a closed form, so the search is over b alone: a grid from −4 to 4, then golden section
    /// about its best point.
    ///
    /// # Errors
    /// Lists of different lengths, a k below 0 or not finite, coverage outside 0 to 1, fewer than two different ks with
    /// coverage.
    pub fn fit(ks: &[f64], coverage: &[f64]) -> Result<Self> {
        const WHAT: &str = "power law of coverage";
        same_length(WHAT, ks.len(), coverage.len())?;
        for (k, c) in ks.iter().zip(coverage) {
            if !(k.is_finite() && *k > 0.0 && (0.0..=1.0).contains(c)) {
                let problem = format!("coverage {c} at k = {k}");
                return Err(EvalError::invalid(WHAT, problem));
            }
        }
        let points = ks.iter().zip(coverage).filter(|(_, c)| **c > 0.0);
        let points: Vec<(f64, f64)> = points.map(|(k, c)| (k.ln(), c.ln())).collect();
        if points.iter().all(|p| p.0 == points[0].0) {
            let problem = "two different k with coverage are needed";
            return Err(EvalError::invalid(WHAT, problem));
        }
        // About the middle of the ks, a and b hardly depend on each other.
        let middle = mean(points.iter().map(|p| p.0));
        let best_a = |b: f64| {
            let x = |k: f64| (b * (k - middle)).exp();
            let below = sum(points.iter().map(|p| x(p.0).powi(2)));
            sum(points.iter().map(|p| x(p.0) * p.1)) / below
        };
        let error = |b: f64| {
            let a = best_a(b);
            sum(points
                .iter()
                .map(|p| (p.1 - a * (b * (p.0 - middle)).exp()).powi(2)))
        };
        let steps = (-80..=80).map(|i| f64::from(i) / 20.0);
        let start = steps.fold((0.0, f64::INFINITY), |best, b| {
            let e = error(b);
            if e < best.1 { (b, e) } else { best }
        });
        let (mut low, mut high) = (start.0 - 0.05, start.0 + 0.05);
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        for _ in 0..60 {
            let step = golden * (high - low);
            if error(high - step) < error(low + step) {
                high = low + step;
            } else {
                low = high - step;
            }
        }
        let b = f64::midpoint(low, high);
        Ok(Self {
            a: best_a(b) * (-b * middle).exp(),
            b,
            residual: (error(b) / points.len() as f64).sqrt(),
        })
    }
}

/// Chance of a pass from sampling until `passes` were seen in `trials`, or until the budget ended (PassUntil, Hu et al.
/// 2023, "Predicting Emergent Abilities with Infinite Resolution Evaluation").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassRate {
    /// Passes over trials, the most likely chance; 0 where nothing passed.
    pub most_likely: f64,
    /// (passes − 1) / (trials − 1), without bias; none below two passes.
    pub unbiased: Option<f64>,
    /// Where nothing passed: the chance that would have shown no pass in 1 of 20 such runs, 1 − 0.05^(1/trials).
    pub upper: Option<f64>,
}

/// Chance of a pass from `trials` that ended with the last of `passes`, or that ended with the budget without any.
///
/// # Errors
/// No trials, more passes than trials.
pub fn pass_rate(trials: u64, passes: u64) -> Result<PassRate> {
    const WHAT: &str = "pass rate";
    check(WHAT, trials, passes, 1)?;
    if trials == 0 {
        return Err(EvalError::Empty { what: WHAT });
    }
    let ratio = |a: u64, b: u64| a as f64 / b as f64;
    Ok(PassRate {
        most_likely: ratio(passes, trials),
        unbiased: (passes >= 2).then(|| ratio(passes - 1, trials - 1)),
        upper: (passes == 0).then(|| -(0.05f64.ln() / trials as f64).exp_m1()),
    })
}

/// The law log(−log p) = log c − α · log N between the size N of a model and its chance p of a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SizeLaw {
    /// Logarithm of c.
    pub log_c: f64,
    /// α; above 0 where larger models pass more often.
    pub alpha: f64,
    /// Coefficient of (log N)² where that is fitted too: below 0, passes grow faster than the law (accelerated), above 0
    /// slower. None with fewer than three different sizes.
    pub curvature: Option<f64>,
}

impl SizeLaw {
    /// Least squares of log(−log p) on log N.
    ///
    /// # Errors
    /// Lists of different lengths, a size that is not above 0 or not finite, a chance not inside 0 to 1 (leave models
    /// without a pass out), fewer than two different sizes.
    pub fn fit(sizes: &[f64], chances: &[f64]) -> Result<Self> {
        const WHAT: &str = "law of size";
        same_length(WHAT, sizes.len(), chances.len())?;
        for (n, p) in sizes.iter().zip(chances) {
            if !(n.is_finite() && *n > 0.0 && *p > 0.0 && *p < 1.0) {
                let problem = format!("chance {p} at size {n}");
                return Err(EvalError::invalid(WHAT, problem));
            }
        }
        let x: Vec<f64> = sizes.iter().map(|n| n.ln()).collect();
        let y: Vec<f64> = chances.iter().map(|p| (-p.ln()).ln()).collect();
        let (mid_x, mid_y) = (mean(x.iter().copied()), mean(y.iter().copied()));
        let dot = |a: &[f64], b: &[f64]| sum(a.iter().zip(b).map(|(a, b)| a * b));
        let x: Vec<f64> = x.iter().map(|x| x - mid_x).collect();
        let y: Vec<f64> = y.iter().map(|y| y - mid_y).collect();
        if x.iter().all(|v| *v == x[0]) {
            return Err(EvalError::invalid(WHAT, "two different sizes are needed"));
        }
        let slope = dot(&x, &y) / dot(&x, &x);
        // The square without its mean and its part along x; what is left of y lies along it by the curvature.
        let square: Vec<f64> = x.iter().map(|x| x * x).collect();
        let mid = mean(square.iter().copied());
        let along = dot(&square, &x) / dot(&x, &x);
        let bend: Vec<f64> = square
            .iter()
            .zip(&x)
            .map(|(s, x)| s - mid - along * x)
            .collect();
        let (size, whole) = (dot(&bend, &bend), dot(&square, &square));
        Ok(Self {
            log_c: mid_y - slope * mid_x,
            alpha: -slope,
            curvature: (size > 1e-20 * whole).then(|| dot(&bend, &y) / size),
        })
    }

    /// The chance that the law has at a size.
    pub fn at(&self, size: f64) -> f64 {
        (-(self.log_c - self.alpha * size.ln()).exp()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        assert_eq!(pass_at_k(3, 1, 5), Ok(None));
        assert_eq!(pass_at_k(5, 0, 3), Ok(Some(0.0)));
        assert_eq!(pass_at_k(5, 3, 3), Ok(Some(1.0)));
        let tiny = pass_at_k(1 << 60, 1, 1).unwrap().unwrap();
        assert_eq!(tiny, 1.0 / (1u64 << 60) as f64);
        assert!(pass_at_k(1, 2, 1).is_err() && pass_hat_k(1, 1, 0).is_err());
        let found = coverage(&[(4, 1), (2, 1)], &[1, 2, 3]).unwrap();
        assert!((found[0].unwrap() - 0.375).abs() < 1e-15);
        assert!((found[1].unwrap() - 0.75).abs() < 1e-15);
        assert_eq!(found[2], None);
        assert!(coverage(&[], &[1]).is_err());
    }

    #[test]
    fn laws_are_found_again() {
        let ks: Vec<f64> = (0..8).map(|i| f64::from(1 << i)).collect();
        let curve = PowerLaw {
            a: -2.5,
            b: -0.3,
            residual: 0.0,
        };
        let mut points: Vec<f64> = ks.iter().map(|k| curve.at(*k)).collect();
        let found = PowerLaw::fit(&ks, &points).unwrap();
        assert!((found.a + 2.5).abs() < 1e-6 && (found.b + 0.3).abs() < 1e-7);
        assert!(found.residual < 1e-7);
        points[0] = 0.0;
        assert!((PowerLaw::fit(&ks, &points).unwrap().b + 0.3).abs() < 1e-7);
        assert!(PowerLaw::fit(&[1.0, 2.0], &[0.0, 0.5]).is_err());
        assert!(PowerLaw::fit(&[1.0, 2.0], &[0.5, 1.5]).is_err());

        let law = SizeLaw {
            log_c: 3.0,
            alpha: 0.2,
            curvature: None,
        };
        let sizes = [1e6, 1e7, 1e9];
        let found = SizeLaw::fit(&sizes, &sizes.map(|n| law.at(n))).unwrap();
        assert!((found.log_c - 3.0).abs() < 1e-9 && (found.alpha - 0.2).abs() < 1e-9);
        assert!(found.curvature.unwrap().abs() < 1e-9);
        assert_eq!(
            SizeLaw::fit(&sizes[..2], &[0.1, 0.2]).unwrap().curvature,
            None
        );
        let faster = SizeLaw::fit(&[1e6, 1e7, 1e8], &[0.1, 0.11, 0.5]).unwrap();
        assert!(faster.curvature.unwrap() < 0.0);
        assert!(SizeLaw::fit(&[1e6, 1e7], &[0.0, 0.5]).is_err());
        assert!(SizeLaw::fit(&[1e6, 1e6], &[0.4, 0.5]).is_err());
    }

    #[test]
    fn rates() {
        let none = pass_rate(100, 0).unwrap();
        assert_eq!((none.most_likely, none.unbiased), (0.0, None));
        assert!((none.upper.unwrap() - (1.0 - 0.05f64.powf(0.01))).abs() < 1e-15);
        assert_eq!(pass_rate(40, 2).unwrap().unbiased, Some(1.0 / 39.0));
        assert!(pass_rate(0, 0).is_err() && pass_rate(1, 2).is_err());
    }

    proptest! {
        #[test]
        fn as_the_binomials(n in 1u64..25, c in 0u64..25, k in 1u64..25) {
            let choose = |n: u64, k: u64| (0..k).fold(1.0, |x, i| x * (n as f64 - i as f64) / (i + 1) as f64);
            prop_assume!(c <= n && k <= n);
            let all = choose(n, k);
            let one = pass_at_k(n, c, k).unwrap().unwrap();
            prop_assert!((one - (1.0 - choose(n - c, k) / all)).abs() < 1e-12);
            let hat = pass_hat_k(n, c, k).unwrap().unwrap();
            prop_assert!((hat - choose(c, k) / all).abs() < 1e-12);
        }
    }
}
