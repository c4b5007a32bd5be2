//! Every pair of systems over several tasks: Wilcoxon's signed-rank test with Holm's correction, the sharper alternative
//! to Nemenyi's test (Benavoli, Corani and Mangili, 2016).

use super::friedman::{Cliques, check_table, cliques, mean_scores, ranks_from_best};
use super::multiplicity::{Correction, adjust};
use super::wilcoxon::{Zeros, wilcoxon};
use crate::evaluate::error::Result;
use crate::evaluate::sum::Sum;

/// Two systems compared over the tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Index of the first system.
    pub first: usize,
    /// Index of the second system, above the first.
    pub second: usize,
    /// Mean score of the first less that of the second.
    pub difference: f64,
    /// p-value of the pair alone; 1 where the two score alike on every task.
    pub p: f64,
    /// p-value corrected over all pairs.
    pub adjusted: f64,
}

/// All pairs of systems, and the groups that are not told apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairwise {
    /// The pairs: (0, 1), (0, 2), …, (1, 2), …
    pub pairs: Vec<Pair>,
    /// Mean rank of each system, 1 the best.
    pub mean_ranks: Vec<f64>,
    systems: usize,
}

/// Compares all pairs of systems: one row of scores (higher is better) per task, one column per system.
///
/// Cost: O(k^2 n log n). Few tasks cannot show anything: six tasks reach p = 0.03 for a pair at best, before correction.
///
/// # Errors
/// No tasks, fewer than two systems, rows of different lengths, or a score that is not finite.
pub fn pairwise(tasks: &[Vec<f64>], zeros: Zeros, correction: Correction) -> Result<Pairwise> {
    let systems = tasks.first().map_or(0, Vec::len);
    check_table("pairwise comparison", tasks, systems)?;
    let columns: Vec<Vec<f64>> = (0..systems)
        .map(|system| tasks.iter().map(|row| row[system]).collect())
        .collect();
    let means = mean_scores(tasks, systems);
    let mut pairs = Vec::with_capacity(systems * (systems - 1) / 2);
    for first in 0..systems {
        for second in first + 1..systems {
            let p = wilcoxon(&columns[first], &columns[second], zeros)?.p_value();
            pairs.push(Pair {
                first,
                second,
                difference: means[first] - means[second],
                p: if p.is_nan() { 1.0 } else { p },
                adjusted: f64::NAN,
            });
        }
    }
    let p: Vec<f64> = pairs.iter().map(|pair| pair.p).collect();
    for (pair, adjusted) in pairs.iter_mut().zip(adjust(&p, correction)?) {
        pair.adjusted = adjusted;
    }
    let mut totals = vec![Sum::default(); systems];
    for row in tasks {
        let ranks = ranks_from_best(row);
        ranks
            .into_iter()
            .zip(&mut totals)
            .for_each(|(r, t)| t.add(r));
    }
    Ok(Pairwise {
        pairs,
        mean_ranks: totals.iter().map(Sum::mean).collect(),
        systems,
    })
}

impl Pairwise {
    /// The comparison of two different systems, in either order; `None` for others.
    pub fn pair(&self, a: usize, b: usize) -> Option<&Pair> {
        let (first, second) = (a.min(b), a.max(b));
        if first == second || second >= self.systems {
            return None;
        }
        // Pairs that begin with a lower system come before.
        let before = first * (2 * self.systems - first - 1) / 2;
        self.pairs.get(before + second - first - 1)
    }

    /// Groups of systems of which no pair differs at level `alpha`.
    pub fn cliques(&self, alpha: f64) -> Cliques {
        let same = |a, b| self.pair(a, b).is_none_or(|pair| pair.adjusted > alpha);
        cliques(&self.mean_ranks, same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_system_apart() {
        // Systems 0 and 1 swap places by task, system 2 is far below on all ten.
        let tasks: Vec<Vec<f64>> = (0..10)
            .map(|i| {
                let x = f64::from(i);
                vec![50.0 + x, 50.0 + x + (x - 4.4), 10.0 - x]
            })
            .collect();
        let found = pairwise(&tasks, Zeros::Wilcox, Correction::Holm).unwrap();
        assert_eq!(found.pairs.len(), 3);
        for (a, b) in [(0, 1), (0, 2), (1, 2), (2, 1)] {
            let pair = found.pair(a, b).unwrap();
            assert_eq!((pair.first, pair.second), (a.min(b), a.max(b)));
        }
        assert!(found.pair(1, 1).is_none() && found.pair(0, 3).is_none());
        // All ten one way: 2 / 2^10, times the two or three pairs of Holm's steps.
        let pair = found.pair(0, 2).unwrap();
        assert!((pair.p - 2.0 / 1024.0).abs() < 1e-15);
        assert!((pair.adjusted - 6.0 / 1024.0).abs() < 1e-15);
        assert!((pair.difference - 49.0).abs() < 1e-12);
        assert!(found.pair(0, 1).unwrap().adjusted > 0.5);
        let groups = found.cliques(0.05);
        assert_eq!((groups.order[2], groups.groups), (2, vec![(0, 1)]));
    }

    #[test]
    fn equal_systems_do_not_differ() {
        let tasks = vec![vec![0.5, 0.5, 0.1]; 6];
        let found = pairwise(&tasks, Zeros::Pratt, Correction::Holm).unwrap();
        assert_eq!(found.pair(0, 1).unwrap().adjusted, 1.0);
        assert!(pairwise(&[vec![1.0]], Zeros::Wilcox, Correction::Holm).is_err());
    }
}
