//! Who was chosen over whom: the data of Bradley–Terry and Plackett–Luce models, and whether they can be fitted.

use std::collections::BTreeMap;

use super::graph::components;
use super::matrix::ScoreMatrix;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "comparisons";

/// Choices of one item over others, with weights. A game is a choice over one loser; a ranking is a choice of its first
/// item over all later ones, of its second over those after it, and so on (Plackett 1975), so that one likelihood serves
/// pairs, partial rankings and "one out of these".
#[derive(Debug, Clone, PartialEq)]
pub struct Comparisons {
    n: usize,
    /// Winner first, then the losers; all choices one after the other.
    items: Vec<u32>,
    ends: Vec<usize>,
    weights: Vec<f64>,
}

impl Comparisons {
    /// No comparison yet, among `n` items.
    ///
    /// # Errors
    /// No item, or more than u32 numbers.
    pub fn new(n: usize) -> Result<Self> {
        if n == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        if u32::try_from(n).is_err() {
            return Err(EvalError::invalid(WHAT, format!("{n} items")));
        }
        Ok(Self {
            n,
            items: Vec::new(),
            ends: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// Games, as (winner, loser).
    ///
    /// # Errors
    /// As [`Self::add_choice`].
    pub fn of_pairs(n: usize, pairs: &[(usize, usize)]) -> Result<Self> {
        let mut found = Self::new(n)?;
        let mut counts = BTreeMap::<(usize, usize), f64>::new();
        for &pair in pairs {
            *counts.entry(pair).or_default() += 1.0;
        }
        for ((winner, loser), count) in counts {
            found.add_choice(winner, &[loser], count)?;
        }
        Ok(found)
    }

    /// Partial rankings, best first; items that are not listed say nothing.
    ///
    /// # Errors
    /// As [`Self::add_ranking`].
    pub fn of_rankings(n: usize, rankings: &[Vec<usize>]) -> Result<Self> {
        let mut found = Self::new(n)?;
        for ranking in rankings {
            found.add_ranking(ranking, 1.0)?;
        }
        Ok(found)
    }

    /// Every pair of systems on every task, the better one winning; a tie is one win for each side, as if they had met
    /// twice. Tasks count by their weight, those without direction not at all. Scales may differ from task to task, binary
    /// or not. O(tasks · n²).
    pub fn of_matrix(matrix: &ScoreMatrix) -> Self {
        let n = matrix.systems().len();
        let mut wins = vec![0.0; n * n];
        for (t, task) in matrix.ranked() {
            let scores = matrix.oriented(t).unwrap_or_default();
            for a in 0..n {
                for b in (0..n).filter(|&b| b != a) {
                    // A missing score (NaN) compares as false.
                    if scores[a] >= scores[b] {
                        wins[a * n + b] += task.weight;
                    }
                }
            }
        }
        let mut found = Self {
            n,
            items: Vec::new(),
            ends: Vec::new(),
            weights: Vec::new(),
        };
        for (at, &weight) in wins.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            found.push(at / n, &[at % n], weight);
        }
        found
    }

    /// Every system on every task over all those that are strictly worse there. Without ties this is the Plackett–Luce
    /// likelihood of the orders; of a binary task it is each right one over all wrong ones (ONEBench's form), which is
    /// not the likelihood of a tied order. O(tasks · n²).
    pub fn choices_of_matrix(matrix: &ScoreMatrix) -> Self {
        let mut found = Self {
            n: matrix.systems().len(),
            items: Vec::new(),
            ends: Vec::new(),
            weights: Vec::new(),
        };
        for (t, task) in matrix.ranked() {
            let scores = matrix.oriented(t).unwrap_or_default();
            for a in 0..found.n {
                let worse = (0..found.n).filter(|&b| scores[b] < scores[a]);
                let worse: Vec<usize> = worse.collect();
                if !worse.is_empty() {
                    found.push(a, &worse, task.weight);
                }
            }
        }
        found
    }

    /// [`Self::of_matrix`] with the games of a pair added up: the same likelihood from at most n² choices. O(tasks · n²)
    /// time, O(n²) memory.
    pub fn pooled(matrix: &ScoreMatrix) -> Self {
        let n = matrix.systems().len();
        let mut wins = vec![0.0; n * n];
        for (t, task) in matrix.ranked() {
            let scores = matrix.oriented(t).unwrap_or_default();
            for (row, &a) in wins.chunks_exact_mut(n).zip(&scores) {
                for (cell, &b) in row.iter_mut().zip(&scores) {
                    // A comparison with a missing score (NaN) is false.
                    *cell += if a >= b { task.weight } else { 0.0 };
                }
            }
        }
        let mut found = Self {
            n,
            items: Vec::new(),
            ends: Vec::new(),
            weights: Vec::new(),
        };
        for (at, &weight) in wins.iter().enumerate() {
            let (a, b) = (at / n, at % n);
            if a != b && weight > 0.0 {
                found.push(a, &[b], weight);
            }
        }
        found
    }

    /// One item chosen over others.
    ///
    /// # Errors
    /// No loser, an item that does not exist or stands twice, a weight that is not finite and above 0.
    pub fn add_choice(&mut self, winner: usize, losers: &[usize], weight: f64) -> Result<()> {
        if losers.is_empty() {
            return Err(EvalError::invalid(
                WHAT,
                format!("item {winner} is chosen over nothing"),
            ));
        }
        let items: Vec<usize> = [&[winner], losers].concat();
        self.check(&items, weight)?;
        self.push(winner, losers, weight);
        Ok(())
    }

    /// A partial ranking, best first. A ranking of one item says nothing and adds nothing.
    ///
    /// # Errors
    /// An item that does not exist or stands twice, a weight that is not finite and above 0.
    pub fn add_ranking(&mut self, ranking: &[usize], weight: f64) -> Result<()> {
        self.check(ranking, weight)?;
        for (i, &winner) in ranking.iter().enumerate() {
            let losers = &ranking[i + 1..];
            if !losers.is_empty() {
                self.push(winner, losers, weight);
            }
        }
        Ok(())
    }

    /// Appends what another one holds.
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
        let from = self.items.len();
        self.items.extend(&other.items);
        self.ends.extend(other.ends.iter().map(|e| e + from));
        self.weights.extend(&other.weights);
        Ok(())
    }

    fn check(&self, items: &[usize], weight: f64) -> Result<()> {
        if let Some(item) = items.iter().find(|&&i| i >= self.n) {
            return Err(EvalError::invalid(
                WHAT,
                format!("no item {item} among {}", self.n),
            ));
        }
        let mut sorted = items.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|w| w[0] == w[1]) {
            return Err(EvalError::invalid(
                WHAT,
                format!("item {} against itself", pair[0]),
            ));
        }
        if !(weight.is_finite() && weight > 0.0) {
            return Err(EvalError::invalid(WHAT, format!("the weight {weight}")));
        }
        Ok(())
    }

    fn push(&mut self, winner: usize, losers: &[usize], weight: f64) {
        self.items.push(winner as u32);
        self.items.extend(losers.iter().map(|&l| l as u32));
        self.ends.push(self.items.len());
        self.weights.push(weight);
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.n
    }

    /// Total weight of the choices.
    pub fn weight(&self) -> f64 {
        self.weights.iter().sum()
    }

    /// The choices: winner first then losers, and the weight.
    pub(crate) fn choices(&self) -> impl Iterator<Item = (&[u32], f64)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends).zip(&self.weights);
        ranges.map(|((start, &end), &weight)| (&self.items[start..end], weight))
    }

    /// Strongly connected components of the graph that leads from every loser to who beat it; components that nobody
    /// outside beats come first. Strengths have a maximum-likelihood estimate exactly where there is one component
    /// (Ford 1957; Hunter 2004): else a group could rise over the rest without end. O(choices).
    pub fn components(&self) -> Vec<Vec<usize>> {
        let mut winners: Vec<Vec<u32>> = vec![Vec::new(); self.n];
        for (items, _) in self.choices() {
            for &loser in &items[1..] {
                let known = &mut winners[loser as usize];
                if known.last() != Some(&items[0]) {
                    known.push(items[0]);
                }
            }
        }
        components(self.n, |node, k| winners[node].get(k).map(|&w| w as usize))
    }

    /// The comparisons within a set of items, renumbered by their place in it: a choice whose winner is inside is kept
    /// with those losers that are inside too (what is left of it has the same likelihood under Luce's axiom).
    ///
    /// # Errors
    /// As [`Self::new`]; an item that does not exist or stands twice.
    pub fn within(&self, set: &[usize]) -> Result<Self> {
        self.check(set, 1.0)?;
        let mut place = vec![usize::MAX; self.n];
        for (at, &item) in set.iter().enumerate() {
            place[item] = at;
        }
        let mut found = Self::new(set.len())?;
        for (items, weight) in self.choices() {
            let mut inside = items.iter().map(|&i| place[i as usize]);
            let winner = inside.next().unwrap_or(usize::MAX);
            let losers: Vec<usize> = inside.filter(|&p| p != usize::MAX).collect();
            if winner != usize::MAX && !losers.is_empty() {
                found.push(winner, &losers, weight);
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
    fn groups_that_nobody_links() {
        let found = Comparisons::of_pairs(4, &[(0, 1), (1, 0), (2, 3), (3, 2)]).unwrap();
        assert_eq!(found.components(), [[0, 1], [2, 3]]);
        let chain = Comparisons::of_pairs(3, &[(2, 1), (1, 0)]).unwrap();
        assert_eq!(chain.components(), [[2], [1], [0]]);
        let ring = Comparisons::of_rankings(3, &[vec![0, 1, 2], vec![2, 0]]).unwrap();
        assert_eq!(ring.components(), [[0, 1, 2]]);
    }

    #[test]
    fn a_matrix_in_pairs() {
        let m = matrix(
            &[&[1.0, 1.0, f64::NAN], &[1.0, 0.0, 2.0], &[0.0, 0.0, 3.0]],
            &[2],
        );
        // t0: 0 and 1 beat 2, 0 and 1 tie; t1: 0 beats both, 1 and 2 tie; t2 (less is better): 1 beats 2.
        let pairs = Comparisons::of_matrix(&m);
        assert_eq!(pairs.weight(), (2.0 + 2.0) + (2.0 + 2.0) + 1.0);
        let choices = Comparisons::choices_of_matrix(&m);
        let listed: Vec<&[u32]> = choices.choices().map(|(items, _)| items).collect();
        assert_eq!(listed, [&[0, 2][..], &[1, 2], &[0, 1, 2], &[1, 2]]);
    }

    #[test]
    fn parts_and_sums() {
        let mut all = Comparisons::of_rankings(4, &[vec![3, 1, 0, 2]]).unwrap();
        let part = all.within(&[0, 3]).unwrap();
        assert_eq!(part, Comparisons::of_pairs(2, &[(1, 0)]).unwrap());
        all.merge(&Comparisons::of_pairs(4, &[(0, 1)]).unwrap())
            .unwrap();
        assert_eq!((all.weight(), all.choices().count()), (4.0, 4));
        assert_eq!(all.choices().last(), Some((&[0, 1][..], 1.0)));
        assert!(all.merge(&part).is_err());
    }

    #[test]
    fn bad_comparisons_are_refused() {
        assert!(Comparisons::new(0).is_err());
        assert!(Comparisons::of_pairs(2, &[(0, 0)]).is_err());
        assert!(Comparisons::of_pairs(2, &[(0, 2)]).is_err());
        assert!(Comparisons::of_rankings(2, &[vec![0, 1, 0]]).is_err());
        let mut c = Comparisons::new(3).unwrap();
        assert!(c.add_choice(0, &[], 1.0).is_err());
        assert!(c.add_choice(0, &[1], 0.0).is_err());
        assert!(c.add_choice(0, &[1], f64::NAN).is_err());
        c.add_ranking(&[2], 1.0).unwrap();
        assert_eq!(c.weight(), 0.0);
        assert!(c.within(&[]).is_err());
    }
}
