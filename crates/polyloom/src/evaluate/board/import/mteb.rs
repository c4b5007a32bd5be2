//! A task's result of MTEB: `results/<model>/<revision>/<task>.json`.

use indexmap::IndexMap;
use serde_json::Value;

use super::Document;
use super::entry::{Entry, Gathered, higher};
use crate::error::Result;

/// Whether a document is one.
pub(super) fn is(value: &Value) -> bool {
    value.get("task_name").is_some() && value.get("scores").is_some_and(Value::is_object)
}

/// The model: of `model_meta.json` beside the file, else the folder above the revision.
fn model(file: &Document) -> String {
    let parent = file.path.parent();
    let meta = || {
        let value = super::document(&parent?.join("model_meta.json")).ok()?;
        value["name"].as_str().map(str::to_owned)
    };
    let folder = || {
        let name = |p: &std::path::Path| Some(p.file_name()?.to_string_lossy().into_owned());
        let here = name(parent?)?;
        let revision = here.len() == 40 && here.bytes().all(|b| b.is_ascii_hexdigit());
        let revision = revision || here == "external" || here.starts_with("no_revision");
        let model = if revision {
            name(parent?.parent()?)?
        } else {
            here
        };
        Some(model.replace("__", "/"))
    };
    let name = file.name.map(str::to_owned).or_else(meta).or_else(folder);
    name.unwrap_or_else(|| file.path.display().to_string())
}

/// Reads one: the mean of `main_score` over the subsets of the split `test` (else the first split). Repeated experiments
/// of a single subset are kept as runs.
pub(super) fn read(file: &Document, to: &mut Gathered) -> Result<()> {
    let all = file.value;
    let task = all["task_name"].as_str();
    let task = task.ok_or_else(|| file.bad("`task_name` is no text"))?;
    let system = model(file);
    let splits = all["scores"].as_object().into_iter().flatten();
    let splits: IndexMap<&String, &Value> = splits.collect();
    let split = splits.iter().find(|(name, _)| name.as_str() == "test");
    let (split, rows) = split
        .or_else(|| splits.first())
        .ok_or_else(|| file.bad(format!("task `{task}`: no split")))?;
    let rows = rows.as_array().filter(|r| !r.is_empty());
    let rows =
        rows.ok_or_else(|| file.bad(format!("task `{task}`: split `{split}` holds no list")))?;
    let mut languages: Vec<String> = Vec::new();
    let mut scores = Vec::with_capacity(rows.len());
    for row in rows {
        let score = row["main_score"].as_f64();
        scores.push(score.ok_or_else(|| {
            let subset = row["hf_subset"].as_str().unwrap_or("default");
            file.bad(format!(
                "task `{task}`, subset `{subset}`: `main_score` is no number"
            ))
            .hint("the run of this subset failed; run it again or take it out")
        })?);
        let named = row["languages"].as_array().into_iter().flatten();
        for language in named.filter_map(Value::as_str) {
            if !languages.iter().any(|l| l == language) {
                languages.push(language.to_owned());
            }
        }
    }
    let value = scores.iter().sum::<f64>() / scores.len() as f64;
    let number = to.file(file.path);
    if let Some(seconds) = all["evaluation_time"].as_f64() {
        to.add_cost(&system, "seconds", seconds);
    }
    let mut tags = IndexMap::new();
    if !languages.is_empty() {
        tags.insert("language".to_owned(), languages);
    }
    let entry = Entry {
        system,
        task: task.to_owned(),
        metric: "main_score".into(),
        primary: true,
        value,
        direction: Some(higher(true)),
        tags,
        setting: match all["dataset_revision"].as_str() {
            Some(revision) => format!("split {split}, data {revision:.8}"),
            None => format!("split {split}"),
        },
        file: number,
        ..Entry::default()
    };
    match runs(&rows[0], scores[0]).filter(|_| rows.len() == 1) {
        Some(runs) => {
            to.replicate.get_or_insert_with(|| "run".into());
            for (at, value) in runs.into_iter().enumerate() {
                let replicate = Some((at + 1).to_string());
                to.entries.push(Entry {
                    value,
                    replicate,
                    ..entry.clone()
                });
            }
        }
        None => to.entries.push(entry),
    }
    Ok(())
}

/// The repeated experiments whose mean is the main score.
fn runs(row: &Value, main: f64) -> Option<Vec<f64>> {
    let experiments = row["scores_per_experiment"].as_array()?;
    let keys = experiments.first()?.as_object()?.keys();
    for key in keys {
        let all: Option<Vec<f64>> = experiments.iter().map(|e| e[key].as_f64()).collect();
        let Some(all) = all else { continue };
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        if (mean - main).abs() < 1e-9 && all.len() > 1 {
            return Some(all);
        }
    }
    None
}
