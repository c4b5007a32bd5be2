//! Records: one row per example, as Parquet (zstd), with the task, its hash, the metric and a key in the metadata.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::Record;
use crate::error::{MergeError, Result};

const SCHEMA: &str = "message record {
    required binary task (UTF8);
    required binary id (UTF8);
    required binary hash (UTF8);
    required binary prediction (UTF8);
    required binary target (UTF8);
    optional double value;
    optional double score;
    optional group probabilities (LIST) { repeated group list { required double element; } }
}";

/// Rows of a row group.
const GROUP: usize = 1 << 16;

/// What a file of records says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Task.
    pub task: String,
    /// Its hash.
    pub task_hash: String,
    /// The metric of `value`.
    pub metric: String,
    /// Hash of all that the records depend on: task, predictions, settings.
    pub key: String,
}

/// Writes records to a file; it is complete under its name or not there.
///
/// # Errors
/// A folder that cannot be made, a file that cannot be written.
pub fn write(path: &Path, records: &[&Record], about: &About) -> Result<()> {
    let io = |e: std::io::Error| MergeError::from(polyloom_core::Error::io(path, "write", e));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let part = path.with_extension("parquet.part");
    let file = File::create(&part).map_err(io)?;
    let written = encode(file, records, about).map_err(|e| {
        MergeError::plan("write", format!("cannot be written: {e}")).at(path.display().to_string())
    });
    let done = written.and_then(|()| std::fs::rename(&part, path).map_err(io));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done
}

fn encode(file: File, records: &[&Record], about: &About) -> std::result::Result<(), ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let pairs = [
        ("polyloom.task", &about.task),
        ("polyloom.task_hash", &about.task_hash),
        ("polyloom.metric", &about.metric),
        ("polyloom.key", &about.key),
    ];
    let pairs = pairs.map(|(k, v)| KeyValue::new(k.to_owned(), v.clone()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(pairs.into()))
        .set_created_by(concat!("polyloom ", env!("CARGO_PKG_VERSION")).into())
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    for rows in records.chunks(GROUP) {
        let mut group = writer.next_row_group()?;
        let texts: [fn(&Record) -> &str; 5] = [
            |r| &r.task,
            |r| &r.id,
            |r| &r.hash,
            |r| &r.prediction,
            |r| &r.target,
        ];
        for text in texts {
            let values: Vec<ByteArray> = rows.iter().map(|r| ByteArray::from(text(r))).collect();
            column(&mut group, |c| {
                c.typed::<ByteArrayType>().write_batch(&values, None, None)
            })?;
        }
        let numbers: [fn(&Record) -> Option<f64>; 2] = [|r| r.value, |r| r.score];
        for number in numbers {
            let levels: Vec<i16> = rows
                .iter()
                .map(|r| i16::from(number(r).is_some()))
                .collect();
            let values: Vec<f64> = rows.iter().filter_map(|r| number(r)).collect();
            column(&mut group, |c| {
                c.typed::<DoubleType>()
                    .write_batch(&values, Some(&levels), None)
            })?;
        }
        // Level 0: no list; 1: an empty list; 2: an element, repeated within its list.
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        for record in rows {
            match &record.probabilities {
                None => {
                    defined.push(0);
                    repeated.push(0);
                }
                Some(list) if list.is_empty() => {
                    defined.push(1);
                    repeated.push(0);
                }
                Some(list) => {
                    defined.extend(list.iter().map(|_| 2));
                    repeated.extend((0..list.len()).map(|i| i16::from(i > 0)));
                    values.extend(list);
                }
            }
        }
        column(&mut group, |c| {
            c.typed::<DoubleType>()
                .write_batch(&values, Some(&defined), Some(&repeated))
        })?;
        group.close()?;
    }
    writer.finish()?;
    writer.inner().sync_all()?;
    Ok(())
}

/// Writes the next column of a row group.
fn column(
    group: &mut SerializedRowGroupWriter<'_, File>,
    write: impl FnOnce(
        &mut parquet::file::writer::SerializedColumnWriter<'_>,
    ) -> std::result::Result<usize, ParquetError>,
) -> std::result::Result<(), ParquetError> {
    let mut column = group
        .next_column()?
        .ok_or_else(|| ParquetError::General("a column too many".into()))?;
    write(&mut column)?;
    column.close()
}

/// What a file of records says of itself; `None` where it is none.
#[must_use]
pub fn about(path: &Path) -> Option<About> {
    let reader = SerializedFileReader::new(File::open(path).ok()?).ok()?;
    let pairs = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()?
        .clone();
    let find = |key: &str| {
        pairs
            .iter()
            .find(|p| p.key == key)
            .and_then(|p| p.value.clone())
    };
    Some(About {
        task: find("polyloom.task")?,
        task_hash: find("polyloom.task_hash")?,
        metric: find("polyloom.metric")?,
        key: find("polyloom.key")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::data::{Limits, parquet};
    use serde_json::json;

    #[test]
    fn records_come_back() {
        let record = |id: &str, value, probabilities| Record {
            task: "t/x".into(),
            id: id.into(),
            hash: "h".into(),
            prediction: "a\nb".into(),
            target: "ü".into(),
            value,
            score: None,
            probabilities,
        };
        let rows = [
            record("0", Some(1.0), Some(vec![0.25, 0.75])),
            record("1", None, None),
            record("2", Some(0.5), Some(Vec::new())),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.parquet");
        let said = About {
            task: "t/x".into(),
            task_hash: "h".into(),
            metric: "f1".into(),
            key: "k".into(),
        };
        write(&path, &rows.iter().collect::<Vec<_>>(), &said).unwrap();
        assert_eq!(about(&path), Some(said));
        assert_eq!(about(&folder.path().join("none.parquet")), None);
        let mut seen = Vec::new();
        parquet::read(&path, &Limits::default(), &mut |t| {
            seen.extend((0..t.rows()).map(|i| serde_json::Value::Object(t.row(i))));
            Ok(())
        })
        .unwrap();
        assert_eq!(
            seen[0],
            json!({"task": "t/x", "id": "0", "hash": "h", "prediction": "a\nb", "target": "ü",
            "value": 1, "probabilities": [0.25, 0.75]})
        );
        assert_eq!(seen[1].get("value"), None);
        assert_eq!(seen[2]["probabilities"], json!([]));
        assert!(
            std::fs::read_dir(folder.path().join("a")).unwrap().count() == 1,
            "no part is left"
        );
    }
}
