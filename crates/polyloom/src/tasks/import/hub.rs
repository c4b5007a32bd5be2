//! Data sets described by a file of their own: tasksource mappings, MTEB metadata.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Local, bad, checked, id, kind_of, usual_metrics, words};
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
