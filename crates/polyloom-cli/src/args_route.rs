//! What can be typed after `polyloom route`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use polyloom_learn::route::Tap;

use crate::args_tasks::Places;

/// `polyloom route`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom route fit --model models/base -t digits,fashion -o router.safetensors
  polyloom route fit --experts loom.toml --method mlp -o router.safetensors
  polyloom route query router.safetensors \"my card was swallowed\"
  polyloom route eval router.safetensors
  polyloom route add router.safetensors --task mpqa -o router.safetensors --force")]
pub struct RouteArgs {
    #[command(subcommand)]
    pub verb: RouteVerb,
}

/// What to do with routers.
#[derive(Debug, Subcommand)]
pub enum RouteVerb {
    /// Fit a router on the rows of tasks, one expert each
    Fit(Box<FitArgs>),
    /// Ask a router where inputs belong
    Query(QueryArgs),
    /// Count how often a router is right on tasks, and what its mistakes cost
    Eval(EvalArgs),
    /// Give a router one more expert, without training (centroid, knn, pilots)
    Add(AddArgs),
    /// Take an expert out of a router, without training (centroid, knn, pilots)
    Remove(RemoveArgs),
    /// Count what saved systems can do, skill by skill (Symbolic-MoE)
    Profile(ProfileArgs),
    /// Draw systems for questions by their skills (Symbolic-MoE)
    Recruit(RecruitArgs),
    /// Say from which win rate on a strong model is asked, and what that brings (RouteLLM)
    Threshold(ThresholdArgs),
}

/// `polyloom route fit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom route fit --model out/merged -t digits,fashion,signs -o router.safetensors
  polyloom route fit --model models/minilm --feature embedding -t retrieval/a,retrieval/b --split validation --method pilots \
    --results a=a/results.json,b=b/results.json -o pilots.safetensors      (RouterRetriever)
  polyloom route fit --model models/base -t text/sst2,text/trec --method knn --feature layer:1 -o r.safetensors
  polyloom route fit --experts loom.toml --method pilots --k 4 --similarity cosine -o r.safetensors
  polyloom route fit --model models/minilm -t text/sst2 --split validation --method predicted_loss \\
    --results small=s/results.json,large=l/results.json --cost bytes=28e6,440e6 --budget bytes=100e6 -o r.safetensors")]
pub struct FitArgs {
    /// The model whose features are read: the base, or a merged model that all experts share
    #[arg(long, value_name = "MODEL", required_unless_present = "experts")]
    pub model: Option<String>,
    /// Tasks, one expert each: ids or spec files
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ',',
        required_unless_present = "experts"
    )]
    pub tasks: Vec<String>,
    /// A loom.toml: its base is the model, each [[expert]] with its `task` an expert
    #[arg(long, value_name = "RECIPE", conflicts_with = "tasks")]
    pub experts: Option<PathBuf>,
    /// Choose among saved systems by what each scored on the rows of all tasks: results of `polyloom eval` (predicted_loss, pilots)
    #[arg(
        long,
        value_name = "NAME=RESULTS",
        value_delimiter = ',',
        requires = "model",
        conflicts_with = "experts"
    )]
    pub results: Vec<String>,
    /// predicted_loss: what the systems cost, in their order, such as bytes=440e6,28e6 (repeatable)
    #[arg(long, value_name = "NAME=N,N,...", requires = "results")]
    pub cost: Vec<String>,
    /// predicted_loss: how much loss the largest cost is worth (repeatable)
    #[arg(long, value_name = "COST=WEIGHT", requires = "cost")]
    pub weigh: Vec<String>,
    /// predicted_loss: costs that no choice may exceed (repeatable)
    #[arg(long, value_name = "COST=N", requires = "cost")]
    pub most: Vec<String>,
    /// predicted_loss: weigh a cost so that choices keep to N of it on average over the rows that are seen
    #[arg(
        long,
        value_name = "COST=N",
        requires = "cost",
        conflicts_with = "weigh"
    )]
    pub budget: Option<String>,
    /// How an expert is chosen
    #[arg(long, value_name = "METHOD", default_value = "centroid")]
    pub method: Method,
    /// What is read: mean, cls, last, pooled, embedding, layer:K [default: what heads of the model see]
    #[arg(long, value_name = "WHAT")]
    pub feature: Option<Tap>,
    /// Split whose rows are seen; a tenth of them is held out
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub split: String,
    /// Rows of each task at most
    #[arg(long, visible_alias = "limit", short = 'L', value_name = "N", value_parser = at_least_one)]
    pub max_per_task: Option<usize>,
    /// Seed of the rows that are drawn and held out, and of training
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Divides similarities before the softmax [default: 0.07 for cosines, 1 for inner products]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Below this similarity no expert is chosen: the base answers
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub min_similarity: Option<f32>,
    /// Neighbours of knn [default: 10], pilots of an expert [default: 1]
    #[arg(long, value_name = "N")]
    pub k: Option<usize>,
    /// What an expert's pilots come to
    #[arg(long, value_name = "HOW", default_value = "mean")]
    pub reduce: ReduceArg,
    /// How pilots are compared
    #[arg(long, value_name = "HOW", default_value = "dot")]
    pub similarity: SimilarityArg,
    /// mlp: width of the hidden layers [default: twice that of the features]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub hidden: Option<usize>,
    /// mlp: passes over the rows [default: 50]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// mlp: learning rate [default: 5e-4]
    #[arg(long, visible_alias = "lr", value_name = "RATE")]
    pub rate: Option<f32>,
    /// mlp: rows of a step [default: 1024]
    #[arg(long, value_name = "N")]
    pub batch_rows: Option<usize>,
    /// mlp: share of hidden values left out [default: 0.5]
    #[arg(long, value_name = "P")]
    pub dropout: Option<f32>,
    /// Router to write (.safetensors)
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub reading: Reading,
    #[command(flatten)]
    pub writing: Writing,
    #[command(flatten)]
    pub places: Places,
}

/// How a model reads inputs.
#[derive(Debug, Clone, Args)]
pub struct Reading {
    /// Texts are cut to N tokens [default: as in training, where the folder says so, else what the model takes]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_length: Option<usize>,
    /// How pictures are prepared, where the model's folder has no preprocessor_config.json: such a file
    #[arg(long, value_name = "FILE")]
    pub preprocessor: Option<PathBuf>,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub batch: usize,
}

/// How a router is written.
#[derive(Debug, Clone, Args)]
pub struct Writing {
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    /// Skip fsync of the output
    #[arg(long)]
    pub no_sync: bool,
}

/// `polyloom route query`
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// A router that `route fit` wrote
    #[arg(value_name = "ROUTER")]
    pub router: PathBuf,
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
    /// Experts to show of each input
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub top: usize,
    /// The model that the router was fitted on, where it lies elsewhere now
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub batch: usize,
}

/// `polyloom route eval`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom route eval router.safetensors
  polyloom route eval router.safetensors --split validation -L 200
  polyloom route eval pilots.safetensors --results a=a/results.json,b=b/results.json -o routed.json
  polyloom route eval router.safetensors --results digits=out/digits/results.json,signs=out/signs/results.json")]
pub struct EvalArgs {
    /// A router that `route fit` wrote
    #[arg(value_name = "ROUTER")]
    pub router: PathBuf,
    /// Split whose rows are asked
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,
    /// Rows of each task at most
    #[arg(short = 'L', long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Results of `polyloom eval` for each expert: what wrong choices cost
    #[arg(long, value_name = "EXPERT=RESULTS", value_delimiter = ',')]
    pub results: Vec<String>,
    /// Tasks whose rows are asked, for routers over saved systems [default: those that it was fitted on]
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// Write the records of the systems that are chosen, as results that `compare` and `board` read (routers over saved systems)
    #[arg(short, long, value_name = "FILE", requires = "results")]
    pub output: Option<PathBuf>,
    /// Replace that file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Show what choices bring at many weights of a cost (predicted_loss)
    #[arg(long, value_name = "COST", requires = "results")]
    pub sweep: Option<String>,
    /// The model that the router was fitted on, where it lies elsewhere now
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub batch: usize,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom route add`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A router that `route fit` wrote
    #[arg(value_name = "ROUTER")]
    pub router: PathBuf,
    /// Task of the new expert: its rows are the examples
    #[arg(short, long, value_name = "TASK")]
    pub task: String,
    /// Name of the expert [default: the task's id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where its weights lie
    #[arg(long, value_name = "MODEL")]
    pub expert: Option<String>,
    /// Split whose rows are seen
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub split: String,
    /// Rows at most
    #[arg(long, visible_alias = "limit", short = 'L', value_name = "N", value_parser = at_least_one)]
    pub max_per_task: Option<usize>,
    /// Seed of the rows that are drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Pilots of the expert
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub k: usize,
    /// The model that the router was fitted on, where it lies elsewhere now
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Inputs of a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub batch: usize,
    /// Router to write (.safetensors)
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub writing: Writing,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom route remove`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// A router that `route fit` wrote
    #[arg(value_name = "ROUTER")]
    pub router: PathBuf,
    /// Name of the expert
    #[arg(value_name = "EXPERT")]
    pub expert: String,
    /// Router to write (.safetensors)
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub writing: Writing,
}

/// `polyloom route profile`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom route profile small=out/small/results.json large=out/large/results.json -o profiles.json
  polyloom route profile a=a.parquet b=b.parquet --skills skills.csv -o profiles.json")]
pub struct ProfileArgs {
    /// Results of `polyloom eval`, or records, of each system
    #[arg(value_name = "NAME=RESULTS", required = true)]
    pub results: Vec<String>,
    /// A table with the skills of examples: columns id, skill (several with `;` between them), perhaps task [default: the
    /// tag `skill` of each task]
    #[arg(long, value_name = "FILE")]
    pub skills: Option<PathBuf>,
    /// Score from which on an answer counts as right
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    pub right: f64,
    /// File to write (.json)
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub writing: Writing,
}

/// `polyloom route recruit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom route recruit profiles.json algebra,logic biology
  polyloom route recruit profiles.json algebra --picks 1")]
pub struct RecruitArgs {
    /// Profiles that `route profile` wrote
    #[arg(value_name = "PROFILES")]
    pub profiles: PathBuf,
    /// Skills of each question, with commas between them
    #[arg(value_name = "SKILL,...", required = true)]
    pub questions: Vec<String>,
    /// Systems for each question, drawn with replacement
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    pub picks: usize,
    /// Below 1, systems that are strong over all count more
    #[arg(long, value_name = "T", default_value_t = 0.5)]
    pub temperature: f64,
    /// Systems with less than this share of all picks give way to the others
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    pub rare: f64,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// `polyloom route threshold`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom route threshold win_rates.csv --column win_rate --share 0.25,0.5
  polyloom route threshold win_rates.csv --strong large.parquet --weak small.parquet")]
pub struct ThresholdArgs {
    /// A table with an id and a win rate of the strong model for each prompt
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Column of the win rates
    #[arg(long, value_name = "NAME", default_value = "win_rate")]
    pub column: String,
    /// Shares of calls that may go to the strong model
    #[arg(long, value_name = "P", value_delimiter = ',', default_values_t = [0.25, 0.5, 0.75])]
    pub share: Vec<f64>,
    /// Results or records of the strong model on these prompts
    #[arg(long, value_name = "RESULTS", requires = "weak")]
    pub strong: Option<PathBuf>,
    /// Results or records of the weak model on these prompts
    #[arg(long, value_name = "RESULTS", requires = "strong")]
    pub weak: Option<PathBuf>,
}

use crate::args_eval::at_least_one;

/// How an expert is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// The nearest mean of examples (cosine)
    Centroid,
    /// The nearest examples vote (cosine)
    Knn,
    /// Logistic regression
    Linear,
    /// Two hidden layers with batch norms (Twin-Merging's router)
    Mlp,
    /// The most similar pilots of an expert (RouterRetriever)
    Pilots,
    /// The least predicted loss of saved systems, under constraints (Tryage)
    #[value(name = "predicted_loss")]
    PredictedLoss,
}

/// What an expert's pilots come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReduceArg {
    /// Their mean similarity
    Mean,
    /// The largest
    Max,
}

/// How pilots are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SimilarityArg {
    /// Inner product
    Dot,
    /// Of unit vectors
    Cosine,
}
