//! A model that learns one task after the other: what it keeps, what it forgets, what it learns in advance.
//!
//! Sources: Lopez-Paz and Ranzato, "Gradient episodic memory" (2017), for accuracy and transfer; Chaudhry et al., "Riemannian
//! walk" (2018), for forgetting and intransigence; Díaz-Rodríguez et al., "Don't forget, there is more than forgetting"
//! (2018), for the bounded forms.

use crate::evaluate::error::{EvalError, Result, same_length};
use crate::evaluate::statistics::check_finite;
use crate::evaluate::sum::mean;

/// Scores `R[i][j]` on task j after learning stage i, as many stages as tasks, in the order in which they were learned.
#[derive(Debug, Clone, PartialEq)]
pub struct ContinualMatrix(Vec<Vec<f64>>);

impl ContinualMatrix {
    /// Checks and keeps the scores: one row per stage.
    ///
    /// # Errors
    /// No stages, a row that has not one score per stage, or a score that is not finite.
    pub fn new(scores: Vec<Vec<f64>>) -> Result<Self> {
        const WHAT: &str = "continual-learning matrix";
        if scores.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        for row in &scores {
            same_length(WHAT, row.len(), scores.len())?;
            check_finite(WHAT, row)?;
        }
        Ok(Self(scores))
    }

    fn tasks(&self) -> usize {
        self.0.len()
    }

    fn last(&self) -> &[f64] {
        &self.0[self.tasks() - 1]
    }

    fn learned(&self) -> impl Iterator<Item = f64> {
        self.0.iter().enumerate().map(|(i, row)| row[i])
    }

    /// Mean of a quantity over all tasks but the last; `NaN` for one task.
    fn over_earlier(&self, of: impl Fn(usize) -> f64) -> f64 {
        mean((0..self.tasks() - 1).map(of))
    }

    /// Mean score on all tasks after the last stage (ACC).
    pub fn average_accuracy(&self) -> f64 {
        mean(self.last().iter().copied())
    }

    /// Mean over the stages of the mean score on the tasks seen so far.
    pub fn average_incremental_accuracy(&self) -> f64 {
        let seen = self.0.iter().enumerate();
        mean(seen.map(|(i, row)| mean(row[..=i].iter().copied())))
    }

    /// Mean over all stages and the tasks seen by then.
    pub fn triangular_accuracy(&self) -> f64 {
        let seen = self.0.iter().enumerate();
        mean(seen.flat_map(|(i, row)| row[..=i].iter().copied()))
    }

    /// Mean score on each task right after learning it.
    pub fn learning_accuracy(&self) -> f64 {
        mean(self.learned())
    }

    /// Backward transfer (BWT): how much later stages changed the score right after learning, below 0 where the model
    /// forgets. `NaN` for one task.
    pub fn backward_transfer(&self) -> f64 {
        self.over_earlier(|j| self.last()[j] - self.0[j][j])
    }

    /// The part of backward transfer above 0 (BWT+); `NaN` for one task.
    pub fn positive_backward_transfer(&self) -> f64 {
        // Not f64::max, which drops NaN.
        match self.backward_transfer() {
            x if x < 0.0 => 0.0,
            x => x,
        }
    }

    /// One less the part of backward transfer below 0 (REM), 1 without forgetting; `NaN` for one task.
    pub fn remembering(&self) -> f64 {
        match self.backward_transfer() {
            x if x > 0.0 => 1.0,
            x => 1.0 + x,
        }
    }

    /// Forgetting: the best score on a task at any earlier stage less the last one; `NaN` for one task.
    pub fn forgetting(&self) -> f64 {
        self.forgetting_since(|_| 0)
    }

    /// Forgetting that counts only the stages from which a task was learned on; `NaN` for one task.
    pub fn forgetting_from_learned(&self) -> f64 {
        self.forgetting_since(|j| j)
    }

    fn forgetting_since(&self, first: impl Fn(usize) -> usize) -> f64 {
        let earlier = &self.0[..self.tasks() - 1];
        self.over_earlier(|j| {
            let scores = earlier[first(j)..].iter().map(|row| row[j]);
            scores.fold(f64::NEG_INFINITY, f64::max) - self.last()[j]
        })
    }

    /// Forward transfer (FWT): the score on a task just before learning it, less that of the untrained model, `untrained[j]`.
    /// `NaN` for one task.
    ///
    /// # Errors
    /// Not one score per task, or one that is not finite.
    pub fn forward_transfer(&self, untrained: &[f64]) -> Result<f64> {
        const WHAT: &str = "forward transfer";
        same_length(WHAT, untrained.len(), self.tasks())?;
        check_finite(WHAT, untrained)?;
        Ok(mean(
            (1..self.tasks()).map(|j| self.0[j - 1][j] - untrained[j]),
        ))
    }

    /// Intransigence: the score of a model that learned the task alone, `single[j]`, less the score right after learning it
    /// in the sequence.
    ///
    /// # Errors
    /// Not one score per task, or one that is not finite.
    pub fn intransigence(&self, single: &[f64]) -> Result<f64> {
        const WHAT: &str = "intransigence";
        same_length(WHAT, single.len(), self.tasks())?;
        check_finite(WHAT, single)?;
        Ok(mean(single.iter().zip(self.learned()).map(|(s, r)| s - r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tasks_by_hand() {
        let rows = [[0.5, 0.25, 0.25], [0.75, 1.0, 0.5], [0.25, 0.5, 1.0]];
        let matrix = ContinualMatrix::new(rows.map(Vec::from).to_vec()).unwrap();
        assert_eq!(matrix.average_accuracy(), 1.75 / 3.0);
        assert_eq!(matrix.backward_transfer(), (-0.25 - 0.5) / 2.0);
        assert_eq!(matrix.forgetting(), 0.5);
        assert_eq!(matrix.remembering(), 0.625);
        assert_eq!(matrix.positive_backward_transfer(), 0.0);
        assert_eq!(matrix.learning_accuracy(), 2.5 / 3.0);
        assert_eq!(matrix.forward_transfer(&[0.0, 0.25, 0.25]).unwrap(), 0.125);
        assert_eq!(matrix.intransigence(&[1.0; 3]).unwrap(), 0.5 / 3.0);
        assert_eq!(matrix.triangular_accuracy(), 4.0 / 6.0);
        assert!(
            matrix.forward_transfer(&[0.0]).is_err()
                && matrix.intransigence(&[f64::NAN; 3]).is_err()
        );
    }

    #[test]
    fn one_task_has_nothing_to_forget() {
        let matrix = ContinualMatrix::new(vec![vec![0.5]]).unwrap();
        assert!(matrix.backward_transfer().is_nan() && matrix.forgetting_from_learned().is_nan());
        assert!(matrix.remembering().is_nan() && matrix.positive_backward_transfer().is_nan());
        assert!(matrix.forward_transfer(&[0.5]).unwrap().is_nan());
        assert_eq!(matrix.average_incremental_accuracy(), 0.5);
        assert!(ContinualMatrix::new(vec![]).is_err());
        assert!(ContinualMatrix::new(vec![vec![0.5, 0.5]]).is_err());
        assert!(ContinualMatrix::new(vec![vec![f64::NAN]]).is_err());
    }
}
