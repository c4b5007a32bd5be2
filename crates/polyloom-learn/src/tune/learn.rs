//! The loop: merged weights, a loss, gradients of the coefficients, a step of AdamW.

use polyloom_core::nn::elementwise::squares;
use polyloom_core::nn::optim::Adam;

use super::coefficients::Coefficients;
use super::vectors::Vectors;
use crate::engine::{Parameters, Value};
use crate::error::{Error, Result};
use crate::models::{Source, Trained};
use crate::train::Schedule;

/// How coefficients move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Decay of Adam's moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of the coefficients, as AdamW's.
    pub decay: f32,
    /// Longest gradient, 0 for any.
    pub clip: f64,
    /// Factor and power of the penalty on the coefficients.
    pub penalty: (f64, f64),
}

/// A step that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its number, from 1.
    pub step: u32,
    /// The loss before it, penalty included.
    pub loss: f64,
    /// The loss of each task before it.
    pub losses: Vec<f64>,
    /// Length of the coefficients' gradient, before it was clipped.
    pub length: f64,
    /// Its learning rate.
    pub rate: f32,
}

/// How far a loop is: the steps that are done and the moments of Adam, of as many numbers as are learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u32,
    /// First and second moments.
    pub moments: [Vec<f32>; 2],
}

impl Progress {
    /// Before the first step of `n` numbers.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self {
            step: 0,
            moments: [vec![0.0; n], vec![0.0; n]],
        }
    }
}

/// The loss of a step (numbered from 0) with weights from a source: one value, and the numbers of its tasks.
pub type Objective<'a> = &'a mut dyn FnMut(&dyn Source, u32) -> Result<(Value, Vec<f64>)>;

/// Learns coefficients. `merged` holds the tensors of `vectors` in their order: its numbers become the merged weights, in
/// the end those of the learned coefficients. `frozen` has all other tensors. `watch` sees every step with the coefficients
/// after it, and `progress` as it is then; false stops the run. With the coefficients and the progress of a step the loop goes
/// on behind it, to the same numbers.
///
/// Cost of a step: forward and backward of one model, and two readings of all experts.
///
/// # Errors
/// A loss or a gradient that is not finite, [`polyloom_core::Error::Interrupted`] where `watch` stopped the run, what the
/// objective reports.
#[allow(
    clippy::too_many_arguments,
    reason = "the state of the loop, taken apart"
)]
pub fn learn(
    settings: &Settings,
    vectors: &Vectors,
    merged: &Parameters,
    frozen: &dyn Source,
    coefficients: &mut Coefficients,
    progress: &mut Progress,
    objective: Objective<'_>,
    watch: &mut dyn FnMut(&Step, &Coefficients, &Progress) -> bool,
) -> Result<()> {
    for number in progress.step..settings.schedule.steps {
        merge(vectors, coefficients, merged)?;
        let source = Trained {
            parameters: merged,
            frozen,
            seed: None,
        };
        let (value, losses) = objective(&source, number)?;
        let mut loss = f64::from(value.number()?);
        let mut found = merged.gradients()?;
        value.backward_into(&mut found)?;
        drop(value);
        let mut gradients = vectors.gradients(&merged.gathered(&found)?)?;
        let (factor, power) = settings.penalty;
        loss += coefficients.penalty(factor, power, &mut gradients);
        let gradients = coefficients.through(&gradients);
        let length = squares(&gradients).sqrt();
        if !(loss.is_finite() && length.is_finite()) {
            return Err(Error::shape(
                "tune",
                format!(
                    "step {}: the loss is {loss}, its gradient has length {length}; a lower tune.rate or tune.init may help",
                    number + 1
                ),
            ));
        }
        let rate = settings.schedule.at(number);
        let adam = Adam {
            rate,
            betas: settings.betas,
            eps: settings.eps,
            decay: settings.decay,
            coupled: false,
            step: number + 1,
            // PyTorch adds 1e-6 to the length.
            scale: match settings.clip {
                clip if clip > 0.0 && length > clip => (clip / (length + 1e-6)) as f32,
                _ => 1.0,
            },
        };
        let [first, second] = &mut progress.moments;
        adam.step(&mut coefficients.raw, &gradients, first, second);
        progress.step = number + 1;
        let step = Step {
            step: number + 1,
            loss,
            losses,
            length,
            rate,
        };
        if !watch(&step, coefficients, progress) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
    }
    merge(vectors, coefficients, merged)
}

/// Puts the merged weights in place.
fn merge(vectors: &Vectors, coefficients: &Coefficients, merged: &Parameters) -> Result<()> {
    let mut outcome = Ok(());
    merged.update(|weights, _| outcome = vectors.merge(&coefficients.acting(), weights))?;
    outcome
}
