//! Trials: models made of one recipe with other numbers, scored on tasks and counted as a board counts.
//!
//! Every trial leaves a results file with its records, so that the board, `compare` and a resumed search read what was
//! measured. The search ends early where a round brings nothing that a paired bootstrap over the examples tells apart from
//! what was best before it.

mod count;
mod jury;
mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::evaluate::board::counting::Aggregate;
use polyloom::evaluate::board::folds;
use polyloom::evaluate::statistics::Interval;

use super::search::{Axis, Search, values};
use crate::error::{Error, Result};
use crate::folds::run::RESULTS;
use crate::tasks::encoder::Keeping;
use crate::train::Given;
use count::Counted;
use jury::Jury;
use record::Record;
pub use record::Trial;

/// Keys of a recipe and what they are set to.
pub type Values = Vec<(String, String)>;

/// What is searched, and how trials are scored.
#[derive(Debug, Clone)]
pub struct Study<'a> {
    /// What may vary.
    pub axes: Vec<Axis>,
    /// Tasks that are scored.
    pub tasks: &'a [Given],
    /// Their split.
    pub split: String,
    /// Rows of a task at most.
    pub limit: Option<usize>,
    /// Folder of the heads; the models' own where none is named.
    pub heads: Option<PathBuf>,
    /// Folders that are looked into after the models' own: the experts' heads.
    pub more_heads: Vec<PathBuf>,
    /// How pictures are prepared, where the models do not say.
    pub preprocessor: Option<PathBuf>,
    /// Id of the prompt that decoders are asked with; the tasks' first where none is named.
    pub prompt: Option<String>,
    /// Tokens of a text at most.
    pub max_length: Option<usize>,
    /// How scores are counted to one number.
    pub objective: Aggregate,
    /// Level of the intervals.
    pub level: f64,
    /// Rounds without a better one that is told apart, after which an adaptive search ends; 0 for never.
    pub patience: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// What else results depend on: the recipe.
    pub recipe: String,
}

/// Makes the model of some values in a folder, or the scores of its folds ([`crate::folds::cross`]).
pub type Build<'a> = dyn FnMut(&Values, &Path) -> Result<()> + 'a;

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Told<'a> {
    /// A trial begins.
    Begins(usize, &'a Values),
    /// It is scored, or refused; `true` where it was found on disk.
    Trial(&'a Trial, bool),
    /// A round is over: its number, the best score of it, and whether it is told apart from the best before.
    Round(usize, f64, Option<bool>),
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All points were tried.
    Tried,
    /// So many rounds brought nothing that is told apart from the best before.
    NotResolved(usize),
}

/// Two trials, the second less the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Of the objective.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
    /// The second is better in that many draws.
    pub resolved: bool,
    /// The same examples of both were drawn; else scores with their standard errors.
    pub paired: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// All trials, in their order; the first is the recipe as it stands.
    pub trials: Vec<Trial>,
    /// The objective of every trial that saw all rows.
    pub scores: Vec<Option<f64>>,
    /// The best.
    pub best: usize,
    /// The best against the recipe as it stands; `None` where that is the best, or cannot be made.
    pub gain: Option<Difference>,
    /// Why it ended.
    pub ended: Ended,
}

/// Runs a search. `work` keeps a results file per trial and `trials.jsonl`; with `resume` what it holds of the same study
/// is not run again.
///
/// # Errors
/// A study that cannot be counted, a recipe of which every point is refused, data or models that cannot be read. A point
/// that the recipe refuses is a trial without a score.
pub fn run(
    study: &Study<'_>,
    search: &mut dyn Search,
    work: &Path,
    resume: bool,
    build: &mut Build<'_>,
    watch: &mut dyn FnMut(&Told<'_>) -> bool,
) -> Result<Outcome> {
    // Trials meet the same texts.
    let _kept = Keeping::begin();
    let mut table = Table {
        study,
        jury: Jury::new(study),
        record: Record::open(work, study, resume)?,
        counted: Counted::new(study.objective),
        at: HashMap::new(),
    };
    let stands = table.trial(Vec::new(), 1.0, build, watch)?;
    let mut incumbent = table.scored(stands).then_some(stands);
    let (mut number, mut waits, mut ended) = (0, 0, Ended::Tried);
    while let Some(round) = search.ask() {
        number += 1;
        let mut of = Vec::new();
        for point in &round.points {
            of.push(table.trial(values(&study.axes, point), round.share, build, watch)?);
        }
        let scores = table.scores(round.share)?;
        let own: Vec<f64> = of
            .iter()
            .map(|t| scores[*t].unwrap_or(f64::NEG_INFINITY))
            .collect();
        search.tell(&own);
        let best = first_best(&of, &own);
        let Some((best, top)) = best else {
            if incumbent.is_none() {
                return Err(table.refused());
            }
            continue;
        };
        let mut apart = None;
        if round.share >= 1.0 {
            apart = match incumbent {
                Some(held) if held != best => Some(table.against(held, best)?.resolved),
                Some(_) => Some(false),
                None => None,
            };
            if apart != Some(false) {
                incumbent = Some(best);
                waits = 0;
            } else {
                waits += 1;
            }
        }
        let shown = study.objective_shown(top, table.good()?);
        if !watch(&Told::Round(number, shown, apart)) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
        if search.is_adaptive() && study.patience > 0 && waits >= study.patience {
            ended = Ended::NotResolved(waits);
            break;
        }
    }
    table.outcome(stands, ended)
}

impl Study<'_> {
    /// A score that more was made to be better of, as it is shown.
    fn objective_shown(&self, oriented: f64, lower: bool) -> f64 {
        if lower { -oriented } else { oriented }
    }
}

/// The first of the best scores.
fn first_best(trials: &[usize], scores: &[f64]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for (trial, score) in trials.iter().zip(scores) {
        if score.is_finite() && best.is_none_or(|(_, top)| *score > top) {
            best = Some((*trial, *score));
        }
    }
    best
}

/// Trials as they come.
struct Table<'a> {
    study: &'a Study<'a>,
    jury: Jury<'a>,
    record: Record,
    counted: Counted,
    /// Values and share of the rows: number of the trial.
    at: HashMap<(Values, u64), usize>,
}

impl Table<'_> {
    /// The trial of some values on a share of the rows: made, or found.
    fn trial(
        &mut self,
        values: Values,
        share: f64,
        build: &mut Build<'_>,
        watch: &mut dyn FnMut(&Told<'_>) -> bool,
    ) -> Result<usize> {
        let key = (values, share.to_bits());
        if let Some(at) = self.at.get(&key) {
            return Ok(*at);
        }
        let number = self.record.trials.len();
        let held = self.record.held(&key.0, share);
        let found = held.is_some();
        let trial = match held {
            Some(trial) => trial,
            None => {
                if !watch(&Told::Begins(number, &key.0)) {
                    return Err(polyloom_core::Error::Interrupted.into());
                }
                self.made(number, &key.0, share, build)?
            }
        };
        let trial = self.record.add(trial, number, found)?;
        if let Some(file) = &trial.file {
            self.counted.add(number, share, &self.record.place(file))?;
        }
        if !watch(&Told::Trial(&trial, found)) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
        self.at.insert(key, number);
        Ok(number)
    }

    fn made(
        &mut self,
        number: usize,
        values: &Values,
        share: f64,
        build: &mut Build<'_>,
    ) -> Result<Trial> {
        let folder = self.record.place("model");
        let gone = |folder: &Path| match folder.exists() {
            true => std::fs::remove_dir_all(folder)
                .map_err(|e| polyloom_core::Error::io(folder, "remove", e)),
            false => Ok(()),
        };
        gone(&folder)?;
        let mut trial = Trial {
            number,
            values: values.clone(),
            share,
            file: None,
            refused: None,
        };
        match build(values, &folder) {
            Ok(()) => {}
            // What is wrong with one point is a fact about it; what is wrong with files is not.
            Err(Error::Merge(error @ (MergeError::Plan { .. } | MergeError::NonFinite { .. }))) => {
                trial.refused = Some(error.to_string());
                return Ok(trial);
            }
            Err(other) => return Err(other),
        }
        if folds::is(&folder) {
            // Scored already: what was built are scores of folds, not a model.
            let name = format!("{number:03}.folds");
            let place = self.record.place(&name);
            gone(&place)?;
            std::fs::rename(&folder, &place)
                .map_err(|e| polyloom_core::Error::io(&place, "write", e))?;
            trial.file = Some(format!("{name}/{RESULTS}"));
            return Ok(trial);
        }
        let file = format!("{number:03}.json");
        let scored = self.jury.score(&folder, &self.record.place(&file), &trial);
        gone(&folder)?;
        scored?;
        trial.file = Some(file);
        Ok(trial)
    }

    fn scored(&self, trial: usize) -> bool {
        self.record.trials[trial].file.is_some()
    }

    /// The objective of all trials on a share of the rows, more being better.
    fn scores(&self, share: f64) -> Result<Vec<Option<f64>>> {
        self.counted.scores(share, self.record.trials.len())
    }

    /// Whether less of the objective is better.
    fn good(&self) -> Result<bool> {
        self.counted.is_lower()
    }

    fn against(&self, first: usize, second: usize) -> Result<Difference> {
        let place = |t: usize| {
            let file = self.record.trials[t].file.as_deref().unwrap_or_default();
            self.record.place(file)
        };
        self.counted.against(
            [&place(first), &place(second)],
            self.study.level,
            self.study.seed,
        )
    }

    /// No trial could be made.
    fn refused(&self) -> Error {
        let why = self
            .record
            .trials
            .iter()
            .rev()
            .find_map(|t| t.refused.clone());
        let what = format!(
            "no point of the search could be tried; the last: {}",
            why.unwrap_or_default()
        );
        MergeError::plan("no-trial", what).into()
    }

    fn outcome(self, stands: usize, ended: Ended) -> Result<Outcome> {
        let oriented = self.scores(1.0)?;
        let lower = self.good()?;
        let all: Vec<usize> = (0..oriented.len()).collect();
        let known: Vec<f64> = oriented
            .iter()
            .map(|s| s.unwrap_or(f64::NEG_INFINITY))
            .collect();
        let Some((best, _)) = first_best(&all, &known) else {
            return Err(self.refused());
        };
        let gain = match best != stands && self.scored(stands) {
            true => Some(self.against(stands, best)?),
            false => None,
        };
        let shown = |s: &f64| self.study.objective_shown(*s, lower);
        Ok(Outcome {
            scores: oriented.iter().map(|s| s.as_ref().map(shown)).collect(),
            best,
            gain,
            ended,
            trials: self.record.trials,
        })
    }
}
