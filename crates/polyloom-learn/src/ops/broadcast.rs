//! One row against all rows.

use polyloom_core::nn::elementwise::{add_column_sums, add_row};

use super::{cpu, dense, width};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

fn fits(op: &'static str, x: &Value, row: &Value) -> Result<usize> {
    let n = width(x, op)?;
    if row.dims() == [n] {
        Ok(n)
    } else {
        Err(Error::shape(
            op,
            format!("a row of {:?} for {:?}", row.dims(), x.dims()),
        ))
    }
}

/// `x + row`, the row added to all rows of `x [.., n]`.
///
/// # Errors
/// A row of another length.
pub fn plus_row(x: &Value, row: &Value) -> Result<Value> {
    fits("row sum", x, row)?;
    if !cpu(&[x, row]) {
        return compose("row sum", &[x, row], |t| t[0].broadcast_add(&t[1]));
    }
    let (data, r) = (dense(x.data(), "row sum")?, dense(row.data(), "row sum")?);
    let mut out = slice(&data)?.to_vec();
    add_row(&mut out, &slice(&r)?);
    Ok(Value::made(tensor(out, x.dims())?, Plus, &[x, row]))
}

struct Plus;

impl Op for Plus {
    fn name(&self) -> &'static str {
        "row sum"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::PlusRow)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        into.share(0, grad)?;
        if into.wants(1) {
            let g = dense(grad, "row sum")?;
            let mut sums = vec![0f32; inputs[1].data().elem_count()];
            add_column_sums(&mut sums, &slice(&g)?);
            into.give_values(1, sums)?;
        }
        Ok(())
    }
}

/// `x row`, element by element in every row of `x [.., n]`.
///
/// # Errors
/// A row of another length.
pub fn times_row(x: &Value, row: &Value) -> Result<Value> {
    fits("row product", x, row)?;
    if !cpu(&[x, row]) {
        return compose("row product", &[x, row], |t| t[0].broadcast_mul(&t[1]));
    }
    let (data, r) = (
        dense(x.data(), "row product")?,
        dense(row.data(), "row product")?,
    );
    let out = scaled(&slice(&data)?, &slice(&r)?);
    Ok(Value::made(tensor(out, x.dims())?, Times, &[x, row]))
}

fn scaled(x: &[f32], row: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    for out in out.chunks_exact_mut(row.len().max(1)) {
        out.iter_mut().zip(row).for_each(|(o, r)| *o *= r);
    }
    out
}

struct Times;

impl Op for Times {
    fn name(&self) -> &'static str {
        "row product"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::TimesRow)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, r, g) = (
            dense(inputs[0].data(), "row product")?,
            dense(inputs[1].data(), "row product")?,
            dense(grad, "row product")?,
        );
        let (x, r, g) = (slice(&x)?, slice(&r)?, slice(&g)?);
        if into.wants(0) {
            into.give_values(0, scaled(&g, &r))?;
        }
        if into.wants(1) {
            let both = polyloom_core::nn::elementwise::map2(
                &x,
                &g,
                #[inline(always)]
                |x, g| x * g,
            );
            let mut sums = vec![0f32; r.len()];
            add_column_sums(&mut sums, &both);
            into.give_values(1, sums)?;
        }
        Ok(())
    }
}
