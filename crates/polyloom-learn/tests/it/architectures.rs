//! Architectures over tables: the vectors of golden/joint/layers, and what must hold for every entry of the registry.

#![allow(clippy::print_stdout, reason = "tests say what they leave out")]

use std::collections::BTreeMap;

use polyloom_learn::engine::{Parameters, Value, slice, tensor};
use polyloom_learn::models::table::{TableBatch, TableModel};
use polyloom_learn::models::{Noted, Noting, Plain, Trained};

use super::balance::case::Case;
use super::balance::cases;

mod apem;
mod home;
mod hostile;
mod layers;
mod learning;
mod m2trec;
mod mtreclib;
mod multimodn;
mod multitab;
mod parts;
pub(crate) mod properties;

/// Cases that are computed here, by method.
fn solver(method: &str) -> Option<fn(&Case)> {
    Some(match method {
        "shared_bottom" | "single_task" | "mmoe" | "omoe" | "ple" | "aitm" => mtreclib::solve,
        "cross_stitch" => layers::cross_stitch,
        "dselect_k" => layers::dselect_k,
        "dtrn_refine" => layers::dtrn_refine,
        "task_expert" => layers::task_expert,
        "esmm" => layers::esmm,
        "m3vit_gate" => parts::m3vit_gate,
        "top_p_routing" => parts::top_p_routing,
        "mi_loss" => parts::mi_loss,
        "slimmable" => parts::slimmable,
        "mt_deeponet" => parts::mt_deeponet,
        "multimodn" => multimodn::solve,
        "home" => home::solve,
        "multitab" => multitab::solve,
        "multitab_mask" => multitab::masks,
        _ => return None,
    })
}

#[test]
fn golden_joint_layers() {
    let mut ran = BTreeMap::new();
    for (family, case) in cases() {
        let method = case.told["method"].as_str().unwrap().to_owned();
        // A sampler of tasks lies among the layers.
        if family != "layers" || method == "mpts" {
            continue;
        }
        let solve = solver(&method).unwrap_or_else(|| panic!("nothing computes {method}"));
        solve(&case);
        *ran.entry(method).or_insert(0) += 1;
    }
    println!("computed: {ran:?}");
    assert!(ran.len() >= 18, "{ran:?}");
}

/// Parameters in training; what batch norms say goes to `noted`.
fn training<'a>(parameters: &'a Parameters, frozen: &'a Plain, noted: &'a Noted) -> Noting<'a> {
    Noting {
        trained: Trained {
            parameters,
            frozen,
            seed: None,
        },
        noted,
    }
}

/// A tensor of a case as a value.
fn value(case: &Case, name: &str) -> Value {
    let (shape, values) = case.tensor("data", name);
    let values = values.iter().map(|x| *x as f32).collect();
    Value::constant(tensor(values, shape).unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    let dense = value.data().contiguous().unwrap();
    slice(&dense)
        .unwrap()
        .iter()
        .map(|x| f64::from(*x))
        .collect()
}

/// The rows of a case, in `num` and `cat`.
fn batch(case: &Case) -> TableBatch {
    let codes = case.tensor("data", "cat").1;
    let numbers = value(case, "num");
    TableBatch {
        before: Vec::new(),
        rows: numbers.dims()[0],
        numbers,
        codes: codes.iter().map(|c| *c as u32).collect(),
    }
}

/// All goals of a model.
fn all(model: &TableModel) -> std::ops::Range<usize> {
    0..model.config.goals.len()
}
