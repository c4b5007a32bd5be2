//! Softmax, and sums of experts whose weights differ by row: what gates do.

use polyloom_core::nn::blend::{self as kernel, Part, Place};
use polyloom_core::nn::softmax as rule;

use super::{cpu, dense, width};
use crate::engine::{Into, Meaning, Op, Slice, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const SOFTMAX: &str = "softmax";

/// Softmax over the last axis.
///
/// # Errors
/// A value without a last axis.
pub fn softmax(x: &Value) -> Result<Value> {
    let n = width(x, SOFTMAX)?;
    if !cpu(&[x]) {
        return compose(SOFTMAX, &[x], |t| {
            let last = candle_core::D::Minus1;
            // The largest is taken off as a number: it changes nothing, and no gradient must flow through it.
            let raised = t[0]
                .broadcast_sub(&t[0].max_keepdim(last)?.detach())?
                .exp()?;
            raised.broadcast_div(&raised.sum_keepdim(last)?)
        });
    }
    let data = dense(x.data(), SOFTMAX)?;
    let mut out = slice(&data)?.to_vec();
    rule::forward(&mut out, n);
    Ok(Value::made(tensor(out, x.dims())?, Softmax, &[x]))
}

struct Softmax;

impl Op for Softmax {
    fn name(&self) -> &'static str {
        SOFTMAX
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Softmax)
    }

    fn backward(
        &self,
        _: &[Value],
        output: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (p, g) = (dense(output, SOFTMAX)?, dense(grad, SOFTMAX)?);
        let n = output.dims().last().copied().unwrap_or(1);
        into.give_values(0, rule::backward(&slice(&p)?, &slice(&g)?, n))
    }
}

const BLEND: &str = "blend";

/// `sum_e weights[b, e] expert_e[b]`: `[rows, width]` of `weights [rows, experts]` and the experts' outputs, those of several
/// experts side by side: `[rows, count * width]`, in the order of the weights.
///
/// # Errors
/// Shapes that do not fit together.
pub fn blend(weights: &Value, parts: &[&Value]) -> Result<Value> {
    let shape = Shape::of(weights, parts)?;
    let (rows, width) = (shape.rows, shape.width);
    let inputs: Vec<&Value> = [weights].into_iter().chain(parts.iter().copied()).collect();
    if !cpu(&inputs) {
        let counts = shape.counts;
        return compose(BLEND, &inputs, move |t| {
            let mut all = Vec::new();
            for (part, count) in t[1..].iter().zip(&counts) {
                all.push(part.reshape((rows, *count, width))?);
            }
            let weights = t[0].unsqueeze(2)?;
            Tensor::cat(&all, 1)?.broadcast_mul(&weights)?.sum(1)
        });
    }
    let data: Vec<Tensor> = inputs
        .iter()
        .map(|v| dense(v.data(), BLEND))
        .collect::<Result<_>>()?;
    let out = {
        let slices: Vec<Slice<'_>> = data.iter().map(slice).collect::<Result<_>>()?;
        kernel::forward(&slices[0], &shape.parts(&slices[1..]), width)
    };
    Ok(Value::made(
        tensor(out, (rows, width))?,
        Blend(shape),
        &inputs,
    ))
}

struct Shape {
    rows: usize,
    width: usize,
    counts: Vec<usize>,
}

impl Shape {
    fn of(weights: &Value, parts: &[&Value]) -> Result<Self> {
        let wrong = || {
            let parts: Vec<&[usize]> = parts.iter().map(|p| p.dims()).collect();
            Error::shape(
                BLEND,
                format!("weights {:?} for experts {parts:?}", weights.dims()),
            )
        };
        let &[rows, experts] = weights.dims() else {
            return Err(wrong());
        };
        let mut all = 0;
        for part in parts {
            match part.dims() {
                &[of, columns] if of == rows => all += columns,
                _ => return Err(wrong()),
            }
        }
        if experts == 0 || all == 0 || !all.is_multiple_of(experts) {
            return Err(wrong());
        }
        let width = all / experts;
        let even = parts.iter().all(|p| p.dims()[1].is_multiple_of(width));
        if !even {
            return Err(wrong());
        }
        Ok(Self {
            rows,
            width,
            counts: parts.iter().map(|p| p.dims()[1] / width).collect(),
        })
    }

    fn parts<'a>(&self, slices: &'a [Slice<'_>]) -> Vec<Part<'a>> {
        let both = slices.iter().zip(&self.counts);
        both.map(|(values, &count)| Part { values, count })
            .collect()
    }
}

struct Blend(Shape);

impl Op for Blend {
    fn name(&self) -> &'static str {
        BLEND
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Blend)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let data: Vec<Tensor> = inputs
            .iter()
            .map(|v| dense(v.data(), BLEND))
            .collect::<Result<_>>()?;
        let slices: Vec<Slice<'_>> = data.iter().map(slice).collect::<Result<_>>()?;
        let g = dense(grad, BLEND)?;
        let g = slice(&g)?;
        let width = self.0.width;
        if into.wants(0) {
            let parts = self.0.parts(&slices[1..]);
            into.give_values(0, kernel::backward_weights(&g, &parts, width))?;
        }
        let mut at = Place {
            first: 0,
            count: 0,
            experts: inputs[0].dims()[1],
        };
        for (i, &count) in self.0.counts.iter().enumerate() {
            at.count = count;
            into.write(1 + i, |to, add| {
                kernel::backward_part(to, add, &g, &slices[0], width, at);
            })?;
            at.first += count;
        }
        Ok(())
    }
}
