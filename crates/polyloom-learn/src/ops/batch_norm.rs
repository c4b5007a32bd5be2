//! Batch norm.

use polyloom_core::nn::batch_norm::{self as kernel, Moments, Scale};

use super::{cpu, dense, width};
use crate::engine::{Device, Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const BATCH_NORM: &str = "batch norm";

/// Batch norm of the columns of `x [.., n]`, times `weight` and plus `bias`, both `[n]`. Without `running` mean and (biased)
/// variance are those of the rows of `x`, gradients flow through them, and they are returned; with it they are these numbers.
///
/// # Errors
/// Shapes that do not fit together; one row alone, which has no variance.
pub fn batch_norm(
    x: &Value,
    weight: &Value,
    bias: &Value,
    running: Option<Moments>,
    eps: f32,
) -> Result<(Value, Option<Moments>)> {
    let n = width(x, BATCH_NORM)?;
    let given = running
        .as_ref()
        .is_none_or(|r| r.mean.len() == n && r.variance.len() == n);
    if weight.dims() != [n] || bias.dims() != [n] || !given {
        let problem = format!("a weight of {:?} for {:?}", weight.dims(), x.dims());
        return Err(Error::shape(BATCH_NORM, problem));
    }
    if running.is_none() && x.data().elem_count() < 2 * n {
        return Err(Error::shape(
            BATCH_NORM,
            "a batch of one row has no variance; make batches of two rows at least",
        ));
    }
    let inputs = [x, weight, bias];
    if !cpu(&inputs) {
        return composed(&inputs, running, eps);
    }
    let [xs, w, b] = inputs.map(|v| dense(v.data(), BATCH_NORM));
    let (xs, w, b) = (xs?, w?, b?);
    let (xs, w, b) = (slice(&xs)?, slice(&w)?, slice(&b)?);
    let own = running.is_none();
    let moments = running.unwrap_or_else(|| Moments::of(&xs, n));
    let told = own.then(|| moments.clone());
    let scale = moments.scale(eps);
    let out = kernel::forward(&xs, &scale, &w, &b);
    let made = Value::made(tensor(out, x.dims())?, BatchNorm { scale, own }, &inputs);
    Ok((made, told))
}

/// The same by candle's operations.
fn composed(
    inputs: &[&Value],
    running: Option<Moments>,
    eps: f32,
) -> Result<(Value, Option<Moments>)> {
    let n = inputs[1].dims()[0];
    let told = match running {
        Some(_) => None,
        None => {
            let data = inputs[0].data().to_device(&Device::Cpu);
            let data = dense(&data.during(BATCH_NORM)?, BATCH_NORM)?;
            Some(Moments::of(&slice(&data)?, n))
        }
    };
    let made = compose(BATCH_NORM, inputs, move |t| {
        let x = t[0].reshape(((), n))?;
        let (mean, variance) = match &running {
            Some(given) => {
                let row = |v: &[f32]| Tensor::from_slice(v, (1, n), x.device());
                (row(&given.mean)?, row(&given.variance)?)
            }
            None => {
                let mean = x.mean_keepdim(0)?;
                let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
                (mean, variance)
            }
        };
        x.broadcast_sub(&mean)?
            .broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?
            .broadcast_mul(&t[1])?
            .broadcast_add(&t[2])?
            .reshape(t[0].dims())
    })?;
    Ok((made, told))
}

struct BatchNorm {
    scale: Scale,
    /// Mean and variance are those of the input.
    own: bool,
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        BATCH_NORM
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        (!self.own).then_some(Meaning::BatchNorm(&self.scale))
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, w, g) = (
            dense(inputs[0].data(), BATCH_NORM)?,
            dense(inputs[1].data(), BATCH_NORM)?,
            dense(grad, BATCH_NORM)?,
        );
        let (x, w, g) = (slice(&x)?, slice(&w)?, slice(&g)?);
        let (mut gain, mut bias) = (vec![0f32; w.len()], vec![0f32; w.len()]);
        if self.own || into.wants(1) || into.wants(2) {
            kernel::add_backward_scale(&mut gain, &mut bias, &x, &self.scale, &g);
        }
        if into.wants(0) {
            let found = self.own.then_some((&gain[..], &bias[..]));
            into.give_values(0, kernel::backward(&x, &self.scale, &g, &w, found))?;
        }
        into.give_values(1, gain)?;
        into.give_values(2, bias)
    }
}
