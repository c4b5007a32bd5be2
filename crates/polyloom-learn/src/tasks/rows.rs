//! Rows of a task as a model takes them: tokens or planes, made once.

use std::path::Path;
use std::sync::Arc;

use polyloom::evaluate::board::score::examples::{self, Asked, Field, Input, Wanted};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use rayon::prelude::*;

use super::encoder;
use super::head::Feature;
use super::sensors::Sensors;
use crate::error::{Error, Result};
use crate::image::{PREPROCESSOR, Preparation};
use crate::models::Tokens;
use crate::models::open::{Model, Trunk};
use crate::table::{self, Row, Visit};
use crate::text::Text;

/// Rows of a table that a thread prepares at least.
const TOGETHER: usize = 256;

/// What turns inputs into what a model takes.
pub enum Reader {
    /// A tokenizer.
    Texts(Box<Text>),
    /// Size, channels and range of pictures.
    Pictures(Preparation),
    /// Pictures of several sensors, of a size each.
    Sensors(Sensors),
    /// Columns of a table.
    Tables(Box<table::Preparation>),
}

/// An input as a model takes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// One sequence: a text, or a pair read together.
    One(Tokens),
    /// Two texts, each read on its own.
    Two(Box<[Tokens; 2]>),
    /// Planes of a picture.
    Planes(Vec<u8>),
    /// Planes of a picture of a sensor: the place of its stem, and the planes.
    Sensed(usize, Vec<u8>),
    /// A row of a table.
    Row(Box<Row>),
    /// A row of a session.
    Visit(Box<Visit>),
}

impl Shown {
    /// Whether it is no row of a group that training did not have; only where groups have goals of their own.
    pub(crate) fn has_goal(&self) -> bool {
        !matches!(self, Self::Row(row) if row.group.is_none())
    }

    /// The group of a row of a table, where groups have goals of their own.
    pub(crate) fn group(&self) -> Option<u32> {
        match self {
            Self::Row(row) => row.group,
            _ => None,
        }
    }

    /// Tokens of its longest sequence.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::One(t) => t.ids.len(),
            Self::Two(two) => two.iter().map(|t| t.ids.len()).max().unwrap_or(0),
            Self::Planes(_) | Self::Sensed(..) | Self::Row(_) => 0,
            Self::Visit(visit) => visit.before.len(),
        }
    }
}

/// The rows of a split.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// What is asked of every row.
    pub asked: Vec<Asked>,
    /// Ids, in the order of the split.
    pub ids: Vec<String>,
    /// Inputs.
    pub shown: Vec<Shown>,
    /// What is right, for each thing that is asked.
    pub wanted: Vec<Vec<Option<Wanted>>>,
    /// What every row counts in a loss; `None` where all count alike or weights were not asked for.
    pub weights: Option<Vec<f32>>,
}

impl Reader {
    /// That of a model. Texts are cut to `most` tokens, and to what the model takes.
    ///
    /// # Errors
    /// A tokenizer or a preparation that cannot be read.
    pub fn of(model: &Model, most: Option<usize>) -> Result<Self> {
        Self::prepared(model, most, None)
    }

    /// The same, with a file like `preprocessor_config.json` in place of that of the model's folder.
    ///
    /// # Errors
    /// As [`Self::of`]; such a file for a model of texts.
    pub fn prepared(model: &Model, most: Option<usize>, pictures: Option<&Path>) -> Result<Self> {
        if let Some(table) = &model.table {
            return match pictures {
                None => {
                    encoder::open(table, &model.folder)?;
                    Ok(Self::Tables(table.clone()))
                }
                Some(file) => Err(Error::file(
                    file,
                    "prepares pictures; the model is one of tables",
                )),
            };
        }
        if let Some(model_of) = model.sensors() {
            let file = pictures.map_or_else(|| model.folder.join(PREPROCESSOR), Path::to_owned);
            if pictures.is_some() || file.exists() {
                let what =
                    "prepares pictures of one size; stems read those of their sensors as they are";
                return Err(Error::file(&file, what));
            }
            return Ok(Self::Sensors(Sensors::of(model_of)));
        }
        Ok(match (model.pictures(), pictures) {
            (Some((size, channels)), Some(file)) => {
                Self::Pictures(Preparation::read(file, size, channels)?)
            }
            (Some((size, channels)), None) => {
                Self::Pictures(Preparation::open(&model.folder, size, channels)?)
            }
            (None, Some(file)) => {
                return Err(Error::file(
                    file,
                    "prepares pictures; the model is one of texts",
                ));
            }
            (None, None) => Self::Texts(Box::new(model.text(most)?)),
        })
    }

    /// Inputs as the model takes them.
    ///
    /// # Errors
    /// Texts for a model of pictures and the other way round, a pair feature of single texts, what the tokenizer refuses,
    /// pictures that no stem reads or that several do.
    pub fn show(&self, inputs: &[Input], feature: Feature) -> Result<Vec<Shown>> {
        self.show_of(None, inputs, feature)
    }

    /// The same for inputs of a task (or a target of one), which chooses among stems.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub fn show_of(
        &self,
        task: Option<&str>,
        inputs: &[Input],
        feature: Feature,
    ) -> Result<Vec<Shown>> {
        let no = |what: &str| Err(Error::shape("input", what));
        match self {
            Self::Tables(preparation) => match preparation.sessions() {
                Some(_) => visits(preparation, inputs),
                None => rows(preparation, inputs),
            },
            Self::Pictures(preparation) => {
                let mut shown = Vec::with_capacity(inputs.len());
                for input in inputs {
                    let Input::Image { pixels, size } = input else {
                        return no("texts or rows, and the model is one of pictures");
                    };
                    shown.push(Shown::Planes(preparation.planes(pixels, *size)?));
                }
                Ok(shown)
            }
            Self::Sensors(sensors) => {
                let one = |input: &Input| sensors.show(task, input);
                inputs.iter().map(one).collect()
            }
            Self::Texts(text) => {
                let mut pairs = Vec::with_capacity(inputs.len());
                for input in inputs {
                    match input {
                        Input::Text(a, b) => pairs.push((&**a, b.as_deref())),
                        Input::Image { .. } | Input::Row { .. } | Input::Visit { .. } => {
                            return no("pictures or rows, and the model is one of texts");
                        }
                    }
                }
                if !feature.is_of_two() {
                    return Ok(text.encode(&pairs)?.into_iter().map(Shown::One).collect());
                }
                let first: Vec<_> = pairs.iter().map(|(a, _)| (*a, None)).collect();
                let Some(second) = pairs.iter().map(|(_, b)| Some(((*b)?, None))).collect() else {
                    return no("single texts, and the feature is one of pairs");
                };
                let second: Vec<(&str, Option<&str>)> = second;
                let both = text.encode(&first)?.into_iter().zip(text.encode(&second)?);
                Ok(both.map(|(a, b)| Shown::Two(Box::new([a, b]))).collect())
            }
        }
    }
}

impl Rows {
    /// The rows of a split, at most `limit` (spread evenly over the split, so that files ordered by class lose none).
    ///
    /// # Errors
    /// What [`examples::read`] and [`Reader::show`] report.
    pub fn read(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        split: &str,
        reader: &Reader,
        feature: Feature,
        limit: Option<usize>,
    ) -> Result<Self> {
        let all = examples::read_limited(spec, loader, split, limit, false)?;
        let taken = vec![true; all.rows.len()];
        Self::of(spec, all, reader, feature, taken, false)
    }

    /// The same with what rows count in a loss, where the task names a column of weights (`table.weight`).
    ///
    /// # Errors
    /// As [`Self::read`] and [`examples::read_weighed`].
    pub fn read_weighed(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        split: &str,
        reader: &Reader,
        feature: Feature,
        limit: Option<usize>,
    ) -> Result<Self> {
        let all = examples::read_limited(spec, loader, split, limit, true)?;
        let taken = vec![true; all.rows.len()];
        let weighed = spec.table.as_ref().is_some_and(|t| !t.weight.is_empty());
        Self::of(spec, all, reader, feature, taken, weighed)
    }

    /// Those rows of a split for which `taken`, given their number, says so; in the order of the split.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_some(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        split: &str,
        reader: &Reader,
        feature: Feature,
        taken: impl FnOnce(usize) -> Vec<bool>,
    ) -> Result<Self> {
        let all = examples::read(spec, loader, split)?;
        let taken = taken(all.rows.len());
        Self::of(spec, all, reader, feature, taken, false)
    }

    /// Of examples those that are taken.
    fn of(
        spec: &TaskSpec,
        all: examples::Examples,
        reader: &Reader,
        feature: Feature,
        taken: Vec<bool>,
        weighed: bool,
    ) -> Result<Self> {
        let mut rows = Self {
            wanted: vec![Vec::new(); all.asked.len()],
            asked: all.asked,
            ids: Vec::new(),
            shown: Vec::new(),
            weights: weighed.then(Vec::new),
        };
        let mut inputs = Vec::new();
        for (row, taken) in all.rows.into_iter().zip(taken) {
            if taken {
                rows.ids.push(row.id);
                inputs.push(row.input);
                if let Some(weights) = &mut rows.weights {
                    weights.push(row.weight);
                }
                for (list, wanted) in rows.wanted.iter_mut().zip(row.wanted) {
                    list.push(wanted);
                }
            }
        }
        let shown = reader.show_of(Some(&spec.id), &inputs, feature);
        rows.shown = shown.map_err(|e| match e {
            Error::Shape { problem, .. } => polyloom::MergeError::plan(
                "no-model-task",
                format!("task `{}` has {problem}", spec.id),
            )
            .into(),
            other => other,
        })?;
        Ok(rows)
    }

    /// Those that count something in a loss; no others are learned from, so that a weight of 0 is as if the row were not
    /// there.
    ///
    /// # Errors
    /// Rows of which none counts.
    pub fn counted(self, spec: &TaskSpec) -> Result<Self> {
        let Some(weights) = self.weights.as_ref().filter(|w| !w.is_empty()) else {
            return Ok(self);
        };
        let counts = (0..weights.len()).filter(|i| weights[*i] > 0.0);
        let keep: Vec<usize> = counts.collect();
        if keep.is_empty() {
            return Err(none_counts(spec, weights.len()));
        }
        Ok(match keep.len() == weights.len() {
            true => self,
            false => self.only(&keep),
        })
    }

    /// The rows of some numbers alone, in that order.
    #[must_use]
    pub fn only(self, keep: &[usize]) -> Self {
        fn picked<T: Clone>(all: &[T], keep: &[usize]) -> Vec<T> {
            keep.iter().map(|i| all[*i].clone()).collect()
        }
        Self {
            ids: picked(&self.ids, keep),
            shown: picked(&self.shown, keep),
            wanted: self.wanted.iter().map(|w| picked(w, keep)).collect(),
            weights: self.weights.as_ref().map(|w| picked(w, keep)),
            asked: self.asked,
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The error about training rows that all weigh 0.
pub(super) fn none_counts(spec: &TaskSpec, rows: usize) -> Error {
    let column = spec.table.as_ref().map_or("", |t| &*t.weight);
    let what = format!(
        "task `{}`: all {rows} training rows weigh 0 in column `{column}`",
        spec.id
    );
    polyloom::MergeError::plan("bad-weight", what)
        .hint("`table.weight` names the column of row weights")
        .into()
}

/// Rows of a table as a model takes them.
fn rows(preparation: &table::Preparation, inputs: &[Input]) -> Result<Vec<Shown>> {
    let no = || {
        let what =
            "texts, pictures or rows of sessions, and the model is one of single rows of a table";
        Error::shape("input", what)
    };
    let same = |a: &Input, b: &Input| match (a, b) {
        (Input::Row { columns: a, .. }, Input::Row { columns: b, .. }) => Arc::ptr_eq(a, b),
        _ => false,
    };
    let mut shown = Vec::with_capacity(inputs.len());
    for part in inputs.chunk_by(same) {
        let Some(Input::Row { columns, .. }) = part.first() else {
            return Err(no());
        };
        let reader = preparation.reader(columns)?;
        let block = |inputs: &[Input]| {
            let field = |place: usize, row: usize| match &inputs[row] {
                Input::Row { fields, .. } => {
                    Ok(fields.get(place).map_or(Field::Missing, Field::lent))
                }
                _ => Err(no()),
            };
            let rows = reader.rows(inputs.len(), field, |e| e)?;
            Ok(rows.into_iter().map(|r| Shown::Row(Box::new(r))).collect())
        };
        let made: Vec<Result<Vec<Shown>>> = part.par_chunks(TOGETHER).map(block).collect();
        let first = shown.len();
        for block in made {
            shown.append(&mut block?);
        }
        if preparation.history().is_none() {
            continue;
        }
        let before = part.iter().map(|input| match input {
            Input::Row { before, .. } => before.as_ref(),
            _ => None,
        });
        for (shown, before) in shown[first..].iter_mut().zip(preparation.before(before)?) {
            if let Shown::Row(row) = shown {
                row.before = Some(before);
            }
        }
    }
    Ok(shown)
}

/// Rows of sessions as a model takes them; the items of a log are prepared once.
fn visits(preparation: &table::Preparation, inputs: &[Input]) -> Result<Vec<Shown>> {
    let same = |a: &Input, b: &Input| match (a, b) {
        (Input::Visit { log: a, .. }, Input::Visit { log: b, .. }) => Arc::ptr_eq(a, b),
        _ => false,
    };
    let mut shown = Vec::with_capacity(inputs.len());
    for part in inputs.chunk_by(same) {
        let Some(Input::Visit { log, .. }) = part.first() else {
            let what = "rows that are of no session, and the model is one of sessions";
            return Err(Error::shape("input", what));
        };
        let items = Arc::new(preparation.items(log)?);
        shown.extend(part.iter().filter_map(|input| match input {
            Input::Visit { log, before } => Some(Shown::Visit(Box::new(Visit {
                items: items.clone(),
                log: log.clone(),
                before: before.clone(),
            }))),
            _ => None,
        }));
    }
    Ok(shown)
}

/// The feature that a head sees where nothing says which.
#[must_use]
pub fn usual_feature(model: &Model, pair: bool) -> Feature {
    match &model.trunk {
        Trunk::Decoder(_) => Feature::Last,
        Trunk::Table(_) | Trunk::Forest(_) => Feature::Goal,
        Trunk::Bert(_) if pair => Feature::Pair,
        Trunk::Bert(_) | Trunk::T5(_) => Feature::Mean,
        _ => Feature::Cls,
    }
}
