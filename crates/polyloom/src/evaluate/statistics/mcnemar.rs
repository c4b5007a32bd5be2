//! McNemar's test: two systems, each right or wrong on the same examples.
//!
//! Only the examples on which they differ say anything: if both were equally good, each of them would be right on half
//! of those. Source: McNemar (1947); mid-p: Fagerland, Lydersen and Laake (2013).

use super::special::{binomial_cdf, binomial_pmf, chi2_sf};
use crate::evaluate::error::{Result, same_length};

/// The examples on which exactly one of two systems is right. Streams and merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct McNemar {
    /// The first is right, the second wrong.
    pub only_first: u64,
    /// The second is right, the first wrong.
    pub only_second: u64,
}

/// Which form of the p-value was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum McNemarForm {
    /// Binomial, both tails; never too small.
    Exact,
    /// Binomial, the observed count at half weight.
    MidP,
}

impl McNemar {
    /// Counts over two lists of "is right".
    ///
    /// # Errors
    /// Empty lists or different lengths.
    pub fn of(first: &[bool], second: &[bool]) -> Result<Self> {
        same_length("McNemar's test", first.len(), second.len())?;
        let mut counts = Self::default();
        for (&a, &b) in first.iter().zip(second) {
            counts.add(a, b);
        }
        Ok(counts)
    }

    /// Adds an example.
    pub fn add(&mut self, first_right: bool, second_right: bool) {
        self.only_first += u64::from(first_right && !second_right);
        self.only_second += u64::from(second_right && !first_right);
    }

    /// Adds another part's counts.
    pub fn merge(&mut self, other: &Self) {
        self.only_first += other.only_first;
        self.only_second += other.only_second;
    }

    fn discordant(&self) -> u64 {
        self.only_first + self.only_second
    }

    /// Exact p-value: twice the binomial tail, at most 1; 1 where they never differ. Peer:
    /// `statsmodels.stats.contingency_tables.mcnemar(exact=True)`.
    pub fn exact(&self) -> f64 {
        let fewer = self.only_first.min(self.only_second);
        if self.discordant() == 0 {
            return 1.0;
        }
        (2.0 * binomial_cdf(fewer, self.discordant(), 0.5)).min(1.0)
    }

    /// Mid-p-value: the exact one less the probability of the observed count; 1 where they never differ. Holds its level
    /// on average, and finds more than the exact test.
    pub fn mid_p(&self) -> f64 {
        if self.discordant() == 0 {
            return 1.0;
        }
        let fewer = self.only_first.min(self.only_second);
        let observed = binomial_pmf(fewer, self.discordant(), 0.5);
        if self.only_first == self.only_second {
            return 1.0 - observed;
        }
        (self.exact() - observed).min(1.0)
    }

    /// Chi-squared statistic and p-value, `(|b-c| - 1)^2/(b+c)` with the continuity correction, `(b-c)^2/(b+c)` without;
    /// `(0, 1)` where they never differ. For many examples; peer: `mcnemar(exact=False)` of statsmodels.
    pub fn chi_squared(&self, continuity_correction: bool) -> (f64, f64) {
        if self.discordant() == 0 {
            return (0.0, 1.0);
        }
        let apart = self.only_first.abs_diff(self.only_second) as f64;
        // statsmodels corrects 0 to (0 - 1)^2 as well.
        let apart = apart - f64::from(u8::from(continuity_correction));
        let statistic = apart * apart / self.discordant() as f64;
        (statistic, chi2_sf(statistic, 1.0))
    }

    /// The p-value that reports print: exact below 25 differing examples, mid-p from there.
    pub fn p_value(&self) -> (f64, McNemarForm) {
        if self.discordant() < 25 {
            (self.exact(), McNemarForm::Exact)
        } else {
            (self.mid_p(), McNemarForm::MidP)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_against_five() {
        let counts = McNemar {
            only_first: 1,
            only_second: 5,
        };
        // (1 + 6) / 64 on each side.
        assert!((counts.exact() - 14.0 / 64.0).abs() < 1e-15);
        assert!((counts.mid_p() - 8.0 / 64.0).abs() < 1e-15);
        assert_eq!(counts.chi_squared(true).0, 1.5);
        assert_eq!(counts.p_value().1, McNemarForm::Exact);
        assert_eq!(McNemar::default().p_value().0, 1.0);
        assert!(McNemar::of(&[], &[]).is_err() && McNemar::of(&[true], &[]).is_err());
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(pairs in prop::collection::vec((any::<bool>(), any::<bool>()), 2..80), at in 1..79usize) {
            let at = at.min(pairs.len() - 1);
            let (first, second): (Vec<bool>, Vec<bool>) = pairs.into_iter().unzip();
            let mut left = McNemar::of(&first[..at], &second[..at]).unwrap();
            left.merge(&McNemar::of(&first[at..], &second[at..]).unwrap());
            let whole = McNemar::of(&first, &second).unwrap();
            prop_assert_eq!(left, whole);
            prop_assert!(whole.mid_p() <= whole.exact() && whole.exact() <= 1.0);
            prop_assert_eq!(whole.exact(), McNemar::of(&second, &first).unwrap().exact());
        }
    }
}
