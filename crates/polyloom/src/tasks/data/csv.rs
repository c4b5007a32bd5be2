//! CSV and TSV with a header row, streamed.

use std::cell::Cell as Counter;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use super::{Limits, Table, Visit, bad, bad_row};
use crate::error::{MergeError, Result};

/// Reads a file with this delimiter. Fields are text; an empty field is missing. Quotes follow RFC 4180.
///
/// # Errors
/// A name that stands twice in the header, a row with more or fewer fields than it, text that is not UTF-8, a record
/// above `limits.record_bytes` (an open quote), an unreadable file.
pub fn read(path: &Path, delimiter: u8, limits: &Limits, visit: Visit) -> Result<()> {
    let file = File::open(path).map_err(|e| polyloom_core::Error::io(path, "open", e))?;
    let start = Rc::new(Counter::new(0));
    let guard = Guard {
        inner: BufReader::with_capacity(1 << 16, file),
        read: 0,
        start: start.clone(),
        most: limits.record_bytes,
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(guard);
    let header = reader.byte_headers().map_err(|e| failed(path, 0, e))?;
    let names = header
        .iter()
        .map(|n| std::str::from_utf8(n).map(str::to_owned))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad(path, "the header is not UTF-8 text"))?;
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|p| p[0] == p[1]) {
        return Err(bad(path, format!("the header has `{}` twice", pair[0])));
    }
    if names.is_empty() {
        return Err(bad(path, "is empty; a header row is needed"));
    }
    let fresh = || Table::with_columns(names.iter().map(String::as_str));
    let most = limits.rows(names.len());
    let mut record = csv::StringRecord::new();
    let mut batch = fresh();
    let (mut row, mut given) = (0u64, false);
    loop {
        start.set(reader.position().byte());
        row += 1;
        let more = reader.read_record(&mut record).map_err(|e| {
            let csv::ErrorKind::Utf8 { err, .. } = e.kind() else {
                return failed(path, row, e);
            };
            // A row with more fields than the header may have it in a field without a name.
            let column = names.get(err.field()).map_or("", |n| n);
            bad_row(path, row, format!("column `{column}` is not UTF-8 text"))
        })?;
        if !more {
            break;
        }
        if record.len() != names.len() {
            let line = record.position().map_or(0, csv::Position::line);
            let what = format!(
                "(line {line}) has {} fields, the header has {}",
                record.len(),
                names.len()
            );
            return Err(bad_row(path, row, what));
        }
        batch.push_texts(record.iter());
        if batch.rows() >= most {
            given = true;
            visit(std::mem::replace(&mut batch, fresh()))?;
        }
    }
    if batch.rows() > 0 || !given {
        visit(batch)?;
    }
    Ok(())
}

fn failed(path: &Path, row: u64, error: csv::Error) -> MergeError {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(e) if e.kind() != std::io::ErrorKind::InvalidData => {
            polyloom_core::Error::io(path, "read", e).into()
        }
        csv::ErrorKind::Io(e) => bad_row(path, row, e),
        _ => bad_row(path, row, text),
    }
}

/// Stops reading where one record takes more than it may.
struct Guard<R> {
    inner: R,
    read: u64,
    start: Rc<Counter<u64>>,
    most: u64,
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.read.saturating_sub(self.start.get()) > self.most {
            let text = format!("is longer than {} bytes; is a quote left open?", self.most);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}
