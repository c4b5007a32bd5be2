//! What can be typed after `polyloom tasks`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `polyloom tasks`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  polyloom tasks list --type classification
  polyloom tasks show mpqa                        (by id, or a spec file, or a folder with a task.json)
  polyloom tasks check my.task.toml --strict

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
    #[arg(long)]
    pub toml: bool,
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
    #[command(flatten)]
    pub places: Places,
}
