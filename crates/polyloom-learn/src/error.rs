//! What can go wrong.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes or types that do not fit an operation.
    #[error("{op}: {problem}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        problem: String,
    },
    /// A weight that a model needs.
    #[error("no tensor `{name}`")]
    Missing {
        /// Its name in the checkpoint.
        name: String,
    },
    /// A configuration that an architecture does not have.
    #[error("config.json: {what}")]
    Config {
        /// What is wrong.
        what: String,
    },
    /// More tokens than a model has positions for.
    #[error("{tokens} tokens; the model takes at most {most}")]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Positions of the model.
        most: usize,
    },
    /// A pass that ended on purpose: what was wanted of it is seen.
    #[error("the pass was ended")]
    Ended,
    /// A file that is not what a model needs.
    #[error("{}: {what}{}", file.display(), hint.map(|h| format!("\n  hint: {h}")).unwrap_or_default())]
    File {
        /// The file or folder.
        file: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// What reading a checkpoint says.
    #[error(transparent)]
    Core(#[from] polyloom_core::Error),
    /// What tasks, predictions and scores say.
    #[error(transparent)]
    Merge(#[from] polyloom::MergeError),
    /// What candle says, and of which operation.
    #[error("{op}: {source}")]
    Tensor {
        /// The operation.
        op: &'static str,
        /// Candle's error.
        source: candle_core::Error,
    },
}

impl Error {
    pub(crate) fn file(file: &Path, what: impl Into<String>) -> Self {
        Self::File {
            file: file.to_owned(),
            what: what.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: &'static str) -> Self {
        match self {
            Self::File { file, what, .. } => Self::File {
                file,
                what,
                hint: Some(hint),
            },
            other => other,
        }
    }

    pub(crate) fn shape(op: &'static str, problem: impl Into<String>) -> Self {
        Self::Shape {
            op,
            problem: problem.into(),
        }
    }
}

/// Says which operation an error of candle belongs to.
pub(crate) trait In<T> {
    fn during(self, op: &'static str) -> Result<T>;
}

impl<T> In<T> for candle_core::Result<T> {
    fn during(self, op: &'static str) -> Result<T> {
        self.map_err(|source| Error::Tensor { op, source })
    }
}
