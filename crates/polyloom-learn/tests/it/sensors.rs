//! Stems by sensor around one trunk: gradients of what heads see and of masked reconstruction.

use std::path::Path;

use polyloom_learn::engine::{Parameters, Value, tensor};
use polyloom_learn::models::fresh::fresh;
use polyloom_learn::models::open::Model;
use polyloom_learn::models::t3::T3;
use polyloom_learn::models::{Plain, Trained};
use polyloom_learn::ops;
use serde_json::{Value as Json, json};

use super::differences::agree;

fn config() -> Json {
    json!({
        "model_type": "polyloom-t3", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 12, "num_stem_layers": 1, "num_decoder_layers": 1, "stems": {
            "pen": {"image_size": 6, "num_channels": 1, "patch_size": 3},
            "camera": {"image_size": 4, "num_channels": 3, "patch_size": 2}
        }
    })
}

fn pixels(images: usize, channels: usize, side: usize) -> Value {
    let count = images * channels * side * side;
    let values = (0..count).map(|i| (i as f32 * 1.3).sin()).collect();
    Value::constant(tensor(values, vec![images, channels, side, side]).unwrap())
}

/// A loss by its name.
type Named<'a> = (&'a str, &'a dyn Fn(&Trained<'_>) -> Value);

/// Both sensors in one loss, so that the trunk hears of both.
#[test]
fn gradients_of_stems_trunk_and_decoders() {
    let model = T3::new(serde_json::from_value(config()).unwrap()).unwrap();
    let of = |name: &str| model.stems.iter().position(|s| s.sensor == name).unwrap();
    let (pen, camera) = (of("pen"), of("camera"));
    let made = fresh(&config(), 3).unwrap().into_iter();
    // The norm of a token near 0 bends within the step of a difference.
    let all = made.map(|(name, shape, mut values)| {
        if name.ends_with("_token") {
            values.iter_mut().for_each(|x| *x *= 40.0);
        }
        (name, tensor(values, shape).unwrap())
    });
    let masked = |by: &[u32]| vec![by.to_vec(), vec![0, 3]];
    let losses: [Named<'_>; 2] = [
        ("rebuilt", &|source| {
            let one = model.reconstruction(source, pen, &pixels(2, 1, 6), &masked(&[1, 2]));
            let two = model.reconstruction(source, camera, &pixels(2, 3, 4), &masked(&[0, 2]));
            ops::add(&one.unwrap(), &two.unwrap()).unwrap()
        }),
        ("seen", &|source| {
            let one = model.look(source, pen, &pixels(2, 1, 6)).unwrap();
            let two = model.look(source, camera, &pixels(2, 3, 4)).unwrap();
            let both = ops::concat(&[&one, &two], 0).unwrap();
            let values = (0..32).map(|i| (i as f32).cos()).collect();
            let far = Value::constant(tensor(values, vec![4, 8]).unwrap());
            ops::mean_squares(&both, &far).unwrap()
        }),
    ];
    let all: Vec<_> = all.collect();
    for (who, loss) in losses {
        let used = |name: &str| who == "rebuilt" || !name.starts_with("decoders.");
        let own = all.iter().filter(|(name, _)| used(name)).cloned();
        let parameters = Parameters::new(own).unwrap();
        let frozen = Plain::new(Vec::new());
        let run = || {
            let source = Trained {
                parameters: &parameters,
                frozen: &frozen,
                seed: None,
            };
            loss(&source)
        };
        // A bias of keys moves no attention.
        agree(who, &parameters, &run, &run, &|name| {
            name.ends_with("key.bias")
        });
    }
}

/// Whatever a configuration says: weights or an error, and a model of them that does not panic.
#[test]
fn odd_configurations_do_not_panic() {
    let lies = [
        json!(0),
        json!(5),
        json!(-1),
        json!(1u64 << 33),
        json!(u64::MAX),
        json!(1e300),
        json!("many"),
        json!(null),
        json!([0]),
        json!({}),
    ];
    let keys =
        |value: &Json| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let mut all = Vec::new();
    for lie in lies {
        for key in keys(&config()) {
            let mut config = config();
            config[key] = lie.clone();
            all.push(config);
        }
        for key in keys(&config()["stems"]["pen"]) {
            let mut config = config();
            config["stems"]["pen"][key] = lie.clone();
            all.push(config);
        }
    }
    let mut made = 0;
    for config in all {
        let Ok(tensors) = fresh(&config, 0) else {
            continue;
        };
        let tensors = tensors.into_iter();
        let tensors = tensors.map(|(n, s, v)| (n, tensor(v, s).unwrap()));
        let Ok(model) = Model::of(Path::new("nowhere"), &config, Plain::new(tensors)) else {
            continue;
        };
        made += 1;
        let _ = model.look(&model.weights, &pixels(1, 1, 6));
        if let Some(of) = model.sensors() {
            let _ = of.reconstruction(&model.weights, 0, &pixels(1, 1, 6), &[vec![0]]);
        }
    }
    assert!(made > 5, "{made}");
}
