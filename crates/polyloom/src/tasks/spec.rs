//! The uniform task spec (`polyloom.task/1`) and the group file (`polyloom.group/1`).
//!
//! The types mirror the file: a key that is left out takes the default written here, and a default is not written back.
//! Source: evaluation specification, section 1.2. Keys of ours: `source.rows` (the rows of an inline task),
//! `source.size` (height, width and channels of raw images), `source.options` (options of a generator).

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The schema name of a task.
pub const TASK_SCHEMA: &str = "polyloom.task/1";
/// The schema name of a group.
pub const GROUP_SCHEMA: &str = "polyloom.group/1";

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskType {
    /// One of several classes.
    Classification,
    /// Any subset of the classes.
    Multilabel,
    /// One of several classes for a pair of inputs.
    PairClassification,
    /// One of several answers, by likelihood.
    MultipleChoice,
    /// Free text.
    Generation,
    /// One tag per token (BIO).
    TokenClassification,
    /// Labelled stretches of the input.
    Span,
    /// A number.
    Regression,
    /// Similarity of a pair.
    Sts,
    /// A ranking of all documents per query.
    Retrieval,
    /// A ranking of given documents per query.
    Reranking,
    /// Groups without labels.
    Clustering,
    /// Time to an event, with censoring.
    Survival,
    /// Likelihood of running text.
    Perplexity,
    /// A graph of tool calls.
    ToolGraph,
    /// The next values of a series.
    Forecasting,
    /// A value per pixel.
    Dense,
}

impl TaskType {
    /// All types, in the order of the specification.
    pub const ALL: [Self; 17] = [
        Self::Classification,
        Self::Multilabel,
        Self::PairClassification,
        Self::MultipleChoice,
        Self::Generation,
        Self::TokenClassification,
        Self::Span,
        Self::Regression,
        Self::Sts,
        Self::Retrieval,
        Self::Reranking,
        Self::Clustering,
        Self::Survival,
        Self::Perplexity,
        Self::ToolGraph,
        Self::Forecasting,
        Self::Dense,
    ];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Multilabel => "multilabel",
            Self::PairClassification => "pair_classification",
            Self::MultipleChoice => "multiple_choice",
            Self::Generation => "generation",
            Self::TokenClassification => "token_classification",
            Self::Span => "span",
            Self::Regression => "regression",
            Self::Sts => "sts",
            Self::Retrieval => "retrieval",
            Self::Reranking => "reranking",
            Self::Clustering => "clustering",
            Self::Survival => "survival",
            Self::Perplexity => "perplexity",
            Self::ToolGraph => "tool_graph",
            Self::Forecasting => "forecasting",
            Self::Dense => "dense",
        }
    }

    /// The type that a name in a file, a `kind` of `task.json` or a habit word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|t| t.name() == word);
        known.or(match word {
            "binary" => Some(Self::Classification),
            "nli" | "paraphrase" => Some(Self::PairClassification),
            "multi-label" | "tags" => Some(Self::Multilabel),
            "slots" | "ner spans" => Some(Self::Span),
            "tagging" | "ner" => Some(Self::TokenClassification),
            "similarity" => Some(Self::Sts),
            _ => None,
        })
    }

    /// Whether the answer is one class of a fixed list.
    #[must_use]
    pub fn has_classes(self) -> bool {
        matches!(
            self,
            Self::Classification | Self::PairClassification | Self::Multilabel
        )
    }

    /// Whether the answer is a number.
    #[must_use]
    pub fn is_number(self) -> bool {
        matches!(self, Self::Regression | Self::Sts | Self::Forecasting)
    }
}

impl std::fmt::Display for TaskType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

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

/// The metric that counts of a list.
#[must_use]
pub fn primary(metrics: &[Metric]) -> Option<&Metric> {
    metrics.iter().find(|m| m.primary).or(metrics.first())
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
    /// A generator, see [`super::synth`].
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

/// How a model is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prompt {
    /// Name of the variant.
    pub id: String,
    /// Text before everything.
    #[serde(skip_serializing_if = "is_default")]
    pub instruction: String,
    /// Template of one row.
    pub template: String,
    /// Answers: a list, or a template that gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<Choices>,
    /// Index into the choices, text, or list of accepted texts; a template.
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    /// Between text and answer.
    pub target_delimiter: String,
    /// Between examples.
    pub fewshot_delimiter: String,
    /// `""` = not shown, `letters`, `bullets` or a template.
    #[serde(skip_serializing_if = "is_default")]
    pub choice_format: String,
}

impl Default for Prompt {
    fn default() -> Self {
        Self {
            id: "default".into(),
            instruction: String::new(),
            template: String::new(),
            choices: None,
            target: String::new(),
            target_delimiter: " ".into(),
            fewshot_delimiter: "\n\n".into(),
            choice_format: String::new(),
        }
    }
}

/// Answers to choose from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Choices {
    /// The same for every row.
    List(Vec<String>),
    /// A template that gives a list.
    Template(String),
}

/// Examples in the context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fewshot {
    /// How many.
    pub n: u32,
    /// `first`, `seeded`, `balanced`, or a list of row ids.
    pub sampler: Sampler,
    /// Seed of the drawing.
    pub seed: u64,
    /// A row is no example of itself.
    pub exclude_self: bool,
}

impl Default for Fewshot {
    fn default() -> Self {
        Self {
            n: 0,
            sampler: Sampler::Named(SamplerName::First),
            seed: 1234,
            exclude_self: true,
        }
    }
}

/// Which examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sampler {
    /// By rule.
    Named(SamplerName),
    /// By id.
    Fixed(FixedSampler),
}

/// Rules of the example sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerName {
    /// The first rows.
    First,
    /// Drawn by seed.
    Seeded,
    /// Drawn by seed, classes in turn.
    Balanced,
}

/// `{ fixed = [ids] }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedSampler {
    /// Row ids.
    pub fixed: Vec<String>,
}

/// How text is generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generation {
    /// Longest output.
    pub max_tokens: u32,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// 0 = greedy.
    pub temperature: f64,
    /// Outputs per row.
    pub repeats: u32,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            stop: vec!["\n\n".into()],
            temperature: 0.0,
            repeats: 1,
        }
    }
}

/// A chain of steps that reads an answer from the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parse {
    /// Name of the rule.
    pub name: String,
    /// Steps in order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// One step; exactly one of `regex`, `strip` and `lower` is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// Keep what matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Which match: 0 = first, -1 = last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<i32>,
    /// Trim white space.
    #[serde(skip_serializing_if = "is_default")]
    pub strip: bool,
    /// Lower case.
    #[serde(skip_serializing_if = "is_default")]
    pub lower: bool,
}

/// How it is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Name, see [`super::metrics`].
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

fn mean() -> String {
    "mean".into()
}

fn is_mean(text: &str) -> bool {
    text == "mean"
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
    /// Columns that are no features.
    #[serde(skip_serializing_if = "is_default")]
    pub drop: Vec<String>,
    /// Group column.
    #[serde(skip_serializing_if = "is_default")]
    pub group: String,
    /// What it does.
    #[serde(skip_serializing_if = "is_default")]
    pub group_as: GroupAs,
    /// Row weights.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: String,
    /// Column that orders time-aware splits.
    #[serde(skip_serializing_if = "is_default")]
    pub time: String,
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
    /// Loss weight.
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
