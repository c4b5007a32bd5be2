//! Cases of a rule alone: the same rule inside of a model.

use polyloom_learn::engine::{Parameters, Tensor, Value, tensor};
use polyloom_learn::models::table::{
    Config, TableBatch, TableModel, dselect_k as gate, dtrn, loss, task_expert as memory,
};
use polyloom_learn::models::{Noted, Plain};
use polyloom_learn::ops::{self, Activation};
use serde_json::{Value as Json, json};

use super::{Case, all, numbers, training, value};

/// A model over numbers alone, `goals` of them, without towers.
pub fn model(architecture: &str, goals: usize, rest: Json) -> TableModel {
    let mut config = json!({
        "architecture": architecture, "goals": (0..goals).map(|g| format!("goal {g}")).collect::<Vec<_>>(), "tower": [],
    });
    let Json::Object(rest) = rest else { panic!() };
    config.as_object_mut().unwrap().extend(rest);
    let config: Config = serde_json::from_value(config).unwrap();
    TableModel::new(config).unwrap()
}

pub fn of_numbers(numbers: Value) -> TableBatch {
    TableBatch {
        before: Vec::new(),
        rows: numbers.dims()[0],
        numbers,
        codes: Vec::new(),
    }
}

/// Tensors of a case below each other, in the shape that the model declares.
fn stacked(case: &Case, model: &TableModel, name: &str, parts: &[String]) -> (String, Tensor) {
    let values = parts.iter().flat_map(|p| case.tensor("data", p).1);
    let values = values.map(|x| x as f32).collect();
    let shape = model
        .tensors()
        .shape(name)
        .unwrap_or_else(|| panic!("{name}"));
    (name.to_owned(), tensor(values, shape).unwrap())
}

/// The stitch behind the first layer; behind the second the model has one more, which changes nothing here.
pub fn cross_stitch(case: &Case) {
    let n = case.number("tasks") as usize;
    for (hidden, expected) in [(json!([4]), "mixed"), (json!([4, 4]), "out")] {
        let model = model("cross_stitch", n, json!({"numeric": 6, "hidden": hidden}));
        let mut tensors = Vec::new();
        for t in model.tensors().iter() {
            let words: Vec<&str> = t.name.split('.').collect();
            tensors.push(match words.as_slice() {
                ["stitches", "0", _] => stacked(case, &model, &t.name, &["unit".to_owned()]),
                ["stitches", ..] => {
                    let eye = (0..n * n).map(|i| f32::from(u8::from(i % n == i / n)));
                    (t.name.clone(), tensor(eye.collect(), (n, n)).unwrap())
                }
                [.., layer, part] => {
                    let layer = layer.parse::<usize>().unwrap() + 1;
                    let of = |t: usize| format!("w.l{layer}.{t}.{part}");
                    let parts: Vec<String> = (0..n).map(of).collect();
                    stacked(case, &model, &t.name, &parts)
                }
                _ => panic!("{}", t.name),
            });
        }
        let parameters = Parameters::new(tensors).unwrap();
        let (nothing, noted) = (Plain::default(), Noted::default());
        let source = training(&parameters, &nothing, &noted);
        let batch = of_numbers(value(case, "x"));
        let features = model.forward(&source, &batch, all(&model)).unwrap();
        let found: Vec<f64> = features.iter().flat_map(numbers).collect();
        case.near(expected, &found, &case.tensor("data", expected).1);
        if expected == "out" {
            let square = |x: &Value| ops::sum(&ops::mul(x, x).unwrap()).unwrap();
            let total = features
                .iter()
                .map(square)
                .reduce(|a, b| ops::add(&a, &b).unwrap());
            let gradients = total.unwrap().backward().unwrap();
            let stitch = &parameters.get("stitches.0.weight").unwrap().value;
            let found = Value::constant(gradients.get(stitch).unwrap().clone());
            let expected = case.tensor("data", "grad_unit").1;
            case.near("grad_unit", &numbers(&found), &expected);
        }
    }
}

fn linear(case: &Case, x: &Value, weight: &str, bias: &str) -> Value {
    ops::linear(x, &value(case, weight), Some(&value(case, bias))).unwrap()
}

/// Selectors, weights of experts and penalty of a gate.
pub fn dselect_k(case: &Case) {
    let (experts, k) = (case.number("experts") as usize, case.number("k") as usize);
    let x = value(case, "x");
    let bits = linear(case, &x, "w.z.weight", "w.z.bias");
    let found = gate::selectors(&bits, k, experts, case.number("gamma") as f32).unwrap();
    case.near(
        "selectors",
        &numbers(&found),
        &case.tensor("data", "selectors").1,
    );
    let mix = ops::softmax(&linear(case, &x, "w.w.weight", "w.w.bias")).unwrap();
    let weights = ops::blend(&mix, &[&found]).unwrap();
    let expected = case.tensor("data", "expert_weights").1;
    case.near("expert_weights", &numbers(&weights), &expected);
    // Beside the entropy: what selectors give to experts that there are, as there are five of eight.
    let given = numbers(&found);
    let given = given
        .chunks(experts)
        .map(|s| 1.0 / (s.iter().sum::<f64>() + 1e-6));
    let expected = case.tensor("data", "entropy").1[0] + given.sum::<f64>();
    let found = gate::penalty(&found, experts).unwrap();
    case.near("penalty", &numbers(&found), &[expected]);
}

pub fn dtrn_refine(case: &Case) {
    let embedded = value(case, "emb");
    let level = dtrn::means(&embedded).unwrap();
    for t in 0..2 {
        let name = |i: usize| format!("w.se{t}.{i}");
        let low = linear(case, &level, &name(0), &format!("{}.b", name(0)));
        let low = ops::activate(&low, Activation::Relu).unwrap();
        let scores = linear(case, &low, &name(1), &format!("{}.b", name(1)));
        let found = dtrn::refined(&embedded, &scores).unwrap();
        let what = format!("refined{t}");
        case.near(&what, &numbers(&found), &case.tensor("data", &what).1);
    }
}

pub fn task_expert(case: &Case) {
    let (x, experts) = (value(case, "x"), case.number("experts") as usize);
    let one = |e: usize| {
        let h = linear(case, &x, &format!("w.exp{e}"), &format!("w.exp{e}.b"));
        ops::activate(&h, Activation::Gelu).unwrap()
    };
    let all: Vec<Value> = (0..experts).map(one).collect();
    let all = ops::concat(&all.iter().collect::<Vec<_>>(), 1).unwrap();
    let memories = value(case, "memory");
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    for t in 0..case.number("tasks") as usize {
        let before = ops::narrow(&memories, 0, t, 1).unwrap();
        let before = ops::reshape(&before, &[rows, width]).unwrap();
        let scores = linear(case, &x, &format!("w.gate{t}"), &format!("w.gate{t}.b"));
        let feature = memory::feature(&scores, &all, &before).unwrap();
        let update = linear(case, &feature, &format!("w.upd{t}"), &format!("w.upd{t}.b"));
        let after = memory::remembered(&update, &feature, &before).unwrap();
        for (what, found) in [("feature", feature), ("memory_new", after)] {
            let what = format!("{what}{t}");
            case.near(&what, &numbers(&found), &case.tensor("data", &what).1);
        }
    }
}

/// Both losses and the gradients of two towers.
pub fn esmm(case: &Case) {
    let x = value(case, "x");
    let names = ["0.weight", "0.bias", "2.weight", "2.bias"];
    let tensors = ["ctr", "cvr"].iter().flat_map(|tower| {
        let of = move |part: &&str| {
            let name = format!("{tower}.{part}");
            let stored = value(case, &format!("w.{name}"));
            (name, stored.data().clone())
        };
        names.iter().map(of).collect::<Vec<_>>()
    });
    let parameters = Parameters::new(tensors).unwrap();
    let tower = |name: &str| {
        let part = |part: &str| &parameters.get(&format!("{name}.{part}")).unwrap().value;
        let h = ops::linear(&x, part("0.weight"), Some(part("0.bias"))).unwrap();
        let h = ops::activate(&h, Activation::Relu).unwrap();
        ops::linear(&h, part("2.weight"), Some(part("2.bias"))).unwrap()
    };
    let flags = |name: &str| -> Vec<bool> {
        let stored = case.tensor("data", name).1;
        stored.iter().map(|y| *y == 1.0).collect()
    };
    let (click, conversion) = (tower("ctr"), tower("cvr"));
    for (what, scores) in [("pctr", &click), ("pcvr", &conversion)] {
        let p = ops::activate(scores, Activation::Sigmoid).unwrap();
        case.near(what, &numbers(&p), &case.tensor("data", what).1);
    }
    let both =
        loss::entire_space(&click, &conversion, &flags("click"), &flags("conversion")).unwrap();
    for (what, found) in [("loss_ctr", &both.click), ("loss_ctcvr", &both.conversion)] {
        case.near(what, &numbers(found), &case.tensor("data", what).1);
    }
    let total = ops::add(&both.click, &both.conversion).unwrap();
    let gradients = total.backward().unwrap();
    for p in parameters.iter() {
        let found = numbers(&Value::constant(gradients.get(&p.value).unwrap().clone()));
        let what = format!("grad.{}", p.name);
        case.near(&what, &found, &case.tensor("data", &what).1);
    }
}

/// AITM's calibrator by hand: what a later goal's probability is above the one before it, and its gradient.
#[test]
fn a_chain_out_of_order_costs() {
    let scores = |values: &[f32]| Value::leaf(tensor(values.to_vec(), (2, 1)).unwrap());
    let third = 3f32.ln();
    // Probabilities 1/2 and 3/4, then 3/4 and 1/2, then 1/2 twice.
    let chain = [
        scores(&[0.0, third]),
        scores(&[third, 0.0]),
        scores(&[0.0, 0.0]),
    ];
    let total = loss::ordered(&chain).unwrap().unwrap();
    // Only the first row of the second goal is above: by a quarter, over two rows.
    assert!((total.number().unwrap() - 0.125).abs() < 1e-6);
    let gradients = total.backward().unwrap();
    let of = |x: &Value| numbers(&Value::constant(gradients.get(x).unwrap().clone()));
    // p (1 - p) / 2 of the score that is too high.
    assert!((of(&chain[1])[0] - 3.0 / 32.0).abs() < 1e-6 && of(&chain[1])[1] == 0.0);
    assert!((of(&chain[0])[0] + 1.0 / 8.0).abs() < 1e-6);
    assert!(loss::ordered(&chain[..1]).unwrap().is_none());
    let other = Value::leaf(tensor(vec![0.0], (1, 1)).unwrap());
    assert!(loss::ordered(&[chain[0].clone(), other]).is_err());
}
