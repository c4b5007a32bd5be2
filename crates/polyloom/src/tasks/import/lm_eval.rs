//! lm-evaluation-harness YAML: declarative tasks and groups, `include` followed.

use std::path::Path;

use serde_json::{Map, Value};

use super::lm_eval_output::{filters, generation};
use super::{Local, bad, checked, field_template, id, kind_of, text, usual_metrics, words};
use crate::error::Result;
use crate::tasks::prompt::Renderer;
use crate::tasks::python;
use crate::tasks::spec::{
    Choices, FixedSampler, GroupSpec, Metric, Prompt, Sampler, SamplerName, Source, SourceKind,
    Split, TaskSpec, TaskType,
};

/// Keys that change nothing here: what they say is for people, or about a decontamination of training data.
const SILENT: &[&str] = &[
    "metadata",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "group_alias",
    "include",
    "task",
];

/// Keys that this reader understands.
const KNOWN: &[&str] = &[
    "task_alias",
    "tag",
    "group",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "output_type",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "description",
    "target_delimiter",
    "fewshot_delimiter",
    "num_fewshot",
    "fewshot_config",
    "generation_kwargs",
    "repeats",
    "filter_list",
    "metric_list",
    "aggregate_metric_list",
];

/// The deepest chain of `include`.
const DEPTH: usize = 16;

/// A task from YAML text alone, its files named by `dataset_kwargs.data_files`.
///
/// # Errors
/// YAML that is none, a `!function` (named), `include` (it needs a file around it), a key, output type, filter or metric
/// that no spec has.
pub fn task(source: &str) -> Result<TaskSpec> {
    let value = parse(source)?;
    if value.contains_key("include") {
        return Err(bad("`include` needs the file that the text is from"));
    }
    let local = Local {
        folder: Path::new("."),
        data: &[],
    };
    convert(&Value::Object(value), &local, &mut Vec::new())
}

/// The tasks and groups of a YAML file, `include` resolved beside the file that says it.
///
/// # Errors
/// As [`task`]; an include that is not there, or files that include each other.
pub fn file(
    path: &Path,
    local: &Local,
    notes: &mut Vec<String>,
) -> Result<(Vec<TaskSpec>, Vec<GroupSpec>)> {
    let value = included(path, 0)?;
    if value.get("group").is_some() && !value.get("task").is_some_and(Value::is_string) {
        let mut groups = Vec::new();
        super::lm_eval_group::group(&value, &mut groups)?;
        return Ok((Vec::new(), groups));
    }
    Ok((
        vec![convert(&Value::Object(value), local, notes)?],
        Vec::new(),
    ))
}

fn parse(source: &str) -> Result<Map<String, Value>> {
    let lines = source.lines().filter(|l| !l.trim_start().starts_with('#'));
    for line in lines {
        if let Some(at) = line.find("!function") {
            let name = line[at + 9..].split_whitespace().next().unwrap_or("?");
            return Err(bad(format!("needs the Python function `{name}`")));
        }
    }
    match serde_saphyr::from_str(source) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(bad("is no table of keys")),
        Err(e) => Err(bad(format!("is not valid YAML: {e}"))),
    }
}

/// A file over those it includes: its own keys win.
fn included(path: &Path, depth: usize) -> Result<Map<String, Value>> {
    if depth > DEPTH {
        return Err(bad(format!(
            "`include` is nested more than {DEPTH} times; a circle?"
        )));
    }
    let own = parse(&text(path)?)?;
    let mut all = Map::new();
    let folder = path.parent().unwrap_or(Path::new("."));
    for name in own.get("include").map(words).unwrap_or_default() {
        let inner = included(&folder.join(&name), depth + 1)
            .map_err(|e| bad(format!("`include: {name}`: {e}")))?;
        all.extend(inner);
    }
    all.extend(own);
    Ok(all)
}

fn convert(value: &Value, local: &Local, notes: &mut Vec<String>) -> Result<TaskSpec> {
    let keys = value.as_object().into_iter().flat_map(Map::keys);
    for key in keys {
        if !KNOWN.contains(&&**key) && !SILENT.contains(&&**key) {
            return Err(bad(format!("`{key}` is not read")));
        }
    }
    let name = value["task"]
        .as_str()
        .ok_or_else(|| bad("`task` is missing"))?;
    let mut spec = TaskSpec::new(id(name), Source::new(SourceKind::Jsonl, ""));
    spec.version = match &value["metadata"]["version"] {
        Value::Null => "1.0".into(),
        Value::String(s) => s.clone(),
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), python::float),
        other => other.to_string(),
    };
    let kind = match value["output_type"].as_str().unwrap_or("generate_until") {
        "multiple_choice" => TaskType::MultipleChoice,
        "generate_until" => TaskType::Generation,
        "loglikelihood_rolling" => TaskType::Perplexity,
        other => return Err(bad(format!("`output_type`: `{other}` is not read"))),
    };
    spec.kind = Some(kind);
    spec.title = value["task_alias"].as_str().unwrap_or_default().to_owned();
    spec.tags.tags = words(&value["tag"]);
    spec.tags.tags.extend(words(&value["group"]));
    splits(value, local, &mut spec, notes)?;
    fewshot(value, &mut spec)?;
    asked(value, kind, &mut spec)?;
    generation(value, &mut spec)?;
    filters(value, &mut spec)?;
    metrics(value, kind, &mut spec)?;
    checked(spec)
}

fn splits(
    value: &Value,
    local: &Local,
    spec: &mut TaskSpec,
    notes: &mut Vec<String>,
) -> Result<()> {
    let path = value["dataset_path"]
        .as_str()
        .ok_or_else(|| bad("`dataset_path` is missing"))?;
    let loader = ["json", "csv", "parquet"].contains(&path);
    let files = &value["dataset_kwargs"]["data_files"];
    let set = match value["dataset_name"].as_str() {
        Some(name) => format!("{path}/{name}"),
        None => path.to_owned(),
    };
    let file = |theirs: &str, notes: &mut Vec<String>| -> Result<String> {
        if loader {
            let named = match files {
                Value::Object(map) => map.get(theirs),
                one => (theirs == "train").then_some(one),
            };
            return match named {
                Some(Value::String(s)) => Ok(s.clone()),
                Some(Value::Array(list)) if list.len() == 1 && list[0].is_string() => {
                    Ok(words(&list[0]).remove(0))
                }
                Some(Value::Array(_)) => Err(bad(format!(
                    "`data_files` has several files for `{theirs}`"
                ))
                .hint("put them into one, or name them by a pattern such as part-*.jsonl")),
                _ => Err(bad(format!("`data_files` has no `{theirs}`"))),
            };
        }
        Ok(local.split(&set, theirs).unwrap_or_else(|| {
            let file = format!("{set}/{theirs}.jsonl");
            notes.push(format!(
                "`{file}` is not here; put the rows there, or name their folder with --data"
            ));
            file
        }))
    };
    let fewshot = value["fewshot_split"]
        .as_str()
        .or(value["fewshot_config"]["split"].as_str());
    for (key, split) in [
        ("training_split", "train"),
        ("validation_split", "validation"),
        ("test_split", "test"),
    ] {
        let Some(theirs) = value[key].as_str() else {
            continue;
        };
        let entry = Split {
            file: file(theirs, notes)?,
            ..Split::default()
        };
        spec.splits.named.insert(split.into(), entry);
        if fewshot == Some(theirs) {
            spec.splits.fewshot.get_or_insert_with(|| split.to_owned());
        }
    }
    if let Some(theirs) = fewshot
        && spec.splits.fewshot.is_none()
    {
        let entry = Split {
            file: file(theirs, notes)?,
            ..Split::default()
        };
        spec.splits.named.insert(theirs.into(), entry);
        spec.splits.fewshot = Some(theirs.to_owned());
    }
    spec.source.kind = kind_of(spec.splits.named.values().map(|s| &*s.file))?;
    let agree = match path {
        "json" => matches!(spec.source.kind, SourceKind::Json | SourceKind::Jsonl),
        "csv" => matches!(spec.source.kind, SourceKind::Csv | SourceKind::Tsv),
        "parquet" => spec.source.kind == SourceKind::Parquet,
        _ => true,
    };
    if !agree {
        return Err(bad(format!(
            "`dataset_path: {path}` does not fit the names of its files"
        )));
    }
    Ok(())
}

fn fewshot(value: &Value, spec: &mut TaskSpec) -> Result<()> {
    let n = &value["num_fewshot"];
    if let Some(n) = n.as_u64() {
        spec.fewshot.n = u32::try_from(n).map_err(|_| bad("`num_fewshot` is too large"))?;
    } else if !n.is_null() {
        return Err(bad("`num_fewshot` is no whole number"));
    }
    for (key, inner) in value["fewshot_config"].as_object().into_iter().flatten() {
        match (&**key, inner) {
            ("split", Value::String(_)) => {}
            ("sampler", Value::String(s)) if s == "first_n" => {}
            ("sampler", Value::String(s)) if s == "default" => {
                spec.fewshot.sampler = Sampler::Named(SamplerName::Seeded);
            }
            ("fewshot_indices", Value::Array(list)) if list.iter().all(Value::is_u64) => {
                let fixed = list.iter().map(Value::to_string).collect();
                spec.fewshot.sampler = Sampler::Fixed(FixedSampler { fixed });
            }
            _ => return Err(bad(format!("`fewshot_config.{key}: {inner}` is not read"))),
        }
    }
    // Their sampler draws unless told otherwise.
    if spec.fewshot.n > 0 && value["fewshot_config"].is_null() {
        spec.fewshot.sampler = Sampler::Named(SamplerName::Seeded);
    }
    Ok(())
}

fn asked(value: &Value, kind: TaskType, spec: &mut TaskSpec) -> Result<()> {
    let text = |key: &str, default: &str| match &value[key] {
        Value::Null => Ok(default.to_owned()),
        Value::String(s) => Ok(s.clone()),
        other => Err(bad(format!("`{key}`: {other} is no text"))),
    };
    let target = match &value["doc_to_target"] {
        Value::String(s) => field_template(s),
        Value::Number(n) => n.to_string(),
        Value::Null => String::new(),
        other => return Err(bad(format!("`doc_to_target`: {other} is not read"))),
    };
    if kind == TaskType::Perplexity {
        if target.is_empty() {
            return Err(bad("`doc_to_target` is missing"));
        }
        if !text("doc_to_text", "")?.is_empty() {
            return Err(bad("`doc_to_text` of a rolling likelihood is not read"));
        }
        spec.fields.input = value["doc_to_target"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        return Renderer::new().check(&spec.fields.input);
    }
    let prompt = Prompt {
        id: "default".into(),
        instruction: text("description", "")?,
        template: field_template(&text("doc_to_text", "")?),
        choices: match &value["doc_to_choice"] {
            Value::String(s) => Some(Choices::Template(field_template(s))),
            Value::Array(list) if list.iter().all(Value::is_string) => {
                Some(Choices::List(words(&value["doc_to_choice"])))
            }
            Value::Null => None,
            other => return Err(bad(format!("`doc_to_choice`: {other} is not read"))),
        },
        target,
        target_delimiter: text("target_delimiter", " ")?,
        fewshot_delimiter: text("fewshot_delimiter", "\n\n")?,
        choice_format: String::new(),
    };
    let renderer = Renderer::new();
    let choices = match &prompt.choices {
        Some(Choices::Template(t)) => t.as_str(),
        _ => "",
    };
    for (key, template) in [
        ("description", &*prompt.instruction),
        ("doc_to_text", &prompt.template),
        ("doc_to_target", &prompt.target),
        ("doc_to_choice", choices),
    ] {
        renderer
            .check(template)
            .map_err(|e| bad(format!("`{key}`: {e}")))?;
    }
    spec.prompts.push(prompt);
    Ok(())
}

fn metrics(value: &Value, kind: TaskType, spec: &mut TaskSpec) -> Result<()> {
    let list = value["metric_list"].as_array();
    for (i, entry) in list.into_iter().flatten().enumerate() {
        let name = entry["metric"]
            .as_str()
            .ok_or_else(|| bad("`metric_list` has an entry without `metric`"))?;
        let mut metric = Metric::named(name, i == 0);
        for (key, inner) in entry.as_object().into_iter().flatten() {
            match &**key {
                "metric" => {}
                "aggregation" => {
                    let how = inner.as_str().unwrap_or_default();
                    // Metrics of a whole corpus name themselves or their perplexity as aggregation.
                    let own = how == name
                        || ["perplexity", "weighted_perplexity", "bits_per_byte"].contains(&how);
                    if ["mean", "median"].contains(&how) {
                        how.clone_into(&mut metric.aggregate);
                    } else if !own {
                        return Err(bad(format!(
                            "metric `{name}`: the aggregation {inner} is not read"
                        )));
                    }
                }
                "higher_is_better" => {
                    let known = crate::tasks::metrics::find(name);
                    if known.is_some_and(|k| Some(k.higher_is_better) != inner.as_bool()) {
                        return Err(bad(format!(
                            "metric `{name}`: `higher_is_better: {inner}` turns it round"
                        )));
                    }
                }
                _ => {
                    metric.params.insert(key.clone(), inner.clone());
                }
            }
        }
        spec.metrics.push(metric);
    }
    if spec.metrics.is_empty() {
        spec.metrics = usual_metrics(kind);
    }
    Ok(())
}
