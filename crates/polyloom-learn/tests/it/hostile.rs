//! Configurations, tokenizers and weights that a stranger may send: an error that names something, never a panic.

use std::path::Path;

use polyloom_learn::engine::{Value, tensor};
use polyloom_learn::models::Plain;
use polyloom_learn::models::open::{Model, Trunk};
use polyloom_learn::text::Text;
use serde_json::{Value as Json, json};

use super::case::Case;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// Opens a model with a changed configuration and runs it on its batch. What comes out does not matter here.
fn try_out(case: &Case, config: &Json) -> Result<(), String> {
    let weights = Plain::new(case.tensors());
    let model = Model::of(&case.folder, config, weights).map_err(|e| e.to_string())?;
    if model.pictures().is_some() {
        let (pixels, shape) = case.numbers("pixels").unwrap();
        let pixels = Value::constant(tensor(pixels, shape).unwrap());
        model.look(&model.weights, &pixels)
    } else {
        model.embed(&model.weights, &case.batch())
    }
    .map(|_| ())
    .map_err(|e| e.to_string())
}

#[test]
fn every_number_of_a_configuration_may_lie() {
    let lies = [
        json!(0),
        json!(1),
        json!(7),
        json!(-1),
        json!(1_000_003),
        json!(u64::MAX),
        json!(1u64 << 62),
        json!(1u64 << 33),
        json!(1e300),
        json!("many"),
        json!(null),
        json!([]),
        json!({}),
        json!(true),
    ];
    for name in [
        "bert",
        "roberta",
        "distilbert",
        "mpnet",
        "vit",
        "llama",
        "qwen3",
        "gemma2",
        "t5",
    ] {
        let case = Case::open(&folder().join(name));
        let config: Json = case.config();
        assert_eq!(try_out(&case, &config), Ok(()), "{name}");
        let mut refused = 0;
        for key in config.as_object().unwrap().keys() {
            for lie in &lies {
                let mut config = config.clone();
                config[key] = lie.clone();
                refused += usize::from(try_out(&case, &config).is_err());
            }
            let mut config = config.clone();
            config.as_object_mut().unwrap().remove(key);
            let _ = try_out(&case, &config);
        }
        assert!(refused > 20, "{name}: {refused}");
    }
    let clip = Case::open(&folder().join("clip"));
    let config: Json = clip.config();
    assert_eq!(try_out(&clip, &config), Ok(()));
    for tower in ["text_config", "vision_config"] {
        for key in config[tower].as_object().unwrap().keys() {
            for lie in &lies {
                let mut config = config.clone();
                config[tower][key] = lie.clone();
                let _ = try_out(&clip, &config);
            }
        }
    }
    let llama = Case::open(&folder().join("llama"));
    let mut config: Json = llama.config();
    for (key, lie) in [
        ("rope_theta", json!(0)),
        ("factor", json!(-1)),
        ("rope_type", json!("yarn")),
        ("partial_rotary_factor", json!(9.0)),
    ] {
        config["rope_parameters"][key] = lie;
        let _ = try_out(&llama, &config);
    }
}

#[test]
fn weights_of_other_shapes_are_refused() {
    for name in ["bert", "mpnet", "vit", "qwen3", "gemma2"] {
        let case = Case::open(&folder().join(name));
        let config: Json = case.config();
        for at in 0..case.tensors().len() {
            for shape in [
                vec![3usize],
                vec![1, 1],
                vec![0, 24],
                vec![2, 3, 5],
                vec![24, 2, 0, 0],
            ] {
                let mut tensors = case.tensors();
                let n = shape.iter().product();
                tensors[at].1 = tensor(vec![0.5; n], shape).unwrap();
                let name = tensors[at].0.clone();
                let told =
                    Model::of(&case.folder, &config, Plain::new(tensors)).and_then(|model| {
                        match model.trunk {
                            Trunk::Vit(_) => {
                                let (pixels, shape) = case.numbers("pixels").unwrap();
                                model.look(&model.weights, &Value::constant(tensor(pixels, shape)?))
                            }
                            _ => model.embed(&model.weights, &case.batch()),
                        }
                    });
                // A head that this path does not use may have any shape.
                assert!(
                    told.is_err() || name.contains("head"),
                    "{}: {name}",
                    case.folder.display()
                );
            }
        }
    }
}

#[test]
fn broken_tokenizers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &str| {
        std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        match Text::open(dir.path(), 16) {
            Ok(_) => panic!("{text}"),
            Err(e) => assert!(e.to_string().contains("tokenizer.json"), "{e}"),
        }
    };
    for text in [
        "",
        "{",
        "[]",
        "{\"version\": \"1.0\"}",
        "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}",
        "\u{0}",
    ] {
        refused(text);
    }
    refused(&"[".repeat(100_000));
}
