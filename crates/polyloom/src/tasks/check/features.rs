//! The checks of tables: features that are ids or constants, rows that a target has.

use std::collections::HashSet;

use super::super::data::Table;
use super::super::data::table::is_absent_number;
use super::super::load::Loader;
use super::super::predicate::Predicate;
use super::{DISTINCT, Level, SplitSummary, State, digest};
use crate::error::Result;

/// A feature of a table over all splits.
pub(super) struct Feature {
    /// Hashes of its values.
    values: HashSet<u64>,
    /// Whether all values are numbers, and whole ones.
    numbers: bool,
    whole: bool,
    least: f64,
    most: f64,
}

impl Default for Feature {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            numbers: true,
            whole: true,
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
        }
    }
}

/// Whether a column is called as ids are.
fn id_name(name: &str) -> bool {
    let lower = name.to_lowercase();
    let words = [
        "id",
        "uuid",
        "guid",
        "uid",
        "index",
        "idx",
        "row",
        "rownum",
        "row_number",
        "key",
    ];
    words.contains(&&*lower)
        || ["_id", "_uuid", "_guid", "_key"]
            .iter()
            .any(|e| lower.ends_with(e))
}

impl State<'_> {
    pub(super) fn features(&mut self, table: &Table) {
        if self.spec.table.is_none() || self.spec.fields.given().any(|(n, _)| n == "input") {
            return;
        }
        for name in &self.inputs {
            let Some(column) = table.column(name) else {
                continue;
            };
            let feature = self.distinct.entry(name.clone()).or_default();
            for row in 0..table.rows() {
                let cell = column.cell(row);
                if feature.values.len() < DISTINCT {
                    feature.values.insert(digest(&cell.to_json()));
                }
                match cell.to_number() {
                    Some(x) if feature.numbers => {
                        feature.whole &= x.fract() == 0.0;
                        feature.least = feature.least.min(x);
                        feature.most = feature.most.max(x);
                    }
                    Some(_) => {}
                    None => {
                        feature.numbers &= cell.is_empty() || is_absent_number(&cell.to_text());
                    }
                }
            }
        }
    }

    /// Rows of every one of several targets: those where `sample` holds and the column is not missing.
    pub(super) fn targets(&mut self, loader: &Loader) -> Result<()> {
        let spec = self.spec;
        for (i, target) in spec
            .targets
            .iter()
            .enumerate()
            .filter(|(_, t)| !t.sample.is_empty())
        {
            for split in spec.splits.named.keys() {
                let (mut rows, mut absent) = (0, None);
                let predicate = Predicate::parse(&target.sample).unwrap_or_default();
                loader.rows(split, &mut |table| {
                    let lost = |c: &&str| table.rows() > 0 && !table.has(c);
                    absent = absent
                        .take()
                        .or(predicate.columns().find(lost).map(str::to_owned));
                    Ok(())
                })?;
                loader.rows_of(split, target, &mut |table| {
                    rows += table.rows() as u64;
                    Ok(())
                })?;
                let at = format!("targets[{i}].sample");
                if let Some(column) = absent {
                    let text = format!("the data has no column `{column}`");
                    self.find(Level::Failure, "no-column", &at, text);
                } else if rows == 0 {
                    let text = format!("`{}` holds for no row of `{split}`", target.sample);
                    self.find(Level::Failure, "empty-target", &at, text);
                } else {
                    let text = format!("{rows} rows of `{split}` fulfil `{}`", target.sample);
                    self.find(Level::Note, "sample", &at, text);
                }
            }
        }
        Ok(())
    }

    /// Features that tell rows apart or tell nothing.
    pub(super) fn ids(&mut self, splits: &[SplitSummary]) {
        let rows: u64 = splits.iter().map(|s| s.rows).sum();
        if rows < 20 {
            return;
        }
        for (name, feature) in std::mem::take(&mut self.distinct) {
            let all = feature.values.len() as u64;
            let whole = all == rows && feature.values.len() < DISTINCT;
            // Whole numbers without repeats and without gaps count the rows.
            let counts = feature.whole && feature.most - feature.least == (all as f64) - 1.0;
            if whole && (!feature.numbers || counts || id_name(&name)) {
                let text = format!("`{name}` is different in every row: an id is no feature");
                self.find(Level::Warning, "id-column", "table.features", text);
            } else if all == 1 {
                let text = format!("`{name}` has one value only");
                self.find(Level::Note, "constant", "table.features", text);
            }
        }
    }
}
