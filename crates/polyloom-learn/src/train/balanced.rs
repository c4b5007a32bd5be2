//! A step that balances tasks: gradients of every task on its own rows, one direction out of them.
//!
//! What is balanced are goals: the targets of all tasks, each with its head. Every pass has rows of every task, so many as
//! its share of the batch says and at least one; each task's rows run through the trunk on their own, which costs what one
//! pass over all of them costs, and every goal goes back on its own. Where a method looks at losses alone, the weighted sum of
//! the losses goes back once, but for steps of which the log tells how gradients stand to each other.

mod features;
mod look;
mod one_way;
mod told;

use std::ops::Range;

use polyloom::MergeError;
use polyloom_core::nn::elementwise::{axpy, scale};

use super::learned::Learned;
use super::pass::{augmented, seed_of, unfinished};
use super::recipe::{BalanceRecipe, By};
use super::run::Job;
use super::sampler::{Sampler, shared_out};
use super::trainee::Trainee;
use crate::balance::flat::perturbation;
use crate::balance::{At, Balance, Combined, Given, Wants};
use crate::engine::{Gradients, Value};
use crate::error::{Error, Result};
use crate::tasks::{Head, Shown};

pub use told::Kept;

/// A target that is learned.
struct Goal {
    /// Name: that of its head.
    name: String,
    /// Its task, and its place among the task's heads.
    task: usize,
    place: usize,
    /// Where the parameters of its head lie; empty for a frozen one.
    own: Range<usize>,
}

/// Rows of a pass that was done.
struct Done {
    drawn: Vec<Vec<u32>>,
    new: Vec<Vec<Shown>>,
    seed: u64,
    /// Share of the steps of the run that was done before it.
    share: f64,
}

/// What a step collects of a goal.
#[derive(Default, Clone)]
struct Sum {
    /// Gradient of the shared parameters, of its own, of the shared ones at the second point.
    shared: Vec<f32>,
    own: Vec<f32>,
    second: Vec<f32>,
    /// Loss times rows, and rows.
    loss: f64,
    rows: f64,
}

/// Balanced steps of a run.
pub(super) struct Balanced<'a> {
    job: &'a Job<'a>,
    recipe: &'a BalanceRecipe,
    balance: Balance,
    goals: Vec<Goal>,
    /// Names and places of the shared parameters, which lie in front.
    places: Vec<(String, Range<usize>)>,
    /// Rows of each task in a pass; nothing for a single task.
    quota: Option<Vec<usize>>,
    sums: Vec<Sum>,
    passes: Vec<Done>,
}

impl<'a> Balanced<'a> {
    /// Of a run, where its recipe asks for it.
    ///
    /// # Errors
    /// Fewer than two goals, a batch with fewer rows than tasks, no validation rows for a method that looks at them.
    pub(super) fn new(
        job: &'a Job<'a>,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        shares: &[f64],
    ) -> Result<Option<Self>> {
        let t = &job.recipe.train;
        let Some(recipe) = &t.balance else {
            return Ok(None);
        };
        let bad =
            |what: String, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint).into());
        if heads.len() < 2 {
            return bad(
                format!(
                    "`train.balance` balances several goals; there is one, `{}`",
                    heads.first().map_or("none", |h| &h.task)
                ),
                "name a second task, or leave out [train.balance]",
            );
        }
        let quota = match tasks.len() {
            1 => None,
            n => match shared_out(t.batch, shares) {
                None => {
                    return bad(
                        format!(
                            "a balanced pass has a row of each of {n} tasks; `train.batch` is {}",
                            t.batch
                        ),
                        "a larger train.batch",
                    );
                }
                quota => quota,
            },
        };
        let mut places = Vec::new();
        let mut own = vec![0..0; heads.len()];
        for p in trainee.parameters.iter() {
            let of = heads.iter().position(|h| h.is_own(&p.name));
            match of {
                None => places.push((p.name.clone(), p.at.clone())),
                Some(i) if own[i].is_empty() => own[i] = p.at.clone(),
                Some(i) => own[i].end = p.at.end,
            }
        }
        let balance = Balance::new(&recipe.method, &recipe.parameters, heads.len())?;
        if recipe.gradients == By::Features {
            features::check(job, &balance, tasks, heads)?;
        }
        if let Wants::Validation(_) = balance.wants()
            && let Some(task) = tasks.iter().find(|t| t.validation.is_none())
        {
            return bad(
                format!(
                    "`train.balance` method `{}` looks at validation rows; task `{}` has none",
                    recipe.method, task.given.spec.id
                ),
                "train.validation names the split that is looked at",
            );
        }
        let of_task = |(task, t): (usize, &Learned<'_>)| {
            let places = t.heads.clone().enumerate();
            places.map(move |(place, head)| (task, place, head))
        };
        let goals = tasks.iter().enumerate().flat_map(of_task);
        let goals = goals.map(|(task, place, head)| Goal {
            name: heads[head].task.clone(),
            task,
            place,
            own: own[head].clone(),
        });
        Ok(Some(Self {
            job,
            recipe,
            balance,
            goals: goals.collect(),
            places,
            quota,
            sums: vec![Sum::default(); heads.len()],
            passes: Vec::new(),
        }))
    }

    /// Gradients of a step; sums of losses and rows by task go to `sums`.
    ///
    /// # Errors
    /// A loss that is not finite, and what a pass reports.
    pub(super) fn gradients(
        &mut self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        sampler: &mut Sampler,
        at: At,
        sums: &mut [(f64, f64)],
    ) -> Result<(Gradients, Combined)> {
        if let Wants::Validation(every) = self.balance.wants()
            && at.step.is_multiple_of(every)
        {
            let found = self.validation(trainee, tasks, heads, at)?;
            self.balance.validated(&found);
        }
        self.passes.clear();
        if self.recipe.gradients == By::Features {
            return self.by_features(trainee, tasks, heads, sampler, at, sums);
        }
        if self.is_one_way(at) {
            return self.one_way(trainee, tasks, heads, sampler, at, sums);
        }
        let shared = self.places.last().map_or(0, |p| p.1.end);
        for (sum, goal) in self.sums.iter_mut().zip(&self.goals) {
            *sum = Sum {
                shared: std::mem::take(&mut sum.shared),
                second: std::mem::take(&mut sum.second),
                own: vec![0.0; goal.own.len()],
                ..Sum::default()
            };
            refill(&mut sum.shared, shared);
            if matches!(self.balance.wants(), Wants::Perturbed(_)) {
                refill(&mut sum.second, shared);
            }
        }
        for _ in 0..self.job.recipe.train.accumulate {
            let done = self.draw(tasks, sampler, at);
            for task in 0..tasks.len() {
                self.pass(trainee, tasks, heads, task, &done)?;
            }
            self.passes.push(done);
        }
        self.tally(sums);
        self.direction(trainee, at)
    }

    /// The rows of a pass.
    fn draw(&self, tasks: &[Learned<'_>], sampler: &mut Sampler, at: At) -> Done {
        let (before, _) = sampler.counts();
        let drawn = match &self.quota {
            None => sampler.next(self.job.recipe.train.batch),
            Some(quota) => sampler.next_of(quota),
        };
        Done {
            new: augmented(self.job, tasks, &drawn, before),
            seed: seed_of(self.job, before),
            share: at.step as f64 / at.steps.max(1) as f64,
            drawn,
        }
    }

    /// Losses and rows of the step's passes by task.
    fn tally(&self, sums: &mut [(f64, f64)]) {
        for (t, sum) in sums.iter_mut().enumerate() {
            let of: Vec<&Sum> = self
                .of_task(t)
                .map(|g| &self.sums[g])
                .filter(|s| s.rows > 0.0)
                .collect();
            let rows: usize = self.passes.iter().map(|p| p.drawn[t].len()).sum();
            if !of.is_empty() {
                let mean = of.iter().map(|s| s.loss / s.rows).sum::<f64>() / of.len() as f64;
                *sum = (sum.0 + mean * rows as f64, sum.1 + rows as f64);
            }
        }
    }

    /// The number of a goal's loss, which must be finite.
    fn finite(
        &self,
        value: &Value,
        goal: usize,
        tasks: &[Learned<'_>],
        done: &Done,
    ) -> Result<f64> {
        let loss = f64::from(value.number()?);
        let Goal { name, task, .. } = &self.goals[goal];
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(unfinished(
                self.job,
                &tasks[*task],
                name,
                loss,
                &done.drawn[*task],
            )),
        }
    }

    fn of_task(&self, task: usize) -> impl Iterator<Item = usize> {
        (0..self.goals.len()).filter(move |g| self.goals[*g].task == task)
    }

    /// One task's rows of a pass: gradients of its goals, also at their second points.
    fn pass(
        &mut self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        task: usize,
        done: &Done,
    ) -> Result<()> {
        if done.drawn[task].is_empty() {
            return Ok(());
        }
        let goals: Vec<usize> = self.of_task(task).collect();
        let shared = self.places.last().map_or(0, |p| p.1.end);
        let second = match self.balance.wants() {
            Wants::Perturbed(rho) => Some(rho),
            _ => None,
        };
        let mut first: Vec<(usize, Vec<f32>, f32)> = Vec::new();
        trainee.with(Some(done.seed), |source| {
            let values = self.look(source, tasks, heads, task, done)?;
            for (&g, value) in goals.iter().zip(values) {
                let Some(found) = value else { continue };
                let (loss, n) = (self.finite(&found.loss, g, tasks, done)?, found.rows);
                let gradient = back(trainee, &found.back)?;
                let own = self.goals[g].own.clone();
                let sum = &mut self.sums[g];
                sum.loss += loss * n as f64;
                sum.rows += n as f64;
                axpy(&mut sum.shared, n as f32, &gradient[..shared]);
                match second {
                    None => axpy(&mut sum.own, n as f32, &gradient[own]),
                    Some(_) => first.push((g, gradient, n as f32)),
                }
            }
            Ok(())
        })?;
        for (g, gradient, n) in first {
            let Some(rho) = second else { continue };
            let there = self.second_point(trainee, tasks, heads, g, done, &gradient, rho)?;
            let own = self.goals[g].own.clone();
            let sum = &mut self.sums[g];
            axpy(&mut sum.second, n, &there[..shared]);
            axpy(&mut sum.own, n, &there[own]);
        }
        Ok(())
    }

    /// The gradient of a goal where its own gradient leads to; the weights are as before in the end.
    #[allow(
        clippy::too_many_arguments,
        reason = "the state of the loop, taken apart"
    )]
    fn second_point(
        &self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        goal: usize,
        done: &Done,
        gradient: &[f32],
        rho: f64,
    ) -> Result<Vec<f32>> {
        let (own, shared) = (
            self.goals[goal].own.clone(),
            self.places.last().map_or(0, |p| p.1.end),
        );
        let here = trainee.parameters.weights()?.to_vec();
        trainee.parameters.update(|w, _| {
            axpy(
                &mut w[..shared],
                1.0,
                &perturbation(&gradient[..shared], rho),
            );
            axpy(&mut w[own.clone()], 1.0, &perturbation(&gradient[own], rho));
        })?;
        let there = trainee.with(Some(done.seed), |source| {
            let values = self.look(source, tasks, heads, self.goals[goal].task, done)?;
            match values.into_iter().nth(self.goals[goal].place).flatten() {
                Some(found) => back(trainee, &found.back),
                None => Ok(vec![0.0; gradient.len()]),
            }
        });
        trainee.parameters.update(|w, _| w.copy_from_slice(&here))?;
        there
    }

    /// The direction of the step, as gradients.
    fn direction(&mut self, trainee: &Trainee, at: At) -> Result<(Gradients, Combined)> {
        let shared = self.places.last().map_or(0, |p| p.1.end);
        for sum in &mut self.sums {
            if sum.rows > 0.0 {
                let share = (1.0 / sum.rows) as f32;
                scale(&mut sum.shared, share);
                scale(&mut sum.own, share);
                if !sum.second.is_empty() {
                    scale(&mut sum.second, share);
                    axpy(&mut sum.second, -1.0, &sum.shared);
                }
            }
        }
        let losses: Vec<Option<f64>> = self
            .sums
            .iter()
            .map(|s| (s.rows > 0.0).then(|| s.loss / s.rows))
            .collect();
        let rows: Vec<&[f32]> = self.sums.iter().map(|s| &s.shared[..]).collect();
        let differences: Vec<&[f32]> = self.sums.iter().map(|s| &s.second[..]).collect();
        let given = Given {
            losses: &losses,
            gradients: &rows,
            differences: matches!(self.balance.wants(), Wants::Perturbed(_))
                .then_some(&differences),
            places: &self.places,
            at,
        };
        let (balance, goals, sums) = (&mut self.balance, &self.goals, &self.sums);
        let mut combined = None;
        let gradients = trainee.parameters.gradients_from(|all| {
            all.fill(0.0);
            let found = balance.combine(&given, &mut all[..shared]);
            for ((goal, sum), factor) in goals.iter().zip(sums).zip(&found.own) {
                axpy(&mut all[goal.own.clone()], *factor as f32, &sum.own);
            }
            combined = Some(found);
        })?;
        let combined = combined.ok_or_else(|| Error::shape("step", "no direction"))?;
        Ok((gradients, combined))
    }
}

/// Zeros of a length, in the place that is there.
fn refill(values: &mut Vec<f32>, length: usize) {
    values.clear();
    values.resize(length, 0.0);
}

/// Gradients of all parameters by one loss.
fn back(trainee: &Trainee, loss: &Value) -> Result<Vec<f32>> {
    let mut gradients = trainee.parameters.gradients()?;
    loss.backward_into(&mut gradients)?;
    Ok(trainee.parameters.gathered(&gradients)?.to_vec())
}
