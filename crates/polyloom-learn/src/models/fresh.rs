//! Initial weights: what training from nothing starts with, drawn from a seed.
//!
//! Every tensor draws from a stream of its own (seed and name), so that a layer more or less changes no other tensor.

use std::ops::Range;

use polyloom_core::rng::Stream;
use serde_json::Value as Json;

use super::bert::{self, Bert};
use super::decoder::{self, Decoder};
use super::deeponet::{self, PictureOnet};
use super::experts::{self, Experts};
use super::memories::{Begin, Memories};
use super::mlp::{self, Mlp};
use super::t3::{self, T3, TRUNK};
use super::table::{self, Init, TableModel};
use super::vit::{self, Vit};
use crate::error::{Error, Result};

/// A tensor made from nothing: name in the checkpoint, shape, elements in row-major order.
pub type Fresh = (String, Vec<usize>, Vec<f32>);

/// Elements of all tensors together, at most.
const MOST: usize = 1 << 32;

/// Initial weights of the trunk that a `config.json` describes, under the names of its checkpoints, without pooler and
/// heads. The same configuration and seed give the same numbers on every machine but for the last digit of cosines and
/// logarithms.
///
/// - `vit`: Xavier uniform (Glorot and Bengio 2010) for matrices and the projection of patches, biases 0, norms 1, the
///   class token `N(0, 0.02²)`, memories of goals `N(0, 0.01²)`, every expert and gate as a matrix of its own, and as positions sines and cosines of row and column, halved: a small transformer learns
///   faster from them than from noise. Columns beyond a multiple of four stay 0, and so does the class token's position.
/// - `polyloom-t3`: stems, trunk and decoders as `vit`; the decoders' token for what is masked `N(0, 0.02²)`.
/// - `polyloom-deeponet`: Xavier uniform, biases 0.
/// - `polyloom-mlp`: He uniform (He et al. 2015), biases 0, norms 1.
/// - `bert`: `N(0, initializer_range²)` for matrices (of experts and gates too) and tables, biases 0, norms 1, the row of the
///   filling token 0, as `transformers` does it.
/// - `llama`, `mistral`, `qwen2`, `qwen3`, `gemma`, `gemma2`: `N(0, initializer_range²)` for matrices (of experts and gates too) and the table, biases 0,
///   norms 1 (of Gemma 0, which it adds to 1), with an output layer of its own where `tie_word_embeddings` is false (what
///   Gemma's is not, where nothing is said).
/// - `polyloom-table`: He uniform for layers that an activation follows, Xavier uniform for gates and other linear layers,
///   biases 0, norms 1, embeddings `N(0, 0.01²)`; what an architecture begins otherwise, its page says.
///
/// # Errors
/// A `model_type` that is none of these, sizes that the architecture does not have or that fill every memory.
pub fn fresh(config: &Json, seed: u64) -> Result<Vec<Fresh>> {
    let parsed = |e: serde_json::Error| Error::Config {
        what: e.to_string(),
    };
    let mut made = Made {
        seed,
        all: Vec::new(),
        room: MOST,
    };
    match config["model_type"].as_str().unwrap_or_default() {
        deeponet::MODEL_TYPE => {
            let c: deeponet::PictureConfig =
                serde_json::from_value(config.clone()).map_err(parsed)?;
            for (name, shape) in PictureOnet::new(c)?.linears() {
                made.xavier(&name, &shape, true)?;
            }
        }
        t3::MODEL_TYPE => {
            let c: t3::Config = serde_json::from_value(config.clone()).map_err(parsed)?;
            made.t3(&T3::new(c)?)?;
        }
        "vit" => {
            let c: vit::Config = serde_json::from_value(config.clone()).map_err(parsed)?;
            made.vit(&Vit::new(c, "")?, config["qkv_bias"] != Json::Bool(false))?;
        }
        mlp::MODEL_TYPE => {
            let c: mlp::Config = serde_json::from_value(config.clone()).map_err(parsed)?;
            made.mlp(&Mlp::new(c)?)?;
        }
        table::MODEL_TYPE => {
            let c: table::Config = serde_json::from_value(config.clone()).map_err(parsed)?;
            made.table(&TableModel::new(c)?)?;
        }
        "bert" => {
            let c: bert::Config = serde_json::from_value(config.clone()).map_err(parsed)?;
            let types = config["type_vocab_size"].as_u64().unwrap_or(2) as usize;
            let deviation = config["initializer_range"].as_f64().unwrap_or(0.02) as f32;
            made.bert(&Bert::new(c, "")?, types, deviation)?;
        }
        "llama" | "mistral" | "qwen2" | "qwen3" | "gemma" | "gemma2" => {
            let c: decoder::Config = serde_json::from_value(config.clone()).map_err(parsed)?;
            let deviation = config["initializer_range"].as_f64().unwrap_or(0.02) as f32;
            let biased = ["attention_bias", "mlp_bias"].map(|key| config[key] == Json::Bool(true));
            made.decoder(&Decoder::new(c, "model.")?, biased, deviation)?;
        }
        other => {
            return Err(Error::Config {
                what: format!(
                    "model_type `{other}` cannot be made from nothing; known: vit, bert, llama, mistral, qwen2, qwen3, gemma, gemma2, {}, {}, {}, {}",
                    mlp::MODEL_TYPE,
                    t3::MODEL_TYPE,
                    deeponet::MODEL_TYPE,
                    table::MODEL_TYPE
                ),
            });
        }
    }
    Ok(made.all)
}

/// Gates for the experts of the layer `name`, `N(0, deviation²)`: what a model whose experts are there already begins with.
///
/// # Errors
/// So many experts and goals that the gates fill every memory.
pub fn gates(experts: &Experts, name: &str, seed: u64, deviation: f32) -> Result<Vec<Fresh>> {
    let mut made = Made {
        seed,
        all: Vec::new(),
        room: MOST,
    };
    let parts = experts.tensors().into_iter();
    let parts = parts.filter(|(part, ..)| part.starts_with("gate."));
    made.experts(name, parts, |made, part, shape, _| {
        made.normal(part, shape, deviation)
    })?;
    Ok(made.all)
}

struct Made {
    seed: u64,
    all: Vec<Fresh>,
    room: usize,
}

impl Made {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        mut draw: impl FnMut(Stream, u64) -> f32,
    ) -> Result<()> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let Some(count) = count.filter(|n| *n <= self.room) else {
            return Err(Error::Config {
                what: format!("its weights fill every memory: `{name}` has shape {shape:?}"),
            });
        };
        self.room -= count;
        let stream = Stream::new(self.seed, name, 0);
        let values = (0..count as u64).map(|i| draw(stream, i)).collect();
        self.all.push((name.to_owned(), shape.to_vec(), values));
        Ok(())
    }

    fn uniform(&mut self, name: &str, shape: &[usize], bound: f64) -> Result<()> {
        self.tensor(name, shape, |stream, i| {
            ((2.0 * f64::from(stream.uniform(i)) - 1.0) * bound) as f32
        })
    }

    fn normal(&mut self, name: &str, shape: &[usize], deviation: f32) -> Result<()> {
        self.tensor(name, shape, |stream, i| deviation * stream.normal(i))
    }

    fn constant(&mut self, name: &str, shape: &[usize], value: f32) -> Result<()> {
        self.tensor(name, shape, |_, _| value)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<()> {
        self.constant(&format!("{name}.weight"), &[width], 1.0)?;
        self.constant(&format!("{name}.bias"), &[width], 0.0)
    }

    /// A Xavier matrix of any number of axes, and its bias.
    fn xavier(&mut self, name: &str, shape: &[usize], bias: bool) -> Result<()> {
        let inputs = shape[1..].iter().map(|d| *d as f64).product::<f64>();
        let bound = (6.0 / (inputs + shape[0] as f64)).sqrt();
        self.uniform(&format!("{name}.weight"), shape, bound)?;
        if bias {
            self.constant(&format!("{name}.bias"), &shape[..1], 0.0)?;
        }
        Ok(())
    }

    fn vit(&mut self, model: &Vit, biased: bool) -> Result<()> {
        let width = model.config.hidden_size;
        self.patches(model)?;
        self.blocks(model, "", model.config.num_hidden_layers, biased)?;
        for (name, shape, begin) in model.memories.iter().flat_map(Memories::tensors) {
            match begin {
                Begin::Ones => self.constant(&name, &shape, 1.0)?,
                Begin::Zeros => self.constant(&name, &shape, 0.0)?,
                Begin::Memory => self.normal(&name, &shape, 0.01)?,
                Begin::Matrix(a, b) => {
                    let bound = (6.0 / (a + b) as f64).sqrt();
                    self.uniform(&name, &shape, bound)?;
                }
            }
        }
        self.norm("layernorm", width)
    }

    /// What makes tokens of pictures, behind the prefix of a model.
    fn patches(&mut self, model: &Vit) -> Result<()> {
        let c = &model.config;
        let (width, patch) = (c.hidden_size, c.patch_size);
        let name = |part: &str| format!("{}embeddings.{part}", model.prefix);
        self.normal(&name("cls_token"), &[1, 1, width], 0.02)?;
        self.positions(&name("position_embeddings"), width, c.image_size / patch)?;
        let projection = name("patch_embeddings.projection");
        self.xavier(&projection, &[width, c.num_channels, patch, patch], true)
    }

    /// Positions of a class token and of the patches of a square.
    fn positions(&mut self, name: &str, width: usize, side: usize) -> Result<()> {
        let shape = [1, 1 + side * side, width];
        self.tensor(name, &shape, |_, i| {
            let (row, column) = (i as usize / width, i as usize % width);
            match row.checked_sub(1) {
                Some(place) => wave(width, column, [place / side, place % side]),
                None => 0.0,
            }
        })
    }

    /// Layers of the sizes that a vision transformer has, behind a prefix.
    fn blocks(&mut self, model: &Vit, prefix: &str, layers: usize, biased: bool) -> Result<()> {
        let (width, inner) = (model.config.hidden_size, model.config.intermediate_size);
        for layer in self.layers(layers)? {
            let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
            self.norm(&name("layernorm_before"), width)?;
            for part in ["query", "key", "value"] {
                let part = name(&format!("attention.attention.{part}"));
                self.xavier(&part, &[width, width], biased)?;
            }
            self.xavier(&name("attention.output.dense"), &[width, width], true)?;
            self.norm(&name("layernorm_after"), width)?;
            if let Some(experts) = model.experts.as_ref().filter(|e| e.are_in(layer)) {
                self.experts(
                    &name("moe"),
                    experts.tensors(),
                    |made, part, shape, [a, b]| {
                        made.uniform(part, shape, (6.0 / (a + b) as f64).sqrt())
                    },
                )?;
                continue;
            }
            self.xavier(&name("intermediate.dense"), &[inner, width], true)?;
            self.xavier(&name("output.dense"), &[width, inner], true)?;
        }
        Ok(())
    }

    /// A stem for each sensor, the trunk, and decoders where there are some.
    fn t3(&mut self, model: &T3) -> Result<()> {
        let c = &model.config;
        let (width, biased) = (c.hidden_size, c.qkv_bias);
        for stem in &model.stems {
            self.patches(&stem.encoder)?;
            self.blocks(
                &stem.encoder,
                &stem.encoder.prefix,
                c.num_stem_layers,
                biased,
            )?;
        }
        if let Some(stem) = model.stems.first() {
            self.blocks(&stem.encoder, TRUNK, c.num_hidden_layers, biased)?;
        }
        self.norm(&format!("{TRUNK}layernorm"), width)?;
        let Some(layers) = c.num_decoder_layers else {
            return Ok(());
        };
        for stem in &model.stems {
            let name = |part: &str| format!("{}{part}", stem.decoder);
            self.normal(&name("mask_token"), &[1, width], 0.02)?;
            self.positions(&name("position_embeddings"), width, stem.side())?;
            self.blocks(&stem.encoder, &stem.decoder, layers, biased)?;
            self.norm(&name("layernorm"), width)?;
            self.xavier(&name("projection"), &[stem.values(), width], true)?;
        }
        Ok(())
    }

    /// Tensors of the experts of a layer: biases 0, matrices (of inputs and outputs) as `matrix` draws them.
    fn experts(
        &mut self,
        name: &str,
        parts: impl IntoIterator<Item = experts::Part>,
        matrix: impl Fn(&mut Self, &str, &[usize], [usize; 2]) -> Result<()>,
    ) -> Result<()> {
        for (part, shape, sides) in parts {
            let part = format!("{name}.{part}");
            match sides {
                Some(sides) => matrix(self, &part, &shape, sides)?,
                None => self.constant(&part, &shape, 0.0)?,
            }
        }
        Ok(())
    }

    fn mlp(&mut self, model: &Mlp) -> Result<()> {
        let mut inputs = model.inputs();
        for (layer, &width) in model.config.hidden_sizes.iter().enumerate() {
            let name = format!("layers.{layer}");
            let bound = (6.0 / inputs as f64).sqrt();
            self.uniform(&format!("{name}.weight"), &[width, inputs], bound)?;
            self.constant(&format!("{name}.bias"), &[width], 0.0)?;
            if model.config.layer_norm {
                self.norm(&format!("norms.{layer}"), width)?;
            }
            inputs = width;
        }
        Ok(())
    }

    fn table(&mut self, model: &TableModel) -> Result<()> {
        for tensor in model.tensors().iter() {
            let (name, shape) = (tensor.name.as_str(), tensor.shape.as_slice());
            match tensor.init {
                Init::Uniform(bound) => self.uniform(name, shape, bound)?,
                Init::Normal(deviation) => self.normal(name, shape, deviation)?,
                Init::Constant(value) => self.constant(name, shape, value)?,
                Init::Diagonal(on, off) => {
                    let (rows, columns) = (shape[0].max(1), shape[1].max(1));
                    let each = (columns / rows).max(1);
                    self.tensor(name, shape, |_, i| {
                        let i = i as usize;
                        match i % columns / each == i / columns {
                            true => on,
                            false => off,
                        }
                    })?;
                }
            }
        }
        Ok(())
    }

    fn bert(&mut self, model: &Bert, types: usize, deviation: f32) -> Result<()> {
        let c = &model.config;
        let (width, inner) = (c.hidden_size, c.intermediate_size);
        let pad = c.pad_token_id as usize;
        let shape = [c.vocab_size, width];
        self.tensor(
            "embeddings.word_embeddings.weight",
            &shape,
            |stream, i| match i as usize / width == pad {
                true => 0.0,
                false => deviation * stream.normal(i),
            },
        )?;
        for (table, rows) in [
            ("position_embeddings", c.max_position_embeddings),
            ("token_type_embeddings", types),
        ] {
            let name = format!("embeddings.{table}.weight");
            self.normal(&name, &[rows, width], deviation)?;
        }
        self.norm("embeddings.LayerNorm", width)?;
        for layer in self.layers(c.num_hidden_layers)? {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let mut dense = |part: &str, shape: [usize; 2]| {
                self.normal(&name(&format!("{part}.weight")), &shape, deviation)?;
                self.constant(&name(&format!("{part}.bias")), &shape[..1], 0.0)
            };
            for part in ["query", "key", "value"] {
                dense(&format!("attention.self.{part}"), [width, width])?;
            }
            dense("attention.output.dense", [width, width])?;
            match model.experts.as_ref().filter(|e| e.are_in(layer)) {
                Some(experts) => {
                    self.experts(&name("moe"), experts.tensors(), |made, part, shape, _| {
                        made.normal(part, shape, deviation)
                    })?;
                }
                None => {
                    dense("intermediate.dense", [inner, width])?;
                    dense("output.dense", [width, inner])?;
                }
            }
            self.norm(&name("attention.output.LayerNorm"), width)?;
            self.norm(&name("output.LayerNorm"), width)?;
        }
        Ok(())
    }

    /// `biased`: whether attention and feed-forward parts have biases; queries, keys and values of Qwen2 always do.
    fn decoder(&mut self, d: &Decoder, biased: [bool; 2], deviation: f32) -> Result<()> {
        let c = &d.config;
        let (width, inner) = (c.hidden_size, c.intermediate_size);
        let (queries, keys) = (c.num_attention_heads * d.dim, d.groups * d.dim);
        let is = |family: &str| c.model_type == family;
        let one = if d.gemma { 0.0 } else { 1.0 };
        let table = [c.vocab_size, width];
        self.normal("model.embed_tokens.weight", &table, deviation)?;
        for layer in self.layers(c.num_hidden_layers)? {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let wide = biased[0] || is("qwen2");
            let experts = d.experts.as_ref().filter(|e| e.are_in(layer));
            for (part, shape, bias) in [
                ("self_attn.q_proj", [queries, width], wide),
                ("self_attn.k_proj", [keys, width], wide),
                ("self_attn.v_proj", [keys, width], wide),
                ("self_attn.o_proj", [width, queries], biased[0]),
                ("mlp.gate_proj", [inner, width], biased[1]),
                ("mlp.up_proj", [inner, width], biased[1]),
                ("mlp.down_proj", [width, inner], biased[1]),
            ] {
                if experts.is_some() && part.starts_with("mlp.") {
                    continue;
                }
                self.normal(&name(&format!("{part}.weight")), &shape, deviation)?;
                if bias {
                    self.constant(&name(&format!("{part}.bias")), &shape[..1], 0.0)?;
                }
            }
            if let Some(experts) = experts {
                self.experts(&name("moe"), experts.tensors(), |made, part, shape, _| {
                    made.normal(part, shape, deviation)
                })?;
            }
            let mut norms = vec![
                ("input_layernorm", width),
                ("post_attention_layernorm", width),
            ];
            if is("gemma2") {
                norms.push(("pre_feedforward_layernorm", width));
                norms.push(("post_feedforward_layernorm", width));
            }
            if is("qwen3") {
                norms.push(("self_attn.q_norm", d.dim));
                norms.push(("self_attn.k_norm", d.dim));
            }
            for (part, width) in norms {
                self.constant(&name(&format!("{part}.weight")), &[width], one)?;
            }
        }
        self.constant("model.norm.weight", &[width], one)?;
        match c.tie_word_embeddings.unwrap_or(d.gemma) {
            true => Ok(()),
            false => self.normal("lm_head.weight", &table, deviation),
        }
    }

    /// The numbers of the layers; so many that names alone fill the memory are refused.
    fn layers(&self, count: usize) -> Result<Range<usize>> {
        if count > 1 << 16 {
            return Err(Error::Config {
                what: format!("{count} layers"),
            });
        }
        Ok(0..count)
    }
}

/// A column of the position of a patch in `[row, column]`: sines and cosines of the row, then of the column, each over a
/// quarter of the width, times a half.
fn wave(width: usize, column: usize, [y, x]: [usize; 2]) -> f32 {
    let quarter = width / 4;
    if column >= 4 * quarter {
        return 0.0;
    }
    let place = if column < 2 * quarter { y } else { x } as f64;
    let angle = place * 10000f64.powf(-((column % quarter) as f64) / quarter as f64);
    let found = match column / quarter % 2 {
        0 => angle.sin(),
        _ => angle.cos(),
    };
    (0.5 * found) as f32
}
