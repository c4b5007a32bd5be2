//! Text out of a decoder or a T5: greedy or sampled, one token after the other; and how likely a given text is.

use polyloom_core::nn::softmax;
use polyloom_core::rng::Stream;

use super::decoder::Decoder;
use super::t5::{Memory, T5};
use super::voices::{Seen, Voices};
use super::{Batch, Source};
use crate::engine::slice;
use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Scores are divided by it; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only so many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities reach this together; 1 for all.
    pub top_p: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        }
    }

    /// A token from scores; `draw` numbers the draws of a text. Equal scores go to the smaller id.
    pub fn choose(&self, scores: &[f32], draw: u64) -> u32 {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        let score = |i: u32| scores[i as usize];
        if self.temperature <= 0.0 {
            return order
                .into_iter()
                .reduce(|a, b| if score(b) > score(a) { b } else { a })
                .unwrap_or(0);
        }
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let mut p: Vec<f32> = order.iter().map(|&i| score(i) / self.temperature).collect();
        softmax::forward(&mut p, order.len().max(1));
        let mut reached = 0.0;
        let enough = p.iter().position(|p| {
            reached += p;
            reached >= self.top_p
        });
        p.truncate(enough.map_or(p.len(), |i| i + 1));
        let total: f32 = p.iter().sum();
        let mut left = Stream::new(self.seed, "tokens", 0).uniform(draw) * total;
        for (i, p) in p.iter().enumerate() {
            left -= p;
            if left < 0.0 {
                return order[i];
            }
        }
        order[p.len().saturating_sub(1)]
    }
}

fn one(ids: &[u32]) -> Batch {
    Batch {
        ids: ids.to_vec(),
        present: vec![true; ids.len()],
        types: Vec::new(),
        sequences: 1,
        length: ids.len(),
        goals: Vec::new(),
    }
}

/// Tokens that follow `prompt`, at most `most`, up to one of `ends` (left out). `each` sees every token as it comes and ends
/// the text with `false`.
///
/// # Errors
/// No prompt, more tokens than the model has positions for, and as [`Decoder::forward`].
pub fn generate(
    model: &Decoder,
    weights: &dyn Source,
    prompt: &[u32],
    most: usize,
    ends: &[u32],
    sampling: Sampling,
    each: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    let voices = Voices::alone(model, weights);
    generate_by(&voices, prompt, most, ends, sampling, each)
}

/// [`generate`] by several decoders that speak as one.
///
/// # Errors
/// As [`generate`] and [`Voices::scores`].
pub fn generate_by(
    voices: &Voices<'_>,
    prompt: &[u32],
    most: usize,
    ends: &[u32],
    sampling: Sampling,
    each: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(Error::shape("generate", "no tokens to begin with"));
    }
    let room = voices.room().saturating_sub(prompt.len());
    let mut seen = Seen::default();
    let step = |next: &[u32]| Ok(voices.scores(&mut seen, next, true)?.0);
    grow(prompt, most.min(room), ends, sampling, each, step)
}

/// Tokens that a T5 answers an input with, as [`generate`].
///
/// # Errors
/// No input, and as [`T5::encode`].
pub fn answer(
    model: &T5,
    weights: &dyn Source,
    input: &[u32],
    most: usize,
    ends: &[u32],
    sampling: Sampling,
    each: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    if input.is_empty() {
        return Err(Error::shape("generate", "no tokens to begin with"));
    }
    let encoded = model.encode(weights, &one(input))?;
    let mut memory = Memory::default();
    let start = model.config.decoder_start_token_id.unwrap_or(0);
    let step = |next: &[u32]| {
        let memory = Some(&mut memory);
        let logits = model.decode(weights, &encoded, None, &one(next), memory)?;
        Ok(slice(logits.data())?.to_vec())
    };
    grow(&[start], most, ends, sampling, each, step)
}

/// `step` gives the scores after the tokens that are new to it.
fn grow(
    first: &[u32],
    most: usize,
    ends: &[u32],
    sampling: Sampling,
    each: &mut dyn FnMut(u32) -> bool,
    mut step: impl FnMut(&[u32]) -> Result<Vec<f32>>,
) -> Result<Vec<u32>> {
    let (mut next, mut found) = (first.to_vec(), Vec::new());
    for draw in 0..most {
        let token = sampling.choose(&step(&next)?, draw as u64);
        if ends.contains(&token) {
            break;
        }
        found.push(token);
        if !each(token) {
            break;
        }
        next = vec![token];
    }
    Ok(found)
}

/// Natural logarithm of the probability of `continuation` after `context`, and whether the likeliest token would have been
/// chosen at every step: what multiple choice and perplexity are made of.
///
/// # Errors
/// No context or continuation, and as [`Decoder::forward`].
pub fn log_likelihood(
    model: &Decoder,
    weights: &dyn Source,
    context: &[u32],
    continuation: &[u32],
) -> Result<(f64, bool)> {
    let found = log_likelihoods(model, weights, context, &[continuation.to_vec()])?;
    Ok(found[0])
}

/// [`log_likelihood`] of several continuations; the context is run once.
///
/// # Errors
/// As [`log_likelihood`].
pub fn log_likelihoods(
    model: &Decoder,
    weights: &dyn Source,
    context: &[u32],
    continuations: &[Vec<u32>],
) -> Result<Vec<(f64, bool)>> {
    log_likelihoods_by(&Voices::alone(model, weights), context, continuations)
}

/// [`log_likelihoods`] by several decoders that speak as one.
///
/// # Errors
/// As [`log_likelihood`] and [`Voices::scores`].
pub fn log_likelihoods_by(
    voices: &Voices<'_>,
    context: &[u32],
    continuations: &[Vec<u32>],
) -> Result<Vec<(f64, bool)>> {
    if context.is_empty() || continuations.iter().any(Vec::is_empty) {
        return Err(Error::shape("log-likelihood", "no tokens"));
    }
    let mut seen = Seen::default();
    let (first, width) = voices.scores(&mut seen, context, true)?;
    let mut found = Vec::with_capacity(continuations.len());
    for continuation in continuations {
        let mut scores = first.clone();
        if continuation.len() > 1 {
            let rest = &continuation[..continuation.len() - 1];
            scores.extend(voices.scores(&mut seen.clone(), rest, false)?.0);
        }
        let (mut total, mut greedy) = (0.0, true);
        for (row, &token) in scores.chunks_exact(width).zip(continuation) {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
            let Some(&score) = row.get(token as usize) else {
                return Err(Error::shape(
                    "log-likelihood",
                    format!("token {token} of {width}"),
                ));
            };
            total += f64::from(score - top) - sum.ln();
            greedy &= Sampling::greedy().choose(row, 0) == token;
        }
        found.push((total, greedy));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_by_hand() {
        let scores = [1.0, 3.0, 2.0, 3.0];
        assert_eq!(Sampling::greedy().choose(&scores, 5), 1);
        let one_of = |s: Sampling| {
            let mut seen: Vec<u32> = (0..200).map(|i| s.choose(&scores, i)).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        let all = Sampling {
            temperature: 1.0,
            ..Sampling::greedy()
        };
        assert_eq!(one_of(all), [0, 1, 2, 3]);
        assert_eq!(one_of(Sampling { top_k: 2, ..all }), [1, 3]);
        // e³ : e³ : e² : e¹ = 0.40, 0.40, 0.15, 0.05.
        assert_eq!(one_of(Sampling { top_p: 0.9, ..all }), [1, 2, 3]);
        assert_eq!(one_of(Sampling { top_p: 0.1, ..all }), [1]);
        let share = (0..4000).filter(|&i| all.choose(&scores, i) == 2).count() as f64 / 4000.0;
        assert!((share - 0.147).abs() < 0.02, "{share}");
    }
}
