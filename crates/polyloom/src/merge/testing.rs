//! One tensor `w` through a method, for unit tests.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::method::{Job, TensorJob};
use super::params::complete;
use super::run::{Collect, Group, Memory, Options, run};
use crate::plan::{Composition, Inner};

/// The merged vector of task vectors against a zero base; experts are called `a`, `b`, ...
pub(crate) fn merged(method: &str, given: &[(&str, Value)], inputs: &[&[f32]]) -> Vec<f32> {
    let spec = super::find(method)
        .expect("the method is registered")
        .spec();
    let n = inputs.len();
    let pick = |each: bool| -> (Vec<_>, Map<String, Value>) {
        let params: Vec<_> = spec
            .params
            .iter()
            .filter(|p| p.each == each)
            .copied()
            .collect();
        let map = given
            .iter()
            .filter(|(k, _)| params.iter().any(|p| p.name == *k))
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        (params, map)
    };
    let values = |each: bool| {
        let (params, map) = pick(each);
        complete(&params, &map, false).expect("the parameters are right")
    };
    let on = spec.on.map(|name| {
        let inner = super::find(name)
            .expect("the inner method is registered")
            .spec();
        let fill = |each: bool| {
            let params: Vec<_> = inner
                .params
                .iter()
                .filter(|p| p.each == each)
                .copied()
                .collect();
            complete(&params, &Map::new(), false).expect("defaults are right")
        };
        Inner {
            method: inner.name,
            shared: fill(false),
            each: vec![fill(true); n],
            pre: Vec::new(),
        }
    });
    let composition = Composition {
        method: spec.name,
        on,
        pre: Vec::new(),
        post: Vec::new(),
    };
    let tensor = TensorJob {
        name: "w".into(),
        shape: vec![inputs[0].len()],
        shared: values(false),
        each: vec![values(true); n],
        layer: None,
        before: 0,
    };
    let job = Job {
        tensors: vec![Arc::new(tensor)],
        experts: (0..n)
            .map(|i| char::from(b'a' + i as u8).to_string())
            .collect(),
        has_base: true,
        seed: 0,
        statistics: None,
        inner_maker: None,
    };
    let base = vec![0.0; inputs[0].len()];
    let make = |job: &Job| composition.build(job);
    let group = Group {
        job: &job,
        deltas: composition.deltas(),
        scope: composition.scope(),
        make: &make,
    };
    let feed = Memory {
        base: vec![&base],
        inputs: inputs.iter().map(|x| vec![*x]).collect(),
    };
    let sink = Collect::new(&job.tensors);
    run(&group, None, &feed, &sink, &Options::default()).expect("the merge runs");
    sink.into_values().remove(0)
}
