//! SMILE (Tang et al. 2024): in every linear layer a token goes to the expert whose singular vectors catch most of it.

use std::collections::HashMap;

use polyloom_core::nn::matmul::{Threads, View, product};

use super::blend::Parts;
use super::part::{LowRank, Part};
use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, Result};
use crate::models::{Point, Source};
use crate::ops;

/// The gate of a linear layer: the first right singular vectors of every expert's difference, `[experts, gate_rank, in]`.
pub type Gates = HashMap<String, Tensor>;

/// Linear layers with low-rank experts, chosen by token. Everything else comes from the shared weights.
pub struct Smile<'a> {
    /// Base weights of linear layers, shared weights of all else.
    pub shared: &'a dyn Source,
    /// The parts of every expert, of linear layers.
    pub experts: Vec<&'a Parts>,
    /// By the name of the layer.
    pub gates: &'a Gates,
    /// Experts of a token.
    pub top: usize,
    /// One expert for all tokens, in place of the gates.
    pub forced: Option<usize>,
}

/// The gate of a layer from what each expert changed: norms of `V[:, ..gate_rank]' x` tell whose token `x` is.
///
/// # Errors
/// Matrices of different shapes, numbers that are not finite.
pub fn gate(differences: &[Option<Tensor>], width: usize, gate_rank: usize) -> Result<Tensor> {
    let rank = gate_rank.min(width);
    let mut values = Vec::with_capacity(differences.len() * rank * width);
    for difference in differences {
        let start = values.len();
        if let Some(difference) = difference {
            let factors = LowRank::of(difference, rank)?;
            values.extend_from_slice(&slice(&factors.v)?);
        }
        // An expert without a difference catches nothing; a matrix with fewer rows has fewer vectors.
        values.resize(start + rank * width, 0.0);
    }
    tensor(values, (differences.len(), rank, width))
}

/// Norms of the tokens `[n, in]` in every expert's gate, `[n, experts]`.
///
/// # Errors
/// Tokens of another width.
pub fn norms(gate: &Tensor, x: &[f32]) -> Result<Vec<f32>> {
    let &[experts, rank, width] = gate.dims() else {
        return Err(Error::shape("gate", format!("of {:?}", gate.dims())));
    };
    if width == 0 || !x.len().is_multiple_of(width) {
        return Err(Error::shape("gate", "tokens of another width"));
    }
    let caught = product(
        1.0,
        View::new(x, x.len() / width, width),
        View::new(&slice(gate)?, experts * rank, width).t(),
        Threads::All,
    );
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
    Ok(caught.chunks_exact(rank.max(1)).map(norm).collect())
}

/// Weights of the experts for a token: softmax of the norms, the `top` largest kept (of equal ones the first) and brought
/// to a sum of 1.
#[must_use]
pub fn weights(norms: &[f32], top: usize) -> Vec<f32> {
    let most = norms.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut out: Vec<f32> = norms.iter().map(|x| (x - most).exp()).collect();
    keep_largest(&mut out, top);
    out
}

/// Puts all but the `top` largest to 0 (of equal ones the first stay) and brings the rest to a sum of 1.
pub(super) fn keep_largest(weights: &mut [f32], top: usize) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    for &i in order.iter().skip(top) {
        weights[i] = 0.0;
    }
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
}

impl Smile<'_> {
    /// What an expert adds to the tokens, `[n, out]`: its part of the weight and of the bias.
    fn more(&self, expert: usize, name: &str, x: &Value) -> Result<Option<Value>> {
        let parts = self.experts[expert];
        let more = match parts.get(&format!("{name}.weight")) {
            None => None,
            Some(Part::LowRank(factors)) => Some(factors.apply(x)?),
            Some(part) => Some(ops::linear(x, &Value::constant(part.dense()?), None)?),
        };
        let bias = parts.get(&format!("{name}.bias"));
        let bias = bias.map(|b| b.dense().map(Value::constant)).transpose()?;
        Ok(match (more, bias) {
            (Some(more), Some(bias)) => Some(ops::plus_row(&more, &bias)?),
            (None, Some(bias)) => {
                let n = x.dims()[0];
                let zeros =
                    Value::constant(tensor(vec![0.0; n * bias.dims()[0]], (n, bias.dims()[0]))?);
                Some(ops::plus_row(&zeros, &bias)?)
            }
            (more, None) => more,
        })
    }
}

impl Source for Smile<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.shared.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let y = self.shared.linear(name, x)?;
        let Some(gate) = self.gates.get(name) else {
            return Ok(y);
        };
        let width = *x.dims().last().unwrap_or(&1);
        let n = x.data().elem_count() / width.max(1);
        let tokens = ops::reshape(x, &[n, width])?;
        let experts = self.experts.len();
        let chosen: Vec<Vec<f32>> = match self.forced {
            Some(expert) => {
                let one: Vec<f32> = (0..experts)
                    .map(|e| f32::from(u8::from(e == expert)))
                    .collect();
                vec![one; n]
            }
            None => {
                let found = norms(gate, &slice(tokens.data())?)?;
                let rows = found.chunks_exact(experts.max(1));
                rows.map(|row| weights(row, self.top)).collect()
            }
        };
        let mut out = slice(y.data())?.to_vec();
        let wide = out.len() / n.max(1);
        for expert in 0..experts {
            let weight_of = |row: u32| chosen[row as usize].get(expert).copied().unwrap_or(0.0);
            let rows: Vec<u32> = (0..n as u32).filter(|i| weight_of(*i) > 0.0).collect();
            if rows.is_empty() {
                continue;
            }
            let Some(more) = self.more(expert, name, &ops::rows(&tokens, &rows)?)? else {
                continue;
            };
            for (row, more) in rows
                .iter()
                .zip(slice(more.data())?.chunks_exact(wide.max(1)))
            {
                let weight = weight_of(*row);
                let to = &mut out[*row as usize * wide..][..wide];
                to.iter_mut().zip(more).for_each(|(o, m)| *o += weight * m);
            }
        }
        Ok(Value::constant(tensor(out, y.dims())?))
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.shared.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.shared.dropout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_the_largest_sum_to_one() {
        assert_eq!(weights(&[1.0, 3.0, 3.0], 1), [0.0, 1.0, 0.0]);
        let two = weights(&[0.0, 2f32.ln(), -50.0], 2);
        assert!((two[0] - 1.0 / 3.0).abs() < 1e-6 && two[2] == 0.0);
        // One task: gate 1.
        assert_eq!(weights(&[0.3], 1), [1.0]);
    }
}
