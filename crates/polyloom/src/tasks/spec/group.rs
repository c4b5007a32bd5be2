//! Groups of tasks.

use serde::{Deserialize, Serialize};

use super::is_default;
use super::score::mean;

/// A group of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// `polyloom.group/1`.
    pub schema: String,
    /// Unique among tasks and groups.
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub title: String,
    /// Ids of tasks and groups, with `*` for any run of characters.
    pub tasks: Vec<String>,
    /// How scores are put together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub aggregate: Vec<Aggregate>,
}

/// One aggregate of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// Metric of the tasks.
    pub metric: String,
    /// `mean`.
    #[serde(default = "mean")]
    pub how: String,
    /// Weight of a task.
    #[serde(default)]
    pub weight: GroupWeight,
}

/// Weight of a task in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupWeight {
    /// Its number of rows.
    #[default]
    Size,
    /// The same for all.
    Equal,
    /// `weights.eval`.
    Eval,
}
