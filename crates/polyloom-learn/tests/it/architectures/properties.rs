//! What holds for every architecture of the registry.

use std::sync::Arc;

use polyloom::evaluate::board::score::sessions::Step;
use polyloom_core::rng::Stream;
use polyloom_learn::engine::{Parameters, Value, tensor};
use polyloom_learn::models::fresh::fresh;
use polyloom_learn::models::table::{
    Before, Config, Front, Golden, MODEL_TYPE, NormKind, Past, TableBatch, TableModel,
    architectures,
};
use polyloom_learn::models::{Noted, Plain, Source, Trained, is_statistic};
use polyloom_learn::ops;
use polyloom_learn::train::trainee::Trainee;
use polyloom_learn::train::{Optimiser, Rule};
use serde_json::{Value as Json, json};

use super::{all, numbers, training};
use crate::differences::agree;

/// Two small configurations of every architecture of single rows: plain, and with other norms, fronts and depths.
pub fn configs() -> Vec<Json> {
    let mut found = Vec::new();
    for architecture in architectures().filter(|a| !a.reads_sessions()) {
        let spec = architecture.spec();
        let mut plain = json!({
            "model_type": MODEL_TYPE, "architecture": spec.name, "goals": ["a", "b/x", "b/y"], "numeric": 2,
            "categories": [3, 4], "embed_dim": 4,
        });
        let mut rich = plain.clone();
        for key in spec.uses {
            let (small, other) = match key.word() {
                "hidden" => (json!([5, 6]), json!([6])),
                "tower" => (json!([3]), json!([])),
                "norm" => (json!("none"), json!("layer")),
                "dropout" => (json!(0.0), json!(0.3)),
                "activation" => (json!("tanh"), json!("gelu")),
                "modalities" => (
                    json!([
                        {"name": "u", "numbers": [0], "fields": [1]}, {"name": "v", "fields": [0], "marks": [1]},
                    ]),
                    json!([{"name": "all", "numbers": [1, 0], "fields": [0, 1]}]),
                ),
                // Of two fields in turn, both before they are in the row.
                "history" => (json!([]), json!([1, 0])),
                _ => (json!("raw"), json!("linear")),
            };
            (plain[key.word()], rich[key.word()]) = (small, other);
        }
        for (config, rest) in [plain, rich].iter_mut().zip(own(spec.name)) {
            for (key, value) in rest.as_object().unwrap() {
                config[key] = value.clone();
            }
            found.push(config.clone());
        }
    }
    found
}

/// What the two configurations of an architecture say beside that.
fn own(name: &str) -> [Json; 2] {
    match name {
        "mmoe" | "omoe" => [json!({"experts": 3}), json!({"experts": 2})],
        // Wide enough that no goal has nothing but dead units.
        "dtrn" => [
            json!({"experts": 3, "reduction": 1, "categories": [3, 4, 3, 4]}),
            json!({"experts": 2, "reduction": 1, "categories": [3, 4, 3], "rank": 3, "hyper": 5, "last": 2}),
        ],
        "ple" => [
            json!({"hidden": [5, 4, 6], "shared_experts": 2, "task_experts": 1}),
            json!({"hidden": [5, 6], "levels": 1, "shared_experts": 1, "task_experts": 2}),
        ],
        "cross_stitch" => [json!({}), json!({"hidden": [4, 3], "channels": true})],
        "home" => [
            json!({"groups": ["u", "v", "u"]}),
            json!({"hidden": [4, 3, 5, 6], "experts": 1, "rank": 1, "parts": 3}),
        ],
        "multitab" => [
            json!({"blocks": 2, "ff": 5}),
            json!({"ff": 6, "heads": 2, "mask": "FxT_TxT", "attention": "row_col"}),
        ],
        "dselect_k" => [
            json!({"experts": 3, "gamma": 4.0}),
            json!({"experts": 4, "selectors": 3, "gamma": 6.0}),
        ],
        "apem" => [
            json!({"patterns": 3, "inducing": 2, "indicator": 2, "reduction": 1}),
            json!({"inducing": 3, "indicator": 1, "reduction": 1}),
        ],
        "multimodn" => [json!({"state": 4}), json!({"state": 3})],
        "task_expert" => [
            json!({"hidden": [5, 5], "experts": 2}),
            json!({"experts": 1}),
        ],
        _ => [json!({}), json!({})],
    }
}

pub fn made(config: &Json) -> (TableModel, Plain) {
    let parsed: Config = serde_json::from_value(config.clone()).unwrap();
    let model = TableModel::new(parsed).unwrap_or_else(|e| panic!("{config}: {e}"));
    let made = fresh(config, 3).unwrap();
    let tensors = made.into_iter().map(|(name, shape, mut values)| {
        // Biases, embeddings and tokens that move something.
        let s = Stream::new(9, &name, 0);
        for (i, v) in values.iter_mut().enumerate() {
            *v += 0.2 * s.normal(i as u64);
        }
        if name.ends_with("running_var") {
            values.iter_mut().for_each(|v| *v = v.abs() + 0.1);
        }
        (name, tensor(values, shape).unwrap())
    });
    (model, Plain::new(tensors))
}

/// One session of all rows: each sees those before it, the first one none.
fn before(config: &Config, n: usize) -> Vec<Before> {
    if config.history.is_empty() {
        return Vec::new();
    }
    let code = |item: usize, field: &usize| (item * 5 % config.categories[*field]) as u32;
    let item = |item: usize| config.history.iter().map(move |f| code(item, f));
    let past = Arc::new(Past {
        codes: (0..n).flat_map(item).collect(),
        steps: (0..n as u32)
            .map(|item| Step {
                item,
                taken: item % 3 == 1,
            })
            .collect(),
    });
    let one = |row| Before {
        past: past.clone(),
        steps: 0..row,
    };
    (0..n).map(one).collect()
}

pub fn rows(model: &TableModel, n: usize) -> TableBatch {
    let c = &model.config;
    let s = Stream::new(4, "rows", 0);
    let numbers = (0..(n * c.numeric) as u64).map(|i| s.normal(i)).collect();
    let fields = c.categories.len();
    let code = |i: usize| (i * 7 % 5 % c.categories[i % fields]) as u32;
    TableBatch {
        rows: n,
        numbers: Value::constant(tensor(numbers, (n, c.numeric)).unwrap()),
        codes: (0..n * fields).map(code).collect(),
        before: before(c, n),
    }
}

#[test]
fn a_range_of_goals_is_a_part_of_all() {
    for config in configs() {
        let (model, weights) = made(&config);
        let batch = rows(&model, 7);
        let whole = model.forward(&weights, &batch, all(&model)).unwrap();
        assert_eq!(whole.len(), 3);
        for (g, one) in whole.iter().enumerate() {
            assert_eq!(one.dims(), [7, model.width()], "{config}");
            let alone = model.forward(&weights, &batch, g..g + 1).unwrap();
            assert_eq!(numbers(&alone[0]), numbers(one), "{config}, goal {g}");
        }
        let two = model.forward(&weights, &batch, 1..3).unwrap();
        assert_eq!(numbers(&two[1]), numbers(&whole[2]), "{config}");
    }
}

/// Rows of groups with goals of their own: each gets what a pass over all rows has for it, by the goal of its group.
#[test]
fn rows_of_a_group_are_those_of_its_goal() {
    for config in configs() {
        let (model, weights) = made(&config);
        let batch = rows(&model, 7);
        let whole = model.forward(&weights, &batch, all(&model)).unwrap();
        let width = model.width();
        // Also where a group has no row.
        for of in [[2, 0, 1, 1, 0, 2, 0], [2, 0, 0, 2, 2, 0, 0]] {
            let own = model.forward_own(&weights, &batch, &of, 3).unwrap();
            assert_eq!((own.len(), own[0].dims()), (1, &[7, width][..]), "{config}");
            let own = numbers(&own[0]);
            for (row, group) in of.iter().enumerate() {
                let expected = &numbers(&whole[*group as usize])[row * width..][..width];
                let found = &own[row * width..][..width];
                let same = found
                    .iter()
                    .zip(expected)
                    .all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(same, "{config}, row {row}: {found:?} {expected:?}");
            }
        }
        // One group and three targets.
        let three = model.forward_own(&weights, &batch, &[0; 7], 1).unwrap();
        assert_eq!(three.len(), 3);
        assert_eq!(numbers(&three[2]), numbers(&whole[2]), "{config}");
        for (of, groups) in [
            (vec![0; 6], 3),
            (vec![3; 7], 3),
            (vec![0; 7], 2),
            (vec![0; 7], 0),
        ] {
            assert!(model.forward_own(&weights, &batch, &of, groups).is_err());
        }
    }
}

/// A number that every element of some features moves; small, so that its last digit is small beside its differences.
fn smooth(features: &[Value]) -> Value {
    let mut total: Option<Value> = None;
    for x in features {
        let n = x.data().elem_count();
        let mix = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        let mix = Value::constant(tensor(mix, x.dims()).unwrap());
        let one = ops::mean(&ops::mul(&ops::mul(x, x).unwrap(), &mix).unwrap()).unwrap();
        let one = ops::add(&one, &ops::mean(&ops::mul(x, &mix).unwrap()).unwrap()).unwrap();
        total = Some(match total {
            Some(sum) => ops::add(&sum, &one).unwrap(),
            None => one,
        });
    }
    ops::scale(&total.unwrap(), 0.3).unwrap()
}

#[test]
fn gradients_are_those_of_differences() {
    for mut config in configs() {
        if config["dropout"] != json!(null) {
            config["dropout"] = json!(0.0);
        }
        let (model, weights) = made(&config);
        let tensors = weights.iter().map(|(n, t)| (n.to_owned(), t.clone()));
        let mut tensors: Vec<_> = tensors.collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let parameters = Parameters::new(tensors).unwrap();
        let nothing = Plain::default();
        let source = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: None,
        };
        let batch = rows(&model, 6);
        let loss = || smooth(&model.forward(&source, &batch, all(&model)).unwrap());
        // A bias of keys moves all scores of a query alike.
        let none = |name: &str| name.starts_with("blocks.") && name.ends_with("key.bias");
        agree(&config.to_string(), &parameters, &loss, &loss, &none);
    }
}

/// Tensors named `goals.<g>.` are of one goal alone, all others of several.
#[test]
fn names_say_whose_a_tensor_is() {
    for config in configs() {
        let (model, weights) = made(&config);
        let mut tensors: Vec<_> = weights
            .iter()
            .map(|(n, t)| (n.to_owned(), t.clone()))
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let parameters = Parameters::new(tensors).unwrap();
        let nothing = Plain::default();
        let source = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: None,
        };
        let batch = rows(&model, 6);
        let mut users = vec![0; parameters.iter().count()];
        for g in all(&model) {
            let features = model.forward(&source, &batch, g..g + 1).unwrap();
            let mut gradients = parameters.gradients().unwrap();
            smooth(&features).backward_into(&mut gradients).unwrap();
            for (i, p) in parameters.iter().enumerate() {
                let reached = gradients.get(&p.value).is_some();
                users[i] += usize::from(reached);
                if let Some(rest) = p.name.strip_prefix("goals.") {
                    let owner = rest.split('.').next().unwrap();
                    let own = owner == g.to_string();
                    assert_eq!(reached, own, "{config}: {} by goal {g}", p.name);
                }
            }
        }
        for (p, n) in parameters.iter().zip(users) {
            assert_eq!(TableModel::is_own(&p.name), n == 1, "{config}: {}", p.name);
        }
    }
}

#[test]
fn batch_norms_in_training() {
    for architecture in architectures() {
        let spec = architecture.spec();
        let Some(mut config) = configs()
            .into_iter()
            .find(|c| c["architecture"] == spec.name)
        else {
            continue;
        };
        if !spec.uses.iter().any(|u| u.word() == "norm") {
            continue;
        }
        config["norm"] = json!("batch");
        let (model, weights) = made(&config);
        let batch = rows(&model, 6);
        let all_tensors = weights.iter().map(|(n, t)| (n.to_owned(), t.clone()));
        let parameters = Parameters::new(all_tensors).unwrap();
        let (nothing, noted) = (Plain::default(), Noted::default());
        let source = training(&parameters, &nothing, &noted);
        model.forward(&source, &batch, all(&model)).unwrap();
        for t in model.tensors().iter() {
            let told = noted.borrow().get(&t.name).map(Vec::len);
            let expected = is_statistic(&t.name).then(|| t.shape[0]);
            assert_eq!(told, expected, "{}", t.name);
        }
        assert!(!noted.borrow().is_empty());
        // Who does not keep them is told so.
        let careless = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: Some(1),
        };
        let refused = model.forward(&careless, &batch, all(&model)).unwrap_err();
        assert!(
            refused.to_string().contains("keeps no running values"),
            "{refused}"
        );
    }
}

/// A norm that is passed twice in a step, as those of `dtrn` are for every goal, has seen both: means 1 and 6, variances (one row
/// less) 2 and 8, a tenth of each.
#[test]
fn a_norm_that_is_passed_twice_has_seen_both() {
    let t = |part: &str, x: f32| (format!("n.{part}"), tensor(vec![x], 1).unwrap());
    let all = [
        t("weight", 1.0),
        t("bias", 0.0),
        t("running_mean", 0.0),
        t("running_var", 1.0),
    ];
    let parameters = Parameters::new(all.to_vec()).unwrap();
    let (nothing, noted) = (Plain::default(), Noted::default());
    let source = training(&parameters, &nothing, &noted);
    for rows in [vec![0.0, 2.0], vec![4.0, 8.0]] {
        let x = Value::constant(tensor(rows, (2, 1)).unwrap());
        source.batch_norm("n", &x, 0.0).unwrap();
    }
    let noted = noted.borrow();
    let near = |name: &str, due: f32| (noted[name][0] - due).abs() < 1e-6;
    assert!(near("n.running_mean", 0.69), "{noted:?}");
    assert!(near("n.running_var", 1.79), "{noted:?}");
}

/// Steps of training with batch norms and decay: running values are those of the batches, whatever the optimiser does, and
/// inference is by them.
#[test]
fn running_statistics_are_kept_over_steps() {
    let config = json!({
        "model_type": MODEL_TYPE, "architecture": "mmoe", "goals": ["a", "b"], "numeric": 3, "categories": [5],
        "embed_dim": 4, "hidden": [8, 6], "tower": [4], "norm": "batch", "experts": 3,
    });
    let (model, weights) = made(&config);
    let batch = rows(&model, 32);
    let tensors = weights.iter().map(|(n, t)| (n.to_owned(), t.clone()));
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let trainee =
        Trainee::over_weights(weights.clone(), Parameters::new(tensors).unwrap(), None).unwrap();
    let mut optimiser = Optimiser::new(Rule::adamw(0.5), &trainee.parameters);
    let statistic = |name: &str| {
        let p = trainee.parameters.get(name).unwrap();
        trainee.parameters.weights().unwrap()[p.at.clone()].to_vec()
    };
    let name = "experts.norms.0.running_var";
    let mut expected = statistic(name);
    let mut losses = Vec::new();
    for step in 0..30u64 {
        // Only the first goal on even steps: the tower of the other stays as it is.
        let goals = if step % 2 == 0 { 0..1 } else { 0..2 };
        let still = statistic("goals.1.tower.norms.0.running_mean");
        let loss = trainee
            .with(Some(step), |w| {
                Ok(smooth(&model.forward(w, &batch, goals.clone())?))
            })
            .unwrap();
        let mut gradients = trainee.parameters.gradients().unwrap();
        loss.backward_into(&mut gradients).unwrap();
        optimiser
            .step(&trainee.parameters, &gradients, 0.01)
            .unwrap();
        trainee.settle().unwrap();
        losses.push(loss.number().unwrap());
        if goals.len() == 1 {
            assert_eq!(still, statistic("goals.1.tower.norms.0.running_mean"));
        }
        if step == 0 {
            // The first layer's variances of this batch, over one row less.
            let x = weights_of_first_layer(&model, &weights, &batch);
            for (i, value) in expected.iter_mut().enumerate() {
                let column: Vec<f64> = x.iter().skip(i).step_by(24).copied().collect();
                let mean = column.iter().sum::<f64>() / 32.0;
                let squares = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 31.0;
                *value = 0.9 * *value + 0.1 * squares as f32;
            }
            for (a, b) in statistic(name).iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4 * (1.0 + b), "{a} and {b}");
            }
        }
    }
    assert!(losses[29] < losses[1], "{losses:?}");
    // Weights read back from a checkpoint bring their own.
    trainee.parameters.update(|w, _| w.fill(0.25)).unwrap();
    trainee.recall().unwrap();
    trainee.settle().unwrap();
    assert_eq!(statistic(name), [0.25; 24]);
    let features = trainee.with(None, |w| model.forward(w, &batch, 0..2));
    assert_eq!(features.unwrap()[0].dims(), [32, 4]);
}

fn weights_of_first_layer(model: &TableModel, weights: &Plain, batch: &TableBatch) -> Vec<f64> {
    let ids: Vec<u32> = batch.codes.clone();
    let table = weights.tensor("embedding.weight").unwrap();
    let vectors = ops::embedding(&table, &ids, &[batch.rows]).unwrap();
    let x = ops::concat(&[&vectors, &batch.numbers], 1).unwrap();
    assert_eq!(model.config.hidden[0] * 3, 24);
    numbers(&weights.linear("experts.layers.0", &x).unwrap())
}

#[test]
fn every_entry_has_its_page() {
    let mut names = Vec::new();
    for architecture in architectures() {
        let s = architecture.spec();
        for text in [s.name, s.summary, s.source, s.formula] {
            assert!(!text.is_empty(), "{}", s.name);
        }
        if let Golden::None(why) = s.golden {
            assert!(!why.is_empty(), "{}", s.name);
        }
        for p in s.params {
            assert!(p.doc.ends_with('.'), "{}: {}", s.name, p.name);
        }
        assert!(!names.contains(&s.name), "{} twice", s.name);
        names.push(s.name);
    }
}

#[test]
fn dropout_is_that_of_its_place() {
    let config = json!({
        "model_type": MODEL_TYPE, "architecture": "mmoe", "goals": ["a", "b"], "numeric": 3, "hidden": [32],
        "tower": [32], "dropout": 0.5,
    });
    let (model, weights) = made(&config);
    let batch = rows(&model, 8);
    let parameters = Parameters::new([]).unwrap();
    let run = |seed, goals| {
        let source = Trained {
            parameters: &parameters,
            frozen: &weights,
            seed,
        };
        let found = model.forward(&source, &batch, goals).unwrap();
        numbers(found.last().unwrap())
    };
    // The same whether the other goal is computed or not; another seed, another draw; none in inference.
    assert_eq!(run(Some(1), 0..2), run(Some(1), 1..2));
    assert_ne!(run(Some(1), 0..2), run(Some(2), 0..2));
    assert_ne!(run(None, 0..2), run(Some(1), 0..2));
}

#[test]
fn norms_and_fronts_are_words() {
    let config: Config = serde_json::from_value(json!({
        "architecture": "mmoe", "goals": ["a"], "numeric": 1, "norm": "layer", "front": "linear", "experts": 2,
    }))
    .unwrap();
    assert_eq!(
        (config.norm, config.front),
        (NormKind::Layer, Front::Linear)
    );
    assert_eq!(config.hidden, [256, 128]);
    assert_eq!(config.options["experts"], json!(2));
    let wrong = json!({"architecture": "mmoe", "goals": ["a"], "norm": "group"});
    let said = serde_json::from_value::<Config>(wrong).unwrap_err();
    assert!(said.to_string().contains("unknown variant `group`"));
}
