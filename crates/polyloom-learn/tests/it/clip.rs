//! CLIP opened as a user opens it: pictures, texts, classes in words.

use polyloom_learn::engine::{Value, tensor};
use polyloom_learn::models::open::Model;
use polyloom_learn::tasks::zero_shot::zero_shot;
use serde_json::{Value as Json, json};

use super::case::{Case, folder, values};

/// The tiny CLIP with a tokenizer that reads `t5 t9` as the tokens 5 and 9.
fn opened(folder: &std::path::Path, case: &Case) -> Model {
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(case.folder.join(file), folder.join(file)).unwrap();
    }
    let vocabulary: Json = (0..61).map(|i| (format!("t{i}"), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t3"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    Model::open(folder).unwrap()
}

#[test]
fn classes_in_words_score_as_transformers_does() {
    let case = Case::open(&folder().join("clip"));
    let dir = tempfile::tempdir().unwrap();
    let model = opened(dir.path(), &case);
    assert_eq!((model.pictures(), model.width()), (Some((12, 3)), 16));
    // The texts of the vectors, without what fills them.
    let batch = case.batch();
    let texts: Vec<String> = (0..3)
        .map(|i| {
            let at = i * batch.length..(i + 1) * batch.length;
            let there = batch.ids[at.clone()].iter().zip(&batch.present[at]);
            let words = there.filter(|(_, p)| **p).map(|(id, _)| format!("t{id}"));
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let head = zero_shot(&model, &texts).unwrap();
    let (pixels, shape) = case.numbers("pixels").unwrap();
    let pixels = Value::constant(tensor(pixels, shape).unwrap());
    let seen = model.look(&model.weights, &pixels).unwrap();
    let weights = model.weights.with(head.tensors());
    let found = values(head.forward(&weights, &seen).unwrap().data());
    let (expected, _) = case.numbers("scores").unwrap();
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
    // Vectors of both sides have length 1 and are those of the peer.
    let (images, _) = case.numbers("images").unwrap();
    for (a, b) in values(seen.data()).iter().zip(&images) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    let long = ["t5 ".repeat(40)];
    // Cut to the twelve tokens that the tower takes.
    assert!(zero_shot(&model, &long).is_ok());
    assert!(zero_shot(&model, &[]).is_err());
    let said = model.hidden(&model.weights, &batch).unwrap_err();
    assert!(said.to_string().contains("one vector for a text"), "{said}");
}
