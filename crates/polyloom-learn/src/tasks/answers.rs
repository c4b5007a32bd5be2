//! Outputs of heads as the predictions that the board scores.

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::forward::Output;
use super::head::{Head, HeadKind};
use crate::calibrate::Level;
use crate::error::Result;

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

/// Adds to predictions how far they may be off: of a number the ends of an interval (`TARGET.low`, `TARGET.high`), of classes
/// those whose probability is high enough (`TARGET.set`, a list; it may be empty), by what was fitted on validation rows.
///
/// Source of sets: Sadinle, Lei and Wasserman, JASA 2019 (the error is 1 less the probability of the right class).
///
/// # Errors
/// A head that nothing was fitted for, answers that are sets already, too few rows for the level.
pub fn add_intervals(
    answers: &mut Answers,
    heads: &[(&str, &Head)],
    outputs: &[Vec<Output>],
    level: Level,
) -> Result<()> {
    for ((target, head), said) in heads.iter().zip(outputs) {
        let no = |what: &str| {
            MergeError::plan("no-interval", format!("`{}` {what}", head.task)).hint(
                "polyloom calibrate MODEL -t SPEC fits intervals on validation rows, of models of tables",
            )
        };
        let of = head.calibration.as_ref();
        let of = of.ok_or_else(|| no("has no intervals yet"))?;
        let most = of.errors.quantile(level, &head.task)?;
        let target = if target.is_empty() {
            "prediction"
        } else {
            target
        };
        let column = |what: &str| format!("{target}.{what}");
        match head.kind {
            HeadKind::Regression => {
                for (name, off) in [(column("low"), -most), (column("high"), most)] {
                    for (row, said) in answers.rows.iter_mut().zip(said) {
                        let end = said.first().map(|x| f64::from(*x) + off);
                        row.insert(name.clone(), json!(end));
                    }
                    answers.columns.push(name);
                }
            }
            HeadKind::Classification => {
                let name = column("set");
                for (row, said) in answers.rows.iter_mut().zip(said) {
                    let classes = said.iter().zip(&head.labels);
                    let set = classes.filter(|(p, _)| 1.0 - f64::from(**p) <= most);
                    let set: Vec<&String> = set.map(|(_, label)| label).collect();
                    row.insert(name.clone(), json!(set));
                }
                answers.columns.push(name);
            }
            HeadKind::Multilabel | HeadKind::Embedding => {
                return Err(
                    no("answers with sets of labels or vectors, which have no interval").into(),
                );
            }
        }
    }
    Ok(())
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

/// What a head said, in words: the likeliest class (of equals the first) or the one that a cut says, the classes above one
/// half, or the number.
#[must_use]
pub fn prediction(head: &Head, said: &[f32]) -> Value {
    let name = |i: usize| {
        let label = head.labels.get(i);
        label.map_or_else(|| i.to_string(), Clone::clone)
    };
    match head.kind {
        HeadKind::Classification => {
            let cut = head.calibration.as_ref().and_then(|c| c.answer(said));
            name(cut.unwrap_or_else(|| largest(said))).into()
        }
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
