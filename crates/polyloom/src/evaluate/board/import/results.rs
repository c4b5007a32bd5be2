//! `results.json` of this project: schema `polyloom.results/1`.

use indexmap::IndexMap;
use serde_json::Value;

use super::Document;
use super::entry::{Entry, Gathered, higher};
use crate::error::Result;

/// Whether a document is one.
pub(super) fn is(value: &Value) -> bool {
    let schema = value.get("schema").and_then(Value::as_str);
    schema.is_some_and(|s| s.starts_with("polyloom.results/"))
}

/// Reads one.
pub(super) fn read(file: &Document, to: &mut Gathered) -> Result<()> {
    let schema = file.value["schema"].as_str().unwrap_or_default();
    if schema != "polyloom.results/1" {
        return Err(file
            .bad(format!("its schema is `{schema}`"))
            .hint("this version reads polyloom.results/1; update Polyloom"));
    }
    let model = &file.value["model"];
    let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let parent = || {
        let parent = file.path.parent()?.file_name()?;
        Some(parent.to_string_lossy().into_owned())
    };
    let system = file.name.map(str::to_owned);
    let system = system.or_else(|| text(&model["name"]));
    let system = system.or_else(|| text(&model["path"])).or_else(parent);
    let system = system.unwrap_or_else(|| file.path.display().to_string());
    let number = to.file(file.path);
    for (cost, value) in model["costs"].as_object().into_iter().flatten() {
        if let Some(x) = value.as_f64() {
            to.cost(&system, cost, x);
        }
    }
    let tasks = file.value["tasks"].as_object();
    let tasks = tasks.ok_or_else(|| file.bad("has no object `tasks`"))?;
    for (task, said) in tasks {
        let value = said["value"].as_f64().ok_or_else(|| {
            file.bad(format!(
                "task `{task}`: `value` is no number: {}",
                said["value"]
            ))
            .hint("a score that is not defined leaves its task out")
        })?;
        let bound = |i: usize| said["interval"].get(i).and_then(Value::as_f64);
        let mut tags: IndexMap<String, Vec<String>> = IndexMap::new();
        for (tag, values) in said["tags"].as_object().into_iter().flatten() {
            let list = values
                .as_array()
                .cloned()
                .unwrap_or_else(|| vec![values.clone()]);
            tags.insert(tag.clone(), list.iter().filter_map(text).collect());
        }
        let samples = said["samples"].as_str();
        let entry = Entry {
            system: system.clone(),
            task: task.clone(),
            metric: text(&said["metric"]).unwrap_or_default(),
            primary: true,
            value,
            stderr: said["stderr"].as_f64(),
            interval: bound(0).zip(bound(1)),
            n: said["n"].as_u64(),
            direction: said["higher_is_better"].as_bool().map(higher),
            chance: said["chance"].as_f64(),
            maximum: said["maximum"].as_f64(),
            expert: said["expert"].as_f64(),
            weight: said["weight"].as_f64(),
            group: tags.get("group").and_then(|g| g.first().cloned()),
            hash: text(&said["task_hash"]),
            setting: text(&said["split"])
                .map(|s| format!("split {s}"))
                .unwrap_or_default(),
            record: samples.and_then(|s| Some(file.path.parent()?.join(s))),
            tags,
            file: number,
            ..Entry::default()
        };
        for (metric, other) in said["metrics"].as_object().into_iter().flatten() {
            if let Some(value) = other["value"].as_f64()
                && *metric != entry.metric
            {
                to.entries.push(Entry {
                    metric: metric.clone(),
                    primary: false,
                    value,
                    stderr: other["stderr"].as_f64(),
                    interval: None,
                    direction: other["higher_is_better"].as_bool().map(higher),
                    chance: None,
                    maximum: None,
                    expert: None,
                    ..entry.clone()
                });
            }
        }
        to.entries.push(entry);
    }
    Ok(())
}
