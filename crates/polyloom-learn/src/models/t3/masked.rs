//! Masked reconstruction: patches that are left out, and what a decoder makes of them.

use super::{Stem, T3, through};
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::vit::placed;
use crate::ops;

/// Added to the variance of a patch (as He et al. 2022 do).
const EPS: f64 = 1e-6;

impl T3 {
    /// What a decoder makes of masked patches, `[images * masked, channels * patch * patch]`, image by image, in the order of
    /// `masked`: for every image its masked patches, ascending, equally many.
    ///
    /// As a masked autoencoder (He et al., CVPR 2022): masked patches are left out of stem and trunk; the decoder sees the
    /// tokens of the others and, where patches are masked, a learned one, all with positions of its own. It differs in that the
    /// decoder is as wide as the trunk, without a map between them, and that its positions are learned.
    ///
    /// # Errors
    /// As [`Self::forward`]; a model without decoders, masks of another number of images or of patches that are none.
    pub fn rebuilt(
        &self,
        weights: &dyn Source,
        stem: usize,
        pixels: &Value,
        masked: &[Vec<u32>],
    ) -> Result<Value> {
        let (c, stem) = (&self.config, self.stem(stem)?);
        let Some(layers) = c.num_decoder_layers else {
            return Err(Error::shape("t3", "a model without decoders"));
        };
        let (width, images) = (c.hidden_size, masked.len());
        let places = Places::of(stem, masked)?;
        let tokens = stem.encoder.embedded(weights, pixels)?;
        let kept = rows(&tokens, width, &places.kept, images)?;
        let seen = self.encoded(weights, stem, kept)?;
        let name = |part: &str| format!("{}{part}", stem.decoder);
        let seen = ops::reshape(&seen, &[places.kept.len(), width])?;
        let hole = ops::reshape(&weights.tensor(&name("mask_token"))?, &[1, width])?;
        let both = ops::concat(&[&seen, &hole], 0)?;
        let x = rows(&both, width, &places.filled, images)?;
        let positions = weights.tensor(&name("position_embeddings"))?;
        let x = placed(&x, &positions, 1 + stem.patches())?;
        let x = through(weights, stem, &stem.decoder, [layers, self.layers()], x)?;
        let x = weights.layer_norm(&name("layernorm"), &x, c.layer_norm_eps)?;
        let holes = rows(&x, width, &places.masked, images)?;
        let holes = ops::reshape(&holes, &[places.masked.len(), width])?;
        weights.linear(&name("projection"), &holes)
    }

    /// The mean square between [`Self::rebuilt`] and the masked patches, each less its mean over its deviation
    /// (`sqrt(variance + 1e-6)`, the variance that of its numbers, divided by their count).
    ///
    /// # Errors
    /// As [`Self::rebuilt`].
    pub fn reconstruction(
        &self,
        weights: &dyn Source,
        stem: usize,
        pixels: &Value,
        masked: &[Vec<u32>],
    ) -> Result<Value> {
        let said = self.rebuilt(weights, stem, pixels, masked)?;
        let right = targets(self.stem(stem)?, pixels, masked)?;
        ops::mean_squares(
            &said,
            &Value::constant(tensor(right, said.dims().to_vec())?),
        )
    }
}

/// Tokens at places of a flat list of them, as `[images, tokens, width]`.
fn rows(tokens: &Value, width: usize, at: &[u32], images: usize) -> Result<Value> {
    let all = tokens.dims().iter().product::<usize>() / width.max(1);
    let flat = ops::reshape(tokens, &[all, width])?;
    let each = at.len() / images.max(1);
    ops::reshape(&ops::rows(&flat, at)?, &[images, each, width])
}

/// Where tokens of masked pictures stand.
struct Places {
    /// Of those that are left, among all: of every image the class token, then patches.
    kept: Vec<u32>,
    /// Of every token, among those that are left; masked ones at the place behind the last.
    filled: Vec<u32>,
    /// Of the masked ones, among all.
    masked: Vec<u32>,
}

impl Places {
    fn of(stem: &Stem, masked: &[Vec<u32>]) -> Result<Self> {
        let (patches, count) = (stem.patches(), masked.first().map_or(0, Vec::len));
        let ascend = |one: &Vec<u32>| {
            one.len() == count
                && one.windows(2).all(|w| w[0] < w[1])
                && one.last().is_some_and(|last| (*last as usize) < patches)
        };
        if !masked.iter().all(ascend) {
            let what = format!("masks that are not equally many of {patches} patches, ascending");
            return Err(Error::shape("t3", what));
        }
        let hole = (masked.len() * (1 + patches - count)) as u32;
        let mut places = Self {
            kept: Vec::new(),
            filled: Vec::new(),
            masked: Vec::new(),
        };
        for (image, masked) in masked.iter().enumerate() {
            for token in 0..=patches {
                let at = (image * (1 + patches) + token) as u32;
                let is_masked = token > 0 && masked.binary_search(&(token as u32 - 1)).is_ok();
                match is_masked {
                    true => {
                        places.filled.push(hole);
                        places.masked.push(at);
                    }
                    false => {
                        places.filled.push(places.kept.len() as u32);
                        places.kept.push(at);
                    }
                }
            }
        }
        Ok(places)
    }
}

/// The masked patches of pixels, normalised, in the order of [`T3::rebuilt`]: channel by channel, row by row.
fn targets(stem: &Stem, pixels: &Value, masked: &[Vec<u32>]) -> Result<Vec<f32>> {
    let c = &stem.encoder.config;
    let (size, patch, side) = (c.image_size, c.patch_size, stem.side());
    let values = slice(pixels.data())?;
    let of_image = c.num_channels * size * size;
    let mut found = Vec::new();
    for (image, masked) in values.chunks_exact(of_image).zip(masked) {
        for place in masked {
            let (top, left) = (
                *place as usize / side * patch,
                *place as usize % side * patch,
            );
            let start = found.len();
            for plane in image.chunks_exact(size * size) {
                for row in plane.chunks_exact(size).skip(top).take(patch) {
                    found.extend_from_slice(&row[left..left + patch]);
                }
            }
            normalised(&mut found[start..]);
        }
    }
    Ok(found)
}

/// Numbers less their mean, over their deviation.
fn normalised(values: &mut [f32]) {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares = values.iter().map(|x| (f64::from(*x) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / n + EPS).sqrt();
    for x in values {
        *x = ((f64::from(*x) - mean) / deviation) as f32;
    }
}
