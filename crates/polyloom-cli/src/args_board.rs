//! What can be typed after `polyloom board`.

use clap::{Args, ValueEnum};
use polyloom::evaluate::board::counting::Aggregate;
use polyloom::evaluate::board::import::Source;

use crate::args_results::{OrderArgs, ResultArgs, source};

/// `polyloom board`
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct BoardArgs {
    /// Files or folders of results: results.json, lm-eval, MTEB, HELM, CSV, JSON lines, Parquet; NAME=FILE names the
    /// system of a file
    #[arg(value_name = "FILES", required = true, value_parser = source)]
    pub files: Vec<Source>,
    /// Ways of counting, the first one orders [default: mean,win_rate,borda; mixed scales win_rate,borda,bt; with gaps bt,win_rate,mean]
    #[arg(long, short, value_name = "LIST", value_delimiter = ',', value_parser = aggregate)]
    pub aggregate: Vec<Aggregate>,
    /// Scores of each task's own expert: a system of the board (leaves it) or a file
    #[arg(long, value_name = "SYSTEM|FILE")]
    pub expert: Option<String>,
    /// More: cells, weakest, stability, noise, matrix, cross, instructions, stages, coverage, costs
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub show: Vec<Show>,
    /// The two tags of --show matrix, the tag of --show cross
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',')]
    pub by: Vec<String>,
    /// The ks of --show coverage [default: 1, 2, 4, ... attempts]; the first is also the K of --show instructions [3]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub k: Vec<u64>,
    /// Rows to show, 0 for all [default: 25 in a table, else all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// table (80 columns), md, csv or latex
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    #[command(flatten)]
    pub order: OrderArgs,
    #[command(flatten)]
    pub results: ResultArgs,
}

const AFTER: &str = "Examples:
  polyloom board runs/                                 (lm-eval's folder, all models below it)
  polyloom board a.csv b=new.csv --aggregate mean,borda,kemeny
  polyloom board scores.parquet --where type=Retrieval --show stability
  polyloom board merges.csv --expert fine_tuned --aggregate delta_m,normalised --show weakest
  polyloom board scores.csv --format latex > table.tex

Ways of counting: mean, size_mean, group_mean, above_chance, normalised, delta_m, borda, borda_mteb, mean_rank,
win_rate, copeland, kemeny, bt, pl, davidson, bt_answers, pl_answers, irt, synergy.";

/// What to show below the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// Every task's scores.
    Cells,
    /// The task on which a system falls most behind the expert.
    Weakest,
    /// The order with one task or one system left out.
    Stability,
    /// Seeds, runs and checkpoints: deviation, signal to noise.
    Noise,
    /// Means by two tags.
    Matrix,
    /// Tasks of two capabilities against tasks of one.
    Cross,
    /// Gain, spread and hits over instructions.
    Instructions,
    /// The rows as stages of continual learning.
    Stages,
    /// pass@k over attempts.
    Coverage,
    /// What systems cost.
    Costs,
}

/// How the board is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text of 80 columns, with sentences.
    Table,
    /// Markdown.
    Md,
    /// Comma-separated.
    Csv,
    /// A LaTeX tabular.
    Latex,
}

fn aggregate(text: &str) -> Result<Aggregate, String> {
    text.parse()
}
