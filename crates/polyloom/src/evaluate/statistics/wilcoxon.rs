//! Wilcoxon's signed-rank test (1945): whether paired differences lie around zero, by their ranks.

use super::check_finite;
use super::special::normal_sf;
use crate::evaluate::error::{Result, same_length};
use crate::evaluate::rank::average_ranks;
use crate::evaluate::sum::sum;

/// What becomes of pairs without a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zeros {
    /// Left out before ranking (Wilcoxon). The default.
    #[default]
    Wilcox,
    /// Ranked, then left out (Pratt, 1959).
    Pratt,
    /// Ranked, half of their ranks to each side.
    Split,
}

/// Rank sums and p-values of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wilcoxon {
    /// Sum of the ranks of differences above 0.
    pub positive: f64,
    /// Sum of the ranks of differences below 0.
    pub negative: f64,
    /// Two-sided p-value by the normal approximation, with the variance corrected for ties and without continuity
    /// correction; `NaN` where nothing differs (`Wilcox` and `Pratt`).
    pub p_normal: f64,
    /// Two-sided p-value of the exact distribution; `NaN` where there are ties or zeros, or more than [`EXACT_UP_TO`]
    /// pairs.
    pub p_exact: f64,
}

/// Pairs up to which the exact distribution is computed.
pub const EXACT_UP_TO: usize = 50;

impl Wilcoxon {
    /// The smaller rank sum.
    pub fn statistic(&self) -> f64 {
        self.positive.min(self.negative)
    }

    /// The exact p-value where there is one, else the approximate one, as scipy's `method="auto"` decides.
    pub fn p_value(&self) -> f64 {
        if self.p_exact.is_nan() {
            self.p_normal
        } else {
            self.p_exact
        }
    }
}

/// The test on the differences `a - b` of paired values.
///
/// Absolute differences are ranked with ties sharing the mean rank; differences that are equal in exact arithmetic but
/// not in floating point are not tied. Cost: O(n log n). Peer: `scipy.stats.wilcoxon(method="approx" or "exact")`.
///
/// # Errors
/// No pairs, different lengths, or a value that is not finite.
pub fn wilcoxon(a: &[f64], b: &[f64], zeros: Zeros) -> Result<Wilcoxon> {
    const WHAT: &str = "Wilcoxon's signed-rank test";
    same_length(WHAT, a.len(), b.len())?;
    check_finite(WHAT, a)?;
    check_finite(WHAT, b)?;
    let mut differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let all = differences.len();
    if zeros == Zeros::Wilcox {
        differences.retain(|&d| d != 0.0);
    }
    let size: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let ranks = average_ranks(&size);
    let of = |wanted: fn(f64) -> bool| {
        let ranked = differences.iter().zip(&ranks);
        sum(ranked.filter(|(d, _)| wanted(**d)).map(|(_, r)| *r))
    };
    let zero = of(|d| d == 0.0);
    let mut found = Wilcoxon {
        positive: of(|d| d > 0.0),
        negative: of(|d| d < 0.0),
        p_normal: f64::NAN,
        p_exact: f64::NAN,
    };
    let no_zeros = differences.iter().filter(|d| **d == 0.0).count();
    let n = differences.len() as f64;
    let mut mean = n * (n + 1.0) / 4.0;
    let mut variance = n * (n + 1.0) * (2.0 * n + 1.0);
    if zeros == Zeros::Split {
        found.positive += zero / 2.0;
        found.negative += zero / 2.0;
    } else {
        // Pratt's ranks of the zeros are gone from the sums; under Wilcox there are none.
        let z = no_zeros as f64;
        mean -= z * (z + 1.0) / 4.0;
        variance -= z * (z + 1.0) * (2.0 * z + 1.0);
    }
    let ties = tie_sizes(size, zeros == Zeros::Split);
    let tied = sum(ties.iter().map(|t| t * (t * t - 1.0)));
    variance = (variance - tied / 2.0) / 24.0;
    if variance > 0.0 {
        let z = (found.statistic() - mean) / variance.sqrt();
        found.p_normal = (2.0 * normal_sf(z.abs())).min(1.0);
    }
    if tied == 0.0 && differences.len() == all && no_zeros == 0 && all <= EXACT_UP_TO {
        found.p_exact = exact(all, found.statistic() as usize);
    }
    Ok(found)
}

/// Sizes of the groups of equal values.
fn tie_sizes(mut size: Vec<f64>, with_zeros: bool) -> Vec<f64> {
    size.sort_unstable_by(f64::total_cmp);
    let groups = size.chunk_by(|a, b| a == b);
    let groups = groups.filter(|group| with_zeros || group[0] != 0.0);
    groups.map(|group| group.len() as f64).collect()
}

/// Twice the probability that a random half of the ranks 1..n sums to at most `statistic`.
fn exact(n: usize, statistic: usize) -> f64 {
    let most = n * (n + 1) / 2;
    // Share of sign patterns with each sum, one rank after the other.
    let mut share = vec![0.0; most + 1];
    share[0] = 1.0;
    for rank in 1..=n {
        for total in (0..=most).rev() {
            let without = share[total];
            let with = if total >= rank {
                share[total - rank]
            } else {
                0.0
            };
            share[total] = 0.5 * (without + with);
        }
    }
    (2.0 * sum(share[..=statistic].iter().copied())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_pairs_by_hand() {
        // Differences 1, 2, -3: rank sums 3 and 3.
        let found = wilcoxon(&[1.0, 2.0, 0.0], &[0.0, 0.0, 3.0], Zeros::Wilcox).unwrap();
        assert_eq!((found.positive, found.negative), (3.0, 3.0));
        assert_eq!((found.p_normal, found.p_exact), (1.0, 1.0));
        // All above: one pattern of eight on each side.
        let found = wilcoxon(&[1.0, 2.0, 3.0], &[0.0; 3], Zeros::Pratt).unwrap();
        assert_eq!((found.statistic(), found.p_value()), (0.0, 0.25));
    }

    #[test]
    fn zeros_three_ways() {
        let (a, b) = ([1.0, 1.0, 3.0, 0.0], [1.0, 0.0, 0.0, 2.0]);
        // Differences 0, 1, 3, -2.
        let sums = |zeros| {
            let found = wilcoxon(&a, &b, zeros).unwrap();
            (found.positive, found.negative)
        };
        assert_eq!(sums(Zeros::Wilcox), (4.0, 2.0));
        assert_eq!(sums(Zeros::Pratt), (6.0, 3.0));
        assert_eq!(sums(Zeros::Split), (6.5, 3.5));
    }

    #[test]
    fn nothing_differs() {
        let same = wilcoxon(&[1.0; 3], &[1.0; 3], Zeros::Wilcox).unwrap();
        assert!(same.p_value().is_nan());
        assert!(wilcoxon(&[], &[], Zeros::Wilcox).is_err());
        assert!(wilcoxon(&[f64::INFINITY], &[0.0], Zeros::Wilcox).is_err());
    }

    proptest! {
        #[test]
        fn swapping_and_order_do_not_matter(pairs in prop::collection::vec((-5i32..5, -5i32..5), 1..40)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            let (c, d): (Vec<f64>, Vec<f64>) = pairs.iter().rev().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            for zeros in [Zeros::Wilcox, Zeros::Pratt, Zeros::Split] {
                let there = wilcoxon(&a, &b, zeros).unwrap();
                let back = wilcoxon(&d, &c, zeros).unwrap();
                prop_assert_eq!(there.positive, back.negative);
                prop_assert_eq!(there.p_value().to_bits(), back.p_value().to_bits());
            }
        }

        #[test]
        fn approximation_is_near_the_exact(values in prop::collection::hash_set(1i32..2000, 30..50), flips in any::<u64>()) {
            let a: Vec<f64> = values.iter().enumerate().map(|(i, &v)| f64::from(if flips >> i & 1 == 1 { v } else { -v })).collect();
            prop_assume!(values.iter().all(|v| !values.contains(&-v)));
            let found = wilcoxon(&a, &vec![0.0; a.len()], Zeros::Wilcox).unwrap();
            prop_assert!((found.p_exact - found.p_normal).abs() < 0.02);
        }
    }
}
