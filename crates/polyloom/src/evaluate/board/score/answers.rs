//! A file of predictions as rows of cells.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};

pub(crate) use polyloom_core::hash::sha256_text as sha256;

use super::maps::hex;
use crate::error::{MergeError, Result};
use crate::tasks::data::table::Cell;
use crate::tasks::data::{self, Limits};

/// Rows that a thread writes at once.
const BLOCK: usize = 4096;

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

    /// Writes them as a file that [`Self::read`] reads: CSV (lists as JSON) or JSON lines, by its ending; it appears whole
    /// or not at all.
    ///
    /// # Errors
    /// Another ending, a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        let io = |e: std::io::Error| MergeError::from(polyloom_core::Error::io(path, "write", e));
        let bytes = match &*ending {
            "csv" => {
                let (head, rows) = (self.csv(&[], true), self.rows.par_chunks(BLOCK));
                let blocks: std::io::Result<Vec<Vec<u8>>> =
                    rows.map(|rows| self.csv(rows, false)).collect();
                let mut bytes = head.map_err(io)?;
                blocks.map_err(io)?.iter().for_each(|b| bytes.extend(b));
                bytes
            }
            "jsonl" => {
                let line = |row: &Map<String, Value>| Value::Object(row.clone()).to_string() + "\n";
                let lines: String = self.rows.par_iter().map(line).collect();
                lines.into_bytes()
            }
            _ => {
                let error = MergeError::plan("bad-flag", "is neither .csv nor .jsonl");
                return Err(error.at(path.display().to_string()).hint("-o FILE.csv"));
            }
        };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        std::fs::write(&part, bytes).map_err(io)?;
        std::fs::rename(&part, path).map_err(io)
    }

    /// Rows as CSV, behind a header where it is asked for.
    fn csv(&self, rows: &[Map<String, Value>], header: bool) -> std::io::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if header {
            writer.write_record(&self.columns)?;
        }
        for row in rows {
            let cells = self.columns.iter();
            let cells = cells.map(|c| match row.get(c) {
                Some(Value::String(text)) => Cow::Borrowed(&**text),
                Some(other) => Cow::Owned(plain(other)),
                None => Cow::Borrowed(""),
            });
            for cell in cells {
                writer.write_field(&*cell)?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        writer.into_inner().map_err(csv::IntoInnerError::into_error)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_written_in_their_order_over_blocks() {
        let cell = |i: usize| match i % 3 {
            0 => json!("a, \"b\""),
            1 => json!([1, 2]),
            _ => Value::Null,
        };
        let row = |i: usize| [("id".to_owned(), json!(i)), ("said".to_owned(), cell(i))];
        let n = 2 * BLOCK + 3;
        let made = Answers {
            path: PathBuf::new(),
            hash: String::new(),
            rows: (0..n).map(|i| row(i).into_iter().collect()).collect(),
            columns: vec!["id".into(), "said".into()],
            task: None,
            chosen: Columns::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let written = |ending: &str| {
            let file = dir.path().join(format!("answers.{ending}"));
            made.write(&file).unwrap();
            std::fs::read_to_string(file).unwrap()
        };
        let csv = written("csv");
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), n + 1);
        assert_eq!(
            lines[..4],
            ["id,said", "0,\"a, \"\"b\"\"\"", "1,\"[1,2]\"", "2,"]
        );
        let ids = |line: &&str| line.split(',').next().map(str::to_owned);
        assert!(
            (0..n).eq(lines[1..]
                .iter()
                .filter_map(|l| ids(l)?.parse::<usize>().ok()))
        );
        let jsonl = written("jsonl");
        assert_eq!(
            jsonl.lines().nth(BLOCK),
            Some("{\"id\":4096,\"said\":[1,2]}")
        );
        assert_eq!(jsonl.lines().count(), n);
    }
}
