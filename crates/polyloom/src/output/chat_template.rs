//! Chat templates: known names, the inputs' most common one, or the user's own.

use std::path::Path;

use serde_json::Value;

use polyloom_core::checkpoint::read_json;

use crate::error::{MergeError, Result};

/// Known formats by name, as Jinja.
pub const NAMED: &[(&str, &str)] = &[
    (
        "alpaca",
        "{%- for message in messages -%}\
         {%- if message['role'] == 'system' -%}{{ message['content'] + '\\n\\n' }}\
         {%- elif message['role'] == 'user' -%}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}\
         {%- elif message['role'] == 'assistant' -%}{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}\
         {%- endif -%}{%- endfor -%}\
         {%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}\n",
    ),
    (
        "chatml",
        "{%- for message in messages -%}\
         {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
         {%- endfor -%}\
         {%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}\n",
    ),
    (
        "exaone",
        "{%- for message in messages -%}\
         {%- if loop.first and message['role'] != 'system' -%}{{ '[|system|][|endofturn|]\\n' }}{%- endif -%}\
         {{ '[|' + message['role'] + '|]' + message['content'] }}\
         {%- if message['role'] != 'user' -%}{{ '[|endofturn|]' }}{%- endif -%}\
         {%- if not loop.last or add_generation_prompt -%}{{ '\\n' }}{%- endif -%}\
         {%- endfor -%}\
         {%- if add_generation_prompt -%}{{ '[|assistant|]' }}{%- endif -%}\n",
    ),
    (
        "llama3",
        "{{- bos_token -}}\
         {%- for message in messages -%}\
         {{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
         {{- (message['content'] | trim) + '<|eot_id|>' }}\
         {%- endfor -%}\
         {%- if add_generation_prompt -%}\
         {{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}\n",
    ),
    (
        "mistral",
        "{{- bos_token -}}\
         {%- set state = namespace(system='') -%}\
         {%- for message in messages -%}\
         {%- if message['role'] == 'system' -%}\
         {%- set state.system = message['content'] + '\\n\\n' -%}\
         {%- elif message['role'] == 'user' -%}\
         {{ '[INST] ' + state.system + message['content'] + ' [/INST]' }}\
         {%- set state.system = '' -%}\
         {%- elif message['role'] == 'assistant' -%}\
         {{ ' ' + (message['content'] | trim) + eos_token }}\
         {%- endif -%}{%- endfor -%}\n",
    ),
];

/// The chat template of a model folder: `chat_template.jinja`, else the key of `tokenizer_config.json` (of several
/// named ones the `default`), else `chat_template.json`.
pub fn read(folder: &Path) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if file.is_file() {
        let text = std::fs::read_to_string(&file)
            .map_err(|e| polyloom_core::Error::io(&file, "read", e))?;
        return Ok(Some(text));
    }
    for name in ["tokenizer_config.json", "chat_template.json"] {
        let path = folder.join(name);
        if path.is_file()
            && let Some(text) = read_json(&path)?.get("chat_template").and_then(default_of)
        {
            return Ok(Some(text.to_owned()));
        }
    }
    Ok(None)
}

fn default_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(list) => list
            .iter()
            .find(|e| e.get("name").and_then(Value::as_str) == Some("default"))?
            .get("template")?
            .as_str(),
        Value::Object(map) => map.get("default")?.as_str(),
        _ => None,
    }
}

/// The Jinja text that `spec` asks for: a name of [`NAMED`], `auto` (the most common among `inputs`, the earliest on a
/// tie; `None` if no input has one) or Jinja itself.
pub fn resolve(spec: &str, inputs: &[Option<String>]) -> Result<Option<String>> {
    if spec == "auto" {
        let mut counts: indexmap::IndexMap<&str, usize> = indexmap::IndexMap::new();
        for text in inputs.iter().flatten() {
            *counts.entry(text.trim()).or_default() += 1;
        }
        let most = counts.values().max().copied();
        return Ok(counts
            .iter()
            .find(|(_, n)| Some(**n) == most)
            .map(|(text, _)| (*text).to_owned()));
    }
    if let Some((_, text)) = NAMED.iter().find(|(name, _)| *name == spec) {
        return Ok(Some((*text).to_owned()));
    }
    if spec.contains("{{") || spec.contains("{%") {
        return Ok(Some(spec.to_owned()));
    }
    let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
    Err(MergeError::plan(
        "chat-template",
        format!("chat_template `{spec}` is neither a known name nor Jinja text"),
    )
    .hint(format!(
        "known names: {}, or auto for the most common one of the inputs",
        names.join(", ")
    )))
}

/// Puts `template` into a parsed `tokenizer_config.json` (`None`: there is none, one is made). The second value is the
/// content of `chat_template.jinja`, for folders that use that file (it wins over the key in current programs).
pub fn write(config: Option<&Value>, template: &str, file_style: bool) -> (Value, Option<Vec<u8>>) {
    let mut config = match config {
        Some(Value::Object(map)) => map.clone(),
        _ => serde_json::Map::new(),
    };
    config.insert("chat_template".into(), Value::from(template));
    let file = file_style.then(|| template.as_bytes().to_vec());
    (Value::Object(config), file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn auto_takes_the_most_common() {
        let some = |s: &str| Some(s.to_owned());
        let inputs = [some("{{a}}"), None, some("{{b}}"), some(" {{b}}\n")];
        assert_eq!(resolve("auto", &inputs).unwrap(), some("{{b}}"));
        assert_eq!(resolve("auto", &inputs[..3]).unwrap(), some("{{a}}"));
        assert_eq!(resolve("auto", &[None]).unwrap(), None);
        assert_eq!(resolve("{{ x }}", &[]).unwrap(), some("{{ x }}"));
        assert!(
            resolve("chatml", &[])
                .unwrap()
                .unwrap()
                .contains("<|im_end|>")
        );
        let error = resolve("chatlm", &[]).unwrap_err();
        assert!(error.hints()[0].contains("chatml"));
    }

    #[test]
    fn both_places_are_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let config = json!({"a": 1, "chat_template": [
            {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]});
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        assert_eq!(read(dir.path()).unwrap().as_deref(), Some("d"));
        std::fs::write(dir.path().join("chat_template.jinja"), "j").unwrap();
        assert_eq!(read(dir.path()).unwrap().as_deref(), Some("j"));
        let (config, file) = write(Some(&config), "new", true);
        assert_eq!(config, json!({"a": 1, "chat_template": "new"}));
        assert_eq!(file.unwrap(), b"new");
        assert_eq!(
            write(None, "n", false),
            (json!({"chat_template": "n"}), None)
        );
    }
}
