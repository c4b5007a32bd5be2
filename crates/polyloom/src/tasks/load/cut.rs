//! Which files a name stands for, and which rows of a file a slice takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{MergeError, Result};
use crate::tasks::data;
use crate::tasks::slice::{self, Slice};
use crate::tasks::spec::Split;

/// The files that a name fits: itself, or with `*` in its last part all of that folder that fit, sorted by name.
///
/// # Errors
/// A pattern that fits no file, `*` in a folder's name.
pub fn matching(folder: &Path, file: &str) -> Result<Vec<PathBuf>> {
    let path = folder.join(file);
    if !file.contains('*') {
        return Ok(vec![path]);
    }
    let bad = |what: String| MergeError::plan("no-file", what).at(path.display().to_string());
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let parent = path.parent().unwrap_or(folder);
    if parent.to_string_lossy().contains('*') {
        return Err(bad(
            "`*` stands in the name of a folder; it may stand in the last part only".into(),
        ));
    }
    let mut out = Vec::new();
    if let Ok(entries) = std::fs::read_dir(parent) {
        for entry in entries.flatten() {
            let fits = entry
                .file_name()
                .to_str()
                .is_some_and(|n| crate::tasks::catalogue::glob(name, n));
            if fits {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    if out.is_empty() {
        return Err(bad("no file fits this name".into()));
    }
    Ok(out)
}

/// The part of an image folder that a split is: its file, or its name.
pub(super) fn part_of<'a>(name: &'a str, split: &'a Split) -> &'a str {
    if split.file.is_empty() {
        name
    } else {
        &split.file
    }
}

pub(super) fn flags(n: usize, rows: impl IntoIterator<Item = u64>) -> Vec<bool> {
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
    let ranks = ranks(values);
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|row| ranks[*row]);
    let (from, to) = slice.range(values.len() as u64);
    let cut = |x: u64| usize::try_from(x).unwrap_or(usize::MAX).min(order.len());
    flags(
        values.len(),
        order[cut(from)..cut(to)].iter().map(|i| *i as u64),
    )
}

/// Times as ranks from 0, equal ones alike: numbers by value, then text by code points.
#[must_use]
pub fn ranks(values: &[Value]) -> Vec<u32> {
    let key = |v: &Value| {
        let text = v.as_str().unwrap_or_default().to_owned();
        let number = v.as_f64().or_else(|| data::table::parse_number(&text));
        (number, text)
    };
    let keys: Vec<_> = values.iter().map(key).collect();
    let before = |a: usize, b: usize| {
        let ((x, s), (y, t)) = (&keys[a], &keys[b]);
        match (x, y) {
            (Some(x), Some(y)) => x.total_cmp(y),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => s.cmp(t),
        }
    };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| before(*a, *b));
    let mut ranks = vec![0; values.len()];
    for pair in order.windows(2) {
        ranks[pair[1]] = ranks[pair[0]] + u32::from(before(pair[0], pair[1]).is_lt());
    }
    ranks
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
        let twice = [json!("b"), json!(3), json!("3.0"), json!("a"), json!(-1)];
        assert_eq!(ranks(&twice), [3, 1, 1, 2, 0]);
        assert!(ranks(&[]).is_empty());
    }
}
