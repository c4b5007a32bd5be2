//! A task of a run, before its rows are read.

use std::path::PathBuf;
use std::sync::Arc;

use polyloom::tasks::data::Limits;
use polyloom::tasks::load::{Loader, Parts};
use polyloom::tasks::spec::TaskSpec;

/// A task that is to be learned.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its spec.
    pub spec: TaskSpec,
    /// Folder of its data.
    pub folder: PathBuf,
    /// Hash of spec and data.
    pub hash: String,
    /// Parts of its splits, which stand in their place: none but for folds.
    pub parts: Arc<Parts>,
}

impl Given {
    /// The task's loader.
    #[must_use]
    pub fn loader(&self) -> Loader<'_> {
        let loader = Loader::new(&self.spec, self.folder.clone(), Limits::default());
        loader.with_parts(self.parts.clone())
    }

    /// What its targets count in its loss: `targets[].weight`, 1 for a task without targets.
    #[must_use]
    pub fn target_weights(&self) -> Vec<f64> {
        match &self.spec.targets[..] {
            [] => vec![1.0],
            targets => targets.iter().map(|t| t.weight).collect(),
        }
    }
}
