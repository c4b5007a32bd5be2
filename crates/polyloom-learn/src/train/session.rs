//! A run from recipe to folder: the folder of work beside the output, resuming, experts one after the other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom_core::writer::FolderOptions;

use super::forest;
use super::language;
use super::learned::Given;
use super::recipe::Recipe;
use super::run::{Evaluation, Job, Told, run};
use super::state::{STATE, State};
use super::write::write;
use crate::error::{Error, Result};
use crate::models::open::Trunk;
use crate::tasks::{Opened, Reader};

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
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".training");
    out.with_file_name(name)
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
    let work = work_folder(out);
    let begun = work.join(STATE).exists();
    if out.exists() && !options.force {
        if options.resume && !begun {
            return Ok(Finished {
                folder: out.to_owned(),
                tasks: ids,
                steps: None,
                evaluation: None,
                balance: None,
            });
        }
        return Err(Error::file(out, "exists already")
            .hint("choose another name or pass --force to replace it"));
    }
    fs::create_dir_all(&work).map_err(|e| polyloom_core::Error::io(&work, "create", e))?;
    let lock = work.join(".lock");
    let lock = File::create(&lock).map_err(|e| polyloom_core::Error::io(&lock, "create", e))?;
    if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
        return Err(Error::file(out, "is being trained by another run")
            .hint("wait for it to end, or choose another name"));
    }
    if begun && !options.resume {
        if !options.force {
            let step = State::read(&work)
                .ok()
                .flatten()
                .map_or(0, |s| s.facts.step);
            let what =
                format!("holds a run that was interrupted; its checkpoint is that of step {step}");
            return Err(MergeError::plan("interrupted", what)
                .at(work.display().to_string())
                .hint("--resume goes on with it, --force begins again")
                .into());
        }
        let state = work.join(STATE);
        fs::remove_file(&state).map_err(|e| polyloom_core::Error::io(&state, "remove", e))?;
    }
    let job = Job {
        recipe,
        model: &opened.model,
        reader,
        tasks,
        work: &work,
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
    let (outcome, folder) = match done {
        Ok(done) => done,
        Err(error) => {
            // Without a checkpoint there is nothing to go on from.
            if !work.join(STATE).exists() {
                let _ = fs::remove_dir_all(&work);
            }
            return Err(error);
        }
    };
    drop(lock);
    fs::remove_dir_all(&work).map_err(|e| polyloom_core::Error::io(&work, "remove", e))?;
    Ok(Finished {
        folder,
        tasks: ids,
        steps: Some(outcome.steps),
        evaluation: outcome.evaluation,
        balance: outcome.balance,
    })
}
