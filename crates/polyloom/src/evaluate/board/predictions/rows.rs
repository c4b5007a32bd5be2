//! Rows of a file of predictions, whatever its format.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use crate::error::{MergeError, Result};
use crate::evaluate::board::score::lm_eval;
use crate::tasks::data::{self, Limits};
use crate::tasks::spec::SourceKind;

/// A line longer than this is not an example: it is refused before it fills the memory.
const LONGEST: usize = 64 << 20;

/// One row: its line in the file and its cells.
pub(super) struct Row {
    pub line: u64,
    /// The score that a record states.
    pub value: Option<f64>,
    pub cells: IndexMap<String, String>,
}

/// Hands every row of a file on.
pub(super) fn each_row(path: &Path, take: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
    if data::kind_of(path) == Some(SourceKind::Parquet) {
        let mut line = 0;
        return data::parquet::read(path, &Limits::default(), &mut |table| {
            for at in 0..table.rows() {
                line += 1;
                let row = table
                    .columns()
                    .map(|(name, column)| (name, column.cell(at)));
                let row: Vec<_> = row
                    .filter(|(_, cell)| !matches!(cell, data::Cell::Null))
                    .collect();
                let value = row.iter().find(|(name, _)| *name == "value");
                take(Row {
                    line,
                    value: value.and_then(|(_, cell)| cell.to_number()),
                    cells: row
                        .into_iter()
                        .map(|(name, cell)| (name.to_owned(), cell.to_text()))
                        .collect(),
                })?;
            }
            Ok(())
        });
    }
    let mut rows = Rows::open(path)?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
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
                .hint("CSV (.csv), tab-separated (.tsv), JSON lines (.jsonl) or records of eval (.parquet)"));
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
                    value: None,
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
                let value: serde_json::Map<String, Value> = serde_json::from_str(text)
                    .map_err(|e| bad(format!("is not a JSON object: {e}")))?;
                let sample = lm_eval::compared(&value, path);
                let plain = |v: Value| match v {
                    Value::String(s) => s,
                    other => other.to_string(),
                };
                let mut row = Row {
                    line: *line,
                    value: None,
                    cells: value.into_iter().map(|(k, v)| (k, plain(v))).collect(),
                };
                if let Some(sample) = sample {
                    row.value = sample.value;
                    let mut put = |name: &str, text: String| {
                        row.cells.entry(name.to_owned()).or_insert(text);
                    };
                    put("task", sample.task);
                    put("prediction", sample.prediction);
                }
                return Ok(Some(row));
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
