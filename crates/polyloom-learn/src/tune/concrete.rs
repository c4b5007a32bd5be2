//! Concrete masks (Tang et al. 2023): one mask shared by all task vectors, learned as a relaxed Bernoulli variable.

use polyloom_core::nn::elementwise::{inner, squares};
use polyloom_core::nn::optim::Adam;
use polyloom_core::rng::Stream;
use rayon::prelude::*;

use super::coefficients::Coefficients;
use super::learn::{Objective, Progress, Step};
use super::vectors::Vectors;
use crate::engine::Parameters;
use crate::error::{Error, Result};
use crate::models::{Source, Trained};

/// How a mask is learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Steps of the mask.
    pub steps: u32,
    /// Learning rate of its logits (Adam, betas 0.9 and 0.999).
    pub rate: f32,
    /// Temperature of the relaxed Bernoulli variable.
    pub temperature: f32,
    /// Rate of the one Adam step that the coefficients make before each step of the mask; none: they stay.
    pub inner_rate: Option<f32>,
    /// Seed of the draws.
    pub seed: u64,
}

/// A number between 0 and 1 for every number of the merged tensors, held as logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Logits, tensor after tensor; 0 before anything is learned.
    pub logits: Vec<f32>,
    /// Where the tensors end.
    ends: Vec<usize>,
}

impl Mask {
    /// Logits of 0 for tensors of these lengths.
    #[must_use]
    pub fn new(lengths: &[usize]) -> Self {
        let ends: Vec<usize> = lengths
            .iter()
            .scan(0, |at, n| {
                *at += n;
                Some(*at)
            })
            .collect();
        Self {
            logits: vec![0.0; ends.last().copied().unwrap_or(0)],
            ends,
        }
    }

    /// Factors of the task vectors, `m / mean(m)` over each tensor, with `m` the probabilities of the mask.
    #[must_use]
    pub fn factors(&self) -> Vec<f32> {
        let mut m: Vec<f32> = self.logits.par_iter().map(|x| sigmoid(*x)).collect();
        self.means(&mut m);
        m
    }

    /// The mask of a draw: `sigmoid((x + log u - log(1 - u)) / temperature)`, u uniform.
    fn drawn(&self, settings: &Settings, step: u32) -> Vec<f32> {
        let stream = Stream::new(settings.seed, "concrete", u64::from(step));
        let one = |(i, x): (usize, &f32)| {
            // u is never 0 or 1: a half of the smallest difference is added.
            let u = (f64::from(stream.uniform(i as u64)) + f64::from(f32::EPSILON) / 4.0)
                .min(1.0 - f64::from(f32::EPSILON) / 4.0);
            relaxed(*x, u as f32, settings.temperature)
        };
        self.logits.par_iter().enumerate().map(one).collect()
    }

    /// Tensors of a flat list, as ranges.
    fn tensors(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(a, b)| a..*b)
    }

    /// Divides every tensor by its mean; gives the means.
    fn means(&self, m: &mut [f32]) -> Vec<f64> {
        let mut found = Vec::with_capacity(self.ends.len());
        for at in self.tensors() {
            let n = at.len().max(1) as f64;
            let part = &mut m[at];
            let mean = part.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let factor = if mean > 0.0 { (1.0 / mean) as f32 } else { 0.0 };
            part.iter_mut().for_each(|x| *x *= factor);
            found.push(mean);
        }
        found
    }

    /// Gradients of the logits, from those of weights `base + sum * m / mean(m)`, over `gradients`.
    fn gradients(&self, m: &[f32], sum: &[f32], temperature: f32, gradients: &mut [f32]) {
        for at in self.tensors() {
            let n = at.len().max(1) as f64;
            let (m, g) = (&m[at.clone()], &mut gradients[at.clone()]);
            let mean = m.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            if mean <= 0.0 {
                g.fill(0.0);
                continue;
            }
            g.iter_mut().zip(&sum[at]).for_each(|(g, s)| *g *= s);
            // What every entry does to the mean.
            let shared = inner(g, m) / (mean * n);
            for (g, m) in g.iter_mut().zip(m) {
                let of_m = (f64::from(*g) - shared) / mean;
                *g = (of_m * f64::from(m * (1.0 - m) / temperature)) as f32;
            }
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn relaxed(x: f32, u: f32, temperature: f32) -> f32 {
    sigmoid((x + u.ln() - (1.0 - u).ln()) / temperature)
}

/// Learns a mask for task vectors with the coefficients as they are. `merged` and `frozen` are those of
/// [`learn`](super::learn::learn); `mask` and `progress` are those of the last step that is done, `watch` sees them after every
/// step.
///
/// Cost of a step: one pass of a model (two, and four readings of the experts, where coefficients move before it). Memory:
/// the sum of the task vectors, the logits and their two moments beside what [`learn`](super::learn::learn) holds.
///
/// # Errors
/// As [`learn`](super::learn::learn).
#[allow(
    clippy::too_many_arguments,
    reason = "the state of the loop, taken apart"
)]
pub fn learn_mask(
    settings: &Settings,
    vectors: &Vectors,
    merged: &Parameters,
    frozen: &dyn Source,
    coefficients: &Coefficients,
    mask: &mut Mask,
    progress: &mut Progress,
    objective: Objective<'_>,
    watch: &mut dyn FnMut(&Step, &Mask, &Progress) -> bool,
) -> Result<()> {
    let n = mask.logits.len();
    let base = vectors.base()?;
    let mut sum = vec![0f32; n];
    vectors.merge(&coefficients.acting(), &mut sum)?;
    sum.iter_mut().zip(&base).for_each(|(s, b)| *s -= b);
    for number in progress.step..settings.steps {
        let m = mask.drawn(settings, number);
        let mut factors = m.clone();
        mask.means(&mut factors);
        if let Some(rate) = settings.inner_rate {
            // The coefficients begin anew, and make one step under this mask.
            let mut now = coefficients.clone();
            let (_, _, gradients) = pass(merged, frozen, objective, number, &base, &sum, &factors)?;
            let masked: Vec<f32> = gradients.iter().zip(&factors).map(|(g, f)| g * f).collect();
            let of_each = now.through(&vectors.gradients(&masked)?);
            let (mut first, mut second) = (vec![0.0; of_each.len()], vec![0.0; of_each.len()]);
            adam(rate, 1).step(&mut now.raw, &of_each, &mut first, &mut second);
            let mut moved = vec![0f32; n];
            vectors.merge(&now.acting(), &mut moved)?;
            moved.iter_mut().zip(&base).for_each(|(s, b)| *s -= b);
            step(
                settings,
                number,
                mask,
                &m,
                &factors,
                &moved,
                &mut progress.moments,
                |f| pass(merged, frozen, objective, number, &base, &moved, f),
            )
        } else {
            step(
                settings,
                number,
                mask,
                &m,
                &factors,
                &sum,
                &mut progress.moments,
                |f| pass(merged, frozen, objective, number, &base, &sum, f),
            )
        }
        .and_then(|told| {
            progress.step = told.step;
            match watch(&told, mask, progress) {
                true => Ok(()),
                false => Err(polyloom_core::Error::Interrupted.into()),
            }
        })?;
    }
    Ok(())
}

type Passed = (f64, Vec<f64>, Vec<f32>);

/// One step of the logits.
#[allow(
    clippy::too_many_arguments,
    reason = "the state of the loop, taken apart"
)]
fn step(
    settings: &Settings,
    number: u32,
    mask: &mut Mask,
    m: &[f32],
    factors: &[f32],
    sum: &[f32],
    moments: &mut [Vec<f32>; 2],
    pass: impl FnOnce(&[f32]) -> Result<Passed>,
) -> Result<Step> {
    let (loss, losses, mut gradients) = pass(factors)?;
    mask.gradients(m, sum, settings.temperature, &mut gradients);
    let length = squares(&gradients).sqrt();
    if !(loss.is_finite() && length.is_finite()) {
        return Err(Error::shape(
            "tune",
            format!(
                "step {} of the mask: the loss is {loss}, its gradient has length {length}",
                number + 1
            ),
        ));
    }
    let [first, second] = moments;
    adam(settings.rate, number + 1).step(&mut mask.logits, &gradients, first, second);
    Ok(Step {
        step: number + 1,
        loss,
        losses,
        length,
        rate: settings.rate,
    })
}

fn adam(rate: f32, step: u32) -> Adam {
    Adam {
        rate,
        betas: [0.9, 0.999],
        eps: 1e-8,
        decay: 0.0,
        coupled: false,
        step,
        scale: 1.0,
    }
}

/// Loss, losses of the tasks and gradients of the weights `base + sum * factors`.
fn pass(
    merged: &Parameters,
    frozen: &dyn Source,
    objective: Objective<'_>,
    number: u32,
    base: &[f32],
    sum: &[f32],
    factors: &[f32],
) -> Result<Passed> {
    merged.update(|weights, _| {
        for (((w, b), s), f) in weights.iter_mut().zip(base).zip(sum).zip(factors) {
            *w = b + s * f;
        }
    })?;
    let source = Trained {
        parameters: merged,
        frozen,
        seed: None,
    };
    let (value, losses) = objective(&source, number)?;
    let loss = f64::from(value.number()?);
    let mut found = merged.gradients()?;
    value.backward_into(&mut found)?;
    Ok((loss, losses, merged.gathered(&found)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_their_gradients_by_hand() {
        // Six entries with fixed u: the mask and its slope against the formula.
        let x = [-1.0f32, -0.5, 0.0, 0.25, 1.0, 2.0];
        let u = [0.1f32, 0.9, 0.5, 0.3, 0.7, 0.2];
        for (x, u) in x.iter().zip(u) {
            let by_hand = |x: f64| {
                1.0 / (1.0 + (-(x + (f64::from(u) / (1.0 - f64::from(u))).ln()) / 0.5).exp())
            };
            let m = relaxed(*x, u, 0.5);
            assert!((f64::from(m) - by_hand(f64::from(*x))).abs() < 1e-6);
            let h = 1e-4;
            let slope = (by_hand(f64::from(*x) + h) - by_hand(f64::from(*x) - h)) / (2.0 * h);
            assert!((f64::from(m * (1.0 - m)) / 0.5 - slope).abs() < 1e-6);
        }
    }

    #[test]
    fn the_mean_of_each_tensor_is_divided_out() {
        let mut mask = Mask::new(&[2, 3]);
        assert_eq!(mask.factors(), [1.0; 5]);
        mask.logits = vec![3f32.ln(), -(3f32.ln()), 50.0, 50.0, 50.0];
        // 3/4 and 1/4 over a mean of a half; large logits: plain task vectors.
        let found = mask.factors();
        assert!((found[0] - 1.5).abs() < 1e-6 && (found[1] - 0.5).abs() < 1e-6);
        assert_eq!(found[2..], [1.0; 3]);
    }

    #[test]
    fn gradients_of_logits_are_those_of_differences() {
        let (sum, weight) = (
            [0.5f32, -1.0, 2.0, 0.25, -0.75],
            [1.0f32, 2.0, -1.0, 0.5, 3.0],
        );
        let loss = |mask: &Mask| -> f64 {
            // Weights `sum * m / mean`, a linear loss of them; no draw: u = 1/2.
            let m: Vec<f32> = mask.logits.iter().map(|x| relaxed(*x, 0.5, 0.5)).collect();
            let mut factors = m;
            mask.means(&mut factors);
            (0..5)
                .map(|i| f64::from(weight[i] * sum[i] * factors[i]))
                .sum()
        };
        let mut mask = Mask::new(&[3, 2]);
        mask.logits = vec![0.3, -0.2, 0.1, 0.5, -0.4];
        let m: Vec<f32> = mask.logits.iter().map(|x| relaxed(*x, 0.5, 0.5)).collect();
        let mut g = weight;
        mask.gradients(&m, &sum, 0.5, &mut g);
        for (i, g) in g.iter().enumerate() {
            let at = |by: f32| {
                let mut moved = mask.clone();
                moved.logits[i] += by;
                loss(&moved)
            };
            let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (f64::from(*g) - difference).abs() < 1e-3,
                "{i}: {g} {difference}"
            );
        }
    }
}
