//! Rows put back where they came from, each times a weight of its own.

use super::{cpu, dense};
use crate::engine::{Device, Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const SCATTER: &str = "scatter";

/// `n` rows, row `at[i]` of them the sum over all such i of `weights[i] * x[i]`, for `x [m, width]` and `weights [m, 1]`; 0 for
/// rows that no number names. Sums run in the order of i.
///
/// # Errors
/// Another number of weights or numbers than rows, a number that is no row.
pub fn scatter(x: &Value, weights: &Value, at: &[u32], n: usize) -> Result<Value> {
    let &[m, width] = x.dims() else {
        return Err(Error::shape(SCATTER, format!("rows of {:?}", x.dims())));
    };
    let outside = at.iter().find(|&&r| r as usize >= n);
    if weights.dims() != [m, 1] || at.len() != m || outside.is_some() {
        let what = format!(
            "{m} rows, weights {:?} and {} numbers for {n} rows",
            weights.dims(),
            at.len()
        );
        return Err(Error::shape(SCATTER, what));
    }
    if !cpu(&[x, weights]) {
        let at = Tensor::from_slice(at, m, &Device::Cpu)
            .and_then(|t| t.to_device(x.data().device()))
            .during(SCATTER)?;
        return compose(SCATTER, &[x, weights], move |t| {
            let rows = t[0].broadcast_mul(&t[1])?;
            Tensor::zeros((n, width), rows.dtype(), rows.device())?.index_add(&at, &rows, 0)
        });
    }
    let (data, factors) = (dense(x.data(), SCATTER)?, dense(weights.data(), SCATTER)?);
    let mut out = vec![0f32; n * width];
    let rows = slice(&data)?;
    let rows = rows.chunks_exact(width.max(1));
    for ((row, factor), at) in rows.zip(&*slice(&factors)?).zip(at) {
        let to = &mut out[*at as usize * width..][..width];
        to.iter_mut().zip(row).for_each(|(t, x)| *t += factor * x);
    }
    let op = Scatter(at.to_vec());
    Ok(Value::made(tensor(out, (n, width))?, op, &[x, weights]))
}

struct Scatter(Vec<u32>);

impl Op for Scatter {
    fn name(&self) -> &'static str {
        SCATTER
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let g = dense(grad, SCATTER)?;
        let g = slice(&g)?;
        let width = inputs[0].dims()[1];
        let back = |at: &u32| &g[*at as usize * width..][..width];
        if into.wants(0) {
            let factors = dense(inputs[1].data(), SCATTER)?;
            let factors = slice(&factors)?;
            let rows = self.0.iter().zip(&*factors);
            let found = rows.flat_map(|(at, factor)| back(at).iter().map(move |g| factor * g));
            into.give_values(0, found.collect())?;
        }
        if into.wants(1) {
            let data = dense(inputs[0].data(), SCATTER)?;
            let data = slice(&data)?;
            let rows = self.0.iter().zip(data.chunks_exact(width.max(1)));
            let inner = |(at, row): (&u32, &[f32])| {
                let products = back(at).iter().zip(row).map(|(g, x)| g * x);
                products.sum::<f32>()
            };
            into.give_values(1, rows.map(inner).collect())?;
        }
        Ok(())
    }
}
