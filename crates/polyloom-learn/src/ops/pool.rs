//! From the tokens of a sequence to one vector.

use super::{cpu, dense, width};
use crate::engine::{Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const POOL: &str = "pooling";

/// Weighted sum of the tokens of every sequence: `x [batch, length, width]`, `weights [batch, length]` (a mean has
/// `1 / n` on the n tokens that count, a class token 1 on one).
///
/// # Errors
/// Shapes that do not fit together.
pub fn pool(x: &Value, weights: &Tensor) -> Result<Value> {
    let (&[batch, length, width], [b, l]) = (x.dims(), weights.dims()) else {
        return Err(Error::shape(
            POOL,
            format!("{:?} with weights {:?}", x.dims(), weights.dims()),
        ));
    };
    if (batch, length) != (*b, *l) {
        return Err(Error::shape(
            POOL,
            format!("{:?} with weights {:?}", x.dims(), weights.dims()),
        ));
    }
    if !cpu(&[x]) {
        let w = weights
            .to_device(x.data().device())
            .and_then(|w| w.unsqueeze(1))
            .during(POOL)?;
        return compose(POOL, &[x], move |t| w.matmul(&t[0])?.squeeze(1));
    }
    let (data, weights) = (dense(x.data(), POOL)?, dense(weights, POOL)?);
    let mut out = vec![0f32; batch * width];
    {
        let (xs, ws) = (slice(&data)?, slice(&weights)?);
        for (i, x) in xs.chunks_exact(width.max(1)).enumerate() {
            let (w, to) = (ws[i], &mut out[i / length * width..][..width]);
            if w != 0.0 {
                to.iter_mut().zip(x).for_each(|(o, x)| *o += w * x);
            }
        }
    }
    Ok(Value::made(
        tensor(out, (batch, width))?,
        Pool(weights),
        &[x],
    ))
}

struct Pool(Tensor);

impl Op for Pool {
    fn name(&self) -> &'static str {
        POOL
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (length, width) = (inputs[0].dims()[1], inputs[0].dims()[2]);
        let g = dense(grad, POOL)?;
        let (g, ws) = (slice(&g)?, slice(&self.0)?);
        let mut out = vec![0f32; inputs[0].data().elem_count()];
        for (i, to) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let (w, g) = (ws[i], &g[i / length * width..][..width]);
            if w != 0.0 {
                to.iter_mut().zip(g).for_each(|(o, g)| *o = w * g);
            }
        }
        into.give_values(0, out)
    }
}

const UNIT: &str = "unit length";

/// Rows divided by their length, or by `1e-12` where that is more.
///
/// # Errors
/// What the device refuses.
pub fn unit_length(x: &Value) -> Result<Value> {
    let n = width(x, UNIT)?;
    if !cpu(&[x]) {
        return compose(UNIT, &[x], |t| {
            t[0].broadcast_div(
                &t[0]
                    .sqr()?
                    .sum_keepdim(candle_core::D::Minus1)?
                    .sqrt()?
                    .maximum(1e-12)?,
            )
        });
    }
    let data = dense(x.data(), UNIT)?;
    let mut out = slice(&data)?.to_vec();
    let mut lengths = Vec::new();
    for row in out.chunks_exact_mut(n) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x /= length);
        lengths.push(length);
    }
    Ok(Value::made(tensor(out, x.dims())?, Unit(lengths), &[x]))
}

struct Unit(Vec<f32>);

impl Op for Unit {
    fn name(&self) -> &'static str {
        UNIT
    }

    fn backward(
        &self,
        _: &[Value],
        output: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (y, g) = (dense(output, UNIT)?, dense(grad, UNIT)?);
        let (y, g) = (slice(&y)?, slice(&g)?);
        let n = output.dims().last().copied().unwrap_or(1).max(1);
        let mut out = Vec::with_capacity(g.len());
        for ((y, g), length) in y.chunks_exact(n).zip(g.chunks_exact(n)).zip(&self.0) {
            let along: f32 = y.iter().zip(g).map(|(y, g)| y * g).sum();
            out.extend(y.iter().zip(g).map(|(y, g)| (g - y * along) / length));
        }
        into.give_values(0, out)
    }
}
