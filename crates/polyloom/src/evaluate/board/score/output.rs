//! `results.json` (`polyloom.results/1`) and the records beside it; what is unchanged is used again.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::answers::{Answers, sha256};
use super::extract::Extract;
use super::records::{self, About};
use super::{Measured, Options, Record, Scored};
use crate::error::{MergeError, Result};

/// The schema name.
pub const SCHEMA: &str = "polyloom.results/1";

/// Results on disk: one file, and a folder of records beside it.
#[derive(Debug, Clone)]
pub struct Output {
    path: PathBuf,
    document: Map<String, Value>,
}

/// Hash of what the results of a task depend on.
#[must_use]
pub fn key(task_hash: &str, answers: &Answers, options: &Options) -> String {
    let chosen = &answers.chosen;
    let settings = json!([
        env!("CARGO_PKG_VERSION"),
        task_hash,
        answers.hash,
        options.split,
        options.allow_partial,
        options.level,
        options.draws,
        options.metrics,
        options.extract.as_ref().map(Extract::name),
        chosen.id,
        chosen.task,
        chosen.prediction,
        chosen.only,
    ]);
    sha256(&settings.to_string())
}

impl Output {
    /// Opens a results file to add to, or begins one. The model is named `name`, and is the file of predictions.
    ///
    /// # Errors
    /// A file that holds something else, or results of other predictions, unless `force`.
    pub fn open(path: &Path, name: &str, answers: &Answers, force: bool) -> Result<Self> {
        let model =
            json!({"name": name, "path": answers.path.display().to_string(), "hash": answers.hash});
        let fresh = || {
            let version = env!("CARGO_PKG_VERSION");
            let value = json!({"schema": SCHEMA, "polyloom": version, "model": model, "tasks": {}});
            value.as_object().cloned().unwrap_or_default()
        };
        let mut output = Self {
            path: path.to_owned(),
            document: fresh(),
        };
        if !path.exists() {
            return Ok(output);
        }
        let bad = |what: &str| {
            MergeError::plan("exists", what)
                .at(path.display().to_string())
                .hint("another -o FILE, or --force to replace it")
        };
        let text =
            std::fs::read_to_string(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        let held = serde_json::from_str::<Map<String, Value>>(&text).ok();
        let held = held.filter(|h| h.get("schema").and_then(Value::as_str) == Some(SCHEMA));
        let hash = |m: &Map<String, Value>| m.get("model").and_then(|m| m.get("hash")).cloned();
        match held {
            _ if force => {}
            None => return Err(bad("exists already and holds no results of polyloom")),
            Some(held) if hash(&held) == Some(answers.hash.clone().into()) => {
                output.document = held;
                output.document.insert("model".into(), model);
            }
            Some(_) => {
                return Err(bad(
                    "exists already and holds the results of other predictions",
                ));
            }
        }
        Ok(output)
    }

    /// Whether a results file is of the same thing as it was before: the path is the same, the content another.
    #[must_use]
    pub fn is_stale(path: &Path, answers: &Answers) -> bool {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let held: Value = serde_json::from_str(&text).unwrap_or_default();
        let model = &held["model"];
        held["schema"] == SCHEMA
            && model["path"] == answers.path.display().to_string()
            && model["hash"] != answers.hash
    }

    /// The entries of a task where they are there with this key and their records too.
    #[must_use]
    pub fn unchanged(&self, key: &str) -> Option<Vec<(String, Value)>> {
        let tasks = self.document.get("tasks")?.as_object()?;
        let same = |v: &Value| v.get("key").and_then(Value::as_str) == Some(key);
        let found: Vec<(String, Value)> = tasks
            .iter()
            .filter(|(_, v)| same(v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let there = |v: &Value| {
            let samples = v.get("samples").and_then(Value::as_str);
            let about = samples.and_then(|s| records::about(&self.folder().join(s)));
            about.is_some_and(|a| a.key == key)
        };
        (!found.is_empty() && found.iter().all(|(_, v)| there(v))).then_some(found)
    }

    fn folder(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Adds the results of a task (one per target and group) and writes their records. Gives the entries.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(
        &mut self,
        task: &str,
        key: &str,
        scored: &[Scored],
    ) -> Result<Vec<(String, Value)>> {
        let stem = self
            .path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let samples = format!("{stem}.samples/{}.parquet", file_name(task));
        let rows: Vec<&Record> = scored.iter().flat_map(|s| &s.records).collect();
        let metric = |s: &Scored| {
            s.metrics
                .first()
                .map(|m| m.name.clone())
                .unwrap_or_default()
        };
        let mut metrics: Vec<String> = scored.iter().map(metric).collect();
        metrics.dedup();
        let about = About {
            task: task.to_owned(),
            task_hash: scored
                .iter()
                .find_map(|s| s.hash.clone())
                .unwrap_or_default(),
            metric: metrics.join(","),
            key: key.to_owned(),
        };
        records::write(&self.folder().join(&samples), &rows, &about)?;
        let entries: Vec<(String, Value)> = scored
            .iter()
            .map(|s| (s.task.clone(), entry(s, &samples, key)))
            .collect();
        if let Some(tasks) = self
            .document
            .get_mut("tasks")
            .and_then(Value::as_object_mut)
        {
            tasks.retain(|_, v| v.get("samples").and_then(Value::as_str) != Some(&samples));
            tasks.extend(entries.iter().cloned());
        }
        Ok(entries)
    }

    /// Says more of an entry that is there: what only its maker knows, under a name of its own.
    pub fn say(&mut self, entry: &str, name: &str, value: Value) {
        let tasks = self.document.get_mut("tasks");
        let entry = tasks
            .and_then(|t| t.get_mut(entry))
            .and_then(Value::as_object_mut);
        if let Some(entry) = entry {
            entry.insert(name.to_owned(), value);
        }
    }

    /// Writes the file: complete under its name, or as it was.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self) -> Result<()> {
        let io =
            |e: std::io::Error| MergeError::from(polyloom_core::Error::io(&self.path, "write", e));
        if let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let text = serde_json::to_string_pretty(&self.document)
            .map_err(|e| MergeError::plan("write", e.to_string()))?;
        let part = self.path.with_extension("json.part");
        std::fs::write(&part, text + "\n").map_err(io)?;
        std::fs::rename(&part, &self.path).map_err(io)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A task id as a relative path: its folders stay, other characters than letters, digits, `.`, `_` and `-` become `_`.
fn file_name(task: &str) -> String {
    let fine = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let part = |p: &str| -> String {
        let name: String = p.chars().map(fine).collect();
        let name = name.trim_start_matches('.');
        if name.is_empty() {
            "_".into()
        } else {
            name.chars().take(100).collect()
        }
    };
    task.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn number(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

fn entry(scored: &Scored, samples: &str, key: &str) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| {
        entry.insert(name.to_owned(), value);
    };
    if let Some(first) = scored.metrics.first() {
        put("metric", json!(first.name));
        detail(first, &mut put);
    }
    put("split", json!(scored.split));
    put("task_hash", json!(scored.hash));
    put("expert", json!(scored.expert));
    put("tags", json!(scored.tags));
    let others = scored.metrics.iter().skip(1).map(|m| {
        let mut other = Map::new();
        detail(m, &mut |name: &str, value: Value| {
            other.insert(name.to_owned(), value);
        });
        (m.name.clone(), Value::Object(other))
    });
    put("metrics", Value::Object(others.collect()));
    let ids = |(first, n): &(Vec<String>, usize)| json!({"count": n, "first": first});
    put("missing", ids(&scored.missing));
    put("extra", ids(&scored.extra));
    put("notes", json!(scored.notes));
    put("samples", json!(samples));
    put("key", json!(key));
    Value::Object(entry)
}

fn detail(m: &Measured, put: &mut dyn FnMut(&str, Value)) {
    put("value", number(m.value));
    put("n", json!(m.n));
    put(
        "interval",
        m.interval.map_or(Value::Null, |(low, high)| {
            json!([number(low), number(high)])
        }),
    );
    put("stderr", number(m.stderr));
    put("method", json!(m.method));
    put("higher_is_better", json!(m.higher_is_better));
    put("chance", json!(m.chance));
    if let Some(reason) = &m.reason {
        put("reason", json!(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_inside() {
        assert_eq!(file_name("text/sst2"), "text/sst2");
        assert_eq!(file_name("../a b/ü"), "_/a_b/_");
        assert_eq!(file_name("a/../../etc"), "a/_/_/etc");
    }
}
