//! The rows of a task: its files found, cut into splits, filtered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::{self, Limits, Table, Visit};
use super::slice::{self, Slice};
use super::spec::{GroupAs, SourceKind, Split, TaskSpec};
use super::synth::{self, Generator};
use crate::error::{MergeError, Result};

/// A task whose folder is known.
#[derive(Debug, Clone)]
pub struct Loader<'s> {
    spec: &'s TaskSpec,
    folder: PathBuf,
    limits: Limits,
}

impl<'s> Loader<'s> {
    /// A loader of a task whose `source.root` is this folder.
    #[must_use]
    pub fn new(spec: &'s TaskSpec, folder: PathBuf, limits: Limits) -> Self {
        Self {
            spec,
            folder,
            limits,
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data files, by name in the spec; each once.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, PathBuf> {
        if self.spec.source.kind == SourceKind::Synth {
            return BTreeMap::new();
        }
        let splits = self.spec.splits.named.values();
        let names = splits.map(|s| s.file.clone()).filter(|f| !f.is_empty());
        names.map(|f| (f.clone(), self.folder.join(f))).collect()
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

    /// Reads the rows of a split, batch by batch, after slices and `filter.drop_if_missing`; rows with an ignored label
    /// are left out. A slice of a file is cut in file order, in a seeded order, by whole groups
    /// (`table.group_as = "split"`) or in the order of `table.time`.
    ///
    /// Memory: one batch; for a slice of a shuffled, grouped or timed file also about 40 bytes per row.
    ///
    /// # Errors
    /// What the reader of the file reports, and what `visit` returns.
    pub fn rows(&self, name: &str, visit: Visit) -> Result<()> {
        let split = self.split(name)?;
        let keep = self.selection(name, split)?;
        let mut at = 0usize;
        self.raw(name, split, &mut |table| {
            let (start, rows) = (at, table.rows());
            at += rows;
            let fits = |i: usize| {
                keep.as_ref()
                    .is_none_or(|k| k.get(start + i) == Some(&true))
            };
            let filtered = table.filtered(|i| fits(i) && self.passes(&table, i));
            visit(filtered)
        })
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
        let path = self.folder.join(&split.file);
        data::read(&path, self.spec.source.kind, &self.limits, visit)
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
        let present = filter.drop_if_missing.iter().all(|name| {
            let value = table.at(row, self.column(name));
            !(value.is_null() || value.as_str().is_some_and(|t| t.trim().is_empty()))
        });
        let ignored = || {
            let ignore = &self.spec.labels.ignore;
            !ignore.is_empty() && ignore.contains(&table.at(row, &self.spec.fields.target))
        };
        present && !ignored()
    }

    /// A row as prompts see it: its columns, and the canonical fields of the spec by name.
    #[must_use]
    pub fn record(&self, table: &Table, row: usize) -> serde_json::Map<String, Value> {
        let mut record = table.row(row);
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

fn flags(n: usize, rows: impl IntoIterator<Item = u64>) -> Vec<bool> {
    let mut keep = vec![false; n];
    for row in rows {
        if let Some(flag) = usize::try_from(row).ok().and_then(|r| keep.get_mut(r)) {
            *flag = true;
        }
    }
    keep
}

/// Whole groups: groups stand in the order of their first row (shuffled by the seed), and a group belongs to the slice
/// that its first row falls into, so no group is cut and slices that share an end leave none out.
pub(crate) fn by_group(values: &[Value], slice: &Slice, seed: Option<u64>) -> Vec<bool> {
    let mut of = BTreeMap::<String, usize>::new();
    let mut sizes: Vec<u64> = Vec::new();
    let member: Vec<usize> = values
        .iter()
        .map(|v| {
            let next = of.len();
            let group = *of.entry(v.to_string()).or_insert(next);
            if group == sizes.len() {
                sizes.push(0);
            }
            sizes[group] += 1;
            group
        })
        .collect();
    let (from, to) = slice.range(values.len() as u64);
    let mut taken = vec![false; sizes.len()];
    let mut at = 0;
    for group in slice::order(sizes.len() as u64, seed) {
        let group = usize::try_from(group).unwrap_or_default();
        taken[group] = (from..to).contains(&at);
        at += sizes[group];
    }
    member.into_iter().map(|g| taken[g]).collect()
}

/// Earlier rows first: numbers by value, then text by code points; equal times keep file order.
pub(crate) fn by_time(values: &[Value], slice: &Slice) -> Vec<bool> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let key = |v: &Value| {
        let text = v.as_str().unwrap_or_default().to_owned();
        let number = v.as_f64().or_else(|| data::table::parse_number(&text));
        (number, text)
    };
    let keys: Vec<_> = values.iter().map(key).collect();
    order.sort_by(|a, b| {
        let ((x, s), (y, t)) = (&keys[*a], &keys[*b]);
        match (x, y) {
            (Some(x), Some(y)) => x.total_cmp(y),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => s.cmp(t),
        }
    });
    let (from, to) = slice.range(values.len() as u64);
    let cut = |x: u64| usize::try_from(x).unwrap_or(usize::MAX).min(order.len());
    flags(
        values.len(),
        order[cut(from)..cut(to)].iter().map(|i| *i as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cuts(text: &str) -> Slice {
        Slice::parse(text).unwrap()
    }

    #[test]
    fn groups_are_never_cut() {
        let values: Vec<Value> = (0..60).map(|i| json!(i % 7)).collect();
        for seed in [None, Some(1), Some(9)] {
            let a = by_group(&values, &cuts("[:70%]"), seed);
            let b = by_group(&values, &cuts("[70%:]"), seed);
            for (i, (x, y)) in a.iter().zip(&b).enumerate() {
                assert!(x ^ y, "{i}");
                assert_eq!(*x, a[i % 7], "{i}");
            }
            assert!(a.contains(&true) && b.contains(&true));
        }
    }

    #[test]
    fn later_rows_go_last() {
        let values = [json!(30), json!("4"), json!(10), json!("x")];
        assert_eq!(
            by_time(&values, &cuts("[:50%]")),
            [false, true, true, false]
        );
        assert_eq!(
            by_time(&values, &cuts("[50%:]")),
            [true, false, false, true]
        );
    }
}
