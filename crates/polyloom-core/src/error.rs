//! The error of everything that touches files. Every variant names the file, the thing in it and, where one is
//! known, the fix.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::writer::human;

/// What went wrong while reading or writing tensors on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb ("read", "create").
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// There is no room for a file: the disk, a quota or a limit of the process ends it.
    #[error("{}: cannot {action}: {source}{}", path.display(), free.map(|b| format!("; {} are free", human(b))).unwrap_or_default())]
    Full {
        /// The file that was being written, by its final name.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
        /// Free bytes of its file system, where they are known.
        free: Option<u64>,
    },
    /// A file is not what its format demands.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the tensor, key or byte.
        problem: String,
        /// How to mend it.
        hint: Option<String>,
    },
    /// One tensor of a file cannot be used.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
        /// How to mend it.
        hint: Option<String>,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_owned(),
            action,
            source,
        }
    }

    /// A failed write: an [`Error::Full`] where room was the problem, else an [`Error::Io`]. `near` is a path on the same
    /// file system that exists, for the free space.
    pub fn write(
        path: impl AsRef<Path>,
        action: &'static str,
        source: std::io::Error,
        near: &Path,
    ) -> Self {
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full {
                    path: path.as_ref().to_owned(),
                    action,
                    source,
                    free: crate::writer::free_space(near),
                }
            }
            _ => Self::io(path, action, source),
        }
    }

    /// An [`Error::Format`] without a hint.
    pub fn format(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.as_ref().to_owned(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// An [`Error::Tensor`] without a hint.
    pub fn tensor(
        path: impl AsRef<Path>,
        tensor: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Tensor {
            path: path.as_ref().to_owned(),
            tensor: tensor.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// Adds the fix to a [`Error::Format`] or [`Error::Tensor`]; other variants stay as they are.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Format { hint, .. } | Self::Tensor { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The fix, where one is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Format { hint, .. } | Self::Tensor { hint, .. } => hint.as_deref(),
            Self::Full { source, .. } if source.kind() == ErrorKind::FileTooLarge => Some(
                "files of this size are not allowed here (ulimit -f, or the file system); choose a smaller --shard-size",
            ),
            Self::Full { .. } => {
                Some("free some space or write to another disk; nothing was left behind")
            }
            _ => None,
        }
    }

    /// A stable word for programs (`"code"` in JSON events).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "disk-full",
            Self::Io { .. } => "io",
            Self::Format { .. } => "bad-file",
            Self::Tensor { .. } => "bad-tensor",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What is wrong with bytes that a parser saw without knowing their file; [`Problem::into_error`] adds the file.
#[derive(Debug)]
pub struct Problem {
    /// The tensor, if the problem is one tensor's.
    pub tensor: Option<String>,
    /// What is wrong.
    pub text: String,
    /// The fix.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of the whole file.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            tensor: None,
            text: text.into(),
            hint: None,
        }
    }

    /// A problem of one tensor.
    pub fn of(tensor: &str, text: impl Into<String>) -> Self {
        Self {
            tensor: Some(tensor.to_owned()),
            ..Self::new(text)
        }
    }

    /// Adds the fix.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error about `path`.
    pub fn into_error(self, path: &Path) -> Error {
        let error = match self.tensor {
            Some(tensor) => Error::tensor(path, tensor, self.text),
            None => Error::format(path, self.text),
        };
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
