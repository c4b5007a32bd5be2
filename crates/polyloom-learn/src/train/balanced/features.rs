//! Steps that balance what goals ask of the features that their heads share, in place of the shared parameters (MGDA-UB,
//! Sener and Koltun, NeurIPS 2018): one way back through the trunk for all goals.

use polyloom::MergeError;

use super::{Balanced, Sum};
use crate::balance::{At, Balance, Combined, Given, Looks, Wants};
use crate::engine::{Gradients, Tensor, Value, slice, tensor};
use crate::error::{Error, Result};
use crate::ops;
use crate::tasks::forward::by_head;
use crate::tasks::{Feature, Head};
use crate::train::learned::Learned;
use crate::train::pass::{Of, losses, shown};
use crate::train::run::Job;
use crate::train::sampler::Sampler;
use crate::train::trainee::Trainee;

/// Refuses what has no features that all goals share, and methods that do not go by dot products.
///
/// # Errors
/// The first of them.
pub(super) fn check(
    job: &Job<'_>,
    balance: &Balance,
    tasks: &[Learned<'_>],
    heads: &[Head],
) -> Result<()> {
    let t = &job.recipe.train;
    let bad = |what: String, hint: &str| {
        let what = format!("`train.balance.gradients = \"features\"`: {what}");
        Err(MergeError::plan("bad-recipe", what).hint(hint).into())
    };
    let name = balance.method.name;
    match (balance.method.looks, balance.wants()) {
        (Looks::Gram, Wants::Nothing) => {}
        (Looks::Losses, _) => {
            return bad(
                format!("`{name}` looks at losses alone"),
                "leave gradients out",
            );
        }
        _ => {
            return bad(
                format!("`{name}` looks at more than the dot products of a step's gradients"),
                "mgda, aligned, nash, cagrad, pcgrad and others do not",
            );
        }
    }
    if t.accumulate > 1 {
        let what = "weights are found in the pass itself, and a step has several";
        return bad(what.into(), "train.accumulate = 1");
    }
    if job.model.experts().is_some() {
        let what = "what keeps experts in use has no place among features";
        return bad(what.into(), "gradients = \"parameters\"");
    }
    let own = |h: &&Head| h.feature == Feature::Goal || job.model.goals().is_some();
    if let Some(head) = heads.iter().find(own) {
        return bad(
            format!("goal `{}` sees features of its own", head.task),
            "gradients = \"parameters\"",
        );
    }
    let other = |t: &&Learned<'_>| t.feature != tasks[0].feature;
    match tasks.iter().find(other) {
        Some(task) => bad(
            format!(
                "the heads of task `{}` (feature `{}`) do not see what those of `{}` see",
                task.given.spec.id,
                task.feature.word(),
                tasks[0].given.spec.id
            ),
            "one train.head.feature for all tasks",
        ),
        None => Ok(()),
    }
}

/// A goal of a step.
struct Asks {
    goal: usize,
    /// Which of the passes of the tasks.
    pass: usize,
    loss: Value,
    /// Its gradient by the features.
    gradient: Vec<f32>,
}

impl Balanced<'_> {
    /// A step by the gradients of the features, summed over the rows.
    pub(super) fn by_features(
        &mut self,
        trainee: &Trainee,
        tasks: &[Learned<'_>],
        heads: &[Head],
        sampler: &mut Sampler,
        at: At,
        sums: &mut [(f64, f64)],
    ) -> Result<(Gradients, Combined)> {
        let done = self.draw(tasks, sampler, at);
        self.sums.fill(Sum::default());
        let (mut passes, mut all) = (Vec::new(), Vec::new());
        for task in (0..tasks.len()).filter(|t| !done.drawn[*t].is_empty()) {
            let (learned, drawn) = (&tasks[task], &done.drawn[task]);
            let rows = shown(&learned.train, &done.new[task], drawn);
            let own = &heads[learned.heads.clone()];
            let (seen, leaves, found) = trainee.with(Some(done.seed), |source| {
                let parts = [(learned.feature, own.iter().collect(), rows)];
                let seen = by_head(self.job.model, source, self.job.reader, &parts)?;
                let none = || Error::shape("features", "nothing for a head");
                let seen = seen.into_iter().flatten().next().ok_or_else(none)?;
                // Every goal has a leaf of its own over the same numbers, which keeps its gradient.
                let leaf = |_: &Head| Value::leaf(seen.data().clone());
                let leaves: Vec<Value> = own.iter().map(leaf).collect();
                let of = Of::Training(done.share);
                let found = losses(self.job, source, learned, of, own, &leaves, drawn)?;
                Ok((seen, leaves, found))
            })?;
            let goals: Vec<usize> = self.of_task(task).collect();
            for ((goal, found), leaf) in goals.into_iter().zip(found).zip(&leaves) {
                let Some((loss, n)) = found else { continue };
                let number = self.finite(&loss, goal, tasks, &done)?;
                self.sums[goal].loss = number * n as f64;
                self.sums[goal].rows = n as f64;
                let gradient = match loss.backward()?.get(leaf) {
                    Some(found) => slice(found)?.to_vec(),
                    None => vec![0.0; seen.data().elem_count()],
                };
                let pass = passes.len();
                all.push(Asks {
                    goal,
                    pass,
                    loss,
                    gradient,
                });
            }
            passes.push(seen);
        }
        self.passes.push(done);
        self.tally(sums);
        let combined = self.weighed(&passes, &all, at)?;
        let gradients = back(trainee, &passes, &all, &combined)?;
        Ok((gradients, combined))
    }

    /// What the method says of the goals' gradients by the features of a row, summed over the rows.
    fn weighed(&mut self, passes: &[Value], all: &[Asks], at: At) -> Result<Combined> {
        let width = |z: &Value| z.dims()[1..].iter().product::<usize>();
        let wide = passes.first().map_or(0, width);
        if passes.iter().any(|z| width(z) != wide) {
            return Err(Error::shape("features", "tasks of several widths"));
        }
        let mut rows = vec![vec![0f32; wide]; self.goals.len()];
        for one in all {
            let mut sum = vec![0f64; wide];
            for row in one.gradient.chunks_exact(wide.max(1)) {
                let both = sum.iter_mut().zip(row);
                both.for_each(|(s, g)| *s += f64::from(*g));
            }
            rows[one.goal] = sum.into_iter().map(|s| s as f32).collect();
        }
        let losses: Vec<Option<f64>> = self
            .sums
            .iter()
            .map(|s| (s.rows > 0.0).then(|| s.loss / s.rows))
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let given = Given {
            losses: &losses,
            gradients: &rows,
            differences: None,
            places: &[("features".to_owned(), 0..wide)],
            at,
        };
        Ok(self.balance.combine(&given, &mut vec![0.0; wide]))
    }
}

/// Heads by their own losses, the trunk by the weighted sum of what goals ask of its features.
fn back(
    trainee: &Trainee,
    passes: &[Value],
    all: &[Asks],
    combined: &Combined,
) -> Result<Gradients> {
    let mut gradients = trainee.parameters.gradients()?;
    for one in all {
        let factor = combined.own[one.goal] as f32;
        ops::scale(&one.loss, factor)?.backward_into(&mut gradients)?;
    }
    for (place, seen) in passes.iter().enumerate() {
        let mut sum = vec![0f64; seen.data().elem_count()];
        for one in all.iter().filter(|one| one.pass == place) {
            let weight = combined.weights[one.goal];
            let both = sum.iter_mut().zip(&one.gradient);
            both.for_each(|(s, g)| *s += weight * f64::from(*g));
        }
        let sum: Vec<f32> = sum.into_iter().map(|s| s as f32).collect();
        let sum: Tensor = tensor(sum, seen.dims())?;
        seen.backward_from(sum, &mut gradients)?;
    }
    Ok(gradients)
}
