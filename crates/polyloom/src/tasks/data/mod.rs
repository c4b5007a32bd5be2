//! Rows of data files as small columnar tables, one batch at a time.
//!
//! Memory is bounded by a batch (at most about a million cells, see [`Limits`]), except for `json` documents, which are
//! read whole. What a file cannot mean is an error that names the file and the row.

pub mod arrow;
pub mod csv;
pub mod images;
pub mod json;
pub mod lines;
pub mod parquet;
pub mod save;
pub mod table;
pub mod texts;
pub mod write;

use std::path::Path;

use super::spec::SourceKind;
use crate::error::{MergeError, Result};

pub use table::{Cell, Column, Table};
pub use texts::Texts;

/// What a reader may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Cells of a batch: wide files get fewer rows per batch.
    pub batch_cells: usize,
    /// Bytes of one record (a line, a CSV record, a cell of a Parquet file).
    pub record_bytes: u64,
    /// Bytes of a `json` document, which is read whole.
    pub document_bytes: u64,
    /// Bytes that a Parquet column of one row group says it has once unpacked.
    pub unpacked_bytes: u64,
    /// Bytes of one image once unpacked.
    pub image_bytes: u64,
    /// Columns that JSON rows may have together.
    pub columns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_rows: 4096,
            batch_cells: 1 << 20,
            record_bytes: 64 << 20,
            document_bytes: 1 << 30,
            unpacked_bytes: 4 << 30,
            image_bytes: 256 << 20,
            columns: 1 << 20,
        }
    }
}

impl Limits {
    /// Rows of a batch with so many columns.
    #[must_use]
    pub fn rows(&self, columns: usize) -> usize {
        (self.batch_cells / columns.max(1)).clamp(1, self.batch_rows.max(1))
    }
}

/// Takes a batch; an error ends the reading.
pub type Visit<'v> = &'v mut dyn FnMut(Table) -> Result<()>;

/// Reads a file of a format, batch by batch. A file without rows gives one batch without rows where its columns are
/// known.
///
/// # Errors
/// An unreadable file, a row that is not what the format demands (named by number, from 1), a limit that is passed, or
/// a format without a reader.
pub fn read(path: &Path, kind: SourceKind, limits: &Limits, visit: Visit) -> Result<()> {
    match kind {
        SourceKind::Csv => csv::read(path, b',', limits, visit),
        SourceKind::Tsv => csv::read(path, b'\t', limits, visit),
        SourceKind::Jsonl => json::lines(path, limits, visit),
        SourceKind::Json => json::document(path, limits, visit),
        SourceKind::Parquet => parquet::read(path, limits, visit),
        SourceKind::Arrow => arrow::read(path, limits, visit),
        SourceKind::Synth | SourceKind::ImageFolder | SourceKind::Inline => {
            let name = serde_json::to_value(kind).unwrap_or_default();
            Err(bad(
                path,
                format!("a source of kind {name} is not read as a file"),
            ))
        }
    }
}

/// The format of a file by its name.
#[must_use]
pub fn kind_of(path: &Path) -> Option<SourceKind> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    match &*extension {
        "csv" => Some(SourceKind::Csv),
        "tsv" | "tab" => Some(SourceKind::Tsv),
        "jsonl" | "ndjson" => Some(SourceKind::Jsonl),
        "json" => Some(SourceKind::Json),
        "parquet" | "pq" => Some(SourceKind::Parquet),
        "arrow" | "feather" => Some(SourceKind::Arrow),
        _ => None,
    }
}

/// Number of rows of a file, without keeping them.
///
/// # Errors
/// As [`read`].
pub fn count(path: &Path, kind: SourceKind, limits: &Limits) -> Result<u64> {
    if kind == SourceKind::Parquet {
        return parquet::rows(path, limits);
    }
    let mut rows = 0;
    read(path, kind, limits, &mut |table| {
        rows += table.rows() as u64;
        Ok(())
    })?;
    Ok(rows)
}

thread_local! {
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether a panic on this thread now would be caught and become an error about a data file. A program's panic hook says
/// nothing then.
#[must_use]
pub fn panics_are_caught() -> bool {
    GUARDED.get()
}

/// Runs a step of a foreign decoder; `None` where it panics, as some do on damaged files.
pub(crate) fn quiet<T>(step: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(step));
    GUARDED.set(before);
    done.ok()
}

/// A problem of a data file.
pub(crate) fn bad(path: &Path, what: impl Into<String>) -> MergeError {
    MergeError::plan("bad-data", what.into()).at(path.display().to_string())
}

/// A problem of a row (from 1) of a data file.
pub(crate) fn bad_row(path: &Path, row: u64, what: impl std::fmt::Display) -> MergeError {
    bad(path, format!("row {row}: {what}"))
}

#[cfg(test)]
mod tests;
