//! Means over tasks (methods/evaluation.md 3.1).

use std::collections::BTreeMap;

use super::matrix::{Direction, ScoreMatrix, Standing};
use crate::evaluate::sum::{Sum, mean};
use crate::evaluate::{EvalError, Result, error::same_length};

/// What a missing cell does to a system's mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// The mean is missing too (`mteb`'s `skipna=False`).
    #[default]
    Strict,
    /// The mean is over what is there. Systems measured on different tasks then stand side by side: show the counts of
    /// missing cells with it.
    Skip,
}

/// Macro mean: every task counts by its weight (1 unless set), not by its size. The value is on the scale of the scores
/// themselves, so it means something only where the tasks share one; a rank is given only where they share a good end.
pub fn task_mean(matrix: &ScoreMatrix, missing: Missing) -> Standing {
    let weights: Vec<f64> = matrix.tasks().iter().map(|t| t.weight).collect();
    weighted(matrix, &weights, missing)
}

/// Micro mean: every example counts the same, so a task counts by its number of examples (times its weight).
///
/// # Errors
/// A task of weight above 0 whose size is not known.
pub fn size_weighted_mean(matrix: &ScoreMatrix, missing: Missing) -> Result<Standing> {
    let weights = matrix.tasks().iter().map(|task| match task.size {
        Some(n) => Ok(task.weight * n as f64),
        None if task.weight == 0.0 => Ok(0.0),
        None => {
            let problem = format!("the size of task {:?} is not known", task.name);
            Err(EvalError::invalid("size-weighted mean", problem))
        }
    });
    let weights: Vec<f64> = weights.collect::<Result<_>>()?;
    Ok(weighted(matrix, &weights, missing))
}

/// Mean of the means of groups (`mteb`'s "Mean (TaskType)"): every group counts the same, whatever its number of tasks;
/// inside a group tasks count by their weight. Under [`Missing::Skip`] a group of which a system has nothing is left out.
///
/// # Errors
/// A task of weight above 0 without a group.
pub fn group_mean(matrix: &ScoreMatrix, missing: Missing) -> Result<Standing> {
    let mut groups = BTreeMap::<&str, Vec<f64>>::new();
    let tasks = matrix.tasks();
    for (t, task) in tasks.iter().enumerate().filter(|(_, t)| t.weight > 0.0) {
        let Some(group) = &task.group else {
            let problem = format!("task {:?} has no group", task.name);
            return Err(EvalError::invalid("mean of group means", problem));
        };
        let weights = groups
            .entry(group)
            .or_insert_with(|| vec![0.0; tasks.len()]);
        weights[t] = task.weight;
    }
    let per_group = groups.values().map(|w| weighted(matrix, w, missing).value);
    let per_group: Vec<Vec<f64>> = per_group.collect();
    let value = (0..matrix.systems().len()).map(|s| {
        let all = per_group.iter().map(|g| g[s]);
        mean(all.filter(|x| missing == Missing::Strict || !x.is_nan()))
    });
    let value = value.collect();
    let weights: Vec<f64> = tasks.iter().map(|t| t.weight).collect();
    Ok(standing(matrix, &weights, value))
}

/// Standard error of a size-weighted mean of task means from the tasks' own standard errors, as lm-evaluation-harness
/// pools them: sqrt(Σ (n−1) n se² / (Σn − T) / Σn). It pools the variances within tasks and ignores the spread between
/// them. `NaN` where every task has one example.
///
/// # Errors
/// Lists that are empty or of different lengths, a task without examples.
pub fn pooled_stderr(sizes: &[u64], stderrs: &[f64]) -> Result<f64> {
    const WHAT: &str = "pooled standard error";
    same_length(WHAT, sizes.len(), stderrs.len())?;
    if sizes.contains(&0) {
        return Err(EvalError::invalid(WHAT, "a task without examples"));
    }
    let total: f64 = sizes.iter().map(|&n| n as f64).sum();
    let terms = sizes.iter().zip(stderrs);
    let spread: Sum = terms
        .map(|(&n, se)| (n as f64 - 1.0) * n as f64 * se * se)
        .collect();
    let freedom = total - sizes.len() as f64;
    Ok((spread.total() / freedom / total).sqrt())
}

/// Standard error of an unweighted mean of task means: sqrt(Σ se²) / T, the tasks taken as given and independent.
///
/// # Errors
/// No task.
pub fn macro_stderr(stderrs: &[f64]) -> Result<f64> {
    same_length("macro standard error", stderrs.len(), stderrs.len())?;
    let squares: Sum = stderrs.iter().map(|se| se * se).collect();
    Ok(squares.total().sqrt() / stderrs.len() as f64)
}

fn weighted(matrix: &ScoreMatrix, weights: &[f64], missing: Missing) -> Standing {
    let value = (0..matrix.systems().len()).map(|s| {
        let (mut scores, mut total) = (Sum::default(), Sum::default());
        for (&x, &w) in matrix.row(s).iter().zip(weights).filter(|(_, w)| **w > 0.0) {
            if !x.is_nan() {
                scores.add(w * x);
                total.add(w);
            } else if missing == Missing::Strict {
                return f64::NAN;
            }
        }
        scores.total() / total.total()
    });
    let value = value.collect();
    standing(matrix, weights, value)
}

fn standing(matrix: &ScoreMatrix, weights: &[f64], value: Vec<f64>) -> Standing {
    let used: Vec<usize> = (0..weights.len()).filter(|&t| weights[t] > 0.0).collect();
    Standing::new(value, matrix.missing(&used), common_end(matrix, &used))
}

/// The good end that all of the tasks share.
fn common_end(matrix: &ScoreMatrix, tasks: &[usize]) -> Option<Direction> {
    let first = matrix.tasks()[*tasks.first()?].direction;
    let shared = |&t: &usize| matrix.tasks()[t].direction == first;
    first.filter(|_| tasks.iter().all(shared))
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::matrix;
    use super::*;

    #[test]
    fn strict_and_skip() {
        let m = matrix(&[&[1.0, f64::NAN, 3.0], &[2.0, 2.0, 5.0]], &[]);
        let strict = task_mean(&m, Missing::Strict);
        assert!(strict.value[0].is_nan());
        assert_eq!(
            (strict.value[1], &strict.rank[..]),
            (3.0, &[None, Some(1)][..])
        );
        let skip = task_mean(&m, Missing::Skip);
        assert_eq!(skip.value, [2.0, 3.0]);
        assert_eq!((&skip.missing[..], skip.rank[0]), (&[1, 0][..], Some(2)));
    }

    #[test]
    fn mixed_directions_have_no_rank() {
        let m = matrix(&[&[1.0, 5.0], &[2.0, 9.0]], &[1]);
        assert_eq!(task_mean(&m, Missing::Strict).rank, [None, None]);
        let errors = matrix(&[&[1.0, 5.0], &[2.0, 9.0]], &[0, 1]);
        let rank = task_mean(&errors, Missing::Strict).rank;
        assert_eq!(rank, [Some(1), Some(2)]);
    }

    fn grouped() -> ScoreMatrix {
        let m = matrix(&[&[0.2, 0.4, 0.9], &[0.0, 0.0, 1.0]], &[]);
        let mut tasks = m.tasks().to_vec();
        for (task, (group, n)) in tasks.iter_mut().zip([("a", 10), ("a", 30), ("b", 60)]) {
            (task.group, task.size) = (Some(group.into()), Some(n));
        }
        let cells = [m.row(0), m.row(1)].concat();
        ScoreMatrix::new(m.systems().to_vec(), tasks, cells).unwrap()
    }

    #[test]
    fn sizes_and_groups() {
        let m = grouped();
        let micro = size_weighted_mean(&m, Missing::Strict).unwrap().value;
        assert!((micro[0] - 0.68).abs() < 1e-15 && (micro[1] - 0.6).abs() < 1e-15);
        let groups = group_mean(&m, Missing::Strict).unwrap();
        assert!((groups.value[0] - 0.6).abs() < 1e-15);
        assert_eq!((groups.value[1], groups.rank[0]), (0.5, Some(1)));
        let plain = matrix(&[&[1.0]], &[]);
        assert!(group_mean(&plain, Missing::Skip).is_err());
        assert!(size_weighted_mean(&plain, Missing::Skip).is_err());
    }

    #[test]
    fn standard_errors() {
        // Two tasks of 3 examples: (2·3·s² + 2·3·s²) / 4 / 6 = s² / 2.
        let se = pooled_stderr(&[3, 3], &[0.2, 0.2]).unwrap();
        assert!((se - 0.2 / 2f64.sqrt()).abs() < 1e-15);
        assert!((macro_stderr(&[0.3, 0.4]).unwrap() - 0.25).abs() < 1e-15);
        assert!(pooled_stderr(&[1], &[0.1]).unwrap().is_nan());
        assert!(pooled_stderr(&[0], &[0.1]).is_err());
        assert!(macro_stderr(&[]).is_err());
    }
}
