//! What can be typed after `polyloom train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args_tasks::{Columns, Places};

/// `polyloom train`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom train loom.toml -o experts/intent
  polyloom train --base models/all-MiniLM-L6-v2 -t text/banking77 --method lora -o adapters/intent
  polyloom train --base models/all-MiniLM-L6-v2 -t text/sst2,text/trec6 --each -o experts
  polyloom train --base models/tiny-llama -t text/sst2 --language answers -o experts/sst2
  polyloom train --base models/all-MiniLM-L6-v2 -t retrieval/clinc150_same_intent -o experts/search
  polyloom train loom.toml -o joint --set train.sampling=square-root --set train.head.start=probe
  polyloom train loom.toml -o joint --balancer cagrad --set train.balance.c=0.5
  polyloom train loom.toml -o joint --set train.mixing=unmixed --set train.optimiser=adamw
  polyloom train loom.toml -o joint --set train.optimiser=sophia_g --rate 1e-4
  polyloom train loom.toml -o joint --set train.loss=case3 --set train.representation.method=graddrop
  polyloom train loom.toml -o experts/intent --resume          (after Ctrl-C, kill -9 or a power cut)
  polyloom train people.csv --targets income,never_married --model mmoe -o people
  polyloom train people.csv --targets income --weight persons --class-weight balanced --model gbdt -o people
  polyloom train people.csv --targets income,never_married --model mmoe --twins -o people      (does it pay?)
  polyloom train people.csv --targets income --model gbdt --folds 5 --repeats 3 -o people       (scores of a small table)
  polyloom train school.csv --targets score --group school --goals groups --model mmoe -o school    (a goal for each school)
  polyloom train -t tabular/adult_census --model ple --balancer nash -o census

Keys of [train] with their defaults: docs/reference/training.md")]
pub struct TrainArgs {
    /// A loom.toml with [base] and [train], whose keys count less than flags; or a table (.csv, .tsv, .jsonl, .parquet) with
    /// --targets
    #[arg(value_name = "RECIPE|TABLE", required_unless_present = "tasks")]
    pub recipe: Option<PathBuf>,
    /// Folder to write: a model, or a PEFT adapter, with heads/ and polyloom.json
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// The model to begin with: a folder, MODEL+ADAPTER, or hf:org/name in the local cache
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Tasks to learn, together: ids or spec files
    #[arg(
        short,
        long = "task",
        visible_alias = "tasks",
        value_name = "TASK",
        value_delimiter = ','
    )]
    pub tasks: Vec<String>,
    /// New model of tables: shared_bottom, mmoe, ple, ... (docs/reference/architectures.md), or trees: gbdt, gbdt_shared, r_mtgb
    #[arg(long, value_name = "NAME", conflicts_with = "base")]
    pub model: Option<String>,
    /// Of a new model of tables: a goal (tower, gate, own experts or trees) for each target, or one for each group of the
    /// table's group column and target [default: targets]
    #[arg(long, value_name = "WHAT", conflicts_with = "base")]
    pub goals: Option<Goals>,
    /// Of a new model of tables: train a network for each target and boosted trees on the same rows too, score all on the
    /// test rows (with --folds: on the same folds), and say whether learning together pays (OUTPUT.twins)
    #[arg(long)]
    pub twins: bool,
    #[command(flatten)]
    pub columns: Columns,
    /// Of a new model of tables: score it by cross-validation too. The rows of all splits are put into N folds, a model for
    /// each is trained on the others, and scores, intervals and every row's answer go to OUTPUT.folds
    #[arg(long, value_name = "N", conflicts_with_all = ["base", "each"])]
    pub folds: Option<u32>,
    /// Times that folds are drawn [default: 1]
    #[arg(long, value_name = "N")]
    pub repeats: Option<u32>,
    /// One expert per task (DIR/<task>), instead of one model for all
    #[arg(long)]
    pub each: bool,
    /// What changes
    #[arg(long, value_name = "WHAT")]
    pub method: Option<Method>,
    /// Train a decoder on language, without heads: texts of the tasks, or answers to their prompts
    #[arg(long, value_name = "WHAT")]
    pub language: Option<Language>,
    /// Times that every row is seen [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    pub epochs: Option<f64>,
    /// Steps of the optimiser
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Rows of a pass [default: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<u32>,
    /// Highest learning rate [default: 5e-5 full, 5e-4 lora, 1e-3 head]
    #[arg(long, visible_alias = "lr", value_name = "RATE")]
    pub rate: Option<f64>,
    /// Rank of low-rank parts [default: 8]
    #[arg(long, visible_alias = "r", value_name = "N")]
    pub rank: Option<u32>,
    /// How tasks are balanced: equal, uncertainty, famo, mgda, pcgrad, cagrad, nash, ... (docs/reference/balancers.md)
    #[arg(long, value_name = "NAME")]
    pub balancer: Option<String>,
    /// What rows of a class count in the loss: balanced (all classes of a target alike), or numbers by class: yes=3,no=1; of
    /// several targets TARGET=balanced (more: train.class_weight)
    #[arg(long, value_name = "HOW")]
    pub class_weight: Option<String>,
    /// Tables: a model of texts whose vectors stand for columns of running text, in place of hashed words
    #[arg(long, value_name = "MODEL")]
    pub embed: Option<String>,
    /// Targets that happen one after the other (click, purchase): entire-space learns the second as the product of both
    /// over all rows (ESMM), ordered makes it cost where the second is likelier than the first (AITM)
    #[arg(long, value_name = "LOSS")]
    pub chain: Option<Chain>,
    /// Rows of each task at most
    #[arg(short = 'L', long, value_name = "N")]
    pub limit: Option<u32>,
    /// Seed [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Any key of the recipe, such as train.head.start=probe (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on with a run that was interrupted; experts that are there are left
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Replace the folder, drop the checkpoint of an interrupted run
    #[arg(long)]
    pub force: bool,
    /// Skip fsync of the output
    #[arg(long)]
    pub no_sync: bool,
    #[command(flatten)]
    pub places: Places,
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Every weight of the trunk that the task uses
    Full,
    /// The head alone
    Head,
    /// Low-rank parts, written as PEFT does
    Lora,
}

/// What has a goal of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goals {
    /// Every target
    Targets,
    /// Every group of rows (--group COLUMN) and target
    Groups,
}

/// How targets in a chain are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Chain {
    /// Targets with `sample = "click == 1"` in the spec
    EntireSpace,
    /// Targets of all rows, in their order
    Ordered,
}

/// What a decoder learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// The tasks' texts, every token
    Texts,
    /// The right answers to the tasks' prompts
    Answers,
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, such as train.rate=1e-4")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
