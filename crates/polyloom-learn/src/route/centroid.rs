//! One vector per expert: the mean of the features of its examples.

use super::points::{Labelled, Points};
use super::router::Decision;

/// Chooses the expert whose vector points the same way as the input's (cosine). Weights are a softmax of the cosines over a
/// temperature; where no cosine reaches `min_similarity` there is no expert.
///
/// The rule of AgentStore's and UnifiedMLLM's expert tokens, with means in place of learned vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Centroid {
    /// A vector for each expert.
    pub vectors: Points,
    /// Divides cosines before the softmax.
    pub temperature: f32,
    /// Below this cosine no expert is near enough.
    pub min_similarity: Option<f32>,
}

impl Centroid {
    /// The mean features of every expert's examples.
    #[must_use]
    pub fn fit(examples: &Labelled, experts: usize, temperature: f32) -> Self {
        let rows = examples.by_expert(experts);
        let means = rows
            .into_iter()
            .flat_map(|rows| examples.points.mean(rows.into_iter()));
        Self {
            vectors: Points {
                values: means.collect(),
                width: examples.points.width,
            },
            temperature,
            min_similarity: None,
        }
    }

    /// Cosines with every expert's vector, `[points, experts]`.
    #[must_use]
    pub fn similarities(&self, points: &Points) -> Vec<f32> {
        points.clone().unit().products(&self.vectors.clone().unit())
    }

    pub(super) fn decide(&self, points: &Points) -> Vec<Decision> {
        let near = self.similarities(points);
        let of =
            |row: &[f32]| Decision::of_similarities(row, self.temperature, self.min_similarity);
        near.chunks_exact(self.vectors.len().max(1))
            .map(of)
            .collect()
    }

    /// Takes one more expert.
    pub(super) fn add(&mut self, examples: &Points) {
        self.vectors.values.extend(examples.mean(0..examples.len()));
    }

    /// Forgets an expert.
    pub(super) fn remove(&mut self, expert: usize) {
        let width = self.vectors.width;
        let rows = expert * width..(expert + 1) * width;
        self.vectors.values.drain(rows);
    }
}
