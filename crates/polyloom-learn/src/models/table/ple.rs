//! Progressive layered extraction: at every level experts of all goals and experts of each goal, mixed by gates that read
//! what the level reads.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Pass, TableModel, Tensors, mmoe};
use crate::engine::Value;
use crate::error::{Error, Result};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Ple];

struct Ple;

static SPEC: Spec = Spec {
    name: "ple",
    summary: "Progressive layered extraction: experts of all goals beside experts of each goal, level by level",
    source: "Tang et al., RecSys 2020; MTReclib models/ple.py",
    formula: "Level `l`: `x_t <- sum g_t(x_t) [experts of t (x_t), shared experts (x_s)]`, and but for the last level `x_s <- sum g_s(x_s) [experts of 1, ..., of T, shared experts]`; all read what the level before gave. `h_t = tower_t(x_t)`. One level is CGC. `hidden` is dealt out to the levels in order.",
    differs: "LibMTL's PLE gives shared experts the inputs of the goals; here, as in the paper, they read their own. Gates weigh own experts first, then shared ones (MTReclib's order).",
    uses: LAYERS,
    params: &[
        Param::shared(
            "shared_experts",
            Kind::Integer(1, 1024),
            Unset::Number(4.0),
            "Experts of all goals, at every level.",
        ),
        Param::shared(
            "task_experts",
            Kind::Integer(1, 1024),
            Unset::Number(2.0),
            "Experts of each goal, at every level.",
        ),
        Param::shared(
            "levels",
            Kind::Integer(1, 64),
            Unset::Nothing,
            "Levels, a divisor of the layers in `hidden`: each takes as many of them; unset: one level a layer.",
        ),
    ],
    golden: Golden::Cases(&["ple"]),
};

/// Sizes of a model.
struct Sizes {
    levels: usize,
    /// Layers of an expert.
    depth: usize,
    shared: usize,
    own: usize,
    goals: usize,
}

impl Sizes {
    fn of(model: &TableModel) -> Self {
        let layers = model.config.hidden.len();
        let levels = match model.count("levels") {
            0 => layers,
            levels => levels,
        };
        Self {
            levels,
            depth: layers / levels.max(1),
            shared: model.count("shared_experts"),
            own: model.count("task_experts"),
            goals: model.goals(),
        }
    }

    /// Whether a level is the last: nothing of it reaches other goals.
    fn last(&self, level: usize) -> bool {
        level + 1 == self.levels
    }

    /// The experts of a goal: of it alone at the last level, else the shared gate reads them too.
    fn experts(&self, level: usize, goal: usize) -> String {
        match self.last(level) {
            true => format!("goals.{goal}.levels.{level}"),
            false => format!("levels.{level}.tasks.{goal}"),
        }
    }

    /// The gate of a goal: what it mixes goes on to experts of the next level, and so to all but at the last two.
    fn gate(&self, level: usize, goal: usize) -> String {
        match level + 2 >= self.levels {
            true => format!("goals.{goal}.levels.{level}.gate"),
            false => format!("levels.{level}.tasks.{goal}.gate"),
        }
    }
}

impl Architecture for Ple {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        mmoe::hidden(model)?;
        let (sizes, layers) = (Sizes::of(model), model.config.hidden.len());
        if sizes.levels > layers || !layers.is_multiple_of(sizes.levels) {
            return Err(Error::Config {
                what: format!(
                    "levels {} for {layers} layers in hidden: each level takes as many",
                    sizes.levels
                ),
            });
        }
        Ok(())
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let s = Sizes::of(model);
        to.front("", &model.config)?;
        let mut input = model.input();
        for level in 0..s.levels {
            let widths = &model.config.hidden[level * s.depth..][..s.depth];
            let shared = format!("levels.{level}.shared");
            let width = to.experts(&shared, s.shared, input, widths)?;
            for goal in 0..s.goals {
                to.experts(&s.experts(level, goal), s.own, input, widths)?;
                to.gate(&s.gate(level, goal), [s.own + s.shared, input])?;
            }
            if !s.last(level) {
                let all = s.goals * s.own + s.shared;
                to.gate(&format!("{shared}.gate"), [all, input])?;
            }
            input = width;
        }
        to.towers(&model.config, input)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let s = Sizes::of(pass.model);
        let mut common = pass.features("")?;
        // Inputs of the goals that this level computes, by goal.
        let mut inputs = vec![common.clone(); s.goals];
        let every: Vec<usize> = (0..s.goals).collect();
        for level in 0..s.levels {
            // Before the last level the shared gate reads the experts of every goal.
            let here = if s.last(level) { goals } else { &every };
            let next = if level + 2 >= s.levels { goals } else { &every };
            let name = format!("levels.{level}.shared");
            let shared = pass.experts(&name, s.shared, &common, s.depth)?;
            let mut own = vec![None; s.goals];
            for &goal in here {
                if s.last(level) {
                    inputs[goal] = pass.own(goal, &inputs[goal])?;
                }
                let name = s.experts(level, goal);
                own[goal] = Some(pass.experts(&name, s.own, &inputs[goal], s.depth)?);
            }
            for &goal in next {
                if let Some(own) = &own[goal] {
                    let shared = match s.last(level) {
                        true => &pass.own(goal, &shared)?,
                        false => &shared,
                    };
                    let at = s.gate(level, goal);
                    let gate = pass.gate(&at, &inputs[goal])?;
                    let parts = [(&*s.experts(level, goal), own), (&*name, shared)];
                    inputs[goal] = pass.mix(&at, &gate, &parts)?;
                }
            }
            if !s.last(level) {
                let at = format!("{name}.gate");
                let gate = pass.gate(&at, &common)?;
                let names: Vec<String> = every.iter().map(|goal| s.experts(level, *goal)).collect();
                let names = names.iter().chain([&name]).map(String::as_str);
                let parts = own.iter().flatten().chain([&shared]);
                common = pass.mix(&at, &gate, &names.zip(parts).collect::<Vec<_>>())?;
            }
        }
        let found: Vec<Value> = goals.iter().map(|g| inputs[*g].clone()).collect();
        pass.towers(goals, &found)
    }
}
