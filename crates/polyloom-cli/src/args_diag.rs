//! What can be typed after `polyloom diag`.

use clap::{Args, Subcommand};

use crate::args_eval::at_least_one;
use crate::args_tasks::Places;

/// `polyloom diag`
#[derive(Debug, Args)]
pub struct DiagArgs {
    #[command(subcommand)]
    pub what: Diag,
}

/// What is asked of a model.
#[derive(Debug, Subcommand)]
pub enum Diag {
    /// Which columns each target's answer rests on: how much worse it is scored where a column is permuted among the rows
    Importance(ImportanceArgs),
    /// What gates use experts for: experts that collapsed, that one target took over, that nobody listens to
    Experts(ExpertsArgs),
}

/// `polyloom diag experts`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom diag experts people -t people.task.toml
  polyloom diag experts people -t people.task.toml --split validation --json

Anomalies are those of Wang et al. 2024 (HoME); where each begins is ours:
  collapsed    over 90 % of an expert's outputs are exactly 0 (ReLU)
  degraded     of a shared expert's weight one target gives over 80 %
  underfitted  a target gives its own experts under a fifth of what equal weights would
  unused       no gate gives an expert a tenth of an equal weight")]
pub struct ExpertsArgs {
    #[command(flatten)]
    pub on: OnArgs,
}

/// A model of tables, and the rows it is looked at with.
#[derive(Debug, Args)]
pub struct OnArgs {
    /// A model of tables: a folder with table.json
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Task id or spec file [default: the task of its heads]
    #[arg(short, long = "task", visible_alias = "tasks", value_name = "TASK")]
    pub task: Option<String>,
    /// Split whose rows are looked at
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,
    /// At most N rows, spread evenly over the split
    #[arg(short = 'L', long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Rows of a pass of the model
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom diag importance`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom diag importance people -t people.task.toml
  polyloom diag importance people -t people.task.toml --repeats 20 --split validation --json

Permutation importance (Breiman 2001; Fisher, Rudin, Dominici 2019): the drop of the target's own metric,
mean and standard deviation over permutations. It is of this model, not of the world: columns that say the
same share it, and each may seem to be worth little.")]
pub struct ImportanceArgs {
    #[command(flatten)]
    pub on: OnArgs,
    /// Permutations of each column; each is a pass over the rows
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repeats: u32,
    /// Seed of the permutations
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 0)]
    pub seed: u64,
}
