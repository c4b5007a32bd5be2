//! Learned coefficients: the peers' vectors, and what must hold of them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use polyloom::evaluate::board::score::examples::Wanted;
use polyloom_core::Checkpoint;
use polyloom_learn::engine::{Parameters, Tensor, Value, slice, tensor};
use polyloom_learn::models::{Plain, Source};
use polyloom_learn::ops::{self, Activation};
use polyloom_learn::train::Schedule;
use polyloom_learn::train::contrast::contrast;
use polyloom_learn::train::schedule::Shape;
use polyloom_learn::tune::learn::{Progress, Settings, learn};
use polyloom_learn::tune::recipe::Per;
use polyloom_learn::tune::vectors::{Expert, Vectors};
use polyloom_learn::tune::{Coefficients, Form};
use serde_json::Value as Json;

const LAYERS: [&str; 4] = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];

fn all(file: &Path) -> HashMap<String, Tensor> {
    let open = Checkpoint::open(file).unwrap();
    let one = |(name, t): (&String, &polyloom_core::checkpoint::StoredTensor)| {
        let values = open.read_all(t).unwrap();
        (name.clone(), tensor(values, t.shape.clone()).unwrap())
    };
    open.tensors().iter().map(one).collect()
}

fn numbers(t: &Tensor) -> Vec<f32> {
    slice(t).unwrap().to_vec()
}

/// The toy encoder of the vectors: two layers (with ReLUs there), a head without bias per task.
fn scores(source: &dyn Source, x: &Tensor, head: &Tensor, kind: Activation) -> Value {
    let x = Value::constant(x.clone());
    let h = ops::activate(&source.linear("fc1", &x).unwrap(), kind).unwrap();
    let f = ops::activate(&source.linear("fc2", &h).unwrap(), kind).unwrap();
    ops::linear(&f, &Value::constant(head.clone()), None).unwrap()
}

/// Every vector of golden/merging that learns coefficients: the raw numbers after some steps, and the losses.
#[test]
fn golden_learned_coefficients() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/merging");
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&text).unwrap();
    let mut ran = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let method = case["canonical"]["method"].as_str().unwrap_or("");
        if !["adamerging", "atlas"].contains(&method) {
            continue;
        }
        let name = case["name"].as_str().unwrap();
        let params = &case["canonical"]["params"];
        let number = |key: &str, usual: f64| params[key].as_f64().unwrap_or(usual);
        let held = all(&root.join(case["expected"].as_str().unwrap()));
        let tasks = (0..)
            .take_while(|t| held.contains_key(&format!("x{t}")))
            .count();
        let of = |prefix: &str| -> Vec<(String, Tensor)> {
            let one = |layer: &&str| {
                (
                    (*layer).to_owned(),
                    held[&format!("{prefix}.{layer}")].clone(),
                )
            };
            LAYERS.iter().map(one).collect()
        };
        let base = Plain::new(of("base"));
        let experts = (0..tasks)
            .map(|t| {
                Expert::Held(
                    format!("ft{t}"),
                    of(&format!("ft{t}")).into_iter().collect(),
                )
            })
            .collect();
        let per = match params["per"].as_str().unwrap() {
            "task" => Per::Task,
            _ => Per::Tensor,
        };
        let names = LAYERS.map(str::to_owned);
        let vectors = Vectors::new(&base, &names, experts, (per, 1), 0).unwrap();
        let merged = Parameters::new(of("base")).unwrap();
        let settings = Settings {
            schedule: Schedule {
                rate: number("lr", 1e-3) as f32,
                warm: 0,
                steps: number("steps", 0.0) as u32,
                shape: Shape::Constant,
            },
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay: number("weight_decay", 0.0) as f32,
            clip: number("grad_clip", 0.0),
            penalty: (0.0, 1.0),
        };
        let mut c = Coefficients::new(
            vectors.rows(),
            tasks,
            number("init", 0.0) as f32,
            match params["clamp"].as_bool() {
                Some(true) => Form::Clamped,
                _ => Form::Free,
            },
        );
        let labels: Vec<Option<Vec<u32>>> = (0..tasks)
            .map(|t| {
                let y = held.get(&format!("y{t}"))?;
                Some(numbers(y).iter().map(|x| *x as u32).collect())
            })
            .collect();
        let tolerance = (
            case["tolerance"]["rtol"].as_f64().unwrap(),
            case["tolerance"]["atol"].as_f64().unwrap(),
        );
        let near =
            |got: f64, want: f64| (got - want).abs() <= tolerance.1 + tolerance.0 * want.abs();
        let losses = numbers(&held["losses"]);
        let mut objective = |source: &dyn Source, _: u32| {
            let (mut whole, mut each): (Option<Value>, Vec<f64>) = (None, Vec::new());
            for t in 0..tasks {
                let said = scores(
                    source,
                    &held[&format!("x{t}")],
                    &held[&format!("head{t}")],
                    Activation::Relu,
                );
                let value = match &labels[t] {
                    Some(labels) if method == "atlas" => ops::cross_entropy(&said, labels, 0.0)?,
                    _ => ops::entropy(&said)?,
                };
                each.push(f64::from(value.number()?));
                whole = Some(match whole {
                    Some(sum) => ops::add(&sum, &value)?,
                    None => value,
                });
            }
            Ok((whole.unwrap(), each))
        };
        let mut records = 0;
        let mut progress = Progress::new(c.raw.len());
        learn(
            &settings,
            &vectors,
            &merged,
            &base,
            &mut c,
            &mut progress,
            &mut objective,
            &mut |step, now, _| {
                let want = f64::from(losses[step.step as usize - 1]);
                assert!(
                    near(step.loss, want),
                    "{name} step {}: loss {} not {want}",
                    step.step,
                    step.loss
                );
                if let Some(want) = held.get(&format!("coef.step{}", step.step)) {
                    records += 1;
                    // The vectors hold them by task, then by tensor.
                    let (want, rows) = (numbers(want), now.rows());
                    for (i, got) in now.raw.iter().enumerate() {
                        let (row, t) = (i / tasks, i % tasks);
                        let want = f64::from(want[t * rows + row]);
                        assert!(
                            near(f64::from(*got), want),
                            "{name} step {}, task {t}, row {row}: {got} not {want}",
                            step.step
                        );
                    }
                }
                true
            },
        )
        .unwrap();
        assert!(records >= 3, "{name}: {records} records");
        ran += 1;
    }
    assert_eq!(ran, 3);
}

/// The gradient of every coefficient is what differences say, whatever groups there are.
#[test]
fn gradients_of_coefficients_are_those_of_differences() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/merging");
    let held = all(&root.join("expected/adamerging_layer.safetensors"));
    let of = |prefix: &str| -> Vec<(String, Tensor)> {
        let one = |layer: &&str| {
            (
                (*layer).to_owned(),
                held[&format!("{prefix}.{layer}")].clone(),
            )
        };
        LAYERS.iter().map(one).collect()
    };
    let base = Plain::new(of("base"));
    // Differences across the kinks of a ReLU say nothing.
    let smooth = Activation::named("gelu").unwrap();
    for (per, groups) in [(Per::Task, 1), (Per::Tensor, 1), (Per::Tensor, 3)] {
        let experts = (0..2)
            .map(|t| {
                Expert::Held(
                    format!("ft{t}"),
                    of(&format!("ft{t}")).into_iter().collect(),
                )
            })
            .collect();
        let names = LAYERS.map(str::to_owned);
        let vectors = Vectors::new(&base, &names, experts, (per, groups), 5).unwrap();
        let merged = Parameters::new(of("base")).unwrap();
        let n = vectors.rows() * 2;
        let c: Vec<f32> = (0..n).map(|i| 0.2 + 0.05 * (i % 5) as f32).collect();
        let loss = |c: &[f32]| {
            merged.update(|w, _| vectors.merge(c, w).unwrap()).unwrap();
            let source = polyloom_learn::models::Trained {
                parameters: &merged,
                frozen: &base,
                seed: None,
            };
            ops::entropy(&scores(&source, &held["x0"], &held["head0"], smooth)).unwrap()
        };
        let mut found = merged.gradients().unwrap();
        loss(&c).backward_into(&mut found).unwrap();
        let gradients = vectors
            .gradients(&merged.gathered(&found).unwrap())
            .unwrap();
        for i in 0..n {
            let at = |by: f32| {
                let mut c = c.clone();
                c[i] += by;
                f64::from(loss(&c).number().unwrap())
            };
            let by = 5e-3;
            let difference = (at(by) - at(-by)) / (2.0 * f64::from(by));
            let got = f64::from(gradients[i]);
            assert!(
                (got - difference).abs() < 2e-3 * (1.0 + got.abs()),
                "{per:?} x {groups}, {i}: {got} and {difference}"
            );
        }
    }
}

/// Self Positioning on planted experts: the base maps every query onto the wrong document, one expert undoes that, the other
/// one makes it worse. The search goes to the first, and its length stays positive.
#[test]
fn a_planted_position_is_found() {
    let n = 6;
    let square = |of: &dyn Fn(usize, usize) -> f32| -> Tensor {
        let values = (0..n * n).map(|i| of(i / n, i % n)).collect();
        tensor(values, (n, n)).unwrap()
    };
    let same = |i: usize, j: usize| f32::from(u8::from(i == j));
    let shifted = |i: usize, j: usize| f32::from(u8::from((i + 1) % n == j));
    let of = |t: Tensor| HashMap::from([("fc.weight".to_owned(), t)]);
    let base = Plain::new(of(square(&shifted)));
    let experts = vec![
        Expert::Held("right".into(), of(square(&same))),
        Expert::Held("wrong".into(), of(square(&|i, j| 2.0 * shifted(i, j)))),
    ];
    let names = ["fc.weight".to_owned()];
    let vectors = Vectors::new(&base, &names, experts, (Per::Task, 1), 0).unwrap();
    let merged = Parameters::new(vec![("fc.weight".to_owned(), square(&shifted))]).unwrap();
    let texts = square(&|i, j| same(i, j) + 0.1 * ((i * 5 + j * 3) % 7) as f32 / 7.0);
    let wanted: Vec<Wanted> = (0..n as u32)
        .map(|document| Wanted::Relevant {
            document,
            all: Arc::new(vec![document]),
        })
        .collect();
    let wanted: Vec<Option<&Wanted>> = wanted.iter().map(Some).collect();
    let settings = Settings {
        schedule: Schedule {
            rate: 0.05,
            warm: 0,
            steps: 150,
            shape: Shape::Constant,
        },
        betas: [0.9, 0.999],
        eps: 1e-8,
        decay: 0.0,
        clip: 0.0,
        penalty: (0.0, 1.0),
    };
    let mut c = Coefficients::new(1, 2, 0.3, Form::Position);
    let mut losses = Vec::new();
    let mut lengths = Vec::new();
    learn(
        &settings,
        &vectors,
        &merged,
        &base,
        &mut c,
        &mut Progress::new(3),
        &mut |source, _| {
            let x = Value::constant(texts.clone());
            let queries = ops::unit_length(&source.linear("fc", &x)?)?;
            let pairs = ops::concat(&[&queries, &ops::unit_length(&x)?], 1)?;
            let (loss, _) = contrast(&pairs, &wanted, 0.2)?.unwrap();
            let number = f64::from(loss.number()?);
            Ok((loss, vec![number]))
        },
        &mut |step, now, _| {
            losses.push(step.loss);
            lengths.push(now.acting().iter().sum::<f32>());
            true
        },
    )
    .unwrap();
    // mu is the sum of the coefficients.
    assert!(lengths.iter().all(|mu| *mu > 0.0), "{lengths:?}");
    let acting = c.acting();
    assert!(acting[0] > 0.8 && acting[1] < 0.1 * acting[0], "{acting:?}");
    assert!(losses.last().unwrap() < &(0.5 * losses[0]), "{losses:?}");
}
