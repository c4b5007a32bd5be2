//! A fold that is done, on disk: what a run that goes on finds.

use std::fs::File;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A metric of a target on a fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Score {
    pub name: String,
    pub task: String,
    pub metric: String,
    pub primary: bool,
    pub higher_is_better: bool,
    pub value: Option<f64>,
    pub reason: Option<String>,
}

/// What a model said of the rows that it did not see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Said {
    pub columns: Vec<String>,
    /// Number of every row among those of all folds, and its answers.
    pub rows: Vec<(usize, Map<String, Value>)>,
}

/// A fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub key: String,
    pub repeat: usize,
    pub fold: usize,
    pub scores: Vec<Score>,
    pub said: IndexMap<String, Said>,
}

/// The folder of folds, held by this process.
#[derive(Debug)]
pub(super) struct Work {
    pub folder: PathBuf,
    lock: File,
}

impl Work {
    /// Takes the folder below that of the scores.
    pub fn begin(place: &Path) -> Result<Self> {
        let folder = place.join("work");
        let io = |what, e| polyloom_core::Error::io(&folder, what, e);
        std::fs::create_dir_all(&folder).map_err(|e| io("create", e))?;
        let lock = File::create(folder.join(".lock")).map_err(|e| io("create", e))?;
        if let Err(std::fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::file(place, "is being made by another run")
                .hint("wait for it to end, or choose another name"));
        }
        Ok(Self { folder, lock })
    }

    pub fn file(&self, repeat: usize, fold: usize) -> PathBuf {
        self.folder
            .join(format!("{}-{}.json", repeat + 1, fold + 1))
    }

    /// A fold that is done; `None` where it is not.
    ///
    /// # Errors
    /// One of another recipe or of other rows.
    pub fn read(&self, repeat: usize, fold: usize, key: &str) -> Result<Option<Record>> {
        let file = self.file(repeat, fold);
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&file).map_err(|e| polyloom_core::Error::io(&file, "read", e))?;
        let record: Record = serde_json::from_slice(&text).map_err(|e| {
            Error::file(&file, format!("holds no fold: {e}")).hint("--force begins again")
        })?;
        if record.key != key {
            return Err(
                Error::file(&file, "is a fold of another recipe or of other rows").hint(
                    "--resume with what the folds were begun with, or --force to begin again",
                ),
            );
        }
        Ok(Some(record))
    }

    /// Writes a fold, whole or not at all, and gives it as it is read: a run that was resumed has the same numbers.
    pub fn write(&self, record: &Record) -> Result<Record> {
        let file = self.file(record.repeat, record.fold);
        let part = file.with_extension("part");
        let text = serde_json::to_vec(record)
            .map_err(|e| Error::file(&file, format!("cannot be written: {e}")))?;
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &file))
            .map_err(|e| polyloom_core::Error::io(&file, "write", e))?;
        let gone = || Error::file(&file, "is gone");
        self.read(record.repeat, record.fold, &record.key)?
            .ok_or_else(gone)
    }

    /// The folder goes.
    pub fn end(self) -> Result<()> {
        drop(self.lock);
        std::fs::remove_dir_all(&self.folder)
            .map_err(|e| polyloom_core::Error::io(&self.folder, "remove", e).into())
    }
}
