//! The library's error: the file, the thing in it, the fix.

/// What went wrong while planning or running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A file could not be read or written.
    #[error(transparent)]
    Core(#[from] polyloom_core::Error),
    /// The recipe asks for something that cannot be done; found before a byte is written.
    #[error("{}{message}", place.as_ref().map(|p| format!("{p}: ")).unwrap_or_default())]
    Plan {
        /// A stable word for programs, such as `shape-mismatch`.
        code: &'static str,
        /// File, or file:line:column, if the problem has one.
        place: Option<String>,
        /// What is wrong, with the tensor, key or task.
        message: String,
        /// Fixes, best first.
        hints: Vec<String>,
    },
    /// A value that cannot be merged was met while streaming.
    #[error("{file}: tensor `{tensor}`: {what} at element {index}")]
    NonFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// `NaN` or `infinity`.
        what: &'static str,
        /// Row-major index of the first such element.
        index: usize,
    },
    /// A bug in Polyloom.
    #[error("internal error: {0}")]
    Internal(String),
}

impl MergeError {
    /// A problem of the recipe.
    pub fn plan(code: &'static str, message: impl Into<String>) -> Self {
        Self::Plan {
            code,
            place: None,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// Says where the problem is.
    #[must_use]
    pub fn at(mut self, where_: impl Into<String>) -> Self {
        if let Self::Plan { place, .. } = &mut self {
            *place = Some(where_.into());
        }
        self
    }

    /// Adds a fix.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Plan { hints, .. } = &mut self {
            hints.push(text.into());
        }
        self
    }

    /// All fixes.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Plan { hints, .. } => hints.clone(),
            Self::Core(e) => e.hint().map(str::to_owned).into_iter().collect(),
            Self::NonFinite { .. } => {
                vec!["the file is damaged or its training diverged; --allow-nonfinite merges it all the same".into()]
            }
            Self::Internal(_) => Vec::new(),
        }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan { code, .. } => code,
            Self::Core(e) => e.code(),
            Self::NonFinite { .. } => "nonfinite",
            Self::Internal(_) => "internal",
        }
    }
}

/// Result of this crate.
pub type Result<T, E = MergeError> = std::result::Result<T, E>;
