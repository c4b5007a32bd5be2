//! Rows of a table.

use polyloom_core::nn::embedding as kernel;

use super::{cpu, dense};
use crate::engine::{Device, Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const EMBEDDING: &str = "embedding";

/// The rows of `table [rows, width]` with the numbers `ids`, as a value of `shape` and `width`.
///
/// # Errors
/// A number that is no row, a shape that does not hold the ids.
pub fn embedding(table: &Value, ids: &[u32], shape: &[usize]) -> Result<Value> {
    let &[rows, width] = table.dims() else {
        return Err(Error::shape(
            EMBEDDING,
            format!("a table of {:?}", table.dims()),
        ));
    };
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        return Err(Error::shape(
            EMBEDDING,
            format!("row {id} of a table of {rows}"),
        ));
    }
    if shape.iter().product::<usize>() != ids.len() {
        return Err(Error::shape(
            EMBEDDING,
            format!("{} ids for {shape:?}", ids.len()),
        ));
    }
    let mut dims = shape.to_vec();
    dims.push(width);
    if !cpu(&[table]) {
        let ids = Tensor::from_slice(ids, ids.len(), &Device::Cpu)
            .and_then(|t| t.to_device(table.data().device()))
            .during(EMBEDDING)?;
        return compose(EMBEDDING, &[table], move |t| {
            t[0].index_select(&ids, 0)?.reshape(dims.as_slice())
        });
    }
    let data = dense(table.data(), EMBEDDING)?;
    let out = kernel::forward(&slice(&data)?, width, ids);
    Ok(Value::made(
        tensor(out, dims)?,
        Rows(ids.to_vec()),
        &[table],
    ))
}

struct Rows(Vec<u32>);

impl Op for Rows {
    fn name(&self) -> &'static str {
        EMBEDDING
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Rows(&self.0))
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let g = dense(grad, EMBEDDING)?;
        let g = slice(&g)?;
        into.add_rows(0, &self.0, &g)
    }
}
