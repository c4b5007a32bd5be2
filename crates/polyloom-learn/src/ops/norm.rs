//! Layer norm and RMS norm.

use polyloom_core::nn::norm::{self as kernel, Moments, Scale};

use super::{cpu, dense, width};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const NORM: &str = "norm";

/// What kind of norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Takes the mean off first: layer norm; else RMS norm.
    pub centred: bool,
    /// Added to the variance.
    pub eps: f32,
    /// Added to the weight: 1 for Gemma.
    pub offset: f32,
}

impl Norm {
    /// Layer norm.
    pub fn layer(eps: f32) -> Self {
        Self {
            centred: true,
            eps,
            offset: 0.0,
        }
    }

    /// RMS norm.
    pub fn rms(eps: f32) -> Self {
        Self {
            centred: false,
            eps,
            offset: 0.0,
        }
    }

    fn scale<'a>(&self, gain: &'a [f32], bias: &'a [f32]) -> Scale<'a> {
        Scale {
            gain,
            bias,
            offset: self.offset,
            eps: self.eps,
            centred: self.centred,
        }
    }
}

/// Norm over the last axis, times `weight` and plus `bias`, both of its length.
///
/// # Errors
/// Shapes that do not fit together.
pub fn norm(x: &Value, weight: &Value, bias: Option<&Value>, rule: Norm) -> Result<Value> {
    let n = width(x, NORM)?;
    if weight.dims() != [n] || bias.is_some_and(|b| b.dims() != [n]) {
        return Err(Error::shape(
            NORM,
            format!("a weight of {:?} for {:?}", weight.dims(), x.dims()),
        ));
    }
    let inputs: Vec<&Value> = [Some(x), Some(weight), bias]
        .into_iter()
        .flatten()
        .collect();
    if !cpu(&inputs) {
        return compose(NORM, &inputs, move |t| composed(t, rule));
    }
    let (xs, w) = (dense(x.data(), NORM)?, dense(weight.data(), NORM)?);
    let b = bias.map(|b| dense(b.data(), NORM)).transpose()?;
    let b = b.as_ref().map(slice).transpose()?;
    let (out, moments) = kernel::forward(
        &slice(&xs)?,
        rule.scale(&slice(&w)?, b.as_deref().unwrap_or(&[])),
    );
    Ok(Value::made(
        tensor(out, x.dims())?,
        Normed { rule, moments },
        &inputs,
    ))
}

fn composed(t: &[Tensor], rule: Norm) -> candle_core::Result<Tensor> {
    let x = if rule.centred {
        t[0].broadcast_sub(&t[0].mean_keepdim(candle_core::D::Minus1)?)?
    } else {
        t[0].clone()
    };
    let root = (x.sqr()?.mean_keepdim(candle_core::D::Minus1)? + f64::from(rule.eps))?.sqrt()?;
    let y = x
        .broadcast_div(&root)?
        .broadcast_mul(&(&t[1] + f64::from(rule.offset))?)?;
    match t.get(2) {
        Some(b) => y.broadcast_add(b),
        None => Ok(y),
    }
}

struct Normed {
    rule: Norm,
    moments: Moments,
}

impl Op for Normed {
    fn name(&self) -> &'static str {
        NORM
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        (self.rule == Norm::layer(self.rule.eps)).then_some(Meaning::LayerNorm(self.rule.eps))
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, w, g) = (
            dense(inputs[0].data(), NORM)?,
            dense(inputs[1].data(), NORM)?,
            dense(grad, NORM)?,
        );
        let (x, w, g) = (slice(&x)?, slice(&w)?, slice(&g)?);
        if into.wants(0) {
            into.give_values(
                0,
                kernel::backward(&x, &self.moments, &g, self.rule.scale(&w, &[])),
            )?;
        }
        if into.wants(1) {
            let mut gain = vec![0f32; w.len()];
            kernel::add_backward_scale(&mut gain, &mut [], &x, &self.moments, &g);
            into.give_values(1, gain)?;
        }
        if inputs.len() > 2 && into.wants(2) {
            let mut bias = vec![0f32; w.len()];
            polyloom_core::nn::elementwise::add_column_sums(&mut bias, &g);
            into.give_values(2, bias)?;
        }
        Ok(())
    }
}
