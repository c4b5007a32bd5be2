//! A multi-layer perceptron over the pixels of an image: Polyloom's own smallest family, for quick experiments.
//!
//! `config.json` has `"model_type": "polyloom-mlp"`; tensors are `layers.N.weight`, `layers.N.bias` and, with `layer_norm`,
//! `norms.N.weight`, `norms.N.bias`. A layer is linear, norm, activation, dropout.

use serde::Deserialize;

use super::{Point, Source};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// The word of this family in `config.json`.
pub const MODEL_TYPE: &str = "polyloom-mlp";

/// What `config.json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Height and width of an image.
    pub image_size: usize,
    /// Colours.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Widths of the layers, from the pixels on; the last one is that of the output.
    pub hidden_sizes: Vec<usize>,
    /// Activation behind every layer.
    #[serde(default = "relu")]
    pub hidden_act: String,
    /// Whether a layer norm stands between a layer and its activation.
    #[serde(default)]
    pub layer_norm: bool,
    /// Added to variances.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Dropout behind every activation.
    #[serde(default)]
    pub hidden_dropout_prob: f32,
}

fn three() -> usize {
    3
}

fn relu() -> String {
    "relu".to_owned()
}

fn eps() -> f32 {
    1e-5
}

/// A perceptron of one configuration.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// The configuration.
    pub config: Config,
    activation: Activation,
}

impl Mlp {
    /// Of a configuration.
    ///
    /// # Errors
    /// No layers, an activation or sizes that this architecture does not have.
    pub fn new(config: Config) -> Result<Self> {
        let wrong = |what: String| Error::Config { what };
        let activation = Activation::named(&config.hidden_act)
            .ok_or_else(|| wrong(format!("activation `{}` is unknown", config.hidden_act)))?;
        if config.hidden_sizes.is_empty() || config.hidden_sizes.contains(&0) {
            return Err(wrong(format!(
                "hidden_sizes {:?}: at least one layer, none of width 0",
                config.hidden_sizes
            )));
        }
        // Above, a picture brought to that size would fill the memory.
        if !(1..=4096).contains(&config.image_size) || !(1..=64).contains(&config.num_channels) {
            return Err(wrong(format!(
                "images of {} with {} channels; 1 to 4096 with 1 to 64",
                config.image_size, config.num_channels
            )));
        }
        Ok(Self { config, activation })
    }

    /// Numbers of one image.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.config.num_channels * self.config.image_size * self.config.image_size
    }

    /// Width of the output.
    #[must_use]
    pub fn width(&self) -> usize {
        self.config.hidden_sizes.last().copied().unwrap_or_default()
    }

    /// The last hidden state `[images, width]` of pixels `[images, channels, height, width]`.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, images of another size.
    pub fn forward(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        let c = &self.config;
        let &[images, channels, height, width] = pixels.dims() else {
            return Err(Error::shape(
                "mlp",
                format!(
                    "pixels of {:?}, not [images, channels, height, width]",
                    pixels.dims()
                ),
            ));
        };
        if (channels, height, width) != (c.num_channels, c.image_size, c.image_size) {
            return Err(Error::shape(
                "mlp",
                format!(
                    "images of {channels} x {height} x {width}; the model takes {} x {} x {}",
                    c.num_channels, c.image_size, c.image_size
                ),
            ));
        }
        let mut x = weights.pass(
            Point::Embedded,
            ops::reshape(pixels, &[images, self.inputs()])?,
        )?;
        for (layer, &size) in c.hidden_sizes.iter().enumerate() {
            x = weights.linear(&format!("layers.{layer}"), &x)?;
            if x.dims() != [images, size] {
                return Err(Error::Config {
                    what: format!(
                        "hidden_sizes say {size} for layer {layer}, the weights {}",
                        x.dims()[1]
                    ),
                });
            }
            if c.layer_norm {
                x = weights.layer_norm(&format!("norms.{layer}"), &x, c.layer_norm_eps)?;
            }
            x = ops::activate(&x, self.activation)?;
            x = weights.dropped(x, c.hidden_dropout_prob, layer as u64)?;
            x = weights.pass(Point::Layer(layer), x)?;
        }
        Ok(x)
    }
}
