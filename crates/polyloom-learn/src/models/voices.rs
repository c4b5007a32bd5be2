//! Several decoders that speak as one: a large model with what small experts learned ([`Fusion`]), or a model alone.

use super::decoder::{Cache, Decoder};
use super::fusion::Fusion;
use super::open::{Model, Trunk};
use super::{Batch, Source};
use crate::engine::slice;
use crate::error::{Error, Result};
use crate::ops;

/// A decoder with its weights.
#[derive(Clone, Copy)]
pub struct Voice<'a> {
    /// The architecture.
    pub decoder: &'a Decoder,
    /// Its weights.
    pub weights: &'a dyn Source,
}

/// A decoder alone, or with a small base and small experts whose logits are fused into its own at every token.
#[derive(Clone)]
pub struct Voices<'a> {
    /// The one that speaks.
    large: Voice<'a>,
    fused: Option<(Fusion, Vec<Voice<'a>>)>,
}

/// What the decoders have seen.
#[derive(Clone, Default)]
pub struct Seen(Vec<Cache>);

impl<'a> Voices<'a> {
    /// A decoder alone.
    #[must_use]
    pub fn alone(decoder: &'a Decoder, weights: &'a dyn Source) -> Self {
        Self {
            large: Voice { decoder, weights },
            fused: None,
        }
    }

    /// With a small base and its experts. All have the same tokens: their ids are passed on as they are.
    ///
    /// # Errors
    /// No experts, vocabularies of other sizes, and as [`Fusion::check`].
    pub fn fused(
        large: Voice<'a>,
        base: Voice<'a>,
        experts: &[Voice<'a>],
        fusion: Fusion,
    ) -> Result<Self> {
        fusion.check(experts.len())?;
        if experts.is_empty() {
            return Err(Error::shape("fusion", "no small expert"));
        }
        let mut small = vec![base];
        small.extend(experts);
        let size = large.decoder.config.vocab_size;
        if let Some(other) = small.iter().find(|v| v.decoder.config.vocab_size != size) {
            let what = format!(
                "vocabularies of {size} and {} tokens; all models need the same",
                other.decoder.config.vocab_size
            );
            return Err(Error::shape("fusion", what));
        }
        Ok(Self {
            large,
            fused: Some((fusion, small)),
        })
    }

    /// Of opened models: the large one, the small base, the small experts.
    ///
    /// # Errors
    /// Fewer than three, one that is no decoder, and as [`Self::fused`].
    pub fn of_models(models: &[(&'a Model, &'a dyn Source)], fusion: Fusion) -> Result<Self> {
        let mut voices = Vec::with_capacity(models.len());
        for (model, weights) in models {
            let Trunk::Decoder(decoder) = &model.trunk else {
                let what = "generates no text: fusion of texts is of decoders";
                return Err(Error::file(&model.folder, what));
            };
            voices.push(Voice {
                decoder,
                weights: *weights,
            });
        }
        let [large, base, experts @ ..] = &voices[..] else {
            return Err(Error::shape("fusion", "no small base"));
        };
        Self::fused(*large, *base, experts, fusion)
    }

    /// Positions that all of them have.
    #[must_use]
    pub fn room(&self) -> usize {
        let small = self.fused.iter().flat_map(|(_, small)| small);
        let all = small.chain([&self.large]);
        let rooms = all.map(|v| v.decoder.config.max_position_embeddings);
        rooms.min().unwrap_or(0)
    }

    /// Scores after each of some new tokens (`last`: after the last of them alone), row after row, and how many a row has.
    ///
    /// # Errors
    /// As [`Decoder::forward`] and [`Fusion::step`].
    pub fn scores(&self, seen: &mut Seen, next: &[u32], last: bool) -> Result<(Vec<f32>, usize)> {
        let small = self.fused.iter().flat_map(|(_, small)| small);
        let mut all = Vec::new();
        for (i, voice) in std::iter::once(&self.large).chain(small).enumerate() {
            if seen.0.len() <= i {
                seen.0.push(Cache::default());
            }
            all.push(said(*voice, &mut seen.0[i], next, last)?);
        }
        let (Some((fusion, _)), Some((_, width))) = (&self.fused, all.first()) else {
            return Ok(all.pop().unwrap_or_default());
        };
        let width = *width;
        let wide = |row: &[f32]| -> Vec<f64> { row.iter().map(|x| f64::from(*x)).collect() };
        let mut found = Vec::with_capacity(all[0].0.len());
        for at in (0..all[0].0.len()).step_by(width.max(1)) {
            let rows: Vec<Vec<f64>> = all.iter().map(|(x, _)| wide(&x[at..at + width])).collect();
            let experts: Vec<&[f64]> = rows[2..].iter().map(Vec::as_slice).collect();
            let step = fusion.step(&rows[0], &rows[1], &experts)?;
            found.extend(step.logits.iter().map(|x| *x as f32));
        }
        Ok((found, width))
    }
}

/// Scores of one decoder.
fn said(
    voice: Voice<'_>,
    cache: &mut Cache,
    next: &[u32],
    last: bool,
) -> Result<(Vec<f32>, usize)> {
    let batch = Batch {
        ids: next.to_vec(),
        present: vec![true; next.len()],
        types: Vec::new(),
        sequences: 1,
        length: next.len(),
        goals: Vec::new(),
    };
    let hidden = voice.decoder.forward(voice.weights, &batch, Some(cache))?;
    let hidden = match last {
        true => ops::narrow(&hidden, 1, next.len() - 1, 1)?,
        false => hidden,
    };
    let logits = voice.decoder.logits(voice.weights, &hidden)?;
    let width = logits.dims().last().copied().unwrap_or(0);
    Ok((slice(logits.data())?.to_vec(), width))
}
