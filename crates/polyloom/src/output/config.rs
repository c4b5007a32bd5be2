//! Editing `config.json`: only what the merge changed, every other key as and where it was.

use serde_json::{Map, Value};

use polyloom_core::DType;

/// Keys that hold the number of layers.
const LAYER_KEYS: &[&str] = &[
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "decoder_layers",
    "encoder_layers",
];

/// Keys that hold one entry per layer.
const PER_LAYER_KEYS: &[&str] = &[
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "attention_layers",
    "no_rope_layers",
    "layer_norms_before",
];

/// Sections that describe the language model of a model with several towers.
const TEXT_SECTIONS: &[&str] = &[
    "text_config",
    "llm_config",
    "language_config",
    "decoder",
    "thinker_config",
];

/// What a run changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits<'a> {
    /// Type of the written tensors (the most frequent by bytes).
    pub dtype: Option<DType>,
    /// New stacks of layers.
    pub layers: Vec<LayerEdit<'a>>,
    /// Rows of the embedding, padding included.
    pub vocab_size: Option<usize>,
    /// Config of the model whose tokenizer the output has, if it is not the one that is edited: its special token
    /// ids replace those here.
    pub token_ids: Option<&'a Value>,
    /// `Some(true)`: the output has no head of its own; `Some(false)`: it has one that may differ from the embedding.
    pub tied: Option<bool>,
    /// The weights were dequantised, so `quantization_config` goes.
    pub dequantized: bool,
}

/// A tower whose layers were stacked.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerEdit<'a> {
    /// Tower (`text_decoder`, `vision_tower`, ...); `None` for a plain model.
    pub tower: Option<&'a str>,
    /// Layers the config describes.
    pub old: usize,
    /// For each output layer, the layer whose description it takes.
    pub sources: &'a [usize],
}

/// An edited config.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// The new content.
    pub config: Value,
    /// What could not be kept consistent.
    pub warnings: Vec<String>,
}

/// Applies `edits` to a parsed `config.json`.
///
/// - dtype: `torch_dtype` and `dtype` are updated where they stand (sections too); a config with neither gets `dtype`.
/// - layers: counts equal to `old` and lists of that length, in the tower's section (`text_config`, `vision_config`)
///   or at the top.
/// - vocabulary: `vocab_size` at the top and in the language model's section; added at the top if it is nowhere.
pub fn edit_config(config: &Value, edits: &Edits<'_>) -> Edited {
    let mut warnings = Vec::new();
    let mut root = match config {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    if let Some(dtype) = edits.dtype {
        let name = Value::from(dtype.torch_name());
        if !set_dtype(&mut root, &name) {
            root.insert("dtype".into(), name.clone());
        }
        for (key, section) in &mut root {
            if (key.ends_with("_config") || TEXT_SECTIONS.contains(&key.as_str()))
                && key != "quantization_config"
                && let Value::Object(section) = section
            {
                set_dtype(section, &name);
            }
        }
    }
    for edit in &edits.layers {
        if !edit_layers(&mut root, edit) {
            warnings.push(format!(
                "config.json has no key with the layer count {}{}, so it still describes the old depth",
                edit.old,
                edit.tower.map_or(String::new(), |t| format!(" of `{t}`"))
            ));
        }
    }
    if let Some(size) = edits.vocab_size {
        let mut found = false;
        for_text(&mut root, |map| {
            if let Some(value) = map.get_mut("vocab_size") {
                *value = Value::from(size);
                found = true;
            }
        });
        if !found {
            root.insert("vocab_size".into(), Value::from(size));
        }
    }
    if let Some(donor) = edits.token_ids {
        let from = |key: &str| {
            donor.get(key).or_else(|| {
                TEXT_SECTIONS
                    .iter()
                    .find_map(|section| donor.get(section)?.get(key))
            })
        };
        for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            let Some(value) = from(key) else { continue };
            for_text(&mut root, |map| {
                if let Some(old) = map.get_mut(key) {
                    *old = value.clone();
                }
            });
        }
    }
    if let Some(tied) = edits.tied {
        let mut found = false;
        for_text(&mut root, |map| {
            if let Some(value) = map.get_mut("tie_word_embeddings") {
                *value = Value::from(tied);
                found = true;
            }
        });
        // Architectures differ in the default. Without the key a config without a head is tied by its default already;
        // an own head is safe only if the key says so.
        if !found && !tied {
            root.insert("tie_word_embeddings".into(), Value::from(false));
        }
    }
    if edits.dequantized {
        root.shift_remove("quantization_config");
        for_text(&mut root, |map| {
            map.shift_remove("quantization_config");
        });
    }
    Edited {
        config: Value::Object(root),
        warnings,
    }
}

fn set_dtype(map: &mut Map<String, Value>, name: &Value) -> bool {
    let mut found = false;
    for key in ["torch_dtype", "dtype"] {
        if let Some(value) = map.get_mut(key) {
            *value = name.clone();
            found = true;
        }
    }
    found
}

/// The top and every section of the language model.
fn for_text(root: &mut Map<String, Value>, mut f: impl FnMut(&mut Map<String, Value>)) {
    f(root);
    for key in TEXT_SECTIONS {
        if let Some(Value::Object(section)) = root.get_mut(*key) {
            f(section);
        }
    }
}

fn edit_layers(root: &mut Map<String, Value>, edit: &LayerEdit<'_>) -> bool {
    // `vision_tower` -> `vision_config`, `text_decoder` -> `text_config`, `audio_encoder` -> `audio_config`.
    let own = edit.tower.map(|tower| {
        let head = tower.split(['_', '.', '-']).next().unwrap_or(tower);
        format!("{head}_config")
    });
    if let Some(own) = own
        && let Some(Value::Object(section)) = root.get_mut(&own)
    {
        return slice_layers(section, edit);
    }
    if slice_layers(root, edit) {
        return true;
    }
    TEXT_SECTIONS.iter().any(|key| match root.get_mut(*key) {
        Some(Value::Object(section)) => slice_layers(section, edit),
        _ => false,
    })
}

fn slice_layers(map: &mut Map<String, Value>, edit: &LayerEdit<'_>) -> bool {
    let mut found = false;
    for key in LAYER_KEYS {
        if let Some(value) = map.get_mut(*key)
            && value.as_u64() == Some(edit.old as u64)
        {
            *value = Value::from(edit.sources.len());
            found = true;
        }
    }
    if !found {
        return false;
    }
    for key in PER_LAYER_KEYS {
        if let Some(Value::Array(list)) = map.get_mut(*key)
            && list.len() == edit.old
        {
            let picked: Option<Vec<Value>> =
                edit.sources.iter().map(|i| list.get(*i).cloned()).collect();
            if let Some(picked) = picked {
                *list = picked;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edit(config: &Value, edits: &Edits<'_>) -> Value {
        let edited = edit_config(config, edits);
        assert!(edited.warnings.is_empty(), "{:?}", edited.warnings);
        edited.config
    }

    #[test]
    fn the_dtype_key_that_is_there() {
        let edits = Edits {
            dtype: Some(DType::BF16),
            ..Edits::default()
        };
        for (before, after) in [
            (
                json!({"torch_dtype": "float32"}),
                json!({"torch_dtype": "bfloat16"}),
            ),
            (json!({"dtype": "float32"}), json!({"dtype": "bfloat16"})),
            (json!({"a": 1}), json!({"a": 1, "dtype": "bfloat16"})),
            (
                json!({"torch_dtype": "float32", "dtype": "float32", "text_config": {"dtype": "float32"}}),
                json!({"torch_dtype": "bfloat16", "dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}),
            ),
        ] {
            assert_eq!(edit(&before, &edits), after);
        }
    }

    #[test]
    fn stacked_layers_take_their_types_along() {
        let config = json!({"z": 0, "num_hidden_layers": 3, "layer_types": ["full", "slide", "full"],
                            "num_attention_heads": 3});
        let edits = Edits {
            layers: vec![LayerEdit {
                tower: None,
                old: 3,
                sources: &[0, 1, 1, 2],
            }],
            ..Edits::default()
        };
        let out = edit(&config, &edits);
        assert_eq!(
            serde_json::to_string(&out).unwrap(),
            r#"{"z":0,"num_hidden_layers":4,"layer_types":["full","slide","slide","full"],"num_attention_heads":3}"#
        );
    }

    #[test]
    fn towers_have_their_own_depth() {
        let config = json!({"text_config": {"num_hidden_layers": 2, "vocab_size": 9},
                            "vision_config": {"num_hidden_layers": 2}});
        let mut edits = Edits {
            layers: vec![LayerEdit {
                tower: Some("vision_tower"),
                old: 2,
                sources: &[0],
            }],
            vocab_size: Some(12),
            ..Edits::default()
        };
        let out = edit(&config, &edits);
        assert_eq!(
            out["text_config"],
            json!({"num_hidden_layers": 2, "vocab_size": 12})
        );
        assert_eq!(out["vision_config"]["num_hidden_layers"], 1);
        assert!(out.get("vocab_size").is_none());
        edits.layers[0].tower = None;
        let out = edit(&config, &edits);
        assert_eq!(out["text_config"]["num_hidden_layers"], 1);
        edits.layers[0].old = 7;
        assert_eq!(edit_config(&config, &edits).warnings.len(), 1);
    }

    #[test]
    fn heads_quantisation_and_token_ids() {
        let config = json!({"tie_word_embeddings": true, "quantization_config": {"quant_method": "fp8"},
                            "eos_token_id": 2});
        let donor = json!({"eos_token_id": [5, 6], "pad_token_id": 1});
        let edits = Edits {
            tied: Some(false),
            dequantized: true,
            token_ids: Some(&donor),
            ..Edits::default()
        };
        assert_eq!(
            edit(&config, &edits),
            json!({"tie_word_embeddings": false, "eos_token_id": [5, 6]})
        );
        assert_eq!(
            edit(&json!({}), &edits),
            json!({"tie_word_embeddings": false})
        );
        let tied = Edits {
            tied: Some(true),
            ..Edits::default()
        };
        assert_eq!(edit(&json!({}), &tied), json!({}));
    }

    #[allow(
        clippy::print_stdout,
        reason = "a golden test says how many cases it compared"
    )]
    #[test]
    fn golden_expected_config() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = std::env::var_os("POLYLOOM_GOLDEN").map_or_else(
            || {
                let beside = here.join("../shared/golden");
                if beside.exists() {
                    beside
                } else {
                    here.join("tests/golden")
                }
            },
            std::path::PathBuf::from,
        );
        let root = root.join("merging");
        let manifest = polyloom_core::checkpoint::read_json(&root.join("manifest.json")).unwrap();
        let mut ran = 0;
        for case in manifest["cases"].as_array().unwrap() {
            let want = &case["expected_config"];
            let (Some(layers), Some(vocab), Some(dtype)) = (
                want["num_hidden_layers"].as_u64(),
                want["vocab_size"].as_u64(),
                want["dtype"].as_str(),
            ) else {
                continue;
            };
            let config = &case["config"];
            let first = config
                .get("base_model")
                .or_else(|| config.pointer("/models/0/model"))
                .or_else(|| config.pointer("/slices/0/sources/0/model"))
                .and_then(Value::as_str)
                .unwrap();
            let folder = first[2..].split('+').next().unwrap();
            let path = root.join("models").join(folder).join("config.json");
            let Ok(before) = polyloom_core::checkpoint::read_json(&path) else {
                continue;
            };
            let Some(old) = before["num_hidden_layers"].as_u64() else {
                continue;
            };
            // The plan's share: which source layer each output layer has.
            let sources: Vec<usize> = match config.get("slices").and_then(Value::as_array) {
                Some(slices) => slices
                    .iter()
                    .flat_map(|s| {
                        let range = &s["sources"][0]["layer_range"];
                        range[0].as_u64().unwrap() as usize..range[1].as_u64().unwrap() as usize
                    })
                    .collect(),
                None => (0..old as usize).collect(),
            };
            let dtype = match dtype {
                "float32" => DType::F32,
                "bfloat16" => DType::BF16,
                "float16" => DType::F16,
                other => panic!("{other}"),
            };
            let out = edit(
                &before,
                &Edits {
                    dtype: Some(dtype),
                    layers: vec![LayerEdit {
                        tower: None,
                        old: old as usize,
                        sources: &sources,
                    }],
                    vocab_size: Some(vocab as usize),
                    ..Edits::default()
                },
            );
            for key in ["num_hidden_layers", "vocab_size", "dtype"] {
                assert_eq!(out[key], want[key], "{}: {key}", case["name"]);
            }
            if let Some(types) = out.get("layer_types").and_then(Value::as_array) {
                assert_eq!(types.len() as u64, layers);
            }
            ran += 1;
        }
        println!("golden: config.json of {ran} cases");
        assert!(ran > 0);
    }
}
