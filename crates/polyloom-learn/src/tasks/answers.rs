//! Outputs of heads as the predictions that the board scores.

use std::path::Path;

use polyloom::evaluate::board::score::answers::{Answers, Columns};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::forward::Output;
use super::head::{Head, HeadKind};

/// Predictions of a task's heads, one row an example. `heads` are those of the task's targets in their order (one without
/// a name for a task without targets), `outputs` what each said of every id; `hash` says what they were made by.
#[must_use]
pub fn answers(
    model: &Path,
    hash: &str,
    ids: &[String],
    heads: &[(&str, &Head)],
    outputs: &[Vec<Output>],
) -> Answers {
    let column = |stem: &str, target: &str| match target {
        "" => stem.to_owned(),
        target => format!("{stem}_{target}"),
    };
    let mut columns = vec!["id".to_owned()];
    for (target, head) in heads {
        columns.push(column("prediction", target));
        if !head.kind.is_number() {
            match *target {
                "" => columns.push("probabilities".to_owned()),
                target => columns.extend(head.labels.iter().map(|l| format!("score_{target}_{l}"))),
            }
        }
    }
    let row = |i: usize| {
        let mut names = columns.iter();
        let mut row = Map::new();
        let mut put = |value: Option<Value>| {
            if let (Some(name), Some(value)) = (names.next(), value) {
                row.insert(name.clone(), value);
            }
        };
        put(Some(ids[i].clone().into()));
        for ((target, head), said) in heads.iter().zip(outputs) {
            let said = &said[i];
            put(Some(prediction(head, said)));
            match *target {
                _ if head.kind.is_number() => {}
                "" => put(Some(json!(said))),
                _ => {
                    for at in 0..head.labels.len() {
                        put(said.get(at).map(|p| json!(p)));
                    }
                }
            }
        }
        row
    };
    Answers {
        path: model.to_owned(),
        hash: hash.to_owned(),
        rows: (0..ids.len()).into_par_iter().map(row).collect(),
        columns,
        task: None,
        chosen: Columns {
            id: Some("id".into()),
            ..Columns::default()
        },
    }
}

/// Brings lists of probabilities to the classes that the rows of a split have, where these are other ones than the head's:
/// by name where the head knows them all, else the lists go.
pub fn scores_by_name(answers: &mut Answers, head: &Head, classes: &[String]) {
    let stem = "probabilities";
    if head.kind.is_number() || head.labels == classes {
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

/// What a head said, in words: the likeliest class (of equals the first), the classes above one half, or the number.
#[must_use]
pub fn prediction(head: &Head, said: &[f32]) -> Value {
    let name = |i: usize| {
        let label = head.labels.get(i);
        label.map_or_else(|| i.to_string(), Clone::clone)
    };
    match head.kind {
        HeadKind::Classification => name(largest(said)).into(),
        HeadKind::Multilabel => {
            let over = said.iter().enumerate().filter(|(_, p)| **p > 0.5);
            over.map(|(i, _)| Value::from(name(i))).collect()
        }
        HeadKind::Regression | HeadKind::Embedding => {
            said.first().map_or(Value::Null, |x| json!(x))
        }
    }
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
