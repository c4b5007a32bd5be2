//! What can be typed after `polyloom eval`.

use std::path::PathBuf;

use clap::Args;

use crate::args_endpoint::EndpointArgs;
use crate::args_tasks::Places;

/// `polyloom eval`
#[derive(Debug, Args)]
#[command(
    override_usage = "polyloom eval [OPTIONS] <MODEL>...\n       polyloom eval [OPTIONS] --predictions <FILE>\n       polyloom eval [OPTIONS] --endpoint <URL> --model <NAME> --task <TASK>",
    after_help = "Examples:
  polyloom eval out/ties                                        (the tasks of its heads)
  polyloom eval models/vit -t digits --heads heads -L 200
  polyloom eval out/* -t group/sentiment -o runs/               (a table, a results file each)
  polyloom eval adapters/* --heads heads --base models/minilm   (one base, opened once)
  polyloom eval out/woven                                       (task unknown; --task-known names it)
  polyloom eval --endpoint http://localhost:8000/v1 --model m -t banking77 -L 100
  polyloom eval large --fuse-base small --fuse small-tuned -t topic -o fused.json   (dynamic logits fusion)
  polyloom eval --predictions preds.csv --task mpqa             (columns id, prediction)
  polyloom eval --predictions answers.jsonl --task bbh.toml --extract step-by-step
  polyloom eval --predictions samples_arc_easy_2026-05-01T10-11-12.jsonl
  polyloom eval --predictions scored.csv --values rouge_l       (scores that the file holds)"
)]
pub struct EvalArgs {
    /// Models to run: folders with config.json, PEFT adapters, MODEL+ADAPTER, woven models, folders of heads alone, hf:org/name
    #[arg(value_name = "MODEL", conflicts_with = "predictions")]
    pub models: Vec<String>,
    /// Predictions to score: .csv, .tsv, .jsonl, .json, .parquet, or lm-eval samples
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Folder of heads (TASK.safetensors) [default: heads/ of the model, of an adapter's base, then the model's own classifier]
    #[arg(long, value_name = "DIR", requires = "models")]
    pub heads: Option<PathBuf>,
    /// Base of adapters and heads [default: what their folders name]
    #[arg(long, value_name = "MODEL", requires = "models")]
    pub base: Option<String>,
    /// A woven model is told the task: its router chooses parts, the head is that of the task [default: the router chooses
    /// the head too, and a wrong head is a wrong answer]
    #[arg(long, requires = "models")]
    pub task_known: bool,
    /// At most N rows of a task, spread evenly over the split
    #[arg(short = 'L', long, value_name = "N", conflicts_with = "predictions", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, requires = "models", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Texts are cut to N tokens [default: as in training, where the folder says so, else what the model takes]
    #[arg(long, value_name = "N", requires = "models", value_parser = at_least_one)]
    pub max_length: Option<usize>,
    #[command(flatten)]
    pub fuse: crate::args_fuse::FuseArgs,
    /// Task ids or spec files [default: those of the heads; of predictions those that the file names]
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// Split that is scored
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,
    /// Column that names an example [default: id, the task's id column, doc_id, example_id, else the order of rows]
    #[arg(
        long,
        value_name = "COLUMN",
        requires = "predictions",
        help_heading = "Scoring predictions"
    )]
    pub id: Option<String>,
    /// Column that names the task of a row [default: task]
    #[arg(
        long,
        value_name = "COLUMN",
        requires = "predictions",
        help_heading = "Scoring predictions"
    )]
    pub task_column: Option<String>,
    /// Column of predictions [default: prediction, pred, y_pred, predicted, output, label, ...]
    #[arg(
        long,
        value_name = "COLUMN",
        requires = "predictions",
        help_heading = "Scoring predictions"
    )]
    pub prediction: Option<String>,
    /// Only rows with this text in a column, such as model=small (repeatable)
    #[arg(long, value_name = "COLUMN=VALUE", requires = "predictions", help_heading = "Scoring predictions", value_parser = pair)]
    pub only: Vec<(String, String)>,
    /// How an answer is read from text: direct, last-line, step-by-step or regex:PATTERN [default: the task's rules]
    #[arg(long, value_name = "RULE")]
    pub extract: Option<String>,
    /// Take the scores of this column as they are, without a task
    #[arg(long, value_name = "COLUMN", requires = "predictions", help_heading = "Scoring predictions", conflicts_with_all = ["tasks", "metrics", "extract", "prediction"])]
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
    #[arg(long, requires = "predictions", help_heading = "Scoring predictions")]
    pub allow_partial: bool,
    /// Intervals cover 1 - ALPHA
    #[arg(long, value_name = "ALPHA", default_value_t = 0.05, value_parser = crate::args_compare::level)]
    pub alpha: f64,
    /// Draws of the bootstrap, for metrics that are no mean over examples
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub bootstrap: u64,
    /// Results file, or a folder for several; records go to a folder beside [default: results.json in a folder that polyloom
    /// wrote, else NAME.results.json here; of predictions FILE.results.json beside them]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Name of the system [default: that of its folder or file]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Score again what is unchanged; replace results of something else
    #[arg(long)]
    pub force: bool,
    /// Id of the prompt that a decoder or a server is asked with, among `[[prompts]]` of the task [default: the first]
    #[arg(long, value_name = "ID", conflicts_with = "predictions")]
    pub prompt: Option<String>,
    /// Examples in the prompt of a decoder or a server [default: what the task says]
    #[arg(long, value_name = "N", conflicts_with = "predictions")]
    pub fewshot: Option<u32>,
    /// Tokens of their answer at most [default: what the task says; for a label 64, of texts that are gone on with 16]
    #[arg(long, value_name = "N", conflicts_with = "predictions", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    #[command(flatten)]
    pub places: Places,
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// A count of at least one.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    let n = text.parse().ok().filter(|n: &usize| *n > 0);
    n.ok_or_else(|| "a whole number from 1 on".into())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (column, value) = text
        .split_once('=')
        .ok_or("write COLUMN=VALUE, such as model=small")?;
    Ok((column.to_owned(), value.to_owned()))
}
