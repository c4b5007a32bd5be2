//! Columns by meaning, classes, judged relevance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_default;

/// Columns by meaning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// Row id.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// Input.
    #[serde(skip_serializing_if = "is_default")]
    pub input: String,
    /// Second input of a pair.
    #[serde(skip_serializing_if = "is_default")]
    pub input2: String,
    /// What is predicted.
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    /// Rows that belong together in intervals.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster: String,
    /// Per-row answers of a multiple-choice task.
    #[serde(skip_serializing_if = "is_default")]
    pub choices: String,
    /// List of `{start, end, label}`, or slot -> text.
    #[serde(skip_serializing_if = "is_default")]
    pub spans: String,
    /// Target map of a dense task.
    #[serde(skip_serializing_if = "is_default")]
    pub map: String,
    /// Query of a retrieval task.
    #[serde(skip_serializing_if = "is_default")]
    pub query: String,
    /// Document of a retrieval task.
    #[serde(skip_serializing_if = "is_default")]
    pub document: String,
    /// Time of a survival task.
    #[serde(skip_serializing_if = "is_default")]
    pub time: String,
    /// Whether the event happened.
    #[serde(skip_serializing_if = "is_default")]
    pub event: String,
}

impl Fields {
    /// The fields that are set, with their canonical names.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("id", &self.id),
            ("input", &self.input),
            ("input2", &self.input2),
            ("target", &self.target),
            ("cluster", &self.cluster),
            ("choices", &self.choices),
            ("spans", &self.spans),
            ("map", &self.map),
            ("query", &self.query),
            ("document", &self.document),
            ("time", &self.time),
            ("event", &self.event),
        ]
        .into_iter()
        .filter(|(_, column)| !column.is_empty())
        .map(|(name, column)| (name, &**column))
    }
}

/// Classes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// Index = class.
    #[serde(skip_serializing_if = "is_default")]
    pub names: Vec<String>,
    /// Raw value -> class.
    #[serde(skip_serializing_if = "is_default")]
    pub map: BTreeMap<String, u32>,
    /// Rows with these raw labels are ignored.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore: Vec<Value>,
}

/// Judged relevance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Qrels {
    /// A file of `query document relevance`.
    File(String),
    /// A rule.
    Rule(QrelsRule),
}

/// Relevance by annotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QrelsRule {
    /// Documents whose value in this column (or field) equals the query's are relevant.
    pub same: String,
}
