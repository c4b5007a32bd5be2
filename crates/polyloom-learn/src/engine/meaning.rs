//! What operations compute, for whoever writes a graph down in other words (`crate::export`).

use polyloom_core::nn::activation::Activation;
use polyloom_core::nn::batch_norm::Scale;

/// What an operation computes of its inputs, which are those of the function of this name in [`crate::ops`], in its order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meaning<'a> {
    /// `x Wᵀ + b` of `x`, `W` and, where there is a third input, `b`.
    Linear,
    /// Several side by side, each on its own part of `x`: how many.
    GroupedLinear(usize),
    /// A product of two matrices.
    Product,
    /// A function of every element.
    Activation(Activation),
    /// The cubic step of this width.
    SmoothStep(f32),
    /// Softmax over the last axis.
    Softmax,
    /// The weighted sum of experts' outputs that lie side by side.
    Blend,
    /// The first, and this times the second.
    Sum(f32),
    /// Element by element.
    Mul,
    /// All elements times this.
    Scale(f32),
    /// A row added to all rows.
    PlusRow,
    /// Every row times a row.
    TimesRow,
    /// Rows of a table, by number.
    Rows(&'a [u32]),
    /// Batch norm by running values, with gain and bias as second and third input.
    BatchNorm(&'a Scale),
    /// Layer norm over the last axis, with gain and maybe bias; what is added to the variance.
    LayerNorm(f32),
    /// Attention of all queries to all keys; a fourth input is added to the scores.
    Attention {
        /// How many heads.
        heads: usize,
        /// What scores are multiplied by.
        scale: f32,
    },
    /// Another shape.
    Reshape,
    /// A part of an axis, as long as the output's.
    Narrow {
        /// The axis.
        axis: usize,
        /// Where the part begins.
        start: usize,
    },
    /// One after the other along this axis.
    Concat(usize),
}
