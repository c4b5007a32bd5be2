//! Batches of token sequences.

use crate::engine::{Tensor, tensor};
use crate::error::{Error, Result};

/// Token ids of several sequences, filled up to one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// `[sequences * length]`, row by row.
    pub ids: Vec<u32>,
    /// Of the same shape: whether a token is there, not filling.
    pub present: Vec<bool>,
    /// Of the same shape: first or second text of a pair; empty for all 0.
    pub types: Vec<u32>,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// The goal that each sequence passes for, of a model whose experts are chosen by goal; else empty.
    pub goals: Vec<u32>,
}

/// The tokens of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Their ids.
    pub ids: Vec<u32>,
    /// For each, 0 or 1: first or second text of a pair.
    pub types: Vec<u32>,
}

impl Batch {
    /// Fills tokens up on the right with `pad`.
    ///
    /// # Errors
    /// No texts.
    pub fn of(texts: &[&Tokens], pad: u32) -> Result<Self> {
        let ids: Vec<&[u32]> = texts.iter().map(|t| &t.ids[..]).collect();
        let mut batch = Self::padded(&ids, pad)?;
        for text in texts {
            batch.types.extend(&text.types);
            batch
                .types
                .resize(batch.types.len() + batch.length - text.types.len(), 0);
        }
        Ok(batch)
    }

    /// Fills sequences up on the right with `pad`.
    ///
    /// # Errors
    /// No sequences.
    pub fn padded<S: AsRef<[u32]>>(sequences: &[S], pad: u32) -> Result<Self> {
        let length = sequences
            .iter()
            .map(|s| s.as_ref().len())
            .max()
            .unwrap_or(0);
        if length == 0 {
            return Err(Error::shape("batch", "no tokens"));
        }
        let mut batch = Self {
            ids: Vec::new(),
            present: Vec::new(),
            types: Vec::new(),
            sequences: sequences.len(),
            length,
            goals: Vec::new(),
        };
        for sequence in sequences.iter().map(AsRef::as_ref) {
            batch.ids.extend(sequence);
            batch.present.extend(vec![true; sequence.len()]);
            batch
                .ids
                .resize(batch.ids.len() + length - sequence.len(), pad);
            batch.present.resize(batch.ids.len(), false);
        }
        Ok(batch)
    }

    /// `[sequences, length]`: 0, minus infinity where a token is filling; `None` where all are there.
    ///
    /// # Errors
    /// Lengths that do not fit together.
    pub fn hidden(&self) -> Result<Option<Tensor>> {
        if self.present.iter().all(|p| *p) {
            return Ok(None);
        }
        let bias = self
            .present
            .iter()
            .map(|p| if *p { 0.0 } else { f32::NEG_INFINITY });
        tensor(bias.collect(), (self.sequences, self.length)).map(Some)
    }
}

/// `[sequences, length]`: 1 / n on the n tokens that are there. Mean pooling, as sentence-transformers does it.
///
/// # Errors
/// Lengths that do not fit together.
pub fn mean_weights(batch: &Batch) -> Result<Tensor> {
    let mut weights = Vec::with_capacity(batch.present.len());
    for row in batch.present.chunks(batch.length.max(1)) {
        let n = row.iter().filter(|p| **p).count().max(1) as f32;
        weights.extend(row.iter().map(|p| if *p { 1.0 / n } else { 0.0 }));
    }
    tensor(weights, (batch.sequences, batch.length))
}
