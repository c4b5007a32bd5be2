//! Seeded splits of one table: plain, stratified, by group, by time.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::lines::Lines;
use super::data::{self, Limits, Table};
use super::levels;
use super::load;
use super::slice::{self, Slice};
use super::spec::SourceKind;
use crate::error::{MergeError, Result};

/// How rows are put into parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Shuffled.
    Rows,
    /// Every value of the column has the same shares in every part.
    Stratified(String),
    /// Rows with the same value stay together.
    Grouped(String),
    /// Earlier rows first, not shuffled.
    Timed(String),
}

/// The part of every row: 0 for the first fraction, and so on. Fractions are cut at floor(n p), where p is their running
/// sum, so every row is in one part. Stratified: within every stratum. Grouped: a group belongs to the part that its
/// first row (of the shuffled groups) falls into.
///
/// # Errors
/// Fewer than two fractions, one that is not above 0, a sum that is not 1 (within 1e-9).
pub fn assign(values: &[Value], by: &By, fractions: &[f64], seed: u64) -> Result<Vec<usize>> {
    let total: f64 = fractions.iter().sum();
    if fractions.len() < 2 || !fractions.iter().all(|f| *f > 0.0) || (total - 1.0).abs() > 1e-9 {
        return Err(MergeError::plan(
            "bad-fractions",
            format!(
                "the fractions {fractions:?} are not two or more numbers above 0 with the sum 1"
            ),
        ));
    }
    let mut ends = Vec::with_capacity(fractions.len());
    let mut at = 0.0;
    for fraction in fractions {
        at += fraction * 100.0;
        // Rounding must not push 10 % + 20 % beyond a whole percentage.
        ends.push((at * 1e9).round() / 1e9);
    }
    if let Some(last) = ends.last_mut() {
        *last = 100.0;
    }
    let slices: Vec<Slice> = (0..ends.len())
        .map(|i| {
            let from = if i == 0 { 0.0 } else { ends[i - 1] };
            Slice::parse(&format!("[{from}%:{}%]", ends[i]))
        })
        .collect::<Result<_, _>>()
        .map_err(|e| MergeError::plan("bad-fractions", e))?;
    let n = values.len();
    let mut parts = vec![0; n];
    let mut put = |rows: &[usize], order: &[u64]| {
        for (part, slice) in slices.iter().enumerate() {
            let (from, to) = slice.range(rows.len() as u64);
            for i in from..to {
                let row = usize::try_from(order[usize::try_from(i).unwrap_or_default()]);
                parts[rows[row.unwrap_or_default()]] = part;
            }
        }
    };
    match by {
        By::Rows => {
            let all: Vec<usize> = (0..n).collect();
            put(&all, &slice::order(n as u64, Some(seed)));
        }
        By::Stratified(_) => {
            let mut strata = BTreeMap::<String, Vec<usize>>::new();
            for (i, value) in values.iter().enumerate() {
                strata.entry(value.to_string()).or_default().push(i);
            }
            for (k, rows) in strata.values().enumerate() {
                let seed = seed.wrapping_add((k as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                put(rows, &slice::order(rows.len() as u64, Some(seed)));
            }
        }
        By::Grouped(_) | By::Timed(_) => {
            for (part, slice) in slices.iter().enumerate() {
                let taken = match by {
                    By::Grouped(_) => load::by_group(values, slice, Some(seed)),
                    _ => load::by_time(values, slice),
                };
                for (i, _) in taken.iter().enumerate().filter(|(_, t)| **t) {
                    parts[i] = part;
                }
            }
        }
    }
    Ok(parts)
}

/// A part that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its file.
    pub file: PathBuf,
    /// Its rows.
    pub rows: u64,
}

/// Splits a file into files of a new or empty folder: CSV and TSV stay what they are, everything else becomes JSON lines.
/// Two passes; memory is one batch and about 40 bytes per row (more where the column's values are long).
///
/// # Errors
/// What the reader and [`assign`] report, a column that the file lacks, a part without rows, an unwritable folder. Files
/// are written under another name and renamed once all are complete.
pub fn write(
    path: &Path,
    by: &By,
    parts: &[(String, f64)],
    seed: u64,
    folder: &Path,
    limits: &Limits,
) -> Result<Vec<Part>> {
    let kind = data::kind_of(path)
        .ok_or_else(|| data::bad(path, "is no table that is known by its name"))?;
    let column = match by {
        By::Rows => None,
        By::Stratified(c) | By::Grouped(c) | By::Timed(c) => Some(c),
    };
    let mut values = Vec::new();
    data::read(path, kind, limits, &mut |t: Table| {
        if let Some(name) = column
            && !t.has(name)
        {
            return Err(no_column(path, name, &t));
        }
        no_bytes(path, &t)?;
        values.extend((0..t.rows()).map(|i| column.map_or(Value::Null, |c| t.at(i, c))));
        Ok(())
    })?;
    let fractions: Vec<f64> = parts.iter().map(|p| p.1).collect();
    let assigned = assign(&values, by, &fractions, seed)?;
    drop(values);
    let names: Vec<&str> = parts.iter().map(|p| &*p.0).collect();
    copy(path, kind, &names, &assigned, folder, limits)
}

/// Writes every row of a table into the part that it is assigned to: a file of the folder.
///
/// # Errors
/// As [`write()`].
fn copy(
    path: &Path,
    kind: SourceKind,
    parts: &[&str],
    assigned: &[usize],
    folder: &Path,
    limits: &Limits,
) -> Result<Vec<Part>> {
    for (i, name) in parts.iter().enumerate() {
        if !assigned.contains(&i) {
            let what = format!("part `{name}` would have no rows of {}", assigned.len());
            return Err(data::bad(path, what).hint("give it a larger fraction"));
        }
    }
    let (extension, delimiter) = match kind {
        SourceKind::Csv => ("csv", Some(b',')),
        SourceKind::Tsv => ("tsv", Some(b'\t')),
        _ => ("jsonl", None),
    };
    let io = |e: std::io::Error| polyloom_core::Error::write(folder, "write", e, folder);
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut out = Vec::new();
    for name in parts {
        let file = folder.join(format!("{name}.{extension}"));
        let part = folder.join(format!("{name}.{extension}.part"));
        let sink = BufWriter::new(std::fs::File::create(&part).map_err(io)?);
        out.push((Lines::new(sink, delimiter), part, Part { file, rows: 0 }));
    }
    let mut at = 0;
    let copied = data::read(path, kind, limits, &mut |table: Table| {
        for row in 0..table.rows() {
            // A file that grew between the passes has rows without a part.
            let Some(part) = assigned.get(at + row) else {
                break;
            };
            let (sink, _, done) = &mut out[*part];
            if done.rows == 0 {
                sink.header(&table).map_err(io)?;
            }
            sink.row(&table, row).map_err(io)?;
            done.rows += 1;
        }
        at += table.rows();
        Ok(())
    });
    let names: Vec<PathBuf> = out.iter().map(|(_, part, _)| part.clone()).collect();
    let finished = copied.and_then(|()| {
        let end = |(sink, part, done): (Lines<_>, PathBuf, Part)| {
            sink.finish().map_err(io)?;
            std::fs::rename(&part, &done.file).map_err(io)?;
            Ok(done)
        };
        out.into_iter().map(end).collect()
    });
    if finished.is_err() {
        for part in &names {
            let _ = std::fs::remove_file(part);
        }
    }
    finished
}

/// Splits a file with a category column and a task column into `train` and three held-out levels
/// ([`levels::assign`]), and says what they share with training: rows with equal values in all other columns.
///
/// # Errors
/// As [`write()`] and [`levels::assign`].
pub fn write_levels(
    path: &Path,
    [category, task]: [&str; 2],
    share: f64,
    seed: u64,
    folder: &Path,
    limits: &Limits,
) -> Result<(Vec<Part>, Vec<levels::Leak>)> {
    let kind = data::kind_of(path)
        .ok_or_else(|| data::bad(path, "is no table that is known by its name"))?;
    let (mut categories, mut tasks, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
    data::read(path, kind, limits, &mut |t: Table| {
        for name in [category, task] {
            if !t.has(name) {
                return Err(no_column(path, name, &t));
            }
        }
        no_bytes(path, &t)?;
        for row in 0..t.rows() {
            let mut rest = t.row(row);
            rest.retain(|n, _| n != category && n != task);
            let mut text = String::new();
            super::hash::canonical(&Value::Object(rest), &mut text);
            inputs.push(polyloom_core::hash::xxh3(text.as_bytes()));
            categories.push(t.at(row, category));
            tasks.push(t.at(row, task));
        }
        Ok(())
    })?;
    let levels = levels::assign(&categories, &tasks, share, seed)?;
    let leaks = levels::leaks(&levels, &inputs);
    let names = levels::Level::ALL.map(levels::Level::name);
    let assigned: Vec<usize> = levels.into_iter().map(|l| l as usize).collect();
    let parts = copy(path, kind, &names, &assigned, folder, limits)?;
    Ok((parts, leaks))
}

fn no_bytes(path: &Path, t: &Table) -> Result<()> {
    if let Some((name, _)) = t.types().into_iter().find(|(_, word)| *word == "bytes") {
        let what = format!("column `{name}` holds raw bytes, which text files cannot");
        return Err(data::bad(path, what)
            .hint("name slices in `[splits]` of a spec instead: nothing is copied then"));
    }
    Ok(())
}

fn no_column(path: &Path, name: &str, table: &Table) -> MergeError {
    let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
    let error = data::bad(path, format!("has no column `{name}`"));
    match crate::suggest::nearest(name, &names, 1).first() {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("columns: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn strata_keep_their_shares() {
        let values: Vec<Value> = (0..100).map(|i| json!(i % 4 == 0)).collect();
        let by = By::Stratified("y".into());
        let parts = assign(&values, &by, &[0.8, 0.2], 3).unwrap();
        let test: Vec<usize> = (0..100).filter(|i| parts[*i] == 1).collect();
        assert_eq!(test.len(), 20);
        assert_eq!(test.iter().filter(|i| *i % 4 == 0).count(), 5);
        assert!(assign(&values, &by, &[0.8, 0.3], 3).is_err());
        assert!(assign(&values, &by, &[1.0], 3).is_err());
    }

    #[test]
    fn files_are_split_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let rows: String = (0..50).map(|i| format!("{i},\"g, {}\"\n", i % 5)).collect();
        std::fs::write(&path, format!("n,g\n{rows}")).unwrap();
        let parts = [("train".to_owned(), 0.6), ("test".to_owned(), 0.4)];
        let out = dir.path().join("out");
        let by = By::Grouped("g".into());
        let done = write(&path, &by, &parts, 1, &out, &Limits::default()).unwrap();
        assert_eq!(done.iter().map(|p| p.rows).sum::<u64>(), 50);
        let groups = |part: &Part| {
            let mut groups = std::collections::BTreeSet::new();
            data::read(&part.file, SourceKind::Csv, &Limits::default(), &mut |t| {
                groups.extend((0..t.rows()).map(|i| t.at(i, "g").to_string()));
                Ok(())
            })
            .unwrap();
            groups
        };
        assert!(groups(&done[0]).is_disjoint(&groups(&done[1])));
        let lost = write(
            &path,
            &By::Grouped("h".into()),
            &parts,
            1,
            &out,
            &Limits::default(),
        );
        assert!(lost.unwrap_err().to_string().contains("has no column `h`"));
    }

    proptest! {
        #[test]
        fn every_row_has_one_part_of_about_its_size(n in 1usize..200, seed in any::<u64>(), cut in 1u32..99) {
            let values = vec![Value::Null; n];
            let first = f64::from(cut) / 100.0;
            let parts = assign(&values, &By::Rows, &[first, 1.0 - first], seed).unwrap();
            let found = parts.iter().filter(|p| **p == 0).count();
            prop_assert!((found as f64 - first * n as f64).abs() <= 1.0);
            prop_assert_eq!(parts.len(), n);
        }
    }
}
