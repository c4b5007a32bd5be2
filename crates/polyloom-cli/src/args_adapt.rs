//! What can be typed after `polyloom adapt`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};

use crate::args::{OutputArgs, size};

/// `polyloom adapt`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct AdaptArgs {
    #[command(subcommand)]
    pub command: AdaptCommand,
}

/// Operations on adapters.
#[derive(Debug, Subcommand)]
pub enum AdaptCommand {
    /// Fold an adapter into its base: a full checkpoint (PEFT's merge_and_unload)
    Fold(FoldArgs),
    /// Extract a LoRA adapter from a fine-tuned model by SVD
    Extract(ExtractArgs),
    /// Combine adapters of one base by PEFT's rules; needs no base
    Combine(CombineArgs),
    /// Stack adapters exactly (FLoRA): ranks add up, weights are shares of the data
    Stack(StackArgs),
    /// Change the rank of an adapter: smaller by SVD of its product, larger with zeros
    Resize(ResizeArgs),
    /// Rewrite an adapter as plain LoRA where that is exact (rsLoRA, PiSSA/OLoRA, one task of Poly)
    Convert(ConvertAdapterArgs),
    /// Scale down intruder dimensions
    ScaleIntruders(IntruderArgs),
    /// Assemble a mixture of experts from a mergekit-moe file
    Moe(MoeArgs),
}

/// `polyloom adapt fold`
#[derive(Debug, Args)]
pub struct FoldArgs {
    /// PEFT folder
    pub adapter: PathBuf,
    /// The model it was trained on
    #[arg(long, value_name = "MODEL")]
    pub base: String,
    /// Factor on the adapter's delta (plain LoRA only)
    #[arg(long, default_value_t = 1.0)]
    pub weight: f64,
    /// Type of the written tensors (default: the base's)
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
    #[command(flatten)]
    pub out: OutputArgs,
}

/// Where an adapter folder goes.
#[derive(Debug, Clone, Args)]
pub struct AdapterOut {
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Skip fsync
    #[arg(long, env = "POLYLOOM_NO_SYNC", value_parser = BoolishValueParser::new())]
    pub no_sync: bool,
    /// Type of the factors (default: as in the input)
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
}

/// `polyloom adapt extract`
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// The fine-tuned model
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// The base
    #[arg(long, value_name = "MODEL")]
    pub base: String,
    /// Largest rank of a module
    #[arg(long, visible_alias = "max-rank", default_value_t = 128)]
    pub rank: usize,
    /// Keep the smallest rank that holds this share of the squared singular values, in (0, 1]
    #[arg(long)]
    pub energy: Option<f64>,
    /// Drop singular values not above this
    #[arg(long, default_value_t = 0.0)]
    pub sv_epsilon: f64,
    /// Put the square root of the singular values on both factors
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub distribute_scale: bool,
    /// Which factor holds the singular values when they are not distributed: a or b
    #[arg(long, default_value = "a", value_parser = ["a", "b"])]
    pub scale_side: String,
    /// Only modules whose name matches this pattern
    #[arg(long, visible_alias = "include-regex", value_name = "REGEX")]
    pub include: Option<String>,
    /// No modules whose name matches this pattern
    #[arg(long, visible_alias = "exclude-regex", value_name = "REGEX")]
    pub exclude: Option<String>,
    /// Decompose embeddings and heads too instead of saving them whole
    #[arg(long)]
    pub embed_lora: bool,
    /// Leave out modules without a matrix instead of saving them whole
    #[arg(long)]
    pub skip_undecomposable: bool,
    /// Modules to save whole
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub modules_to_save: Vec<String>,
    #[command(flatten)]
    pub out: AdapterOut,
}

/// `polyloom adapt combine`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  polyloom adapt combine adapters/a adapters/b --combination ties_svd --weights 0.6,0.4 --density 0.5 -o adapters/ab")]
pub struct CombineArgs {
    /// PEFT folders
    #[arg(required = true)]
    pub adapters: Vec<PathBuf>,
    /// linear, cat, svd, ties, ties_svd, dare_linear, dare_ties, dare_linear_svd, dare_ties_svd, magnitude_prune, magnitude_prune_svd
    #[arg(
        long,
        visible_alias = "combination-type",
        default_value = "svd",
        value_name = "TYPE"
    )]
    pub combination: String,
    /// One weight per adapter, in order, or one for all; `name=w` by folder name; a file with lines `name,weight`
    #[arg(
        long,
        value_name = "W,W,…|FILE",
        default_value = "1",
        allow_hyphen_values = true
    )]
    pub weights: String,
    /// Rank of the SVD types (default: the largest input rank)
    #[arg(long, visible_alias = "svd-rank")]
    pub rank: Option<usize>,
    /// Clamp both factors at this quantile of their values (SVD types)
    #[arg(long, visible_alias = "svd-clamp")]
    pub clamp: Option<f64>,
    /// Share of entries kept (sparsifying types)
    #[arg(long)]
    pub density: Option<f64>,
    /// Sign election: total or frequency
    #[arg(long, visible_alias = "majority-sign-method", default_value = "total", value_parser = ["total", "frequency"])]
    pub sign: String,
    /// Seed of the dare types
    #[arg(long, default_value_t = 0, env = "POLYLOOM_SEED")]
    pub seed: u64,
    #[command(flatten)]
    pub out: AdapterOut,
}

/// `polyloom adapt stack`
#[derive(Debug, Args)]
pub struct StackArgs {
    /// PEFT folders
    #[arg(required = true)]
    pub adapters: Vec<PathBuf>,
    /// Rows behind each adapter, in order (their shares are the weights); one for all
    #[arg(long, value_name = "N,N,…", default_value = "1")]
    pub sizes: String,
    #[command(flatten)]
    pub out: AdapterOut,
}

/// `polyloom adapt resize`
#[derive(Debug, Args)]
pub struct ResizeArgs {
    /// PEFT folder
    pub adapter: PathBuf,
    /// New rank
    #[arg(long)]
    pub rank: usize,
    #[command(flatten)]
    pub out: AdapterOut,
}

/// `polyloom adapt convert`
#[derive(Debug, Args)]
pub struct ConvertAdapterArgs {
    /// PEFT folder
    pub adapter: PathBuf,
    /// The base (only for adapters that change it: PiSSA, OLoRA)
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    #[command(flatten)]
    pub out: AdapterOut,
}

/// `polyloom adapt scale-intruders`
#[derive(Debug, Args)]
pub struct IntruderArgs {
    /// PEFT folder
    pub adapter: PathBuf,
    /// The base
    #[arg(long, value_name = "MODEL")]
    pub base: String,
    /// Left vectors that are looked at
    #[arg(long, default_value_t = 10)]
    pub top_k: usize,
    /// A vector whose largest cosine with the base's is below this is an intruder
    #[arg(long, default_value_t = 0.5)]
    pub epsilon: f64,
    /// Factor on intruders: 1 leaves, 0 removes
    #[arg(long, default_value_t = 0.75)]
    pub lambda: f64,
    #[command(flatten)]
    pub out: AdapterOut,
}

/// `polyloom adapt moe`
#[derive(Debug, Args)]
pub struct MoeArgs {
    /// mergekit-moe file
    pub recipe: PathBuf,
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Skip fsync
    #[arg(long, env = "POLYLOOM_NO_SYNC", value_parser = BoolishValueParser::new())]
    pub no_sync: bool,
    /// Largest file, such as 5GB
    #[arg(long, visible_alias = "out-shard-size", value_name = "SIZE", default_value = "5GB", env = "POLYLOOM_SHARD_SIZE", value_parser = size)]
    pub shard_size: u64,
    /// Seed of noise and random gates
    #[arg(
        long,
        visible_alias = "random-seed",
        default_value_t = 0,
        env = "POLYLOOM_SEED"
    )]
    pub seed: u64,
    /// Go on when an input has NaN or infinity
    #[arg(long)]
    pub allow_nonfinite: bool,
}
