//! One pass of a model over a batch: its tensors by name, checked, and the layers that architectures are made of.

use super::config::{Front, NormKind};
use super::{TableBatch, TableModel};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::{Source, place_of};
use crate::ops::{self, Norm};

/// Added to variances.
const EPS: f32 = 1e-5;

/// A pass.
pub struct Pass<'a> {
    /// The model.
    pub model: &'a TableModel,
    pub(super) weights: &'a dyn Source,
    pub(super) batch: &'a TableBatch,
    /// Where a row is of one group of goals alone: the rows of every group. Goals of a target lie side by side, one a group.
    pub(super) groups: Option<&'a [Vec<u32>]>,
    /// Sees every mixture of experts.
    pub(super) watch: Option<&'a dyn Watch>,
}

/// Sees the mixtures of experts of a pass.
pub trait Watch {
    /// A gate, its weights `[rows, experts]`, and what it weighs: experts side by side `[rows, experts * width]`, by the name
    /// of their tensors, in the order of the weights.
    ///
    /// # Errors
    /// What the watcher refuses.
    fn mixed(&self, gate: &str, weights: &Value, parts: &[(&str, &Value)]) -> Result<()>;
}

impl Pass<'_> {
    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.batch.rows
    }

    /// Numbers of the rows that are of a goal; `None` where all are.
    fn of_goal(&self, goal: usize) -> Option<&[u32]> {
        let groups = self.groups?;
        groups.get(goal % groups.len().max(1)).map(Vec::as_slice)
    }

    /// How many rows are of a goal.
    pub fn own_rows(&self, goal: usize) -> usize {
        self.of_goal(goal).map_or(self.batch.rows, <[u32]>::len)
    }

    /// What all rows have `[rows, width]`, of the rows of a goal.
    ///
    /// # Errors
    /// Another number of rows.
    pub fn own(&self, goal: usize, x: &Value) -> Result<Value> {
        match self.of_goal(goal) {
            None => Ok(x.clone()),
            Some(at) => ops::rows(x, at),
        }
    }

    /// A tensor of the shape that the model declares.
    ///
    /// # Errors
    /// None of that name, another shape.
    pub fn tensor(&self, name: &str) -> Result<Value> {
        let found = self.weights.tensor(name)?;
        match self.model.tensors().shape(name) {
            Some(shape) if shape == found.dims() => Ok(found),
            shape => Err(Error::Config {
                what: format!(
                    "tensor `{name}` has shape {:?}, its sizes say {:?}",
                    found.dims(),
                    shape.unwrap_or_default()
                ),
            }),
        }
    }

    /// A linear layer of the model.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let y = self.weights.linear(name, x)?;
        let said = self.model.tensors().shape(&format!("{name}.weight"));
        let said = said.and_then(|s| s.first()).copied().unwrap_or_default();
        if y.dims().last() != Some(&said) {
            return Err(Error::Config {
                what: format!("`{name}.weight` gives {:?}, its sizes say {said}", y.dims()),
            });
        }
        Ok(y)
    }

    /// The features of the rows `[rows, width]`: embeddings of all fields, then the numbers or what the layer makes of them.
    ///
    /// # Errors
    /// Codes that are not in their field's vocabulary, and as [`Pass::tensor`].
    pub fn features(&self, prefix: &str) -> Result<Value> {
        self.features_of(prefix, None)
    }

    /// The same of a goal's own rows, by the tensors of that goal.
    ///
    /// # Errors
    /// As [`Pass::features`].
    pub fn own_features(&self, goal: usize) -> Result<Value> {
        self.features_of(&format!("goals.{goal}."), self.of_goal(goal))
    }

    fn features_of(&self, prefix: &str, at: Option<&[u32]>) -> Result<Value> {
        let config = &self.model.config;
        let mut parts = Vec::new();
        if !config.categories.is_empty() {
            let width = config.categories.len() * config.embed_dim;
            let rows = at.map_or(self.rows(), <[u32]>::len);
            let vectors = self.embedded_of(prefix, at)?;
            parts.push(ops::reshape(&vectors, &[rows, width])?);
        }
        if config.numeric > 0 {
            let numbers = match at {
                None => self.batch.numbers.clone(),
                Some(at) => ops::rows(&self.batch.numbers, at)?,
            };
            parts.push(match config.front {
                Front::Raw => numbers,
                Front::Linear => self.linear(&format!("{prefix}numbers"), &numbers)?,
            });
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            _ => ops::concat(&parts.iter().collect::<Vec<_>>(), 1),
        }
    }

    /// The vectors of the categories `[rows, fields, embed_dim]`.
    ///
    /// # Errors
    /// As [`Pass::features`].
    pub fn embedded(&self, prefix: &str) -> Result<Value> {
        self.embedded_of(prefix, None)
    }

    fn embedded_of(&self, prefix: &str, at: Option<&[u32]>) -> Result<Value> {
        let config = &self.model.config;
        let fields = config.categories.len();
        let rows: Vec<usize> = match at {
            None => (0..self.rows()).collect(),
            Some(at) => at.iter().map(|r| *r as usize).collect(),
        };
        let mut ids = Vec::with_capacity(rows.len() * fields);
        for row in &rows {
            for (field, &code) in self.batch.codes[row * fields..][..fields]
                .iter()
                .enumerate()
            {
                if code as usize >= config.categories[field] {
                    return Err(Error::shape(
                        "table",
                        format!(
                            "row {row}: code {code} in categorical field {field}, which has {} codes",
                            config.categories[field]
                        ),
                    ));
                }
                ids.push(self.model.offsets[field] + code);
            }
        }
        let table = self.tensor(&format!("{prefix}embedding.weight"))?;
        ops::embedding(&table, &ids, &[rows.len(), fields])
    }

    /// The vectors of some categorical fields `[rows, fields * embed_dim]`, of codes row after row.
    ///
    /// # Errors
    /// Codes that are not in their field's vocabulary, and as [`Pass::tensor`].
    pub fn embedded_fields(&self, fields: &[usize], codes: &[u32]) -> Result<Value> {
        let (config, wide) = (&self.model.config, fields.len().max(1));
        let mut ids = Vec::with_capacity(codes.len());
        for (at, &code) in codes.iter().enumerate() {
            let field = fields[at % wide];
            if code as usize >= config.categories[field] {
                let what = format!(
                    "code {code} in categorical field {field}, which has {} codes",
                    config.categories[field]
                );
                return Err(Error::shape("table", what));
            }
            ids.push(self.model.offsets[field] + code);
        }
        let rows = codes.len() / wide;
        let table = self.tensor("embedding.weight")?;
        let found = ops::embedding(&table, &ids, &[rows, wide])?;
        ops::reshape(&found, &[rows, wide * config.embed_dim])
    }

    /// The layers `prefix.layers.0` and on: linear, norm, activation, dropout.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn layers(&self, prefix: &str, x: &Value, count: usize) -> Result<Value> {
        self.experts(prefix, 1, x, count)
    }

    /// The same of several experts side by side, `[rows, experts * width]`. The first layer is one product for all of them.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn experts(&self, prefix: &str, experts: usize, x: &Value, count: usize) -> Result<Value> {
        (0..count).try_fold(x.clone(), |x, i| self.layer(prefix, i, experts, &x))
    }

    /// Layer `i` of several experts: of one input that all read, or of their outputs side by side.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn layer(&self, prefix: &str, i: usize, experts: usize, x: &Value) -> Result<Value> {
        let name = format!("{prefix}.layers.{i}");
        let x = if i == 0 || experts == 1 {
            self.linear(&name, x)?
        } else {
            let part = |part: &str| self.tensor(&format!("{name}.{part}"));
            ops::grouped_linear(x, &part("weight")?, Some(&part("bias")?), experts)?
        };
        let x = self.normed(&format!("{prefix}.norms.{i}"), x, experts)?;
        self.dropped(&name, ops::activate(&x, self.model.activation)?)
    }

    /// The norm of the configuration; layer norms take every one of `groups` parts of a row by itself.
    fn normed(&self, name: &str, x: Value, groups: usize) -> Result<Value> {
        match self.model.config.norm {
            NormKind::None => Ok(x),
            NormKind::Batch => self.weights.batch_norm(name, &x, EPS),
            NormKind::Layer if groups == 1 => self.weights.layer_norm(name, &x, EPS),
            NormKind::Layer => {
                let (rows, width) = (x.dims()[0], x.dims()[1]);
                let each = width / groups;
                let ones = Value::constant(crate::engine::tensor(vec![1.0; each], each)?);
                let parts = ops::reshape(&x, &[rows * groups, each])?;
                let plain = ops::norm(&parts, &ones, None, Norm::layer(EPS))?;
                let whole = ops::reshape(&plain, &[rows, width])?;
                let part = |part: &str| self.tensor(&format!("{name}.{part}"));
                ops::plus_row(&ops::times_row(&whole, &part("weight")?)?, &part("bias")?)
            }
        }
    }

    /// The dropout of the configuration, drawn by the name of a layer.
    ///
    /// # Errors
    /// What the operation refuses.
    pub fn dropped(&self, name: &str, x: Value) -> Result<Value> {
        self.weights
            .dropped(x, self.model.config.dropout, place_of(name))
    }

    /// The layer norm of a name, whatever the norm of the configuration.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn layer_norm(&self, name: &str, x: &Value) -> Result<Value> {
        self.weights.layer_norm(name, x, EPS)
    }

    /// Weights of experts: the softmax of a linear layer.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn gate(&self, name: &str, x: &Value) -> Result<Value> {
        ops::softmax(&self.linear(name, x)?)
    }

    /// Experts weighed by a gate `[rows, width]`: those of several parts side by side.
    ///
    /// # Errors
    /// As [`ops::blend`], and what who watches refuses.
    pub fn mix(&self, gate: &str, weights: &Value, parts: &[(&str, &Value)]) -> Result<Value> {
        if let Some(watch) = self.watch {
            watch.mixed(gate, weights, parts)?;
        }
        let values: Vec<&Value> = parts.iter().map(|(_, x)| *x).collect();
        ops::blend(weights, &values)
    }

    /// The towers of some goals, each on its input, of the goal's own rows.
    ///
    /// # Errors
    /// As [`Pass::tensor`].
    pub fn towers(&self, goals: &[usize], inputs: &[Value]) -> Result<Vec<Value>> {
        let layers = self.model.config.tower.len();
        goals
            .iter()
            .zip(inputs)
            .map(|(goal, x)| self.layers(&format!("goals.{goal}.tower"), x, layers))
            .collect()
    }
}
