//! Training of WEMoE's mixers: entropy of what the heads say on unlabelled inputs.

use polyloom_core::nn::optim::Adam;

use super::wemoe::{Blocks, Mixing, Wemoe, begin};
use crate::engine::{Parameters, Tensor, Value, slice};
use crate::error::{Error, Result};
use crate::models::{Plain, Source, Trained};
use crate::ops;
use crate::tasks::forward::features;
use crate::tasks::{Feature, Opened, Reader, Shown};
use crate::tune::objective::{Seen, drawn, unsure};

/// How mixers learn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Steps.
    pub steps: u32,
    /// Learning rate of Adam.
    pub rate: f32,
    /// Inputs of each task in a step.
    pub batch: usize,
    /// Seed of weights and draws.
    pub seed: u64,
}

/// A step that was made: its number from 1, and the loss before it.
pub type Step = (u32, f64);

/// Learns the mixers of all blocks over static weights with the heads among them: Adam on the sum over tasks of the mean
/// entropy; within a task's batch all inputs share the mean of their coefficients. Gives the mixers' tensors.
///
/// # Errors
/// A loss that is not finite, [`polyloom_core::Error::Interrupted`] where `watch` says false, inputs that the model does not
/// take.
pub(crate) fn learn(
    settings: Settings,
    opened: &Opened,
    reader: &Reader,
    statics: &Plain,
    blocks: &Blocks<'_>,
    seen: &[Seen],
    watch: &mut dyn FnMut(Step) -> bool,
) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = Vec::new();
    for (block, names) in blocks.names.iter().enumerate() {
        let Some(first) = names.first() else { continue };
        let weight = statics.tensor(&format!("{first}.weight"))?;
        let width = *weight.dims().last().unwrap_or(&0);
        tensors.extend(begin(block, width, blocks.experts.len(), settings.seed)?);
    }
    let parameters = Parameters::new(tensors)?;
    let n = parameters.len();
    let (mut first, mut second) = (vec![0f32; n], vec![0f32; n]);
    for step in 0..settings.steps {
        let source = Trained {
            parameters: &parameters,
            frozen: statics,
            seed: None,
        };
        let mut loss = 0f64;
        let mut found = parameters.gradients()?;
        for (task, seen) in seen.iter().enumerate() {
            let rows = drawn(seen.rows.len(), settings.batch, settings.seed, task, step);
            let shown: Vec<&Shown> = rows.iter().map(|i| &seen.rows.shown[*i]).collect();
            let value = entropy(opened, reader, &source, blocks, seen, shown)?;
            loss += f64::from(value.number()?);
            value.backward_into(&mut found)?;
        }
        let gradients = parameters.gathered(&found)?;
        if !loss.is_finite() || gradients.iter().any(|g| !g.is_finite()) {
            let what = format!(
                "step {}: the loss is {loss}; a lower weave.rate may help",
                step + 1
            );
            return Err(Error::shape("weave", what));
        }
        let adam = Adam {
            rate: settings.rate,
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay: 0.0,
            coupled: false,
            step: step + 1,
            scale: 1.0,
        };
        parameters.update(|weights, _| adam.step(weights, &gradients, &mut first, &mut second))?;
        if !watch((step + 1, loss)) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
    }
    let copy = |p: &crate::engine::Parameter| {
        let values = slice(p.value.data())?.to_vec();
        Ok((
            p.name.clone(),
            crate::engine::tensor(values, p.value.dims())?,
        ))
    };
    parameters.iter().map(copy).collect()
}

/// The mean entropy of a task's heads on some of its inputs.
fn entropy(
    opened: &Opened,
    reader: &Reader,
    source: &dyn Source,
    blocks: &Blocks<'_>,
    seen: &Seen,
    shown: Vec<&Shown>,
) -> Result<Value> {
    let parts: [(Feature, Vec<&Shown>); 1] = [(seen.feature, shown)];
    let mixed = Wemoe::new(
        source,
        blocks,
        Mixing::Mean,
        super::wemoe::present(reader, &parts)?,
    );
    let found = features(&opened.model, &mixed, reader, &parts)?;
    let mut whole: Option<Value> = None;
    for head in &seen.heads {
        let value = unsure(head, &head.forward(&mixed, &found[0])?)?;
        whole = Some(match whole {
            Some(before) => ops::add(&before, &value)?,
            None => value,
        });
    }
    let whole = whole.ok_or_else(|| Error::shape("weave", "a task without heads"))?;
    ops::scale(&whole, 1.0 / seen.heads.len() as f32)
}
