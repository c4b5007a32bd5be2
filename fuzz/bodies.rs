//! What the fuzz targets do with their bytes: no panic, no allocation by a number read from the bytes, and what is
//! accepted lies inside. The same functions run over `seeds/` and mutations of them in the ordinary tests. Each
//! answers whether the bytes were accepted.

use std::path::Path;

/// A target: its name, which is also its folder under `seeds/`, and its body.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets.
#[allow(dead_code, reason = "each fuzz program uses one")]
pub const TARGETS: &[Target] = &[
    ("header", header),
    ("pickle", pickle),
    ("archive", archive),
    ("gguf", gguf),
    ("recipe", recipe),
    ("adapter_config", adapter_config),
];

/// safetensors headers: the first two bytes are the length of the data section, the rest is the header.
pub fn header(bytes: &[u8]) -> bool {
    let Some((length, header)) = bytes.split_first_chunk::<2>() else {
        return false;
    };
    let data = u64::from(u16::from_le_bytes(*length));
    let Ok((tensors, _)) = polyloom_core::safetensors::parse_header(header, data) else {
        return false;
    };
    for tensor in tensors {
        let size = tensor
            .dtype
            .bytes_of(tensor.elements())
            .expect("whole elements");
        assert!(tensor.offset + size <= data, "{tensor:?} passes {data}");
    }
    true
}

/// The restricted unpickler on bare `data.pkl` bytes.
pub fn pickle(bytes: &[u8]) -> bool {
    polyloom_core::pickle::parse_pickle(bytes).is_ok()
}

/// Whole PyTorch archives: zip directory, pickle and views against their storages.
pub fn archive(bytes: &[u8]) -> bool {
    let Ok(tensors) = polyloom_core::pickle::parse_archive(bytes) else {
        return false;
    };
    for tensor in tensors {
        assert!(tensor.elements() <= bytes.len(), "{tensor:?}");
        assert!(tensor.offset <= bytes.len() as u64, "{tensor:?}");
    }
    true
}

/// GGUF files.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok((tensors, _)) = polyloom_core::gguf::parse(bytes) else {
        return false;
    };
    for tensor in tensors {
        let size = tensor
            .dtype
            .bytes_of(tensor.elements())
            .expect("whole blocks");
        assert!(tensor.offset + size <= bytes.len() as u64, "{tensor:?}");
    }
    true
}

/// Recipes: `loom.toml`, mergekit YAML and mergekit-moe YAML, each text as all three. What is accepted can be shown.
pub fn recipe(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let refused = |errors: &[polyloom::MergeError]| {
        assert!((1..=11).contains(&errors.len()), "{} errors", errors.len());
        for error in errors {
            assert!(!error.to_string().is_empty());
        }
    };
    let mut recipes = Vec::new();
    match polyloom::recipe::toml::parse(text, None) {
        Ok(recipe) => recipes.push(recipe),
        Err(errors) => refused(&errors),
    }
    match polyloom::recipe::mergekit::parse(text, None) {
        Ok(several) => recipes.extend(several),
        Err(errors) => refused(&errors),
    }
    for recipe in &recipes {
        let _ = polyloom::recipe::show::to_toml(recipe);
        let _ = polyloom::recipe::show::to_yaml(recipe);
    }
    let moe = polyloom::moe::MoeRecipe::parse(text, "moe.yml").is_ok();
    moe || !recipes.is_empty()
}

/// `adapter_config.json`: the keys, and the patterns when they meet module names.
pub fn adapter_config(bytes: &[u8]) -> bool {
    let Ok(serde_json::Value::Object(map)) = serde_json::from_slice(bytes) else {
        return false;
    };
    let path = Path::new("adapter_config.json");
    let Ok(config) = polyloom_core::peft::AdapterConfig::from_map(path, map) else {
        return false;
    };
    for module in ["model.layers.0.self_attn.q_proj", "lm_head", ""] {
        let _ = config.targets.matches(module);
        if let Ok(rank) = config.rank_of(module) {
            let _ = config.scaling(module, rank);
        }
    }
    let _ = polyloom_core::peft::config::config_text(&config.raw);
    true
}
