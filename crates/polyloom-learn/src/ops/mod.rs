//! Operations on [`Value`]s. Each has a kernel for the processor, forward and backward, and is composed of candle's
//! differentiable operations elsewhere; tests hold the two against each other and both against differences.

mod activation;
mod arithmetic;
mod attention;
mod batch_norm;
mod blend;
mod broadcast;
mod chained;
mod convolution;
mod embedding;
mod gating;
mod linear;
mod loss;
mod mixture;
mod norm;
mod pool;
mod rope;
mod scatter;
mod shape;
#[cfg(test)]
mod tests;
mod weighed;

pub use activation::{activate, gated};
pub use arithmetic::{add, div, dropout, mean, mul, scale, sub, sum};
pub use attention::{Attend, Mask, attention};
pub use batch_norm::batch_norm;
pub use blend::{blend, softmax};
pub use broadcast::{plus_row, times_row};
pub use chained::chained_cross_entropy;
pub use convolution::convolution;
pub use embedding::embedding;
pub use gating::{entropies, reciprocal, smooth_step};
pub use linear::{grouped_linear, linear, product};
pub use loss::{
    IGNORED, cross_entropy, entropy, marginal_entropy, mean_squares, soft_cross_entropy,
};
pub use mixture::mixture;
pub use norm::{Norm, norm};
pub use pool::{pool, unit_length};
pub use rope::{Angles, rotate};
pub use scatter::scatter;
pub use shape::{concat, narrow, reshape, rows};
pub use weighed::weighed_cross_entropy;

pub use polyloom_core::nn::activation::Activation;
pub use polyloom_core::nn::batch_norm::Moments;

use crate::engine::{Tensor, Value, on_cpu};
use crate::error::{Error, In, Result};

/// Whether the kernels of the processor take these.
fn cpu(values: &[&Value]) -> bool {
    #[cfg(test)]
    if tests::COMPOSED.get() {
        return false;
    }
    on_cpu(values.iter().map(|v| v.data()))
}

/// The tensor with its elements in order.
fn dense(tensor: &Tensor, op: &'static str) -> Result<Tensor> {
    tensor.contiguous().during(op)
}

/// The last length of a value.
fn width(value: &Value, op: &'static str) -> Result<usize> {
    value
        .dims()
        .last()
        .copied()
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::shape(op, format!("{:?} has no last axis", value.dims())))
}
