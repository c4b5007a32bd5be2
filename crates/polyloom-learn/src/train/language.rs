//! A decoder learns language: rows as sequences of tokens, the loss of the next token, perplexity.

use polyloom::MergeError;

use super::Given;
use super::fuse::tokens::Soft;
use super::learned::{Learned, is_looked_at, no_rows};
use super::part::Part;
use super::pass::Drawn;
use super::recipe::{Language, Recipe};
use super::rowwise::{Form, share};
use super::run::Job;
use super::trainee::Trainee;
use super::weigh::Counts;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::decoder::Decoder;
use crate::models::open::{Model, Trunk};
use crate::models::{Batch, Source};
use crate::ops;
use crate::tasks::language::{Learn, Line, Sequence, lines, sequences};
use crate::tasks::rows::usual_feature;
use crate::tasks::{Reader, Rows};

/// A task's rows as language.
pub struct Spoken {
    /// Sequences that are learned from.
    pub train: Vec<Sequence>,
    /// Sequences that are looked at.
    pub validation: Option<Vec<Sequence>>,
    /// What the training sequences are made of, where other models are asked for them.
    pub lines: Vec<Line>,
    /// What other models say of the training sequences.
    pub soft: Option<Soft>,
}

/// The decoder of a model.
///
/// # Errors
/// A model that is none.
pub(super) fn decoder(model: &Model) -> Result<&Decoder> {
    match &model.trunk {
        Trunk::Decoder(decoder) => Ok(decoder),
        _ => Err(MergeError::plan(
            "bad-recipe",
            "is no decoder; `train.language` is for models that go on with a text",
        )
        .at(model.folder.display().to_string())
        .hint("a base of type llama, mistral, qwen2, qwen3, gemma or gemma2, or [train.new] with one of these")
        .into()),
    }
}

/// Reads the tasks of a run as language.
///
/// # Errors
/// A model that is no decoder, a tokenizer with more entries than the model, tasks of which nothing is learned, and what
/// reading reports.
pub(super) fn learned<'a>(
    recipe: &Recipe,
    language: &Language,
    model: &Model,
    given: &'a [Given],
) -> Result<Vec<Learned<'a>>> {
    let t = &recipe.train;
    let positions = decoder(model)?.config.max_position_embeddings;
    let most = t.max_length.unwrap_or(positions).min(positions);
    let text = model.tokens(usize::MAX)?;
    let apart = language.learn == Learn::Answers || t.fuse.is_some();
    let pack = language.pack.unwrap_or(!apart);
    let mut tasks = Vec::new();
    for given in given {
        let spec = &given.spec;
        let read = |split: &str, limit| {
            let prompt = language.prompt.as_deref();
            let lines = lines(spec, &given.loader(), split, language.learn, prompt, limit)?;
            let found = sequences(&text, &lines, most, pack)?;
            Ok::<_, Error>((lines, found))
        };
        let (lines, train) = read(&t.split, t.limit)?;
        if train.is_empty() {
            return Err(no_rows(&spec.id, &t.split));
        }
        let validation = match is_looked_at(recipe, spec)? {
            true => Some(read(&t.validation, t.validation_limit)?.1).filter(|v| !v.is_empty()),
            false => None,
        };
        tasks.push(Learned {
            given,
            train: Rows::default(),
            validation: None,
            language: Some(Spoken {
                train,
                validation,
                lines: if t.fuse.is_some() { lines } else { Vec::new() },
                soft: None,
            }),
            feature: usual_feature(model, false),
            heads: 0..0,
            search: None,
            counts: Counts::default(),
            chain: None,
            soft: Vec::new(),
        });
    }
    Ok(tasks)
}

/// Scores `[tokens, vocabulary]` of the tokens that count, in the order of the sequences, and which these are.
///
/// # Errors
/// As [`Decoder::forward`].
pub(in crate::train) fn scores(
    model: &Decoder,
    source: &dyn Source,
    pad: u32,
    sequences: &[&Sequence],
) -> Result<(Value, Vec<u32>)> {
    let ids: Vec<&[u32]> = sequences.iter().map(|s| &*s.ids).collect();
    let batch = Batch::padded(&ids, pad)?;
    let hidden = model.forward(source, &batch, None)?;
    let (mut before, mut tokens) = (Vec::new(), Vec::new());
    for (row, sequence) in sequences.iter().enumerate() {
        for place in sequence.from..sequence.ids.len() {
            before.push((row * batch.length + place - 1) as u32);
            tokens.push(sequence.ids[place]);
        }
    }
    let all = batch.sequences * batch.length;
    let states = ops::reshape(&hidden, &[all, model.config.hidden_size])?;
    // States before tokens that do not count need no scores, which are most of the work of a small model.
    let logits = model.logits(source, &ops::rows(&states, &before)?)?;
    Ok((logits, tokens))
}

/// What a model says of the drawn rows of a task.
pub(super) struct Said<'a> {
    /// The task's rows.
    pub spoken: &'a Spoken,
    /// Places of the drawn ones.
    pub rows: &'a [u32],
    /// Scores `[tokens, vocabulary]` of the tokens that count.
    pub scores: &'a Value,
    /// These tokens.
    pub tokens: &'a [u32],
}

/// `f` of what the model says of the drawn rows, for every task that has some.
///
/// # Errors
/// As [`scores`], and what `f` reports.
pub(super) fn each<R>(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    drawn: &[Vec<u32>],
    mut f: impl FnMut(usize, &Said<'_>) -> Result<R>,
) -> Result<Vec<(usize, R)>> {
    let model = decoder(job.model)?;
    let mut found = Vec::new();
    for (k, (task, rows)) in tasks.iter().zip(drawn).enumerate() {
        let Some(spoken) = task.language.as_ref().filter(|_| !rows.is_empty()) else {
            continue;
        };
        let of: Vec<&Sequence> = rows.iter().map(|r| &spoken.train[*r as usize]).collect();
        let (scores, tokens) = scores(model, source, pad(job.reader), &of)?;
        let said = Said {
            spoken,
            rows,
            scores: &scores,
            tokens: &tokens,
        };
        found.push((k, f(k, &said)?));
    }
    Ok(found)
}

/// The losses of drawn rows by task.
///
/// # Errors
/// As [`scores`].
pub(super) fn losses(
    job: &Job<'_>,
    source: &dyn Source,
    tasks: &[Learned<'_>],
    drawn: &Drawn<'_>,
) -> Result<Vec<Part>> {
    let t = &job.recipe.train;
    let form = Form::of(t, drawn.done);
    let found = each(job, source, tasks, drawn.rows, |k, said| {
        let smoothing = t.smoothing as f32;
        let hard = match form {
            Form::Tokens => ops::cross_entropy(said.scores, said.tokens, smoothing)?,
            form => {
                let rows = said.rows.iter().map(|r| &said.spoken.train[*r as usize]);
                let lengths: Vec<usize> = rows.map(|s| s.ids.len() - s.from).collect();
                ops::weighed_cross_entropy(said.scores, said.tokens, smoothing, |losses| {
                    form.loss(losses, &lengths)
                })?
            }
        };
        let loss = match (&said.spoken.soft, &t.fuse) {
            (Some(soft), Some(fuse)) => soft.mixed(fuse, hard, said.scores, said.rows)?,
            _ => hard,
        };
        let number = f64::from(loss.number()?);
        let weight = tasks[k].given.spec.weights.train;
        let n = share(t, number, said.rows.len(), said.tokens.len(), weight);
        Ok((loss, n))
    })?;
    let part = |(task, (loss, n))| Part {
        task,
        losses: vec![Some(loss)],
        weights: vec![1.0],
        n,
        extra: None,
    };
    Ok(found.into_iter().map(part).collect())
}

/// The token that fills.
pub(super) fn pad(reader: &Reader) -> u32 {
    match reader {
        Reader::Texts(text) => text.pad(),
        Reader::Pictures(_) | Reader::Sensors(_) | Reader::Tables(_) => 0,
    }
}

/// Perplexity of sequences, `exp` of the mean over their tokens of the negative logarithm of what each was given, and
/// how many tokens that are. Sequences of like length go together, `batch` at a time.
///
/// # Errors
/// As [`scores`].
pub(super) fn perplexity(
    job: &Job<'_>,
    trainee: &Trainee,
    sequences: &[Sequence],
) -> Result<(f64, u64)> {
    let model = decoder(job.model)?;
    let mut order: Vec<&Sequence> = sequences.iter().collect();
    order.sort_by_key(|s| s.ids.len());
    let (mut sum, mut n) = (0.0, 0u64);
    trainee.with(None, |source| {
        for part in order.chunks(job.recipe.train.batch.max(1)) {
            let (said, tokens) = scores(model, source, pad(job.reader), part)?;
            let loss = f64::from(ops::cross_entropy(&said, &tokens, 0.0)?.number()?);
            sum += loss * tokens.len() as f64;
            n += tokens.len() as u64;
        }
        Ok(())
    })?;
    Ok(((sum / n.max(1) as f64).exp(), n))
}

/// Says which rows a loss that is not finite came from.
pub(super) fn shown(job: &Job<'_>, spoken: &Spoken, rows: &[u32]) -> String {
    let Some(sequence) = rows.first().map(|r| &spoken.train[*r as usize]) else {
        return String::new();
    };
    let text = match job.reader {
        Reader::Texts(text) => text.text(&sequence.ids).unwrap_or_default(),
        Reader::Pictures(_) | Reader::Sensors(_) | Reader::Tables(_) => String::new(),
    };
    text.chars().take(60).collect()
}
