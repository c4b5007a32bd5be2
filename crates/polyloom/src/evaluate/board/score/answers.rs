//! A file of predictions as rows of cells.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};

pub(crate) use polyloom_core::hash::sha256_text as sha256;

use super::maps::hex;
use crate::error::{MergeError, Result};
use crate::tasks::data::table::Cell;
use crate::tasks::data::{self, Limits};

/// Which columns hold what. `None` looks for the usual names.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Names an example; else `id`, the task's own id column, `doc_id`, `example_id`.
    pub id: Option<String>,
    /// Task of an example; else `task`.
    pub task: Option<String>,
    /// What was predicted.
    pub prediction: Option<String>,
    /// Only rows whose cell in a column is this text.
    pub only: Vec<(String, String)>,
}

/// A file of predictions.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256.
    pub hash: String,
    /// Rows in the order of the file.
    pub rows: Vec<Map<String, Value>>,
    /// All columns, in the order of the file.
    pub columns: Vec<String>,
    /// The column of tasks, if there is one.
    pub task: Option<String>,
    /// What was asked for.
    pub chosen: Columns,
}

impl Answers {
    /// Of rows in memory; `path` and `hash` say what made them.
    #[must_use]
    pub fn of_table(path: PathBuf, hash: String, table: &data::Table) -> Self {
        Self {
            path,
            hash,
            rows: (0..table.rows())
                .into_par_iter()
                .map(|row| table.row(row))
                .collect(),
            columns: table.columns().map(|(name, _)| name.to_owned()).collect(),
            task: None,
            chosen: Columns {
                id: Some("id".into()),
                ..Columns::default()
            },
        }
    }

    /// Reads a file whole: CSV, TSV, JSON, JSON lines or Parquet, by its ending.
    ///
    /// # Errors
    /// An unknown ending, an unreadable file, a chosen column that is not there, no rows.
    pub fn read(path: &Path, chosen: Columns) -> Result<Self> {
        let place = || path.display().to_string();
        let kind = data::kind_of(path).ok_or_else(|| {
            MergeError::plan(
                "unknown-format",
                "is not a file of predictions that Polyloom reads",
            )
            .at(place())
            .hint("CSV (.csv), tab-separated (.tsv), JSON lines (.jsonl), JSON (.json) or Parquet (.parquet)")
        })?;
        let hash = polyloom_core::hash::sha256_file(path)?;
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        data::read(path, kind, &Limits::default(), &mut |table| {
            for (name, _) in table.columns() {
                if !columns.iter().any(|c| c == name) {
                    columns.push(name.to_owned());
                }
            }
            let raw = table
                .types()
                .into_iter()
                .filter(|(_, word)| *word == "bytes");
            let raw: Vec<&str> = raw.map(|(name, _)| name).collect();
            for i in 0..table.rows() {
                let mut row = table.row(i);
                for name in &raw {
                    if let Some(Cell::Bytes(bytes)) = table.column(name).map(|c| c.cell(i)) {
                        row.insert((*name).to_owned(), hex(bytes).into());
                    }
                }
                rows.push(row);
            }
            Ok(())
        })?;
        let given = [&chosen.id, &chosen.task, &chosen.prediction];
        let given = given.into_iter().flatten();
        for column in given.chain(chosen.only.iter().map(|(c, _)| c)) {
            if !columns.contains(column) {
                return Err(MergeError::plan(
                    "missing-column",
                    format!("has no column `{column}`"),
                )
                .at(place())
                .hint(format!("its columns: {}", columns.join(", "))));
            }
        }
        let fits = |row: &Map<String, Value>| {
            let mut only = chosen.only.iter();
            only.all(|(column, text)| row.get(column).is_some_and(|v| plain(v) == *text))
        };
        rows.retain(fits);
        if rows.is_empty() {
            let what = match chosen.only.first() {
                Some((c, t)) => format!("no row has `{t}` in column `{c}`"),
                None => "holds no predictions".to_owned(),
            };
            return Err(MergeError::plan("empty", what).at(place()));
        }
        let has = |name: &str| columns.iter().any(|c| c == name);
        let task = chosen.task.clone().or(has("task").then(|| "task".into()));
        Ok(Self {
            path: path.to_owned(),
            hash,
            rows,
            columns,
            task,
            chosen,
        })
    }

    /// The rows as a table.
    #[must_use]
    pub fn table(&self) -> data::Table {
        let column = |name: &String| {
            let cells = self.rows.iter().map(|row| row.get(name).cloned());
            let cells = cells.map(|cell| cell.unwrap_or_default().into());
            (name.clone(), data::Column::of(cells))
        };
        data::Table::of(self.columns.iter().map(column).collect::<Vec<_>>())
    }

    /// Whether the file has a column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c == column)
    }

    /// The tasks that the file names, in its order.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        if let Some(column) = &self.task {
            for value in self.rows.iter().filter_map(|r| r.get(column)) {
                let name = plain(value);
                if seen.insert(name.clone()) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The column of ids for a task whose own id column is `own`.
    #[must_use]
    pub fn id_column(&self, own: &str) -> Option<&str> {
        if let Some(id) = &self.chosen.id {
            return Some(id);
        }
        let usual = ["id", own, "doc_id", "example_id"];
        let mut usual = usual.into_iter().filter(|c| !c.is_empty());
        let found = usual.find(|c| self.has(c))?;
        self.columns.iter().find(|c| *c == found).map(|c| &**c)
    }

    /// An error about this file.
    pub(crate) fn bad(&self, code: &'static str, what: impl Into<String>) -> MergeError {
        MergeError::plan(code, what).at(self.path.display().to_string())
    }

    /// An error that lists the columns of this file.
    pub(crate) fn lacks(&self, what: impl std::fmt::Display) -> MergeError {
        self.bad("missing-column", format!("has no column {what}"))
            .hint(format!("its columns: {}", self.columns.join(", ")))
    }
}

/// A value as plain text.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A value that may be JSON in a text cell, as CSV has it.
pub(crate) fn unpacked(value: &Value) -> Value {
    let Value::String(text) = value else {
        return value.clone();
    };
    let trimmed = text.trim();
    if trimmed.starts_with(['[', '{']) {
        // Python's reprs use single quotes.
        let parsed = serde_json::from_str(trimmed)
            .or_else(|_| serde_json::from_str(&trimmed.replace('\'', "\"")));
        if let Ok(parsed) = parsed {
            return parsed;
        }
    }
    value.clone()
}

/// A finite number in a cell; infinity is allowed where `infinite`.
pub(crate) fn number(value: &Value, infinite: bool) -> Option<f64> {
    let x = match value {
        Value::Number(n) => n.as_f64()?,
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::String(s) => s.trim().parse().ok()?,
        _ => return None,
    };
    (x.is_finite() || infinite && !x.is_nan()).then_some(x)
}
