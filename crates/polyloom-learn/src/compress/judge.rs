//! Scores of restored models on the rows that decide, each computed once.

use std::collections::HashMap;

use polyloom::MergeError;
use polyloom::compress::Restorer;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::evaluate::board::score::{Options, Scored, score};
use polyloom::evaluate::metric::calibration::Calibration;
use polyloom::evaluate::statistics::draw::Seed;
use polyloom::evaluate::statistics::replicates::Replicates;
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;

use super::recipe::Compress;
use crate::engine::{Tensor, slice, tensor};
use crate::error::Result;
use crate::models::open::Model;
use crate::models::{Plain, Source};
use crate::tasks::answers::{answers, largest};
use crate::tasks::forward::{Output, outputs};
use crate::tasks::{Head, Opened, Reader};
use crate::train::Given;
use crate::tune::objective::{Seen, Wanted as Rows, seen};
use crate::tune::recipe::Expert;

/// Rows of a pass.
const BATCH: usize = 64;
/// Draws of an interval.
const DRAWS: u64 = 1000;

/// What a model scores on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Metric that counts first.
    pub metric: String,
    /// Whether more is better.
    pub higher: bool,
    /// Its value.
    pub value: f64,
    /// The value of every row; empty for metrics of all rows together.
    pub rows: Vec<f64>,
    /// Mean negative log-likelihood of what is right, where that is a class: decides between equal scores.
    pub loss: f64,
    /// Expected calibration error (15 bins), where the task asks for a class.
    pub ece: Option<f64>,
}

impl Score {
    /// Whether this is better than another: by the metric, of equals by the loss.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        let sign = if self.higher { 1.0 } else { -1.0 };
        let (a, b) = (sign * self.value, sign * other.value);
        a > b || (a == b && self.loss < other.loss)
    }

    /// What share of another's score it keeps.
    fn share(&self, value: f64, of: f64) -> f64 {
        match self.higher {
            true => value / of,
            false => of / value,
        }
    }
}

/// The share of the experts' scores that models keep: the mean over tasks, with its interval over the rows.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Kept {
    /// The share.
    pub share: f64,
    /// Its 95 % interval: rows of every task drawn again, the same for expert and model; none where a metric has no values
    /// of rows.
    pub interval: Option<(f64, f64)>,
}

impl Kept {
    /// The share that is kept; `sure`: the lower end of its interval, where it has one.
    #[must_use]
    pub fn least(&self, sure: bool) -> Option<f64> {
        match sure {
            true => self.interval.map(|(low, _)| low),
            false => Some(self.share),
        }
    }
}

/// Rows of a split as the settings ask for them.
pub(super) fn rows<'a>(
    settings: &'a Compress,
    base: &'a str,
    experts: &'a [Expert],
    split: &'a str,
) -> Rows<'a> {
    Rows {
        base,
        experts,
        heads: settings.heads.as_deref(),
        split,
        limit: settings.limit,
        entropy: false,
        vectors: None,
        table: "compress",
    }
}

/// Tasks, their rows and heads, and what was scored before.
pub struct Judge {
    opened: Opened,
    reader: Reader,
    given: Vec<Given>,
    seen: Vec<Seen>,
    split: String,
    known: HashMap<(usize, u64), Score>,
    /// Passes that were made, and that were not needed.
    pub passes: (usize, usize),
}

impl Judge {
    /// Reads the rows of `tasks` and finds their heads. `experts` have heads beside them, where the settings name none.
    ///
    /// # Errors
    /// Tasks without rows or heads, files that cannot be read.
    pub fn open(
        settings: &Compress,
        base: &str,
        experts: &[Expert],
        tasks: &[Given],
    ) -> Result<Self> {
        let opened = Opened::open(base)?;
        let pictures = settings.preprocessor.as_deref();
        let reader = Reader::prepared(&opened.model, settings.max_length, pictures)?;
        let rows = rows(settings, base, experts, &settings.split);
        let seen = seen(&rows, &opened, &reader, tasks)?;
        Ok(Self {
            opened,
            reader,
            given: tasks.to_vec(),
            seen,
            split: settings.split.clone(),
            known: HashMap::new(),
            passes: (0, 0),
        })
    }

    /// Ids of the tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.given.iter().map(|g| &*g.spec.id)
    }

    /// Rows of each task.
    #[must_use]
    pub fn rows(&self) -> Vec<usize> {
        self.seen.iter().map(|s| s.rows.len()).collect()
    }

    /// The base.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// How inputs are read.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Heads of a task.
    #[must_use]
    pub fn heads(&self, task: usize) -> &[Head] {
        &self.seen[task].heads
    }

    /// The score of the base with `tensors` in the place of its own.
    ///
    /// # Errors
    /// What the model or the board report.
    pub fn score(&mut self, task: usize, tensors: Vec<(String, Tensor)>) -> Result<Score> {
        let mut all = Vec::new();
        for (name, values) in &tensors {
            all.extend(name.as_bytes());
            let bits = slice(values)?
                .iter()
                .flat_map(|v| v.to_bits().to_le_bytes())
                .collect::<Vec<u8>>();
            all.extend(polyloom_core::hash::xxh3(&bits).to_le_bytes());
        }
        let key = (task, polyloom_core::hash::xxh3(&all));
        if let Some(known) = self.known.get(&key) {
            self.passes.1 += 1;
            return Ok(known.clone());
        }
        self.passes.0 += 1;
        let (seen, given) = (&self.seen[task], &self.given[task]);
        let model = &self.opened.model;
        let heads = seen.heads.iter().flat_map(Head::tensors);
        let source: Plain = model.weights.with(tensors.into_iter().chain(heads));
        let said = said(model, &source, &self.reader, seen)?;
        let scored = scored(given, &self.split, model, seen, &said)?;
        let firsts: Vec<_> = scored.iter().filter_map(|s| s.metrics.first()).collect();
        let Some(first) = firsts.first() else {
            let what = format!("task `{}` has no metric", given.spec.id);
            return Err(MergeError::plan("no-metric", what).into());
        };
        let value = firsts.iter().map(|m| m.value).sum::<f64>() / firsts.len() as f64;
        let rows: Option<Vec<f64>> = match &scored[..] {
            [one] => one.records.iter().map(|r| r.value).collect(),
            _ => None,
        };
        let (mut loss, mut n) = (0.0, 0usize);
        let mut bins = Calibration::new(15).ok();
        for (said, wanted) in said.iter().zip(&seen.rows.wanted) {
            for (said, wanted) in said.iter().zip(wanted) {
                if let Some(Wanted::Class(c)) = wanted {
                    let p = said.get(*c as usize).copied().unwrap_or(0.0);
                    loss -= f64::from(p.max(f32::MIN_POSITIVE)).ln();
                    n += 1;
                    let best = largest(said);
                    let sure = f64::from(said.get(best).copied().unwrap_or(0.0)).min(1.0);
                    let right = best == *c as usize;
                    bins = bins.and_then(|mut b| b.add(sure, right).ok().map(|()| b));
                }
            }
        }
        let found = Score {
            metric: first.name.clone(),
            higher: first.higher_is_better,
            value,
            rows: rows.unwrap_or_default(),
            loss: loss / n.max(1) as f64,
            ece: bins
                .filter(|_| n > 0)
                .and_then(|b| b.finish().ok())
                .map(|e| e.l1),
        };
        self.known.insert(key, found.clone());
        Ok(found)
    }

    /// The scores of all tasks of a bundle, in the judge's order. Tasks of the bundle go by the names of the judge's.
    ///
    /// # Errors
    /// A bundle that cannot be read, and as [`Self::score`].
    pub fn bundle(&mut self, folder: &std::path::Path, names: &[String]) -> Result<Vec<Score>> {
        let mut found = Vec::with_capacity(names.len());
        for (task, name) in names.iter().enumerate() {
            let restorer = Restorer::open(folder, name, None)?;
            let mut tensors = Vec::new();
            for (i, output) in restorer.outputs().iter().enumerate() {
                if output.dtype.is_float() {
                    let values = tensor(restorer.values(i)?, output.shape.clone())?;
                    tensors.push((output.name.clone(), values));
                }
            }
            found.push(self.score(task, tensors)?);
        }
        Ok(found)
    }
}

/// What every head of a task says of its rows.
pub(super) fn said(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    seen: &Seen,
) -> Result<Vec<Vec<Output>>> {
    let own: Vec<&Head> = seen.heads.iter().collect();
    outputs(model, source, reader, &own, &seen.rows.shown, BATCH)
}

/// The board's metrics of that, a list for each target.
pub(super) fn scored(
    given: &Given,
    split: &str,
    model: &Model,
    seen: &Seen,
    said: &[Vec<Output>],
) -> Result<Vec<Scored>> {
    let targets = seen.rows.asked.iter().map(|a| &*a.target);
    let named: Vec<(&str, &Head)> = targets.zip(&seen.heads).collect();
    let answers = answers(&model.folder, "candidate", &seen.rows.ids, &named, said);
    let options = Options {
        split: split.to_owned(),
        allow_partial: true,
        // Intervals are the board's business.
        draws: 2,
        ..Options::default()
    };
    let loader = Loader::new(&given.spec, given.folder.clone(), Limits::default());
    Ok(score(
        &given.spec,
        &loader,
        &given.hash,
        &answers,
        &options,
    )?)
}

/// What share of the experts' scores others keep. Tasks count the same.
#[must_use]
pub fn kept(scores: &[Score], experts: &[Score], seed: u64) -> Kept {
    let n = scores.len().max(1) as f64;
    let pairs = || scores.iter().zip(experts);
    let share = pairs().map(|(s, e)| s.share(s.value, e.value)).sum::<f64>() / n;
    let by_row = pairs().all(|(s, e)| !s.rows.is_empty() && s.rows.len() == e.rows.len());
    if !by_row || scores.is_empty() {
        return Kept {
            share,
            interval: None,
        };
    }
    let seed = Seed::of("compress", &seed.to_string());
    let tasks = scores.len() as u64;
    let draw = |number: u64| {
        let of = |(task, (s, e)): (u64, (&Score, &Score))| {
            let mut draw = seed.draw(number * tasks + task);
            let rows = s.rows.len();
            let (mut a, mut b) = (0.0, 0.0);
            for _ in 0..rows {
                let i = draw.index(rows) as usize;
                a += s.rows[i];
                b += e.rows[i];
            }
            s.share(a, b)
        };
        (0..).zip(pairs()).map(of).sum::<f64>() / n
    };
    let draws = Replicates {
        point: share,
        values: (0..DRAWS).map(draw).collect(),
    };
    Kept {
        share,
        interval: draws.percentile(0.95).ok().map(|i| (i.low, i.high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(rows: &[f64], loss: f64) -> Score {
        Score {
            metric: "accuracy".into(),
            higher: true,
            value: rows.iter().sum::<f64>() / rows.len() as f64,
            rows: rows.to_vec(),
            loss,
            ece: None,
        }
    }

    #[test]
    fn shares_and_ties() {
        let expert = score(&[1.0, 1.0, 0.0, 1.0], 0.2);
        let one = std::slice::from_ref(&expert);
        let same = kept(one, one, 0);
        assert_eq!((same.share, same.interval), (1.0, Some((1.0, 1.0))));
        let half = score(&[1.0, 0.0, 0.0, 1.0], 0.5);
        let found = kept(
            &[half.clone(), expert.clone()],
            &[expert.clone(), expert.clone()],
            0,
        );
        assert!((found.share - 5.0 / 6.0).abs() < 1e-12);
        let (low, high) = found.interval.unwrap();
        assert!(low < found.share && high <= 1.0 + 1e-12);
        assert!(expert.beats(&half) && !half.beats(&expert));
        assert!(score(&[1.0], 0.1).beats(&score(&[1.0], 0.2)));
        let mut error = score(&[2.0], 0.0);
        error.higher = false;
        let mut less = score(&[1.0], 0.0);
        less.higher = false;
        assert!(less.beats(&error));
        assert_eq!(kept(&[error], &[less], 0).share, 0.5);
    }
}
