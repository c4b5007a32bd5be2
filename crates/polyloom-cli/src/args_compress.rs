//! What can be typed behind `polyloom compress`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::{MergeArgs, size};
use crate::args_tasks::Places;

/// `polyloom compress`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  polyloom compress loom.toml --method tall -o bundle
  polyloom compress --base B experts/* --method emr -o bundle
  polyloom compress loom.toml --method lowrank --budget 2MB -o bundle
  polyloom compress loom.toml --keep 99% -o bundle      (compares methods on validation rows)
  polyloom compress restore bundle --task intent -o out/intent
  polyloom compress prune models/joint -t digits,fashion --bound 2% -o out/small

Methods: tall, emr, magnitude_mask, lowrank, bits, graft.
Keys of [compress] with their defaults: docs/reference/compressing.md"
)]
pub struct CompressArgs {
    #[command(subcommand)]
    pub command: Option<CompressCommand>,
    /// Bytes of the deltas at most, such as 2MB; without --method or --keep the best of all methods
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<String>,
    /// Share of the experts' scores that is kept at least, such as 99%: the smallest of all methods
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub keep: Option<f64>,
    /// The lower end of the 95 % interval keeps the share, not the score alone: no lucky one of many is taken
    #[arg(long, requires = "keep")]
    pub sure: bool,
    #[command(flatten)]
    pub merge: MergeArgs,
    #[command(flatten)]
    pub places: Places,
}

/// Parses `99%` and `0.99`.
fn share(text: &str) -> Result<f64, String> {
    let (number, by) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let found = number.trim().parse::<f64>().ok().map(|x| x * by);
    found
        .filter(|x| *x > 0.0 && *x <= 1.0)
        .ok_or_else(|| "a share, such as 99% or 0.99".to_owned())
}

/// What to do with a bundle.
#[derive(Debug, Subcommand)]
pub enum CompressCommand {
    /// Write the model of one task of a bundle
    Restore(RestoreArgs),
    /// Remove heads and channels of a model that several tasks share, within a bound of every task
    Prune(PruneArgs),
    /// Write one goal of a model whose experts are chosen by goal as a model of its own
    Goal(GoalArgs),
    /// Write one width of a model that learned several, by hand or within a budget
    Slim(SlimArgs),
}

/// `polyloom compress goal`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom compress goal out/scenes depth -o out/depth")]
pub struct GoalArgs {
    /// The model, with heads of its goals
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The goal: a name of `moe.goals` (or `task_expert.goals`) in its config.json, or what stands behind the last `/` of one
    #[arg(value_name = "GOAL")]
    pub goal: String,
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut
    #[arg(long)]
    pub no_sync: bool,
}

/// `polyloom compress slim`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom compress slim out/scenes --width 0.5 -o out/half
  polyloom compress slim out/scenes --budget 40% -t scenes.task.toml --prefer depth=3 -o out/small

A budget is a share of the whole model's multiplications. For every width of the trunk heads
get what it leaves, those first that are preferred; the one with the best scores on the rows
is written.")]
pub struct SlimArgs {
    /// The model, trained with [train.slim], with its heads
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Part of the trunk's width, one that was learned
    #[arg(long, value_name = "SHARE", value_parser = share, required_unless_present = "budget", conflicts_with = "budget")]
    pub width: Option<f64>,
    /// Part of the width between the layers of heads
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "100%", conflicts_with = "budget")]
    pub head_width: f64,
    /// Share of the multiplications at most
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "tasks")]
    pub budget: Option<f64>,
    /// What a goal counts beside the others, which count 1; the goal by its name, or by what stands behind the last `/`
    #[arg(long, value_name = "GOAL=NUMBER", value_parser = preference, requires = "budget")]
    pub prefer: Vec<(String, f64)>,
    /// What forms are judged by: the metric that counts of every goal, or its loss
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "scores",
        requires = "budget"
    )]
    pub by: ByArg,
    /// Tasks whose rows tell: ids or spec files, all that the model has learned
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ',',
        requires = "budget"
    )]
    pub tasks: Vec<String>,
    /// Split whose rows tell
    #[arg(long, value_name = "NAME", default_value = "validation")]
    pub split: String,
    /// Rows of each task at most
    #[arg(short = 'L', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut
    #[arg(long)]
    pub no_sync: bool,
    #[command(flatten)]
    pub places: Places,
}

/// What forms are judged by.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ByArg {
    Scores,
    Losses,
}

/// Parses `depth=2`.
fn preference(text: &str) -> Result<(String, f64), String> {
    let wrong = || "a goal and what it counts, such as depth=2".to_owned();
    let (goal, number) = text.rsplit_once('=').ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    Ok((goal.trim().to_owned(), number))
}

/// What makes a unit go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Saliency {
    /// Those with the smallest sum of magnitudes
    L1,
    /// Those without which the losses change least, to first order (a backward pass over all rows)
    Taylor,
}

/// `polyloom compress prune`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom compress prune models/joint -t digits,fashion --bound 2% -o out/small
  polyloom compress prune models/joint -t digits,fashion --bound 5% --target 30% -o out/small")]
pub struct PruneArgs {
    /// The model, with heads of its tasks
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Tasks whose losses are bounded: ids or spec files
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ',',
        required = true
    )]
    pub tasks: Vec<String>,
    /// Folder of heads [default: heads/ of the model]
    #[arg(long, value_name = "DIR")]
    pub heads: Option<PathBuf>,
    /// Preparation of pictures [default: that of the model]
    #[arg(long, value_name = "FILE")]
    pub preprocessor: Option<PathBuf>,
    /// Largest rise of a task's loss, as a share of it
    #[arg(long, value_name = "SHARE", default_value = "2%", value_parser = share)]
    pub bound: f64,
    /// Share of the work of heads and channels that is saved at most
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = share)]
    pub target: f64,
    /// Which units go first
    #[arg(long, value_name = "HOW", default_value = "l1")]
    pub saliency: Saliency,
    /// Split whose rows tell the losses
    #[arg(long, value_name = "NAME", default_value = "validation")]
    pub split: String,
    /// Rows of each task at most
    #[arg(short = 'L', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Tokens of a text at most
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut
    #[arg(long)]
    pub no_sync: bool,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom compress restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Task to restore (its id, or the name of its expert)
    #[arg(long, value_name = "TASK")]
    pub task: String,
    /// Where the base is now, if not where it was
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Largest file, such as 5GB or 500MB
    #[arg(long, visible_alias = "out-shard-size", value_name = "SIZE", default_value = "5GB", value_parser = size)]
    pub shard_size: u64,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut
    #[arg(long)]
    pub no_sync: bool,
}
