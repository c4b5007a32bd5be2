//! Where the rows are, and which of them are for what.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::is_default;

/// Format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated, with a header.
    Csv,
    /// Tab-separated, with a header.
    Tsv,
    /// Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// A JSON list of objects, or an object with one such list.
    Json,
    /// `root/<class>/<file>`.
    ImageFolder,
    /// Rows in the spec.
    Inline,
    /// A generator, see [`crate::tasks::synth`].
    Synth,
}

/// Where the rows are; always local.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Format.
    pub kind: SourceKind,
    /// Folder, relative to the spec or to a data root.
    #[serde(default, skip_serializing_if = "is_default")]
    pub root: String,
    /// Revision of the origin, for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revision: String,
    /// File -> SHA-256, checked when present.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sha256: BTreeMap<String, String>,
    /// Height, width and channels of raw images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 3]>,
    /// The rows of an inline task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rows: Vec<Map<String, Value>>,
    /// Name of the generator.
    #[serde(default, skip_serializing_if = "is_default")]
    pub generator: String,
    /// Seed of the generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Rows of the generator, all splits together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Other options of the generator.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: Map<String, Value>,
}

impl Source {
    /// A source of a kind under a folder.
    #[must_use]
    pub fn new(kind: SourceKind, root: impl Into<String>) -> Self {
        Self {
            kind,
            root: root.into(),
            revision: String::new(),
            sha256: BTreeMap::new(),
            size: None,
            rows: Vec::new(),
            generator: String::new(),
            seed: None,
            count: None,
            options: Map::new(),
        }
    }
}

/// Splits by name, and the split of the examples in the context.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Splits {
    /// The split that few-shot examples come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewshot: Option<String>,
    /// `train`, `validation`, `test` and any other name.
    #[serde(flatten)]
    pub named: IndexMap<String, Split>,
}

/// One split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// File under the root; may be left out for inline rows.
    #[serde(skip_serializing_if = "is_default")]
    pub file: String,
    /// `[:90%]`, `[90%:]`, `[100:200]`.
    #[serde(skip_serializing_if = "is_default")]
    pub slice: String,
    /// Rows are shuffled with it before they are cut; without it they keep their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Row predicates; all must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Rows without one of these fields are dropped.
    #[serde(skip_serializing_if = "is_default")]
    pub drop_if_missing: Vec<String>,
    /// Only the first row of those equal in these fields is kept.
    #[serde(skip_serializing_if = "is_default")]
    pub dedupe_on: Vec<String>,
}
