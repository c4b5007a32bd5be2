//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::args_compress::CompressArgs;

/// One system for many tasks
#[derive(Debug, Parser)]
#[command(name = "polyloom", version, about, long_about = None, max_term_width = 100, propagate_version = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Number of threads (default: all cores); the output does not depend on it
    #[arg(
        short = 'j',
        long,
        global = true,
        value_name = "N",
        env = "POLYLOOM_THREADS",
        help_heading = "Global options"
    )]
    pub threads: Option<usize>,
    /// More detail on stderr (-vv for even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Less on stderr (-qq: errors only)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub quiet: u8,
    /// JSON lines on stdout, one event per line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Colour: auto, always or never (NO_COLOR is respected)
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        env = "POLYLOOM_COLOR",
        help_heading = "Global options"
    )]
    pub color: Color,
    /// No progress line
    #[arg(
        long,
        global = true,
        env = "POLYLOOM_NO_PROGRESS",
        value_parser = BoolishValueParser::new(),
        help_heading = "Global options"
    )]
    pub no_progress: bool,
    /// Fetch models (hf:org/name) that are not in the Hugging Face cache; nothing is fetched without it
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        long_help = DOWNLOAD
    )]
    pub download: bool,
}

const DOWNLOAD: &str = "Fetch models (hf:org/name[@revision]) that are not in the Hugging Face cache. \
Nothing is fetched without this flag; what and how much is said before it starts, with --dry-run it is only said.
Needs a program built with `--features hub`. Honours HF_ENDPOINT, HF_TOKEN (or the saved login), HF_HOME, \
HF_HUB_CACHE, HF_HUB_OFFLINE and HTTPS_PROXY";

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tune, merge and score a small family of real tasks, from nothing
    Quickstart(crate::args_quickstart::QuickstartArgs),
    /// Combine fine-tuned checkpoints without training
    Merge(Box<MergeArgs>),
    /// Extract, fold in, combine, stack or assemble adapters (LoRA, MoE)
    Adapt(crate::args_adapt::AdaptArgs),
    /// Train one task, or several jointly: all weights, low-rank parts or heads
    Train(Box<crate::args_train::TrainArgs>),
    /// Fit calibration, thresholds and intervals of a model of tables on validation rows
    Calibrate(crate::args_calibrate::CalibrateArgs),
    /// Collect activation or Fisher statistics for data-aware merges
    Stats(Box<crate::args_stats::StatsArgs>),
    /// Learn how much of each expert goes into a merged model (AdaMerging, aTLAS)
    Tune(Box<crate::args_tune::TuneArgs>),
    /// Store deltas small, within bytes or a share of the scores; restore
    Compress(Box<CompressArgs>),
    /// Change dtype or sharding, .bin to safetensors
    Convert(ConvertArgs),
    /// Write a model of tables as one ONNX file that reads raw cells
    Export(crate::args_export::ExportArgs),
    /// Ask a model: a vector, a class, more text
    Run(Box<crate::args_run::RunArgs>),
    /// Write what the heads of a model say of the rows of a file
    Predict(Box<crate::args_predict::PredictArgs>),
    /// Fit or ask a router over experts
    Route(crate::args_route::RouteArgs),
    /// Score models, adapters, a server or predictions on tasks, with intervals
    Eval(Box<crate::args_eval::EvalArgs>),
    /// Compare the predictions of two systems: intervals, a test, what got worse
    Compare(crate::args_compare::CompareArgs),
    /// Rank systems across tasks: results of this project, lm-eval, MTEB, HELM, tables
    Board(Box<crate::args_board::BoardArgs>),
    /// Show results as one page: leaderboard, intervals, heat map, tests, what changes
    Report(Box<crate::args_report::ReportArgs>),
    /// Say what a model rests on: the columns that matter for each target
    Diag(Box<crate::args_diag::DiagArgs>),
    /// Compare experts with their base, or adapters with each other
    Diff(crate::args_diff::DiffArgs),
    /// Show what is inside a checkpoint, adapter, bundle or recipe
    Inspect(InspectArgs),
    /// List, show, check, write, split and sample tasks
    Tasks(crate::args_tasks::TasksArgs),
    /// List the metrics of tasks, or show one: direction, range, what it needs, its source
    Metrics {
        /// A metric (default: all)
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Check this machine and these files
    Doctor(DoctorArgs),
    /// Print shell completions
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Print the reference page of all merge methods, metrics, balancers or architectures, generated from the registry
    #[command(hide = true)]
    Reference {
        /// Which page
        #[arg(value_enum, default_value = "methods")]
        page: ReferencePage,
    },
}

/// A generated page of docs/reference.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ReferencePage {
    /// Merge methods and steps
    Methods,
    /// Metrics
    Metrics,
    /// Methods of [train.balance]
    Balancers,
    /// Models over the rows of a table
    Architectures,
}

/// How an output folder is written; the same on every writing command.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace an existing output folder
    #[arg(long)]
    pub force: bool,
    /// Print the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Largest file, such as 5GB or 500MB
    #[arg(long, visible_alias = "out-shard-size", value_name = "SIZE", default_value = "5GB", env = "POLYLOOM_SHARD_SIZE", value_parser = size)]
    pub shard_size: u64,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut
    #[arg(long, env = "POLYLOOM_NO_SYNC", value_parser = BoolishValueParser::new())]
    pub no_sync: bool,
    /// Keep the finished shards of an interrupted run of the same recipe
    #[arg(long)]
    pub resume: bool,
    /// Hashes in polyloom.json: fast (header, size, time), full (SHA-256), none
    #[arg(long, value_name = "KIND", default_value = "fast")]
    pub hash: Hash,
    /// Merge NaN and infinity like numbers instead of stopping
    #[arg(long)]
    pub allow_nonfinite: bool,
}

/// How much memory a run may take.
#[derive(Debug, Clone, Args)]
pub struct MemoryArgs {
    /// Refuse a run that needs more memory than this, such as 16GB (default: what is free)
    #[arg(long, value_name = "SIZE", env = "POLYLOOM_MEMORY", value_parser = size)]
    pub memory: Option<u64>,
}

/// Provenance hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hash {
    /// Header, size and time.
    Fast,
    /// SHA-256 of every file.
    Full,
    /// None.
    None,
}

/// `polyloom merge`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom merge loom.toml -o out/ties
  polyloom merge recipe.yml out/merged            (a mergekit file, unchanged)
  polyloom merge --base B experts/* --method ties --each density=0.2 -o out/ties
  polyloom merge --explain ties")]
pub struct MergeArgs {
    /// A recipe (loom.toml, mergekit .yml), or experts; after a recipe, the output folder
    #[arg(value_name = "RECIPE|EXPERT")]
    pub inputs: Vec<String>,
    /// Base model
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Merge method (see --list)
    #[arg(short, long, value_name = "NAME")]
    pub method: Option<String>,
    /// Parameter given once, as NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub shared: Vec<String>,
    /// Parameter of every expert, as NAME=VALUE; `a,b,c` gives one value per expert
    #[arg(long, value_name = "NAME=VALUE")]
    pub each: Vec<String>,
    /// Any key of a recipe, as KEY=VALUE (such as merge.shared.lambda=0.5, expert.NAME.task=topic)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Step on the merged vector: NAME or NAME:KEY=VALUE,KEY=VALUE
    #[arg(long, value_name = "STEP")]
    pub post: Vec<String>,
    /// Round inputs to this type first (arithmetic stays f32)
    #[arg(long, value_name = "TYPE", env = "POLYLOOM_DTYPE")]
    pub dtype: Option<String>,
    /// Type of the written tensors (f32, bf16, f16, f64, fp8_e4m3, fp8_e5m2)
    #[arg(long, value_name = "TYPE", env = "POLYLOOM_OUT_DTYPE")]
    pub out_dtype: Option<String>,
    /// Classification heads: merge them, or keep one per task under heads/
    #[arg(long, value_name = "POLICY")]
    pub heads: Option<HeadsArg>,
    /// Seed of random methods
    #[arg(
        long,
        visible_alias = "random-seed",
        value_name = "N",
        env = "POLYLOOM_SEED"
    )]
    pub seed: Option<u64>,
    /// Leave out tensors that not all inputs have
    #[arg(long, visible_alias = "tensor-intersection", conflicts_with = "union")]
    pub intersection: bool,
    /// Merge every tensor over the inputs that have it
    #[arg(long, visible_alias = "tensor-union")]
    pub union: bool,
    /// Cut vocabulary tensors to the smallest row count, without looking at tokens
    #[arg(long)]
    pub unsafe_truncate_embeddings: bool,
    /// Mix architectures whose shared tensors fit
    #[arg(long)]
    pub allow_crimes: bool,
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
    /// Hugging Face cache folder
    #[arg(
        long,
        visible_alias = "transformers-cache",
        value_name = "DIR",
        env = "POLYLOOM_CACHE"
    )]
    pub cache: Option<PathBuf>,
    /// List all methods
    #[arg(long)]
    pub list: bool,
    /// Explain one method: formula, parameters, source
    #[arg(long, value_name = "METHOD")]
    pub explain: Option<String>,
    #[command(flatten)]
    pub out: OutputArgs,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub habit: Habit,
    /// Which of the values above come from `POLYLOOM_*` variables: `--set` and the recipe's file order them below flags.
    #[arg(skip)]
    pub from_environment: Vec<&'static str>,
}

impl Cli {
    /// Parses the command line and remembers which values came from the environment.
    pub fn read(args: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(args)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let merge = match &mut cli.command {
            Command::Merge(merge) => Some(&mut **merge),
            Command::Compress(compress) => Some(&mut compress.merge),
            _ => None,
        };
        if let (Some(merge), Some((_, given))) = (merge, matches.subcommand()) {
            let from_variable =
                |id: &&str| ArgMatches::value_source(given, id) == Some(ValueSource::EnvVariable);
            merge.from_environment = ["dtype", "out_dtype", "seed"]
                .into_iter()
                .filter(from_variable)
                .collect();
        }
        Ok(cli)
    }
}

/// Flags of mergekit's programs that have no meaning here: accepted, with one note.
#[derive(Debug, Clone, Default, Args)]
pub struct Habit {
    #[arg(long, hide = true)]
    pub cuda: bool,
    #[arg(long, hide = true)]
    pub low_cpu_memory: bool,
    #[arg(long, hide = true)]
    pub lazy_unpickle: bool,
    #[arg(long, hide = true)]
    pub read_to_gpu: bool,
    #[arg(long, hide = true)]
    pub gpu_rich: bool,
    #[arg(long, hide = true)]
    pub multi_gpu: bool,
    #[arg(long, hide = true)]
    pub clone_tensors: bool,
    #[arg(long, hide = true)]
    pub copy_tokenizer: bool,
    #[arg(long, hide = true)]
    pub write_model_card: bool,
    #[arg(long, hide = true)]
    pub safe_serialization: bool,
    #[arg(long, hide = true)]
    pub trust_remote_code: bool,
    #[arg(long, hide = true)]
    pub async_write: bool,
    #[arg(long, hide = true, value_name = "DIR")]
    pub lora_merge_cache: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "DEVICE")]
    pub device: Option<String>,
}

impl Habit {
    /// The flags that were given.
    pub fn given(&self) -> Vec<&'static str> {
        [
            (self.cuda, "--cuda"),
            (self.low_cpu_memory, "--low-cpu-memory"),
            (self.lazy_unpickle, "--lazy-unpickle"),
            (self.read_to_gpu, "--read-to-gpu"),
            (self.gpu_rich, "--gpu-rich"),
            (self.multi_gpu, "--multi-gpu"),
            (self.clone_tensors, "--clone-tensors"),
            (self.copy_tokenizer, "--copy-tokenizer"),
            (self.write_model_card, "--write-model-card"),
            (self.safe_serialization, "--safe-serialization"),
            (self.async_write, "--async-write"),
            (self.lora_merge_cache.is_some(), "--lora-merge-cache"),
            (self.device.is_some(), "--device"),
            (
                self.trust_remote_code,
                "--trust-remote-code (no remote code is ever run)",
            ),
        ]
        .into_iter()
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
    }
}

/// `--no-copy-tokenizer` and the like: the peer's negative spellings, dropped before parsing.
pub fn spelled_as_habit(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    const NEGATIVE: [&str; 5] = [
        "--no-copy-tokenizer",
        "--no-safe-serialization",
        "--no-write-model-card",
        "--no-low-cpu-memory",
        "--no-lazy-unpickle",
    ];
    args.filter(|a| !a.to_str().is_some_and(|a| NEGATIVE.contains(&a)))
}

/// What to do with heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HeadsArg {
    /// Merge them like any tensor.
    Merge,
    /// One file per task.
    Separate,
}

/// `polyloom inspect`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom inspect experts/intent --base models/base
  polyloom inspect adapters/sentiment bundle/
  polyloom inspect loom.toml --resolved           (every value with its origin)
  polyloom inspect recipe.yml --as toml           (a mergekit file as a loom.toml)")]
pub struct InspectArgs {
    /// Checkpoints, adapters, mask bundles, recipes
    #[arg(value_name = "ITEM", required = true)]
    pub items: Vec<String>,
    /// Compare checkpoints with this base (reads all tensors)
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// List every tensor with type and shape
    #[arg(long)]
    pub tensors: bool,
    /// For recipes: every value with its origin
    #[arg(long)]
    pub resolved: bool,
    /// For recipes: write it in the other language
    #[arg(long = "as", value_name = "FORM")]
    pub form: Option<RecipeForm>,
    /// Hugging Face cache folder
    #[arg(long, visible_alias = "transformers-cache", value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// Languages of recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecipeForm {
    /// loom.toml
    Toml,
    /// A mergekit file.
    Yaml,
}

/// `polyloom doctor`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom doctor                                 (this machine)
  polyloom doctor loom.toml -o out                (would this recipe run?)
  polyloom doctor out/merged --full               (every number read, hashes compared)

Exit code 1 means that a check failed.")]
pub struct DoctorArgs {
    /// Recipes, checkpoints, adapters, bundles to check
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where outputs would go
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Read every tensor and look for NaN and infinity
    #[arg(long)]
    pub full: bool,
}

/// `polyloom convert`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom convert experts/topic -o out/topic --dtype bf16 --shard-size 2GB
  polyloom convert pytorch_model.bin -o out/model       (.bin to safetensors)")]
pub struct ConvertArgs {
    /// Model: a folder, a file, `path+adapter`
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Type of the written tensors (default: as stored)
    #[arg(long, visible_alias = "out-dtype", value_name = "TYPE")]
    pub dtype: Option<String>,
    #[command(flatten)]
    pub out: OutputArgs,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

/// Parses `5GB`, `500MB`, `5B` (mergekit's: bytes), `2000000`.
pub fn size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let units: [(&str, f64); 10] = [
        ("GIB", 1024.0 * 1024.0 * 1024.0),
        ("MIB", 1024.0 * 1024.0),
        ("KIB", 1024.0),
        ("GB", 1e9),
        ("MB", 1e6),
        ("KB", 1e3),
        ("G", 1e9),
        ("M", 1e6),
        ("K", 1e3),
        ("B", 1e9),
    ];
    // The peer writes `5B` and means five thousand million.
    let (number, unit) = units
        .iter()
        .find_map(|(u, f)| upper.strip_suffix(u).map(|n| (n, *f)))
        .unwrap_or((upper.as_str(), 1.0));
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a size; write 5GB or 500MB"))?;
    let bytes = value * unit;
    if !(bytes.is_finite() && bytes >= 1.0) {
        return Err(format!("`{text}` is not a size; write 5GB or 500MB"));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("5GB"), Ok(5_000_000_000));
        assert_eq!(size("5B"), Ok(5_000_000_000));
        assert_eq!(size("1.5 MiB"), Ok(1_572_864));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("much").is_err());
        assert!(size("-1GB").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
