//! What trials of any recipe read of it.

use std::path::Path;

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use super::recipe::{File, Tune};

type Result<T> = std::result::Result<T, MergeError>;

/// `[tune.trials]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trials {
    /// Keys and what they may be: a text as after `--over`, or a list of values.
    pub over: toml::Table,
    /// Trials at most.
    pub trials: Option<usize>,
    /// How points are chosen.
    pub search: Option<SearchKind>,
    /// How scores are counted to one number.
    pub objective: Option<String>,
    /// Rounds without a better one that is told apart, after which the search ends.
    pub patience: Option<usize>,
    /// Points of a round.
    pub population: Option<usize>,
}

/// How points are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchKind {
    /// Every combination.
    Grid,
    /// Drawn evenly.
    Random,
    /// Many on few rows, the better third on three times as many.
    #[serde(alias = "successive-halving")]
    Halving,
    /// CMA-ES.
    #[serde(alias = "cmaes", alias = "cma_es")]
    CmaEs,
}

/// What trials of any recipe read of it: whose rows are scored, and `[tune.trials]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scoring {
    /// Seed.
    pub seed: u64,
    /// Tasks.
    pub tasks: Vec<String>,
    /// The rest.
    pub tune: Tune,
}

impl Scoring {
    /// Reads a `loom.toml` for its tables `[[expert]]` (tasks), `[tune]` and `[tune.trials]`, whatever else it is for.
    ///
    /// # Errors
    /// As [`super::Recipe::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        let file: File = crate::recipe::read(&text, &path.display().to_string(), &[])?;
        let mut tune = file.tune;
        tune.beside(path)?;
        let own = file.expert.iter().filter_map(|e| e.task.clone());
        let tasks = match tune.tasks.is_empty() {
            true => own.collect(),
            false => tune.tasks.clone(),
        };
        Ok(Self {
            seed: file.seed,
            tasks,
            tune,
        })
    }
}
