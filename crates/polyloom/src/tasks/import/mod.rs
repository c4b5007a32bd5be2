//! Task files of other collections as specs, and specs as lm-evaluation-harness YAML.
//!
//! [`import`] recognises a file or a folder, [`write()`] writes the specs (and rows that stood inside the foreign file) into
//! a folder. What cannot be said without code is refused by name, never half imported. Source: evaluation specification,
//! 1.1 and 1.3.

pub mod big_bench;
pub mod card;
pub mod export;
pub mod hub;
pub mod lm_eval;
mod lm_eval_group;
mod lm_eval_output;
mod local;
pub mod natural;
pub mod tools;
mod write;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::{self, Limits};
use super::spec::{GroupSpec, Metric, SourceKind, TaskSpec, TaskType};
use crate::error::{MergeError, Result};

pub use local::Local;
use local::split_file;
pub use write::{Written, write};

/// A foreign format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// lm-evaluation-harness YAML, tasks and groups.
    LmEval,
    /// BIG-bench JSON.
    BigBench,
    /// BIG-Bench Hard: `canary` and `examples` alone.
    Bbh,
    /// Natural-Instructions JSON.
    NaturalInstructions,
    /// tasksource column mapping as JSON.
    Tasksource,
    /// Hugging Face data-set card beside local files.
    HfCard,
    /// MTEB `TaskMetadata` as JSON.
    Mteb,
    /// TaskBench folder: `tool_desc.json`, `user_requests.json` or `data.json`.
    TaskBench,
    /// Berkeley function calling: JSON lines, answers in `possible_answer/`.
    Bfcl,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LmEval,
        Self::BigBench,
        Self::Bbh,
        Self::NaturalInstructions,
        Self::Tasksource,
        Self::HfCard,
        Self::Mteb,
        Self::TaskBench,
        Self::Bfcl,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LmEval => "lm-eval",
            Self::BigBench => "big-bench",
            Self::Bbh => "bbh",
            Self::NaturalInstructions => "natural-instructions",
            Self::Tasksource => "tasksource",
            Self::HfCard => "hf-card",
            Self::Mteb => "mteb",
            Self::TaskBench => "taskbench",
            Self::Bfcl => "bfcl",
        }
    }
}

/// A task that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The task; files are relative to the folder of its origin.
    pub spec: TaskSpec,
    /// The foreign file.
    pub origin: PathBuf,
    /// Its format.
    pub format: Format,
}

/// A file that is no task for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The file.
    pub file: PathBuf,
    /// Why, such as the function it needs.
    pub why: String,
}

/// What an import found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Imported {
    /// Tasks.
    pub tasks: Vec<Made>,
    /// Groups, with the files they were in.
    pub groups: Vec<(GroupSpec, PathBuf)>,
    /// Files that were recognised and refused.
    pub refused: Vec<Refused>,
    /// What was left out or assumed, by file.
    pub notes: Vec<(PathBuf, String)>,
}

/// Reads one file or everything below a folder. `data` are folders that data sets which a task names may be in.
///
/// Files of a folder that no format fits are passed over; a single file that none fits is an error.
///
/// # Errors
/// A path that cannot be read, a single file of no known format. A file that is recognised and cannot be imported is in
/// `refused`.
pub fn import(path: &Path, format: Option<Format>, data: &[PathBuf]) -> Result<Imported> {
    let mut out = Imported::default();
    if path.is_dir() {
        folder(path, format, data, 0, &mut out)?;
    } else {
        let found = match format {
            Some(format) => format,
            None => recognise(path)?.ok_or_else(|| unknown(path))?,
        };
        one(path, found, data, &mut out);
    }
    if out.tasks.is_empty() && out.groups.is_empty() && out.refused.is_empty() {
        return Err(unknown(path));
    }
    let mut seen = std::collections::BTreeSet::new();
    let (tasks, twice): (Vec<Made>, Vec<Made>) = std::mem::take(&mut out.tasks)
        .into_iter()
        .partition(|m| seen.insert(m.spec.id.clone()));
    out.tasks = tasks;
    for made in twice {
        let why = format!("the id `{}` is that of another file too", made.spec.id);
        out.refused.push(Refused {
            file: made.origin,
            why,
        });
    }
    Ok(out)
}

fn unknown(path: &Path) -> MergeError {
    let names: Vec<&str> = Format::ALL.iter().map(|f| f.name()).collect();
    MergeError::plan("bad-import", "holds no task file of a known format")
        .at(path.display().to_string())
        .hint(format!("--format says which it is: {}", names.join(", ")))
}

/// The deepest nesting that is searched.
const DEPTH: usize = 8;

fn folder(
    path: &Path,
    format: Option<Format>,
    data: &[PathBuf],
    depth: usize,
    out: &mut Imported,
) -> Result<()> {
    let tools = path.join("tool_desc.json").is_file();
    if tools && matches!(format, None | Some(Format::TaskBench)) {
        one(path, Format::TaskBench, data, out);
        return Ok(());
    }
    let card = path.join("README.md");
    if card::has_card(&card) && matches!(format, None | Some(Format::HfCard)) {
        one(&card, Format::HfCard, data, out);
        return Ok(());
    }
    if format == Some(Format::HfCard) {
        one(path, Format::HfCard, data, out);
        return Ok(());
    }
    let io = |e| polyloom_core::Error::io(path, "read", e);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        entries.push(entry.map_err(io)?.path());
    }
    entries.sort();
    for entry in entries {
        let name = entry
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        // Answers are read with their questions; names that begin with `_` are only included by others.
        if name.starts_with(['.', '_']) || name == "possible_answer" {
            continue;
        }
        if entry.is_dir() {
            if depth < DEPTH {
                folder(&entry, format, data, depth + 1, out)?;
            }
            continue;
        }
        match recognise(&entry) {
            Ok(Some(found)) if format.is_none_or(|f| f == found) => one(&entry, found, data, out),
            Ok(_) => {}
            Err(error) => out.refused.push(Refused {
                file: entry,
                why: error.to_string(),
            }),
        }
    }
    Ok(())
}

/// The format of a file, by its ending and its keys; `None` where none fits.
///
/// # Errors
/// An unreadable file. JSON that is broken fits no format.
pub fn recognise(path: &Path) -> Result<Option<Format>> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if path.is_dir() {
        return Ok(path
            .join("tool_desc.json")
            .is_file()
            .then_some(Format::TaskBench));
    }
    match extension {
        "yaml" | "yml" => {
            let text = text(path)?;
            let key = |k: &str| text.lines().any(|l| l.starts_with(k));
            let task = key("task:") || key("group:") || key("include:");
            return Ok(task.then_some(Format::LmEval));
        }
        "md" => return Ok(card::has_card(path).then_some(Format::HfCard)),
        "json" | "jsonl" => {}
        _ => return Ok(None),
    }
    let Ok(value) = tools::first_value(path) else {
        return Ok(None);
    };
    let has = |keys: &[&str]| keys.iter().all(|k| value.get(k).is_some());
    Ok(if has(&["question", "function"]) {
        Some(Format::Bfcl)
    } else if has(&["Definition", "Instances"]) {
        Some(Format::NaturalInstructions)
    } else if has(&["examples"]) && (has(&["name"]) || has(&["metrics"])) {
        Some(Format::BigBench)
    } else if has(&["examples"]) && value.as_object().is_some_and(|o| o.len() <= 2) {
        Some(Format::Bbh)
    } else if has(&["main_score", "eval_splits"]) {
        Some(Format::Mteb)
    } else if has(&["type", "dataset"]) || has(&["type", "dataset_name"]) {
        Some(Format::Tasksource)
    } else if name == "tool_desc.json" {
        Some(Format::TaskBench)
    } else {
        None
    })
}

fn one(path: &Path, format: Format, data: &[PathBuf], out: &mut Imported) {
    let mut notes = Vec::new();
    let result = read(path, format, data, &mut notes, out);
    out.notes
        .extend(notes.into_iter().map(|n| (path.to_owned(), n)));
    if let Err(error) = result {
        out.refused.push(Refused {
            file: path.to_owned(),
            why: error.to_string(),
        });
    }
}

fn read(
    path: &Path,
    format: Format,
    data: &[PathBuf],
    notes: &mut Vec<String>,
    out: &mut Imported,
) -> Result<()> {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("task");
    let local = Local {
        folder: parent(path),
        data,
    };
    let specs = match format {
        Format::LmEval => {
            let (specs, groups) = lm_eval::file(path, &local, notes)?;
            out.groups
                .extend(groups.into_iter().map(|g| (g, path.to_owned())));
            specs
        }
        Format::BigBench => vec![big_bench::task(&text(path)?)?],
        Format::Bbh => vec![big_bench::hard(&text(path)?, stem)?],
        Format::NaturalInstructions => vec![natural::task(&text(path)?, stem)?],
        Format::Tasksource => vec![hub::tasksource(&text(path)?, stem, &local, notes)?],
        Format::HfCard => card::folder(path, &local, notes)?,
        Format::Mteb => vec![hub::mteb(&text(path)?, &local, notes)?],
        Format::TaskBench => vec![tools::taskbench(path, notes)?],
        Format::Bfcl => vec![tools::bfcl(path, notes)?],
    };
    let made = |spec| Made {
        spec,
        origin: path.to_owned(),
        format,
    };
    out.tasks.extend(specs.into_iter().map(made));
    Ok(())
}

/// The reader of files that all have this ending.
fn kind_of<'a>(files: impl Iterator<Item = &'a str>) -> Result<SourceKind> {
    let mut kind = None;
    for file in files {
        let this = data::kind_of(Path::new(file))
            .ok_or_else(|| bad(format!("the file `{file}` has an unknown ending")))?;
        if kind.is_some_and(|k| k != this) {
            return Err(bad("its splits have files of several formats"));
        }
        kind = Some(this);
    }
    kind.ok_or_else(|| bad("names no split"))
}

fn parent(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn bad(what: impl Into<String>) -> MergeError {
    MergeError::plan("bad-import", what.into())
}

/// A text file of at most `Limits::document_bytes`.
fn text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| polyloom_core::Error::io(path, "open", e))?;
    let most = Limits::default().document_bytes;
    if size.len() > most {
        return Err(bad(format!("is longer than {most} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
    String::from_utf8(bytes).map_err(|_| bad("is not UTF-8 text"))
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(s) => vec![s.clone()],
        Value::Array(list) => list
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// An id of the characters that ids have.
fn id(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._/-".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.to_lowercase().chars().map(plain).collect()
}

/// A name as a template of that field; templates stay.
fn field_template(text: &str) -> String {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    if !text.is_empty() && text.chars().all(name) {
        format!("{{{{{text}}}}}")
    } else {
        text.to_owned()
    }
}

/// Text that a template gives back as it is.
fn raw(text: &str) -> String {
    if !text.contains('{') {
        text.to_owned()
    } else if text.contains("endraw") {
        text.replace('{', "{{ '{' }}")
    } else {
        format!("{{% raw %}}{text}{{% endraw %}}")
    }
}

/// What tasks of a type are usually scored by.
fn usual_metrics(kind: TaskType) -> Vec<Metric> {
    let names: &[&str] = match kind {
        TaskType::Classification | TaskType::PairClassification => &["accuracy", "macro_f1"],
        TaskType::Multilabel => &["micro_f1", "macro_f1"],
        TaskType::MultipleChoice => &["acc", "acc_norm"],
        TaskType::Generation => &["exact_match"],
        TaskType::TokenClassification => &["token_f1"],
        TaskType::Span => &["span_f1", "span_f1_relaxed"],
        TaskType::Regression | TaskType::Forecasting => &["rmse", "r2"],
        TaskType::Sts => &["spearman", "pearson"],
        TaskType::Retrieval => &["ndcg", "recall_at_k"],
        TaskType::Reranking => &["map", "mrr"],
        TaskType::Clustering => &["v_measure"],
        TaskType::Survival => &["c_index"],
        TaskType::Perplexity => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
        TaskType::ToolGraph => &["node_f1", "edge_match_f1"],
        TaskType::Dense => &["miou"],
    };
    names
        .iter()
        .enumerate()
        .map(|(i, n)| Metric::named(*n, i == 0))
        .collect()
}

fn checked(spec: TaskSpec) -> Result<TaskSpec> {
    match super::validate::task(&spec).into_iter().next() {
        Some(problem) => Err(bad(format!("`{}`: {}", problem.path, problem.message))),
        None => Ok(spec),
    }
}

#[cfg(test)]
mod tests;
