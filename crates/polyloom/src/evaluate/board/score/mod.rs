//! Predictions that others made, joined with a task's examples and scored.
//!
//! A file of predictions ([`answers`]) meets the rows of a split by id, or by order where it has no ids and the counts
//! are equal. Each metric of the task gets a value and an interval: Wilson's for right and wrong, Student's for other
//! means, a bootstrap over the examples for what is no mean (methods/evaluation.md 3.11). The examples with what was
//! said, what is right and the score of each are kept as records ([`records`]).

pub mod answers;
pub mod ask;
mod cells;
mod choice;
pub mod examples;
pub mod extract;
mod given;
mod goal;
mod graphs;
mod group;
mod join;
mod judged;
mod layout;
pub mod lm_eval;
mod maps;
mod measure;
mod measure_map;
mod measure_number;
mod measure_rank;
mod measure_text;
pub mod output;
mod own;
pub mod pool;
pub mod records;
pub mod search;
pub mod sessions;
mod shown;
pub mod strata;
mod table;
mod truth;
mod value;

pub use join::{Exam, score};
pub use own::score_values;

use extract::Extract;

/// How predictions are scored.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which split of the task.
    pub split: String,
    /// Score what is there instead of refusing a file that lacks examples or has others.
    pub allow_partial: bool,
    /// Level of the intervals, in (0, 1).
    pub level: f64,
    /// Draws of the bootstrap.
    pub draws: usize,
    /// How an answer is read from text; else the rules of the task, else the whole text.
    pub extract: Option<Extract>,
    /// Metrics in place of those that the task declares; the first counts.
    pub metrics: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            split: "test".into(),
            allow_partial: false,
            level: 0.95,
            draws: 1000,
            extract: None,
            metrics: Vec::new(),
        }
    }
}

/// A metric of a task, computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Name in the registry, or that of the column that held the values.
    pub name: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// `NaN` where the metric is not defined; then `reason` says why.
    pub value: f64,
    /// Standard error; `NaN` where there is none.
    pub stderr: f64,
    /// Interval at the level asked for.
    pub interval: Option<(f64, f64)>,
    /// How the interval was found: `wilson`, `student`, `clustered`, `bootstrap`, `clustered bootstrap`.
    pub method: &'static str,
    /// Examples that it is over.
    pub n: u64,
    /// Why there is no value.
    pub reason: Option<String>,
    /// What guessing scores.
    pub chance: Option<f64>,
}

/// One example with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Task.
    pub task: String,
    /// Example.
    pub id: String,
    /// Hash of its row.
    pub hash: String,
    /// What was predicted.
    pub prediction: String,
    /// What is right.
    pub target: String,
    /// Value of the metric for this example; none for metrics of all examples together.
    pub value: Option<f64>,
    /// A score that the prediction came with.
    pub score: Option<f64>,
    /// Probabilities of the classes.
    pub probabilities: Option<Vec<f64>>,
}

/// A task, scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Id, with target and group where there are any.
    pub task: String,
    /// Hash of the task; none where the predictions came without one.
    pub hash: Option<String>,
    /// Split; none where the predictions came without a task.
    pub split: Option<String>,
    /// The metric that counts first. Those that could not be computed have a reason and no value.
    pub metrics: Vec<Measured>,
    /// Examples.
    pub records: Vec<Record>,
    /// Score of the single-task reference.
    pub expert: Option<f64>,
    /// Tags of the task: skill, domain, modality, capability, tags, type.
    pub tags: indexmap::IndexMap<String, Vec<String>>,
    /// Ids that have no prediction (first few) and how many there are.
    pub missing: (Vec<String>, usize),
    /// Ids of predictions that the split lacks (first few) and how many there are.
    pub extra: (Vec<String>, usize),
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
}
