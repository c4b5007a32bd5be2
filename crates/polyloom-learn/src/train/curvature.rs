//! Estimates of the curvature for Sophia (Liu et al., ICLR 2024), every `every` steps, before the step, on the rows of its
//! first pass.
//!
//! Sophia-G: the rows get labels drawn from the model's own answers, and the squares of the gradient on them estimate the
//! diagonal of the Gauss-Newton matrix (Gauss, Newton, Bartlett). A loss is a sum of terms `c_i l_i`, one for every drawn
//! label; the gradient is that of `sum sqrt(c_i) l_i`, whose squares have the mean `sum c_i (dl_i)^2`. Where all c are
//! `1 / B` these are the paper's `B` squares of the gradient of the mean, and tasks, targets and labels may weigh as they do
//! in the loss. Classes are drawn from the softmax, labels of which any number may hold each from its sigmoid, numbers from
//! the normal distribution about the prediction that has the loss as its negative logarithm: unit variance for half the
//! square, so a variance of 1/2 for the square that is the loss, in units of the training rows' deviation; tokens from the
//! softmax.
//!
//! Sophia-H: `u * (H u)` of normal numbers u (Hutchinson); `H u = (g(w + e u) - g(w - e u)) / 2e` on the same rows with the
//! same dropout, `e = step |w| / |u|`. Where the paper differentiates twice, this costs two more passes and no graph of
//! second order. Neither estimate is cut by `clip`.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom_core::nn::elementwise::{axpy, squares};
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::language;
use super::learned::Learned;
use super::objective::loss;
use super::optimiser::{Curvature, Optimiser, Rule, Tables};
use super::pass::{Drawn, pass, seed_of, seen};
use super::recipe::{OptimiserName, Recipe, Train};
use super::rowwise::Loss;
use super::run::Job;
use super::trainee::Trainee;
use crate::engine::{Value, slice};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::ops;
use crate::tasks::{Head, HeadKind};

/// `[train.sophia]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SophiaRecipe {
    /// Steps between estimates; the first step always has one.
    pub every: u32,
    /// Factor of the curvature of Sophia-G.
    pub rho: f64,
    /// Factor of the curvature of Sophia-H.
    pub gamma: f64,
    /// Length of the difference of Sophia-H, as a share of the length of the weights.
    pub step: f64,
}

impl Default for SophiaRecipe {
    fn default() -> Self {
        Self {
            every: 10,
            rho: 0.04,
            gamma: 10.0,
            step: 1e-3,
        }
    }
}

/// Whether the keys about Sophia go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    if !t.optimiser.is_sophia() {
        return match t.sophia {
            None => Ok(()),
            Some(_) => bad(
                "`[train.sophia]` is about `optimiser = \"sophia_g\"` and \"sophia_h\"",
                "choose one of them, or leave the table out",
            ),
        };
    }
    let s = t.sophia.clone().unwrap_or_default();
    if s.every == 0 {
        return bad("`train.sophia.every` must be at least 1", "10 is usual");
    }
    for (name, x) in [("rho", s.rho), ("gamma", s.gamma), ("step", s.step)] {
        if !(x.is_finite() && x > 0.0) {
            return bad(
                &format!("`train.sophia.{name}` is {x}; it must be above 0"),
                "",
            );
        }
    }
    if t.balance.is_some() {
        return bad(
            "`train.balance` makes a direction of several losses; Sophia looks at the curvature of one",
            "train.optimiser = \"adamw\", or leave out [train.balance]",
        );
    }
    if t.embedding_update == Tables::Lazy {
        return bad(
            "Sophia looks at the curvature of all rows of a table, `embedding_update = \"lazy\"` at those of the batch",
            "train.embedding_update = \"dense\"",
        );
    }
    if t.optimiser == OptimiserName::SophiaG && t.fuse.is_some() {
        return bad(
            "`optimiser = \"sophia_g\"` draws labels from what the model says; `train.fuse` learns from distributions",
            "train.optimiser = \"sophia_h\"",
        );
    }
    if t.optimiser == OptimiserName::SophiaG && (t.loss != Loss::Case1 || t.reweight.is_some()) {
        return bad(
            "`optimiser = \"sophia_g\"` looks at the curvature of a mean; `train.loss` and `[train.reweight]` weigh rows otherwise",
            "train.optimiser = \"sophia_h\"",
        );
    }
    Ok(())
}

/// The rule of a recipe that asks for Sophia.
pub(super) fn rule(recipe: &Recipe) -> Rule {
    let s = recipe.train.sophia.clone().unwrap_or_default();
    let (curvature, factor) = match recipe.train.optimiser {
        OptimiserName::SophiaG => (Curvature::Labels, s.rho),
        _ => (Curvature::Product, s.gamma),
    };
    Rule::Sophia {
        curvature,
        betas: recipe.betas().map(|b| b as f32),
        factor: factor as f32,
        decay: recipe.decay() as f32,
    }
}

/// Refuses heads that labels cannot be drawn for.
///
/// # Errors
/// A task that is learned by vectors or maps, with Sophia-G.
pub(super) fn check_heads(recipe: &Recipe, heads: &[Head]) -> Result<()> {
    let none = |h: &&Head| {
        matches!(
            h.kind,
            HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_)
        )
    };
    let vectors = heads.iter().find(none);
    match vectors {
        Some(head) if recipe.train.optimiser == OptimiserName::SophiaG => {
            let what = format!(
                "task `{}` is learned by vectors or maps, which no labels are drawn for",
                head.task
            );
            Err(MergeError::plan("bad-recipe", what)
                .hint("train.optimiser = \"sophia_h\"")
                .into())
        }
        _ => Ok(()),
    }
}

/// Gives the optimiser an estimate where one is due before a step, from 0.
///
/// # Errors
/// What a pass reports, estimates that are not finite.
pub(super) fn look(
    job: &Job<'_>,
    trainee: &Trainee,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
    optimiser: &mut Optimiser,
    step: u32,
) -> Result<()> {
    let Rule::Sophia { curvature, .. } = optimiser.rule else {
        return Ok(());
    };
    let recipe = job.recipe.train.sophia.clone().unwrap_or_default();
    if !step.is_multiple_of(recipe.every) {
        return Ok(());
    }
    let found = trainee.aside(|| match curvature {
        Curvature::Labels => of_labels(job, trainee, tasks, heads, drawn),
        Curvature::Product => {
            let stream = Stream::new(job.recipe.seed, "sophia", u64::from(step));
            product(trainee, stream, recipe.step, || {
                let mut gradients = trainee.parameters.gradients()?;
                let mut unseen = vec![(0.0, 0.0); tasks.len()];
                pass(job, trainee, tasks, heads, drawn, &mut unseen, |loss| {
                    loss.backward_into(&mut gradients)
                })?;
                Ok(trainee.parameters.gathered(&gradients)?.to_vec())
            })
        }
    })?;
    optimiser.estimate(&found)
}

/// `u * (H u)` by a central difference of gradients; the weights are as before in the end.
fn product(
    trainee: &Trainee,
    stream: Stream,
    step: f64,
    gradient: impl Fn() -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let here = trainee.parameters.weights()?.to_vec();
    let u: Vec<f32> = (0..here.len() as u64).map(|i| stream.normal(i)).collect();
    let length = match squares(&here).sqrt() {
        0.0 => 1.0,
        length => length,
    };
    let e = step * length / squares(&u).sqrt();
    let at = |sign: f64| -> Result<Vec<f32>> {
        trainee.parameters.update(|w, _| {
            w.copy_from_slice(&here);
            axpy(w, (sign * e) as f32, &u);
        })?;
        gradient()
    };
    let both = at(1.0).and_then(|ahead| Ok((ahead, at(-1.0)?)));
    trainee.parameters.update(|w, _| w.copy_from_slice(&here))?;
    let (ahead, behind) = both?;
    let of = ahead.iter().zip(&behind).zip(&u);
    Ok(of
        .map(|((a, b), u)| (f64::from(*u) * (f64::from(*a) - f64::from(*b)) / (2.0 * e)) as f32)
        .collect())
}

/// The gradient of labels that are drawn from what the model says, its terms weighted by the roots of their weights.
fn of_labels(
    job: &Job<'_>,
    trainee: &Trainee,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
) -> Result<Vec<f32>> {
    let mut gradients = trainee.parameters.gradients()?;
    trainee.with(Some(seed_of(job, drawn.before)), |source| {
        let parts = match job.recipe.train.language {
            Some(_) => of_tokens(job, source, tasks, drawn)?,
            None => of_heads(job, source, tasks, heads, drawn)?,
        };
        let mut whole: Option<Value> = None;
        // The weight of the mean of some terms, over how many it is.
        for (mean, weight, terms) in parts {
            let part = ops::scale(&mean, (weight * terms).sqrt() as f32)?;
            whole = Some(match whole {
                Some(sum) => ops::add(&sum, &part)?,
                None => part,
            });
        }
        whole.map_or(Ok(()), |loss| loss.backward_into(&mut gradients))
    })?;
    Ok(trainee.parameters.gathered(&gradients)?.to_vec())
}

/// Means over terms, with their weights in the loss and how many terms they have.
type Parts = Vec<(Value, f64, f64)>;

fn labels(job: &Job<'_>, drawn: &Drawn<'_>, part: usize) -> Stream {
    let name = format!("sophia labels/{part}");
    Stream::new(job.recipe.seed, &name, drawn.before)
}

fn of_tokens(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    drawn: &Drawn<'_>,
) -> Result<Parts> {
    let means = language::each(job, source, tasks, drawn.rows, |k, said| {
        let tokens = classes(said.scores, labels(job, drawn, k))?;
        let n = tokens.len() as f64;
        Ok((ops::cross_entropy(said.scores, &tokens, 0.0)?, n))
    })?;
    let total: f64 = means.iter().map(|(_, (_, n))| n).sum();
    let part = |(_, (mean, n)): (usize, (Value, f64))| (mean, n / total, n);
    Ok(means.into_iter().map(part).collect())
}

fn of_heads(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
) -> Result<Parts> {
    let total: usize = drawn.rows.iter().map(Vec::len).sum();
    let mut parts = Parts::new();
    for (k, features) in seen(job, source, tasks, heads, drawn)? {
        let (task, rows) = (&tasks[k], &drawn.rows[k]);
        let mut of_task = Vec::new();
        let weights = task.given.target_weights();
        for (place, head) in task.heads.clone().zip(&heads[task.heads.clone()]) {
            let target = place - task.heads.start;
            let wanted = &task.train.wanted[target];
            let known: Vec<bool> = rows.iter().map(|i| wanted[*i as usize].is_some()).collect();
            let said = head.forward(source, &features[0])?;
            let answers = answers(head, &said, &known, labels(job, drawn, place))?;
            let answers: Vec<Option<&Wanted>> = answers.iter().map(Option::as_ref).collect();
            if let Some((mean, n)) = loss(head, &said, &answers, 0.0)? {
                let labels = match head.kind {
                    HeadKind::Multilabel => head.outputs(),
                    _ => 1,
                };
                of_task.push((mean, (n * labels) as f64, weights[target]));
            }
        }
        let all: f64 = of_task.iter().map(|(_, _, w)| w).sum();
        let share = rows.len() as f64 / total as f64;
        parts.extend(
            of_task
                .into_iter()
                .map(|(mean, n, w)| (mean, share * w / all, n)),
        );
    }
    Ok(parts)
}

/// Answers that are drawn from what a head says, of the rows that have one.
fn answers(
    head: &Head,
    said: &Value,
    known: &[bool],
    stream: Stream,
) -> Result<Vec<Option<Wanted>>> {
    let width = head.outputs().max(1);
    let values = slice(said.data())?;
    let row = |i: usize| &values[i * width..][..width];
    let uniform = |i: usize| f64::from(stream.uniform(i as u64));
    let all: Vec<Wanted> = match head.kind {
        HeadKind::Classification => {
            let found = classes(said, stream)?;
            found.into_iter().map(Wanted::Class).collect()
        }
        HeadKind::Multilabel => (0..known.len())
            .map(|i| {
                let holds = |(c, z): (usize, &f32)| {
                    let p = 1.0 / (1.0 + (-f64::from(*z)).exp());
                    (uniform(i * width + c) < p).then_some(c as u32)
                };
                Wanted::Set(row(i).iter().enumerate().filter_map(holds).collect())
            })
            .collect(),
        HeadKind::Regression => (0..known.len())
            .map(|i| {
                let [mean, deviation] = head.scale;
                let near = std::f64::consts::FRAC_1_SQRT_2 * f64::from(stream.normal(i as u64));
                Wanted::Number(mean + deviation * (f64::from(row(i)[0]) + near))
            })
            .collect(),
        HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {
            let what = "vectors and maps have no labels to draw";
            return Err(Error::shape("curvature", what));
        }
    };
    let of = all.into_iter().zip(known);
    Ok(of.map(|(w, known)| known.then_some(w)).collect())
}

/// A class of every row of scores, drawn from their softmax.
fn classes(scores: &Value, stream: Stream) -> Result<Vec<u32>> {
    let width = scores.dims().last().copied().unwrap_or(1).max(1);
    let dense = slice(scores.data())?;
    let draw = |(i, row): (usize, &[f32])| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let power = |x: &f32| f64::from(x - most).exp();
        let total: f64 = row.iter().map(power).sum();
        let mut left = f64::from(stream.uniform(i as u64)) * total;
        for (class, x) in row.iter().enumerate() {
            left -= power(x);
            if left < 0.0 {
                return class as u32;
            }
        }
        width as u32 - 1
    };
    Ok(dense.chunks_exact(width).enumerate().map(draw).collect())
}

#[cfg(test)]
mod tests;
