//! Woven models: the peers' vectors, what must hold of them, whole folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;
use polyloom_core::rng::Stream;
use polyloom_learn::engine::{Tensor, Value, slice, tensor};
use polyloom_learn::models::{Plain, Source};
use polyloom_learn::ops;
use polyloom_learn::weave::blend::{Blend, Parts};
use polyloom_learn::weave::part::{Compression, Part};
use polyloom_learn::weave::smile::{Gates, Smile, gate, norms};
use serde_json::Value as Json;

use super::routing::Case;

fn numbers(t: &Tensor) -> Vec<f32> {
    slice(t).unwrap().to_vec()
}

fn minus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// The shared tensor of task arithmetic, and what each expert has beyond it.
fn shared(base: &[f32], tuned: &[Vec<f32>], lambda: f32) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut shared = base.to_vec();
    for (i, s) in shared.iter_mut().enumerate() {
        *s += lambda * tuned.iter().map(|t| t[i] - base[i]).sum::<f32>();
    }
    let beyond = tuned.iter().map(|t| minus(t, &shared)).collect();
    (shared, beyond)
}

fn compression(word: &Json) -> Compression {
    serde_json::from_value(word.clone()).unwrap()
}

fn draws() -> Stream {
    Stream::new(0, "none are drawn", 0)
}

/// A case of golden/routing: shared and exclusive tensors, router weights, merged tensors of five inputs.
pub fn twin(case: &Case) {
    let how = compression(case.param("strategy"));
    // As the release computes it: a little below the decimal number.
    let density = 1.0 - case.param("mask_rate").as_f64().unwrap();
    let lambda = case.param("task_arithmetic_scaling").as_f64().unwrap() as f32;
    let (shape, logits) = case.tensor("in.router_logits");
    let weights: Vec<Vec<f32>> = logits
        .chunks(shape[1])
        .map(|row| {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            row.iter().map(|x| (x.exp() / sum) as f32).collect()
        })
        .collect();
    case.near("router_weights", &wide(&weights.concat()));
    let (mut all, mut experts) = (Vec::new(), vec![Parts::new(); 3]);
    for name in ["weight", "bias"] {
        let (shape, _) = case.tensor(&format!("in.base.{name}"));
        let base = case.f32s(&format!("in.base.{name}"));
        let tuned: Vec<Vec<f32>> = (0..3)
            .map(|t| case.f32s(&format!("in.tuned.{t}.{name}")))
            .collect();
        let (shared, beyond) = shared(&base, &tuned, lambda);
        case.near(&format!("shared.{name}"), &wide(&shared));
        for (t, beyond) in beyond.into_iter().enumerate() {
            let beyond = tensor(beyond, shape.clone()).unwrap();
            let part = Part::compress(&beyond, how, density, draws())
                .unwrap()
                .unwrap();
            let dense = numbers(&part.dense().unwrap());
            case.near(&format!("exclusive.{t}.{name}"), &wide(&dense));
            if let (Some(rank), Some(kept)) = (part.rank(), case.param("kept_rank").as_u64()) {
                assert_eq!(rank as u64, kept);
            }
            experts[t].insert(name.to_owned(), part);
        }
        all.push((name.to_owned(), tensor(shared, shape).unwrap()));
    }
    let plain = Plain::new(all);
    for name in ["weight", "bias"] {
        let mut merged = Vec::new();
        for weights in &weights {
            let mix = weights.iter().copied().zip(&experts).collect();
            let blend = Blend::new(&plain, mix);
            merged.extend(numbers(blend.tensor(name).unwrap().data()));
        }
        case.near(&format!("merged.{name}"), &wide(&merged));
    }
}

fn golden(method: &str) -> Vec<(Json, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/merging");
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&text).unwrap();
    let cases = manifest["cases"].as_array().unwrap().iter();
    let found: Vec<_> = cases
        .filter(|c| c["canonical"]["method"] == method)
        .map(|c| (c.clone(), root.clone()))
        .collect();
    assert!(!found.is_empty(), "no golden of {method}");
    found
}

fn model(case: &Json, root: &Path, name: &str) -> Checkpoint {
    let set = case["set"].as_str().unwrap();
    Checkpoint::open(root.join("models").join(set).join(name)).unwrap()
}

fn read(from: &Checkpoint, name: &str) -> Vec<f32> {
    from.read_all(from.get(name).unwrap()).unwrap()
}

fn near(case: &Json, what: &str, found: &[f32], expected: &[f32]) {
    let tolerance = |key: &str| case["tolerance"][key].as_f64().unwrap() as f32;
    assert_eq!(found.len(), expected.len(), "{what}");
    let far =
        |(a, b): &(&f32, &f32)| (*a - *b).abs() > tolerance("atol") + tolerance("rtol") * b.abs();
    let outliers = found.iter().zip(expected).filter(far).count() as u64;
    assert!(
        outliers <= case["tolerance"]["max_outliers"].as_u64().unwrap(),
        "{what}: {outliers} numbers differ"
    );
}

/// Whole models of golden/merging: one mix of four experts.
#[test]
fn golden_twin() {
    for (case, root) in golden("twin") {
        let params = &case["params"];
        let how = compression(&params["compression"]);
        let density = params["density"].as_f64().unwrap();
        let logits = params["router_logits"].as_array().unwrap();
        let logits: Vec<f64> = logits.iter().map(|x| x.as_f64().unwrap().exp()).collect();
        let sum: f64 = logits.iter().sum();
        let expected = Checkpoint::open(root.join(case["expected"].as_str().unwrap())).unwrap();
        let base = model(&case, &root, "base");
        let inputs = case["inputs"].as_array().unwrap();
        let experts: Vec<Checkpoint> = inputs
            .iter()
            .map(|n| model(&case, &root, n.as_str().unwrap()))
            .collect();
        for (name, stored) in expected.tensors() {
            if !stored.dtype.is_float() {
                continue;
            }
            let tuned: Vec<Vec<f32>> = experts.iter().map(|e| read(e, name)).collect();
            let (mut merged, beyond) = shared(&read(&base, name), &tuned, 0.3);
            for (beyond, weight) in beyond.into_iter().zip(&logits) {
                let beyond = tensor(beyond, stored.shape.clone()).unwrap();
                if let Some(part) = Part::compress(&beyond, how, density, draws()).unwrap() {
                    part.add_to(&mut merged, (weight / sum) as f32).unwrap();
                }
            }
            near(&case, name, &merged, &read(&expected, name));
        }
    }
}

/// One up-scaled linear layer of fusion-bench.
#[test]
fn golden_smile() {
    for (case, root) in golden("smile") {
        let params = &case["params"];
        let count = |key: &str| params[key].as_u64().unwrap() as usize;
        let layer = params["layer"].as_str().unwrap();
        let expected = Checkpoint::open(root.join(case["expected"].as_str().unwrap())).unwrap();
        let base = model(&case, &root, "base");
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        let shape = |name: &str| base.get(name).unwrap().shape.clone();
        let plain = Plain::new(
            [&weight, &bias].map(|n| (n.clone(), tensor(read(&base, n), shape(n)).unwrap())),
        );
        let (mut experts, mut changed) = (Vec::new(), Vec::new());
        for name in case["inputs"].as_array().unwrap() {
            let tuned = model(&case, &root, name.as_str().unwrap());
            let of = |n: &String| {
                let difference = minus(&read(&tuned, n), &read(&base, n));
                tensor(difference, shape(n)).unwrap()
            };
            let w = of(&weight);
            let least = w.dims().iter().min().copied().unwrap();
            let density = (count("k") as f64 + 0.5) / least as f64;
            let part = |t: &Tensor| {
                Part::compress(t, Compression::Svd, density, draws())
                    .unwrap()
                    .unwrap()
            };
            experts.push(HashMap::from([
                (weight.clone(), part(&w)),
                (bias.clone(), part(&of(&bias))),
            ]));
            changed.push(Some(w));
        }
        let x = read(&expected, "x");
        let width = shape(&weight)[1];
        let gate = gate(&changed, width, count("gate_k")).unwrap();
        near(
            &case,
            "router_norms",
            &norms(&gate, &x).unwrap(),
            &read(&expected, "router_norms"),
        );
        let gates: Gates = HashMap::from([(layer.to_owned(), gate)]);
        let smile = Smile {
            shared: &plain,
            experts: experts.iter().collect(),
            gates: &gates,
            top: count("top_k"),
            forced: None,
        };
        let n = x.len() / width;
        let x = Value::constant(tensor(x, (n, width)).unwrap());
        let y = smile.linear(layer, &x).unwrap();
        near(&case, "y", &numbers(y.data()), &read(&expected, "y"));
        // One row alone is what it is in company.
        for i in 0..n {
            let alone = smile
                .linear(layer, &ops::narrow(&x, 0, i, 1).unwrap())
                .unwrap();
            let wide = numbers(y.data()).len() / n;
            let together = &numbers(y.data())[i * wide..(i + 1) * wide];
            for (a, b) in numbers(alone.data()).iter().zip(together) {
                assert!((a - b).abs() < 1e-5);
            }
        }
    }
}
