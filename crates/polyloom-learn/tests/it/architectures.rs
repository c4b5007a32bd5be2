//! Architectures over tables: the vectors of golden/joint/layers, and what must hold for every entry of the registry.

#![allow(clippy::print_stdout, reason = "tests say what they leave out")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use polyloom_learn::Result;
use polyloom_learn::engine::{Parameters, Value, slice, tensor};
use polyloom_learn::models::table::{TableBatch, TableModel};
use polyloom_learn::models::{Plain, Source, Trained};

use super::balance::case::Case;
use super::balance::cases;

mod home;
mod layers;
mod mtreclib;
mod multitab;
mod properties;

/// Cases that are computed here, by method.
fn solver(method: &str) -> Option<fn(&Case)> {
    Some(match method {
        "shared_bottom" | "single_task" | "mmoe" | "omoe" | "ple" | "aitm" => mtreclib::solve,
        "cross_stitch" => layers::cross_stitch,
        "dselect_k" => layers::dselect_k,
        "dtrn_refine" => layers::dtrn_refine,
        "task_expert" => layers::task_expert,
        "esmm" => layers::esmm,
        "home" => home::solve,
        "multitab" => multitab::solve,
        "multitab_mask" => multitab::masks,
        _ => return None,
    })
}

/// What is not of tables and not here: why.
fn elsewhere(method: &str) -> Option<&'static str> {
    Some(match method {
        "mpts" => "a sampler of tasks",
        _ => return None,
    })
}

#[test]
fn golden_joint_layers() {
    let (mut ran, mut left) = (BTreeMap::new(), BTreeMap::new());
    for (family, case) in cases() {
        if family != "layers" {
            continue;
        }
        let method = case.told["method"].as_str().unwrap().to_owned();
        match solver(&method) {
            Some(solve) => {
                solve(&case);
                *ran.entry(method).or_insert(0) += 1;
            }
            None => {
                let why = elsewhere(&method).unwrap_or("not yet an architecture of the registry");
                *left.entry((method, why)).or_insert(0) += 1;
            }
        }
    }
    println!("computed: {ran:?}\nnot here: {left:?}");
}

/// Parameters in training, statistics of the batch, and what they say of the running ones.
struct Training<'a> {
    inner: Trained<'a>,
    noted: RefCell<BTreeMap<String, Vec<f32>>>,
}

impl Source for Training<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.inner.find(name)
    }

    fn batch_statistics(&self) -> bool {
        true
    }

    fn note(&self, name: &str, values: Vec<f32>) {
        self.noted.borrow_mut().insert(name.to_owned(), values);
    }
}

fn training<'a>(parameters: &'a Parameters, frozen: &'a Plain) -> Training<'a> {
    Training {
        inner: Trained {
            parameters,
            frozen,
            seed: None,
        },
        noted: RefCell::default(),
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
        rows: numbers.dims()[0],
        numbers,
        codes: codes.iter().map(|c| *c as u32).collect(),
    }
}

/// All goals of a model.
fn all(model: &TableModel) -> std::ops::Range<usize> {
    0..model.config.goals.len()
}
