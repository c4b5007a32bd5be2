//! `samples_*.jsonl` of lm-evaluation-harness: one example a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use indexmap::IndexMap;
use serde_json::Value;

use super::Options;
use super::entry::{Answers, Gathered, is_asked};
use crate::error::{MergeError, Result};

/// A line above this is no example.
const LONGEST: u64 = 64 << 20;

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path)
        .map_err(|e| MergeError::from(polyloom_core::Error::io(path, "open", e)))?;
    Ok(BufReader::new(file))
}

/// The next object; `None` at the end.
fn next(
    path: &Path,
    reader: &mut BufReader<File>,
    line: &mut u64,
) -> Result<Option<serde_json::Map<String, Value>>> {
    loop {
        let mut text = Vec::new();
        let io = |e| MergeError::from(polyloom_core::Error::io(path, "read", e));
        let taken = reader
            .by_ref()
            .take(LONGEST + 1)
            .read_until(b'\n', &mut text)
            .map_err(io)?;
        if taken == 0 {
            return Ok(None);
        }
        *line += 1;
        let bad = |what: String| {
            MergeError::plan("bad-row", what).at(format!("{}:{line}", path.display()))
        };
        if text.len() as u64 > LONGEST {
            return Err(bad("a line of more than 64 MB".into()));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let row = serde_json::from_slice(&text);
        return Ok(Some(
            row.map_err(|e| bad(format!("is no JSON object: {e}")))?,
        ));
    }
}

/// Whether the first line is an example of lm-eval.
pub(super) fn is(path: &Path) -> Result<bool> {
    let first = next(path, &mut open(path)?, &mut 0);
    let Ok(Some(row)) = first else {
        return first.map(|_| false);
    };
    let has = |key: &str| row.contains_key(key);
    Ok(has("doc_id") && (has("filtered_resps") || has("resps") || has("arguments")))
}

/// What is no metric though it is a number.
const NOT: &[&str] = &["doc_id", "target", "idx"];

/// Reads one: the task from the file's name `samples_<task>_<date>.jsonl`, the system from its folder.
pub(super) fn read(
    path: &Path,
    name: Option<&str>,
    options: &Options,
    to: &mut Gathered,
) -> Result<()> {
    let stem = path
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = stem.strip_prefix("samples_").unwrap_or(&stem);
    let task = match stem.rsplit_once('_') {
        // 2024-06-01T10-20-30.123456
        Some((task, date)) if date.len() > 10 && date.as_bytes()[4] == b'-' => task,
        _ => stem,
    };
    let folder = path.parent().and_then(|p| p.file_name());
    let folder = folder.map(|f| f.to_string_lossy().into_owned());
    let system = name
        .map(str::to_owned)
        .or(folder)
        .unwrap_or_else(|| stem.to_owned());
    let number = to.file(path);
    let mut found: IndexMap<String, Answers> = IndexMap::new();
    let (mut reader, mut line) = (open(path)?, 0);
    while let Some(row) = next(path, &mut reader, &mut line)? {
        let id = match row.get("doc_id") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => {
                return Err(MergeError::plan("bad-row", "has no `doc_id`")
                    .at(format!("{}:{line}", path.display())));
            }
            Some(other) => other.to_string(),
        };
        let filter = row.get("filter").and_then(Value::as_str).unwrap_or("none");
        let listed = row.get("metrics").and_then(Value::as_array);
        let names: Vec<&str> = match listed {
            Some(list) => list.iter().filter_map(Value::as_str).collect(),
            None => row
                .keys()
                .map(String::as_str)
                .filter(|k| !NOT.contains(k))
                .collect(),
        };
        for metric in names {
            let value = match &row[metric] {
                Value::Bool(b) => Some(f64::from(u8::from(*b))),
                other => other.as_f64().filter(|x| x.is_finite()),
            };
            // Corpus metrics keep the texts themselves: nothing to average.
            let Some(value) = value else { continue };
            let key = match filter {
                "none" => metric.to_owned(),
                filter => format!("{metric},{filter}"),
            };
            let answers = found.entry(key).or_default();
            if answers.by_id.contains_key(&id) {
                return Err(MergeError::plan(
                    "duplicate-id",
                    format!("`doc_id` {id} stands twice"),
                )
                .at(format!("{}:{line}", path.display()))
                .hint("two runs in one file; keep one"));
            }
            answers.by_id.insert(
                id.clone(),
                super::Answer {
                    trials: 1,
                    sum: value,
                },
            );
        }
    }
    // The metric that is asked for, else the first.
    let named = |m: &String| found.keys().find(|k| is_asked(k, m)).cloned();
    let asked = options.metrics.iter().find_map(named);
    let Some(metric) = asked.or_else(|| found.keys().next().cloned()) else {
        return Err(MergeError::plan("bad-results", "has no score per example")
            .at(path.display().to_string())
            .hint("metrics of a whole corpus (BLEU) keep no score per example; give the results_*.json"));
    };
    let mut answers = found.swap_remove(&metric).unwrap_or_default();
    (answers.metric, answers.file) = (metric, number);
    to.examples += answers.by_id.len();
    let key = (system.clone(), task.to_owned());
    if let Some(first) = to.answers.insert(key, answers) {
        return Err(MergeError::plan(
            "two-scores",
            format!(
                "a second file of `{system}` on `{task}`, after {}",
                to.files[first.file].display()
            ),
        )
        .at(path.display().to_string())
        .hint("give one of the two systems another name: NAME=FILE"));
    }
    Ok(())
}
