//! Parts of a task by a column: a value, or a list of tags.

use std::collections::HashMap;
use std::path::Path;

use indexmap::IndexMap;
use serde_json::Value;

use super::super::predictions::{Columns, ID, TASK};
use crate::error::{MergeError, Result};
use crate::tasks::data::{self, Limits, Table};

/// Values of a column beyond which it does not cut the examples into parts that could be compared.
const MOST: usize = 1000;

/// The values of columns by task and example.
#[derive(Debug, Clone, Default)]
pub struct Slices {
    columns: Vec<String>,
    of: HashMap<(String, String), Vec<Vec<String>>>,
}

impl Slices {
    /// Reads columns of a file of predictions. A list is a list of tags: the example is in every one of their slices.
    /// Examples without a value are in no slice.
    ///
    /// # Errors
    /// A file that cannot be read, a column that it lacks, or one of more than 1,000 values.
    pub fn read(path: &Path, columns: &Columns, slices: &[String]) -> Result<Self> {
        let mut found = Self {
            columns: slices.to_vec(),
            of: HashMap::new(),
        };
        if slices.is_empty() {
            return Ok(found);
        }
        let shown = path.display().to_string();
        let kind = data::kind_of(path).ok_or_else(|| {
            MergeError::plan("unknown-format", "is no table that Polyloom reads").at(shown.clone())
        })?;
        let mut number = 0u64;
        let mut values: Vec<IndexMap<String, ()>> = vec![IndexMap::new(); slices.len()];
        data::read(path, kind, &Limits::default(), &mut |table| {
            for slice in slices {
                if !table.has(slice) {
                    let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
                    let what = format!("has no column `{slice}` to cut slices by");
                    return Err(MergeError::plan("missing-column", what)
                        .at(shown.clone())
                        .hint(format!("its columns: {}", names.join(", "))));
                }
            }
            for row in 0..table.rows() {
                number += 1;
                let id = named(&table, row, columns.id.as_deref(), ID);
                let id = id.unwrap_or_else(|| number.to_string());
                let task = named(&table, row, columns.task.as_deref(), TASK).unwrap_or_default();
                let tags: Vec<Vec<String>> =
                    slices.iter().map(|s| tags(&table.at(row, s))).collect();
                for (values, tags) in values.iter_mut().zip(&tags) {
                    values.extend(tags.iter().map(|t| (t.clone(), ())));
                }
                found.of.insert((task, id), tags);
            }
            Ok(())
        })?;
        for (slice, values) in slices.iter().zip(&values) {
            if values.len() > MOST {
                let what = format!(
                    "column `{slice}` has {} values, too many for slices",
                    values.len()
                );
                return Err(MergeError::plan("bad-slice", what)
                    .at(shown)
                    .hint("a column of a few values, or of lists of tags"));
            }
        }
        Ok(found)
    }

    /// The places of a task's examples by slice (column, value), in the order of their first example.
    pub(super) fn cut<'i>(
        &self,
        task: &str,
        ids: impl Iterator<Item = &'i str>,
    ) -> IndexMap<(String, String), Vec<usize>> {
        let mut parts: IndexMap<(String, String), Vec<usize>> = IndexMap::new();
        for (place, id) in ids.enumerate() {
            let Some(tags) = self.of.get(&(task.to_owned(), id.to_owned())) else {
                continue;
            };
            for (column, tags) in self.columns.iter().zip(tags) {
                for tag in tags {
                    let part = parts.entry((column.clone(), tag.clone())).or_default();
                    if part.last() != Some(&place) {
                        part.push(place);
                    }
                }
            }
        }
        parts.sort_by(|a, _, b, _| {
            let place = |c: &String| self.columns.iter().position(|x| x == c);
            place(&a.0).cmp(&place(&b.0))
        });
        parts
    }
}

fn named(table: &Table, row: usize, given: Option<&str>, usual: &[&str]) -> Option<String> {
    let name = given.or_else(|| usual.iter().copied().find(|n| table.has(n)))?;
    let column = table.column(name)?;
    Some(column.cell(row).to_text())
}

fn tags(value: &Value) -> Vec<String> {
    let plain = |v: &Value| match v {
        Value::String(s) => s.trim().to_owned(),
        other => other.to_string(),
    };
    let list = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().map(plain).collect(),
        // A cell of a CSV file that holds a JSON list.
        Value::String(s) if s.trim_start().starts_with('[') => match serde_json::from_str(s) {
            Ok(Value::Array(items)) => items.iter().map(plain).collect(),
            _ => vec![plain(value)],
        },
        other => vec![plain(other)],
    };
    list.into_iter().filter(|t| !t.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_lists_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        let text = "id,lang,tags\na,de,\"[\"\"x\"\", \"\"y\"\"]\"\nb,en,y\nc,de,\n";
        std::fs::write(&path, text).unwrap();
        let columns = Columns::default();
        let both = ["lang".to_owned(), "tags".to_owned()];
        let slices = Slices::read(&path, &columns, &both).unwrap();
        let cut = slices.cut("", ["a", "b", "c", "z"].into_iter());
        let shown: Vec<String> = cut
            .iter()
            .map(|((c, v), p)| format!("{c}={v} {p:?}"))
            .collect();
        assert_eq!(
            shown,
            [
                "lang=de [0, 2]",
                "lang=en [1]",
                "tags=x [0]",
                "tags=y [0, 1]"
            ]
        );
        let error = Slices::read(&path, &columns, &["langs".to_owned()]).unwrap_err();
        assert_eq!(error.code(), "missing-column");
        let json = dir.path().join("p.jsonl");
        std::fs::write(&json, "{\"doc_id\": 7, \"t\": [\"u\", \"v\"]}\n").unwrap();
        let slices = Slices::read(&json, &columns, &["t".to_owned()]).unwrap();
        assert_eq!(slices.cut("", ["7"].into_iter()).len(), 2);
    }
}
