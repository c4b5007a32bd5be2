//! One score as a file states it, before the table is made.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use indexmap::IndexMap;

use crate::evaluate::aggregate::Direction;

/// A score of a system on a task.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub system: String,
    pub task: String,
    /// Empty where the file does not say.
    pub metric: String,
    /// The metric that the file puts first for the task.
    pub primary: bool,
    pub value: f64,
    pub stderr: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub n: Option<u64>,
    /// The good end, where the file says: `Some(None)` is "neither".
    pub direction: Option<Option<Direction>>,
    pub chance: Option<f64>,
    pub maximum: Option<f64>,
    pub expert: Option<f64>,
    pub weight: Option<f64>,
    pub group: Option<String>,
    pub tags: IndexMap<String, Vec<String>>,
    pub hash: Option<String>,
    /// Shots, version, revision: what must be the same for scores to compare.
    pub setting: String,
    /// Which seed, run, checkpoint or instruction.
    pub replicate: Option<String>,
    pub record: Option<PathBuf>,
    /// Number of the file.
    pub file: usize,
}

/// Answers of a system on a task: by example, sum of scores and attempts; with where they are from.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pub metric: String,
    pub direction: Option<Option<Direction>>,
    pub tags: IndexMap<String, Vec<String>>,
    pub by_id: IndexMap<String, super::Answer>,
    pub file: usize,
}

/// Everything read so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub files: Vec<PathBuf>,
    pub entries: Vec<Entry>,
    /// By system, then task.
    pub answers: IndexMap<(String, String), Answers>,
    /// Number of examples in `answers`.
    pub examples: usize,
    pub costs: IndexMap<String, IndexMap<String, f64>>,
    /// Other names of systems (folder names of lm-eval), to the name that counts.
    pub aliases: HashMap<String, String>,
    /// Keys of conditions that rows were held against.
    pub applied: BTreeSet<String>,
    /// Tasks that stand for several others.
    pub aggregates: Vec<String>,
    /// Tasks and groups that a counted group stands for (`Options::groups`).
    pub members: BTreeSet<String>,
    /// `seed`, `run`, ...
    pub replicate: Option<String>,
    pub notes: Vec<String>,
}

impl Gathered {
    /// Numbers a file.
    pub fn file(&mut self, path: &std::path::Path) -> usize {
        self.files.push(path.to_path_buf());
        self.files.len() - 1
    }

    /// Adds a sentence once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// What a system costs; a cost that stands twice keeps its first value.
    pub fn cost(&mut self, system: &str, name: &str, value: f64) {
        if value.is_finite() {
            let costs = self.costs.entry(system.to_owned()).or_default();
            costs.entry(name.to_owned()).or_insert(value);
        }
    }

    /// Adds to a cost that sums over files (seconds).
    pub fn add_cost(&mut self, system: &str, name: &str, value: f64) {
        if value.is_finite() {
            let costs = self.costs.entry(system.to_owned()).or_default();
            *costs.entry(name.to_owned()).or_default() += value;
        }
    }
}

/// The good end of a flag `higher_is_better`.
pub(super) fn higher(flag: bool) -> Option<Direction> {
    Some(if flag {
        Direction::Higher
    } else {
        Direction::Lower
    })
}

/// Whether a metric is the one that is asked for: by its name, or (lm-eval's `name,filter`) by its filter alone.
pub(super) fn is_asked(metric: &str, asked: &str) -> bool {
    metric == asked
        || metric
            .split_once(',')
            .is_some_and(|(_, filter)| filter == asked)
}
