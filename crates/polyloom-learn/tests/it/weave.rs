//! Woven models: the peers' vectors, what must hold of them, whole folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;
use polyloom_core::rng::Stream;
use polyloom_learn::engine::{Parameters, Tensor, Value, slice, tensor};
use polyloom_learn::models::{Plain, Point, Source, Trained};
use polyloom_learn::ops;
use polyloom_learn::weave::blend::{Blend, Parts};
use polyloom_learn::weave::part::{Compression, Part};
use polyloom_learn::weave::smile::{Gates, Smile, gate, norms};
use polyloom_learn::weave::wemoe::{Blocks, Mixing, Wemoe, begin};
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

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let stream = Stream::new(seed, "normal", 0);
    let values = (0..n as u64).map(|i| stream.normal(i)).collect();
    tensor(values, shape).unwrap()
}

/// What methods/merging.md 6.1 asks of WEMoE.
#[test]
fn wemoe_mixes_feed_forward_parts() {
    let shapes: [(&str, &[usize]); 4] = [
        ("up.weight", &[6, 4]),
        ("up.bias", &[6]),
        ("down.weight", &[4, 6]),
        ("down.bias", &[4]),
    ];
    let of = |seed: u64| -> Vec<(String, Tensor)> {
        let one = |(i, (name, shape)): (usize, &(&str, &[usize]))| {
            ((*name).to_owned(), normal(seed + i as u64, shape))
        };
        shapes.iter().enumerate().map(one).collect()
    };
    let experts: Vec<Parts> = (1..4)
        .map(|e| {
            let parts = of(100 * e).into_iter();
            parts.map(|(name, t)| (name, Part::Whole(t))).collect()
        })
        .collect();
    let names = [vec!["up".to_owned(), "down".to_owned()]];
    let blocks = Blocks::new(&names, &experts.iter().collect::<Vec<_>>()).unwrap();
    let base = Plain::new(of(1));
    let begun = base.with(begin(0, 4, 3, 7).unwrap());
    let pass = |source: &Wemoe<'_>, x: &Value| -> Vec<f32> {
        let hidden = source.linear("up", x).unwrap();
        let out = source.linear("down", &hidden).unwrap();
        source.pass(Point::FeedForward(0), out.clone()).unwrap();
        numbers(out.data())
    };
    let merged = |weights: &[f32], x: &Value| -> Vec<f32> {
        let mix = weights.iter().copied().zip(&experts).collect();
        let blend = Blend::new(&base, mix);
        let hidden = blend.linear("up", x).unwrap();
        numbers(blend.linear("down", &hidden).unwrap().data())
    };
    let near = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} {b}");
        }
    };
    let x = Value::constant(normal(50, &[5, 3, 4]));
    // Constant 0.3 is task arithmetic, one-hot is an expert's feed-forward part.
    let fixed = |mix: &[f32]| {
        let source = Wemoe::new(&begun, &blocks, Mixing::Fixed(mix.to_vec()), None);
        pass(&source, &x)
    };
    near(&fixed(&[0.3, 0.3, 0.3]), &merged(&[0.3, 0.3, 0.3], &x));
    near(&fixed(&[0.0, 1.0, 0.0]), &merged(&[0.0, 1.0, 0.0], &x));
    let each = Wemoe::new(&begun, &blocks, Mixing::Each, None);
    let coefficients = numbers(each.coefficients(0, &x).unwrap().data());
    assert!(
        coefficients.iter().all(|c| (c - 0.3).abs() < 0.02),
        "{coefficients:?}"
    );
    // With mixers that tell inputs apart: alone as in company, also where two inputs share a mix.
    let mut strong = begin(0, 4, 3, 7).unwrap();
    for (_, t) in &mut strong {
        *t = tensor(numbers(t).iter().map(|x| 40.0 * x).collect(), t.dims()).unwrap();
    }
    let strong = base.with(strong);
    let twice = ops::rows(&x, &[0, 1, 2, 3, 4, 1]).unwrap();
    let each = |x: &Value| pass(&Wemoe::new(&strong, &blocks, Mixing::Each, None), x);
    let together = each(&twice);
    let alone: Vec<f32> = [0, 1, 2, 3, 4, 1]
        .iter()
        .flat_map(|i| each(&ops::rows(&x, &[*i]).unwrap()))
        .collect();
    near(&together, &alone);
    // The mean over a batch has a gradient at the mixers.
    let parameters = Parameters::new(begin(0, 4, 3, 7).unwrap()).unwrap();
    let trained = Trained {
        parameters: &parameters,
        frozen: &base,
        seed: None,
    };
    let source = Wemoe::new(&trained, &blocks, Mixing::Mean, None);
    let hidden = source.linear("up", &x).unwrap();
    let out = source.linear("down", &hidden).unwrap();
    let value = ops::mean(&ops::mul(&out, &out).unwrap()).unwrap();
    let found = value.backward().unwrap();
    let last = parameters.get("mixers/0.fc2.bias").unwrap();
    let gradient = numbers(found.get(&last.value).unwrap());
    for (i, g) in gradient.iter().enumerate() {
        let at = |by: f32| {
            let mut mix = numbers(source.coefficients(0, &x).unwrap().data());
            mix[i] += by;
            let source = Wemoe::new(&base, &blocks, Mixing::Fixed(mix), None);
            let out = pass(&source, &x);
            out.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / out.len() as f64
        };
        let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
        assert!(
            (slope - f64::from(*g)).abs() < 1e-2 * (1.0 + slope.abs()),
            "{slope} {g}"
        );
    }
}
