//! `samples_*.jsonl` of lm-evaluation-harness: what was asked, said and found right, one question a line.

use std::path::Path;

use serde_json::{Map, Value};

use super::answers::{Answers, number, plain};
use crate::error::Result;

/// Whether a file has the columns of lm-eval samples.
#[must_use]
pub fn is_samples(columns: &[String]) -> bool {
    let has = |name: &str| columns.iter().any(|c| c == name);
    has("doc_id") && (has("filtered_resps") || has("resps"))
}

/// The task in the name of the file: `samples_<task>_<date>.jsonl`.
#[must_use]
pub fn task_name(path: &Path) -> String {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name = stem.strip_prefix("samples_").unwrap_or(&stem);
    // 2024-05-01T10-11-12.345678
    let date =
        |t: &str| t.len() >= 19 && t.as_bytes()[4] == b'-' && t.as_bytes().get(10) == Some(&b'T');
    match name.rsplit_once('_') {
        Some((task, rest)) if rest.is_ascii() && date(rest) => task.to_owned(),
        _ => name.to_owned(),
    }
}

/// What was said in a row: a text, several, or log-likelihoods of the choices.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// One text.
    Text(String),
    /// Several attempts.
    Texts(Vec<String>),
    /// A log-likelihood per choice.
    Logliks(Vec<f64>),
    /// The log-likelihood of a text.
    Loglik(f64),
}

/// Reads `filtered_resps` (else `resps`).
#[must_use]
pub fn said(row: &Map<String, Value>) -> Option<Said> {
    let filtered = row.get("filtered_resps").or(row.get("resps"))?;
    let list = filtered.as_array()?;
    // resps holds one list per request, filtered_resps one answer per request.
    let flat: Vec<&Value> = list.iter().map(innermost).collect();
    let loglik = |v: &Value| match v.as_array().map(|a| &a[..]) {
        Some([l, _]) => number(l, true),
        _ => None,
    };
    let logliks: Option<Vec<f64>> = flat.iter().map(|v| loglik(v)).collect();
    match (logliks, &flat[..]) {
        (_, []) => None,
        (Some(list), [_]) => list.first().copied().map(Said::Loglik),
        (Some(list), _) => Some(Said::Logliks(list)),
        (None, [Value::Number(x)]) => x.as_f64().map(Said::Loglik),
        (None, [one]) => match one.as_array() {
            Some(several) => Some(Said::Texts(several.iter().map(plain).collect())),
            None => Some(Said::Text(plain(one))),
        },
        (None, several) => Some(Said::Texts(several.iter().map(|v| plain(v)).collect())),
    }
}

/// Lists of one list are that list: `[[[-1.5, false]]]` and `[["text"]]` say one thing.
fn innermost(value: &Value) -> &Value {
    match value.as_array().map(|a| &a[..]) {
        Some([one]) => innermost(one),
        _ => value,
    }
}

/// The metrics of a row: those that it names in `metrics`, else its numbers under names of metrics.
#[must_use]
pub fn metrics(row: &Map<String, Value>) -> Vec<String> {
    let is_number = |name: &String| row.get(name).is_some_and(|v| number(v, false).is_some());
    if let Some(list) = row.get("metrics").and_then(Value::as_array) {
        return list.iter().map(plain).filter(is_number).collect();
    }
    let known = |name: &String| crate::evaluate::metric::registry::find(name).is_some();
    row.iter()
        .filter(|(name, value)| known(name) && number(value, false).is_some())
        .map(|(name, _)| name.clone())
        .collect()
}

/// A row as a comparison reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// `task`, or `task/filter` where answers went through a filter.
    pub task: String,
    /// What was said: a text, or the number of the likeliest choice.
    pub prediction: String,
    /// The first metric of which more is better.
    pub value: Option<f64>,
}

/// A row of samples for a comparison; `None` for other rows.
#[must_use]
pub fn compared(row: &Map<String, Value>, path: &Path) -> Option<Compared> {
    let columns: Vec<String> = row.keys().cloned().collect();
    if !is_samples(&columns) {
        return None;
    }
    let better = |name: &String| {
        let known = crate::evaluate::metric::registry::find(name);
        known.is_none_or(crate::evaluate::metric::registry::Metric::higher_is_better)
    };
    let name = metrics(row).into_iter().find(better);
    let filter = row.get("filter").map(plain).filter(|f| f != "none");
    let task = task_name(path);
    Some(Compared {
        task: filter.map_or(task.clone(), |f| format!("{task}/{f}")),
        prediction: match said(row) {
            Some(Said::Text(text)) => text,
            Some(Said::Texts(list)) => list.join("\n---\n"),
            Some(Said::Logliks(list)) => {
                let better = |a: usize, b: usize| if list[b] > list[a] { b } else { a };
                let best = (0..list.len()).reduce(better).unwrap_or(0);
                best.to_string()
            }
            _ => String::new(),
        },
        value: name.and_then(|n| number(row.get(&n)?, false)),
    })
}

/// Turns rows of samples into rows of predictions: `output`, `outputs` or `loglik` beside what they hold. A file without
/// samples stays as it is.
///
/// # Errors
/// Answers of several filters, of which one must be chosen.
pub fn prepare(answers: &mut Answers) -> Result<()> {
    if !is_samples(&answers.columns) {
        return Ok(());
    }
    let mut filters: Vec<String> = answers
        .rows
        .iter()
        .filter_map(|r| r.get("filter"))
        .map(plain)
        .collect();
    filters.sort();
    filters.dedup();
    if filters.len() > 1 {
        let what = format!(
            "holds answers through {} filters: {}",
            filters.len(),
            filters.join(", ")
        );
        return Err(answers
            .bad("several-filters", what)
            .hint(format!("--only filter={} takes one", filters[0])));
    }
    for row in &mut answers.rows {
        let (name, value) = match said(row) {
            Some(Said::Text(text)) => ("output", Value::from(text)),
            Some(Said::Texts(list)) => ("outputs", Value::from(list)),
            Some(Said::Logliks(list)) => ("loglik", list.iter().map(|x| pair(*x)).collect()),
            Some(Said::Loglik(x)) => ("loglik", pair(x)),
            None => continue,
        };
        row.insert(name.to_owned(), value);
        if !answers.columns.iter().any(|c| c == name) {
            answers.columns.push(name.to_owned());
        }
    }
    Ok(())
}

/// A number as JSON; minus infinity is a word there.
fn pair(x: f64) -> Value {
    if x.is_finite() {
        Value::from(x)
    } else {
        Value::from("-inf")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> Option<Said> {
        said(json!({"filtered_resps": value}).as_object().unwrap())
    }

    #[test]
    fn answers_of_every_kind() {
        assert_eq!(of(&json!(["yes"])), Some(Said::Text("yes".into())));
        assert_eq!(
            of(&json!([["a", "b"]])),
            Some(Said::Texts(vec!["a".into(), "b".into()]))
        );
        assert_eq!(
            of(&json!([[-1.5, false], [-0.5, true]])),
            Some(Said::Logliks(vec![-1.5, -0.5]))
        );
        assert_eq!(
            of(&json!([["-1.5", "False"], ["-0.5", "True"]])),
            Some(Said::Logliks(vec![-1.5, -0.5]))
        );
        assert_eq!(of(&json!([[[-12.5, false]]])), Some(Said::Loglik(-12.5)));
        assert_eq!(of(&json!([-12.5])), Some(Said::Loglik(-12.5)));
        assert_eq!(of(&json!([])), None);
        let resps = json!({"resps": [[[-1.5, false]], [[-0.5, true]]]});
        assert_eq!(
            said(resps.as_object().unwrap()),
            Some(Said::Logliks(vec![-1.5, -0.5]))
        );
    }

    #[test]
    fn a_row_to_compare() {
        let row = json!({"doc_id": 3, "filter": "strict", "filtered_resps": [[-1.5, false], [-0.5, true]],
            "metrics": ["brier_score", "acc"], "brier_score": 0.3, "acc": 1.0});
        let row = row.as_object().unwrap();
        let found = compared(row, Path::new("samples_arc.jsonl")).unwrap();
        assert_eq!(
            (&*found.task, &*found.prediction, found.value),
            ("arc/strict", "1", Some(1.0))
        );
        assert_eq!(
            compared(json!({"doc_id": 3}).as_object().unwrap(), Path::new("x")),
            None
        );
    }

    #[test]
    fn names_of_tasks() {
        let name = |f: &str| task_name(Path::new(f));
        assert_eq!(
            name("samples_arc_easy_2024-05-01T10-11-12.345678.jsonl"),
            "arc_easy"
        );
        assert_eq!(name("samples_mmlu_flan_cot.jsonl"), "mmlu_flan_cot");
        assert_eq!(name("mine.jsonl"), "mine");
    }
}
