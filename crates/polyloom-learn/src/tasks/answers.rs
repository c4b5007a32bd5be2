//! Outputs of heads as the predictions that the board scores.

use std::borrow::Cow;
use std::path::Path;

use polyloom::evaluate::board::score::answers::Answers;
use polyloom::evaluate::board::score::examples::hex;
use polyloom::tasks::data::{Column, Table};
use serde_json::{Value, json};

use super::forward::Output;
use super::head::{Head, HeadKind, maps};
use crate::calibrate::{Level, within};
use crate::error::Result;

/// Predictions of a task's heads as a table, one row an example: its id, and of every head what it predicts and, of classes, a
/// probability of each. `heads` are those of the task's targets in their order (one without a name for a task without
/// targets), `outputs` what each said of every id. A number that is not finite is missing, and so is a map with one. Maps are bytes
/// as hexadecimal text.
#[must_use]
pub fn table(ids: &[String], heads: &[(&str, &Head)], outputs: &[Vec<Output>]) -> Table {
    let column = |stem: &str, target: &str| match target {
        "" => stem.to_owned(),
        target => format!("{stem}_{target}"),
    };
    let ids = ids.iter().map(Some).collect();
    let mut columns = vec![("id".to_owned(), Column::Text(ids))];
    for ((target, head), said) in heads.iter().zip(outputs) {
        columns.push((column("prediction", target), predictions(head, said)));
        match *target {
            _ if !head.kind.has_probabilities() => {}
            "" => {
                let all = said.iter().map(|said| Some(json!(said))).collect();
                columns.push(("probabilities".to_owned(), Column::Nested(all)));
            }
            _ => columns.extend(head.labels.iter().enumerate().map(|(at, label)| {
                let name = format!("score_{target}_{label}");
                (name, numbers(said, |said| said.get(at).copied()))
            })),
        }
    }
    Table::of(columns)
}

/// The same as answers that the board scores; `hash` says what they were made by.
#[must_use]
pub fn answers(
    model: &Path,
    hash: &str,
    ids: &[String],
    heads: &[(&str, &Head)],
    outputs: &[Vec<Output>],
) -> Answers {
    let table = table(ids, heads, outputs);
    Answers::of_table(model.to_owned(), hash.to_owned(), &table)
}

/// A column of numbers.
fn numbers(said: &[Output], of: impl Fn(&Output) -> Option<f32>) -> Column {
    let one = |said| of(said).filter(|x| x.is_finite()).map(f64::from);
    Column::Number(said.iter().map(one).collect())
}

/// Adds to predictions how far they may be off: of a number the ends of an interval (`TARGET.low`, `TARGET.high`), of classes
/// those whose probability is high enough (`TARGET.set`, a list; it may be empty), by what was fitted on validation rows.
///
/// Source of sets: Sadinle, Lei and Wasserman, JASA 2019 (the error is 1 less the probability of the right class).
///
/// # Errors
/// A head that nothing was fitted for, answers that are sets already, too few rows for the level.
pub fn with_intervals(
    answers: Table,
    heads: &[(&str, &Head)],
    outputs: &[Vec<Output>],
    level: Level,
) -> Result<Table> {
    let mut columns = Vec::new();
    for ((target, head), said) in heads.iter().zip(outputs) {
        let most = within(head, level)?;
        let target = if target.is_empty() {
            "prediction"
        } else {
            target
        };
        let name = |what: &str| format!("{target}.{what}");
        match head.kind {
            HeadKind::Regression => {
                for (name, off) in [(name("low"), -most), (name("high"), most)] {
                    let end = |said: &Output| said.first().map(|x| f64::from(*x) + off);
                    let ends = said.iter().map(|s| end(s).filter(|x| x.is_finite()));
                    columns.push((name, Column::Number(ends.collect())));
                }
            }
            HeadKind::Classification => {
                let set = |said: &Output| {
                    let classes = said.iter().zip(&head.labels);
                    let set = classes.filter(|(p, _)| 1.0 - f64::from(**p) <= most);
                    let set: Vec<&String> = set.map(|(_, label)| label).collect();
                    Some(json!(set))
                };
                let sets = said.iter().map(set).collect();
                columns.push((name("set"), Column::Nested(sets)));
            }
            // `within` has refused them.
            HeadKind::Multilabel | HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {}
        }
    }
    Ok(answers.with(columns))
}

/// Brings lists of probabilities to the classes that the rows of a split have, where these are other ones than the head's:
/// by name where the head knows them all, else the lists go.
pub fn scores_by_name(answers: &mut Answers, head: &Head, classes: &[String]) {
    let stem = "probabilities";
    if !head.kind.has_probabilities() || head.labels == classes {
        return;
    }
    let place = |c: &String| head.labels.iter().position(|l| l == c);
    let order: Option<Vec<usize>> = classes.iter().map(place).collect();
    for row in &mut answers.rows {
        let list = row.get(stem).and_then(Value::as_array);
        match (list, &order) {
            (Some(list), Some(order)) => {
                let taken: Vec<Value> = order.iter().map(|i| list[*i].clone()).collect();
                row.insert(stem.into(), taken.into());
            }
            _ => {
                row.shift_remove(stem);
            }
        }
    }
    if order.is_none() {
        answers.columns.retain(|c| c != stem);
    }
}

/// What a head predicts, in words: the likeliest class (of equals the first) or the one that a cut says, the classes above one
/// half, or the number.
fn predictions(head: &Head, said: &[Output]) -> Column {
    let name = |i: usize| match head.labels.get(i) {
        Some(label) => Cow::Borrowed(&**label),
        None => Cow::Owned(i.to_string()),
    };
    match head.kind {
        HeadKind::Classification => {
            let calibration = head.calibration.as_ref();
            let class = |said: &Output| {
                let cut = calibration.and_then(|c| c.answer(said));
                Some(name(cut.unwrap_or_else(|| largest(said))))
            };
            Column::Text(said.iter().map(class).collect())
        }
        HeadKind::Multilabel => {
            let classes = |said: &Output| {
                let over = said.iter().enumerate().filter(|(_, p)| **p > 0.5);
                Some(over.map(|(i, _)| Value::from(&*name(i))).collect())
            };
            Column::Nested(said.iter().map(classes).collect())
        }
        HeadKind::Regression | HeadKind::Embedding => numbers(said, |said| said.first().copied()),
        HeadKind::Items => {
            Column::Nested(said.iter().map(|said| Some(ranked(head, said))).collect())
        }
        HeadKind::Dense(pixels) => {
            let map = |said: &Output| maps::bytes(pixels, said).map(|bytes| hex(&bytes));
            Column::Text(said.iter().map(map).collect())
        }
    }
}

/// The items of an answer with their scores, the best first: `[["item", 3.2], ...]`. Scores that are not finite are 0.
fn ranked(head: &Head, said: &Output) -> Value {
    let one = |pair: &[f32]| {
        let name = head.labels.get(*pair.first()? as usize)?;
        let score = pair.get(1).copied().filter(|s| s.is_finite());
        Some(json!([name, score.unwrap_or(0.0)]))
    };
    said.chunks(2).filter_map(one).collect()
}

/// Place of the largest value, of equals the first.
#[must_use]
pub fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in values.iter().enumerate() {
        if *x > values[best] {
            best = i;
        }
    }
    best
}
