//! lm-evaluation-harness YAML: how text is generated, and how answers are read from it.

use serde_json::{Map, Value};

use super::{bad, words};
use crate::error::Result;
use crate::tasks::spec::{Parse, Step, TaskSpec};

pub(super) fn generation(value: &Value, spec: &mut TaskSpec) -> Result<()> {
    if let Some(n) = value["repeats"].as_u64() {
        spec.generation.repeats = u32::try_from(n).map_err(|_| bad("`repeats` is too large"))?;
    }
    let mut sampled = None;
    for (key, inner) in value["generation_kwargs"].as_object().into_iter().flatten() {
        match (&**key, inner) {
            ("until", inner) => spec.generation.stop = words(inner),
            ("max_gen_toks" | "max_new_tokens" | "max_tokens", Value::Number(n)) => {
                let n = n.as_u64().and_then(|n| u32::try_from(n).ok());
                spec.generation.max_tokens =
                    n.ok_or_else(|| bad(format!("`generation_kwargs.{key}` is no count")))?;
            }
            ("temperature", Value::Number(n)) => {
                spec.generation.temperature = n.as_f64().unwrap_or(0.0);
            }
            ("do_sample", Value::Bool(on)) => sampled = Some(*on),
            _ => {
                return Err(bad(format!(
                    "`generation_kwargs.{key}: {inner}` is not read"
                )));
            }
        }
    }
    match sampled {
        Some(false) => spec.generation.temperature = 0.0,
        Some(true) if spec.generation.temperature == 0.0 => spec.generation.temperature = 1.0,
        _ => {}
    }
    Ok(())
}

pub(super) fn filters(value: &Value, spec: &mut TaskSpec) -> Result<()> {
    for chain in value["filter_list"].as_array().into_iter().flatten() {
        let name = chain["name"].as_str().unwrap_or("filter").to_owned();
        let mut steps = Vec::new();
        for step in chain["filter"].as_array().into_iter().flatten() {
            let function = step["function"].as_str().unwrap_or_default();
            let keys = step.as_object().into_iter().flat_map(Map::keys);
            let extra =
                keys.filter(|k| !["function", "regex_pattern", "group_select"].contains(&&***k));
            if let Some(key) = extra.into_iter().next() {
                return Err(bad(format!("filter `{function}`: `{key}` is not read")));
            }
            match function {
                "take_first" => {}
                "regex" => steps.push(Step {
                    regex: Some(
                        step["regex_pattern"]
                            .as_str()
                            .unwrap_or(r"#### (\-?[0-9\.\,]+)")
                            .into(),
                    ),
                    group: step["group_select"]
                        .as_i64()
                        .and_then(|g| i32::try_from(g).ok())
                        .filter(|g| *g != 0),
                    ..Step::default()
                }),
                "remove_whitespace" => steps.push(Step {
                    strip: true,
                    ..Step::default()
                }),
                "lowercase" => steps.push(Step {
                    lower: true,
                    ..Step::default()
                }),
                other => return Err(bad(format!("the filter `{other}` is not read"))),
            }
        }
        spec.parse.push(Parse { name, steps });
    }
    Ok(())
}
