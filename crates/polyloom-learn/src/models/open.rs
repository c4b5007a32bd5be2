//! A model's folder opened: configuration, architecture, weights, tokenizer, what stands behind the trunk.

mod prepared;

use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;
use serde_json::Value as Json;

use self::prepared::prepared;
use super::bert::Bert;
use super::clip::Clip;
use super::decoder::Decoder;
use super::deeponet::{self, PictureOnet};
use super::experts::Experts;
use super::forest::{self, ForestModel};
use super::memories::Asked;
use super::mlp::{self, Mlp};
use super::sentence::{Sentence, json};
use super::t3::{self, T3};
use super::t5::T5;
use super::table::{self, TableModel};
use super::vit::Vit;
use super::{Batch, Plain, Source};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::forest::Forest;
use crate::ops;
use crate::table::Preparation;
use crate::text::Text;
use crate::tokenizer::Made;

/// The architecture of a folder.
#[derive(Debug, Clone)]
pub enum Trunk {
    /// BERT and its kin.
    Bert(Bert),
    /// Vision transformer.
    Vit(Vit),
    /// Perceptron over pixels.
    Mlp(Mlp),
    /// Stems by sensor around one trunk.
    T3(Box<T3>),
    /// Two towers, for texts and for pictures.
    Clip(Box<Clip>),
    /// An encoder, and a decoder that answers it.
    T5(Box<T5>),
    /// Llama and its kin.
    Decoder(Box<Decoder>),
    /// One of several goals over rows of a table.
    Table(Box<TableModel>),
    /// Trees over rows of a table.
    Forest(Box<ForestModel>),
    /// An operator network over pictures.
    DeepOnet(Box<PictureOnet>),
}

/// What is said where a model of tables is asked for something else.
const TABLES: &str =
    "is a model of tables: `polyloom eval` and `polyloom predict` ask it about rows";

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A vector.
    Embed,
    /// A class.
    Classify,
    /// More text.
    Generate,
}

/// A model in memory.
pub struct Model {
    /// Where it lies.
    pub folder: PathBuf,
    /// Its architecture.
    pub trunk: Trunk,
    /// Its weights, all of them.
    pub weights: Plain,
    /// How tokens become one vector.
    pub sentence: Sentence,
    /// Names of the classes, where it has a head.
    pub classes: Vec<String>,
    /// What its folder says it is for.
    pub kind: Kind,
    /// Its tokenizer where it was made with the model; else it lies in the folder.
    pub tokenizer: Option<Made>,
    /// How rows are prepared, of a model of tables.
    pub table: Option<Box<Preparation>>,
    /// Tensors of goals that this run adds; the others stay ([`Opened::grow`](crate::tasks::Opened::grow)).
    pub added: Vec<String>,
}

impl Model {
    /// Opens a folder with `config.json` and weights.
    ///
    /// # Errors
    /// Files that are absent or broken, an architecture that is not known.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        if !file.exists() {
            return Err(Error::file(folder, "holds no config.json").hint(
                "a model is a folder with config.json and weights, as save_pretrained writes it",
            ));
        }
        let config: Json = json(&file)?;
        let checkpoint = Checkpoint::open(folder)?;
        let mut tensors = Vec::new();
        for (name, stored) in checkpoint.tensors() {
            if stored.dtype.is_float() {
                tensors.push((
                    name.clone(),
                    tensor(checkpoint.read_all(stored)?, stored.shape.clone())?,
                ));
            }
        }
        Self::of(folder, &config, Plain::new(tensors))
    }

    /// Of a configuration and weights that are there already; the folder has tokenizer and modules.
    ///
    /// # Errors
    /// An architecture that is not known, files that are broken.
    pub fn of(folder: &Path, config: &Json, weights: Plain) -> Result<Self> {
        let file = folder.join("config.json");
        let parsed = |e: serde_json::Error| Error::file(&file, e.to_string());
        let prefix = |choices: &[&str], name: &str| -> Result<String> {
            for prefix in choices {
                if weights.find(&format!("{prefix}{name}"))?.is_some() {
                    return Ok((*prefix).to_owned());
                }
            }
            Err(Error::file(
                folder,
                format!("has no tensor `{name}`, with none of the usual words before it"),
            ))
        };
        let model_type = config["model_type"].as_str().unwrap_or_default();
        let named = |e: Error| match e {
            Error::Config { what } => Error::file(&file, what),
            other => other,
        };
        let trunk = match model_type {
            "vit" => {
                let prefix = prefix(&["", "vit."], "embeddings.cls_token")?;
                Trunk::Vit(
                    Vit::new(
                        serde_json::from_value(config.clone()).map_err(parsed)?,
                        &prefix,
                    )
                    .map_err(named)?,
                )
            }
            mlp::MODEL_TYPE => {
                prefix(&[""], "layers.0.weight")?;
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                Trunk::Mlp(Mlp::new(config).map_err(named)?)
            }
            deeponet::MODEL_TYPE => {
                prefix(&[""], "trunk.layers.0.weight")?;
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                Trunk::DeepOnet(Box::new(PictureOnet::new(config).map_err(named)?))
            }
            t3::MODEL_TYPE => {
                prefix(&[t3::TRUNK], "layernorm.weight")?;
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                Trunk::T3(Box::new(T3::new(config).map_err(named)?))
            }
            table::MODEL_TYPE => {
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                Trunk::Table(Box::new(TableModel::new(config).map_err(named)?))
            }
            forest::MODEL_TYPE => {
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                let trees = match folder.is_dir() {
                    true => Some(Forest::open(&folder.join("model.safetensors"))?),
                    false => None,
                };
                Trunk::Forest(Box::new(ForestModel::new(config, trees).map_err(named)?))
            }
            "clip" => {
                prefix(&[""], "visual_projection.weight")?;
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                Trunk::Clip(Box::new(Clip::new(config).map_err(named)?))
            }
            "t5" => {
                prefix(&[""], "shared.weight")?;
                let config = serde_json::from_value(config.clone()).map_err(parsed)?;
                Trunk::T5(Box::new(T5::new(config).map_err(named)?))
            }
            "bert" | "roberta" | "xlm-roberta" | "camembert" | "distilbert" | "mpnet" => {
                let prefix = prefix(
                    &["", "bert.", "roberta.", "distilbert.", "mpnet."],
                    "embeddings.word_embeddings.weight",
                )?;
                Trunk::Bert(
                    Bert::new(
                        serde_json::from_value(config.clone()).map_err(parsed)?,
                        &prefix,
                    )
                    .map_err(named)?,
                )
            }
            "llama" | "mistral" | "qwen2" | "qwen3" | "gemma" | "gemma2" => {
                let prefix = prefix(&["model.", ""], "embed_tokens.weight")?;
                Trunk::Decoder(Box::new(
                    Decoder::new(
                        serde_json::from_value(config.clone()).map_err(parsed)?,
                        &prefix,
                    )
                    .map_err(named)?,
                ))
            }
            other => {
                return Err(Error::file(&file, format!("model_type `{other}` is not known"))
                    .hint("known: bert, roberta, xlm-roberta, camembert, distilbert, mpnet, vit, polyloom-t3, polyloom-mlp, polyloom-table, polyloom-forest, clip, t5, llama, mistral, qwen2, qwen3, gemma, gemma2"));
            }
        };
        let sentence = Sentence::open(folder)?;
        let kind = match &trunk {
            _ if head(&weights)?.is_some() => Kind::Classify,
            Trunk::Decoder(_) | Trunk::T5(_) if sentence.is_none() => Kind::Generate,
            _ => Kind::Embed,
        };
        let classes = match head(&weights)? {
            Some(name) => {
                let weight = weights.tensor(&format!("{name}.weight"))?;
                let count = weight.dims().first().copied().unwrap_or_default();
                let label = |i: usize| {
                    config["id2label"][i.to_string()]
                        .as_str()
                        .map_or_else(|| i.to_string(), str::to_owned)
                };
                (0..count).map(label).collect()
            }
            None => Vec::new(),
        };
        let table = match &trunk {
            Trunk::Table(model) if folder.is_dir() => {
                let c = &model.config;
                Some(prepared(folder, (c.numeric, &c.categories), c.goals.len())?)
            }
            Trunk::Forest(model) if folder.is_dir() => {
                let c = &model.config;
                Some(prepared(
                    folder,
                    (c.numbers.len(), &c.categories),
                    c.goals.len(),
                )?)
            }
            _ => None,
        };
        Ok(Self {
            folder: folder.to_owned(),
            trunk,
            weights,
            sentence: sentence.unwrap_or_default(),
            classes,
            kind,
            tokenizer: None,
            table,
            added: Vec::new(),
        })
    }

    /// Size and channels of the pictures it takes, all of them alike; `None` for a model of texts, and of stems by sensor
    /// ([`Self::sensors`]).
    #[must_use]
    pub fn pictures(&self) -> Option<(usize, usize)> {
        match &self.trunk {
            Trunk::Vit(v) => Some((v.config.image_size, v.config.num_channels)),
            Trunk::Mlp(m) => Some((m.config.image_size, m.config.num_channels)),
            Trunk::DeepOnet(m) => Some((m.config.image_size, m.config.num_channels)),
            Trunk::Clip(c) => {
                let tower = &c.config.vision_config;
                Some((tower.image_size, tower.num_channels))
            }
            _ => None,
        }
    }

    /// The model itself, where it has stems by sensor.
    #[must_use]
    pub fn sensors(&self) -> Option<&T3> {
        match &self.trunk {
            Trunk::T3(model) => Some(model),
            _ => None,
        }
    }

    /// Whether it gives texts vectors that are meant to be compared: an encoder (whose experts are not chosen by goal), or
    /// another model of texts whose folder says how its tokens become one vector.
    #[must_use]
    pub fn embeds(&self) -> bool {
        match &self.trunk {
            Trunk::Bert(_) => self.goals().is_none(),
            Trunk::T5(_) | Trunk::Decoder(_) => self.kind == Kind::Embed,
            Trunk::Vit(_) | Trunk::Mlp(_) | Trunk::T3(_) | Trunk::Clip(_) | Trunk::DeepOnet(_) => {
                false
            }
            Trunk::Table(_) | Trunk::Forest(_) => false,
        }
    }

    /// Layers that an input of [`Self::hidden`] or [`Self::look`] passes.
    #[must_use]
    pub fn layers(&self) -> usize {
        match &self.trunk {
            Trunk::Bert(b) => b.config.num_hidden_layers,
            Trunk::Vit(v) => v.config.num_hidden_layers,
            Trunk::Mlp(m) => m.config.hidden_sizes.len(),
            Trunk::DeepOnet(m) => m.config.num_hidden_layers,
            Trunk::T3(m) => m.layers(),
            Trunk::Clip(c) => c.config.vision_config.num_hidden_layers,
            Trunk::T5(t) => t.config.num_layers,
            Trunk::Decoder(d) => d.config.num_hidden_layers,
            Trunk::Table(t) => t.config.hidden.len() + t.config.tower.len(),
            Trunk::Forest(_) => 0,
        }
    }

    /// Width of its hidden states.
    #[must_use]
    pub fn width(&self) -> usize {
        match &self.trunk {
            Trunk::Bert(b) => b.config.hidden_size,
            Trunk::Vit(v) => v.config.hidden_size,
            Trunk::Mlp(m) => m.width(),
            Trunk::DeepOnet(m) => m.config.hidden_size,
            Trunk::T3(m) => m.config.hidden_size,
            Trunk::Clip(c) => c.config.projection_dim,
            Trunk::T5(t) => t.config.d_model,
            Trunk::Decoder(d) => d.config.hidden_size,
            Trunk::Table(t) => t.width(),
            Trunk::Forest(f) => f.config.width,
        }
    }

    /// The tokenizer, for texts of as many tokens as the model takes, and of `most`.
    ///
    /// # Errors
    /// No tokenizer in the folder, or a broken one.
    pub fn text(&self, most: Option<usize>) -> Result<Text> {
        let positions = match &self.trunk {
            Trunk::Bert(b) => b.longest(),
            Trunk::Decoder(d) => d.config.max_position_embeddings,
            Trunk::Clip(c) => c.config.text_config.max_position_embeddings,
            Trunk::T5(t) => t.config.n_positions,
            Trunk::Vit(_) | Trunk::Mlp(_) | Trunk::T3(_) | Trunk::DeepOnet(_) => {
                return Err(Error::file(
                    &self.folder,
                    "is a model of images and reads no text",
                ));
            }
            Trunk::Table(_) | Trunk::Forest(_) => {
                return Err(Error::file(&self.folder, TABLES));
            }
        };
        let most = most.unwrap_or(usize::MAX).min(positions);
        self.tokens(self.sentence.most.unwrap_or(positions).min(most))
    }

    /// The tokenizer, for texts of `most` tokens whatever the model takes.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn tokens(&self, most: usize) -> Result<Text> {
        match &self.tokenizer {
            Some(made) => Text::read(&made.tokenizer, most),
            None => Text::open(&self.folder, most),
        }
    }

    /// The last hidden states of texts, `[texts, tokens, width]`; of T5 those of its encoder.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, a model of images.
    pub fn hidden(&self, weights: &dyn Source, batch: &Batch) -> Result<Value> {
        match &self.trunk {
            Trunk::Bert(model) => model.forward(weights, batch),
            Trunk::Decoder(model) => model.forward(weights, batch, None),
            Trunk::T5(model) => model.encode(weights, batch),
            Trunk::Vit(_) | Trunk::Mlp(_) | Trunk::T3(_) | Trunk::DeepOnet(_) => Err(Error::file(
                &self.folder,
                "is a model of images and reads no text",
            )),
            Trunk::Table(_) | Trunk::Forest(_) => Err(Error::file(&self.folder, TABLES)),
            Trunk::Clip(_) => Err(Error::file(
                &self.folder,
                "gives one vector for a text, no states of its tokens",
            )),
        }
    }

    /// One vector for every text, `[texts, width]`; of CLIP of length 1, in the space of its pictures.
    ///
    /// # Errors
    /// As [`Model::hidden`] and [`Clip::texts`].
    pub fn embed(&self, weights: &dyn Source, batch: &Batch) -> Result<Value> {
        if let Trunk::Clip(model) = &self.trunk {
            return ops::unit_length(&model.texts(weights, batch)?);
        }
        self.sentence.forward(&self.hidden(weights, batch)?, batch)
    }

    /// BERT's pooler on first tokens `[texts, width]`: a layer and tanh.
    ///
    /// # Errors
    /// A model without a pooler.
    pub fn pool(&self, weights: &dyn Source, first: &Value) -> Result<Value> {
        let prefix = match &self.trunk {
            Trunk::Bert(b) => &*b.prefix,
            Trunk::Vit(v) => &*v.prefix,
            _ => "",
        };
        let pooler = format!("{prefix}pooler.dense");
        ops::activate(&weights.linear(&pooler, first)?, ops::Activation::Tanh)
    }

    /// One vector for every picture, `[images, width]`: the class token, a perceptron's last layer, of CLIP a vector of
    /// length 1 in the space of its texts. Pixels are `[images, channels, size, size]`; of a model of stems by sensor that
    /// which alone reads this size makes tokens of them.
    ///
    /// # Errors
    /// A model of texts, and as [`Vit::forward`], [`Mlp::forward`], [`T3::look_by_size`] and [`Clip::images`].
    pub fn look(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        let hidden = match &self.trunk {
            Trunk::Vit(model) => model.forward(weights, pixels)?,
            Trunk::DeepOnet(model) => model.forward(weights, pixels)?,
            Trunk::Mlp(model) => return model.forward(weights, pixels),
            Trunk::T3(model) => return model.look_by_size(weights, pixels),
            Trunk::Clip(model) => return ops::unit_length(&model.images(weights, pixels)?),
            Trunk::Table(_) | Trunk::Forest(_) => {
                return Err(Error::file(&self.folder, TABLES));
            }
            Trunk::Bert(_) | Trunk::T5(_) | Trunk::Decoder(_) => {
                return Err(Error::file(
                    &self.folder,
                    "is a model of texts and sees no pictures",
                ));
            }
        };
        let first = ops::narrow(&hidden, 1, 0, 1)?;
        ops::reshape(&first, &[pixels.dims()[0], self.width()])
    }

    /// Experts in place of feed-forward parts, where it has some.
    #[must_use]
    pub fn experts(&self) -> Option<&Experts> {
        match &self.trunk {
            Trunk::Vit(v) => v.experts.as_ref(),
            Trunk::Bert(b) => b.experts.as_ref(),
            Trunk::Decoder(d) => d.experts.as_ref(),
            _ => None,
        }
    }

    /// Names of the goals that an input passes for, of a model whose experts are chosen by goal or whose goals have memories.
    #[must_use]
    pub fn goals(&self) -> Option<&[String]> {
        match (self.experts(), &self.trunk) {
            (Some(experts), _) => experts.by_goal().then_some(&experts.config.goals[..]),
            (None, Trunk::Vit(vit)) => vit.memories.as_ref().map(|m| &m.config.goals[..]),
            _ => None,
        }
    }

    /// Whether inputs pass once for every goal: where experts are chosen by goal.
    #[must_use]
    pub fn passes_apart(&self) -> bool {
        self.experts().is_some_and(Experts::by_goal)
    }

    /// The class token and those of the patches, row by row, of every picture: `[images, 1 + patches, width]`. With experts
    /// every picture is for one of [`Self::goals`].
    ///
    /// # Errors
    /// Any but a vision transformer and an operator network (whose pixels are patches), and as [`Vit::forward_for`].
    pub fn patches(&self, weights: &dyn Source, pixels: &Value, goals: &[u32]) -> Result<Value> {
        match &self.trunk {
            Trunk::Vit(model) => model.forward_for(weights, pixels, goals),
            Trunk::DeepOnet(model) if goals.is_empty() => model.forward(weights, pixels),
            _ => Err(Error::file(
                &self.folder,
                "has no patches; a vision transformer (model_type \"vit\") does",
            )),
        }
    }

    /// What goals with memories have of pictures ([`Vit::forward_each`]).
    ///
    /// # Errors
    /// Any but a vision transformer, and as there.
    pub fn remembered(
        &self,
        weights: &dyn Source,
        pixels: &Value,
        asked: &[Asked],
    ) -> Result<Vec<Value>> {
        match &self.trunk {
            Trunk::Vit(model) => model.forward_each(weights, pixels, asked),
            _ => Err(Error::file(&self.folder, "has no goals with memories")),
        }
    }

    /// Name of the linear layer that scores classes, where the model was saved with one.
    ///
    /// # Errors
    /// Never in practice: weights in memory.
    pub fn classifier(&self) -> Result<Option<&'static str>> {
        head(&self.weights)
    }
}

/// The linear layer that scores classes.
fn head(weights: &dyn Source) -> Result<Option<&'static str>> {
    for name in ["classifier", "classifier.out_proj"] {
        if weights.find(&format!("{name}.weight"))?.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
