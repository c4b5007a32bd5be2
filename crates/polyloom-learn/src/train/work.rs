//! The folder of work beside an output: checkpoint and log of a run, one run at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use polyloom::MergeError;

use super::state::STATE;
use crate::error::{Error, Result};

/// What a run does with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct There {
    /// Goes on from the checkpoint of an interrupted run.
    pub resume: bool,
    /// Replaces the output, drops a checkpoint.
    pub force: bool,
}

/// The folder, held by this process.
#[derive(Debug)]
pub(crate) struct Work {
    folder: PathBuf,
    lock: File,
}

impl Work {
    /// The folder of a run that writes `out`: `out` with `.ending`.
    pub fn place(out: &Path, ending: &str) -> PathBuf {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(ending);
        out.with_file_name(name)
    }

    /// Takes the folder; `None` where the run is done already and `resume` asks for no more. `step` reads how far a checkpoint
    /// is, for the message.
    ///
    /// # Errors
    /// An output that is there, a run that was interrupted (without `resume` or `force`), another process at the same run.
    pub fn begin(
        out: &Path,
        ending: &str,
        there: There,
        step: impl FnOnce(&Path) -> u32,
    ) -> Result<Option<Self>> {
        let folder = Self::place(out, ending);
        let state = folder.join(STATE);
        let begun = state.exists();
        if out.exists() && !there.force {
            if there.resume && !begun {
                return Ok(None);
            }
            return Err(Error::file(out, "exists already")
                .hint("choose another name or pass --force to replace it"));
        }
        fs::create_dir_all(&folder).map_err(|e| polyloom_core::Error::io(&folder, "create", e))?;
        let lock = folder.join(".lock");
        let lock = File::create(&lock).map_err(|e| polyloom_core::Error::io(&lock, "create", e))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::file(out, "is being made by another run")
                .hint("wait for it to end, or choose another name"));
        }
        if begun && !there.resume {
            if !there.force {
                let step = step(&folder);
                let what = format!(
                    "holds a run that was interrupted; its checkpoint is that of step {step}"
                );
                return Err(MergeError::plan("interrupted", what)
                    .at(folder.display().to_string())
                    .hint("--resume goes on with it, --force begins again")
                    .into());
            }
            fs::remove_file(&state).map_err(|e| polyloom_core::Error::io(&state, "remove", e))?;
        }
        Ok(Some(Self { folder, lock }))
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a run came to: the folder goes where it is done, and where it failed before a checkpoint.
    ///
    /// # Errors
    /// That of the run; a folder that cannot be removed.
    pub fn end<T>(self, done: Result<T>) -> Result<T> {
        let Self { folder, lock } = self;
        drop(lock);
        match done {
            Ok(done) => {
                let io = |e| polyloom_core::Error::io(&folder, "remove", e);
                fs::remove_dir_all(&folder).map_err(io)?;
                Ok(done)
            }
            Err(error) => {
                // Without a checkpoint there is nothing to go on from.
                if !folder.join(STATE).exists() {
                    let _ = fs::remove_dir_all(&folder);
                }
                Err(error)
            }
        }
    }
}
