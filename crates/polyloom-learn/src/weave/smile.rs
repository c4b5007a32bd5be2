//! SMILE (Tang et al. 2024): in every linear layer a token goes to the expert whose singular vectors catch most of it.

use std::collections::HashMap;

use polyloom_core::nn::matmul::{Threads, View, product};
use rayon::prelude::*;

use super::blend::Parts;
use super::part::{LowRank, Part};
use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, In, Result};
use crate::models::{Point, Source};

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
        Threads::One,
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

/// What an expert adds in a linear layer.
struct More<'a> {
    weight: Option<MoreWeight<'a>>,
    bias: Option<Tensor>,
}

enum MoreWeight<'a> {
    /// Right vectors `[rank, in]`, then left ones times singular values `[out, rank]`.
    Thin(&'a Tensor, &'a Tensor),
    /// `[out, in]`.
    Whole(Tensor),
}

impl<'a> More<'a> {
    fn of(parts: &'a Parts, name: &str) -> Result<Self> {
        let weight = match parts.get(&format!("{name}.weight")) {
            None => None,
            Some(Part::LowRank(factors)) => Some(MoreWeight::Thin(&factors.v, factors.scaled())),
            Some(part) => Some(MoreWeight::Whole(part.dense()?)),
        };
        let bias = parts.get(&format!("{name}.bias"));
        Ok(Self {
            weight,
            bias: bias.map(Part::dense).transpose()?,
        })
    }

    /// For tokens `[n, width]`: `[n, wide]`.
    fn apply(&self, tokens: &[f32], width: usize, wide: usize) -> Result<Vec<f32>> {
        let n = tokens.len() / width.max(1);
        let through = |x: &[f32], from: usize, weight: &Tensor, to: usize| -> Result<Vec<f32>> {
            let weight = slice(weight)?;
            if weight.len() != from * to {
                return Err(Error::shape(
                    "expert",
                    "a part of another shape than its layer",
                ));
            }
            let transposed = View::new(&weight, to, from).t();
            Ok(product(
                1.0,
                View::new(x, n, from),
                transposed,
                Threads::One,
            ))
        };
        let mut out = match &self.weight {
            None => vec![0.0; n * wide],
            Some(MoreWeight::Whole(weight)) => through(tokens, width, weight, wide)?,
            Some(MoreWeight::Thin(v, u)) => {
                let rank = v.dims()[0];
                through(&through(tokens, width, v, rank)?, rank, u, wide)?
            }
        };
        if let Some(bias) = &self.bias {
            let bias = slice(bias)?;
            for row in out.chunks_exact_mut(wide.max(1)) {
                row.iter_mut().zip(&*bias).for_each(|(o, b)| *o += b);
            }
        }
        Ok(out)
    }
}

/// Tokens that one thread takes at a time: enough for products to be worth it, so few that threads share the work.
const BLOCK: usize = 512;

/// Which experts a token goes to.
#[derive(Debug, Clone, Copy)]
struct Choosing {
    top: usize,
    forced: Option<usize>,
}

impl Choosing {
    /// Adds to the outputs `[n, wide]` of some tokens what their experts say of them.
    fn add(
        self,
        gate: &Tensor,
        more: &[More<'_>],
        tokens: &[f32],
        width: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let (experts, n) = (more.len(), tokens.len() / width.max(1));
        let wide = out.len() / n.max(1);
        // Tokens of each expert with their weights.
        let mut of: Vec<Vec<(usize, f32)>> = vec![Vec::new(); experts];
        match self.forced {
            Some(expert) => of[expert] = (0..n).map(|i| (i, 1.0)).collect(),
            None => {
                let found = norms(gate, tokens)?;
                for (i, norms) in found.chunks_exact(experts.max(1)).enumerate() {
                    for (e, w) in weights(norms, self.top).into_iter().enumerate() {
                        if w > 0.0 {
                            of[e].push((i, w));
                        }
                    }
                }
            }
        }
        let mut gathered = Vec::new();
        for (list, more) in of.iter().zip(more) {
            gathered.clear();
            for (i, _) in list {
                gathered.extend_from_slice(&tokens[i * width..][..width]);
            }
            let said = more.apply(&gathered, width, wide)?;
            for ((i, weight), said) in list.iter().zip(said.chunks_exact(wide.max(1))) {
                let to = &mut out[i * wide..][..wide];
                to.iter_mut().zip(said).for_each(|(o, m)| *o += weight * m);
            }
        }
        Ok(())
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
        let more = self.experts.iter().map(|parts| More::of(parts, name));
        let more = more.collect::<Result<Vec<_>>>()?;
        let width = *x.dims().last().unwrap_or(&1);
        let wide = *y.dims().last().unwrap_or(&1);
        let tokens = x.data().contiguous().during("experts of a layer")?;
        let tokens = slice(&tokens)?;
        let tokens: &[f32] = &tokens;
        let choosing = Choosing {
            top: self.top,
            forced: self.forced,
        };
        let mut out = slice(y.data())?.to_vec();
        let blocks = out.par_chunks_mut(BLOCK * wide.max(1));
        let blocks = blocks.zip(tokens.par_chunks(BLOCK * width.max(1)));
        blocks.try_for_each(|(out, tokens)| choosing.add(gate, &more, tokens, width, out))?;
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
