//! HoME: experts in a hierarchy of all goals, groups of goals and goals, so that a goal never sees what only another group
//! needs.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Init, Pass, TableModel, Tensors};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Home];

struct Home;

static SPEC: Spec = Spec {
    name: "home",
    summary: "Hierarchy of multi-gate experts: of all goals, of groups of goals, of goals, each behind a gate over features",
    source: "Wang et al., KDD 2025 (arXiv 2408.05430)",
    formula: "Fea-Gate of a node: `v * sum_l m_l 2 sigmoid(v A_l B_l)`, `m = softmax(W v)`. Every node has experts on its Fea-Gate. First level, on `x`: group `g` gives `gate_g(x) [shared, own] + self_g(x) [own]`, the shared node `gate(x) [shared, all groups] + self(x) [shared]`. Second level: shared experts read the shared output, experts of groups and goals that of their group; goal `t`: `gate_t([z_g; z_s]) [shared, group, own] + self_t([z_g; z_s]) [own]`. `h_t = tower_t` of it. The first half of `hidden` is of the first level, the second of the second.",
    differs: "Our definition, from the paper; its experts have `norm = \"batch\"` and `activation = \"silu\"`, which are not the defaults here.",
    uses: LAYERS,
    params: &[
        Param::shared(
            "experts",
            Kind::Integer(1, 1024),
            Unset::Number(2.0),
            "Experts of every node.",
        ),
        Param::shared(
            "groups",
            Kind::Names,
            Unset::Nothing,
            "A name for every goal, in order: goals of one name are a group; unset: all are one.",
        ),
        Param::shared(
            "parts",
            Kind::Integer(1, 64),
            Unset::Number(2.0),
            "Low-rank gates of a Fea-Gate.",
        ),
        Param::shared(
            "rank",
            Kind::Integer(1, 65536),
            Unset::Nothing,
            "Their rank; unset: the width of what they gate over `parts`.",
        ),
    ],
    golden: Golden::Cases(&["home"]),
};

/// Which goals belong together.
struct Groups {
    /// Group of every goal.
    of: Vec<usize>,
    count: usize,
}

impl Groups {
    fn of(model: &TableModel) -> Self {
        let names = model.values.names("groups");
        let mut seen: Vec<&str> = Vec::new();
        let mut of = vec![0; model.goals()];
        for (group, name) in of.iter_mut().zip(names) {
            *group = seen.iter().position(|s| *s == name).unwrap_or(seen.len());
            if *group == seen.len() {
                seen.push(name);
            }
        }
        Self {
            of,
            count: seen.len().max(1),
        }
    }

    /// A part that only the goals of a group use.
    fn name(&self, group: usize, part: &str) -> String {
        let mut members = (0..self.of.len()).filter(|g| self.of[*g] == group);
        match (members.next(), members.next()) {
            (Some(goal), None) => format!("goals.{goal}.{part}"),
            _ => format!("groups.{group}.{part}"),
        }
    }

    /// Groups of some goals, each once.
    fn of_goals(&self, goals: &[usize]) -> Vec<usize> {
        let mut found: Vec<usize> = goals.iter().map(|g| self.of[*g]).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The experts of a group at the first level, which the shared node reads too.
fn meta(group: usize) -> String {
    format!("meta.{group}")
}

/// A node: its Fea-Gate and its experts.
fn declare_node(
    model: &TableModel,
    to: &mut Tensors,
    name: &str,
    width: usize,
    layers: &[usize],
) -> Result<usize> {
    let parts = model.count("parts");
    let rank = match model.count("rank") {
        0 => (width / parts).max(1),
        rank => rank,
    };
    let fea = |part: &str| format!("{name}.fea.{part}");
    to.add(
        fea("down.weight"),
        &[parts * rank, width],
        Init::xavier(width, rank),
    )?;
    to.add(
        fea("up.weight"),
        &[parts * width, rank],
        Init::xavier(rank, width),
    )?;
    to.gate(&fea("mix"), [parts, width])?;
    to.experts(name, model.count("experts"), width, layers)
}

/// The outputs of a node's experts, side by side.
fn node(pass: &Pass<'_>, name: &str, v: &Value, layers: usize) -> Result<Value> {
    let model = pass.model;
    let fea = |part: &str| format!("{name}.fea.{part}");
    let low = pass.linear(&fea("down"), v)?;
    let up = pass.tensor(&fea("up.weight"))?;
    let gates = ops::grouped_linear(&low, &up, None, model.count("parts"))?;
    let gates = ops::activate(&gates, Activation::Sigmoid)?;
    let gate = ops::blend(&pass.gate(&fea("mix"), v)?, &[&gates])?;
    let seen = ops::scale(&ops::mul(v, &gate)?, 2.0)?;
    pass.experts(name, model.count("experts"), &seen, layers)
}

/// A gate over a node's own experts: softmax, or sigmoid where there is one.
fn own_gate(pass: &Pass<'_>, name: &str, x: &Value, own: (&str, &Value)) -> Result<Value> {
    let weights = match pass.model.count("experts") {
        1 => ops::activate(&pass.linear(name, x)?, Activation::Sigmoid)?,
        _ => pass.gate(name, x)?,
    };
    pass.mix(name, &weights, &[own])
}

impl Architecture for Home {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        let layers = model.config.hidden.len();
        if layers == 0 || !layers.is_multiple_of(2) {
            return Err(Error::Config {
                what: format!(
                    "hidden has {layers} layers; `home` deals them out to two levels: an even number"
                ),
            });
        }
        let names = model.values.names("groups").len();
        if names != 0 && names != model.goals() {
            return Err(Error::Config {
                what: format!(
                    "groups has {names} names for {} goals: one for each",
                    model.goals()
                ),
            });
        }
        Ok(())
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (groups, n, input) = (Groups::of(model), model.count("experts"), model.input());
        let (first, second) = model.config.hidden.split_at(model.config.hidden.len() / 2);
        to.front("", &model.config)?;
        let width = declare_node(model, to, "meta.shared", input, first)?;
        to.gate("meta.shared.gate", [n * (1 + groups.count), input])?;
        to.gate("meta.shared.self", [n, input])?;
        for group in 0..groups.count {
            declare_node(model, to, &meta(group), input, first)?;
            to.gate(&groups.name(group, "meta.gate"), [2 * n, input])?;
            to.gate(&groups.name(group, "meta.self"), [n, input])?;
        }
        let last = declare_node(model, to, "shared", width, second)?;
        for group in 0..groups.count {
            declare_node(model, to, &groups.name(group, "group"), width, second)?;
        }
        for goal in 0..model.goals() {
            declare_node(model, to, &format!("goals.{goal}.own"), width, second)?;
            to.gate(&format!("goals.{goal}.gate"), [3 * n, 2 * width])?;
            to.gate(&format!("goals.{goal}.self"), [n, 2 * width])?;
        }
        to.towers(&model.config, last)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let groups = Groups::of(pass.model);
        let layers = pass.model.config.hidden.len() / 2;
        let x = pass.features("")?;
        let shared = node(pass, "meta.shared", &x, layers)?;
        let own: Vec<Value> = (0..groups.count)
            .map(|group| node(pass, &meta(group), &x, layers))
            .collect::<Result<_>>()?;
        let names: Vec<String> = (0..groups.count).map(meta).collect();
        let of_groups = names.iter().map(String::as_str).zip(&own);
        let parts: Vec<(&str, &Value)> = [("meta.shared", &shared)]
            .into_iter()
            .chain(of_groups)
            .collect();
        let at = "meta.shared.gate";
        let common = ops::add(
            &pass.mix(at, &pass.gate(at, &x)?, &parts)?,
            &own_gate(pass, "meta.shared.self", &x, parts[0])?,
        )?;
        let wide = node(pass, "shared", &common, layers)?;
        let mut found: Vec<Option<Value>> = vec![None; goals.len()];
        for group in groups.of_goals(goals) {
            let at = groups.name(group, "meta.gate");
            let here = [parts[0], parts[1 + group]];
            let z = ops::add(
                &pass.mix(&at, &pass.gate(&at, &x)?, &here)?,
                &own_gate(pass, &groups.name(group, "meta.self"), &x, here[1])?,
            )?;
            let name = groups.name(group, "group");
            let middle = node(pass, &name, &z, layers)?;
            let both = ops::concat(&[&z, &common], 1)?;
            for (place, &goal) in goals.iter().enumerate() {
                if groups.of[goal] != group {
                    continue;
                }
                let rows = |x: &Value| pass.own(goal, x);
                let (both, wide, middle) = (rows(&both)?, rows(&wide)?, rows(&middle)?);
                let its = format!("goals.{goal}.own");
                let own = node(pass, &its, &rows(&z)?, layers)?;
                let at = format!("goals.{goal}.gate");
                let parts = [("shared", &wide), (&*name, &middle), (&*its, &own)];
                found[place] = Some(ops::add(
                    &pass.mix(&at, &pass.gate(&at, &both)?, &parts)?,
                    &own_gate(pass, &format!("goals.{goal}.self"), &both, parts[2])?,
                )?);
            }
        }
        let found: Vec<Value> = found.into_iter().flatten().collect();
        pass.towers(goals, &found)
    }
}
