//! Arrow IPC: files (Feather) and streams (the cache of Hugging Face data sets).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
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
    let frame = Frame {
        path,
        size: file.get_ref().metadata().map_err(io)?.len(),
        limits,
    };
    frame.check(&mut file, whole)?;
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

/// The lengths that a file says of its parts, looked at before the decoder reserves memory for them.
struct Frame<'p> {
    path: &'p Path,
    size: u64,
    limits: &'p Limits,
}

impl Frame<'_> {
    fn broken(&self) -> MergeError {
        bad(
            self.path,
            "is no readable Arrow file: a part reaches beyond its end",
        )
    }

    fn check(&self, file: &mut BufReader<File>, whole: bool) -> Result<()> {
        if whole {
            return self.blocks(file);
        }
        let mut at = 0;
        while let Some((end, body)) = self.message(file, at)? {
            let body = u64::try_from(body).map_err(|_| self.broken())?;
            at = end.checked_add(body).ok_or_else(|| self.broken())?;
        }
        Ok(())
    }

    /// Bytes of the file.
    fn bytes(&self, file: &mut BufReader<File>, at: u64, n: u64) -> Result<Vec<u8>> {
        if at.checked_add(n).is_none_or(|end| end > self.size) {
            return Err(self.broken());
        }
        let io = |e| polyloom_core::Error::io(self.path, "read", e);
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        let mut out = Vec::new();
        file.take(n).read_to_end(&mut out).map_err(io)?;
        Ok(out)
    }

    fn word(&self, file: &mut BufReader<File>, at: u64) -> Result<u32> {
        let bytes = self.bytes(file, at, 4)?;
        let four: [u8; 4] = bytes.try_into().map_err(|_| self.broken())?;
        Ok(u32::from_le_bytes(four))
    }

    /// The record batches and dictionaries that the footer lists.
    fn blocks(&self, file: &mut BufReader<File>) -> Result<()> {
        let tail = self.size.checked_sub(10).ok_or_else(|| self.broken())?;
        let length = u64::from(self.word(file, tail)?);
        let start = tail.checked_sub(length).ok_or_else(|| self.broken())?;
        let footer = self.bytes(file, start, length)?;
        let footer = arrow_ipc::root_as_footer(&footer).map_err(|_| self.broken())?;
        let batches = footer.recordBatches().into_iter().flatten();
        for block in batches.chain(footer.dictionaries().into_iter().flatten()) {
            let at = u64::try_from(block.offset()).map_err(|_| self.broken())?;
            let Some((end, body)) = self.message(file, at)? else {
                return Err(self.broken());
            };
            let meta = u64::try_from(block.metaDataLength()).map_err(|_| self.broken())?;
            let length = u64::try_from(block.bodyLength()).map_err(|_| self.broken())?;
            let reach = at.checked_add(meta).and_then(|x| x.checked_add(length));
            let fits = reach.is_some_and(|r| r <= self.size);
            if !fits || body != block.bodyLength() || end > at + meta {
                return Err(self.broken());
            }
        }
        Ok(())
    }

    /// The end of the header of a message and the length of its body; `None` at the end of a stream.
    fn message(&self, file: &mut BufReader<File>, at: u64) -> Result<Option<(u64, i64)>> {
        if at == self.size {
            return Ok(None);
        }
        let (mut at, mut length) = (at + 4, self.word(file, at)?);
        if length == u32::MAX {
            (at, length) = (at + 4, self.word(file, at)?);
        }
        if length == 0 {
            return Ok(None);
        }
        let header = self.bytes(file, at, length.into())?;
        let message = arrow_ipc::root_as_message(&header).map_err(|_| self.broken())?;
        let (end, body) = (at + u64::from(length), message.bodyLength());
        let reach = u64::try_from(body).ok().and_then(|b| end.checked_add(b));
        if reach.is_none_or(|r| r > self.size) {
            return Err(self.broken());
        }
        let dictionary = message.header_as_dictionary_batch().and_then(|d| d.data());
        let batch = message.header_as_record_batch().or(dictionary);
        let Some(batch) = batch else {
            return Ok(Some((end, body)));
        };
        if batch.length() > i64::from(i32::MAX) {
            let what = format!("says that it has {} rows in one batch", batch.length());
            return Err(bad(self.path, what));
        }
        if batch.compression().is_some() {
            for buffer in batch.buffers().into_iter().flatten() {
                // A compressed buffer begins with its length once unpacked; -1 says that it is not compressed.
                let offset = u64::try_from(buffer.offset()).map_err(|_| self.broken())?;
                if buffer.length() < 8 {
                    continue;
                }
                let at = end.checked_add(offset).ok_or_else(|| self.broken())?;
                let (low, high) = (self.word(file, at)?, self.word(file, at + 4)?);
                let unpacked = (u64::from(high) << 32 | u64::from(low)).cast_signed();
                if unpacked > 0 && unpacked.unsigned_abs() > self.limits.unpacked_bytes {
                    let most = self.limits.unpacked_bytes;
                    let what = format!("a column unpacks to {unpacked} bytes, the limit is {most}");
                    return Err(bad(self.path, what));
                }
            }
        }
        Ok(Some((end, body)))
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
