//! How a task is scored, weighed and tagged.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::is_default;

/// How it is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Name, see [`crate::tasks::metrics`].
    pub name: String,
    /// The one that counts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub primary: bool,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "is_default")]
    pub params: Map<String, Value>,
    /// How rows are put together.
    #[serde(default = "mean", skip_serializing_if = "is_mean")]
    pub aggregate: String,
}

impl Metric {
    /// A metric with its defaults.
    #[must_use]
    pub fn named(name: impl Into<String>, primary: bool) -> Self {
        Self {
            name: name.into(),
            primary,
            params: Map::new(),
            aggregate: mean(),
        }
    }
}

pub(super) fn mean() -> String {
    "mean".into()
}

fn is_mean(text: &str) -> bool {
    text == "mean"
}

/// The metric that counts of a list.
#[must_use]
pub fn primary(metrics: &[Metric]) -> Option<&Metric> {
    metrics.iter().find(|m| m.primary).or(metrics.first())
}

/// Known levels of the primary metric.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Score {
    /// Guessing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Best possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// People.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<f64>,
}

/// The single-task reference.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expert {
    /// Its score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// Modality of input and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Modality {
    /// `text`, `image`, `table`, ...
    pub input: Vec<String>,
    /// The same words.
    pub output: String,
}

impl Default for Modality {
    fn default() -> Self {
        Self {
            input: vec!["text".into()],
            output: "text".into(),
        }
    }
}

/// Tags.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tags {
    /// What a model must be able to do.
    #[serde(skip_serializing_if = "is_default")]
    pub skills: Vec<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "is_default")]
    pub domains: Vec<String>,
    /// Anything.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// One or two capabilities, for weakest-link boards.
    #[serde(skip_serializing_if = "is_default")]
    pub capability: Vec<String>,
}

/// Weights of the task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Sampling and loss weight in joint training, above 0.
    pub train: f64,
    /// Weight in the macro aggregate, at least 0.
    pub eval: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            train: 1.0,
            eval: 1.0,
        }
    }
}
