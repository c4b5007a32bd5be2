//! The plan: all headers read, every tensor of the output known with its inputs and numbers, nothing written yet.
//!
//! Everything that can be seen in headers is reported here, up to ten problems at once.

mod build;
pub(crate) mod companions;
mod composition;
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
use crate::merge::method::{Job, Method, Scope, Statistics, TensorJob};
use crate::recipe::Recipe;

pub(crate) use build::capped;
pub use build::{build, open_model};
pub use composition::{Composition, Inner, Step};
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
    pub composition: Composition,
    /// Statistics files of the experts, opened, if the recipe names any.
    pub statistics: Option<Arc<dyn Statistics>>,
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
    /// The job of a whole group.
    pub fn job(&self, group: &Group) -> Job {
        Job {
            tensors: group.members.iter().map(|m| m.job.clone()).collect(),
            experts: group
                .experts
                .iter()
                .map(|e| self.models[*e].model.name.clone())
                .collect(),
            has_base: group.base.is_some(),
            seed: self.recipe.seed,
            statistics: group.statistics.clone(),
            inner_maker: None,
        }
    }

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

    /// Passes over the data: 1 without a survey, at least 2 with one.
    pub fn passes(&self) -> usize {
        let surveys = |g: &Group| -> usize {
            let mut job = self.job(g);
            if g.composition.scope() == Scope::Tensor {
                job.tensors.truncate(1);
            }
            if job.tensors.is_empty() {
                return 1;
            }
            // A kernel that surveys reads its input at least once more; how often can depend on the data.
            g.composition
                .build(&job)
                .map_or(1, |k| 1 + usize::from(k.surveys()))
        };
        self.groups.iter().map(surveys).max().unwrap_or(1)
    }

    /// An upper estimate of the memory a run needs with `threads` threads, in bytes.
    pub fn peak_bytes(&self, threads: usize) -> u64 {
        let chunk = 1u64 << 18;
        let widest = self
            .groups
            .iter()
            .map(|g| {
                let steps =
                    g.composition.pre.len() + g.composition.on.as_ref().map_or(0, |i| i.pre.len());
                (1 + steps) as u64 * g.experts.len() as u64 + 3
            })
            .max()
            .unwrap_or(1);
        let rows = self
            .groups
            .iter()
            .flat_map(|g| &g.members)
            .map(|m| m.job.last_axis() as u64)
            .max()
            .unwrap_or(0);
        // What decompositions hold, for two tensors at once.
        let held = |g: &Group, shape: &[usize]| {
            let (rows, cols) = (shape[0] as u64, shape[1] as u64);
            let (elements, short, n) = (rows * cols, rows.min(cols), g.experts.len() as u64);
            let inputs = elements * (n + 2) * 4;
            match g.composition.method {
                // Read in blocks, unless a step before needs whole tensors; then the full decomposition, if it comes to
                // that.
                "iso_c" | "iso_cts" | "tsv_m" => {
                    let steps = !g.composition.pre.is_empty();
                    elements * 40 + short * short * 80 + if steps { inputs } else { 0 }
                }
                "wudi" => elements * ((n + 1) * 4 + 48) + cols * cols * 16,
                "regmean" => elements * ((n + 1) * 4 + 32) + cols * cols * 28,
                "knots" => elements * (n * 32 + 16),
                _ => inputs + elements * 8,
            }
        };
        let whole = self
            .groups
            .iter()
            .filter(|g| g.composition.whole_tensors())
            .flat_map(|g| {
                let matrices = g.members.iter().filter(|m| m.job.shape.len() == 2);
                matrices.map(|m| held(g, &m.job.shape))
            })
            .max()
            .unwrap_or(0);
        let model = if self
            .groups
            .iter()
            .any(|g| g.composition.scope() == Scope::Model)
        {
            64 << 20
        } else {
            0
        };
        threads as u64 * widest * chunk.max(rows) * 4 + 2 * whole + model + (24 << 20)
    }

    /// A value with where it came from, for the plan's text: `0.2 (flag)`.
    pub fn origin_of(&self, name: &str, value: &serde_json::Value) -> String {
        let recipe = &self.recipe;
        let module = &recipe.modules[0];
        let slice = &module.slices[0];
        let scopes = slice
            .sources
            .first()
            .map(|s| &s.settings)
            .into_iter()
            .chain([&slice.settings, &module.settings, &recipe.settings]);
        let origin = scopes
            .filter_map(|s| s.get(name))
            .map(|(_, o)| o.text.clone())
            .next();
        let shown = match value {
            serde_json::Value::Object(_) => "by tensor".to_owned(),
            other => other.to_string(),
        };
        format!(
            "{shown} ({})",
            origin
                .filter(|o| !o.is_empty())
                .unwrap_or_else(|| "default".into())
        )
    }

    /// Turns warnings into an error.
    ///
    /// # Errors
    /// The warnings, if there are any.
    pub fn check_strict(&self) -> Result<()> {
        match self.notes.iter().find(|n| n.warning) {
            None => Ok(()),
            Some(note) => Err(MergeError::plan(
                "strict",
                format!("{} (an error under --strict)", note.text),
            )),
        }
    }
}
