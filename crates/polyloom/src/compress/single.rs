//! Bundles in which every task has a delta of its own.

use std::collections::BTreeMap;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::writer::{FolderOptions, OutTensor, OutputFolder};
use polyloom_core::{DType, dtype};

use super::bundle::{self, Accounting, Extra};
use super::delta::{self, Stored};
use super::mask::Coding;
use crate::error::{MergeError, Result};
use crate::plan::execute::{Report, RunOptions};
use crate::plan::{How, Input, Opened, Plan};

/// Experts and their base, tensor by tensor, as a plan matched them. Any method that works on task vectors can have made
/// the plan.
pub struct Deltas<'p> {
    plan: &'p Plan,
    base: usize,
    /// Group and member of every changed tensor, in the order of the outputs.
    places: Vec<(usize, usize)>,
}

impl<'p> Deltas<'p> {
    /// Of a plan.
    ///
    /// # Errors
    /// What cannot be restored from the base: tensors that only experts have, another vocabulary, other layers, post-steps.
    pub fn new(plan: &'p Plan) -> Result<Self> {
        let base = bundle::restorable(plan)?;
        let places = plan.outputs.iter().filter_map(|o| match o.how {
            How::Merge(group, member) => Some((group, member)),
            _ => None,
        });
        Ok(Self {
            plan,
            base,
            places: places.collect(),
        })
    }

    /// Tensors that experts may have changed, in the order of the bundle.
    #[must_use]
    pub fn tensors(&self) -> Vec<&'p OutTensor> {
        let of = |(g, m): &(usize, usize)| {
            &self.plan.outputs[self.plan.groups[*g].members[*m].output].tensor
        };
        self.places.iter().map(of).collect()
    }

    /// Experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.plan.groups.first().map_or(0, |g| g.experts.len())
    }

    /// The base.
    #[must_use]
    pub fn base_model(&self) -> &'p Opened {
        &self.plan.models[self.base]
    }

    fn read(&self, input: Option<&Input>) -> Result<Option<Vec<f32>>> {
        let Some(input) = input else {
            return Ok(None);
        };
        let model = &self.plan.models[input.model];
        let n = model
            .get(&input.name)
            .map_or(0, |e| e.shape.iter().product());
        let mut values = vec![0f32; n];
        model.read(&input.name, 0, &mut values, &mut Scratch::default())?;
        if let Some(dtype) = self.plan.recipe.dtype {
            dtype::round_through(&mut values, dtype);
        }
        Ok(Some(values))
    }

    /// The base's numbers of a tensor.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn base(&self, tensor: usize) -> Result<Vec<f32>> {
        let (group, member) = self.places[tensor];
        let member = &self.plan.groups[group].members[member];
        let none = || MergeError::Internal(format!("`{}` has no base", member.job.name));
        self.read(member.base.as_ref())?.ok_or_else(none)
    }

    /// An expert's numbers of a tensor as they will be stored; the base's where it lacks it.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn expert(&self, expert: usize, tensor: usize) -> Result<Vec<f32>> {
        let (group, member) = self.places[tensor];
        let member = &self.plan.groups[group].members[member];
        let mut values = match self.read(member.inputs[expert].as_ref())? {
            Some(values) => values,
            None => self.base(tensor)?,
        };
        dtype::round_through(&mut values, self.plan.outputs[member.output].tensor.dtype);
        Ok(values)
    }

    /// The diagonal Fisher information of an expert's tensor, from its `stats` file; `None` where there is none.
    ///
    /// # Errors
    /// Files that cannot be read, another shape.
    pub fn fisher(&self, expert: usize, tensor: usize) -> Result<Option<Vec<f32>>> {
        let (group, member) = self.places[tensor];
        let group = &self.plan.groups[group];
        let job = &group.members[member].job;
        let name = format!("{}.fisher", job.name);
        let Some(statistics) = &group.statistics else {
            return Ok(None);
        };
        let Some(shape) = statistics.shape(expert, &name) else {
            return Ok(None);
        };
        let n: usize = shape.iter().product();
        if n != job.elements() {
            let what = format!("statistics `{name}` are {shape:?}, another shape than the weight");
            return Err(MergeError::plan("stats-shape", what));
        }
        let mut values = vec![0f32; n];
        statistics.read(expert, &name, 0, &mut values)?;
        Ok(Some(values))
    }

    /// What an expert changed in a tensor.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn delta(&self, expert: usize, tensor: usize) -> Result<Vec<f32>> {
        let mut values = self.expert(expert, tensor)?;
        dtype::subtract(&mut values, &self.base(tensor)?);
        Ok(values)
    }
}

/// Writes a bundle in which every task has what `parts` has for it: for each tensor of [`Deltas::tensors`] what it takes,
/// nothing for the base's. Factors are rounded to `store`. `method` is what made them.
///
/// # Errors
/// What cannot be restored from the base, numbers too large for their type, a full disk; the target is then absent.
pub fn write_deltas(
    plan: &mut Plan,
    options: &RunOptions,
    (method, store): (&str, DType),
    about: &BTreeMap<String, String>,
    parts: &[Vec<Option<Stored>>],
    extras: &[Extra],
) -> Result<(Report, Accounting)> {
    bundle::restorable(plan)?;
    method.clone_into(&mut plan.recipe.method);
    let tasks = bundle::tasks(plan)?;
    let records = bundle::records(plan);
    let changed: Vec<_> = records.iter().filter(|r| r.masked).collect();
    let experts = plan.groups.first().map_or(&[][..], |g| &g.experts);
    let mut accounting = Accounting {
        shared: 0,
        masks: 0,
        deltas: 0,
        coding: Coding::default(),
        experts: experts.iter().map(|e| bundle::length(plan, *e)).sum(),
        base: plan.recipe.base.map_or(0, |b| bundle::length(plan, b)),
    };
    let mut files = Vec::with_capacity(tasks.len());
    for (task, parts) in tasks.iter().zip(parts) {
        if parts.len() != changed.len() {
            return Err(MergeError::Internal("parts of a delta bundle".into()));
        }
        let mut metadata = about.clone();
        metadata.insert("method".into(), method.into());
        metadata.insert("task".into(), task.id.clone());
        let bytes = delta::file(&changed, parts, store, &metadata)?;
        accounting.deltas += bytes.len() as u64;
        files.push((format!("deltas/{}.safetensors", task.id), bytes));
    }
    let folder = OutputFolder::create(
        &options.target,
        FolderOptions {
            force: options.force,
            no_sync: options.no_sync,
            resume: false,
            fingerprint: String::new(),
            bytes: accounting.deltas + (16 << 20),
        },
    )?;
    for (name, bytes) in files {
        folder.write_file(name, &bytes)?;
    }
    bundle::finish(plan, folder, options, tasks, accounting, extras)
}
