//! Adaptive information transfer: goals in a chain, where a goal attends to what the one before it found.

use super::architecture::{Architecture, Golden, LAYERS, Spec};
use super::{Pass, TableModel, Tensors};
use crate::engine::{Value, tensor};
use crate::error::Result;
use crate::ops;

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Aitm];

struct Aitm;

static SPEC: Spec = Spec {
    name: "aitm",
    summary: "Adaptive information transfer along a chain of goals, such as impression, click, purchase",
    source: "Xi et al., KDD 2021; MTReclib models/aitm.py",
    formula: "`f_t = bottom_t(x)`; for `t >= 2`, with `p = W_t f_(t-1) + b_t` (the updated one) and `q = f_t`: `f_t <- sum over v in {p, q} of softmax((K v . Q v) / sqrt(d)) V v`. `h_t = tower_t(f_t)`. The goals are in the order of the chain.",
    differs: "`V`, `K`, `Q` are shared over the chain with biases, as in MTReclib; torch-rechub has them by pair, without biases. The calibrator's loss is `train.chain` with `loss = \"ordered\"`.",
    uses: LAYERS,
    params: &[],
    golden: Golden::Cases(&["aitm"]),
};

/// A tensor that the goals from `first` on use: by its part, or where only the last goal does as that goal's own.
fn name(model: &TableModel, first: usize, part: &str) -> String {
    match first + 1 == model.goals() {
        true => format!("goals.{first}.{part}"),
        false => part.to_owned(),
    }
}

fn bottom(model: &TableModel, goal: usize) -> String {
    match goal + 1 == model.goals() {
        true => format!("goals.{goal}.bottom"),
        false => format!("bottoms.{goal}"),
    }
}

fn transfer(model: &TableModel, goal: usize) -> String {
    match goal + 1 == model.goals() {
        true => format!("goals.{goal}.transfer"),
        false => format!("transfers.{goal}"),
    }
}

impl Architecture for Aitm {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        to.front("", &model.config)?;
        let mut width = model.input();
        for goal in 0..model.goals() {
            let bottom = bottom(model, goal);
            width = to.layers(&bottom, model.input(), &model.config.hidden)?;
            if goal > 0 {
                to.gate(&transfer(model, goal), [width, width])?;
            }
        }
        if model.goals() > 1 {
            for part in ["value", "key", "query"] {
                let name = name(model, 1, &format!("attention.{part}"));
                to.gate(&name, [width, width])?;
            }
        }
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let (model, x) = (pass.model, pass.features("")?);
        let mut found: Vec<Value> = Vec::new();
        for goal in 0..goals.last().map_or(0, |last| last + 1) {
            let layers = model.config.hidden.len();
            let own = pass.layers(&bottom(model, goal), &x, layers)?;
            found.push(match found.last() {
                None => own,
                Some(before) => {
                    let given = pass.linear(&transfer(model, goal), before)?;
                    attended(pass, &given, &own)?
                }
            });
        }
        let own = goals.iter().map(|goal| pass.own(*goal, &found[*goal]));
        pass.towers(goals, &own.collect::<Result<Vec<_>>>()?)
    }
}

/// The values of what was given and of what is there, weighed by how well key and query of each agree.
fn attended(pass: &Pass<'_>, given: &Value, own: &Value) -> Result<Value> {
    let (rows, width) = (given.dims()[0], given.dims()[1]);
    let both = ops::concat(&[given, own], 0)?;
    let part = |part: &str| {
        let name = name(pass.model, 1, &format!("attention.{part}"));
        pass.linear(&name, &both)
    };
    let agree = ops::mul(&part("key")?, &part("query")?)?;
    let scale = vec![1.0 / (width as f32).sqrt(); width];
    let scores = ops::product(&agree, &Value::constant(tensor(scale, (width, 1))?))?;
    let of = |x: &Value, first: usize| ops::narrow(x, 0, first, rows);
    let weights = ops::softmax(&ops::concat(&[&of(&scores, 0)?, &of(&scores, rows)?], 1)?)?;
    let values = part("value")?;
    ops::blend(&weights, &[&of(&values, 0)?, &of(&values, rows)?])
}
