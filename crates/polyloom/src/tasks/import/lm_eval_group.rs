//! Groups of lm-evaluation-harness.

use serde_json::{Map, Value};

use super::{bad, id};
use crate::error::Result;
use crate::tasks::spec::{Aggregate, GROUP_SCHEMA, GroupSpec, GroupWeight};

/// A group and the groups inside it.
pub(super) fn group(value: &Map<String, Value>, out: &mut Vec<GroupSpec>) -> Result<String> {
    let name = value["group"]
        .as_str()
        .ok_or_else(|| bad("`group` is no name"))?;
    let mut tasks = Vec::new();
    let list = match value.get("task") {
        Some(Value::Array(list)) => &list[..],
        _ => return Err(bad(format!("group `{name}`: `task` is no list"))),
    };
    for entry in list {
        match entry {
            Value::String(task) => tasks.push(id(task)),
            Value::Object(inner) if inner.contains_key("group") => tasks.push(group(inner, out)?),
            Value::Object(inner) => {
                let task = inner.get("task").and_then(Value::as_str).unwrap_or("?");
                let what = format!("group `{name}` changes the task `{task}` in place");
                return Err(bad(what).hint("write it as a task of its own that includes the other"));
            }
            _ => {
                return Err(bad(format!(
                    "group `{name}`: an entry of `task` is no name"
                )));
            }
        }
    }
    let mut aggregate = Vec::new();
    let list = value.get("aggregate_metric_list").and_then(Value::as_array);
    for entry in list.into_iter().flatten() {
        let how = entry["aggregation"].as_str().unwrap_or("mean");
        aggregate.push(Aggregate {
            metric: entry["metric"].as_str().unwrap_or_default().to_owned(),
            how: how.to_owned(),
            weight: match entry["weight_by_size"].as_bool() {
                Some(false) => GroupWeight::Equal,
                _ => GroupWeight::Size,
            },
        });
    }
    let spec = GroupSpec {
        schema: GROUP_SCHEMA.into(),
        id: id(name),
        title: value
            .get("group_alias")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        tasks,
        aggregate,
    };
    if let Some(problem) = crate::tasks::validate::group(&spec).into_iter().next() {
        return Err(bad(format!(
            "group `{name}`: `{}`: {}",
            problem.path, problem.message
        )));
    }
    out.push(spec);
    Ok(id(name))
}
