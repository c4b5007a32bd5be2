//! T5: an encoder and a decoder with biases by distance, norms without mean, unscaled attention.
//!
//! Raffel et al. 2020 and T5 1.1; names and defaults are those of `transformers`.

use serde::Deserialize;

use super::decoder::Cache;
use super::relative::Buckets;
use super::{Batch, Point, Source};
use crate::engine::{Tensor, Value};
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Attend, Mask, Norm};

/// What `config.json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Tokens known.
    pub vocab_size: usize,
    /// Width of the stream.
    pub d_model: usize,
    /// Features of a head.
    pub d_kv: usize,
    /// Width inside of the feed-forward parts.
    pub d_ff: usize,
    /// Layers of the encoder.
    pub num_layers: usize,
    /// Layers of the decoder; else as many.
    pub num_decoder_layers: Option<usize>,
    /// Heads of every attention.
    pub num_heads: usize,
    /// Buckets of distances.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distances from here on share a bucket.
    #[serde(default = "farthest")]
    pub relative_attention_max_distance: usize,
    /// Added to mean squares.
    #[serde(default = "eps")]
    pub layer_norm_epsilon: f32,
    /// `relu`, `gated-gelu`, ...
    #[serde(default = "relu")]
    pub feed_forward_proj: String,
    /// Older files: whether hidden states are scaled before the output layer. (Whether that is the embedding, the weights
    /// say: those of T5 1.1 have an `lm_head`.)
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Newer files: the same.
    pub scale_decoder_outputs: Option<bool>,
    /// Dropout of the stream, of the probabilities of attention and inside of the feed-forward parts.
    #[serde(default = "tenth")]
    pub dropout_rate: f32,
    /// Begins the decoder's input; else the token that fills, 0.
    #[serde(default)]
    pub decoder_start_token_id: Option<u32>,
    /// Tokens of an input in training; nothing in the architecture ends there.
    #[serde(default = "positions")]
    pub n_positions: usize,
}

fn buckets() -> usize {
    32
}

fn farthest() -> usize {
    128
}

fn eps() -> f32 {
    1e-6
}

fn relu() -> String {
    "relu".to_owned()
}

fn tenth() -> f32 {
    0.1
}

fn positions() -> usize {
    512
}

fn yes() -> bool {
    true
}

/// The number of a place of dropout in a layer, the decoder's counted on from the encoder's: probabilities and output of
/// the attention to itself (0, 1), to the encoder (2, 3), inside and output of the feed-forward part (4, 5). Before them
/// come the embedded input and the last states of both (0 to 3 in all).
fn place(layer: usize, part: u64) -> u64 {
    4 + 6 * layer as u64 + part
}

/// What the decoder remembers of one encoded input: keys and values of the positions seen so far and of the encoder.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    own: Cache,
    crossed: Vec<(Value, Value)>,
}

/// Keys and values of an attention.
fn keys(weights: &dyn Source, name: &str, from: &Value) -> Result<(Value, Value)> {
    let part = |part: &str| weights.linear(&format!("{name}.{part}"), from);
    Ok((part("k")?, part("v")?))
}

/// A T5 of one configuration.
#[derive(Debug, Clone)]
pub struct T5 {
    /// The configuration.
    pub config: Config,
    activation: Activation,
    gated: bool,
}

impl T5 {
    /// Of a configuration.
    ///
    /// # Errors
    /// An activation that this architecture does not have.
    pub fn new(config: Config) -> Result<Self> {
        let name = config.feed_forward_proj.as_str();
        let (gated, name) = name
            .strip_prefix("gated-")
            .map_or((false, name), |n| (true, n));
        // T5 1.1 says `gated-gelu` and means the tangent form.
        let name = if gated && name == "gelu" {
            "gelu_new"
        } else {
            name
        };
        let Some(activation) = Activation::named(name) else {
            return Err(Error::Config {
                what: format!(
                    "feed_forward_proj `{}` is unknown",
                    config.feed_forward_proj
                ),
            });
        };
        Ok(Self {
            config,
            activation,
            gated,
        })
    }

    fn norm(&self, weights: &dyn Source, name: &str, x: &Value) -> Result<Value> {
        ops::norm(
            x,
            &weights.tensor(&format!("{name}.weight"))?,
            None,
            Norm::rms(self.config.layer_norm_epsilon),
        )
    }

    /// An attention with its norm before it; `seen` makes keys and values, of the stream behind the norm or of something
    /// else.
    fn attend(
        &self,
        weights: &dyn Source,
        name: &str,
        x: &Value,
        seen: impl FnOnce(&Value) -> Result<(Value, Value)>,
        rule: Attend,
        mask: Mask<'_>,
    ) -> Result<Value> {
        let (folder, _) = name.rsplit_once('.').unwrap_or_default();
        let y = self.norm(weights, &format!("{folder}.layer_norm"), x)?;
        let q = weights.linear(&format!("{name}.q"), &y)?;
        let (k, v) = seen(&y)?;
        let out = ops::attention(&q, &k, &v, rule, mask)?;
        weights.linear(&format!("{name}.o"), &out)
    }

    /// The rule of an attention at a place of dropout.
    fn rule(&self, weights: &dyn Source, causal: bool, place: u64) -> Attend {
        let rule = Attend {
            scale: Some(1.0),
            causal,
            ..Attend::full(self.config.num_heads)
        };
        weights.attending(rule, self.config.dropout_rate, place)
    }

    fn feed(&self, weights: &dyn Source, folder: &str, x: &Value, place: u64) -> Result<Value> {
        let y = self.norm(weights, &format!("{folder}.layer_norm"), x)?;
        let part =
            |part: &str, x: &Value| weights.linear(&format!("{folder}.DenseReluDense.{part}"), x);
        let inner = if self.gated {
            ops::gated(&part("wi_0", &y)?, &part("wi_1", &y)?, self.activation)?
        } else {
            ops::activate(&part("wi", &y)?, self.activation)?
        };
        let rate = self.config.dropout_rate;
        let out = part("wo", &weights.dropped(inner, rate, place)?)?;
        weights.dropped(out, rate, place + 1)
    }

    /// `[heads, queries, keys]`; the queries are the last positions.
    fn bias(
        &self,
        weights: &dyn Source,
        stack: &str,
        queries: usize,
        keys: usize,
    ) -> Result<Value> {
        let table = weights.tensor(&format!(
            "{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        ))?;
        let c = &self.config;
        Buckets {
            count: c.relative_attention_num_buckets,
            farthest: c.relative_attention_max_distance,
            both: stack == "encoder",
        }
        .bias(&table, queries, keys)
    }

    /// Hidden states of the encoder, `[sequences, length, d_model]`.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, an id beyond the vocabulary.
    pub fn encode(&self, weights: &dyn Source, batch: &Batch) -> Result<Value> {
        let hidden = batch.hidden()?;
        let bias = self.bias(weights, "encoder", batch.length, batch.length)?;
        let mask = Mask {
            keys: hidden.as_ref(),
            bias: Some(&bias),
        };
        let x = ops::embedding(
            &weights.tensor("shared.weight")?,
            &batch.ids,
            &[batch.sequences, batch.length],
        )?;
        let rate = self.config.dropout_rate;
        let mut x = weights.pass(Point::Embedded, weights.dropped(x, rate, 0)?)?;
        for layer in 0..self.config.num_layers {
            let folder = format!("encoder.block.{layer}.layer");
            let name = format!("{folder}.0.SelfAttention");
            let seen = self.attend(
                weights,
                &name,
                &x,
                |y| keys(weights, &name, y),
                self.rule(weights, false, place(layer, 0)),
                mask,
            )?;
            let seen = weights.dropped(seen, rate, place(layer, 1))?;
            x = ops::add(&weights.pass(Point::Attention(layer), seen)?, &x)?;
            let fed = self.feed(weights, &format!("{folder}.1"), &x, place(layer, 4))?;
            x = ops::add(&weights.pass(Point::FeedForward(layer), fed)?, &x)?;
            x = weights.pass(Point::Layer(layer), x)?;
        }
        let x = self.norm(weights, "encoder.final_layer_norm", &x)?;
        weights.dropped(x, rate, 1)
    }

    /// Scores of the next token at every position of the decoder's input, `[sequences, length, vocab_size]`. The layers of
    /// the decoder follow those of the encoder in the numbers of [`Point`]. With a memory the input follows what it holds;
    /// gradients do not reach that.
    ///
    /// # Errors
    /// As [`T5::encode`]; another number of sequences than the encoder had.
    pub fn decode(
        &self,
        weights: &dyn Source,
        encoded: &Value,
        hidden: Option<&Tensor>,
        batch: &Batch,
        mut memory: Option<&mut Memory>,
    ) -> Result<Value> {
        let c = &self.config;
        let start = memory.as_ref().map_or(0, |m| m.own.length());
        let bias = self.bias(weights, "decoder", batch.length, start + batch.length)?;
        let shared = weights.tensor("shared.weight")?;
        let x = ops::embedding(&shared, &batch.ids, &[batch.sequences, batch.length])?;
        let mut x = weights.dropped(x, c.dropout_rate, 2)?;
        for layer in 0..c.num_decoder_layers.unwrap_or(c.num_layers) {
            let folder = format!("decoder.block.{layer}.layer");
            let number = c.num_layers + layer;
            let name = format!("{folder}.0.SelfAttention");
            let own = |y: &Value| {
                let (k, v) = keys(weights, &name, y)?;
                match &mut memory {
                    Some(memory) => memory.own.extend(layer, &k, &v),
                    None => Ok((k, v)),
                }
            };
            let seen = self.attend(
                weights,
                &name,
                &x,
                own,
                self.rule(weights, true, place(number, 0)),
                Mask {
                    keys: None,
                    bias: Some(&bias),
                },
            )?;
            let seen = weights.dropped(seen, c.dropout_rate, place(number, 1))?;
            x = ops::add(&weights.pass(Point::Attention(number), seen)?, &x)?;
            let name = format!("{folder}.1.EncDecAttention");
            let crossed = |_: &Value| {
                let Some(memory) = &mut memory else {
                    return keys(weights, &name, encoded);
                };
                if memory.crossed.len() == layer {
                    memory.crossed.push(keys(weights, &name, encoded)?);
                }
                Ok(memory.crossed[layer].clone())
            };
            let seen = self.attend(
                weights,
                &name,
                &x,
                crossed,
                self.rule(weights, false, place(number, 2)),
                Mask {
                    keys: hidden,
                    bias: None,
                },
            )?;
            let seen = weights.dropped(seen, c.dropout_rate, place(number, 3))?;
            x = ops::add(&seen, &x)?;
            let fed = self.feed(weights, &format!("{folder}.2"), &x, place(number, 4))?;
            x = ops::add(&weights.pass(Point::FeedForward(number), fed)?, &x)?;
            x = weights.pass(Point::Layer(number), x)?;
        }
        let x = self.norm(weights, "decoder.final_layer_norm", &x)?;
        let x = weights.dropped(x, c.dropout_rate, 3)?;
        let scaled = c.scale_decoder_outputs.unwrap_or(c.tie_word_embeddings);
        let x = if scaled {
            ops::scale(&x, (c.d_model as f32).sqrt().recip())?
        } else {
            x
        };
        let head = weights.find("lm_head.weight")?.unwrap_or(shared);
        ops::linear(&x, &head, None)
    }
}
