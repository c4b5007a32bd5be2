//! What can be typed after `polyloom report`.

use std::path::PathBuf;

use clap::Args;
use polyloom::evaluate::board::counting::Aggregate;
use polyloom::evaluate::board::import::Source;

use crate::args_results::{OrderArgs, ResultArgs, source};

/// `polyloom report`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom report runs/*/results.json -o report.html
  polyloom report scores.csv --baseline base --expert fine_tuned -o report.html -o report.md
  polyloom report scores.parquet --where type=Retrieval --rank-by mean_rank -o retrieval.html
  polyloom report --predictions a=a.csv b=b.csv --baseline a -o flips.html
  polyloom report runs/ --stages after1,after2,after3 -o continual.html")]
pub struct ReportArgs {
    /// Files or folders of results, as `polyloom board` reads them; NAME=FILE names the system of a file
    #[arg(value_name = "FILES", required_unless_present = "predictions", value_parser = source)]
    pub files: Vec<Source>,
    /// File to write, by ending: .html, .md, .csv, .tex, .json; may be given several times
    #[arg(long, short, value_name = "FILE", required = true)]
    pub output: Vec<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
    /// Predictions example by example, for what changes between systems: .csv, .tsv, .jsonl, .parquet; NAME=FILE names
    /// the system, a column `system` or `model` several [default: the records that results name]
    #[arg(long, value_name = "FILES", num_args = 1.., value_parser = source)]
    pub predictions: Vec<Source>,
    /// Column of predictions that names an example [default: id, doc_id, example_id, else the row's number]
    #[arg(long, value_name = "COLUMN", requires = "predictions")]
    pub id: Option<String>,
    /// What orders the leaderboard, a way of counting of `polyloom board` [default: its first: mean; mixed scales
    /// win_rate; with gaps bt]
    #[arg(long, value_name = "WHAT", value_parser = rank_by)]
    pub rank_by: Option<Aggregate>,
    /// The system that others are compared with
    #[arg(long, value_name = "SYSTEM")]
    pub baseline: Option<String>,
    /// Scores of each task's own expert: a system of the table (leaves it) or a file
    #[arg(long, value_name = "SYSTEM|FILE")]
    pub expert: Option<String>,
    /// Tag of the bars and the radar [default: skill, capability, group, type, domain or modality]
    #[arg(long, value_name = "TAG")]
    pub by: Option<String>,
    /// Systems that are the stages of continual learning, in order; stage i has learned task i
    #[arg(long, value_name = "SYSTEMS", value_delimiter = ',')]
    pub stages: Vec<String>,
    /// Heading [default: how many systems on how many tasks]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Level of the tests; intervals cover 1 - ALPHA
    #[arg(long, value_name = "ALPHA", default_value_t = 0.05, value_parser = crate::args_compare::level)]
    pub alpha: f64,
    /// Examples listed for each direction of each pair of systems
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub examples: usize,
    #[command(flatten)]
    pub order: OrderArgs,
    #[command(flatten)]
    pub results: ResultArgs,
}

fn rank_by(text: &str) -> Result<Aggregate, String> {
    match text.parse()? {
        Aggregate::Irt => Err("abilities are for difficulty, not for a leaderboard; `polyloom board --aggregate irt` shows them".into()),
        by => Ok(by),
    }
}
