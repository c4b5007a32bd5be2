//! From rows to features and outputs of heads: the one way through a model that training and evaluation share.

mod groups;
mod sensors;
mod sessions;

use polyloom_core::nn::softmax;

use super::head::{Feature, Head, HeadKind, maps};
use super::rows::{Reader, Shown};
use super::search::{DEPTH, nearest};
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::image::Preparation;
use crate::models::open::{Model, Trunk};
use crate::models::sentence::{Pooling, pooled};
use crate::models::table::TableBatch;
use crate::models::{Batch, Source, Tokens};
use crate::ops::{self, Activation};
use crate::table::Row;
use crate::text::Text;

/// What is said of a model of tables that there is not.
const NO_TABLE: &str = "rows of a table for another model";

/// Features of the inputs of several tasks in one pass of the trunk: for each part `[inputs, width]`.
///
/// # Errors
/// Inputs that the model does not take, tensors that are absent or of another shape.
pub fn features(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    parts: &[(Feature, Vec<&Shown>)],
) -> Result<Vec<Value>> {
    match reader {
        Reader::Tables(preparation) => {
            let one = |(_, shown): &(Feature, Vec<&Shown>)| match preparation.groups() {
                None => of_all_goals(model, source, shown),
                Some(groups) => of_own_goals(model, source, groups.values.len(), shown),
            };
            parts.iter().map(one).collect()
        }
        Reader::Pictures(preparation) => {
            let shown: Vec<&Shown> = parts.iter().flat_map(|(_, s)| s).copied().collect();
            seen(model, source, &pixels(preparation, &shown)?, parts)
        }
        Reader::Sensors(sensors) => sensors::features(model, source, sensors, parts),
        Reader::Texts(text) => of_texts(model, source, text, parts, Vec::new()),
    }
}

/// Features of texts; `goals`: the one that every sequence passes for, as [`joined`] orders them, where there are any.
fn of_texts(
    model: &Model,
    source: &dyn Source,
    text: &Text,
    parts: &[(Feature, Vec<&Shown>)],
    goals: Vec<u32>,
) -> Result<Vec<Value>> {
    let (mut batch, how) = joined(text, parts, model.sentence.pooling)?;
    batch.goals = goals;
    let vectors = pooled(&model.hidden(source, &batch)?, &batch, &how)?;
    let (mut found, mut at) = (Vec::new(), 0);
    for (feature, shown) in parts {
        let n = shown.len();
        let first = ops::narrow(&vectors, 0, at, n)?;
        at += n;
        let mut second = || {
            let second = ops::narrow(&vectors, 0, at, n);
            at += n;
            second
        };
        found.push(match feature {
            Feature::Pair => pair(&first, &second()?)?,
            Feature::Embedding => ops::unit_length(&first)?,
            Feature::Embeddings => {
                let both = [ops::unit_length(&first)?, ops::unit_length(&second()?)?];
                ops::concat(&[&both[0], &both[1]], 1)?
            }
            Feature::Pooled => model.pool(source, &first)?,
            _ => first,
        });
    }
    Ok(found)
}

/// What heads of several tasks see of their inputs: for each part one value for all heads, or one for each in their order where
/// inputs pass for goals (a model whose experts are chosen by goal, or whose goals have memories). The trunk runs once over all.
///
/// # Errors
/// As [`features`].
pub fn by_head(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    parts: &[(Feature, Vec<&Head>, Vec<&Shown>)],
) -> Result<Vec<Vec<Value>>> {
    if let (Trunk::Table(table), Some(_)) = (&model.trunk, sessions::of(reader)) {
        let one = |(_, heads, shown): &(Feature, Vec<&Head>, Vec<&Shown>)| {
            sessions::visited(table, source, heads, shown)
        };
        return parts.iter().map(one).collect();
    }
    let preparation = match (model.goals(), reader) {
        (Some(_), Reader::Pictures(preparation)) => preparation,
        (Some(_), Reader::Texts(text)) => return texts_by_head(model, source, text, parts),
        _ => {
            let plain: Vec<(Feature, Vec<&Shown>)> =
                parts.iter().map(|(f, _, s)| (*f, s.clone())).collect();
            let found = features(model, source, reader, &plain)?;
            return Ok(found.into_iter().map(|one| vec![one]).collect());
        }
    };
    let tokens = match model.passes_apart() {
        true => apart(model, source, preparation, parts)?,
        false => remembered(model, source, preparation, parts)?,
    };
    let mut tokens = tokens.into_iter();
    let mut one = |(feature, heads, part): &(Feature, Vec<&Head>, Vec<&Shown>)| {
        let own = tokens.by_ref().take(heads.len());
        let seen = own.map(|own| match feature {
            Feature::Patches => Ok(own),
            _ => {
                let class = ops::narrow(&own, 1, 0, 1)?;
                ops::reshape(&class, &[part.len(), model.width()])
            }
        });
        seen.collect()
    };
    parts.iter().map(&mut one).collect()
}

/// Tokens of the pictures of parts for the goal of every head, part by part: the pictures of a part pass once for each.
fn apart(
    model: &Model,
    source: &dyn Source,
    preparation: &Preparation,
    parts: &[(Feature, Vec<&Head>, Vec<&Shown>)],
) -> Result<Vec<Value>> {
    let (mut shown, mut goals): (Vec<&Shown>, Vec<u32>) = (Vec::new(), Vec::new());
    for (_, heads, part) in parts {
        for head in heads {
            shown.extend(part);
            goals.extend(vec![head.goal as u32; part.len()]);
        }
    }
    let tokens = model.patches(source, &pixels(preparation, &shown)?, &goals)?;
    let (mut found, mut at) = (Vec::new(), 0);
    for (_, heads, part) in parts {
        for _ in heads {
            found.push(ops::narrow(&tokens, 0, at, part.len())?);
            at += part.len();
        }
    }
    Ok(found)
}

/// The same of goals with memories: all pictures pass once.
fn remembered(
    model: &Model,
    source: &dyn Source,
    preparation: &Preparation,
    parts: &[(Feature, Vec<&Head>, Vec<&Shown>)],
) -> Result<Vec<Value>> {
    let (mut shown, mut asked) = (Vec::new(), Vec::new());
    for (_, heads, part) in parts {
        let own = shown.len()..shown.len() + part.len();
        shown.extend(part);
        asked.extend(heads.iter().map(|head| (head.goal, own.clone())));
    }
    model.remembered(source, &pixels(preparation, &shown)?, &asked)
}

/// What heads see of texts that pass once for the goal of each.
fn texts_by_head(
    model: &Model,
    source: &dyn Source,
    text: &Text,
    parts: &[(Feature, Vec<&Head>, Vec<&Shown>)],
) -> Result<Vec<Vec<Value>>> {
    let (mut passes, mut goals) = (Vec::new(), Vec::new());
    for (feature, heads, shown) in parts {
        let sequences = shown.len() * if feature.is_of_two() { 2 } else { 1 };
        for head in heads {
            passes.push((*feature, shown.clone()));
            goals.extend(vec![head.goal as u32; sequences]);
        }
    }
    let mut found = of_texts(model, source, text, &passes, goals)?.into_iter();
    let of = |(_, heads, _): &(Feature, Vec<&Head>, Vec<&Shown>)| {
        found.by_ref().take(heads.len()).collect()
    };
    Ok(parts.iter().map(of).collect())
}

/// Features of rows for all goals, `[rows, goals * width]`; in training behind them what else goals learn from
/// ([`TableModel::learning`](crate::models::table::TableModel::learning)).
fn of_all_goals(model: &Model, source: &dyn Source, shown: &[&Shown]) -> Result<Value> {
    match &model.trunk {
        Trunk::Table(table) => {
            let (goals, batch) = (0..table.config.goals.len(), rows(shown)?);
            if source.dropout().is_some()
                && let Some(whole) = table.learning(source, &batch)?
            {
                return Ok(whole);
            }
            let found = table.forward(source, &batch, goals)?;
            ops::concat(&found.iter().collect::<Vec<_>>(), 1)
        }
        Trunk::Forest(forest) => forest.forward(&of_table(shown)?),
        _ => Err(Error::shape("features", NO_TABLE)),
    }
}

/// Features of rows for the goals of their own groups, `[rows, targets * width + 1]`: the last column is the group.
fn of_own_goals(
    model: &Model,
    source: &dyn Source,
    groups: usize,
    shown: &[&Shown],
) -> Result<Value> {
    let table = of_table(shown)?;
    let of: Option<Vec<u32>> = table.iter().map(|r| r.group).collect();
    let of = of.ok_or_else(|| Error::shape("features", "a row of a group without a goal"))?;
    let found = match &model.trunk {
        Trunk::Table(model) => model.forward_own(source, &rows(shown)?, &of, groups)?,
        Trunk::Forest(forest) => vec![forest.forward_own(&table, &of, groups)?],
        _ => return Err(Error::shape("features", NO_TABLE)),
    };
    let last = of.iter().map(|g| *g as f32).collect();
    let last = Value::constant(tensor(last, (of.len(), 1))?);
    ops::concat(&found.iter().chain([&last]).collect::<Vec<_>>(), 1)
}

/// Whether groups have goals of their own.
pub(crate) fn has_groups(reader: &Reader) -> bool {
    matches!(reader, Reader::Tables(table) if table.groups().is_some())
}

/// Inputs that are rows of a table.
fn of_table<'s>(shown: &[&'s Shown]) -> Result<Vec<&'s Row>> {
    let row = |shown: &&'s Shown| match shown {
        Shown::Row(row) => Ok(&**row),
        _ => Err(Error::shape("features", "no rows for a model of tables")),
    };
    shown.iter().map(row).collect()
}

/// Rows of a table as a batch.
///
/// # Errors
/// Inputs that are none.
pub fn rows(shown: &[&Shown]) -> Result<TableBatch> {
    batch(of_table(shown)?.into_iter(), shown.len())
}

/// Prepared rows as a batch.
fn batch<'r>(all: impl Iterator<Item = &'r Row>, count: usize) -> Result<TableBatch> {
    let (mut numbers, mut codes) = (Vec::new(), Vec::new());
    let mut before = Vec::new();
    for row in all {
        numbers.extend_from_slice(&row.numbers);
        codes.extend_from_slice(&row.codes);
        before.extend(row.before.clone());
    }
    let width = numbers.len() / count.max(1);
    Ok(TableBatch {
        rows: count,
        numbers: Value::constant(tensor(numbers, (count, width))?),
        codes,
        before,
    })
}

/// Pictures as a model takes them, `[images, channels, size, size]`.
///
/// # Errors
/// Inputs that are texts.
pub fn pixels(preparation: &Preparation, shown: &[&Shown]) -> Result<Value> {
    let mut pixels = Vec::new();
    for shown in shown {
        let Shown::Planes(planes) = shown else {
            return Err(Error::shape("features", "tokens for a model of pictures"));
        };
        pixels.extend(preparation.values(planes));
    }
    let (channels, size) = (preparation.channels, preparation.size);
    Ok(Value::constant(tensor(
        pixels,
        vec![shown.len(), channels, size, size],
    )?))
}

/// All sequences of several tasks as one batch, and how each is pooled (`embedding`: how the model pools its own vectors). A
/// part of two texts comes with its first texts, then its second ones.
///
/// # Errors
/// Inputs that a feature does not read.
pub fn joined(
    text: &Text,
    parts: &[(Feature, Vec<&Shown>)],
    embedding: Pooling,
) -> Result<(Batch, Vec<Pooling>)> {
    let (mut sequences, mut how): (Vec<&Tokens>, Vec<Pooling>) = (Vec::new(), Vec::new());
    for (feature, shown) in parts {
        let start = sequences.len();
        let mut second = Vec::new();
        for shown in shown {
            match (feature.is_of_two(), shown) {
                (true, Shown::Two(two)) => {
                    sequences.push(&two[0]);
                    second.push(&two[1]);
                }
                (false, Shown::One(one)) => sequences.push(one),
                _ => return Err(unread(*feature)),
            }
        }
        sequences.extend(second);
        let pooling = match feature {
            Feature::Cls | Feature::Pooled => Pooling::First,
            Feature::Last => Pooling::Last,
            Feature::Mean | Feature::Pair => Pooling::Mean,
            Feature::Embedding | Feature::Embeddings => embedding,
            Feature::Goal | Feature::Patches => return Err(unread(*feature)),
        };
        how.extend(vec![pooling; sequences.len() - start]);
    }
    Ok((Batch::of(&sequences, text.pad())?, how))
}

fn unread(feature: Feature) -> Error {
    Error::shape(
        "features",
        format!("inputs that the feature `{}` does not read", feature.word()),
    )
}

/// All sequences of several tasks as one batch, as [`joined`] orders them.
///
/// # Errors
/// As [`joined`].
pub fn batched(text: &Text, parts: &[(Feature, Vec<&Shown>)]) -> Result<Batch> {
    Ok(joined(text, parts, Pooling::Mean)?.0)
}

/// Features of pictures, in the order of the parts.
///
/// # Errors
/// As [`features`].
pub fn seen(
    model: &Model,
    source: &dyn Source,
    pixels: &Value,
    parts: &[(Feature, Vec<&Shown>)],
) -> Result<Vec<Value>> {
    let all = parts.iter().any(|(f, _)| *f == Feature::Patches);
    let seen = match all {
        true => model.patches(source, pixels, &[])?,
        false => model.look(source, pixels)?,
    };
    let (mut found, mut at) = (Vec::new(), 0);
    for (feature, shown) in parts {
        if !matches!(feature, Feature::Cls | Feature::Patches) {
            return Err(Error::shape(
                "features",
                format!(
                    "the feature `{}` of pictures; they have `cls` and `patches`",
                    feature.word()
                ),
            ));
        }
        let part = ops::narrow(&seen, 0, at, shown.len())?;
        at += shown.len();
        found.push(match (all, feature) {
            (true, Feature::Cls) => {
                let class = ops::narrow(&part, 1, 0, 1)?;
                ops::reshape(&class, &[shown.len(), model.width()])?
            }
            _ => part,
        });
    }
    Ok(found)
}

/// `[u, v, |u - v|, u * v]`.
fn pair(u: &Value, v: &Value) -> Result<Value> {
    let apart = ops::sub(u, v)?;
    let far = ops::add(
        &ops::activate(&apart, Activation::Relu)?,
        &ops::activate(&ops::scale(&apart, -1.0)?, Activation::Relu)?,
    )?;
    ops::concat(&[u, v, &far, &ops::mul(u, v)?], 1)
}

/// What a head says of one input: probabilities of its classes, a number, or a value per pixel.
pub type Output = Vec<f32>;

/// Outputs of heads that see the same feature, for each head and input, in the order given. The trunk runs once for all
/// of them, over batches of inputs of like length. Where groups have goals of their own, a row of another group gets the mean
/// of the groups' answers.
///
/// # Errors
/// As [`features`].
pub fn outputs(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    heads: &[&Head],
    shown: &[Shown],
    batch: usize,
) -> Result<Vec<Vec<Output>>> {
    if let Some((all, of)) = groups::spread(reader, shown) {
        let found = outputs(model, source, reader, heads, &all, batch)?;
        return Ok(found
            .iter()
            .map(|f| groups::means(f, &of, shown.len()))
            .collect());
    }
    run(model, source, reader, heads, shown, batch, said)
}

/// The same before probabilities are made: what the last layer of each head gives.
///
/// # Errors
/// As [`features`]; where groups have goals of their own a row of another group.
pub fn scores(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    heads: &[&Head],
    shown: &[Shown],
    batch: usize,
) -> Result<Vec<Vec<Output>>> {
    run(model, source, reader, heads, shown, batch, |_, row| row)
}

/// What `say` makes of the outputs of every head, batch by batch: of maps what is kept is smaller than what heads give.
fn run(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    heads: &[&Head],
    shown: &[Shown],
    batch: usize,
    say: impl Fn(&Head, Output) -> Output,
) -> Result<Vec<Vec<Output>>> {
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(|&i| (shown[i].length(), i));
    let mut found = vec![vec![Output::new(); shown.len()]; heads.len()];
    let Some(first) = heads.first().map(|h| h.feature) else {
        return Ok(found);
    };
    let feature = Feature::common(heads.iter().map(|h| h.feature)).unwrap_or(first);
    for part in order.chunks(batch.max(1)) {
        let of: Vec<&Shown> = part.iter().map(|&i| &shown[i]).collect();
        let seen = by_head(model, source, reader, &[(feature, heads.to_vec(), of)])?;
        let seen: Vec<&Value> = seen.iter().flatten().collect();
        for (place, (head, found)) in heads.iter().zip(&mut found).enumerate() {
            let scores = head.forward(source, seen.get(place).unwrap_or(&seen[0]))?;
            let values = slice(scores.data())?;
            let width = scores.dims().last().copied().unwrap_or(0).max(1);
            for (&i, row) in part.iter().zip(values.chunks_exact(width)) {
                found[i] = say(head, row.to_vec());
            }
        }
    }
    Ok(found)
}

/// Probabilities (calibrated where the head is), the number in its own unit, the cosine of two vectors, a map, or the places of the
/// [`DEPTH`] best items each before its score, of a head's raw output.
#[must_use]
pub fn said(head: &Head, mut row: Output) -> Output {
    match head.kind {
        HeadKind::Classification => {
            let calibrated = head.calibration.as_ref();
            if let Some(p) = calibrated.and_then(|c| c.probabilities(&row)) {
                return p;
            }
            let width = row.len().max(1);
            softmax::forward(&mut row, width);
        }
        HeadKind::Multilabel => row.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
        HeadKind::Regression => {
            let [mean, deviation] = head.scale;
            row.iter_mut()
                .for_each(|x| *x = (f64::from(*x) * deviation + mean) as f32);
        }
        HeadKind::Dense(pixels) => return maps::said(head, pixels, row),
        HeadKind::Items => {
            let best = nearest(&row, DEPTH, |_| false);
            return best.into_iter().flat_map(|i| [i as f32, row[i]]).collect();
        }
        HeadKind::Embedding => {
            let (u, v) = row.split_at(row.len() / 2);
            let cosine: f64 = u.iter().zip(v).map(|(a, b)| f64::from(a * b)).sum();
            return vec![cosine as f32];
        }
    }
    row
}
