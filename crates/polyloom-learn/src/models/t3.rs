//! Stems by sensor around one trunk (T3, Zhao et al., Transferable Tactile Transformers, CoRL 2024).
//!
//! Pictures of a sensor are of one size and number of channels. Its stem makes tokens of them: a projection of patches of its
//! own size, a class token, positions, `num_stem_layers` layers. The tokens of all sensors then pass the same layers (the
//! trunk), and heads see the class token. For masked reconstruction ([`T3::rebuilt`]) every sensor has a decoder.
//!
//! `config.json` has `"model_type": "polyloom-t3"`; tensors are `stems.<sensor>.*`, `trunk.*` and `decoders.<sensor>.*`, named
//! behind these words as those of a vision transformer. Layers are those of [`Vit`]. The paper's trunk and encoders are of
//! several published sizes and its decoders differ by task; sizes here are the configuration's, decoders are heads.

mod config;
mod masked;

pub use config::{Config, StemConfig, sized, stem_for, told};

use super::Source;
use super::vit::{self, Stack, Vit};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops;

/// The word of this family in `config.json`.
pub const MODEL_TYPE: &str = "polyloom-t3";

/// What stands before the names of the trunk's tensors.
pub const TRUNK: &str = "trunk.";

/// Sensors at most.
const SENSORS: usize = 1024;

/// A stem with the decoder of its sensor.
#[derive(Debug, Clone)]
pub struct Stem {
    /// Name of the sensor.
    pub sensor: String,
    /// Patches and layers of the stem.
    pub encoder: Vit,
    /// What stands before the names of the decoder's tensors.
    pub decoder: String,
}

impl Stem {
    /// Patches in a row of a picture.
    #[must_use]
    pub fn side(&self) -> usize {
        self.encoder.config.image_size / self.encoder.config.patch_size
    }

    /// Patches of a picture.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.side() * self.side()
    }

    /// Numbers of a patch.
    #[must_use]
    pub fn values(&self) -> usize {
        let c = &self.encoder.config;
        c.num_channels * c.patch_size * c.patch_size
    }

    /// How many patches of a picture a share of them is, rounded to the nearest.
    ///
    /// # Errors
    /// None of the patches or all of them; patches of one number, of which nothing is left once they are normalised.
    pub fn masked(&self, share: f64) -> Result<usize> {
        let (all, wrong) = (self.patches(), |what: String| Error::Config {
            what: format!("stem `{}`: {what}", self.sensor),
        });
        if self.values() < 2 {
            return Err(wrong(
                "patches of one number have no deviation to be rebuilt".into(),
            ));
        }
        let masked = (share * all as f64).round() as usize;
        match masked {
            0 => Err(wrong(format!(
                "a share of {share} masks none of {all} patches"
            ))),
            n if n >= all => Err(wrong(format!(
                "a share of {share} masks all of {all} patches"
            ))),
            n => Ok(n),
        }
    }
}

/// Stems, trunk and decoders of one configuration.
#[derive(Debug, Clone)]
pub struct T3 {
    /// The configuration.
    pub config: Config,
    /// Its stems, in the order of the configuration.
    pub stems: Vec<Stem>,
}

impl T3 {
    /// Of a configuration.
    ///
    /// # Errors
    /// No stem or too many, names that are none, sizes that a vision transformer does not have, patches that do not divide
    /// pictures.
    pub fn new(config: Config) -> Result<Self> {
        let wrong = |what: String| Err(Error::Config { what });
        let c = &config;
        if c.stems.is_empty() || c.stems.len() > SENSORS {
            return wrong(format!("{} stems, not 1 to {SENSORS}", c.stems.len()));
        }
        if c.num_hidden_layers == 0 {
            return wrong("num_hidden_layers 0: a trunk has layers".into());
        }
        let layers = [
            c.num_stem_layers,
            c.num_hidden_layers,
            c.num_decoder_layers.unwrap_or(1),
        ];
        if layers.iter().any(|n| *n > 1 << 16) || layers[2] == 0 {
            let [stem, trunk, decoder] = layers;
            return wrong(format!(
                "{stem} layers of stems, {trunk} of the trunk, {decoder} of decoders"
            ));
        }
        let stems = c.stems.iter().map(|(name, stem)| stem_of(c, name, stem));
        let stems = stems.collect::<Result<_>>()?;
        Ok(Self { config, stems })
    }

    /// Layers that a picture passes.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.config.num_stem_layers + self.config.num_hidden_layers
    }

    /// The stem at a place.
    ///
    /// # Errors
    /// A place behind the last.
    pub fn stem(&self, place: usize) -> Result<&Stem> {
        let none = || Error::shape("t3", format!("stem {place} of {}", self.stems.len()));
        self.stems.get(place).ok_or_else(none)
    }

    /// The last hidden states `[images, 1 + patches, hidden_size]`, the class token first, of pixels `[images, channels,
    /// height, width]` of a stem's sensor.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape, images of another size, a stem that is none.
    pub fn forward(&self, weights: &dyn Source, stem: usize, pixels: &Value) -> Result<Value> {
        let stem = self.stem(stem)?;
        let tokens = stem.encoder.embedded(weights, pixels)?;
        self.encoded(weights, stem, tokens)
    }

    /// The class tokens `[images, hidden_size]` of [`Self::forward`].
    ///
    /// # Errors
    /// As there.
    pub fn look(&self, weights: &dyn Source, stem: usize, pixels: &Value) -> Result<Value> {
        let hidden = self.forward(weights, stem, pixels)?;
        let class = ops::narrow(&hidden, 1, 0, 1)?;
        ops::reshape(&class, &[hidden.dims()[0], self.config.hidden_size])
    }

    /// The same by the stem that alone reads pictures of this size.
    ///
    /// # Errors
    /// As there, and as [`stem_for`].
    pub fn look_by_size(&self, weights: &dyn Source, pixels: &Value) -> Result<Value> {
        let size = match *pixels.dims() {
            [_, channels, height, width] => [height, width, channels],
            _ => [0; 3],
        };
        let stem = stem_for(&self.config.stems, None, size);
        let stem = stem.map_err(|what| Error::shape("t3", what))?;
        self.look(weights, stem, pixels)
    }

    /// Embedded tokens behind stem and trunk.
    fn encoded(&self, weights: &dyn Source, stem: &Stem, tokens: Value) -> Result<Value> {
        let c = &self.config;
        let x = stem.encoder.began(weights, tokens)?;
        let x = through(
            weights,
            stem,
            &stem.encoder.prefix,
            [c.num_stem_layers, 0],
            x,
        )?;
        let sizes = [c.num_hidden_layers, c.num_stem_layers];
        let x = through(weights, stem, TRUNK, sizes, x)?;
        weights.layer_norm(&format!("{TRUNK}layernorm"), &x, c.layer_norm_eps)
    }
}

/// The stem of a configuration.
fn stem_of(c: &Config, name: &str, stem: &StemConfig) -> Result<Stem> {
    let wrong = |what: String| Error::Config {
        what: format!("stem `{name}`: {what}"),
    };
    let plain = |x: char| x.is_ascii_alphanumeric() || x == '_' || x == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        let what =
            "a name is 1 to 64 letters, digits, `_` and `-`, for it stands in names of tensors";
        return Err(wrong(what.into()));
    }
    let (size, patch) = (stem.image_size, stem.patch_size);
    if patch == 0 || size == 0 || !size.is_multiple_of(patch) {
        let what =
            format!("patches of {patch} x {patch} do not divide pictures of {size} x {size}");
        return Err(wrong(what));
    }
    if stem.num_channels == 0 {
        return Err(wrong("pictures without channels".into()));
    }
    let config = vit::Config {
        hidden_size: c.hidden_size,
        num_hidden_layers: c.num_stem_layers,
        num_attention_heads: c.num_attention_heads,
        intermediate_size: c.intermediate_size,
        hidden_act: c.hidden_act.clone(),
        image_size: size,
        patch_size: patch,
        num_channels: stem.num_channels,
        layer_norm_eps: c.layer_norm_eps,
        hidden_dropout_prob: c.hidden_dropout_prob,
        attention_probs_dropout_prob: c.attention_probs_dropout_prob,
        moe: None,
        task_expert: None,
    };
    let said = |e: Error| match e {
        Error::Config { what } => wrong(what),
        other => other,
    };
    Ok(Stem {
        sensor: name.to_owned(),
        encoder: Vit::new(config, &format!("stems.{name}.")).map_err(said)?,
        decoder: format!("decoders.{name}."),
    })
}

/// Tokens behind layers of the sizes of a stem.
fn through(
    weights: &dyn Source,
    stem: &Stem,
    prefix: &str,
    [layers, before]: [usize; 2],
    x: Value,
) -> Result<Value> {
    let stack = Stack {
        prefix,
        layers,
        before,
        goals: &[],
    };
    stem.encoder.pass(weights, &stack, x, &mut |_, _| Ok(()))
}

#[cfg(test)]
mod tests;
