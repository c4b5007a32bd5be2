//! Folders with a `task.json` (name, kind, columns, labels, splits) as task specs.

use std::path::Path;

use serde_json::Value;

use super::data::json;
use super::data::{Limits, bad};
use super::spec::{
    Expert, Metric, Modality, Source, SourceKind, Split, Table, Target, TaskSpec, TaskType,
};
use crate::error::Result;

/// Reads a `task.json` file, or the one of a folder. The id is `<parent folder>/<name>`, such as `text/mpqa`.
///
/// # Errors
/// A file that is no JSON object, lacks a name, kind or splits, or names a kind or metric that no spec has.
pub fn read(path: &Path) -> Result<TaskSpec> {
    let file = if path.is_dir() {
        path.join("task.json")
    } else {
        path.to_owned()
    };
    let value = json::whole(&file, &Limits::default())?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let above = folder.canonicalize().ok();
    let above = above
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::file_name);
    let family = above
        .and_then(|n| n.to_str())
        .unwrap_or("task")
        .to_lowercase();
    let mut spec = convert(&value, &family).map_err(|why| bad(&file, why))?;
    spec.source.root = String::new();
    let problems = super::validate::task(&spec);
    if let Some(problem) = problems.first() {
        return Err(bad(
            &file,
            format!("`{}`: {}", problem.path, problem.message),
        ));
    }
    Ok(spec)
}

/// A `task.json` value as a spec with the id `<family>/<name>` and the root of the same name.
///
/// # Errors
/// A sentence on the first key that is missing or unknown.
pub fn convert(value: &Value, family: &str) -> Result<TaskSpec, String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let list = strings;
    let name = text("name");
    if name.is_empty() {
        return Err("`name` is missing".into());
    }
    let id = format!("{family}/{}", name.to_lowercase().replace(' ', "_"));
    let mut spec = TaskSpec::new(id.clone(), Source::new(SourceKind::Parquet, id));
    spec.title = name;
    spec.description = text("note");
    spec.license = text("licence");
    spec.citation = text("citation");
    let origin = &value["origin"];
    if let Some(repository) = origin["repo"].as_str() {
        spec.homepage = format!("https://github.com/{repository}");
    }
    spec.source.revision = origin["commit"].as_str().unwrap_or_default().to_owned();
    splits(value, &mut spec)?;
    let inputs = list(&value["input_columns"]);
    let target = text("target_column");
    let modality = text("modality");
    spec.modality = Modality {
        input: vec![if modality == "tabular" {
            "table".into()
        } else {
            modality.clone()
        }],
        output: "label".into(),
    };
    if modality == "text" {
        spec.language = vec!["en".into()];
    }
    let group = text("group_column");
    if modality == "tabular" {
        let columns = &value["features"];
        let (categorical, numeric) = (list(&columns["categorical"]), list(&columns["numeric"]));
        spec.table = Some(Table {
            features: Vec::new(),
            drop: list(&value["not_features"]),
            categorical,
            numeric,
            group,
            ..Table::default()
        });
        for entry in value["targets"].as_array().ok_or("`targets` is missing")? {
            spec.targets.push(one_target(entry)?);
        }
        spec.modality.output = "table".into();
        return Ok(spec);
    }
    spec.source.size = image_size(value);
    if let Some(targets) = value["targets"].as_array() {
        for entry in targets {
            spec.targets.push(one_target(entry)?);
        }
        spec.fields.id = "id".into();
        spec.fields.input = inputs.first().cloned().unwrap_or_default();
        spec.modality.output = modality;
        return Ok(spec);
    }
    let word = text("kind");
    let pair = inputs.len() == 2;
    let kind = TaskType::from_word(&word).ok_or(format!("`kind`: `{word}` is no type of task"))?;
    let kind = match (kind, pair) {
        (TaskType::Classification, true) => TaskType::PairClassification,
        (TaskType::Regression, true) => TaskType::Sts,
        (kind, _) => kind,
    };
    spec.kind = Some(kind);
    spec.fields.input = inputs
        .first()
        .cloned()
        .ok_or("`input_columns` is missing")?;
    spec.fields.input2 = inputs.get(1).cloned().unwrap_or_default();
    spec.fields.id = "id".into();
    if kind == TaskType::Span {
        spec.fields.spans = target;
    } else {
        spec.fields.target = target;
    }
    spec.labels.names = list(&value["labels"]);
    if !group.is_empty() {
        spec.table = Some(Table {
            group,
            ..Table::default()
        });
    }
    if kind.is_number() {
        spec.modality.output = "number".into();
    }
    spec.metrics = metrics(&text("metric"));
    spec.expert = Expert::default();
    Ok(spec)
}

/// The texts of a list; empty where it is none.
fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// Height, width and channels of raw images.
fn image_size(value: &Value) -> Option<[u32; 3]> {
    let image = value.get("image")?;
    let side = |key: &str| image[key].as_u64().and_then(|n| u32::try_from(n).ok());
    Some([side("height")?, side("width")?, side("channels")?])
}

fn splits(value: &Value, spec: &mut TaskSpec) -> Result<(), String> {
    let splits = value["splits"].as_object().ok_or("`splits` is missing")?;
    for (name, split) in splits {
        let file = split["file"]
            .as_str()
            .ok_or(format!("`splits.{name}.file` is missing"))?;
        let split = Split {
            file: file.to_owned(),
            ..Split::default()
        };
        spec.splits.named.insert(name.clone(), split);
    }
    let first = spec.splits.named.values().next();
    if let Some(kind) = first.and_then(|s| super::data::kind_of(Path::new(&s.file))) {
        spec.source.kind = kind;
    }
    if spec.splits.named.contains_key("train") {
        spec.splits.fewshot = Some("train".into());
    }
    Ok(())
}

fn one_target(entry: &Value) -> Result<Target, String> {
    let column = entry["column"]
        .as_str()
        .ok_or("`targets[].column` is missing")?;
    let word = entry["kind"].as_str().unwrap_or_default();
    let kind =
        TaskType::from_word(word).ok_or(format!("`targets`: `{word}` is no type of task"))?;
    let mut metrics = metrics(entry["metric"].as_str().unwrap_or_default());
    if let Some(mask) = entry["mask"].as_str() {
        for metric in &mut metrics {
            metric.params.insert("mask".into(), mask.into());
        }
    }
    Ok(Target {
        name: column.to_owned(),
        column: column.to_owned(),
        kind,
        labels: strings(&entry["labels"]),
        metrics,
        weight: 1.0,
        sample: entry["sample"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Metric names of a free text such as `auc, log loss` or `macro_f1 over against and favour`, the first one primary.
fn metrics(text: &str) -> Vec<Metric> {
    const WORDS: [(&str, &str); 11] = [
        ("relative rmse", "rmse_ratio"),
        ("explained variance", "explained_variance"),
        ("log loss", "log_loss"),
        ("macro_f1", "macro_f1"),
        ("micro_f1", "micro_f1"),
        ("span_f1", "span_f1"),
        ("accuracy", "accuracy"),
        ("pearson", "pearson"),
        ("rmse", "rmse"),
        ("f1", "f1"),
        ("auc", "roc_auc"),
    ];
    let mut found: Vec<Metric> = Vec::new();
    for part in text.split(", ").flat_map(|p| p.split(" and ")) {
        let word = || WORDS.iter().find(|(w, _)| part.contains(w)).map(|w| w.1);
        let known = super::metrics::find(part.trim()).map(|m| m.name);
        if let Some(name) = known.or_else(word)
            && found.iter().all(|m| m.name != name)
        {
            found.push(Metric::named(name, found.is_empty()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_tables_and_words_become_types() {
        let value = json!({"name": "msrp", "modality": "text", "kind": "classification", "input_columns": ["text", "text_b"],
            "target_column": "label", "labels": ["no", "yes"], "metric": "accuracy and f1 of the paraphrase class",
            "splits": {"train": {"file": "train.parquet"}, "test": {"file": "test.parquet"}}});
        let spec = convert(&value, "text").unwrap();
        assert_eq!(
            (spec.id.as_str(), spec.kind),
            ("text/msrp", Some(TaskType::PairClassification))
        );
        let names: Vec<&str> = spec.metrics.iter().map(|m| &*m.name).collect();
        assert_eq!(names, ["accuracy", "f1"]);
        assert!(super::super::validate::task(&spec).is_empty());
        let value = json!({"name": "t", "modality": "tabular", "kind": "multi-task", "group_column": "g",
            "targets": [{"column": "y", "kind": "binary", "metric": "auc, log loss"}], "splits": {"train": {"file": "a.csv"}}});
        let spec = convert(&value, "tabular").unwrap();
        assert_eq!(spec.source.kind, SourceKind::Csv);
        assert_eq!(
            spec.task_ids(&["a".into(), "b".into()]),
            ["tabular/t/a/y", "tabular/t/b/y"]
        );
        assert!(convert(&json!({"name": "x"}), "f").is_err());
    }
}
