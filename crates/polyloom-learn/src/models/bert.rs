//! BERT, RoBERTa (XLM-RoBERTa, CamemBERT), DistilBERT and MPNet: encoders whose norms stand after the sums.
//!
//! With `moe` in the configuration feed-forward parts are mixtures of experts ([`Experts`]); `transformers` knows no such model.
//!
//! Devlin et al. 2019; names and defaults are those of `transformers`.

use serde::Deserialize;

use super::experts::{self, Experts};
use super::relative::Buckets;
use super::{Batch, LayerParts, Point, Source, heads_of};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Attend, Mask};

/// What `config.json` says, under the names of the Hub.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// `bert`, `roberta`, `xlm-roberta`, `camembert`, `distilbert` or `mpnet`.
    pub model_type: String,
    /// Tokens known.
    pub vocab_size: usize,
    /// Width of the stream.
    #[serde(alias = "dim")]
    pub hidden_size: usize,
    /// Layers.
    #[serde(alias = "n_layers")]
    pub num_hidden_layers: usize,
    /// Heads of every attention.
    #[serde(alias = "n_heads")]
    pub num_attention_heads: usize,
    /// Width inside of the feed-forward parts.
    #[serde(alias = "hidden_dim")]
    pub intermediate_size: usize,
    /// Activation of the feed-forward parts.
    #[serde(alias = "activation", default = "gelu")]
    pub hidden_act: String,
    /// Positions known.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// Added to variances.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Dropout of the stream.
    #[serde(alias = "dropout", default = "tenth")]
    pub hidden_dropout_prob: f32,
    /// Dropout of the probabilities of attention.
    #[serde(alias = "attention_dropout", default = "tenth")]
    pub attention_probs_dropout_prob: f32,
    /// The token that fills; RoBERTa and MPNet count positions from the one after it.
    #[serde(default)]
    pub pad_token_id: u32,
    /// Buckets of MPNet's relative positions.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// Experts in place of feed-forward parts.
    #[serde(default)]
    pub moe: Option<experts::Config>,
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn positions() -> usize {
    512
}

fn eps() -> f32 {
    1e-12
}

fn tenth() -> f32 {
    0.1
}

fn buckets() -> usize {
    32
}

/// Names of the parts of a layer.
#[derive(Debug, Clone, Copy)]
struct Names {
    layers: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    joined: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
}

const BERT: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    joined: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    joined: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};

const MPNET: Names = Names {
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    joined: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT
};

/// An encoder of one configuration.
#[derive(Debug, Clone)]
pub struct Bert {
    /// The configuration.
    pub config: Config,
    /// What stands before all names in the checkpoint: nothing, `bert.`, `roberta.`, ...
    pub prefix: String,
    /// Experts of its layers.
    pub experts: Option<Experts>,
    names: Names,
    activation: Activation,
    /// Positions begin after the filling token's number and skip filling.
    counted: bool,
}

impl Bert {
    /// Of a configuration and the prefix of its names.
    ///
    /// # Errors
    /// A type, an activation or sizes that this architecture does not have.
    pub fn new(config: Config, prefix: &str) -> Result<Self> {
        let wrong = |what: String| Error::Config { what };
        let (names, counted) = match config.model_type.as_str() {
            "bert" => (BERT, false),
            "roberta" | "xlm-roberta" | "camembert" => (BERT, true),
            "distilbert" => (DISTILBERT, false),
            "mpnet" => (MPNET, true),
            other => {
                return Err(wrong(format!(
                    "model_type `{other}` is none of bert, roberta, xlm-roberta, camembert, distilbert, mpnet"
                )));
            }
        };
        let activation = Activation::named(&config.hidden_act)
            .ok_or_else(|| wrong(format!("activation `{}` is unknown", config.hidden_act)))?;
        if config.num_attention_heads == 0
            || !config
                .hidden_size
                .is_multiple_of(config.num_attention_heads)
        {
            return Err(wrong(format!(
                "hidden_size {} is not divided by {} heads",
                config.hidden_size, config.num_attention_heads
            )));
        }
        let sizes = [config.hidden_size, config.num_hidden_layers];
        let experts = config.moe.clone();
        let experts = experts.map(|e| Experts::new(e, sizes, activation));
        Ok(Self {
            experts: experts.transpose()?,
            config,
            prefix: prefix.to_owned(),
            names,
            activation,
            counted,
        })
    }

    /// Tokens that it takes at most.
    pub fn longest(&self) -> usize {
        let before = if self.counted {
            self.config.pad_token_id as usize + 1
        } else {
            0
        };
        self.config.max_position_embeddings.saturating_sub(before)
    }

    fn name(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// Position numbers of the tokens.
    fn positions(&self, batch: &Batch) -> Result<Vec<u32>> {
        let mut all = Vec::with_capacity(batch.ids.len());
        let pad = self.config.pad_token_id;
        for ids in batch.ids.chunks(batch.length) {
            let mut next = if self.counted { pad + 1 } else { 0 };
            for &id in ids {
                if self.counted && id == pad {
                    all.push(pad);
                } else {
                    all.push(next);
                    next += 1;
                }
            }
        }
        match all
            .iter()
            .find(|&&p| p as usize >= self.config.max_position_embeddings)
        {
            Some(_) => Err(Error::TooLong {
                tokens: batch.length,
                most: self.longest(),
            }),
            None => Ok(all),
        }
    }

    fn embedded(&self, weights: &dyn Source, batch: &Batch) -> Result<Value> {
        let shape = [batch.sequences, batch.length];
        let table = |name: &str| weights.tensor(&self.name(&format!("embeddings.{name}.weight")));
        let mut x = ops::embedding(&table("word_embeddings")?, &batch.ids, &shape)?;
        x = ops::add(
            &x,
            &ops::embedding(
                &table("position_embeddings")?,
                &self.positions(batch)?,
                &shape,
            )?,
        )?;
        if let Some(types) = weights.find(&self.name("embeddings.token_type_embeddings.weight"))? {
            let none = vec![0; batch.ids.len()];
            let ids = if batch.types.is_empty() {
                &none
            } else {
                &batch.types
            };
            x = ops::add(&x, &ops::embedding(&types, ids, &shape)?)?;
        }
        let x = weights.layer_norm(
            &self.name("embeddings.LayerNorm"),
            &x,
            self.config.layer_norm_eps,
        )?;
        weights.dropped(x, self.config.hidden_dropout_prob, 0)
    }

    /// MPNet's bias of scores by distance, `[heads, length, length]`: T5's buckets in both directions.
    fn relative(&self, weights: &dyn Source, length: usize) -> Result<Option<Value>> {
        if self.config.model_type != "mpnet" {
            return Ok(None);
        }
        let table = weights.tensor(&self.name("encoder.relative_attention_bias.weight"))?;
        let count = self.config.relative_attention_num_buckets;
        let buckets = Buckets {
            count,
            farthest: 128,
            both: true,
        };
        buckets.bias(&table, length, length).map(Some)
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
        let n = &self.names;
        let of = |layer: usize| {
            let name = |part: &str| self.name(&format!("{}.{layer}.{part}", n.layers));
            LayerParts {
                inward: [n.query, n.key, n.value].map(name),
                joined: name(n.joined),
                gated: None,
                up: name(n.up),
                down: name(n.down),
                moe: name("moe"),
            }
        };
        Ok((0..self.config.num_hidden_layers).map(of).collect())
    }

    /// The last hidden states, `[sequences, length, hidden_size]`. Experts see the tokens that are there alone.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, a sequence that is too long, an id beyond the vocabulary; another number of
    /// goals than sequences where experts are chosen by goal, any goals where they are not.
    pub fn forward(&self, weights: &dyn Source, batch: &Batch) -> Result<Value> {
        let mut x = weights.pass(Point::Embedded, self.embedded(weights, batch)?)?;
        let hidden = batch.hidden()?;
        let goals = match &self.experts {
            Some(experts) => experts.of_rows(&batch.goals, batch.sequences, &batch.present)?,
            None if batch.goals.is_empty() => Vec::new(),
            None => {
                let what = "sequences for goals, and a model without experts";
                return Err(Error::shape("bert", what));
            }
        };
        let bias = self.relative(weights, batch.length)?;
        let n = &self.names;
        // DistilBERT drops nothing behind its attention.
        let joined = match self.config.model_type.as_str() {
            "distilbert" => 0.0,
            _ => self.config.hidden_dropout_prob,
        };
        for layer in 0..self.config.num_hidden_layers {
            let name = |part: &str| self.name(&format!("{}.{layer}.{part}", n.layers));
            let part = |part: &str, x: &Value| weights.linear(&name(part), x);
            let place = |i: u64| 3 * layer as u64 + i;
            let query = part(n.query, &x)?;
            let c = &self.config;
            let heads = heads_of(&query, c.hidden_size, c.num_attention_heads);
            let rule = weights.attending(
                Attend::full(heads),
                self.config.attention_probs_dropout_prob,
                place(1),
            );
            let mask = Mask {
                keys: hidden.as_ref(),
                bias: bias.as_ref(),
            };
            let seen = ops::attention(&query, &part(n.key, &x)?, &part(n.value, &x)?, rule, mask)?;
            let seen = weights.dropped(part(n.joined, &seen)?, joined, place(2))?;
            let seen = weights.pass(Point::Attention(layer), seen)?;
            x = weights.layer_norm(
                &name(n.attention_norm),
                &ops::add(&seen, &x)?,
                self.config.layer_norm_eps,
            )?;
            let fed = match self.experts.as_ref().filter(|e| e.are_in(layer)) {
                Some(experts) => {
                    let rows = ops::reshape(&x, &[goals.len(), c.hidden_size])?;
                    let fed = experts.forward(weights, &name("moe"), &rows, &goals)?;
                    ops::reshape(&fed, x.dims())?
                }
                None => part(n.down, &ops::activate(&part(n.up, &x)?, self.activation)?)?,
            };
            let fed = weights.dropped(fed, self.config.hidden_dropout_prob, place(3))?;
            let fed = weights.pass(Point::FeedForward(layer), fed)?;
            x = weights.layer_norm(
                &name(n.norm),
                &ops::add(&fed, &x)?,
                self.config.layer_norm_eps,
            )?;
            x = weights.pass(Point::Layer(layer), x)?;
        }
        Ok(x)
    }
}
