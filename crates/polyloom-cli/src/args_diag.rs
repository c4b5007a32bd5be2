//! What can be typed after `polyloom diag`.

use std::path::PathBuf;

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
    /// What gates use experts for: of tables experts that collapsed, that one target took over, that nobody listens to; of
    /// texts and pictures experts of a token and the share of parameters that it uses
    Experts(ExpertsArgs),
    /// Which tasks help which: each target learned alone, with every other task and with all, judged on its validation rows
    Cocktail(CocktailArgs),
    /// How fast each target's loss rises around the weights: one step along its gradient
    Sharpness(SharpnessArgs),
}

/// `polyloom diag cocktail`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom diag cocktail loom.toml --target text/sst5 -o cocktail
  polyloom diag cocktail loom.toml -t text/sst5,text/sst2,text/subj -o cocktail --resume
  polyloom diag cocktail loom.toml --target text/sst5 --set train.limit=1000 -o cocktail

Every set of tasks is one training by the recipe: of n tasks and one target n + 1 of them. What is picked has the
best validation score; it is scored on the test rows once, beside the target learned alone. Intervals are over the
rows that were scored: another --seed tells what another draw of weights and batches does.")]
pub struct CocktailArgs {
    /// A loom.toml with [train]
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Folder to write: models/, results and cocktail.json
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Tasks to mix, in place of the recipe's: ids or spec files
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// Tasks that are to be helped [default: all]
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    pub target: Vec<String>,
    /// The model to begin with, in place of the recipe's
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Split that decides
    #[arg(long, value_name = "NAME", default_value = "validation")]
    pub split: String,
    /// Split that what was picked is scored on in the end
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub confirm: String,
    /// Seed [default: the recipe's]
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED")]
    pub seed: Option<u64>,
    /// Any key of the recipe, such as train.limit=1000 (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::args_train::pair)]
    pub set: Vec<(String, String)>,
    /// Go on in a folder that is there
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace the folder
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom diag experts`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom diag experts people -t people.task.toml
  polyloom diag experts people -t people.task.toml --split validation --json
  polyloom diag experts joint -t text/sst2 --batch 64

Of texts and pictures, whose layers have experts for tokens: of every layer the mean number of experts of a token and the
share of tokens that passed each; parameters that a token uses are those of all layers outside of experts, its gate and its
experts, without embeddings and heads. Filling counts nowhere; pictures and texts pass once for each target asked.

Of tables: anomalies are those of Wang et al. 2024 (HoME); where each begins is ours:
  collapsed    over 90 % of an expert's outputs are exactly 0 (ReLU)
  degraded     of a shared expert's weight one target gives over 80 %
  underfitted  a target gives its own experts under a fifth of what equal weights would
  unused       no gate gives an expert a tenth of an equal weight")]
pub struct ExpertsArgs {
    #[command(flatten)]
    pub on: OnArgs,
}

/// A model, and the rows it is looked at with.
#[derive(Debug, Args)]
pub struct OnArgs {
    /// A model of tables (a folder with table.json), or one whose layers have experts
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

/// `polyloom diag sharpness`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom diag sharpness out/joint -t scenes.task.toml
  polyloom diag sharpness out/joint -t scenes.task.toml --rho 0.01 --json

Sharpness as of SAM (Foret et al. 2021), to first order: the target's loss where its own gradient
leads to, rho away, less its loss here. It goes with the scale of weights: compare models of one
architecture, trained alike.")]
pub struct SharpnessArgs {
    /// The model, with heads of its tasks
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Tasks: ids or spec files
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ',',
        required = true
    )]
    pub tasks: Vec<String>,
    /// Length of the step, over all weights of the trunk and the target's head
    #[arg(long, value_name = "LENGTH", default_value_t = 0.05)]
    pub rho: f64,
    /// Split whose rows tell the losses
    #[arg(long, value_name = "NAME", default_value = "validation")]
    pub split: String,
    /// At most N rows of each task
    #[arg(short = 'L', long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub places: Places,
}
