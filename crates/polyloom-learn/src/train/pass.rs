//! What a run does again and again: a pass of rows, an evaluation.

use std::collections::HashSet;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::Answers;
use polyloom::evaluate::board::score::{Options, score};
use polyloom_core::rng::Stream;

use super::augment::changed_of;
use super::contrast::contrast;
use super::language;
use super::learned::Learned;
use super::objective::loss_by;
use super::part::Part;
use super::reconstruct;
use super::representation::regulariser;
use super::rowwise::{Form, share};
use super::run::{Evaluation, Job};
use super::slim;
use super::state::State;
use super::trainee::{Trainee, Used, Watched};
use super::turns;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::{Penalised, Source};
use crate::ops;
use crate::tasks::answers::answers;
use crate::tasks::forward::{by_head, outputs};
use crate::tasks::{Head, HeadKind, Reader, Rows, Shown};

/// Rows of a pass without a graph.
const EVALUATED: usize = 64;

/// The first row; where groups have goals of their own, the first of each.
fn one_of_each(rows: &Rows) -> Vec<&Shown> {
    let mut seen = HashSet::new();
    let known = rows.shown.iter().filter(|s| s.has_goal());
    let first: Vec<&Shown> = known.filter(|s| seen.insert(s.group())).collect();
    match first.is_empty() {
        true => rows.shown.iter().take(1).collect(),
        false => first,
    }
}

/// What the trunk uses, found by running it on one row of each task.
pub(super) fn used(
    job: &Job<'_>,
    tasks: &[Learned<'_>],
    heads: &[Head],
    base: &crate::models::Plain,
) -> Result<Used> {
    let watched = Watched::new(base);
    for task in tasks {
        if let Some(spoken) = &task.language {
            let pad = language::pad(job.reader);
            language::scores(
                language::decoder(job.model)?,
                &watched,
                pad,
                &[&spoken.train[0]],
            )?;
            continue;
        }
        if job.recipe.train.rebuilds() {
            let first = one_of_each(&task.train);
            reconstruct::loss(job, &watched, &first, (reconstruct::TRAINING, 0))?;
            continue;
        }
        let own: Vec<&Head> = heads[task.heads.clone()].iter().collect();
        let parts = [(task.feature, own, one_of_each(&task.train))];
        let found = by_head(job.model, &watched, job.reader, &parts)?;
        let found: Vec<&Value> = found.iter().flatten().collect();
        for (place, head) in heads[task.heads.clone()].iter().enumerate() {
            head.forward(&watched, found.get(place).unwrap_or(&found[0]))?;
        }
    }
    Ok(watched.used())
}

/// Rows of a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn<'a> {
    /// Their places, by task.
    pub rows: &'a [Vec<u32>],
    /// How many rows were drawn before them.
    pub before: u64,
    /// Share of the steps of the run that is done.
    pub done: f64,
}

/// One pass: the loss of the drawn rows goes to `back`, sums of losses and rows by task to `sums`.
pub(super) fn pass(
    job: &Job<'_>,
    trainee: &Trainee,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
    sums: &mut [(f64, f64)],
    back: impl FnOnce(Value) -> Result<()>,
) -> Result<()> {
    trainee.with(Some(seed_of(job, drawn.before)), |source| {
        let kept = Penalised::over(source);
        let t = &job.recipe.train;
        let (parts, narrower) = match t.language {
            Some(_) => (language::losses(job, &kept, tasks, drawn)?, None),
            None if t.rebuilds() => (reconstruct::losses(job, source, tasks, drawn)?, None),
            None => {
                let seen = seen(job, &kept, tasks, heads, drawn)?;
                let parts = goals(job, source, tasks, heads, drawn, &seen)?;
                let more = slim::narrower(job, source, tasks, heads, drawn, &seen)?;
                (parts, more)
            }
        };
        for part in &parts {
            part.count(job, tasks, drawn, sums)?;
        }
        let mut whole = joined(&parts)?;
        // What keeps experts in use and what narrower widths say is added to the loss of the pass, and not told as loss.
        for more in [narrower, kept.sum()].into_iter().flatten() {
            whole = match whole {
                Some(loss) => Some(ops::add(&loss, &more)?),
                None => None,
            };
        }
        whole.map_or(Ok(()), back)
    })
}

/// The loss of a pass of its tasks' parts, with what is added to each; `None` where no row says what is right.
pub(super) fn joined(parts: &[Part]) -> Result<Option<Value>> {
    let total: f64 = parts.iter().map(|p| p.n).sum();
    let mut whole: Option<Value> = None;
    for part in parts {
        let Some(mut value) = part.mean()? else {
            continue;
        };
        if let Some(extra) = &part.extra {
            value = ops::add(&value, extra)?;
        }
        let part = ops::scale(&value, (part.n / total) as f32)?;
        whole = Some(match whole {
            Some(sum) => ops::add(&sum, &part)?,
            None => part,
        });
    }
    Ok(whole)
}

/// What the first of some rows is called.
fn first(job: &Job<'_>, task: &Learned<'_>, rows: &[u32]) -> String {
    match &task.language {
        Some(spoken) => language::shown(job, spoken, rows),
        None => rows
            .first()
            .map(|&i| task.train.ids[i as usize].clone())
            .unwrap_or_default(),
    }
}

/// What the heads of the tasks see of the drawn rows, by task ([`by_head`]); the trunk runs once over all of them.
pub(super) fn seen(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
) -> Result<Vec<(usize, Vec<Value>)>> {
    let new = augmented(job, tasks, drawn.rows, drawn.before);
    let here = (0..tasks.len()).filter(|i| !drawn.rows[*i].is_empty());
    let here: Vec<usize> = here.collect();
    let parts: Vec<_> = here
        .iter()
        .map(|&k| {
            let rows = shown(&tasks[k].train, &new[k], &drawn.rows[k]);
            let own: Vec<&Head> = heads[tasks[k].heads.clone()].iter().collect();
            (tasks[k].feature, own, rows)
        })
        .collect();
    let found = by_head(job.model, source, job.reader, &parts)?;
    Ok(here.into_iter().zip(found).collect())
}

/// Losses of the goals of what the heads of tasks see ([`seen`], or a value for every head in its place).
pub(super) fn goals(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    heads: &[Head],
    drawn: &Drawn<'_>,
    seen: &[(usize, Vec<Value>)],
) -> Result<Vec<Part>> {
    let t = &job.recipe.train;
    let mut parts = Vec::new();
    for (k, features) in seen {
        let (task, rows) = (&tasks[*k], &drawn.rows[*k]);
        let own = &heads[task.heads.clone()];
        let of = Of::Training(drawn.done);
        let found = losses(job, source, task, of, own, features, rows)?;
        let losses = found.into_iter().map(|v| v.map(|(value, _)| value));
        let mut part = Part {
            task: *k,
            losses: losses.collect(),
            weights: task.given.target_weights(),
            n: rows.len() as f64,
            extra: None,
        };
        if let Some(mean) = part.mean()? {
            let weight = task.given.spec.weights.train;
            part.n = share(t, f64::from(mean.number()?), rows.len(), rows.len(), weight);
            part.extra = regulariser(t, source, task, own, &features[0], rows)?;
        }
        parts.push(part);
    }
    Ok(parts)
}

/// The seed of the dropout of a pass, from how many rows were drawn before.
pub(super) fn seed_of(job: &Job<'_>, before: u64) -> u64 {
    Stream::new(job.recipe.seed, "dropout", 0).bits(before)
}

/// Pictures of a pass, changed; what is drawn depends on how many rows were drawn before. Nothing for texts.
pub(super) fn augmented(
    job: &Job<'_>,
    tasks: &[Learned<'_>],
    drawn: &[Vec<u32>],
    before: u64,
) -> Vec<Vec<Shown>> {
    let strength = job.recipe.train.augment;
    let mut number = before;
    let mut new: Vec<Vec<Shown>> = vec![Vec::new(); tasks.len()];
    if matches!(job.reader, Reader::Pictures(_) | Reader::Sensors(_)) && strength > 0.0 {
        for ((task, places), new) in tasks.iter().zip(drawn).zip(&mut new) {
            for &i in places {
                let stream = Stream::new(job.recipe.seed, "augment", number);
                number += 1;
                let shown = &task.train.shown[i as usize];
                new.extend(changed_of(job.reader, shown, strength as f32, stream));
            }
        }
    }
    new
}

/// What a model is shown of some rows: `new` in their place, where there is something.
pub(super) fn shown<'s>(rows: &'s Rows, new: &'s [Shown], drawn: &[u32]) -> Vec<&'s Shown> {
    match new.is_empty() {
        true => drawn.iter().map(|&i| &rows.shown[i as usize]).collect(),
        false => new.iter().collect(),
    }
}

/// Which rows of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Of {
    /// Those that are learned from, when a share of the steps is done.
    Training(f64),
    /// Those that are looked at.
    Validation,
}

/// The mean loss of each head of a task on some of its rows, with how many it is of; `None` where no row says what is right.
pub(super) fn losses(
    job: &Job<'_>,
    source: &dyn Source,
    task: &Learned<'_>,
    of: Of,
    heads: &[Head],
    features: &[Value],
    drawn: &[u32],
) -> Result<Vec<Option<(Value, usize)>>> {
    let t = &job.recipe.train;
    let rows = match (of, &task.validation) {
        (Of::Validation, Some(rows)) => rows,
        _ => &task.train,
    };
    let form = match of {
        Of::Training(done) => Form::of(t, done),
        Of::Validation => Form::Tokens,
    };
    if let (Of::Training(_), Some(turn)) = (of, turns::of(job.model)) {
        return turns::losses(turn, source, task, heads, &features[0], drawn, (t, form));
    }
    let seen = |place: usize| features.get(place).unwrap_or(&features[0]);
    let said = heads.iter().enumerate();
    let said = said.map(|(place, head)| head.forward(source, seen(place)));
    let said: Vec<Value> = said.collect::<Result<_>>()?;
    let right = |place: usize, i: usize| rows.wanted[place][drawn[i] as usize].clone();
    let one = |(place, head): (usize, &Head)| {
        if let Some(chain) = task.chain.as_ref().filter(|c| c.is_product(place)) {
            return chain.loss(place, &said, &right, drawn.len());
        }
        let more = match &task.chain {
            Some(chain) => chain.more(place, &said)?,
            None => None,
        };
        let said = &said[place];
        let wanted: Vec<_> = drawn
            .iter()
            .map(|&i| rows.wanted[place][i as usize].as_ref())
            .collect();
        let counts = match of {
            Of::Training(_) => &task.counts.train,
            Of::Validation => &task.counts.validation,
        };
        let counts = counts.get(place).and_then(Option::as_ref);
        let counts: Option<Vec<f32>> =
            counts.map(|all| drawn.iter().map(|&i| all[i as usize]).collect());
        let hard = match head.kind {
            HeadKind::Embedding => contrast(said, &wanted, t.similarity_temperature as f32)?,
            _ => {
                let smoothing = t.smoothing as f32;
                loss_by(head, said, &wanted, counts.as_deref(), smoothing, form)?
            }
        };
        let hard = match (hard, more) {
            (Some((value, n)), Some(more)) => Some((ops::add(&value, &more)?, n)),
            (hard, _) => hard,
        };
        // What other models say is known of the training rows.
        let soft = task
            .soft
            .get(place)
            .filter(|_| matches!(of, Of::Training(_)));
        Ok(match (soft, &t.fuse) {
            (Some(Some(soft)), Some(fuse)) => {
                let value = soft.mixed(fuse, hard.map(|(v, _)| v), said, drawn)?;
                Some((value, drawn.len()))
            }
            _ => hard,
        })
    };
    heads.iter().enumerate().map(one).collect()
}

/// The error about a loss that is no number.
pub(super) fn unfinished(
    job: &Job<'_>,
    task: &Learned<'_>,
    name: &str,
    loss: f64,
    drawn: &[u32],
) -> Error {
    let first = first(job, task, drawn);
    Error::shape(
        "loss",
        format!("the loss of task `{name}` is {loss} (rows such as `{first}`)"),
    )
}

/// Says at which step something was not finite, and what stays.
pub(super) fn at_step(error: Error, step: u32, job: &Job<'_>) -> Error {
    let Error::Shape { problem, .. } = &error else {
        return error;
    };
    if !problem.contains("finite") && !problem.contains("the loss of task") {
        return error;
    }
    let held = State::read(job.work).ok().flatten();
    let held = match held {
        Some(state) => format!(
            "the checkpoint of step {} stays in {}",
            state.facts.step,
            job.work.display()
        ),
        None => "there is no checkpoint yet".to_owned(),
    };
    MergeError::plan("not-finite", format!("step {step}: {problem}; {held}"))
        .hint("a lower train.rate, a longer train.warmup or train.clip = 1; with --resume the run goes on from the checkpoint with the new values")
        .into()
}

/// What is said of the validation rows of a task; `None` where it has none.
fn answered(
    job: &Job<'_>,
    trainee: &Trainee,
    task: &Learned<'_>,
    heads: &[Head],
    step: u32,
) -> Result<Option<Answers>> {
    let hash = format!("{step}");
    if let Some(search) = &task.search {
        let made = trainee.with(None, |source| {
            search.answers((job.work, &hash), job.model, source, job.reader, EVALUATED)
        })?;
        return Ok(Some(made));
    }
    let Some(rows) = &task.validation else {
        return Ok(None);
    };
    let own: Vec<&Head> = heads[task.heads.clone()].iter().collect();
    let said = trainee.with(None, |source| {
        outputs(job.model, source, job.reader, &own, &rows.shown, EVALUATED)
    })?;
    let targets = rows.asked.iter().map(|a| &*a.target);
    let own: Vec<_> = own.iter().map(|h| h.naming(&rows.shown)).collect();
    let of: Vec<(&str, &Head)> = targets.zip(own.iter().map(|h| &**h)).collect();
    Ok(Some(answers(job.work, &hash, &rows.ids, &of, &said)))
}

/// Scores of the validation rows, by the board's own metrics.
pub(super) fn evaluate(
    job: &Job<'_>,
    trainee: &Trainee,
    tasks: &[Learned<'_>],
    heads: &[Head],
    step: u32,
) -> Result<Evaluation> {
    let t = &job.recipe.train;
    let options = Options {
        split: t.validation.clone(),
        allow_partial: true,
        // Intervals are the board's business.
        draws: 2,
        ..Options::default()
    };
    let mut found = IndexMap::new();
    let mut signed = Vec::new();
    for task in tasks {
        if let Some(sequences) = task.language.as_ref().and_then(|s| s.validation.as_ref()) {
            let (value, n) = language::perplexity(job, trainee, sequences)?;
            if value.is_finite() {
                signed.push(-value);
            }
            let id = task.given.spec.id.clone();
            found.insert(id, ("perplexity".to_owned(), value, n));
        }
        if t.rebuilds() {
            if let Some(rows) = &task.validation {
                let (value, n) = reconstruct::looked_at(job, trainee, rows)?;
                signed.extend(value.is_finite().then_some(-value));
                let told = (reconstruct::METRIC.to_owned(), value, n);
                found.insert(task.given.spec.id.clone(), told);
            }
            continue;
        }
        let Some(answers) = answered(job, trainee, task, heads, step)? else {
            continue;
        };
        let spec = &task.given.spec;
        for scored in score(spec, &task.loader(), &task.given.hash, &answers, &options)? {
            let Some(metric) = scored.metrics.first() else {
                continue;
            };
            if metric.value.is_finite() {
                let sign = if metric.higher_is_better { 1.0 } else { -1.0 };
                signed.push(sign * metric.value);
            }
            found.insert(scored.task, (metric.name.clone(), metric.value, metric.n));
        }
    }
    Ok(Evaluation {
        step,
        mean: match signed.len() {
            0 => f64::NAN,
            n => signed.iter().sum::<f64>() / n as f64,
        },
        tasks: found,
        best: false,
    })
}
