//! Losses that weigh their rows: cross-entropies of all rows, made one by whoever asks.

use polyloom_core::nn::loss::{self as kernel, cross_entropy_backward};

use super::loss::{labels_fit, slope};
use super::{cpu, dense, width};
use crate::engine::{Device, Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{In, Result};

const WEIGHED: &str = "weighed cross-entropy";

/// A loss made of the cross-entropies of rows, of scores `[.., classes]` with labels (`smoothing` of the target goes evenly to
/// all classes): `f` gets them and says the loss, and its slope by each of them.
///
/// # Errors
/// Another number of rows than labels, a label that is no class.
///
/// # Panics
/// If `f` gives another number of slopes.
pub fn weighed_cross_entropy(
    scores: &Value,
    labels: &[u32],
    smoothing: f32,
    f: impl FnOnce(&[f32]) -> (f64, Vec<f32>),
) -> Result<Value> {
    let classes = width(scores, WEIGHED)?;
    labels_fit(scores, labels.len(), labels.iter(), classes, WEIGHED)?;
    let near = scores.data().to_device(&Device::Cpu).during(WEIGHED)?;
    let data = dense(&near, WEIGHED)?;
    let (losses, p) = kernel::cross_entropy(&slice(&data)?, classes, labels, smoothing);
    let (value, slopes) = f(&losses);
    assert_eq!(slopes.len(), labels.len(), "slopes of a loss");
    if !cpu(&[scores]) {
        let mut q = vec![0f32; labels.len() * classes];
        for ((row, label), slope) in q.chunks_exact_mut(classes).zip(labels).zip(&slopes) {
            row.fill(slope * smoothing / classes as f32);
            row[*label as usize] += slope * (1.0 - smoothing);
        }
        let q = tensor(q, (labels.len(), classes))?
            .to_device(scores.data().device())
            .during(WEIGHED)?;
        let linear: f64 = losses
            .iter()
            .zip(&slopes)
            .map(|(l, s)| f64::from(*l) * f64::from(*s))
            .sum();
        // What the slopes alone would sum to has the gradient; the rest is a constant.
        return compose(WEIGHED, &[scores], move |t| {
            super::loss::composed(&t[0], &q)? + (value - linear)
        });
    }
    let op = Weighed {
        name: WEIGHED,
        p,
        labels: labels.to_vec(),
        smoothing,
        slopes,
    };
    Ok(Value::made(tensor(vec![value as f32], ())?, op, &[scores]))
}

/// A loss of cross-entropies of rows.
pub(super) struct Weighed {
    /// Which.
    pub name: &'static str,
    /// Probabilities, row by row.
    pub p: Vec<f32>,
    /// Labels.
    pub labels: Vec<u32>,
    /// Share of a target that goes to all classes.
    pub smoothing: f32,
    /// Of the loss, by the cross-entropy of every row.
    pub slopes: Vec<f32>,
}

impl Op for Weighed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let g = slope(grad, self.name)?;
        let classes = width(&inputs[0], self.name)?;
        let rows: Vec<f32> = self.slopes.iter().map(|s| g * s).collect();
        let found = cross_entropy_backward(&self.p, classes, &self.labels, self.smoothing, &rows);
        into.give_values(0, found)
    }
}
