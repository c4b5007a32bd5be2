//! Held-out levels over a catalogue: rows of several tasks put into files by [`super::levels`].

use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value};

use super::check::inputs;
use super::hash::canonical;
use super::levels::{self, Leak, Level};
use super::load::Loader;
use super::spec::TaskSpec;
use super::split::Part;
use crate::error::{MergeError, Result};

/// What makes the categories of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// What is asked for.
    Type,
    /// The first of `tags.skills`.
    Skill,
    /// The first of `tags.domains`.
    Domain,
    /// The first of `tags.capability`.
    Capability,
    /// The first of `tags.tags`.
    Tag,
    /// The first of `modality.input`.
    Modality,
    /// The first of `language`.
    Language,
}

impl Category {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("type", Self::Type),
        ("skill", Self::Skill),
        ("domain", Self::Domain),
        ("capability", Self::Capability),
        ("tag", Self::Tag),
        ("modality", Self::Modality),
        ("language", Self::Language),
    ];

    /// The category of a task.
    #[must_use]
    pub fn of(self, spec: &TaskSpec) -> Option<String> {
        let first = |list: &[String]| list.first().cloned();
        match self {
            Self::Type => Some(spec.type_words()),
            Self::Skill => first(&spec.tags.skills),
            Self::Domain => first(&spec.tags.domains),
            Self::Capability => first(&spec.tags.capability),
            Self::Tag => first(&spec.tags.tags),
            Self::Modality => first(&spec.modality.input),
            Self::Language => first(&spec.language),
        }
    }
}

/// Puts the rows of a split of every task into `train.jsonl` and the three held-out levels, and says what they share
/// with training: rows with the same inputs, whichever task they are from.
///
/// A row holds `task`, `category`, `row` (its number in the split, from 0) and the task's fields under their canonical
/// names; of a table all columns. Memory: about 200 bytes a row; two passes.
///
/// # Errors
/// A task without category, rows with raw bytes, what [`levels::assign`] and the readers report, an unwritable folder.
pub fn write(
    tasks: &[(&TaskSpec, Loader<'_>)],
    by: Category,
    split: &str,
    share: f64,
    seed: u64,
    folder: &Path,
) -> Result<(Vec<Part>, Vec<Leak>)> {
    let (mut categories, mut names, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for (spec, loader) in tasks {
        let bad = |what: String| MergeError::plan("bad-levels", what);
        let category = by.of(spec).ok_or_else(|| {
            bad(format!("task `{}` has no category of this kind", spec.id))
                .hint("`polyloom tasks show TASK --toml` shows its tags; leave it out or tag it")
        })?;
        let columns = inputs(spec);
        loader.rows(split, &mut |table| {
            let bytes = table.types().into_iter().find(|(_, t)| *t == "bytes");
            if let Some((column, _)) = bytes {
                let what = format!(
                    "task `{}`: column `{column}` holds raw bytes, which text files cannot",
                    spec.id
                );
                return Err(bad(what));
            }
            for row in 0..table.rows() {
                let values: Vec<Value> = match columns.is_empty() {
                    true => vec![Value::Object(table.row(row))],
                    false => columns.iter().map(|c| table.at(row, c)).collect(),
                };
                let mut text = String::new();
                canonical(&Value::Array(values), &mut text);
                hashes.push(polyloom_core::hash::xxh3(text.as_bytes()));
                categories.push(Value::from(category.clone()));
                names.push(Value::from(spec.id.clone()));
            }
            Ok(())
        })?;
    }
    let levels = levels::assign(&categories, &names, share, seed)?;
    let leaks = levels::leaks(&levels, &hashes);
    let io = |e: std::io::Error| polyloom_core::Error::write(folder, "write", e, folder);
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut files = Vec::new();
    for level in Level::ALL {
        let file = folder.join(format!("{}.jsonl", level.name()));
        let part = folder.join(format!("{}.jsonl.part", level.name()));
        let out = BufWriter::new(std::fs::File::create(&part).map_err(io)?);
        files.push((out, part, Part { file, rows: 0 }));
    }
    let mut at = 0;
    let mut copied = Ok(());
    for (spec, loader) in tasks {
        let mut number = 0u64;
        copied = loader.rows(split, &mut |table| {
            for row in 0..table.rows() {
                let mut line = Map::new();
                line.insert("task".into(), spec.id.clone().into());
                line.insert("category".into(), categories[at].clone());
                line.insert("row".into(), number.into());
                if spec.table.is_some() {
                    line.extend(table.row(row));
                }
                for (name, column) in spec.fields.given() {
                    line.insert(name.to_owned(), table.at(row, column));
                }
                let (out, _, part) = &mut files[levels[at] as usize];
                writeln!(out, "{}", Value::Object(line)).map_err(io)?;
                part.rows += 1;
                (at, number) = (at + 1, number + 1);
            }
            Ok(())
        });
        if copied.is_err() {
            break;
        }
    }
    let finished = copied.and_then(|()| {
        for (out, part, done) in &mut files {
            out.flush().map_err(io)?;
            std::fs::rename(&part, &done.file).map_err(io)?;
        }
        Ok(())
    });
    if let Err(error) = finished {
        for (_, part, _) in &files {
            let _ = std::fs::remove_file(part);
        }
        return Err(error);
    }
    Ok((files.into_iter().map(|(_, _, part)| part).collect(), leaks))
}
