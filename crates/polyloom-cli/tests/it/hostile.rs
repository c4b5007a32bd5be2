//! Files made to hurt, through the whole program: an error that names the file, never a crash.

use std::path::Path;

use crate::{letters, polyloom, text};

const DEEP: usize = 200_000;

fn refused(dir: &Path, args: &[&str], file: &str, why: &str) {
    let out = polyloom(args);
    let message = text(&out.stderr).replace(&dir.display().to_string(), "DIR");
    assert_eq!(out.status.code(), Some(2), "{message}");
    assert!(
        message.starts_with(&format!("error: DIR/{file}")) && message.contains(why),
        "{}",
        &message[..message.len().min(500)]
    );
    // The message stays a message.
    assert!(message.len() < 2_000, "{} bytes", message.len());
}

#[test]
fn deep_json_is_refused_wherever_json_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let shown = model.display().to_string();
    let nested = "[".repeat(DEEP) + &"]".repeat(DEEP);
    let fresh = || {
        let _ = std::fs::remove_dir_all(&model);
        std::fs::create_dir_all(&model).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(letters().join("greek").join(name), model.join(name)).unwrap();
        }
    };
    let convert = ["convert", shown.as_str(), "-o", "never"];
    fresh();
    std::fs::write(model.join("config.json"), &nested).unwrap();
    refused(
        dir.path(),
        &convert,
        "model/config.json",
        "is not valid JSON: recursion limit",
    );

    fresh();
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    std::fs::write(
        model.join("model.safetensors.index.json"),
        format!("{{\"weight_map\": {nested}}}"),
    )
    .unwrap();
    refused(
        dir.path(),
        &convert,
        "model/model.safetensors.index.json",
        "recursion limit",
    );

    fresh();
    let header = format!("{{\"a\": {nested}}}");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    std::fs::write(model.join("model.safetensors"), bytes).unwrap();
    refused(
        dir.path(),
        &convert,
        "model/model.safetensors",
        "has a header that is not valid",
    );

    let adapter = dir.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    std::fs::write(
        adapter.join("adapter_config.json"),
        format!("{{\"peft_type\": {nested}}}"),
    )
    .unwrap();
    std::fs::write(adapter.join("adapter_model.safetensors"), b"").unwrap();
    let base = letters().join("base").display().to_string();
    let fold = [
        "adapt",
        "fold",
        &adapter.display().to_string(),
        "--base",
        &base,
        "-o",
        "never",
    ];
    refused(
        dir.path(),
        &fold,
        "adapter/adapter_config.json",
        "recursion limit",
    );
}

#[test]
fn deep_recipes_and_alias_bombs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{inner}]\n");
    }
    for (name, content, why) in [
        (
            "deep.toml",
            format!("x = {}", "[".repeat(DEEP)),
            "is not valid TOML",
        ),
        ("deep.yml", "[".repeat(DEEP), "is not valid YAML"),
        ("deep.json", "{\"a\":".repeat(DEEP), "is not valid YAML"),
        ("bomb.yml", bomb, "is not valid YAML"),
        ("large.yml", " ".repeat(9 << 20), "a recipe has at most"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let file = path.display().to_string();
        let started = std::time::Instant::now();
        refused(dir.path(), &["merge", &file, "-o", "never"], name, why);
        assert!(
            started.elapsed().as_secs() < 10,
            "{name} took {:?}",
            started.elapsed()
        );
    }
}
