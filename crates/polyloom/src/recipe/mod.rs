//! Recipes: what the user asked for, from `loom.toml`, mergekit YAML or flags, in one normal form.
//!
//! Parsing is loose about values and strict about names; nothing is opened here. [`crate::plan`] reads headers and
//! resolves every setting for every tensor.

pub mod environment;
pub mod mergekit;
mod read;
pub mod setting;
pub mod show;
pub mod toml;
pub(crate) mod yaml;

use std::path::{Path, PathBuf};

use polyloom_core::DType;
use serde_json::{Map, Value};

pub use read::{from_models, read, stage_references};

/// Where a recipe came from: decides defaults and how strict unknown keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `loom.toml` or flags: our defaults; unknown keys are errors.
    #[default]
    Loom,
    /// mergekit YAML: the peer's defaults; unknown keys are warnings (errors under `--strict`).
    Mergekit,
}

/// A model as the user named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// Path, file, `hf:org/name` or (in mergekit files) a bare `org/name`, as typed.
    pub path: String,
    /// `@revision`.
    pub revision: Option<String>,
    /// `+adapter`, with its own revision.
    pub adapter: Option<(String, Option<String>)>,
}

impl ModelRef {
    /// Parses `path[@rev][+adapter[@rev]]`. More than one `@` or `+` on a side is an error.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A path that exists wins over the syntax, so that folders with `+` or `@` in their names can be used.
        if Path::new(text).exists() {
            return Ok(Self {
                path: text.to_owned(),
                revision: None,
                adapter: None,
            });
        }
        let mut halves = text.split('+');
        let first = halves.next().unwrap_or_default();
        let second = halves.next();
        if halves.next().is_some() {
            return Err(format!("`{text}` has more than one `+`"));
        }
        let side = |side: &str| -> Result<(String, Option<String>), String> {
            let mut parts = side.split('@');
            let path = parts.next().unwrap_or_default().to_owned();
            let revision = parts.next().map(str::to_owned);
            if parts.next().is_some() {
                return Err(format!("`{text}` has more than one `@`"));
            }
            if path.is_empty() {
                return Err(format!("`{text}` names no model"));
            }
            Ok((path, revision))
        };
        let (path, revision) = side(first)?;
        let adapter = second.map(side).transpose()?;
        Ok(Self {
            path,
            revision,
            adapter,
        })
    }
}

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rev = |r: &Option<String>| r.as_ref().map(|r| format!("@{r}")).unwrap_or_default();
        write!(f, "{}{}", self.path, rev(&self.revision))?;
        if let Some((path, revision)) = &self.adapter {
            write!(f, "+{path}{}", rev(revision))?;
        }
        Ok(())
    }
}

/// A parameter's value as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// The same everywhere.
    Value(Value),
    /// Interpolated over depth.
    Gradient(Vec<Value>),
    /// The first entry whose filter is absent, `*` or a substring of the tensor's name.
    Filters(Vec<(Option<String>, Self)>),
}

/// Where a setting was written, for messages and `inspect --resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// `flag`, `default`, `recipe`, ... or a place such as `loom.toml:31`.
    pub text: String,
}

/// Settings of one scope, in file order.
pub type Settings = indexmap::IndexMap<String, (Setting, Origin)>;

/// One model of the recipe: an expert, the base, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Name in messages, heads and masks; the last part of the path unless given.
    pub name: String,
    /// The reference.
    pub reference: ModelRef,
    /// Task of this expert (head name).
    pub task: Option<String>,
    /// Prefix removed from this model's tensor names.
    pub strip_prefix: Option<String>,
    /// Prefix added to this model's tensor names (after stripping).
    pub add_prefix: Option<String>,
    /// Statistics file.
    pub stats: Option<String>,
}

/// One input of a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Index into [`Recipe::models`].
    pub model: usize,
    /// Half-open range of layers; `None` = all.
    pub layers: Option<(usize, usize)>,
    /// This input's settings (highest precedence).
    pub settings: Settings,
}

impl Source {
    /// The same input with all its layers.
    #[must_use]
    pub fn whole(self) -> Self {
        Self {
            layers: None,
            ..self
        }
    }
}

/// A run of output layers made from one list of inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Inputs, in order. The base is among them only if the recipe lists it.
    pub sources: Vec<Source>,
    /// Base of this slice if it overrides the recipe's.
    pub base: Option<usize>,
    /// Layers of the base, where the inputs are ranges of layers.
    pub base_layers: Option<(usize, usize)>,
    /// Settings of this slice.
    pub settings: Settings,
}

/// A tower of the model (`modules:`), or the whole model.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Name of the tower; `None` for a plain recipe.
    pub name: Option<String>,
    /// Its slices; one slice with whole models for a `models:` list.
    pub slices: Vec<Slice>,
    /// Settings of this module.
    pub settings: Settings,
}

/// A method with its settings inside another (`on`), or a step (`pre`, `post`).
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Method or step name.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// Pre-steps of an inner method.
    pub pre: Vec<Self>,
}

/// What to do with classification heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heads {
    /// Merge them like any tensor.
    #[default]
    Merge,
    /// Merge the trunk, keep one head per task under `heads/`.
    Separate,
}

/// What to do with tensors that not all inputs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingPolicy {
    /// The method's rule, mostly an error.
    #[default]
    Method,
    /// A tensor an expert lacks counts as unchanged.
    Base,
    /// Leave out tensors that not all inputs have (`--intersection`).
    Intersection,
    /// Merge each tensor over the inputs that have it (`--union`).
    Union,
}

/// Whose vocabulary the output has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vocabulary {
    /// Base tokens first, then new ones by input order and id.
    Union,
    /// The base's.
    Base,
    /// This model's (index into [`Recipe::models`]).
    Model(usize),
}

/// The row of a token that the recipe fixes (`tokenizer.tokens`).
#[derive(Debug, Clone, PartialEq)]
pub enum TokenSource {
    /// The row of this model.
    Model(usize),
    /// Zeros.
    Zero,
    /// Another token's row of this model, by string or id.
    ModelToken {
        /// Index into [`Recipe::models`].
        model: usize,
        /// The token or its id.
        token: TokenName,
    },
}

/// A token by string or by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenName {
    /// By string.
    Text(String),
    /// By id.
    Id(usize),
}

/// `tokenizer:` of a mergekit file.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    /// Output vocabulary.
    pub source: Vocabulary,
    /// Per token: source and `force`.
    pub tokens: Vec<(String, Option<TokenSource>, bool)>,
    /// Rows are padded to a multiple of this.
    pub pad_to_multiple_of: Option<usize>,
}

/// A merge, in normal form.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recipe {
    /// Title.
    pub name: Option<String>,
    /// Which defaults hold.
    pub dialect: Dialect,
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// The file's text, kept in the output.
    pub text: Option<String>,
    /// Registry name of the method.
    pub method: String,
    /// Index of the base in `models`.
    pub base: Option<usize>,
    /// All distinct models; names are unique.
    pub models: Vec<Model>,
    /// What is merged; never empty.
    pub modules: Vec<Module>,
    /// Settings that hold for all (lowest precedence): `[merge.shared]` and `[merge.each]`, or top-level `parameters`.
    pub settings: Settings,
    /// The inner merge of methods that work on another's multi-task vector.
    pub on: Option<Part>,
    /// Steps on every task vector.
    pub pre: Vec<Part>,
    /// Steps on the merged vector.
    pub post: Vec<Part>,
    /// Inputs are rounded to this first if it is narrower than they are.
    pub dtype: Option<DType>,
    /// Type of the written tensors.
    pub out_dtype: Option<DType>,
    /// Vocabulary rules.
    pub tokenizer: Option<Tokenizer>,
    /// Chat template to write: a known name, `auto`, or Jinja text.
    pub chat_template: Option<String>,
    /// Seed of random methods.
    pub seed: u64,
    /// Heads.
    pub heads: Heads,
    /// Missing tensors.
    pub missing: MissingPolicy,
    /// Cut vocabulary tensors to the smallest row count without looking at tokens.
    pub truncate_embeddings: bool,
    /// Mix architectures whose shared tensors fit.
    pub allow_mixed: bool,
    /// Things to tell the user: (warning?, text). A warning becomes an error under `--strict`.
    pub notes: Vec<(bool, String)>,
}

/// A JSON map, re-exported for the parsers.
pub type Json = Map<String, Value>;
