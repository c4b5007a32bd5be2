//! What can be typed after `polyloom quickstart`.

use std::path::PathBuf;

use clap::Args;

/// `polyloom quickstart`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom quickstart
  polyloom quickstart -o family --seed 2
  polyloom quickstart --from-scratch            (trains the base too)

Needs no network and no other file: data (digits, sign digits, clothes, letters of four alphabets) and a small base are in
the program.")]
pub struct QuickstartArgs {
    /// Folder to make
    #[arg(short, long, value_name = "DIR", default_value = "first")]
    pub output: PathBuf,
    /// Train the base by its recipe, in place of taking the one that is in the program
    #[arg(long)]
    pub from_scratch: bool,
    /// Seed of all training
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Replace a folder that quickstart made
    #[arg(long)]
    pub force: bool,
}
