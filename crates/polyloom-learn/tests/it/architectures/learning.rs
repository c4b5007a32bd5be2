//! Fresh weights learn: every architecture fits a small batch with two goals that want different things.

use polyloom_learn::engine::{Parameters, Tensor, Value, tensor};
use polyloom_learn::models::fresh::fresh;
use polyloom_learn::models::table::{
    Common, Config, MODEL_TYPE, TableBatch, TableModel, architectures,
};
use polyloom_learn::models::{Plain, Source};
use polyloom_learn::ops;
use polyloom_learn::train::trainee::Trainee;
use polyloom_learn::train::{Optimiser, Rule};
use serde_json::{Value as Json, json};

use super::all;

const ROWS: usize = 48;

/// Rows whose first label is a product of signs and whose second is about two categories: neither is linear.
fn rows() -> (TableBatch, [Vec<u32>; 2]) {
    let s = polyloom_core::rng::Stream::new(11, "learning", 0);
    let numbers: Vec<f32> = (0..ROWS as u64 * 3).map(|i| s.normal(i)).collect();
    let codes: Vec<u32> = (0..ROWS as u32).flat_map(|i| [i % 4, i / 4 % 3]).collect();
    let first = numbers.chunks(3).map(|r| u32::from(r[0] * r[1] > 0.0));
    let second = codes.chunks(2).map(|c| u32::from(c[0] % 2 == c[1] % 2));
    let labels = [first.collect(), second.collect()];
    let numbers = Value::constant(tensor(numbers, (ROWS, 3)).unwrap());
    let batch = TableBatch {
        before: Vec::new(),
        rows: ROWS,
        numbers,
        codes,
    };
    (batch, labels)
}

fn config(name: &str, uses: &[Common]) -> Json {
    let mut config = json!({
        "model_type": MODEL_TYPE, "architecture": name, "goals": ["a", "b"], "numeric": 3, "categories": [4, 3],
        "embed_dim": 8, "tower": [12],
    });
    if uses.contains(&Common::Hidden) {
        config["hidden"] = json!([24, 24]);
    }
    let rest = match name {
        // As the paper has it.
        "home" => json!({"norm": "batch", "activation": "silu", "rank": 4}),
        "multitab" => json!({"ff": 32}),
        "apem" => json!({"inducing": 4}),
        "multimodn" => json!({"state": 12, "modalities": [
            {"name": "numbers", "numbers": [0, 1, 2]}, {"name": "words", "fields": [1, 0]},
        ]}),
        "mmoe" | "omoe" | "dselect_k" | "dtrn" => json!({"experts": 4}),
        _ => json!({}),
    };
    for (key, value) in rest.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn heads(width: usize) -> Vec<(String, Tensor)> {
    let one = |g: usize| {
        let weight = tensor(vec![0.0; 2 * width], (2, width)).unwrap();
        let bias = tensor(vec![0.0; 2], 2).unwrap();
        [
            (format!("heads.{g}.weight"), weight),
            (format!("heads.{g}.bias"), bias),
        ]
    };
    (0..2).flat_map(one).collect()
}

fn loss(
    model: &TableModel,
    weights: &dyn Source,
    batch: &TableBatch,
    labels: &[Vec<u32>; 2],
) -> Value {
    let features = model.forward(weights, batch, all(model)).unwrap();
    let one = |(g, x): (usize, &Value)| {
        let scores = weights.linear(&format!("heads.{g}"), x).unwrap();
        ops::cross_entropy(&scores, &labels[g], 0.0).unwrap()
    };
    let losses = features.iter().enumerate().map(one);
    losses.reduce(|a, b| ops::add(&a, &b).unwrap()).unwrap()
}

#[test]
fn fresh_weights_learn_a_batch_by_heart() {
    let (batch, labels) = rows();
    for architecture in architectures().filter(|a| !a.reads_sessions()) {
        let spec = architecture.spec();
        let config = config(spec.name, spec.uses);
        let parsed: Config = serde_json::from_value(config.clone()).unwrap();
        let model = TableModel::new(parsed).unwrap();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (name, shape, values) in fresh(&config, 5).unwrap() {
            assert_eq!(model.tensors().shape(&name), Some(shape.as_slice()));
            tensors.push((name, tensor(values, shape).unwrap()));
        }
        tensors.extend(heads(model.width()));
        let parameters = Parameters::new(tensors).unwrap();
        let trainee = Trainee::over_weights(Plain::default(), parameters, None).unwrap();
        let mut optimiser = Optimiser::new(Rule::adamw(0.0), &trainee.parameters);
        optimiser.clip = 1.0;
        let mut losses = Vec::new();
        for step in 0..250 {
            let loss = trainee
                .with(Some(step), |w| Ok(loss(&model, w, &batch, &labels)))
                .unwrap();
            let mut gradients = trainee.parameters.gradients().unwrap();
            loss.backward_into(&mut gradients).unwrap();
            optimiser
                .step(&trainee.parameters, &gradients, 0.01)
                .unwrap();
            trainee.settle().unwrap();
            losses.push(loss.number().unwrap());
        }
        let (first, last) = (losses[0], losses[249]);
        assert!(
            (first - 2.0 * 2f32.ln()).abs() < 1e-3,
            "{}: {first}",
            spec.name
        );
        assert!(last < 0.1, "{}: {last}", spec.name);
    }
}
