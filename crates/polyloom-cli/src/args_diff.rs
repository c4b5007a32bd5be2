//! What can be typed after `polyloom diff`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What the last table lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Per {
    /// Every tensor.
    Tensor,
    /// Every layer.
    Layer,
    /// Nothing below the model.
    Model,
}

/// `polyloom diff`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom diff --base models/bert-base experts/*
  polyloom diff adapters/*                          (PEFT folders need no base)
  polyloom diff --base B experts/* --spectral --html diff.html
  polyloom diff --base B adapters/a experts/b       (adapters are folded in on reading)")]
pub struct DiffArgs {
    /// Experts (`path`, `path+adapter`), or PEFT folders
    #[arg(value_name = "EXPERT", required = true)]
    pub experts: Vec<String>,
    /// The model they were tuned from; not needed for adapters alone
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Write one HTML page with heat maps
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace an existing HTML file
    #[arg(long)]
    pub force: bool,
    /// What the last table lists (JSON always holds all)
    #[arg(long, value_name = "WHAT", default_value = "layer")]
    pub per: Per,
    /// Share of the entries of a tensor, by magnitude, that the overlap compares, in (0, 1]
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub top_k: f64,
    /// Decompose every matrix: effective rank, intruder dimensions (slow for large models; on for adapters without a
    /// base, where the factors suffice)
    #[arg(long, overrides_with = "no_spectral")]
    pub spectral: bool,
    /// Decompose nothing
    #[arg(long, overrides_with = "spectral")]
    pub no_spectral: bool,
    /// Intruder dimensions: number of leading left vectors that are looked at
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub intruder_k: usize,
    /// Intruder dimensions: largest cosine with a vector of the base that still counts as new
    #[arg(long, value_name = "COSINE", default_value_t = 0.5)]
    pub epsilon: f64,
    /// Only tensors (modules) whose name matches this pattern
    #[arg(long, value_name = "REGEX")]
    pub include: Option<String>,
    /// No tensors (modules) whose name matches this pattern
    #[arg(long, value_name = "REGEX")]
    pub exclude: Option<String>,
    /// Hugging Face cache folder
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}
