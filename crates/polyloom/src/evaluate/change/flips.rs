//! Flips between two runs over the same examples, and the gate that keeps a worse model from being released.
//!
//! Sources: Yan et al., "Positive-congruent training" (2021), for the negative flip rate; Srivastava et al., "An empirical
//! analysis of backward compatibility in machine learning systems" (2020), for trust and error compatibility; Echterhoff et
//! al., "MUSCLE" (2024), for changes among wrong answers.

use crate::evaluate::error::{EvalError, Result, same_length};
use crate::evaluate::statistics::mcnemar::McNemar;
use crate::evaluate::statistics::multiplicity::{Correction, adjust};

/// Counts of what became of each example. Streams and merges; the rates are methods, and an undefined one is `NaN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flips {
    /// Right before and after.
    pub both_right: u64,
    /// Right before, wrong after.
    pub negative: u64,
    /// Wrong before, right after.
    pub positive: u64,
    /// Wrong before and after, with the same prediction.
    pub both_wrong_same: u64,
    /// Wrong before and after, with another prediction.
    pub both_wrong_changed: u64,
}

impl Flips {
    /// Counts over the predictions of the old and of the new model and the truth, of any type that compares.
    ///
    /// # Errors
    /// Empty lists or different lengths.
    pub fn of<T: PartialEq>(truth: &[T], old: &[T], new: &[T]) -> Result<Self> {
        same_length("flips: truth against old", truth.len(), old.len())?;
        same_length("flips: truth against new", truth.len(), new.len())?;
        let mut flips = Self::default();
        for ((y, o), n) in truth.iter().zip(old).zip(new) {
            flips.add(y, o, n);
        }
        Ok(flips)
    }

    /// Adds an example.
    pub fn add<T: PartialEq + ?Sized>(&mut self, truth: &T, old: &T, new: &T) {
        let count = match (old == truth, new == truth) {
            (true, true) => &mut self.both_right,
            (true, false) => &mut self.negative,
            (false, true) => &mut self.positive,
            (false, false) if old == new => &mut self.both_wrong_same,
            (false, false) => &mut self.both_wrong_changed,
        };
        *count += 1;
    }

    /// Adds another part's counts.
    pub fn merge(&mut self, other: &Self) {
        self.both_right += other.both_right;
        self.negative += other.negative;
        self.positive += other.positive;
        self.both_wrong_same += other.both_wrong_same;
        self.both_wrong_changed += other.both_wrong_changed;
    }

    /// Number of examples.
    pub fn count(&self) -> u64 {
        self.both_right + self.negative + self.positive + self.new_and_old_wrong()
    }

    fn new_and_old_wrong(&self) -> u64 {
        self.both_wrong_same + self.both_wrong_changed
    }

    fn share(&self, of: u64) -> f64 {
        of as f64 / self.count() as f64
    }

    /// Share of examples that were right and are wrong now (NFR); lower is better.
    pub fn negative_rate(&self) -> f64 {
        self.share(self.negative)
    }

    /// Share of examples that were wrong and are right now (PFR). New less old accuracy is this less the negative rate.
    pub fn positive_rate(&self) -> f64 {
        self.share(self.positive)
    }

    /// Accuracy of the old model.
    pub fn accuracy_old(&self) -> f64 {
        self.share(self.both_right + self.negative)
    }

    /// Accuracy of the new model.
    pub fn accuracy_new(&self) -> f64 {
        self.share(self.both_right + self.positive)
    }

    /// Negative flips over those of two models that err independently: 1 as if independent, 0 without negative flips.
    /// `NaN` where the old model is never right or the new one never wrong.
    pub fn relative_negative_rate(&self) -> f64 {
        let wrong_now = self.negative + self.new_and_old_wrong();
        let independent = self.share(wrong_now) * self.accuracy_old();
        if independent == 0.0 {
            return f64::NAN;
        }
        self.negative_rate() / independent
    }

    /// Share of the old model's right answers that stay right (backward trust compatibility); `NaN` without any.
    pub fn trust_compatibility(&self) -> f64 {
        self.both_right as f64 / (self.both_right + self.negative) as f64
    }

    /// Share of the new model's errors that the old one made on too (backward error compatibility); `NaN` without any.
    pub fn error_compatibility(&self) -> f64 {
        let both = self.new_and_old_wrong();
        both as f64 / (both + self.negative) as f64
    }

    /// Share of examples wrong before and after, with another prediction.
    pub fn both_wrong_changed_rate(&self) -> f64 {
        self.share(self.both_wrong_changed)
    }

    /// Share of examples whose prediction changed to a wrong one, whatever it was before (MUSCLE, multiple choice).
    pub fn inconsistency_rate(&self) -> f64 {
        self.share(self.negative + self.both_wrong_changed)
    }

    /// Share of examples whose prediction changed.
    pub fn churn(&self) -> f64 {
        self.share(self.negative + self.positive + self.both_wrong_changed)
    }

    /// Share of examples whose prediction changed to the right one.
    pub fn good_churn(&self) -> f64 {
        self.positive_rate()
    }

    /// The counts of McNemar's test, the old model first.
    pub fn mcnemar(&self) -> McNemar {
        McNemar {
            only_first: self.negative,
            only_second: self.positive,
        }
    }
}

/// Places of the negative flips, ascending.
///
/// # Errors
/// Empty lists or different lengths.
pub fn negative_flips<T: PartialEq>(truth: &[T], old: &[T], new: &[T]) -> Result<Vec<usize>> {
    same_length("flips: truth against old", truth.len(), old.len())?;
    same_length("flips: truth against new", truth.len(), new.len())?;
    let flipped = |&i: &usize| old[i] == truth[i] && new[i] != truth[i];
    Ok((0..truth.len()).filter(flipped).collect())
}

/// What the gate says of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Share of negative flips.
    pub negative_rate: f64,
    /// McNemar's p-value ([`McNemar::p_value`]) after Holm's correction over the tasks.
    pub adjusted: f64,
    /// The negative flips exceed their limit.
    pub over_limit: bool,
    /// The new model is worse, and the test says so at level alpha.
    pub worse: bool,
}

impl Verdict {
    /// Whether the task lets the update pass.
    pub fn passes(&self) -> bool {
        !self.over_limit && !self.worse
    }
}

/// Whether an update may be released: per task, negative flips up to `limit` (a share), and no accuracy that is lower by
/// McNemar's test at level `alpha`, corrected over all tasks with Holm's method.
///
/// # Errors
/// No tasks, a task without examples, a limit outside `[0, 1]` or an alpha outside (0, 1).
pub fn gate(tasks: &[Flips], limit: f64, alpha: f64) -> Result<Vec<Verdict>> {
    const WHAT: &str = "release gate";
    let possible = (0.0..=1.0).contains(&limit) && alpha > 0.0 && alpha < 1.0;
    if !possible {
        let problem = format!("limit {limit} and alpha {alpha}: wanted in [0, 1] and (0, 1)");
        return Err(EvalError::invalid(WHAT, problem));
    }
    if let Some(i) = tasks.iter().position(|task| task.count() == 0) {
        return Err(EvalError::invalid(
            WHAT,
            format!("task {i} has no examples"),
        ));
    }
    let p: Vec<f64> = tasks.iter().map(|t| t.mcnemar().p_value().0).collect();
    let adjusted = adjust(&p, Correction::Holm)?;
    let verdict = |(task, adjusted): (&Flips, f64)| Verdict {
        negative_rate: task.negative_rate(),
        adjusted,
        over_limit: task.negative_rate() > limit,
        worse: task.negative > task.positive && adjusted <= alpha,
    };
    Ok(tasks.iter().zip(adjusted).map(verdict).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_by_hand() {
        let (truth, old, new) = ("aaaaa", "aabbb", "abacb");
        let split = |s: &str| s.chars().collect::<Vec<char>>();
        let flips = Flips::of(&split(truth), &split(old), &split(new)).unwrap();
        let wanted = Flips {
            both_right: 1,
            negative: 1,
            positive: 1,
            both_wrong_same: 1,
            both_wrong_changed: 1,
        };
        assert_eq!(flips, wanted);
        // 0.2 over 0.6 wrong now times 0.4 right before.
        assert!((flips.relative_negative_rate() - 0.2 / 0.24).abs() < 1e-15);
        assert_eq!((flips.churn(), flips.inconsistency_rate()), (0.6, 0.4));
        assert_eq!(
            (flips.trust_compatibility(), flips.error_compatibility()),
            (0.5, 2.0 / 3.0)
        );
        let places = negative_flips(&split(truth), &split(old), &split(new)).unwrap();
        assert_eq!(places, [1]);
        assert!(
            Flips::of(&[1], &[1, 2], &[1]).is_err() && Flips::of::<u32>(&[], &[], &[]).is_err()
        );
    }

    #[test]
    fn gate_by_hand() {
        let task = |negative, positive| Flips {
            both_right: 80,
            negative,
            positive,
            ..Flips::default()
        };
        let found = gate(&[task(12, 1), task(3, 3), task(1, 12)], 0.1, 0.05).unwrap();
        assert!(found[0].over_limit && found[0].worse && !found[0].passes());
        assert!(found[1].passes() && found[2].passes());
        // 12 against 1: 2 (1 + 13) / 2^13, three times.
        assert!((found[0].adjusted - 84.0 / 8192.0).abs() < 1e-15);
        assert!(gate(&[], 0.1, 0.05).is_err() && gate(&[Flips::default()], 0.1, 0.05).is_err());
        assert!(gate(&[task(1, 1)], f64::NAN, 0.05).is_err());
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(rows in prop::collection::vec((0u32..3, 0u32..3, 0u32..3), 2..60), at in 1usize..59) {
            let at = at.min(rows.len() - 1);
            let of = |rows: &[(u32, u32, u32)]| {
                let mut flips = Flips::default();
                rows.iter().for_each(|(y, o, n)| flips.add(y, o, n));
                flips
            };
            let mut left = of(&rows[..at]);
            left.merge(&of(&rows[at..]));
            let whole = of(&rows);
            prop_assert_eq!(left, whole);
            let gained = whole.accuracy_new() - whole.accuracy_old();
            prop_assert!((gained - (whole.positive_rate() - whole.negative_rate())).abs() < 1e-15);
        }
    }
}
