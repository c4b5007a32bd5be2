//! Running text as vectors of an encoder of texts, which stays as it is.

use std::fmt;
use std::sync::{Arc, OnceLock};

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Widest vectors of an encoder.
pub const MOST: usize = 1 << 16;

/// What makes vectors of texts.
pub trait Encodes: Send + Sync {
    /// Numbers of a vector.
    fn width(&self) -> usize;

    /// A vector for every text, one after the other. Texts are on their own: what stands beside one does not change it by more
    /// than rounding.
    ///
    /// # Errors
    /// What the model refuses.
    fn vectors(&self, texts: &[&str]) -> Result<Vec<f32>>;
}

/// Which encoder a preparation needs, and the encoder itself once it is open. Copies share it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Its folder.
    pub model: String,
    /// Fingerprint of its weights.
    pub fingerprint: String,
    /// Numbers of a vector.
    pub width: usize,
    #[serde(skip)]
    open: Arc<OnceLock<Arc<dyn Encodes>>>,
}

impl Encoder {
    /// Of an open one.
    pub fn new(model: String, fingerprint: String, open: Arc<dyn Encodes>) -> Self {
        Self {
            model,
            fingerprint,
            width: open.width(),
            open: Arc::new(OnceLock::from(open)),
        }
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.get().is_some()
    }

    /// Gives it what makes its vectors, unless it has that.
    pub fn set(&self, open: Arc<dyn Encodes>) {
        // A second thread that opened it at the same time has the same.
        let _ = self.open.set(open);
    }

    /// A vector for every text, one after the other.
    ///
    /// # Errors
    /// One that is not open, and what the model refuses.
    pub(super) fn vectors(&self, texts: &[&str]) -> Result<Vec<f32>> {
        match self.open.get() {
            Some(open) => open.vectors(texts),
            None => Err(MergeError::Internal("the encoder of texts is not open".into()).into()),
        }
    }
}

impl PartialEq for Encoder {
    fn eq(&self, other: &Self) -> bool {
        let of = |e: &Self| (e.model.clone(), e.fingerprint.clone(), e.width);
        of(self) == of(other)
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("model", &self.model)
            .field("fingerprint", &self.fingerprint)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}
