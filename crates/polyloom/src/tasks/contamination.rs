//! Whether evaluation texts stand in a training file: overlap of 13-grams.
//!
//! Texts are lower-cased, punctuation is dropped, runs of 13 words are compared (the window of GPT-3 and of the
//! decontamination of lm-evaluation-harness; evaluation specification, 1.3).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use polyloom_core::hash::xxh3;
use serde::Serialize;

use super::data::{self, Cell, Limits, Table};
use super::load::Loader;
use super::spec::TaskSpec;
use crate::error::Result;

/// Words of a window.
pub const WINDOW: usize = 13;

/// What one split shares with the training texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overlap {
    /// The split.
    pub split: String,
    /// Its rows.
    pub rows: u64,
    /// Rows of fewer than 13 words, which cannot be judged.
    pub short: u64,
    /// Rows with at least one window in the training texts, by number from 0.
    pub hit: Vec<u64>,
    /// The worst row and the share of its windows that are there.
    pub worst: Option<(u64, f64)>,
}

/// Hashes of the windows of a text, one word at a time.
struct Windows {
    words: std::collections::VecDeque<u64>,
}

impl Windows {
    fn new() -> Self {
        Self {
            words: std::collections::VecDeque::with_capacity(WINDOW),
        }
    }

    /// Takes a text, gives the hash of every window that ends in it.
    fn text(&mut self, text: &str, mut found: impl FnMut(u64)) {
        for raw in text.split_whitespace() {
            let word: String = raw
                .chars()
                .filter(|c| c.is_alphanumeric())
                .flat_map(char::to_lowercase)
                .collect();
            if word.is_empty() {
                continue;
            }
            if self.words.len() == WINDOW {
                self.words.pop_front();
            }
            self.words.push_back(xxh3(word.as_bytes()));
            if self.words.len() == WINDOW {
                let bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
                found(xxh3(&bytes));
            }
        }
    }
}

fn windows(text: &str) -> Vec<u64> {
    let mut out = Vec::new();
    Windows::new().text(text, |h| out.push(h));
    out
}

/// The texts of a row that count: its input fields.
fn texts(spec: &TaskSpec, table: &Table, row: usize) -> String {
    let f = &spec.fields;
    let all = [&f.input, &f.input2, &f.query, &f.document];
    let given = all.into_iter().filter(|c| !c.is_empty());
    let parts = given.map(|c| match table.at(row, c) {
        serde_json::Value::String(s) => s,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Compares every split but `train` with training files: tables (all their columns of text) or plain text, read as one
/// stream. Memory: 16 bytes per window of the evaluation texts; the training files are streamed.
///
/// # Errors
/// A file that cannot be read; a task without fields of text.
pub fn check(
    spec: &TaskSpec,
    loader: &Loader,
    against: &[&Path],
    limits: &Limits,
) -> Result<Vec<Overlap>> {
    let f = &spec.fields;
    if [&f.input, &f.input2, &f.query, &f.document]
        .iter()
        .all(|c| c.is_empty())
    {
        let what = format!("task `{}` has no field of text to compare", spec.id);
        return Err(crate::error::MergeError::plan("no-text", what));
    }
    let splits: Vec<&String> = spec.splits.named.keys().filter(|s| *s != "train").collect();
    let mut seen = HashMap::<u64, bool>::new();
    for split in &splits {
        loader.rows(split, &mut |table| {
            for row in 0..table.rows() {
                seen.extend(
                    windows(&texts(spec, &table, row))
                        .into_iter()
                        .map(|h| (h, false)),
                );
            }
            Ok(())
        })?;
    }
    for path in against {
        stream(path, limits, &mut |hash| {
            if let Some(hit) = seen.get_mut(&hash) {
                *hit = true;
            }
        })?;
    }
    let mut out = Vec::new();
    for split in splits {
        let mut overlap = Overlap {
            split: split.clone(),
            rows: 0,
            short: 0,
            hit: Vec::new(),
            worst: None,
        };
        loader.rows(split, &mut |table| {
            for row in 0..table.rows() {
                let windows = windows(&texts(spec, &table, row));
                let hits = windows
                    .iter()
                    .filter(|h| seen.get(*h) == Some(&true))
                    .count();
                overlap.short += u64::from(windows.is_empty());
                if hits > 0 {
                    let share = hits as f64 / windows.len() as f64;
                    overlap.hit.push(overlap.rows);
                    if overlap.worst.is_none_or(|(_, most)| share > most) {
                        overlap.worst = Some((overlap.rows, share));
                    }
                }
                overlap.rows += 1;
            }
            Ok(())
        })?;
        out.push(overlap);
    }
    Ok(out)
}

/// Gives the hash of every window of a training file.
fn stream(path: &Path, limits: &Limits, found: &mut dyn FnMut(u64)) -> Result<()> {
    if let Some(kind) = data::kind_of(path) {
        return data::read(path, kind, limits, &mut |table| {
            for (_, column) in table.columns() {
                for row in 0..table.rows() {
                    match column.cell(row) {
                        Cell::Text(text) => Windows::new().text(text, &mut *found),
                        Cell::Nested(value) => nested(value, found),
                        _ => {}
                    }
                }
            }
            Ok(())
        });
    }
    let io = |e| polyloom_core::Error::io(path, "read", e);
    let mut file = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut windows = Windows::new();
    let mut line = Vec::new();
    // A line may be as long as the file: it is taken in pieces that end at white space.
    let mut rest = Vec::new();
    loop {
        line.clear();
        let n = (&mut file)
            .take(1 << 20)
            .read_until(b'\n', &mut line)
            .map_err(io)?;
        rest.extend_from_slice(&line);
        let end = match n {
            0 => rest.len(),
            _ => rest
                .iter()
                .rposition(u8::is_ascii_whitespace)
                .map_or(0, |i| i + 1),
        };
        // A word of many megabytes is no word.
        let end = if end == 0 && rest.len() > 1 << 22 {
            rest.len()
        } else {
            end
        };
        let text: Vec<u8> = rest.drain(..end).collect();
        windows.text(&String::from_utf8_lossy(&text), &mut *found);
        if n == 0 {
            return Ok(());
        }
    }
}

fn nested(value: &serde_json::Value, found: &mut dyn FnMut(u64)) {
    match value {
        serde_json::Value::String(text) => Windows::new().text(text, &mut *found),
        serde_json::Value::Array(list) => list.iter().for_each(|v| nested(v, found)),
        serde_json::Value::Object(map) => map.values().for_each(|v| nested(v, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::spec::{Source, SourceKind, Split, TaskType};

    #[test]
    fn windows_disregard_case_and_punctuation() {
        let text =
            "One two three four five six seven eight nine ten eleven twelve thirteen fourteen";
        assert_eq!(windows(text).len(), 2);
        assert_eq!(
            windows(text),
            windows(&text.to_uppercase().replace(' ', " , "))
        );
        assert!(windows("one two three").is_empty());
    }

    #[test]
    fn rows_whose_words_stand_in_a_file_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let long = |from: usize| {
            (from..from + 20)
                .map(|i| format!("w{i}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let rows = format!("text\n{}\n{}\nshort one\n", long(0), long(100));
        std::fs::write(dir.path().join("test.csv"), rows).unwrap();
        let broken = long(95).replace(' ', ",\n");
        std::fs::write(
            dir.path().join("corpus.txt"),
            format!("before {broken} W115, w116 after"),
        )
        .unwrap();
        let mut spec = TaskSpec::new("t", Source::new(SourceKind::Csv, ""));
        spec.kind = Some(TaskType::Generation);
        spec.fields.input = "text".into();
        spec.splits.named.insert(
            "test".into(),
            Split {
                file: "test.csv".into(),
                ..Split::default()
            },
        );
        let limits = Limits::default();
        let loader = Loader::new(&spec, dir.path().to_owned(), limits);
        let corpus = dir.path().join("corpus.txt");
        let found = check(&spec, &loader, &[&corpus], &limits).unwrap();
        assert_eq!(
            (found[0].rows, found[0].short, &found[0].hit[..]),
            (3, 1, &[1][..])
        );
        // Words 100 to 116 are there: 5 of the row's 8 windows.
        assert_eq!(found[0].worst, Some((1, 5.0 / 8.0)));
    }
}
