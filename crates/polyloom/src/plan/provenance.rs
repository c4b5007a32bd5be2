//! `polyloom.json`: what an output was made from, so that it can be made again and checked.

use std::path::Path;

use polyloom_core::Checkpoint;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::execute::HashKind;
use super::{How, Plan};
use crate::error::Result;
use crate::merge::method::Values;

/// One input file.
#[derive(Debug, Clone, Serialize)]
pub struct InputRecord {
    /// Path as found.
    pub file: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Modification time, seconds since 1970 (outside the same-bytes promise).
    pub modified: Option<u64>,
    /// `xxh3-64` of the header, or `sha256` of the file; absent with `--hash none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Records of all input files.
///
/// # Errors
/// With [`HashKind::Full`], a file that cannot be read.
pub fn inputs(plan: &Plan, kind: HashKind) -> Result<Vec<InputRecord>> {
    let mut records = Vec::new();
    let statistics = super::statistics::paths(plan)
        .into_iter()
        .map(Checkpoint::open)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let weights = plan.models.iter().map(|m| m.weights.files());
    let statistics = statistics.iter().map(|c| c.files().iter().collect());
    for files in weights.chain(statistics) {
        for file in files {
            let modified = std::fs::metadata(&file.path)
                .and_then(|m| m.modified())
                .ok()
                .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
                .map(|d| d.as_secs());
            let hash = match kind {
                HashKind::None => None,
                HashKind::Fast => Some(format!("xxh3-64-header:{:016x}", file.header_hash)),
                HashKind::Full => Some(format!("sha256:{}", sha256(&file.path)?)),
            };
            records.push(InputRecord {
                file: file.path.display().to_string(),
                bytes: file.len,
                modified,
                hash,
            });
        }
    }
    Ok(records)
}

/// SHA-256 of a file as lower-case hex.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    Ok(polyloom_core::hash::sha256_file(path)?)
}

/// Text that is equal for two runs exactly if they write the same bytes.
pub fn fingerprint(plan: &Plan, inputs: &[InputRecord], shard_size: u64) -> String {
    let text = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "recipe": resolved(plan),
        "seed": plan.recipe.seed,
        "dtype": plan.recipe.dtype.map(polyloom_core::DType::name),
        "inputs": inputs,
        "shard_size": shard_size,
        "tensors": plan.outputs.iter().map(|o| json!([o.tensor.name, o.tensor.dtype.name(), o.tensor.shape])).collect::<Vec<_>>(),
    });
    text.to_string()
}

/// The recipe with every value that was used. Values that are the same for all tensors are given once; the others by
/// tensor.
pub fn resolved(plan: &Plan) -> Value {
    let recipe = &plan.recipe;
    let mut shared = Spread::default();
    let mut each: Vec<(String, Spread)> = Vec::new();
    for group in &plan.groups {
        for member in &group.members {
            shared.add(&member.job.name, &member.job.shared);
            for (expert, values) in group.experts.iter().zip(&member.job.each) {
                let name = &plan.models[*expert].model.name;
                let at = each.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                    each.push((name.clone(), Spread::default()));
                    each.len() - 1
                });
                each[at].1.add(&member.job.name, values);
            }
        }
    }
    let models: Vec<Value> = plan
        .models
        .iter()
        .enumerate()
        .map(|(i, m)| {
            let mut entry = json!({"name": m.model.name, "model": m.model.reference.to_string()});
            if recipe.base == Some(i) {
                entry["base"] = Value::Bool(true);
            }
            if let Some(task) = &m.model.task {
                entry["task"] = json!(task);
            }
            entry
        })
        .collect();
    let part = |p: &crate::recipe::Part| {
        let settings: Map<String, Value> = p
            .settings
            .iter()
            .map(|(k, (setting, _))| (k.clone(), setting_json(setting)))
            .collect();
        json!({"name": p.name, "settings": settings})
    };
    json!({
        "name": recipe.name,
        "method": recipe.method,
        "models": models,
        "shared": shared.json(),
        "each": each.into_iter().map(|(n, s)| (n, s.json())).collect::<Map<String, Value>>(),
        "on": recipe.on.as_ref().map(part),
        "pre": recipe.pre.iter().map(part).collect::<Vec<_>>(),
        "post": recipe.post.iter().map(part).collect::<Vec<_>>(),
        "dtype": recipe.dtype.map(polyloom_core::DType::torch_name),
        "out_dtype": recipe.out_dtype.map(polyloom_core::DType::torch_name),
        "seed": recipe.seed,
    })
}

fn setting_json(setting: &crate::recipe::Setting) -> Value {
    use crate::recipe::Setting;
    match setting {
        Setting::Value(v) => v.clone(),
        Setting::Gradient(list) => Value::Array(list.clone()),
        Setting::Filters(list) => list
            .iter()
            .map(|(filter, value)| match filter {
                Some(filter) => json!({"filter": filter, "value": setting_json(value)}),
                None => json!({"value": setting_json(value)}),
            })
            .collect(),
    }
}

/// Values of one scope over all tensors.
#[derive(Default)]
struct Spread(indexmap::IndexMap<&'static str, Vec<(String, Value)>>);

impl Spread {
    fn add(&mut self, tensor: &str, values: &Values) {
        for (name, value) in values.iter() {
            self.0
                .entry(name)
                .or_default()
                .push((tensor.to_owned(), value.clone()));
        }
    }

    fn json(self) -> Value {
        let mut out = Map::new();
        for (name, list) in self.0 {
            let same = list.windows(2).all(|w| w[0].1 == w[1].1);
            let value = match list.into_iter().next() {
                Some((_, first)) if same => first,
                Some(first) => {
                    json!({"varies_by_tensor": true, "first": {"tensor": first.0, "value": first.1}})
                }
                None => Value::Null,
            };
            out.insert(name.to_owned(), value);
        }
        Value::Object(out)
    }
}

/// The whole file.
///
/// # Errors
/// With [`HashKind::Full`], an output that cannot be read back.
pub fn document(
    plan: &Plan,
    inputs: &[InputRecord],
    outputs: &[(String, Option<String>)],
) -> Value {
    let tasks: Vec<Value> = plan
        .heads
        .iter()
        .map(|h| json!({"id": h.task, "head": format!("heads/{}.safetensors", h.task), "feature": "cls"}))
        .collect();
    let counts = |f: fn(&How) -> bool| plan.outputs.iter().filter(|o| f(&o.how)).count();
    json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "merge",
        "recipe": resolved(plan),
        "recipe_text": plan.recipe.text,
        "inputs": inputs,
        "outputs": outputs.iter().map(|(f, h)| json!({"file": f, "hash": h})).collect::<Vec<_>>(),
        "tasks": tasks,
        "tensors": {
            "merged": counts(|h| matches!(h, How::Merge(..))),
            "copied": counts(|h| !matches!(h, How::Merge(..))),
        },
    })
}
