//! Trials as systems of a board.

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::aggregate::Direction;
use polyloom::evaluate::aggregate::mean::Missing;
use polyloom::evaluate::board::compare::stored::stored;
use polyloom::evaluate::board::compare::{Options as Choices, Overall, Settings as Pairing};
use polyloom::evaluate::board::counting::Aggregate;
use polyloom::evaluate::board::folds::{self, Folds};
use polyloom::evaluate::board::import::{Imported, Options, Source, import};
use polyloom::evaluate::board::ranking::{Ranked, rank};
use polyloom::evaluate::board::results::Results;
use polyloom::evaluate::board::uncertainty::{Over, Settings, over_examples};
use polyloom::evaluate::statistics::Interval;

use super::Difference;
use crate::error::Result;

/// Results of the trials, by share of the rows.
pub(super) struct Counted {
    by: Aggregate,
    /// Trial, share of the rows, its row of the table.
    rows: Vec<(usize, f64, Results)>,
}

impl Counted {
    pub(super) fn new(by: Aggregate) -> Self {
        Self {
            by,
            rows: Vec::new(),
        }
    }

    /// Takes in the results of a trial.
    pub(super) fn add(&mut self, trial: usize, share: f64, file: &Path) -> Result<()> {
        if self.by.from_answers() {
            let what = format!("`{}` counts single answers", self.by);
            return Err(MergeError::plan("bad-objective", what)
                .hint("an objective of scores: mean, group_mean, above_chance, win_rate, ...")
                .into());
        }
        let found = read(&[(&trial.to_string(), file)])?;
        self.rows.push((trial, share, found.results));
        Ok(())
    }

    fn ranked(&self, share: f64) -> Result<Option<(Vec<usize>, Ranked)>> {
        let mut all: Option<Results> = None;
        let mut of = Vec::new();
        for (trial, own, results) in &self.rows {
            if own.to_bits() == share.to_bits() {
                all = Some(match all {
                    Some(all) => all.merge(results.clone())?,
                    None => results.clone(),
                });
                of.push(*trial);
            }
        }
        let Some(all) = all else {
            return Ok(None);
        };
        let ranked = rank(self.by, &all.matrix()?, Missing::Strict, &[])?;
        Ok(Some((of, ranked)))
    }

    fn good(&self, ranked: &Ranked) -> Result<Direction> {
        ranked.good.ok_or_else(|| {
            let what = format!(
                "`{}` over tasks of which some go up and some go down has no good end",
                self.by
            );
            MergeError::plan("bad-objective", what)
                .hint("borda, mean_rank or win_rate look at each task's own end")
                .into()
        })
    }

    /// Whether less of the objective is better.
    pub(super) fn is_lower(&self) -> Result<bool> {
        let share = self.rows.last().map_or(1.0, |r| r.1);
        match self.ranked(share)? {
            Some((_, ranked)) => Ok(self.good(&ranked)? == Direction::Lower),
            None => Ok(false),
        }
    }

    /// The objective of `trials` trials on a share of the rows, more being better.
    pub(super) fn scores(&self, share: f64, trials: usize) -> Result<Vec<Option<f64>>> {
        let mut scores = vec![None; trials];
        if let Some((of, ranked)) = self.ranked(share)? {
            let good = self.good(&ranked)?;
            for (trial, value) in of.into_iter().zip(&ranked.standing.value) {
                scores[trial] = (!value.is_nan()).then(|| good.oriented(*value));
            }
        }
        Ok(scores)
    }

    /// Two trials, by examples drawn again within each task, the same ones for both; where scores are no means of
    /// examples, the mean over tasks by its own errors of pairs.
    ///
    /// Trials that folds scored: fold by fold.
    pub(super) fn against(&self, files: [&Path; 2], level: f64, seed: u64) -> Result<Difference> {
        if self.by == Aggregate::Mean
            && let Some(found) = by_folds(files, 1.0 - level)?
        {
            return Ok(found);
        }
        let found = read(&[("first", files[0]), ("second", files[1])])?;
        let matrix = found.results.matrix()?;
        let ranked = rank(self.by, &matrix, Missing::Strict, &[])?;
        let good = self.good(&ranked)?;
        let value = ranked.standing.value[1] - ranked.standing.value[0];
        let settings = Settings {
            seed,
            level,
            ..Settings::default()
        };
        let drawn = over_examples(self.by, &found.results, &found.answers, &matrix, &settings);
        if drawn.as_ref().is_ok_and(|d| d.over == Over::Examples) || self.by != Aggregate::Mean {
            let drawn = drawn.map_err(|e| MergeError::plan("bad-objective", e))?;
            let none = Interval::new(f64::NEG_INFINITY, f64::INFINITY);
            return Ok(Difference {
                value,
                interval: drawn.difference(1, 0).unwrap_or(none),
                resolved: drawn.resolved(1, 0),
                paired: drawn.over == Over::Examples,
            });
        }
        let pairing = Pairing::from(Choices {
            allow_partial: false,
            alpha: 1.0 - level,
        });
        let pairs = stored(&found.results, 0, 1, &pairing)?.paired;
        let overall = match &pairs.tasks[..] {
            [one] => Some((one.interval, one.difference)),
            tasks => Overall::of(tasks, pairing.alpha).map(|o| (o.interval, o.difference)),
        };
        let Some((interval, value)) = overall else {
            let drawn = drawn.map_err(|e| MergeError::plan("bad-objective", e))?;
            let none = Interval::new(f64::NEG_INFINITY, f64::INFINITY);
            return Ok(Difference {
                value,
                interval: drawn.difference(1, 0).unwrap_or(none),
                resolved: drawn.resolved(1, 0),
                paired: false,
            });
        };
        let resolved = match good {
            Direction::Higher => interval.low > 0.0,
            Direction::Lower => interval.high < 0.0,
        };
        Ok(Difference {
            value,
            interval,
            resolved,
            paired: true,
        })
    }
}

/// Two trials by their folds; `None` where they have none, or targets of several metrics.
fn by_folds(files: [&Path; 2], alpha: f64) -> Result<Option<Difference>> {
    let [Some(old), Some(new)] = files.map(|f| f.parent().filter(|p| folds::is(p))) else {
        return Ok(None);
    };
    let found = folds::compare(&Folds::read(old)?, &Folds::read(new)?, alpha)?;
    let overall = match &found[..] {
        [one] => one,
        [.., last] if last.name == "mean" => last,
        _ => return Ok(None),
    };
    let [low, high] = overall.interval;
    Ok(Some(Difference {
        value: overall.difference,
        interval: Interval::new(low, high),
        resolved: overall.better(alpha) == Some(true),
        paired: true,
    }))
}

fn read(files: &[(&str, &Path)]) -> Result<Imported> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(name, path)| Source {
            name: Some((*name).to_owned()),
            path: (*path).to_owned(),
        })
        .collect();
    Ok(import(&sources, &Options::default())?)
}
