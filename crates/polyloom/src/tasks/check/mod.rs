//! What makes the scores of a task wrong: rows that two splits share, duplicates, empty inputs, labels that are not in
//! the list, skewed or missing classes, features that are ids.

use std::collections::{BTreeMap, HashMap};

use polyloom_core::hash::xxh3;
use serde::Serialize;
use serde_json::Value;

use super::hash::canonical;
use super::load::{Loader, matching};
use super::spec::{SourceKind, TaskSpec, TaskType};
use crate::error::Result;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Scores may mislead.
    Warning,
    /// The task cannot be scored as it is.
    Failure,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// A stable word for programs.
    pub code: &'static str,
    /// Field or split.
    pub at: String,
    /// What, with numbers.
    pub text: String,
}

/// One split in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitSummary {
    /// Name.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Rows per label (class name or raw value), of tasks with classes.
    pub labels: BTreeMap<String, u64>,
    /// Rows whose input is that of an earlier row of the split.
    pub duplicates: u64,
    /// Rows with an empty input.
    pub empty: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Task id.
    pub task: String,
    /// `task_hash`, where all files could be read.
    pub hash: Option<String>,
    /// Splits in the order of the spec.
    pub splits: Vec<SplitSummary>,
    /// Column -> type, of the first split.
    pub columns: Vec<(String, String)>,
    /// Findings, worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst level.
    #[must_use]
    pub fn worst(&self) -> Option<Level> {
        self.findings.iter().map(|f| f.level).max()
    }
}

/// Share of the largest class above which a split is called skewed.
const SKEW: f64 = 0.9;
/// Distinct values of a feature that are followed; beyond, a column counts as having many.
const DISTINCT: usize = 1 << 20;

/// Checks a task against its files.
///
/// Rows are compared by a 64-bit hash of their input fields (of their features in a table), so memory is about 24 bytes
/// per row. Cost: one pass over every split, one more over sliced files, one SHA-256 per file.
///
/// # Errors
/// None for problems of the data: they are findings. An interrupted run is an error.
pub fn check(spec: &TaskSpec, loader: &Loader) -> Result<Report> {
    let mut state = State {
        spec,
        findings: Vec::new(),
        columns: Vec::new(),
        inputs: inputs(spec),
        distinct: BTreeMap::new(),
    };
    let mut splits = Vec::new();
    let mut seen: Vec<(String, HashMap<u64, u64>)> = Vec::new();
    let mut missing = false;
    for (name, path) in loader.files() {
        if !path.exists() {
            missing = true;
            let text = format!("there is no file {}", path.display());
            state.find(Level::Failure, "missing-file", &name, text);
        }
    }
    for name in spec.splits.named.keys() {
        let files = matching(loader.folder(), &spec.splits.named[name].file);
        let there = files.is_ok_and(|f| f.iter().all(|f| f.exists()));
        let filed = !matches!(spec.source.kind, SourceKind::Inline | SourceKind::Synth);
        if filed && !there {
            continue;
        }
        match state.split(name, loader) {
            Ok((summary, hashes)) => {
                splits.push(summary);
                seen.push((name.clone(), hashes));
            }
            Err(error) => {
                missing = true;
                state.find(Level::Failure, "unreadable", name, error.to_string());
            }
        }
    }
    if !missing {
        state.targets(loader)?;
    }
    state.leaks(&seen);
    state.labels_between(&splits);
    state.ids(&splits);
    let mut hash = None;
    if !missing {
        let hashes = loader.hashes()?;
        for (file, expected) in &spec.source.sha256 {
            if let Some(found) = hashes.get(file)
                && !found.eq_ignore_ascii_case(expected)
            {
                let text = format!("SHA-256 is {found}, the spec says {expected}");
                state.find(Level::Failure, "hash", file, text);
            }
        }
        hash = Some(super::hash::task_hash(spec, &hashes));
    }
    state.findings.sort_by_key(|f| std::cmp::Reverse(f.level));
    Ok(Report {
        task: spec.id.clone(),
        hash,
        splits,
        columns: state.columns,
        findings: state.findings,
    })
}

/// The columns whose values together are a row's input.
pub(crate) fn inputs(spec: &TaskSpec) -> Vec<String> {
    let f = &spec.fields;
    let named = [&f.input, &f.input2, &f.query, &f.document];
    let given: Vec<String> = named
        .into_iter()
        .filter(|c| !c.is_empty())
        .cloned()
        .collect();
    if !given.is_empty() {
        return given;
    }
    let Some(table) = &spec.table else {
        return Vec::new();
    };
    if !table.features.is_empty() {
        return table.features.clone();
    }
    table
        .categorical
        .iter()
        .chain(&table.numeric)
        .chain(&table.text)
        .cloned()
        .collect()
}

struct State<'s> {
    spec: &'s TaskSpec,
    findings: Vec<Finding>,
    columns: Vec<(String, String)>,
    inputs: Vec<String>,
    /// What is known of every feature of a table, over all splits.
    distinct: BTreeMap<String, Feature>,
}

impl State<'_> {
    fn find(&mut self, level: Level, code: &'static str, at: &str, text: String) {
        self.findings.push(Finding {
            level,
            code,
            at: at.to_owned(),
            text,
        });
    }

    fn report(&mut self, name: &str, summary: &SplitSummary, tally: &Tally) {
        let at = format!("splits.{name}");
        if summary.rows == 0 {
            self.find(Level::Failure, "empty-split", &at, "has no rows".into());
            return;
        }
        let rows = summary.rows;
        let mut some = |n: u64, level, code, what: &str| {
            if n > 0 {
                let text = format!("{n} of {rows} rows {what}");
                self.find(level, code, &at, text);
            }
        };
        some(
            summary.empty,
            Level::Warning,
            "empty-input",
            "have an empty input",
        );
        some(
            tally.no_target,
            Level::Warning,
            "no-target",
            "have no target",
        );
        some(
            summary.duplicates,
            Level::Note,
            "duplicate",
            "have the input of an earlier row",
        );
        some(
            tally.conflicts,
            Level::Warning,
            "conflict",
            "have the input of an earlier row and another target",
        );
        some(
            tally.spans_outside,
            Level::Failure,
            "span-outside",
            "have spans that are not in their input",
        );
        if let Some(first) = &tally.first_unknown {
            let text = format!(
                "{} labels are not in labels.names, the first is `{first}`",
                tally.unknown
            );
            self.find(Level::Failure, "unknown-label", &at, text);
        }
        let total: u64 = summary.labels.values().sum();
        if let Some((label, n)) = summary.labels.iter().max_by_key(|(_, n)| **n)
            && summary.labels.len() > 1
            && *n as f64 > SKEW * total as f64
        {
            let share = 100.0 * *n as f64 / total as f64;
            let text = format!(
                "`{label}` has {share:.1} % of the labels; prefer a metric that sees the rest"
            );
            self.find(Level::Warning, "skew", &at, text);
        }
        if summary.labels.len() == 1 && self.spec.kind != Some(TaskType::Multilabel) {
            let text =
                "has one label only; ranking and correlation metrics are undefined".to_owned();
            self.find(Level::Warning, "one-label", &at, text);
        }
    }

    /// Inputs that two splits share.
    fn leaks(&mut self, seen: &[(String, HashMap<u64, u64>)]) {
        for (i, (name, hashes)) in seen.iter().enumerate() {
            for (other, before) in &seen[..i] {
                if self.spec.may_share(name, other) {
                    continue;
                }
                let shared = hashes.keys().filter(|h| before.contains_key(h)).count();
                if shared > 0 {
                    let text = format!(
                        "{shared} of {} different inputs are in `{other}` too",
                        hashes.len()
                    );
                    self.find(Level::Warning, "leak", &format!("splits.{name}"), text);
                }
            }
        }
    }

    /// Classes that only some splits have.
    fn labels_between(&mut self, splits: &[SplitSummary]) {
        let Some(train) = splits.iter().find(|s| s.name == "train") else {
            return;
        };
        if train.labels.is_empty() {
            return;
        }
        for split in splits.iter().filter(|s| s.name != "train") {
            let new: Vec<&str> = split
                .labels
                .keys()
                .filter(|l| !train.labels.contains_key(*l))
                .map(String::as_str)
                .collect();
            if let Some(first) = new.first() {
                let text = format!(
                    "{} labels are not in train, the first is `{first}`",
                    new.len()
                );
                self.find(
                    Level::Warning,
                    "unseen-label",
                    &format!("splits.{}", split.name),
                    text,
                );
            }
        }
        let never: Vec<&String> = self
            .spec
            .labels
            .names
            .iter()
            .filter(|n| !splits.iter().any(|s| s.labels.contains_key(*n)))
            .collect();
        if let Some(first) = never.first() {
            let text = format!("{} names have no row, the first is `{first}`", never.len());
            self.find(Level::Note, "unused-label", "labels.names", text);
        }
    }
}

#[derive(Default)]
struct Tally {
    no_target: u64,
    conflicts: u64,
    unknown: u64,
    first_unknown: Option<String>,
    spans_outside: u64,
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.trim().is_empty(),
        _ => false,
    }
}

fn digest(value: &Value) -> u64 {
    let mut text = String::new();
    canonical(value, &mut text);
    xxh3(text.as_bytes())
}

mod features;
mod rows;
use features::Feature;

#[cfg(test)]
mod tests;
