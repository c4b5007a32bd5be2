//! What can be typed after `polyloom stats`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::args_eval::at_least_one;
use crate::args_tasks::Places;

/// `polyloom stats`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom stats experts/intent -o stats/intent.safetensors               (the task of its head)
  polyloom stats experts/a experts/b -t banking77,mpqa -o stats           (a task each, in order)
  polyloom stats vit+adapters/digits -t digits --heads heads --kind gram -o stats
  polyloom stats experts/a experts/b --through-merged -o stats            (RegMean++: for a merge of these two)
  polyloom merge experts/a experts/b --method regmean \\
    --each stats=stats/a.safetensors,stats/b.safetensors -o out/regmean")]
pub struct StatsArgs {
    /// Models: folders with config.json, PEFT adapters, MODEL+ADAPTER, hf:org/name
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,
    /// Task id or spec file: one for all models, or one for each in their order [default: the task of a model's own head]
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// File to write; a name without an ending, or of several models, is a folder (DIR/MODEL.safetensors)
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: PathBuf,
    /// What is collected [default: gram,fisher; with --through-merged gram]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub kind: Vec<Kind>,
    /// RegMean++: inputs of a block come through the blocks before it as RegMean merges them over all these models
    #[arg(long)]
    pub through_merged: bool,
    /// Factor of Gram matrices off their diagonal in those merges; that of the merge must be the same
    #[arg(long, value_name = "A", default_value_t = 0.95, requires = "through_merged", value_parser = share)]
    pub off_diagonal: f64,
    /// Rows of the task at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    pub rows: usize,
    /// Split that they are drawn from
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub split: String,
    /// Seed of the draw
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        env = "POLYLOOM_SEED",
        hide_env = true
    )]
    pub seed: u64,
    /// Fisher: square the gradient of every row, as the definition has it (the default)
    #[arg(long, overrides_with = "per_batch")]
    pub per_sample: bool,
    /// Fisher: square the gradient of the sum over a batch, as FusionBench does; faster
    #[arg(long, overrides_with = "per_sample")]
    pub per_batch: bool,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Texts are cut to N tokens [default: as in training, where the folder says so, else what the model takes]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_length: Option<usize>,
    /// Folder of heads (TASK.safetensors) [default: heads/ of the model, of an adapter's base, then the model's own classifier]
    #[arg(long, value_name = "DIR")]
    pub heads: Option<PathBuf>,
    /// Base of adapters [default: what their folders name]
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Print the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
    /// Skip fsync of the files
    #[arg(long, env = "POLYLOOM_NO_SYNC", value_parser = BoolishValueParser::new())]
    pub no_sync: bool,
    #[command(flatten)]
    pub places: Places,
}

/// What is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// X'X of the inputs of linear layers (regmean)
    Gram,
    /// Squared gradients of every weight (fisher); needs a head
    Fisher,
}

/// A number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let x = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
    x.ok_or_else(|| "a number from 0 to 1".into())
}
