//! What can be typed after `polyloom compare`.

use std::path::PathBuf;

use clap::Args;

/// `polyloom compare`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom compare old.csv new.csv                     (columns id, target, prediction)
  polyloom compare old.jsonl new.jsonl --score rouge_l --flips 10
  polyloom compare old.csv new.csv --fail-if-worse 0.01 -q || echo regression

Exit code 1: --fail-if-worse was given and the answer is \"worse\".")]
pub struct CompareArgs {
    /// Predictions of the first system: .csv, .tsv or .jsonl, one example a row
    #[arg(value_name = "OLD")]
    pub first: PathBuf,
    /// Predictions of the second system for the same examples
    #[arg(value_name = "NEW")]
    pub second: PathBuf,
    /// Column that names an example [default: id, doc_id, example_id, else the row's number]
    #[arg(long, value_name = "COLUMN")]
    pub id: Option<String>,
    /// Column that names the task of an example [default: task, else all is one task]
    #[arg(long, value_name = "COLUMN")]
    pub task_column: Option<String>,
    /// Column of predictions [default: prediction, pred, y_pred, predicted, output]
    #[arg(long, value_name = "COLUMN")]
    pub prediction: Option<String>,
    /// Column of right answers [default: target, label, y_true, truth, gold]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// Column of a score per example, higher is better, in place of predictions and labels
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["prediction", "label"])]
    pub score: Option<String>,
    /// Level of the tests; intervals cover 1 - ALPHA
    #[arg(long, value_name = "ALPHA", default_value_t = 0.05, value_parser = level)]
    pub alpha: f64,
    /// Compare what both files hold instead of refusing files that differ in examples
    #[arg(long)]
    pub allow_partial: bool,
    /// Exit with 1 if a task got worse by more than this and the test says so (after Holm) [default without a number: 0]
    #[arg(long, value_name = "ALLOWANCE", num_args = 0..=1, require_equals = false, default_missing_value = "0")]
    pub fail_if_worse: Option<f64>,
    /// Show the first N examples on which NEW is worse
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub flips: usize,
}

/// A level of tests and intervals.
pub fn level(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if value > 0.0 && value < 1.0 {
        Ok(value)
    } else {
        Err("must lie between 0 and 1, such as 0.05".into())
    }
}
