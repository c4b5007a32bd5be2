//! MultiModN: the authors' program on two modalities, rows that lack one, its loss by hand and its gradients.

use polyloom_learn::engine::{Parameters, Tensor, Value, tensor};
use polyloom_learn::models::table::turns::InTurn;
use polyloom_learn::models::table::{Config, Modality, TableBatch, TableModel};
use polyloom_learn::models::{Plain, Source, Trained};
use polyloom_learn::ops;
use serde_json::json;

use super::layers::of_numbers;
use super::properties::{made, rows};
use super::{Case, all, numbers, value};
use crate::differences::agree;

/// The weights of the authors' program; encoders of modalities that have a mark read it by a column of zeros.
fn weights(case: &Case) -> Plain {
    let stored = |name: &str| value(case, name).data().clone();
    let state = stored("w.init");
    let width = state.elem_count();
    let mut tensors = vec![(
        "state.weight".to_owned(),
        state.reshape((1, width)).unwrap(),
    )];
    for m in 0..2 {
        let first = stored(&format!("w.enc{m}.0"));
        let [out, input] = *first.dims() else {
            panic!()
        };
        let own = input - width;
        let none = tensor(vec![0.0; out], (out, 1)).unwrap();
        let parts = [
            &first.narrow(1, 0, own).unwrap(),
            &none,
            &first.narrow(1, own, width).unwrap(),
        ];
        let first = Tensor::cat(&parts, 1).unwrap().contiguous().unwrap();
        for (name, weight, bias) in [
            ("layers.0", first, format!("w.enc{m}.0.b")),
            (
                "out",
                stored(&format!("w.enc{m}.1")),
                format!("w.enc{m}.1.b"),
            ),
        ] {
            tensors.push((format!("encoders.{m}.{name}.weight"), weight));
            tensors.push((format!("encoders.{m}.{name}.bias"), stored(&bias)));
        }
        tensors.push((format!("heads.{m}.weight"), stored(&format!("w.dec{m}"))));
        tensors.push((format!("heads.{m}.bias"), stored(&format!("w.dec{m}.b"))));
    }
    Plain::new(tensors)
}

/// Scores of a goal on a state of what training sees.
fn scores(weights: &dyn Source, turn: InTurn, whole: &Value, state: usize, goal: usize) -> Value {
    let seen = turn.features(whole, state).unwrap();
    let width = turn.width / 2;
    let own = ops::narrow(&seen, 1, goal * width, width).unwrap();
    weights.linear(&format!("heads.{goal}"), &own).unwrap()
}

/// The mean over two goals of their losses, as training has them.
fn loss(weights: &dyn Source, turn: InTurn, whole: &Value, labels: &[Vec<u32>; 2]) -> Value {
    let one = |goal: usize| {
        let mut found = Vec::new();
        for state in 0..=turn.modalities {
            let there = turn.there(whole, state).unwrap();
            let at: Vec<u32> = (0u32..)
                .zip(&there)
                .filter_map(|(i, there)| there.then_some(i))
                .collect();
            if at.is_empty() {
                continue;
            }
            let said = ops::rows(&scores(weights, turn, whole, state, goal), &at).unwrap();
            let right: Vec<u32> = at.iter().map(|i| labels[goal][*i as usize]).collect();
            let mean = ops::cross_entropy(&said, &right, 0.0).unwrap();
            found.push((mean, at.len() as f32 / there.len() as f32));
        }
        turn.loss(&found, whole).unwrap()
    };
    ops::scale(&ops::add(&one(0), &one(1)).unwrap(), 0.5).unwrap()
}

fn model(case: &Case, shapes: [usize; 2], hidden: usize, state: usize) -> TableModel {
    let config: Config = serde_json::from_value(json!({
        "architecture": "multimodn", "goals": ["a", "b"], "numeric": shapes[0] + shapes[1] + 2, "hidden": [hidden],
        "tower": [], "state": state, "err_penalty": case.param("err_penalty"),
        "state_change_penalty": case.param("state_change_penalty"),
        "modalities": [
            {"name": "first", "numbers": (0..shapes[0]).collect::<Vec<_>>(), "marks": [shapes[0] + shapes[1]]},
            {"name": "second", "numbers": (shapes[0]..shapes[0] + shapes[1]).collect::<Vec<_>>(),
                "marks": [shapes[0] + shapes[1] + 1]},
        ],
    }))
    .unwrap();
    TableModel::new(config).unwrap()
}

pub fn solve(case: &Case) {
    let weights = weights(case);
    let x = [value(case, "x0"), value(case, "x1")];
    let shapes = x.each_ref().map(|x| x.dims()[1]);
    let hidden = value(case, "w.enc0.0").dims()[0];
    let state = weights.tensor("state.weight").unwrap().dims()[1];
    let model = model(case, shapes, hidden, state);
    let turn = model.in_turn().unwrap();
    let labels = case.tensor("data", "y").1;
    let of = |t: usize| {
        labels
            .iter()
            .skip(t)
            .step_by(2)
            .map(|y| *y as u32)
            .collect()
    };
    let labels: [Vec<u32>; 2] = [of(0), of(1)];
    let rows = labels[0].len();
    let batch = |lacks: &dyn Fn(usize) -> bool| {
        let marks = (0..rows).flat_map(|i| [0.0, f32::from(u8::from(lacks(i)))]);
        let marks = Value::constant(tensor(marks.collect(), (rows, 2)).unwrap());
        of_numbers(ops::concat(&[&x[0], &x[1], &marks], 1).unwrap())
    };
    let last = |batch: &TableBatch| {
        let found = model.forward(&weights, batch, all(&model)).unwrap();
        numbers(&found[0])
    };
    let expected = |name: &str| case.tensor("data", name).1;
    for (name, second) in [("all", true), ("missing1", false)] {
        let batch = batch(&|_| !second);
        case.near("state", &last(&batch), &expected(&format!("{name}.state")));
        let whole = model.learning(&weights, &batch).unwrap().unwrap();
        let steps = if second { 3 } else { 2 };
        let said: Vec<f64> = (0..steps)
            .flat_map(|state| [0, 1].map(|goal| scores(&weights, turn, &whole, state, goal)))
            .flat_map(|scores| numbers(&scores))
            .collect();
        case.near("logits", &said, &expected(&format!("{name}.logits")));
        let found = loss(&weights, turn, &whole, &labels);
        let found = f64::from(found.number().unwrap());
        case.near("loss", &[found], &expected(&format!("{name}.loss")));
    }
    // By row: rows that have the second modality go on as if all had it, the others as if none had.
    let mixed = last(&batch(&|i| i % 2 == 1));
    let (with, without) = (expected("all.state"), expected("missing1.state"));
    for (i, x) in mixed.iter().enumerate() {
        let expected = match (i / state).is_multiple_of(2) {
            true => with[i],
            false => without[i],
        };
        assert!((x - expected).abs() < 1e-5, "{i}: {x} and {expected}");
    }
}

/// One number a modality, a state of one number, no layers: `s_1 = 2 x + s_0`, `s_2 = 3 y - s_1`, all by hand.
#[test]
fn states_and_loss_by_hand() {
    let config: Config = serde_json::from_value(json!({
        "architecture": "multimodn", "goals": ["a", "b"], "numeric": 4, "hidden": [], "tower": [], "state": 1,
        "err_penalty": 3.0, "state_change_penalty": 100.0,
        "modalities": [{"name": "x", "numbers": [0], "marks": [2]}, {"name": "y", "numbers": [1], "marks": [3]}],
    }))
    .unwrap();
    let model = TableModel::new(config).unwrap();
    let t = |name: &str, values: &[f32], shape: &[usize]| {
        (name.to_owned(), tensor(values.to_vec(), shape).unwrap())
    };
    let mut tensors = vec![
        t("state.weight", &[0.5], &[1, 1]),
        t("encoders.0.out.weight", &[2.0, 0.0, 1.0], &[1, 3]),
        t("encoders.0.out.bias", &[0.0], &[1]),
        t("encoders.1.out.weight", &[3.0, 0.0, -1.0], &[1, 3]),
        t("encoders.1.out.bias", &[0.0], &[1]),
    ];
    for goal in 0..2 {
        // Scores 0 and s: the loss of class 1 is ln(1 + e^-s), of class 0 ln(1 + e^s).
        tensors.push(t(&format!("heads.{goal}.weight"), &[0.0, 1.0], &[2, 1]));
        tensors.push(t(&format!("heads.{goal}.bias"), &[0.0; 2], &[2]));
    }
    let weights = Plain::new(tensors);
    // The second row lacks x, the third both.
    let given = vec![1.0, 2.0, 0.0, 0.0, 9.0, 1.0, 1.0, 0.0, 9.0, 9.0, 1.0, 1.0];
    let batch = of_numbers(Value::constant(tensor(given, (3, 4)).unwrap()));
    let states: [[f64; 3]; 3] = [[0.5, 2.5, 3.5], [0.5, 0.5, 2.5], [0.5, 0.5, 0.5]];
    let last = model.forward(&weights, &batch, all(&model)).unwrap();
    assert_eq!(numbers(&last[1]), [3.5, 2.5, 0.5]);
    let whole = model.learning(&weights, &batch).unwrap().unwrap();
    let turn = model.in_turn().unwrap();
    for state in 0..3 {
        let seen = numbers(&turn.features(&whole, state).unwrap());
        let expected: Vec<f64> = states.iter().flat_map(|s| [s[state]; 2]).collect();
        assert_eq!(seen, expected, "state {state}");
    }
    assert_eq!(turn.there(&whole, 0).unwrap(), [true; 3]);
    assert_eq!(turn.there(&whole, 1).unwrap(), [true, false, false]);
    assert_eq!(turn.there(&whole, 2).unwrap(), [true, true, false]);
    // Changes 2 and 1 of the first row, 2 of the second: squares 9 over 3 rows and 2 modalities, times 0.01 * 100.
    assert!((turn.change(&whole).unwrap().number().unwrap() - 1.5).abs() < 1e-6);
    let labels = [vec![1, 0, 1], vec![0, 0, 1]];
    let cost = |s: f64, y: u32| match y {
        1 => (1.0 + (-s).exp()).ln(),
        _ => (1.0 + s.exp()).ln(),
    };
    let mut errors = 0.0;
    for labels in &labels {
        for (state, there) in [(0, &[0, 1, 2][..]), (1, &[0]), (2, &[0, 1])] {
            for &row in there {
                errors += cost(states[row][state], labels[row]) / 3.0;
            }
        }
    }
    let expected = 3.0 * errors / (2.0 * 3.0) + 1.5;
    let found = f64::from(loss(&weights, turn, &whole, &labels).number().unwrap());
    assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
}

/// The gradient of the whole loss, with rows that lack a modality.
#[test]
fn gradients_of_the_loss_are_those_of_differences() {
    let config = json!({
        "model_type": "polyloom-table", "architecture": "multimodn", "goals": ["a", "b"], "numeric": 4,
        "categories": [3], "embed_dim": 2, "hidden": [5], "activation": "tanh", "tower": [4], "state": 3,
        "state_change_penalty": 30.0,
        "modalities": [
            {"name": "u", "numbers": [0], "fields": [0], "marks": [2]}, {"name": "v", "numbers": [1], "marks": [3]},
        ],
    });
    let (model, weights) = made(&config);
    let mut tensors: Vec<(String, Tensor)> = weights
        .iter()
        .map(|(n, t)| (n.to_owned(), t.clone()))
        .collect();
    for goal in 0..2 {
        let weight = (0..8).map(|i| (i as f32 + goal as f32).sin()).collect();
        tensors.push((
            format!("heads.{goal}.weight"),
            tensor(weight, (2, 4)).unwrap(),
        ));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let parameters = Parameters::new(tensors).unwrap();
    let nothing = Plain::default();
    let source = Trained {
        parameters: &parameters,
        frozen: &nothing,
        seed: None,
    };
    let mut batch = rows(&model, 6);
    let mut given: Vec<f32> = numbers(&batch.numbers).iter().map(|x| *x as f32).collect();
    for (i, row) in given.chunks_mut(4).enumerate() {
        (row[2], row[3]) = (f32::from(u8::from(i == 1)), f32::from(u8::from(i > 3)));
    }
    batch.numbers = Value::constant(tensor(given, (6, 4)).unwrap());
    let labels = [vec![0, 1, 1, 0, 1, 0], vec![1, 1, 0, 0, 0, 1]];
    let turn = model.in_turn().unwrap();
    let found = || {
        let whole = model.learning(&source, &batch).unwrap().unwrap();
        loss(&source, turn, &whole, &labels)
    };
    agree("multimodn", &parameters, &found, &found, &|_| false);
}

#[test]
fn modalities_that_lie() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let of = |name: &str, numbers: &[usize], fields: &[usize], marks: &[usize]| Modality {
            name: name.into(),
            numbers: numbers.to_vec(),
            fields: fields.to_vec(),
            marks: marks.to_vec(),
        };
        let mut config = Config {
            architecture: "multimodn".into(),
            goals: vec!["a".into()],
            numeric: 3,
            categories: vec![5],
            modalities: vec![of("u", &[0], &[0], &[2]), of("v", &[1], &[], &[])],
            ..Config::default()
        };
        assert!(TableModel::new(config.clone()).is_ok());
        change(&mut config);
        TableModel::new(config).unwrap_err().to_string()
    };
    type Change = fn(&mut Config);
    let all: [(Change, &str); 9] = [
        (
            |c| c.modalities.clear(),
            "0 modalities; `multimodn` reads 1 to 1024",
        ),
        (
            |c| c.modalities[1].name = "u".into(),
            "`u` is empty or comes twice",
        ),
        (|c| c.modalities[1].name.clear(), "`` is empty"),
        (|c| c.modalities[1].numbers = vec![], "`v` has no column"),
        (
            |c| c.modalities[1].numbers = vec![7],
            "place 7 of the numbers is none of 3",
        ),
        (
            |c| c.modalities[1].numbers = vec![1, 0],
            "place 0 of the numbers comes twice",
        ),
        (
            |c| c.modalities[1].fields = vec![1],
            "place 1 of the categorical fields is none of 1",
        ),
        (
            |c| c.modalities[0].marks.clear(),
            "place 2 of the numbers is in none",
        ),
        (
            |c| c.architecture = "mmoe".into(),
            "`modalities` means nothing to architecture `mmoe`",
        ),
    ];
    for (change, part) in all {
        let said = refused(&change);
        assert!(said.contains(part), "{said}");
    }
}
