//! Parquet files through the row interface of the `parquet` crate (zstd, snappy and uncompressed pages).

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;

use super::table::{Owned, number};
use super::{Limits, Table, Visit, bad, bad_row};
use crate::error::Result;

fn open(path: &Path, limits: &Limits) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| polyloom_core::Error::io(path, "open", e))?;
    let reader = guarded(path, || SerializedFileReader::new(file))?
        .map_err(|e| bad(path, format!("is no readable Parquet file: {e}")))?;
    let metadata = reader.metadata();
    for (g, group) in metadata.row_groups().iter().enumerate() {
        for column in group.columns() {
            let size = column.uncompressed_size();
            if u64::try_from(size).is_err() || size.unsigned_abs() > limits.unpacked_bytes {
                let what = format!(
                    "column `{}` of row group {g} unpacks to {size} bytes, the limit is {}",
                    column.column_descr().name(),
                    limits.unpacked_bytes
                );
                return Err(bad(path, what));
            }
        }
    }
    Ok(reader)
}

/// Runs a step of the decoder, which gives up on some damaged files: an error of the file, not an end of the program.
fn guarded<T>(path: &Path, step: impl FnOnce() -> T) -> Result<T> {
    super::quiet(step).ok_or_else(|| bad(path, "is a damaged Parquet file"))
}

/// Number of rows by the file's own count.
///
/// # Errors
/// As [`read`].
pub fn rows(path: &Path, limits: &Limits) -> Result<u64> {
    let reader = open(path, limits)?;
    let rows = reader.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| bad(path, format!("says that it has {rows} rows")))
}

/// Reads a file row group by row group. Whole numbers, floats, text, truth values and bytes keep their type; dates,
/// times and decimals become text; lists, maps and groups are nested values.
///
/// # Errors
/// A damaged file, a codec that is not built in, a column that says it unpacks to more than `limits.unpacked_bytes`, a
/// text or binary value above `limits.record_bytes`.
pub fn read(path: &Path, limits: &Limits, visit: Visit) -> Result<()> {
    let reader = open(path, limits)?;
    let schema = reader.metadata().file_metadata().schema();
    let names: Vec<String> = schema
        .get_fields()
        .iter()
        .map(|f| f.name().to_owned())
        .collect();
    let fresh = || Table::with_columns(names.iter().map(String::as_str));
    let most = limits.rows(names.len());
    let mut batch = fresh();
    let (mut number, mut given) = (0u64, false);
    let mut iterator = guarded(path, || reader.get_row_iter(None))?
        .map_err(|e| bad(path, format!("cannot be read: {e}")))?;
    while let Some(row) = guarded(path, || iterator.next())? {
        number += 1;
        let row: Row = row.map_err(|e| bad_row(path, number, e))?;
        let mut long = None;
        batch.push(row.into_columns().into_iter().map(|(name, field)| {
            let value = owned(field);
            let bytes = match &value {
                Owned::Text(t) => t.len(),
                Owned::Bytes(b) => b.len(),
                _ => 0,
            };
            if bytes as u64 > limits.record_bytes {
                long = Some((name, bytes));
            }
            value
        }));
        if let Some((name, bytes)) = long {
            let what = format!(
                "column `{name}` has {bytes} bytes, the limit is {}",
                limits.record_bytes
            );
            return Err(bad_row(path, number, what));
        }
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

fn owned(field: Field) -> Owned {
    match field {
        Field::Null => Owned::Null,
        Field::Bool(b) => Owned::Bool(b),
        Field::Str(s) => Owned::Text(s),
        Field::Bytes(b) => Owned::Bytes(b.data().to_vec()),
        Field::Float(x) => Owned::Number(x.into()),
        Field::Double(x) => Owned::Number(x),
        other => Owned::from(json(&other)),
    }
}

fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(b) => (*b).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float(x) => number((*x).into()),
        Field::Double(x) => number(*x),
        Field::Str(s) => s.as_str().into(),
        Field::Group(row) => row
            .get_column_iter()
            .map(|(n, f)| (n.clone(), json(f)))
            .collect(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::MapInternal(map) => map
            .entries()
            .iter()
            .map(|(k, v)| {
                let key = match json(k) {
                    Value::String(s) => s,
                    other => other.to_string(),
                };
                (key, json(v))
            })
            .collect(),
        other => other.to_string().into(),
    }
}
