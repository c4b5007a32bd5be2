//! A release gate: what may get worse, and by how much.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Comparison, Paired, Verdict};
use crate::error::{MergeError, Result};
use crate::suggest;

/// What may get worse.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gate {
    /// A task may fall by this much; more, where the test says so, is a failure. `None`: falling is no failure.
    pub allowance: Option<f64>,
    /// The same for single tasks, in place of `allowance`.
    pub tasks: BTreeMap<String, f64>,
    /// Largest share of a task's examples that may get worse, whatever gets better (the negative flip rate).
    pub flips: Option<f64>,
}

/// Why a task does not pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// It fell by more than the allowance given here, and the test says so.
    Worse(f64),
    /// More than the share given here of its examples got worse.
    Flips(f64),
}

/// A task, or a slice of one, that does not pass.
#[derive(Debug, Clone, Copy)]
pub struct Fault<'c> {
    /// The task or slice.
    pub paired: &'c Paired,
    /// Why.
    pub reason: Reason,
}

impl Gate {
    /// What does not pass, tasks first, then slices (with the allowance of their task).
    ///
    /// # Errors
    /// An allowance for a task that the comparison does not have.
    pub fn faults<'c>(&self, found: &'c Comparison) -> Result<Vec<Fault<'c>>> {
        let names: Vec<&str> = found.tasks.iter().map(|t| &*t.task).collect();
        for name in self.tasks.keys() {
            if !names.contains(&&**name) {
                let what =
                    format!("an allowance for the task `{name}`, which the files do not hold");
                let near = suggest::nearest(name, &names, 1);
                let hint = match near.first() {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("tasks present: {}", names.join(", ")),
                };
                return Err(MergeError::plan("no-task", what).hint(hint));
            }
        }
        let mut faults = Vec::new();
        for paired in found.tasks.iter().chain(&found.slices) {
            let allowance = self.tasks.get(&paired.task).copied().or(self.allowance);
            if let Some(allowance) = allowance
                && paired.verdict == Verdict::Worse
                && paired.difference.abs() > allowance
            {
                faults.push(Fault {
                    paired,
                    reason: Reason::Worse(allowance),
                });
            }
            if let Some(limit) = self.flips
                && paired.worse.len() as f64 > limit * paired.n as f64
            {
                faults.push(Fault {
                    paired,
                    reason: Reason::Flips(limit),
                });
            }
        }
        Ok(faults)
    }
}

/// Allowances by task from a file: a TOML table or a JSON object of numbers.
///
/// # Errors
/// An unreadable file, or a value that is no number of at least 0.
pub fn allowances(path: &Path) -> Result<BTreeMap<String, f64>> {
    let shown = path.display().to_string();
    let bad = |what: String| {
        MergeError::plan("bad-allowance", what)
            .at(shown.clone())
            .hint("a TOML table such as `intents = 0.02`, or a JSON object")
    };
    let text = std::fs::read_to_string(path)
        .map_err(|e| MergeError::from(polyloom_core::Error::io(path, "read", e)))?;
    let json = path.extension().is_some_and(|e| e == "json");
    let map: BTreeMap<String, f64> = if json {
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?
    } else {
        toml::from_str(&text).map_err(|e| bad(e.message().to_owned()))?
    };
    for (task, value) in &map {
        if !(value.is_finite() && *value >= 0.0) {
            return Err(bad(format!("`{task}`: {value} is no number of at least 0")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowances_of_both_formats() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let expected: BTreeMap<String, f64> =
            [("a".to_owned(), 0.02), ("text/b".to_owned(), 1.0)].into();
        let toml = write("a.toml", "a = 0.02\n\"text/b\" = 1\n");
        let json = write("a.json", "{\"a\": 0.02, \"text/b\": 1}");
        assert_eq!(allowances(&toml).unwrap(), expected);
        assert_eq!(allowances(&json).unwrap(), expected);
        for text in ["a = -1\n", "a = \"x\"\n", "a = nan\n", "["] {
            assert_eq!(
                allowances(&write("b.toml", text)).unwrap_err().code(),
                "bad-allowance"
            );
        }
        assert!(allowances(&dir.path().join("none.toml")).is_err());
    }
}
