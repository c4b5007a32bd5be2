//! TaskExpert: experts at every layer of a bottom, and a memory that every goal carries through the layers.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Init, Pass, TableModel, Tensors, mmoe};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&TaskExpert];

struct TaskExpert;

static SPEC: Spec = Spec {
    name: "task_expert",
    summary: "Experts at every layer of a shared bottom, mixed with a memory that each goal carries on",
    source: "Ye and Xu, ICCV 2023 (TaskExpert)",
    formula: "At layer `l` of the bottom, with its output `x`: `h_e = GELU(W_e x)`, `g_t = softmax` over `E + 1` of a linear map of `x`, `f_t = sum_e g_t[e] h_e + g_t[E + 1] m_t`; `m_t <- a f_t + (1 - a) m_t`, `a = sigmoid(W f_t)`. `m_t` starts as a learned vector; `h_t = tower_t` of the last `f_t`.",
    differs: "Our definition, from the paper, on rows of a table instead of patches of a picture.",
    uses: LAYERS,
    params: &[Param::shared(
        "experts",
        Kind::Integer(1, 1024),
        Unset::Number(4.0),
        "Experts of every layer.",
    )],
    golden: Golden::Cases(&["task_expert"]),
};

/// A goal's feature `[rows, width]` of the scores of its gate `[rows, experts + 1]`, the experts side by side and its memory.
///
/// # Errors
/// Shapes that do not fit together.
pub fn feature(scores: &Value, experts: &Value, memory: &Value) -> Result<Value> {
    ops::blend(&ops::softmax(scores)?, &[experts, memory])
}

/// The memory after a layer, of the scores of its update, the feature and the memory before.
///
/// # Errors
/// Shapes that do not fit together.
pub fn remembered(scores: &Value, feature: &Value, memory: &Value) -> Result<Value> {
    let share = ops::activate(scores, Activation::Sigmoid)?;
    ops::add(memory, &ops::mul(&share, &ops::sub(feature, memory)?)?)
}

impl Architecture for TaskExpert {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        mmoe::hidden(model)?;
        let hidden = &model.config.hidden;
        if hidden.iter().any(|w| *w != hidden[0]) {
            return Err(Error::Config {
                what: format!("hidden {hidden:?}: the memory of `task_expert` has one width"),
            });
        }
        Ok(())
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (hidden, experts) = (&model.config.hidden, model.count("experts"));
        to.front("", &model.config)?;
        let width = to.layers("bottom", model.input(), hidden)?;
        for goal in 0..model.goals() {
            let name = format!("goals.{goal}.memory.weight");
            to.add(name, &[1, width], Init::Normal(0.01))?;
        }
        for i in 0..hidden.len() {
            let shape = [experts * width, width];
            to.linear(&format!("experts.{i}"), shape, Init::he(width))?;
            for goal in 0..model.goals() {
                to.gate(&format!("goals.{goal}.gates.{i}"), [experts + 1, width])?;
                if i + 1 < hidden.len() {
                    to.gate(&format!("goals.{goal}.updates.{i}"), [width, width])?;
                }
            }
        }
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let layers = pass.model.config.hidden.len();
        let mut x = pass.features("")?;
        let mut memories: Vec<Value> = goals
            .iter()
            .map(|&goal| {
                let memory = pass.tensor(&format!("goals.{goal}.memory.weight"))?;
                ops::rows(&memory, &vec![0; pass.own_rows(goal)])
            })
            .collect::<Result<_>>()?;
        for i in 0..layers {
            x = pass.layer("bottom", i, 1, &x)?;
            let experts = pass.linear(&format!("experts.{i}"), &x)?;
            let experts = ops::activate(&experts, Activation::Gelu)?;
            for (&goal, memory) in goals.iter().zip(&mut memories) {
                let (x, experts) = (pass.own(goal, &x)?, pass.own(goal, &experts)?);
                let scores = pass.linear(&format!("goals.{goal}.gates.{i}"), &x)?;
                if let Some(watch) = pass.watch {
                    let (layer, its) = (format!("experts.{i}"), format!("goals.{goal}.memory"));
                    let parts = [(&*layer, &experts), (&*its, &*memory)];
                    let at = format!("goals.{goal}.gates.{i}");
                    watch.mixed(&at, &ops::softmax(&scores)?, &parts)?;
                }
                let found = feature(&scores, &experts, memory)?;
                *memory = if i + 1 == layers {
                    found
                } else {
                    let scores = pass.linear(&format!("goals.{goal}.updates.{i}"), &found)?;
                    remembered(&scores, &found, memory)?
                };
            }
        }
        pass.towers(goals, &memories)
    }
}
