//! The tensors of a model: names, shapes, initial values. What is declared here is what a pass may ask for.

use std::collections::HashMap;

use super::config::{Config, Front, NormKind};
use crate::error::{Error, Result};

/// How a tensor begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Uniform in `-bound` to `bound`.
    Uniform(f64),
    /// Normal with this deviation.
    Normal(f32),
    /// One number.
    Constant(f32),
    /// Of a matrix `[n, n * k]`, `k` columns a row: the first on the diagonal, the second elsewhere.
    Diagonal(f32, f32),
}

impl Init {
    /// He et al. 2015, uniform: for layers before a rectifier.
    pub fn he(inputs: usize) -> Self {
        Self::Uniform((6.0 / inputs.max(1) as f64).sqrt())
    }

    /// Glorot and Bengio 2010, uniform: for layers without one.
    pub fn xavier(inputs: usize, outputs: usize) -> Self {
        Self::Uniform((6.0 / (inputs + outputs).max(1) as f64).sqrt())
    }
}

/// One tensor.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it begins.
    pub init: Init,
}

/// All tensors of a model, in order.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    all: Vec<Declared>,
    at: HashMap<String, usize>,
    norm: NormKind,
    elements: usize,
}

/// Elements of a model and tensors at most: above, a configuration is broken or hostile.
const MOST: (usize, usize) = (1 << 32, 1 << 18);

impl Tensors {
    pub(super) fn new(norm: NormKind) -> Self {
        Self {
            norm,
            ..Self::default()
        }
    }

    /// All, in the order of the model.
    pub fn iter(&self) -> impl Iterator<Item = &Declared> {
        self.all.iter()
    }

    /// The shape of a name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.at.get(name).map(|&i| self.all[i].shape.as_slice())
    }

    /// One tensor.
    ///
    /// # Errors
    /// More elements than any memory holds; so for every function below.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> Result<()> {
        let name = name.into();
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let all = count.and_then(|n| n.checked_add(self.elements));
        let Some(all) = all.filter(|n| *n <= MOST.0 && self.all.len() < MOST.1) else {
            return Err(Error::Config {
                what: format!("its weights fill every memory: `{name}` has shape {shape:?}"),
            });
        };
        self.elements = all;
        self.at.insert(name.clone(), self.all.len());
        self.all.push(Declared {
            name,
            shape: shape.to_vec(),
            init,
        });
        Ok(())
    }

    /// A linear layer with a bias of 0.
    pub fn linear(&mut self, name: &str, [out, input]: [usize; 2], init: Init) -> Result<()> {
        self.add(format!("{name}.weight"), &[out, input], init)?;
        self.add(format!("{name}.bias"), &[out], Init::Constant(0.0))
    }

    /// A linear layer that no activation follows.
    pub fn gate(&mut self, name: &str, [out, input]: [usize; 2]) -> Result<()> {
        self.linear(name, [out, input], Init::xavier(input, out))
    }

    /// Gain and bias of a norm.
    pub fn norm(&mut self, name: &str, width: usize) -> Result<()> {
        self.add(format!("{name}.weight"), &[width], Init::Constant(1.0))?;
        self.add(format!("{name}.bias"), &[width], Init::Constant(0.0))
    }

    /// What a batch norm needs.
    pub fn batch_norm(&mut self, name: &str, width: usize) -> Result<()> {
        self.norm(name, width)?;
        self.add(
            format!("{name}.running_mean"),
            &[width],
            Init::Constant(0.0),
        )?;
        self.add(format!("{name}.running_var"), &[width], Init::Constant(1.0))
    }

    /// Layers of some widths, with the norm of the configuration: `prefix.layers.<i>`, `prefix.norms.<i>`. Returns the last
    /// width, or that of the input where there are none.
    pub fn layers(&mut self, prefix: &str, input: usize, widths: &[usize]) -> Result<usize> {
        self.experts(prefix, 1, input, widths)
    }

    /// The same for several experts that read the same input, their outputs side by side: weights `[count * out, in]`, where
    /// the rows of expert `e` begin at `e * out`.
    pub fn experts(
        &mut self,
        prefix: &str,
        count: usize,
        input: usize,
        widths: &[usize],
    ) -> Result<usize> {
        let mut input = input;
        for (i, &width) in widths.iter().enumerate() {
            let all = count * width;
            let name = format!("{prefix}.layers.{i}");
            self.linear(&name, [all, input], Init::he(input))?;
            let name = format!("{prefix}.norms.{i}");
            match self.norm {
                NormKind::None => {}
                NormKind::Layer => self.norm(&name, all)?,
                NormKind::Batch => self.batch_norm(&name, all)?,
            }
            input = width;
        }
        Ok(input)
    }

    /// The front end of a model, or with a prefix one of several: the table of all categories, and the layer of the numbers.
    pub fn front(&mut self, prefix: &str, config: &Config) -> Result<()> {
        if !config.categories.is_empty() {
            let shape = [config.categories.iter().sum(), config.embed_dim];
            self.add(
                format!("{prefix}embedding.weight"),
                &shape,
                Init::Normal(0.01),
            )?;
        }
        if config.front == Front::Linear && config.numeric > 0 {
            self.gate(
                &format!("{prefix}numbers"),
                [config.embed_dim, config.numeric],
            )?;
        }
        Ok(())
    }

    /// The tower of every goal, `goals.<g>.tower`, on inputs of a width; returns the width of its output.
    pub fn towers(&mut self, config: &Config, input: usize) -> Result<usize> {
        let mut width = input;
        for goal in 0..config.goals.len() {
            width = self.layers(&format!("goals.{goal}.tower"), input, &config.tower)?;
        }
        Ok(width)
    }
}
