//! What cells hold: labels, spans, scores, choices, rankings.

use serde_json::{Map, Value};

use super::answers::{number, plain, unpacked};
use super::goal::Goal;
use crate::error::{MergeError, Result};
use crate::evaluate::metric::skill_mix::Marks;
use crate::evaluate::metric::span::Span;

/// Whether a cell says yes.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::String(s) => matches!(&*s.trim().to_lowercase(), "true" | "1" | "1.0" | "yes"),
        other => number(other, false).is_some_and(|x| x != 0.0),
    }
}

/// The place of the largest, the first of equals.
pub(super) fn largest(scores: &[f64]) -> u32 {
    let better = |a: usize, b: usize| if scores[b] > scores[a] { b } else { a };
    u32::try_from((0..scores.len()).reduce(better).unwrap_or(0)).unwrap_or(0)
}

/// A list of scores, or an object from class to score.
pub(super) fn list(
    value: &Value,
    goal: &Goal,
    width: usize,
) -> std::result::Result<Vec<f64>, String> {
    let value = unpacked(value);
    let one = |v: &Value| {
        // lm-eval writes pairs of a log-likelihood and whether it is greedy.
        let v = v.as_array().and_then(|pair| pair.first()).unwrap_or(v);
        number(v, true).ok_or_else(|| format!("the score `{}` is no number", plain(v)))
    };
    let scores: Vec<f64> = match &value {
        Value::Array(list) => list
            .iter()
            .map(one)
            .collect::<std::result::Result<_, _>>()?,
        Value::Object(map) => {
            let names = goal.classes.iter();
            let of = |n: &String| {
                map.get(n)
                    .ok_or_else(|| format!("no score for class `{n}`"))
                    .and_then(one)
            };
            names.map(of).collect::<std::result::Result<_, _>>()?
        }
        other => return Err(format!("`{}` is no list of scores", plain(other))),
    };
    if scores.len() != width {
        return Err(format!("{} scores for {width} classes", scores.len()));
    }
    Ok(scores)
}

/// The choice that an answer names: its text, its number, or its letter, with or without brackets; one beyond the last
/// for none.
pub(super) fn chosen(answer: &str, choices: &[String]) -> u32 {
    let answer = answer.trim();
    let none = choices.len();
    let bare = answer.trim_matches(['(', ')', '.', ' ', ':']);
    let letter = match bare.as_bytes() {
        [b @ b'A'..=b'Z'] => Some(usize::from(b - b'A')),
        _ => None,
    };
    let place = choices.iter().position(|c| c.trim() == answer);
    let place = place.or_else(|| {
        choices
            .iter()
            .position(|c| c.trim().eq_ignore_ascii_case(bare))
    });
    let place = place.or_else(|| bare.parse().ok()).or(letter);
    u32::try_from(place.filter(|p| *p < none).unwrap_or(none)).unwrap_or(u32::MAX)
}

/// A ranking: documents best first, pairs of document and score, or an object from document to score.
pub(super) fn ranked(value: &Value) -> std::result::Result<Vec<(String, f64)>, String> {
    let score =
        |v: &Value| number(v, true).ok_or_else(|| format!("the score `{}` is no number", plain(v)));
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(d, s)| Ok((d.clone(), score(s)?)))
            .collect(),
        Value::Array(list) => {
            let n = list.len();
            let one = |(i, v): (usize, &Value)| match v.as_array().map(|a| &a[..]) {
                Some([document, s]) => Ok((plain(document), score(s)?)),
                Some(_) => Err(format!("`{v}` is not a document and its score")),
                None => Ok((plain(v), (n - i) as f64)),
            };
            list.iter().enumerate().map(one).collect()
        }
        other => {
            let words: Vec<Value> = labels_of(other);
            let n = words.len();
            Ok(words
                .iter()
                .enumerate()
                .map(|(i, d)| (plain(d), (n - i) as f64))
                .collect())
        }
    }
}

/// A ranking of candidates: by name, or by place (from 0) where no candidate has that name.
pub(super) fn among(
    ranking: Vec<(String, f64)>,
    candidates: &[String],
) -> std::result::Result<Vec<(String, f64)>, String> {
    let one = |(name, score): (String, f64)| {
        if candidates.contains(&name) {
            return Ok((name, score));
        }
        let place = name.parse::<usize>().ok();
        match place.and_then(|p| candidates.get(p)) {
            Some(candidate) => Ok((candidate.clone(), score)),
            None => Err(format!(
                "`{name}` is neither a candidate nor the place of one of the {}",
                candidates.len()
            )),
        }
    };
    ranking.into_iter().map(one).collect()
}

/// A list of numbers.
pub(super) fn numbers(value: &Value) -> std::result::Result<Vec<f64>, String> {
    let Value::Array(list) = unpacked(value) else {
        return Err(format!("`{}` is no list of numbers", plain(value)));
    };
    let one = |v: &Value| number(v, false).ok_or_else(|| format!("`{}` is no number", plain(v)));
    list.iter().map(one).collect()
}

/// Marks of a grader: `skills`, a list of true and false, with `topic`, `sense` and `length`. None without `skills`.
pub(super) fn marks(row: &Map<String, Value>) -> std::result::Result<Option<Marks>, String> {
    let Some(skills) = row.get("skills").filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let one = |name: &str| {
        let value = row.get(name).filter(|v| !v.is_null());
        value
            .map(truthy)
            .ok_or_else(|| format!("marks need `{name}`"))
    };
    Ok(Some(Marks {
        skills: labels_of(skills).iter().map(truthy).collect(),
        topic: one("topic")?,
        sense: one("sense")?,
        length: one("length")?,
    }))
}

/// A ranking of one document per row.
pub(super) fn long(
    rows: &[&Map<String, Value>],
    at: &dyn Fn() -> String,
) -> Result<Vec<(String, f64)>> {
    let one = |row: &&Map<String, Value>| {
        let names = ["document", "document_id", "corpus-id", "corpus_id", "docid"];
        let document = names.iter().find_map(|n| row.get(*n));
        let score = row.get("score").and_then(|s| number(s, true));
        match (document, score) {
            (Some(d), Some(s)) => Ok((plain(d), s)),
            _ => Err(MergeError::plan(
                "bad-prediction",
                "needs `ranking`, or `document` and `score`",
            )
            .at(at())),
        }
    };
    rows.iter().map(one).collect()
}

/// Labels of a cell: a list, or text with `|`, `,`, `;` or spaces between them.
pub(crate) fn labels_of(value: &Value) -> Vec<Value> {
    match unpacked(value) {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        Value::String(text) => {
            let between: &[char] = match &*text {
                t if t.contains('|') => &['|'],
                t if t.contains(';') => &[';'],
                t if t.contains(',') => &[','],
                _ => &[' ', '\t', '\n'],
            };
            let parts = text.split(between).map(str::trim).filter(|p| !p.is_empty());
            parts.map(Value::from).collect()
        }
        one => vec![one],
    }
}

/// Spans of a cell: a list of `{start, end, label}` (or `slot`, `type`, `entity`), or label -> text, found at its first
/// occurrence in the input.
pub(crate) fn spans(value: &Value, input: &str) -> std::result::Result<Vec<Span>, String> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        Value::Object(map) => {
            let mut spans = Vec::new();
            for (label, text) in map.iter().filter(|(_, t)| !t.is_null()) {
                let text = plain(text);
                // A text that is not in the input is a span that is nowhere: it counts as wrong.
                let at = input.find(&text).map(|b| input[..b].chars().count() as u64);
                let start = at.unwrap_or(u64::MAX / 2);
                spans.push(Span {
                    start,
                    end: start + text.chars().count() as u64,
                    label: label.clone(),
                });
            }
            return Ok(spans);
        }
        other => return Err(format!("`{}` is no list of spans", plain(other))),
    };
    let one = |v: &Value| {
        let place = |name: &str| {
            v.get(name)
                .and_then(|x| number(x, false))
                .filter(|x| *x >= 0.0)
        };
        let label = ["label", "slot", "type", "entity"]
            .iter()
            .find_map(|n| v.get(*n));
        match (place("start"), place("end"), label) {
            (Some(start), Some(end), Some(label)) => Ok(Span {
                start: start as u64,
                end: end as u64,
                label: plain(label),
            }),
            _ => Err(format!("`{v}` has not start, end and label")),
        }
    };
    list.iter().map(one).collect()
}

/// A class by its name; an answer that is none of them as it stands.
pub(super) fn shown(goal: &Goal, class: Option<u32>, value: &Value) -> String {
    match class {
        Some(c) if (c as usize) < goal.classes.len() => goal.class_name(c),
        _ => plain(value),
    }
}
