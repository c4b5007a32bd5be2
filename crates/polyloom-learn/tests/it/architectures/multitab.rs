//! MultiTab: its model in inference, and its masks.

use polyloom_learn::engine::{Tensor, Value, tensor};
use polyloom_learn::models::Plain;
use polyloom_learn::models::table::{Config, Declared, TableBatch, TableModel, multitab};
use polyloom_learn::ops;
use serde_json::json;

use super::{Case, all, numbers, value};

pub fn masks(case: &Case) {
    let (tasks, length) = (case.number("task_tokens"), case.number("length"));
    for kind in ["TxT", "FxT", "FxT_TxT"] {
        let found = multitab::blocked(kind, tasks as usize, length as usize);
        let found: Vec<f64> = found.iter().map(|b| f64::from(u8::from(*b))).collect();
        case.near(kind, &found, &case.tensor("data", kind).1);
    }
}

/// Features of the vectors in our order: categories, then numbers.
const ORDER: [usize; 4] = [1, 2, 0, 3];
const GOALS: usize = 3;

/// A matrix of theirs.
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn of(case: &Case, name: &str) -> Self {
        let (shape, values) = case.tensor("data", name);
        Self {
            rows: shape[0],
            columns: shape.get(1).copied().unwrap_or(1),
            values,
        }
    }

    /// Rows of the third part of a packed projection.
    fn part(&self, which: usize) -> Self {
        let rows = self.rows / 3;
        Self {
            rows,
            columns: self.columns,
            values: self.values[which * rows * self.columns..][..rows * self.columns].to_vec(),
        }
    }

    /// Tokens side by side in our order, along the rows or the columns, where they are that many.
    fn ordered(self, tokens: usize, width: usize, [rows, columns]: [bool; 2]) -> Self {
        let theirs = |i: usize| match (i / width).checked_sub(GOALS) {
            Some(feature) => (GOALS + ORDER[feature]) * width + i % width,
            None => i,
        };
        let wide = tokens * width;
        let (rows, columns) = (rows && self.rows == wide, columns && self.columns == wide);
        let at = |i: usize| {
            let (r, c) = (i / self.columns, i % self.columns);
            let r = if rows { theirs(r) } else { r };
            let c = if columns { theirs(c) } else { c };
            self.values[r * self.columns + c]
        };
        Self {
            values: (0..self.values.len()).map(at).collect(),
            ..self
        }
    }
}

fn weights(case: &Case, model: &TableModel, declared: &Declared) -> (String, Tensor) {
    let words: Vec<&str> = declared.name.split('.').collect();
    let token = |i: usize, part: &str| {
        let name = format!("w.tok_emb.embedding_layers.{i}.{part}");
        case.tensor("data", &name).1
    };
    let values: Vec<f64> = match words.as_slice() {
        ["embedding", _] => [4, 5].iter().flat_map(|i| token(*i, "weight")).collect(),
        // A weight and a bias on the constant 1.
        ["tokens", "goals", _] => (0..GOALS)
            .flat_map(|g| {
                let (w, b) = (token(g, "weight"), token(g, "bias"));
                w.into_iter().zip(b).map(|(w, b)| w + b).collect::<Vec<_>>()
            })
            .collect(),
        ["tokens", "numbers", part] => [3, 6].iter().flat_map(|i| token(*i, part)).collect(),
        ["goals", g, "tower", .., part] => {
            let goal = &model.config.goals[g.parse::<usize>().unwrap()];
            let name = format!("w.task_heads.{goal}.tower.0.mlp.0.0.{part}");
            case.tensor("data", &name).1
        }
        ["blocks", i, which, layer, part] => {
            let which = usize::from(*which == "rows");
            let theirs = |layer: &str| format!("w.transformer.blocks.{i}.{which}.{layer}");
            let width = model.config.embed_dim;
            let tokens = if which == 1 { 7 } else { 0 };
            let of = |name: String, sides| Matrix::of(case, &name).ordered(tokens, width, sides);
            // Heads cut the projections where they cut theirs: only their inputs are in another order.
            match *layer {
                "query" | "key" | "value" => {
                    let n = ["query", "key", "value"].iter().position(|l| l == layer);
                    let name = theirs(&format!("attention.in_proj_{part}"));
                    Matrix::of(case, &name)
                        .part(n.unwrap())
                        .ordered(tokens, width, [false, true])
                }
                "out" => of(theirs(&format!("attention.out_proj.{part}")), [true, false]),
                "up" => of(theirs(&format!("mlp.0.{part}")), [false, true]),
                "down" => of(theirs(&format!("mlp.3.{part}")), [true, false]),
                norm => of(theirs(&format!("{norm}.{part}")), [true, false]),
            }
            .values
        }
        _ => panic!("{}", declared.name),
    };
    let values = values.iter().map(|x| *x as f32).collect();
    let made = tensor(values, declared.shape.clone());
    (
        declared.name.clone(),
        made.unwrap_or_else(|e| panic!("{}: {e}", declared.name)),
    )
}

pub fn solve(case: &Case) {
    let config: Config = serde_json::from_value(json!({
        "architecture": "multitab", "goals": case.param("tasks"), "numeric": 2, "categories": [7, 5],
        "embed_dim": case.param("embed_dim"), "tower": case.param("tower"), "ff": case.param("ff"),
        "heads": case.param("heads"), "blocks": case.param("blocks"), "mask": case.param("mask"),
        "attention": case.param("attention"),
    }))
    .unwrap();
    let model = TableModel::new(config).unwrap();
    let plain = Plain::new(model.tensors().iter().map(|t| weights(case, &model, t)));
    let (shape, x) = case.tensor("data", "x");
    let column = |feature: usize| x.iter().skip(feature).step_by(shape[1]);
    let numbers_: Vec<f32> = column(0)
        .zip(column(3))
        .flat_map(|(a, b)| [*a as f32, *b as f32])
        .collect();
    let codes = column(1)
        .zip(column(2))
        .flat_map(|(a, b)| [*a as u32, *b as u32]);
    let batch = TableBatch {
        before: Vec::new(),
        rows: shape[0],
        numbers: Value::constant(tensor(numbers_, (shape[0], 2)).unwrap()),
        codes: codes.collect(),
    };
    let features = model.forward(&plain, &batch, all(&model)).unwrap();
    for (goal, feature) in model.config.goals.iter().zip(&features) {
        let part = |part: &str| value(case, &format!("w.task_heads.{goal}.tower.1.{part}"));
        let scores = ops::linear(feature, &part("weight"), Some(&part("bias"))).unwrap();
        let what = format!("out.{goal}");
        case.near(&what, &numbers(&scores), &case.tensor("data", &what).1);
    }
}
