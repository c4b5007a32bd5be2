//! The table that every aggregation reads.

use std::collections::BTreeSet;

use crate::evaluate::rank::average_ranks;
use crate::evaluate::{EvalError, Result};

/// Which end of a metric's scale is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More is better (accuracy).
    Higher,
    /// Less is better (error, perplexity).
    Lower,
}

impl Direction {
    /// The value on a scale where more is better.
    pub fn oriented(self, x: f64) -> f64 {
        match self {
            Self::Higher => x,
            Self::Lower => -x,
        }
    }
}

/// What a task's column of scores means.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskColumn {
    /// Unique name.
    pub name: String,
    /// The good end of the scale; `None` for a number that has none (a count, a cost that nobody ranks by). Such a task
    /// takes part in plain means and in nothing that ranks.
    pub direction: Option<Direction>,
    /// Weight in means, votes and ranks; finite and not negative. 0 leaves the task out.
    pub weight: f64,
    /// Score of guessing.
    pub chance: Option<f64>,
    /// Best score that can be reached (0 for an error rate).
    pub maximum: Option<f64>,
    /// Score of the task's own specialist.
    pub expert: Option<f64>,
    /// Number of examples.
    pub size: Option<u64>,
    /// Name of the group (task type, skill, language) for means of group means.
    pub group: Option<String>,
}

impl TaskColumn {
    /// A task where more is better, of weight 1, with nothing else known.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            direction: Some(Direction::Higher),
            weight: 1.0,
            chance: None,
            maximum: None,
            expert: None,
            size: None,
            group: None,
        }
    }

    /// The same task with a direction.
    #[must_use]
    pub fn with_direction(mut self, direction: Option<Direction>) -> Self {
        self.direction = direction;
        self
    }
}

/// Scores of systems (rows) on tasks (columns); a cell may be missing.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreMatrix {
    systems: Vec<String>,
    tasks: Vec<TaskColumn>,
    /// Row-major; `NaN` is a missing cell.
    cells: Vec<f64>,
}

/// A value per system, and the place that it gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// By system; `NaN` where it is not defined (missing cells under a strict rule, nothing measured).
    pub value: Vec<f64>,
    /// By system, 1 = best; systems with equal values share the smallest place. `None` where the value is `NaN` or where
    /// the values have no common good end.
    pub rank: Vec<Option<usize>>,
    /// By system, how many of the tasks in use have no score.
    pub missing: Vec<usize>,
}

const WHAT: &str = "score matrix";

impl ScoreMatrix {
    /// A matrix of `systems.len()` rows and `tasks.len()` columns; `cells` in row-major order, `NaN` = missing.
    ///
    /// # Errors
    /// No system or task, a wrong number of cells, an infinite score, a name that stands twice, or a weight or reference
    /// that is not finite (a weight must not be negative either).
    pub fn new(systems: Vec<String>, tasks: Vec<TaskColumn>, cells: Vec<f64>) -> Result<Self> {
        if systems.is_empty() || tasks.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        if cells.len() != systems.len() * tasks.len() {
            return Err(EvalError::Lengths {
                what: "cells of a score matrix, systems x tasks",
                left: cells.len(),
                right: systems.len() * tasks.len(),
            });
        }
        unique("system", systems.iter())?;
        unique("task", tasks.iter().map(|t| &t.name))?;
        for task in &tasks {
            if !(task.weight.is_finite() && task.weight >= 0.0) {
                let problem = format!("task {:?} has the weight {}", task.name, task.weight);
                return Err(EvalError::invalid(WHAT, problem));
            }
            let references = [task.chance, task.maximum, task.expert];
            if references.iter().flatten().any(|x| !x.is_finite()) {
                let problem = format!("task {:?} has a reference that is not finite", task.name);
                return Err(EvalError::invalid(WHAT, problem));
            }
        }
        if let Some(at) = cells.iter().position(|x| x.is_infinite()) {
            let (system, task) = (&systems[at / tasks.len()], &tasks[at % tasks.len()].name);
            let problem = format!("system {system:?} has an infinite score on task {task:?}");
            return Err(EvalError::invalid(WHAT, problem));
        }
        Ok(Self {
            systems,
            tasks,
            cells,
        })
    }

    /// Names of the systems.
    pub fn systems(&self) -> &[String] {
        &self.systems
    }

    /// The tasks.
    pub fn tasks(&self) -> &[TaskColumn] {
        &self.tasks
    }

    /// The row of a system; `NaN` = missing.
    pub fn row(&self, system: usize) -> &[f64] {
        &self.cells[system * self.tasks.len()..][..self.tasks.len()]
    }

    /// The column of a task; `NaN` = missing.
    pub fn column(&self, task: usize) -> impl Iterator<Item = f64> + '_ {
        let column = self.cells.iter().skip(task);
        column.step_by(self.tasks.len()).copied()
    }

    /// A score; `None` where it is missing.
    pub fn score(&self, system: usize, task: usize) -> Option<f64> {
        Some(self.row(system)[task]).filter(|x| !x.is_nan())
    }

    /// A column on a scale where more is better; `None` of a task without direction.
    pub fn oriented(&self, task: usize) -> Option<Vec<f64>> {
        let direction = self.tasks[task].direction?;
        Some(self.column(task).map(|x| direction.oriented(x)).collect())
    }

    /// The same table with the systems and tasks whose numbers are named, in that order: boards by tag, one left out.
    ///
    /// # Errors
    /// A number that does not exist, one named twice, or none at all.
    pub fn select(&self, systems: &[usize], tasks: &[usize]) -> Result<Self> {
        let lacks = |what: &str, of: &[usize], n: usize| match of.iter().find(|&&i| i >= n) {
            Some(i) => Err(EvalError::invalid(WHAT, format!("no {what} {i}"))),
            None => Ok(()),
        };
        lacks("system", systems, self.systems.len())?;
        lacks("task", tasks, self.tasks.len())?;
        let cell = |s: usize| tasks.iter().map(move |&t| self.row(s)[t]);
        Self::new(
            systems.iter().map(|&s| self.systems[s].clone()).collect(),
            tasks.iter().map(|&t| self.tasks[t].clone()).collect(),
            systems.iter().flat_map(|&s| cell(s)).collect(),
        )
    }

    /// The tasks that ranks and votes read: those with a direction and a weight above 0, with their numbers.
    pub(crate) fn ranked(&self) -> impl Iterator<Item = (usize, &TaskColumn)> {
        let tasks = self.tasks.iter().enumerate();
        tasks.filter(|(_, t)| t.direction.is_some() && t.weight > 0.0)
    }

    /// Places of the systems on a task, 1 = best, ties averaged, among the systems that have a score; `NaN` for the
    /// others and throughout on a task without direction.
    pub fn ranks(&self, task: usize) -> Vec<f64> {
        let mut ranks = vec![f64::NAN; self.systems.len()];
        let Some(scores) = self.oriented(task) else {
            return ranks;
        };
        let present: Vec<usize> = (0..scores.len()).filter(|&s| !scores[s].is_nan()).collect();
        let worst_first: Vec<f64> = present.iter().map(|&s| -scores[s]).collect();
        for (&s, rank) in present.iter().zip(average_ranks(&worst_first)) {
            ranks[s] = rank;
        }
        ranks
    }

    /// By system, how many of the given tasks have no score.
    pub(crate) fn missing(&self, tasks: &[usize]) -> Vec<usize> {
        let row = |s| tasks.iter().filter(|&&t| self.row(s)[t].is_nan()).count();
        (0..self.systems.len()).map(row).collect()
    }
}

impl Standing {
    /// Values and the places they give; `good` is the good end of the values, `None` where they have none.
    pub fn new(value: Vec<f64>, missing: Vec<usize>, good: Option<Direction>) -> Self {
        let rank = match good {
            Some(direction) => places(&value, direction),
            None => vec![None; value.len()],
        };
        Self {
            value,
            rank,
            missing,
        }
    }
}

/// Places, 1 = best; equal values share the smallest one, `NaN` has none. O(n log n).
pub fn places(values: &[f64], good: Direction) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| !values[i].is_nan()).collect();
    let key = |i: usize| good.oriented(values[i]);
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    let mut places = vec![None; values.len()];
    let mut last: Option<(f64, usize)> = None;
    for (at, &i) in order.iter().enumerate() {
        let place = match last {
            Some((value, place)) if value == values[i] => place,
            _ => at + 1,
        };
        places[i] = Some(place);
        last = Some((values[i], place));
    }
    places
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(EvalError::invalid(WHAT, format!("two {what}s {name:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A matrix of rows; `lower` lists the tasks where less is better.
    pub(crate) fn matrix(rows: &[&[f64]], lower: &[usize]) -> ScoreMatrix {
        let tasks = (0..rows[0].len()).map(|t| {
            let lower = lower.contains(&t).then_some(Direction::Lower);
            TaskColumn::new(format!("t{t}")).with_direction(lower.or(Some(Direction::Higher)))
        });
        let systems = (0..rows.len()).map(|s| format!("s{s}")).collect();
        ScoreMatrix::new(systems, tasks.collect(), rows.concat()).unwrap()
    }

    #[test]
    fn ranks_pass_over_missing_cells() {
        let m = matrix(
            &[&[1.0, 5.0], &[f64::NAN, 5.0], &[0.0, 9.0], &[2.0, 1.0]],
            &[1],
        );
        let ranks = m.ranks(0);
        assert_eq!((ranks[0], ranks[2], ranks[3]), (2.0, 3.0, 1.0));
        assert!(ranks[1].is_nan());
        assert_eq!(m.ranks(1), [2.5, 2.5, 4.0, 1.0]);
        assert_eq!(m.missing(&[0, 1]), [0, 1, 0, 0]);
        assert_eq!(m.score(1, 0), None);
    }

    #[test]
    fn a_part_keeps_names() {
        let m = matrix(&[&[1.0, 5.0], &[3.0, 4.0]], &[]);
        let part = m.select(&[1], &[1, 0]).unwrap();
        assert_eq!(part.row(0), [4.0, 3.0]);
        assert_eq!(
            (&part.systems()[0][..], &part.tasks()[0].name[..]),
            ("s1", "t1")
        );
        assert!(m.select(&[2], &[0]).is_err());
        assert!(m.select(&[], &[0]).is_err());
        assert!(m.select(&[0, 0], &[0]).is_err());
    }

    #[test]
    fn ties_share_the_smallest_place() {
        let values = [2.0, 3.0, f64::NAN, 3.0, 1.0];
        let up = [Some(3), Some(1), None, Some(1), Some(4)];
        assert_eq!(places(&values, Direction::Higher), up);
        let down = [Some(2), Some(3), None, Some(3), Some(1)];
        assert_eq!(places(&values, Direction::Lower), down);
        assert_eq!(places(&[0.0, -0.0], Direction::Higher), [Some(1), Some(1)]);
    }

    #[test]
    fn bad_tables_are_refused() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        let tasks = |n: usize| {
            names(n)
                .into_iter()
                .map(TaskColumn::new)
                .collect::<Vec<_>>()
        };
        assert!(ScoreMatrix::new(vec![], tasks(1), vec![]).is_err());
        assert!(ScoreMatrix::new(names(2), tasks(2), vec![0.0; 3]).is_err());
        assert!(ScoreMatrix::new(names(1), tasks(1), vec![f64::INFINITY]).is_err());
        let twice = vec!["a".to_owned(); 2];
        assert!(ScoreMatrix::new(twice, tasks(1), vec![0.0; 2]).is_err());
        let mut negative = tasks(1);
        negative[0].weight = -1.0;
        assert!(ScoreMatrix::new(names(1), negative, vec![0.0]).is_err());
        let mut unknown = tasks(1);
        unknown[0].expert = Some(f64::NAN);
        assert!(ScoreMatrix::new(names(1), unknown, vec![0.0]).is_err());
    }
}
