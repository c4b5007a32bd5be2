//! Trainable parameters side by side in one buffer, their gradients in another: what optimisers run over in one sweep.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::gradients::Gradients;
use super::slice::{Slice, slice, tensor, write};
use super::value::Value;
use crate::error::{Error, In, Result};

/// One parameter.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// The leaf of graphs; its numbers are those of the buffer, after every step the new ones.
    pub value: Value,
    /// Where it lies in the buffer.
    pub at: std::ops::Range<usize>,
}

/// Parameters of one kind, on the processor.
#[derive(Debug)]
pub struct Parameters {
    all: Vec<Parameter>,
    by_name: HashMap<String, usize>,
    weights: Tensor,
    gradients: Tensor,
}

impl Parameters {
    /// Lays the parameters side by side in the order given.
    ///
    /// # Errors
    /// A name that comes twice, tensors that are not `f32` on the processor.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let mut values = Vec::new();
        let mut parts = Vec::new();
        for (name, tensor) in tensors {
            let tensor = tensor.contiguous().during("parameters")?;
            let start = values.len();
            values.extend_from_slice(&slice(&tensor)?);
            parts.push((name, start..values.len(), tensor.dims().to_vec()));
        }
        let gradients = tensor(vec![0f32; values.len()], values.len())?;
        let weights = tensor(values, gradients.dims())?;
        let (mut all, mut by_name) = (Vec::new(), HashMap::new());
        for (name, at, dims) in parts {
            let view = weights
                .narrow(0, at.start, at.len())
                .and_then(|t| t.reshape(dims))
                .during("parameters")?;
            if by_name.insert(name.clone(), all.len()).is_some() {
                return Err(Error::shape("parameters", format!("`{name}` comes twice")));
            }
            all.push(Parameter {
                name,
                value: Value::leaf(view),
                at,
            });
        }
        Ok(Self {
            all,
            by_name,
            weights,
            gradients,
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.all.iter()
    }

    /// The one of a name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.by_name.get(name).map(|&i| &self.all[i])
    }

    /// Numbers in all.
    pub fn len(&self) -> usize {
        self.weights.elem_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Empty gradients that a backward pass writes into this buffer.
    ///
    /// # Errors
    /// Never in practice: views of a buffer.
    pub fn gradients(&self) -> Result<Gradients> {
        let mut found = Gradients::default();
        for p in &self.all {
            found.place(&p.value, self.place(p)?);
        }
        Ok(found)
    }

    /// The same, but gradients of tables that only lookups reach are kept by rows ([`Gradients::rows`]). What else reaches
    /// a table (an output layer that is the embedding) makes its gradient whole.
    ///
    /// # Errors
    /// Never in practice: views of a buffer.
    pub fn gradients_by_rows(&self) -> Result<Gradients> {
        let mut found = Gradients::default();
        for p in &self.all {
            match p.value.dims().len() {
                2 => found.place_rows(&p.value, self.place(p)?),
                _ => found.place(&p.value, self.place(p)?),
            }
        }
        Ok(found)
    }

    /// Lets `f` write the whole buffer of gradients, in the order of the parameters: they then count as those of a backward
    /// pass.
    ///
    /// # Errors
    /// Never in practice: views of a buffer.
    pub fn gradients_from(&self, f: impl FnOnce(&mut [f32])) -> Result<Gradients> {
        write(&self.gradients, f)?;
        let mut found = Gradients::default();
        for p in &self.all {
            found.set(&p.value, self.place(p)?);
        }
        Ok(found)
    }

    /// The part of the buffer of gradients that belongs to a parameter.
    fn place(&self, p: &Parameter) -> Result<Tensor> {
        self.gradients
            .narrow(0, p.at.start, p.at.len())
            .and_then(|t| t.reshape(p.value.dims()))
            .during("parameters")
    }

    /// Sets the gradients that no pass reached to 0 and gives all of them, in the order of the parameters; those kept by rows
    /// are written out.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub fn gathered(&self, found: &Gradients) -> Result<Slice<'_>> {
        for p in &self.all {
            if let Some(rows) = found.rows(&p.value) {
                let width = p.value.dims()[1];
                write(&self.place(p)?, |to| rows.write(to, width))?;
            }
        }
        self.gathered_but_rows(found)
    }

    /// The same, but what is there of gradients that are kept by rows does not count.
    pub(crate) fn gathered_but_rows(&self, found: &Gradients) -> Result<Slice<'_>> {
        for p in &self.all {
            if found.get(&p.value).is_none() && found.rows(&p.value).is_none() {
                write(&self.place(p)?, |to| to.fill(0.0))?;
            }
        }
        slice(&self.gradients)
    }

    /// The weights.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub fn weights(&self) -> Result<Slice<'_>> {
        slice(&self.weights)
    }

    /// Lets `f(weights, gradients)` change the weights in place; all leaves see it. Graphs made before must not go back
    /// after it.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub fn update(&self, f: impl FnOnce(&mut [f32], &[f32])) -> Result<()> {
        let gradients = slice(&self.gradients)?;
        write(&self.weights, |weights| f(weights, &gradients))
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        self.weights.device()
    }
}
