//! Weights from nothing, and the family that starts from them.

use std::path::Path;

use polyloom_learn::engine::{Parameters, Tensor, Value, slice, tensor};
use polyloom_learn::models::fresh::fresh;
use polyloom_learn::models::mlp::Mlp;
use polyloom_learn::models::open::{Model, Trunk};
use polyloom_learn::models::{Batch, Penalised, Plain, Source, Trained};
use polyloom_learn::train::{Optimiser, Rule};
use polyloom_learn::{Result, ops};
use serde_json::{Value as Json, json};

use super::case::Case;
use super::differences::agree;

fn config(name: &str) -> Json {
    Case::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{name}"))).config()
}

fn mlp() -> Json {
    json!({"model_type": "polyloom-mlp", "image_size": 6, "num_channels": 2, "hidden_sizes": [24, 16], "hidden_act": "relu", "layer_norm": true})
}

fn tensors(config: &Json, seed: u64) -> Vec<(String, Tensor)> {
    let made = fresh(config, seed).unwrap();
    made.into_iter()
        .map(|(name, shape, values)| (name, tensor(values, shape).unwrap()))
        .collect()
}

/// One vector for each of six inputs.
fn seen(model: &Model, weights: &dyn Source) -> Result<Value> {
    if let Some((size, channels)) = model.pictures() {
        let n = 6 * channels * size * size;
        let pixels = (0..n).map(|i| (i as f32 * 1.7).sin()).collect();
        let pixels = tensor(pixels, vec![6, channels, size, size])?;
        model.look(weights, &Value::constant(pixels))
    } else {
        let texts: Vec<Vec<u32>> = (0..6u32).map(|i| vec![5 + i, 20 + i, 9]).collect();
        model.embed(weights, &Batch::padded(&texts, 0)?)
    }
}

fn vectors(model: &Model, weights: &dyn Source) -> Value {
    seen(model, weights).unwrap()
}

#[test]
fn names_and_shapes_are_those_of_checkpoints() {
    for name in [
        "vit", "bert", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2",
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{name}"));
        let case = Case::open(&folder);
        let of = |all: Vec<(String, Tensor)>| {
            let mut all: Vec<(String, Vec<usize>)> = all
                .into_iter()
                .map(|(name, t)| (name, t.dims().to_vec()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(
            of(tensors(&case.config::<Json>(), 1)),
            of(case.tensors()),
            "{name}"
        );
    }
    let names: Vec<String> = tensors(&mlp(), 1).into_iter().map(|t| t.0).collect();
    assert_eq!(names.len(), 8);
    assert!(names.contains(&"norms.1.bias".to_owned()));
    let mut unbiased = config("vit");
    unbiased["qkv_bias"] = json!(false);
    assert!(
        !tensors(&unbiased, 1)
            .iter()
            .any(|t| t.0.ends_with("key.bias"))
    );
}

#[test]
fn numbers_have_their_distribution() {
    let made = fresh(
        &json!({"model_type": "vit", "hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 288, "image_size": 8, "patch_size": 4, "num_channels": 3}),
        3,
    )
    .unwrap();
    let of = |name: &str| &made.iter().find(|t| t.0 == name).unwrap().2;
    let largest = |v: &[f32]| v.iter().fold(0f32, |m, x| m.max(x.abs()));
    // Xavier: sqrt(6 / (96 + 288)) = 0.125; the projection sees 48 numbers: sqrt(6 / 144).
    let up = of("encoder.layer.0.intermediate.dense.weight");
    assert!((0.1249..=0.125).contains(&largest(up)));
    let mean = up.iter().map(|x| f64::from(*x)).sum::<f64>() / up.len() as f64;
    assert!(
        mean.abs() < 4.0 * 0.125 / (3.0 * up.len() as f64).sqrt(),
        "{mean}"
    );
    let patches = largest(of("embeddings.patch_embeddings.projection.weight"));
    assert!((0.203..=0.20413).contains(&patches), "{patches}");
    let class = of("embeddings.cls_token");
    let deviation = (class.iter().map(|x| x * x).sum::<f32>() / 96.0).sqrt();
    assert!((0.014..0.026).contains(&deviation), "{deviation}");
    // The class token stands nowhere; the patch in row 1, column 0 has sin 1, cos 1 of its row and 0, 1 of its column.
    let positions = of("embeddings.position_embeddings");
    assert!(positions[..96].iter().all(|x| *x == 0.0));
    let third = &positions[3 * 96..4 * 96];
    let near = |a: f32, b: f64| (f64::from(a) - 0.5 * b).abs() < 1e-6;
    assert!(near(third[0], 1f64.sin()) && near(third[24], 1f64.cos()));
    assert!(near(third[1], (10000f64.powf(-1.0 / 24.0)).sin()));
    assert!(near(third[48], 0.0) && near(third[72], 1.0));
    let bert = fresh(&config("bert"), 3).unwrap();
    let words = &bert[0].2;
    assert!(words[..24].iter().all(|x| *x == 0.0) && words[24] != 0.0);
    let squares: f64 = words[24..].iter().map(|x| f64::from(*x).powi(2)).sum();
    let deviation = (squares / (words.len() - 24) as f64).sqrt();
    assert!((deviation - 0.02).abs() < 0.0015, "{deviation}");
    // He: sqrt(6 / 72).
    let first = fresh(&mlp(), 3).unwrap().remove(0);
    assert!((0.285..=0.28868).contains(&largest(&first.2)));
}

/// A small BERT whose last layer has experts.
fn mixed(gate: &str) -> Json {
    let mut config = config("bert");
    config["moe"] =
        json!({"experts": 4, "top_k": 2, "last": 1, "gate": gate, "goals": ["a", "b", "c"]});
    config
}

/// Goals of [`seen`] where a gate is of a goal.
fn for_goals(gate: &str, texts: usize) -> Vec<u32> {
    match gate {
        "shared" => Vec::new(),
        _ => (0..texts as u32).map(|i| i % 3).collect(),
    }
}

/// Every tensor of an encoder with experts has the gradient that differences say, losses of the gates among them; filling
/// changes nothing of what is there.
#[test]
fn experts_of_texts_have_their_gradients() {
    for gate in ["goal", "conditioned", "window", "shared"] {
        for more in [
            json!({"renormalise": true}),
            json!({"top_p": 0.4, "switch": 0.01, "entropy": 0.1, "balance": 0.0}),
        ] {
            let mut config = mixed(gate);
            let map = config["moe"].as_object_mut().unwrap();
            map.extend(more.as_object().unwrap().clone());
            config["initializer_range"] = json!(0.3);
            let all = tensors(&config, 4);
            let names: Vec<&str> = all.iter().map(|t| t.0.as_str()).collect();
            assert!(names.contains(&"encoder.layer.0.intermediate.dense.weight"));
            let last = config["num_hidden_layers"].as_u64().unwrap() - 1;
            assert!(names.contains(&&*format!("encoder.layer.{last}.moe.up.weight")));
            let gone = format!("encoder.layer.{last}.intermediate.dense.weight");
            assert!(!names.contains(&&*gone));
            let model = Model::of(Path::new("nowhere"), &config, Plain::new(all.clone())).unwrap();
            let parameters = Parameters::new(all).unwrap();
            let nothing = Plain::default();
            let weights = Trained {
                parameters: &parameters,
                frozen: &nothing,
                seed: None,
            };
            let texts = [
                &[5u32, 20, 9, 11][..],
                &[6, 21],
                &[7, 22, 10],
                &[8, 3, 4, 2],
            ];
            let mut batch = Batch::padded(&texts, 0).unwrap();
            batch.goals = for_goals(gate, 4);
            let loss = || {
                let kept = Penalised::over(&weights);
                let found = model.embed(&kept, &batch).unwrap();
                let all = ops::mul(&found, &found).unwrap();
                let all = ops::mul(&all, &found).unwrap();
                let sum = ops::mean(&all).unwrap();
                ops::add(&sum, &kept.sum().unwrap()).unwrap()
            };
            let who = format!("{gate} {more}");
            // No token may have chosen an expert; a bias of keys moves all scores of a query alike.
            let none = |name: &str| {
                name.contains(".moe.")
                    || name.ends_with("key.bias")
                    || name.contains("position")
                    || name.contains("type")
            };
            agree(&who, &parameters, &loss, &loss, &none);
            let alone = Batch {
                goals: batch.goals.get(1..2).unwrap_or_default().to_vec(),
                ..Batch::padded(&texts[1..2], 0).unwrap()
            };
            let both = model.embed(&model.weights, &batch).unwrap();
            let own = model.embed(&model.weights, &alone).unwrap();
            let (both, own) = (slice(both.data()).unwrap(), slice(own.data()).unwrap());
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(both[own.len()..].iter().zip(&*own).all(near), "{who}");
        }
    }
}

#[test]
fn experts_by_goal_want_goals() {
    let said = |config: &Json, goals: &[u32]| {
        let all = tensors(config, 4);
        let model = Model::of(Path::new("nowhere"), config, Plain::new(all)).unwrap();
        let mut batch = Batch::padded(&[[5u32, 6], [7, 8]], 0).unwrap();
        batch.goals = goals.to_vec();
        let found = model.hidden(&model.weights, &batch);
        found.map(|x| x.dims().to_vec()).map_err(|e| e.to_string())
    };
    assert!(
        said(&mixed("goal"), &[])
            .unwrap_err()
            .contains("0 goals for 2 inputs")
    );
    assert!(said(&mixed("goal"), &[0, 3]).is_err() && said(&mixed("goal"), &[0, 2]).is_ok());
    assert!(said(&mixed("shared"), &[]).is_ok() && said(&mixed("shared"), &[0, 0]).is_err());
    assert!(
        said(&config("bert"), &[0, 0])
            .unwrap_err()
            .contains("without experts")
    );
}

#[test]
fn a_seed_says_everything() {
    for config in [config("vit"), config("bert"), mixed("goal"), mlp()] {
        let bits = |seed| -> Vec<Vec<u32>> {
            let made = fresh(&config, seed).unwrap();
            made.iter()
                .map(|t| t.2.iter().map(|x| x.to_bits()).collect())
                .collect()
        };
        assert_eq!(bits(7), bits(7));
        assert_ne!(bits(7), bits(8));
    }
    // A layer more changes no other tensor.
    let mut deeper = mlp();
    deeper["hidden_sizes"] = json!([24, 16, 8]);
    let (a, b) = (fresh(&mlp(), 7).unwrap(), fresh(&deeper, 7).unwrap());
    assert!(a.iter().all(|t| b.contains(t)));
}

#[test]
fn what_cannot_be_made_is_named() {
    let said = |config: Json| fresh(&config, 0).unwrap_err().to_string();
    assert!(
        said(json!({"model_type": "t5"})).contains(
            "known: vit, bert, llama, mistral, qwen2, qwen3, gemma, gemma2, polyloom-mlp"
        )
    );
    assert!(said(json!({"model_type": "polyloom-mlp"})).contains("image_size"));
    let change = |mut config: Json, key: &str, value: Json| {
        config[key] = value;
        said(config)
    };
    assert!(change(mlp(), "hidden_sizes", json!([])).contains("at least one layer"));
    assert!(change(mlp(), "hidden_sizes", json!([1u64 << 60])).contains("every memory"));
    assert!(change(mlp(), "hidden_act", json!("sine")).contains("`sine`"));
    assert!(change(config("bert"), "vocab_size", json!(u64::MAX)).contains("every memory"));
    assert!(change(config("vit"), "num_hidden_layers", json!(1u64 << 40)).contains("layers"));
    assert!(change(config("vit"), "patch_size", json!(0)).contains("patches of 0"));
    // Whatever a configuration says: weights or an error, and a model of them that does not panic.
    for config in [config("vit"), config("bert"), mixed("shared"), mlp()] {
        for key in config.as_object().unwrap().keys() {
            for lie in [
                json!(0),
                json!(5),
                json!(-1),
                json!(1u64 << 33),
                json!(u64::MAX),
                json!(1e300),
                json!("many"),
                json!(null),
                json!([0]),
            ] {
                let mut config = config.clone();
                config[key] = lie;
                let Ok(made) = fresh(&config, 0) else {
                    continue;
                };
                let all = made.into_iter().map(|(n, s, v)| (n, tensor(v, s).unwrap()));
                if let Ok(model) = Model::of(Path::new("nowhere"), &config, Plain::new(all))
                    && model.pictures().is_none_or(|(size, _)| size < 100)
                {
                    let _ = seen(&model, &model.weights);
                }
            }
        }
    }
}

#[test]
fn a_perceptron_by_hand() {
    let config =
        json!({"image_size": 1, "num_channels": 2, "hidden_sizes": [2, 1], "hidden_act": "relu"});
    let model = Mlp::new(serde_json::from_value(config).unwrap()).unwrap();
    let on = |v: &[f32], s: &[usize]| tensor(v.to_vec(), s).unwrap();
    let weights = Plain::new([
        (
            "layers.0.weight".to_owned(),
            on(&[1.0, 2.0, -1.0, 0.0], &[2, 2]),
        ),
        ("layers.0.bias".to_owned(), on(&[0.5, 0.0], &[2])),
        ("layers.1.weight".to_owned(), on(&[3.0, 100.0], &[1, 2])),
        ("layers.1.bias".to_owned(), on(&[-1.0], &[1])),
    ]);
    let pixels = Value::constant(on(&[1.0, 2.0], &[1, 2, 1, 1]));
    let out = model.forward(&weights, &pixels).unwrap();
    assert_eq!(
        (out.dims(), slice(out.data()).unwrap()[0]),
        (&[1, 1][..], 15.5)
    );
    let small = Value::constant(on(&[1.0], &[1, 1, 1, 1]));
    let said = model.forward(&weights, &small).unwrap_err().to_string();
    assert!(said.contains("the model takes 2 x 1 x 1"), "{said}");
}

/// From nothing to one batch by heart, through `Model` and a head of zeros; every weight moves on the way.
#[test]
fn each_family_learns_one_batch_by_heart() {
    for config in [config("vit"), config("bert"), mlp()] {
        let name = config["model_type"].as_str().unwrap().to_owned();
        let mut all = tensors(&config, 5);
        let model = Model::of(Path::new("nowhere"), &config, Plain::new(all.clone())).unwrap();
        assert!(matches!(model.trunk, Trunk::Mlp(_)) == (name == "polyloom-mlp"));
        let width = model.width();
        assert_eq!(vectors(&model, &model.weights).dims(), [6, width]);
        all.push((
            "classifier.weight".to_owned(),
            tensor(vec![0.0; 3 * width], (3, width)).unwrap(),
        ));
        all.push((
            "classifier.bias".to_owned(),
            tensor(vec![0.0; 3], 3).unwrap(),
        ));
        let parameters = Parameters::new(all).unwrap();
        let before = parameters.weights().unwrap().to_vec();
        let mut optimiser = Optimiser::new(Rule::adamw(0.0), &parameters);
        optimiser.clip = 1.0;
        let nothing = Plain::default();
        let mut losses = Vec::new();
        for _ in 0..80 {
            let weights = Trained {
                parameters: &parameters,
                frozen: &nothing,
                seed: None,
            };
            let scores = weights
                .linear("classifier", &vectors(&model, &weights))
                .unwrap();
            let loss = ops::cross_entropy(&scores, &[0, 1, 2, 2, 0, 1], 0.0).unwrap();
            let mut gradients = parameters.gradients().unwrap();
            loss.backward_into(&mut gradients).unwrap();
            optimiser.step(&parameters, &gradients, 0.01).unwrap();
            losses.push(loss.number().unwrap());
        }
        assert!(
            (losses[0] - 3f32.ln()).abs() < 1e-5,
            "{name}: {}",
            losses[0]
        );
        assert!(losses[79] < 0.05, "{name}: {}", losses[79]);
        let after = parameters.weights().unwrap();
        for p in parameters.iter() {
            // A bias of keys moves all scores of a query alike.
            let still = after[p.at.clone()] == before[p.at.clone()];
            assert!(
                !still || p.name.ends_with("key.bias"),
                "{name}: {} stays",
                p.name
            );
        }
    }
}

/// The loss of the next token reaches every weight of a decoder, as differences say: also a table that is read and scored
/// with, biases, norms of heads.
#[test]
fn next_tokens_have_their_gradients() {
    for (family, tied, moe) in [
        ("llama", true, json!(null)),
        ("llama", false, json!(null)),
        ("qwen2", true, json!(null)),
        ("qwen3", false, json!(null)),
        ("gemma2", true, json!(null)),
        (
            "llama",
            true,
            json!({"gate": "shared", "experts": 3, "top_k": 2, "last": 1, "balance": 0.3}),
        ),
        (
            "qwen3",
            true,
            json!({"gate": "shared", "experts": 3, "top_p": 0.4, "every": 1, "entropy": 0.2}),
        ),
    ] {
        let config = json!({
            "model_type": family, "vocab_size": 11, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "max_position_embeddings": 16,
            "tie_word_embeddings": tied, "initializer_range": 0.3, "sliding_window": 3, "moe": moe,
        });
        let all = tensors(&config, 2);
        let model = Model::of(Path::new("none"), &config, Plain::new(all.clone())).unwrap();
        let Trunk::Decoder(decoder) = &model.trunk else {
            panic!("{family} is a decoder")
        };
        let parameters = Parameters::new(all).unwrap();
        let nothing = Plain::default();
        let weights = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: None,
        };
        // Two sequences, the second filled up; of the first the last three tokens count.
        let batch = Batch::padded(&[&[1u32, 4, 2, 7, 9][..], &[3, 5, 8]], 0).unwrap();
        let loss = || {
            let kept = Penalised::over(&weights);
            let hidden = decoder.forward(&kept, &batch, None).unwrap();
            let states = ops::reshape(&hidden, &[10, 12]).unwrap();
            let before = ops::rows(&states, &[1, 2, 3, 5, 6]).unwrap();
            let scores = decoder.logits(&weights, &before).unwrap();
            let loss = ops::cross_entropy(&scores, &[2, 7, 9, 5, 8], 0.0).unwrap();
            match kept.sum() {
                Some(more) => ops::add(&loss, &more).unwrap(),
                None => loss,
            }
        };
        // A bias of keys moves all scores of a query alike, but for positions that are turned; no token may have chosen an expert.
        let who = format!("{family}, tied: {tied}, {moe}");
        agree(&who, &parameters, &loss, &loss, &|name| {
            name.contains(".moe.")
        });
    }
}
