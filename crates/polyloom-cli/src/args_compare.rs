//! What can be typed after `polyloom compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `polyloom compare`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom compare old.csv new.csv                     (columns id, target, prediction)
  polyloom compare old.csv new.csv --slice language --flips 10
  polyloom compare old.jsonl new.jsonl --score rouge_l --metric median
  polyloom compare a.csv b.csv c.csv                   (ranks, every pair, groups)
  polyloom compare old.csv new.csv --fail-if-worse 0.01 --allow intents=0.02 -q || echo regression
  polyloom compare mmoe.folds gbdt.folds               (train --folds: the same folds, fold by fold)
  polyloom compare --plan --baseline 0.8 --difference 0.02 --n 1000

Exit code 1: --fail-if-worse or --max-flips was given and a task does not pass.")]
pub struct CompareArgs {
    /// Predictions of two or more systems for the same examples: .csv, .tsv, .jsonl, one example a row; results; folders of
    /// folds; OLD NEW
    #[arg(value_name = "FILE", required_unless_present = "plan")]
    pub files: Vec<PathBuf>,
    /// Column that names an example [default: id, doc_id, example_id, else the row's number]
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub id: Option<String>,
    /// Column that names the task of an example [default: task, else all is one task]
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub task_column: Option<String>,
    /// Column of predictions [default: prediction, pred, y_pred, predicted, output]
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub prediction: Option<String>,
    /// Column of right answers [default: target, label, y_true, truth, gold]
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub label: Option<String>,
    /// Column of a score per example in place of predictions and labels
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["prediction", "label"], help_heading = "Columns")]
    pub score: Option<String>,
    /// Less is better in the score column
    #[arg(long, requires = "score", help_heading = "Columns")]
    pub lower_is_better: bool,
    /// Also compare the examples of every value of this column, or of every tag in its lists (repeatable)
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub slice: Vec<String>,
    /// What is compared
    #[arg(long, value_name = "METRIC", default_value = "mean")]
    pub metric: MetricArg,
    /// Test of the difference [default: McNemar's for right and wrong, t for scores, bootstrap for what is no mean]
    #[arg(
        long,
        value_name = "TEST",
        default_value = "auto",
        hide_default_value = true
    )]
    pub test: TestArg,
    /// Interval of the difference [default: Student's for means, percentiles of the bootstrap for others]
    #[arg(
        long,
        value_name = "KIND",
        default_value = "auto",
        hide_default_value = true
    )]
    pub interval: IntervalArg,
    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub draws: u32,
    /// Level of the tests; intervals cover 1 - ALPHA
    #[arg(long, value_name = "ALPHA", default_value_t = 0.05, value_parser = level)]
    pub alpha: f64,
    /// Compare what all files hold instead of refusing files that differ in examples
    #[arg(long)]
    pub allow_partial: bool,
    /// What more than two systems are compared over [default: tasks from eight tasks on, else examples]
    #[arg(long, value_name = "WHAT")]
    pub over: Option<OverArg>,
    /// Show the first N examples on which NEW is worse
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub flips: usize,
    /// Exit with 1 if a task or slice got worse by more than this and the test says so (after Holm) [default without a number: 0]
    #[arg(long, value_name = "ALLOWANCE", num_args = 0..=1, require_equals = false, default_missing_value = "0", value_parser = size, help_heading = "Release gate")]
    pub fail_if_worse: Option<f64>,
    /// Another allowance for one task (repeatable)
    #[arg(long, value_name = "TASK=ALLOWANCE", requires = "fail_if_worse", value_parser = allowance, help_heading = "Release gate")]
    pub allow: Vec<(String, f64)>,
    /// Allowances by task: a TOML table or a JSON object
    #[arg(
        long,
        value_name = "FILE",
        requires = "fail_if_worse",
        help_heading = "Release gate"
    )]
    pub allow_file: Option<PathBuf>,
    /// Exit with 1 if more than this share of a task's examples got worse, whatever got better
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "Release gate")]
    pub max_flips: Option<f64>,
    /// Before the run: how many examples show a difference (two files of a pilot say how often systems disagree)
    #[arg(long, requires = "difference", help_heading = "Planning")]
    pub plan: bool,
    /// Share of right answers of the old system
    #[arg(long, value_name = "SHARE", requires = "plan", value_parser = share, help_heading = "Planning")]
    pub baseline: Option<f64>,
    /// Difference that is to be shown
    #[arg(
        long,
        value_name = "D",
        requires = "plan",
        allow_negative_numbers = true,
        help_heading = "Planning"
    )]
    pub difference: Option<f64>,
    /// Examples at hand
    #[arg(long, value_name = "N", requires = "plan", help_heading = "Planning")]
    pub n: Option<u64>,
    /// Chance of showing it
    #[arg(long, value_name = "SHARE", requires = "plan", default_value_t = 0.8, value_parser = level, help_heading = "Planning")]
    pub power: f64,
    /// Share of examples that exactly one of the systems gets right
    #[arg(long, value_name = "SHARE", requires = "plan", value_parser = share, help_heading = "Planning")]
    pub disagree: Option<f64>,
    /// Standard deviation of the differences of scores, in place of --baseline and --disagree
    #[arg(long, value_name = "S", requires = "plan", conflicts_with_all = ["baseline", "disagree"], help_heading = "Planning")]
    pub sd: Option<f64>,
    /// Comparisons that share the level (tasks, slices, pairs)
    #[arg(
        long,
        value_name = "K",
        requires = "plan",
        default_value_t = 1,
        help_heading = "Planning"
    )]
    pub comparisons: u64,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricArg {
    /// Share of right answers, or mean score.
    Mean,
    /// Median score.
    Median,
    /// F1, averaged over classes.
    #[value(name = "macro_f1", aliases = ["macro-f1", "f1_macro"])]
    MacroF1,
    /// F1, averaged over classes by size.
    #[value(name = "weighted_f1", aliases = ["weighted-f1", "f1_weighted"])]
    WeightedF1,
    /// Recall, averaged over classes.
    #[value(name = "balanced_accuracy", alias = "balanced-accuracy")]
    BalancedAccuracy,
    /// Matthews' correlation.
    Mcc,
    /// Cohen's kappa.
    #[value(name = "cohen_kappa", alias = "kappa")]
    CohenKappa,
    /// Pearson's correlation of predicted and right numbers.
    Pearson,
    /// Spearman's correlation.
    Spearman,
    /// Root of the mean squared error of predicted numbers.
    Rmse,
    /// Mean absolute error of predicted numbers.
    Mae,
    /// Share of the variance that predicted numbers explain.
    R2,
    /// The same without the error of their mean.
    #[value(name = "explained_variance", alias = "explained-variance")]
    ExplainedVariance,
    /// Area under the ROC curve of two classes, by the column `probabilities`.
    #[value(name = "roc_auc", alias = "roc-auc")]
    RocAuc,
}

/// Tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestArg {
    /// By what the values are.
    Auto,
    /// McNemar's.
    Mcnemar,
    /// Student's paired t.
    T,
    /// Wilcoxon's signed ranks.
    Wilcoxon,
    /// Signs of the differences.
    Sign,
    /// Flips of the differences' signs.
    Permutation,
    /// Paired bootstrap.
    Bootstrap,
}

/// Intervals of the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IntervalArg {
    /// By what is compared.
    Auto,
    /// Student's t.
    Student,
    /// Percentiles of the paired bootstrap.
    Percentile,
    /// The same, corrected for bias and skewness.
    Bca,
}

/// What several systems are compared over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverArg {
    /// Tasks: speaks of other tasks.
    Tasks,
    /// Examples: speaks of other examples of these tasks.
    Examples,
}

fn number(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.trim().parse().ok().filter(|x: &f64| x.is_finite());
    value.ok_or_else(|| format!("`{text}` is no number"))
}

/// A level of tests and intervals.
pub fn level(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value > 0.0 && value < 1.0 {
        Ok(value)
    } else {
        Err("must lie between 0 and 1, such as 0.05".into())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err("must lie between 0 and 1".into())
    }
}

fn size(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value >= 0.0 {
        Ok(value)
    } else {
        Err("must be at least 0".into())
    }
}

fn allowance(text: &str) -> Result<(String, f64), String> {
    let (task, value) = text
        .rsplit_once('=')
        .ok_or("must be TASK=ALLOWANCE, such as intents=0.02")?;
    Ok((task.to_owned(), size(value)?))
}
