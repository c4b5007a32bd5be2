//! Masked reconstruction: pictures without labels teach stems and trunk to rebuild patches that they were not shown (the first
//! phase of T3, Zhao et al. 2024; masked autoencoders, He et al. 2022). What a model makes of masked pictures and the mean
//! square are those of [`T3::reconstruction`]; labels of the tasks are read and not used.
//!
//! Which patches are masked follows from the seed and from how many rows were drawn before; of a row that is looked at, from
//! the seed and its place, so that every evaluation sees the same masks.

use polyloom::MergeError;
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::Given;
use super::learned::{Learned, is_looked_at, no_rows};
use super::part::Part;
use super::pass::{Drawn, augmented, shown};
use super::recipe::{HeadRecipe, Method, Objective, Recipe, Train};
use super::rowwise::Loss;
use super::run::Job;
use super::sampler::shuffled;
use super::trainee::Trainee;
use super::weigh::Counts;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::Model;
use crate::models::t3::T3;
use crate::tasks::{Feature, Reader, Rows, Shown};

/// What an evaluation tells of a task.
pub(super) const METRIC: &str = "masked_mse";

/// `[train.reconstruct]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconstructRecipe {
    /// Share of the patches that are masked, above 0 and below 1.
    pub mask: f64,
}

impl Default for ReconstructRecipe {
    fn default() -> Self {
        Self { mask: 0.75 }
    }
}

impl Train {
    /// Whether patches are rebuilt.
    pub(super) fn rebuilds(&self) -> bool {
        self.objective == Objective::Reconstruct
    }

    /// The share of the patches that are masked.
    fn mask(&self) -> f64 {
        self.reconstruct.unwrap_or_default().mask
    }
}

/// Whether the keys about reconstruction go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let bad = |what: String, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    if !t.rebuilds() {
        return match t.reconstruct {
            None => Ok(()),
            Some(_) => bad(
                "`[train.reconstruct]` is about `objective = \"reconstruct\"`".into(),
                "train.objective = \"reconstruct\", or leave the table out",
            ),
        };
    }
    let mask = t.mask();
    if !(mask > 0.0 && mask < 1.0) {
        return bad(
            format!("`train.reconstruct.mask` is {mask}; it must be above 0 and below 1"),
            "0.75: three of four patches are rebuilt from the fourth",
        );
    }
    let others = [
        ("method", t.method != Method::Full),
        ("head", t.head != HeadRecipe::default()),
        ("smoothing", t.smoothing != 0.0),
        ("class_weight", t.class_weight.is_some()),
        ("loss", t.loss != Loss::default()),
        ("reweight", t.reweight.is_some()),
        ("representation", t.representation.is_some()),
        ("balance", t.balance.is_some()),
        ("language", t.language.is_some()),
        ("fuse", t.fuse.is_some()),
        ("chain", t.chain.is_some()),
        ("pseudo", t.pseudo.is_some()),
        ("stage", !t.stage.is_empty()),
        ("slim", t.slim.is_some()),
        ("add", t.add.is_some()),
        ("moe", t.moe.is_some()),
        ("folds", t.folds.is_some()),
        ("optimiser", t.optimiser.is_sophia()),
    ];
    match others.iter().find(|(_, said)| *said) {
        None => Ok(()),
        Some((key, _)) => bad(
            format!(
                "`objective = \"reconstruct\"` learns from pictures alone, with every weight and without heads; `train.{key}` does not go with it"
            ),
            "leave it out; a second run whose base is the output of this one learns the tasks",
        ),
    }
}

/// The model whose patches are rebuilt.
fn rebuilder(model: &Model) -> Result<&T3> {
    model.sensors().ok_or_else(|| {
        MergeError::plan(
            "bad-recipe",
            "has no decoders; `objective = \"reconstruct\"` is for models with stems by sensor",
        )
        .at(model.folder.display().to_string())
        .hint("[train.new] model_type = \"polyloom-t3\", or a base of this type")
        .into()
    })
}

/// Reads the pictures of a run.
///
/// # Errors
/// A model without decoders, a share that masks all patches of a stem or none, tasks without rows, and what reading reports.
pub(super) fn learned<'a>(
    recipe: &Recipe,
    model: &Model,
    reader: &Reader,
    given: &'a [Given],
) -> Result<Vec<Learned<'a>>> {
    let (t, of) = (&recipe.train, rebuilder(model)?);
    let one = |given: &'a Given| {
        let (spec, loader) = (&given.spec, given.loader());
        let read =
            |split: &str, limit| Rows::read(spec, &loader, split, reader, Feature::Cls, limit);
        let train = read(&t.split, t.limit)?;
        let Some(Shown::Sensed(stem, _)) = train.shown.first() else {
            return Err(no_rows(&spec.id, &t.split));
        };
        let masked = of.stem(*stem)?.masked(t.mask());
        masked.map_err(|e| match e {
            Error::Config { what } => MergeError::plan("bad-recipe", what)
                .hint("another `train.reconstruct.mask`, or smaller patches")
                .into(),
            other => other,
        })?;
        let validation = match is_looked_at(recipe, spec)? {
            true => Some(read(&t.validation, t.validation_limit)?).filter(|r| !r.is_empty()),
            false => None,
        };
        Ok(Learned {
            given,
            train,
            validation,
            language: None,
            feature: Feature::Cls,
            heads: 0..0,
            search: None,
            counts: Counts::default(),
            chain: None,
            soft: Vec::new(),
        })
    };
    given.iter().map(one).collect()
}

/// The loss of some pictures of one sensor; a picture's mask is that of its number from `first` on.
///
/// # Errors
/// As [`T3::reconstruction`].
pub(super) fn loss(
    job: &Job<'_>,
    source: &dyn Source,
    shown: &[&Shown],
    (stream, first): (&str, u64),
) -> Result<Value> {
    let (model, Reader::Sensors(sensors)) = (rebuilder(job.model)?, job.reader) else {
        return Err(Error::shape("loss", "no pictures of sensors"));
    };
    let (place, pixels) = sensors.pixels(shown)?;
    let stem = model.stem(place)?;
    let (patches, masked) = (stem.patches(), stem.masked(job.recipe.train.mask())?);
    let mask = |number: u64| {
        let mut order = shuffled(patches, Stream::new(job.recipe.seed, stream, number));
        order.truncate(masked);
        order.sort_unstable();
        order
    };
    let masks: Vec<Vec<u32>> = (first..).take(shown.len()).map(mask).collect();
    model.reconstruction(source, place, &pixels, &masks)
}

/// What masks of training rows are drawn from.
pub(super) const TRAINING: &str = "train masks";

/// The losses of drawn rows by task.
///
/// # Errors
/// As [`loss`].
pub(super) fn losses(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    drawn: &Drawn<'_>,
) -> Result<Vec<Part>> {
    let new = augmented(job, tasks, drawn.rows, drawn.before);
    let mut number = drawn.before;
    let mut parts = Vec::new();
    for (k, task) in tasks.iter().enumerate() {
        let rows = &drawn.rows[k];
        if rows.is_empty() {
            continue;
        }
        let shown = shown(&task.train, &new[k], rows);
        let value = loss(job, source, &shown, (TRAINING, number))?;
        number += rows.len() as u64;
        parts.push(Part {
            task: k,
            losses: vec![Some(value)],
            weights: vec![1.0],
            n: rows.len() as f64,
            extra: None,
        });
    }
    Ok(parts)
}

/// The mean square over the rows that are looked at, and how many these are.
///
/// # Errors
/// As [`loss`].
pub(super) fn looked_at(job: &Job<'_>, trainee: &Trainee, rows: &Rows) -> Result<(f64, u64)> {
    let batch = job.recipe.train.batch.max(1);
    let mut sum = 0.0;
    trainee.with(None, |source| {
        for (part, shown) in rows.shown.chunks(batch).enumerate() {
            let shown: Vec<&Shown> = shown.iter().collect();
            let first = (part * batch) as u64;
            let value = loss(job, source, &shown, ("validation masks", first))?;
            sum += f64::from(value.number()?) * shown.len() as f64;
        }
        Ok(())
    })?;
    Ok((sum / rows.len().max(1) as f64, rows.len() as u64))
}
