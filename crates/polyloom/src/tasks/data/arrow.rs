//! Arrow IPC: files (Feather) and streams (the cache of Hugging Face data sets).

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType};
use serde_json::Value;

use super::table::{Owned, number};
use super::{Limits, Table, Visit, bad};
use crate::error::{MergeError, Result};

/// Reads a file or stream, batch by batch. Whole numbers, floats, text, truth values and bytes keep their type; lists and
/// structs are nested values, dictionaries their values.
///
/// # Errors
/// A damaged file (also one that makes the decoder give up half-way), a column type without a counterpart (dates, times,
/// decimals, unions), named.
pub fn read(path: &Path, limits: &Limits, visit: Visit) -> Result<()> {
    let io = |e| polyloom_core::Error::io(path, "open", e);
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let mut magic = [0; 6];
    let whole = file.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    file.rewind().map_err(io)?;
    let damaged = |e: ArrowError| bad(path, format!("is no readable Arrow file: {e}"));
    // The decoder may index out of a damaged buffer; that must be an error of the file, not an end of the program.
    let broken = || bad(path, "is a damaged Arrow file");
    let mut given = false;
    let mut all = |next: Next| -> Result<()> {
        while let Some(batch) = super::quiet(&mut *next).ok_or_else(broken)? {
            give(path, &batch.map_err(damaged)?, limits, &mut given, visit)?;
        }
        Ok(())
    };
    if whole {
        let opened = super::quiet(|| FileReader::try_new(file, None)).ok_or_else(broken)?;
        let mut reader = opened.map_err(damaged)?;
        all(&mut || reader.next())
    } else {
        let opened = super::quiet(|| StreamReader::try_new(file, None)).ok_or_else(broken)?;
        let mut reader = opened.map_err(damaged)?;
        all(&mut || reader.next())
    }
}

/// Gives the next record batch.
type Next<'n> = &'n mut dyn FnMut() -> Option<std::result::Result<RecordBatch, ArrowError>>;

/// Cuts a record batch into tables of at most `limits.rows` rows.
fn give(
    path: &Path,
    batch: &RecordBatch,
    limits: &Limits,
    given: &mut bool,
    visit: Visit,
) -> Result<()> {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let most = limits.rows(names.len());
    let mut start = 0;
    while start < batch.num_rows() || !*given {
        *given = true;
        let mut table = Table::with_columns(names.iter().copied());
        let end = (start + most).min(batch.num_rows());
        for row in start..end {
            let mut values = Vec::with_capacity(names.len());
            for (name, column) in names.iter().zip(batch.columns()) {
                values.push(owned(column.as_ref(), row).map_err(|kind| unread(path, name, &kind))?);
            }
            table.push(values.into_iter());
        }
        start = end;
        visit(table)?;
    }
    Ok(())
}

fn unread(path: &Path, column: &str, kind: &DataType) -> MergeError {
    bad(
        path,
        format!("column `{column}` has the type {kind}, which is not read"),
    )
}

fn owned(array: &dyn Array, row: usize) -> std::result::Result<Owned, DataType> {
    if array.is_null(row) {
        return Ok(Owned::Null);
    }
    Ok(match array.data_type() {
        DataType::Utf8 => Owned::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Owned::Text(array.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Owned::Text(array.as_string_view().value(row).to_owned()),
        DataType::Binary => Owned::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::LargeBinary => Owned::Bytes(array.as_binary::<i64>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => {
            Owned::Bytes(array.as_fixed_size_binary().value(row).to_vec())
        }
        DataType::Boolean => Owned::Bool(array.as_boolean().value(row)),
        DataType::Float32 => Owned::Number(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Owned::Number(array.as_primitive::<Float64Type>().value(row)),
        _ => Owned::from(json(array, row)?),
    })
}

fn json(array: &dyn Array, row: usize) -> std::result::Result<Value, DataType> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! whole {
        ($kind:ty) => {
            array.as_primitive::<$kind>().value(row).into()
        };
    }
    let list = |inner: ArrayRef| -> std::result::Result<Value, DataType> {
        (0..inner.len()).map(|i| json(inner.as_ref(), i)).collect()
    };
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        DataType::List(_) => list(array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => list(array.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let mut map = serde_json::Map::new();
            for (field, column) in fields.iter().zip(columns.columns()) {
                map.insert(field.name().clone(), json(column.as_ref(), row)?);
            }
            map.into()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values().as_ref();
            let key = json(dictionary.keys(), row)?.as_u64();
            let key = key
                .and_then(|k| usize::try_from(k).ok())
                .filter(|k| *k < values.len());
            key.map_or(Ok(Value::Null), |k| json(values, k))?
        }
        kind => match owned(array, row) {
            Ok(Owned::Text(t)) => t.into(),
            Ok(Owned::Bool(b)) => b.into(),
            Ok(Owned::Number(x)) => number(x),
            _ => return Err(kind.clone()),
        },
    })
}
