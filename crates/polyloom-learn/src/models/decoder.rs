//! Llama, Mistral, Qwen2, Qwen3, Gemma and Gemma 2: decoders with rotary positions and gated feed-forward parts.
//!
//! With `moe` in the configuration feed-forward parts are mixtures of experts ([`Experts`]); `transformers` knows no such model.
//!
//! Touvron et al. 2023 and the reports of the families; names and defaults are those of `transformers`.

use serde::Deserialize;

use super::experts::{self, Experts};
use super::rotary::{Rope, angles};
use super::{Batch, LayerParts, Point, Source};
use crate::engine::{Tensor, Value};
use crate::error::{Error, In, Result};
use crate::ops::{self, Activation, Attend, Mask, Norm};

/// What `config.json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// `llama`, `mistral`, `qwen2`, `qwen3`, `gemma` or `gemma2`.
    pub model_type: String,
    /// Tokens known.
    pub vocab_size: usize,
    /// Width of the stream.
    pub hidden_size: usize,
    /// Width inside of the feed-forward parts.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values; else as many as of the queries.
    pub num_key_value_heads: Option<usize>,
    /// Features of a head; else `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Activation of the gates.
    pub hidden_act: Option<String>,
    /// The same, as Gemma calls it; it wins.
    pub hidden_activation: Option<String>,
    /// Added to mean squares.
    #[serde(default = "eps")]
    pub rms_norm_eps: f32,
    /// Base of the rotary angles (older files).
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary angles (older files).
    pub rope_scaling: Option<Rope>,
    /// Base and scaling of the rotary angles (newer files).
    pub rope_parameters: Option<Rope>,
    /// Positions known.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// The output layer is the embedding.
    pub tie_word_embeddings: Option<bool>,
    /// Positions back that sliding layers see.
    pub sliding_window: Option<usize>,
    /// Qwen: whether layers slide at all.
    pub use_sliding_window: Option<bool>,
    /// `sliding_attention` or `full_attention`, by layer.
    pub layer_types: Option<Vec<String>>,
    /// Cap of the scores (Gemma 2).
    pub attn_logit_softcapping: Option<f32>,
    /// Cap of the logits (Gemma 2).
    pub final_logit_softcapping: Option<f32>,
    /// Scores are divided by its root (Gemma 2).
    pub query_pre_attn_scalar: Option<f32>,
    /// Dropout of the probabilities of attention.
    #[serde(default)]
    pub attention_dropout: f32,
    /// Experts in place of feed-forward parts.
    #[serde(default)]
    pub moe: Option<experts::Config>,
}

fn eps() -> f32 {
    1e-6
}

fn positions() -> usize {
    2048
}

/// A decoder of one configuration.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The configuration.
    pub config: Config,
    /// What stands before the names of the trunk: `model.`, or nothing.
    pub prefix: String,
    /// Experts of its layers.
    pub experts: Option<Experts>,
    activation: Activation,
    /// Heads of keys and values.
    pub(super) groups: usize,
    /// Features of a head.
    pub(super) dim: usize,
    /// Norms count as 1 plus their weight.
    pub(super) gemma: bool,
}

/// Keys and values of the positions seen so far, by layer.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
}

impl Cache {
    /// Positions seen.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |(k, _)| k.dims()[1])
    }

    /// Appends, and returns all keys and values.
    pub(super) fn extend(&mut self, layer: usize, k: &Value, v: &Value) -> Result<(Value, Value)> {
        let new = match self.layers.get(layer) {
            Some((a, b)) => {
                let joined = |a: &Tensor, b: &Value| {
                    Tensor::cat(&[a, b.data()], 1)
                        .and_then(|t| t.contiguous())
                        .during("cache")
                };
                (joined(a, k)?, joined(b, v)?)
            }
            None => (k.data().clone(), v.data().clone()),
        };
        let values = (
            Value::constant(new.0.clone()),
            Value::constant(new.1.clone()),
        );
        if layer < self.layers.len() {
            self.layers[layer] = new;
        } else {
            self.layers.push(new);
        }
        Ok(values)
    }
}

impl Decoder {
    /// Of a configuration and the prefix of its names.
    ///
    /// # Errors
    /// A type, an activation or sizes that this architecture does not have.
    pub fn new(config: Config, prefix: &str) -> Result<Self> {
        let wrong = |what: String| Err(Error::Config { what });
        let gemma = config.model_type.starts_with("gemma");
        if !["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"]
            .contains(&config.model_type.as_str())
        {
            return wrong(format!(
                "model_type `{}` is none of llama, mistral, qwen2, qwen3, gemma, gemma2",
                config.model_type
            ));
        }
        // Gemma's first configurations say `gelu` and mean the tangent form.
        let usual = if gemma { "gelu_pytorch_tanh" } else { "silu" };
        let act = config
            .hidden_activation
            .as_deref()
            .or(config
                .hidden_act
                .as_deref()
                .filter(|a| !(gemma && *a == "gelu")))
            .unwrap_or(usual);
        let Some(activation) = Activation::named(act) else {
            return wrong(format!("activation `{act}` is unknown"));
        };
        let heads = config.num_attention_heads;
        let groups = config.num_key_value_heads.unwrap_or(heads);
        if heads == 0 || groups == 0 || !heads.is_multiple_of(groups) {
            return wrong(format!("{heads} heads with {groups} of keys and values"));
        }
        let dim = config.head_dim.unwrap_or(config.hidden_size / heads);
        if dim == 0 || !dim.is_multiple_of(2) || dim > 1 << 16 {
            return wrong(format!("heads of {dim} features cannot be rotated"));
        }
        let sizes = [config.hidden_size, config.num_hidden_layers];
        let experts = config.moe.clone();
        let experts = experts.map(|e| Experts::new(e, sizes, activation)?.gated());
        Ok(Self {
            experts: experts.transpose()?,
            activation,
            groups,
            dim,
            gemma,
            prefix: prefix.to_owned(),
            config,
        })
    }

    fn norm(&self, weights: &dyn Source, name: &str, x: &Value) -> Result<Value> {
        let rule = Norm {
            offset: if self.gemma { 1.0 } else { 0.0 },
            ..Norm::rms(self.config.rms_norm_eps)
        };
        ops::norm(x, &weights.tensor(&format!("{name}.weight"))?, None, rule)
    }

    /// Norm of every head, where the checkpoint has one.
    fn head_norm(&self, weights: &dyn Source, name: &str, x: Value, heads: usize) -> Result<Value> {
        if weights.find(&format!("{name}.weight"))?.is_none() {
            return Ok(x);
        }
        let (batch, length) = (x.dims()[0], x.dims()[1]);
        let apart = ops::reshape(&x, &[batch, length, heads, self.dim])?;
        ops::reshape(
            &self.norm(weights, name, &apart)?,
            &[batch, length, heads * self.dim],
        )
    }

    fn window(&self, layer: usize) -> usize {
        let c = &self.config;
        let slides = match &c.layer_types {
            Some(types) => types.get(layer).is_some_and(|t| t == "sliding_attention"),
            None => match c.model_type.as_str() {
                "mistral" => true,
                "gemma2" => layer.is_multiple_of(2),
                _ => false,
            },
        };
        let wanted = c.use_sliding_window.unwrap_or(true);
        c.sliding_window.filter(|_| slides && wanted).unwrap_or(0)
    }

    /// Names of the linear layers of every layer.
    ///
    /// # Errors
    /// Layers with experts.
    pub fn layers(&self) -> Result<Vec<LayerParts>> {
        if self.experts.is_some() {
            let what = "layers with experts have no feed-forward parts of their own";
            return Err(Error::Config { what: what.into() });
        }
        let of = |layer: usize| {
            let name = |part: &str| format!("{}layers.{layer}.{part}", self.prefix);
            let own = |part: &str| name(&format!("self_attn.{part}"));
            LayerParts {
                inward: ["q_proj", "k_proj", "v_proj"].map(own),
                joined: own("o_proj"),
                gated: Some(name("mlp.gate_proj")),
                up: name("mlp.up_proj"),
                down: name("mlp.down_proj"),
                moe: name("moe"),
            }
        };
        Ok((0..self.config.num_hidden_layers).map(of).collect())
    }

    /// What the feed-forward part of the layer of these names makes of the stream, or its experts. Experts see the tokens that
    /// are there alone (`rows` by token; empty without experts).
    fn fed(
        &self,
        weights: &dyn Source,
        name: &dyn Fn(&str) -> String,
        (layer, rows): (usize, &[Option<u32>]),
        y: &Value,
    ) -> Result<Value> {
        if let Some(experts) = self.experts.as_ref().filter(|e| e.are_in(layer)) {
            let flat = ops::reshape(y, &[rows.len(), self.config.hidden_size])?;
            let fed = experts.forward(weights, &name("moe"), &flat, rows)?;
            return ops::reshape(&fed, y.dims());
        }
        let part = |part: &str, x: &Value| weights.linear(&name(part), x);
        let inner = ops::gated(
            &part("mlp.gate_proj", y)?,
            &part("mlp.up_proj", y)?,
            self.activation,
        )?;
        part("mlp.down_proj", &inner)
    }

    /// The last hidden states `[sequences, length, hidden_size]`. Sequences are filled up on the right: what comes before
    /// does not see it. With a cache the tokens follow those that it holds; gradients do not reach those.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, a sequence that is too long, an id beyond the vocabulary, sequences for goals.
    pub fn forward(
        &self,
        weights: &dyn Source,
        batch: &Batch,
        mut cache: Option<&mut Cache>,
    ) -> Result<Value> {
        let c = &self.config;
        let start = cache.as_ref().map_or(0, |c| c.length());
        if start + batch.length > c.max_position_embeddings {
            return Err(Error::TooLong {
                tokens: start + batch.length,
                most: c.max_position_embeddings,
            });
        }
        let rows = match &self.experts {
            Some(experts) => experts.of_rows(&batch.goals, batch.sequences, &batch.present)?,
            None => Vec::new(),
        };
        let rope = c
            .rope_parameters
            .clone()
            .or(c.rope_scaling.clone())
            .unwrap_or_default();
        let angles = angles(&rope, c.rope_theta, self.dim, start..start + batch.length)?;
        let name = |rest: &str| format!("{}{rest}", self.prefix);
        let mut x = ops::embedding(
            &weights.tensor(&name("embed_tokens.weight"))?,
            &batch.ids,
            &[batch.sequences, batch.length],
        )?;
        if self.gemma {
            x = ops::scale(&x, (c.hidden_size as f32).sqrt())?;
        }
        x = weights.pass(Point::Embedded, x)?;
        let heads = c.num_attention_heads;
        // Gemma 2 has norms on both sides of every part.
        let double = c.model_type == "gemma2";
        for layer in 0..c.num_hidden_layers {
            let name = |part: &str| name(&format!("layers.{layer}.{part}"));
            let part = |part: &str, x: &Value| weights.linear(&name(part), x);
            let y = self.norm(weights, &name("input_layernorm"), &x)?;
            let q = self.head_norm(
                weights,
                &name("self_attn.q_norm"),
                part("self_attn.q_proj", &y)?,
                heads,
            )?;
            let k = self.head_norm(
                weights,
                &name("self_attn.k_norm"),
                part("self_attn.k_proj", &y)?,
                self.groups,
            )?;
            let v = part("self_attn.v_proj", &y)?;
            let (q, k) = (
                ops::rotate(&q, heads, &angles)?,
                ops::rotate(&k, self.groups, &angles)?,
            );
            let (k, v) = match &mut cache {
                Some(cache) => cache.extend(layer, &k, &v)?,
                None => (k, v),
            };
            let rule = Attend {
                scale: Some(
                    c.query_pre_attn_scalar
                        .unwrap_or(self.dim as f32)
                        .sqrt()
                        .recip(),
                ),
                cap: c.attn_logit_softcapping.unwrap_or(0.0),
                window: self.window(layer),
                ..Attend::causal(heads, self.groups)
            };
            let rule = weights.attending(rule, c.attention_dropout, layer as u64);
            let mut seen = part(
                "self_attn.o_proj",
                &ops::attention(&q, &k, &v, rule, Mask::default())?,
            )?;
            if double {
                seen = self.norm(weights, &name("post_attention_layernorm"), &seen)?;
            }
            x = ops::add(&weights.pass(Point::Attention(layer), seen)?, &x)?;
            let before = if double {
                "pre_feedforward_layernorm"
            } else {
                "post_attention_layernorm"
            };
            let y = self.norm(weights, &name(before), &x)?;
            let mut fed = self.fed(weights, &name, (layer, &rows), &y)?;
            if double {
                fed = self.norm(weights, &name("post_feedforward_layernorm"), &fed)?;
            }
            x = ops::add(&weights.pass(Point::FeedForward(layer), fed)?, &x)?;
            x = weights.pass(Point::Layer(layer), x)?;
        }
        self.norm(weights, &name("norm"), &x)
    }

    /// Scores of the next token `[.., vocab_size]` from hidden states.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape.
    pub fn logits(&self, weights: &dyn Source, hidden: &Value) -> Result<Value> {
        let own = weights
            .find("lm_head.weight")?
            .filter(|_| self.config.tie_word_embeddings != Some(true));
        let head = match own {
            Some(head) => head,
            None => weights.tensor(&format!("{}embed_tokens.weight", self.prefix))?,
        };
        let logits = ops::linear(hidden, &head, None)?;
        match self.config.final_logit_softcapping {
            Some(cap) if cap > 0.0 => ops::scale(
                &ops::activate(&ops::scale(&logits, 1.0 / cap)?, Activation::Tanh)?,
                cap,
            ),
            _ => Ok(logits),
        }
    }
}
