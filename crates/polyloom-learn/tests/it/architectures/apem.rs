//! Adaptive pattern extraction by hand: blocks that add nothing leave the norms of the fields, which two patterns scale apart.

use polyloom_learn::engine::{Value, tensor};
use polyloom_learn::models::Plain;
use polyloom_learn::models::table::{Config, TableBatch, TableModel};
use serde_json::json;

use super::{all, numbers};

#[test]
fn goals_choose_patterns_by_hand() {
    let config: Config = serde_json::from_value(json!({
        "architecture": "apem", "goals": ["a", "b"], "numeric": 1, "categories": [2], "embed_dim": 2, "hidden": [],
        "tower": [], "patterns": 2, "inducing": 3, "indicator": 1, "reduction": 1,
    }))
    .unwrap();
    let model = TableModel::new(config).unwrap();
    assert_eq!(model.width(), 4);
    let indicator = [0.0, 3f64.ln()];
    let tensors = model.tensors().iter().map(|t| {
        let count = t.shape.iter().product();
        let values: Vec<f32> = match &*t.name {
            // Norms of (5, 1) and (0, 4): (1, -1) and (-1, 1).
            "embedding.weight" => vec![5.0, 1.0, 0.0, 4.0],
            "tokens.numbers.weight" => vec![2.0, 1.0],
            "tokens.numbers.bias" => vec![0.0, 0.5],
            "selector.weight" => vec![1.0, 0.0],
            "goals.0.indicator.weight" => vec![indicator[0] as f32],
            "goals.1.indicator.weight" => vec![indicator[1] as f32],
            "patterns.1.spread.norm2.weight" => vec![2.0; 2],
            "patterns.0.refine.up.bias" => vec![0.0, 3f32.ln()],
            name if name.contains("norm") && name.ends_with("weight") => vec![1.0; count],
            name if name.ends_with("inducing.weight") => (0..count).map(|i| i as f32).collect(),
            name if name.ends_with("query.weight") || name.ends_with("key.weight") => {
                vec![0.3; count]
            }
            _ => vec![0.0; count],
        };
        (t.name.clone(), tensor(values, t.shape.clone()).unwrap())
    });
    let weights = Plain::new(tensors);
    // The number 3 is (6, 3.5), the number -3 is (-6, -2.5).
    let batch = TableBatch {
        before: Vec::new(),
        rows: 2,
        numbers: Value::constant(tensor(vec![3.0, -3.0], (2, 1)).unwrap()),
        codes: vec![0, 1],
    };
    let found = model.forward(&weights, &batch, all(&model)).unwrap();
    // The second field of the first pattern counts `2 sigmoid(ln 3)`, one and a half.
    let rows = [[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]];
    for (goal, a) in indicator.iter().enumerate() {
        let found = numbers(&found[goal]);
        for (row, fields) in rows.iter().enumerate() {
            let sign = fields[0];
            let means = [sign * (1.0 + 1.5) / 2.0, sign * 2.0];
            let first = 1.0 / (1.0 + (a * (means[1] - means[0])).exp());
            for (i, x) in fields.iter().enumerate() {
                let share = if i < 2 { 1.0 } else { 1.5 };
                let expected = first * share * x + (1.0 - first) * 2.0 * x;
                let said = found[row * 4 + i];
                assert!(
                    (said - expected).abs() < 1e-4,
                    "{goal} {row} {i}: {said} {expected}"
                );
            }
        }
    }
}
