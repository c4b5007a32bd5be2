//! What can be typed about files of results, the same for every command that reads them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use polyloom::evaluate::aggregate::mean::Missing;
use polyloom::evaluate::board::condition::Condition;
use polyloom::evaluate::board::import::{Options, Source};
use polyloom::evaluate::board::uncertainty::Settings;

/// Which scores of the files are taken, and how tables are read.
#[derive(Debug, Args)]
pub struct ResultArgs {
    /// Only these: TAG=VALUE, TAG=A,B (any), TAG!=A (not), * for anything; tags, columns, task, metric, system
    #[arg(long = "where", value_name = "TAG=VALUE")]
    pub conditions: Vec<Condition>,
    /// Metrics by preference, where tasks have several [default: the one that most systems have]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub metric: Vec<String>,
    /// Metrics or tasks where less is better, where the files do not say
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub lower: Vec<String>,
    /// Columns of tables that together name the system [default: system, model, method, ...]
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        help_heading = "Tables"
    )]
    pub system: Vec<String>,
    /// Columns of tables that together name the task [default: task, dataset, benchmark, subject, ...]
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        help_heading = "Tables"
    )]
    pub task: Vec<String>,
    /// Column of tables that holds the score [default: value, score, result, correct, a metric's name]
    #[arg(long, value_name = "COLUMN", help_heading = "Tables")]
    pub value: Option<String>,
    /// Groups of lm-eval count as tasks, in place of their members
    #[arg(long, help_heading = "Tables")]
    pub groups: bool,
}

impl ResultArgs {
    /// The same as the library takes it.
    pub fn options(&self) -> Options {
        Options {
            metrics: self.metric.clone(),
            lower: self.lower.clone(),
            conditions: self.conditions.clone(),
            system: self.system.clone(),
            task: self.task.clone(),
            value: self.value.clone(),
            groups: self.groups,
        }
    }
}

/// How systems are counted and the order is drawn again.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Systems that lack tasks: no mean, and below half of the tasks no win rate or mean rank (strict), or over what is
    /// there (skip)
    #[arg(long, value_name = "RULE", default_value = "strict")]
    pub missing: MissingRule,
    /// Draws behind places and intervals, of tasks and of examples
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub draws: u32,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl OrderArgs {
    /// The same as the library takes it, for intervals that cover `level`.
    pub fn settings(&self, level: f64) -> Settings {
        Settings {
            missing: self.missing.into(),
            seed: self.seed,
            draws: self.draws as usize,
            level,
        }
    }
}

/// What to do with missing scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingRule {
    /// No mean.
    Strict,
    /// The mean of the rest.
    Skip,
}

impl From<MissingRule> for Missing {
    fn from(rule: MissingRule) -> Self {
        match rule {
            MissingRule::Strict => Self::Strict,
            MissingRule::Skip => Self::Skip,
        }
    }
}

/// `NAME=FILE` or a file; a file that exists under the whole text wins.
pub fn source(text: &str) -> Result<Source, String> {
    let whole = PathBuf::from(text);
    match text.split_once('=') {
        Some((name, path)) if !whole.exists() && !name.is_empty() && !path.is_empty() => {
            Ok(Source {
                name: Some(name.to_owned()),
                path: path.into(),
            })
        }
        _ => Ok(Source {
            name: None,
            path: whole,
        }),
    }
}
