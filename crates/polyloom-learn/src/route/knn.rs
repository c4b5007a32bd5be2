//! The nearest examples vote.

use rayon::prelude::*;

use super::points::{Labelled, Points};
use super::router::Decision;

/// The `k` examples with the largest cosine vote for their experts, each with `exp(cosine / temperature)`; where the
/// nearest does not reach `min_similarity` there is no expert. Weighted votes as in Wu et al. 2018.
#[derive(Debug, Clone, PartialEq)]
pub struct Knn {
    /// Examples at length 1, those of an expert side by side, experts in their order.
    pub points: Points,
    /// Examples of each expert.
    pub counts: Vec<usize>,
    /// Neighbours that vote.
    pub k: usize,
    /// Divides cosines.
    pub temperature: f32,
    /// Below this cosine no example is near enough.
    pub min_similarity: Option<f32>,
}

impl Knn {
    /// Keeps the examples.
    #[must_use]
    pub fn fit(examples: &Labelled, experts: usize, k: usize, temperature: f32) -> Self {
        let rows = examples.by_expert(experts);
        let counts = rows.iter().map(Vec::len).collect();
        Self {
            points: examples.points.taken(&rows.concat()).unit(),
            counts,
            k,
            temperature,
            min_similarity: None,
        }
    }

    fn labels(&self) -> Vec<u32> {
        let of = |(e, n): (usize, &usize)| std::iter::repeat_n(e as u32, *n);
        self.counts.iter().enumerate().flat_map(of).collect()
    }

    pub(super) fn decide(&self, points: &Points) -> Vec<Decision> {
        let (labels, n) = (self.labels(), self.points.len());
        let k = self.k.clamp(1, n.max(1));
        // Cosines with all examples are large: some inputs at a time.
        let part = (1 << 20) / n.max(1) + 1;
        let unit = points.clone().unit();
        let mut found = Vec::with_capacity(points.len());
        for rows in unit.values.chunks(part * unit.width.max(1)) {
            let rows = Points {
                values: rows.to_vec(),
                width: unit.width,
            };
            let near = rows.products(&self.points);
            let decided = near
                .par_chunks_exact(n.max(1))
                .map(|row| self.voted(row, &labels, k));
            found.extend(decided.collect::<Vec<_>>());
        }
        found
    }

    /// The vote of one input's neighbours.
    fn voted(&self, cosines: &[f32], labels: &[u32], k: usize) -> Decision {
        let mut order: Vec<u32> = (0..cosines.len() as u32).collect();
        // Of equal ones the earlier.
        let nearer = |a: &u32, b: &u32| {
            let by = cosines[*b as usize].total_cmp(&cosines[*a as usize]);
            by.then(a.cmp(b))
        };
        if k < order.len() {
            order.select_nth_unstable_by(k - 1, nearer);
            order.truncate(k);
        }
        order.sort_unstable_by(nearer);
        let Some(&first) = order.first() else {
            return Decision::none(self.counts.len());
        };
        let best = cosines[first as usize];
        if self.min_similarity.is_some_and(|least| best < least) {
            return Decision::none(self.counts.len());
        }
        let mut votes = vec![0f64; self.counts.len()];
        for &i in &order {
            let apart = f64::from(cosines[i as usize] - best) / f64::from(self.temperature);
            votes[labels[i as usize] as usize] += apart.exp();
        }
        let all: f64 = votes.iter().sum();
        Decision::of_weights(votes.into_iter().map(|v| (v / all) as f32).collect())
    }

    /// Takes one more expert.
    pub(super) fn add(&mut self, examples: &Points) {
        self.counts.push(examples.len());
        self.points.values.extend(examples.clone().unit().values);
    }

    /// Forgets an expert.
    pub(super) fn remove(&mut self, expert: usize) {
        let before: usize = self.counts[..expert].iter().sum();
        let gone = self.counts.remove(expert);
        let width = self.points.width;
        let rows = before * width..(before + gone) * width;
        self.points.values.drain(rows);
    }
}
