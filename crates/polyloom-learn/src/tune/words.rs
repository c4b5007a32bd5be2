//! Words of `[tune]`.

use serde::{Deserialize, Serialize};

/// What is learned, and from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Coefficients that make a merged model sure of its answers on unlabelled rows.
    #[default]
    Adamerging,
    /// Coefficients that fit labelled rows.
    Atlas,
    /// A mask over all task vectors that makes the merged model sure of its answers; its coefficients stay or are learned
    /// after it.
    Concrete,
    /// A position between the task vectors of embedding models: `mu softmax(z)`, by a contrastive loss.
    #[serde(rename = "self_positioning", alias = "self-positioning")]
    SelfPositioning,
}

/// What a mask is learned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Coefficients that stay as they began.
    #[default]
    TaskArithmetic,
    /// Coefficients that move before every step of the mask, and are learned after it.
    Adamerging,
}

/// How many coefficients an expert has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One for every named tensor ("layer-wise" in the papers).
    #[default]
    #[serde(alias = "layer", alias = "layer_wise", alias = "layer-wise")]
    Tensor,
    /// One for the whole task vector.
    #[serde(alias = "model", alias = "task_wise", alias = "task-wise")]
    Task,
}

/// What a step makes smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Entropy of the answers in nats: needs no labels.
    Entropy,
    /// The same as a share of what it can be, ln(classes), so that tasks of many classes do not decide alone (ours).
    #[serde(rename = "entropy_share", alias = "entropy-share")]
    EntropyShare,
    /// As [`Self::EntropyShare`], less the entropy of the mean answer of a task's rows in the step: every row sure, and
    /// not all of them of the same class (mutual information: Krause et al. 2010; SHOT, Liang et al. 2020; the share of
    /// ln(classes) is ours). Needs no labels.
    Information,
    /// The loss of training: cross-entropy of classes, squares of numbers.
    Supervised,
    /// Cross-entropy of a changed picture on the class that the picture as it is surely gets: needs no labels (FixMatch,
    /// aTLAS at test time).
    Pseudo,
    /// The losses of the texts' vectors ([`crate::train::contrast`]), on labelled rows.
    Contrastive,
}
