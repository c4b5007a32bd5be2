//! Borda consensus of rankings at the level of tasks or of single instances ("What are the best systems?", Colombo et al.
//! 2022; methods/evaluation.md 3.3).
//!
//! Scores are higher-is-better here. Their code ranks by a double argsort, so that equal scores get points by the order of
//! the array; here equal scores share the mean of their points.

use crate::evaluate::rank::average_ranks;
use crate::evaluate::{EvalError, Result, error::same_length};

const WHAT: &str = "Borda consensus";

/// Points of every system over rankings: in each list (one score per system) a system gets a point per system that it
/// beats, half for a tie. O(lists · n log n).
///
/// # Errors
/// No list, lists of different lengths, an empty one, a `NaN`.
pub fn borda_count(lists: &[Vec<f64>]) -> Result<Vec<f64>> {
    let first = lists.first().ok_or(EvalError::Empty { what: WHAT })?;
    let mut points = vec![0.0; first.len()];
    for list in lists {
        same_length(WHAT, first.len(), list.len())?;
        if list.iter().any(|x| x.is_nan()) {
            return Err(EvalError::invalid(WHAT, "a score is NaN"));
        }
        for (sum, rank) in points.iter_mut().zip(average_ranks(list)) {
            *sum += rank - 1.0;
        }
    }
    Ok(points)
}

/// Consensus from single instances.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceConsensus {
    /// Points over the pooled rankings of all instances of all tasks; a task counts by its number of instances.
    pub one_level: Vec<f64>,
    /// Per task, points over its instances.
    pub per_task: Vec<Vec<f64>>,
    /// Points over the rankings that `per_task` gives: every task counts the same. The authors' recommendation.
    pub two_level: Vec<f64>,
}

/// Consensus from instances: `tasks[t]` holds the lists of task `t`, one list of scores (by system) per instance.
///
/// # Errors
/// As [`borda_count`], or no task.
pub fn instance_consensus(tasks: &[Vec<Vec<f64>>]) -> Result<InstanceConsensus> {
    let per_task: Vec<Vec<f64>> = tasks
        .iter()
        .map(|t| borda_count(t))
        .collect::<Result<_>>()?;
    let two_level = borda_count(&per_task)?;
    let mut one_level = vec![0.0; two_level.len()];
    for points in &per_task {
        for (sum, x) in one_level.iter_mut().zip(points) {
            *sum += x;
        }
    }
    Ok(InstanceConsensus {
        one_level,
        per_task,
        two_level,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tasks_do_not_decide_at_two_levels() {
        let large = vec![vec![1.0, 2.0]; 5];
        let small = vec![vec![2.0, 1.0]];
        let found = instance_consensus(&[large, small.clone(), small]).unwrap();
        assert_eq!(found.one_level, [2.0, 5.0]);
        assert_eq!(found.two_level, [2.0, 1.0]);
        assert_eq!(found.per_task[0], [0.0, 5.0]);
    }

    #[test]
    fn ties_share_points() {
        assert_eq!(
            borda_count(&[vec![1.0, 1.0, 0.0]]).unwrap(),
            [1.5, 1.5, 0.0]
        );
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(borda_count(&[]).is_err());
        assert!(borda_count(&[vec![]]).is_err());
        assert!(borda_count(&[vec![1.0], vec![1.0, 2.0]]).is_err());
        assert!(borda_count(&[vec![f64::NAN]]).is_err());
        assert!(instance_consensus(&[]).is_err());
        assert!(instance_consensus(&[vec![vec![1.0]], vec![vec![1.0, 2.0]]]).is_err());
    }
}
