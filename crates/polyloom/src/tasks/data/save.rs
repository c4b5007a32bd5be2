//! A table in memory as one file.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;

use super::kind_of;
use super::lines::Lines;
use super::table::{Cell, Column, Table};
use super::texts::Texts;
use super::write::{Kind, Writer};
use crate::error::{MergeError, Result};
use crate::tasks::spec::SourceKind;

/// Rows that a thread writes at once.
const BLOCK: usize = 4096;

/// Rows of a row group of Parquet.
const GROUP: usize = 1 << 20;

/// Whether [`save`] writes a file of this name.
///
/// # Errors
/// Another ending than those.
pub fn can_save(path: &Path) -> Result<SourceKind> {
    use SourceKind::{Csv, Jsonl, Parquet, Tsv};
    let kind = kind_of(path).filter(|k| matches!(k, Csv | Tsv | Jsonl | Parquet));
    kind.ok_or_else(|| {
        MergeError::plan(
            "bad-flag",
            "is no name of a file of rows that can be written",
        )
        .at(path.display().to_string())
        .hint("-o FILE.csv, .tsv, .jsonl or .parquet")
    })
}

/// Writes a table as CSV, tab-separated, JSON lines or Parquet, by the ending of its name, on all threads; its bytes do not
/// depend on how many. Lists become JSON in a cell, but in JSON lines. The file appears whole or not at all.
///
/// # Errors
/// Another ending, a column of raw bytes in a file of text, a file that cannot be written.
pub fn save(table: &Table, path: &Path) -> Result<()> {
    let kind = can_save(path)?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let written = match kind {
        SourceKind::Parquet => columns(table, part),
        kind => lines(table, kind, part, path),
    };
    let io = |e: std::io::Error| MergeError::from(polyloom_core::Error::io(path, "write", e));
    let done = written.and_then(|()| std::fs::rename(part, path).map_err(io));
    if done.is_err() {
        let _ = std::fs::remove_file(part);
    }
    done
}

fn lines(table: &Table, kind: SourceKind, part: &Path, path: &Path) -> Result<()> {
    if let Some((name, _)) = table.types().into_iter().find(|(_, word)| *word == "bytes") {
        let what = format!("column `{name}` holds raw bytes, which text files cannot");
        return Err(super::bad(path, what).hint("-o FILE.parquet"));
    }
    let io = |e: std::io::Error| MergeError::from(polyloom_core::Error::io(path, "write", e));
    let delimiter = match kind {
        SourceKind::Csv => Some(b','),
        SourceKind::Tsv => Some(b'\t'),
        _ => None,
    };
    let mut file = File::create(part).map_err(io)?;
    let mut head = Lines::new(Vec::new(), delimiter);
    head.header(table).map_err(io)?;
    file.write_all(&head.finish().map_err(io)?).map_err(io)?;
    let block = |from: usize| -> std::io::Result<Vec<u8>> {
        let mut lines = Lines::new(Vec::new(), delimiter);
        for row in from..table.rows().min(from + BLOCK) {
            lines.row(table, row)?;
        }
        lines.finish()
    };
    // So many blocks at a time stay in memory.
    let starts: Vec<usize> = (0..table.rows()).step_by(BLOCK).collect();
    for starts in starts.chunks(4 * rayon::current_num_threads()) {
        let blocks: Vec<_> = starts.par_iter().map(|from| block(*from)).collect();
        for block in blocks {
            file.write_all(&block.map_err(io)?).map_err(io)?;
        }
    }
    Ok(())
}

fn columns(table: &Table, part: &Path) -> Result<()> {
    let text = |column: &Column| -> Column {
        let cell = |row| match column.cell(row) {
            Cell::Null => None,
            cell => Some(cell.to_text()),
        };
        Column::Text((0..column.len()).map(cell).collect::<Texts>())
    };
    let mut kinds = Vec::new();
    let mut as_text = Vec::new();
    for (name, column) in table.columns() {
        let kind = match column {
            Column::Bytes(_) => Kind::Bytes,
            Column::Number(_) => Kind::Number,
            Column::Text(_) => Kind::Text,
            Column::Bool(_) | Column::Nested(_) => {
                as_text.push((name, text(column)));
                Kind::Text
            }
        };
        kinds.push((name.to_owned(), kind));
    }
    let table = match as_text.is_empty() {
        true => std::borrow::Cow::Borrowed(table),
        false => {
            let columns = table.columns().map(|(name, column)| {
                let other = as_text.iter().find(|(n, _)| *n == name);
                (name, other.map_or(column, |(_, c)| c).clone())
            });
            std::borrow::Cow::Owned(Table::of(columns))
        }
    };
    let mut writer = Writer::create(part, kinds)?;
    match table.rows() {
        n if n <= GROUP => writer.write(&table)?,
        n => {
            for from in (0..n).step_by(GROUP) {
                writer.write(&table.filtered(|row| (from..from + GROUP).contains(&row)))?;
            }
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tasks::data::{self, Limits};

    /// Texts with delimiters, lists and missing ones; numbers whole or not.
    fn table(n: usize) -> Table {
        let said = |i: usize| match i % 3 {
            0 => Some(json!("a, \"b\"\t")),
            1 => Some(json!([1, "x"])),
            _ => None,
        };
        let x = |i: usize| (!i.is_multiple_of(5)).then_some(i as f64 / 4.0);
        Table::of([
            (
                "id",
                Column::Text((0..n).map(|i| Some(i.to_string())).collect()),
            ),
            ("said", Column::Nested((0..n).map(said).collect())),
            ("x", Column::Number((0..n).map(x).collect())),
        ])
    }

    /// The file's bytes and its rows as they are read again.
    fn saved(
        table: &Table,
        ending: &str,
    ) -> (Vec<u8>, Vec<serde_json::Map<String, serde_json::Value>>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(format!("answers.{ending}"));
        save(table, &file).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let mut all = Vec::new();
        data::read(
            &file,
            can_save(&file).unwrap(),
            &Limits::default(),
            &mut |t| {
                all.extend((0..t.rows()).map(|row| t.row(row)));
                Ok(())
            },
        )
        .unwrap();
        (std::fs::read(&file).unwrap(), all)
    }

    #[test]
    fn rows_are_written_in_their_order_over_blocks() {
        let n = 2 * BLOCK + 3;
        let table = table(n);
        let (csv, read) = saved(&table, "csv");
        let csv = String::from_utf8(csv).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!((lines.len(), read.len()), (n + 1, n));
        assert_eq!(lines[0], "id,said,x");
        assert_eq!(lines[1], "0,\"a, \"\"b\"\"\t\",");
        assert_eq!(lines[2], "1,\"[1,\"\"x\"\"]\",0.25");
        assert_eq!(lines[3], "2,,0.5");
        assert_eq!(lines[5], "4,\"[1,\"\"x\"\"]\",1");
        let (tsv, _) = saved(&table, "tsv");
        assert!(
            String::from_utf8(tsv)
                .unwrap()
                .starts_with("id\tsaid\tx\n0\t\"a, ")
        );
        let (jsonl, read) = saved(&table, "jsonl");
        let jsonl = String::from_utf8(jsonl).unwrap();
        assert_eq!(
            jsonl.lines().nth(BLOCK),
            Some(r#"{"id":"4096","said":[1,"x"],"x":1024}"#)
        );
        assert_eq!(jsonl.lines().nth(5), Some(r#"{"id":"5"}"#));
        assert!((0..n).all(|row| read[row] == table.row(row)));
        let (_, read) = saved(&table, "parquet");
        assert_eq!(read.len(), n);
        assert!((0..n).all(|row| read[row].get("x") == table.row(row).get("x")));
        assert_eq!(read[4]["said"], "[1,\"x\"]");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let failed = |table: &Table, name: &str| {
            let error = save(table, &dir.path().join(name)).unwrap_err();
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
            error.to_string()
        };
        let raw = Table::of([("raw", Column::Bytes(vec![Some(vec![0])]))]);
        assert!(failed(&raw, "t.csv").contains("column `raw` holds raw bytes"));
        assert!(failed(&table(1), "t.xlsx").contains("can be written"));
        assert!(failed(&table(1), "no/t.csv").contains("t.csv"));
    }
}
