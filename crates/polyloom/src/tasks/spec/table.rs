//! Tables: columns, groups, several targets.

use serde::{Deserialize, Serialize};

use super::is_default;
use super::kind::TaskType;
use super::score::Metric;

/// What the group column does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupAs {
    /// One task per value.
    #[default]
    Task,
    /// A group stays in one split.
    Split,
    /// A group is one cluster in intervals.
    Cluster,
}

/// Columns of a table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// Feature columns; empty = all but id, targets, group, weight and drop.
    #[serde(skip_serializing_if = "is_default")]
    pub features: Vec<String>,
    /// Categorical ones.
    #[serde(skip_serializing_if = "is_default")]
    pub categorical: Vec<String>,
    /// Numeric ones.
    #[serde(skip_serializing_if = "is_default")]
    pub numeric: Vec<String>,
    /// Running text, whose words become numbers.
    #[serde(skip_serializing_if = "is_default")]
    pub text: Vec<String>,
    /// Columns that are no features.
    #[serde(skip_serializing_if = "is_default")]
    pub drop: Vec<String>,
    /// Group column.
    #[serde(skip_serializing_if = "is_default")]
    pub group: String,
    /// What it does.
    #[serde(skip_serializing_if = "is_default")]
    pub group_as: GroupAs,
    /// Column of row weights: what a row counts in the losses of `train`, at least 0. Scores count rows alike.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: String,
    /// Column that orders time-aware splits.
    #[serde(skip_serializing_if = "is_default")]
    pub time: String,
    /// Column that says whose session a row is of: with `item` or `history` a model sees the rows of it that come before.
    #[serde(skip_serializing_if = "is_default")]
    pub session: String,
    /// Column of numbers or dates that orders the rows of a session, of equal ones as the file has them; empty for the order of
    /// the file.
    #[serde(skip_serializing_if = "is_default")]
    pub order: String,
    /// Column that says which item a row of a session is about. Features are what an item is described by: the same in all of
    /// its rows.
    #[serde(skip_serializing_if = "is_default")]
    pub item: String,
    /// Categorical columns of which a row sees what the rows of its session before it have, in a task of single rows
    /// (`session` without `item`).
    #[serde(skip_serializing_if = "is_default")]
    pub history: Vec<String>,
    /// Predicate of earlier rows that a model is told of as such (a click); with `history`.
    #[serde(skip_serializing_if = "is_default")]
    pub mark: String,
}

/// One of several targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Last part of the task id.
    pub name: String,
    /// Column.
    pub column: String,
    /// What is asked for.
    #[serde(rename = "type")]
    pub kind: TaskType,
    /// Class names, index = class.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Vec<String>,
    /// How it is scored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metrics: Vec<Metric>,
    /// What the target counts in the loss of its task in `train`, above 0: the mean over targets is by these weights.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: f64,
    /// Predicate of the rows where this target exists (`clicked == 1`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub sample: String,
}

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(x: &f64) -> bool {
    *x == 1.0
}
