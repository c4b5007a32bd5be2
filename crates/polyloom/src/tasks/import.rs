//! Task files of other collections as specs: lm-evaluation-harness YAML, BIG-bench JSON, Natural-Instructions JSON.
//!
//! What cannot be said without code is refused by name, never half imported. Source: evaluation specification, 1.1 and 1.3.

use serde_json::{Map, Value};

use super::spec::{Choices, Metric, Prompt, Source, SourceKind, Split, TaskSpec, TaskType};
use crate::error::{MergeError, Result};

fn bad(what: impl Into<String>) -> MergeError {
    MergeError::plan("bad-import", what.into())
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(s) => vec![s.clone()],
        Value::Array(list) => list
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// An id of the characters that ids have.
fn id(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._/-".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.to_lowercase().chars().map(plain).collect()
}

fn field_template(text: &str) -> String {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    if !text.is_empty() && text.chars().all(name) {
        format!("{{{{{text}}}}}")
    } else {
        text.to_owned()
    }
}

/// A declarative task of lm-evaluation-harness with local JSON lines (`dataset_path: json`).
///
/// # Errors
/// YAML that is none, a `!function` (named), `include` and `group` (they need the files around this one), an output type or metric
/// that no spec has, a data set that is not local.
pub fn lm_eval(source: &str) -> Result<TaskSpec> {
    if let Some(at) = source.find("!function") {
        let name = source[at + 9..].split_whitespace().next().unwrap_or("?");
        return Err(bad(format!("needs the Python function `{name}`")));
    }
    let value: Value =
        serde_saphyr::from_str(source).map_err(|e| bad(format!("is not valid YAML: {e}")))?;
    for key in [
        "include",
        "group",
        "process_docs",
        "filter_list",
        "doc_to_image",
        "doc_to_audio",
    ] {
        if value.get(key).is_some() {
            return Err(bad(format!("`{key}` is not read")));
        }
    }
    let name = value["task"]
        .as_str()
        .ok_or_else(|| bad("`task` is missing"))?;
    let path = value["dataset_path"].as_str().unwrap_or_default();
    if path != "json" {
        return Err(bad(format!(
            "`dataset_path`: `{path}` is not local; only `json` with `data_files` is read"
        )));
    }
    let mut spec = TaskSpec::new(id(name), Source::new(SourceKind::Jsonl, ""));
    let version = &value["metadata"]["version"];
    spec.version = match version {
        Value::Null => "1.0".into(),
        Value::String(s) => s.clone(),
        Value::Number(n) => n
            .as_f64()
            .map_or_else(|| n.to_string(), super::python::float),
        other => other.to_string(),
    };
    spec.kind = Some(
        match value["output_type"].as_str().unwrap_or("generate_until") {
            "multiple_choice" => TaskType::MultipleChoice,
            "generate_until" => TaskType::Generation,
            "loglikelihood_rolling" => TaskType::Perplexity,
            other => return Err(bad(format!("`output_type`: `{other}` is not read"))),
        },
    );
    spec.tags.tags = words(&value["tag"]);
    let files = &value["dataset_kwargs"]["data_files"];
    for (key, split) in [
        ("training_split", "train"),
        ("validation_split", "validation"),
        ("test_split", "test"),
    ] {
        let Some(theirs) = value[key].as_str() else {
            continue;
        };
        let file = files[theirs]
            .as_str()
            .ok_or_else(|| bad(format!("`data_files` has no `{theirs}`")))?;
        let entry = Split {
            file: file.to_owned(),
            ..Split::default()
        };
        spec.splits.named.insert(split.into(), entry);
        if value["fewshot_split"].as_str() == Some(theirs) {
            spec.splits.fewshot = Some(split.into());
        }
    }
    spec.fewshot.n = value["num_fewshot"]
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(0);
    let text = |key: &str, default: &str| value[key].as_str().unwrap_or(default).to_owned();
    let target = match &value["doc_to_target"] {
        Value::String(s) => field_template(s),
        Value::Number(n) => n.to_string(),
        _ => String::new(),
    };
    spec.prompts.push(Prompt {
        id: "default".into(),
        instruction: text("description", ""),
        template: field_template(&text("doc_to_text", "")),
        choices: match &value["doc_to_choice"] {
            Value::String(s) => Some(Choices::Template(field_template(s))),
            Value::Array(_) => Some(Choices::List(words(&value["doc_to_choice"]))),
            _ => None,
        },
        target,
        target_delimiter: text("target_delimiter", " "),
        fewshot_delimiter: text("fewshot_delimiter", "\n\n"),
        choice_format: String::new(),
    });
    for (i, metric) in value["metric_list"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let name = metric["metric"]
            .as_str()
            .ok_or_else(|| bad("`metric_list` has an entry without `metric`"))?;
        spec.metrics.push(Metric::named(name, i == 0));
    }
    checked(spec)
}

/// A BIG-bench JSON task: `examples` with `target_scores` are multiple choice, with `target` free text. Rows are kept in the
/// spec as `input`, `choices`, `target` (the first right answer), `best` (all right answers), `targets` (accepted texts as
/// given).
///
/// # Errors
/// JSON that is none, no examples, an example without target, a metric that no spec has.
pub fn big_bench(source: &str) -> Result<TaskSpec> {
    let value: Value =
        serde_json::from_str(source).map_err(|e| bad(format!("is not valid JSON: {e}")))?;
    let name = value["name"]
        .as_str()
        .ok_or_else(|| bad("`name` is missing"))?;
    let examples = value["examples"]
        .as_array()
        .ok_or_else(|| bad("`examples` is missing"))?;
    let choice = examples.iter().any(|e| e["target_scores"].is_object());
    let mut spec = TaskSpec::new(id(name), Source::new(SourceKind::Inline, ""));
    spec.title = name.to_owned();
    spec.description = value["description"].as_str().unwrap_or_default().to_owned();
    spec.canary = value["canary"].as_str().unwrap_or_default().to_owned();
    spec.tags.skills = words(&value["keywords"]);
    spec.kind = Some(if choice {
        TaskType::MultipleChoice
    } else {
        TaskType::Generation
    });
    for (i, example) in examples.iter().enumerate() {
        let mut row = Map::new();
        row.insert("id".into(), i.to_string().into());
        row.insert("input".into(), example["input"].clone());
        let targets = words(&example["target"]);
        let mut best = targets.clone();
        if let Some(scores) = example["target_scores"].as_object() {
            let top = scores
                .values()
                .filter_map(Value::as_f64)
                .fold(f64::MIN, f64::max);
            let right = scores.iter().filter(|(_, s)| s.as_f64() == Some(top));
            best = right.map(|(c, _)| c.clone()).collect();
            row.insert("choices".into(), scores.keys().cloned().collect());
        }
        let first = best
            .first()
            .ok_or_else(|| bad(format!("example {i} has no target")))?;
        row.insert("target".into(), first.clone().into());
        row.insert("best".into(), best.into());
        if !targets.is_empty() {
            row.insert("targets".into(), targets.into());
        }
        spec.source.rows.push(row);
    }
    spec.splits.named.insert("test".into(), Split::default());
    spec.fields.id = "id".into();
    spec.fields.input = "input".into();
    spec.fields.target = if choice { "target" } else { "best" }.into();
    let prefix = |key: &str, default: &str| value[key].as_str().unwrap_or(default).to_owned();
    let (before, after) = (
        prefix("example_input_prefix", "\nQ: "),
        prefix("example_output_prefix", "\nA: "),
    );
    let mark = prefix("choice_prefix", "\n  choice: ");
    let shown = value["append_choices_to_input"].as_bool().unwrap_or(true) && choice;
    let raw = |text: &str| {
        if text.contains("{") {
            format!("{{% raw %}}{text}{{% endraw %}}")
        } else {
            text.to_owned()
        }
    };
    let list = if shown {
        format!(
            "{{% for c in choices %}}{}{{{{c}}}}{{% endfor %}}",
            raw(&mark)
        )
    } else {
        String::new()
    };
    spec.prompts.push(Prompt {
        instruction: raw(&prefix("task_prefix", "")),
        template: format!("{}{{{{input}}}}{list}{}", raw(&before), raw(&after)),
        choices: choice.then(|| Choices::Template("{{choices}}".into())),
        target: "{{target}}".into(),
        target_delimiter: String::new(),
        fewshot_delimiter: prefix("few_shot_example_separator", "\n"),
        ..Prompt::default()
    });
    let preferred = value["preferred_score"].as_str().unwrap_or_default();
    for metric in words(&value["metrics"]) {
        let primary = metric == preferred;
        spec.metrics.push(Metric::named(metric, primary));
    }
    checked(spec)
}

/// A Natural-Instructions JSON task: definition, up to two positive examples, instances with accepted outputs.
///
/// # Errors
/// JSON that is none, no definition or no instances.
pub fn natural_instructions(source: &str, name: &str) -> Result<TaskSpec> {
    const CODES: [(&str, &str); 8] = [
        ("English", "en"),
        ("German", "de"),
        ("French", "fr"),
        ("Spanish", "es"),
        ("Italian", "it"),
        ("Chinese", "zh"),
        ("Japanese", "ja"),
        ("Hindi", "hi"),
    ];
    let value: Value =
        serde_json::from_str(source).map_err(|e| bad(format!("is not valid JSON: {e}")))?;
    let definition = words(&value["Definition"]).join(" ");
    let instances = value["Instances"]
        .as_array()
        .ok_or_else(|| bad("`Instances` is missing"))?;
    if definition.is_empty() {
        return Err(bad("`Definition` is missing"));
    }
    let mut spec = TaskSpec::new(id(name), Source::new(SourceKind::Inline, ""));
    spec.kind = Some(TaskType::Generation);
    spec.description.clone_from(&definition);
    spec.tags.skills = words(&value["Categories"]);
    spec.tags.domains = words(&value["Domains"]);
    spec.license = words(&value["Instance License"]).join(", ");
    let code = |name: String| {
        let known = CODES.iter().find(|(n, _)| *n == name);
        known.map_or_else(|| name.to_lowercase(), |(_, c)| (*c).to_owned())
    };
    spec.language = words(&value["Input_language"])
        .into_iter()
        .map(code)
        .collect();
    for instance in instances {
        let mut row = Map::new();
        for (ours, theirs) in [("id", "id"), ("input", "input"), ("target", "output")] {
            row.insert(ours.into(), instance[theirs].clone());
        }
        spec.source.rows.push(row);
    }
    spec.splits.named.insert("test".into(), Split::default());
    spec.fields.id = "id".into();
    spec.fields.input = "input".into();
    spec.fields.target = "target".into();
    let raw = |text: &str| {
        if text.contains('{') {
            format!("{{% raw %}}{text}{{% endraw %}}")
        } else {
            text.to_owned()
        }
    };
    let mut instruction = format!("Definition: {}\n\n", raw(&definition));
    let positive = value["Positive Examples"].as_array().into_iter().flatten();
    for (i, example) in positive.take(2).enumerate() {
        let part = |key: &str| raw(example[key].as_str().unwrap_or_default());
        instruction += &format!(
            "Positive Example {} -\nInput: {}\nOutput: {}\n\n",
            i + 1,
            part("input"),
            part("output")
        );
    }
    spec.prompts.push(Prompt {
        instruction,
        template: "Now complete the following example -\nInput: {{input}}\nOutput:".into(),
        target: "{{target}}".into(),
        ..Prompt::default()
    });
    spec.metrics = vec![
        Metric::named("rouge_l", true),
        Metric::named("exact_match", false),
    ];
    checked(spec)
}

fn checked(spec: TaskSpec) -> Result<TaskSpec> {
    match super::validate::task(&spec).into_iter().next() {
        Some(problem) => Err(bad(format!("`{}`: {}", problem.path, problem.message))),
        None => Ok(spec),
    }
}
