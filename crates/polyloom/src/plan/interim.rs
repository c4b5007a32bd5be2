//! Config edits and companion files.

pub(super) mod config {
    use polyloom_core::DType;
    use serde_json::{Value, json};

    pub(crate) struct Edits {
        pub(crate) dtype: Option<DType>,
        pub(crate) layers: Option<Vec<usize>>,
        pub(crate) vocab_size: Option<usize>,
        pub(crate) tie_word_embeddings: Option<bool>,
        pub(crate) drop_quantization: bool,
    }

    pub(crate) fn edit(config: &Value, edits: &Edits) -> Value {
        let mut out = config.clone();
        let Some(map) = out.as_object_mut() else { return out };
        if let Some(dtype) = edits.dtype {
            let mut found = false;
            for key in ["torch_dtype", "dtype"] {
                if map.contains_key(key) {
                    map.insert(key.into(), json!(dtype.torch_name()));
                    found = true;
                }
            }
            if !found {
                map.insert("dtype".into(), json!(dtype.torch_name()));
            }
        }
        if let Some(layers) = &edits.layers {
            for key in ["num_hidden_layers", "n_layer", "num_layers", "n_layers"] {
                if map.contains_key(key) {
                    map.insert(key.into(), json!(layers.len()));
                }
            }
        }
        if let Some(rows) = edits.vocab_size {
            map.insert("vocab_size".into(), json!(rows));
        }
        if let Some(tied) = edits.tie_word_embeddings {
            map.insert("tie_word_embeddings".into(), json!(tied));
        }
        if edits.drop_quantization {
            map.shift_remove("quantization_config");
        }
        out
    }
}

pub(super) mod card {
    pub(crate) struct CardInfo {
        pub(crate) name: Option<String>,
        pub(crate) method: String,
        pub(crate) summary: String,
        pub(crate) source: String,
        pub(crate) base: Option<String>,
        pub(crate) models: Vec<String>,
        pub(crate) shared: Vec<(String, String)>,
        pub(crate) each: Vec<(String, Vec<(String, String)>)>,
        pub(crate) dtype: String,
        pub(crate) recipe_text: Option<String>,
        pub(crate) recipe_language: String,
        pub(crate) heads: Vec<String>,
        pub(crate) version: String,
    }

    pub(crate) fn render(info: &CardInfo) -> String {
        let mut out = format!("---\nlibrary_name: transformers\ntags:\n- merge\n- polyloom\n---\n# {}\n\nMade by Polyloom {} with `{}`: {} ({}). Written as {}.\n\n", info.name.clone().unwrap_or_else(|| "Merged model".into()), info.version, info.method, info.summary, info.source, info.dtype);
        if let Some(base) = &info.base {
            out += &format!("Base: `{base}`\n\n");
        }
        for model in &info.models {
            out += &format!("- `{model}`\n");
        }
        for (key, value) in &info.shared {
            out += &format!("- {key}: {value}\n");
        }
        for (name, values) in &info.each {
            let values: Vec<String> = values.iter().map(|(k, v)| format!("{k} {v}")).collect();
            out += &format!("- {name}: {}\n", values.join(", "));
        }
        if !info.heads.is_empty() {
            out += &format!("\nHeads: {}\n", info.heads.join(", "));
        }
        if let Some(text) = &info.recipe_text {
            out += &format!("\n```{}\n{}\n```\n", info.recipe_language, text.trim_end());
        }
        out
    }
}

pub(super) mod chat_template {
    use std::path::PathBuf;

    use crate::error::{MergeError, Result};

    pub(crate) fn files(_: &str, _: &[PathBuf], _: usize) -> Result<Vec<(String, Vec<u8>)>> {
        Err(MergeError::plan("chat-template", "chat templates are not written yet"))
    }
}

const COMPANIONS: &[&str] = &[
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "spiece.model", "added_tokens.json", "chat_template.jinja", "generation_config.json",
    "preprocessor_config.json", "processor_config.json",
];

pub(super) fn companion_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    COMPANIONS.iter().filter(|n| folder.join(n).is_file()).map(|n| (*n).into()).collect()
}
