//! A run from recipe to folder: the folder of work beside the output, resuming, experts one after the other.

use std::path::{Path, PathBuf};

use polyloom_core::writer::FolderOptions;

use super::Given;
use super::forest;
use super::language;
use super::recipe::Recipe;
use super::run::{Evaluation, Job, Told, run};
use super::state::State;
use super::work::{There, Work};
use super::write::write;
use crate::error::Result;
use crate::models::open::Trunk;
use crate::tasks::{Opened, Reader};

/// What the folder of work is called after the output's name.
const ENDING: &str = "training";

/// How a run treats what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Goes on from the checkpoint of an interrupted run; experts that are there are left.
    pub resume: bool,
    /// Replaces folders, drops checkpoints.
    pub force: bool,
    /// Skips fsync of the output.
    pub no_sync: bool,
}

/// A run that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Where.
    pub folder: PathBuf,
    /// Its tasks.
    pub tasks: Vec<String>,
    /// Steps done, and the step whose weights are given; none where it was there already.
    pub steps: Option<(u32, u32)>,
    /// The evaluation of its weights.
    pub evaluation: Option<Evaluation>,
    /// Where goals were balanced: means and counts over the steps.
    pub balance: Option<serde_json::Map<String, serde_json::Value>>,
    /// How often the rows of each task were seen; nothing for trees.
    pub epochs: indexmap::IndexMap<String, f64>,
}

/// What happens, and to which folder.
pub type Watch<'a> = &'a mut dyn FnMut(&Path, &Told) -> bool;

/// Trains and writes `out`; with `each` one expert a task, `out/<task>`.
///
/// While a run goes on, its checkpoint and log lie in `<out>.training`, which goes away in the end.
///
/// # Errors
/// An output that is there, work of an interrupted run (without `resume` or `force`), and as [`fn@run`] and [`fn@write`].
pub fn train(
    recipe: &Recipe,
    opened: &Opened,
    tasks: &[Given],
    out: &Path,
    options: Options,
    watch: Watch<'_>,
) -> Result<Vec<Finished>> {
    recipe.check()?;
    if recipe.train.language.is_some() {
        language::decoder(&opened.model)?;
    }
    let reader = Reader::of(&opened.model, recipe.train.max_length)?;
    if !recipe.train.each {
        let one = one(recipe, opened, &reader, tasks, out, options, watch)?;
        return Ok(vec![one]);
    }
    let mut done = Vec::new();
    for task in tasks {
        let mut recipe = recipe.clone();
        recipe.train.tasks = vec![task.spec.id.clone()];
        let target = out.join(&task.spec.id);
        let task = std::slice::from_ref(task);
        done.push(one(
            &recipe, opened, &reader, task, &target, options, watch,
        )?);
    }
    Ok(done)
}

/// Folder of checkpoint and log of a run that writes `out`.
#[must_use]
pub fn work_folder(out: &Path) -> PathBuf {
    Work::place(out, ENDING)
}

fn one(
    recipe: &Recipe,
    opened: &Opened,
    reader: &Reader,
    tasks: &[Given],
    out: &Path,
    options: Options,
    watch: Watch<'_>,
) -> Result<Finished> {
    let ids: Vec<String> = tasks.iter().map(|t| t.spec.id.clone()).collect();
    let there = There {
        resume: options.resume,
        force: options.force,
    };
    let step = |work: &Path| {
        let state = State::read(work).ok().flatten();
        state.map_or(0, |s| s.facts.step)
    };
    let Some(work) = Work::begin(out, ENDING, there, step)? else {
        return Ok(Finished {
            folder: out.to_owned(),
            tasks: ids,
            steps: None,
            evaluation: None,
            balance: None,
            epochs: indexmap::IndexMap::new(),
        });
    };
    let job = Job {
        recipe,
        model: &opened.model,
        reader,
        tasks,
        work: work.folder(),
    };
    let options = FolderOptions {
        force: options.force,
        no_sync: options.no_sync,
        ..FolderOptions::default()
    };
    let mut watch = |told: &Told| watch(out, told);
    let done = match &opened.model.trunk {
        Trunk::Forest(new) => forest::run(&job, new, &mut watch).and_then(|(grown, outcome)| {
            let folder = write(&job, &grown, &outcome, out, options)?;
            Ok((outcome, folder))
        }),
        _ => run(&job, &mut watch).and_then(|outcome| {
            let folder = write(&job, opened, &outcome, out, options)?;
            Ok((outcome, folder))
        }),
    };
    let (outcome, folder) = work.end(done)?;
    Ok(Finished {
        folder,
        tasks: ids,
        steps: Some(outcome.steps),
        evaluation: outcome.evaluation,
        balance: outcome.balance,
        epochs: outcome.epochs,
    })
}
