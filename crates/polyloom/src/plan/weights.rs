//! An opened model: its tensors under the names the merge uses, wherever and however they are stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use polyloom_core::checkpoint::Scratch;
use polyloom_core::peft::{AdapterFolder, Folded};
use polyloom_core::{Checkpoint, DType};

use super::names::Blocks;
use crate::error::Result;
use crate::recipe;

/// Tensors that can be read by ranges: a checkpoint, or a base with an adapter folded in.
#[derive(Debug, Clone)]
pub enum Weights {
    /// A checkpoint as it is.
    Plain(Arc<Checkpoint>),
    /// A base with an adapter folded in on reading.
    Folded(Arc<Folded>),
}

impl Weights {
    fn list(&self) -> Vec<(String, DType, Vec<usize>)> {
        match self {
            Self::Plain(c) => c
                .tensors()
                .values()
                .map(|t| (t.name.clone(), t.dtype, t.shape.clone()))
                .collect(),
            Self::Folded(f) => f.tensors(),
        }
    }

    /// The checkpoint under it.
    pub fn checkpoint(&self) -> &Checkpoint {
        match self {
            Self::Plain(c) => c,
            Self::Folded(f) => f.base(),
        }
    }
}

/// One model of a recipe, opened: headers read, names mapped.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its entry in the recipe.
    pub model: recipe::Model,
    /// Where it was found.
    pub path: PathBuf,
    /// Where its adapter was found.
    pub adapter: Option<PathBuf>,
    /// Its tensors.
    pub weights: Weights,
    /// Name in the merge -> (stored name, type, shape), in file order.
    pub tensors: IndexMap<String, Entry>,
    /// Its block lists.
    pub blocks: Blocks,
    /// What was odd about it, for the user.
    pub warnings: Vec<String>,
}

/// A tensor of an opened model.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name in the file.
    pub stored: String,
    /// Stored type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
}

impl Opened {
    /// Maps the names of `weights` by the model's prefix rules.
    pub fn new(
        model: recipe::Model,
        path: PathBuf,
        adapter: Option<PathBuf>,
        weights: Weights,
    ) -> Self {
        let mut tensors = IndexMap::new();
        for (stored, dtype, shape) in weights.list() {
            let mut name = stored.as_str();
            if let Some(prefix) = &model.strip_prefix {
                name = name.strip_prefix(prefix.as_str()).unwrap_or(name);
            }
            let name = match &model.add_prefix {
                Some(prefix) => format!("{prefix}{name}"),
                None => name.to_owned(),
            };
            tensors.insert(
                name,
                Entry {
                    stored,
                    dtype,
                    shape,
                },
            );
        }
        let blocks = Blocks::find(tensors.keys().map(String::as_str));
        Self {
            model,
            path,
            adapter,
            weights,
            tensors,
            blocks,
            warnings: Vec::new(),
        }
    }

    /// A tensor by its name in the merge.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name)
    }

    /// `config.json`.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.weights.checkpoint().config()
    }

    /// The folder the model lies in.
    pub fn folder(&self) -> &Path {
        if self.path.is_dir() {
            &self.path
        } else {
            self.path.parent().unwrap_or(&self.path)
        }
    }

    /// The file a tensor lies in, for messages.
    pub fn file_of(&self, name: &str) -> String {
        let checkpoint = self.weights.checkpoint();
        self.get(name)
            .and_then(|e| checkpoint.get(&e.stored))
            .map_or_else(
                || self.path.display().to_string(),
                |t| checkpoint.path_of(t).display().to_string(),
            )
    }

    /// Reads elements from `start` on of a tensor (by its name in the merge). `true` says that all values are known to
    /// be finite; `false` says nothing.
    pub fn read(
        &self,
        name: &str,
        start: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| crate::MergeError::Internal(format!("read of unplanned `{name}`")))?;
        match &self.weights {
            Weights::Plain(c) => {
                let tensor = c
                    .get(&entry.stored)
                    .ok_or_else(|| crate::MergeError::Internal(format!("no `{}`", entry.stored)))?;
                Ok(c.read_f32(tensor, start..start + out.len(), out, scratch)?)
            }
            Weights::Folded(f) => {
                f.read_f32(&entry.stored, start..start + out.len(), out, scratch)?;
                Ok(false)
            }
        }
    }

    /// As [`Checkpoint::read_less`].
    pub fn read_less(
        &self,
        name: &str,
        start: usize,
        minus: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        match (&self.weights, self.get(name)) {
            (Weights::Plain(c), Some(entry)) => match c.get(&entry.stored) {
                Some(tensor) => Ok(c.read_less(tensor, start, minus, out, scratch)?),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// Reads stored bytes of a tensor without conversion.
    pub fn read_bytes(&self, name: &str, start: u64, out: &mut [u8]) -> Result<()> {
        let checkpoint = self.weights.checkpoint();
        let stored = self.get(name).and_then(|e| checkpoint.get(&e.stored));
        let tensor = stored
            .ok_or_else(|| crate::MergeError::Internal(format!("read of unplanned `{name}`")))?;
        Ok(checkpoint.read_bytes(tensor, start..start + out.len() as u64, out)?)
    }
}

impl Weights {
    /// A base with an adapter folder folded in on reading; the second value is what was odd about it.
    ///
    /// # Errors
    /// The adapter does not fit the base.
    pub fn folded(base: Arc<Checkpoint>, adapter: &Path) -> Result<(Self, Vec<String>)> {
        let folded = Folded::open(base, AdapterFolder::open(adapter)?)?;
        let warnings = folded.warnings().to_vec();
        Ok((Self::Folded(Arc::new(folded)), warnings))
    }

    /// True if the stored bytes of a tensor are its values: it can be copied without reading them as numbers.
    pub fn is_stored(&self, name: &str) -> bool {
        let contiguous = |c: &Checkpoint| {
            c.get(name).is_some_and(|t| {
                t.scale.is_none()
                    && matches!(t.layout, polyloom_core::checkpoint::Layout::Contiguous)
            })
        };
        match self {
            Self::Plain(c) => contiguous(c),
            Self::Folded(f) => !f.touched(name) && contiguous(f.base()),
        }
    }

    /// All files that are read.
    pub fn files(&self) -> Vec<&polyloom_core::checkpoint::OpenFile> {
        let mut files: Vec<_> = self.checkpoint().files().iter().collect();
        if let Self::Folded(f) = self {
            files.extend(f.adapter().tensors.files());
        }
        files
    }
}
