//! Flips of per-example scores that are no plain right or wrong: ROUGE, F1, a negative loss.

use crate::evaluate::error::{EvalError, Result, same_length};
use crate::evaluate::sum::Sum;

/// Gains and losses between two runs; higher scores are better. Streams and merges.
///
/// Formulas follow MUSCLE (2024); a change within the tolerance is no flip but still a gain or loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreChange {
    tolerance: f64,
    change: Sum,
    gain: Sum,
    loss: Sum,
    rose: u64,
    fell: u64,
    worst: f64,
}

impl ScoreChange {
    /// Nothing yet; a score flips when it changes by more than `tolerance`.
    ///
    /// # Errors
    /// A tolerance below 0 or not finite.
    pub fn new(tolerance: f64) -> Result<Self> {
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            let problem = format!("tolerance {tolerance} is not at least 0");
            return Err(EvalError::invalid("change of scores", problem));
        }
        Ok(Self {
            tolerance,
            change: Sum::default(),
            gain: Sum::default(),
            loss: Sum::default(),
            rose: 0,
            fell: 0,
            worst: 0.0,
        })
    }

    /// The change between two lists.
    ///
    /// # Errors
    /// A tolerance below 0, empty lists, different lengths, or a score that is not finite.
    pub fn of(old: &[f64], new: &[f64], tolerance: f64) -> Result<Self> {
        same_length("change of scores", old.len(), new.len())?;
        let mut change = Self::new(tolerance)?;
        for (o, n) in old.iter().zip(new) {
            change.add(*o, *n)?;
        }
        Ok(change)
    }

    /// Adds an example.
    ///
    /// # Errors
    /// A score that is not finite; nothing is added then.
    pub fn add(&mut self, old: f64, new: f64) -> Result<()> {
        let change = new - old;
        if !change.is_finite() {
            let problem = format!("from {old} to {new} at {}", self.change.count());
            return Err(EvalError::invalid("change of scores", problem));
        }
        self.change.add(change);
        self.gain.add(change.max(0.0));
        self.loss.add((-change).max(0.0));
        self.rose += u64::from(change > self.tolerance);
        self.fell += u64::from(change < -self.tolerance);
        self.worst = self.worst.max(-change);
        Ok(())
    }

    /// Adds another part, counted with its own tolerance.
    pub fn merge(&mut self, other: &Self) {
        self.change.merge(&other.change);
        self.gain.merge(&other.gain);
        self.loss.merge(&other.loss);
        self.rose += other.rose;
        self.fell += other.fell;
        self.worst = self.worst.max(other.worst);
    }

    /// Number of examples.
    pub fn count(&self) -> u64 {
        self.change.count()
    }

    /// Mean of new less old; `NaN` of nothing, as the other means and rates.
    pub fn mean_change(&self) -> f64 {
        self.change.mean()
    }

    /// Mean of what was gained, examples that lost counted 0.
    pub fn mean_gain(&self) -> f64 {
        self.gain.mean()
    }

    /// Mean of what was lost, examples that gained counted 0; at least 0.
    pub fn mean_loss(&self) -> f64 {
        self.loss.mean()
    }

    /// Share of examples that fell by more than the tolerance.
    pub fn negative_rate(&self) -> f64 {
        self.fell as f64 / self.count() as f64
    }

    /// Share of examples that rose by more than the tolerance.
    pub fn positive_rate(&self) -> f64 {
        self.rose as f64 / self.count() as f64
    }

    /// The most that an example lost; 0 where none did.
    pub fn worst_loss(&self) -> f64 {
        self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn four_by_hand() {
        let found =
            ScoreChange::of(&[0.5, 0.5, 0.5, 0.5], &[1.0, 0.25, 0.375, 0.5], 0.125).unwrap();
        assert_eq!((found.mean_gain(), found.mean_loss()), (0.125, 0.09375));
        assert_eq!(found.mean_change(), 0.03125);
        assert_eq!((found.negative_rate(), found.positive_rate()), (0.25, 0.25));
        assert_eq!(found.worst_loss(), 0.25);
        assert!(ScoreChange::of(&[0.5], &[f64::NAN], 0.0).is_err());
        assert!(ScoreChange::of(&[], &[], 0.0).is_err() && ScoreChange::new(-0.1).is_err());
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(pairs in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 2..60), at in 1usize..59) {
            let at = at.min(pairs.len() - 1);
            let (old, new): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let of = |from: usize, to: usize| ScoreChange::of(&old[from..to], &new[from..to], 0.1).unwrap();
            let mut left = of(0, at);
            left.merge(&of(at, old.len()));
            let whole = of(0, old.len());
            prop_assert!((left.mean_gain() - whole.mean_gain()).abs() < 1e-15);
            prop_assert!((left.mean_loss() - whole.mean_loss()).abs() < 1e-15);
            prop_assert_eq!((left.negative_rate(), left.worst_loss()), (whole.negative_rate(), whole.worst_loss()));
            prop_assert!((whole.mean_gain() - whole.mean_loss() - whole.mean_change()).abs() < 1e-14);
        }
    }
}
