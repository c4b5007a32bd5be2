//! What can be typed after `polyloom board`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use polyloom::evaluate::aggregate::mean::Missing;
use polyloom::evaluate::board::condition::Condition;
use polyloom::evaluate::board::import::Source;
use polyloom::evaluate::board::ranking::Aggregate;

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
    /// Only these: TAG=VALUE, TAG=A,B (any), TAG!=A (not), * for anything; tags, columns, task, metric, system
    #[arg(long = "where", value_name = "TAG=VALUE")]
    pub conditions: Vec<Condition>,
    /// Metrics by preference, where tasks have several [default: the one that most systems have]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub metric: Vec<String>,
    /// Metrics or tasks where less is better, where the files do not say
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub lower: Vec<String>,
    /// Scores of each task's own expert: a system of the board (leaves it) or a file
    #[arg(long, value_name = "SYSTEM|FILE")]
    pub expert: Option<String>,
    /// Systems that lack a task: no mean (strict), or the mean of what is there (skip)
    #[arg(long, value_name = "RULE", default_value = "strict")]
    pub missing: MissingRule,
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
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Columns of tables that together name the system [default: system, model, method, ...]
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        help_heading = "Tables"
    )]
    pub system: Vec<String>,
    /// Columns of tables that together name the task [default: task, dataset, benchmark, subject, ...]
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        help_heading = "Tables"
    )]
    pub task: Vec<String>,
    /// Column of tables that holds the score [default: value, score, result, correct, a metric's name]
    #[arg(long, value_name = "COLUMN", help_heading = "Tables")]
    pub value: Option<String>,
    /// Groups of lm-eval count as tasks, in place of their members
    #[arg(long, help_heading = "Tables")]
    pub groups: bool,
}

const AFTER: &str = "Examples:
  polyloom board runs/                                 (lm-eval's folder, all models below it)
  polyloom board a.csv b=new.csv --aggregate mean,borda,kemeny
  polyloom board scores.parquet --where type=Retrieval --show stability
  polyloom board merges.csv --expert fine_tuned --aggregate delta_m,normalised --show weakest
  polyloom board scores.csv --format latex > table.tex

Ways of counting: mean, size_mean, group_mean, above_chance, normalised, delta_m, borda, borda_mteb, mean_rank,
win_rate, copeland, kemeny, bt, pl, irt, synergy.";

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

/// What to do with missing scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingRule {
    /// No mean.
    Strict,
    /// The mean of the rest.
    Skip,
}

impl From<MissingRule> for Missing {
    fn from(rule: MissingRule) -> Self {
        match rule {
            MissingRule::Strict => Self::Strict,
            MissingRule::Skip => Self::Skip,
        }
    }
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
    text.trim().parse()
}

/// `NAME=FILE` or a file; a file that exists under the whole text wins.
pub fn source(text: &str) -> Result<Source, String> {
    let whole = PathBuf::from(text);
    match text.split_once('=') {
        Some((name, path)) if !whole.exists() && !name.is_empty() && !path.is_empty() => {
            Ok(Source {
                name: Some(name.to_owned()),
                path: path.into(),
            })
        }
        _ => Ok(Source {
            name: None,
            path: whole,
        }),
    }
}
