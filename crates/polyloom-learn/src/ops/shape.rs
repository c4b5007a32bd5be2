//! Other shapes of the same numbers, parts of them, and several side by side.

use candle_core::Tensor as T;

use super::{cpu, dense};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice};
use crate::error::{Error, In, Result};

/// The same elements in another shape.
///
/// # Errors
/// A shape of another number of elements.
pub fn reshape(x: &Value, shape: &[usize]) -> Result<Value> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if count != Some(x.data().elem_count()) {
        return Err(Error::shape(
            "reshape",
            format!("{:?} to {shape:?}", x.dims()),
        ));
    }
    let data = dense(x.data(), "reshape")?
        .reshape(shape)
        .during("reshape")?;
    Ok(Value::made(data, Reshape, &[x]))
}

struct Reshape;

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Reshape)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        into.share(
            0,
            &dense(grad, "reshape")?
                .reshape(inputs[0].dims())
                .during("reshape")?,
        )
    }
}

/// Elements `start` to `start + length` of an axis.
///
/// # Errors
/// A part that is not there.
pub fn narrow(x: &Value, axis: usize, start: usize, length: usize) -> Result<Value> {
    // A part of what was put side by side is that part: nothing is copied, and its way back visits no other part.
    if let Some(part) = x.part(axis, start, length) {
        return Ok(part);
    }
    let data = x
        .data()
        .narrow(axis, start, length)
        .and_then(|t| t.contiguous())
        .during("narrow")?;
    Ok(Value::made(data, Narrow { axis, start }, &[x]))
}

struct Narrow {
    axis: usize,
    start: usize,
}

impl Op for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Narrow {
            axis: self.axis,
            start: self.start,
        })
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let dims = inputs[0].dims();
        let length = grad.dims()[self.axis];
        if !cpu(&[&inputs[0]]) {
            let pad =
                grad.pad_with_zeros(self.axis, self.start, dims[self.axis] - self.start - length);
            return into.give(0, pad.during("narrow")?);
        }
        let inner: usize = dims[self.axis + 1..].iter().product();
        let (whole, part) = (dims[self.axis] * inner, length * inner);
        let g = dense(grad, "narrow")?;
        let g = slice(&g)?;
        into.write(0, |to, add| {
            if !add {
                to.fill(0.0);
            }
            if part > 0 {
                for (to, g) in to.chunks_exact_mut(whole).zip(g.chunks_exact(part)) {
                    to[self.start * inner..][..part]
                        .iter_mut()
                        .zip(g)
                        .for_each(|(t, g)| *t += g);
                }
            }
        })
    }
}

/// The rows (along the first axis) of the numbers `at`, which may repeat.
///
/// # Errors
/// A number that is no row.
pub fn rows(x: &Value, at: &[u32]) -> Result<Value> {
    let count = x.dims().first().copied().unwrap_or(0);
    if let Some(row) = at.iter().find(|&&r| r as usize >= count) {
        return Err(Error::shape("rows", format!("row {row} of {:?}", x.dims())));
    }
    let width: usize = x.dims()[1..].iter().product();
    let mut dims = x.dims().to_vec();
    dims[0] = at.len();
    let flat = reshape(x, &[count, width])?;
    reshape(&super::embedding(&flat, at, &[at.len()])?, &dims)
}

/// Values one after the other along an axis.
///
/// # Errors
/// Shapes that differ in another axis.
pub fn concat(parts: &[&Value], axis: usize) -> Result<Value> {
    if !cpu(parts) {
        return compose("concat", parts, move |t| T::cat(t, axis));
    }
    let data: Vec<&T> = parts.iter().map(|v| v.data()).collect();
    let data = T::cat(&data, axis)
        .and_then(|t| t.contiguous())
        .during("concat")?;
    Ok(Value::made(data, Concat(axis), parts))
}

struct Concat(usize);

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Concat(self.0))
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let mut start = 0;
        for (i, input) in inputs.iter().enumerate() {
            let length = input.dims()[self.0];
            if into.wants(i) {
                let part = grad
                    .narrow(self.0, start, length)
                    .and_then(|t| t.contiguous())
                    .during("concat")?;
                into.share(i, &part)?;
            }
            start += length;
        }
        Ok(())
    }
}
