//! How far answers were off on held-out rows, and the intervals that follow.

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Quantiles that are kept at most: more rows cost at most 1/4096 of the level, to the safe side.
const KEPT: usize = 4096;

/// A share of rows that intervals are to hold, above 0 and below 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level(f64);

impl Level {
    /// That of intervals where nothing is said.
    pub const USUAL: Self = Self(0.9);

    /// `90%` or `0.9`.
    ///
    /// # Errors
    /// What is no share, 0 and 1.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), 100.0),
            None => (text, 1.0),
        };
        let share = number.parse().ok().map(|x: f64| x / unit);
        share
            .filter(|x| *x > 0.0 && *x < 1.0)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no level between 0 and 1, such as 90% or 0.9"))
    }

    /// As people read it: `90 %`.
    #[must_use]
    pub fn shown(self) -> String {
        percent(self.0)
    }

    /// Place of the quantile among `n` sorted errors, from 1 on: `ceil((n + 1) level)`. Above `n` where no interval has the level.
    fn rank(self, n: usize) -> usize {
        let exact = (n as f64 + 1.0) * self.0;
        // 0.9 times 10 rows is 9, not 9.000000000000002.
        (exact - 1e-9 * exact).ceil().max(1.0) as usize
    }
}

/// A share as people read it, at most two digits behind the point.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Errors of held-out rows: distances of numbers, or 1 less the probability of the right class.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// Rows.
    pub rows: usize,
    /// Ascending: all of them, or where there are more than 4,096 those at the ranks `ceil(j rows / 4096)`, j from 1 on.
    pub sorted: Vec<f64>,
}

impl Errors {
    /// Of the errors of rows, each finite and 0 or more.
    #[must_use]
    pub fn of(mut errors: Vec<f64>) -> Self {
        errors.sort_by(f64::total_cmp);
        let n = errors.len();
        let kept = n.min(KEPT);
        Self {
            rows: n,
            sorted: (1..=kept)
                .map(|j| errors[(j * n).div_ceil(kept) - 1])
                .collect(),
        }
    }

    /// The error that new rows stay within with a probability of `level` at least, if they are exchangeable with these: the
    /// `ceil((n + 1) level)`-th smallest.
    ///
    /// Source: split conformal prediction, Lei et al., JASA 2018, theorem 2; Vovk et al. 2005. Where not all errors are kept
    /// the next larger one that is.
    ///
    /// # Errors
    /// Too few rows for the level, which names the largest that they allow.
    pub fn quantile(&self, level: Level, target: &str) -> Result<f64> {
        if let Some(error) = self.sorted.get(self.place(level.rank(self.rows))) {
            return Ok(*error);
        }
        // Cut, not rounded: what is named has to be possible.
        let most = self.rows as f64 / (self.rows as f64 + 1.0);
        let most = (most * 1e4 + 1e-6).floor() / 1e4;
        let what = format!(
            "{} validation rows of `{target}` are too few for intervals of {}; they allow at most {}",
            self.rows,
            level.shown(),
            percent(most)
        );
        Err(MergeError::plan("too-few-rows", what)
            .hint("a lower level, or a spec with more validation rows")
            .into())
    }

    /// Where the smallest error is that is kept and whose rank is not below `rank`.
    fn place(&self, rank: usize) -> usize {
        // The least j with ceil(j rows / kept) >= rank, less one. A damaged file may say any number of rows.
        let place = (rank as u128 - 1) * self.sorted.len() as u128 / (self.rows as u128).max(1);
        usize::try_from(place).unwrap_or(usize::MAX)
    }

    /// What is wrong with those that were read.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let fine = |e: &f64| e.is_finite() && *e >= 0.0;
        match () {
            () if self.sorted.len() != self.rows.min(KEPT) || self.rows == 0 => {
                Some("has another number of errors than its rows say")
            }
            () if !self.sorted.is_sorted() || !self.sorted.iter().all(fine) => {
                Some("has errors that do not ascend from 0 on")
            }
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use polyloom::evaluate::statistics::special::binomial_cdf;
    use polyloom_core::rng::Stream;

    use super::*;

    fn level(text: &str) -> Level {
        Level::parse(text).unwrap()
    }

    #[test]
    fn quantiles_are_those_of_n_plus_one() {
        let nine = Errors::of((1..=9).rev().map(f64::from).collect());
        // ceil(10 x 0.9) = 9, ceil(10 x 0.5) = 5, ceil(10 x 0.41) = 5.
        for (text, want) in [("90%", 9.0), ("0.5", 5.0), ("41 %", 5.0), ("0.1", 1.0)] {
            assert_eq!(nine.quantile(level(text), "y").unwrap(), want, "{text}");
        }
        let said = nine.quantile(level("0.91"), "y").unwrap_err().to_string();
        assert!(
            said.contains("9 validation rows of `y` are too few for intervals of 91 %"),
            "{said}"
        );
        assert!(said.contains("at most 90 %"), "{said}");
        let eight = Errors::of(vec![1.0; 8]);
        // 8/9 is 88.888..., and 88.88 % is possible.
        let said = eight.quantile(level("90%"), "y").unwrap_err().to_string();
        assert!(said.contains("at most 88.88 %"), "{said}");
        assert!(eight.quantile(level("88.88%"), "y").is_ok());
        for text in ["0", "1", "100%", "x", "-5%", "NaN"] {
            assert!(Level::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn of_many_rows_the_next_larger_error_is_taken() {
        let n = 10_000;
        let many = Errors::of((1..=n).map(f64::from).collect());
        assert_eq!((many.rows, many.sorted.len()), (10_000, KEPT));
        assert_eq!(many.sorted.last(), Some(&10_000.0));
        for share in [0.01, 0.5, 0.9, 0.999] {
            let exact = ((f64::from(n) + 1.0) * share).ceil();
            let found = many.quantile(Level(share), "y").unwrap();
            assert!(
                found >= exact && found <= exact + 3.0,
                "{share}: {found} for {exact}"
            );
        }
        assert!(many.fault().is_none());
    }

    /// Errors of exchangeable rows: over 400 draws of 39 rows, a new row is within its quantile as often as 36/40 says.
    #[test]
    fn coverage_is_that_of_the_level() {
        let draw = Stream::new(7, "conformal", 0);
        let (draws, rows) = (400u64, 39u64);
        let mut held = 0;
        for d in 0..draws {
            let at = |i: u64| f64::from(draw.normal(d * (rows + 1) + i)).abs();
            let seen = Errors::of((0..rows).map(at).collect());
            held += u64::from(at(rows) <= seen.quantile(level("90%"), "y").unwrap());
        }
        let tail = binomial_cdf(held, draws, 0.9).min(1.0 - binomial_cdf(held - 1, draws, 0.9));
        assert!(tail > 0.005, "{held} of {draws}");
    }
}
