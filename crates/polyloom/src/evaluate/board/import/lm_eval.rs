//! `results_*.json` of lm-evaluation-harness, versions 0.3 and 0.4.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde_json::Value;

use super::entry::{Entry, Gathered, higher};
use super::{Document, Options};
use crate::error::Result;

/// Whether a document is one.
pub(super) fn is(value: &Value) -> bool {
    let known = [
        "versions",
        "n-shot",
        "higher_is_better",
        "configs",
        "config",
        "n-samples",
    ];
    value.get("results").is_some_and(Value::is_object)
        && known.iter().any(|k| value.get(k).is_some())
}

/// The model: as stated, else `pretrained=` (or `model=`) of its arguments, else the folder.
fn model(file: &Document) -> String {
    let args = &file.value["config"]["model_args"];
    let from_text = |text: &str| {
        let pair = |p: &str| {
            let (key, value) = p.split_once('=')?;
            matches!(key.trim(), "pretrained" | "model").then(|| value.trim().to_owned())
        };
        text.split(',').find_map(pair)
    };
    let from_args = || match args {
        Value::String(text) => from_text(text),
        Value::Object(map) => map
            .get("pretrained")
            .or(map.get("model"))?
            .as_str()
            .map(str::to_owned),
        _ => None,
    };
    let stated = file.value["model_name"].as_str().map(str::to_owned);
    let folder = || {
        Some(
            file.path
                .parent()?
                .file_name()?
                .to_string_lossy()
                .into_owned(),
        )
    };
    let some = |name: &String| !name.is_empty();
    let name = file.name.map(str::to_owned).or(stated.filter(some));
    let name = name
        .or_else(from_args)
        .filter(some)
        .or_else(folder)
        .filter(some);
    name.unwrap_or_else(|| file.path.display().to_string())
}

/// The tasks and groups below a group that has a score of its own: where groups count, these do not.
fn members_of_counted(all: &Value, rows: &IndexMap<&String, &Value>) -> BTreeSet<String> {
    let members = |group: &str| {
        let list = all["group_subtasks"][group].as_array().into_iter();
        list.flatten().filter_map(Value::as_str)
    };
    let scored = |name: &str| {
        let row = rows.iter().find(|(k, _)| k.as_str() == name);
        let row = row.and_then(|(_, row)| row.as_object());
        row.is_some_and(|r| r.values().any(Value::is_number))
    };
    let groups = all["group_subtasks"].as_object().into_iter().flatten();
    let mut open: Vec<&str> = groups
        .map(|(group, _)| group.as_str())
        .filter(|group| scored(group))
        .flat_map(members)
        .collect();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        if found.insert(name.to_owned()) {
            open.extend(members(name));
        }
    }
    found
}

/// Reads one. A metric is named `name` or, of another filter than `none`, `name,filter`.
pub(super) fn read(file: &Document, options: &Options, to: &mut Gathered) -> Result<()> {
    let all = file.value;
    let system = model(file);
    for alias in [
        all["model_name_sanitized"].as_str().map(str::to_owned),
        file.path
            .parent()
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned())),
        Some(system.replace('/', "__")),
    ] {
        to.aliases.insert(alias.unwrap_or_default(), system.clone());
    }
    if let Some(x) = all["config"]["model_num_parameters"]
        .as_f64()
        .filter(|x| *x > 0.0)
    {
        to.cost(&system, "params", x);
    }
    let seconds = &all["total_evaluation_time_seconds"];
    let seconds = seconds.as_f64().or_else(|| seconds.as_str()?.parse().ok());
    if let Some(x) = seconds {
        to.add_cost(&system, "seconds", x);
    }
    let number = to.file(file.path);
    let results = all["results"].as_object().into_iter().flatten();
    let members = |task: &str| {
        all["group_subtasks"][task]
            .as_array()
            .filter(|l| !l.is_empty())
    };
    let is_group = |task: &str| all["groups"].get(task).is_some() || members(task).is_some();
    let mut group_of: IndexMap<&str, &str> = IndexMap::new();
    for (group, list) in all["group_subtasks"].as_object().into_iter().flatten() {
        for task in list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            group_of.entry(task).or_insert(group);
        }
    }
    let groups = all["groups"].as_object().into_iter().flatten();
    let mut rows: IndexMap<&String, &Value> = results.collect();
    for (group, row) in groups {
        rows.entry(group).or_insert(row);
    }
    if options.groups {
        to.members.extend(members_of_counted(all, &rows));
    }
    for (task, row) in rows {
        let row = row
            .as_object()
            .ok_or_else(|| file.bad(format!("results of `{task}` are no object: {row}")))?;
        if !options.groups && is_group(task) {
            to.aggregates.push(task.clone());
            continue;
        }
        let mut first = true;
        for (key, value) in row {
            let (metric, filter) = key.split_once(',').unwrap_or((key, "none"));
            if metric.ends_with("_stderr") || metric == "alias" || metric == "sample_len" {
                continue;
            }
            let value = match value {
                Value::String(text) if metric != "name" => text.parse().ok(),
                other => other.as_f64(),
            };
            let Some(value) = value.filter(|x: &f64| x.is_finite()) else {
                continue;
            };
            let error = match key.contains(',') {
                true => format!("{metric}_stderr,{filter}"),
                false => format!("{metric}_stderr"),
            };
            let samples = &all["n-samples"][task];
            let samples = samples["effective"]
                .as_u64()
                .or(samples["original"].as_u64());
            let better = &all["higher_is_better"][task][metric];
            let tagged = &all["configs"][task]["tag"];
            let tagged = tagged.as_str().map(|t| vec![t.to_owned()]).or_else(|| {
                let list = tagged.as_array()?;
                Some(
                    list.iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect(),
                )
            });
            let mut tags = IndexMap::new();
            let group = group_of.get(task.as_str()).map(|g| (*g).to_owned());
            if let Some(list) = tagged {
                tags.insert("tag".to_owned(), list);
            }
            if let Some(group) = &group {
                tags.insert("group".to_owned(), vec![group.clone()]);
            }
            let shots = &all["n-shot"][task];
            let shots = shots
                .as_u64()
                .or(all["configs"][task]["num_fewshot"].as_u64());
            let version = &all["versions"][task];
            let mut setting = Vec::new();
            setting.extend(shots.map(|n| format!("{n} shots")));
            if !version.is_null() {
                setting.push(format!("version {version}"));
            }
            to.entries.push(Entry {
                system: system.clone(),
                task: task.clone(),
                metric: match filter {
                    "none" => metric.to_owned(),
                    filter => format!("{metric},{filter}"),
                },
                primary: std::mem::take(&mut first),
                value,
                stderr: row
                    .get(&error)
                    .and_then(Value::as_f64)
                    .filter(|x| x.is_finite()),
                n: samples,
                direction: better.as_bool().map(higher),
                group,
                tags,
                hash: all["task_hashes"][task].as_str().map(str::to_owned),
                setting: setting.join(", "),
                file: number,
                ..Entry::default()
            });
        }
    }
    to.note("lm-eval's results files hold no single answers: intervals are unpaired only; add the samples_*.jsonl files");
    Ok(())
}
