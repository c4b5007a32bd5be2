//! Experts that all goals share, mixed by a gate of each goal or by one gate.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Pass, TableModel, Tensors};
use crate::engine::Value;
use crate::error::{Error, Result};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Mmoe, &Omoe];

/// How many experts.
pub(super) const EXPERTS: Param = Param::shared(
    "experts",
    Kind::Integer(1, 1024),
    Unset::Number(8.0),
    "Experts.",
);

/// Experts need a layer.
///
/// # Errors
/// `hidden` is empty.
pub(super) fn hidden(model: &TableModel) -> Result<()> {
    match model.config.hidden.is_empty() {
        false => Ok(()),
        true => Err(Error::Config {
            what: format!(
                "hidden is empty: the experts of `{}` have a layer at least",
                model.config.architecture
            ),
        }),
    }
}

struct Mmoe;

static MMOE: Spec = Spec {
    name: "mmoe",
    summary: "Multi-gate mixture of experts: all goals share the experts, each has its gate",
    source: "Ma et al., KDD 2018; MTReclib models/mmoe.py, LibMTL architecture/MMoE.py",
    formula: "`h_t = tower_t(sum_e g_t[e] expert_e(x))`, `g_t = softmax(W_t x + b_t)`",
    differs: "",
    uses: LAYERS,
    params: &[EXPERTS],
    golden: Golden::Cases(&["mmoe"]),
};

impl Architecture for Mmoe {
    fn spec(&self) -> &'static Spec {
        &MMOE
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        hidden(model)
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (input, experts) = (model.input(), model.count("experts"));
        to.front("", &model.config)?;
        let width = to.experts("experts", experts, input, &model.config.hidden)?;
        for goal in 0..model.goals() {
            to.gate(&format!("goals.{goal}.gate"), [experts, input])?;
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
                let name = format!("goals.{goal}.gate");
                let gate = pass.gate(&name, &pass.own(goal, &x)?)?;
                pass.mix(&name, &gate, &[("experts", &pass.own(goal, &experts)?)])
            })
            .collect::<Result<_>>()?;
        pass.towers(goals, &mixed)
    }
}

struct Omoe;

static OMOE: Spec = Spec {
    name: "omoe",
    summary: "Mixture of experts with one gate that all goals share",
    source: "Jacobs et al. 1991; MTReclib models/omoe.py",
    formula: "`h_t = tower_t(sum_e g[e] expert_e(x))`, `g = softmax(W x + b)`",
    differs: "",
    uses: LAYERS,
    params: &[EXPERTS],
    golden: Golden::Cases(&["omoe"]),
};

impl Architecture for Omoe {
    fn spec(&self) -> &'static Spec {
        &OMOE
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        hidden(model)
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (input, experts) = (model.input(), model.count("experts"));
        to.front("", &model.config)?;
        let width = to.experts("experts", experts, input, &model.config.hidden)?;
        to.gate("gate", [experts, input])?;
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let x = pass.features("")?;
        let layers = pass.model.config.hidden.len();
        let experts = pass.experts("experts", pass.model.count("experts"), &x, layers)?;
        let mixed = pass.mix("gate", &pass.gate("gate", &x)?, &[("experts", &experts)])?;
        let own = goals.iter().map(|goal| pass.own(*goal, &mixed));
        pass.towers(goals, &own.collect::<Result<Vec<_>>>()?)
    }
}
