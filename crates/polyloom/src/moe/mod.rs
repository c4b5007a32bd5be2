//! Mixture-of-experts assembly: dense models of one architecture become the experts of one sparse model.
//!
//! Reads mergekit-moe's file. MLP weights come from the experts, everything else from the base; the router rows are
//! set from example prompts, without a forward pass (`cheap_embed`) or by one that the caller brings (`hidden` and its
//! kin), or drawn at random. Tensors are streamed.

mod arch;
mod gates;
mod prompt;
mod run;

pub use arch::Architecture;
pub use gates::{Forward, Taken};
pub use prompt::PromptEncoder;
pub use run::{MoePlan, RunOptions, plan, run};

use serde_json::{Map, Value};

use polyloom_core::DType;

use crate::error::{MergeError, Result};
use crate::recipe::ModelRef;
use crate::suggest;

/// How router rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateMode {
    /// Hidden state of the last token of the prompts before every layer, normalised; a row of its own for each layer.
    Hidden,
    /// The mean over the tokens of a prompt in its place.
    HiddenAvg,
    /// Another word for [`Self::Hidden`].
    HiddenLast,
    /// Sum of the embedding rows of the prompts' tokens, normalised; the same at every layer.
    CheapEmbed,
    /// N(0, 1).
    Random,
    /// U(-1/sqrt(h), 1/sqrt(h)), the default initialisation of a linear layer.
    UniformRandom,
}

impl GateMode {
    const ALL: [Self; 6] = [
        Self::Hidden,
        Self::HiddenAvg,
        Self::HiddenLast,
        Self::CheapEmbed,
        Self::Random,
        Self::UniformRandom,
    ];

    /// Its word in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::HiddenAvg => "hidden_avg",
            Self::HiddenLast => "hidden_last",
            Self::CheapEmbed => "cheap_embed",
            Self::Random => "random",
            Self::UniformRandom => "uniform_random",
        }
    }

    /// Whether router rows come from prompts.
    #[must_use]
    pub fn prompts(self) -> bool {
        !matches!(self, Self::Random | Self::UniformRandom)
    }
}

/// One expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Expert {
    /// Where its MLP weights come from.
    pub model: ModelRef,
    /// Prompts that should be routed to it.
    pub positive: Vec<String>,
    /// Prompts that should not.
    pub negative: Vec<String>,
    /// Standard deviation of the Gaussian noise added to its weights.
    pub noise_scale: Option<f32>,
    /// Factor on its down projection, after the noise.
    pub residual_scale: Option<f32>,
}

/// A mergekit-moe file.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeRecipe {
    /// Attention, norms, embeddings, tokenizer.
    pub base: ModelRef,
    /// Routed experts.
    pub experts: Vec<Expert>,
    /// Experts that see every token.
    pub shared: Vec<Expert>,
    /// Router rows.
    pub gate_mode: GateMode,
    /// Type of the written tensors; the base's if `None`.
    pub dtype: Option<DType>,
    /// Experts per token.
    pub experts_per_token: usize,
    /// Output architecture; chosen from the inputs if `None`.
    pub architecture: Option<Architecture>,
    /// The file's text, kept in the output.
    pub text: String,
    /// Things to tell the user.
    pub warnings: Vec<String>,
}

const TOP: &[&str] = &[
    "base_model",
    "experts",
    "shared_experts",
    "gate_mode",
    "dtype",
    "experts_per_token",
    "architecture",
];
const EXPERT: &[&str] = &[
    "source_model",
    "positive_prompts",
    "negative_prompts",
    "noise_scale",
    "residual_scale",
];

impl MoeRecipe {
    /// Parses a mergekit-moe file. `place` names it in messages.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        match crate::recipe::yaml::documents(text, place)?.as_slice() {
            [value] => Self::read(value, text).map_err(|e| e.at(place)),
            _ => Err(wrong("expected one document").at(place)),
        }
    }

    fn read(value: &Value, text: &str) -> Result<Self> {
        let top = value
            .as_object()
            .ok_or_else(|| wrong("expected keys such as `base_model` and `experts`"))?;
        let mut warnings = Vec::new();
        unknown(top, TOP, "", &mut warnings);
        let base = reference(top.get("base_model"), "base_model")?;
        let list = |key: &str, warnings: &mut Vec<String>| -> Result<Vec<Expert>> {
            match top.get(key) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Array(list)) => list
                    .iter()
                    .enumerate()
                    .map(|(i, e)| expert(e, &format!("{key}[{i}]"), warnings))
                    .collect(),
                Some(_) => Err(wrong(format!("`{key}` is not a list"))),
            }
        };
        let experts = list("experts", &mut warnings)?;
        let shared = list("shared_experts", &mut warnings)?;
        let mode = match top.get("gate_mode") {
            None | Some(Value::Null) => "hidden",
            Some(v) => v.as_str().unwrap_or_default(),
        };
        let known = GateMode::ALL.into_iter().find(|m| m.word() == mode);
        let gate_mode = known.ok_or_else(|| {
            let known: Vec<&str> = GateMode::ALL.iter().map(|m| m.word()).collect();
            wrong(format!("unknown gate_mode `{mode}`"))
                .hint(format!("known: {}", known.join(", ")))
        })?;
        let dtype = match top.get("dtype") {
            None | Some(Value::Null) => None,
            Some(v) => Some(
                v.as_str()
                    .and_then(DType::from_word)
                    .filter(|d| d.is_float() && !d.is_block())
                    .ok_or_else(|| wrong(format!("`dtype: {v}` is not a floating-point type")))?,
            ),
        };
        let experts_per_token = match top.get("experts_per_token") {
            None | Some(Value::Null) => 2,
            Some(v) => v
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n >= 1)
                .ok_or_else(|| wrong("`experts_per_token` is not a whole number of at least 1"))?,
        };
        let architecture = match top.get("architecture") {
            None | Some(Value::Null) => None,
            Some(v) => Some(Architecture::parse(v.as_str().unwrap_or_default())?),
        };
        let recipe = Self {
            base,
            experts,
            shared,
            gate_mode,
            dtype,
            experts_per_token,
            architecture,
            text: text.to_owned(),
            warnings,
        };
        recipe.check()
    }

    fn check(mut self) -> Result<Self> {
        if self.experts.len() < self.experts_per_token {
            return Err(wrong(format!(
                "{} experts are too few for {} experts per token",
                self.experts.len(),
                self.experts_per_token
            ))
            .hint("lower `experts_per_token` or list more experts"));
        }
        if self.gate_mode.prompts() {
            if let Some(i) = self.experts.iter().position(|e| e.positive.is_empty()) {
                return Err(wrong(format!("experts[{i}] has no `positive_prompts`"))
                    .hint("give every expert a prompt that it should answer"));
            }
            let prompts = |e: &Expert| (e.positive.clone(), e.negative.clone());
            let first = prompts(&self.experts[0]);
            if self.experts.len() > 1 && self.experts.iter().all(|e| prompts(e) == first) {
                return Err(wrong(
                    "all experts have the same prompts, so the router could not tell them apart",
                ));
            }
        }
        let first = &self.experts[0].model;
        if self.experts.len() > 1 && self.experts.iter().all(|e| e.model == *first) {
            self.warnings.push(
                "all experts are the same model: until it is trained the result answers as that model does".into(),
            );
        }
        if !self.experts.len().is_power_of_two() {
            self.warnings.push(format!(
                "{} experts are not a power of two, which llama.cpp wants",
                self.experts.len()
            ));
        }
        Ok(self)
    }
}

fn expert(value: &Value, place: &str, warnings: &mut Vec<String>) -> Result<Expert> {
    let map = value
        .as_object()
        .ok_or_else(|| wrong(format!("`{place}` is not a map with `source_model`")))?;
    unknown(map, EXPERT, place, warnings);
    let prompts = |key: &str| -> Result<Vec<String>> {
        match map.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .map(|v| {
                    v.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| wrong(format!("an entry of `{place}.{key}` is not text")))
                })
                .collect(),
            Some(_) => Err(wrong(format!("`{place}.{key}` is not a list of texts"))),
        }
    };
    let number = |key: &str| -> Result<Option<f32>> {
        match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v
                .as_f64()
                .or_else(|| v.as_str()?.parse().ok())
                .filter(|x| x.is_finite())
                .map(|x| Some(x as f32))
                .ok_or_else(|| wrong(format!("`{place}.{key}` is not a number"))),
        }
    };
    Ok(Expert {
        model: reference(map.get("source_model"), &format!("{place}.source_model"))?,
        positive: prompts("positive_prompts")?,
        negative: prompts("negative_prompts")?,
        noise_scale: number("noise_scale")?,
        residual_scale: number("residual_scale")?,
    })
}

fn reference(value: Option<&Value>, place: &str) -> Result<ModelRef> {
    match value {
        Some(Value::String(text)) => ModelRef::parse(text).map_err(wrong),
        Some(Value::Object(map)) => {
            let side = |key: &str| {
                map.get(key).and_then(|v| match v {
                    Value::String(path) => Some((path.clone(), None)),
                    _ => Some((
                        v.get("path")?.as_str()?.to_owned(),
                        v.get("revision").and_then(Value::as_str).map(str::to_owned),
                    )),
                })
            };
            let (path, revision) = side("model")
                .ok_or_else(|| wrong(format!("`{place}` has no `model: {{path: ...}}`")))?;
            Ok(ModelRef {
                path,
                revision,
                adapter: side("lora"),
            })
        }
        _ => Err(wrong(format!("`{place}` is missing"))),
    }
}

fn unknown(map: &Map<String, Value>, known: &[&str], place: &str, warnings: &mut Vec<String>) {
    for key in map.keys().filter(|k| !known.contains(&k.as_str())) {
        let near = suggest::nearest(key, known, 1);
        let dot = if place.is_empty() { "" } else { "." };
        let mean = near
            .first()
            .map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        warnings.push(format!("unknown key `{place}{dot}{key}` is ignored{mean}"));
    }
}

fn wrong(message: impl Into<String>) -> MergeError {
    MergeError::plan("moe-file", message)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
