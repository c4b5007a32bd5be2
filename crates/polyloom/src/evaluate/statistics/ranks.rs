//! How sure a ranking is: the places that systems take when the tasks, or the examples within each task, are drawn again.
//!
//! The two answer different questions and are kept apart: over tasks, "would another collection of such tasks rank them
//! so?"; over examples, "would other examples of these same tasks?".

use super::bootstrap::Bootstrap;
use super::friedman::{check_table, mean_scores, ranks_from_best};
use super::replicates::quantile_of_sorted;
use super::{Interval, check_finite, check_level};
use crate::evaluate::error::{EvalError, Result};
use crate::evaluate::sum::{Sum, mean};

/// The place of one system, 1 the best, ties sharing the mean place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankUncertainty {
    /// Place on the data as they are.
    pub rank: f64,
    /// The middle `level` of the places over the draws.
    pub interval: Interval,
    /// Share of the draws in which the system is best; where several tie for it they share the draw.
    pub best: f64,
}

/// Ranks by mean score over tasks that are drawn with replacement: one row of scores (higher is better, on one scale) per
/// task, one column per system.
///
/// Cost: draws times n k. All systems see the same drawn tasks.
///
/// # Errors
/// No tasks or draws, fewer than two systems, rows of different lengths, a score that is not finite, or a level outside
/// (0, 1).
pub fn over_tasks(
    tasks: &[Vec<f64>],
    bootstrap: &Bootstrap,
    level: f64,
) -> Result<Vec<RankUncertainty>> {
    const WHAT: &str = "ranks over tasks";
    let systems = tasks.first().map_or(0, Vec::len);
    check_table(WHAT, tasks, systems)?;
    let scores = |totals: &mut Vec<Sum>, number| {
        totals.fill(Sum::default());
        let mut draw = bootstrap.seed.draw(number);
        for _ in tasks {
            let row = &tasks[draw.index(tasks.len()) as usize];
            row.iter().zip(&mut *totals).for_each(|(x, t)| t.add(*x));
        }
        totals.iter().map(Sum::mean).collect()
    };
    let draws = bootstrap.each(|| vec![Sum::default(); systems], scores);
    uncertainty(WHAT, &mean_scores(tasks, systems), &draws, level)
}

/// Ranks by the mean over tasks of the mean over examples that are drawn with replacement within each task:
/// `examples[task][system][example]`, higher is better.
///
/// Within a task all systems see the same drawn examples; a draw takes its indices task by task. Cost: draws times all
/// values.
///
/// # Errors
/// No tasks, examples or draws, fewer than two systems, a task with another number of systems or systems with different
/// numbers of examples, a value that is not finite, or a level outside (0, 1).
pub fn over_examples(
    examples: &[Vec<Vec<f64>>],
    bootstrap: &Bootstrap,
    level: f64,
) -> Result<Vec<RankUncertainty>> {
    const WHAT: &str = "ranks over examples";
    let systems = examples.first().map_or(0, Vec::len);
    let mut observed = Vec::with_capacity(examples.len());
    for (i, task) in examples.iter().enumerate() {
        let n = task.first().map_or(0, Vec::len);
        if n == 0 || task.iter().any(|values| values.len() != n) {
            let problem = format!("task {i}: systems need the same examples, and at least one");
            return Err(EvalError::invalid(WHAT, problem));
        }
        for values in task {
            check_finite(WHAT, values)?;
        }
        observed.push(task.iter().map(|v| mean(v.iter().copied())).collect());
    }
    check_table(WHAT, &observed, systems)?;
    let scores = |indices: &mut Vec<usize>, number| {
        let mut draw = bootstrap.seed.draw(number);
        let mut totals = vec![Sum::default(); systems];
        for task in examples {
            let n = task[0].len();
            indices.clear();
            indices.extend((0..n).map(|_| draw.index(n) as usize));
            for (values, total) in task.iter().zip(&mut totals) {
                total.add(mean(indices.iter().map(|&i| values[i])));
            }
        }
        totals.iter().map(Sum::mean).collect()
    };
    let draws = bootstrap.each(Vec::new, scores);
    uncertainty(WHAT, &mean_scores(&observed, systems), &draws, level)
}

/// Places from what systems have on the data (`observed`, more is better) and on every draw.
///
/// # Errors
/// No draws, a level outside (0, 1).
pub(crate) fn uncertainty(
    what: &'static str,
    observed: &[f64],
    draws: &[Vec<f64>],
    level: f64,
) -> Result<Vec<RankUncertainty>> {
    check_level(what, level)?;
    if draws.is_empty() {
        return Err(EvalError::Empty { what });
    }
    let ranks: Vec<Vec<f64>> = draws.iter().map(|scores| ranks_from_best(scores)).collect();
    let mut best = vec![Sum::default(); observed.len()];
    for draw in &ranks {
        let first = draw.iter().copied().fold(f64::INFINITY, f64::min);
        let tied = draw.iter().filter(|&&r| r == first).count() as f64;
        let share = |r: &f64| if *r == first { 1.0 / tied } else { 0.0 };
        draw.iter()
            .zip(&mut best)
            .for_each(|(r, b)| b.add(share(r)));
    }
    let tail = 0.5 * (1.0 - level);
    let of = |(system, rank): (usize, f64)| {
        let mut places: Vec<f64> = ranks.iter().map(|draw| draw[system]).collect();
        places.sort_unstable_by(f64::total_cmp);
        let at = |p| quantile_of_sorted(&places, p);
        RankUncertainty {
            rank,
            interval: Interval::new(at(tail), at(1.0 - tail)),
            best: best[system].mean(),
        }
    };
    let observed = ranks_from_best(observed).into_iter();
    Ok(observed.enumerate().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::super::draw::Seed;
    use super::*;

    fn bootstrap() -> Bootstrap {
        Bootstrap::new(Seed::of("suite", "mean")).with_draws(400)
    }

    #[test]
    fn a_clear_winner_and_two_alike() {
        let tasks: Vec<Vec<f64>> = (0..12)
            .map(|i| {
                let swing = if i % 2 == 0 { 0.1 } else { -0.1 };
                vec![0.5 + swing, 0.9, 0.5 - swing]
            })
            .collect();
        let found = over_tasks(&tasks, &bootstrap(), 0.95).unwrap();
        assert_eq!(found[1].rank, 1.0);
        assert_eq!(
            (found[1].best, found[1].interval),
            (1.0, Interval::new(1.0, 1.0))
        );
        for system in [0, 2] {
            assert_eq!(found[system].interval, Interval::new(2.0, 3.0));
        }
    }

    #[test]
    fn one_example_leaves_no_doubt_and_ties_share() {
        let examples = vec![vec![vec![1.0], vec![1.0], vec![0.0]]; 2];
        let found = over_examples(&examples, &bootstrap(), 0.9).unwrap();
        for system in &found[..2] {
            assert_eq!((system.rank, system.best), (1.5, 0.5));
        }
        assert_eq!(found[2].interval, Interval::new(3.0, 3.0));
    }

    #[test]
    fn examples_of_a_task_are_shared() {
        // The first is better by the same on every example: no draw can turn them round.
        let values: Vec<f64> = (0..30).map(|i| f64::from(i % 7)).collect();
        let above = values.iter().map(|x| x + 0.25).collect();
        let found = over_examples(&[vec![above, values]], &bootstrap(), 0.9).unwrap();
        assert_eq!((found[0].best, found[1].best), (1.0, 0.0));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(over_tasks(&[], &bootstrap(), 0.9).is_err());
        assert!(over_tasks(&[vec![1.0, 2.0]], &bootstrap().with_draws(0), 0.9).is_err());
        assert!(over_tasks(&[vec![1.0, 2.0]], &bootstrap(), 1.0).is_err());
        assert!(over_examples(&[vec![vec![], vec![]]], &bootstrap(), 0.9).is_err());
        assert!(over_examples(&[vec![vec![1.0], vec![1.0, 2.0]]], &bootstrap(), 0.9).is_err());
    }
}
