//! Gram matrices through layers that are merged already (RegMean++, Nguyen et al. 2025): block after block is merged by
//! RegMean, and the inputs of the next come through what was merged.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use polyloom::MergeError;
use polyloom::merge::regmean;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_core::Error as CoreError;
use rayon::prelude::*;

use super::gram::Grams;
use super::input::Inputs;
use super::observe::Observed;
use super::{Settings, Statistics, features_of, named_heads};
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::models::{Plain, Point, Source};
use crate::tasks::evaluate::Found;
use crate::tasks::forward::{batched, features};
use crate::tasks::{Base, Reader};

/// A model that will be merged, and the task whose rows it sees.
pub struct Expert<'a> {
    /// All of it in weights: [`Base::whole`].
    pub base: &'a Base,
    /// Its task.
    pub spec: &'a TaskSpec,
    /// Reads the task.
    pub loader: &'a Loader<'a>,
    /// Heads for the task, which say what feature is read; there may be none.
    pub found: &'a [Found],
}

/// Gram matrices of every expert such that RegMean over exactly these experts, with the same `off_diagonal`, is RegMean++.
/// Of each block: every expert's rows run through the merged blocks before it, then through the expert's own copy; the
/// block is merged by the Gram matrices of its linear layers, all else in it by the mean. `watch` as in
/// [`super::collect`]; it is told how many rows will pass in all, too.
///
/// # Errors
/// As [`super::collect`]; models of other layers, an architecture without blocks (CLIP).
pub fn collect(
    experts: &[Expert<'_>],
    settings: &Settings,
    off_diagonal: f64,
    watch: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Vec<Statistics>> {
    let mut runs = Vec::new();
    for expert in experts {
        let heads = named_heads(expert.spec, expert.found);
        let seen = features_of(&expert.base.opened.model, expert.spec, &heads);
        let inputs = Inputs::read(
            expert.spec,
            expert.loader,
            &expert.base.reader,
            &seen,
            settings,
        )?;
        runs.push(Run {
            base: expert.base,
            inputs,
            batch: settings.batch,
        });
    }
    let Some(first) = runs.first() else {
        return Ok(Vec::new());
    };
    let blocks = first.blocks()?;
    let last = blocks
        .layers
        .iter()
        .map(|(stage, _)| *stage)
        .max()
        .unwrap_or(0);
    if last == 0 {
        return Err(Error::file(
            &first.base.opened.model.folder,
            "has no blocks that can be merged one after the other",
        )
        .hint("plain Gram matrices and --method regmean take every architecture"));
    }
    for run in &runs[1..] {
        if run.blocks()?.layers != blocks.layers {
            return Err(MergeError::plan(
                "other-layers",
                "has other linear layers than the first model",
            )
            .at(run.base.opened.model.folder.display().to_string())
            .hint("models that are merged are of one base")
            .into());
        }
    }
    let total: usize = runs.iter().map(|r| r.inputs.order.len()).sum::<usize>() * last;
    let mut done = 0;
    let mut merged: HashMap<String, Value> = HashMap::new();
    let mut found: Vec<Option<Grams>> = runs.iter().map(|_| None).collect();
    for stage in 0..=last {
        let of_stage: Vec<&String> = blocks
            .layers
            .iter()
            .filter(|(s, _)| *s == stage)
            .map(|(_, n)| n)
            .collect();
        let mut grams = Vec::new();
        if !of_stage.is_empty() && stage > 0 {
            for run in &runs {
                grams.push(run.grams(&merged, stage, &mut |rows| {
                    done += rows;
                    match watch(done, total) {
                        true => Ok(()),
                        false => Err(CoreError::Interrupted.into()),
                    }
                })?);
            }
        }
        let solved = solve(&runs, &grams, off_diagonal)?;
        for (_, name) in blocks.tensors.iter().filter(|(s, _)| *s == stage) {
            let value = match solved.get(name) {
                Some(value) => value.clone(),
                None => mean(&runs, name)?,
            };
            merged.insert(name.clone(), value);
        }
        for (found, grams) in found.iter_mut().zip(grams) {
            match found {
                Some(found) => found.join(grams),
                None => *found = Some(grams),
            }
        }
    }
    let made = runs.iter().zip(found).map(|(run, grams)| {
        let mut made = Statistics {
            rows: run.inputs.order.len(),
            grams,
            fisher: None,
            tensors: Vec::new(),
        };
        made.list(run.base, &[])?;
        Ok(made)
    });
    made.collect()
}

/// The merged weights of the layers of a block.
fn solve(runs: &[Run<'_>], grams: &[Grams], off_diagonal: f64) -> Result<HashMap<String, Value>> {
    let Some(first) = grams.first() else {
        return Ok(HashMap::new());
    };
    let layers: Vec<(usize, String)> = first
        .layers()
        .map(|name| format!("{name}.weight"))
        .enumerate()
        .collect();
    let solved = layers.into_par_iter().map(|(i, name)| {
        let weights = &runs[0].base.opened.model.weights;
        let dims = weights.tensor(&name)?.dims().to_vec();
        let &[rows, cols] = &dims[..] else {
            return Err(Error::shape("regmean", format!("`{name}` is {dims:?}")));
        };
        let mut sums = regmean::Sums::new(rows, cols, runs.len(), off_diagonal);
        for (run, grams) in runs.iter().zip(grams) {
            let value = run.base.opened.model.weights.tensor(&name)?;
            if value.dims() != dims {
                let what = format!("`{name}` is {:?} here and {dims:?} before", value.dims());
                return Err(Error::shape("regmean", what));
            }
            sums.add(
                &slice(value.data())?,
                &grams.values(i).collect::<Vec<f32>>(),
            );
        }
        let merged = sums.solve().ok_or_else(|| {
            let what = format!("`{name}`: the sum of the Gram matrices cannot be solved");
            Error::from(MergeError::plan("bad-statistics", what))
        })?;
        Ok((name, Value::constant(tensor(merged, (rows, cols))?)))
    });
    solved.collect()
}

/// The mean of a tensor over all experts.
fn mean(runs: &[Run<'_>], name: &str) -> Result<Value> {
    let mut sum: Vec<f64> = Vec::new();
    let mut dims = Vec::new();
    for run in runs {
        let value = run.base.opened.model.weights.tensor(name)?;
        let values = slice(value.data())?;
        if !sum.is_empty() && dims != value.dims() {
            let what = format!("`{name}` is {:?} here and {dims:?} before", value.dims());
            return Err(Error::shape("mean", what));
        }
        dims = value.dims().to_vec();
        sum.resize(values.len(), 0.0);
        sum.iter_mut()
            .zip(&*values)
            .for_each(|(s, v)| *s += f64::from(*v));
    }
    let n = runs.len() as f64;
    let values = sum.into_iter().map(|s| (s / n) as f32).collect();
    Ok(Value::constant(tensor(values, dims)?))
}

/// A model with its rows.
struct Run<'a> {
    base: &'a Base,
    inputs: Inputs,
    batch: usize,
}

/// Tensors and linear layers by the block that uses them first: 0 before the first block.
struct Blocks {
    tensors: Vec<(usize, String)>,
    layers: Vec<(usize, String)>,
}

impl Run<'_> {
    fn plain(&self) -> &Plain {
        &self.base.opened.model.weights
    }

    /// Runs some rows until block `stop` is through.
    fn pass(
        &self,
        staged: &Staged<'_>,
        rows: &[usize],
        see: &mut dyn FnMut(&str, &Value) -> Result<()>,
    ) -> Result<()> {
        let model = &self.base.opened.model;
        let observed = Observed::new(staged, see);
        match features(
            model,
            &observed,
            &self.base.reader,
            &self.inputs.parts(rows),
        ) {
            Err(_) if staged.stopped.get() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn blocks(&self) -> Result<Blocks> {
        let merged = HashMap::new();
        let staged = Staged::new(self.plain(), &merged, usize::MAX);
        let mut layers: Vec<(usize, String)> = Vec::new();
        self.pass(&staged, &self.inputs.order[..1], &mut |name, _| {
            if !layers.iter().any(|(_, n)| n == name) {
                layers.push((staged.stage.get(), name.to_owned()));
            }
            Ok(())
        })?;
        Ok(Blocks {
            tensors: staged.used.into_inner(),
            layers,
        })
    }

    /// Gram matrices of the layers of one block, behind blocks that are merged.
    fn grams(
        &self,
        merged: &HashMap<String, Value>,
        stage: usize,
        step: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Grams> {
        let mut first = Vec::new();
        let staged = Staged::new(self.plain(), merged, stage);
        self.pass(&staged, &self.inputs.order[..1], &mut |name, x| {
            if staged.stage.get() == stage {
                first.push((name.to_owned(), x.clone()));
            }
            Ok(())
        })?;
        let mut grams = Grams::of(&first)?;
        drop(first);
        for rows in self.inputs.order.chunks(self.batch.max(1)) {
            let present = match &self.base.reader {
                Reader::Texts(text) => Some(batched(text, &self.inputs.parts(rows))?.present),
                Reader::Pictures(_) | Reader::Sensors(_) | Reader::Tables(_) => None,
            };
            let staged = Staged::new(self.plain(), merged, stage);
            self.pass(
                &staged,
                rows,
                &mut |name, x| match staged.stage.get() == stage {
                    true => grams.add(name, x, present.as_deref()),
                    false => Ok(()),
                },
            )?;
            step(rows.len())?;
        }
        Ok(grams)
    }
}

/// Merged tensors where there are any, else a model's own; counts the blocks that are through, and ends the pass behind
/// block `stop`.
struct Staged<'a> {
    own: &'a Plain,
    merged: &'a HashMap<String, Value>,
    stop: usize,
    stage: Cell<usize>,
    stopped: Cell<bool>,
    used: RefCell<Vec<(usize, String)>>,
}

impl<'a> Staged<'a> {
    fn new(own: &'a Plain, merged: &'a HashMap<String, Value>, stop: usize) -> Self {
        Self {
            own,
            merged,
            stop,
            stage: Cell::new(0),
            stopped: Cell::new(false),
            used: RefCell::default(),
        }
    }
}

impl Source for Staged<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        let found = match self.merged.get(name) {
            Some(value) => Some(value.clone()),
            None => self.own.find(name)?,
        };
        let mut used = self.used.borrow_mut();
        if found.is_some() && !used.iter().any(|(_, n)| n == name) {
            used.push((self.stage.get(), name.to_owned()));
        }
        Ok(found)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        if matches!(point, Point::Embedded | Point::Layer(_)) {
            if self.stage.get() >= self.stop {
                self.stopped.set(true);
                // Nothing behind is needed; the caller knows by `stopped`.
                return Err(CoreError::Interrupted.into());
            }
            self.stage.set(self.stage.get() + 1);
        }
        Ok(x)
    }
}
