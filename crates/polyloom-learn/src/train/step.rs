//! Gradients of a step by one loss.

use super::curvature;
use super::learned::Learned;
use super::mixing::Plan;
use super::optimiser::Optimiser;
use super::pass::{Drawn, pass};
use super::representation::{Representation, graddrop};
use super::run::Job;
use super::sampler::Sampler;
use super::stages::Stage;
use super::trainee::Trainee;
use crate::engine::Gradients;
use crate::error::Result;
use crate::ops;
use crate::tasks::Head;

/// Gradients of a step by one loss: the mean over the rows that it draws.
#[allow(
    clippy::too_many_arguments,
    reason = "the state of the loop, taken apart"
)]
pub(super) fn together(
    job: &Job<'_>,
    trainee: &Trainee,
    tasks: &[Learned<'_>],
    heads: &[Head],
    (stage, sampler): (&Stage, &mut Sampler),
    (optimiser, plan): (&mut Optimiser, &Plan),
    sums: &mut [(f64, f64)],
    (step, done): (u32, f64),
) -> Result<Gradients> {
    let t = &job.recipe.train;
    let mut passes = Vec::new();
    for _ in 0..t.accumulate {
        let (before, _) = sampler.counts();
        passes.push(match &plan.quota {
            None => (stage.rows(sampler.next(t.batch)), before),
            Some(quota) => (stage.rows(sampler.next_of(quota)), before),
        });
    }
    let mut passes = passes.iter().map(|(rows, before)| Drawn {
        rows,
        before: *before,
        done,
    });
    if let Some(first) = passes.clone().next() {
        curvature::look(job, trainee, tasks, heads, &first, optimiser, step)?;
    }
    let mut gradients = optimiser.gradients(&trainee.parameters)?;
    let share = 1.0 / f64::from(t.accumulate);
    if let Some(Representation::Graddrop { leak }) = t.representation {
        passes.try_for_each(|drawn| {
            let numbers = (leak, share);
            graddrop(
                job,
                trainee,
                tasks,
                heads,
                &drawn,
                sums,
                numbers,
                &mut gradients,
            )
        })?;
        return Ok(gradients);
    }
    passes.try_for_each(|drawn| {
        pass(job, trainee, tasks, heads, &drawn, sums, |loss| {
            ops::scale(&loss, 1.0 / t.accumulate as f32)?.backward_into(&mut gradients)
        })
    })?;
    Ok(gradients)
}
