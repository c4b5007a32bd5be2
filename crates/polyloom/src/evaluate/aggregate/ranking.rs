//! Ranks instead of means: mean rank, Borda, win rate, Copeland, Condorcet (methods/evaluation.md 3.3).
//!
//! A task without direction or with weight 0 takes no part. Weights multiply what a task gives; with all weights 1 the
//! numbers are those of the peers, who know no weights.

use super::matrix::{Direction, ScoreMatrix, Standing};
use crate::evaluate::sum::{Sum, mean};

/// How points are counted where systems are missing from a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Borda {
    /// A system gets a point per system beaten there, half a point per tie: systems that were not measured give nothing.
    Beaten,
    /// A system gets n − rank points with n = all systems of the table, so being measured beside absent systems pays;
    /// who is absent gets 0 (`mteb` 2).
    AllSystems,
}

/// How the win rates of the tasks become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// Their mean, by the weights of the tasks.
    Mean,
    /// Their median; weights do not count.
    Median,
}

/// Mean place over the tasks on which the system was measured; less is better.
pub fn mean_rank(matrix: &ScoreMatrix) -> Standing {
    let (mut ranks, mut weights) = sums(matrix);
    for (t, task) in matrix.ranked() {
        for (s, rank) in matrix.ranks(t).into_iter().enumerate() {
            if !rank.is_nan() {
                ranks[s].add(task.weight * rank);
                weights[s].add(task.weight);
            }
        }
    }
    let value = ranks.iter().zip(&weights);
    let value = value.map(|(r, w)| r.total() / w.total()).collect();
    standing(matrix, value, Direction::Lower)
}

/// Borda points, ties averaged; more is better. `Beaten` compares systems that were measured together; `AllSystems` is
/// the rank of the MTEB leaderboard. O(tasks · n log n).
pub fn borda(matrix: &ScoreMatrix, points: Borda) -> Standing {
    let (mut sums, _) = sums(matrix);
    for (t, task) in matrix.ranked() {
        let ranks = matrix.ranks(t);
        let present = ranks.iter().filter(|r| !r.is_nan()).count();
        let from = match points {
            Borda::Beaten => present,
            Borda::AllSystems => ranks.len(),
        };
        for (sum, rank) in sums.iter_mut().zip(ranks).filter(|(_, r)| !r.is_nan()) {
            sum.add(task.weight * (from as f64 - rank));
        }
    }
    let value = sums.iter().map(Sum::total).collect();
    standing(matrix, value, Direction::Higher)
}

/// Share of the other systems beaten on a task, a tie being half, over the tasks where the system and at least one other
/// were measured (HELM's mean win rate); more is better. It depends on who else is in the table. `NaN` for a system
/// that meets nobody.
pub fn win_rate(matrix: &ScoreMatrix, middle: Middle) -> Standing {
    let systems = matrix.systems().len();
    let mut rates: Vec<Vec<(f64, f64)>> = vec![Vec::new(); systems];
    for (t, task) in matrix.ranked() {
        let ranks = matrix.ranks(t);
        let present = ranks.iter().filter(|r| !r.is_nan()).count();
        if present < 2 {
            continue;
        }
        let others = (present - 1) as f64;
        for (s, rank) in ranks.into_iter().enumerate().filter(|(_, r)| !r.is_nan()) {
            rates[s].push(((present as f64 - rank) / others, task.weight));
        }
    }
    let value = rates.into_iter().map(|mut rates| match middle {
        Middle::Mean => {
            let won: Sum = rates.iter().map(|(r, w)| r * w).collect();
            let weight: Sum = rates.iter().map(|(_, w)| *w).collect();
            won.total() / weight.total()
        }
        Middle::Median => {
            rates.sort_by(|a, b| a.0.total_cmp(&b.0));
            let n = rates.len();
            match n {
                0 => f64::NAN,
                _ => mean([rates[(n - 1) / 2].0, rates[n / 2].0]),
            }
        }
    });
    let value = value.collect();
    standing(matrix, value, Direction::Higher)
}

/// Who is preferred to whom: `of(a, b)` is the total weight of the tasks on which `a` is better than `b`, both measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    n: usize,
    wins: Vec<f64>,
}

impl Preferences {
    /// Preferences from a square table in row-major order; the diagonal is not read.
    ///
    /// # Errors
    /// A table that is not n x n, no system, or a number that is negative or not finite.
    pub fn new(n: usize, wins: Vec<f64>) -> crate::evaluate::Result<Self> {
        use crate::evaluate::EvalError;
        const WHAT: &str = "pairwise preferences";
        if n == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        if n.checked_mul(n) != Some(wins.len()) {
            return Err(EvalError::Lengths {
                what: WHAT,
                left: wins.len(),
                right: n.saturating_mul(n),
            });
        }
        if let Some(at) = wins.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            let problem = format!("the number for {} over {} is {}", at / n, at % n, wins[at]);
            return Err(EvalError::invalid(WHAT, problem));
        }
        Ok(Self { n, wins })
    }

    /// Counted from a matrix. O(tasks · n²).
    pub fn of_matrix(matrix: &ScoreMatrix) -> Self {
        let n = matrix.systems().len();
        let mut wins = vec![0.0; n * n];
        for (t, task) in matrix.ranked() {
            let scores: Vec<f64> = matrix.oriented(t).unwrap_or_default();
            for (row, &a) in wins.chunks_exact_mut(n).zip(&scores) {
                for (cell, &b) in row.iter_mut().zip(&scores) {
                    // A comparison with a missing score (NaN) is false.
                    *cell += if a > b { task.weight } else { 0.0 };
                }
            }
        }
        Self { n, wins }
    }

    /// Number of systems.
    pub fn systems(&self) -> usize {
        self.n
    }

    /// Weight of the tasks on which `a` beats `b`.
    pub fn of(&self, a: usize, b: usize) -> f64 {
        self.wins[a * self.n + b]
    }

    /// Pairwise majorities won, half for a tie (also for a pair that never met); more is better.
    pub fn copeland(&self) -> Vec<f64> {
        let against = |a: usize, b: usize| match self.of(a, b).total_cmp(&self.of(b, a)) {
            _ if a == b => 0.0,
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        let score = |a| (0..self.n).map(|b| against(a, b)).sum();
        (0..self.n).map(score).collect()
    }

    /// The system that wins the majority against every other; `None` where there is a cycle or a tie at the top.
    pub fn condorcet_winner(&self) -> Option<usize> {
        let beats_all = |&a: &usize| (0..self.n).all(|b| a == b || self.of(a, b) > self.of(b, a));
        (0..self.n).find(beats_all)
    }
}

/// Copeland's count: majorities won over the other systems, half for a tie; more is better.
pub fn copeland(matrix: &ScoreMatrix) -> Standing {
    let value = Preferences::of_matrix(matrix).copeland();
    standing(matrix, value, Direction::Higher)
}

fn sums(matrix: &ScoreMatrix) -> (Vec<Sum>, Vec<Sum>) {
    let zero = vec![Sum::default(); matrix.systems().len()];
    (zero.clone(), zero)
}

fn standing(matrix: &ScoreMatrix, value: Vec<f64>, good: Direction) -> Standing {
    let used: Vec<usize> = matrix.ranked().map(|(t, _)| t).collect();
    Standing::new(value, matrix.missing(&used), Some(good))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matrix::tests::matrix;
    use super::super::matrix::{ScoreMatrix, TaskColumn};
    use super::*;

    /// The mean says C, the majority says B (a table of the paper on Borda in benchmarks).
    #[test]
    fn the_majority_is_not_the_mean() {
        let m = matrix(
            &[
                &[90.0, 10.0, 50.0],
                &[60.0, 60.0, 60.0],
                &[10.0, 90.0, 55.0],
            ],
            &[],
        );
        assert_eq!(borda(&m, Borda::Beaten).value, [2.0, 4.0, 3.0]);
        assert_eq!(Preferences::of_matrix(&m).condorcet_winner(), Some(1));
        assert_eq!(copeland(&m).value, [0.0, 2.0, 1.0]);
        assert_eq!(win_rate(&m, Middle::Mean).value[2], 0.5);
        assert_eq!(mean_rank(&m).rank, [Some(3), Some(1), Some(2)]);
    }

    #[test]
    fn absent_systems() {
        let m = matrix(&[&[1.0, f64::NAN], &[2.0, 3.0], &[f64::NAN, 1.0]], &[]);
        assert_eq!(borda(&m, Borda::Beaten).value, [0.0, 2.0, 0.0]);
        assert_eq!(borda(&m, Borda::AllSystems).value, [1.0, 4.0, 1.0]);
        assert_eq!(win_rate(&m, Middle::Median).value, [0.0, 1.0, 0.0]);
        assert_eq!(borda(&m, Borda::Beaten).missing, [1, 0, 1]);
    }

    #[test]
    fn a_task_without_direction_or_weight_does_not_vote() {
        let mut tasks = vec![
            TaskColumn::new("a"),
            TaskColumn::new("b"),
            TaskColumn::new("c"),
        ];
        tasks[1].direction = None;
        tasks[2].weight = 0.0;
        let cells = vec![1.0, 9.0, 9.0, 2.0, 1.0, 1.0];
        let m = ScoreMatrix::new(vec!["x".into(), "y".into()], tasks, cells).unwrap();
        assert_eq!(mean_rank(&m).value, [2.0, 1.0]);
        assert_eq!(win_rate(&m, Middle::Mean).value, [0.0, 1.0]);
        assert_eq!(borda(&m, Borda::AllSystems).value, [0.0, 1.0]);
    }

    #[test]
    fn tables_of_preferences_are_checked() {
        assert!(Preferences::new(0, vec![]).is_err());
        assert!(Preferences::new(2, vec![0.0; 3]).is_err());
        assert!(Preferences::new(1, vec![f64::NAN]).is_err());
        assert!(Preferences::new(2, vec![0.0, 1.0, 2.0, 0.0]).is_ok());
    }

    proptest! {
        /// On a full table, Borda points are the pairwise wins plus half the ties, and renaming systems renames the result.
        #[test]
        fn borda_counts_pairs(cells in prop::collection::vec(0u8..4, 12), turn in 1usize..4) {
            let rows: Vec<Vec<f64>> =
                cells.chunks(3).map(|r| r.iter().map(|&x| f64::from(x)).collect()).collect();
            let table = |rows: &[Vec<f64>]| {
                let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
                matrix(&rows, &[1])
            };
            let m = table(&rows);
            let points = borda(&m, Borda::Beaten);
            prop_assert_eq!(&points, &borda(&m, Borda::AllSystems));
            let p = Preferences::of_matrix(&m);
            for a in 0..4 {
                let won: f64 = (0..4).filter(|&b| b != a).map(|b| {
                    let ties = 3.0 - p.of(a, b) - p.of(b, a);
                    p.of(a, b) + ties / 2.0
                }).sum();
                prop_assert_eq!(points.value[a], won);
            }
            let mut turned = rows;
            turned.rotate_left(turn);
            let mut expected = points.value;
            expected.rotate_left(turn);
            prop_assert_eq!(borda(&table(&turned), Borda::Beaten).value, expected);
        }
    }
}
