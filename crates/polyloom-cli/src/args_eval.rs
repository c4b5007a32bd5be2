//! What can be typed after `polyloom eval`.

use std::path::PathBuf;

use clap::Args;

use crate::args_tasks::Places;

/// `polyloom eval`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom eval --predictions preds.csv --task mpqa             (columns id, prediction)
  polyloom eval --predictions preds.parquet --task my.task.toml -o runs/theirs.json
  polyloom eval --predictions answers.jsonl --task bbh.toml --extract step-by-step
  polyloom eval --predictions samples_arc_easy_2026-05-01T10-11-12.jsonl
  polyloom eval --predictions scored.csv --values rouge_l       (scores that the file holds)")]
pub struct EvalArgs {
    /// Predictions to score: .csv, .tsv, .jsonl, .json, .parquet, or lm-eval samples
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
    /// Task ids or spec files [default: the tasks that the file names]
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// Split whose examples were predicted
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,
    /// Column that names an example [default: id, the task's id column, doc_id, example_id, else the order of rows]
    #[arg(long, value_name = "COLUMN")]
    pub id: Option<String>,
    /// Column that names the task of a row [default: task]
    #[arg(long, value_name = "COLUMN")]
    pub task_column: Option<String>,
    /// Column of predictions [default: prediction, pred, y_pred, predicted, output, label, ...]
    #[arg(long, value_name = "COLUMN")]
    pub prediction: Option<String>,
    /// Only rows with this text in a column, such as model=small (repeatable)
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = pair)]
    pub only: Vec<(String, String)>,
    /// How an answer is read from text: direct, last-line, step-by-step or regex:PATTERN [default: the task's rules]
    #[arg(long, value_name = "RULE")]
    pub extract: Option<String>,
    /// Take the scores of this column as they are, without a task
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["tasks", "metrics", "extract", "prediction"])]
    pub values: Option<String>,
    /// Metrics in place of those that the task declares; the first counts
    #[arg(
        long,
        visible_alias = "metric",
        value_name = "A,B",
        value_delimiter = ','
    )]
    pub metrics: Vec<String>,
    /// Score what is there where the file lacks examples or has others
    #[arg(long)]
    pub allow_partial: bool,
    /// Intervals cover 1 - ALPHA
    #[arg(long, value_name = "ALPHA", default_value_t = 0.05, value_parser = crate::args_compare::level)]
    pub alpha: f64,
    /// Draws of the bootstrap, for metrics that are no mean over examples
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub bootstrap: u64,
    /// Results file; records go to a folder beside it [default: FILE.results.json beside the predictions]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name of what made the predictions [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Score again what is unchanged; replace results of other predictions
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (column, value) = text
        .split_once('=')
        .ok_or("write COLUMN=VALUE, such as model=small")?;
    Ok((column.to_owned(), value.to_owned()))
}
