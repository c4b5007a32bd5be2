//! The plan: all headers read, every tensor of the output known with its inputs and numbers, nothing written yet.
//!
//! Everything that can be seen in headers is reported here, up to ten problems at once.

mod build;
mod companions;
pub mod execute;
pub mod names;
pub mod provenance;
pub mod reference;
mod settings;
pub mod statistics;
pub mod weights;

use std::sync::Arc;

use polyloom_core::writer::OutTensor;

use crate::error::{MergeError, Result};
use crate::merge::method::{Method, Scope, TensorJob};
use crate::recipe::Recipe;

pub use build::build;
pub use weights::{Entry, Opened, Weights};

/// How an output tensor comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By the method: group and index in it.
    Merge(usize, usize),
    /// The stored bytes of one model, unchanged.
    Copy(Input),
    /// Integers and booleans: bytes of the first, which all others must equal.
    Equal(Vec<Input>),
}

/// One input of one output tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Index into [`Plan::models`].
    pub model: usize,
    /// Name in that model.
    pub name: String,
    /// Vocabulary rows are re-ordered by [`Plan::vocabulary`] (this model's list).
    pub by_token: bool,
}

/// An output tensor.
#[derive(Debug, Clone)]
pub struct Output {
    /// What is written.
    pub tensor: OutTensor,
    /// From what.
    pub how: How,
}

/// Tensors merged by one kernel recipe over the same inputs.
pub struct Group {
    /// Models of the experts, in order.
    pub experts: Vec<usize>,
    /// Model of the base.
    pub base: Option<usize>,
    /// Members: output index, job, base input, inputs.
    pub members: Vec<Member>,
    /// Composition of the kernel.
    pub composition: crate::merge::compose::Composition,
}

/// One tensor of a group.
#[derive(Debug, Clone)]
pub struct Member {
    /// Index into [`Plan::outputs`].
    pub output: usize,
    /// What the kernel sees.
    pub job: Arc<TensorJob>,
    /// The base's tensor.
    pub base: Option<Input>,
    /// One per expert; `None`: the expert lacks it and counts as unchanged (`missing = "base"`).
    pub inputs: Vec<Option<Input>>,
}

/// A head kept apart.
#[derive(Debug, Clone)]
pub struct Head {
    /// Task: names the file.
    pub task: String,
    /// The expert.
    pub model: usize,
    /// (name in the file, name in the model).
    pub tensors: Vec<(String, String)>,
}

/// A remark to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Something was changed for the user (an error under `--strict`).
    pub warning: bool,
    /// The remark.
    pub text: String,
}

/// A merge that can run.
pub struct Plan {
    /// The recipe.
    pub recipe: Recipe,
    /// Its method.
    pub method: &'static dyn Method,
    /// The models, opened.
    pub models: Vec<Opened>,
    /// Output tensors, in output order.
    pub outputs: Vec<Output>,
    /// Groups of merged tensors.
    pub groups: Vec<Group>,
    /// Heads kept apart.
    pub heads: Vec<Head>,
    /// Token rows of vocabulary tensors.
    pub vocabulary: Option<crate::vocab::VocabPlan>,
    /// Rows of truncated vocabulary tensors.
    pub truncated: Option<usize>,
    /// Number of layers of the output, if slices changed it, with the source layer of each.
    pub stacked: Option<Vec<usize>>,
    /// The model whose config.json and tokenizer files are taken.
    pub template: usize,
    /// Remarks.
    pub notes: Vec<Note>,
}

impl Plan {
    /// Bytes read once from all inputs.
    pub fn bytes_read(&self) -> u64 {
        let bytes = |input: &Input| {
            self.models[input.model].get(&input.name).map_or(0, |e| {
                e.dtype.bytes_of(e.shape.iter().product()).unwrap_or(0)
            })
        };
        let merged: u64 = self
            .groups
            .iter()
            .flat_map(|g| &g.members)
            .flat_map(|m| m.base.iter().chain(m.inputs.iter().flatten()))
            .map(bytes)
            .sum();
        let copied: u64 = self
            .outputs
            .iter()
            .map(|o| match &o.how {
                How::Merge(..) => 0,
                How::Copy(input) => bytes(input),
                How::Equal(inputs) => inputs.iter().map(bytes).sum(),
            })
            .sum();
        merged + copied
    }

    /// Bytes of tensors that will be written.
    pub fn bytes_written(&self) -> u64 {
        self.outputs.iter().map(|o| o.tensor.bytes()).sum()
    }

    /// Passes over the data: 1 without a survey.
    pub fn passes(&self) -> usize {
        self.groups.iter().map(|g| crate::merge::compose::passes(&g.composition)).max().unwrap_or(1)
    }

    /// An upper estimate of the memory a run needs with `threads` threads, in bytes.
    pub fn peak_bytes(&self, threads: usize) -> u64 {
        let chunk = 1u64 << 18;
        let widest = self.groups.iter().map(|g| g.experts.len() as u64 + 3).max().unwrap_or(1);
        let rows = self.groups.iter().flat_map(|g| &g.members).map(|m| m.job.last_axis() as u64).max().unwrap_or(0);
        let whole = self
            .groups
            .iter()
            .filter(|g| crate::merge::compose::whole_tensors(&g.composition))
            .flat_map(|g| g.members.iter().map(|m| m.job.elements() as u64 * (g.experts.len() as u64 + 4) * 4))
            .max()
            .unwrap_or(0);
        let model = if self.groups.iter().any(|g| crate::merge::compose::scope_of(&g.composition) == Scope::Model) { 64 << 20 } else { 0 };
        threads as u64 * widest * chunk.max(rows) * 4 + 2 * whole + model + (24 << 20)
    }

    /// Turns warnings into an error.
    ///
    /// # Errors
    /// The warnings, if there are any.
    pub fn check_strict(&self) -> Result<()> {
        match self.notes.iter().find(|n| n.warning) {
            None => Ok(()),
            Some(note) => Err(MergeError::plan("strict", format!("{} (an error under --strict)", note.text))),
        }
    }
}
