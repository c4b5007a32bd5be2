//! The uniform task spec (`polyloom.task/1`) and the group file (`polyloom.group/1`).
//!
//! The types mirror the file: a key that is left out takes the default written here, and a default is not written back.
//! Source: evaluation specification, section 1.2. Keys of ours: `source.rows` (the rows of an inline task),
//! `source.size` (height, width and channels of raw images), `source.options` (options of a generator).

mod fields;
mod group;
mod kind;
mod prompt;
mod score;
mod source;
mod table;

use serde::{Deserialize, Serialize};

pub use fields::{Fields, Labels, Qrels, QrelsRule};
pub use group::{Aggregate, GroupSpec, GroupWeight};
pub use kind::TaskType;
pub use prompt::{
    Choices, Fewshot, FixedSampler, Generation, Parse, Prompt, Sampler, SamplerName, Step,
};
pub use score::{Expert, Metric, Modality, Score, Tags, Weights, primary};
pub use source::{Filter, Source, SourceKind, Split, Splits};
pub use table::{GroupAs, Table, Target};

/// The schema name of a task.
pub const TASK_SCHEMA: &str = "polyloom.task/1";

/// The schema name of a group.
pub const GROUP_SCHEMA: &str = "polyloom.group/1";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One task, or several targets on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// `polyloom.task/1`.
    pub schema: String,
    /// `[a-z0-9._/-]+`, unique in a catalogue.
    pub id: String,
    /// Any change that can move a score changes it.
    #[serde(default = "version")]
    pub version: String,
    /// What is asked for; required unless there are `targets`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TaskType>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub title: String,
    /// A sentence or two.
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: String,
    /// Licence of the data.
    #[serde(default, skip_serializing_if = "is_default")]
    pub license: String,
    /// Address of its origin.
    #[serde(default, skip_serializing_if = "is_default")]
    pub homepage: String,
    /// Who to cite.
    #[serde(default, skip_serializing_if = "is_default")]
    pub citation: String,
    /// A string that marks the data, to keep it out of training corpora.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canary: String,
    /// Language codes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub language: Vec<String>,
    /// Judged relevance of a retrieval task: a file, or a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qrels: Option<Qrels>,
    /// What goes in and out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub modality: Modality,
    /// Tags for boards.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Tags,
    /// Weights in training and in aggregates.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: Weights,
    /// Where the rows are.
    pub source: Source,
    /// Which rows are for what.
    #[serde(default, skip_serializing_if = "is_default")]
    pub splits: Splits,
    /// Canonical name -> column path (`a.b[0]`) or template (`{{...}}`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub fields: Fields,
    /// Classes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// Which rows are left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: Filter,
    /// How a model is asked; several are variants of the instruction.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompts: Vec<Prompt>,
    /// Examples in the context.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fewshot: Fewshot,
    /// How text is generated.
    #[serde(default, skip_serializing_if = "is_default")]
    pub generation: Generation,
    /// How an answer is read from the output, in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parse: Vec<Parse>,
    /// How it is scored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metrics: Vec<Metric>,
    /// Known levels of the primary metric.
    #[serde(default, skip_serializing_if = "is_default")]
    pub score: Score,
    /// The single-task reference.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expert: Expert,
    /// Columns of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
    /// Several targets of one table; replaces type, `fields.target`, labels and metrics of the file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub targets: Vec<Target>,
}

fn version() -> String {
    "1.0".into()
}

impl TaskSpec {
    /// Whether two splits may have rows in common: training queries of a retrieval task may be documents too, since a document
    /// says nothing of what is relevant for a test query.
    #[must_use]
    pub fn may_share(&self, a: &str, b: &str) -> bool {
        self.kind == Some(TaskType::Retrieval)
            && matches!((a, b), ("train", "documents") | ("documents", "train"))
    }

    /// An empty task.
    #[must_use]
    pub fn new(id: impl Into<String>, source: Source) -> Self {
        Self {
            schema: TASK_SCHEMA.into(),
            id: id.into(),
            version: version(),
            kind: None,
            title: String::new(),
            description: String::new(),
            license: String::new(),
            homepage: String::new(),
            citation: String::new(),
            canary: String::new(),
            language: Vec::new(),
            qrels: None,
            modality: Modality::default(),
            tags: Tags::default(),
            weights: Weights::default(),
            source,
            splits: Splits::default(),
            fields: Fields::default(),
            labels: Labels::default(),
            filter: Filter::default(),
            prompts: Vec::new(),
            fewshot: Fewshot::default(),
            generation: Generation::default(),
            parse: Vec::new(),
            metrics: Vec::new(),
            score: Score::default(),
            expert: Expert::default(),
            table: None,
            targets: Vec::new(),
        }
    }

    /// The group column that makes one task per value, if there is one.
    #[must_use]
    pub fn task_group(&self) -> Option<&str> {
        let table = self.table.as_ref()?;
        (table.group_as == GroupAs::Task && !table.group.is_empty()).then_some(&*table.group)
    }

    /// The ids of the tasks of this file, given the values of its group column (empty without one): `id`,
    /// `id/<target>`, `id/<group>` or `id/<group>/<target>`.
    #[must_use]
    pub fn task_ids(&self, groups: &[String]) -> Vec<String> {
        let mut stems = vec![self.id.clone()];
        if self.task_group().is_some() && !groups.is_empty() {
            stems = groups.iter().map(|g| format!("{}/{g}", self.id)).collect();
        }
        if self.targets.is_empty() {
            return stems;
        }
        let of = |stem: &String| {
            let names = self.targets.iter().map(|t| format!("{stem}/{}", t.name));
            names.collect::<Vec<_>>()
        };
        stems.iter().flat_map(of).collect()
    }

    /// What is asked for, as one word per target.
    #[must_use]
    pub fn type_words(&self) -> String {
        if self.targets.is_empty() {
            return self.kind.map_or_else(|| "-".to_owned(), |k| k.to_string());
        }
        let mut kinds: Vec<&str> = self.targets.iter().map(|t| t.kind.name()).collect();
        let n = kinds.len();
        kinds.dedup();
        if n == 1 {
            kinds[0].to_owned()
        } else {
            format!("{} x {n}", kinds.join("+"))
        }
    }

    /// The metric that counts: the one marked primary, else the first.
    #[must_use]
    pub fn primary_metric(&self) -> Option<&Metric> {
        primary(&self.metrics)
    }
}
