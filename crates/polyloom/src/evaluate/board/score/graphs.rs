//! Graphs of tools, as benchmarks and their answers write them.

use serde_json::Value;

use super::answers::{plain, unpacked};
use crate::evaluate::metric::tool_graph::ToolGraph;

/// `{"nodes": [...], "links": [...]}` (also `task_nodes`, `tool_nodes`, `task_links`, `tool_links`), or a list of calls.
///
/// A node or call is a name, `{"task": name, ...}`, `{"name": ...}`, `{"id": ...}`, `{"function": {"name": ...}}`, or
/// `{name: {arguments}}` as in BFCL. A link is `{"source": a, "target": b}` or a pair.
pub(super) fn graph(value: &Value) -> Result<ToolGraph, String> {
    let value = unpacked(value);
    let part = |names: [&str; 3]| names.iter().find_map(|n| value.get(n)).map(unpacked);
    let (nodes, links) = match &value {
        Value::Array(calls) => (calls.clone(), Vec::new()),
        Value::Object(map) => {
            let list = |v: Option<Value>| match v {
                None | Some(Value::Null) => Ok(None),
                Some(Value::Array(list)) => Ok(Some(list)),
                Some(other) => Err(format!("`{other}` is no list of tools or links")),
            };
            let nodes = list(part(["nodes", "task_nodes", "tool_nodes"]))?;
            let links = list(part(["links", "task_links", "tool_links"]))?;
            match (nodes, links) {
                (None, None) if map.is_empty() => (Vec::new(), Vec::new()),
                // One call.
                (None, None) => (vec![value.clone()], Vec::new()),
                (nodes, links) => (nodes.unwrap_or_default(), links.unwrap_or_default()),
            }
        }
        Value::Null => (Vec::new(), Vec::new()),
        other => return Err(format!("`{}` is no graph of tools", plain(other))),
    };
    Ok(ToolGraph {
        nodes: nodes.iter().map(tool).collect::<Result<_, _>>()?,
        links: links.iter().map(link).collect::<Result<_, _>>()?,
    })
}

/// The name of a node or call.
fn tool(value: &Value) -> Result<String, String> {
    let named = |v: &Value| {
        let keys = ["task", "name", "id", "tool"];
        keys.iter()
            .find_map(|k| v.get(k)?.as_str().map(str::to_owned))
    };
    let found = match value {
        Value::String(name) => Some(name.clone()),
        Value::Object(map) => named(value)
            .or_else(|| named(value.get("function")?))
            .or_else(|| match map.iter().next() {
                Some((name, Value::Object(_))) if map.len() == 1 => Some(name.clone()),
                _ => None,
            }),
        _ => None,
    };
    found.ok_or_else(|| format!("`{value}` names no tool"))
}

fn link(value: &Value) -> Result<(String, String), String> {
    let end = |key: &str, place: usize| {
        let value = value.get(key).or_else(|| value.get(place));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    match (end("source", 0), end("target", 1)) {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Err(format!("`{value}` has not source and target")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_of_a_graph() {
        let forms = [
            json!({"nodes": ["a", "b"], "links": [["a", "b"]]}),
            json!({"task_nodes": [{"task": "a", "arguments": []}, {"task": "b"}],
                   "task_links": [{"source": "a", "target": "b"}]}),
            json!({"tool_nodes": "[{\"id\": \"b\"}, {\"id\": \"a\"}]", "tool_links": [["a", "b"]]}),
            json!("{'nodes': ['a', 'b', 'a'], 'links': [['a', 'b']]}"),
        ];
        for form in &forms {
            let found = graph(form).unwrap();
            assert_eq!(found.nodes.iter().collect::<Vec<_>>(), ["a", "b"], "{form}");
            assert_eq!(found.links.len(), 1, "{form}");
        }
        let calls = graph(&json!([{"a": {"x": [1]}}, {"function": {"name": "b"}}])).unwrap();
        assert_eq!((calls.nodes.len(), calls.links.len()), (2, 0));
        assert_eq!(graph(&json!({})), Ok(ToolGraph::default()));
        for bad in [
            json!("no"),
            json!([1]),
            json!({"nodes": 3}),
            json!({"links": [["a"]]}),
        ] {
            assert!(graph(&bad).is_err(), "{bad}");
        }
    }
}
