//! Rotary position embedding.

use candle_core::Tensor as T;
use polyloom_core::nn::rope as kernel;

use super::{cpu, dense};
use crate::engine::{Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const ROTATE: &str = "rotary embedding";

/// Cosines and sines of the positions of a call.
#[derive(Debug, Clone)]
pub struct Angles {
    /// `[length, rotated features / 2]`.
    pub cos: Vec<f32>,
    /// As `cos`.
    pub sin: Vec<f32>,
    /// Feature i turns with feature i + half of the rotated ones; else with its neighbour.
    pub halves: bool,
}

/// Turns the features of every head of `x [batch, length, heads * dim]`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn rotate(x: &Value, heads: usize, angles: &Angles) -> Result<Value> {
    let wrong = || {
        Error::shape(
            ROTATE,
            format!(
                "{:?} in {heads} heads with {} angles",
                x.dims(),
                angles.cos.len()
            ),
        )
    };
    let &[batch, length, width] = x.dims() else {
        return Err(wrong());
    };
    if heads == 0
        || !width.is_multiple_of(heads)
        || length == 0
        || !angles.cos.len().is_multiple_of(length)
        || angles.sin.len() != angles.cos.len()
    {
        return Err(wrong());
    }
    let (dim, half) = (width / heads, angles.cos.len() / length);
    if 2 * half > dim {
        return Err(wrong());
    }
    let shape = [batch, length, heads, dim];
    if !cpu(&[x]) {
        let on = |v: &[f32]| {
            tensor(v.to_vec(), (1, length, 1, half))
                .and_then(|t| t.to_device(x.data().device()).during(ROTATE))
        };
        let (cos, sin, halves) = (on(&angles.cos)?, on(&angles.sin)?, angles.halves);
        return compose(ROTATE, &[x], move |t| {
            composed(&t[0], shape, &cos, &sin, halves)
        });
    }
    let data = dense(x.data(), ROTATE)?;
    let mut out = slice(&data)?.to_vec();
    kernel::rotate(
        &mut out,
        shape,
        &angles.cos,
        &angles.sin,
        angles.halves,
        false,
    );
    Ok(Value::made(
        tensor(out, x.dims())?,
        Rotate {
            shape,
            angles: angles.clone(),
        },
        &[x],
    ))
}

fn composed(x: &T, shape: [usize; 4], cos: &T, sin: &T, halves: bool) -> candle_core::Result<T> {
    let [batch, length, heads, dim] = shape;
    let half = cos.dims()[3];
    let x = x.reshape((batch, length, heads, dim))?;
    let turned = x.narrow(3, 0, 2 * half)?;
    let (a, b) = if halves {
        (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?)
    } else {
        let pairs = turned.reshape((batch, length, heads, half, 2))?;
        (
            pairs.narrow(4, 0, 1)?.squeeze(4)?,
            pairs.narrow(4, 1, 1)?.squeeze(4)?,
        )
    };
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    let both = if halves {
        T::cat(&[&first, &second], 3)?
    } else {
        T::stack(&[&first, &second], 4)?.reshape((batch, length, heads, 2 * half))?
    };
    let all = if 2 * half < dim {
        T::cat(&[&both, &x.narrow(3, 2 * half, dim - 2 * half)?], 3)?
    } else {
        both
    };
    all.reshape((batch, length, heads * dim))
}

struct Rotate {
    shape: [usize; 4],
    angles: Angles,
}

impl Op for Rotate {
    fn name(&self) -> &'static str {
        ROTATE
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let g = dense(grad, ROTATE)?;
        let mut out = slice(&g)?.to_vec();
        kernel::rotate(
            &mut out,
            self.shape,
            &self.angles.cos,
            &self.angles.sin,
            self.angles.halves,
            true,
        );
        into.give_values(0, out)
    }
}
