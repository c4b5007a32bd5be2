//! Tool calls: TaskBench folders and Berkeley function calling.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::{bad, checked, id, raw, text, usual_metrics};
use crate::error::Result;
use crate::tasks::data::{Limits, json};
use crate::tasks::spec::{Prompt, Source, SourceKind, Split, TaskSpec, TaskType};

/// The first value of a JSON or JSON-lines file: its first line where that is one, else the whole.
pub(super) fn first_value(path: &Path) -> Result<Value> {
    let file = std::fs::File::open(path).map_err(|e| polyloom_core::Error::io(path, "open", e))?;
    let mut line = Vec::new();
    BufReader::new(file)
        .take(1 << 22)
        .read_until(b'\n', &mut line)
        .map_err(|e| polyloom_core::Error::io(path, "read", e))?;
    match serde_json::from_slice(&line) {
        Ok(Value::Object(map)) => Ok(Value::Object(map)),
        _ => json::whole(path, &Limits::default()),
    }
}

/// Objects of JSON lines.
fn lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let mut out = Vec::new();
    for (i, line) in text(path)?
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
    {
        match serde_json::from_str(line) {
            Ok(Value::Object(map)) => out.push(map),
            _ => {
                return Err(bad(format!(
                    "{}: line {} is no JSON object",
                    path.display(),
                    i + 1
                )));
            }
        }
    }
    Ok(out)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A TaskBench folder: tools from `tool_desc.json`, rows from `data.json` (with the gold graph) or, without it, from
/// `user_requests.json` (without answers); `alignment_ids.json` names the shape of a row (single, chain, dag).
///
/// # Errors
/// A file that is missing or broken, no rows.
pub fn taskbench(folder: &Path, notes: &mut Vec<String>) -> Result<TaskSpec> {
    let folder = super::parent(folder);
    let tools = json::whole(&folder.join("tool_desc.json"), &Limits::default())?;
    let tools = tools["nodes"]
        .as_array()
        .ok_or_else(|| bad("tool_desc.json: `nodes` is missing"))?;
    let mut shapes = BTreeMap::new();
    if let Ok(ids) = json::whole(&folder.join("alignment_ids.json"), &Limits::default()) {
        for (shape, list) in ids["node_alignment_id"].as_object().into_iter().flatten() {
            for entry in list.as_array().into_iter().flatten() {
                shapes.insert(plain(entry), shape.clone());
            }
        }
    }
    let full = folder.join("data.json");
    let gold = full.is_file();
    let source = if gold {
        full
    } else {
        folder.join("user_requests.json")
    };
    if !gold {
        notes.push("data.json is not there: the rows have no answers and cannot be scored".into());
    }
    let name = std::path::absolute(folder).ok();
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|n| n.to_str())
        .unwrap_or("tools");
    let name = name.strip_prefix("data_").unwrap_or(name);
    let mut spec = TaskSpec::new(
        id(&format!("taskbench/{name}")),
        Source::new(SourceKind::Inline, ""),
    );
    spec.kind = Some(TaskType::ToolGraph);
    spec.tags.skills = vec!["tool use".into()];
    spec.tags.domains = vec![name.replace('_', " ")];
    for row in lines(&source)? {
        let key = row
            .get("id")
            .map(plain)
            .ok_or_else(|| bad("a row has no `id`"))?;
        let request = row.get("user_request").or(row.get("instruction"));
        let request = request
            .cloned()
            .ok_or_else(|| bad(format!("row {key} has no `user_request`")))?;
        let mut out = Map::new();
        let shape = row
            .get("type")
            .map(plain)
            .or_else(|| shapes.get(&key).cloned());
        out.insert("id".into(), key.into());
        out.insert("input".into(), request);
        if let Some(shape) = shape {
            out.insert("shape".into(), shape.into());
        }
        if gold {
            let part = |name: &str, other: &str| {
                row.get(name)
                    .or(row.get(other))
                    .cloned()
                    .map(parsed)
                    .unwrap_or_default()
            };
            let target = serde_json::json!({
                "nodes": part("task_nodes", "tool_nodes"), "links": part("task_links", "tool_links"),
            });
            out.insert("target".into(), target);
        }
        spec.source.rows.push(out);
    }
    spec.fields.id = "id".into();
    spec.fields.input = "input".into();
    if gold {
        spec.fields.target = "target".into();
    }
    spec.splits.named.insert("test".into(), Split::default());
    let listed: Vec<String> = tools.iter().map(described).collect();
    spec.prompts.push(Prompt {
        instruction: format!(
            "Tools:\n{}\n\nName the tools that the request needs and how their results are passed on.\n\n",
            raw(&listed.join("\n"))
        ),
        template: "Request: {{input}}\nGraph:".into(),
        target: if gold { "{{target}}".into() } else { String::new() },
        ..Prompt::default()
    });
    spec.metrics = usual_metrics(TaskType::ToolGraph);
    checked(spec)
}

/// Some versions hold lists as JSON text.
fn parsed(value: Value) -> Value {
    match &value {
        Value::String(s) => serde_json::from_str(s).unwrap_or(value),
        _ => value,
    }
}

fn described(tool: &Value) -> String {
    let parameters: Vec<String> = tool["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| format!("{}: {}", plain(&p["name"]), plain(&p["type"])))
        .collect();
    let inputs: Vec<String> = tool["input-type"]
        .as_array()
        .into_iter()
        .flatten()
        .map(plain)
        .collect();
    let inner = if parameters.is_empty() {
        inputs
    } else {
        parameters
    };
    format!(
        "- {}({}): {}",
        plain(&tool["id"]),
        inner.join(", "),
        plain(&tool["desc"])
    )
}

/// A file of the Berkeley function-calling leaderboard: JSON lines of `id`, `question` (turns), `function`, with the
/// answers of `possible_answer/<same name>` as `target` where that file is there.
///
/// # Errors
/// A row without these keys, several questions in a row (multi-turn needs an executor), an answer file that is broken.
pub fn bfcl(path: &Path, notes: &mut Vec<String>) -> Result<TaskSpec> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let answers = super::parent(path).join("possible_answer").join(name);
    let mut gold = BTreeMap::new();
    if answers.is_file() {
        for row in lines(&answers)? {
            gold.insert(
                row.get("id").map(plain).unwrap_or_default(),
                row.get("ground_truth").cloned(),
            );
        }
    } else {
        notes.push(format!(
            "possible_answer/{name} is not there: the rows have no answers and cannot be scored"
        ));
    }
    let stem = name.trim_end_matches(".jsonl").trim_end_matches(".json");
    let mut spec = TaskSpec::new(
        id(&format!("bfcl/{stem}")),
        Source::new(SourceKind::Inline, ""),
    );
    spec.kind = Some(TaskType::ToolGraph);
    spec.tags.skills = vec!["tool use".into()];
    let mut without = 0;
    for row in lines(path)? {
        let key = row.get("id").map(plain).unwrap_or_default();
        let turns = row.get("question").and_then(Value::as_array);
        let turns = turns.ok_or_else(|| bad(format!("row `{key}` has no `question`")))?;
        let [turn] = &turns[..] else {
            return Err(bad(format!(
                "row `{key}` has {} questions; answers in turn need an executor",
                turns.len()
            )));
        };
        let said: Vec<&str> = turn
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| m["content"].as_str())
            .collect();
        let functions = row.get("function").cloned().unwrap_or_default();
        let mut out = Map::new();
        out.insert("input".into(), said.join("\n").into());
        out.insert("functions".into(), functions.to_string().into());
        match gold.get(&key).cloned().flatten() {
            Some(target) => {
                out.insert("target".into(), target);
            }
            None => without += 1,
        }
        out.insert("id".into(), key.into());
        spec.source.rows.push(out);
    }
    if without > 0 && !gold.is_empty() {
        notes.push(format!(
            "{without} of {} rows have no answer",
            spec.source.rows.len()
        ));
    }
    spec.fields.id = "id".into();
    spec.fields.input = "input".into();
    if !gold.is_empty() {
        spec.fields.target = "target".into();
        spec.filter.drop_if_missing = vec!["target".into()];
    }
    spec.splits.named.insert("test".into(), Split::default());
    spec.prompts.push(Prompt {
        instruction: "Answer with calls of these functions, as a JSON list.\n\n".into(),
        template: "Functions: {{functions}}\nRequest: {{input}}\nCalls:".into(),
        target: if gold.is_empty() {
            String::new()
        } else {
            "{{target}}".into()
        },
        ..Prompt::default()
    });
    spec.metrics = usual_metrics(TaskType::ToolGraph);
    checked(spec)
}
