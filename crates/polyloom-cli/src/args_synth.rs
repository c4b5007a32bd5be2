//! What can be typed after `polyloom tasks synth`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `polyloom tasks synth`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom tasks synth shapes > shapes.task.toml      (a spec that makes its rows as it is read)
  polyloom tasks synth shapes --missing 0.5 -o shapes (Parquet files and a task.json)
  polyloom tasks synth log --bias 0 -o unbiased
  polyloom tasks synth multitab --correlation 0.9 --rows 500 -o tables
  polyloom tasks synth fields --geometry triangle > unseen.task.toml

Rows depend on the options and their number alone. They prove mechanisms, never quality in the world.")]
pub struct SynthArgs {
    #[command(subcommand)]
    pub generator: SynthArg,
}

/// The generators.
#[derive(Debug, Subcommand)]
pub enum SynthArg {
    /// Rendered scenes with five targets: classes, depth, normals, edges, main class
    Shapes(ShapesArgs),
    /// Impressions that are clicked, put in the cart, bought, with known probabilities
    Log(LogArgs),
    /// Tables with several targets of chosen relatedness
    Multitab(MultitabArgs),
    /// Two differential equations over sources and geometries, solved on a grid
    Fields(FieldsArgs),
}

/// What every generator takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Seed, below 65536
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 7)]
    pub seed: u64,
    /// Write Parquet files and a task.json into this folder (default: print a spec that needs no files)
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace an existing folder
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// `polyloom tasks synth shapes`
#[derive(Debug, Args)]
pub struct ShapesArgs {
    /// Scenes; 10/12 train, 1/12 validation, 1/12 test
    #[arg(long, value_name = "N", default_value_t = 12_000)]
    pub count: u64,
    /// Share of the targets of training scenes that are withheld
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub missing: f64,
    /// Factor on the noise of pixels
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub noise: f64,
    /// What tells a class
    #[arg(long, value_name = "WHAT", default_value = "shape")]
    pub classes: ClassesArg,
    #[command(flatten)]
    pub common: Common,
}

/// What tells a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassesArg {
    /// The shape alone.
    Shape,
    /// The colour too: for smoke tests.
    Colour,
}

/// `polyloom tasks synth log`
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Impressions; 80 % train, 10 % validation, 10 % test, by time
    #[arg(
        long,
        visible_alias = "rows",
        value_name = "N",
        default_value_t = 300_000
    )]
    pub count: u64,
    /// Users
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub users: u32,
    /// Items, a multiple of 20
    #[arg(long, value_name = "N", default_value_t = 3000)]
    pub items: u32,
    /// How much the shown item is the one that would be clicked; 0 = no exposure bias
    #[arg(long, value_name = "B", default_value_t = 1.0)]
    pub bias: f64,
    #[command(flatten)]
    pub common: Common,
}

/// `polyloom tasks synth multitab`
#[derive(Debug, Args)]
pub struct MultitabArgs {
    /// Rows; 80 % train, 10 % validation, 10 % test
    #[arg(
        long,
        visible_alias = "rows",
        value_name = "N",
        default_value_t = 20_000
    )]
    pub count: u64,
    /// Tasks
    #[arg(long, value_name = "T", default_value_t = 8)]
    pub tasks: usize,
    /// Features, at least tasks + outliers
    #[arg(long, value_name = "D", default_value_t = 32)]
    pub features: usize,
    /// Cosine between the weights of two tasks, above -1/(T-1), at most 1
    #[arg(
        long,
        value_name = "C",
        default_value_t = 0.5,
        allow_negative_numbers = true
    )]
    pub correlation: f64,
    /// Degrees of the polynomials, cycled over the tasks
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        default_value = "1,2,3"
    )]
    pub degrees: Vec<u32>,
    /// Standard deviation of the noise; the best R2 is 1/(1 + S^2)
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    pub noise: f64,
    /// What the targets are
    #[arg(long, value_name = "KIND", default_value = "regression")]
    pub kind: KindArg,
    /// Share of the targets of training rows that are withheld
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub missing: f64,
    /// The last so many tasks have weights orthogonal to all others
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub outliers: usize,
    #[command(flatten)]
    pub common: Common,
}

/// `polyloom tasks synth fields`
#[derive(Debug, Args)]
pub struct FieldsArgs {
    /// Rows; 10/12 train, 1/12 validation, 1/12 test
    #[arg(
        long,
        visible_alias = "rows",
        value_name = "N",
        default_value_t = 6_000
    )]
    pub count: u64,
    /// Where the equations hold: "seen" is one of rectangle, disc, ellipse and corner for every row
    #[arg(long, value_name = "KIND", default_value = "seen")]
    pub geometry: GeometryArg,
    #[command(flatten)]
    pub common: Common,
}

/// Where equations hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GeometryArg {
    Seen,
    Rectangle,
    Disc,
    Ellipse,
    Corner,
    Triangle,
}

/// What the targets of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Numbers.
    Regression,
    /// Labels.
    Binary,
    /// Labels for odd tasks, numbers for even ones.
    Mixed,
}
