//! What goals say of rows: in a step, after it, and on validation rows.

use polyloom_core::rng::Stream;

use super::{Balanced, Done};
use crate::balance::{At, Wants};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::{Penalised, Source};
use crate::ops;
use crate::tasks::forward::{by_head, has_groups};
use crate::tasks::{Head, Shown};
use crate::train::learned::Learned;
use crate::train::pass::{Of, losses, shown};
use crate::train::trainee::Trainee;

/// What a goal says of rows.
pub(super) struct Looked {
    pub loss: Value,
    pub rows: usize,
    /// What goes back: the loss, and what keeps experts in use.
    pub back: Value,
}

impl Balanced<'_> {
    /// Losses of a task's goals on its rows of a pass. Where experts are chosen by goal, a goal's rows pass on their own, and what
    /// keeps its experts in use goes back with its loss.
    pub(super) fn look(
        &self,
        source: &dyn Source,
        tasks: &[Learned<'_>],
        heads: &[Head],
        task: usize,
        done: &Done,
    ) -> Result<Vec<Option<Looked>>> {
        let (learned, drawn) = (&tasks[task], &done.drawn[task]);
        let rows = shown(&learned.train, &done.new[task], drawn);
        let own = &heads[learned.heads.clone()];
        let (seen, kept) = self.seen(source, learned, own, &rows)?;
        let of = Of::Training(done.share);
        let found = losses(self.job, source, learned, of, own, &seen, drawn)?;
        let one = |(place, found): (usize, Option<(Value, usize)>)| {
            let Some((loss, rows)) = found else {
                return Ok(None);
            };
            let back = match kept.get(place) {
                Some(Some(kept)) => ops::add(&loss, kept)?,
                _ => loss.clone(),
            };
            Ok(Some(Looked { loss, rows, back }))
        };
        found.into_iter().enumerate().map(one).collect()
    }

    /// What the heads of a task see of rows, and what keeps experts in use, by head; one value for all heads where rows pass once
    /// for all goals.
    fn seen(
        &self,
        source: &dyn Source,
        task: &Learned<'_>,
        heads: &[Head],
        rows: &[&Shown],
    ) -> Result<(Vec<Value>, Vec<Option<Value>>)> {
        let (model, reader) = (self.job.model, self.job.reader);
        let pass = |source: &dyn Source, heads: Vec<&Head>| {
            let parts = [(task.feature, heads, rows.to_vec())];
            let found = by_head(model, source, reader, &parts)?;
            Ok::<_, Error>(found.into_iter().flatten())
        };
        if !model.passes_apart() {
            let kept = Penalised::over(source);
            let seen = pass(&kept, heads.iter().collect())?.collect();
            return Ok((seen, vec![kept.sum(); heads.len()]));
        }
        let (mut seen, mut told) = (Vec::new(), Vec::new());
        for head in heads {
            let kept = Penalised::over(source);
            seen.extend(pass(&kept, vec![head])?);
            told.push(kept.sum());
        }
        Ok((seen, told))
    }

    /// After the step: the losses of the same rows, for a balancer that asks for them.
    ///
    /// # Errors
    /// What a pass reports.
    pub(in crate::train) fn after(
        &mut self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
    ) -> Result<()> {
        if self.balance.wants() != Wants::LossesAfter {
            return Ok(());
        }
        let mut sums = vec![(0.0, 0.0); self.goals.len()];
        for done in &self.passes {
            for task in (0..tasks.len()).filter(|t| !done.drawn[*t].is_empty()) {
                let values = trainee.with(Some(done.seed), |source| {
                    self.look(source, tasks, heads, task, done)
                })?;
                for (g, value) in self.of_task(task).zip(values) {
                    if let Some(Looked { loss, rows, .. }) = value {
                        sums[g].0 += f64::from(loss.number()?) * rows as f64;
                        sums[g].1 += rows as f64;
                    }
                }
            }
        }
        let losses: Vec<Option<f64>> = sums
            .iter()
            .map(|(l, n)| (*n > 0.0).then(|| l / n))
            .collect();
        self.balance.after(&losses);
        Ok(())
    }

    /// Losses of the goals on validation rows that the step draws: as many of each task as a pass has.
    pub(super) fn validation(
        &self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        at: At,
    ) -> Result<Vec<f64>> {
        let mut found = Vec::with_capacity(self.goals.len());
        for (k, task) in tasks.iter().enumerate() {
            let Some(rows) = &task.validation else {
                continue;
            };
            let n = self
                .quota
                .as_ref()
                .map_or(self.job.recipe.train.batch, |q| q[k]);
            let stream = Stream::new(at.seed, "balance validation", at.step << 16 | k as u64);
            let place = |i| (stream.bits(i as u64) % rows.len() as u64) as u32;
            let mut drawn: Vec<u32> = (0..n.min(rows.len())).map(place).collect();
            if has_groups(self.job.reader) {
                drawn.retain(|i| rows.shown[*i as usize].has_goal());
            }
            if drawn.is_empty() {
                found.extend(vec![0.0; task.heads.len()]);
                continue;
            }
            let values = trainee.with(None, |source| {
                let own = &heads[task.heads.clone()];
                let (seen, _) = self.seen(source, task, own, &shown(rows, &[], &drawn))?;
                losses(self.job, source, task, Of::Validation, own, &seen, &drawn)
            })?;
            for value in values {
                // None of the rows says what is right: nothing to learn from.
                found.push(match value {
                    Some((value, _)) => f64::from(value.number()?),
                    None => 0.0,
                });
            }
        }
        Ok(found)
    }
}
