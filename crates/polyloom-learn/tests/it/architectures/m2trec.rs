//! M2TRec: items of sessions.

use polyloom::evaluate::board::score::sessions::Step;
use polyloom_learn::engine::{Parameters, Value, tensor};
use polyloom_learn::models::table::{MODEL_TYPE, TableBatch, TableModel};
use polyloom_learn::models::{Plain, Source, Trained};
use polyloom_learn::ops;
use serde_json::{Value as Json, json};

use super::numbers;
use super::properties::{made, rows};
use crate::differences::agree;

fn config() -> Json {
    json!({
        "model_type": MODEL_TYPE, "architecture": "m2trec", "goals": ["a/next", "a/kind"], "numeric": 2,
        "categories": [3, 4], "embed_dim": 4, "hidden": [6], "activation": "tanh", "width": 4, "heads": 2, "ff": 5, "last": 3,
    })
}

fn step(item: u32, taken: bool) -> Step {
    Step { item, taken }
}

/// Scores `[sessions, items]` and states.
fn visited(
    model: &TableModel,
    weights: &dyn Source,
    items: &TableBatch,
    sessions: &[Vec<Step>],
) -> (Value, Value) {
    let sessions: Vec<&[Step]> = sessions.iter().map(Vec::as_slice).collect();
    let found = model.visited(weights, items, &sessions).unwrap();
    (found.scores, found.states)
}

#[test]
fn a_row_is_what_stands_before_it_whatever_stands_beside_it() {
    let (model, weights) = made(&config());
    let items = rows(&model, 5);
    let all = [
        vec![],
        vec![step(1, false)],
        vec![step(4, true), step(0, false), step(2, false)],
    ];
    let (scores, states) = visited(&model, &weights, &items, &all);
    assert_eq!(scores.dims(), [3, 5]);
    // The state of every goal side by side.
    assert_eq!(states.dims(), [3, 8]);
    let (all_scores, all_states) = (numbers(&scores), numbers(&states));
    for (i, one) in all.iter().enumerate() {
        let (scores, states) = visited(&model, &weights, &items, std::slice::from_ref(one));
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&numbers(&scores), &all_scores[i * 5..][..5]), "{i}");
        assert!(near(&numbers(&states), &all_states[i * 8..][..8]), "{i}");
    }
    // The last three rows are seen: an earlier one changes nothing; the order, and what was asked for, do.
    let of = |session: &[Step]| numbers(&visited(&model, &weights, &items, &[session.to_vec()]).0);
    let three = &all[2];
    let longer = [&[step(3, true)], &three[..]].concat();
    assert_eq!(of(&longer), of(three));
    let swapped = [three[1], three[0], three[2]];
    assert_ne!(of(&swapped), of(three));
    let clicked = [three[0], step(0, true), three[2]];
    assert_ne!(of(&clicked), of(three));
}

/// One encoder for what is seen and what is scored: scores are products of states and items, so two items that are described
/// alike have one score, whatever their place.
#[test]
fn items_are_what_describes_them() {
    let (model, weights) = made(&config());
    let mut items = rows(&model, 3);
    items.codes = vec![1, 2, 1, 2, 2, 0];
    items.numbers = Value::constant(tensor(vec![0.5, -1.0, 0.5, -1.0, 2.0, 0.0], (3, 2)).unwrap());
    let of = |item| numbers(&visited(&model, &weights, &items, &[vec![step(item, false)]]).0);
    assert_eq!(of(0), of(1));
    assert_ne!(of(0), of(2));
    let scores = of(2);
    assert_eq!(scores[0], scores[1]);
    assert_ne!(scores[0], scores[2]);
    // More items to choose from leave the scores of the others as they are.
    let two = TableBatch {
        before: Vec::new(),
        rows: 2,
        numbers: Value::constant(tensor(vec![0.5, -1.0, 2.0, 0.0], (2, 2)).unwrap()),
        codes: vec![1, 2, 2, 0],
    };
    let fewer = numbers(&visited(&model, &weights, &two, &[vec![step(1, false)]]).0);
    assert!((fewer[0] - scores[0]).abs() < 1e-6 && (fewer[1] - scores[2]).abs() < 1e-6);
}

/// Without blocks' weights and layers: the state is the norm of `p_n + e_n + a`, by hand.
#[test]
fn scores_by_hand() {
    let config = json!({
        "model_type": MODEL_TYPE, "architecture": "m2trec", "goals": ["a/next"], "numeric": 2, "hidden": [],
        "width": 2, "heads": 1, "ff": 1, "blocks": 1, "last": 2,
    });
    let (model, weights) = made(&config);
    let of = |name: &str, shape: &[usize]| {
        let n = shape.iter().product();
        let values = match name {
            // e = x.
            "items.out.weight" => vec![1.0, 0.0, 0.0, 1.0],
            // Start, first, second row.
            "positions.weight" => vec![1.0, 0.0, 0.0, 1.0, 0.0, 3.0],
            // Not asked for, asked for.
            "asked.weight" => vec![0.0, 0.0, 5.0, 0.0],
            "norm.weight" => vec![1.0; n],
            _ => vec![0.0; n],
        };
        tensor(values, shape.to_vec()).unwrap()
    };
    let tensors = weights.iter().map(|(n, t)| (n.to_owned(), of(n, t.dims())));
    let weights = Plain::new(tensors.collect::<Vec<_>>());
    let items = TableBatch {
        before: Vec::new(),
        rows: 2,
        numbers: Value::constant(tensor(vec![1.0, 2.0, 3.0, -1.0], (2, 2)).unwrap()),
        codes: Vec::new(),
    };
    let sessions = [
        vec![],
        vec![step(0, false)],
        vec![step(1, false), step(0, true)],
    ];
    let found = numbers(&visited(&model, &weights, &items, &sessions).0);
    // z: (1, 0), then e_0 + (0, 1) = (1, 3), then e_0 + (0, 3) + (5, 0) = (6, 5); layer norms of two numbers are +-1.
    let expected = [
        1.0 - 2.0,
        3.0 + 1.0,
        -1.0 + 2.0,
        -3.0 - 1.0,
        1.0 - 2.0,
        3.0 + 1.0,
    ];
    let near = found
        .iter()
        .zip(expected)
        .all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(near, "{found:?}");
}

#[test]
fn gradients_are_those_of_differences() {
    let (model, weights) = made(&config());
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
    let items = rows(&model, 5);
    let sessions = [
        vec![],
        vec![step(1, true)],
        vec![step(4, false), step(0, false), step(2, true)],
    ];
    let loss = || {
        let (scores, states) = visited(&model, &source, &items, &sessions);
        let next = ops::cross_entropy(&scores, &[2, 0, 4], 0.0).unwrap();
        let classes = ops::narrow(&states, 1, 0, 3).unwrap();
        let kind = ops::cross_entropy(&classes, &[0, 2, 1], 0.0).unwrap();
        ops::scale(&ops::add(&next, &kind).unwrap(), 0.5).unwrap()
    };
    // A bias of keys moves all scores of a query alike.
    let none = |name: &str| name.starts_with("blocks.") && name.ends_with("key.bias");
    agree("m2trec", &parameters, &loss, &loss, &none);
}

#[test]
fn what_is_no_session_is_refused() {
    let (model, weights) = made(&config());
    let items = rows(&model, 5);
    let far: &[Step] = &[step(5, false)];
    assert!(model.visited(&weights, &items, &[far]).is_err());
    assert!(model.visited(&weights, &items, &[]).is_err());
    let single = model.forward(&weights, &items, 0..1).unwrap_err();
    assert!(single.to_string().contains("reads sessions"), "{single}");
    let other = json!({
        "model_type": MODEL_TYPE, "architecture": "mmoe", "goals": ["a"], "numeric": 2, "categories": [3, 4],
    });
    let (other, weights) = made(&other);
    let none: &[Step] = &[];
    assert!(other.visited(&weights, &rows(&other, 2), &[none]).is_err());
    let mut odd = config();
    odd["heads"] = json!(3);
    let odd = TableModel::new(serde_json::from_value(odd).unwrap()).unwrap_err();
    assert!(odd.to_string().contains("no multiple of heads"), "{odd}");
}
