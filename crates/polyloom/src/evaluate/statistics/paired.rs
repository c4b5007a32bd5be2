//! Two systems on the same examples: Student's paired t, the sign test, random and exact permutation, and the paired
//! bootstrap. All are two-sided and take the values of `a` and `b` in the same order of examples.

use super::bootstrap::Bootstrap;
use super::check_finite;
use super::draw::Seed;
use super::mean::standard_error;
use super::replicates::Replicates;
use super::special::{binomial_cdf, t_two_sided};
use crate::evaluate::error::{EvalError, Result, same_length};
use crate::evaluate::sum::{mean, sum};

/// Differing pairs up to which every flip of signs is tried.
pub const EXACT_UP_TO: usize = 20;

/// The differences `a - b` of finite values.
fn differences(what: &'static str, a: &[f64], b: &[f64]) -> Result<Vec<f64>> {
    same_length(what, a.len(), b.len())?;
    check_finite(what, a)?;
    check_finite(what, b)?;
    Ok(a.iter().zip(b).map(|(a, b)| a - b).collect())
}

/// Student's paired test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedT {
    /// Mean of `a - b`.
    pub mean_difference: f64,
    /// Mean over its standard error; `NaN` for one pair or where nothing differs, infinite where all pairs differ by the
    /// same.
    pub t: f64,
    /// Two-sided p-value with n - 1 degrees of freedom; `NaN` with `t`.
    pub p: f64,
}

/// Student's t on the differences; needs differences that are roughly normal or many pairs.
/// Peer: `scipy.stats.ttest_rel`.
///
/// # Errors
/// No pairs, different lengths, or a value that is not finite.
pub fn paired_t(a: &[f64], b: &[f64]) -> Result<PairedT> {
    let differences = differences("paired t-test", a, b)?;
    let mean_difference = mean(differences.iter().copied());
    let t = mean_difference / standard_error(&differences)?;
    Ok(PairedT {
        mean_difference,
        t,
        p: t_two_sided(t, differences.len() as f64 - 1.0),
    })
}

/// p-value of the sign test: how uneven wins and losses are, pairs without a difference left out; 1 where none differ.
/// Peer: `scipy.stats.binomtest(wins, wins + losses)`.
///
/// # Errors
/// No pairs, different lengths, or a value that is not finite.
pub fn sign_test(a: &[f64], b: &[f64]) -> Result<f64> {
    let differences = differences("sign test", a, b)?;
    let wins = differences.iter().filter(|d| **d > 0.0).count() as u64;
    let losses = differences.iter().filter(|d| **d < 0.0).count() as u64;
    if wins + losses == 0 {
        return Ok(1.0);
    }
    Ok((2.0 * binomial_cdf(wins.min(losses), wins + losses, 0.5)).min(1.0))
}

/// Outcome of a permutation test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Permutation {
    /// Two-sided p-value.
    pub p: f64,
    /// Flips of signs tried; all there are where `exact`.
    pub flips: u64,
    /// Whether all flips were tried.
    pub exact: bool,
}

/// Whether the mean difference is as far from 0 as few flips of the differences' signs bring it: if the systems are
/// exchangeable, every flip is as likely.
///
/// Exact (all `2^n` flips) for up to [`EXACT_UP_TO`] differing pairs, otherwise `draws` random flips (10,000 is usual)
/// and `p = (1 + hits) / (1 + draws)`, so never 0. In draw `b` the sign of differing pair i is bit `i % 64` of the 64-bit
/// number `i / 64`. Sums within 1e-12 of the sum of sizes are counted as equal, so that rounding does not decide.
/// Cost: at most 2^20 additions, or draws times n.
///
/// # Errors
/// No pairs, different lengths, a value that is not finite, or no draws where they are needed.
pub fn permutation(a: &[f64], b: &[f64], draws: usize, seed: &Seed) -> Result<Permutation> {
    const WHAT: &str = "permutation test";
    let mut differences = differences(WHAT, a, b)?;
    differences.retain(|&d| d != 0.0);
    let observed = sum(differences.iter().copied()).abs();
    let threshold = observed - 1e-12 * sum(differences.iter().map(|d| d.abs()));
    if differences.len() <= EXACT_UP_TO {
        let (left, right) = differences.split_at(differences.len() / 2);
        let (left, right) = (signed_sums(left), signed_sums(right));
        let hits = |l: &f64| {
            right
                .iter()
                .filter(|r| (*l + *r).abs() >= threshold)
                .count()
        };
        let hits: usize = left.iter().map(hits).sum();
        let flips = 1u64 << differences.len();
        return Ok(Permutation {
            p: hits as f64 / flips as f64,
            flips,
            exact: true,
        });
    }
    if draws == 0 {
        return Err(EvalError::Empty { what: WHAT });
    }
    let flipping = Bootstrap {
        draws,
        seed: seed.clone(),
    };
    let hit = |(): &mut (), number| {
        let mut draw = seed.draw(number);
        let mut total = 0.0;
        for chunk in differences.chunks(64) {
            let bits = draw.bits();
            for (i, d) in chunk.iter().enumerate() {
                total += if bits >> i & 1 == 1 { *d } else { -*d };
            }
        }
        f64::abs(total) >= threshold
    };
    let hits = flipping
        .each(|| (), hit)
        .into_iter()
        .filter(|&hit| hit)
        .count();
    Ok(Permutation {
        p: (1 + hits) as f64 / (1 + draws) as f64,
        flips: draws as u64,
        exact: false,
    })
}

/// The sums of values under all flips of their signs.
fn signed_sums(values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0];
    for v in values {
        let minus: Vec<f64> = sums.iter().map(|s| s - v).collect();
        sums.iter_mut().for_each(|s| *s += v);
        sums.extend(minus);
    }
    sums
}

/// Outcome of a paired bootstrap.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedBootstrap {
    /// The difference `a - b` on the examples and on each draw; its intervals are those of the difference.
    pub difference: Replicates,
    /// Two-sided p-value: twice the share of draws on the other side of 0 or at it, `(1 + #)/(1 + B)` on the smaller
    /// side, at most 1.
    pub p: f64,
}

/// Bootstrap of the difference of means over the same resampled examples.
///
/// For a statistic that is no mean, resample with [`Bootstrap::indices`] or [`Bootstrap::counts`] a statistic that is
/// itself the difference, and pass the outcome to [`PairedBootstrap::of`].
///
/// # Errors
/// No pairs, different lengths, a value that is not finite, or no draws.
pub fn paired_bootstrap(a: &[f64], b: &[f64], bootstrap: &Bootstrap) -> Result<PairedBootstrap> {
    let differences = differences("paired bootstrap", a, b)?;
    Ok(PairedBootstrap::of(bootstrap.mean(&differences)?))
}

impl PairedBootstrap {
    /// The test of a bootstrapped difference; draws where it is not defined are left out.
    pub fn of(difference: Replicates) -> Self {
        let draws = difference.values.len() - difference.undefined();
        let at_most = difference.values.iter().filter(|d| **d <= 0.0).count();
        let at_least = difference.values.iter().filter(|d| **d >= 0.0).count();
        let p = 2.0 * (1 + at_most.min(at_least)) as f64 / (1 + draws) as f64;
        Self {
            difference,
            p: p.min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seed() -> Seed {
        Seed::of("task", "metric")
    }

    #[test]
    fn two_pairs_by_hand() {
        let test = paired_t(&[1.0, 3.0], &[0.0, 0.0]).unwrap();
        // 2 / 1, and p of a Cauchy value.
        assert_eq!((test.mean_difference, test.t), (2.0, 2.0));
        assert!((test.p - (1.0 - 2.0 / std::f64::consts::PI * 2f64.atan())).abs() < 1e-14);
        assert!((sign_test(&[1.0, 3.0], &[0.0, 0.0]).unwrap() - 0.5).abs() < 1e-14);
        let test = permutation(&[1.0, 3.0], &[0.0, 0.0], 0, &seed()).unwrap();
        assert_eq!((test.p, test.flips, test.exact), (0.5, 4, true));
    }

    #[test]
    fn no_differences() {
        let same = [1.0; 30];
        assert!(paired_t(&same, &same).unwrap().p.is_nan());
        assert_eq!(sign_test(&same, &same).unwrap(), 1.0);
        assert_eq!(permutation(&same, &same, 100, &seed()).unwrap().p, 1.0);
        let bootstrap = Bootstrap::new(seed()).with_draws(50);
        assert_eq!(paired_bootstrap(&same, &same, &bootstrap).unwrap().p, 1.0);
        assert!(sign_test(&[1.0], &same).is_err() && paired_t(&[], &[]).is_err());
        let ascending: Vec<f64> = (0..30).map(f64::from).collect();
        assert!(permutation(&ascending, &same, 0, &seed()).is_err());
    }

    #[test]
    fn random_flips_are_near_all_flips() {
        let a: Vec<f64> = (0..21).map(|i| f64::from(i * i % 13) + 0.5).collect();
        let b = [5.0; 21];
        let random = permutation(&a, &b, 20_000, &seed()).unwrap();
        assert!(!random.exact);
        // All 2^21 flips, counted here.
        let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let observed = d.iter().sum::<f64>().abs();
        let (left, right) = (signed_sums(&d[..10]), signed_sums(&d[10..]));
        let pairs = left.iter().flat_map(|l| right.iter().map(move |r| l + r));
        let p = pairs.filter(|s| s.abs() >= observed).count() as f64 / 2f64.powi(21);
        assert!((random.p - p).abs() < 0.015, "{} for {p}", random.p);
    }

    #[test]
    fn bootstrap_of_a_clear_difference() {
        let a: Vec<f64> = (0..40).map(|i| f64::from(i % 4)).collect();
        let b: Vec<f64> = (0..40)
            .map(|i| f64::from(i % 4) - f64::from(i % 3))
            .collect();
        let found = paired_bootstrap(&a, &b, &Bootstrap::new(seed())).unwrap();
        assert!(found.p < 0.01 && !found.difference.percentile(0.95).unwrap().contains(0.0));
        let back = paired_bootstrap(&b, &a, &Bootstrap::new(seed())).unwrap();
        assert_eq!(found.p, back.p);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(pairs in prop::collection::vec((0i32..6, 0i32..6), 2..12)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            let (c, d): (Vec<f64>, Vec<f64>) = pairs.iter().rev().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            prop_assert_eq!(permutation(&a, &b, 0, &seed()).unwrap(), permutation(&d, &c, 0, &seed()).unwrap());
            prop_assert_eq!(sign_test(&a, &b).unwrap(), sign_test(&c, &d).unwrap());
            let p = permutation(&a, &b, 0, &seed()).unwrap().p;
            prop_assert!(p > 0.0 && p <= 1.0);
        }
    }
}
