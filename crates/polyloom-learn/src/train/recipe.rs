//! What a recipe says of training: `[train]` of a `loom.toml`.
//!
//! Names that users of `transformers` and PEFT type (`learning_rate`, `lora_alpha`, ...) mean the same here.

mod read;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::chain::ChainRecipe;
use super::curvature::SophiaRecipe;
use super::fuse::Fuse;
use super::mixing::{Mixing, Moments};
use super::mpts::MptsRecipe;
use super::optimiser::Tables;
use super::pseudo::Pseudo;
use super::reconstruct::ReconstructRecipe;
use super::representation::Representation;
use super::rowwise::{Loss, Reweight};
use super::schedule::Shape;
use super::slim::SlimRecipe;
use super::stages::StageRecipe;
use super::weigh::ClassWeight;
use crate::tasks::Feature;
use crate::tasks::language::Learn;

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every weight of the trunk that the task uses, and the head.
    #[default]
    Full,
    /// The head alone.
    Head,
    /// Low-rank parts beside linear layers, and the head.
    Lora,
}

/// What tasks are learned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Heads; retrieval, which has none, by vectors.
    #[default]
    Heads,
    /// The vectors of texts, for similarity too: see [`super::contrast`].
    Contrastive,
    /// Patches of pictures that were masked: see [`super::reconstruct`].
    Reconstruct,
}

/// What a head begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Small random weights.
    #[default]
    Random,
    /// Zeros.
    Zero,
    /// A regression on the features of the base: logistic for classes, ridge for numbers.
    Probe,
    /// The head of a folder of heads.
    #[serde(untagged)]
    From(PathBuf),
}

/// `[train.head]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadRecipe {
    /// What it begins with.
    pub start: Start,
    /// It stays as it began: with `start = "probe"` the protocol of the merging literature.
    pub frozen: bool,
    /// What it sees; the model's usual feature where nothing is said.
    pub feature: Option<Feature>,
    /// Width of a layer between the feature and the answer; none where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
}

/// `[train.lora]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraRecipe {
    /// Rank.
    #[serde(alias = "r")]
    pub rank: usize,
    /// The parts count `alpha / rank`; twice the rank where nothing is said.
    #[serde(alias = "lora_alpha")]
    pub alpha: Option<f64>,
    /// Dropout of the parts' input.
    #[serde(alias = "lora_dropout")]
    pub dropout: f64,
    /// The last words of module names; empty for all linear layers of the trunk.
    #[serde(alias = "target_modules")]
    pub targets: Vec<String>,
    /// The parts count `alpha / √rank`.
    #[serde(alias = "use_rslora")]
    pub rslora: bool,
    /// Weights are taken apart into length and direction.
    #[serde(alias = "use_dora")]
    pub dora: bool,
}

impl Default for LoraRecipe {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: None,
            dropout: 0.0,
            targets: Vec::new(),
            rslora: false,
            dora: false,
        }
    }
}

/// `[train.language]`: a decoder learns texts or answers, token by token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Language {
    /// What is learned of a row.
    pub learn: Learn,
    /// Texts stand one after the other in blocks of `max_length`; each is a row of its own otherwise. Where nothing is
    /// said, texts are packed; answers never are.
    pub pack: Option<bool>,
    /// Of answers: id of the prompt among those of every task, in place of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// How often tasks are drawn in joint training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// By number of rows.
    #[default]
    Proportional,
    /// All alike.
    Uniform,
    /// By `n^(1/temperature)`.
    Temperature,
    /// By the root of the number of rows.
    SquareRoot,
    /// Those of the largest predicted risk: [`super::mpts`].
    Mpts,
}

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserName {
    /// AdamW.
    #[default]
    Adamw,
    /// Adam, with the decay in the gradient.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Sophia with the curvature of drawn labels: [`super::curvature`].
    SophiaG,
    /// Sophia with the curvature of Hutchinson's products.
    SophiaH,
}

impl OptimiserName {
    /// Whether it looks at curvature.
    #[must_use]
    pub fn is_sophia(self) -> bool {
        matches!(self, Self::SophiaG | Self::SophiaH)
    }
}

/// Which weights a run gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those of the best evaluation; the last where nothing was evaluated.
    #[default]
    Best,
    /// Those of the last step.
    Last,
}

/// `[train.balance]`: a method of [`crate::balance`] with its parameters.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct BalanceRecipe {
    /// Registry name.
    pub method: String,
    /// By what goals' gradients are taken.
    #[serde(default)]
    pub gradients: By,
    /// Steps between lines of diagnostics in the log; 0 for none.
    #[serde(default = "hundred")]
    pub report_every: u32,
    /// Parameters of the method.
    #[serde(flatten)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// `[train.add]`: the tasks become goals of a model whose goals have gates or memories of their own; what is there stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddRecipe {
    /// Experts of its own that a goal gets in every layer that has experts.
    pub experts: usize,
}

/// By what the gradients that are balanced are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The parameters that goals share.
    #[default]
    Parameters,
    /// The features that their heads share, summed over the rows.
    Features,
}

fn hundred() -> u32 {
    100
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Task ids or spec files.
    pub tasks: Vec<String>,
    /// One expert per task, instead of one model for all.
    pub each: bool,
    /// What changes.
    pub method: Method,
    /// What tasks are learned by.
    pub objective: Objective,
    /// Divides cosines in the losses of vectors.
    pub similarity_temperature: f64,
    /// Numbers of `objective = "reconstruct"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstruct: Option<ReconstructRecipe>,
    /// A model made from nothing, in place of a base: what its `config.json` says.
    pub new: Option<toml::Table>,
    /// Experts that a base gets in place of feed-forward parts, of which each begins as a copy ([`crate::tasks::Opened::begin`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moe: Option<toml::Table>,
    /// Stems by sensor that a base gets beside its own ([`crate::tasks::sensors`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stems: Option<toml::Table>,
    /// Several widths learned at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slim: Option<SlimRecipe>,
    /// Goals added to a model that has learned others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<AddRecipe>,
    /// Times that every row is seen; 3 where neither this nor `steps` is given.
    #[serde(alias = "num_train_epochs")]
    pub epochs: Option<f64>,
    /// Steps of the optimiser.
    #[serde(alias = "max_steps")]
    pub steps: Option<u32>,
    /// Rows of a pass.
    #[serde(alias = "batch_size", alias = "per_device_train_batch_size")]
    pub batch: usize,
    /// Passes of a step.
    #[serde(alias = "gradient_accumulation_steps")]
    pub accumulate: u32,
    /// Highest learning rate; 5e-5 for all weights, 5e-4 for low-rank parts, 1e-3 for a head, 1e-3 from nothing.
    #[serde(alias = "learning_rate", alias = "lr")]
    pub rate: Option<f64>,
    /// Weight decay, of matrices alone; 0.1 for Sophia-G, 0.01 for others where nothing is said.
    #[serde(alias = "weight_decay")]
    pub decay: Option<f64>,
    /// Optimiser.
    #[serde(alias = "optimizer", alias = "optim")]
    pub optimiser: OptimiserName,
    /// Decay of the moments of Adam, of momentum and curvature of Sophia; the optimiser's own where nothing is said.
    pub betas: Option<[f64; 2]>,
    /// Added to the root of Adam's second moment.
    #[serde(alias = "adam_epsilon")]
    pub eps: f64,
    /// How tables of embeddings move: every row at every step, or those of the batch alone.
    pub embedding_update: Tables,
    /// Momentum of stochastic gradient descent.
    pub momentum: f64,
    /// Numbers of Sophia.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sophia: Option<SophiaRecipe>,
    /// Course of the learning rate.
    #[serde(alias = "lr_scheduler_type")]
    pub schedule: Shape,
    /// Warm-up: steps, or below 1 a share of them.
    #[serde(alias = "warmup_ratio", alias = "warmup_steps")]
    pub warmup: f64,
    /// Longest gradient; 0 for any.
    #[serde(alias = "max_grad_norm")]
    pub clip: f64,
    /// Share of the probability that is spread over all classes.
    #[serde(alias = "label_smoothing_factor")]
    pub smoothing: f64,
    /// What the rows of a class count in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weight: Option<ClassWeight>,
    /// How tasks make a step.
    pub mixing: Mixing,
    /// Whose moments Adam keeps where a step is of one task; each task's with `mixing = "unmixed"` where nothing is said.
    pub moments: Option<Moments>,
    /// How losses of tokens, rows and tasks become one.
    pub loss: Loss,
    /// Power of the focal factor.
    pub focal_gamma: f64,
    /// Rows weighed by their losses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reweight: Option<Reweight>,
    /// What goals do to the representation that their heads share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub representation: Option<Representation>,
    /// How often tasks are drawn in joint training.
    pub sampling: Sampling,
    /// Numbers of `sampling = "mpts"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mpts: Option<MptsRecipe>,
    /// For `sampling = "temperature"`.
    pub temperature: f64,
    /// Rows of a task that count at most for how often it is drawn.
    pub cap: Option<u64>,
    /// Rows of each task at most.
    pub limit: Option<usize>,
    /// Rows of each task in an evaluation at most.
    pub validation_limit: Option<usize>,
    /// Split that is learned from.
    pub split: String,
    /// Split that is looked at; empty for none.
    pub validation: String,
    /// Folds of a cross-validation beside the model ([`crate::folds`]); none where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<u32>,
    /// Times that folds are drawn; 1 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u32>,
    /// Splits whose rows are put into folds; [`Self::split`], [`Self::validation`] and "test" where none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fold_splits: Vec<String>,
    /// Steps between evaluations; an epoch where nothing is said, 0 for none but the last.
    #[serde(alias = "eval_steps")]
    pub evaluate_every: Option<u32>,
    /// Evaluations without a better one before the run ends; 0 for all steps.
    #[serde(alias = "early_stopping_patience")]
    pub patience: u32,
    /// Which weights are given.
    pub keep: Keep,
    /// Steps between checkpoints; as evaluations where nothing is said, 0 for none.
    #[serde(alias = "save_steps")]
    pub save_every: Option<u32>,
    /// Tokens of a text at most.
    #[serde(alias = "max_seq_length")]
    pub max_length: Option<usize>,
    /// Strength of small random turns, stretches and shifts of pictures; 0 for none, 1 is usual.
    pub augment: f64,
    /// Type of the weights on disk; that of the base where nothing is said.
    pub dtype: Option<String>,
    /// Beginnings of names of trunk weights that stay.
    pub freeze: Vec<String>,
    /// Heads.
    pub head: HeadRecipe,
    /// Low-rank parts.
    pub lora: LoraRecipe,
    /// Language, in place of heads.
    pub language: Option<Language>,
    /// Models whose answers are learned.
    pub fuse: Option<Fuse>,
    /// Labels of other models for rows that lack them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pseudo: Option<Pseudo>,
    /// Stages, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<StageRecipe>,
    /// How targets in a chain are learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainRecipe>,
    /// How the losses or gradients of several tasks are balanced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceRecipe>,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            tasks: Vec::new(),
            each: false,
            method: Method::default(),
            objective: Objective::default(),
            similarity_temperature: 0.05,
            reconstruct: None,
            new: None,
            moe: None,
            stems: None,
            slim: None,
            add: None,
            epochs: None,
            steps: None,
            batch: 32,
            accumulate: 1,
            rate: None,
            decay: None,
            optimiser: OptimiserName::default(),
            betas: None,
            eps: 1e-8,
            embedding_update: Tables::default(),
            momentum: 0.9,
            sophia: None,
            schedule: Shape::Linear,
            warmup: 0.1,
            clip: 1.0,
            smoothing: 0.0,
            class_weight: None,
            mixing: Mixing::default(),
            moments: None,
            loss: Loss::default(),
            focal_gamma: 2.0,
            reweight: None,
            representation: None,
            sampling: Sampling::default(),
            mpts: None,
            temperature: 2.0,
            cap: None,
            limit: None,
            validation_limit: None,
            split: "train".into(),
            validation: "validation".into(),
            folds: None,
            repeats: None,
            fold_splits: Vec::new(),
            evaluate_every: None,
            patience: 0,
            keep: Keep::default(),
            save_every: None,
            max_length: None,
            augment: 0.0,
            dtype: None,
            freeze: Vec::new(),
            head: HeadRecipe::default(),
            lora: LoraRecipe::default(),
            language: None,
            fuse: None,
            pseudo: None,
            stage: Vec::new(),
            chain: None,
            balance: None,
        }
    }
}

/// A run of training as a recipe, flags or a program ask for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Recipe {
    /// Title.
    pub name: Option<String>,
    /// Seed of heads, order of rows, dropout, pictures.
    pub seed: u64,
    /// The base, as typed; none for a model made from nothing.
    pub base: Option<String>,
    /// The rest.
    pub train: Train,
}
