//! The model that a router looks through, in memory.

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Input;
use polyloom::evaluate::board::score::search::is_search;
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use polyloom_core::checkpoint::read_json;

use super::points::Points;
use super::router::{Decision, Reads, Router, Tap};
use super::tap;
use crate::error::{Error, Result};
use crate::image::Preparation;
use crate::stats::drawn;
use crate::tasks::{Base, Reader, Rows, Shown, System};
use crate::train::Given;

/// A model with what is read of its passes.
pub struct Sense {
    base: Base,
    /// What is read.
    pub tap: Tap,
    /// What a router file says of it.
    pub reads: Reads,
    /// Inputs of a batch.
    pub batch: usize,
    /// Things to tell the user.
    pub warnings: Vec<String>,
}

/// The rows of a task that were taken: their ids and features.
pub struct TaskPoints {
    /// Ids, in the order of the split.
    pub ids: Vec<String>,
    /// Features.
    pub points: Points,
}

impl Sense {
    /// Opens a model. Without a tap it is what heads of the model see as a rule; `preprocessor` is a file like
    /// `preprocessor_config.json`, in place of that of the model's folder.
    ///
    /// # Errors
    /// A model or a file that cannot be opened.
    pub fn open(
        model: &str,
        tap: Option<Tap>,
        max_length: Option<usize>,
        preprocessor: Option<&Path>,
    ) -> Result<Self> {
        let reads = Reads {
            model: Some(model.to_owned()),
            fingerprint: None,
            max_length,
            preprocessor: preprocessor.map(read_json).transpose()?,
        };
        Self::of(model, tap, reads)
    }

    /// The model of a router, or another place of the same model.
    ///
    /// # Errors
    /// A router that names no model, one that cannot be opened, other weights than it was fitted on.
    pub fn for_router(router: &Router, model: Option<&str>) -> Result<Self> {
        let Some(name) = model.or(router.reads.model.as_deref()) else {
            let error = MergeError::plan("no-base", "the router names no model");
            return Err(error
                .hint("--model MODEL says where its features come from")
                .into());
        };
        let found = Self::of(name, Some(router.tap), router.reads.clone())?;
        let (was, is) = (&router.reads.fingerprint, &found.reads.fingerprint);
        if was.is_some() && was != is {
            let what = "is not the model that the router was fitted on: its weights are others";
            return Err(MergeError::plan("other-model", what)
                .at(name.to_owned())
                .hint("fit the router again on this model")
                .into());
        }
        Ok(found)
    }

    fn of(model: &str, tap: Option<Tap>, mut reads: Reads) -> Result<Self> {
        let system = System::find(model, None, None)?;
        let most = match reads.max_length {
            None => system.max_length()?,
            most => most,
        };
        let mut base = Base::whole(&system, most)?;
        let opened = &base.opened.model;
        if let Some(config) = &reads.preprocessor {
            let Some((size, channels)) = opened.pictures() else {
                let what = "a preprocessor of pictures is given, and the model is one of texts";
                return Err(MergeError::plan("bad-flag", what)
                    .at(model.to_owned())
                    .into());
            };
            let place = Path::new("the router's preprocessor");
            base.reader = Reader::Pictures(Preparation::of(config, place, size, channels)?);
        }
        reads.model = Some(model.to_owned());
        reads.max_length = most;
        reads.fingerprint = Some(system.fingerprint()?);
        Ok(Self {
            tap: tap.unwrap_or_else(|| tap::usual(opened)),
            warnings: base.opened.warnings.clone(),
            base,
            reads,
            batch: 32,
        })
    }

    /// How inputs are read.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.base.reader
    }

    /// Features of inputs, in their order; the pass runs over batches of like length. `watch` is told how many are done and
    /// stops where it says no.
    ///
    /// # Errors
    /// As [`tap::read`]; [`polyloom_core::Error::Interrupted`] where `watch` says no.
    pub fn points(&self, shown: &[Shown], watch: &mut dyn FnMut(usize) -> bool) -> Result<Points> {
        let model = &self.base.opened.model;
        let mut order: Vec<usize> = (0..shown.len()).collect();
        order.sort_by_key(|&i| (shown[i].length(), i));
        let mut found = Points::default();
        let mut done = 0;
        for part in order.chunks(self.batch.max(1)) {
            let of: Vec<&Shown> = part.iter().map(|&i| &shown[i]).collect();
            let read = tap::read(model, &model.weights, self.reader(), self.tap, &of)?;
            if found.values.is_empty() {
                found.width = read.width;
                found.values = vec![0.0; read.width * shown.len()];
            }
            let width = found.width;
            for (&i, row) in part.iter().zip(read.rows()) {
                found.values[i * width..(i + 1) * width].copy_from_slice(row);
            }
            done += part.len();
            if !watch(done) {
                return Err(polyloom_core::Error::Interrupted.into());
            }
        }
        Ok(found)
    }

    /// Features of inputs as tasks have them.
    ///
    /// # Errors
    /// As [`Self::points`] and [`Reader::show`].
    pub fn see(&self, inputs: &[Input]) -> Result<Points> {
        let shown = self.reader().show(inputs, tap::shown_as(self.tap))?;
        self.points(&shown, &mut |_| true)
    }

    /// Features of rows (of retrieval: queries) of a task's split, at most `most` of them, drawn by the seed (all: in any case in their order).
    ///
    /// # Errors
    /// As [`Self::points`] and [`Rows::read_some`]; a split without rows.
    pub fn task(
        &self,
        given: &Given,
        split: &str,
        most: Option<usize>,
        seed: u64,
        watch: &mut dyn FnMut(usize) -> bool,
    ) -> Result<TaskPoints> {
        let loader = Loader::new(&given.spec, given.folder.clone(), Limits::default());
        let feature = tap::shown_as(self.tap);
        let taken = |n| drawn(n, most.unwrap_or(n), seed);
        let rows = match is_search(&given.spec) {
            true => Rows::queries(&given.spec, &loader, split, self.reader(), taken)?,
            false => Rows::read_some(&given.spec, &loader, split, self.reader(), feature, taken)?,
        };
        if rows.is_empty() {
            let what = format!("task `{}` has no rows in split `{split}`", given.spec.id);
            return Err(MergeError::plan("empty", what).into());
        }
        let points = self.points(&rows.shown, watch).map_err(|e| match e {
            // What does not fit is the feature and the model, which the message has no words for.
            Error::Shape { problem, .. } => {
                let what = format!("feature `{}`: {problem}", self.tap);
                let place = self.reads.model.clone().unwrap_or_default();
                MergeError::plan("bad-feature", what).at(place).into()
            }
            other => other,
        })?;
        Ok(TaskPoints {
            ids: rows.ids,
            points,
        })
    }

    /// What a router says of inputs.
    ///
    /// # Errors
    /// As [`Self::see`] and [`Router::decide_all`].
    pub fn decide(&self, router: &Router, inputs: &[Input]) -> Result<Vec<Decision>> {
        router.decide_all(&self.see(inputs)?)
    }
}
