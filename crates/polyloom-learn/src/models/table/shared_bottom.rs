//! One perceptron below all towers, and its opposite: a model of its own for every goal.

use super::architecture::{Architecture, Golden, LAYERS, Spec};
use super::{Pass, TableModel, Tensors};
use crate::engine::Value;
use crate::error::Result;

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&SharedBottom, &SingleTask];

struct SharedBottom;

static SHARED: Spec = Spec {
    name: "shared_bottom",
    summary: "One bottom for all goals, a tower for each",
    source: "Caruana 1997; MTReclib models/sharedbottom.py",
    formula: "`h_t = tower_t(bottom(x))`",
    differs: "",
    uses: LAYERS,
    params: &[],
    golden: Golden::Cases(&["shared_bottom"]),
};

impl Architecture for SharedBottom {
    fn spec(&self) -> &'static Spec {
        &SHARED
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        to.front("", &model.config)?;
        let width = to.layers("bottom", model.input(), &model.config.hidden)?;
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let x = pass.features("")?;
        let bottom = pass.layers("bottom", &x, pass.model.config.hidden.len())?;
        let own = goals.iter().map(|goal| pass.own(*goal, &bottom));
        pass.towers(goals, &own.collect::<Result<Vec<_>>>()?)
    }
}

struct SingleTask;

static SINGLE: Spec = Spec {
    name: "single_task",
    summary: "A whole model for every goal: what sharing is measured against",
    source: "MTReclib models/singletask.py",
    formula: "`h_t = tower_t(bottom_t(x_t))`, embeddings and all by goal",
    differs: "",
    uses: LAYERS,
    params: &[],
    golden: Golden::Cases(&["single_task"]),
};

impl Architecture for SingleTask {
    fn spec(&self) -> &'static Spec {
        &SINGLE
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let mut width = model.input();
        for goal in 0..model.goals() {
            to.front(&format!("goals.{goal}."), &model.config)?;
            let bottom = format!("goals.{goal}.bottom");
            width = to.layers(&bottom, model.input(), &model.config.hidden)?;
        }
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let bottoms: Vec<Value> = goals
            .iter()
            .map(|&goal| {
                let x = pass.own_features(goal)?;
                let bottom = format!("goals.{goal}.bottom");
                pass.layers(&bottom, &x, pass.model.config.hidden.len())
            })
            .collect::<Result<_>>()?;
        pass.towers(goals, &bottoms)
    }
}
