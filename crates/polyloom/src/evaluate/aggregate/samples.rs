//! Strengths from single examples: each one orders the systems that were measured on it (ONEBench; methods/evaluation.md
//! 3.4), whatever the scale of its scores, and the bootstrap over examples says how firm the order is.

use std::collections::HashMap;

use super::comparisons::Comparisons;
use super::davidson::davidson;
use super::games::Games;
use super::pairwise::{Estimator, fit};
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::bootstrap::Bootstrap;
use crate::evaluate::statistics::ranks::{RankUncertainty, uncertainty};
use crate::evaluate::statistics::replicates::Replicates;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "strengths from examples";

/// The model that is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Bradley–Terry over all pairs of an example; a tie is one win for each side.
    BradleyTerry,
    /// Davidson's: a tie is an outcome of its own.
    Davidson,
    /// Every system chosen over all that are strictly worse on the example. Without ties the Plackett–Luce likelihood of
    /// the order; of right and wrong answers each right one over all wrong ones (ONEBench's top-1 form), which is not the
    /// likelihood of a tied order.
    PlackettLuce,
}

/// Examples as orders of the systems, task by task.
#[derive(Debug, Clone)]
pub struct Samples {
    systems: usize,
    tasks: Vec<Task>,
}

#[derive(Debug, Clone)]
struct Task {
    weight: f64,
    /// Orders that occur: per system how many distinct worse scores there are, `ABSENT` where it was not measured.
    orders: Vec<Vec<u16>>,
    /// The order of every example.
    of: Vec<u32>,
}

const ABSENT: u16 = u16::MAX;

/// Strengths with their intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct StrengthIntervals {
    /// Log-odds by system; they sum to 0. `NaN` for a system that no example compares with another one, as are its
    /// intervals and places.
    pub theta: Vec<f64>,
    /// The middle of the draws, by system.
    pub interval: Vec<Interval>,
    /// Places with their intervals and the chance of being best, by system.
    pub ranks: Vec<RankUncertainty>,
    /// Strengths of every draw.
    pub draws: Vec<Vec<f64>>,
    /// Draws whose examples do not fix the strengths (some system wins or loses everything) and that were fitted with
    /// the penalty [`PULL`] instead of none.
    pub pulled: usize,
    /// Whether the examples themselves needed that penalty or one was asked for.
    pub regularised: bool,
}

/// Penalty where the examples do not fix the strengths (ONEBench's default).
pub const PULL: f64 = 0.01;

impl Samples {
    /// No example yet.
    ///
    /// # Errors
    /// No system, or more than 65,534.
    pub fn new(systems: usize) -> Result<Self> {
        if systems == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        if systems >= usize::from(ABSENT) {
            return Err(EvalError::invalid(WHAT, format!("{systems} systems")));
        }
        Ok(Self {
            systems,
            tasks: Vec::new(),
        })
    }

    /// Adds a task: a row of scores per example, a column per system, more is better, `NaN` where a system was not
    /// measured; every example counts by `weight`. Memory: 2 bytes a system for every different order.
    ///
    /// # Errors
    /// A row of another length, a weight that is not finite or below 0, no examples.
    pub fn add_task<'a>(
        &mut self,
        weight: f64,
        examples: impl IntoIterator<Item = &'a [f64]>,
    ) -> Result<()> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(EvalError::invalid(WHAT, format!("the weight {weight}")));
        }
        let mut known = HashMap::<Vec<u16>, u32>::new();
        let mut task = Task {
            weight,
            orders: Vec::new(),
            of: Vec::new(),
        };
        for scores in examples {
            if scores.len() != self.systems {
                return Err(EvalError::Lengths {
                    what: WHAT,
                    left: scores.len(),
                    right: self.systems,
                });
            }
            let order = order(scores);
            let next = u32::try_from(task.orders.len()).unwrap_or(u32::MAX);
            let place = *known.entry(order.clone()).or_insert(next);
            if place == next {
                task.orders.push(order);
            }
            task.of.push(place);
        }
        if task.of.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        self.tasks.push(task);
        Ok(())
    }

    /// Number of systems.
    pub fn systems(&self) -> usize {
        self.systems
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.tasks.iter().map(|t| t.of.len()).sum()
    }

    /// Number of different orders, task by task.
    pub fn orders(&self) -> usize {
        self.tasks.iter().map(|t| t.orders.len()).sum()
    }

    /// By system, whether some example compares it with another one.
    pub fn compared(&self) -> Vec<bool> {
        let mut found = vec![false; self.systems];
        for order in self
            .tasks
            .iter()
            .filter(|t| t.weight > 0.0)
            .flat_map(|t| &t.orders)
        {
            let there = || order.iter().enumerate().filter(|(_, p)| **p != ABSENT);
            if there().count() > 1 {
                there().for_each(|(s, _)| found[s] = true);
            }
        }
        found
    }

    /// The same examples with the systems whose numbers are given alone.
    fn of_systems(&self, systems: &[usize]) -> Self {
        let task = |task: &Task| Task {
            weight: task.weight,
            orders: task
                .orders
                .iter()
                .map(|order| systems.iter().map(|&s| order[s]).collect())
                .collect(),
            of: task.of.clone(),
        };
        Self {
            systems: systems.len(),
            tasks: self.tasks.iter().map(task).collect(),
        }
    }

    /// Fits strengths to the examples; with `alpha` 0 and examples that do not fix them, [`PULL`] is the penalty. Gives
    /// the strengths (`NaN` for a system that is compared with none) and whether a penalty was used.
    ///
    /// # Errors
    /// An α that is negative or not finite, no comparison, a fit that does not come to rest.
    pub fn fit(&self, model: Model, alpha: f64) -> Result<(Vec<f64>, bool)> {
        let there = self.there()?;
        let (theta, used) = self.of_systems(&there).fit_compared(model, alpha)?;
        Ok((self.spread(&there, &theta, f64::NAN), used))
    }

    /// The systems that are compared with another one.
    fn there(&self) -> Result<Vec<usize>> {
        let compared = self.compared();
        let there: Vec<usize> = (0..self.systems).filter(|&s| compared[s]).collect();
        match there.is_empty() {
            true => Err(EvalError::Empty { what: WHAT }),
            false => Ok(there),
        }
    }

    /// Values of some systems in the places of all.
    fn spread<T: Clone>(&self, there: &[usize], values: &[T], none: T) -> Vec<T> {
        let mut all = vec![none; self.systems];
        there
            .iter()
            .zip(values)
            .for_each(|(&s, v)| all[s] = v.clone());
        all
    }

    fn fit_compared(&self, model: Model, alpha: f64) -> Result<(Vec<f64>, bool)> {
        let once = |task: &Task| {
            let mut counts = vec![0.0; task.orders.len()];
            task.of.iter().for_each(|&o| counts[o as usize] += 1.0);
            counts
        };
        self.fit_counted(model, alpha, self.tasks.iter().map(once))
    }

    fn fit_counted(
        &self,
        model: Model,
        alpha: f64,
        counts: impl Iterator<Item = Vec<f64>>,
    ) -> Result<(Vec<f64>, bool)> {
        let tasks = self.tasks.iter().zip(counts);
        let weighted = tasks.flat_map(|(task, counts)| {
            let orders = task.orders.iter().zip(counts);
            orders.map(|(order, count)| (order, count * task.weight))
        });
        let weighted = weighted.filter(|(_, weight)| *weight > 0.0);
        if model == Model::PlackettLuce {
            let mut choices = Comparisons::new(self.systems)?;
            let mut worse = Vec::new();
            for (order, weight) in weighted {
                let there = || order.iter().enumerate().filter(|(_, p)| **p != ABSENT);
                for (winner, place) in there() {
                    worse.clear();
                    worse.extend(there().filter(|(_, p)| *p < place).map(|(s, _)| s));
                    if !worse.is_empty() {
                        choices.add_choice(winner, &worse, weight)?;
                    }
                }
            }
            return linked(alpha, |alpha| {
                Ok(fit(&choices, Estimator::Ridge, alpha)?.theta)
            });
        }
        let mut games = Games::new(self.systems)?;
        let mut places = vec![f64::NAN; self.systems];
        for (order, weight) in weighted {
            for (place, p) in places.iter_mut().zip(order) {
                *place = if *p == ABSENT {
                    f64::NAN
                } else {
                    f64::from(*p)
                };
            }
            games.count(&places, weight);
        }
        if model == Model::Davidson {
            return linked(alpha, |alpha| Ok(davidson(&games, alpha)?.theta));
        }
        let choices = games.comparisons()?;
        linked(alpha, |alpha| {
            Ok(fit(&choices, Estimator::Ridge, alpha)?.theta)
        })
    }

    /// Strengths with intervals from the bootstrap over the examples within each task: a draw takes as many examples of
    /// every task as it has, all systems seeing the same ones, and fits again. A draw takes its indices task by task.
    ///
    /// Cost: draws times (examples + different orders · systems² + the fit).
    ///
    /// # Errors
    /// As [`Self::fit`]; no draws, a level outside (0, 1).
    pub fn intervals(
        &self,
        model: Model,
        alpha: f64,
        bootstrap: &Bootstrap,
        level: f64,
    ) -> Result<StrengthIntervals> {
        let there = self.there()?;
        let found = self
            .of_systems(&there)
            .intervals_compared(model, alpha, bootstrap, level)?;
        if there.len() == self.systems {
            return Ok(found);
        }
        let none = Interval::new(f64::NAN, f64::NAN);
        let nowhere = RankUncertainty {
            rank: f64::NAN,
            interval: none,
            best: 0.0,
        };
        let draws = found.draws.iter();
        Ok(StrengthIntervals {
            theta: self.spread(&there, &found.theta, f64::NAN),
            interval: self.spread(&there, &found.interval, none),
            ranks: self.spread(&there, &found.ranks, nowhere),
            draws: draws.map(|d| self.spread(&there, d, f64::NAN)).collect(),
            ..found
        })
    }

    fn intervals_compared(
        &self,
        model: Model,
        alpha: f64,
        bootstrap: &Bootstrap,
        level: f64,
    ) -> Result<StrengthIntervals> {
        let (theta, regularised) = self.fit_compared(model, alpha)?;
        let drawn = bootstrap.each(
            || (),
            |(), number| {
                let mut draw = bootstrap.seed.draw(number);
                let counts = self.tasks.iter().map(|task| {
                    let mut counts = vec![0.0; task.orders.len()];
                    for _ in &task.of {
                        let example = draw.index(task.of.len()) as usize;
                        counts[task.of[example] as usize] += 1.0;
                    }
                    counts
                });
                // In order, so that a draw's indices do not depend on how the counts are read.
                let counts: Vec<Vec<f64>> = counts.collect();
                self.fit_counted(model, alpha, counts.into_iter())
            },
        );
        let drawn: Vec<(Vec<f64>, bool)> = drawn.into_iter().collect::<Result<_>>()?;
        let pulled = drawn.iter().filter(|d| d.1 && alpha == 0.0).count();
        let draws: Vec<Vec<f64>> = drawn.into_iter().map(|d| d.0).collect();
        let ranks = uncertainty(WHAT, &theta, &draws, level)?;
        let interval = theta.iter().enumerate().map(|(s, &point)| {
            let values = draws.iter().map(|d| d[s]).collect();
            Replicates { point, values }.percentile(level)
        });
        Ok(StrengthIntervals {
            interval: interval.collect::<Result<_>>()?,
            theta,
            ranks,
            draws,
            pulled,
            regularised,
        })
    }
}

/// Fits, with [`PULL`] where nothing was asked for and the strengths are not fixed.
fn linked(alpha: f64, fit: impl Fn(f64) -> Result<Vec<f64>>) -> Result<(Vec<f64>, bool)> {
    match fit(alpha) {
        Err(EvalError::NotIdentifiable { .. }) => Ok((fit(PULL)?, true)),
        other => Ok((other?, alpha > 0.0)),
    }
}

/// Per system how many distinct worse scores there are.
fn order(scores: &[f64]) -> Vec<u16> {
    let mut there: Vec<usize> = (0..scores.len()).filter(|&s| !scores[s].is_nan()).collect();
    there.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut order = vec![ABSENT; scores.len()];
    let mut place = 0;
    for (at, &s) in there.iter().enumerate() {
        place += u16::from(at > 0 && scores[s] > scores[there[at - 1]]);
        order[s] = place;
    }
    order
}

#[cfg(test)]
mod tests;
