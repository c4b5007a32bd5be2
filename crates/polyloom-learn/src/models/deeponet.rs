//! Multi-task DeepONet: one network for the solutions of a differential equation over sources and geometries.
//!
//! `G(u, mask)(y) = sum_k b_k(u) m_k(mask) t_k(y) + bias`: branches for the source function and for the geometry, multiplied
//! element by element, and a trunk over the points asked for. Lu et al., Nature Machine Intelligence 2021, with a second branch;
//! the definition is ours. Tensors: `source.layers.<i>`, `geometry.layers.<i>`, `trunk.layers.<i>`, and `bias [1]`.

use serde::Deserialize;

use super::Source;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// What a configuration says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Linear layers of either branch and of the trunk; between them an activation.
    pub layers: usize,
    /// Activation.
    #[serde(default = "tanh")]
    pub hidden_act: String,
}

fn tanh() -> String {
    "tanh".to_owned()
}

/// A network of one configuration; its widths are those of the weights.
#[derive(Debug, Clone)]
pub struct DeepOnet {
    layers: usize,
    activation: Activation,
}

impl DeepOnet {
    /// Of a configuration.
    ///
    /// # Errors
    /// An unknown activation, no layers.
    pub fn new(config: &Config) -> Result<Self> {
        let activation = Activation::named(&config.hidden_act).ok_or_else(|| Error::Config {
            what: format!("activation `{}` is unknown", config.hidden_act),
        })?;
        if !(1..=256).contains(&config.layers) {
            return Err(Error::Config {
                what: format!("{} layers; 1 to 256", config.layers),
            });
        }
        Ok(Self {
            layers: config.layers,
            activation,
        })
    }

    fn part(&self, weights: &dyn Source, name: &str, x: &Value) -> Result<Value> {
        let mut x = x.clone();
        for i in 0..self.layers {
            if i > 0 {
                x = ops::activate(&x, self.activation)?;
            }
            x = weights.linear(&format!("{name}.layers.{i}"), &x)?;
        }
        Ok(x)
    }

    /// Solutions `[functions, points]` of sources `[functions, sensors]` over geometries `[functions, cells]` at `[points,
    /// axes]`.
    ///
    /// # Errors
    /// Tensors that are absent, shapes that do not fit.
    pub fn forward(
        &self,
        weights: &dyn Source,
        source: &Value,
        geometry: &Value,
        points: &Value,
    ) -> Result<Value> {
        let branch = ops::mul(
            &self.part(weights, "source", source)?,
            &self.part(weights, "geometry", geometry)?,
        )?;
        let trunk = self.part(weights, "trunk", points)?;
        let bias = weights.tensor("bias")?;
        if bias.dims() != [1] {
            return Err(Error::shape(
                "deeponet",
                format!("a bias of {:?}", bias.dims()),
            ));
        }
        // The trunk's rows are the weights of a linear layer over the branch, its bias is one number for all points.
        let points = trunk.dims().first().copied().unwrap_or_default();
        let bias = ops::rows(&ops::reshape(&bias, &[1, 1])?, &vec![0; points])?;
        ops::linear(&branch, &trunk, Some(&ops::reshape(&bias, &[points])?))
    }
}

/// The mean square over the points inside of their geometry: `inside` is 1 there and 0 elsewhere, of the shape of both.
///
/// # Errors
/// Shapes that do not fit together, no point inside.
pub fn inside_squares(found: &Value, target: &Value, inside: &Value) -> Result<Value> {
    let count = ops::sum(inside)?.number()?;
    if count <= 0.0 {
        return Err(Error::shape("deeponet", "no point inside of its geometry"));
    }
    let off = ops::sub(found, target)?;
    let squares = ops::mul(&ops::mul(&off, &off)?, inside)?;
    ops::scale(&ops::sum(&squares)?, 1.0 / count)
}
