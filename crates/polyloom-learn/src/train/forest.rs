//! A run that grows trees in place of steps: the same rows, goals, evaluation and folder.

use std::collections::HashMap;
use std::time::Instant;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use serde_json::json;

use super::learned::{Learned, learned};
use super::log::Log;
use super::pass::evaluate;
use super::recipe::Train;
use super::run::{Job, Outcome, Step, Told, Watch};
use super::trainee::{Trainee, Used};
use crate::engine::tensor;
use crate::error::{Error, Result};
use crate::forest::{self, Labels, Progress, Sample, Table, Target, UNKNOWN};
use crate::models::Plain;
use crate::models::forest::ForestModel;
use crate::models::open::{Model, Trunk};
use crate::table::Row;
use crate::tasks::{Head, HeadKind, Opened, Rows, Shown};

/// Grows the trees of a new forest: the model with them, and what a run gives.
///
/// # Errors
/// Keys that mean something to networks alone, tasks that cannot be learned, what [`forest::fit`] refuses,
/// [`polyloom_core::Error::Interrupted`] where `watch` stopped the run.
pub(super) fn run(job: &Job<'_>, new: &ForestModel, watch: Watch<'_>) -> Result<(Opened, Outcome)> {
    let recipe = job.recipe;
    refuse_steps(&recipe.train)?;
    if recipe.train.balance.is_some() {
        return Err(MergeError::plan(
            "bad-recipe",
            "`train.balance` weighs gradients; trees have none",
        )
        .hint("leave it out, or learn a network: train.new.architecture = \"mmoe\"")
        .into());
    }
    let (tasks, mut heads) = learned(recipe, job.model, &job.model.weights, job.reader, job.tasks)?;
    for head in &mut heads {
        pass_on(head, new.config.width)?;
    }
    let (table, targets) = together(new, &tasks, &heads, |t| Some((&t.train, &t.counts.train)))?;
    let held = together(new, &tasks, &heads, |t| {
        Some((t.validation.as_ref()?, &t.counts.validation))
    })?;
    let rows: Vec<(String, usize)> = tasks
        .iter()
        .map(|t| (t.given.spec.id.clone(), t.train.len()))
        .collect();
    watch(&Told::Begun {
        trained: 0,
        all: 0,
        rows,
        epochs: Vec::new(),
        steps: 0,
        from: 0,
    });
    let mut log = Log::open(job.work, 0)?;
    let (mut grown, mut stopped, mut failed) = (0u32, false, None);
    let began = Instant::now();
    let mut told = |p: &Progress<'_>| {
        grown += 1;
        let line = json!({"type": "step", "step": grown, "part": p.part, "round": p.round, "loss": p.loss, "held": p.held});
        if let Err(error) = log.line(&line) {
            failed = Some(error);
            return false;
        }
        let left = (p.rounds - p.round) as f64 * began.elapsed().as_secs_f64() / f64::from(grown);
        stopped = !watch(&Told::Step(Step {
            step: p.round as u32,
            steps: p.rounds as u32,
            loss: p.loss,
            losses: IndexMap::new(),
            rate: 0.0,
            length: 0.0,
            left,
            weights: IndexMap::new(),
        }));
        !stopped
    };
    let looked = held.0.rows > 0;
    let sample = Sample {
        table: &held.0,
        targets: &held.1,
    };
    let takes_held = !matches!(new.method, forest::Method::RMtgb(_));
    let sample = (looked && takes_held).then_some(sample);
    let params = new.params(recipe.seed);
    let fitted = forest::fit(&table, &targets, sample, &params, &mut told);
    if let Some(error) = failed {
        return Err(error);
    }
    let fitted = match fitted {
        Err(_) if stopped => return Err(polyloom_core::Error::Interrupted.into()),
        fitted => fitted?,
    };
    let folder = job.model.folder.clone();
    let base = Plain::new(heads.iter().flat_map(Head::tensors));
    let mut config = new.config.clone();
    config.width = fitted
        .outputs
        .iter()
        .map(crate::forest::Output::columns)
        .max()
        .unwrap_or(1);
    let whole = serde_json::to_value(&config).map_err(|e| Error::Config {
        what: e.to_string(),
    })?;
    let model = Model {
        folder,
        trunk: Trunk::Forest(Box::new(ForestModel::new(config, Some(fitted))?)),
        weights: Plain::default(),
        sentence: crate::models::sentence::Sentence::default(),
        classes: Vec::new(),
        kind: job.model.kind,
        tokenizer: None,
        table: job.model.table.clone(),
        added: Vec::new(),
    };
    let trainee = Trainee::new(&frozen(recipe), base, &Used::default(), &heads, &[])?;
    let job = Job {
        model: &model,
        ..*job
    };
    let evaluation = match tasks.iter().any(Learned::is_looked_at) {
        true => Some(evaluate(&job, &trainee, &tasks, &heads, grown)?),
        false => None,
    };
    if let Some(e) = &evaluation {
        let scores: IndexMap<&String, f64> = e.tasks.iter().map(|(n, v)| (n, v.1)).collect();
        log.line(&json!({"type": "evaluation", "step": grown, "mean": e.mean, "tasks": scores}))?;
    }
    let outcome = Outcome {
        trainee,
        used: Used::default(),
        heads,
        steps: (grown, grown),
        evaluation,
        balance: None,
        epochs: IndexMap::new(),
    };
    let grown = Opened {
        model,
        config: whole,
        stored: Vec::new(),
        whole: HashMap::new(),
        warnings: Vec::new(),
    };
    Ok((grown, outcome))
}

/// Refuses keys of `[train]` that would mean nothing.
fn refuse_steps(t: &Train) -> Result<()> {
    let usual = Train::default();
    let said = [
        ("steps", t.steps != usual.steps),
        ("epochs", t.epochs != usual.epochs),
        ("batch", t.batch != usual.batch),
        ("accumulate", t.accumulate != usual.accumulate),
        ("rate", t.rate != usual.rate),
        ("patience", t.patience != usual.patience),
        ("method", t.method != usual.method),
        ("optimiser", t.optimiser != usual.optimiser),
        ("loss", t.loss != usual.loss),
        ("representation", t.representation.is_some()),
        ("stage", !t.stage.is_empty()),
        ("pseudo", t.pseudo.is_some()),
        ("reweight", t.reweight.is_some()),
        ("mixing", t.mixing != usual.mixing),
        ("sampling", t.sampling != usual.sampling),
        ("fuse", t.fuse.is_some()),
        ("chain", t.chain.is_some()),
    ];
    match said.iter().find(|(_, said)| *said) {
        None => Ok(()),
        Some((key, _)) => {
            let what = format!(
                "`train.{key}` is about the steps and losses of a network; trees have none"
            );
            Err(MergeError::plan("bad-recipe", what)
                .hint("trees have train.new.rounds, lr, patience, subsample and growth")
                .into())
        }
    }
}

/// The recipe with heads that stay: trees are all there is to learn.
fn frozen(recipe: &super::Recipe) -> super::Recipe {
    let mut recipe = recipe.clone();
    recipe.train.head.frozen = true;
    recipe
}

/// A head that takes scores as they are, in every group.
fn pass_on(head: &mut Head, width: usize) -> Result<()> {
    let outputs = head.outputs();
    let mut weight = vec![0f32; outputs * width];
    for i in 0..outputs.min(width) {
        weight[i * width + i] = 1.0;
    }
    head.layers = vec![(
        tensor(weight, (outputs, width))?,
        tensor(vec![0.0; outputs], outputs)?,
    )];
    head.scale = [0.0, 1.0];
    if !head.groups.is_empty() {
        let groups = std::mem::take(&mut head.groups);
        head.for_groups(groups)?;
    }
    Ok(())
}

/// What every head counts in trees that it shares, less a common factor: its target's weight (`targets[].weight`) times that
/// of its task (`weights.train`). Where every goal has trees of its own there is nothing to weigh them against.
fn shares(new: &ForestModel, tasks: &[Learned<'_>]) -> Vec<f64> {
    let of = |task: &Learned<'_>| {
        let own = task.given.target_weights().into_iter();
        let of_task = task.given.spec.weights.train;
        own.map(|w| w * of_task).collect::<Vec<f64>>()
    };
    let all: Vec<f64> = tasks.iter().flat_map(of).collect();
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let alike = all.iter().all(|w| Some(w) == all.first());
    match new.method {
        forest::Method::Gbdt(_) => vec![1.0; all.len()],
        _ if alike => vec![1.0; all.len()],
        _ => all.iter().map(|w| w / mean).collect(),
    }
}

/// What rows count, by target of a task.
type Counted<'t> = (&'t Rows, &'t Vec<Option<Vec<f32>>>);

/// Rows of all tasks one after the other, their labels and what these count: a goal has none in rows of another task, or of
/// another group than its own.
fn together<'t>(
    new: &ForestModel,
    tasks: &'t [Learned<'_>],
    heads: &[Head],
    of: impl Fn(&'t Learned<'_>) -> Option<Counted<'t>>,
) -> Result<(Table, Vec<Target>)> {
    let mut shown: Vec<&Row> = Vec::new();
    // The goals of a head lie side by side, one a group.
    let goals = |h: &Head| h.groups.len().max(1);
    let classes = |h: &Head| match h.kind {
        HeadKind::Classification => h.outputs(),
        _ => 0,
    };
    let kinds: Vec<usize> = heads
        .iter()
        .flat_map(|h| vec![classes(h); goals(h)])
        .collect();
    let mut labels: Vec<Vec<Option<&Wanted>>> = vec![Vec::new(); kinds.len()];
    let mut weights: Vec<Vec<f32>> = vec![Vec::new(); kinds.len()];
    let shares = shares(new, tasks);
    for task in tasks {
        let Some((rows, counts)) = of(task) else {
            continue;
        };
        let before = shown.len();
        for one in &rows.shown {
            let Shown::Row(row) = one else {
                return Err(Error::shape("forest", "trees read rows of tables"));
            };
            shown.push(row);
        }
        labels.iter_mut().for_each(|l| l.resize(shown.len(), None));
        weights.iter_mut().for_each(|w| w.resize(shown.len(), 1.0));
        for (place, head) in task.heads.clone().enumerate() {
            let first: usize = heads[..head].iter().map(goals).sum();
            let own = counts.get(place).and_then(Option::as_ref);
            for (i, wanted) in rows.wanted[place].iter().enumerate() {
                let group = match heads[head].groups.is_empty() {
                    true => Some(0),
                    false => shown[before + i].group,
                };
                if let Some(group) = group {
                    let goal = first + group as usize;
                    labels[goal][before + i] = wanted.as_ref();
                    let count = own.map_or(1.0, |w| f64::from(w[i]));
                    weights[goal][before + i] = (count * shares[head]) as f32;
                }
            }
        }
    }
    type Labelled<'l> = (Vec<Option<&'l Wanted>>, Vec<f32>);
    let target = |((name, classes), (labels, weights)): ((&String, &usize), Labelled<'_>)| {
        let bad = |w: &Wanted| {
            let what = format!("goal `{name}` has a label {w:?}, which trees do not learn");
            MergeError::plan("bad-task", what)
                .hint("one class, or a number; several classes at once are for networks")
        };
        let labels = match classes {
            0 => {
                let number = |w: Option<&Wanted>| match w {
                    None => Ok(f64::NAN),
                    Some(Wanted::Number(x)) => Ok(*x),
                    Some(other) => Err(bad(other)),
                };
                Labels::Regression(labels.into_iter().map(number).collect::<Result<_, _>>()?)
            }
            n => {
                let class = |w: Option<&Wanted>| match w {
                    None => Ok(UNKNOWN),
                    Some(Wanted::Class(c)) => Ok(*c),
                    Some(other) => Err(bad(other)),
                };
                Labels::Classification {
                    classes: *n,
                    labels: labels.into_iter().map(class).collect::<Result<_, _>>()?,
                }
            }
        };
        Ok(Target {
            name: name.clone(),
            labels,
            weights: weights.iter().any(|w| *w != 1.0).then_some(weights),
        })
    };
    let names = new.config.goals.iter().zip(&kinds);
    let labels = labels.into_iter().zip(weights);
    let targets = names.zip(labels).map(target).collect::<Result<_>>()?;
    Ok((new.table(&shown)?, targets))
}
