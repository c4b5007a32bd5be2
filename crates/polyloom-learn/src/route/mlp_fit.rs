//! Training of [`Mlp`], with its own backward pass: batch norms over the batch, dropout, cross-entropy, Adam.

use std::ops::Range;

use polyloom_core::nn::matmul::{Threads, View, product};
use polyloom_core::nn::optim::Adam;
use polyloom_core::nn::softmax;
use polyloom_core::rng::Stream;

use super::mlp::{Hidden, Mlp, linear};
use super::points::{Labelled, Points};
use crate::train::sampler::order;

/// How the router of Twin-Merging is trained; the defaults are those of its release.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpFit {
    /// Width of the hidden layers; twice that of the features where nothing is said.
    pub hidden: Option<usize>,
    /// Learning rate of Adam.
    pub rate: f32,
    /// Examples of a step.
    pub batch: usize,
    /// Passes over the examples; the best one by accuracy on held-out examples counts (the last without them).
    pub epochs: u32,
    /// Share of hidden values that a step leaves out.
    pub dropout: f32,
    /// Seed of weights, orders and dropout.
    pub seed: u64,
}

impl Default for MlpFit {
    fn default() -> Self {
        Self {
            hidden: None,
            rate: 5e-4,
            batch: 1024,
            epochs: 50,
            dropout: 0.5,
            seed: 0,
        }
    }
}

const SLOPE: f32 = 0.01;
const EPS: f32 = 1e-5;
/// How much of the running moments a batch replaces.
const MOMENTUM: f32 = 0.1;

/// Where the parts of the two hidden layers and the last one lie among all weights: weight, bias, and of hidden layers
/// gain and shift.
struct Layout {
    hidden: [[Range<usize>; 4]; 2],
    last: [Range<usize>; 2],
}

/// Weights in training.
struct Learner {
    at: Layout,
    weights: Vec<f32>,
    /// Running mean and variance of each hidden layer.
    moments: [[Vec<f32>; 2]; 2],
    widths: [usize; 4],
    dropout: f32,
}

/// What the backward pass of a hidden layer reads again.
struct Kept {
    x: Vec<f32>,
    normal: Vec<f32>,
    /// 1 / deviation.
    inverse: Vec<f32>,
    /// Slope and dropout of every value.
    factors: Vec<f32>,
}

impl MlpFit {
    /// Trains on examples; gives the router, and the epoch it is of with its accuracy on `held` (none: the last epoch).
    #[must_use]
    pub fn fit(
        &self,
        examples: &Labelled,
        held: Option<&Labelled>,
        experts: usize,
    ) -> (Mlp, Option<(u32, f64)>) {
        let width = examples.points.width;
        let hidden = self.hidden.unwrap_or(2 * width).max(1);
        let mut learner = Learner::new([width, hidden, hidden, experts], self.dropout, self.seed);
        let n = learner.weights.len();
        let (mut first, mut second, mut step) = (vec![0f32; n], vec![0f32; n], 0);
        let rows = examples.labels.len();
        let held = held.filter(|h| !h.labels.is_empty());
        let mut best: Option<(Mlp, u32, f64)> = None;
        for epoch in 0..self.epochs.max(1) {
            let places: Vec<usize> = order(rows, self.seed, 0, u64::from(epoch))
                .iter()
                .map(|&i| i as usize)
                .collect();
            for part in places.chunks(self.batch.max(2)) {
                // A single row has no variance.
                if part.len() < 2 && rows > 1 {
                    continue;
                }
                step += 1;
                let part = examples.taken(part);
                let seed = Stream::new(self.seed, "router dropout", u64::from(step));
                let (_, gradients) = learner.step(&part, Some(seed));
                let adam = Adam {
                    rate: self.rate,
                    betas: [0.9, 0.999],
                    eps: 1e-8,
                    decay: 0.0,
                    coupled: false,
                    step,
                    scale: 1.0,
                };
                adam.step(&mut learner.weights, &gradients, &mut first, &mut second);
            }
            if let Some(held) = held {
                let made = learner.router();
                let found = made.decide(&held.points);
                let right = found.iter().zip(&held.labels);
                let right = right
                    .filter(|(d, l)| d.expert == Some(**l as usize))
                    .count();
                let share = right as f64 / held.labels.len() as f64;
                if best.as_ref().is_none_or(|(.., most)| share > *most) {
                    best = Some((made, epoch + 1, share));
                }
            }
        }
        match best {
            Some((made, epoch, share)) => (made, Some((epoch, share))),
            None => (learner.router(), None),
        }
    }
}

impl Learner {
    /// Weights as PyTorch's linear layers begin: uniform within 1 / √inputs.
    fn new(widths: [usize; 4], dropout: f32, seed: u64) -> Self {
        let mut end = 0;
        let mut next = |n: usize| {
            end += n;
            end - n..end
        };
        let mut layer = |i: usize| {
            let (input, output) = (widths[i], widths[i + 1]);
            [
                next(input * output),
                next(output),
                next(output),
                next(output),
            ]
        };
        let hidden = [layer(0), layer(1)];
        let last = [next(widths[2] * widths[3]), next(widths[3])];
        let at = Layout { hidden, last };
        let mut weights = vec![0f32; at.last[1].end];
        let mut fill = |i: usize, range: &Range<usize>, name: &str| {
            let bound = 1.0 / (widths[i] as f32).sqrt();
            let stream = Stream::new(seed, name, i as u64);
            for (j, w) in weights[range.clone()].iter_mut().enumerate() {
                *w = bound * (2.0 * stream.uniform(j as u64) - 1.0);
            }
        };
        for (i, [weight, bias, ..]) in at.hidden.iter().enumerate() {
            fill(i, weight, "router weight");
            fill(i, bias, "router bias");
        }
        fill(2, &at.last[0], "router weight");
        fill(2, &at.last[1], "router bias");
        for [_, _, gain, _] in &at.hidden {
            weights[gain.clone()].fill(1.0);
        }
        let moments = [1, 2].map(|i| [vec![0.0; widths[i]], vec![1.0; widths[i]]]);
        Self {
            at,
            weights,
            moments,
            widths,
            dropout,
        }
    }

    /// The mean cross-entropy of a batch and its gradients; running moments move.
    fn step(&mut self, batch: &Labelled, dropout: Option<Stream>) -> (f64, Vec<f32>) {
        let n = batch.labels.len();
        let mut gradients = vec![0f32; self.weights.len()];
        let (x, first) = self.forward(0, batch.points.values.clone(), dropout);
        let (x, second) = self.forward(1, x, dropout);
        let [weight, bias] = self.at.last.clone();
        let outputs = self.widths[3];
        let mut p = linear(
            &x,
            &self.weights[weight.clone()],
            &self.weights[bias.clone()],
        );
        softmax::forward(&mut p, outputs);
        let mut loss = 0f64;
        for (row, label) in p.chunks_exact_mut(outputs).zip(&batch.labels) {
            let at = &mut row[*label as usize];
            loss -= f64::from(at.max(1e-30)).ln() / n as f64;
            *at -= 1.0;
            row.iter_mut().for_each(|g| *g /= n as f32);
        }
        let dx = self.back(&p, &x, &weight, &bias, &mut gradients);
        let dx = self.backward(1, dx, &second, &mut gradients);
        self.backward(0, dx, &first, &mut gradients);
        (loss, gradients)
    }

    /// A hidden layer in training.
    fn forward(&mut self, i: usize, x: Vec<f32>, dropout: Option<Stream>) -> (Vec<f32>, Kept) {
        let [weight, bias, gain, shift] = self.at.hidden[i].clone();
        let width = self.widths[i + 1];
        let mut out = linear(&x, &self.weights[weight], &self.weights[bias]);
        let n = (out.len() / width) as f64;
        let (mut sums, mut squares) = (vec![0f64; width], vec![0f64; width]);
        for row in out.chunks_exact(width) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, x)| *s += f64::from(*x));
        }
        let mean: Vec<f64> = sums.iter().map(|s| s / n).collect();
        for row in out.chunks_exact(width) {
            for ((s, x), m) in squares.iter_mut().zip(row).zip(&mean) {
                *s += (f64::from(*x) - m).powi(2);
            }
        }
        let inverse: Vec<f32> = squares
            .iter()
            .map(|s| (1.0 / (s / n + f64::from(EPS)).sqrt()) as f32)
            .collect();
        let [means, variances] = &mut self.moments[i];
        for (running, now) in means.iter_mut().zip(&mean) {
            *running += MOMENTUM * (*now as f32 - *running);
        }
        for (running, squares) in variances.iter_mut().zip(&squares) {
            // PyTorch keeps the unbiased variance.
            let unbiased = squares / (n - 1.0).max(1.0);
            *running += MOMENTUM * (unbiased as f32 - *running);
        }
        let (gain, shift) = (&self.weights[gain], &self.weights[shift]);
        let mut factors = vec![0f32; out.len()];
        let mut normal = vec![0f32; out.len()];
        let kept = 1.0 / (1.0 - self.dropout);
        for (r, row) in out.chunks_exact_mut(width).enumerate() {
            for (j, o) in row.iter_mut().enumerate() {
                let at = r * width + j;
                normal[at] = (*o - mean[j] as f32) * inverse[j];
                let y = normal[at] * gain[j] + shift[j];
                let slope = if y < 0.0 { SLOPE } else { 1.0 };
                // The layers' draws stand apart.
                let place = ((i as u64) << 40) + at as u64;
                let drop = match dropout {
                    Some(stream) if stream.uniform(place) < self.dropout => 0.0,
                    Some(_) => kept,
                    None => 1.0,
                };
                factors[at] = slope * drop;
                *o = y * factors[at];
            }
        }
        let kept = Kept {
            x,
            normal,
            inverse,
            factors,
        };
        (out, kept)
    }

    /// From the gradient of a hidden layer's output to that of its input.
    fn backward(&self, i: usize, mut grad: Vec<f32>, kept: &Kept, all: &mut [f32]) -> Vec<f32> {
        let [weight, bias, gain, shift] = self.at.hidden[i].clone();
        let width = self.widths[i + 1];
        let n = (grad.len() / width) as f64;
        let (mut sums, mut along) = (vec![0f64; width], vec![0f64; width]);
        for (row, at) in grad.chunks_exact_mut(width).zip((0..).step_by(width)) {
            for (j, g) in row.iter_mut().enumerate() {
                *g *= kept.factors[at + j];
                sums[j] += f64::from(*g);
                along[j] += f64::from(*g) * f64::from(kept.normal[at + j]);
            }
        }
        let put = |to: &mut [f32], from: &[f64]| {
            to.iter_mut().zip(from).for_each(|(t, f)| *t = *f as f32);
        };
        put(&mut all[gain.clone()], &along);
        put(&mut all[shift], &sums);
        let gain = &self.weights[gain];
        for (row, at) in grad.chunks_exact_mut(width).zip((0..).step_by(width)) {
            for (j, g) in row.iter_mut().enumerate() {
                let normal = f64::from(kept.normal[at + j]);
                let centred = f64::from(*g) - sums[j] / n - normal * along[j] / n;
                *g = (centred * f64::from(gain[j] * kept.inverse[j])) as f32;
            }
        }
        self.back(&grad, &kept.x, &weight, &bias, all)
    }

    /// The gradients of a linear layer: of weight and bias into `all`, that of its input as the answer.
    fn back(
        &self,
        grad: &[f32],
        x: &[f32],
        weight: &Range<usize>,
        bias: &Range<usize>,
        all: &mut [f32],
    ) -> Vec<f32> {
        let outputs = bias.len();
        let (n, width) = (grad.len() / outputs, weight.len() / outputs);
        let by_weight = product(
            1.0,
            View::new(grad, n, outputs).t(),
            View::new(x, n, width),
            Threads::All,
        );
        all[weight.clone()].copy_from_slice(&by_weight);
        let by_bias = &mut all[bias.clone()];
        for row in grad.chunks_exact(outputs) {
            by_bias.iter_mut().zip(row).for_each(|(b, g)| *b += g);
        }
        product(
            1.0,
            View::new(grad, n, outputs),
            View::new(&self.weights[weight.clone()], outputs, width),
            Threads::All,
        )
    }

    /// The router that the weights make.
    fn router(&self) -> Mlp {
        let part = |range: &Range<usize>| self.weights[range.clone()].to_vec();
        let hidden = [0, 1].map(|i| {
            let [weight, bias, gain, shift] = &self.at.hidden[i];
            let [mean, variance] = self.moments[i].clone();
            Hidden {
                weight: Points {
                    values: part(weight),
                    width: self.widths[i],
                },
                bias: part(bias),
                gain: part(gain),
                shift: part(shift),
                mean,
                variance,
            }
        });
        Mlp {
            hidden,
            weight: Points {
                values: part(&self.at.last[0]),
                width: self.widths[2],
            },
            bias: part(&self.at.last[1]),
            slope: SLOPE,
            eps: EPS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(n: usize, width: usize, experts: usize) -> Labelled {
        let stream = Stream::new(5, "points", 0);
        let values = (0..n * width).map(|i| stream.normal(i as u64));
        Labelled {
            points: Points {
                values: values.collect(),
                width,
            },
            labels: (0..n).map(|i| (i % experts) as u32).collect(),
        }
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let rows = batch(12, 3, 3);
        let mut learner = Learner::new([3, 5, 4, 3], 0.25, 7);
        let dropout = Some(Stream::new(1, "router dropout", 1));
        let (_, gradients) = learner.step(&rows, dropout);
        for at in (0..learner.weights.len()).step_by(3) {
            let before = learner.weights[at];
            let mut loss = |by: f32| {
                learner.weights[at] = before + by;
                let found = learner.step(&rows, dropout).0;
                learner.weights[at] = before;
                found
            };
            let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            let far = (slope - f64::from(gradients[at])).abs();
            assert!(
                far < 2e-3 + 0.02 * slope.abs(),
                "{at}: {slope} {}",
                gradients[at]
            );
        }
    }

    #[test]
    fn what_is_apart_is_told_apart_and_seeds_repeat() {
        let mut rows = batch(240, 6, 3);
        let width = rows.points.width;
        for (row, label) in rows.points.values.chunks_exact_mut(width).zip(&rows.labels) {
            row[*label as usize] += 6.0;
        }
        let fit = MlpFit {
            batch: 32,
            rate: 1e-2,
            epochs: 20,
            ..MlpFit::default()
        };
        let held = rows.taken(&(0..60).collect::<Vec<_>>());
        let train = rows.taken(&(60..240).collect::<Vec<_>>());
        let (made, best) = fit.fit(&train, Some(&held), 3);
        assert!(best.unwrap().1 > 0.95, "{best:?}");
        assert_eq!(fit.fit(&train, Some(&held), 3), (made, best));
    }
}
