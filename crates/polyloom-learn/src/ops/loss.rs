//! Losses: one number out of a batch.

use candle_core::D;
pub use polyloom_core::nn::loss::IGNORED;
use polyloom_core::nn::{loss as kernel, softmax};

use super::weighed::Weighed;
use super::{cpu, dense, mean, mul, sub, width};
use crate::engine::{Device, Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const CROSS_ENTROPY: &str = "cross-entropy";

/// Mean cross-entropy of scores `[.., classes]` with labels; rows labelled [`IGNORED`] do not count, `smoothing` of the
/// target goes evenly to all classes. 0 where no row counts.
///
/// # Errors
/// Another number of rows than labels, a label that is no class.
pub fn cross_entropy(scores: &Value, labels: &[u32], smoothing: f32) -> Result<Value> {
    let classes = width(scores, CROSS_ENTROPY)?;
    let counted = labels.iter().filter(|l| **l != IGNORED);
    labels_fit(scores, labels.len(), counted, classes, CROSS_ENTROPY)?;
    let count = labels.iter().filter(|&&l| l != IGNORED).count().max(1);
    if !cpu(&[scores]) {
        let mut q = vec![0f32; labels.len() * classes];
        for (row, &label) in q
            .chunks_exact_mut(classes)
            .zip(labels)
            .filter(|(_, l)| **l != IGNORED)
        {
            row.fill(smoothing / (classes * count) as f32);
            row[label as usize] += (1.0 - smoothing) / count as f32;
        }
        let q = tensor(q, (labels.len(), classes))?
            .to_device(scores.data().device())
            .during(CROSS_ENTROPY)?;
        return compose(CROSS_ENTROPY, &[scores], move |t| composed(&t[0], &q));
    }
    let data = dense(scores.data(), CROSS_ENTROPY)?;
    let (losses, p) = kernel::cross_entropy(&slice(&data)?, classes, labels, smoothing);
    let total: f64 = losses.iter().map(|x| f64::from(*x)).sum();
    let op = Weighed {
        name: CROSS_ENTROPY,
        p,
        labels: labels.to_vec(),
        smoothing,
        slopes: vec![1.0 / count as f32; labels.len()],
    };
    Ok(Value::made(
        tensor(vec![(total / count as f64) as f32], ())?,
        op,
        &[scores],
    ))
}

/// Refuses another number of labels than rows, and labels that are no class.
pub(super) fn labels_fit<'l>(
    scores: &Value,
    rows: usize,
    mut labels: impl Iterator<Item = &'l u32>,
    classes: usize,
    op: &'static str,
) -> Result<()> {
    if scores.data().elem_count() != rows * classes {
        let what = format!("scores {:?} for {rows} labels", scores.dims());
        return Err(Error::shape(op, what));
    }
    match labels.find(|l| **l as usize >= classes) {
        Some(label) => Err(Error::shape(
            op,
            format!("label {label} of {classes} classes"),
        )),
        None => Ok(()),
    }
}

pub(super) fn composed(scores: &Tensor, q: &Tensor) -> candle_core::Result<Tensor> {
    let x = scores.reshape(q.dims())?;
    let top = x.max_keepdim(D::Minus1)?.detach();
    let x = x.broadcast_sub(&top)?;
    let logs = x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    logs.mul(q)?.sum_all()?.neg()
}

/// The gradient of a loss, which is one number.
pub(super) fn slope(grad: &Tensor, op: &'static str) -> Result<f32> {
    let one = grad.to_device(&Device::Cpu).and_then(|t| t.to_scalar());
    one.during(op)
}

const SOFT: &str = "soft cross-entropy";

/// Mean over rows of the cross-entropy of the softmax of scores `[rows, classes]` with probabilities that are given,
/// `targets` of the same number, row by row.
///
/// # Errors
/// Another number of targets, scores without rows.
pub fn soft_cross_entropy(scores: &Value, targets: &[f32]) -> Result<Value> {
    let classes = width(scores, SOFT)?;
    let rows = scores.data().elem_count() / classes;
    if rows == 0 || rows * classes != targets.len() {
        let dims = scores.dims();
        return Err(Error::shape(
            SOFT,
            format!("scores {dims:?} for {} targets", targets.len()),
        ));
    }
    if !cpu(&[scores]) {
        let share: Vec<f32> = targets.iter().map(|t| t / rows as f32).collect();
        let q = tensor(share, (rows, classes))?
            .to_device(scores.data().device())
            .during(SOFT)?;
        return compose(SOFT, &[scores], move |t| composed(&t[0], &q));
    }
    let data = dense(scores.data(), SOFT)?;
    let mut total = 0.0;
    let mut gradient = Vec::with_capacity(targets.len());
    for (z, q) in slice(&data)?
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes))
    {
        let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = z.iter().map(|x| f64::from(x - top).exp()).sum();
        let log = f64::from(top) + sum.ln();
        let mass: f64 = q.iter().map(|q| f64::from(*q)).sum();
        for (z, q) in z.iter().zip(q) {
            total += f64::from(*q) * (log - f64::from(*z));
            let p = (f64::from(*z) - log).exp();
            gradient.push((p * mass - f64::from(*q)) as f32 / rows as f32);
        }
    }
    let value = tensor(vec![(total / rows as f64) as f32], ())?;
    Ok(Value::made(value, Soft { gradient }, &[scores]))
}

struct Soft {
    gradient: Vec<f32>,
}

impl Op for Soft {
    fn name(&self) -> &'static str {
        SOFT
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let g = slope(grad, SOFT)?;
        into.give_values(0, self.gradient.iter().map(|x| g * x).collect())
    }
}

const ENTROPY: &str = "entropy";

/// Mean over rows of the entropy of the softmax of scores `[rows, classes]`, in nats: how unsure a classifier is.
///
/// # Errors
/// Scores without rows or classes.
pub fn entropy(scores: &Value) -> Result<Value> {
    let classes = width(scores, ENTROPY)?;
    let rows = scores.data().elem_count() / classes;
    if rows == 0 {
        return Err(Error::shape(ENTROPY, format!("scores {:?}", scores.dims())));
    }
    if !cpu(&[scores]) {
        return compose(ENTROPY, &[scores], move |t| {
            let x = t[0].reshape((rows, classes))?;
            let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
            let logs = x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
            (logs.exp()?.mul(&logs)?.sum_all()?.neg())? / rows as f64
        });
    }
    let data = dense(scores.data(), ENTROPY)?;
    let (entropies, p) = kernel::entropy(&slice(&data)?, classes);
    let total: f64 = entropies.iter().map(|x| f64::from(*x)).sum();
    let value = tensor(vec![(total / rows as f64) as f32], ())?;
    Ok(Value::made(value, Entropy { p, entropies }, &[scores]))
}

struct Entropy {
    p: Vec<f32>,
    entropies: Vec<f32>,
}

impl Op for Entropy {
    fn name(&self) -> &'static str {
        ENTROPY
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let g = slope(grad, ENTROPY)?;
        let n = self.entropies.len();
        let classes = width(&inputs[0], ENTROPY)?;
        let rows = vec![g / n as f32; n];
        into.give_values(
            0,
            kernel::entropy_backward(&self.p, classes, &self.entropies, &rows),
        )
    }
}

const MARGINAL: &str = "marginal entropy";

/// Entropy of the mean over rows of the softmax of scores `[rows, classes]`, in nats: ln(classes) where all classes are
/// given alike, 0 where every row is surely the same one. Sums in f64.
///
/// # Errors
/// Scores without rows or classes.
pub fn marginal_entropy(scores: &Value) -> Result<Value> {
    let classes = width(scores, MARGINAL)?;
    let rows = scores.data().elem_count() / classes;
    if rows == 0 {
        return Err(Error::shape(
            MARGINAL,
            format!("scores {:?}", scores.dims()),
        ));
    }
    if !cpu(&[scores]) {
        return compose(MARGINAL, &[scores], move |t| {
            let x = t[0].reshape((rows, classes))?;
            let x = x
                .broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?
                .exp()?;
            let p = x.broadcast_div(&x.sum_keepdim(D::Minus1)?)?.mean(0)?;
            p.mul(&p.clamp(f32::MIN_POSITIVE, 1.0)?.log()?)?
                .sum_all()?
                .neg()
        });
    }
    let data = dense(scores.data(), MARGINAL)?;
    let mut p = slice(&data)?.to_vec();
    softmax::forward(&mut p, classes);
    let mut mean = vec![0f64; classes];
    for row in p.chunks_exact(classes) {
        for (m, p) in mean.iter_mut().zip(row) {
            *m += f64::from(*p) / rows as f64;
        }
    }
    // A class that no row gives adds nothing, and its rows have no gradient.
    let logs: Vec<f64> = mean
        .iter()
        .map(|m| if *m > 0.0 { m.ln() } else { 0.0 })
        .collect();
    let total: f64 = mean.iter().zip(&logs).map(|(m, l)| -m * l).sum();
    let value = tensor(vec![total as f32], ())?;
    Ok(Value::made(value, Marginal { p, logs }, &[scores]))
}

struct Marginal {
    p: Vec<f32>,
    logs: Vec<f64>,
}

impl Op for Marginal {
    fn name(&self) -> &'static str {
        MARGINAL
    }

    /// `g p_c / n (sum_k p_k ln m_k - ln m_c)`.
    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let g = slope(grad, MARGINAL)?;
        let classes = self.logs.len();
        let g = f64::from(g) / (self.p.len() / classes) as f64;
        let mut out = Vec::with_capacity(self.p.len());
        for row in self.p.chunks_exact(classes) {
            let pairs = || row.iter().zip(&self.logs);
            let mean: f64 = pairs().map(|(p, l)| f64::from(*p) * l).sum();
            out.extend(pairs().map(|(p, l)| (g * f64::from(*p) * (mean - l)) as f32));
        }
        into.give_values(0, out)
    }
}

/// Mean of squared differences.
///
/// # Errors
/// Two shapes.
pub fn mean_squares(x: &Value, target: &Value) -> Result<Value> {
    let d = sub(x, target)?;
    mean(&mul(&d, &d)?)
}
