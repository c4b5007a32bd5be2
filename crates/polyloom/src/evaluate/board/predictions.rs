//! Files of predictions: CSV, TSV, JSON lines or Parquet (the records that `polyloom eval` writes), one example a row.

mod rows;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::error::{MergeError, Result};
use rows::{Row, each_row};

/// Which columns hold what. `None` looks for the usual names.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Names an example; else `id`, `doc_id`, `example_id`, else the number of the row, from 1.
    pub id: Option<String>,
    /// Task of an example; else `task`, else everything is one task.
    pub task: Option<String>,
    /// What was predicted; else `prediction`, `pred`, `y_pred`, `predicted`, `output`.
    pub prediction: Option<String>,
    /// What is right; else `target`, `label`, `y_true`, `truth`, `gold`.
    pub label: Option<String>,
    /// A score per example, higher is better, in place of prediction and label.
    pub score: Option<String>,
    /// Names the system, where a file holds several ([`Predictions::by_system`]); else `system`, `model`.
    pub system: Option<String>,
}

/// One scored example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// 1 for right and 0 for wrong, or the score of the file.
    pub value: f64,
    /// What was predicted and what is right, where the file says so.
    pub texts: Option<(String, String)>,
    /// Probability that the system gave to what it predicted: column `confidence`, else the largest of `probabilities`.
    pub confidence: Option<f64>,
    /// Probability that the system gave to the second of two classes: of the list `probabilities`.
    pub second: Option<f64>,
    /// What the system was asked: column `input`, `text`, `question` or `prompt`.
    pub input: Option<String>,
}

/// A file of predictions: examples by task and id, in the order of the file.
#[derive(Debug, Clone)]
pub struct Predictions {
    /// The file.
    pub path: PathBuf,
    /// Examples by task, then by id. The task is empty where the file has none.
    pub tasks: IndexMap<String, IndexMap<String, Example>>,
    /// All values are 0 or 1: shares of right answers.
    pub binary: bool,
}

pub(super) const ID: &[&str] = &["id", "doc_id", "example_id"];
const SYSTEM: &[&str] = &["system", "model"];
const CONFIDENCE: &[&str] = &["confidence"];
const INPUT: &[&str] = &["input", "text", "question", "prompt"];
pub(super) const TASK: &[&str] = &["task"];
const PREDICTION: &[&str] = &["prediction", "pred", "y_pred", "predicted", "output"];
const LABEL: &[&str] = &["target", "label", "y_true", "truth", "gold"];

impl Predictions {
    /// Reads a file, row by row. The ending says the format: `.csv`, `.tsv`, `.jsonl` (or `.ndjson`), `.parquet`.
    ///
    /// Predictions and labels are compared as texts without surrounding white space, so `1` and `1.0` differ. In Parquet
    /// the column `value` (a score per example, as `polyloom eval` writes it) counts before that, where it is not null;
    /// in lm-eval's `samples_*.jsonl` the first metric of which more is better, the task being that of the file's name.
    ///
    /// # Errors
    /// Unknown endings, absent columns, an id that stands twice, scores that are no numbers or NaN, bad UTF-8, rows of
    /// another length than the header, no rows at all.
    pub fn read(path: &Path, columns: &Columns) -> Result<Self> {
        let mut found = Self::none(path);
        let mut number = 0;
        each_row(path, &mut |row| {
            number += 1;
            found.push(path, &row, number, columns)
        })?;
        found.some()
    }

    /// Reads a file that may hold several systems: one entry per name in the system's column, in the order of the file,
    /// or a single entry named after the file where there is no such column.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn by_system(path: &Path, columns: &Columns) -> Result<IndexMap<String, Self>> {
        let mut found: IndexMap<String, (Self, u64)> = IndexMap::new();
        let stem = path.file_stem().unwrap_or(path.as_os_str());
        let stem = stem.to_string_lossy().into_owned();
        each_row(path, &mut |row| {
            let at = || format!("{}:{}", path.display(), row.line);
            let system = row.find(columns.system.as_deref(), SYSTEM, &at)?;
            let (here, number) = found
                .entry(system.unwrap_or_else(|| stem.clone()))
                .or_insert_with(|| (Self::none(path), 0));
            *number += 1;
            here.push(path, &row, *number, columns)
        })?;
        if found.is_empty() {
            Self::none(path).some()?;
        }
        Ok(found.into_iter().map(|(name, (p, _))| (name, p)).collect())
    }

    fn none(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            tasks: IndexMap::new(),
            binary: true,
        }
    }

    fn some(self) -> Result<Self> {
        if self.tasks.is_empty() {
            let path = self.path.display().to_string();
            return Err(MergeError::plan("empty", "holds no predictions").at(path));
        }
        Ok(self)
    }

    fn push(&mut self, path: &Path, row: &Row, number: u64, columns: &Columns) -> Result<()> {
        let at = || format!("{}:{}", path.display(), row.line);
        let id = row.find(columns.id.as_deref(), ID, &at)?;
        let task = row.find(columns.task.as_deref(), TASK, &at)?;
        let example = row.example(columns, &at)?;
        self.binary &= example.value == 0.0 || example.value == 1.0;
        let id = id.unwrap_or_else(|| number.to_string());
        let examples = self.tasks.entry(task.unwrap_or_default()).or_default();
        if examples.contains_key(&id) {
            return Err(MergeError::plan(
                "duplicate-id",
                format!("the example `{id}` stands twice"),
            )
            .at(at())
            .hint("choose the column that names examples: --id COLUMN; several tasks in one file: --task-column COLUMN"));
        }
        examples.insert(id, example);
        Ok(())
    }
}

impl Row {
    /// A cell by the name given, or by the first usual name that the row has.
    fn find(
        &self,
        given: Option<&str>,
        usual: &[&str],
        at: &dyn Fn() -> String,
    ) -> Result<Option<String>> {
        let Some(name) = given else {
            return Ok(usual.iter().find_map(|name| self.cells.get(*name).cloned()));
        };
        match self.cells.get(name) {
            Some(cell) => Ok(Some(cell.clone())),
            None => Err(self.absent(&format!("`{name}`"), at)),
        }
    }

    fn absent(&self, what: &str, at: &dyn Fn() -> String) -> MergeError {
        let there: Vec<&str> = self.cells.keys().map(String::as_str).collect();
        MergeError::plan("missing-column", format!("has no column {what}"))
            .at(at())
            .hint(format!("its columns: {}", there.join(", ")))
    }

    fn example(&self, columns: &Columns, at: &dyn Fn() -> String) -> Result<Example> {
        if let Some(name) = &columns.score {
            let cell = self.find(Some(name), &[], at)?.unwrap_or_default();
            let value = cell.trim().parse().ok().filter(|v: &f64| !v.is_nan());
            let value = value.ok_or_else(|| {
                MergeError::plan(
                    "bad-score",
                    format!("column `{name}`: `{cell}` is no number"),
                )
                .at(at())
                .hint(
                    "a score per example is a number, higher is better; leave rows without one out",
                )
            })?;
            return Ok(Example {
                value,
                texts: None,
                confidence: self.confidence(at)?,
                second: None,
                input: self.find(None, INPUT, at)?,
            });
        }
        let prediction = self
            .find(columns.prediction.as_deref(), PREDICTION, at)?
            .ok_or_else(|| self.absent("of predictions (`prediction`)", at))?;
        let label = self
            .find(columns.label.as_deref(), LABEL, at)?
            .ok_or_else(|| self.absent("of right answers (`target`, `label`)", at))?;
        let right = prediction.trim() == label.trim();
        Ok(Example {
            value: self
                .value
                .filter(|_| columns.prediction.is_none())
                .unwrap_or(f64::from(u8::from(right))),
            texts: Some((prediction, label)),
            confidence: self.confidence(at)?,
            second: self.second(),
            input: self.find(None, INPUT, at)?,
        })
    }

    /// The second of two probabilities.
    fn second(&self) -> Option<f64> {
        let cell = self.cells.get("probabilities")?;
        let list: [f64; 2] = serde_json::from_str(cell).ok()?;
        Some(list[1])
    }

    /// The column of confidences, else the largest of a list of probabilities.
    fn confidence(&self, at: &dyn Fn() -> String) -> Result<Option<f64>> {
        let bad = |what: &str, cell: &str| {
            MergeError::plan("bad-score", format!("{what}: `{cell}` is no probability"))
                .at(at())
                .hint("a probability lies in 0 to 1; leave the cell empty where there is none")
        };
        if let Some(cell) = self
            .find(None, CONFIDENCE, at)?
            .filter(|c| !c.trim().is_empty())
        {
            let value = cell.trim().parse().ok();
            let value = value.filter(|v: &f64| (0.0..=1.0).contains(v));
            return value
                .ok_or_else(|| bad("column `confidence`", &cell))
                .map(Some);
        }
        let Some(cell) = self.cells.get("probabilities") else {
            return Ok(None);
        };
        let Ok(list) = serde_json::from_str::<Vec<f64>>(cell) else {
            return Ok(None);
        };
        let most = list.iter().copied().fold(f64::NAN, f64::max);
        if most.is_nan() {
            return Ok(None);
        }
        if !(0.0..=1.0).contains(&most) {
            return Err(bad("column `probabilities`", cell));
        }
        Ok(Some(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8], columns: &Columns) -> Result<Predictions> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        Predictions::read(&path, columns)
    }

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let csv = read(
            "a.csv",
            b"\xef\xbb\xbfid,target,prediction\nx,yes,yes\ny,no, yes \n",
            &Columns::default(),
        )
        .unwrap();
        let jsonl = read(
            "a.jsonl",
            b"{\"id\": \"x\", \"target\": \"yes\", \"prediction\": \"yes\"}\n\n{\"id\": \"y\", \"target\": \"no\", \"prediction\": \" yes \"}\n",
            &Columns::default(),
        )
        .unwrap();
        assert_eq!(csv.tasks, jsonl.tasks);
        let values: Vec<f64> = csv.tasks[""].values().map(|e| e.value).collect();
        assert_eq!(values, [1.0, 0.0]);
        assert!(csv.binary);
    }

    #[test]
    fn samples_of_lm_eval_are_read() {
        let rows = "{\"doc_id\": 0, \"target\": \"1\", \"filtered_resps\": [[-2, false], [-1, true]], \"acc\": 1.0, \"acc_norm\": 0.0}\n{\"doc_id\": 1, \"target\": \"1\", \"filtered_resps\": [[-1, false], [-2, true]], \"acc\": 0.0, \"acc_norm\": 0.0}\n";
        let name = "samples_arc_2026-05-01T10-11-12.345.jsonl";
        let p = read(name, rows.as_bytes(), &Columns::default()).unwrap();
        let values: Vec<f64> = p.tasks["arc"].values().map(|e| e.value).collect();
        assert_eq!((values, p.binary), (vec![1.0, 0.0], true));
        let norm = Columns {
            score: Some("acc_norm".into()),
            ..Columns::default()
        };
        let p = read(name, rows.as_bytes(), &norm).unwrap();
        assert_eq!(p.tasks["arc"]["0"].value, 0.0);
    }

    #[test]
    fn without_ids_the_row_counts() {
        let p = read(
            "a.tsv",
            b"y_true\ty_pred\n1\t1\n0\t1\n",
            &Columns::default(),
        )
        .unwrap();
        assert_eq!(p.tasks[""].keys().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn bad_files_say_where() {
        let score = Columns {
            score: Some("f1".into()),
            ..Columns::default()
        };
        for (name, content, columns, want) in [
            (
                "a.csv",
                &b"id,pred\n1,2\n"[..],
                Columns::default(),
                "missing-column",
            ),
            ("a.csv", b"id,f1\n1,NaN\n", score.clone(), "bad-score"),
            (
                "a.csv",
                b"id,f1\n1,0.5\n1,0.5\n",
                score.clone(),
                "duplicate-id",
            ),
            ("a.csv", b"id,f1\n1,0.5,3\n", score.clone(), "bad-row"),
            ("a.csv", b"id,f1\n1,\xff\n", score.clone(), "bad-row"),
            ("a.jsonl", b"[1]\n", score.clone(), "bad-row"),
            ("a.jsonl", b"\xff\n", score.clone(), "bad-row"),
            ("a.csv", b"id,f1\n", score.clone(), "empty"),
            ("a.xlsx", b"", score, "unknown-format"),
        ] {
            let error = read(name, content, &columns).unwrap_err();
            assert_eq!(error.code(), want, "{error}");
        }
    }
}
