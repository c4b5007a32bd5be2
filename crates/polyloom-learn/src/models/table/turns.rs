//! Goals that learn from a state after every modality: what a pass in training keeps for it, and how it is laid out.

use crate::engine::{Value, slice};
use crate::error::{Error, In, Result};
use crate::ops;

/// The goals on every state of a pass. Modality `m` makes state `m + 1` of state `m`.
#[derive(Debug, Clone)]
pub struct Turns {
    /// Features `[rows, width]` by state and goal.
    pub features: Vec<Vec<Value>>,
    /// Which rows have which modality `[rows, modalities]`: 1 or 0.
    pub there: Value,
    /// Mean squares of what every modality changes of the state, summed over the modalities `[rows, 1]`.
    pub changes: Value,
}

impl Turns {
    /// All in one value: features on the last state, on the others in order, which modality is there, the changes.
    ///
    /// # Errors
    /// Another number of rows in one of them.
    pub fn side_by_side(&self) -> Result<Value> {
        let Some((last, before)) = self.features.split_last() else {
            return Err(Error::shape("turns", "no state"));
        };
        let parts = last.iter().chain(before.iter().flatten());
        let parts: Vec<&Value> = parts.chain([&self.there, &self.changes]).collect();
        ops::concat(&parts, 1)
    }
}

/// How goals learn from all states, and where these lie in [`Turns::side_by_side`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InTurn {
    /// Modalities; there is one state more.
    pub modalities: usize,
    /// Width of the features of all goals on one state.
    pub width: usize,
    /// Weight of the losses.
    pub errors: f32,
    /// Weight of the changes of the state; 0.01 is in it.
    pub changes: f32,
}

impl InTurn {
    /// Features of all goals on a state, as heads read them; state 0 is that before the first modality.
    ///
    /// # Errors
    /// A state that there is not.
    pub fn features(&self, whole: &Value, state: usize) -> Result<Value> {
        let place = match state {
            s if s == self.modalities => 0,
            s => s + 1,
        };
        ops::narrow(whole, 1, place * self.width, self.width)
    }

    /// Which rows have read something new on a state: all on the first one, then those that have the modality.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn there(&self, whole: &Value, state: usize) -> Result<Vec<bool>> {
        let Some(modality) = state.checked_sub(1) else {
            return Ok(vec![true; whole.dims().first().copied().unwrap_or(0)]);
        };
        let at = (self.modalities + 1) * self.width + modality;
        let column = ops::narrow(whole, 1, at, 1)?;
        let column = column.data().contiguous().during("turns")?;
        Ok(slice(&column)?.iter().map(|x| *x > 0.5).collect())
    }

    /// What the changes of the state cost: their mean squares, over rows and modalities.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn change(&self, whole: &Value) -> Result<Value> {
        let at = (self.modalities + 1) * self.width + self.modalities;
        let mean = ops::mean(&ops::narrow(whole, 1, at, 1)?)?;
        ops::scale(&mean, self.changes / self.modalities as f32)
    }

    /// The loss of a goal: the mean over the states of its mean losses there, each times the share of the rows with a label
    /// that the state is of, and what the changes cost.
    ///
    /// # Errors
    /// Values that are no numbers.
    pub fn loss(&self, of_states: &[(Value, f32)], whole: &Value) -> Result<Value> {
        let each = self.errors / (self.modalities + 1) as f32;
        let start = self.change(whole)?;
        of_states.iter().try_fold(start, |sum, (loss, share)| {
            ops::add(&sum, &ops::scale(loss, each * share)?)
        })
    }
}
