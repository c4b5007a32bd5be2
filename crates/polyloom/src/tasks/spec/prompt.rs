//! How a model is asked, and how its answer is read.

use serde::{Deserialize, Serialize};

use super::is_default;

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
