//! The rows of a task: its files found, cut into splits, filtered.

mod cut;
mod parts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyloom_core::hash::xxh3;
use serde_json::Value;

pub(crate) use cut::{by_group, by_time};
use cut::{flags, part_of};
pub use cut::{matching, ranks};
pub use parts::{Part, Parts};

use super::data::table::Owned;
use super::data::{self, Limits, Table, Visit};
use super::hash::canonical;
use super::predicate::Predicate;
use super::prompt::Renderer;
use super::slice::{self, Slice};
use super::spec::{GroupAs, SourceKind, Split, Target, TaskSpec};
use super::synth::{self, Generator};
use crate::error::{MergeError, Result};

/// A task whose folder is known.
#[derive(Debug, Clone)]
pub struct Loader<'s> {
    spec: &'s TaskSpec,
    folder: PathBuf,
    limits: Limits,
    parts: Arc<Parts>,
}

impl<'s> Loader<'s> {
    /// A loader of a task whose `source.root` is this folder.
    #[must_use]
    pub fn new(spec: &'s TaskSpec, folder: PathBuf, limits: Limits) -> Self {
        Self {
            spec,
            folder,
            limits,
            parts: Arc::default(),
        }
    }

    /// The same with parts of splits, each read by its name; one with the name of a split stands in its place.
    #[must_use]
    pub fn with_parts(mut self, parts: Arc<Parts>) -> Self {
        self.parts = parts;
        self
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data files, by name in the spec; each once. A name with `*` stands for the files that it fits; where it fits
    /// none, it stands for itself.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, PathBuf> {
        if self.spec.source.kind == SourceKind::Synth {
            return BTreeMap::new();
        }
        let splits = self.spec.splits.named.values();
        let mut out = BTreeMap::new();
        if self.spec.source.kind == SourceKind::ImageFolder {
            for (name, split) in &self.spec.splits.named {
                let part = part_of(name, split);
                let listed = data::images::list(&self.folder, part, &self.limits);
                for image in listed.unwrap_or_default() {
                    let path = self.folder.join(&image.name);
                    out.insert(image.name, path);
                }
            }
            return out;
        }
        for split in splits.filter(|s| !s.file.is_empty()) {
            let path = self.folder.join(&split.file);
            match matching(&self.folder, &split.file) {
                Ok(found) if split.file.contains('*') => {
                    for path in found {
                        let name = path.strip_prefix(&self.folder).unwrap_or(&path);
                        out.insert(name.display().to_string(), path.clone());
                    }
                }
                _ => {
                    out.insert(split.file.clone(), path);
                }
            }
        }
        out
    }

    /// SHA-256 of every data file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn hashes(&self) -> Result<BTreeMap<String, String>> {
        self.files()
            .into_iter()
            .map(|(name, path)| Ok((name, polyloom_core::hash::sha256_file(&path)?)))
            .collect()
    }

    /// A split by name.
    ///
    /// # Errors
    /// A name that the task does not have; the message lists those it has.
    pub fn split(&self, name: &str) -> Result<&Split> {
        self.spec.splits.named.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.spec.splits.named.keys().map(String::as_str).collect();
            let what = format!("task `{}` has no split `{name}`", self.spec.id);
            MergeError::plan("no-split", what).hint(format!(
                "splits present: {}. Pass --split {}",
                names.join(", "),
                names.first().unwrap_or(&"")
            ))
        })
    }

    /// Reads the rows of a split, batch by batch, after slices and `filter`; rows with an ignored label are left out, and
    /// those equal to an earlier one of the split in `filter.dedupe_on`. A field that is a template is a column of that name. A slice of a file is cut in file order, in a seeded order, by whole groups
    /// (`table.group_as = "split"`) or in the order of `table.time`.
    ///
    /// Memory: one batch; for a slice of a shuffled, grouped or timed file also about 40 bytes per row, with `dedupe_on`
    /// about 16.
    ///
    /// # Errors
    /// What the reader of the file reports, a template over a column that a row lacks (unless `drop_if_missing` has the
    /// field), and what `visit` returns.
    pub fn rows(&self, name: &str, visit: Visit) -> Result<()> {
        if let Some(part) = self.parts.get(name) {
            return self.part(part, visit);
        }
        let split = self.split(name)?;
        let keep = self.selection(name, split)?;
        self.kept((name, split), keep.as_deref(), &mut HashSet::new(), visit)
    }

    /// The rows of a split's file that `keep` says (`None`: all), after `filter`; `seen` holds hashes of those before, for
    /// `filter.dedupe_on`.
    fn kept(
        &self,
        (name, split): (&str, &Split),
        keep: Option<&[bool]>,
        seen: &mut HashSet<u64>,
        visit: Visit,
    ) -> Result<()> {
        let mut at = 0usize;
        let templates = self.templates();
        let renderer = Renderer::new();
        self.raw(name, split, &mut |mut table| {
            let (start, rows) = (at, table.rows());
            at += rows;
            let fits = |i: usize| keep.is_none_or(|k| k.get(start + i) == Some(&true));
            if keep.is_some() && !templates.is_empty() {
                // Templates of rows that belong to another split are not rendered.
                let cut = table.filtered(fits);
                table = self.computed(cut, &templates, &renderer, name, start)?;
                let first = |i: usize| self.passes(&table, i) && self.is_new(&table, i, seen);
                let keep: Vec<bool> = (0..table.rows()).map(first).collect();
                return visit(table.filtered(|i| keep[i]));
            }
            let table = self.computed(table, &templates, &renderer, name, start)?;
            let first =
                |i: usize| fits(i) && self.passes(&table, i) && self.is_new(&table, i, seen);
            let keep: Vec<bool> = (0..table.rows()).map(first).collect();
            visit(table.filtered(|i| keep[i]))
        })
    }

    /// The rows of a split that one of several targets has: its `sample` holds and its column is not missing.
    ///
    /// # Errors
    /// As [`Self::rows`]; a predicate that is none.
    pub fn rows_of(&self, name: &str, target: &Target, visit: Visit) -> Result<()> {
        let sample = sample_of(target)?;
        self.rows(name, &mut |table| {
            let has = |i: usize| {
                !missing(&table.at(i, &target.column))
                    && sample.as_ref().is_none_or(|p| p.holds(&table, i))
            };
            visit(table.filtered(has))
        })
    }

    /// The fields that are templates, with whether a row may lack a part of them.
    fn templates(&self) -> Vec<(String, bool)> {
        let drop = &self.spec.filter.drop_if_missing;
        let given = self.spec.fields.given();
        let templates = given.filter(|(_, column)| column.contains("{{"));
        templates
            .map(|(name, column)| (column.to_owned(), drop.iter().any(|d| d == name)))
            .collect()
    }

    /// A batch with a column for every template, named as the template.
    fn computed(
        &self,
        mut table: Table,
        templates: &[(String, bool)],
        renderer: &Renderer,
        split: &str,
        start: usize,
    ) -> Result<Table> {
        for (template, may_lack) in templates {
            let mut values = Vec::with_capacity(table.rows());
            for row in 0..table.rows() {
                values.push(match renderer.value(template, &table.row(row)) {
                    Ok(value) => Owned::from(value),
                    Err(_) if *may_lack => Owned::Null,
                    Err(error) => {
                        let what = format!("split `{split}`, row {}: {error}", start + row + 1);
                        return Err(MergeError::plan("bad-template", what).hint(
                            "name the field in `filter.drop_if_missing` to leave such rows out",
                        ));
                    }
                });
            }
            table.put(template, values);
        }
        Ok(table)
    }

    /// Whether no earlier row has the same values in `filter.dedupe_on`.
    fn is_new(&self, table: &Table, row: usize, seen: &mut HashSet<u64>) -> bool {
        let on = &self.spec.filter.dedupe_on;
        if on.is_empty() {
            return true;
        }
        let mut text = String::new();
        let values = on.iter().map(|name| table.at(row, self.column(name)));
        canonical(&values.collect::<Value>(), &mut text);
        seen.insert(xxh3(text.as_bytes()))
    }

    /// The rows of a split's file as they are.
    fn raw(&self, name: &str, split: &Split, visit: Visit) -> Result<()> {
        if self.spec.source.kind == SourceKind::Synth {
            let part = if split.file.is_empty() {
                name
            } else {
                &split.file
            };
            let generator = Generator::of(&self.spec.source)?;
            let rows = generator.split(part).ok_or_else(|| {
                MergeError::plan("no-split", format!("a generator has no split `{part}`"))
                    .hint(format!("one of: {}", synth::SPLITS.join(", ")))
            })?;
            return synth::Rows::new(generator).read(rows, &self.limits, visit);
        }
        if self.spec.source.kind == SourceKind::Inline {
            let rows = self.spec.source.rows.iter().cloned();
            return data::json::rows(rows, &self.limits, visit);
        }
        if self.spec.source.kind == SourceKind::ImageFolder {
            let size = self.spec.source.size;
            let part = part_of(name, split);
            return data::images::read(&self.folder, part, size, &self.limits, visit);
        }
        for path in matching(&self.folder, &split.file)? {
            data::read(&path, self.spec.source.kind, &self.limits, visit)?;
        }
        Ok(())
    }

    /// Which rows of the split's file it takes; `None` for all.
    fn selection(&self, name: &str, split: &Split) -> Result<Option<Vec<bool>>> {
        let bad = |why: String| MergeError::plan("bad-slice", why);
        let slice = Slice::parse(&split.slice).map_err(bad)?;
        if slice.is_whole() {
            return Ok(None);
        }
        let table = self.spec.table.as_ref();
        let column = |column: &str| -> Result<Vec<Value>> {
            let mut values = Vec::new();
            self.raw(name, split, &mut |t| {
                values.extend((0..t.rows()).map(|i| t.at(i, column)));
                Ok(())
            })?;
            Ok(values)
        };
        let grouped = table.filter(|t| t.group_as == GroupAs::Split && !t.group.is_empty());
        let timed = table.filter(|t| !t.time.is_empty());
        let keep = if let Some(table) = grouped {
            by_group(&column(&table.group)?, &slice, split.seed)
        } else if let Some(table) = timed {
            by_time(&column(&table.time)?, &slice)
        } else {
            let mut n = 0u64;
            self.raw(name, split, &mut |t| {
                n += t.rows() as u64;
                Ok(())
            })?;
            flags(n as usize, slice::rows(n, &slice, split.seed))
        };
        Ok(Some(keep))
    }

    /// Whether a row passes the filters of the spec.
    fn passes(&self, table: &Table, row: usize) -> bool {
        let filter = &self.spec.filter;
        let present = filter
            .drop_if_missing
            .iter()
            .all(|name| !missing(&table.at(row, self.column(name))));
        let ignored = || {
            let ignore = &self.spec.labels.ignore;
            !ignore.is_empty() && ignore.contains(&table.at(row, &self.spec.fields.target))
        };
        present && !ignored()
    }

    /// All rows of a split as records.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn records(&self, split: &str) -> Result<Vec<serde_json::Map<String, Value>>> {
        let mut out = Vec::new();
        self.rows(split, &mut |table| {
            out.extend((0..table.rows()).map(|i| self.record(&table, i)));
            Ok(())
        })?;
        Ok(out)
    }

    /// A row as prompts see it: its columns, and the canonical fields of the spec by name.
    #[must_use]
    pub fn record(&self, table: &Table, row: usize) -> serde_json::Map<String, Value> {
        let mut record = table.row(row);
        record.retain(|name, _| !name.contains("{{"));
        for (name, column) in self.spec.fields.given() {
            record.insert(name.to_owned(), table.at(row, column));
        }
        record
    }

    /// The column of a canonical field name; another name is a column.
    #[must_use]
    pub fn column<'n>(&'n self, name: &'n str) -> &'n str {
        let mut given = self.spec.fields.given();
        given.find(|(n, _)| *n == name).map_or(name, |(_, c)| c)
    }
}

fn missing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|t| t.trim().is_empty())
}

/// The predicate of a target, if it has one.
pub(crate) fn sample_of(target: &Target) -> Result<Option<Predicate>> {
    if target.sample.is_empty() {
        return Ok(None);
    }
    let parsed = Predicate::parse(&target.sample);
    let bad = |why| {
        MergeError::plan(
            "bad-task",
            format!("`targets.{}.sample`: {why}", target.name),
        )
    };
    parsed.map(Some).map_err(bad)
}
