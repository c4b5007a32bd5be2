//! Tables of HELM: `{"title", "header": [{"value"}, ...], "rows": [[{"value"}, ...], ...]}`, one or a list of them.

use serde_json::Value;

use super::Document;
use super::entry::{Entry, Gathered, higher};
use crate::error::Result;

fn tables(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    }
}

/// Whether a document is one.
pub(super) fn is(value: &Value) -> bool {
    let tables = tables(value);
    let fine = |t: &&Value| t["header"].is_array() && t["rows"].is_array();
    !tables.is_empty() && tables.iter().all(fine)
}

/// Splits "NarrativeQA - F1" into task and metric.
pub(super) fn column(name: &str) -> (&str, &str) {
    name.rsplit_once(" - ")
        .map_or((name, ""), |(task, metric)| (task.trim(), metric.trim()))
}

/// Columns that summarise others.
pub(super) fn summary(name: &str) -> bool {
    let name = name.to_lowercase();
    ["mean win rate", "mean score", "average", "mean", "rank"].contains(&name.trim())
}

/// Reads one: the first column names the model, every other one is a task; columns of summaries are passed over.
pub(super) fn read(file: &Document, to: &mut Gathered) -> Result<()> {
    let number = to.file(file.path);
    for (at, table) in tables(file.value).into_iter().enumerate() {
        let header = table["header"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names: Vec<&str> = header
            .iter()
            .map(|h| h["value"].as_str().unwrap_or(""))
            .collect();
        let title = table["title"].as_str().unwrap_or_default();
        for (line, row) in table["rows"].as_array().into_iter().flatten().enumerate() {
            let bad = |what: String| {
                file.bad(format!(
                    "table {} `{title}`, row {}: {what}",
                    at + 1,
                    line + 1
                ))
            };
            let cells = row.as_array().filter(|r| r.len() == names.len());
            let cells =
                cells.ok_or_else(|| bad(format!("needs {} cells as the header", names.len())))?;
            let system = cells.first().and_then(|c| c["value"].as_str());
            let system = system.ok_or_else(|| bad("the first cell names no model".into()))?;
            for ((cell, head), name) in cells.iter().zip(header).zip(&names).skip(1) {
                let Some(value) = cell["value"].as_f64() else {
                    continue;
                };
                if summary(name) {
                    continue;
                }
                let meta = &head["metadata"];
                let (task, metric) = column(name);
                let metric = meta["metric"].as_str().unwrap_or(metric);
                let task = meta["run_group"].as_str().unwrap_or(task);
                let task = if task.is_empty() { title } else { task };
                let lower = head["lower_is_better"].as_bool();
                to.entries.push(Entry {
                    system: system.to_owned(),
                    task: task.to_owned(),
                    metric: metric.to_owned(),
                    primary: true,
                    value,
                    direction: lower.map(|l| higher(!l)),
                    file: number,
                    ..Entry::default()
                });
            }
        }
    }
    Ok(())
}
