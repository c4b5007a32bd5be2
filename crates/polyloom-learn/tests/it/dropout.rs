//! Dropout inside of whole models.

use std::cell::RefCell;
use std::collections::HashMap;

use polyloom_learn::engine::{Parameters, Value, tensor};
use polyloom_learn::models::lora::{Lora, LowRank};
use polyloom_learn::models::{Plain, Point, Source, Trained};
use polyloom_learn::{Result, ops};
use serde_json::{Value as Json, json};

use super::case::{Case, Trunk, folder, values};
use super::differences;

/// Models and the names of their rates: of the stream, of the probabilities.
const MODELS: [(&str, Option<&str>, Option<&str>); 8] = [
    (
        "bert",
        Some("hidden_dropout_prob"),
        Some("attention_probs_dropout_prob"),
    ),
    ("distilbert", Some("dropout"), Some("attention_dropout")),
    (
        "mpnet",
        Some("hidden_dropout_prob"),
        Some("attention_probs_dropout_prob"),
    ),
    (
        "vit",
        Some("hidden_dropout_prob"),
        Some("attention_probs_dropout_prob"),
    ),
    ("qwen2", None, Some("attention_dropout")),
    ("gemma2", None, Some("attention_dropout")),
    ("t5", Some("dropout_rate"), None),
    ("clip", None, Some("attention_dropout")),
];

/// The case with its rates; CLIP's stand in its towers.
fn model(name: &str, rates: &[(Option<&str>, f32)]) -> (Case, Trunk) {
    let mut case = Case::open(&folder().join(name));
    let mut config: Json = case.config();
    for (key, rate) in rates {
        let Some(key) = key else { continue };
        if name == "clip" {
            config["text_config"][*key] = json!(rate);
            config["vision_config"][*key] = json!(rate);
        } else {
            config[*key] = json!(rate);
        }
    }
    case.changed = Some(config);
    let model = case.model();
    (case, model)
}

/// Weights with a seed of dropout, and what flows by at the points.
struct Watched<'a> {
    base: &'a Plain,
    seed: Option<u64>,
    seen: RefCell<HashMap<Point, Vec<f32>>>,
}

impl<'a> Watched<'a> {
    fn new(base: &'a Plain, seed: Option<u64>) -> Self {
        Self {
            base,
            seed,
            seen: RefCell::default(),
        }
    }
}

impl Source for Watched<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.base.find(name)
    }

    fn dropout(&self) -> Option<u64> {
        self.seed
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.seen.borrow_mut().insert(point, values(x.data()));
        Ok(x)
    }
}

#[test]
fn a_seed_decides_and_without_one_nothing_falls() {
    for (name, hidden, attention) in MODELS {
        let run = |rates: [f32; 2], seed| {
            let (case, model) = model(name, &[(hidden, rates[0]), (attention, rates[1])]);
            let weights = Plain::new(case.tensors());
            let out = model.output(&case, &Watched::new(&weights, seed)).unwrap();
            values(out.data())
        };
        let still = run([0.0, 0.0], None);
        assert_eq!(run([0.0, 0.0], Some(3)), still, "{name}: a rate of 0");
        assert_eq!(run([0.3, 0.3], None), still, "{name}: no seed");
        for rates in [[0.3, 0.0], [0.0, 0.3]] {
            let there = if rates[0] > 0.0 { hidden } else { attention };
            if there.is_none() {
                continue;
            }
            let found = run(rates, Some(3));
            assert_ne!(found, still, "{name}: {rates:?} changes nothing");
            assert_eq!(run(rates, Some(3)), found, "{name}: the same seed");
            assert_ne!(run(rates, Some(4)), found, "{name}: another seed");
        }
        let (case, model) = model(name, &[(hidden, 1.0), (attention, 1.0)]);
        let weights = Plain::new(case.tensors());
        let said = model
            .output(&case, &Watched::new(&weights, Some(1)))
            .unwrap_err();
        assert!(
            said.to_string().contains("of 1, not in 0 to below 1"),
            "{said}"
        );
    }
}

#[test]
fn gradients_are_those_of_the_seed() {
    for (name, hidden, attention) in MODELS {
        let (case, model) = model(name, &[(hidden, 0.2), (attention, 0.2)]);
        let parameters = Parameters::new(case.tensors()).unwrap();
        let nothing = Plain::default();
        let weights = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: Some(12),
        };
        let loss = || model.smooth(&case, &weights);
        // A bias of keys moves nothing, and a row that fell has no gradient.
        let maybe = |name: &str| name.contains(".k") || name.contains("position");
        differences::agree(name, &parameters, &loss, &loss, &maybe);
    }
}

/// Means over many draws beside the undropped value, in standard errors of the mean.
fn farthest(exact: &[f32], draws: &[Vec<f32>]) -> f64 {
    let n = draws.len() as f64;
    let of = |i: usize| {
        let all = || draws.iter().map(|d| f64::from(d[i]));
        let mean = all().sum::<f64>() / n;
        let variance = all().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let apart = (mean - f64::from(exact[i])).abs();
        // An element whose inputs are all 0 stays.
        if apart < 1e-6 {
            0.0
        } else {
            apart / (variance / n).sqrt()
        }
    };
    (0..exact.len()).map(of).fold(0.0, f64::max)
}

#[test]
fn the_mean_over_seeds_is_what_nothing_dropped_gives() {
    let models = [MODELS[0], MODELS[1], MODELS[3]];
    for (name, hidden, attention) in models {
        // What falls in the stream is seen at once, and probabilities act linearly on the attention's output.
        for (key, point) in [(hidden, Point::Embedded), (attention, Point::Attention(0))] {
            let run = |rate: f32, seed| {
                let other = if key == hidden { attention } else { hidden };
                let (case, model) = model(name, &[(key, rate), (other, 0.0)]);
                let weights = Plain::new(case.tensors());
                let watched = Watched::new(&weights, seed);
                model.output(&case, &watched).unwrap();
                watched.seen.into_inner().remove(&point).unwrap()
            };
            let draws: Vec<Vec<f32>> = (0..300).map(|seed| run(0.25, Some(seed))).collect();
            let far = farthest(&run(0.0, None), &draws);
            assert!(far < 5.0, "{name}, {point:?}: {far} standard errors");
        }
    }
}

#[test]
fn places_draw_on_their_own() {
    let points = [
        Point::Embedded,
        Point::Attention(0),
        Point::FeedForward(0),
        Point::Attention(1),
        Point::FeedForward(1),
    ];
    for (name, hidden, attention) in [MODELS[0], MODELS[3], MODELS[6]] {
        let rate = 0.3;
        let (case, model) = model(name, &[(hidden, rate), (attention, 0.0)]);
        let weights = Plain::new(case.tensors());
        let mut fallen: Vec<Vec<bool>> = vec![Vec::new(); points.len() + 1];
        for seed in 0..40 {
            let watched = Watched::new(&weights, Some(seed));
            model.output(&case, &watched).unwrap();
            let seen = watched.seen.into_inner();
            for (point, fallen) in points.iter().zip(&mut fallen) {
                fallen.extend(seen[point].iter().map(|x| *x == 0.0));
            }
            // The next step's first place beside this one's.
            let watched = Watched::new(&weights, Some(seed + 1));
            model.output(&case, &watched).unwrap();
            let seen = &watched.seen.borrow()[&points[0]];
            fallen[points.len()].extend(seen.iter().map(|x| *x == 0.0));
        }
        let n = fallen[0].len() as f64;
        let rate = f64::from(rate);
        let four = |p: f64| 4.0 * (p * (1.0 - p) / n).sqrt();
        for (i, a) in fallen.iter().enumerate() {
            let share = a.iter().filter(|f| **f).count() as f64 / n;
            assert!(
                (share - rate).abs() < four(rate),
                "{name}, place {i}: {share}"
            );
            for (j, b) in fallen.iter().enumerate().skip(i + 1) {
                let alike = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / n;
                let wanted = rate * rate + (1.0 - rate) * (1.0 - rate);
                assert!(
                    (alike - wanted).abs() < four(wanted),
                    "{name}, places {i} and {j}: {alike}"
                );
            }
        }
    }
}

#[test]
fn low_rank_parts_drop_their_input() {
    let on = |n: usize, k: f32, shape: &[usize]| {
        tensor((0..n).map(|i| (i as f32 * k).sin()).collect(), shape).unwrap()
    };
    let base = Plain::new([
        ("one.weight".to_owned(), on(60, 0.3, &[6, 10])),
        ("two.weight".to_owned(), on(60, 0.3, &[6, 10])),
    ]);
    let x = Value::constant(on(40, 0.9, &[4, 10]));
    for magnitude in [None, Some(Value::constant(on(6, 2.1, &[6])))] {
        let part = LowRank {
            a: Value::constant(on(30, 1.7, &[3, 10])),
            b: Value::constant(on(18, 1.1, &[6, 3])),
            scale: 0.5,
            magnitude,
        };
        let modules = ["one", "two"].map(|name| (name.to_owned(), part.clone()));
        let modules = HashMap::from(modules);
        let run = |name: &str, dropout: f32, seed| {
            let watched = Watched::new(&base, seed);
            let source = Lora {
                base: &watched,
                modules: modules.clone(),
                dropout,
            };
            values(source.linear(name, &x).unwrap().data())
        };
        let exact = run("one", 0.0, None);
        assert_eq!(run("one", 0.25, None), exact);
        assert_eq!(run("one", 0.0, Some(1)), exact);
        assert_eq!(run("two", 0.0, Some(1)), exact);
        assert_eq!(run("one", 0.25, Some(1)), run("one", 0.25, Some(1)));
        // Modules of the same factors draw on their own.
        assert_ne!(run("one", 0.25, Some(1)), run("two", 0.25, Some(1)));
        let draws: Vec<Vec<f32>> = (0..400).map(|seed| run("one", 0.25, Some(seed))).collect();
        let far = farthest(&exact, &draws);
        assert!(far < 4.0, "{far} standard errors");
    }
    // A rate that nothing survives is refused.
    let source = Watched::new(&base, Some(1));
    assert!(source.dropped(x.clone(), 1.0, 0).is_err());
    assert!(ops::dropout(&x, -0.1, 0).is_err());
}
