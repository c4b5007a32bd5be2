//! CLIP: a tower for texts and one for pictures whose vectors lie in one space.
//!
//! Radford et al. 2021; names and defaults are those of `transformers`.

use serde::Deserialize;

use super::{Batch, Source};
use crate::engine::{Value, compose};
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Attend, Mask};

/// What `config.json` says of both towers.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The tower for texts.
    pub text_config: Tower,
    /// The tower for pictures.
    pub vision_config: Tower,
    /// Width of the space of both.
    #[serde(default = "projection")]
    pub projection_dim: usize,
}

/// What `config.json` says of a tower; fields of the other one keep their defaults.
#[derive(Debug, Clone, Deserialize)]
pub struct Tower {
    /// Width of the stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of every attention.
    pub num_attention_heads: usize,
    /// Width inside of the feed-forward parts.
    pub intermediate_size: usize,
    /// Activation of the feed-forward parts.
    #[serde(default = "quick")]
    pub hidden_act: String,
    /// Added to variances.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Texts: positions known.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// Texts: the token whose state stands for the text; 2 (a mistake of the first files) means the largest id.
    #[serde(default = "end")]
    pub eos_token_id: u32,
    /// Pictures: height and width.
    #[serde(default = "image")]
    pub image_size: usize,
    /// Pictures: height and width of a patch.
    #[serde(default = "patch")]
    pub patch_size: usize,
    /// Pictures: colours.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Dropout of the probabilities of attention.
    #[serde(default)]
    pub attention_dropout: f32,
}

fn projection() -> usize {
    512
}

fn quick() -> String {
    "quick_gelu".to_owned()
}

fn eps() -> f32 {
    1e-5
}

fn positions() -> usize {
    77
}

fn end() -> u32 {
    49407
}

fn image() -> usize {
    224
}

fn patch() -> usize {
    32
}

fn three() -> usize {
    3
}

/// A CLIP of one configuration.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The configuration.
    pub config: Config,
    activations: [Activation; 2],
}

impl Clip {
    /// Of a configuration.
    ///
    /// # Errors
    /// An activation or sizes that this architecture does not have.
    pub fn new(config: Config) -> Result<Self> {
        let activation = |t: &Tower| {
            if t.num_attention_heads == 0
                || !t.hidden_size.is_multiple_of(t.num_attention_heads)
                || t.patch_size == 0
                || t.image_size < t.patch_size
                // Above, a picture brought to that size would fill the memory.
                || t.image_size > 4096
                || t.num_channels > 64
            {
                return Err(Error::Config {
                    what: format!(
                        "hidden_size {} with {} heads, patches of {} in images of {}",
                        t.hidden_size, t.num_attention_heads, t.patch_size, t.image_size
                    ),
                });
            }
            Activation::named(&t.hidden_act).ok_or_else(|| Error::Config {
                what: format!("activation `{}` is unknown", t.hidden_act),
            })
        };
        let activations = [
            activation(&config.text_config)?,
            activation(&config.vision_config)?,
        ];
        Ok(Self {
            config,
            activations,
        })
    }

    fn layers(
        &self,
        weights: &dyn Source,
        text: bool,
        mut x: Value,
        mask: Mask<'_>,
    ) -> Result<Value> {
        let (tower, name, activation) = match text {
            true => (&self.config.text_config, "text_model", self.activations[0]),
            false => (
                &self.config.vision_config,
                "vision_model",
                self.activations[1],
            ),
        };
        let rule = Attend {
            causal: text,
            ..Attend::full(tower.num_attention_heads)
        };
        for layer in 0..tower.num_hidden_layers {
            let name = |part: &str| format!("{name}.encoder.layers.{layer}.{part}");
            let part = |part: &str, x: &Value| weights.linear(&name(part), x);
            let place = 2 * layer as u64 + u64::from(text);
            let rule = weights.attending(rule, tower.attention_dropout, place);
            let y = weights.layer_norm(&name("layer_norm1"), &x, tower.layer_norm_eps)?;
            let (q, k, v) = (
                part("self_attn.q_proj", &y)?,
                part("self_attn.k_proj", &y)?,
                part("self_attn.v_proj", &y)?,
            );
            x = ops::add(
                &part(
                    "self_attn.out_proj",
                    &ops::attention(&q, &k, &v, rule, mask)?,
                )?,
                &x,
            )?;
            let y = weights.layer_norm(&name("layer_norm2"), &x, tower.layer_norm_eps)?;
            x = ops::add(
                &part(
                    "mlp.fc2",
                    &ops::activate(&part("mlp.fc1", &y)?, activation)?,
                )?,
                &x,
            )?;
        }
        Ok(x)
    }

    /// Vectors of texts, `[texts, projection_dim]`, not of length 1.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, a text that is too long or without its last token.
    pub fn texts(&self, weights: &dyn Source, batch: &Batch) -> Result<Value> {
        let tower = &self.config.text_config;
        if batch.length > tower.max_position_embeddings {
            return Err(Error::TooLong {
                tokens: batch.length,
                most: tower.max_position_embeddings,
            });
        }
        let shape = [batch.sequences, batch.length];
        let positions: Vec<u32> = (0..batch.sequences)
            .flat_map(|_| 0..batch.length as u32)
            .collect();
        let table = |name: &str| weights.tensor(&format!("text_model.embeddings.{name}.weight"));
        let x = ops::add(
            &ops::embedding(&table("token_embedding")?, &batch.ids, &shape)?,
            &ops::embedding(&table("position_embedding")?, &positions, &shape)?,
        )?;
        let hidden = batch.hidden()?;
        let x = self.layers(
            weights,
            true,
            x,
            Mask {
                keys: hidden.as_ref(),
                bias: None,
            },
        )?;
        let x = weights.layer_norm("text_model.final_layer_norm", &x, tower.layer_norm_eps)?;
        let last = |ids: &[u32]| match tower.eos_token_id {
            2 => (0..ids.len()).reduce(|a, b| if ids[b] > ids[a] { b } else { a }),
            end => ids.iter().position(|&id| id == end),
        };
        let mut rows = Vec::new();
        for (i, ids) in batch.ids.chunks(batch.length).enumerate() {
            let at = last(ids).ok_or_else(|| {
                Error::shape(
                    "clip",
                    format!(
                        "text {i} has no token {}, which ends it",
                        tower.eos_token_id
                    ),
                )
            })?;
            rows.push((i * batch.length + at) as u32);
        }
        let flat = ops::reshape(&x, &[batch.ids.len(), tower.hidden_size])?;
        weights.linear("text_projection", &ops::rows(&flat, &rows)?)
    }

    /// Vectors of pictures, `[images, projection_dim]`, not of length 1.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, pictures of another size.
    pub fn images(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        let tower = &self.config.vision_config;
        let side = tower.image_size;
        let &[images, channels, height, width] = pixels.dims() else {
            return Err(Error::shape(
                "clip",
                format!(
                    "pixels of {:?}, not [images, channels, height, width]",
                    pixels.dims()
                ),
            ));
        };
        if (channels, height, width) != (tower.num_channels, side, side) {
            return Err(Error::shape(
                "clip",
                format!(
                    "images of {channels} x {height} x {width}; the model takes {} x {side} x {side}",
                    tower.num_channels
                ),
            ));
        }
        let name = |rest: &str| format!("vision_model.embeddings.{rest}");
        let patches = ops::convolution(
            pixels,
            &weights.tensor(&name("patch_embedding.weight"))?,
            None,
            tower.patch_size,
            0,
        )?;
        let count = patches.dims()[1] + 1;
        let class = ops::reshape(
            &weights.tensor(&name("class_embedding"))?,
            &[1, tower.hidden_size],
        )?;
        let class = ops::embedding(&class, &vec![0; images], &[images, 1])?;
        let numbers: Vec<u32> = (0..images).flat_map(|_| 0..count as u32).collect();
        let positions = ops::embedding(
            &weights.tensor(&name("position_embedding.weight"))?,
            &numbers,
            &[images, count],
        )?;
        let x = ops::add(&ops::concat(&[&class, &patches], 1)?, &positions)?;
        let x = weights.layer_norm("vision_model.pre_layrnorm", &x, tower.layer_norm_eps)?;
        let x = self.layers(weights, false, x, Mask::default())?;
        let first = ops::reshape(&ops::narrow(&x, 1, 0, 1)?, &[images, tower.hidden_size])?;
        let pooled =
            weights.layer_norm("vision_model.post_layernorm", &first, tower.layer_norm_eps)?;
        weights.linear("visual_projection", &pooled)
    }

    /// Scores of every picture for every text, `[images, texts]`: cosines times the learned factor.
    ///
    /// # Errors
    /// Vectors of two widths, no `logit_scale`.
    pub fn scores(&self, weights: &dyn Source, images: &Value, texts: &Value) -> Result<Value> {
        let cosines = ops::linear(&ops::unit_length(images)?, &ops::unit_length(texts)?, None)?;
        let factor = weights.tensor("logit_scale")?;
        compose("clip", &[&cosines, &factor], |t| {
            t[0].broadcast_mul(&t[1].exp()?)
        })
    }
}
