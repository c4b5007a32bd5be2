//! Predictions that come with their own scores: no task is needed to put them together.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::answers::{Answers, number, plain, sha256};
use super::measure::Form;
use super::value::{About, Aggregate, finish};
use super::{Measured, Options, Record, Scored, lm_eval};
use crate::error::Result;
use crate::evaluate::metric::registry::{self, Better, Chance, Metric, Needs, Scale, Unit};

/// Scores predictions by values that the file holds: those of a column, or the metrics of lm-eval samples. Tasks are
/// those of the task column, else of the file's name.
///
/// # Errors
/// A value that is no number, an id that stands twice in a task, a file without such values.
pub fn score_values(
    answers: &Answers,
    column: Option<&str>,
    options: &Options,
) -> Result<Vec<Scored>> {
    let mut tasks: IndexMap<String, Vec<&Map<String, Value>>> = IndexMap::new();
    let file = lm_eval::task_name(&answers.path);
    for row in &answers.rows {
        let task = answers
            .task
            .as_ref()
            .and_then(|c| row.get(c))
            .map_or_else(|| file.clone(), plain);
        tasks.entry(task).or_default().push(row);
    }
    let mut scored = Vec::new();
    for (task, rows) in &tasks {
        let names = match column {
            Some(column) => vec![column.to_owned()],
            None => lm_eval::metrics(rows[0]),
        };
        if names.is_empty() {
            let error = answers.lacks("of scores, and no task says what is right");
            return Err(
                error.hint("--task TASK, or --values COLUMN for a column of scores per example")
            );
        }
        scored.push(one(answers, task, rows, &names, options)?);
    }
    Ok(scored)
}

fn one(
    answers: &Answers,
    task: &str,
    rows: &[&Map<String, Value>],
    names: &[String],
    options: &Options,
) -> Result<Scored> {
    let id_column = answers.id_column("");
    let mut ids = std::collections::HashSet::new();
    let mut measured: Vec<Measured> = Vec::new();
    let mut values = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let mut all = Vec::new();
        for row in rows {
            let cell = row.get(name).unwrap_or(&Value::Null);
            let value = match cell {
                Value::String(s) if s.eq_ignore_ascii_case("true") => Some(1.0),
                Value::String(s) if s.eq_ignore_ascii_case("false") => Some(0.0),
                cell => number(cell, false),
            };
            all.push(value.ok_or_else(|| {
                let what = format!(
                    "column `{name}`, task `{task}`: `{}` is no number",
                    plain(cell)
                );
                answers
                    .bad("bad-score", what)
                    .hint("a score per example is a number, or true and false")
            })?);
        }
        let about = About {
            metric: &metric(name, &all),
            aggregate: Aggregate::Mean,
            hash: &answers.hash,
            clusters: None,
            options,
            chance: None,
        };
        measured.push(finish(Form::Each(all.clone()), rows.len(), &about)?.0);
        if i == 0 {
            values = all;
        }
    }
    let mut records = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let text = |names: &[&str]| {
            names
                .iter()
                .find_map(|n| row.get(*n))
                .map(plain)
                .unwrap_or_default()
        };
        let id = id_column
            .and_then(|c| row.get(c))
            .map_or_else(|| place.to_string(), plain);
        if !ids.insert(id.clone()) {
            let error = answers.bad(
                "duplicate-id",
                format!("task `{task}`: the example `{id}` stands twice"),
            );
            return Err(error.hint("--only COLUMN=VALUE keeps the rows of one system; --id COLUMN names the column of ids"));
        }
        let hash = text(&["doc_hash"]);
        let hash = if hash.is_empty() {
            sha256(&format!("{task}\n{id}"))[..32].to_owned()
        } else {
            hash
        };
        records.push(Record {
            task: task.to_owned(),
            id,
            hash,
            prediction: text(&["prediction", "output", "outputs", "loglik"]),
            target: text(&["target", "label"]),
            value: Some(values[place]),
            score: None,
            probabilities: None,
        });
    }
    Ok(Scored {
        task: task.to_owned(),
        hash: None,
        split: None,
        metrics: measured,
        records,
        expert: None,
        tags: IndexMap::new(),
        missing: (Vec::new(), 0),
        extra: (Vec::new(), 0),
        notes: Vec::new(),
    })
}

/// The metric of a column: that of its name, else right and wrong, else a score of which more is better.
fn metric(name: &str, values: &[f64]) -> Metric {
    if let Some(known) = registry::find(name) {
        // Its value here is the mean of what the file holds, on whatever scale that is.
        return Metric {
            range: (f64::NEG_INFINITY, f64::INFINITY),
            ..*known
        };
    }
    let binary = values.iter().all(|v| *v == 0.0 || *v == 1.0);
    Metric {
        name: if binary { "accuracy" } else { "score" },
        better: Better::Higher,
        range: (f64::NEG_INFINITY, f64::INFINITY),
        chance: Chance::Undefined,
        needs: if binary { Needs::Labels } else { Needs::Values },
        unit: Unit::PerExample,
        scale: Scale::Own,
        summary: "Mean of a column.",
        source: "the file of predictions",
        differs: "",
    }
}
