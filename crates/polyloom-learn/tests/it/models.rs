//! Every architecture beside `transformers` (bench/model_vectors.py made the vectors), and its gradients.

use std::path::Path;

use polyloom_learn::engine::Parameters;
use polyloom_learn::models::decoder::Cache;
use polyloom_learn::models::generate::{Sampling, answer, generate, log_likelihood};
use polyloom_learn::models::open::Model;
use polyloom_learn::models::{Batch, Plain, Source, Trained};
use polyloom_learn::ops;
use polyloom_learn::train::schedule::Shape;
use polyloom_learn::train::{Optimiser, Rule, Schedule};

use super::case::{Case, Trunk, cases, folder, values};
use super::differences;

/// Absolute difference that a sum of a few hundred terms in another order may leave.
const NEAR: f32 = 1e-4;

#[test]
#[allow(clippy::print_stdout, reason = "says how many models ran")]
fn outputs_are_those_of_transformers() {
    let all = cases();
    for case in &all {
        let weights = Plain::new(case.tensors());
        let out = case
            .model()
            .output(case, &weights)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name()));
        let (expected, shape) = case
            .numbers("hidden")
            .or_else(|| case.numbers("logits"))
            .or_else(|| case.numbers("scores"))
            .unwrap();
        assert_eq!(out.dims(), shape, "{}", case.name());
        // Of filling nobody asks.
        let width = shape[shape.len() - 1];
        let present = match case.model() {
            Trunk::Bert(_) => case.batch().present,
            _ => vec![true; expected.len() / width],
        };
        let pairs = values(out.data())
            .into_iter()
            .zip(expected)
            .enumerate()
            .filter(|(i, _)| present[i / width]);
        let apart = pairs.fold(0f32, |m, (_, (a, b))| m.max((a - b).abs()));
        println!("{}: largest difference {apart:.1e}", case.name());
        assert!(apart <= NEAR, "{}: {apart}", case.name());
    }
    assert!(all.len() >= 19, "{} models", all.len());
}

#[test]
fn every_weight_gets_its_gradient() {
    for case in cases() {
        let parameters = Parameters::new(case.tensors()).unwrap();
        let nothing = Plain::default();
        let weights = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: None,
        };
        let loss = || case.model().smooth(&case, &weights);
        // A bias of keys moves all scores of a query alike: no gradient, by mathematics.
        let keys = |name: &str| {
            name.ends_with(".key.bias")
                || name.ends_with("self_attn.k_proj.bias") && case.name() == "clip"
                || name.ends_with(".k_lin.bias")
                || name.ends_with("attn.k.bias")
        };
        differences::agree(&case.name(), &parameters, &loss, &loss, &keys);
    }
}

#[test]
fn a_cache_changes_nothing() {
    for case in cases() {
        let Trunk::Decoder(model) = case.model() else {
            continue;
        };
        let weights = Plain::new(case.tensors());
        let batch = case.batch();
        let whole = values(model.forward(&weights, &batch, None).unwrap().data());
        let width = whole.len() / batch.ids.len();
        let mut cache = Cache::default();
        let mut at = 0;
        for length in [4, 1, 3, 1] {
            let part = |v: &[u32]| {
                v.chunks(batch.length)
                    .flat_map(|r| r[at..at + length].to_vec())
                    .collect::<Vec<u32>>()
            };
            let ids = part(&batch.ids);
            let step = Batch {
                present: vec![true; ids.len()],
                ids,
                length,
                sequences: 3,
                types: Vec::new(),
                goals: Vec::new(),
            };
            let found = values(
                model
                    .forward(&weights, &step, Some(&mut cache))
                    .unwrap()
                    .data(),
            );
            for s in 0..3 {
                for i in 0..length * width {
                    let (a, b) = (
                        found[s * length * width + i],
                        whole[(s * batch.length + at) * width + i],
                    );
                    assert!(
                        (a - b).abs() < 1e-5 * (1.0 + b.abs()),
                        "{}: {a} and {b}",
                        case.name()
                    );
                }
            }
            at += length;
        }
        assert_eq!(cache.length(), 9);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let case = Case::open(&folder().join("bert"));
    let Trunk::Bert(model) = case.model() else {
        panic!("a BERT")
    };
    let mut tensors = case.tensors();
    tensors.retain(|(name, _)| name != "encoder.layer.1.output.dense.weight");
    let said = |weights: &dyn Source, batch: &Batch| {
        model.forward(weights, batch).unwrap_err().to_string()
    };
    assert_eq!(
        said(&Plain::new(tensors), &case.batch()),
        "no tensor `encoder.layer.1.output.dense.weight`"
    );
    let weights = Plain::new(case.tensors());
    let long = Batch::padded(&[vec![5; 21]], 0).unwrap();
    assert_eq!(
        said(&weights, &long),
        "21 tokens; the model takes at most 20"
    );
    assert!(
        said(&weights, &Batch::padded(&[vec![61]], 0).unwrap()).contains("row 61 of a table of 61")
    );
}

/// The real all-MiniLM-L6-v2 against the numbers beside it, where the shared folder is there.
#[test]
#[allow(clippy::print_stdout, reason = "says that it is skipped")]
fn the_real_minilm() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/all-MiniLM-L6-v2");
    if !folder.exists() {
        println!("skipped: no ../shared/models");
        return;
    }
    let read = |file: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    };
    let exact = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/minilm.json"));
    let sentences: Vec<&str> = exact["sentences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap())
        .collect();
    let model = Model::open(&folder).unwrap();
    let batch = model
        .text(None)
        .unwrap()
        .batch(&sentences.iter().map(|s| (*s, None)).collect::<Vec<_>>())
        .unwrap();
    let out = model.embed(&model.weights, &batch).unwrap();
    let found = values(out.data());
    let width = found.len() / sentences.len();
    let near = |found: &[f32], expected: &serde_json::Value, tolerance: f64| {
        for (a, b) in found.iter().zip(expected.as_array().unwrap()) {
            assert!(
                (f64::from(*a) - b.as_f64().unwrap()).abs() < tolerance,
                "{a} and {b}"
            );
        }
    };
    // The 32-bit weights that `check.json` was made with were rounded to 16 bits on disk.
    let check = read(&folder.join("check.json"));
    for (i, row) in found.chunks(width).enumerate() {
        near(row, &exact["first16"][i], 2e-6);
        near(row, &check["embeddings_fp32_first8"][i], 5e-4);
        let cosine = |other: &[f32]| row.iter().zip(other).map(|(x, y)| x * y).sum::<f32>();
        near(
            &found.chunks(width).map(cosine).collect::<Vec<_>>(),
            &check["cosine_fp32"][i],
            5e-4,
        );
    }
}

#[test]
fn texts_grow_and_have_likelihoods() {
    for case in cases() {
        let Trunk::Decoder(model) = case.model() else {
            continue;
        };
        let weights = Plain::new(case.tensors());
        let prompt = [5, 9, 3];
        let seen = std::cell::Cell::new(0);
        let mut each = |_| {
            seen.set(seen.get() + 1);
            true
        };
        let found = generate(
            &model,
            &weights,
            &prompt,
            6,
            &[],
            Sampling::greedy(),
            &mut each,
        )
        .unwrap();
        assert_eq!((found.len(), seen.get()), (6, 6));
        // What is generated greedily is greedy, and its likelihood is that of its tokens one by one.
        let (all, greedy) = log_likelihood(&model, &weights, &prompt, &found).unwrap();
        assert!(greedy && all < 0.0, "{}", case.name());
        let mut sum = 0.0;
        for i in 0..found.len() {
            let context = [&prompt[..], &found[..i]].concat();
            sum += log_likelihood(&model, &weights, &context, &found[i..=i])
                .unwrap()
                .0;
        }
        assert!((sum - all).abs() < 1e-4, "{}: {sum} and {all}", case.name());
        // An end ends.
        let ended = generate(
            &model,
            &weights,
            &prompt,
            6,
            &found[2..3],
            Sampling::greedy(),
            &mut |_| true,
        )
        .unwrap();
        let first = found.iter().position(|t| *t == found[2]).unwrap();
        assert_eq!(ended, found[..first]);
    }
}

/// A T5 with its memory answers as `transformers` does, token for token, and as without memory.
#[test]
fn a_t5_answers() {
    for name in ["t5", "t5v1_1"] {
        let case = Case::open(&folder().join(name));
        let Trunk::T5(model) = case.model() else {
            panic!("a T5")
        };
        let weights = Plain::new(case.tensors());
        let input = &case.batch().ids[..9];
        let greedy = |most, ends: &[u32]| {
            let mut each = |_| true;
            answer(
                &model,
                &weights,
                input,
                most,
                ends,
                Sampling::greedy(),
                &mut each,
            )
            .unwrap()
        };
        let found = greedy(12, &[]);
        assert_eq!(found, case.whole("answer").unwrap(), "{name}");
        let end = found.iter().position(|t| *t == found[3]).unwrap();
        assert_eq!(greedy(12, &found[3..4]), found[..end]);
        let one = |ids: &[u32]| Batch::padded(&[ids.to_vec()], 0).unwrap();
        let encoded = model.encode(&weights, &one(input)).unwrap();
        let mut all = vec![0];
        all.extend(&found[..11]);
        let whole = model
            .decode(&weights, &encoded, None, &one(&all), None)
            .unwrap();
        let likeliest = |row: &[f32]| {
            let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
            best.unwrap() as u32
        };
        let again: Vec<u32> = values(whole.data()).chunks(61).map(likeliest).collect();
        assert_eq!(again, found, "{name}");
    }
}

/// Every architecture learns one batch by heart: random labels for every row of its output.
#[test]
fn one_batch_is_learnt_by_heart() {
    for case in cases() {
        let model = case.model();
        let parameters = Parameters::new(case.tensors()).unwrap();
        let nothing = Plain::default();
        let mut optimiser = Optimiser::new(Rule::adamw(0.0), &parameters);
        optimiser.clip = 1.0;
        let schedule = Schedule {
            rate: 0.02,
            warm: 5,
            steps: 120,
            shape: Shape::Linear,
        };
        let mut losses = Vec::new();
        for step in 0..schedule.steps {
            let weights = Trained {
                parameters: &parameters,
                frozen: &nothing,
                seed: None,
            };
            let out = model.output(&case, &weights).unwrap();
            let classes = *out.dims().last().unwrap();
            let rows = out.data().elem_count() / classes;
            let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % 5 % classes) as u32).collect();
            let loss = ops::cross_entropy(&out, &labels, 0.0).unwrap();
            let mut gradients = parameters.gradients().unwrap();
            loss.backward_into(&mut gradients).unwrap();
            optimiser
                .step(&parameters, &gradients, schedule.at(step + 1))
                .unwrap();
            losses.push(loss.number().unwrap());
        }
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        // Equal inputs with two labels (filling) cannot be told apart.
        let floor = if matches!(model, Trunk::Bert(_)) {
            0.5
        } else {
            0.25
        };
        assert!(last < floor * first, "{}: {first} to {last}", case.name());
    }
}
