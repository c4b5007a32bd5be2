//! `task_hash`: two scores are comparable only where it is equal.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::spec::TaskSpec;

/// SHA-256 (lower-case hex) of the spec in canonical JSON (keys sorted, no white space, defaults left out; without
/// title, description and weights) together with the hashes of its data files by name.
///
/// Formatting, comments and written-out defaults of the spec file do not change it.
#[must_use]
pub fn task_hash(spec: &TaskSpec, files: &BTreeMap<String, String>) -> String {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        for key in ["title", "description", "weights"] {
            map.shift_remove(key);
        }
    }
    let mut text = String::new();
    canonical(&value, &mut text);
    text.push('\n');
    for (name, hash) in files {
        text += &format!("{name} {hash}\n");
    }
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// JSON with sorted keys and no white space; numbers as `serde_json` writes them.
pub(crate) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            out.push('{');
            for (i, (key, item)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                *out += &Value::from(key.as_str()).to_string();
                out.push(':');
                canonical(item, out);
            }
            out.push('}');
        }
        other => *out += &other.to_string(),
    }
}
