//! What can be typed after `polyloom tasks`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use polyloom::evaluate::board::import::Source;
use polyloom::tasks::spec::GroupAs;

use crate::args_results::{ResultArgs, source};

/// `polyloom tasks`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom tasks list --type classification
  polyloom tasks show mpqa                        (by id, or a spec file, or a folder with a task.json)
  polyloom tasks check my.task.toml --strict
  polyloom tasks new people.csv --targets income,hours --group city
  polyloom tasks new pictures/                    (pictures/<class>/<file>.png)
  polyloom tasks split people.csv --stratify income -o people
  polyloom tasks split text/sst2 text/subj text/trec --levels skill -o levels
  polyloom tasks pool retrieval/banking77_same_intent bm25.jsonl e5.jsonl --queries 500 -o small
  polyloom tasks corrupt vision/digits --kind noise --severity 3 -o noisy     (then POLYLOOM_DATA=noisy polyloom eval ...)
  polyloom tasks sample text/sst2 text/subj --policy temperature --temperature 3
  polyloom tasks check my.task.toml --against train.jsonl
  polyloom tasks downsample scores.csv --least 0.9
  polyloom tasks import lm_eval/tasks/mine.yaml -o tasks
  polyloom tasks export my.task.toml -o mine.yaml

Exit code 1 of `check` means that a check failed.")]
pub struct TasksArgs {
    #[command(subcommand)]
    pub verb: TasksVerb,
}

/// What to do with tasks.
#[derive(Debug, Subcommand)]
pub enum TasksVerb {
    /// List tasks by id
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one task: what is asked, where its rows are, how it is scored
    Show(ShowArgs),
    /// Look for leaks, duplicates, empty rows, skewed labels, id columns and missing files
    Check(CheckArgs),
    /// Write a spec for a table: types are inferred and shown
    New(NewArgs),
    /// Split a table into files: shuffled, stratified, by group or by time; or tasks into held-out levels
    Split(SplitArgs),
    /// Make a retrieval task small: relevant documents and the hardest others that systems found
    Pool(PoolArgs),
    /// Show how often each task is drawn in joint training under a policy
    Sample(SampleArgs),
    /// Generate tasks with known truth: scenes, an interaction log, related tables
    Synth(crate::args_synth::SynthArgs),
    /// Write tasks whose images are worse: noise, blur, low contrast, a hidden patch
    Corrupt(CorruptArgs),
    /// Write a task that asks for several skills in one text on a topic
    SkillMix(SkillMixArgs),
    /// Turn task files of other collections into specs
    Import(ImportArgs),
    /// Write a task as lm-evaluation-harness YAML
    Export(ExportArgs),
    /// Leave out the tasks that the others predict, and say how well the ranking is kept
    Downsample(DownsampleArgs),
}

/// Where tasks and their data are.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// More tasks: a spec file, a folder of specs, a folder with a task.json (repeatable)
    #[arg(long, value_name = "PATH")]
    pub catalogue: Vec<PathBuf>,
    /// Folder that data folders are relative to (default: beside the spec, then ../shared/data)
    #[arg(long, value_name = "DIR", env = "POLYLOOM_DATA")]
    pub data: Option<PathBuf>,
}

impl Places {
    /// As they were typed.
    pub fn words(&self) -> Vec<String> {
        let catalogue = self.catalogue.iter().map(|p| ("--catalogue", p));
        let data = self.data.iter().map(|p| ("--data", p));
        let typed = catalogue.chain(data);
        typed
            .flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()])
            .collect()
    }
}

/// `polyloom tasks list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only tasks of this type (classification, regression, span, ...)
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Only tasks with this skill, domain, capability or tag
    #[arg(long, value_name = "WORD")]
    pub tag: Option<String>,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A task or group id, a spec file, or a folder with a task.json
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Print the spec as TOML, defaults left out
    #[arg(long, conflicts_with = "example")]
    pub toml: bool,
    /// Print how row N (from 1) of the last split is asked, its few-shot examples included
    #[arg(long, value_name = "N")]
    pub example: Option<usize>,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Task or group ids, spec files, folders (default: all shipped tasks)
    #[arg(value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Warnings fail too
    #[arg(long)]
    pub strict: bool,
    /// Also look for the task's texts in a training file (a table or plain text): runs of 13 words (repeatable)
    #[arg(long, value_name = "FILE")]
    pub against: Vec<PathBuf>,
    /// With --against: write the rows of the held-out splits that are not in it as DIR/<task>/<split>.jsonl
    #[arg(long, value_name = "DIR", requires = "against")]
    pub clean: Option<PathBuf>,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// A table (.csv, .tsv, .jsonl, .json, .parquet), or a folder of images in folders by class
    #[arg(value_name = "TABLE|FOLDER")]
    pub table: PathBuf,
    /// The column of texts, or two for pairs [default: the one of running text where nothing else is a feature]
    #[arg(long, value_name = "A[,B]", value_delimiter = ',', num_args = 1)]
    pub input: Vec<String>,
    #[command(flatten)]
    pub columns: Columns,
    /// Task id (default: the file's name)
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Seed of the splits
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 0)]
    pub seed: u64,
    /// Spec file (default: TABLE with the ending .task.toml)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing spec file
    #[arg(long)]
    pub force: bool,
    /// Print the spec instead of writing it
    #[arg(long)]
    pub dry_run: bool,
}

/// What the columns of a table are.
#[derive(Debug, Clone, Default, Args)]
pub struct Columns {
    /// Target columns
    #[arg(
        long,
        visible_alias = "target",
        value_name = "A,B",
        value_delimiter = ','
    )]
    pub targets: Vec<String>,
    /// Group column
    #[arg(long, value_name = "COLUMN")]
    pub group: Option<String>,
    /// What the group does
    #[arg(long, value_name = "HOW", default_value = "task", requires = "group")]
    pub group_as: GroupAsArg,
    /// Column that orders time-aware splits
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,
    /// Column of row weights: what a row counts in the loss of training, at least 0 (scores count rows alike)
    #[arg(long, value_name = "COLUMN")]
    pub weight: Option<String>,
    /// Columns that are no features
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub drop: Vec<String>,
    /// Column that says whose session a row is of: --model m2trec learns the items of sessions (--item), --model dtrn shows rows
    /// what was before them (--history)
    #[arg(long, value_name = "COLUMN")]
    pub session: Option<String>,
    /// Column that orders the rows of a session [default: the order of the file]
    #[arg(long, value_name = "COLUMN", requires = "session")]
    pub order: Option<String>,
    /// Column that says which item a row of a session is about: one more target, `next`
    #[arg(long, value_name = "COLUMN", requires = "session")]
    pub item: Option<String>,
    /// Columns of words of which a row sees what the rows of its session before it have
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "session")]
    pub history: Vec<String>,
    /// Earlier rows that a model is told of as such, such as "clicked == 1" [default: none]
    #[arg(long, value_name = "PREDICATE", requires = "history")]
    pub mark: Option<String>,
    /// Rows where targets exist, such as "clicked == 1" [default: all]
    #[arg(long, value_name = "PREDICATE")]
    pub sample: Option<String>,
}

/// What a group column does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum GroupAsArg {
    /// One task per value.
    #[default]
    Task,
    /// A group stays in one split.
    Split,
    /// A group is one cluster in intervals.
    Cluster,
}

impl From<GroupAsArg> for GroupAs {
    fn from(asked: GroupAsArg) -> Self {
        match asked {
            GroupAsArg::Task => Self::Task,
            GroupAsArg::Split => Self::Split,
            GroupAsArg::Cluster => Self::Cluster,
        }
    }
}

/// `polyloom tasks split`
#[derive(Debug, Args)]
pub struct SplitArgs {
    /// A table (.csv, .tsv, .jsonl, .json, .parquet); with --levels of tasks: task or group ids, spec files
    #[arg(value_name = "TABLE", required = true)]
    pub tables: Vec<String>,
    /// Names and shares of the parts, which sum to 1
    #[arg(
        long,
        value_name = "NAME=SHARE,...",
        value_delimiter = ',',
        default_value = "train=0.8,validation=0.1,test=0.1"
    )]
    pub parts: Vec<String>,
    /// Hold out whole categories, tasks of seen categories and rows of seen tasks, and check for leaks: by these two
    /// columns of a table, or of tasks by type, skill, domain, capability, tag, modality or language
    #[arg(
        long,
        value_name = "CATEGORY[,TASK]",
        group = "by",
        conflicts_with = "parts"
    )]
    pub levels: Option<String>,
    /// Share that --levels holds out at each level
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, requires = "levels")]
    pub hold_out: f64,
    /// Split of the tasks whose rows --levels takes
    #[arg(
        long,
        value_name = "NAME",
        default_value = "train",
        requires = "levels"
    )]
    pub split: String,
    /// Every value of this column has the same shares in every part
    #[arg(long, value_name = "COLUMN", group = "by")]
    pub stratify: Option<String>,
    /// Rows with the same value of this column stay together
    #[arg(long, value_name = "COLUMN", group = "by")]
    pub group: Option<String>,
    /// Earlier rows by this column come first
    #[arg(long, value_name = "COLUMN", group = "by")]
    pub time: Option<String>,
    /// Seed of the shuffle
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 0)]
    pub seed: u64,
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace parts that exist
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks pool`
#[derive(Debug, Args)]
pub struct PoolArgs {
    /// A retrieval task with a split `documents`: its id or spec file
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Rankings of all documents, a file per system (.jsonl, .csv, .parquet), as `polyloom eval` reads them; several
    /// systems of different kinds are best
    #[arg(value_name = "RANKINGS", required = true)]
    pub rankings: Vec<PathBuf>,
    /// Documents that are not relevant, per query
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub negatives: usize,
    /// Keep so many queries, drawn by seed (default: all)
    #[arg(long, value_name = "N")]
    pub queries: Option<usize>,
    /// Split of the queries
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub split: String,
    /// Seed of the draw of queries
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 0)]
    pub seed: u64,
    /// Folder for the small task
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks corrupt`
#[derive(Debug, Args)]
pub struct CorruptArgs {
    /// Task or group ids, spec files: tasks of images
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// What is done to the images
    #[arg(long, value_enum)]
    pub kind: CorruptionArg,
    /// How strongly, 1 to 5
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub severity: u8,
    /// Splits whose images are made worse; the others are copied
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "test"
    )]
    pub split: Vec<String>,
    /// Seed of noise and places, below 65536
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..65536))]
    pub seed: u64,
    /// Folder of the data: with POLYLOOM_DATA=DIR every command reads these in place of the originals
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace folders that exist
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// What is done to images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CorruptionArg {
    /// Gaussian noise (ImageNet-C).
    Noise,
    /// Gaussian blur of 1 to 6 % of the longer side.
    Blur,
    /// Less contrast (ImageNet-C).
    Contrast,
    /// A patch of 20 to 60 % of both sides hidden.
    Occlusion,
}

/// `polyloom tasks skill-mix`
#[derive(Debug, Args)]
pub struct SkillMixArgs {
    /// Names of skills, one a line
    #[arg(long, value_name = "FILE")]
    pub skills: PathBuf,
    /// Names of topics, one a line
    #[arg(long, value_name = "FILE")]
    pub topics: PathBuf,
    /// Skills in one text
    #[arg(short, long, value_name = "K", default_value_t = 3)]
    pub k: usize,
    /// Texts: combinations of skills and topic, all different
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: usize,
    /// Most sentences of a text
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub sentences: usize,
    /// Seed of the draws
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 0)]
    pub seed: u64,
    /// Task id
    #[arg(long, value_name = "ID", default_value = "skill-mix")]
    pub id: String,
    /// Spec file (default: print it)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing spec file
    #[arg(long)]
    pub force: bool,
}

/// `polyloom tasks sample`
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// Task or group ids, spec files
    #[arg(value_name = "TASK", required = true)]
    pub tasks: Vec<String>,
    /// Rule from rows to shares; `weights.train` of a task multiplies its share
    #[arg(long, value_name = "RULE", default_value = "proportional")]
    pub policy: PolicyArg,
    /// Temperature of `--policy temperature`: shares follow n^(1/T)
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    pub temperature: f64,
    /// A task counts as having at most so many rows
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<u64>,
    /// Also draw so many tasks and count them
    #[arg(long, value_name = "N")]
    pub draws: Option<u64>,
    /// Seed of the draws
    #[arg(long, value_name = "N", env = "POLYLOOM_SEED", default_value_t = 0)]
    pub seed: u64,
    /// Split whose rows are counted
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub split: String,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks import`
#[derive(Debug, Args)]
#[command(
    after_help = "Formats: lm-eval (YAML, include and groups followed), big-bench, bbh, natural-instructions,
tasksource (mapping as JSON), hf-card (data-set folder), mteb (metadata as JSON), taskbench, bfcl.
What needs Python code is refused by the name of its function. Exit code 1 where a file was refused."
)]
pub struct ImportArgs {
    /// A task file, or a folder that is searched for them
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Say the format instead of recognising it
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Folder for the specs
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Folder that has the data sets which the files name (repeatable; default: beside the file)
    #[arg(long, value_name = "DIR", env = "POLYLOOM_DATA")]
    pub data: Vec<PathBuf>,
    /// Replace specs that exist
    #[arg(long)]
    pub force: bool,
    /// Show what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// `polyloom tasks export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A task id, a spec file, or a folder with a task.json
    #[arg(value_name = "TASK")]
    pub task: String,
    /// YAML file (default: print it); rows of an inline task go into a .jsonl file beside it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub places: Places,
}

/// `polyloom tasks downsample`
#[derive(Debug, Args)]
pub struct DownsampleArgs {
    /// Files or folders of results, as `polyloom board` reads them: tables with columns system, task and score or with a
    /// row per system, results.json, lm-eval, MTEB, HELM
    #[arg(value_name = "FILES", required = true, value_parser = source)]
    pub files: Vec<Source>,
    /// Fewest tasks to keep
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub size: usize,
    /// Stop when no task is predicted with at least this correlation; 0 goes on down to --size
    #[arg(long, value_name = "R", default_value_t = 0.8)]
    pub least: f64,
    /// What decides which task is predicted best
    #[arg(long, value_name = "RULE", default_value = "pearson")]
    pub criterion: CriterionArg,
    /// Tasks that stay
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub keep: Vec<String>,
    /// The last task of a group may go too
    #[arg(long)]
    pub ignore_groups: bool,
    #[command(flatten)]
    pub results: ResultArgs,
}

/// What decides which task is predicted best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CriterionArg {
    /// Pearson correlation of predicted and observed scores.
    Pearson,
    /// Spearman correlation.
    Spearman,
    /// 1 minus the mean squared difference of scaled scores.
    Mse,
}

/// Sampling rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// The same for every task.
    Uniform,
    /// By rows.
    Proportional,
    /// By rows to the power 1/T.
    Temperature,
    /// By the square root of rows.
    SquareRoot,
}
