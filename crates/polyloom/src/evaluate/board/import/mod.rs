//! Results from anywhere: one [`Results`] out of files of several formats, each recognised from its content.
//!
//! | format | file |
//! |---|---|
//! | results of this project, `polyloom.results/1` | `results.rs` |
//! | lm-evaluation-harness `results_*.json` | `lm_eval.rs` |
//! | lm-evaluation-harness `samples_*.jsonl` | `samples.rs` |
//! | a task's result of MTEB | `mteb.rs` |
//! | HELM's leaderboard tables | `helm.rs` |
//! | CSV, TSV, JSON lines, JSON lists, Parquet: long or wide, of scores or of single examples | `table.rs` |
//!
//! An importer makes `Entry` rows; `assemble` makes the table of them.

mod assemble;
mod entry;
mod helm;
mod lm_eval;
mod mteb;
mod results;
mod samples;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use super::condition::Condition;
use super::results::Results;
use crate::error::{MergeError, Result};
use entry::Gathered;

/// A file or folder, and the name of its system where the user gives one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the system, for files of one system.
    pub name: Option<String>,
    /// The file, or a folder in which result files are looked for.
    pub path: PathBuf,
}

/// How files are read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Metrics by preference, where a task has several; else the metric that most systems have.
    pub metrics: Vec<String>,
    /// Metrics or tasks where less is better, whatever the files say.
    pub lower: Vec<String>,
    /// Which part of the scores to take.
    pub conditions: Vec<Condition>,
    /// Columns of a table that together name the system; else the usual names.
    pub system: Vec<String>,
    /// Columns of a table that together name the task; else the usual names.
    pub task: Vec<String>,
    /// Column of a table that holds the score; else the usual names.
    pub value: Option<String>,
    /// Groups of lm-eval in place of their sub-tasks.
    pub groups: bool,
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    /// Scores.
    pub results: Results,
    /// Single answers, for the tasks that have them.
    pub answers: Vec<TaskAnswers>,
    /// What the replicates of cells are: `seed`, `run`, `checkpoint`, `instruction`, ...; `None` where there are none.
    pub replicate: Option<String>,
    /// Sentences for the reader: what was left out, what cannot be paired.
    pub notes: Vec<String>,
}

/// Answers on the examples of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskAnswers {
    /// Number of the task in the results.
    pub task: usize,
    /// The examples.
    pub ids: Vec<String>,
    /// By system of the results, then by example; empty for a system without answers.
    pub answers: Vec<Vec<Option<Answer>>>,
}

/// What a system scored on one example, over its attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Answer {
    /// Attempts.
    pub trials: u32,
    /// Sum of the scores; of right and wrong ones the number of passes.
    pub sum: f64,
}

impl Answer {
    /// Mean over the attempts.
    pub fn mean(self) -> f64 {
        self.sum / f64::from(self.trials)
    }
}

/// A JSON document above this is not a file of results.
const LARGEST: u64 = 512 << 20;

/// Reads files and folders into one table.
///
/// # Errors
/// An unreadable file, content of no known format, columns that are absent, a cell with two different scores, scores
/// that are no finite numbers, conditions that leave nothing.
pub fn import(sources: &[Source], options: &Options) -> Result<Imported> {
    let mut found = Gathered::default();
    for source in sources {
        let files = match source.path.is_dir() {
            true => in_folder(&source.path)?,
            false => vec![source.path.clone()],
        };
        for path in files {
            let before = found.entries.len() + found.examples;
            read_file(&path, source.name.as_deref(), options, &mut found)?;
            if found.entries.len() + found.examples == before {
                let error =
                    MergeError::plan("empty", "holds no score").at(path.display().to_string());
                return Err(match options.conditions.is_empty() {
                    true => error,
                    false => error.hint("no row holds to all of --where; loosen a condition"),
                });
            }
        }
    }
    assemble::assemble(found, options)
}

fn read_file(path: &Path, name: Option<&str>, options: &Options, to: &mut Gathered) -> Result<()> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    match ending.to_ascii_lowercase().as_str() {
        "json" => {
            let value = document(path)?;
            let file = Document { path, name, value: &value };
            if results::is(&value) {
                results::read(&file, to)
            } else if lm_eval::is(&value) {
                lm_eval::read(&file, options, to)
            } else if mteb::is(&value) {
                mteb::read(&file, to)
            } else if helm::is(&value) {
                helm::read(&file, to)
            } else if value.is_array() {
                table::read(path, name, options, to)
            } else {
                Err(MergeError::plan("unknown-format", "is no file of results that Polyloom knows")
                    .at(path.display().to_string())
                    .hint("known JSON: results.json of this project, lm-eval results_*.json, MTEB task results, HELM tables, a list of rows"))
            }
        }
        "jsonl" | "ndjson" if samples::is(path)? => samples::read(path, name, options, to),
        "jsonl" | "ndjson" | "csv" | "tsv" | "tab" | "parquet" | "pq" => {
            table::read(path, name, options, to)
        }
        _ => Err(
            MergeError::plan("unknown-format", "is no file of results that Polyloom knows")
                .at(path.display().to_string())
                .hint("JSON (.json), JSON lines (.jsonl), CSV (.csv), tab-separated (.tsv) or Parquet (.parquet)"),
        ),
    }
}

/// A JSON file and what it may be called.
struct Document<'a> {
    path: &'a Path,
    name: Option<&'a str>,
    value: &'a Value,
}

impl Document<'_> {
    fn bad(&self, what: impl Into<String>) -> MergeError {
        MergeError::plan("bad-results", what.into()).at(self.path.display().to_string())
    }
}

fn document(path: &Path) -> Result<Value> {
    let io = |e| MergeError::from(polyloom_core::Error::io(path, "open", e));
    let size = std::fs::metadata(path).map_err(io)?.len();
    let at = path.display().to_string();
    if size > LARGEST {
        return Err(MergeError::plan("too-large", format!("{size} bytes of JSON"))
            .at(at)
            .hint("a file of results has at most 512 MB; give single answers as .jsonl or .parquet"));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        MergeError::plan("bad-json", format!("is no JSON: {e}"))
            .at(format!("{at}:{}:{}", e.line(), e.column()))
            .hint("rows of JSON, one a line, belong in a file that ends in .jsonl")
    })
}

/// The result files below a folder: `results.json`, of lm-eval the newest `results_*.json` and the newest samples of each
/// task in every folder, MTEB's task files. Files of other formats are named one by one.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|e| MergeError::from(polyloom_core::Error::io(&folder, "list", e)))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        let mut newest: IndexMap<String, PathBuf> = IndexMap::new();
        for path in paths {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if path.is_dir() && depth < 8 {
                open.push((path, depth + 1));
            } else if name == "results.json" {
                files.push(path);
            } else if name.starts_with("results_") && name.ends_with(".json") {
                // Names hold the date, so the last of the sorted ones is the newest.
                newest.insert("results".into(), path);
            } else if name.starts_with("samples_") && name.ends_with(".jsonl") {
                let task = name.rsplit_once('_').map_or(&*name, |(task, _)| task);
                newest.insert(task.to_owned(), path);
            } else if name.ends_with(".json")
                && name != "model_meta.json"
                && document(&path).is_ok_and(|v| mteb::is(&v) || helm::is(&v))
            {
                files.push(path);
            }
        }
        files.extend(newest.into_values());
    }
    if files.is_empty() {
        return Err(MergeError::plan("empty", "holds no file of results")
            .at(folder.display().to_string())
            .hint("looked for results.json, results_*.json and samples_*.jsonl of lm-eval, MTEB's and HELM's JSON; name other files one by one"));
    }
    files.sort();
    Ok(files)
}
