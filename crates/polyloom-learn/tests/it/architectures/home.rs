//! HoME: the whole model over numbers, norms over the batch.

use polyloom_learn::engine::{Parameters, Tensor, tensor};
use polyloom_learn::models::table::Declared;
use polyloom_learn::models::{Noted, Plain, is_statistic};
use serde_json::json;

use super::layers::{model, of_numbers};
use super::{Case, all, numbers, training, value};

/// The node of the vectors, and what is left of the name.
fn node(name: &str) -> (String, String) {
    let words: Vec<&str> = name.split('.').collect();
    let rest = |n: usize| words[n..].join(".");
    match words.as_slice() {
        ["meta", "shared", ..] => ("meta.shared".to_owned(), rest(2)),
        ["meta", g, ..] => (format!("meta.g{g}"), rest(2)),
        ["shared", ..] => ("task.shared".to_owned(), rest(1)),
        ["groups", "0", "meta", ..] => ("meta.g0".to_owned(), rest(3)),
        ["groups", "0", "group", ..] => ("task.g0".to_owned(), rest(3)),
        // The second group is of the third goal alone.
        ["goals", "2", "meta", ..] => ("meta.g1".to_owned(), rest(3)),
        ["goals", "2", "group", ..] => ("task.g1".to_owned(), rest(3)),
        ["goals", t, "own", ..] => (format!("task.t{t}"), rest(3)),
        ["goals", t, ..] => (format!("task.t{t}"), rest(2)),
        _ => panic!("{name}"),
    }
}

fn transposed(case: &Case, name: &str) -> Vec<f64> {
    let (shape, values) = case.tensor("data", name);
    let (rows, columns) = (shape[0], shape[1]);
    (0..rows * columns)
        .map(|i| values[i % rows * columns + i / rows])
        .collect()
}

fn weights(case: &Case, declared: &Declared) -> (String, Tensor) {
    let (node, rest) = node(&declared.name);
    let plain = |name: String| case.tensor("data", &name).1;
    let both = |of: &dyn Fn(usize) -> String| [of(0), of(1)].into_iter().flat_map(plain).collect();
    let values: Vec<f64> = match rest.as_str() {
        "fea.down.weight" => [0, 1]
            .iter()
            .flat_map(|l| transposed(case, &format!("w.{node}.fea.A{l}")))
            .collect(),
        "fea.up.weight" => [0, 1]
            .iter()
            .flat_map(|l| transposed(case, &format!("w.{node}.fea.B{l}")))
            .collect(),
        "layers.0.weight" => both(&|e| format!("w.{node}.e{e}")),
        "layers.0.bias" => both(&|e| format!("w.{node}.e{e}.b")),
        "norms.0.weight" => both(&|e| format!("w.{node}.e{e}.gamma")),
        "norms.0.bias" => both(&|e| format!("w.{node}.e{e}.beta")),
        name if is_statistic(name) => vec![0.5; declared.shape[0]],
        name => match name.rsplit_once('.').unwrap() {
            (gate, "weight") => plain(format!("w.{node}.{gate}")),
            (gate, _) => plain(format!("w.{node}.{gate}.b")),
        },
    };
    let values = values.iter().map(|x| *x as f32).collect();
    let made = tensor(values, declared.shape.clone());
    (
        declared.name.clone(),
        made.unwrap_or_else(|e| panic!("{}: {e}", declared.name)),
    )
}

pub fn solve(case: &Case) {
    let width = case.number("hidden") as usize;
    let rest = json!({
        "numeric": 10, "hidden": [width, width], "norm": "batch", "activation": "silu", "groups": ["a", "a", "b"],
        "experts": case.param("experts_per_node"), "rank": case.param("lora_rank"), "parts": case.param("lora_parts"),
    });
    let model = model("home", 3, rest);
    let parameters = Parameters::new(model.tensors().iter().map(|t| weights(case, t))).unwrap();
    let (nothing, noted) = (Plain::default(), Noted::default());
    let source = training(&parameters, &nothing, &noted);
    let batch = of_numbers(value(case, "x"));
    let features = model.forward(&source, &batch, all(&model)).unwrap();
    let found: Vec<f64> = features.iter().flat_map(numbers).collect();
    case.near("out", &found, &case.tensor("data", "out").1);
}
