//! What can be typed after `polyloom predict`.

use std::path::PathBuf;

use clap::Args;
use polyloom_learn::calibrate::Level;

use crate::args_tasks::Places;

/// `polyloom predict`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom predict out/ties new.csv --task banking77 -o new.predictions.csv
  polyloom predict adapters/msrp pairs.jsonl --task msrp --base models/minilm -o pairs.predictions.jsonl
  polyloom predict people new.csv -o new.predictions.csv               (a model of tables: all its targets)
  polyloom predict people new.csv --interval 90% -o new.predictions.csv      (after polyloom calibrate people)
  polyloom eval --predictions new.predictions.csv --task banking77     (once the right answers are known)")]
pub struct PredictArgs {
    /// A folder with heads, a PEFT adapter, MODEL+ADAPTER, or hf:org/name
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Rows: .csv, .tsv, .jsonl, .json, .parquet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Task whose head answers; of a task of the catalogue all targets [default: of a model of tables all that it learned]
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Predictions: .csv, .tsv, .jsonl or .parquet [default: FILE.predictions.csv beside the rows]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Add how far answers may be off: TARGET.low and TARGET.high of a number, TARGET.set of classes, which hold the truth
    /// with this probability (`polyloom calibrate` first)
    #[arg(long, value_name = "LEVEL", value_parser = Level::parse)]
    pub interval: Option<Level>,
    /// Another folder of heads
    #[arg(long, value_name = "DIR")]
    pub heads: Option<PathBuf>,
    /// Base of an adapter [default: what its folder names]
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Column of the inputs [default: the task's, else image or text, sentence, input, ...]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// Column of the second text of a pair [default: the task's]
    #[arg(long, value_name = "NAME")]
    pub column2: Option<String>,
    /// Column of ids [default: the task's, else id, else rows are counted from 0]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Inputs of a batch [default: 32, of rows of a table 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Option<u32>,
    /// Texts are cut to N tokens [default: as in training, where the folder says so, else what the model takes]
    #[arg(long, value_name = "N", value_parser = crate::args_eval::at_least_one)]
    pub max_length: Option<usize>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}
