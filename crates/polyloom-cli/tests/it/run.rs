//! `polyloom run` as a user meets it: the tiny models of the engine's tests, and the real MiniLM where it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom_core::writer::{OutTensor, safetensors_bytes};
use serde_json::Value;

use super::{polyloom, text};

fn tiny(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models");
    folder.join(name).display().to_string()
}

/// A grey picture of 12 x 12 as a Windows bitmap of 24 bits.
pub fn picture(folder: &Path) -> String {
    let (row, rows) = (12 * 3, 12);
    let mut bytes = b"BM".to_vec();
    bytes.extend((54 + row * rows as u32).to_le_bytes());
    for n in [0u32, 54, 40, 12, 12] {
        bytes.extend(n.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    bytes.extend((0..row * rows as u32).map(|i| (i / 3 % 12 * 20) as u8));
    let file = folder.join("a.bmp");
    std::fs::write(&file, bytes).unwrap();
    file.display().to_string()
}

#[test]
fn a_picture_becomes_a_vector() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    let out = polyloom(&["run", &tiny("vit"), &picture]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let vector: Vec<f64> = serde_json::from_str(text(&out.stdout).trim()).unwrap();
    assert!(vector.len() == 24 && vector.iter().all(|x| x.is_finite()));
    let file = dir.path().join("out.jsonl").display().to_string();
    let out = polyloom(&["run", &tiny("vit"), &picture, &picture, "-o", &file]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let rows: Vec<Value> = std::fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["vector"].as_array().unwrap().len(), 24);
    let again = polyloom(&["run", &tiny("vit"), &picture, "-o", &file]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force replaces it"));
}

#[test]
fn classes_may_be_words() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    let clip = dir.path().join("clip");
    std::fs::create_dir(&clip).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(&tiny("clip")).join(file), clip.join(file)).unwrap();
    }
    let words = ["a", "the", "cat", "dog"];
    let vocabulary: Value = words
        .iter()
        .zip(40..)
        .map(|(w, i)| ((*w).to_owned(), Value::from(i)))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "the"},
    });
    std::fs::write(clip.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let clip = clip.display().to_string();
    let out = polyloom(&[
        "run",
        &clip,
        &picture,
        "--classes",
        "a cat, the dog",
        "--top",
        "2",
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    let mut lines: Vec<(&str, f64)> = said
        .lines()
        .map(|l| l.split_once('\t').unwrap())
        .map(|(label, p)| (label, p.parse().unwrap()))
        .collect();
    assert!(
        (lines.iter().map(|l| l.1).sum::<f64>() - 1.0).abs() < 2e-4,
        "{said}"
    );
    lines.sort_by_key(|l| l.0);
    assert_eq!([lines[0].0, lines[1].0], ["a cat", "the dog"]);
    // Without classes the picture is a vector.
    let out = polyloom(&["run", &clip, &picture]);
    let vector: Vec<f64> = serde_json::from_str(text(&out.stdout).trim()).unwrap();
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    let out = polyloom(&["run", &tiny("vit"), &picture, "--classes", "a cat"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("classes in words need a CLIP"));
}

#[test]
fn a_t5_answers_a_text() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(&tiny("t5v1_1")).join(file), dir.path().join(file)).unwrap();
    }
    let vocabulary: Value = (0..61).map(|i| (format!("t{i}"), Value::from(i))).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t3"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let model = dir.path().display().to_string();
    let out = polyloom(&["run", &model, "t5 t9 t30", "--max-tokens", "6"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(
        words.len() == 6 && words.iter().all(|w| w.starts_with('t')),
        "{said}"
    );
    // Its encoder gives vectors.
    let out = polyloom(&["run", &model, "t5 t9 t30", "--embed"]);
    let vector: Vec<f64> = serde_json::from_str(text(&out.stdout).trim()).unwrap();
    assert_eq!(vector.len(), 24);
}

/// A family of our own, written from nothing.
#[test]
fn a_perceptron_sees_too() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    let config = serde_json::json!({"model_type": "polyloom-mlp", "image_size": 12, "num_channels": 1, "hidden_sizes": [8, 5]});
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    let made = polyloom_learn::models::fresh::fresh(&config, 1).unwrap();
    let tensors: Vec<_> = made
        .into_iter()
        .map(|(name, shape, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let dtype = polyloom_core::DType::F32;
            (OutTensor { name, dtype, shape }, bytes)
        })
        .collect();
    let bytes = safetensors_bytes(&tensors, &BTreeMap::new());
    std::fs::write(model.join("model.safetensors"), bytes).unwrap();
    let out = polyloom(&["run", &model.display().to_string(), &picture]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let vector: Vec<f64> = serde_json::from_str(text(&out.stdout).trim()).unwrap();
    assert!(vector.len() == 5 && vector.iter().any(|x| *x > 0.0));
}

#[test]
fn the_head_of_a_task_answers() {
    let dir = tempfile::tempdir().unwrap();
    let picture = picture(dir.path());
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(&tiny("vit")).join(file), model.join(file)).unwrap();
    }
    let head = model.join("heads/light/level.safetensors");
    super::eval_models::head(&head, &[0.0, 3.0f32.ln()], Some(&["dark", "bright"]), 24);
    let model = model.display().to_string();
    let asked = |task: &str| polyloom(&["run", &model, "--task", task, &picture, "--top", "2"]);
    for task in ["light/level", "level"] {
        let out = asked(task);
        assert_eq!(
            text(&out.stdout),
            "bright\t0.7500\ndark\t0.2500\n",
            "{}",
            text(&out.stderr)
        );
    }
    let out = asked("other");
    let said = text(&out.stderr);
    assert!(
        said.contains("has no head for `other`") && said.contains("--heads DIR"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let out = polyloom(args);
        assert_eq!(
            out.status.code(),
            Some(2),
            "{args:?}: {}",
            text(&out.stderr)
        );
        text(&out.stderr)
    };
    assert!(said(&["run", &tiny("llama"), "a text"]).contains("tokenizer.json"));
    assert!(said(&["run", &tiny("vit"), "nowhere.png"]).contains("nowhere.png"));
    let picture = picture(dir.path());
    assert!(
        said(&["run", &tiny("vit"), &picture, "--as", "classify"])
            .contains("has no head of classes")
    );
    assert!(
        said(&["run", &tiny("vit"), &picture, "--as", "generate"]).contains("generates no text")
    );
    assert!(said(&["run", &tiny("vit"), &picture, "-o", "a.csv"]).contains("FILE.jsonl"));
    // A failed run leaves nothing behind.
    let file = dir.path().join("out.jsonl").display().to_string();
    said(&[
        "run",
        &tiny("vit"),
        &picture,
        "nowhere.png",
        "--batch",
        "1",
        "-o",
        &file,
    ]);
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["a.bmp"]);
    let table = dir.path().join("a.csv");
    std::fs::write(&table, "who,what\na,b\n").unwrap();
    let table = table.display().to_string();
    let told = said(&["run", &tiny("bert"), "-f", &table]);
    assert!(told.contains("its columns: who, what"), "{told}");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(
        Path::new(&tiny("bert")).join("model.safetensors"),
        model.join("model.safetensors"),
    )
    .unwrap();
    let model = model.display().to_string();
    assert!(said(&["run", &model, "a"]).contains("config.json"));
    std::fs::write(
        PathBuf::from(&model).join("config.json"),
        "{\"model_type\": \"mamba\"}",
    )
    .unwrap();
    assert!(said(&["run", &model, "a"]).contains("model_type `mamba` is not known"));
}

#[test]
fn the_real_minilm_finds_what_is_alike() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/all-MiniLM-L6-v2");
    if !folder.exists() {
        println!("skipped: no ../shared/models");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("questions.csv");
    std::fs::write(&table, "id,question\n1,How do I reset my card PIN?\n2,I forgot the PIN of my bank card.\n3,A cat sleeps on the sofa.\n").unwrap();
    let out = polyloom(&[
        "run",
        &folder.display().to_string(),
        "-f",
        &table.display().to_string(),
        "--json",
        "--batch",
        "2",
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let rows: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let vector = |i: usize| {
        rows[i]["vector"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect::<Vec<f64>>()
    };
    let cosine = |a: usize, b: usize| {
        vector(a)
            .iter()
            .zip(vector(b))
            .map(|(x, y)| x * y)
            .sum::<f64>()
    };
    assert_eq!(rows[0]["input"], "How do I reset my card PIN?");
    assert!((cosine(0, 0) - 1.0).abs() < 1e-5 && cosine(0, 1) > 0.5 && cosine(0, 2) < 0.2);
}
