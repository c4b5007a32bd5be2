//! Natural-Instructions JSON.

use serde_json::{Map, Value};

use super::{bad, checked, id, raw, words};
use crate::error::Result;
use crate::tasks::spec::{Metric, Prompt, Source, SourceKind, Split, TaskSpec, TaskType};

/// A Natural-Instructions JSON task: definition, up to two positive examples, instances with accepted outputs.
///
/// # Errors
/// JSON that is none, no definition or no instances.
pub fn task(source: &str, name: &str) -> Result<TaskSpec> {
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
