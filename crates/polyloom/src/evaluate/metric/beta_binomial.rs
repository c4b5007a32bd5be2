//! Coverage beyond the attempts that were made: the chances of passing spread over the problems as a beta distribution.

use crate::evaluate::sum::{Sum, mean};
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "beta-binomial coverage";

/// Chances of a pass that follow a beta distribution over the problems.
///
/// A power law fitted to mean pass@k ([`super::pass_at_k::PowerLaw`]) is biased where coverage is near 0; this one reads
/// the passes of every problem ("Efficient prediction of pass@k scaling in large language models", Kazdan et al. 2025).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BetaBinomial {
    /// First shape: small where many problems hardly ever pass.
    pub a: f64,
    /// Second shape.
    pub b: f64,
    /// Logarithm of the likelihood of the passes, without the binomial coefficients.
    pub log_likelihood: f64,
}

/// Shapes stay within these: beyond, the problems are all alike.
const SHAPES: (f64, f64) = (1e-8, 1e8);

/// How many problems have more than i passes, more than i failures, more than i attempts.
struct Counts {
    passes: Vec<f64>,
    failures: Vec<f64>,
    attempts: Vec<f64>,
}

impl Counts {
    fn of(problems: &[(u64, u64)]) -> Self {
        let above = |values: &dyn Fn(&(u64, u64)) -> u64| {
            let most = problems.iter().map(values).max().unwrap_or(0);
            let mut counts = vec![0.0; most as usize];
            for n in problems.iter().map(values).filter(|n| *n > 0) {
                counts[n as usize - 1] += 1.0;
            }
            for i in (1..counts.len()).rev() {
                counts[i - 1] += counts[i];
            }
            counts
        };
        Self {
            passes: above(&|p| p.1),
            failures: above(&|p| p.0 - p.1),
            attempts: above(&|p| p.0),
        }
    }

    /// Log-likelihood, its gradient and its curvature in (ln a, ln b).
    fn at(&self, log: [f64; 2]) -> (f64, [f64; 2], [[f64; 2]; 2]) {
        let [a, b] = log.map(f64::exp);
        // Sum of count ln(x + i), and its two derivatives in x.
        let over = |counts: &[f64], x: f64| {
            let mut sums = [Sum::default(); 3];
            for (i, c) in counts.iter().enumerate() {
                let y = x + i as f64;
                sums[0].add(c * y.ln());
                sums[1].add(c / y);
                sums[2].add(-c / (y * y));
            }
            sums.map(|s| s.total())
        };
        let (p, f, n) = (
            over(&self.passes, a),
            over(&self.failures, b),
            over(&self.attempts, a + b),
        );
        let (da, db) = (p[1] - n[1], f[1] - n[1]);
        let (daa, dbb, dab) = (p[2] - n[2], f[2] - n[2], -n[2]);
        (
            p[0] + f[0] - n[0],
            [a * da, b * db],
            [
                [a * a * daa + a * da, a * b * dab],
                [a * b * dab, b * b * dbb + b * db],
            ],
        )
    }
}

impl BetaBinomial {
    /// The most likely shapes for problems given as (attempts, passes), which may differ in attempts. Cost per step: the
    /// most attempts of a problem.
    ///
    /// Where the problems do not differ beyond chance, the shapes end at their bound (1e8) and the distribution is a
    /// point.
    ///
    /// # Errors
    /// No problem with two attempts, more passes than attempts, not one pass or not one failure (the most likely shapes
    /// are then at infinity).
    pub fn fit(problems: &[(u64, u64)]) -> Result<Self> {
        if let Some((n, c)) = problems.iter().find(|(n, c)| c > n) {
            return Err(EvalError::invalid(
                WHAT,
                format!("{c} passes of {n} attempts"),
            ));
        }
        if problems.iter().all(|(n, _)| *n < 2) {
            return Err(EvalError::invalid(WHAT, "no problem has two attempts"));
        }
        let counts = Counts::of(problems);
        if counts.passes.is_empty() || counts.failures.is_empty() {
            let which = if counts.passes.is_empty() {
                "passed"
            } else {
                "failed"
            };
            return Err(EvalError::invalid(WHAT, format!("no attempt {which}")));
        }
        let tried = problems.iter().filter(|(n, _)| *n > 0);
        let rate = mean(tried.map(|(n, c)| *c as f64 / *n as f64)).clamp(1e-6, 1.0 - 1e-6);
        let bound = |x: f64| x.clamp(SHAPES.0.ln(), SHAPES.1.ln());
        let mut log = [rate.ln(), (1.0 - rate).ln()];
        let (mut value, mut gradient, mut curvature) = counts.at(log);
        let mut damp = 1e-3;
        for _ in 0..500 {
            let size = curvature[0][0].abs().max(curvature[1][1].abs()).max(1e-12);
            // Minus the curvature, made positive definite by damping (Levenberg).
            let [[h, o], [_, k]] = curvature.map(|row| row.map(|x| -x));
            let (h, k) = (h + damp * size, k + damp * size);
            let det = h * k - o * o;
            let step = [
                (k * gradient[0] - o * gradient[1]) / det,
                (h * gradient[1] - o * gradient[0]) / det,
            ];
            let next = [0, 1].map(|i| bound(log[i] + step[i].clamp(-3.0, 3.0)));
            let found = counts.at(next);
            if h > 0.0 && det > 0.0 && found.0 >= value {
                let moved = (next[0] - log[0]).abs().max((next[1] - log[1]).abs());
                let gained = found.0 - value;
                (log, (value, gradient, curvature)) = (next, found);
                damp = (damp / 10.0).max(1e-12);
                if moved < 1e-12 || (moved < 1e-7 && gained <= 0.0) {
                    break;
                }
            } else {
                damp *= 10.0;
                if damp > 1e12 {
                    break;
                }
            }
        }
        Ok(Self {
            a: log[0].exp(),
            b: log[1].exp(),
            log_likelihood: value,
        })
    }

    /// Expected coverage of k attempts: 1 − B(a, b + k) / B(a, b), the mean of 1 − (1 − p)^k. O(k).
    pub fn at(&self, k: u64) -> f64 {
        let factors = (0..k).map(|i| (-self.a / (self.a + self.b + i as f64)).ln_1p());
        -factors.collect::<Sum>().total().exp_m1()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::statistics::draw::Seed;

    #[test]
    fn coverage_by_hand() {
        // Uniform chances: the mean of (1 - p)^k is 1 / (k + 1).
        let even = BetaBinomial {
            a: 1.0,
            b: 1.0,
            log_likelihood: 0.0,
        };
        assert_eq!(even.at(0), 0.0);
        assert!((even.at(1) - 0.5).abs() < 1e-15 && (even.at(9) - 0.9).abs() < 1e-15);
    }

    #[test]
    fn shapes_as_scipy_finds_them() {
        // scipy.optimize.minimize (Nelder-Mead, 1e-12) of -sum(scipy.stats.betabinom.logpmf).
        let problems = [
            (10, 0),
            (10, 0),
            (10, 1),
            (10, 3),
            (10, 9),
            (20, 2),
            (5, 5),
            (10, 0),
        ];
        let found = BetaBinomial::fit(&problems).unwrap();
        assert!((found.a - 0.237_652_51).abs() < 1e-7, "{found:?}");
        assert!((found.b - 0.512_792_88).abs() < 1e-7, "{found:?}");
    }

    #[test]
    fn a_planted_spread_is_found_and_extrapolated() {
        // p = u^4 is beta(1/4, 1).
        let mut draw = Seed::of("planted", "beta").draw(0);
        let mut problems = Vec::new();
        for _ in 0..2000 {
            let p = draw.unit().powi(4);
            problems.push((40, (0..40).filter(|_| draw.unit() < p).count() as u64));
        }
        let found = BetaBinomial::fit(&problems).unwrap();
        assert!(
            (found.a - 0.25).abs() < 0.03 && (found.b - 1.0).abs() < 0.15,
            "{found:?}"
        );
        let truth = BetaBinomial {
            a: 0.25,
            b: 1.0,
            log_likelihood: 0.0,
        };
        assert!((found.at(10_000) - truth.at(10_000)).abs() < 0.02);
    }

    #[test]
    fn what_has_no_spread() {
        // Exactly binomial or less spread than that: a point.
        let alike = BetaBinomial::fit(&[(10, 5); 20]).unwrap();
        assert!(
            alike.a > 1e6 && (alike.a / alike.b - 1.0).abs() < 1e-3,
            "{alike:?}"
        );
        assert!((alike.at(3) - 0.875).abs() < 1e-3);
        for bad in [&[][..], &[(1, 1), (1, 0)], &[(5, 0)], &[(5, 5)], &[(2, 3)]] {
            assert!(BetaBinomial::fit(bad).is_err());
        }
    }
}
