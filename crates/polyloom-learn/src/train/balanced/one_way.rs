//! Steps of methods that look at losses alone: one way back for all goals.

use super::{Balanced, Sum};
use crate::balance::{At, Combined, Looks};
use crate::engine::{Gradients, Value};
use crate::error::{Error, Result};
use crate::ops;
use crate::tasks::Head;
use crate::train::learned::Learned;
use crate::train::sampler::Sampler;
use crate::train::trainee::Trainee;

impl Balanced<'_> {
    /// Whether one way back does for all goals of a step. With several passes a step, weights would come too late for the
    /// first of them.
    pub(super) fn is_one_way(&self, at: At) -> bool {
        let step = u32::try_from(at.step + 1).unwrap_or(u32::MAX);
        self.balance.method.looks == Looks::Losses
            && self.job.recipe.train.accumulate == 1
            && !self.is_told(step, at.step + 1 == at.steps)
    }

    /// A step of a method that looks at losses alone: the gradient of their weighted sum.
    pub(super) fn one_way(
        &mut self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        sampler: &mut Sampler,
        at: At,
        sums: &mut [(f64, f64)],
    ) -> Result<(Gradients, Combined)> {
        let done = self.draw(tasks, sampler, at);
        let mut values: Vec<Option<Value>> = vec![None; self.goals.len()];
        self.sums.fill(Sum::default());
        for task in (0..tasks.len()).filter(|t| !done.drawn[*t].is_empty()) {
            let found = trainee.with(Some(done.seed), |source| {
                self.look(source, tasks, heads, task, &done)
            })?;
            let goals: Vec<usize> = self.of_task(task).collect();
            for (g, value) in goals.into_iter().zip(found) {
                let Some(found) = value else { continue };
                let (loss, n) = (self.finite(&found.loss, g, tasks, &done)?, found.rows);
                self.sums[g].loss = loss * n as f64;
                self.sums[g].rows = n as f64;
                values[g] = Some(found.back);
            }
        }
        self.passes.push(done);
        self.tally(sums);
        let losses: Vec<Option<f64>> = self
            .sums
            .iter()
            .map(|s| (s.rows > 0.0).then(|| s.loss / s.rows))
            .collect();
        let combined = self
            .balance
            .weigh(&losses, at)
            .ok_or_else(|| Error::shape("step", "a method that looks at gradients"))?;
        let mut total: Option<Value> = None;
        for (value, weight) in values.iter().zip(&combined.own) {
            let Some(value) = value else { continue };
            let value = ops::scale(value, *weight as f32)?;
            total = Some(match total {
                None => value,
                Some(total) => ops::add(&total, &value)?,
            });
        }
        let mut gradients = trainee.parameters.gradients()?;
        if let Some(total) = total {
            total.backward_into(&mut gradients)?;
        }
        Ok((gradients, combined))
    }
}
