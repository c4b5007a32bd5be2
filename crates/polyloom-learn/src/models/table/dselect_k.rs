//! DSelect-k: shared experts behind gates that come to choose `k` of them, smoothly.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Pass, TableModel, Tensors, mmoe};
use crate::engine::{Value, tensor};
use crate::error::Result;
use crate::ops;

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&DSelectK];

struct DSelectK;

static SPEC: Spec = Spec {
    name: "dselect_k",
    summary: "Mixture of experts whose gates learn to choose k experts: smooth binary codes of their numbers",
    source: "Hazimeh et al., NeurIPS 2021; LibMTL architecture/DSelect_k.py",
    formula: "As mmoe; gate: `k` selectors of `ceil(log2 E)` bits `S(z)`, `z` linear in `x`, `S(z) = -2 z^3 / gamma^3 + 3 z / (2 gamma) + 1/2` within `gamma / 2` of 0, else 0 or 1. A selector gives expert `e` the product of its bits, or `1 -` them, by the binary digits of `e`, the highest first; selectors are mixed by the softmax of a linear layer.",
    differs: "Trained without the gates' penalty on entropies, whose weight there is 1e-6; `dselect_k::penalty` of the library computes it.",
    uses: LAYERS,
    params: &[
        Param::shared(
            "experts",
            Kind::Integer(2, 1024),
            Unset::Number(8.0),
            "Experts.",
        ),
        Param::shared(
            "selectors",
            Kind::Integer(1, 64),
            Unset::Number(2.0),
            "Experts that a gate comes to choose: k.",
        ),
        Param::shared(
            "gamma",
            Kind::Number(1e-3, 1e3),
            Unset::Number(1.0),
            "Width of the smooth step.",
        ),
    ],
    golden: Golden::Cases(&["dselect_k"]),
};

/// Bits of the numbers of some experts.
fn bits(experts: usize) -> usize {
    experts.next_power_of_two().trailing_zeros() as usize
}

/// What selectors give to experts: `[rows, k * experts]` of the scores of their bits `[rows, k * bits]`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn selectors(scores: &Value, k: usize, experts: usize, gamma: f32) -> Result<Value> {
    let (n, wide) = (bits(experts), k * experts);
    let steps = ops::smooth_step(scores, gamma)?;
    let mut all: Option<Value> = None;
    for bit in 0..n {
        // The bit where an expert's number has it, 1 less the bit where not: a linear map.
        let (mut weight, mut bias) = (vec![0f32; wide * k * n], vec![0f32; wide]);
        for (i, bias) in bias.iter_mut().enumerate() {
            let (selector, expert) = (i / experts, i % experts);
            let has = expert >> (n - 1 - bit) & 1 == 1;
            weight[i * k * n + selector * n + bit] = if has { 1.0 } else { -1.0 };
            *bias = if has { 0.0 } else { 1.0 };
        }
        let weight = Value::constant(tensor(weight, (wide, k * n))?);
        let bias = Value::constant(tensor(bias, wide)?);
        let factor = ops::linear(&steps, &weight, Some(&bias))?;
        all = Some(match all {
            Some(product) => ops::mul(&product, &factor)?,
            None => factor,
        });
    }
    all.ok_or_else(|| crate::Error::shape("selectors", "one expert has no bits"))
}

/// What the paper and LibMTL add to the loss of every gate, times 1e-6: the sum of the entropies of its selectors `[rows, k *
/// experts]` and, for a number of experts that is no power of two, of the reciprocals of what each gives in all.
///
/// # Errors
/// Shapes that do not fit together.
pub fn penalty(selectors: &Value, experts: usize) -> Result<Value> {
    let entropy = ops::sum(&ops::entropies(selectors, 1e-6)?)?;
    if experts.is_power_of_two() {
        return Ok(entropy);
    }
    let each = selectors.data().elem_count() / experts;
    let parts = ops::reshape(selectors, &[each, experts])?;
    let ones = Value::constant(tensor(vec![1.0; experts], (experts, 1))?);
    let given = ops::product(&parts, &ones)?;
    ops::add(&entropy, &ops::sum(&ops::reciprocal(&given, 1e-6)?)?)
}

/// Weights of the experts `[rows, experts]` for a goal.
fn gate(pass: &Pass<'_>, goal: usize, x: &Value) -> Result<Value> {
    let (experts, k) = (pass.model.count("experts"), pass.model.count("selectors"));
    let gamma = pass.model.values.number("gamma") as f32;
    let scores = pass.linear(&format!("goals.{goal}.gate.bits"), x)?;
    let chosen = selectors(&scores, k, experts, gamma)?;
    let mix = pass.gate(&format!("goals.{goal}.gate.mix"), x)?;
    ops::blend(&mix, &[&chosen])
}

impl Architecture for DSelectK {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        mmoe::hidden(model)
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (input, experts) = (model.input(), model.count("experts"));
        let k = model.count("selectors");
        to.front("", &model.config)?;
        let width = to.experts("experts", experts, input, &model.config.hidden)?;
        for goal in 0..model.goals() {
            to.gate(
                &format!("goals.{goal}.gate.bits"),
                [k * bits(experts), input],
            )?;
            to.gate(&format!("goals.{goal}.gate.mix"), [k, input])?;
        }
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let x = pass.features("")?;
        let layers = pass.model.config.hidden.len();
        let experts = pass.experts("experts", pass.model.count("experts"), &x, layers)?;
        let mixed: Vec<Value> = goals
            .iter()
            .map(|&goal| {
                let gate = gate(pass, goal, &pass.own(goal, &x)?)?;
                let experts = pass.own(goal, &experts)?;
                pass.mix(
                    &format!("goals.{goal}.gate"),
                    &gate,
                    &[("experts", &experts)],
                )
            })
            .collect::<Result<_>>()?;
        pass.towers(goals, &mixed)
    }
}
