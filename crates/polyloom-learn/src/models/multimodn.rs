//! MultiModN: one state that encoders of modalities change in turn, and decoders that read it after each of them.
//!
//! Swamy et al., NeurIPS 2023. A modality that a sample lacks is skipped for that sample: its state stays, and no loss is taken
//! there. (The authors' program skips it for the whole batch.) Tensors: `state [width]`, `encoders.<m>.layers.<i>` over the
//! modality and the state side by side, `decoders.<t>`.

use serde::Deserialize;

use super::Source;
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation, IGNORED};

/// What a configuration says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Modalities, in the order in which they are read.
    pub modalities: usize,
    /// Linear layers of an encoder, ReLU between them.
    pub layers: usize,
    /// Goals.
    pub goals: usize,
    /// Weight of the cross-entropies.
    #[serde(default = "one")]
    pub err_penalty: f32,
    /// Weight of the changes of the state, times 0.01.
    #[serde(default = "one")]
    pub state_change_penalty: f32,
}

fn one() -> f32 {
    1.0
}

/// A modality of a batch.
#[derive(Debug, Clone)]
pub struct Modality {
    /// `[rows, features]`; what stands in absent rows does not count, but must be finite.
    pub values: Value,
    /// Which rows have it.
    pub present: Vec<bool>,
}

/// A pass.
#[derive(Debug, Clone)]
pub struct Run {
    /// States `[rows, width]`: the first one, and that after every modality.
    pub states: Vec<Value>,
    /// Scores `[rows, classes]` of every goal on every state, in the order of the states.
    pub scores: Vec<Vec<Value>>,
}

/// A network of one configuration; its widths are those of the weights.
#[derive(Debug, Clone)]
pub struct MultiModN {
    /// The configuration.
    pub config: Config,
}

impl MultiModN {
    /// Of a configuration.
    ///
    /// # Errors
    /// No modality, layer or goal.
    pub fn new(config: Config) -> Result<Self> {
        let counts = [config.modalities, config.layers, config.goals];
        if counts.iter().any(|n| !(1..=4096).contains(n)) {
            return Err(Error::Config {
                what: format!("modalities, layers, goals {counts:?}; 1 to 4096 each"),
            });
        }
        Ok(Self { config })
    }

    /// States and scores of a batch.
    ///
    /// # Errors
    /// Tensors that are absent, shapes that do not fit, another number of modalities or rows.
    pub fn forward(&self, weights: &dyn Source, batch: &[Modality]) -> Result<Run> {
        let rows = batch.first().map_or(0, |m| m.present.len());
        let fits = |m: &Modality| m.present.len() == rows && m.values.dims().first() == Some(&rows);
        if rows == 0 || batch.len() != self.config.modalities || !batch.iter().all(fits) {
            return Err(Error::shape(
                "multimodn",
                format!(
                    "{} modalities of {rows} rows; the model takes {} of one number of rows",
                    batch.len(),
                    self.config.modalities
                ),
            ));
        }
        let first = weights.tensor("state")?;
        let width = first.data().elem_count();
        let mut state = ops::rows(&ops::reshape(&first, &[1, width])?, &vec![0; rows])?;
        let mut run = Run {
            scores: vec![self.decoded(weights, &state)?],
            states: vec![state.clone()],
        };
        for (m, modality) in batch.iter().enumerate() {
            let mut x = ops::concat(&[&modality.values, &state], 1)?;
            for i in 0..self.config.layers {
                if i > 0 {
                    x = ops::activate(&x, Activation::Relu)?;
                }
                x = weights.linear(&format!("encoders.{m}.layers.{i}"), &x)?;
            }
            let choice = modality.present.iter().flat_map(|there| match there {
                true => [1.0, 0.0],
                false => [0.0, 1.0],
            });
            let choice = Value::constant(tensor(choice.collect(), (rows, 2))?);
            state = ops::blend(&choice, &[&x, &state])?;
            run.scores.push(self.decoded(weights, &state)?);
            run.states.push(state.clone());
        }
        Ok(run)
    }

    fn decoded(&self, weights: &dyn Source, state: &Value) -> Result<Vec<Value>> {
        (0..self.config.goals)
            .map(|t| weights.linear(&format!("decoders.{t}"), state))
            .collect()
    }

    /// The loss: cross-entropies over `goals (modalities + 1)`, on the first state of all rows and after a modality of those
    /// that have it (a mean over all rows), and `0.01` of the mean squares of the state's changes over the modalities.
    /// `labels`: the class of every row, by goal.
    ///
    /// # Errors
    /// Another number of goals, rows or modalities, a label that is no class.
    pub fn loss(&self, run: &Run, batch: &[Modality], labels: &[Vec<u32>]) -> Result<Value> {
        let c = &self.config;
        if labels.len() != c.goals || run.scores.len() != batch.len() + 1 {
            return Err(Error::shape(
                "multimodn",
                format!(
                    "labels of {} goals; the model has {}",
                    labels.len(),
                    c.goals
                ),
            ));
        }
        let mut total: Option<Value> = None;
        let mut add = |number: Value| -> Result<()> {
            total = Some(match total.take() {
                Some(sum) => ops::add(&sum, &number)?,
                None => number,
            });
            Ok(())
        };
        let share = c.err_penalty / (c.goals * (c.modalities + 1)) as f32;
        for (step, scores) in run.scores.iter().enumerate() {
            let present = step.checked_sub(1).map(|m| &batch[m].present);
            for (scores, labels) in scores.iter().zip(labels) {
                let there = |i: usize| present.is_none_or(|p| p.get(i) == Some(&true));
                let labels: Vec<u32> = labels
                    .iter()
                    .enumerate()
                    .map(|(i, y)| if there(i) { *y } else { IGNORED })
                    .collect();
                let count = labels.iter().filter(|y| **y != IGNORED).count();
                let part = share * count as f32 / labels.len().max(1) as f32;
                add(ops::scale(
                    &ops::cross_entropy(scores, &labels, 0.0)?,
                    part,
                )?)?;
            }
        }
        let share = 0.01 * c.state_change_penalty / c.modalities as f32;
        for pair in run.states.windows(2) {
            add(ops::scale(&ops::mean_squares(&pair[1], &pair[0])?, share)?)?;
        }
        total.ok_or_else(|| Error::shape("multimodn", "no states"))
    }
}
