//! Parquet files (zstd, snappy and uncompressed pages): plain columns through the column readers of the `parquet` crate, lists,
//! maps and groups through its rows.

mod pages;

use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, Type};
use rayon::prelude::*;
use serde_json::Value;

use super::table::{Owned, number};
use super::{Column, Limits, Table, Texts, Visit, bad, bad_row};
use crate::error::Result;
use pages::Pages;

fn open(path: &Path, limits: &Limits) -> Result<SerializedFileReader<Pages>> {
    let file = Pages::open(path)?;
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
/// times and decimals become text; lists, maps and groups are nested values. Plain columns are decoded on all threads.
///
/// # Errors
/// A damaged file, a codec that is not built in, a column that says it unpacks to more than `limits.unpacked_bytes`, a
/// text or binary value above `limits.record_bytes`.
pub fn read(path: &Path, limits: &Limits, visit: Visit) -> Result<()> {
    let reader = open(path, limits)?;
    let fields = reader.metadata().file_metadata().schema().get_fields();
    let names: Vec<&str> = fields.iter().map(|f| f.name()).collect();
    if reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .num_columns()
        == 0
    {
        // However many rows it says it has, there is nothing in them.
        return visit(Table::with_columns(names));
    }
    let mut nested = Nested::of(path, &reader)?;
    let most = limits.rows(names.len());
    let (mut before, mut given) = (0u64, false);
    // Rows of small row groups wait here until they fill a batch.
    let mut batch = Table::default();
    for g in 0..reader.num_row_groups() {
        let unreadable = |e| bad(path, format!("row group {g} cannot be read: {e}"));
        let group = guarded(path, || reader.get_row_group(g))?.map_err(unreadable)?;
        let n = group.metadata().num_rows();
        let mut left = usize::try_from(n)
            .map_err(|_| bad(path, format!("says that row group {g} has {n} rows")))?;
        let descr = reader.metadata().file_metadata().schema_descr();
        let mut plain = Vec::new();
        for leaf in (0..descr.num_columns()).filter(|i| is_plain(&descr.column(*i))) {
            let column = guarded(path, || group.get_column_reader(leaf))?.map_err(unreadable)?;
            plain.push(Plain {
                place: descr.get_column_root_idx(leaf),
                descr: descr.column(leaf),
                column,
            });
        }
        while left > 0 {
            let rows = left.min(most - batch.rows());
            let mut columns: Vec<Option<Column>> = nested.take(rows, before)?;
            let read = plain
                .par_iter_mut()
                .map(|p| {
                    let column = guarded(path, || p.take(path, rows, before, limits))?;
                    Ok((p.place, column?))
                })
                .collect::<Vec<Result<_>>>();
            for one in read {
                let (place, column) = one?;
                columns[place] = Some(column);
            }
            let columns = names.iter().zip(columns);
            let columns = columns.filter_map(|(n, c)| Some(((*n).to_owned(), c?)));
            batch.append(Table::of(columns));
            before += rows as u64;
            left -= rows;
            if batch.rows() >= most {
                given = true;
                visit(std::mem::take(&mut batch))?;
            }
        }
    }
    match (batch.rows(), given) {
        (0, true) => Ok(()),
        (0, false) => visit(Table::with_columns(names)),
        _ => visit(batch),
    }
}

/// Whether a leaf is a column of the table by itself: no part of a group, list or map.
fn is_plain(leaf: &ColumnDescriptor) -> bool {
    leaf.path().parts().len() == 1 && leaf.max_rep_level() == 0
}

/// A column of one value for each row, in a row group.
struct Plain {
    /// Its place among the columns of the table.
    place: usize,
    descr: ColumnDescPtr,
    column: ColumnReader,
}

impl Plain {
    /// The next rows; `before` is the number of those that came before.
    fn take(&mut self, path: &Path, rows: usize, before: u64, limits: &Limits) -> Result<Column> {
        let descr = self.descr.clone();
        let name = descr.name();
        let at = |row: usize| before + row as u64 + 1;
        let wrong =
            |row: usize, what: String| bad_row(path, at(row), format!("column `{name}` {what}"));
        let long = |row: usize, n: usize| match n as u64 > limits.record_bytes {
            true => Err(wrong(
                row,
                format!("has {n} bytes, the limit is {}", limits.record_bytes),
            )),
            false => Ok(()),
        };
        macro_rules! values {
            ($reader:expr) => {
                records(path, name, $reader, descr.max_def_level(), rows, before)?
            };
        }
        // A type of values that is read as such: an annotation makes dates and decimals of numbers, texts of bytes.
        let simple = matches!(
            descr.converted_type(),
            ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
        ) && descr
            .logical_type_ref()
            .is_none_or(|l| matches!(l, LogicalType::Integer(_)));
        let is_text = matches!(
            descr.converted_type(),
            ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
        );
        let mixed = |values: Vec<Option<Field>>| {
            Column::of(values.into_iter().map(|v| v.map_or(Owned::Null, owned)))
        };
        let bytes = |values: Vec<Option<ByteArray>>| -> Result<Column> {
            let mut found = Vec::with_capacity(values.len());
            for (row, value) in values.into_iter().enumerate() {
                long(row, value.as_ref().map_or(0, ByteArray::len))?;
                let field = value.map(|v| Field::convert_byte_array(&descr, v));
                let field = field.transpose();
                found.push(field.map_err(|e| wrong(row, format!("cannot be read: {e}")))?);
            }
            Ok(mixed(found))
        };
        Ok(match &mut self.column {
            ColumnReader::FloatColumnReader(r) => {
                Column::Number(values!(r).into_iter().map(|v| v.map(f64::from)).collect())
            }
            ColumnReader::DoubleColumnReader(r) => Column::Number(values!(r)),
            ColumnReader::BoolColumnReader(r) => Column::Bool(values!(r)),
            ColumnReader::Int32ColumnReader(r) if simple => {
                Column::Number(values!(r).into_iter().map(|v| v.map(f64::from)).collect())
            }
            ColumnReader::ByteArrayColumnReader(r) if is_text => {
                let mut texts = Texts::default();
                for (row, value) in values!(r).iter().enumerate() {
                    let Some(value) = value else {
                        texts.push(None);
                        continue;
                    };
                    long(row, value.len())?;
                    let text = std::str::from_utf8(value.data());
                    texts.push(Some(
                        text.map_err(|_| wrong(row, "is not UTF-8 text".into()))?,
                    ));
                }
                Column::Text(texts)
            }
            ColumnReader::ByteArrayColumnReader(r) => bytes(values!(r))?,
            ColumnReader::FixedLenByteArrayColumnReader(r) => {
                let each = values!(r).into_iter();
                bytes(each.map(|v| v.map(ByteArray::from)).collect())?
            }
            ColumnReader::Int32ColumnReader(r) => {
                let each = values!(r).into_iter();
                mixed(
                    each.map(|v| v.map(|x| Field::convert_int32(&descr, x)))
                        .collect(),
                )
            }
            ColumnReader::Int64ColumnReader(r) => {
                let each = values!(r).into_iter();
                mixed(
                    each.map(|v| v.map(|x| Field::convert_int64(&descr, x)))
                        .collect(),
                )
            }
            ColumnReader::Int96ColumnReader(r) => {
                let each = values!(r).into_iter();
                mixed(
                    each.map(|v| v.map(|x| Field::convert_int96(&descr, x)))
                        .collect(),
                )
            }
        })
    }
}

/// The next values of a column, one for each row.
fn records<T: DataType>(
    path: &Path,
    name: &str,
    reader: &mut ColumnReaderImpl<T>,
    most: i16,
    rows: usize,
    before: u64,
) -> Result<Vec<Option<T::T>>> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut seen = 0;
    while seen < rows {
        let read = reader.read_records(
            rows - seen,
            (most > 0).then_some(&mut levels),
            None,
            &mut values,
        );
        let (n, ..) = read.map_err(|e| {
            bad_row(
                path,
                before + seen as u64 + 1,
                format!("column `{name}`: {e}"),
            )
        })?;
        if n == 0 {
            let what = format!("column `{name}` ends before its row group");
            return Err(bad_row(path, before + seen as u64 + 1, what));
        }
        seen += n;
    }
    if most == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    let there = |level: i16| if level == most { values.next() } else { None };
    Ok(levels.into_iter().map(there).collect())
}

/// Columns of groups, lists and maps, read row by row.
struct Nested<'r> {
    path: &'r Path,
    columns: usize,
    /// The places of these columns, and their rows; `None` where there are none.
    rows: Option<(Vec<usize>, RowIter<'r>)>,
}

impl<'r> Nested<'r> {
    fn of(path: &'r Path, reader: &'r SerializedFileReader<Pages>) -> Result<Self> {
        let schema = reader.metadata().file_metadata().schema_descr();
        let fields = schema.root_schema().get_fields();
        let mut places: Vec<usize> = (0..schema.num_columns())
            .filter(|leaf| !is_plain(&schema.column(*leaf)))
            .map(|leaf| schema.get_column_root_idx(leaf))
            .collect();
        places.dedup();
        let rows = match places.is_empty() {
            true => None,
            false => {
                let asked = places.iter().map(|i| fields[*i].clone()).collect();
                let unreadable = |e| bad(path, format!("cannot be read: {e}"));
                let projection = Type::group_type_builder(schema.root_schema().name())
                    .with_fields(asked)
                    .build()
                    .map_err(unreadable)?;
                let rows = guarded(path, || reader.get_row_iter(Some(projection)))?;
                Some((places, rows.map_err(unreadable)?))
            }
        };
        Ok(Self {
            path,
            columns: fields.len(),
            rows,
        })
    }

    /// The next rows of these columns, each at its place among all columns of the table.
    fn take(&mut self, rows: usize, before: u64) -> Result<Vec<Option<Column>>> {
        let mut found: Vec<Option<Column>> = (0..self.columns).map(|_| None).collect();
        let Some((places, iterator)) = &mut self.rows else {
            return Ok(found);
        };
        let mut values: Vec<Vec<Owned>> = places.iter().map(|_| Vec::with_capacity(rows)).collect();
        for row in 0..rows {
            let number = before + row as u64 + 1;
            let next = guarded(self.path, || iterator.next())?;
            let ends = || {
                bad_row(
                    self.path,
                    number,
                    "a nested column ends before its row group",
                )
            };
            let next: Row = next
                .ok_or_else(ends)?
                .map_err(|e| bad_row(self.path, number, e))?;
            for (list, (_, field)) in values.iter_mut().zip(next.into_columns()) {
                list.push(owned(field));
            }
        }
        for (place, values) in places.iter().zip(values) {
            found[*place] = Some(Column::of(values.into_iter()));
        }
        Ok(found)
    }
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
