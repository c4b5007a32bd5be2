//! The fields of a row as vectors of one width: of a category its embedding, of a number a line through the space of them.

use super::config::Config;
use super::{Init, Pass, Tensors};
use crate::engine::Value;
use crate::error::Result;
use crate::ops;

/// How many: categories, then numbers.
pub(super) fn count(config: &Config) -> usize {
    config.categories.len() + config.numeric
}

/// Declares the embeddings of categories, and a weight and a bias of every number.
///
/// # Errors
/// More elements than any memory holds.
pub(super) fn declare(config: &Config, to: &mut Tensors) -> Result<()> {
    to.front("", config)?;
    if config.numeric > 0 {
        let shape = [config.numeric, config.embed_dim];
        let weight = Init::xavier(1, config.embed_dim);
        to.add("tokens.numbers.weight", &shape, weight)?;
        to.add("tokens.numbers.bias", &shape, Init::Constant(0.0))?;
    }
    Ok(())
}

/// Rows of a table of `count`, all of them for every row of the batch.
///
/// # Errors
/// As [`Pass::tensor`].
pub(super) fn repeated(pass: &Pass<'_>, name: &str, count: usize) -> Result<Value> {
    let ids: Vec<u32> = (0..pass.rows() * count)
        .map(|i| (i % count) as u32)
        .collect();
    ops::rows(&pass.tensor(name)?, &ids)
}

/// The vectors `[rows, fields, embed_dim]`.
///
/// # Errors
/// As [`Pass::features`].
pub(super) fn vectors(pass: &Pass<'_>) -> Result<Value> {
    let (rows, c) = (pass.rows(), &pass.model.config);
    let mut parts = Vec::new();
    if !c.categories.is_empty() {
        parts.push(pass.embedded("")?);
    }
    if c.numeric > 0 {
        let factors = ops::reshape(&pass.batch.numbers, &[rows * c.numeric, 1])?;
        let weight = repeated(pass, "tokens.numbers.weight", c.numeric)?;
        let scaled = ops::blend(&factors, &[&weight])?;
        let moved = ops::add(&scaled, &repeated(pass, "tokens.numbers.bias", c.numeric)?)?;
        parts.push(ops::reshape(&moved, &[rows, c.numeric, c.embed_dim])?);
    }
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        _ => ops::concat(&parts.iter().collect::<Vec<_>>(), 1),
    }
}
