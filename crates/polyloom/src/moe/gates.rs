//! Router rows from example prompts: what tokens or hidden states the prompts of an expert have in common.

use std::path::Path;

use polyloom_core::Checkpoint;
use polyloom_core::checkpoint::{Scratch, read_json};

use crate::error::{MergeError, Result};
use crate::vocab::Vocab;

use super::{Expert, GateMode, MoeRecipe, PromptEncoder};

/// What is taken of the states of a sequence's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// That of the last token.
    Last,
    /// Their mean.
    Mean,
}

/// Runs a decoder over sequences of tokens: for every layer and sequence what comes into the layer, of width `hidden`.
pub type Forward<'a> = &'a dyn Fn(&Checkpoint, &[Vec<u32>], Taken) -> Result<Vec<Vec<Vec<f32>>>>;

/// Rows of an input: one for every layer, or one for all.
pub(super) type Rows = Vec<Vec<f32>>;

/// States of prompts, `[layer][prompt]`.
type States = Vec<Vec<Vec<f64>>>;

/// Router rows of all inputs; empty for random ones. Hidden states of all prompts are those of one call of `forward`.
///
/// # Errors
/// No tokenizer, prompts that it cannot cut, no `forward` where hidden states are asked for.
pub(super) fn rows(
    recipe: &MoeRecipe,
    base: &Checkpoint,
    specs: &[&Expert],
    (layers, hidden): (usize, usize),
    forward: Option<Forward<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Rows>> {
    let taken = match recipe.gate_mode {
        GateMode::Random | GateMode::UniformRandom => return Ok(Vec::new()),
        GateMode::CheapEmbed => None,
        GateMode::HiddenAvg => Some(Taken::Mean),
        GateMode::Hidden | GateMode::HiddenLast => Some(Taken::Last),
    };
    let mode = recipe.gate_mode.word();
    let prompts = Prompts::open(base, mode)?;
    // All prompts at once, so that every weight is read once.
    let texts: Vec<&str> = specs
        .iter()
        .flat_map(|e| e.positive.iter().chain(&e.negative))
        .map(String::as_str)
        .collect();
    let states: States = match (taken, forward) {
        (None, _) => {
            let embedding = Embedding::open(base, hidden)?;
            let of = |text: &&str| embedding.sum(&prompts.tokens(text)?, text, &prompts);
            vec![texts.iter().map(of).collect::<Result<_>>()?]
        }
        (Some(taken), Some(forward)) => {
            hidden_states(base, &prompts, &texts, (layers, hidden), taken, forward)?
        }
        (Some(_), None) => {
            return Err(MergeError::plan(
                "gate-mode",
                format!(
                    "gate_mode `{mode}` needs the hidden states of a forward pass of the base, which is not at hand here"
                ),
            )
            .hint("use `gate_mode: cheap_embed`, which needs the embedding of the prompts only"));
        }
    };
    let mut gates: Vec<Vec<Vec<f64>>> = Vec::new();
    let mut at = 0;
    for spec in specs {
        let (n, away) = (spec.positive.len(), spec.negative.len());
        let gate = states.iter().map(|states| {
            let mut gate = direction(&states[at..at + n], taken, hidden);
            if away > 0 {
                let away = direction(&states[at + n..at + n + away], taken, hidden);
                gate.iter_mut().zip(&away).for_each(|(g, a)| *g -= a);
            }
            unit(&mut gate);
            gate
        });
        gates.push(gate.collect());
        at += n + away;
    }
    alike(&gates, warnings);
    let narrow = |row: Vec<f64>| row.into_iter().map(|v| v as f32).collect();
    let narrow = |rows: Vec<Vec<f64>>| rows.into_iter().map(narrow).collect();
    Ok(gates.into_iter().map(narrow).collect())
}

/// What several prompts have in common: of hidden states the mean; of sums of embeddings their sum, scaled to length 1.
fn direction(states: &[Vec<f64>], taken: Option<Taken>, hidden: usize) -> Vec<f64> {
    let mut sum = vec![0.0f64; hidden];
    for state in states {
        sum.iter_mut().zip(state).for_each(|(s, v)| *s += v);
    }
    match taken {
        None => unit(&mut sum),
        Some(_) => {
            let n = states.len().max(1) as f64;
            sum.iter_mut().for_each(|s| *s /= n);
        }
    }
    sum
}

/// Says which experts the router could hardly tell apart: whose rows are nearly parallel at every layer.
fn alike(gates: &[Vec<Vec<f64>>], warnings: &mut Vec<String>) {
    for a in 0..gates.len() {
        for b in 0..a {
            let cosine = |(x, y): (&Vec<f64>, &Vec<f64>)| -> f64 {
                x.iter().zip(y).map(|(x, y)| x * y).sum()
            };
            let pairs = gates[a].iter().zip(&gates[b]);
            let least = pairs.map(cosine).fold(f64::INFINITY, f64::min);
            if least > 0.95 && least.is_finite() {
                warnings.push(format!(
                    "the router rows of experts {b} and {a} are nearly parallel (cosine {least:.3}); their prompts are \
                     too similar to tell them apart"
                ));
            }
        }
    }
}

fn hidden_states(
    base: &Checkpoint,
    prompts: &Prompts,
    texts: &[&str],
    (layers, hidden): (usize, usize),
    taken: Taken,
    forward: Forward<'_>,
) -> Result<States> {
    let tokens: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| prompts.tokens(text))
        .collect::<Result<_>>()?;
    if let Some(i) = tokens.iter().position(Vec::is_empty) {
        return Err(
            MergeError::plan("tokenizer", format!("prompt {:?} has no tokens", texts[i]))
                .at(&prompts.place),
        );
    }
    let found = forward(base, &tokens, taken)?;
    let fits = |layer: &Vec<Vec<f32>>| {
        layer.len() == texts.len() && layer.iter().all(|s| s.len() == hidden)
    };
    if found.len() != layers || !found.iter().all(fits) {
        return Err(MergeError::Internal(
            "a forward pass gave states of other layers or prompts".into(),
        ));
    }
    let wide = |state: Vec<f32>| state.into_iter().map(f64::from).collect();
    let wide = |layer: Vec<Vec<f32>>| layer.into_iter().map(wide).collect();
    Ok(found.into_iter().map(wide).collect())
}

/// Prompts to tokens, by the base's tokenizer; a token that begins a text stands before each.
struct Prompts {
    encoder: PromptEncoder,
    bos: String,
    place: String,
}

impl Prompts {
    fn open(base: &Checkpoint, mode: &str) -> Result<Self> {
        let folder = base.origin();
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Err(MergeError::plan(
                "no-tokenizer",
                format!("gate_mode {mode} needs the base's tokenizer.json"),
            )
            .at(path.display().to_string())
            .hint("copy it there, or use gate_mode random and train the router"));
        }
        let json = read_json(&path)?;
        let place = path.display().to_string();
        let vocab = Vocab::from_json(json.clone()).map_err(|e| e.at(&place))?;
        Ok(Self {
            encoder: PromptEncoder::new(&json, vocab).map_err(|e| e.at(&place))?,
            bos: bos_token(folder)?,
            place,
        })
    }

    fn tokens(&self, prompt: &str) -> Result<Vec<u32>> {
        let text = format!("{}{prompt}", self.bos);
        self.encoder.encode(&text).map_err(|e| e.at(&self.place))
    }
}

/// The rows of tokens.
struct Embedding<'a> {
    base: &'a Checkpoint,
    stored: &'a polyloom_core::checkpoint::StoredTensor,
    hidden: usize,
}

const EMBEDDING: &str = "model.embed_tokens.weight";

impl<'a> Embedding<'a> {
    fn open(base: &'a Checkpoint, hidden: usize) -> Result<Self> {
        let stored = base
            .get(EMBEDDING)
            .filter(|t| t.shape.len() == 2 && t.shape[1] == hidden)
            .ok_or_else(|| {
                MergeError::plan(
                    "missing-tensor",
                    format!("has no tensor `{EMBEDDING}` of width {hidden}"),
                )
                .at(base.origin().display().to_string())
            })?;
        Ok(Self {
            base,
            stored,
            hidden,
        })
    }

    /// Sum of the rows of a prompt's tokens.
    fn sum(&self, tokens: &[u32], prompt: &str, prompts: &Prompts) -> Result<Vec<f64>> {
        let hidden = self.hidden;
        let mut sum = vec![0.0f64; hidden];
        let (mut row, mut scratch) = (vec![0.0f32; hidden], Scratch::default());
        for &id in tokens {
            let id = id as usize;
            if id >= self.stored.shape[0] {
                return Err(MergeError::plan(
                    "tokenizer",
                    format!("token {id} of prompt {prompt:?} has no row in `{EMBEDDING}`"),
                )
                .at(&prompts.place));
            }
            let range = id * hidden..(id + 1) * hidden;
            self.base
                .read_f32(self.stored, range, &mut row, &mut scratch)?;
            sum.iter_mut()
                .zip(&row)
                .for_each(|(s, v)| *s += f64::from(*v));
        }
        Ok(sum)
    }
}

fn unit(v: &mut [f64]) {
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-8);
    v.iter_mut().for_each(|x| *x /= norm);
}

/// The text of the token that begins a sequence; empty if the tokenizer has none.
fn bos_token(folder: &Path) -> Result<String> {
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = folder.join(file);
        if !path.is_file() {
            continue;
        }
        let json = read_json(&path)?;
        let token = json.get("bos_token");
        if let Some(text) = token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str())) {
            return Ok(text.to_owned());
        }
    }
    Ok(String::new())
}
