//! Tables as Parquet files (zstd), with the same bytes for the same rows.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use super::{Column, Table};
use crate::error::{MergeError, Result};

/// Type of a column in the file; every entry may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `INT64`.
    Whole,
    /// `DOUBLE`.
    Number,
    /// `BYTE_ARRAY` as text.
    Text,
    /// `BYTE_ARRAY`.
    Bytes,
}

impl Kind {
    fn column(self, name: &str) -> std::result::Result<TypePtr, ParquetError> {
        let (physical, logical) = match self {
            Self::Whole => (Physical::INT64, None),
            Self::Number => (Physical::DOUBLE, None),
            Self::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Bytes => (Physical::BYTE_ARRAY, None),
        };
        let builder = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        builder.build().map(Arc::new)
    }
}

/// A file under construction; one row group per table.
pub struct Writer {
    inner: SerializedFileWriter<File>,
    columns: Vec<(String, Kind)>,
    shown: String,
}

impl Writer {
    /// Creates a file with these columns.
    ///
    /// # Errors
    /// A file that cannot be created.
    pub fn create(path: &Path, columns: Vec<(String, Kind)>) -> Result<Self> {
        let shown = path.display().to_string();
        let file = File::create(path).map_err(|e| polyloom_core::Error::io(path, "create", e))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("polyloom".into());
        for (name, kind) in &columns {
            // Raw images repeat too rarely for a dictionary, and their bounds tell nothing.
            if *kind == Kind::Bytes {
                let path = ColumnPath::from(name.as_str());
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path, EnabledStatistics::None);
            }
        }
        let fields = columns.iter().map(|(name, kind)| kind.column(name));
        let inner = fields
            .collect::<std::result::Result<Vec<_>, _>>()
            .and_then(|f| Type::group_type_builder("rows").with_fields(f).build())
            .and_then(|schema| {
                SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build()))
            })
            .map_err(|e| failed(&shown, &e))?;
        Ok(Self {
            inner,
            columns,
            shown,
        })
    }

    /// Appends the rows of a table as one row group.
    ///
    /// # Errors
    /// A column that the table lacks or that has another type; a full disk.
    pub fn write(&mut self, table: &Table) -> Result<()> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for (name, kind) in &self.columns {
            let column = table.column(name);
            columns.push(column.filter(|c| fits(c, *kind)).ok_or_else(|| {
                let what = format!("the table has no column `{name}` of the type {kind:?}");
                MergeError::plan("no-column", what).at(self.shown.clone())
            })?);
        }
        put(&mut self.inner, &columns, &self.columns).map_err(|e| failed(&self.shown, &e))
    }

    /// Writes the footer.
    ///
    /// # Errors
    /// A full disk.
    pub fn finish(self) -> Result<()> {
        let shown = self.shown;
        let file = self.inner.into_inner().map_err(|e| failed(&shown, &e))?;
        file.sync_all()
            .map_err(|e| polyloom_core::Error::io(Path::new(&shown), "write", e))?;
        Ok(())
    }
}

fn failed(shown: &str, error: &ParquetError) -> MergeError {
    MergeError::plan("write", format!("cannot be written: {error}")).at(shown.to_owned())
}

fn fits(column: &Column, kind: Kind) -> bool {
    matches!(
        (column, kind),
        (Column::Number(_), Kind::Whole | Kind::Number)
            | (Column::Text(_), Kind::Text)
            | (Column::Bytes(_), Kind::Bytes)
    )
}

fn put(
    file: &mut SerializedFileWriter<File>,
    columns: &[&Column],
    kinds: &[(String, Kind)],
) -> std::result::Result<(), ParquetError> {
    fn levels<T>(list: &[Option<T>]) -> Vec<i16> {
        list.iter().map(|v| i16::from(v.is_some())).collect()
    }
    let mut group = file.next_row_group()?;
    for (column, (_, kind)) in columns.iter().zip(kinds) {
        let Some(mut writer) = group.next_column()? else {
            break;
        };
        match (writer.untyped(), column) {
            #[allow(clippy::cast_possible_truncation, reason = "whole by contract")]
            (ColumnWriter::Int64ColumnWriter(w), Column::Number(list)) => {
                let values: Vec<i64> = list.iter().flatten().map(|x| *x as i64).collect();
                w.write_batch(&values, Some(&levels(list)), None)?;
            }
            (ColumnWriter::DoubleColumnWriter(w), Column::Number(list)) => {
                let values: Vec<f64> = list.iter().flatten().copied().collect();
                w.write_batch(&values, Some(&levels(list)), None)?;
            }
            (ColumnWriter::ByteArrayColumnWriter(w), Column::Text(list)) => {
                let values: Vec<ByteArray> = list.iter().flatten().map(ByteArray::from).collect();
                let levels: Vec<i16> = list.iter().map(|v| i16::from(v.is_some())).collect();
                w.write_batch(&values, Some(&levels), None)?;
            }
            (ColumnWriter::ByteArrayColumnWriter(w), Column::Bytes(list)) => {
                let values = list.iter().flatten().map(|b| ByteArray::from(b.clone()));
                let values: Vec<ByteArray> = values.collect();
                w.write_batch(&values, Some(&levels(list)), None)?;
            }
            _ => {
                let what = format!("a column of another type than {kind:?}");
                return Err(ParquetError::General(what));
            }
        }
        writer.close()?;
    }
    group.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::data::{Limits, parquet};

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        let table = Table::of([
            ("n", Column::Number(vec![Some(1.0), None, Some(-3.0)])),
            ("x", Column::Number(vec![Some(0.5), Some(2.0), None])),
            (
                "t",
                Column::Text([Some("a"), None, Some("ü")].into_iter().collect()),
            ),
            (
                "b",
                Column::Bytes(vec![Some(vec![0, 255]), Some(vec![]), None]),
            ),
        ]);
        let kinds = [Kind::Whole, Kind::Number, Kind::Text, Kind::Bytes];
        let names = table.columns().map(|(n, _)| n.to_owned());
        let columns: Vec<_> = names.zip(kinds).collect();
        let mut writer = Writer::create(&path, columns.clone()).unwrap();
        writer.write(&table).unwrap();
        writer.write(&table.filtered(|i| i == 0)).unwrap();
        writer.finish().unwrap();
        let mut found = Vec::new();
        parquet::read(&path, &Limits::default(), &mut |t| {
            found.push(t);
            Ok(())
        })
        .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].filtered(|i| i < 3), table);
        assert_eq!(found[0].filtered(|i| i == 3), table.filtered(|i| i == 0));
        let mut wrong = Writer::create(&path, columns).unwrap();
        assert!(
            wrong
                .write(&Table::of([("n", Column::Bool(vec![]))]))
                .is_err()
        );
    }
}
