//! Files of predictions: CSV, TSV or JSON lines, one example a row.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use crate::error::{MergeError, Result};

/// Which columns hold what. `None` looks for the usual names.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Names an example; else `id`, `doc_id`, `example_id`, else the number of the row, from 1.
    pub id: Option<String>,
    /// Task of an example; else `task`, else everything is one task.
    pub task: Option<String>,
    /// What was predicted; else `prediction`, `pred`, `y_pred`, `predicted`, `output`.
    pub prediction: Option<String>,
    /// What is right; else `target`, `label`, `y_true`, `truth`, `gold`.
    pub label: Option<String>,
    /// A score per example, higher is better, in place of prediction and label.
    pub score: Option<String>,
}

/// One scored example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// 1 for right and 0 for wrong, or the score of the file.
    pub value: f64,
    /// What was predicted and what is right, where the file says so.
    pub texts: Option<(String, String)>,
}

/// A file of predictions: examples by task and id, in the order of the file.
#[derive(Debug, Clone)]
pub struct Predictions {
    /// The file.
    pub path: PathBuf,
    /// Examples by task, then by id. The task is empty where the file has none.
    pub tasks: IndexMap<String, IndexMap<String, Example>>,
    /// All values are 0 or 1: shares of right answers.
    pub binary: bool,
}

const ID: &[&str] = &["id", "doc_id", "example_id"];
const TASK: &[&str] = &["task"];
const PREDICTION: &[&str] = &["prediction", "pred", "y_pred", "predicted", "output"];
const LABEL: &[&str] = &["target", "label", "y_true", "truth", "gold"];

/// A line longer than this is not an example: it is refused before it fills the memory.
const LONGEST: usize = 64 << 20;

impl Predictions {
    /// Reads a file, row by row. The ending says the format: `.csv`, `.tsv`, `.jsonl` (or `.ndjson`).
    ///
    /// Predictions and labels are compared as texts without surrounding white space, so `1` and `1.0` differ.
    ///
    /// # Errors
    /// Unknown endings, absent columns, an id that stands twice, scores that are no numbers or NaN, bad UTF-8, rows of
    /// another length than the header, no rows at all.
    pub fn read(path: &Path, columns: &Columns) -> Result<Self> {
        let mut rows = Rows::open(path)?;
        let mut tasks: IndexMap<String, IndexMap<String, Example>> = IndexMap::new();
        let mut binary = true;
        let mut number = 0;
        while let Some(row) = rows.next()? {
            number += 1;
            let at = || format!("{}:{}", path.display(), row.line);
            let id = row.find(columns.id.as_deref(), ID, &at)?;
            let task = row.find(columns.task.as_deref(), TASK, &at)?;
            let example = row.example(columns, &at)?;
            binary &= example.value == 0.0 || example.value == 1.0;
            let id = id.unwrap_or_else(|| number.to_string());
            let examples = tasks.entry(task.unwrap_or_default()).or_default();
            if examples.contains_key(&id) {
                return Err(MergeError::plan(
                    "duplicate-id",
                    format!("the example `{id}` stands twice"),
                )
                .at(at())
                .hint("choose the column that names examples: --id COLUMN; several tasks in one file: --task-column COLUMN"));
            }
            examples.insert(id, example);
        }
        if number == 0 {
            return Err(
                MergeError::plan("empty", "holds no predictions").at(path.display().to_string())
            );
        }
        Ok(Self {
            path: path.to_path_buf(),
            tasks,
            binary,
        })
    }
}

/// One row: its line in the file and its cells.
struct Row {
    line: u64,
    cells: IndexMap<String, String>,
}

impl Row {
    /// A cell by the name given, or by the first usual name that the row has.
    fn find(
        &self,
        given: Option<&str>,
        usual: &[&str],
        at: &dyn Fn() -> String,
    ) -> Result<Option<String>> {
        let Some(name) = given else {
            return Ok(usual.iter().find_map(|name| self.cells.get(*name).cloned()));
        };
        match self.cells.get(name) {
            Some(cell) => Ok(Some(cell.clone())),
            None => Err(self.absent(&format!("`{name}`"), at)),
        }
    }

    fn absent(&self, what: &str, at: &dyn Fn() -> String) -> MergeError {
        let there: Vec<&str> = self.cells.keys().map(String::as_str).collect();
        MergeError::plan("missing-column", format!("has no column {what}"))
            .at(at())
            .hint(format!("its columns: {}", there.join(", ")))
    }

    fn example(&self, columns: &Columns, at: &dyn Fn() -> String) -> Result<Example> {
        if let Some(name) = &columns.score {
            let cell = self.find(Some(name), &[], at)?.unwrap_or_default();
            let value = cell.trim().parse().ok().filter(|v: &f64| !v.is_nan());
            let value = value.ok_or_else(|| {
                MergeError::plan(
                    "bad-score",
                    format!("column `{name}`: `{cell}` is no number"),
                )
                .at(at())
                .hint(
                    "a score per example is a number, higher is better; leave rows without one out",
                )
            })?;
            return Ok(Example { value, texts: None });
        }
        let prediction = self
            .find(columns.prediction.as_deref(), PREDICTION, at)?
            .ok_or_else(|| self.absent("of predictions (`prediction`)", at))?;
        let label = self
            .find(columns.label.as_deref(), LABEL, at)?
            .ok_or_else(|| self.absent("of right answers (`target`, `label`)", at))?;
        let right = prediction.trim() == label.trim();
        Ok(Example {
            value: f64::from(u8::from(right)),
            texts: Some((prediction, label)),
        })
    }
}

/// Rows of a file, one at a time.
enum Rows {
    Table(Box<csv::Reader<std::fs::File>>, Vec<String>, PathBuf),
    Lines(std::io::BufReader<std::fs::File>, u64, PathBuf),
}

impl Rows {
    fn open(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let delimiter = match ending.to_ascii_lowercase().as_str() {
            "csv" => Some(b','),
            "tsv" => Some(b'\t'),
            "jsonl" | "ndjson" => None,
            _ => {
                return Err(MergeError::plan(
                    "unknown-format",
                    "is not a file of predictions that Polyloom reads",
                )
                .at(path.display().to_string())
                .hint("CSV (.csv), tab-separated (.tsv) or JSON lines (.jsonl)"));
            }
        };
        let file = std::fs::File::open(path)
            .map_err(|e| MergeError::from(polyloom_core::Error::io(path, "open", e)))?;
        let Some(delimiter) = delimiter else {
            return Ok(Self::Lines(
                std::io::BufReader::new(file),
                0,
                path.to_path_buf(),
            ));
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .from_reader(file);
        let header = reader.headers().map_err(|e| bad_table(path, &e))?;
        // A byte order mark is no part of the first name.
        let names: Vec<String> = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').trim().to_owned())
            .collect();
        Ok(Self::Table(Box::new(reader), names, path.to_path_buf()))
    }

    fn next(&mut self) -> Result<Option<Row>> {
        match self {
            Self::Table(reader, names, path) => {
                let mut record = csv::StringRecord::new();
                if !reader
                    .read_record(&mut record)
                    .map_err(|e| bad_table(path, &e))?
                {
                    return Ok(None);
                }
                let line = record.position().map_or(0, csv::Position::line);
                let cells = names.iter().cloned().zip(record.iter().map(str::to_owned));
                Ok(Some(Row {
                    line,
                    cells: cells.collect(),
                }))
            }
            Self::Lines(reader, line, path) => loop {
                use std::io::{BufRead, Read};
                let mut text = Vec::new();
                let taken = reader
                    .by_ref()
                    .take(LONGEST as u64 + 1)
                    .read_until(b'\n', &mut text)
                    .map_err(|e| MergeError::from(polyloom_core::Error::io(&*path, "read", e)))?;
                if taken == 0 {
                    return Ok(None);
                }
                *line += 1;
                let bad = |message: String| {
                    MergeError::plan("bad-row", message).at(format!("{}:{line}", path.display()))
                };
                if text.len() > LONGEST {
                    return Err(bad("a line of more than 64 MB".into()));
                }
                let text =
                    std::str::from_utf8(&text).map_err(|e| bad(format!("is not UTF-8: {e}")))?;
                if text.trim().is_empty() {
                    continue;
                }
                let value: IndexMap<String, Value> = serde_json::from_str(text)
                    .map_err(|e| bad(format!("is not a JSON object: {e}")))?;
                let plain = |v: Value| match v {
                    Value::String(s) => s,
                    other => other.to_string(),
                };
                return Ok(Some(Row {
                    line: *line,
                    cells: value.into_iter().map(|(k, v)| (k, plain(v))).collect(),
                }));
            },
        }
    }
}

fn bad_table(path: &Path, error: &csv::Error) -> MergeError {
    let place = error.position().map_or_else(
        || path.display().to_string(),
        |p| format!("{}:{}", path.display(), p.line()),
    );
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("a row of {len} cells under a header of {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    MergeError::plan("bad-row", message).at(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8], columns: &Columns) -> Result<Predictions> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        Predictions::read(&path, columns)
    }

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let csv = read(
            "a.csv",
            b"\xef\xbb\xbfid,target,prediction\nx,yes,yes\ny,no, yes \n",
            &Columns::default(),
        )
        .unwrap();
        let jsonl = read(
            "a.jsonl",
            b"{\"id\": \"x\", \"target\": \"yes\", \"prediction\": \"yes\"}\n\n{\"id\": \"y\", \"target\": \"no\", \"prediction\": \" yes \"}\n",
            &Columns::default(),
        )
        .unwrap();
        assert_eq!(csv.tasks, jsonl.tasks);
        let values: Vec<f64> = csv.tasks[""].values().map(|e| e.value).collect();
        assert_eq!(values, [1.0, 0.0]);
        assert!(csv.binary);
    }

    #[test]
    fn without_ids_the_row_counts() {
        let p = read(
            "a.tsv",
            b"y_true\ty_pred\n1\t1\n0\t1\n",
            &Columns::default(),
        )
        .unwrap();
        assert_eq!(p.tasks[""].keys().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn bad_files_say_where() {
        let score = Columns {
            score: Some("f1".into()),
            ..Columns::default()
        };
        for (name, content, columns, want) in [
            (
                "a.csv",
                &b"id,pred\n1,2\n"[..],
                Columns::default(),
                "missing-column",
            ),
            ("a.csv", b"id,f1\n1,NaN\n", score.clone(), "bad-score"),
            (
                "a.csv",
                b"id,f1\n1,0.5\n1,0.5\n",
                score.clone(),
                "duplicate-id",
            ),
            ("a.csv", b"id,f1\n1,0.5,3\n", score.clone(), "bad-row"),
            ("a.csv", b"id,f1\n1,\xff\n", score.clone(), "bad-row"),
            ("a.jsonl", b"[1]\n", score.clone(), "bad-row"),
            ("a.jsonl", b"\xff\n", score.clone(), "bad-row"),
            ("a.csv", b"id,f1\n", score.clone(), "empty"),
            ("a.xlsx", b"", score, "unknown-format"),
        ] {
            let error = read(name, content, &columns).unwrap_err();
            assert_eq!(error.code(), want, "{error}");
        }
    }
}
