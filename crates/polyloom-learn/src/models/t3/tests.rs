use std::path::Path;

use serde_json::{Value as Json, json};

use super::*;
use crate::engine::{Tensor, slice, tensor};
use crate::models::Plain;
use crate::models::fresh::fresh;
use crate::models::open::Model;

/// Two sensors: 4 x 4 grey in patches of 2, 2 x 2 of two channels in patches of 1.
fn config(change: impl Fn(&mut Json)) -> Json {
    let mut config = json!({
        "model_type": MODEL_TYPE, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 2, "num_stem_layers": 0, "num_decoder_layers": 1, "stems": {
            "a": {"image_size": 4, "num_channels": 1, "patch_size": 2, "tasks": ["x"]},
            "b": {"image_size": 2, "num_channels": 2, "patch_size": 1}
        }
    });
    change(&mut config);
    config
}

fn model(config: &Json) -> Result<T3> {
    T3::new(serde_json::from_value(config.clone()).unwrap())
}

/// Weights of 0 but for those that are given.
fn zeros(config: &Json, given: &[(&str, Vec<f32>)]) -> Plain {
    let made = fresh(config, 1).unwrap().into_iter();
    Plain::new(made.map(|(name, shape, values)| {
        let given = given.iter().find(|(n, _)| *n == name);
        let values = given.map_or_else(|| vec![0.0; values.len()], |g| g.1.clone());
        (name, tensor(values, shape).unwrap())
    }))
}

fn pixels(values: Vec<f32>, shape: [usize; 4]) -> Value {
    Value::constant(tensor(values, shape.to_vec()).unwrap())
}

fn near(found: &Value, by_hand: &[f32]) {
    let found = slice(found.data()).unwrap().to_vec();
    assert_eq!(found.len(), by_hand.len());
    let apart = found.iter().zip(by_hand).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-5, "{found:?} {by_hand:?}");
}

/// A patch of one sensor becomes a token by its stem alone.
#[test]
fn patches_by_hand() {
    let config = config(|_| {});
    let (of, at) = (model(&config).unwrap(), "stems.b.embeddings.");
    let weights = zeros(
        &config,
        &[
            // The first output is the difference of the channels, the second their sum.
            (
                &format!("{at}patch_embeddings.projection.weight"),
                vec![1.0, -1.0, 1.0, 1.0],
            ),
            (
                &format!("{at}patch_embeddings.projection.bias"),
                vec![0.5, 0.0],
            ),
            (&format!("{at}cls_token"), vec![7.0, 8.0]),
            (
                &format!("{at}position_embeddings"),
                vec![1.0, 0.0, 0.1, 0.0, 0.2, 0.0, 0.3, 0.0, 0.4, 0.0],
            ),
            ("trunk.layernorm.weight", vec![1.0, 1.0]),
        ],
    );
    let two = pixels(vec![1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0], [1, 2, 2, 2]);
    let tokens = of.stems[1].encoder.embedded(&weights, &two).unwrap();
    near(
        &tokens,
        &[8.0, 8.0, -3.4, 6.0, 2.7, 2.0, 2.8, 4.0, 2.9, 6.0],
    );
    // Layers of zeros change nothing: normed, two numbers are -1 and 1, or 0 where they are alike.
    let hidden = of.forward(&weights, 1, &two).unwrap();
    near(
        &hidden,
        &[0.0, 0.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0],
    );
    near(&of.look(&weights, 1, &two).unwrap(), &[0.0, 0.0]);
    near(&of.look_by_size(&weights, &two).unwrap(), &[0.0, 0.0]);
    assert!(of.forward(&weights, 0, &two).is_err() && of.forward(&weights, 2, &two).is_err());
    let odd = pixels(vec![0.0; 9], [1, 1, 3, 3]);
    let error = of.look_by_size(&weights, &odd).unwrap_err().to_string();
    assert!(error.contains("3 x 3 x 1, which no stem reads"), "{error}");
}

/// What is said of two masked patches beside the patches themselves, each by its own mean and deviation.
#[test]
fn masked_mean_square_by_hand() {
    let config = config(|_| {});
    let of = model(&config).unwrap();
    let bias = vec![1.0, 0.0, 0.0, 0.0];
    let weights = zeros(&config, &[("decoders.a.projection.bias", bias)]);
    // Patch 1 (first row, second column) holds 1, 2, 3, 4; patch 2 is flat.
    let image = pixels(
        vec![
            9.0, 0.0, 1.0, 2.0, //
            0.0, 9.0, 3.0, 4.0, //
            5.0, 5.0, 8.0, 8.0, //
            5.0, 5.0, 8.0, 7.0,
        ],
        [1, 1, 4, 4],
    );
    let found = |masked: &[Vec<u32>]| of.reconstruction(&weights, 0, &image, masked);
    let one = found(&[vec![1]]).unwrap().number().unwrap();
    // Deviation sqrt(1.25): -1.5, -0.5, 0.5, 1.5 over it, less 1, 0, 0, 0.
    let d = 1.25f32.sqrt();
    let by_hand = ((1.5 / d + 1.0).powi(2) + 2.0 * (0.5 / d).powi(2) + (1.5 / d).powi(2)) / 4.0;
    assert!((one - by_hand).abs() < 1e-5, "{one} {by_hand}");
    // A flat patch is 0: only the bias is off, 1 of 4.
    let both = found(&[vec![1, 2]]).unwrap().number().unwrap();
    assert!((both - (by_hand + 0.25) / 2.0).abs() < 1e-5, "{both}");
    for wrong in [vec![4], vec![2, 1], vec![1, 1], vec![]] {
        assert!(found(&[wrong]).is_err());
    }
    assert!(found(&[vec![1], vec![2]]).is_err());
}

/// The decoder sees what is left, and the learned token where a patch is masked.
#[test]
fn what_is_masked_is_not_seen() {
    let config = config(|c| c["num_stem_layers"] = json!(1));
    let of = model(&config).unwrap();
    let made = fresh(&config, 5).unwrap().into_iter();
    let weights = Plain::new(made.map(|(n, s, v)| (n, tensor(v, s).unwrap())));
    let image = |x: f32| {
        let mut values: Vec<f32> = (0..16).map(|i| (i as f32).sin()).collect();
        // The last pixel, of patch 3.
        values[15] = x;
        pixels(values, [1, 1, 4, 4])
    };
    let said = |x: f32, masked: Vec<u32>| {
        let found = of.rebuilt(&weights, 0, &image(x), &[masked]).unwrap();
        slice(found.data()).unwrap().to_vec()
    };
    assert_eq!(said(0.0, vec![1, 3]), said(9.0, vec![1, 3]));
    assert_ne!(said(0.0, vec![1, 2]), said(9.0, vec![1, 2]));
    assert_eq!(said(0.0, vec![1, 3]).len(), 8);
}

/// One stem and one sensor: the plain transformer with the same tensors, to the bit.
#[test]
fn one_stem_is_the_plain_transformer() {
    let vit = json!({
        "model_type": "vit", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12,
        "image_size": 6, "num_channels": 3, "patch_size": 2
    });
    let mut t3 = vit.clone();
    t3["model_type"] = json!(MODEL_TYPE);
    t3["num_stem_layers"] = json!(1);
    t3["num_hidden_layers"] = json!(2);
    for key in ["image_size", "num_channels", "patch_size"] {
        t3.as_object_mut().unwrap().remove(key);
    }
    t3["stems"] = json!({"s": {"image_size": 6, "num_channels": 3, "patch_size": 2}});
    let tensors: Vec<(String, Tensor)> = fresh(&vit, 7)
        .unwrap()
        .into_iter()
        .map(|(n, s, v)| (n, tensor(v, s).unwrap()))
        .collect();
    let renamed = |name: &str| match name.strip_prefix("encoder.layer.") {
        Some(rest) if rest.starts_with("0.") => format!("stems.s.{name}"),
        Some(rest) => {
            let (layer, part) = rest.split_once('.').unwrap();
            let layer: usize = layer.parse().unwrap();
            format!("trunk.encoder.layer.{}.{part}", layer - 1)
        }
        None if name.starts_with("embeddings.") => format!("stems.s.{name}"),
        None => format!("trunk.{name}"),
    };
    let own = tensors.iter().map(|(n, t)| (renamed(n), t.clone()));
    let stemmed = Model::of(Path::new("none"), &t3, Plain::new(own)).unwrap();
    let plain = Model::of(Path::new("none"), &vit, Plain::new(tensors)).unwrap();
    assert_eq!(plain.layers(), stemmed.layers());
    // And they are the tensors that a new model of this kind has.
    let mut names: Vec<String> = fresh(&t3, 7).unwrap().into_iter().map(|t| t.0).collect();
    let mut there: Vec<String> = stemmed.weights.iter().map(|(n, _)| n.to_owned()).collect();
    names.sort();
    there.sort();
    assert_eq!(names, there);
    let values = (0..2 * 3 * 36).map(|i| (i as f32 * 0.7).sin()).collect();
    let pixels = pixels(values, [2, 3, 6, 6]);
    let seen = |model: &Model| {
        let found = model.look(&model.weights, &pixels).unwrap();
        slice(found.data()).unwrap().to_vec()
    };
    assert_eq!(seen(&plain), seen(&stemmed));
}

#[test]
fn odd_configurations() {
    let said = |change: &dyn Fn(&mut Json)| model(&config(change)).unwrap_err().to_string();
    let patch = said(&|c| c["stems"]["a"]["patch_size"] = json!(3));
    assert!(
        patch.contains("stem `a`: patches of 3 x 3 do not divide pictures of 4 x 4"),
        "{patch}"
    );
    assert!(said(&|c| c["stems"]["a"]["patch_size"] = json!(0)).contains("stem `a`"));
    assert!(said(&|c| c["stems"]["b"]["num_channels"] = json!(0)).contains("without channels"));
    assert!(said(&|c| c["stems"] = json!({})).contains("0 stems"));
    assert!(said(&|c| c["num_hidden_layers"] = json!(0)).contains("a trunk has layers"));
    assert!(said(&|c| c["num_decoder_layers"] = json!(0)).contains("0 of decoders"));
    assert!(said(&|c| c["num_stem_layers"] = json!(1u64 << 40)).contains("layers of stems"));
    let dotted = said(&|c| c["stems"]["a.b"] = c["stems"]["b"].clone());
    assert!(dotted.contains("stem `a.b`"), "{dotted}");
    let unknown = config(|c| c["hidden_sise"] = json!(2));
    assert!(serde_json::from_value::<Config>(unknown).is_err());
    let of = model(&config(|_| {})).unwrap();
    let told = |stem: usize, share| of.stems[stem].masked(share).map_err(|e| e.to_string());
    assert_eq!((told(0, 0.75), told(0, 0.5)), (Ok(3), Ok(2)));
    assert!(
        told(0, 0.01)
            .unwrap_err()
            .contains("masks none of 4 patches")
    );
    assert!(
        told(0, 0.99)
            .unwrap_err()
            .contains("masks all of 4 patches")
    );
    assert_eq!(told(1, 0.75), Ok(3));
}
