//! What can be typed after `polyloom tune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use polyloom_learn::tune::search::Axis;

use crate::args_tasks::{Columns, Places};
use crate::args_train::pair;

/// `polyloom tune`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom tune loom.toml -o out/ada
  polyloom tune --base models/base experts/* -t digits,fashion --heads heads -o out/ada
  polyloom tune --base models/base experts/* -t digits,fashion --method atlas --heads heads -o out/atlas
  polyloom tune --base models/minilm experts/* -t retrieval/a,text/b --method self_positioning -o out/position
  polyloom tune loom.toml --split test -o out/transductive        (the inputs of the test rows, as in the paper)
  polyloom tune woven.toml -o out/woven                           (a recipe with [weave]: a router, parts and heads)
  polyloom tune --base models/base experts/* -t digits,fashion --method twin --set weave.rank=16 -o out/twin
  polyloom tune merge.toml --over merge.shared.lambda=0.1..1.5/8 -t digits,fashion -o out/best    (trials of a merge)
  polyloom tune people.csv --targets income --model gbdt --over train.new.lr=log:0.02..0.3 --over train.new.growth.max_leaves=7,15,31 -o best
  polyloom tune -t tabular/oes10 --model mmoe --over train.rate=log:3e-4..1e-2 --over 'train.new.hidden=[64],[128,64]' --folds 5 -o best
  polyloom tune merge.yml --over merge.each.weight@experts=0..1 --search cma-es --trials 100 -t digits -o out/best

Keys of [tune] with their defaults: docs/reference/tuning.md; of [weave]: docs/reference/woven.md")]
pub struct TuneArgs {
    /// A loom.toml with [base], [[expert]] and [tune] or [weave], or experts: folders, MODEL+ADAPTER; with --over also a
    /// recipe of a merge or a training, or a table (.csv, .tsv, .jsonl, .parquet) with --targets
    #[arg(value_name = "RECIPE|EXPERT|TABLE", required_unless_present = "model")]
    pub inputs: Vec<String>,
    /// Folder to write: the merged model, heads/, coefficients.json, the log; or the woven model
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// The model that the experts were tuned from
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Tasks whose rows are seen: ids or spec files [default: those of the experts]
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// Folder of the heads [default: heads/ of the experts]
    #[arg(long, value_name = "DIR")]
    pub heads: Option<PathBuf>,
    /// What is learned [default: adamerging]
    #[arg(long, value_name = "METHOD")]
    pub method: Option<Method>,
    /// Coefficients of an expert [default: tensor, task self_positioning]
    #[arg(long, value_name = "WHAT")]
    pub per: Option<Per>,
    /// Split whose rows are seen [default: validation]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Rows of each task at most
    #[arg(short = 'L', long, value_name = "N")]
    pub limit: Option<u32>,
    /// Steps [default: 500 adamerging, 20 epochs atlas, 100 self_positioning]
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Rows of each task in a step [default: 16 adamerging, a share of 128 atlas, 32 self_positioning]
    #[arg(long, value_name = "N")]
    pub batch: Option<u32>,
    /// Learning rate of the coefficients [default: 1e-3, 2e-2 self_positioning]
    #[arg(long, visible_alias = "lr", value_name = "RATE")]
    pub rate: Option<f64>,
    /// Tokens of a text at most
    #[arg(long, value_name = "N")]
    pub max_length: Option<u32>,
    /// Seed [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Any key of the recipe, such as tune.init=0.2 (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on with a run that was stopped: coefficients in OUT.tuning, trials in OUT.trials
    #[arg(long)]
    pub resume: bool,
    /// Replace the folder, drop what a stopped run left
    #[arg(long)]
    pub force: bool,
    /// Skip fsync of the output
    #[arg(long)]
    pub no_sync: bool,
    /// Trials of new models of tables, from the defaults of `polyloom train`: mmoe, ple, ..., gbdt, gbdt_shared, r_mtgb
    #[arg(long, value_name = "NAME", conflicts_with = "base")]
    pub model: Option<String>,
    #[command(flatten)]
    pub columns: Columns,
    #[command(flatten)]
    pub trials: TrialArgs,
    #[command(flatten)]
    pub places: Places,
}

/// Trials: models of the recipe with other numbers, each scored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Trials (any key of a merge, train or tune recipe)")]
pub struct TrialArgs {
    /// What may vary: KEY=a,b,c or KEY=LOW..HIGH, also LOW..HIGH/POINTS, log:LOW..HIGH, int:LOW..HIGH; KEY@experts has a
    /// number for each expert, KEY@layers:N a gradient over the layers (repeatable)
    #[arg(long, value_name = "KEY=VALUES")]
    pub over: Vec<Axis>,
    /// Trials at most [default: all of a grid, else 24]
    #[arg(long, value_name = "N")]
    pub trials: Option<u32>,
    /// How points are chosen [default: grid where it has at most --trials points, else random]
    #[arg(long, value_name = "HOW")]
    pub search: Option<How>,
    /// How scores are counted to one number: a word of `board --aggregate` [default: mean]
    #[arg(long, value_name = "WORD")]
    pub objective: Option<String>,
    /// Rounds in which no better point is told apart by a paired bootstrap (95 %), after which random and cma-es end;
    /// 0 tries all [default: 1]
    #[arg(long, value_name = "N")]
    pub patience: Option<u32>,
    /// Of trainings over tables: score a point by cross-validation over training and validation rows, in place of the
    /// validation rows
    #[arg(long, value_name = "N")]
    pub folds: Option<u32>,
    /// Times that folds are drawn [default: 1]
    #[arg(long, value_name = "N")]
    pub repeats: Option<u32>,
    /// Points of a round [default: 8 random, 4 + 3 ln n cma-es]
    #[arg(long, value_name = "N")]
    pub population: Option<u32>,
}

/// How points are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// Every combination of values; a range has 5 points, or LOW..HIGH/POINTS
    Grid,
    /// Points drawn evenly
    Random,
    /// Many points on few rows, the better third on three times as many
    Halving,
    /// The covariance matrix adaptation evolution strategy, for ranges
    #[value(name = "cma-es", alias = "cmaes")]
    CmaEs,
}

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Coefficients that make the merged model sure of unlabelled rows (AdaMerging)
    Adamerging,
    /// Coefficients that fit labelled rows (aTLAS)
    Atlas,
    /// A mask over all task vectors, learned on unlabelled rows (Concrete)
    Concrete,
    /// A position between embedding models, mu softmax(z), learned on pairs (Self Positioning)
    #[value(name = "self_positioning", alias = "self-positioning")]
    SelfPositioning,
    /// A woven model: a shared expert, a small part of each, mixed by input (Twin-Merging)
    Twin,
    /// A woven model: low-rank parts chosen by token and layer, without training (SMILE)
    Smile,
    /// A woven model: feed-forward parts mixed by input, learned on unlabelled rows (WEMoE)
    Wemoe,
}

impl Method {
    /// Its word in recipes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Adamerging => "adamerging",
            Self::Atlas => "atlas",
            Self::Concrete => "concrete",
            Self::SelfPositioning => "self_positioning",
            Self::Twin => "twin",
            Self::Smile => "smile",
            Self::Wemoe => "wemoe",
        }
    }

    /// Whether it makes a woven model.
    pub fn is_woven(self) -> bool {
        matches!(self, Self::Twin | Self::Smile | Self::Wemoe)
    }
}

/// Coefficients of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Per {
    /// One for every tensor ("layer-wise")
    #[value(alias = "layer")]
    Tensor,
    /// One for all
    Task,
}
