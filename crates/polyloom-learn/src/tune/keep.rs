//! Checkpoints of a run of coefficients: what the next step depends on, beside the output while the run goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::learn::Progress;
use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::train::Given;
use crate::train::state::{Held, STATE, put};

/// What the folder of work is called after the output's name.
pub(super) const ENDING: &str = "tuning";
/// Time between checkpoints; a step is short, and a mask may have as many numbers as the model.
const EVERY: Duration = Duration::from_secs(30);

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The logits of a mask.
    Mask,
    /// Coefficients, under the mask where there is one.
    #[default]
    Coefficients,
}

/// What is not a tensor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Facts {
    fingerprint: String,
    stage: Stage,
    step: u32,
    losses: [Option<f64>; 2],
}

/// A run as its checkpoint has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    /// What was being learned.
    pub stage: Stage,
    /// Steps of it, and moments.
    pub progress: Progress,
    /// Its numbers.
    pub numbers: Vec<f32>,
    /// The logits of the mask, where coefficients are learned under one.
    pub mask: Option<Vec<f32>>,
}

/// A run after a step.
pub(super) struct Now<'a> {
    /// What is learned.
    pub stage: Stage,
    /// Steps of it, and moments.
    pub progress: &'a Progress,
    /// Its numbers.
    pub numbers: &'a [f32],
    /// The logits of the mask, where coefficients are learned under one.
    pub mask: Option<&'a [f32]>,
}

/// Keeps the checkpoint of a folder.
pub(super) struct Keeper<'a> {
    folder: &'a Path,
    fingerprint: String,
    /// Losses of the first and the last step.
    pub losses: [Option<f64>; 2],
    last: Instant,
}

impl<'a> Keeper<'a> {
    /// Of a run of `recipe` over rows of `tasks`.
    pub(super) fn new(folder: &'a Path, recipe: &Recipe, tasks: &[Given], rows: &[usize]) -> Self {
        let tasks: Vec<_> = tasks.iter().map(|g| (&g.spec.id, &g.hash)).collect();
        // Folders are written anew as a whole: a changed expert has another time.
        let time = |path: &str| {
            let time = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
            let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(since.as_nanos().to_string())
        };
        let times: Vec<_> = recipe.experts.iter().map(|e| time(&e.path)).collect();
        let facts = json!([env!("CARGO_PKG_VERSION"), recipe, tasks, rows, times]);
        Self {
            folder,
            fingerprint: facts.to_string(),
            losses: [None; 2],
            last: Instant::now(),
        }
    }

    /// What is there of an earlier run.
    ///
    /// # Errors
    /// A file that is no checkpoint, or that of another recipe, other tasks or experts.
    pub(super) fn kept(&mut self) -> Result<Option<Kept>> {
        let Some(held) = Held::<Facts>::open(self.folder)? else {
            return Ok(None);
        };
        if held.facts.fingerprint != self.fingerprint {
            return Err(self.other());
        }
        let read = |name: &str| held.tensor(name)?.ok_or_else(|| held.bad());
        let numbers = read("numbers")?;
        let moments = [read("moments.0")?, read("moments.1")?];
        if moments.iter().any(|m| m.len() != numbers.len()) {
            return Err(held.bad());
        }
        self.losses = held.facts.losses;
        Ok(Some(Kept {
            stage: held.facts.stage,
            progress: Progress {
                step: held.facts.step,
                moments,
            },
            numbers,
            mask: held.tensor("mask")?,
        }))
    }

    /// That the checkpoint is not of this run.
    pub(super) fn other(&self) -> Error {
        Error::file(
            &self.folder.join(STATE),
            "is the checkpoint of another run: recipe, tasks, rows or experts differ",
        )
        .hint("go on with the recipe it was begun with, or --force to begin again")
    }

    /// Writes a checkpoint where the last is old, or `now`.
    ///
    /// # Errors
    /// A full disk.
    pub(super) fn keep(&mut self, at: &Now<'_>, now: bool) -> Result<()> {
        if !now && self.last.elapsed() < EVERY {
            return Ok(());
        }
        let facts = Facts {
            fingerprint: self.fingerprint.clone(),
            stage: at.stage,
            step: at.progress.step,
            losses: self.losses,
        };
        let [first, second] = &at.progress.moments;
        let mut tensors: Vec<(String, &[f32])> = vec![
            ("numbers".to_owned(), at.numbers),
            ("moments.0".to_owned(), first),
            ("moments.1".to_owned(), second),
        ];
        tensors.extend(at.mask.map(|m| ("mask".to_owned(), m)));
        put(self.folder, &facts, &tensors)?;
        self.last = Instant::now();
        Ok(())
    }
}

/// Steps of a checkpoint, for a message; 0 where it cannot be read.
pub(super) fn steps(folder: &Path) -> u32 {
    let held = Held::<Facts>::open(folder).ok().flatten();
    held.map_or(0, |h| h.facts.step)
}

/// Whether a line of the log is of a step that the checkpoint has.
pub(super) fn is_of(kept: Option<&Kept>, line: &Value) -> bool {
    let Some(kept) = kept else {
        return false;
    };
    let done = |step: &Value| {
        step.as_u64()
            .is_some_and(|s| s <= u64::from(kept.progress.step))
    };
    match (line["type"].as_str(), kept.stage) {
        (Some("mask"), Stage::Coefficients) => true,
        (Some("mask"), Stage::Mask) | (Some("step"), Stage::Coefficients) => done(&line["step"]),
        _ => false,
    }
}
