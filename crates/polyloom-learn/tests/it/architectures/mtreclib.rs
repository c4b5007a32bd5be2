//! Cases made by MTReclib's models: evaluation by running statistics, training by those of the batch, gradients, and the
//! running statistics after it.

use polyloom_learn::engine::{Parameters, Value, tensor};
use polyloom_learn::models::table::{Config, Front, NormKind, TableModel};
use polyloom_learn::models::{Noted, Plain, Source, is_statistic};
use polyloom_learn::ops::{self, Activation};
use serde_json::{Map, Value as Json, json};

use super::{Case, all, batch, numbers, training};

/// The layers of MTReclib's perceptrons are four apart, with the norm behind: `P.mlp.<4 i>`, `P.mlp.<4 i + 1>`.
fn layer(prefix: &str, rest: &str) -> String {
    let mut words = rest.split('.');
    let kind = words.next().unwrap();
    let i: usize = words.next().unwrap().parse().unwrap();
    let i = 4 * i + usize::from(kind == "norms");
    format!("{prefix}.mlp.{i}.{}", words.next().unwrap())
}

/// The names of theirs, side by side what ours is.
fn theirs(name: &str, experts: usize) -> Vec<String> {
    let words: Vec<&str> = name.split('.').collect();
    let rest = |n: usize| words[n..].join(".");
    let of = |prefix: String, n: usize| vec![layer(&prefix, &rest(n))];
    let many = |prefix: String, n: usize| {
        let one = |e: usize| layer(&format!("{prefix}.{e}"), &rest(n));
        (0..experts).map(one).collect()
    };
    match words.as_slice() {
        ["embedding", ..] => vec![format!("embedding.{name}")],
        ["numbers", part] => vec![format!("numerical_layer.{part}")],
        ["bottom", ..] => of("bottom".to_owned(), 1),
        ["experts", ..] => many("expert".to_owned(), 1),
        ["gate", part] => vec![format!("gate.0.{part}")],
        ["goals", g, "embedding", part] => vec![format!("embedding.{g}.embedding.{part}")],
        ["goals", g, "numbers", part] => vec![format!("numerical_layer.{g}.{part}")],
        ["goals", g, "bottom", ..] => of(format!("bottom.{g}"), 3),
        ["goals", g, "tower", ..] => of(format!("tower.{g}"), 3),
        ["goals", g, "gate", part] => vec![format!("gate.{g}.0.{part}")],
        ["levels", l, "shared", "gate", part] => vec![format!("share_gates.{l}.0.{part}")],
        ["levels", l, "tasks", g, "gate", part] | ["goals", g, "levels", l, "gate", part] => {
            vec![format!("task_gates.{l}.{g}.0.{part}")]
        }
        ["levels", l, "shared", ..] => many(format!("share_experts.{l}"), 3),
        ["levels", l, "tasks", g, ..] | ["goals", g, "levels", l, ..] => {
            many(format!("task_experts.{l}.{g}"), 4)
        }
        ["bottoms", g, ..] => of(format!("bottom.{g}"), 2),
        ["goals", g, "transfer", part] => {
            let before = g.parse::<usize>().unwrap() - 1;
            vec![format!("g.{before}.{part}")]
        }
        ["goals", "1", "attention", which, part] => {
            let number = ["value", "key", "query"].iter().position(|w| w == which);
            vec![format!("h{}.{part}", number.unwrap() + 1)]
        }
        ["heads", g, part] => vec![format!("tower.{g}.mlp.8.{part}")],
        _ => panic!("{name}"),
    }
}

/// Their tensors of a kind (`w`, `grad`, `after`) below each other: ours.
fn stored(case: &Case, kind: &str, name: &str, experts: usize) -> (Vec<usize>, Vec<f64>) {
    let mut shape = Vec::new();
    let mut values = Vec::new();
    for name in theirs(name, experts) {
        let (one, found) = case.tensor("data", &format!("{kind}.{name}"));
        match shape.first_mut() {
            None => shape = one,
            Some(rows) => *rows += one[0],
        }
        values.extend(found);
    }
    (shape, values)
}

fn widths(case: &Case, key: &str) -> Vec<usize> {
    case.numbers(key).iter().map(|x| *x as usize).collect()
}

fn model(case: &Case) -> (TableModel, usize) {
    let architecture = case.told["method"].as_str().unwrap().to_owned();
    let mut options = Map::new();
    let mut experts = case.number("experts") as usize;
    match architecture.as_str() {
        "mmoe" | "omoe" => {
            options.insert("experts".into(), json!(experts));
        }
        "ple" => {
            experts = 2;
            options.insert("shared_experts".into(), json!(2));
            options.insert("task_experts".into(), json!(2));
        }
        _ => {}
    }
    let goals = case.number("tasks") as usize;
    let config = Config {
        architecture,
        goals: (0..goals).map(|g| format!("goal {g}")).collect(),
        numeric: case.number("numerical") as usize,
        categories: widths(case, "fields"),
        embed_dim: case.number("embed_dim") as usize,
        front: Front::Linear,
        hidden: widths(case, "bottom"),
        tower: widths(case, "tower"),
        norm: NormKind::Batch,
        options,
        ..Config::default()
    };
    // What is read is what was written.
    let text: Json = serde_json::to_value(&config).unwrap();
    let config: Config = serde_json::from_value(text).unwrap();
    (TableModel::new(config).unwrap(), experts)
}

/// Scores `[rows]` of every goal: the last layer of their towers.
fn scores(model: &TableModel, weights: &dyn Source, case: &Case) -> Vec<Value> {
    let features = model.forward(weights, &batch(case), all(model)).unwrap();
    let head = |(g, x): (usize, &Value)| weights.linear(&format!("heads.{g}"), x).unwrap();
    features.iter().enumerate().map(head).collect()
}

fn same_outputs(case: &Case, what: &str, scores: &[Value]) {
    let parts: Vec<&Value> = scores.iter().collect();
    let found = ops::activate(&ops::concat(&parts, 1).unwrap(), Activation::Sigmoid).unwrap();
    case.near(what, &numbers(&found), &case.tensor("data", what).1);
}

/// Mean cross-entropy of scores of yes, as that of two classes.
fn loss(case: &Case, goal: usize, scores: &Value) -> Value {
    let (shape, labels) = case.tensor("data", "labels");
    let labels: Vec<u32> = labels
        .iter()
        .skip(goal)
        .step_by(shape[1])
        .map(|y| *y as u32)
        .collect();
    let no = Value::constant(tensor(vec![0.0; labels.len()], (labels.len(), 1)).unwrap());
    let both = ops::concat(&[&no, scores], 1).unwrap();
    ops::cross_entropy(&both, &labels, 0.0).unwrap()
}

pub fn solve(case: &Case) {
    let (model, experts) = model(case);
    let mut names: Vec<String> = model.tensors().iter().map(|t| t.name.clone()).collect();
    for g in all(&model) {
        names.extend(["weight", "bias"].map(|part| format!("heads.{g}.{part}")));
    }
    let tensors: Vec<_> = names
        .iter()
        .map(|name| {
            let (shape, values) = stored(case, "w", name, experts);
            let values = values.iter().map(|x| *x as f32).collect();
            (name.clone(), tensor(values, shape).unwrap())
        })
        .collect();
    let plain = Plain::new(tensors.clone());
    same_outputs(case, "eval_out", &scores(&model, &plain, case));

    let parameters = Parameters::new(tensors).unwrap();
    let noted = Noted::default();
    let source = training(&parameters, &plain, &noted);
    let scores = scores(&model, &source, case);
    same_outputs(case, "train_out", &scores);
    let losses: Vec<Value> = scores
        .iter()
        .enumerate()
        .map(|(g, s)| loss(case, g, s))
        .collect();
    let found: Vec<f64> = losses.iter().flat_map(numbers).collect();
    case.near("task_losses", &found, &case.tensor("data", "task_losses").1);
    let total = losses
        .iter()
        .skip(1)
        .fold(losses[0].clone(), |sum, l| ops::add(&sum, l).unwrap());
    let total = ops::scale(&total, 1.0 / losses.len() as f32).unwrap();
    case.near("loss", &numbers(&total), &case.tensor("data", "loss").1);

    let mut gradients = parameters.gradients().unwrap();
    total.backward_into(&mut gradients).unwrap();
    let flat = parameters.gathered(&gradients).unwrap();
    for p in parameters.iter().filter(|p| !is_statistic(&p.name)) {
        let found: Vec<f64> = flat[p.at.clone()].iter().map(|x| f64::from(*x)).collect();
        let expected = stored(case, "grad", &p.name, experts).1;
        case.near(&format!("grad of {}", p.name), &found, &expected);
    }
    let noted = noted.borrow();
    let mut statistics = 0;
    for name in names.iter().filter(|n| is_statistic(n)) {
        let found: Vec<f64> = noted[name].iter().map(|x| f64::from(*x)).collect();
        let expected = stored(case, "after", name, experts).1;
        case.near(&format!("{name} after"), &found, &expected);
        statistics += 1;
    }
    assert!(statistics >= 8 && statistics == noted.len());
}
