//! How often each task is drawn in joint training.

use polyloom_core::rng::Stream;

use crate::error::{MergeError, Result};

/// A rule that turns sizes into shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// The same for every task.
    Uniform,
    /// By number of rows.
    Proportional,
    /// By n^(1/T); T = 1 is proportional, a large T nearly uniform (Arivazhagan et al. 2019; T5 uses T = 2).
    Temperature(f64),
    /// By the square root of n, which is T = 2.
    SquareRoot,
}

/// The share of every task: its rows (at most `limit`, the artificial limit of T5) under the policy, times its weight,
/// over the sum. Shares sum to 1 within rounding.
///
/// # Errors
/// No task, a task without rows, a weight or temperature that is not above 0.
pub fn shares(
    rows: &[u64],
    weights: &[f64],
    limit: Option<u64>,
    policy: Policy,
) -> Result<Vec<f64>> {
    let bad = |what: String| Err(MergeError::plan("bad-sample", what));
    if rows.is_empty() || rows.len() != weights.len() {
        return bad(format!(
            "{} tasks and {} weights",
            rows.len(),
            weights.len()
        ));
    }
    if let Some(i) = rows.iter().position(|n| *n == 0) {
        return bad(format!("task {} has no rows", i + 1));
    }
    if let Some(w) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
        return bad(format!("the weight {w} is not above 0"));
    }
    let power = match policy {
        Policy::Uniform => 0.0,
        Policy::Proportional => 1.0,
        Policy::SquareRoot => 0.5,
        Policy::Temperature(t) if t.is_finite() && t > 0.0 => 1.0 / t,
        Policy::Temperature(t) => return bad(format!("the temperature {t} is not above 0")),
    };
    let raw: Vec<f64> = rows
        .iter()
        .zip(weights)
        .map(|(n, w)| (*n.min(&limit.unwrap_or(u64::MAX)) as f64).powf(power) * w)
        .collect();
    let total = crate::evaluate::sum::sum(raw.iter().copied());
    Ok(raw.into_iter().map(|x| x / total).collect())
}

/// Draws `n` tasks by their shares. The draw at a position depends on the seed and the position alone.
#[must_use]
pub fn draws(shares: &[f64], seed: u64, n: u64) -> Vec<usize> {
    let draw = Draw::new(shares, Stream::new(seed, "tasks", 0));
    (0..n).map(|i| draw.at(i)).collect()
}

/// Draws of tasks by their shares, by position.
#[derive(Debug, Clone)]
pub struct Draw {
    /// Ends of the shares on 0 to 1.
    ends: Vec<f64>,
    stream: Stream,
}

impl Draw {
    /// Of shares that sum to 1, from a stream.
    #[must_use]
    pub fn new(shares: &[f64], stream: Stream) -> Self {
        let mut at = 0.0;
        let end = |share: &f64| {
            at += share;
            at
        };
        Self {
            ends: shares.iter().map(end).collect(),
            stream,
        }
    }

    /// The task at a position; 0 where there are none.
    #[must_use]
    pub fn at(&self, i: u64) -> usize {
        let u = (self.stream.bits(i) >> 11) as f64 / (1u64 << 53) as f64;
        let task = self.ends.partition_point(|end| *end <= u);
        task.min(self.ends.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_hand() {
        let of = |policy| shares(&[100, 400], &[1.0, 1.0], None, policy).unwrap();
        assert_eq!(of(Policy::Uniform), [0.5, 0.5]);
        assert_eq!(of(Policy::Proportional), [0.2, 0.8]);
        let third = 1.0 / 3.0;
        for policy in [Policy::SquareRoot, Policy::Temperature(2.0)] {
            assert!((of(policy)[0] - third).abs() < 1e-15);
        }
        let capped = shares(&[100, 400], &[1.0, 3.0], Some(100), Policy::Proportional).unwrap();
        assert_eq!(capped, [0.25, 0.75]);
    }

    #[test]
    fn draws_follow_the_shares_and_the_seed() {
        let shares = [0.2, 0.5, 0.3];
        let drawn = draws(&shares, 7, 30_000);
        assert_eq!(drawn[..100], draws(&shares, 7, 100));
        for (i, share) in shares.iter().enumerate() {
            let found = drawn.iter().filter(|d| **d == i).count() as f64 / 30_000.0;
            assert!((found - share).abs() < 0.02, "{i}: {found}");
        }
    }

    #[test]
    fn bad_numbers_are_refused() {
        assert!(shares(&[], &[], None, Policy::Uniform).is_err());
        assert!(shares(&[0], &[1.0], None, Policy::Uniform).is_err());
        assert!(shares(&[1], &[0.0], None, Policy::Uniform).is_err());
        assert!(shares(&[1], &[1.0], None, Policy::Temperature(0.0)).is_err());
    }
}
