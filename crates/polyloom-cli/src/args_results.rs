//! What can be typed about files of results, the same for every command that reads them.

use std::path::PathBuf;

use clap::Args;
use polyloom::evaluate::board::condition::Condition;
use polyloom::evaluate::board::import::{Options, Source};

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
