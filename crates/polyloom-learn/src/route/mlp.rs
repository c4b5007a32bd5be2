//! Twin-Merging's router: two hidden layers with batch norms, then scores of the experts.

use polyloom_core::nn::matmul::{Threads, View, product};

use super::points::Points;
use super::router::Decision;

/// A hidden layer: linear, batch norm, leaky ReLU.
#[derive(Debug, Clone, PartialEq)]
pub struct Hidden {
    /// A row of weights for each output.
    pub weight: Points,
    /// A number for each output.
    pub bias: Vec<f32>,
    /// Factors of the norm.
    pub gain: Vec<f32>,
    /// What the norm adds.
    pub shift: Vec<f32>,
    /// Means that were seen in training.
    pub mean: Vec<f32>,
    /// Variances that were seen in training.
    pub variance: Vec<f32>,
}

/// Linear - batch norm - leaky ReLU - dropout, twice, and a linear layer over experts; weights are its softmax
/// (Twin-Merging, Lu et al. 2024). Dropout acts in training only ([`super::MlpFit`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// The hidden layers.
    pub hidden: [Hidden; 2],
    /// A vector for each expert.
    pub weight: Points,
    /// A number for each expert.
    pub bias: Vec<f32>,
    /// Slope of the leaky ReLU below 0.
    pub slope: f32,
    /// Added to variances.
    pub eps: f32,
}

/// A linear layer on rows.
pub(super) fn linear(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let (outputs, width) = (bias.len(), weight.len() / bias.len().max(1));
    let n = x.len() / width.max(1);
    let mut out = product(
        1.0,
        View::new(x, n, width),
        View::new(weight, outputs, width).t(),
        Threads::All,
    );
    for row in out.chunks_exact_mut(outputs.max(1)) {
        row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
    }
    out
}

impl Hidden {
    fn forward(&self, x: &[f32], slope: f32, eps: f32) -> Vec<f32> {
        let mut out = linear(x, &self.weight.values, &self.bias);
        for row in out.chunks_exact_mut(self.bias.len().max(1)) {
            for (i, o) in row.iter_mut().enumerate() {
                let y = (*o - self.mean[i]) / (self.variance[i] + eps).sqrt();
                let y = y * self.gain[i] + self.shift[i];
                *o = if y < 0.0 { y * slope } else { y };
            }
        }
        out
    }
}

impl Mlp {
    /// Scores of the experts, `[points, experts]`.
    #[must_use]
    pub fn scores(&self, points: &Points) -> Vec<f32> {
        let x = self.hidden[0].forward(&points.values, self.slope, self.eps);
        let x = self.hidden[1].forward(&x, self.slope, self.eps);
        linear(&x, &self.weight.values, &self.bias)
    }

    pub(super) fn decide(&self, points: &Points) -> Vec<Decision> {
        let scores = self.scores(points);
        let of = |row: &[f32]| Decision::of_similarities(row, 1.0, None);
        scores
            .chunks_exact(self.bias.len().max(1))
            .map(of)
            .collect()
    }
}
