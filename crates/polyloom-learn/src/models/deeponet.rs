//! Multi-task DeepONet: one network for the solutions of a differential equation over sources and geometries.
//!
//! `G(u, mask)(y) = sum_k b_k(u) m_k(mask) t_k(y) + bias`: branches for the source function and for the geometry, multiplied
//! element by element, and a trunk over the points asked for. Lu et al., Nature Machine Intelligence 2021, with a second branch;
//! the definition is ours (after Kumar et al. 2024). Tensors: `source.layers.<i>`, `geometry.layers.<i>`, `trunk.layers.<i>`, and
//! `bias [1]`.
//!
//! [`PictureOnet`] is the same over pictures of two channels, as a trunk whose products `b_k m_k t_k` heads of maps read: the
//! branches and the points' trunk are those of all goals, each goal has a weight for every product and a bias of its own (`sum_k
//! w_k b_k m_k t_k(y) + w_0`). Ones as weights are the definition above; goals that share no factor can turn it off.

use serde::Deserialize;

use super::Source;
use crate::engine::{Value, tensor};
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

    /// What sources and geometries make together, `[functions, K]`, and what the points do, `[points, K]`.
    fn factors(
        &self,
        weights: &dyn Source,
        source: &Value,
        geometry: &Value,
        points: &Value,
    ) -> Result<[Value; 2]> {
        let branch = ops::mul(
            &self.part(weights, "source", source)?,
            &self.part(weights, "geometry", geometry)?,
        )?;
        Ok([branch, self.part(weights, "trunk", points)?])
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
        let [branch, trunk] = self.factors(weights, source, geometry, points)?;
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

/// `model_type` of the network over pictures.
pub const MODEL_TYPE: &str = "polyloom-deeponet";

/// What `config.json` says of the network over pictures.
#[derive(Debug, Clone, Deserialize)]
pub struct PictureConfig {
    /// Height and width of the grid.
    pub image_size: usize,
    /// 2: the source, and where the equation holds.
    #[serde(default = "two")]
    pub num_channels: usize,
    /// Products, K.
    pub hidden_size: usize,
    /// Width between the layers of either branch and of the trunk; that of the products where nothing is said.
    #[serde(default)]
    pub intermediate_size: Option<usize>,
    /// Layers of either branch and of the trunk.
    pub num_hidden_layers: usize,
    /// Activation between them.
    #[serde(default = "gelu")]
    pub hidden_act: String,
}

fn two() -> usize {
    2
}

fn gelu() -> String {
    "gelu".to_owned()
}

/// The network over pictures.
#[derive(Debug, Clone)]
pub struct PictureOnet {
    /// The configuration.
    pub config: PictureConfig,
    net: DeepOnet,
}

impl PictureOnet {
    /// Of a configuration.
    ///
    /// # Errors
    /// Sizes that make no network, another number of channels than two, and as [`DeepOnet::new`].
    pub fn new(config: PictureConfig) -> Result<Self> {
        let wrong = |what: String| Err(Error::Config { what });
        if config.num_channels != 2 {
            return wrong(format!(
                "num_channels {}: a picture has two, the source and where the equation holds",
                config.num_channels
            ));
        }
        let sizes = [
            ("image_size", config.image_size, 1 << 10),
            ("hidden_size", config.hidden_size, 1 << 16),
            (
                "intermediate_size",
                config.intermediate_size.unwrap_or(1),
                1 << 16,
            ),
        ];
        if let Some((key, size, most)) = sizes
            .iter()
            .find(|(_, size, most)| !(1..=*most).contains(size))
        {
            return wrong(format!("{key} {size}; 1 to {most}"));
        }
        let net = DeepOnet::new(&Config {
            layers: config.num_hidden_layers,
            hidden_act: config.hidden_act.clone(),
        })?;
        Ok(Self { config, net })
    }

    /// Names of the linear layers, with outputs and inputs.
    #[must_use]
    pub fn linears(&self) -> Vec<(String, [usize; 2])> {
        let c = &self.config;
        let inner = c.intermediate_size.unwrap_or(c.hidden_size);
        let pixels = c.image_size * c.image_size;
        let mut all = Vec::new();
        for (part, inputs) in [("source", pixels), ("geometry", pixels), ("trunk", 2)] {
            for layer in 0..c.num_hidden_layers {
                let last = layer + 1 == c.num_hidden_layers;
                let shape = [
                    if last { c.hidden_size } else { inner },
                    if layer == 0 { inputs } else { inner },
                ];
                all.push((format!("{part}.layers.{layer}"), shape));
            }
        }
        all
    }

    /// Of pictures `[images, 2, size, size]` what source and geometry make together, then its product with every pixel's: `[images,
    /// 1 + pixels, K]`, where heads of labels read the first and heads of maps the others.
    ///
    /// # Errors
    /// Pictures of another shape, tensors that are absent or of another shape.
    pub fn forward(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        let (side, width) = (self.config.image_size, self.config.hidden_size);
        let &[n, 2, height, across] = pixels.dims() else {
            let what = format!("pictures of {:?}", pixels.dims());
            return Err(Error::shape("deeponet", what));
        };
        if [height, across] != [side, side] {
            let what = format!("pictures of {height} x {across}; it reads {side} x {side}");
            return Err(Error::shape("deeponet", what));
        }
        let count = side * side;
        let channel = |at| ops::reshape(&ops::narrow(pixels, 1, at, 1)?, &[n, count]);
        // Middles of the pixels, -1 to 1, column before row.
        let middle = |place: usize| ((2 * place + 1) as f32 / side as f32) - 1.0;
        let places = (0..count).flat_map(|at| [middle(at % side), middle(at / side)]);
        let points = Value::constant(tensor(places.collect(), (count, 2))?);
        let [branch, trunk] = self
            .net
            .factors(weights, &channel(0)?, &channel(1)?, &points)?;
        let of: Vec<u32> = (0..n as u32).flat_map(|i| vec![i; count]).collect();
        let at: Vec<u32> = (0..n).flat_map(|_| 0..count as u32).collect();
        let each = ops::mul(&ops::rows(&branch, &of)?, &ops::rows(&trunk, &at)?)?;
        let first = ops::reshape(&branch, &[n, 1, width])?;
        ops::concat(&[&first, &ops::reshape(&each, &[n, count, width])?], 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Tensor, slice};
    use crate::models::Plain;

    /// Two products over a grid of two by two, by hand: one layer each, so that branches are weighted sums of pixels.
    #[test]
    fn products_by_hand() {
        let config: PictureConfig = serde_json::from_value(serde_json::json!({
            "image_size": 2, "hidden_size": 2, "num_hidden_layers": 1,
        }))
        .unwrap();
        let model = PictureOnet::new(config).unwrap();
        let names: Vec<String> = model.linears().into_iter().map(|(n, _)| n).collect();
        assert_eq!(
            names,
            ["source.layers.0", "geometry.layers.0", "trunk.layers.0"]
        );
        let t =
            |values: &[f32], shape: &[usize]| -> Tensor { tensor(values.to_vec(), shape).unwrap() };
        let weights = Plain::new([
            (
                "source.layers.0.weight".to_owned(),
                t(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0], &[2, 4]),
            ),
            (
                "geometry.layers.0.weight".to_owned(),
                t(&[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 2.0], &[2, 4]),
            ),
            (
                "trunk.layers.0.weight".to_owned(),
                t(&[1.0, 0.0, 0.0, 2.0], &[2, 2]),
            ),
            ("trunk.layers.0.bias".to_owned(), t(&[0.5, 0.0], &[2])),
        ]);
        let pixels = Value::constant(t(&[3.0, 4.0, 5.0, 6.0, 1.0, 0.0, 1.0, 1.0], &[1, 2, 2, 2]));
        let found = model.forward(&weights, &pixels).unwrap();
        // Branches (3, 9) and (3, 2), together (9, 18); points at +-0.5: (x + 0.5, 2 y).
        let due = [9.0, 18.0, 0.0, -18.0, 9.0, -18.0, 0.0, 18.0, 9.0, 18.0];
        assert_eq!(
            (found.dims(), &*slice(found.data()).unwrap()),
            (&[1, 5, 2][..], &due[..])
        );
        let small = Value::constant(t(&[0.0; 2], &[1, 2, 1, 1]));
        assert!(model.forward(&weights, &small).is_err());
        let three = serde_json::json!({"image_size": 2, "num_channels": 3, "hidden_size": 2, "num_hidden_layers": 1});
        let refused = PictureOnet::new(serde_json::from_value(three).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("num_channels 3"), "{refused}");
    }
}
