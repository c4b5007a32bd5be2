//! A curve that never falls, from scores to probabilities.

use serde::{Deserialize, Serialize};

/// A curve through knots, straight between them and level outside.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Isotonic {
    /// Scores, strictly ascending.
    pub scores: Vec<f64>,
    /// What they become, ascending, in [0, 1].
    pub values: Vec<f64>,
}

/// Rows of equal score or, later, of one level of the curve.
struct Block {
    first: f64,
    last: f64,
    sum: f64,
    rows: f64,
}

impl Block {
    fn mean(&self) -> f64 {
        self.sum / self.rows
    }
}

impl Isotonic {
    /// The curve with the least squared error over rows: pool adjacent violators. Rows of equal scores are one.
    ///
    /// `scores` are finite, `truth` says which rows are of the class. Cost: O(n log n).
    /// Source: Zadrozny and Elkan 2002; Barlow et al. 1972. Peer: scikit-learn `IsotonicRegression(out_of_bounds="clip")`,
    /// whose knots (the two ends of every level) and straight lines between them these are.
    #[must_use]
    pub fn fit(scores: &[f64], truth: &[bool]) -> Self {
        let mut rows: Vec<(f64, bool)> =
            scores.iter().copied().zip(truth.iter().copied()).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut blocks: Vec<Block> = Vec::new();
        for tie in rows.chunk_by(|a, b| a.0 == b.0) {
            let mut block = Block {
                first: tie[0].0,
                last: tie[0].0,
                sum: tie.iter().filter(|(_, t)| *t).count() as f64,
                rows: tie.len() as f64,
            };
            while let Some(before) = blocks.pop_if(|b| b.mean() >= block.mean()) {
                block.first = before.first;
                block.sum += before.sum;
                block.rows += before.rows;
            }
            blocks.push(block);
        }
        let mut curve = Self {
            scores: Vec::new(),
            values: Vec::new(),
        };
        for block in blocks {
            let ends = [block.first, block.last];
            let ends = &ends[..1 + usize::from(block.last > block.first)];
            curve.scores.extend(ends);
            curve.values.extend(ends.iter().map(|_| block.mean()));
        }
        curve
    }

    /// What a score becomes, in [0, 1].
    #[must_use]
    pub fn at(&self, score: f64) -> f64 {
        let above = self.scores.partition_point(|s| *s <= score);
        let knot = |i: usize| Some((*self.scores.get(i)?, *self.values.get(i)?));
        match (above.checked_sub(1).and_then(knot), knot(above)) {
            (Some((s0, v0)), Some((s1, v1))) => v0 + (v1 - v0) * ((score - s0) / (s1 - s0)),
            (Some((_, v)), None) | (None, Some((_, v))) => v,
            (None, None) => score,
        }
    }

    /// What is wrong with one that was read.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let ascends = self.scores.windows(2).all(|w| w[0] < w[1]);
        let fine = |v: &f64| (0.0..=1.0).contains(v);
        match () {
            () if self.scores.is_empty() || self.scores.len() != self.values.len() => {
                Some("has no knots, or not a value for each")
            }
            () if !ascends || !self.scores.iter().all(|s| s.is_finite()) => {
                Some("has scores of knots that do not ascend")
            }
            () if !self.values.is_sorted() || !self.values.iter().all(fine) => {
                Some("has values of knots that fall, or are no probabilities")
            }
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 | 1 0 | 1 1 0 1 by hand: the violators 1 0 pool to 1/2; 1 1 0 pool to 2/3.
    #[test]
    fn violators_are_pooled() {
        let scores = [0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9];
        let truth = [false, true, false, true, true, false, true];
        let curve = Isotonic::fit(&scores, &truth);
        assert_eq!(curve.scores, [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]);
        let two_thirds = 2.0 / 3.0;
        assert_eq!(curve.values, [0.0, 0.5, 0.5, two_thirds, two_thirds, 1.0]);
        // Level outside and on a level, straight between levels.
        assert_eq!(
            (curve.at(0.0), curve.at(1.0), curve.at(0.25)),
            (0.0, 1.0, 0.5)
        );
        assert!((curve.at(0.15) - 0.25).abs() < 1e-15);
        assert!((curve.at(0.8) - (two_thirds + 1.0) / 2.0).abs() < 1e-12);
        assert_eq!(curve.fault(), None);
    }

    #[test]
    fn equal_scores_are_one_row_and_falling_ones_one_level() {
        let curve = Isotonic::fit(&[0.5, 0.2, 0.5], &[true, false, false]);
        assert_eq!(curve.scores, [0.2, 0.5]);
        assert_eq!(curve.values, [0.0, 0.5]);
        let curve = Isotonic::fit(&[0.3, 0.6, 0.9], &[true, true, false]);
        assert_eq!(curve.scores, [0.3, 0.9]);
        assert_eq!(curve.values, [2.0 / 3.0; 2]);
    }
}
