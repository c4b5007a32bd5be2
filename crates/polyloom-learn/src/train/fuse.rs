//! Probability-level fusion (FuseLLM, Wan et al. 2024): a model learns what others say of its rows, whatever their size or
//! family. [`classes`] for classifiers, [`tokens`] for decoders, whose vocabularies may differ.
//!
//! Of every row (a sequence of tokens for decoders) the sources' probabilities are made one: those of the source that
//! finds what is right likeliest ("min_ce"), or their mean with weights `softmax(-cross-entropy)` ("avg_ce"). The loss is
//! `lambda CE(gold) + (1 - lambda) KL(fused || model)`, the KL between distributions softened by the temperature. Where
//! labels are not looked at, a source's cross-entropy is the entropy of what it says.

mod align;
pub mod classes;
mod shelf;
pub mod tokens;

use std::path::PathBuf;

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::run::Job;
use crate::engine::Value;
use crate::error::Result;
use crate::ops;
use crate::tasks::Head;

/// How the sources' probabilities of a row are made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Those of the source with the lowest cross-entropy; the first of equals.
    #[default]
    MinCe,
    /// The mean, weighted by the softmax of the negative cross-entropies.
    AvgCe,
}

/// `[train.fuse]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fuse {
    /// Models with heads for the tasks, of language decoders: folders, `MODEL+ADAPTER`, folders of heads.
    pub sources: Vec<String>,
    /// Folder of heads for all of them; each source's own where none is named.
    pub heads: Option<PathBuf>,
    /// How they are made one.
    pub rule: Rule,
    /// Share of the loss on the labels; 0.5 of classes, 0.9 of tokens where nothing is said.
    pub lambda: Option<f64>,
    /// What both sides' scores are divided by; 2 for classes, 1 for tokens where nothing is said.
    pub temperature: Option<f64>,
    /// Whether labels are looked at, here and in the rule.
    pub labels: bool,
}

impl Default for Fuse {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            heads: None,
            rule: Rule::default(),
            lambda: None,
            temperature: None,
            labels: true,
        }
    }
}

impl Rule {
    /// How much each source counts, by its cross-entropy; the sum is 1. A source that says nothing has an infinite one.
    fn weights(self, costs: &[f64]) -> Vec<f64> {
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let first = costs.iter().position(|c| *c == least);
        let raw: Vec<f64> = match self {
            Self::AvgCe if least.is_finite() => costs.iter().map(|c| (least - c).exp()).collect(),
            _ => (0..costs.len())
                .map(|k| f64::from(u8::from(Some(k) == first)))
                .collect(),
        };
        let total: f64 = raw.iter().sum();
        raw.iter().map(|w| w / total).collect()
    }
}

impl Fuse {
    /// Share of the loss on what is right, and temperature; of tokens for `language`.
    #[must_use]
    pub fn numbers(&self, language: bool) -> [f64; 2] {
        let usual = if language { [0.9, 1.0] } else { [0.5, 2.0] };
        [
            self.lambda.unwrap_or(usual[0]),
            self.temperature.unwrap_or(usual[1]),
        ]
    }

    /// Whether the values can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self, language: bool) -> std::result::Result<(), MergeError> {
        let bad = |what: &str| Err(MergeError::plan("bad-recipe", what));
        let [lambda, temperature] = self.numbers(language);
        if !(0.0..=1.0).contains(&lambda) {
            return bad("`train.fuse.lambda` must be in 0 to 1");
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return bad("`train.fuse.temperature` must be above 0");
        }
        if language && self.heads.is_some() {
            return bad("`train.fuse.heads` are of classes; `train.language` has none");
        }
        if !self.labels && lambda > 0.0 {
            return Err(MergeError::plan(
                "bad-recipe",
                "`train.fuse.labels = false` and a `lambda` above 0, which is the share of the loss on labels",
            )
            .hint("lambda = 0"));
        }
        Ok(())
    }
}

/// `lambda hard + (1 - lambda) KL(targets || said)`, the mean over rows; scores are divided by the temperature, `targets`
/// are probabilities that were softened by it.
fn blend(
    lambda: f64,
    temperature: f64,
    hard: Option<Value>,
    said: &Value,
    targets: &[f32],
) -> Result<Value> {
    // KL is the cross-entropy less the entropy of the targets, which has no gradient but belongs to the number.
    let entropy: f64 = targets
        .iter()
        .filter(|q| **q > 0.0)
        .map(|q| -f64::from(*q) * f64::from(*q).ln())
        .sum();
    let rows = said.dims().first().copied().unwrap_or(1).max(1);
    let scores = ops::scale(said, (1.0 / temperature) as f32)?;
    let soft = ops::soft_cross_entropy(&scores, targets)?;
    let known = (entropy / rows as f64) as f32;
    let known = Value::constant(crate::engine::tensor(vec![known], ())?);
    let soft = ops::scale(&ops::sub(&soft, &known)?, (1.0 - lambda) as f32)?;
    match hard.filter(|_| lambda > 0.0) {
        Some(hard) => ops::add(&soft, &ops::scale(&hard, lambda as f32)?),
        None => Ok(soft),
    }
}

/// Asks all sources for the training rows of all tasks.
///
/// # Errors
/// As [`classes::ask`] and [`tokens::ask`].
pub(super) fn ask(job: &Job<'_>, tasks: &mut [Learned<'_>], heads: &[Head]) -> Result<()> {
    let (recipe, model) = (job.recipe, job.model);
    match (&recipe.train.fuse, &recipe.train.language) {
        (None, _) => Ok(()),
        (Some(_), None) => classes::ask(recipe, tasks, heads),
        (Some(fuse), Some(_)) => tokens::ask(fuse, model, tasks, job.work),
    }
}
