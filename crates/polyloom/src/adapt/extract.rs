//! A LoRA adapter out of a fine-tuned model: truncated SVDs of the weight differences, in the manner of
//! `mergekit-extract-lora` and PEFT's `tuners/lora/conversion.py`.

use std::collections::{BTreeMap, BTreeSet};

use polyloom_core::linalg::{Matrix, Svd};
use polyloom_core::peft::matching::is_saved_module;
use polyloom_core::peft::{AdapterTensor, LayerKind, Names, PREFIX};
use polyloom_core::{Checkpoint, DType, StoredTensor};
use rayon::prelude::*;
use regex::Regex;
use serde_json::json;

use super::set::{AdapterSet, ModuleReport, Pair};
use super::truncate::truncated_svd;
use crate::error::{MergeError, Result};

/// Where the singular values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// `B = U sqrt(S)`, `A = sqrt(S) V^T` (mergekit's `distribute_scale`).
    #[default]
    Balanced,
    /// `B = U`, `A = S V^T` (mergekit without it).
    OnA,
    /// `B = U S`, `A = V^T` (PEFT's conversion).
    OnB,
}

impl Split {
    /// The factors of the first `k` triplets.
    pub fn factors(self, d: &Svd, k: usize, kind: LayerKind) -> Pair {
        let power = |on: bool| -> Vec<f64> {
            d.s.iter()
                .take(k)
                .map(|s| match (self, on) {
                    (Self::Balanced, _) => s.sqrt(),
                    (_, true) => *s,
                    (_, false) => 1.0,
                })
                .collect()
        };
        Pair {
            b: d.u
                .first_columns(k)
                .scale_columns(&power(self == Self::OnB)),
            a: d.vt.first_rows(k).scale_rows(&power(self == Self::OnA)),
            kind,
        }
    }
}

/// Settings of [`extract`].
#[derive(Debug, Clone)]
pub struct ExtractOptions {
    /// Largest rank of a module.
    pub rank: usize,
    /// Keep the smallest rank that holds this share of the squared singular values, in (0, 1].
    pub energy: Option<f64>,
    /// Drop singular values not above this; 0 keeps all.
    pub sv_epsilon: f64,
    /// Where the singular values go.
    pub split: Split,
    /// Only modules whose name matches somewhere (embeddings and heads are not asked).
    pub include: Option<String>,
    /// No modules whose name matches somewhere.
    pub exclude: Option<String>,
    /// Decompose embeddings and output heads too instead of saving them whole.
    pub embed_lora: bool,
    /// Leave out modules that have no matrix (norms) instead of saving them whole.
    pub skip_undecomposable: bool,
    /// Modules to save whole, by PEFT's rule on names.
    pub modules_to_save: Vec<String>,
    /// Linear weights are stored `[in, out]`; GPT-2 (by `model_type`) if unset.
    pub fan_in_fan_out: Option<bool>,
    /// Type on disk; the fine-tuned model's own per module if unset.
    pub dtype: Option<DType>,
    /// `base_model_name_or_path` of the result.
    pub base_name: Option<String>,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            rank: 128,
            energy: None,
            sv_epsilon: 0.0,
            split: Split::Balanced,
            include: None,
            exclude: None,
            embed_lora: false,
            skip_undecomposable: false,
            modules_to_save: Vec::new(),
            fan_in_fan_out: None,
            dtype: None,
            base_name: None,
        }
    }
}

/// Last names of token embeddings in the families we know.
const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "wte",
    "wpe",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "tok_embeddings",
    "embed_in",
    "shared",
];
/// Last names of output heads; PEFT saves the last two of a classifier by itself.
const HEADS: &[&str] = &["lm_head", "embed_out", "classifier", "score"];

fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

fn pattern(key: &str, text: Option<&String>) -> Result<Option<Regex>> {
    text.map(|t| {
        Regex::new(t).map_err(|e| {
            let line = e.to_string();
            let line = line.lines().last().unwrap_or_default().to_owned();
            MergeError::plan("bad-parameter", format!("{key} pattern `{t}`: {line}"))
        })
    })
    .transpose()
}

/// One module of the fine-tuned model.
struct Found<'a> {
    name: &'a str,
    tensors: Vec<&'a StoredTensor>,
    kind: Option<LayerKind>,
}

/// Extracts a LoRA adapter from `tuned` against `base`. Rank of a module:
/// `min(rank, count(s > sv_epsilon), energy rank)`; r = alpha = the largest rank met, smaller modules go to the
/// patterns. Biases are stored only with whole modules.
///
/// Difference to mergekit: a module without any singular value above `sv_epsilon` gets one rank of zeros (mergekit
/// writes rank 0, which PEFT refuses to load).
pub fn extract(
    base: &Checkpoint,
    tuned: &Checkpoint,
    options: &ExtractOptions,
) -> Result<AdapterSet> {
    check(options)?;
    let include = pattern("include", options.include.as_ref())?;
    let exclude = pattern("exclude", options.exclude.as_ref())?;
    let model_type = tuned.config().and_then(|c| c["model_type"].as_str());
    let flipped = options.fan_in_fan_out.unwrap_or(model_type == Some("gpt2"));
    let mut modules: BTreeMap<&str, Vec<&StoredTensor>> = BTreeMap::new();
    let mut warnings = Vec::new();
    for tensor in tuned.tensors().values() {
        match tensor.name.rsplit_once('.') {
            Some((module, "weight" | "bias")) if tensor.dtype.is_float() => {
                modules.entry(module).or_default().push(tensor);
            }
            _ => warnings.push(format!(
                "tensor `{}` is no weight or bias of a module and is left out",
                tensor.name
            )),
        }
    }
    let (mut low, mut whole, mut matrices) = (Vec::new(), Vec::new(), Vec::new());
    for (&name, tensors) in &modules {
        let weight = tensors.iter().find(|t| t.name.ends_with(".weight"));
        let embedding = EMBEDDINGS.contains(&last(name));
        let kind = weight.and_then(|w| match w.shape.len() {
            2 if embedding => Some(LayerKind::Embedding),
            2 => Some(LayerKind::Linear),
            3..=5 => Some(LayerKind::Conv(w.shape[1..].to_vec())),
            _ => None,
        });
        if kind.is_some() {
            matrices.push(name);
        }
        let mut found = Found {
            name,
            tensors: tensors.clone(),
            kind,
        };
        let listed = options
            .modules_to_save
            .iter()
            .any(|s| is_saved_module(name, s));
        if !listed && exclude.as_ref().is_some_and(|r| r.is_match(name)) {
            continue;
        }
        let special = embedding || HEADS.contains(&last(name));
        if listed || (special && !options.embed_lora) {
            whole.push(found);
            continue;
        }
        if !special && include.as_ref().is_some_and(|r| !r.is_match(name)) {
            continue;
        }
        let other = weight.and_then(|w| base.get(&w.name));
        let same_shape = other.is_some_and(|o| weight.is_some_and(|w| w.shape == o.shape));
        if found.kind.is_some() && !same_shape {
            warnings.push(format!(
                "module `{name}` has another shape in the base or is not in it; it is saved whole"
            ));
            found.kind = None;
            whole.push(found);
        } else if found.kind.is_some() {
            low.push(found);
        } else if !options.skip_undecomposable {
            whole.push(found);
        }
    }
    let biases = changed_biases(base, tuned, &low)?;
    if biases > 0 {
        warnings.push(format!(
            "{biases} bias(es) of decomposed modules differ from the base; an adapter without whole modules cannot hold them"
        ));
    }
    let done: Vec<(String, Pair, DType, ModuleReport)> = low
        .par_iter()
        .map(|f| one(base, tuned, f, flipped, options))
        .collect::<Result<_>>()?;
    let r = done.iter().map(|(_, p, _, _)| p.rank()).max().unwrap_or(1);
    let targets = short_names(low.iter().map(|f| f.name).collect(), &matrices);
    let report = done.iter().map(|d| d.3.clone()).collect();
    let factors = done.into_iter().map(|(n, p, d, _)| (n, p, d)).collect();
    let mut kept = serde_json::Map::new();
    kept.insert("fan_in_fan_out".into(), json!(flipped));
    if let Some(name) = &options.base_name {
        kept.insert("base_model_name_or_path".into(), json!(name));
    }
    if let Some(task) = task_type(tuned) {
        kept.insert("task_type".into(), json!(task));
    }
    let mut set = AdapterSet::unscaled(&kept, &Names::List(targets), r, factors);
    for f in &whole {
        for tensor in &f.tensors {
            set.whole.push(AdapterTensor {
                name: format!("{PREFIX}{}", tensor.name),
                dtype: options.dtype.unwrap_or(tensor.dtype),
                shape: tensor.shape.clone(),
                values: tuned.read_all(tensor)?,
            });
        }
    }
    let all: Vec<&str> = modules.keys().copied().collect();
    let save = short_names(whole.iter().map(|f| f.name).collect(), &all);
    if !save.is_empty() {
        set.config.insert("modules_to_save".into(), json!(save));
    }
    set.report = report;
    set.warnings = warnings;
    Ok(set)
}

fn check(options: &ExtractOptions) -> Result<()> {
    let bad = |m: String| Err(MergeError::plan("bad-parameter", m));
    if options.rank == 0 {
        return bad("rank 0 leaves nothing of the model".into());
    }
    if !(options.sv_epsilon.is_finite() && options.sv_epsilon >= 0.0) {
        return bad(format!(
            "sv_epsilon {} is not a number from 0 on",
            options.sv_epsilon
        ));
    }
    match options.energy {
        Some(e) if !(e > 0.0 && e <= 1.0) => bad(format!("energy {e} is outside 0 to 1")),
        _ => Ok(()),
    }
}

fn one(
    base: &Checkpoint,
    tuned: &Checkpoint,
    found: &Found<'_>,
    flipped: bool,
    options: &ExtractOptions,
) -> Result<(String, Pair, DType, ModuleReport)> {
    let missing = || MergeError::Internal(format!("module `{}` lost its weight", found.name));
    let weight = found
        .tensors
        .iter()
        .find(|t| t.name.ends_with(".weight"))
        .ok_or_else(missing)?;
    let other = base.get(&weight.name).ok_or_else(missing)?;
    let kind = found.kind.clone().ok_or_else(missing)?;
    let mut delta = Matrix::from_f32(weight.shape[0], weight.row_len(), &tuned.read_all(weight)?);
    let before = Matrix::from_f32(weight.shape[0], weight.row_len(), &base.read_all(other)?);
    delta.add(-1.0, &before);
    drop(before);
    if kind == LayerKind::Embedding || (flipped && kind == LayerKind::Linear) {
        delta = delta.transposed();
    }
    let norm = delta.norm();
    let d = truncated_svd(&delta, options.rank).map_err(|problem| {
        polyloom_core::Error::tensor(tuned.path_of(weight), &weight.name, problem)
    })?;
    let k = kept(&d.s, norm * norm, options);
    let sum: f64 = d.s[..k].iter().map(|s| s * s).sum();
    let lost = (norm * norm - sum).max(0.0).sqrt();
    let pair = options.split.factors(&d, k, kind).padded(1);
    let report = ModuleReport {
        module: found.name.to_owned(),
        rank: pair.rank(),
        relative_error: Some(if norm > 0.0 { lost / norm } else { 0.0 }),
    };
    let dtype = options.dtype.unwrap_or(weight.dtype);
    Ok((found.name.to_owned(), pair, dtype, report))
}

/// How many of the leading singular values are kept; `total` is the sum of all squares.
fn kept(values: &[f64], total: f64, options: &ExtractOptions) -> usize {
    let mut k = values.len().min(options.rank);
    if options.sv_epsilon > 0.0 {
        k = k.min(values.iter().filter(|&&s| s > options.sv_epsilon).count());
    }
    if let Some(share) = options.energy {
        let mut sum = 0.0;
        let enough = values.iter().position(|s| {
            sum += s * s;
            sum >= share * total
        });
        k = k.min(enough.map_or(values.len(), |i| i + 1));
    }
    k
}

fn changed_biases(base: &Checkpoint, tuned: &Checkpoint, low: &[Found<'_>]) -> Result<usize> {
    let mut changed = 0;
    for tensor in low.iter().flat_map(|f| &f.tensors) {
        if !tensor.name.ends_with(".bias") {
            continue;
        }
        let same = match base.get(&tensor.name) {
            Some(other) if other.shape == tensor.shape => {
                base.read_all(other)? == tuned.read_all(tensor)?
            }
            _ => false,
        };
        changed += usize::from(!same);
    }
    Ok(changed)
}

/// Last segments where they mean exactly the `chosen` among `all` modules, full names elsewhere; sorted.
fn short_names(chosen: Vec<&str>, all: &[&str]) -> Vec<String> {
    let set: BTreeSet<&str> = chosen.iter().copied().collect();
    let mut out = BTreeSet::new();
    for name in chosen {
        let short = last(name);
        let numeric = short.bytes().all(|b| b.is_ascii_digit());
        let exact = all
            .iter()
            .filter(|m| last(m) == short)
            .all(|m| set.contains(m));
        out.insert(if exact && !numeric { short } else { name }.to_owned());
    }
    out.into_iter().collect()
}

fn task_type(model: &Checkpoint) -> Option<&'static str> {
    let class = model.config()?["architectures"][0].as_str()?;
    [
        ("ForCausalLM", "CAUSAL_LM"),
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
        ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
        ("ForQuestionAnswering", "QUESTION_ANS"),
    ]
    .iter()
    .find(|(end, _)| class.ends_with(end))
    .map(|(_, word)| *word)
}
