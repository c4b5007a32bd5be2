//! A tensor plus weighted others: merged weights whose coefficients are learned.

use polyloom_core::nn::elementwise::{inner, mix};

use super::{cpu, dense};
use crate::engine::{Into, Op, Slice, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const MIXTURE: &str = "mixture";

/// `base + Σ c[row, t] parts[t]` with the coefficients `c [rows, parts]`; `None` for a part that is all zeros. Gradients
/// flow to the base and to the row of coefficients, not to the parts.
///
/// # Errors
/// Shapes that do not fit together, a row that is not there.
pub fn mixture(
    base: &Value,
    parts: &[Option<&Tensor>],
    coefficients: &Value,
    row: usize,
) -> Result<Value> {
    let fits = |t: &&Tensor| t.dims() == base.dims();
    match coefficients.dims() {
        &[rows, count] if row < rows && count == parts.len() => {}
        other => {
            return Err(Error::shape(
                MIXTURE,
                format!(
                    "row {row} for {} parts of coefficients {other:?}",
                    parts.len()
                ),
            ));
        }
    }
    if let Some(part) = parts.iter().flatten().find(|t| !fits(t)) {
        return Err(Error::shape(
            MIXTURE,
            format!("a part of {:?} on a base of {:?}", part.dims(), base.dims()),
        ));
    }
    let there: Vec<(usize, Tensor)> = parts
        .iter()
        .enumerate()
        .filter_map(|(i, part)| part.map(|t| (i, t.clone())))
        .collect();
    if !cpu(&[base, coefficients]) {
        return compose(MIXTURE, &[base, coefficients], move |t| {
            let mut out = t[0].clone();
            for (i, part) in &there {
                let factor = t[1].narrow(0, row, 1)?.narrow(1, *i, 1)?;
                let factor = factor.reshape(vec![1; part.dims().len()])?;
                let part = part.to_device(out.device())?;
                out = (out + part.broadcast_mul(&factor)?)?;
            }
            Ok(out)
        });
    }
    let data = dense(base.data(), MIXTURE)?;
    let parts: Vec<(usize, Tensor)> = there
        .into_iter()
        .map(|(i, t)| Ok((i, dense(&t, MIXTURE)?)))
        .collect::<Result<_>>()?;
    let factors = dense(coefficients.data(), MIXTURE)?;
    let factors = slice(&factors)?;
    let factors: Vec<f32> = parts
        .iter()
        .map(|(i, _)| factors[row * coefficients.dims()[1] + i])
        .collect();
    let out = {
        let slices: Vec<Slice<'_>> = parts.iter().map(|p| slice(&p.1)).collect::<Result<_>>()?;
        let slices: Vec<&[f32]> = slices.iter().map(|s| &**s).collect();
        mix(&slice(&data)?, &slices, &factors)
    };
    Ok(Value::made(
        tensor(out, base.dims())?,
        Mixture { parts, row },
        &[base, coefficients],
    ))
}

struct Mixture {
    parts: Vec<(usize, Tensor)>,
    row: usize,
}

impl Op for Mixture {
    fn name(&self) -> &'static str {
        MIXTURE
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        into.share(0, grad)?;
        if !into.wants(1) {
            return Ok(());
        }
        let g = dense(grad, MIXTURE)?;
        let g = slice(&g)?;
        let mut found = Vec::with_capacity(self.parts.len());
        for (i, part) in &self.parts {
            found.push((*i, inner(&g, &slice(part)?) as f32));
        }
        let count = inputs[1].dims()[1];
        into.write(1, |to, add| {
            if !add {
                to.fill(0.0);
            }
            for (i, x) in found {
                to[self.row * count + i] += x;
            }
        })
    }
}
