//! JSON lines, streamed, and JSON documents, read whole.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::table::Owned;
use super::{Limits, Table, Visit, bad, bad_row};
use crate::error::Result;

/// Reads one object per line. Empty lines are left out; a key that a row lacks is missing there.
///
/// # Errors
/// A line that is no JSON object, is not UTF-8 or is longer than `limits.record_bytes`, more columns than
/// `limits.columns`, an unreadable file. Rows are counted with empty lines, so that the number is the line's.
pub fn lines(path: &Path, limits: &Limits, visit: Visit) -> Result<()> {
    let file = File::open(path).map_err(|e| polyloom_core::Error::io(path, "open", e))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut rows = Rows::new(path, limits, visit);
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = (&mut reader)
            .take(limits.record_bytes + 1)
            .read_until(b'\n', &mut line)
            .map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        if n == 0 {
            return rows.end();
        }
        rows.number += 1;
        if n as u64 > limits.record_bytes {
            let what = format!("is longer than {} bytes", limits.record_bytes);
            return Err(bad_row(path, rows.number, what));
        }
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if std::str::from_utf8(text).is_err() {
            return Err(bad_row(path, rows.number, "is not UTF-8 text"));
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(map)) => rows.push(map)?,
            Ok(_) => return Err(bad_row(path, rows.number, "is no JSON object")),
            Err(e) => {
                return Err(bad_row(
                    path,
                    rows.number,
                    format!("is not valid JSON: {e}"),
                ));
            }
        }
    }
}

/// Reads a document that is a list of objects, or an object with exactly one member that is a list of objects (as
/// `examples` of a BIG-bench file).
///
/// # Errors
/// No or several such lists, an entry that is no object, a file above `limits.document_bytes`.
pub fn document(path: &Path, limits: &Limits, visit: Visit) -> Result<()> {
    let value = whole(path, limits)?;
    let is_rows = |v: &Value| {
        v.as_array()
            .is_some_and(|l| !l.is_empty() && l.iter().all(Value::is_object))
    };
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut map) => {
            let names: Vec<String> = map
                .iter()
                .filter(|(_, v)| is_rows(v))
                .map(|(k, _)| k.clone())
                .collect();
            match &names[..] {
                [one] => match map.shift_remove(one) {
                    Some(Value::Array(list)) => list,
                    _ => Vec::new(),
                },
                [] => return Err(bad(path, "holds no list of objects")),
                _ => {
                    let what = format!("holds several lists of objects: {}", names.join(", "));
                    return Err(bad(path, what));
                }
            }
        }
        _ => return Err(bad(path, "is neither a list nor an object")),
    };
    let mut rows = Rows::new(path, limits, visit);
    for entry in list {
        rows.number += 1;
        match entry {
            Value::Object(map) => rows.push(map)?,
            _ => return Err(bad_row(path, rows.number, "is no JSON object")),
        }
    }
    rows.end()
}

/// A JSON file as one value.
///
/// # Errors
/// A file above `limits.document_bytes`, text that is not UTF-8 or not JSON.
pub fn whole(path: &Path, limits: &Limits) -> Result<Value> {
    let size = std::fs::metadata(path).map_err(|e| polyloom_core::Error::io(path, "open", e))?;
    if size.len() > limits.document_bytes {
        let what = format!(
            "is longer than {} bytes; write it as JSON lines",
            limits.document_bytes
        );
        return Err(bad(path, what));
    }
    let bytes = std::fs::read(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(path, format!("is not valid JSON: {e}")))
}

/// Rows given as objects, such as those of an inline task.
///
/// # Errors
/// What `visit` returns.
pub fn rows(
    rows: impl Iterator<Item = Map<String, Value>>,
    limits: &Limits,
    visit: Visit,
) -> Result<()> {
    let mut batch = Rows::new(Path::new("rows"), limits, visit);
    for map in rows {
        batch.number += 1;
        batch.push(map)?;
    }
    batch.end()
}

/// Collects rows into batches.
struct Rows<'p, 'v> {
    path: &'p Path,
    limits: &'p Limits,
    visit: Visit<'v>,
    batch: Table,
    given: bool,
    number: u64,
}

impl<'p, 'v> Rows<'p, 'v> {
    fn new(path: &'p Path, limits: &'p Limits, visit: Visit<'v>) -> Self {
        Self {
            path,
            limits,
            visit,
            batch: Table::default(),
            given: false,
            number: 0,
        }
    }

    fn push(&mut self, map: Map<String, Value>) -> Result<()> {
        let values = map.into_iter().map(|(k, v)| (k, Owned::from(v)));
        self.batch.push_named(values);
        let columns = self.batch.columns().len();
        if columns > self.limits.columns {
            let what = format!("the rows so far have {columns} different keys");
            return Err(bad_row(self.path, self.number, what));
        }
        if self.batch.rows() >= self.limits.rows(columns) {
            self.given = true;
            (self.visit)(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        if self.batch.rows() > 0 || !self.given {
            (self.visit)(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}
