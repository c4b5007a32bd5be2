//! The loop: rows, losses, steps, evaluations, checkpoints.

use std::path::Path;
use std::time::{Instant, SystemTime};

use indexmap::IndexMap;
use polyloom::MergeError;
use serde_json::json;

use super::Given;
use super::balanced::Balanced;
use super::begin::{fingerprint, rule};
use super::learned::{Learned, learned};
use super::log::Log;
use super::mixing::Mixer;
use super::mpts::Mpts;
use super::optimiser::Optimiser;
use super::pass::{at_step, evaluate, used};
use super::recipe::{Keep, Recipe};
use super::sampler::Sampler;
use super::stages::{Stage, stages};
use super::state::{Facts, STATE, State};
use super::step::together;
use super::trainee::{Trainee, Used};
use super::{curvature, fuse, pseudo, representation, rowwise, slim};
use crate::balance::At;
use crate::engine::Parameter;
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::Model;
use crate::tasks::{Head, Reader};

pub use super::told::{Evaluation, Step, Told, Watch};

/// A run.
pub struct Job<'a> {
    /// What is asked for.
    pub recipe: &'a Recipe,
    /// The model.
    pub model: &'a Model,
    /// Its inputs.
    pub reader: &'a Reader,
    /// Tasks.
    pub tasks: &'a [Given],
    /// Folder of checkpoint and log.
    pub work: &'a Path,
}

/// What a run made.
pub struct Outcome {
    /// The weights it gives are in here.
    pub trainee: Trainee,
    /// Names that the trunk uses.
    pub used: Used,
    /// Heads as they began; [`Head::with`] gives them as they are now.
    pub heads: Vec<Head>,
    /// Steps done, and the step whose weights are given.
    pub steps: (u32, u32),
    /// The evaluation of the weights that are given, where there was one.
    pub evaluation: Option<Evaluation>,
    /// Where goals were balanced: means and counts over the steps.
    pub balance: Option<serde_json::Map<String, serde_json::Value>>,
    /// How often the rows of each task were seen; nothing for trees.
    pub epochs: IndexMap<String, f64>,
}

impl Outcome {
    /// The heads with the weights that the run gives.
    ///
    /// # Errors
    /// Never in practice: heads of this run.
    pub fn heads(&self) -> Result<Vec<Head>> {
        self.trainee.with(None, |source| {
            self.heads.iter().map(|h| h.with(source)).collect()
        })
    }
}

/// Trains.
///
/// A checkpoint in the folder is gone on from: the run then does what it would have done, to the bit for the same number
/// of threads.
///
/// # Errors
/// Tasks that cannot be learned, a checkpoint of another run, a loss or a gradient that is not finite (the last checkpoint
/// stays), [`polyloom_core::Error::Interrupted`] where `watch` stopped the run.
pub fn run(job: &Job<'_>, watch: Watch<'_>) -> Result<Outcome> {
    let (recipe, t) = (job.recipe, &job.recipe.train);
    let base = &job.model.weights;
    let (mut tasks, heads) = learned(recipe, job.model, base, job.reader, job.tasks)?;
    curvature::check_heads(recipe, &heads)?;
    rowwise::check_heads(recipe, &heads)?;
    representation::check_heads(recipe, &tasks, &heads)?;
    fuse::ask(job, &mut tasks, &heads)?;
    let labelled = pseudo::label(recipe, &mut tasks, &heads)?;
    let base = base.with(heads.iter().flat_map(Head::tensors));
    let mut used = used(job, &tasks, &heads, &base)?;
    let matrices = slim::matrices(recipe, job.model)?;
    used.tensors.extend(matrices.iter().map(|m| m.0.clone()));
    let base = base.with(matrices);
    let trainee = Trainee::new(recipe, base, &used, &heads, &job.model.added)?;
    if trainee.parameters.is_empty() {
        return Err(MergeError::plan("bad-recipe", "nothing is left to train")
            .hint("look at train.freeze, train.method and train.head.frozen")
            .into());
    }
    let rows: Vec<usize> = tasks.iter().map(Learned::count).collect();
    let ids: Vec<String> = tasks.iter().map(|t| t.given.spec.id.clone()).collect();
    let stages = stages(recipe, &ids, &rows)?;
    let steps = stages.last().map_or(0, |s| s.steps[1]);
    let of_tasks: Vec<f64> = job.tasks.iter().map(|g| g.spec.weights.train).collect();
    let mut mixer = stages[0].mixer(recipe, &of_tasks)?;
    let mut sampler = stages[0].sampler(&mixer);
    let mut optimiser = Optimiser::new(rule(recipe), &trainee.parameters);
    (optimiser.clip, optimiser.spare_vectors) = (t.clip as f32, true);
    optimiser.tables = t.embedding_update;
    if let Some(apart) = mixer.apart() {
        optimiser = optimiser.apart(apart)?;
    }
    let first_own = |p: &&Parameter| heads.iter().any(|h| h.is_own(&p.name));
    let own = trainee.parameters.iter().find(first_own);
    let own = own.map_or(trainee.parameters.len(), |p| p.at.start);
    optimiser.still = if stages[0].heads { own } else { 0 };
    let mut facts = Facts {
        fingerprint: fingerprint(job, &trainee, &rows)?,
        of_task: vec![0; rows.len()],
        begun: vec![0; rows.len()],
        ..Facts::default()
    };
    let mut balanced = Balanced::new(job, &trainee, &tasks, &heads, &mixer.shares)?;
    let mut best: Option<Vec<f32>> = None;
    if let Some(state) = State::read(job.work)? {
        if state.facts.fingerprint != facts.fingerprint
            || state.weights.len() != trainee.parameters.len()
            || state.facts.of_task.len() != rows.len()
            || state.facts.begun.len() != rows.len()
            || state
                .best
                .as_ref()
                .is_some_and(|b| b.len() != trainee.parameters.len())
        {
            return Err(Error::file(
                &job.work.join(STATE),
                "is the checkpoint of another run: base, tasks, method, seed or batch differ",
            )
            .hint("go on with the recipe it was begun with, or --force to begin again"));
        }
        trainee
            .parameters
            .update(|w, _| w.copy_from_slice(&state.weights))?;
        trainee.recall()?;
        // The step of a checkpoint belongs to the stage that did it.
        let stage = at_of(&stages, state.facts.step.saturating_sub(1));
        if stage > 0 {
            (mixer, sampler) = begun(job, &stages[stage], &of_tasks)?;
            optimiser = optimiser.anew(&trainee.parameters, mixer.apart())?;
        }
        let done = state.facts.step - stages[stage].steps[0];
        optimiser.restore(done, &state.facts.turns, state.moments)?;
        if let (Some(mpts), Some(steps)) = (&mut mixer.mpts, state.facts.risk) {
            mpts.restore(steps, &state.risk)?;
        }
        let of_task = state.facts.of_task.iter().zip(&state.facts.begun);
        sampler.restore(state.facts.drawn, of_task.map(|(a, b)| a - b).collect());
        (facts, best) = (state.facts, state.best);
        if let (Some(balanced), Some(kept)) = (&mut balanced, facts.balance.take()) {
            balanced.restore(kept, state.balance)?;
        }
    }
    let numbers = |s: &[(String, usize)]| s.iter().map(|(_, n)| n).sum::<usize>();
    let frozen: Vec<(String, usize)> = used
        .tensors
        .iter()
        .filter(|n| trainee.parameters.get(n).is_none())
        .filter_map(|n| Some((n.clone(), trainee.base.find(n).ok()??.data().elem_count())))
        .collect();
    let expected = expected(job, &stages, &of_tasks, &rows)?;
    let expected: Vec<(String, f64)> = ids.iter().cloned().zip(expected).collect();
    watch(&Told::Begun {
        trained: trainee.parameters.len(),
        all: trainee.parameters.len() + numbers(&frozen),
        rows: ids.iter().cloned().zip(rows.iter().copied()).collect(),
        epochs: expected.clone(),
        steps,
        from: facts.step,
    });
    if !labelled.is_empty() {
        watch(&Told::Labelled(labelled));
    }
    let mut log = Log::open(job.work, u64::from(facts.step))?;
    if facts.step == 0 && !expected.is_empty() {
        let expected: IndexMap<String, f64> = expected.into_iter().collect();
        log.line(&json!({"type": "expected", "step": 0, "epochs": expected, "time": now()}))?;
    }
    let looked = tasks.iter().any(Learned::is_looked_at);
    let began = (Instant::now(), facts.step);
    let mut last: Option<Evaluation> = None;
    // A run that had enough has enough after it was resumed.
    let mut enough = t.patience > 0 && facts.since >= t.patience;
    let mut current = at_of(&stages, facts.step.saturating_sub(1));
    while facts.step < steps && !enough {
        let now_in = at_of(&stages, facts.step);
        if now_in != current {
            // A stage begins with an optimiser that remembers nothing, and is judged on its own.
            (mixer, sampler) = begun(job, &stages[now_in], &of_tasks)?;
            facts.begun.clone_from(&facts.of_task);
            sampler.restore(facts.drawn, vec![0; rows.len()]);
            optimiser = optimiser.anew(&trainee.parameters, mixer.apart())?;
            (facts.best, facts.since, best, last) = (None, 0, None, None);
            current = now_in;
        }
        let stage = &stages[current];
        optimiser.still = if stage.heads { own } else { 0 };
        if stages.len() > 1 && facts.step == stage.steps[0] {
            let told = stage.told(current + 1, stages.len(), &ids);
            log.line(&stage.line(&told, facts.step + 1, now()))?;
            watch(&told);
        }
        let evaluate_every = t
            .evaluate_every
            .unwrap_or_else(|| stage.per_epoch.ceil().min(f64::from(u32::MAX)) as u32);
        let save_every = t.save_every.unwrap_or(evaluate_every);
        let here = facts.step - stage.steps[0];
        let rate = stage.schedule.at(here);
        let mut sums: Vec<(f64, f64)> = vec![(0.0, 0.0); tasks.len()];
        let mut found = None;
        let plan = mixer.plan(facts.step)?;
        let gradients = match &mut balanced {
            Some(balanced) => {
                let at = At {
                    step: u64::from(facts.step),
                    epoch: sampler.counts().0 / rows.iter().sum::<usize>().max(1) as u64,
                    steps: u64::from(steps),
                    rate: f64::from(rate),
                    seed: recipe.seed,
                };
                balanced
                    .gradients(&trainee, &tasks, &heads, &mut sampler, at, &mut sums)
                    .map(|(gradients, combined)| {
                        found = Some(combined);
                        gradients
                    })
            }
            None => together(
                job,
                &trainee,
                &tasks,
                &heads,
                (stage, &mut sampler),
                (&mut optimiser, &plan),
                &mut sums,
                (here, f64::from(here) / f64::from(stage.schedule.steps)),
            ),
        };
        let gradients = gradients.map_err(|e| at_step(e, facts.step + 1, job))?;
        let seen = optimiser
            .step_of(&trainee.parameters, &gradients, rate, plan.turn)
            .map_err(|e| at_step(e, facts.step + 1, job))?;
        match stage.heads {
            // What stays, stays with its running statistics.
            true => {
                trainee.settle_behind(own)?;
                trainee.recall()?;
            }
            false => trainee.settle()?,
        }
        if let Some(balanced) = &mut balanced {
            balanced.after(&trainee, &tasks, &heads)?;
        }
        if let Some(mpts) = &mut mixer.mpts {
            let seen = sums.iter().enumerate().filter(|(_, s)| s.1 > 0.0);
            let seen: Vec<(usize, f64)> = seen.map(|(t, s)| (t, s.0 / s.1)).collect();
            mpts.learn(facts.step, &seen)?;
        }
        facts.step += 1;
        facts.drawn = sampler.counts().0;
        let drawn = facts.begun.iter().zip(sampler.counts().1);
        facts.of_task = drawn.map(|(a, b)| a + b).collect();
        let (total, weight) = sums.iter().fold((0.0, 0.0), |a, s| (a.0 + s.0, a.1 + s.1));
        let of_task = tasks.iter().zip(&sums).filter(|(_, s)| s.1 > 0.0);
        let done = f64::from(facts.step - began.1);
        let step = Step {
            step: facts.step,
            steps,
            loss: if weight > 0.0 { total / weight } else { 0.0 },
            losses: of_task
                .map(|(t, s)| (t.given.spec.id.clone(), s.0 / s.1))
                .collect(),
            rate,
            length: seen.length,
            left: began.0.elapsed().as_secs_f64() / done * f64::from(steps - facts.step),
            weights: match (&balanced, &found) {
                (Some(balanced), Some(found)) => balanced.weights(found),
                _ => IndexMap::new(),
            },
        };
        let mut line = json!({"type": "step", "step": step.step, "loss": step.loss});
        if tasks.len() > 1 {
            line["losses"] = json!(step.losses);
        }
        line["rate"] = json!(step.rate.to_string().parse::<f64>().unwrap_or(0.0));
        line["gradient"] = json!(step.length);
        line["time"] = json!(now());
        log.line(&line)?;
        let end = facts.step == steps;
        if let (Some(balanced), Some(found)) = (&balanced, &found)
            && let Some(mut line) = balanced.line(facts.step, end, found)
        {
            line["time"] = json!(now());
            log.line(&line)?;
        }
        let due = |every: u32| every > 0 && facts.step.is_multiple_of(every);
        let end_of_stage = facts.step == stage.steps[1];
        if looked && (end_of_stage || due(evaluate_every)) {
            let mut found = evaluate(job, &trainee, &tasks, &heads, facts.step)?;
            // Of equals the first.
            found.best = found.mean.is_finite() && facts.best.is_none_or(|(_, b)| found.mean > b);
            if found.best {
                facts.best = Some((facts.step, found.mean));
                facts.since = 0;
                best = Some(trainee.parameters.weights()?.to_vec());
            } else {
                facts.since += 1;
                enough = t.patience > 0 && facts.since >= t.patience;
            }
            facts.evaluated = Some(facts.step);
            let scores: IndexMap<&String, f64> =
                found.tasks.iter().map(|(n, v)| (n, v.1)).collect();
            log.line(&json!({"type": "evaluation", "step": found.step, "mean": found.mean, "tasks": scores, "time": now()}))?;
            watch(&Told::Evaluated(found.clone()));
            if found.best {
                last = Some(found);
            }
        }
        let go_on = watch(&Told::Step(step));
        // The last one stays until the folder is written: a full disk costs no training.
        if (save_every > 0 && (due(save_every) || end || enough)) || !go_on {
            let weights = trainee.parameters.weights()?;
            let (kept, rows) = balanced.as_ref().map(Balanced::kept).unzip();
            facts.balance = kept;
            facts.turns = optimiser.turns().to_vec();
            let risk = mixer.mpts.as_ref().map(Mpts::kept).transpose()?;
            facts.risk = risk.as_ref().map(|(steps, _)| *steps);
            State::write(
                job.work,
                &facts,
                &weights,
                optimiser.state(),
                best.as_deref(),
                rows.as_deref().unwrap_or_default(),
                risk.as_ref().map_or(&[], |(_, kept)| kept),
            )?;
            watch(&Told::Saved(facts.step));
        }
        if !go_on && !end && !enough {
            return Err(polyloom_core::Error::Interrupted.into());
        }
    }
    let mut given = facts.step;
    if let (Keep::Best, Some(weights), Some((step, _))) = (t.keep, &best, facts.best) {
        trainee
            .parameters
            .update(|w, _| w.copy_from_slice(weights))?;
        given = step;
        if last.as_ref().is_none_or(|e| e.step != step) {
            last = Some(evaluate(job, &trainee, &tasks, &heads, step)?);
        }
    } else if looked && last.as_ref().is_none_or(|e| e.step != facts.step) {
        last = Some(evaluate(job, &trainee, &tasks, &heads, facts.step)?);
    }
    let balance = balanced.as_ref().map(Balanced::summary);
    drop(balanced);
    let seen = ids.into_iter().zip(&facts.of_task).zip(&rows);
    let epochs = seen.map(|((id, drawn), n)| (id, *drawn as f64 / *n as f64));
    let epochs = epochs.collect();
    Ok(Outcome {
        trainee,
        used,
        heads,
        steps: (facts.step, given),
        evaluation: last,
        balance,
        epochs,
    })
}

/// The stage that a step is in, from 0; the last one after the end.
fn at_of(stages: &[Stage], step: u32) -> usize {
    let found = stages.iter().position(|s| step < s.steps[1]);
    found.unwrap_or(stages.len() - 1)
}

/// What a stage draws by, before its first row.
fn begun(job: &Job<'_>, stage: &Stage, weights: &[f64]) -> Result<(Mixer, Sampler)> {
    let mixer = stage.mixer(job.recipe, weights)?;
    let sampler = stage.sampler(&mixer);
    Ok((mixer, sampler))
}

/// How often the rows of each task will be seen in all stages, on average; nothing of a single task, and where it is not known.
fn expected(job: &Job<'_>, stages: &[Stage], weights: &[f64], rows: &[usize]) -> Result<Vec<f64>> {
    let mut sum = vec![0.0; rows.len()];
    for stage in stages {
        let mixer = stage.mixer(job.recipe, weights)?;
        let Some(of) = stage.epochs(job.recipe, &mixer, rows) else {
            return Ok(Vec::new());
        };
        sum.iter_mut().zip(of).for_each(|(a, b)| *a += b);
    }
    Ok(if rows.len() > 1 { sum } else { Vec::new() })
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}
