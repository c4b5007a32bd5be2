//! Wins and ties of pairs.

use super::comparisons::Comparisons;
use super::matrix::ScoreMatrix;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "games";

/// How often each item beat and tied with each other; sums of weights. Mergeable.
#[derive(Debug, Clone, PartialEq)]
pub struct Games {
    n: usize,
    /// Row-major: row beat column.
    wins: Vec<f64>,
    /// Row-major, at row < column.
    ties: Vec<f64>,
}

impl Games {
    /// No game yet, among `n` items.
    ///
    /// # Errors
    /// No item.
    pub fn new(n: usize) -> Result<Self> {
        if n == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        Ok(Self {
            n,
            wins: vec![0.0; n * n],
            ties: vec![0.0; n * n],
        })
    }

    /// Every pair of systems on every task, counted by the task's weight; tasks without direction not at all.
    /// O(tasks · n²).
    pub fn of_matrix(matrix: &ScoreMatrix) -> Self {
        let n = matrix.systems().len();
        let mut found = Self {
            n,
            wins: vec![0.0; n * n],
            ties: vec![0.0; n * n],
        };
        for (t, task) in matrix.ranked() {
            found.count(&matrix.oriented(t).unwrap_or_default(), task.weight);
        }
        found
    }

    /// Adds the pairs of one example: of two scores the higher wins, equal ones tie, `NaN` takes no part.
    ///
    /// # Errors
    /// Another number of items, a weight that is not finite or below 0.
    pub fn add_scores(&mut self, scores: &[f64], weight: f64) -> Result<()> {
        if scores.len() != self.n {
            return Err(EvalError::Lengths {
                what: WHAT,
                left: scores.len(),
                right: self.n,
            });
        }
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(EvalError::invalid(WHAT, format!("the weight {weight}")));
        }
        self.count(scores, weight);
        Ok(())
    }

    pub(super) fn count<T: PartialOrd>(&mut self, scores: &[T], weight: f64) {
        for (i, a) in scores.iter().enumerate() {
            for (j, b) in scores.iter().enumerate().skip(i + 1) {
                if a > b {
                    self.wins[i * self.n + j] += weight;
                } else if b > a {
                    self.wins[j * self.n + i] += weight;
                } else if a == b {
                    self.ties[i * self.n + j] += weight;
                }
            }
        }
    }

    /// Adds what others count.
    ///
    /// # Errors
    /// Another number of items.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.n != other.n {
            return Err(EvalError::Lengths {
                what: WHAT,
                left: self.n,
                right: other.n,
            });
        }
        let add = |into: &mut [f64], from: &[f64]| {
            into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        };
        add(&mut self.wins, &other.wins);
        add(&mut self.ties, &other.ties);
        Ok(())
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.n
    }

    /// Weight of the games that `a` won against `b`.
    pub fn wins(&self, a: usize, b: usize) -> f64 {
        self.wins[a * self.n + b]
    }

    /// Weight of the ties of two items.
    pub fn ties(&self, a: usize, b: usize) -> f64 {
        self.ties[a.min(b) * self.n + a.max(b)]
    }

    /// The games for a model without ties: a tie is one win for each side.
    ///
    /// # Errors
    /// None for games that this type made.
    pub fn comparisons(&self) -> Result<Comparisons> {
        let mut found = Comparisons::new(self.n)?;
        for a in 0..self.n {
            for b in (0..self.n).filter(|&b| b != a) {
                let weight = self.wins(a, b) + self.ties(a, b);
                if weight > 0.0 {
                    found.add_choice(a, &[b], weight)?;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::matrix;
    use super::*;

    #[test]
    fn a_matrix_by_hand() {
        let m = matrix(
            &[&[1.0, 1.0, f64::NAN], &[1.0, 0.0, 2.0], &[0.0, 0.0, 3.0]],
            &[2],
        );
        let mut games = Games::of_matrix(&m);
        // t0: 0 and 1 tie and beat 2; t1: 0 beats both, which tie; t2 (less is better): 1 beats 2.
        assert_eq!((games.wins(0, 1), games.ties(1, 0)), (1.0, 1.0));
        assert_eq!((games.wins(0, 2), games.wins(2, 0)), (2.0, 0.0));
        assert_eq!((games.wins(1, 2), games.ties(1, 2)), (2.0, 1.0));
        assert_eq!(games.comparisons().unwrap(), Comparisons::pooled(&m));
        games.merge(&games.clone()).unwrap();
        assert_eq!(games.wins(0, 2), 4.0);
        games.add_scores(&[0.0, f64::NAN, 1.0], 0.5).unwrap();
        assert_eq!((games.wins(2, 0), games.ties(0, 1)), (0.5, 2.0));
        assert!(games.add_scores(&[0.0], 1.0).is_err());
        assert!(games.add_scores(&[0.0, 0.0, 0.0], f64::NAN).is_err());
        assert!(games.merge(&Games::new(2).unwrap()).is_err() && Games::new(0).is_err());
    }
}
