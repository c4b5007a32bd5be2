//! What can be typed after `polyloom export`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use polyloom_learn::calibrate::Level;

/// `polyloom export`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom export people -o people.onnx
  polyloom --json export people -o people.onnx --force      (inputs and outputs as JSON)

The file takes raw cells, a column an input: words as string [N, 1] (empty where missing), numbers as double [N, 1] (NaN where
missing; of a date the days since 1970-01-01). It gives prediction_TARGET and, of classes, probabilities_TARGET, with what
calibration.json says; with --interval their ends and sets. Operators: ai.onnx 17 and ai.onnx.ml 3, those of ONNX 1.12.")]
pub struct ExportArgs {
    /// A model of tables, networks or trees, that `polyloom train` wrote
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Give what `predict --interval` does too: TARGET.low and TARGET.high of a number, TARGET.set of classes, which hold the truth
    /// with this probability (`polyloom calibrate` first)
    #[arg(long, value_name = "LEVEL", value_parser = Level::parse)]
    pub interval: Option<Level>,
    /// Its format
    #[arg(long, value_name = "NAME", default_value = "onnx")]
    pub format: Format,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut
    #[arg(long, env = "POLYLOOM_NO_SYNC", value_parser = BoolishValueParser::new())]
    pub no_sync: bool,
}

/// Formats of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// ONNX: preparation, network or trees, heads and calibration in one graph
    Onnx,
}
