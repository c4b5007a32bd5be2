//! `polyloom adapt moe` with router rows from the hidden states of a small decoder.

use std::path::Path;

use polyloom_core::Checkpoint;

use super::{polyloom, text};

/// The tiny Llama with a tokenizer of three letters.
fn model(dir: &Path, name: &str) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models/llama");
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let tokenizer =
        r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}}"#;
    std::fs::write(folder.join("tokenizer.json"), tokenizer).unwrap();
    folder.display().to_string()
}

fn read(model: &Checkpoint, name: &str) -> Vec<f32> {
    let stored = model.get(name).unwrap_or_else(|| panic!("{name}"));
    model.read_all(stored).unwrap()
}

fn unit(row: &[f32]) -> Vec<f32> {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter().map(|x| x / norm).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn hidden_gates_come_from_a_forward_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (base, x, y) = (
        model(dir.path(), "base"),
        model(dir.path(), "x"),
        model(dir.path(), "y"),
    );
    let gates = |mode: &str| {
        let file = dir.path().join(format!("{mode}.yml"));
        let out = dir.path().join(mode).display().to_string();
        let line = match mode {
            "default" => String::new(),
            mode => format!("gate_mode: {mode}\n"),
        };
        let recipe = format!(
            "base_model: {base}\n{line}dtype: float32\nexperts:\n  - source_model: {x}\n    positive_prompts: [\"aab\"]\n  \
             - source_model: {y}\n    positive_prompts: [\"bca\"]\n    negative_prompts: [\"c\"]\n"
        );
        std::fs::write(&file, recipe).unwrap();
        let done = polyloom(&["adapt", "moe", &file.display().to_string(), "-o", &out]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let made = Checkpoint::open(&out).unwrap();
        [0, 1].map(|layer| {
            let name = format!("model.layers.{layer}.block_sparse_moe.gate.weight");
            read(&made, &name)
        })
    };
    let table = read(
        &Checkpoint::open(&base).unwrap(),
        "model.embed_tokens.weight",
    );
    let width = 24;
    let row = |i: usize| &table[i * width..][..width];
    let last = gates("hidden_last");
    // Into the first layer comes the embedding: of the last token "b", and of "a" less that of "c".
    assert!(close(&last[0][..width], &unit(row(1))));
    let away: Vec<f32> = row(0).iter().zip(row(2)).map(|(a, c)| a - c).collect();
    assert!(close(&last[0][width..], &unit(&away)));
    // Into the second what the first made of it.
    assert!(!close(&last[1], &last[0]));
    assert!(last[1].chunks(width).all(|r| close(&unit(r), r)));
    assert!(gates("hidden") == last && gates("default") == last);
    let mean = gates("hidden_avg");
    let all: Vec<f32> = (0..width).map(|i| 2.0 * row(0)[i] + row(1)[i]).collect();
    assert!(close(&mean[0][..width], &unit(&all)));
}
