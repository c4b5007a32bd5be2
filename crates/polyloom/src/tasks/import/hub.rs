//! Data sets described beside their files: Hugging Face cards, tasksource mappings, MTEB metadata.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Local, bad, checked, id, kind_of, split_file, text, usual_metrics, words};
use crate::error::Result;
use crate::tasks::data::{self, Limits};
use crate::tasks::load;
use crate::tasks::spec::{
    Choices, Metric, Prompt, Qrels, Source, SourceKind, Split, TaskSpec, TaskType,
};

fn json(source: &str) -> Result<Value> {
    serde_json::from_str(source).map_err(|e| bad(format!("is not valid JSON: {e}")))
}

/// Names the file of a split, or where it has to be put.
fn place(set: &str, split: &str, local: &Local, notes: &mut Vec<String>) -> Split {
    let file = local.split(set, split).unwrap_or_else(|| {
        let file = format!("{set}/{split}.jsonl");
        notes.push(format!(
            "`{file}` is not here; put the rows there, or name their folder with --data"
        ));
        file
    });
    Split {
        file,
        ..Split::default()
    }
}

/// The class names of raw labels: the order entailment, neutral, contradiction where these are the labels, else sorted by
/// code point. Empty where a label is no text (numbers are classes already).
#[must_use]
pub fn label_names(values: &[Value]) -> Vec<String> {
    const NLI: [&str; 3] = ["entailment", "neutral", "contradiction"];
    if !values.iter().all(Value::is_string) {
        return Vec::new();
    }
    let names: BTreeSet<&str> = values.iter().filter_map(Value::as_str).collect();
    if names == NLI.into_iter().collect() {
        return NLI.map(str::to_owned).to_vec();
    }
    names.into_iter().map(str::to_owned).collect()
}

/// A tasksource mapping as JSON: `type` (`Classification`, `MultipleChoice`, `TokenClassification`, `Seq2SeqLM`),
/// `dataset`, optional `config`, columns by meaning, `splits` (train, validation, test; null drops one). Class names come
/// from the rows where they are found.
///
/// # Errors
/// JSON that is none, another type, a column that is no name (code), no split.
pub fn tasksource(
    source: &str,
    name: &str,
    local: &Local,
    notes: &mut Vec<String>,
) -> Result<TaskSpec> {
    let mut spec = tasksource_columns(&json(source)?, name, &mut |set, split| {
        place(set, split, local, notes)
    })?;
    spec.source.kind = kind_of(spec.splits.named.values().map(|s| &*s.file))?;
    if spec.kind == Some(TaskType::Classification) {
        let mut values = Vec::new();
        for split in spec.splits.named.values() {
            for path in load::matching(local.folder, &split.file).unwrap_or_default() {
                data::read(&path, spec.source.kind, &Limits::default(), &mut |t| {
                    values.extend((0..t.rows()).map(|i| t.at(i, &spec.fields.target)));
                    values.retain(|v| !v.is_null());
                    let names = label_names(&values);
                    if !names.is_empty() {
                        values = names.into_iter().map(Value::from).collect();
                    }
                    Ok(())
                })?;
            }
        }
        spec.labels.names = label_names(&values);
    }
    checked(spec)
}

/// The mapping alone: which column is what, which split is which. `split` names the file of a split.
///
/// # Errors
/// As [`tasksource`].
pub fn tasksource_columns(
    value: &Value,
    name: &str,
    split: &mut dyn FnMut(&str, &str) -> Split,
) -> Result<TaskSpec> {
    let set = value["dataset"].as_str().or(value["dataset_name"].as_str());
    let set = set.ok_or_else(|| bad("`dataset` is missing"))?;
    let config = value["config"].as_str().or(value["config_name"].as_str());
    let set = config.map_or(set.to_owned(), |c| format!("{set}/{c}"));
    let kind = match value["type"].as_str().unwrap_or_default() {
        "Classification" => TaskType::Classification,
        "MultipleChoice" => TaskType::MultipleChoice,
        "TokenClassification" => TaskType::TokenClassification,
        "Seq2SeqLM" => TaskType::Generation,
        other => return Err(bad(format!("`type`: `{other}` is not read"))),
    };
    const KNOWN: &[&str] = &[
        "type",
        "dataset",
        "dataset_name",
        "config",
        "config_name",
        "sentence1",
        "sentence2",
        "labels",
        "inputs",
        "choices",
        "choices_list",
        "tokens",
        "prompt",
        "output",
        "splits",
        "name",
    ];
    let keys = value
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys);
    if let Some(key) = keys.into_iter().find(|k| !KNOWN.contains(&&***k)) {
        return Err(bad(format!("`{key}` is not read")));
    }
    let column = |key: &str| match &value[key] {
        Value::Null => Ok(String::new()),
        Value::String(s) => Ok(s.clone()),
        other => Err(bad(format!("`{key}`: {other} is no column name"))),
    };
    let mut spec = TaskSpec::new(id(name), Source::new(SourceKind::Jsonl, ""));
    spec.kind = Some(kind);
    spec.homepage = format!("https://huggingface.co/datasets/{set}");
    spec.metrics = usual_metrics(kind);
    let target = column("labels")?;
    match kind {
        TaskType::Classification => {
            spec.fields.input = column("sentence1")?;
            spec.fields.input2 = column("sentence2")?;
            spec.fields.target = target;
        }
        TaskType::TokenClassification => {
            spec.fields.input = column("tokens")?;
            spec.fields.target = target;
        }
        TaskType::MultipleChoice => {
            spec.fields.input = column("inputs")?;
            spec.fields.target.clone_from(&target);
            let list = column("choices_list")?;
            let choices = if list.is_empty() {
                format!("{{{{[{}]}}}}", words(&value["choices"]).join(", "))
            } else {
                format!("{{{{{list}}}}}")
            };
            spec.prompts.push(Prompt {
                template: "{{input}}".into(),
                choices: Some(Choices::Template(choices)),
                target: "{{target}}".into(),
                ..Prompt::default()
            });
        }
        _ => {
            spec.fields.input = column("prompt")?;
            spec.fields.target = column("output")?;
            spec.prompts.push(Prompt {
                template: "{{input}}".into(),
                target: "{{target}}".into(),
                ..Prompt::default()
            });
        }
    }
    if spec.fields.input.is_empty() {
        return Err(bad("names no column of the input"));
    }
    let defaults = [Value::from("train"), "validation".into(), "test".into()];
    let given = value["splits"]
        .as_array()
        .map_or(&defaults[..], Vec::as_slice);
    if given.len() != 3 {
        return Err(bad("`splits` is not [train, validation, test]"));
    }
    for (name, theirs) in ["train", "validation", "test"].into_iter().zip(given) {
        match theirs {
            Value::Null => {}
            Value::String(theirs) => {
                spec.splits.named.insert(name.into(), split(&set, theirs));
            }
            other => return Err(bad(format!("`splits`: {other} is no name"))),
        }
    }
    Ok(spec)
}

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

/// An MTEB task from its `TaskMetadata` as JSON, with the columns that its type has there.
///
/// # Errors
/// JSON that is none, a type without a counterpart (bitext mining, summarisation), an unknown main score.
pub fn mteb(source: &str, local: &Local, notes: &mut Vec<String>) -> Result<TaskSpec> {
    let value = json(source)?;
    let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let name = word("name");
    if name.is_empty() {
        return Err(bad("`name` is missing"));
    }
    let mut spec = TaskSpec::new(
        id(&format!("mteb/{name}")),
        Source::new(SourceKind::Jsonl, ""),
    );
    let f = &mut spec.fields;
    let mut set = |pairs: &[(&str, &str)]| {
        for (field, column) in pairs {
            let slot = match *field {
                "input" => &mut f.input,
                "input2" => &mut f.input2,
                "query" => &mut f.query,
                "document" => &mut f.document,
                _ => &mut f.target,
            };
            (*column).clone_into(slot);
        }
    };
    let kind = match &*word("type") {
        "Classification" => {
            set(&[("input", "text"), ("target", "label")]);
            TaskType::Classification
        }
        "MultilabelClassification" => {
            set(&[("input", "text"), ("target", "label")]);
            TaskType::Multilabel
        }
        "PairClassification" => {
            set(&[
                ("input", "sentence1"),
                ("input2", "sentence2"),
                ("target", "labels"),
            ]);
            TaskType::PairClassification
        }
        "STS" => {
            set(&[
                ("input", "sentence1"),
                ("input2", "sentence2"),
                ("target", "score"),
            ]);
            TaskType::Sts
        }
        "Clustering" => {
            set(&[("input", "sentences"), ("target", "labels")]);
            TaskType::Clustering
        }
        "Retrieval" | "InstructionRetrieval" => {
            set(&[("query", "text"), ("document", "text")]);
            TaskType::Retrieval
        }
        "Reranking" => {
            set(&[
                ("query", "query"),
                ("document", "positive"),
                ("target", "negative"),
            ]);
            TaskType::Reranking
        }
        other => return Err(bad(format!("`type`: `{other}` has no counterpart"))),
    };
    spec.kind = Some(kind);
    spec.title = name;
    spec.description = word("description");
    spec.homepage = word("reference");
    spec.citation = word("bibtex_citation");
    spec.license = word("license");
    spec.tags.domains = words(&value["domains"]);
    spec.tags.skills = words(&value["task_subtypes"]);
    spec.tags.tags = vec!["mteb".into()];
    spec.source.revision = value["dataset"]["revision"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let languages = match &value["eval_langs"] {
        Value::Object(map) => map.values().flat_map(words).collect(),
        other => words(other),
    };
    let short: BTreeSet<String> = languages
        .iter()
        .map(|l| l.split('-').next().unwrap_or(l).to_owned())
        .collect();
    spec.language = short.into_iter().collect();
    spec.metrics = vec![main_score(&word("main_score"))?];
    let path = value["dataset"]["path"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if path.is_empty() {
        return Err(bad("`dataset.path` is missing"));
    }
    let splits = words(&value["eval_splits"]);
    if kind == TaskType::Retrieval {
        let first = splits.first().map_or("test", String::as_str);
        for (ours, theirs) in [(first, "queries"), ("documents", "corpus")] {
            spec.splits
                .named
                .insert(ours.into(), place(&path, theirs, local, notes));
        }
        spec.qrels = Some(Qrels::File(format!("{path}/qrels/{first}.tsv")));
    } else {
        for split in splits {
            let entry = place(&path, &split, local, notes);
            spec.splits.named.insert(split, entry);
        }
        if local.split(&path, "train").is_some() && !spec.splits.named.contains_key("train") {
            let entry = place(&path, "train", local, notes);
            spec.splits.named.insert("train".into(), entry);
        }
    }
    spec.source.kind = kind_of(spec.splits.named.values().map(|s| &*s.file))?;
    checked(spec)
}

/// `ndcg_at_10`, `cosine_spearman`, `max_ap`, ... as our metric with its parameters.
fn main_score(name: &str) -> Result<Metric> {
    if let Some((base, k)) = name.split_once("_at_")
        && let Ok(k) = k.parse::<u64>()
    {
        let ours = match base {
            "ndcg" | "map" | "mrr" => base,
            "recall" => "recall_at_k",
            "precision" => "precision_at_k",
            "hit_rate" => "hit_rate",
            other => return Err(bad(format!("`main_score`: `{other}_at_{k}` is unknown"))),
        };
        let mut metric = Metric::named(ours, true);
        metric.params.insert("k".into(), k.into());
        return Ok(metric);
    }
    let plain = ["cosine_", "cos_sim_", "max_", "similarity_"]
        .into_iter()
        .find_map(|p| name.strip_prefix(p))
        .unwrap_or(name);
    let ours = match plain {
        "ap" => "average_precision",
        "lrap" => return Err(bad("`main_score`: `lrap` is unknown")),
        other => other,
    };
    if crate::tasks::metrics::find(ours).is_none() {
        return Err(bad(format!("`main_score`: `{name}` is unknown")));
    }
    Ok(Metric::named(ours, true))
}
