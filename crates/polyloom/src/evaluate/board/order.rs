//! A leaderboard's order and how sure it is: the same for `board` and `report`.

use super::counting::Aggregate;
use super::import::TaskAnswers;
use super::ranking::{Ranked, rank};
use super::results::Results;
use super::uncertainty::{Settings, Uncertainty, over_examples, over_tasks};
use crate::error::{MergeError, Result};
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use rayon::prelude::*;

/// Pairs of systems looked at for the share that is told apart.
const MOST_PAIRS: usize = 20_000;

/// Systems in order.
#[derive(Debug, Clone)]
pub struct Order {
    /// Numbers and places.
    pub ranked: Ranked,
    /// Systems, best first, in the order of the table where they tie; those without a place last.
    pub systems: Vec<usize>,
    /// Over draws of tasks.
    pub tasks: Option<Uncertainty>,
    /// Over draws of examples, or of scores by their standard errors.
    pub examples: Option<Uncertainty>,
    /// Why there are no draws at all.
    pub why_no_draws: Option<String>,
}

impl Order {
    /// Orders the systems of a table. `answers` are the single answers behind its scores, if any.
    ///
    /// # Errors
    /// What [`rank`] refuses, and numbers that have no good end.
    pub fn of(
        by: Aggregate,
        results: &Results,
        answers: &[TaskAnswers],
        matrix: &ScoreMatrix,
        settings: &Settings,
    ) -> Result<Self> {
        let ranked = rank(by, matrix, settings.missing, answers)?;
        let known = ranked.standing.value.iter().any(|x| !x.is_nan());
        if ranked.good.is_none() && known {
            return Err(no_good_end(by, matrix));
        }
        let place = &ranked.standing.rank;
        let mut systems: Vec<usize> = (0..place.len()).collect();
        systems.sort_by_key(|&s| place[s].unwrap_or(usize::MAX));
        let (tasks, examples) = match place.len() {
            1 => (Err("there is one system".into()), Err(String::new())),
            _ => (
                over_tasks(by, matrix, settings),
                over_examples(by, results, answers, matrix, settings),
            ),
        };
        let why_no_draws = match (&tasks, &examples) {
            (Err(a), Err(b)) if b.is_empty() || a == b => Some(a.clone()),
            (Err(a), Err(b)) => Some(format!("{a}, and {b}")),
            _ => None,
        };
        Ok(Self {
            ranked,
            systems,
            tasks: tasks.ok(),
            examples: examples.ok(),
            why_no_draws,
        })
    }

    /// The draws that decide what is resolved: of tasks, else of examples.
    pub fn draws(&self) -> Option<&Uncertainty> {
        self.tasks.as_ref().or(self.examples.as_ref())
    }

    /// The draws that are shown beside those.
    pub fn second(&self) -> Option<&Uncertainty> {
        self.tasks.as_ref().and(self.examples.as_ref())
    }

    /// How many systems have a place.
    pub fn placed(&self) -> usize {
        self.ranked.standing.rank.iter().flatten().count()
    }

    /// Whether some draws tell the systems at two positions of the order apart, the first of them above; `None` where
    /// one has no place.
    pub fn told_apart(&self, draws: &Uncertainty, above: usize, below: usize) -> Option<bool> {
        let at = |i: usize| {
            let s = *self.systems.get(i)?;
            self.ranked.standing.rank[s].map(|_| s)
        };
        Some(draws.resolved(at(above)?, at(below)?))
    }

    /// Whether the system at a position of the order is told from the one above it; `None` without draws or place.
    pub fn resolved(&self, at: usize) -> Option<bool> {
        self.told_apart(self.draws()?, at.checked_sub(1)?, at)
    }

    /// Where the first system was measured on less than half of the tasks that count: on how many, and of how many. Its
    /// place rests on these alone.
    pub fn first_rests_on(&self, matrix: &ScoreMatrix) -> Option<(usize, usize)> {
        let first = *self.systems.first()?;
        self.ranked.standing.rank[first]?;
        let tasks = self.ranked.by.tasks_of(matrix);
        let row = matrix.row(first);
        let measured = tasks.iter().filter(|&&t| !row[t].is_nan()).count();
        (2 * measured < tasks.len()).then_some((measured, tasks.len()))
    }

    /// Share of all pairs of placed systems that are told apart; `None` without draws or of too many.
    pub fn resolved_share(&self) -> Option<f64> {
        let (draws, n) = (self.draws()?, self.placed());
        let pairs = n * n.saturating_sub(1) / 2;
        if !(1..=MOST_PAIRS).contains(&pairs) {
            return None;
        }
        let told = |a: usize| {
            let below = a + 1..n;
            below
                .filter(|&b| draws.resolved(self.systems[a], self.systems[b]))
                .count()
        };
        let told: usize = (0..n).into_par_iter().map(told).sum();
        Some(told as f64 / pairs as f64)
    }
}

fn no_good_end(by: Aggregate, matrix: &ScoreMatrix) -> MergeError {
    let mut counted = matrix.tasks().iter().filter(|t| t.weight > 0.0);
    let first = counted.next().and_then(|t| t.direction);
    let other = match first {
        None => matrix.tasks().iter().find(|t| t.direction.is_none()),
        first => counted.find(|t| t.direction != first),
    };
    let name = other.map_or("?", |t| t.name.as_str());
    let has = match (first, other.and_then(|t| t.direction)) {
        (_, None) => "has none",
        (_, Some(Direction::Lower)) => "is better when lower",
        (_, Some(Direction::Higher)) => "is better when higher",
    };
    MergeError::plan(
        "no-good-end",
        format!("{by} needs one good end of all tasks, and task `{name}` {has}"),
    )
    .hint("win_rate, borda and bt look at each task's own; --where 'task!=...' leaves tasks out")
}
