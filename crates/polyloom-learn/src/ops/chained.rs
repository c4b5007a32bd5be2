//! The cross-entropy of one thing after another: both must happen.

use polyloom_core::nn::math::sigmoid;

use super::{cpu, dense};
use crate::engine::{Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const CHAINED: &str = "chained cross-entropy";

/// Mean cross-entropy of `p = sigmoid(a) sigmoid(b)` against labels 0 to 1, of scores `a` and `b` of one shape, in the logarithm
/// throughout: no score makes it infinite. `log p = log sigmoid(a) + log sigmoid(b)`, and
/// `log(1 - p) = log p + log(exp(-a) + exp(-b) + exp(-a - b))`.
///
/// # Errors
/// Two shapes, another number of labels.
pub fn chained_cross_entropy(a: &Value, b: &Value, labels: &[f32]) -> Result<Value> {
    let n = a.data().elem_count();
    if a.dims() != b.dims() || labels.len() != n || n == 0 {
        return Err(Error::shape(
            CHAINED,
            format!(
                "scores {:?} and {:?} with {} labels",
                a.dims(),
                b.dims(),
                labels.len()
            ),
        ));
    }
    if !cpu(&[a, b]) {
        let labels = labels.to_vec();
        return compose(CHAINED, &[a, b], move |t| composed(t, &labels));
    }
    let (x, y) = (dense(a.data(), CHAINED)?, dense(b.data(), CHAINED)?);
    let (x, y) = (slice(&x)?, slice(&y)?);
    let rows = x.iter().zip(y.iter()).zip(labels);
    let total: f64 = rows
        .map(|((a, b), label)| {
            let both = log_sigmoid(f64::from(*a)) + log_sigmoid(f64::from(*b));
            let rest = 1.0 - f64::from(*label);
            -both - rest * otherwise(f64::from(*a), f64::from(*b)).0
        })
        .sum();
    let loss = tensor(vec![(total / n as f64) as f32], ())?;
    let labels = labels.to_vec();
    Ok(Value::made(loss, Chained(labels), &[a, b]))
}

fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// `log(exp(-a) + exp(-b) + exp(-a - b))`, and its slopes by `-a` and `-b`.
fn otherwise(a: f64, b: f64) -> (f64, [f64; 2]) {
    let all = [-a, -b, -a - b];
    let top = all.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let raised = all.map(|x| (x - top).exp());
    let sum: f64 = raised.iter().sum();
    let slopes = [(raised[0] + raised[2]) / sum, (raised[1] + raised[2]) / sum];
    (top + sum.ln(), slopes)
}

/// The same by candle's operations.
fn composed(t: &[Tensor], labels: &[f32]) -> candle_core::Result<Tensor> {
    let log_sigmoid = |x: &Tensor| ((x.neg()?.exp()? + 1.0)?.log())?.neg();
    let (a, b) = (t[0].flatten_all()?, t[1].flatten_all()?);
    let both = (log_sigmoid(&a)? + log_sigmoid(&b)?)?;
    let rest: Vec<f32> = labels.iter().map(|y| 1.0 - y).collect();
    let rest = Tensor::from_slice(&rest, labels.len(), a.device())?;
    let (a, b) = (a.neg()?.exp()?, b.neg()?.exp()?);
    let other = ((&a + &b)? + a.mul(&b)?)?.log()?;
    (both + other.mul(&rest)?)?.mean_all()?.neg()
}

struct Chained(Vec<f32>);

impl Op for Chained {
    fn name(&self) -> &'static str {
        CHAINED
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (a, b) = (
            dense(inputs[0].data(), CHAINED)?,
            dense(inputs[1].data(), CHAINED)?,
        );
        let (a, b, g) = (slice(&a)?, slice(&b)?, dense(grad, CHAINED)?);
        let share = slice(&g)?.first().copied().unwrap_or_default() / self.0.len() as f32;
        for (i, own) in [&a, &b].into_iter().enumerate() {
            let rows = a.iter().zip(b.iter()).zip(own.iter()).zip(&self.0);
            let found = rows.map(|(((a, b), own), label)| {
                let slope = otherwise(f64::from(*a), f64::from(*b)).1[i] as f32;
                share * ((1.0 - label) * slope - sigmoid(-own))
            });
            into.give_values(i, found.collect())?;
        }
        Ok(())
    }
}
