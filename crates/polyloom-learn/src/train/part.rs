//! A task's part of the loss of a pass.

use super::learned::Learned;
use super::pass::{Drawn, unfinished};
use super::run::Job;
use crate::engine::Value;
use crate::error::Result;
use crate::ops;

/// A task's part of a pass.
pub(super) struct Part {
    /// The task.
    pub task: usize,
    /// Losses of its goals; none where no row says what is right. Of language one.
    pub losses: Vec<Option<Value>>,
    /// What the goals count in their mean (`targets[].weight`).
    pub weights: Vec<f64>,
    /// What their mean counts in the loss of the pass.
    pub n: f64,
    /// What is added to their mean, beside the loss that is told.
    pub extra: Option<Value>,
}

impl Part {
    /// Adds the loss to what is told of a step.
    ///
    /// # Errors
    /// A loss that is not finite.
    pub(super) fn count(
        &self,
        job: &Job<'_>,
        tasks: &[Learned<'_>],
        drawn: &Drawn<'_>,
        sums: &mut [(f64, f64)],
    ) -> Result<()> {
        let Some(mean) = self.mean()? else {
            return Ok(());
        };
        let number = f64::from(mean.number()?);
        if !number.is_finite() {
            let (k, rows) = (self.task, &drawn.rows[self.task]);
            let id = &tasks[k].given.spec.id;
            return Err(unfinished(job, &tasks[k], id, number, rows));
        }
        sums[self.task].0 += number * self.n;
        sums[self.task].1 += self.n;
        Ok(())
    }

    /// The mean over the goals that have a loss, by their weights.
    pub(super) fn mean(&self) -> Result<Option<Value>> {
        let shares = self.shares();
        let alike = shares
            .iter()
            .flatten()
            .all(|s| Some(*s) == shares.iter().flatten().copied().next());
        let mut sum: Option<Value> = None;
        for (value, share) in self.losses.iter().zip(&shares) {
            let (Some(value), Some(share)) = (value, share) else {
                continue;
            };
            // Alike, they are multiplied once.
            let value = match alike {
                true => value.clone(),
                false => ops::scale(value, *share as f32)?,
            };
            sum = Some(match sum {
                Some(sum) => ops::add(&sum, &value)?,
                None => value,
            });
        }
        let goals = self.losses.iter().flatten().count() as f32;
        match alike {
            true => sum.map(|sum| ops::scale(&sum, 1.0 / goals)).transpose(),
            false => Ok(sum),
        }
    }

    /// The share of every goal that has a loss in their mean.
    pub(super) fn shares(&self) -> Vec<Option<f64>> {
        let of = || {
            self.losses
                .iter()
                .zip(&self.weights)
                .filter(|(loss, _)| loss.is_some())
        };
        let all: f64 = of().map(|(_, weight)| weight).sum();
        let one = |(loss, weight): (&Option<Value>, &f64)| loss.as_ref().map(|_| weight / all);
        self.losses.iter().zip(&self.weights).map(one).collect()
    }
}
