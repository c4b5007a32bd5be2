//! Parts of models beside tables: gates that choose, slimmable layers, DeepONet, MultiModN.

use polyloom_learn::engine::{Value, tensor};
use polyloom_learn::models::deeponet::{self, DeepOnet};
use polyloom_learn::models::gates::{self, Kept};
use polyloom_learn::models::{Plain, slim};
use polyloom_learn::ops::{self, Activation};
use serde_json::json;

use super::{Case, numbers, value};

fn data(case: &Case, name: &str) -> Vec<f64> {
    case.tensor("data", name).1
}

fn number(value: &Value) -> Vec<f64> {
    vec![f64::from(value.number().unwrap())]
}

/// `x W` of a weight `[in, out]`.
fn scores(case: &Case, x: &Value, weight: &str) -> Value {
    ops::product(x, &value(case, weight)).unwrap()
}

/// Numbers and weights of the chosen experts, from `start` on.
fn chosen(case: &Case, name: &str, kept: &Kept, start: usize) {
    let experts = kept.experts.iter().flatten();
    let index: Vec<f64> = experts.map(|e| f64::from(*e) + start as f64).collect();
    case.near(name, &index, &data(case, &format!("{name}.index")));
    let (weights, width) = (numbers(&kept.weights), kept.weights.dims()[1]);
    let of = |(row, experts): (usize, &Vec<u32>)| {
        let weight = |e: &u32| weights[row * width + *e as usize];
        experts.iter().map(weight).collect::<Vec<f64>>()
    };
    let gate: Vec<f64> = kept.experts.iter().enumerate().flat_map(of).collect();
    case.near(name, &gate, &data(case, &format!("{name}.gate")));
}

pub fn m3vit_gate(case: &Case) {
    let (x, k) = (value(case, "x"), case.number("top_k") as usize);
    let (experts, tasks) = (
        case.number("experts") as usize,
        case.number("tasks") as usize,
    );
    let softmax = |scores: &Value| ops::softmax(scores).unwrap();
    let kept = gates::top_k(&softmax(&scores(case, &x, "shared.w_gate")), k).unwrap();
    chosen(case, "shared.0", &kept, 0);
    case.near(
        "loss",
        &number(&kept.variation().unwrap()),
        &data(case, "shared.0.loss"),
    );
    // A gate over some experts side by side for every task.
    let each = case.param("task_range")["experts_per_task"]
        .as_u64()
        .unwrap() as usize;
    let part = |start: usize| {
        let all = scores(case, &x, "task_range.w_gate");
        gates::top_k(&softmax(&ops::narrow(&all, 1, start, each).unwrap()), k).unwrap()
    };
    for task in 0..2 {
        let kept = part(gates::window(task, 2, experts, each));
        let name = format!("task_range.{task}");
        chosen(case, &name, &kept, 0);
        let loss = number(&kept.variation().unwrap());
        case.near("loss", &loss, &data(case, &format!("{name}.loss")));
    }
    let rows = x.dims()[0];
    for task in 0..tasks {
        let start = gates::window(task, tasks, experts, each);
        let name = format!("range3.{task}");
        case.near(
            "start",
            &[start as f64],
            &data(case, &format!("{name}.start")),
        );
        chosen(case, &name, &part(start), start);
        // One gate on the input and the task's vector.
        let vectors = value(case, "cond.task_embedding");
        let vectors = ops::rows(&vectors, &vec![task as u32; rows]).unwrap();
        let both = ops::concat(&[&x, &vectors], 1).unwrap();
        let kept = gates::top_k(&softmax(&scores(case, &both, "cond.w_gate")), k).unwrap();
        chosen(case, &format!("cond.{task}"), &kept, 0);
    }
}

pub fn top_p_routing(case: &Case) {
    let (shape, _) = case.tensor("data", "x");
    let rows = shape[0] * shape[1];
    let x = ops::reshape(&value(case, "x"), &[rows, shape[2]]).unwrap();
    let scores = ops::linear(&x, &value(case, "router"), None).unwrap();
    let p = ops::softmax(&scores).unwrap();
    case.near("probs", &numbers(&p), &data(case, "probs"));
    case.near(
        "entropy",
        &number(&ops::entropy(&scores).unwrap()),
        &data(case, "entropy_loss"),
    );
    let width = p.dims()[1];
    for share in case.numbers("p") {
        let kept = gates::top_p(&p, share as f32).unwrap();
        let counts: Vec<f64> = kept.experts.iter().map(|e| e.len() as f64).collect();
        case.near("count", &counts, &data(case, &format!("count_p{share}")));
        let weights = numbers(&kept.weights);
        let (mut index, mut found) = (vec![-1.0; rows * width], vec![0.0; rows * width]);
        for (row, experts) in kept.experts.iter().enumerate() {
            for (i, e) in experts.iter().enumerate() {
                index[row * width + i] = f64::from(*e);
                found[row * width + i] = weights[row * width + *e as usize];
            }
        }
        case.near("index", &index, &data(case, &format!("index_p{share}")));
        case.near("weights", &found, &data(case, &format!("weights_p{share}")));
    }
    let kept = gates::top_p(&p, case.number("out_uses") as f32).unwrap();
    case.near(
        "balance",
        &number(&kept.balance(&p).unwrap()),
        &data(case, "balance_loss"),
    );
    let part = |name: &str, expert: usize| {
        let all = value(case, name);
        let one = ops::narrow(&all, 0, expert, 1).unwrap();
        ops::reshape(&one, &all.dims()[1..]).unwrap()
    };
    let expert = |e: usize| {
        let of = |name: &str, x: &Value| ops::linear(x, &part(name, e), None).unwrap();
        let (gate, up) = (of("expert_gate", &x), of("expert_up", &x));
        of(
            "expert_down",
            &ops::gated(&gate, &up, Activation::Silu).unwrap(),
        )
    };
    let experts: Vec<Value> = (0..width).map(expert).collect();
    let out = ops::blend(&kept.weights, &experts.iter().collect::<Vec<_>>()).unwrap();
    case.near("out", &numbers(&out), &data(case, "out_p04"));
}

pub fn mi_loss(case: &Case) {
    let of = |t: usize| value(case, &format!("probs{t}"));
    let tasks: Vec<Value> = (0..case.number("tasks") as usize).map(of).collect();
    let found = gates::mutual_information(&tasks.iter().collect::<Vec<_>>()).unwrap();
    case.near("mi_loss", &number(&found), &data(case, "mi_loss"));
}

pub fn slimmable(case: &Case) {
    let (x, w, b) = (
        value(case, "x"),
        value(case, "w.weight"),
        value(case, "w.bias"),
    );
    for ratio in case.numbers("ratios") {
        let of = |width: usize| slim::channels(width, ratio).unwrap();
        let part = ops::narrow(&x, 1, 0, of(x.dims()[1])).unwrap();
        let found = slim::linear(&part, &w, Some(&b), of(w.dims()[0])).unwrap();
        let expected = data(case, &format!("out_{ratio:?}"));
        case.near(&format!("at {ratio}"), &numbers(&found), &expected);
    }
}

pub fn mt_deeponet(case: &Case) {
    let mut tensors = Vec::new();
    for (ours, theirs) in [
        ("source", "branch_f"),
        ("geometry", "branch_m"),
        ("trunk", "trunk"),
    ] {
        for i in 0..2 {
            for (part, suffix) in [("weight", ""), ("bias", ".b")] {
                let stored = value(case, &format!("w.{theirs}.{i}{suffix}"));
                tensors.push((format!("{ours}.layers.{i}.{part}"), stored.data().clone()));
            }
        }
    }
    let bias = case.number("bias") as f32;
    tensors.push(("bias".to_owned(), tensor(vec![bias], 1).unwrap()));
    let weights = Plain::new(tensors);
    let config = json!({"layers": 2, "hidden_act": case.param("activation")});
    let config: deeponet::Config = serde_json::from_value(config).unwrap();
    let model = DeepOnet::new(&config).unwrap();
    let of = |name: &str| value(case, name);
    let found = model.forward(&weights, &of("source"), &of("geometry_mask"), &of("coords"));
    let found = found.unwrap();
    case.near("out", &numbers(&found), &data(case, "out"));
    let loss = deeponet::inside_squares(&found, &of("target"), &of("point_mask")).unwrap();
    case.near("loss", &number(&loss), &data(case, "loss"));
}

/// Configurations and batches that do not fit: errors that name them.
#[test]
fn parts_that_lie() {
    let new = |layers: usize, act: &str| {
        let config = json!({"layers": layers, "hidden_act": act});
        DeepOnet::new(&serde_json::from_value::<deeponet::Config>(config).unwrap())
    };
    assert!(new(0, "tanh").unwrap_err().to_string().contains("0 layers"));
    assert!(new(2, "sine").unwrap_err().to_string().contains("`sine`"));
    let x = Value::constant(tensor(vec![0.0; 2], (1, 2)).unwrap());
    let said = deeponet::inside_squares(&x, &x, &x)
        .unwrap_err()
        .to_string();
    assert!(said.contains("no point inside"), "{said}");
}
