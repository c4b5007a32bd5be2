//! Vision transformer: patches, a class token, layers whose norms stand before their parts.
//!
//! With `moe` in the configuration the feed-forward parts of every second layer are mixtures of experts ([`Experts`]; M3ViT), and
//! every picture passes for a goal. With `task_expert` pictures pass once, and every goal carries a memory along
//! ([`Memories`]). `transformers` knows neither.
//!
//! Dosovitskiy et al. 2021; names and defaults are those of `transformers` (checkpoints of the Hub and the newer names).

use serde::Deserialize;

use super::experts::{self, Experts};
use super::memories::{self, Asked, Memories};
use super::{LayerParts, Point, Source, heads_of};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Attend, Mask};

/// What `config.json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Width of the stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of every attention.
    pub num_attention_heads: usize,
    /// Width inside of the feed-forward parts.
    pub intermediate_size: usize,
    /// Activation of the feed-forward parts.
    #[serde(default = "gelu")]
    pub hidden_act: String,
    /// Height and width of an image.
    pub image_size: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// Colours.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Added to variances.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Dropout of the stream.
    #[serde(default)]
    pub hidden_dropout_prob: f32,
    /// Dropout of the probabilities of attention.
    #[serde(default)]
    pub attention_probs_dropout_prob: f32,
    /// Experts in place of feed-forward parts.
    #[serde(default)]
    pub moe: Option<experts::Config>,
    /// Memories of goals behind layers.
    #[serde(default)]
    pub task_expert: Option<memories::Config>,
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn three() -> usize {
    3
}

fn eps() -> f32 {
    1e-12
}

struct Names {
    layers: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    joined: &'static str,
    up: &'static str,
    down: &'static str,
}

const HUB: Names = Names {
    layers: "encoder.layer",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    joined: "attention.output.dense",
    up: "intermediate.dense",
    down: "output.dense",
};

const NEWER: Names = Names {
    layers: "layers",
    query: "attention.q_proj",
    key: "attention.k_proj",
    value: "attention.v_proj",
    joined: "attention.o_proj",
    up: "mlp.fc1",
    down: "mlp.fc2",
};

/// Layers that tokens pass.
pub(super) struct Stack<'a> {
    /// What stands before their names.
    pub prefix: &'a str,
    /// How many they are.
    pub layers: usize,
    /// Layers that the tokens passed before them.
    pub before: usize,
    /// What every token passes for, where layers have experts.
    pub goals: &'a [Option<u32>],
}

/// A vision transformer of one configuration.
#[derive(Debug, Clone)]
pub struct Vit {
    /// The configuration.
    pub config: Config,
    /// What stands before all names in the checkpoint: nothing or `vit.`.
    pub prefix: String,
    /// Experts of its layers.
    pub experts: Option<Experts>,
    /// Memories of its goals.
    pub memories: Option<Memories>,
    activation: Activation,
}

impl Vit {
    /// Of a configuration and the prefix of its names.
    ///
    /// # Errors
    /// An activation or sizes that this architecture does not have.
    pub fn new(config: Config, prefix: &str) -> Result<Self> {
        let wrong = |what: String| Error::Config { what };
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
        // Above, a picture brought to that size would fill the memory.
        if config.patch_size == 0
            || config.image_size < config.patch_size
            || config.image_size > 4096
            || config.num_channels > 64
        {
            return Err(wrong(format!(
                "patches of {} in images of {}",
                config.patch_size, config.image_size
            )));
        }
        let sizes = [config.hidden_size, config.num_hidden_layers];
        let experts = config.moe.clone();
        let experts = experts.map(|e| Experts::new(e, sizes, activation));
        let memories = config.task_expert.clone();
        if memories.is_some() && experts.is_some() {
            return Err(wrong("moe and task_expert: one of them".to_owned()));
        }
        let memories = memories.map(|m| Memories::new(m, sizes[0], sizes[1]));
        Ok(Self {
            experts: experts.transpose()?,
            memories: memories.transpose()?,
            config,
            prefix: prefix.to_owned(),
            activation,
        })
    }

    /// Names of the linear layers of every layer.
    ///
    /// # Errors
    /// Layers with experts, memories of goals.
    pub fn layers(&self, weights: &dyn Source) -> Result<Vec<LayerParts>> {
        if self.experts.is_some() || self.memories.is_some() {
            let what = "a model with experts that are chosen by goal";
            return Err(Error::Config { what: what.into() });
        }
        let newer = format!("{}layers.0.attention.q_proj.weight", self.prefix);
        let n = if weights.find(&newer)?.is_some() {
            NEWER
        } else {
            HUB
        };
        let of = |layer: usize| {
            let name = |part: &str| format!("{}{}.{layer}.{part}", self.prefix, n.layers);
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

    /// The last hidden states `[images, 1 + patches, hidden_size]`, the class token first, of pixels `[images, channels,
    /// height, width]`.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, images of another size.
    pub fn forward(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        self.forward_for(weights, pixels, &[])
    }

    /// The same, every picture for a goal: its number among `moe.goals`. None are named of a model without experts, nor where
    /// all goals share a gate.
    ///
    /// # Errors
    /// As [`Self::forward`]; another number of goals than pictures, a goal that is none, a model whose goals have memories.
    pub fn forward_for(
        &self,
        weights: &dyn Source,
        pixels: &Value,
        goals: &[u32],
    ) -> Result<Value> {
        if self.memories.is_some() {
            let what = "pictures for no goal, and a model whose goals have memories";
            return Err(Error::shape("vit", what));
        }
        self.run(weights, pixels, goals, &mut |_, _| Ok(()))
    }

    /// Of a model whose goals have memories: what every goal has in the end of the pictures that it is asked for,
    /// `[pictures, 1 + patches, hidden_size]` each. Pictures pass once.
    ///
    /// # Errors
    /// As [`Self::forward`]; a model without memories, a goal that is none.
    pub fn forward_each(
        &self,
        weights: &dyn Source,
        pixels: &Value,
        asked: &[Asked],
    ) -> Result<Vec<Value>> {
        let Some(memories) = &self.memories else {
            return Err(Error::shape("vit", "goals, and a model without memories"));
        };
        let c = &self.config;
        let tokens = 1 + (c.image_size / c.patch_size).pow(2);
        let mut carried = memories.begin(weights, &self.prefix, asked, tokens)?;
        let mut behind = |layer: usize, x: &Value| carried.behind(layer, x, c.layer_norm_eps);
        self.run(weights, pixels, &[], &mut behind)?;
        carried.end()
    }

    /// The pass itself; what comes out of every layer is shown to `behind`.
    fn run(
        &self,
        weights: &dyn Source,
        pixels: &Value,
        goals: &[u32],
        behind: &mut dyn FnMut(usize, &Value) -> Result<()>,
    ) -> Result<Value> {
        let embedded = self.embedded(weights, pixels)?;
        let &[images, count, _] = embedded.dims() else {
            return Err(Error::shape("vit", "patches that are no tokens"));
        };
        let goals = match &self.experts {
            Some(experts) => experts.of_rows(goals, images, &vec![true; images * count])?,
            None if goals.is_empty() => Vec::new(),
            None => {
                let what = "pictures for goals, and a model without experts";
                return Err(Error::shape("vit", what));
            }
        };
        let x = self.began(weights, embedded)?;
        let stack = Stack {
            prefix: &self.prefix,
            layers: self.config.num_hidden_layers,
            before: 0,
            goals: &goals,
        };
        let x = self.pass(weights, &stack, x, behind)?;
        let norm = format!("{}layernorm", self.prefix);
        weights.layer_norm(&norm, &x, self.config.layer_norm_eps)
    }

    /// The tokens `[images, 1 + patches, hidden_size]` of pixels `[images, channels, height, width]` in front of dropout and
    /// layers: the class token, then every patch projected, with their positions.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, images of another size.
    pub(super) fn embedded(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        let c = &self.config;
        let name = |rest: &str| format!("{}{rest}", self.prefix);
        let side = c.image_size;
        let &[images, channels, height, width] = pixels.dims() else {
            return Err(Error::shape(
                "vit",
                format!(
                    "pixels of {:?}, not [images, channels, height, width]",
                    pixels.dims()
                ),
            ));
        };
        if (channels, height, width) != (c.num_channels, side, side) {
            return Err(Error::shape(
                "vit",
                format!(
                    "images of {channels} x {height} x {width}; the model takes {} x {side} x {side}",
                    c.num_channels
                ),
            ));
        }
        let patch = weights.tensor(&name("embeddings.patch_embeddings.projection.weight"))?;
        let bias = weights.find(&name("embeddings.patch_embeddings.projection.bias"))?;
        let patches = ops::convolution(pixels, &patch, bias.as_ref(), c.patch_size, 0)?;
        let count = patches.dims()[1] + 1;
        let class = ops::reshape(
            &weights.tensor(&name("embeddings.cls_token"))?,
            &[1, c.hidden_size],
        )?;
        let class = ops::embedding(&class, &vec![0; images], &[images, 1])?;
        let positions = weights.tensor(&name("embeddings.position_embeddings"))?;
        let tokens = ops::concat(&[&class, &patches], 1)?;
        placed(&tokens, &positions, count)
    }

    /// Tokens as the first layer takes them.
    pub(super) fn began(&self, weights: &dyn Source, tokens: Value) -> Result<Value> {
        let dropped = weights.dropped(tokens, self.config.hidden_dropout_prob, 0)?;
        weights.pass(Point::Embedded, dropped)
    }

    /// Tokens `[images, tokens, hidden_size]` behind some layers, of the sizes that this model has.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape.
    pub(super) fn pass(
        &self,
        weights: &dyn Source,
        stack: &Stack<'_>,
        mut x: Value,
        behind: &mut dyn FnMut(usize, &Value) -> Result<()>,
    ) -> Result<Value> {
        let c = &self.config;
        let name = |rest: &str| format!("{}{rest}", stack.prefix);
        let (images, count) = (x.dims()[0], x.dims()[1]);
        let newer = weights
            .find(&name("layers.0.attention.q_proj.weight"))?
            .is_some();
        let n = if newer { NEWER } else { HUB };
        for own in 0..stack.layers {
            let layer = stack.before + own;
            let name = |part: &str| name(&format!("{}.{own}.{part}", n.layers));
            let part = |part: &str, x: &Value| weights.linear(&name(part), x);
            let place = |i: u64| 3 * layer as u64 + i;
            let y =
                weights.layer_norm(&name("layernorm_before"), &x, self.config.layer_norm_eps)?;
            let query = part(n.query, &y)?;
            let heads = heads_of(&query, c.hidden_size, c.num_attention_heads);
            let rule = weights.attending(
                Attend::full(heads),
                c.attention_probs_dropout_prob,
                place(1),
            );
            let seen = ops::attention(
                &query,
                &part(n.key, &y)?,
                &part(n.value, &y)?,
                rule,
                Mask::default(),
            )?;
            let seen = weights.dropped(
                part(n.joined, &seen)?,
                self.config.hidden_dropout_prob,
                place(2),
            )?;
            x = ops::add(&weights.pass(Point::Attention(layer), seen)?, &x)?;
            let y = weights.layer_norm(&name("layernorm_after"), &x, self.config.layer_norm_eps)?;
            let fed = match self.experts.as_ref().filter(|e| e.are_in(layer)) {
                Some(experts) => {
                    let rows = ops::reshape(&y, &[images * count, c.hidden_size])?;
                    let fed = experts.forward(weights, &name("moe"), &rows, stack.goals)?;
                    ops::reshape(&fed, y.dims())?
                }
                None => part(n.down, &ops::activate(&part(n.up, &y)?, self.activation)?)?,
            };
            let fed = weights.dropped(fed, self.config.hidden_dropout_prob, place(3))?;
            x = ops::add(&weights.pass(Point::FeedForward(layer), fed)?, &x)?;
            x = weights.pass(Point::Layer(layer), x)?;
            behind(layer, &x)?;
        }
        Ok(x)
    }
}

/// Tokens `[images, count, width]` with the positions `[1, count, width]` of theirs added.
pub(super) fn placed(tokens: &Value, positions: &Value, count: usize) -> Result<Value> {
    let (images, width) = (tokens.dims()[0], tokens.dims()[2]);
    let positions = ops::reshape(positions, &[count, width])?;
    let numbers: Vec<u32> = (0..images).flat_map(|_| 0..count as u32).collect();
    let positions = ops::embedding(&positions, &numbers, &[images, count])?;
    ops::add(tokens, &positions)
}
