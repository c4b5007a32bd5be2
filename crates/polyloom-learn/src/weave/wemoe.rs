//! WEMoE (Tang et al. 2024): feed-forward parts whose task vectors are mixed anew for every input.

use std::cell::RefCell;
use std::collections::HashMap;

use super::blend::Parts;
use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, Result};
use crate::models::{Point, Source, mean_weights};
use crate::ops::{self, Activation};
use crate::tasks::forward::batched;
use crate::tasks::{Feature, Reader, Shown};

/// Coefficient that all experts begin with.
pub const INIT: f32 = 0.3;

/// The feed-forward parts of a model, by their linear layers, and what each expert changed in them.
pub struct Blocks<'a> {
    /// Names of the linear layers of each block; the first takes the block's input.
    pub names: &'a [Vec<String>],
    /// What each expert changed, as whole tensors by name.
    pub experts: Vec<HashMap<String, Tensor>>,
}

impl<'a> Blocks<'a> {
    /// From parts of experts.
    ///
    /// # Errors
    /// Never in practice: parts that were checked.
    pub fn new(names: &'a [Vec<String>], parts: &[&Parts]) -> Result<Self> {
        let dense = |parts: &&Parts| {
            let one =
                |(name, part): (&String, &super::part::Part)| Ok((name.clone(), part.dense()?));
            parts.iter().map(one).collect::<Result<_>>()
        };
        Ok(Self {
            names,
            experts: parts.iter().map(dense).collect::<Result<_>>()?,
        })
    }

    /// The block of a linear layer.
    fn of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|b| b.iter().any(|n| n == name))
    }
}

/// Names of the tensors of a block's mixer.
#[must_use]
pub fn mixer(block: usize) -> [String; 4] {
    ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"].map(|n| format!("mixers/{block}.{n}"))
}

/// A mixer before the first step: weights drawn from N(0, 0.01²), the first bias 0, the last 0.3.
///
/// # Errors
/// Never in practice: lengths that fit.
pub fn begin(
    block: usize,
    width: usize,
    experts: usize,
    seed: u64,
) -> Result<Vec<(String, Tensor)>> {
    let [w1, b1, w2, b2] = mixer(block);
    let drawn = |name: &str, n: usize| -> Vec<f32> {
        let stream = polyloom_core::rng::Stream::new(seed, name, 0);
        (0..n as u64).map(|i| 0.01 * stream.normal(i)).collect()
    };
    Ok(vec![
        (
            w1.clone(),
            tensor(drawn(&w1, width * width), (width, width))?,
        ),
        (b1, tensor(vec![0.0; width], width)?),
        (
            w2.clone(),
            tensor(drawn(&w2, experts * width), (experts, width))?,
        ),
        (b2, tensor(vec![INIT; experts], experts)?),
    ])
}

/// Where coefficients come from.
#[derive(Debug, Clone)]
pub enum Mixing {
    /// The mixers, for every input its own.
    Each,
    /// The mixers' mean over the batch, with gradients: training.
    Mean,
    /// The same for all inputs.
    Fixed(Vec<f32>),
}

impl Mixing {
    /// One expert, for all inputs.
    #[must_use]
    pub fn one(expert: usize, experts: usize) -> Self {
        Self::Fixed(
            (0..experts)
                .map(|e| f32::from(u8::from(e == expert)))
                .collect(),
        )
    }
}

/// Weights of the tokens of a batch of texts in their mean, filling left out; `None` for pictures, whose tokens all count.
///
/// # Errors
/// Inputs that a feature does not read.
pub fn present(reader: &Reader, parts: &[(Feature, Vec<&Shown>)]) -> Result<Option<Tensor>> {
    match reader {
        Reader::Texts(text) => Ok(Some(mean_weights(&batched(text, parts)?)?)),
        Reader::Pictures(_) | Reader::Sensors(_) | Reader::Tables(_) => Ok(None),
    }
}

/// Static weights with mixed feed-forward parts, for one batch.
pub struct Wemoe<'a> {
    /// Everything but the blocks, base weights of the blocks, and the mixers by [`mixer`].
    pub weights: &'a dyn Source,
    /// The blocks.
    pub blocks: &'a Blocks<'a>,
    /// Where coefficients come from.
    pub mixing: Mixing,
    /// Weights of the tokens in their mean ([`present`]).
    pub tokens: Option<Tensor>,
    /// Coefficients of the block that runs: `[inputs, experts]`, of a mean `[1, experts]`.
    now: RefCell<Option<(usize, Value)>>,
    /// Mixed tensors of this batch, in training.
    made: RefCell<HashMap<String, Value>>,
}

impl<'a> Wemoe<'a> {
    /// Over static weights.
    pub fn new(
        weights: &'a dyn Source,
        blocks: &'a Blocks<'a>,
        mixing: Mixing,
        tokens: Option<Tensor>,
    ) -> Self {
        Self {
            weights,
            blocks,
            mixing,
            tokens,
            now: RefCell::default(),
            made: RefCell::default(),
        }
    }

    /// Coefficients of a block for its input `[inputs, tokens, width]`: `[inputs, experts]`, of a mean `[1, experts]`.
    ///
    /// # Errors
    /// No such mixer, an input of another shape.
    pub fn coefficients(&self, block: usize, x: &Value) -> Result<Value> {
        let experts = self.blocks.experts.len();
        if let Mixing::Fixed(fixed) = &self.mixing {
            return Ok(Value::constant(tensor(fixed.clone(), (1, experts))?));
        }
        let &[inputs, tokens, _] = x.dims() else {
            return Err(Error::shape(
                "wemoe",
                format!("a block's input of {:?}", x.dims()),
            ));
        };
        let [w1, b1, w2, b2] = mixer(block);
        let get = |name: &String| self.weights.tensor(name);
        let mean = match &self.tokens {
            Some(weights) => ops::pool(x, weights)?,
            None => {
                let even = vec![1.0 / tokens as f32; inputs * tokens];
                ops::pool(x, &tensor(even, (inputs, tokens))?)?
            }
        };
        let hidden = ops::activate(
            &ops::linear(&mean, &get(&w1)?, Some(&get(&b1)?))?,
            Activation::Relu,
        )?;
        let each = ops::linear(&hidden, &get(&w2)?, Some(&get(&b2)?))?;
        match self.mixing {
            Mixing::Mean => {
                let share = tensor(vec![1.0 / inputs as f32; inputs], (1, inputs))?;
                ops::product(&Value::constant(share), &each)
            }
            _ => Ok(each),
        }
    }

    /// A tensor of a block mixed with coefficients `[rows, experts]`, for a row of them.
    fn mixed(&self, name: &str, coefficients: &Value, row: usize) -> Result<Option<Value>> {
        let Some(base) = self.weights.find(name)? else {
            return Ok(None);
        };
        let parts: Vec<Option<&Tensor>> = self.blocks.experts.iter().map(|e| e.get(name)).collect();
        ops::mixture(&base, &parts, coefficients, row).map(Some)
    }

    /// The mixed tensor of a batch with one mix, made once.
    fn common(&self, name: &str, coefficients: &Value) -> Result<Option<Value>> {
        if let Some(made) = self.made.borrow().get(name) {
            return Ok(Some(made.clone()));
        }
        let made = self.mixed(name, coefficients, 0)?;
        if let Some(made) = &made {
            self.made.borrow_mut().insert(name.to_owned(), made.clone());
        }
        Ok(made)
    }
}

impl Source for Wemoe<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.weights.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let Some(block) = self.blocks.of(name) else {
            return self.weights.linear(name, x);
        };
        let held = self.now.borrow().clone().filter(|(b, _)| *b == block);
        let coefficients = match held {
            Some((_, coefficients)) => coefficients,
            None => {
                let found = self.coefficients(block, x)?;
                *self.now.borrow_mut() = Some((block, found.clone()));
                found
            }
        };
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let missing = || Error::Missing {
            name: weight.clone(),
        };
        if !matches!(self.mixing, Mixing::Each) {
            let w = self.common(&weight, &coefficients)?.ok_or_else(missing)?;
            return ops::linear(x, &w, self.common(&bias, &coefficients)?.as_ref());
        }
        // Inputs with the same mix run together.
        let rows = coefficients.dims()[0];
        let mixes = slice(coefficients.data())?;
        let mut groups: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        for (i, mix) in mixes
            .chunks_exact(coefficients.dims()[1].max(1))
            .enumerate()
        {
            let key: Vec<u32> = mix.iter().map(|x| x.to_bits()).collect();
            match groups.iter_mut().find(|(k, _)| *k == key) {
                Some((_, list)) => list.push(i as u32),
                None => groups.push((key, vec![i as u32])),
            }
        }
        let (mut out, mut shape) = (Vec::new(), Vec::new());
        for (_, of) in groups {
            let row = of[0] as usize;
            let w = self
                .mixed(&weight, &coefficients, row)?
                .ok_or_else(missing)?;
            let b = self.mixed(&bias, &coefficients, row)?;
            let y = ops::linear(&ops::rows(x, &of)?, &w, b.as_ref())?;
            let values = slice(y.data())?;
            let wide = values.len() / of.len();
            if shape.is_empty() {
                shape = y.dims().to_vec();
                shape[0] = rows;
                out = vec![0f32; rows * wide];
            }
            for (i, from) in of.iter().zip(values.chunks_exact(wide.max(1))) {
                out[*i as usize * wide..][..wide].copy_from_slice(from);
            }
        }
        Ok(Value::constant(tensor(out, shape)?))
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        if matches!(point, Point::FeedForward(_)) {
            *self.now.borrow_mut() = None;
        }
        self.weights.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.weights.dropout()
    }
}
