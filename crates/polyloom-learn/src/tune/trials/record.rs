//! What was tried, on disk: `trials.jsonl`, a line per trial.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use polyloom_core::hash::sha256_text;
use serde_json::{Map, Value, json};

use super::{Study, Values};
use crate::error::{Error, Result};

/// Name of the list.
const TRIALS: &str = "trials.jsonl";

/// A point that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its number, from 0: the recipe as it stands.
    pub number: usize,
    /// What the keys were set to; none for the recipe as it stands.
    pub values: Values,
    /// Share of the rows that it was scored on.
    pub share: f64,
    /// Its results file, in the folder of the trials.
    pub file: Option<String>,
    /// Why the recipe does not take these values.
    pub refused: Option<String>,
}

/// Trials of this run, and those of an earlier one of the same study.
pub(super) struct Record {
    folder: PathBuf,
    pub(super) trials: Vec<Trial>,
    before: Vec<Trial>,
    lines: std::fs::File,
}

impl Record {
    /// Opens the folder. Without `resume` it must not hold trials.
    ///
    /// # Errors
    /// Trials that are there without `resume`, or of another study.
    pub(super) fn open(folder: &Path, study: &Study<'_>, resume: bool) -> Result<Self> {
        let io = |e| polyloom_core::Error::io(folder, "write", e);
        let path = folder.join(TRIALS);
        let hash = study.hash();
        let mut before = Vec::new();
        if path.exists() && !resume {
            return Err(Error::file(&path, "holds the trials of an earlier search")
                .hint("--resume goes on with them, --force begins anew"));
        }
        if path.exists() {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| polyloom_core::Error::io(&path, "read", e))?;
            let mut lines = text.lines();
            let head: Value =
                serde_json::from_str(lines.next().unwrap_or_default()).unwrap_or_default();
            if head["study"] != *hash {
                return Err(Error::file(
                    &path,
                    "holds trials of another recipe, of other tasks or of other rows",
                )
                .hint("choose another output, or pass --force to begin anew"));
            }
            // The last line may have been cut off.
            before = lines.map_while(read).collect();
        }
        std::fs::create_dir_all(folder).map_err(io)?;
        let mut lines = std::fs::File::create(folder.join("trials.jsonl.part")).map_err(io)?;
        writeln!(lines, "{}", json!({"study": hash})).map_err(io)?;
        let mut record = Self {
            folder: folder.to_owned(),
            trials: Vec::new(),
            before,
            lines,
        };
        for trial in record.before.clone() {
            record.line(&trial)?;
        }
        std::fs::rename(folder.join("trials.jsonl.part"), &path).map_err(io)?;
        Ok(record)
    }

    /// A file of the folder.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same values on the same rows, tried before; its results must be there.
    pub(super) fn held(&self, values: &Values, share: f64) -> Option<Trial> {
        let same = |t: &&Trial| t.values == *values && t.share.to_bits() == share.to_bits();
        let there = |t: &Trial| match &t.file {
            Some(file) => self.place(file).exists(),
            None => true,
        };
        self.before.iter().find(same).filter(|t| there(t)).cloned()
    }

    /// Takes a trial in; what was found on disk gets the number that it has in this run, its file stays.
    pub(super) fn add(&mut self, mut trial: Trial, number: usize, found: bool) -> Result<Trial> {
        trial.number = number;
        if !found {
            self.line(&trial)?;
        }
        self.trials.push(trial.clone());
        Ok(trial)
    }

    fn line(&mut self, trial: &Trial) -> Result<()> {
        let values: Map<String, Value> = trial
            .values
            .iter()
            .map(|(k, v)| (k.clone(), v.clone().into()))
            .collect();
        let line = json!({
            "trial": trial.number,
            "values": values,
            "share": trial.share,
            "file": trial.file,
            "refused": trial.refused,
        });
        let place = self.folder.join(TRIALS);
        writeln!(self.lines, "{line}")
            .and_then(|()| self.lines.flush())
            .map_err(|e| polyloom_core::Error::io(&place, "write", e).into())
    }
}

fn read(line: &str) -> Option<Trial> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let pair = |(k, v): (&String, &Value)| Some((k.clone(), text(v)?));
    Some(Trial {
        number: value["trial"].as_u64()? as usize,
        values: value["values"]
            .as_object()?
            .iter()
            .map(pair)
            .collect::<Option<_>>()?,
        share: value["share"].as_f64()?,
        file: text(&value["file"]),
        refused: text(&value["refused"]),
    })
}

impl Study<'_> {
    /// What results of a trial depend on beside its values.
    fn hash(&self) -> String {
        let tasks: Vec<[&str; 2]> = self.tasks.iter().map(|t| [&*t.spec.id, &*t.hash]).collect();
        let about = json!([
            env!("CARGO_PKG_VERSION"),
            self.recipe,
            tasks,
            self.split,
            self.limit,
            self.heads,
            self.preprocessor,
            self.max_length,
        ]);
        sha256_text(&about.to_string())
    }
}
