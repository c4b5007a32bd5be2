//! What a run of training begins with; a dense base whose feed-forward parts become mixtures of experts.
//!
//! Every expert begins as a copy of the feed-forward part in whose place it stands, the gates are drawn: JiuZhang 2.0 (Zhao et
//! al., KDD 2023), sparse upcycling (Komatsuzaki et al., ICLR 2023). Where the weights of a token's experts are renormalised,
//! the first pass gives what the base gives, whatever the gates choose.

use std::collections::HashMap;

use polyloom::MergeError;
use polyloom_core::DType;
use serde_json::{Value as Json, json};

use super::family::Opened;
use super::fresh::routed;
use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::experts::{self, Experts, Gate};
use crate::models::open::{Model, Trunk};
use crate::models::{LayerParts, Plain, Source, bert, decoder, fresh, vit};
use crate::train::{Given, Recipe};

/// Deviation of gates where a configuration says none of its weights.
const DEVIATION: f64 = 0.02;

/// New tensors of a layer, by name in the checkpoint.
type Tensors = Vec<(String, Tensor)>;

impl Opened {
    /// What a recipe begins with: its base, with stems where `train.stems`, with experts where `train.moe` and with goals where `train.add` asks for them, or a
    /// model made from nothing.
    ///
    /// # Errors
    /// As [`Self::open`], [`Self::fresh`] and [`Self::grow`]; a base without a stem for the pictures of a task; `train.moe` with a base that has experts or whose layers cannot become experts,
    /// numbers that make no mixture.
    pub fn begin(recipe: &Recipe, tasks: &[Given]) -> Result<Self> {
        let mut opened = match &recipe.base {
            None => Self::fresh(recipe, tasks)?,
            Some(base) => {
                let mut opened = Self::open(base)?;
                opened.sense(recipe, tasks)?;
                opened
            }
        };
        if let Some(table) = &recipe.train.moe {
            let mut moe = serde_json::to_value(table).map_err(|e| bad(&e.to_string()))?;
            routed(&mut moe, "train.moe", tasks)?;
            opened.upcycle(moe, recipe.seed)?;
        }
        if let Some(add) = &recipe.train.add {
            opened.grow(*add, tasks, recipe.seed)?;
        }
        opened.say_widths(recipe);
        Ok(opened)
    }

    /// Puts experts in place of feed-forward parts; `moe` is what the recipe says of them, with their goals.
    fn upcycle(&mut self, mut moe: Json, seed: u64) -> Result<()> {
        let layers = dense(&self.model)?;
        let inner = inner(&self.model, &layers)?;
        if let Some(map) = moe.as_object_mut() {
            map.entry("renormalise").or_insert(json!(true));
            if matches!(self.model.trunk, Trunk::Decoder(_)) {
                map.entry("gate").or_insert(json!(Gate::Shared));
            }
            if map.insert("inner".into(), json!(inner)).is_some() {
                let what = format!("inner follows from the base: {inner}");
                return Err(bad(&what).hint("leave it out").into());
            }
        }
        let config: experts::Config =
            serde_json::from_value(moe.clone()).map_err(|e| bad(&e.to_string()))?;
        let trunk = mixed(&self.model.trunk, config).map_err(|e| match e {
            Error::Config { what } => bad(&what).into(),
            other => other,
        })?;
        self.model.trunk = trunk;
        let Some(experts) = self.model.experts().cloned() else {
            return Ok(());
        };
        let deviation = self.config["initializer_range"].as_f64();
        let deviation = deviation.unwrap_or(DEVIATION) as f32;
        let mut new = HashMap::new();
        let chosen = layers
            .iter()
            .enumerate()
            .filter(|(i, _)| experts.are_in(*i));
        for (_, parts) in chosen {
            let made = copies(&experts, parts, &self.model.weights, (seed, deviation))?;
            new.insert(parts.up.clone(), made);
            let others = std::iter::once(&parts.down).chain(&parts.gated);
            new.extend(others.map(|name| (name.clone(), Tensors::new())));
        }
        self.replace(new);
        self.config["moe"] = moe;
        Ok(())
    }

    /// Puts tensors in place of those of linear layers, in the order of the checkpoint.
    fn replace(&mut self, mut new: HashMap<String, Tensors>) {
        let layer = |name: &str| {
            let (layer, part) = name.rsplit_once('.')?;
            matches!(part, "weight" | "bias").then(|| layer.to_owned())
        };
        let gone = |name: &str| layer(name).filter(|l| new.contains_key(l)).is_some();
        let all = self.model.weights.iter();
        let kept: Tensors = all
            .filter(|(name, _)| !gone(name))
            .map(|(name, t)| (name.to_owned(), t.clone()))
            .collect();
        let mut weights = Plain::new(kept);
        let mut stored: Vec<(String, DType, Vec<usize>)> = Vec::new();
        for (name, dtype, shape) in std::mem::take(&mut self.stored) {
            let of = layer(&name).and_then(|l| new.get_mut(&l));
            let Some(tensors) = of else {
                stored.push((name, dtype, shape));
                continue;
            };
            // The first of them makes way for all.
            let tensors = std::mem::take(tensors);
            let entry = |(name, t): &(String, Tensor)| (name.clone(), dtype, t.dims().to_vec());
            stored.extend(tensors.iter().map(entry));
            weights = weights.with(tensors);
        }
        (self.stored, self.model.weights) = (stored, weights);
    }
}

fn bad(what: &str) -> MergeError {
    MergeError::plan("bad-recipe", format!("`train.moe`: {what}"))
}

/// The layers of a model that can become mixtures.
fn dense(model: &Model) -> Result<Vec<LayerParts>> {
    let no = |what: &str, hint: &str| {
        let error = bad(what).at(model.folder.display().to_string());
        Err(error.hint(hint).into())
    };
    if model.experts().is_some() {
        return no(
            "the base has experts already",
            "leave out [train.moe]: they are trained as they are",
        );
    }
    match &model.trunk {
        Trunk::Bert(bert) => bert.layers(),
        Trunk::Vit(vit) => vit.layers(&model.weights),
        Trunk::Decoder(decoder) => decoder.layers(),
        _ => no(
            "the base has no feed-forward parts that can become experts",
            "encoders of the BERT family, decoders and vision transformers have",
        ),
    }
}

/// Width inside of the feed-forward parts of all layers.
fn inner(model: &Model, layers: &[LayerParts]) -> Result<usize> {
    let mut found = None;
    for parts in layers {
        let weight = model.weights.tensor(&format!("{}.weight", parts.up))?;
        let width = weight.dims().first().copied().unwrap_or(0);
        if *found.get_or_insert(width) != width {
            let what = format!(
                "`{}` has {width} channels, and layers before it others",
                parts.up
            );
            let error = bad(&what).at(model.folder.display().to_string());
            return Err(error
                .hint("experts have one width; a base whose channels were removed has several")
                .into());
        }
    }
    Ok(found.unwrap_or(0))
}

/// The same architecture with experts.
fn mixed(trunk: &Trunk, moe: experts::Config) -> Result<Trunk> {
    Ok(match trunk {
        Trunk::Bert(b) => {
            let config = bert::Config {
                moe: Some(moe),
                ..b.config.clone()
            };
            Trunk::Bert(bert::Bert::new(config, &b.prefix)?)
        }
        Trunk::Vit(v) => {
            let config = vit::Config {
                moe: Some(moe),
                ..v.config.clone()
            };
            Trunk::Vit(vit::Vit::new(config, &v.prefix)?)
        }
        Trunk::Decoder(d) => {
            let config = decoder::Config {
                moe: Some(moe),
                ..d.config.clone()
            };
            Trunk::Decoder(Box::new(decoder::Decoder::new(config, &d.prefix)?))
        }
        other => other.clone(),
    })
}

/// The tensors of the experts of a layer: gates that are drawn, copies of its feed-forward part.
fn copies(
    experts: &Experts,
    parts: &LayerParts,
    weights: &Plain,
    (seed, deviation): (u64, f32),
) -> Result<Tensors> {
    let mut made = Tensors::new();
    for (name, shape, values) in fresh::gates(experts, &parts.moe, seed, deviation)? {
        made.push((name, tensor(values, shape)?));
    }
    let biased = |name: &String| Ok::<_, Error>(weights.find(&format!("{name}.bias"))?.is_some());
    if let Some(gated) = &parts.gated
        && (biased(gated)? || biased(&parts.up)? || biased(&parts.down)?)
    {
        let what = format!(
            "`{}` of the base has a bias, and gated experts have none",
            parts.up
        );
        return Err(bad(&what).into());
    }
    for (part, shape, _) in experts.tensors() {
        let from = match part.split_once('.') {
            Some(("up", kind)) => format!("{}.{kind}", parts.up),
            Some(("down", kind)) => format!("{}.{kind}", parts.down),
            Some(("gated", kind)) => match &parts.gated {
                Some(name) => format!("{name}.{kind}"),
                None => continue,
            },
            _ => continue,
        };
        let each: usize = shape[1..].iter().product();
        let one = match weights.find(&from)? {
            Some(found) if found.dims() == &shape[1..] => slice(found.data())?.to_vec(),
            None if part.ends_with("bias") => vec![0.0; each],
            Some(found) => {
                let (found, wanted) = (found.dims().to_vec(), &shape[1..]);
                let what = format!("`{from}` of the base has shape {found:?}, not {wanted:?}");
                return Err(bad(&what).into());
            }
            None => return Err(Error::Missing { name: from }),
        };
        let all = one.repeat(experts.config.experts);
        made.push((format!("{}.{part}", parts.moe), tensor(all, shape)?));
    }
    Ok(made)
}
