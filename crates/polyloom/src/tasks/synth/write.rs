//! Generated rows as a folder of Parquet files with a `task.json`.

use std::path::{Path, PathBuf};

use polyloom_core::writer::{FolderOptions, OutputFolder};

use super::{Generator, Part, Rows, SPLITS, specs};
use crate::error::Result;
use crate::tasks::data::write::{Kind, Writer};
use crate::tasks::data::{Column, Table};

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name in the folder.
    pub file: String,
    /// Rows.
    pub rows: u64,
}

/// Writes train, validation and test as Parquet with a `task.json`; a log also `items.parquet` and `truth.parquet` (true
/// probabilities and potential outcomes: for judges, never for learners). The folder appears when it is complete, and
/// its bytes depend on the options alone. `done` is told the rows written so far.
///
/// # Errors
/// A folder that exists (without `force`), a full disk, or what `done` returns.
pub fn write(
    generator: &Generator,
    folder: &Path,
    force: bool,
    done: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(PathBuf, Vec<Written>)> {
    let options = FolderOptions {
        force,
        ..FolderOptions::default()
    };
    let output = OutputFolder::create(folder, options)?;
    let rows = Rows::new(generator.clone());
    let mut files = Vec::new();
    for (part, count) in rows.parts() {
        files.extend(match part {
            Part::Rows => SPLITS
                .iter()
                .map(|name| (*name, part, generator.split(name).unwrap_or_default()))
                .collect(),
            Part::Items => vec![("items", part, 0..count)],
            Part::Truth => vec![("truth", part, 0..count)],
        });
    }
    let mut total = 0;
    let mut written = Vec::new();
    for (name, part, range) in files {
        let file = format!("{name}.parquet");
        let first = rows.table(part, range.start..range.start);
        let columns = kinds(generator, &first);
        let mut writer = Writer::create(&output.path().join(&file), columns)?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + rows.batch());
            writer.write(&rows.table(part, at..end))?;
            total += end - at;
            done(total)?;
            at = end;
        }
        writer.finish()?;
        written.push(Written {
            file,
            rows: range.end - range.start,
        });
    }
    let json = specs::task_json(generator, &generator.spec());
    let text = format!("{json:#}\n");
    output.write_file("task.json", text.as_bytes())?;
    Ok((output.commit()?, written))
}

/// The types of the columns; of the numbers only those of tables and probabilities are not whole.
fn kinds(generator: &Generator, table: &Table) -> Vec<(String, Kind)> {
    let label = |name: &str| match generator {
        Generator::Multitab(options) => {
            let task = name.strip_prefix('y').and_then(|t| t.parse().ok());
            name == "row" || task.is_some_and(|t| options.is_label(t))
        }
        _ => !name.starts_with("p_"),
    };
    let kind = |name: &str, column: &Column| match column {
        Column::Bytes(_) => Kind::Bytes,
        Column::Text(_) => Kind::Text,
        _ if label(name) => Kind::Whole,
        _ => Kind::Number,
    };
    let columns = table.columns();
    columns.map(|(n, c)| (n.to_owned(), kind(n, c))).collect()
}
