//! What can be typed after `polyloom run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `polyloom run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom run models/all-MiniLM-L6-v2 \"my card was swallowed\"            (a vector)
  polyloom run models/sentiment -f reviews.csv --column text -o out.jsonl   (classes)
  polyloom run models/vit digit.png --top 3
  polyloom run models/clip pet.jpg --classes \"a cat,a dog\" --top 2
  polyloom run out/ties --task banking77 \"my card was swallowed\"        (its head for the task)
  polyloom run models/qwen --max-tokens 40 \"Once upon a time\"")]
pub struct RunArgs {
    /// A folder with config.json and weights, MODEL+ADAPTER, or hf:org/name in the local cache
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Texts; for models of pictures, image files
    #[arg(value_name = "INPUT", required_unless_present = "file")]
    pub inputs: Vec<String>,
    /// More inputs: .txt (a line each), .csv, .tsv, .jsonl, .parquet
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Column of the inputs [default: text, sentence, input, prompt, question, sentence1, query]
    #[arg(long, value_name = "NAME", requires = "file")]
    pub column: Option<String>,
    /// Column of the second text of a pair
    #[arg(long, value_name = "NAME", requires = "file")]
    pub column2: Option<String>,
    /// What is asked [default: what the model is for]
    #[arg(long = "as", value_name = "WHAT")]
    pub kind: Option<Kind>,
    /// The same as --as embed
    #[arg(long, conflicts_with = "kind")]
    pub embed: bool,
    /// Ask the head of a task: heads/TASK.safetensors of the folder, of an adapter, or of --heads
    #[arg(long, value_name = "TASK", conflicts_with_all = ["kind", "embed"])]
    pub task: Option<String>,
    /// Another folder of heads
    #[arg(long, value_name = "DIR", requires = "task")]
    pub heads: Option<PathBuf>,
    /// Classes in words, for a CLIP: "a cat,a dog"
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',', conflicts_with_all = ["kind", "embed", "task"])]
    pub classes: Vec<String>,
    /// Classes to show
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_tokens: usize,
    /// 0 takes the likeliest token; above, tokens are drawn
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f32,
    /// Draw among so many of the likeliest tokens, 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Draw among the likeliest tokens that reach this share
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    pub top_p: f32,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub fuse: crate::args_fuse::FuseArgs,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// File for the answers, one JSON object a line (.jsonl), in place of the terminal
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
}

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A vector.
    Embed,
    /// A class with its probability.
    Classify,
    /// More text.
    Generate,
}

fn temperature(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|t: &f32| *t >= 0.0 && t.is_finite())
        .ok_or_else(|| "a number from 0 on".into())
}

fn share(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|p: &f32| *p > 0.0 && *p <= 1.0)
        .ok_or_else(|| "a number above 0, at most 1".into())
}
