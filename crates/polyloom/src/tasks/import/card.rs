//! Hugging Face data-set cards and folders.

use std::path::Path;

use serde_json::Value;

use super::{Local, bad, checked, id, kind_of, split_file, text, usual_metrics, words};
use crate::error::Result;
use crate::tasks::data::{self, Limits};
use crate::tasks::load;
use crate::tasks::spec::{Metric, Prompt, Source, SourceKind, Split, TaskSpec, TaskType};

/// Whether a file begins as a card with a header that says something of data.
#[must_use]
pub fn has_card(path: &Path) -> bool {
    let Ok(text) = text(path) else { return false };
    header(&text).is_some_and(|h| {
        ["configs:", "dataset_info:", "task_categories:"]
            .iter()
            .any(|k| h.lines().any(|l| l.starts_with(k)))
    })
}

fn header(text: &str) -> Option<&str> {
    let rest = text
        .strip_prefix("---\n")
        .or(text.strip_prefix("---\r\n"))?;
    Some(&rest[..rest.find("\n---")?])
}

/// The tasks of a card or of a folder with data files: one per configuration.
///
/// # Errors
/// As [`card`]; a folder without data files.
pub fn folder(path: &Path, local: &Local, notes: &mut Vec<String>) -> Result<Vec<TaskSpec>> {
    let folder = local.folder;
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = full
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or("data")
        .to_owned();
    let file = if path.is_dir() {
        path.join("README.md")
    } else {
        path.to_owned()
    };
    let source = if file.is_file() {
        text(&file)?
    } else {
        String::new()
    };
    card(&source, &name, Some(folder), notes)
}

/// The tasks of a Hugging Face data-set card (its YAML header): configurations, splits, columns, class names. Where the
/// card names no files, those of `folder` are taken by their names; where it names no columns, those of the first file.
///
/// # Errors
/// A header that is no YAML, no split, columns that no type of task fits.
pub fn card(
    source: &str,
    name: &str,
    folder: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<Vec<TaskSpec>> {
    let head = header(source).unwrap_or("{}");
    let value: Value = serde_saphyr::from_str(head)
        .map_err(|e| bad(format!("its header is not valid YAML: {e}")))?;
    let configs: Vec<Value> = match &value["configs"] {
        Value::Array(list) if !list.is_empty() => list.clone(),
        _ => vec![Value::Null],
    };
    let mut out = Vec::new();
    for config in &configs {
        let title = config["config_name"].as_str().unwrap_or("default");
        let full = if configs.len() > 1 {
            format!("{name}/{title}")
        } else {
            name.to_owned()
        };
        let mut spec = TaskSpec::new(id(&full), Source::new(SourceKind::Parquet, ""));
        spec.title = value["pretty_name"].as_str().unwrap_or_default().to_owned();
        spec.language = words(&value["language"]);
        spec.license = words(&value["license"]).join(", ");
        spec.tags.skills = words(&value["task_ids"]);
        spec.tags.tags = words(&value["tags"]);
        files_of(config, &mut spec)?;
        if let Some(folder) = folder.filter(|_| spec.splits.named.is_empty()) {
            for split in ["train", "validation", "dev", "test"] {
                let data = ["", "data"].into_iter().find_map(|inside| {
                    let found = split_file(&folder.join(inside), split)?;
                    Some(if inside.is_empty() {
                        found
                    } else {
                        format!("{inside}/{found}")
                    })
                });
                let name = if split == "dev" { "validation" } else { split };
                if let Some(file) = data
                    && !spec.splits.named.contains_key(name)
                {
                    spec.splits.named.insert(
                        name.into(),
                        Split {
                            file,
                            ..Split::default()
                        },
                    );
                }
            }
        }
        spec.source.kind = kind_of(spec.splits.named.values().map(|s| &*s.file))?;
        let info = match &value["dataset_info"] {
            Value::Array(list) => list
                .iter()
                .find(|i| i["config_name"].as_str().unwrap_or("default") == title),
            Value::Null => None,
            one => Some(one),
        };
        let mut columns: Vec<Column> = info.map(features).unwrap_or_default();
        if let Some(folder) = folder.filter(|_| columns.is_empty()) {
            columns = first_columns(folder, &spec)?;
            notes.push("the card names no columns; they are those of the first file".into());
        }
        annotate(&value, &columns, &mut spec)?;
        out.push(checked(spec)?);
    }
    Ok(out)
}

fn files_of(config: &Value, spec: &mut TaskSpec) -> Result<()> {
    let list = match &config["data_files"] {
        Value::Array(list) => list.clone(),
        Value::String(one) => vec![serde_json::json!({"split": "train", "path": one})],
        _ => Vec::new(),
    };
    for entry in &list {
        let split = entry["split"].as_str().unwrap_or("train");
        let paths = words(&entry["path"]);
        let [file] = &paths[..] else {
            return Err(bad(format!(
                "`configs`: split `{split}` has {} paths, one is read",
                paths.len()
            )));
        };
        let file = match config["data_dir"].as_str() {
            Some(folder) => format!("{folder}/{file}"),
            None => file.clone(),
        };
        spec.splits.named.insert(
            split.into(),
            Split {
                file,
                ..Split::default()
            },
        );
    }
    Ok(())
}

struct Column {
    name: String,
    /// `string`, `int64`, ..., `class_label`, `list`, `image`.
    kind: String,
    names: Vec<String>,
}

fn features(info: &Value) -> Vec<Column> {
    let list = info["features"].as_array().into_iter().flatten();
    let column = |f: &Value| {
        let dtype = &f["dtype"];
        let inner = [&f["sequence"], &f["list"]]
            .into_iter()
            .find(|v| !v.is_null());
        let label = |v: &Value| {
            let names = &v["class_label"]["names"];
            match names {
                Value::Object(map) => {
                    let mut entries: Vec<(u64, String)> = map
                        .iter()
                        .filter_map(|(k, v)| Some((k.parse().ok()?, v.as_str()?.to_owned())))
                        .collect();
                    entries.sort();
                    entries.into_iter().map(|(_, n)| n).collect()
                }
                other => words(other),
            }
        };
        let names = inner.map_or_else(
            || label(dtype),
            |i| {
                if i["dtype"].is_null() {
                    label(i)
                } else {
                    label(&i["dtype"])
                }
            },
        );
        let kind = match (inner, dtype) {
            (Some(_), _) => "list".to_owned(),
            (None, Value::String(s)) => s.clone(),
            (None, v) if !v["class_label"].is_null() => "class_label".into(),
            _ => "other".into(),
        };
        Column {
            name: f["name"].as_str().unwrap_or_default().to_owned(),
            kind,
            names,
        }
    };
    list.map(column).collect()
}

/// Columns of the first rows of the first file.
fn first_columns(folder: &Path, spec: &TaskSpec) -> Result<Vec<Column>> {
    let Some(split) = spec.splits.named.values().next() else {
        return Ok(Vec::new());
    };
    let paths = load::matching(folder, &split.file)?;
    let mut columns = Vec::new();
    for path in paths.iter().take(1) {
        data::read(path, spec.source.kind, &Limits::default(), &mut |t| {
            if columns.is_empty() {
                let kind = |word: &'static str| match word {
                    "text" => "string",
                    "number" => "float64",
                    "bool" => "bool",
                    "nested" => "list",
                    other => other,
                };
                columns = t
                    .types()
                    .into_iter()
                    .map(|(n, w)| Column {
                        name: n.to_owned(),
                        kind: kind(w).to_owned(),
                        names: Vec::new(),
                    })
                    .collect();
            }
            Ok(())
        })?;
    }
    Ok(columns)
}

/// Type and fields: by the card's categories, else by the columns.
fn annotate(card: &Value, columns: &[Column], spec: &mut TaskSpec) -> Result<()> {
    let category = words(&card["task_categories"])
        .into_iter()
        .next()
        .unwrap_or_default();
    let named = |names: &[&str]| {
        names
            .iter()
            .find_map(|n| columns.iter().find(|c| c.name == *n))
    };
    let label = columns.iter().find(|c| !c.names.is_empty()).or_else(|| {
        named(&[
            "label", "labels", "target", "targets", "output", "answer", "score", "summary", "tags",
            "ner_tags",
        ])
    });
    let Some(label) = label else {
        let names: Vec<&str> = columns.iter().map(|c| &*c.name).collect();
        return Err(bad(format!(
            "has no column of labels or answers (columns: {})",
            names.join(", ")
        )));
    };
    let is_id =
        |c: &Column| ["id", "idx", "index", "guid", "uuid"].contains(&&*c.name.to_lowercase());
    let texts: Vec<&Column> = columns
        .iter()
        .filter(|c| {
            c.name != label.name
                && ["string", "large_string", "image"].contains(&&*c.kind)
                && !is_id(c)
        })
        .collect();
    let tokens = columns
        .iter()
        .find(|c| c.name != label.name && c.kind == "list");
    let kind = match &*category {
        "token-classification" => TaskType::TokenClassification,
        "sentence-similarity" => TaskType::Sts,
        "tabular-regression" => TaskType::Regression,
        "text-generation"
        | "summarization"
        | "translation"
        | "text2text-generation"
        | "question-answering" => TaskType::Generation,
        "text-classification" | "image-classification" | "zero-shot-classification"
            if label.kind == "list" =>
        {
            TaskType::Multilabel
        }
        "text-classification" | "image-classification" | "zero-shot-classification" => {
            TaskType::Classification
        }
        _ if label.kind == "class_label" => TaskType::Classification,
        _ if label.kind == "list" && tokens.is_some() => TaskType::TokenClassification,
        _ if label.kind == "list" => TaskType::Multilabel,
        _ if label.kind.starts_with("float") && label.name != "label" => TaskType::Regression,
        _ if label.kind.starts_with("float")
            || label.kind.starts_with("int")
            || label.kind == "bool" =>
        {
            TaskType::Classification
        }
        _ if ["label", "labels"].contains(&&*label.name) => TaskType::Classification,
        _ => TaskType::Generation,
    };
    spec.kind = Some(kind);
    spec.fields.target.clone_from(&label.name);
    spec.labels.names.clone_from(&label.names);
    if let Some(c) = columns.iter().find(|c| is_id(c)) {
        spec.fields.id.clone_from(&c.name);
    }
    let input = match kind {
        TaskType::TokenClassification => tokens.or(texts.first().copied()),
        _ => texts.first().copied(),
    };
    let input = input.ok_or_else(|| bad("has no column of texts"))?;
    spec.fields.input.clone_from(&input.name);
    if input.kind == "image" {
        spec.modality.input = vec!["image".into()];
    }
    let pair = matches!(
        kind,
        TaskType::Classification | TaskType::Sts | TaskType::Regression
    );
    if let Some(second) = texts.get(1).filter(|_| pair) {
        spec.fields.input2.clone_from(&second.name);
    }
    spec.modality.output = match kind {
        TaskType::Generation => "text",
        TaskType::Sts | TaskType::Regression => "number",
        _ => "label",
    }
    .into();
    spec.metrics = usual_metrics(kind);
    if kind == TaskType::Generation {
        spec.metrics = vec![
            Metric::named("rouge_l", true),
            Metric::named("exact_match", false),
        ];
        spec.prompts.push(Prompt {
            template: "{{input}}\n".into(),
            target: "{{target}}".into(),
            target_delimiter: String::new(),
            ..Prompt::default()
        });
    }
    Ok(())
}
