//! A task whose images are worse, as a folder of its own.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use polyloom_core::writer::{FolderOptions, OutputFolder};

use super::Corruption;
use crate::error::{MergeError, Result};
use crate::evaluate::board::score::examples::{self, Input};
use crate::tasks::TaskSpec;
use crate::tasks::data::write::{Kind, Writer};
use crate::tasks::data::{Column, Table};
use crate::tasks::load::Loader;
use crate::tasks::spec::{Filter, SourceKind, Split};

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The folder of the task.
    pub folder: PathBuf,
    /// The task that it holds; its id is that of the original.
    pub spec: TaskSpec,
    /// Rows by split, and whether their images are worse.
    pub splits: Vec<(String, u64, bool)>,
}

/// Where the folder of a task lies below a data folder: at its `source.root` where that is a plain relative path, else at
/// its id. A data folder of such tasks stands in for the original one.
#[must_use]
pub fn place(spec: &TaskSpec) -> &Path {
    let plain = |p: &Path| p.components().all(|c| matches!(c, Component::Normal(_)));
    let root = Path::new(&spec.source.root);
    match root.as_os_str().is_empty() || !plain(root) {
        true => Path::new(&spec.id),
        false => root,
    }
}

/// Writes all splits of a task of images as Parquet below `data` (at [`place`]), with the images of `splits` made worse;
/// rows, their order, ids and labels stay. The folder appears when it is complete. Memory: one batch of rows.
///
/// # Errors
/// A task without images of a known size, a split that it does not have, a column that is neither numbers nor text nor
/// bytes, an id that is no path, a folder that exists (without `force`), a full disk.
pub fn write(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    corruption: Corruption,
    splits: &[String],
    data: &Path,
    force: bool,
) -> Result<Written> {
    if !spec.modality.input.iter().any(|m| m == "image") {
        let what = format!("task `{}` has no images", spec.id);
        return Err(MergeError::plan("no-images", what));
    }
    for name in splits {
        loader.split(name)?;
    }
    let place = place(spec);
    if !place
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        let what = format!("the id `{}` is no name for a folder", spec.id);
        return Err(MergeError::plan("bad-task", what));
    }
    let options = FolderOptions {
        force,
        ..FolderOptions::default()
    };
    let output = OutputFolder::create(data.join(place), options)?;
    let mut told = Vec::new();
    for name in spec.splits.named.keys() {
        let worse = splits.contains(name).then_some(corruption);
        let file = output.path().join(format!("{name}.parquet"));
        let rows = split(spec, loader, name, worse, &file)?;
        told.push((name.clone(), rows, worse.is_some()));
    }
    let spec = as_written(spec, corruption, splits);
    let text = toml::to_string(&spec)
        .map_err(|e| MergeError::plan("write", format!("the spec as TOML: {e}")))?;
    output.write_file("task.toml", text.as_bytes())?;
    Ok(Written {
        folder: output.commit()?,
        spec,
        splits: told,
    })
}

/// One split; how many rows it has.
fn split(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    name: &str,
    worse: Option<Corruption>,
    file: &Path,
) -> Result<u64> {
    let mut writer: Option<Writer> = None;
    let mut rows = 0;
    loader.rows(name, &mut |table| {
        let columns = table
            .columns()
            .filter(|(n, c)| !n.contains("{{") && !c.is_empty())
            .map(|(n, c)| kind(spec, n, c).map(|kind| (n.to_owned(), kind)))
            .collect::<Result<Vec<_>>>()?;
        let table = match worse {
            None => table,
            Some(corruption) => images(spec, &table, corruption, rows)?,
        };
        rows += table.rows() as u64;
        if writer.is_none() {
            writer = Some(Writer::create(file, columns)?);
        }
        match &mut writer {
            Some(writer) => writer.write(&table),
            None => Ok(()),
        }
    })?;
    match writer {
        Some(writer) => writer.finish()?,
        None => {
            let what = format!("split `{name}` of task `{}` has no rows", spec.id);
            return Err(MergeError::plan("no-rows", what));
        }
    }
    Ok(rows)
}

/// The type of a column in the file.
fn kind(spec: &TaskSpec, name: &str, column: &Column) -> Result<Kind> {
    Ok(match column {
        Column::Bytes(_) => Kind::Bytes,
        Column::Text(_) => Kind::Text,
        // The columns are settled by the first batch, and a later one may hold fractions.
        Column::Number(_) => Kind::Number,
        Column::Bool(_) | Column::Nested(_) => {
            let what = format!("column `{name}` is neither text nor numbers nor bytes");
            return Err(MergeError::plan("no-column", what).at(format!("task `{}`", spec.id)));
        }
    })
}

/// The table with worse images; `first` is the number of its first row in the split.
fn images(spec: &TaskSpec, table: &Table, how: Corruption, first: u64) -> Result<Table> {
    let mut worse = Vec::with_capacity(table.rows());
    for row in 0..table.rows() {
        worse.push(match examples::pixels(spec, table, row)? {
            Input::Image { pixels, size } => Some(how.apply(&pixels, size, first + row as u64)),
            Input::Text(..) | Input::Row { .. } | Input::Visit { .. } => None,
        });
    }
    let columns = table.columns().map(|(name, column)| {
        let column = match name == spec.fields.input {
            true => Column::Bytes(std::mem::take(&mut worse)),
            false => column.clone(),
        };
        (name.to_owned(), column)
    });
    Ok(Table::of(columns.collect::<Vec<_>>()))
}

/// The spec of what was written: slices and filters have been carried out.
fn as_written(spec: &TaskSpec, how: Corruption, splits: &[String]) -> TaskSpec {
    let mut out = spec.clone();
    let note = format!(
        "Images of {} made worse: {}, severity {}, seed {}.",
        splits.join(", "),
        how.kind.word(),
        how.severity.level(),
        how.seed
    );
    out.description = match out.description.is_empty() {
        true => note,
        false => format!("{} {note}", out.description),
    };
    out.source.kind = SourceKind::Parquet;
    out.source.root = ".".into();
    out.source.sha256 = BTreeMap::new();
    out.source.rows = Vec::new();
    out.source.generator = String::new();
    out.source.options = serde_json::Map::new();
    out.source.count = None;
    out.source.seed = None;
    out.filter = Filter::default();
    for (name, split) in &mut out.splits.named {
        *split = Split {
            file: format!("{name}.parquet"),
            ..Split::default()
        };
    }
    out
}
