//! Statistics of a model on a task: Gram matrices of the inputs of linear layers, the diagonal of the Fisher information.
//!
//! Merge methods read them from a file beside each expert. A row of a Gram matrix is one position of one input: of pictures
//! every patch and the class token, of texts every token that is no filling, in layers behind the pooling one vector for
//! each input. FusionBench counts filling of texts too.

mod fisher;
mod gram;
mod input;
mod observe;
pub mod sequential;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_core::writer::{Layout, OutTensor, OutputFile};
use polyloom_core::{DType, Error as CoreError};

use crate::error::Result;
use crate::models::Plain;
use crate::models::open::Model;
use crate::tasks::evaluate::{self, Found};
use crate::tasks::fit::{full, own_layers};
use crate::tasks::forward::{batched, features};
use crate::tasks::rows::usual_feature;
use crate::tasks::{Base, Feature, Head, Reader, System};

use fisher::{Asked, Fisher};
use gram::Grams;
use input::Inputs;
pub(crate) use input::drawn;
use observe::Observed;

/// What of a batch is squared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squares {
    /// The gradient of every example, as the definition of the Fisher information has it.
    PerSample,
    /// The gradient of the sum over a batch, as FusionBench and earlier code do; equal for batches of one.
    PerBatch,
}

impl Squares {
    /// Its word in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::PerSample => "per-sample",
            Self::PerBatch => "per-batch",
        }
    }
}

/// What is collected, and on how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Gram matrices.
    pub gram: bool,
    /// Fisher information.
    pub fisher: Option<Squares>,
    /// Rows of the task at most.
    pub rows: usize,
    /// Split that they are drawn from.
    pub split: String,
    /// Seed of the draw.
    pub seed: u64,
    /// Inputs of a batch.
    pub batch: usize,
}

impl Settings {
    /// What is collected, in words.
    #[must_use]
    pub fn kind(&self) -> String {
        let kinds = [(self.gram, "gram"), (self.fisher.is_some(), "fisher")];
        let kinds: Vec<&str> = kinds.iter().filter(|k| k.0).map(|k| k.1).collect();
        kinds.join(",")
    }

    /// Rows that pass the model in all, where the task has as many as are asked for.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.rows * (usize::from(self.gram) + usize::from(self.fisher.is_some()))
    }
}

/// The heads of a system for a task as `eval` finds them: files, else the model's own; none where it has none at all.
///
/// # Errors
/// Heads that do not fit the task.
pub fn heads(system: &System, base: &Base, spec: &TaskSpec) -> Result<Vec<Found>> {
    if let Some(found) = evaluate::files(system, spec)? {
        evaluate::check(&found, spec, &base.opened.model)?;
        return Ok(found);
    }
    Ok(evaluate::own(&base.alone(), spec)?.unwrap_or_default())
}

/// Heads under the names that their tensors have in a pass, and whether they belong to the model.
fn named_heads(spec: &TaskSpec, found: &[Found]) -> Vec<(Head, bool)> {
    let named = found.iter().map(|f| {
        let mut head = f.head.clone();
        head.task = full(&spec.id, &f.target);
        (head, f.own)
    });
    named.collect()
}

/// The features that heads see, each once; without heads the usual one.
fn features_of(model: &Model, spec: &TaskSpec, heads: &[(Head, bool)]) -> Vec<Feature> {
    let mut seen: Vec<Feature> = Vec::new();
    for (head, _) in heads {
        if !seen.contains(&head.feature) {
            seen.push(head.feature);
        }
    }
    if seen.is_empty() {
        seen.push(usual_feature(model, !spec.fields.input2.is_empty()));
    }
    seen
}

/// Statistics that are ready to be written.
pub struct Statistics {
    /// Rows of the task that were used.
    pub rows: usize,
    grams: Option<Grams>,
    fisher: Option<Fisher>,
    tensors: Vec<(OutTensor, Content)>,
}

/// What a tensor of the file holds.
enum Content {
    /// The Gram matrix of a layer.
    Gram(usize),
    /// The Fisher information of a tensor, by its name in the pass.
    Fisher(String),
}

/// Runs a model (all of it in weights: [`Base::whole`]) over rows of a task. `watch` is told how many rows passed, and
/// stops the run where it says no.
///
/// # Errors
/// Rows that the model does not take, a head for other classes; [`CoreError::Interrupted`] where `watch` says no.
pub fn collect(
    base: &Base,
    spec: &TaskSpec,
    loader: &Loader<'_>,
    found: &[Found],
    settings: &Settings,
    watch: &mut dyn FnMut(usize) -> bool,
) -> Result<Statistics> {
    let (opened, reader) = (&base.opened, &base.reader);
    let model = &opened.model;
    let heads = named_heads(spec, found);
    let seen = features_of(model, spec, &heads);
    let asked: Vec<Asked<'_>> = heads
        .iter()
        .map(|(head, own)| Asked {
            head,
            feature: seen.iter().position(|f| *f == head.feature).unwrap_or(0),
            own: *own,
        })
        .collect();
    let inputs = Inputs::read(spec, loader, reader, &seen, settings)?;
    let plain = model
        .weights
        .with(heads.iter().flat_map(|(head, _)| head.tensors()));
    let mut done = 0;
    let mut step = |rows: usize| {
        done += rows;
        match watch(done) {
            true => Ok(()),
            false => Err(CoreError::Interrupted.into()),
        }
    };
    let grams = match settings.gram {
        true => Some(grams(
            base,
            &plain,
            &asked,
            &inputs,
            settings.batch,
            &mut step,
        )?),
        false => None,
    };
    let fisher = match settings.fisher {
        Some(squares) => Some(Fisher::collect(
            (model, reader),
            &plain,
            &asked,
            &inputs,
            (squares, settings.batch),
            &mut step,
        )?),
        None => None,
    };
    let mut made = Statistics {
        rows: inputs.order.len(),
        grams,
        fisher,
        tensors: Vec::new(),
    };
    made.list(base, &heads)?;
    Ok(made)
}

/// Gram matrices of all linear layers of the trunk, and of heads that belong to the model.
fn grams(
    base: &Base,
    plain: &Plain,
    asked: &[Asked<'_>],
    inputs: &Inputs,
    batch: usize,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Grams> {
    let (model, reader) = (&base.opened.model, &base.reader);
    let run = |rows: &[usize],
               see: &mut dyn FnMut(&str, &crate::engine::Value) -> Result<()>|
     -> Result<()> {
        let source = Observed::new(plain, see);
        let vectors = features(model, &source, reader, &inputs.parts(rows))?;
        for asked in asked.iter().filter(|a| a.own) {
            asked.head.forward(&source, &vectors[asked.feature])?;
        }
        Ok(())
    };
    // One row shows which layers there are, and which of them see the same.
    let mut pass = Vec::new();
    run(&inputs.order[..1], &mut |name, x| {
        pass.push((name.to_owned(), x.clone()));
        Ok(())
    })?;
    let mut grams = Grams::of(&pass)?;
    drop(pass);
    for rows in inputs.order.chunks(batch.max(1)) {
        let present = match reader {
            Reader::Texts(text) => Some(batched(text, &inputs.parts(rows))?.present),
            Reader::Pictures(_) | Reader::Sensors(_) | Reader::Tables(_) => None,
        };
        run(rows, &mut |name, x| grams.add(name, x, present.as_deref()))?;
        step(rows.len())?;
    }
    Ok(grams)
}

impl Statistics {
    /// Lists the tensors of the file: by names of the checkpoint, those of heads that belong to the model among them.
    fn list(&mut self, base: &Base, heads: &[(Head, bool)]) -> Result<()> {
        let own = own_layers(&base.opened.model)?;
        let mut renamed = HashMap::new();
        for (head, _) in heads.iter().filter(|(_, own)| *own) {
            for (i, name) in own.iter().enumerate() {
                renamed.insert(head.layer(i), (*name).to_owned());
            }
        }
        let tensor = |name: String, shape: Vec<usize>| OutTensor {
            name,
            dtype: DType::F32,
            shape,
        };
        if let Some(grams) = &self.grams {
            for (i, layer) in grams.layers().enumerate() {
                let width = grams.width(i);
                let name = renamed.get(layer).map_or(layer, String::as_str);
                let out = tensor(format!("{name}.weight.gram"), vec![width, width]);
                self.tensors.push((out, Content::Gram(i)));
            }
        }
        if self.fisher.is_some() {
            // Back from names of the checkpoint to those of the pass.
            let passed: HashMap<String, String> = renamed
                .iter()
                .flat_map(|(pass, stored)| {
                    let of = |part: &str| (format!("{stored}.{part}"), format!("{pass}.{part}"));
                    [of("weight"), of("bias")]
                })
                .collect();
            for (name, _, shape) in base.opened.stored.iter().filter(|(_, d, _)| d.is_float()) {
                let out = tensor(format!("{name}.fisher"), shape.clone());
                let pass = passed.get(name).unwrap_or(name).clone();
                self.tensors.push((out, Content::Fisher(pass)));
            }
        }
        Ok(())
    }

    /// Gram matrices and Fisher tensors in the file.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let grams = self.tensors.iter();
        let grams = grams.filter(|(_, c)| matches!(c, Content::Gram(_))).count();
        (grams, self.tensors.len() - grams)
    }

    /// Positions that a layer saw at most: rows of its `X`.
    #[must_use]
    pub fn positions(&self) -> u64 {
        let rows = self.grams.iter().flat_map(|g| {
            let layers = g.layers().enumerate();
            layers.map(|(i, _)| g.rows(i))
        });
        rows.max().unwrap_or(0)
    }

    /// Header metadata of the file.
    #[must_use]
    pub fn metadata(
        &self,
        task: &str,
        task_hash: &str,
        model: &str,
        settings: &Settings,
    ) -> BTreeMap<String, String> {
        let mut said = BTreeMap::from([
            ("task", task.to_owned()),
            ("task_hash", task_hash.to_owned()),
            ("model", model.to_owned()),
            ("rows", self.rows.to_string()),
            ("split", settings.split.clone()),
            ("kind", settings.kind()),
            ("seed", settings.seed.to_string()),
        ]);
        if let Some(squares) = settings.fisher {
            said.insert("squares", squares.word().to_owned());
        }
        said.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// Writes the file, all at once.
    ///
    /// # Errors
    /// A file that is there already (without `force`), a full disk, values that are not finite.
    pub fn write(
        &self,
        file: &Path,
        metadata: &BTreeMap<String, String>,
        force: bool,
        sync: bool,
    ) -> Result<()> {
        let tensors: Vec<OutTensor> = self.tensors.iter().map(|(t, _)| t.clone()).collect();
        let layout = Layout::with_metadata(&tensors, u64::MAX, "statistics", metadata);
        let out = OutputFile::create(file, layout.total(), force, sync)?;
        out.tensors(&tensors, &layout, |i, bytes| {
            let (tensor, content) = &self.tensors[i];
            let mut finite = true;
            let mut put = |value: f32| {
                finite &= value.is_finite();
                bytes.extend(value.to_le_bytes());
            };
            match (content, &self.grams, &self.fisher) {
                (Content::Gram(layer), Some(grams), _) => grams.values(*layer).for_each(&mut put),
                (Content::Fisher(name), _, Some(fisher)) => match fisher.values(name) {
                    Some(values) => values.for_each(&mut put),
                    // What the task does not use has no influence.
                    None => (0..tensor.shape.iter().product()).for_each(|_| put(0.0)),
                },
                _ => {}
            }
            if finite {
                return Ok(());
            }
            let what = "holds a value that is not finite: the model or its inputs overflow";
            Err(CoreError::tensor(file, &tensor.name, what).into())
        })
    }
}
