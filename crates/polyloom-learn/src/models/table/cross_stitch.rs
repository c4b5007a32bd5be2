//! Cross-stitch networks: a column of layers for every goal, whose outputs are mixed after each layer.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Init, Pass, TableModel, Tensors, mmoe};
use crate::engine::{Value, tensor};
use crate::error::Result;
use crate::ops;

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&CrossStitch];

struct CrossStitch;

static SPEC: Spec = Spec {
    name: "cross_stitch",
    summary: "Cross-stitch: a column of layers for every goal, mixed by learned numbers after each",
    source: "Misra et al., CVPR 2016; LibMTL architecture/Cross_stitch.py",
    formula: "After layer `l`: `x_t <- sum_j c_tj x_j`, `c` learned, one number a pair of goals or (`channels`) one a channel. `h_t = tower_t(x_t)`",
    differs: "`c` starts at 0.9 on the diagonal and `0.1 / (T - 1)` elsewhere; LibMTL starts with ones everywhere.",
    uses: LAYERS,
    params: &[Param::shared(
        "channels",
        Kind::Flag,
        Unset::Flag(false),
        "One number for every channel, as in the paper, instead of one for all.",
    )],
    golden: Golden::Cases(&["cross_stitch"]),
};

impl Architecture for CrossStitch {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        mmoe::hidden(model)
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let n = model.goals();
        to.front("", &model.config)?;
        let width = to.experts("columns", n, model.input(), &model.config.hidden)?;
        let init = match n {
            1 => Init::Constant(1.0),
            _ => Init::Diagonal(0.9, 0.1 / (n - 1) as f32),
        };
        for (i, width) in model.config.hidden.iter().enumerate() {
            let columns = match model.values.flag("channels") {
                true => n * width,
                false => n,
            };
            to.add(format!("stitches.{i}.weight"), &[n, columns], init)?;
        }
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let (n, layers) = (pass.model.goals(), pass.model.config.hidden.len());
        let mut x = pass.features("")?;
        for i in 0..layers {
            let columns = pass.layer("columns", i, n, &x)?;
            let stitch = pass.tensor(&format!("stitches.{i}.weight"))?;
            if i + 1 == layers {
                let mixed: Vec<Value> = goals
                    .iter()
                    .map(|&goal| mixed(pass, &pass.own(goal, &columns)?, &stitch, goal))
                    .collect::<Result<_>>()?;
                return pass.towers(goals, &mixed);
            }
            let all: Vec<Value> = (0..n)
                .map(|goal| mixed(pass, &columns, &stitch, goal))
                .collect::<Result<_>>()?;
            x = match all.as_slice() {
                [one] => one.clone(),
                _ => ops::concat(&all.iter().collect::<Vec<_>>(), 1)?,
            };
        }
        let own = goals.iter().map(|goal| pass.own(*goal, &x));
        pass.towers(goals, &own.collect::<Result<Vec<_>>>()?)
    }
}

/// What a goal goes on with: `[rows, width]` of the columns `[rows, T * width]`.
fn mixed(pass: &Pass<'_>, columns: &Value, stitch: &Value, goal: usize) -> Result<Value> {
    let (rows, n) = (columns.dims()[0], pass.model.goals());
    if !pass.model.values.flag("channels") {
        // The goal's row of numbers, for every row of the batch.
        return ops::blend(&ops::rows(stitch, &vec![goal as u32; rows])?, &[columns]);
    }
    let row = ops::narrow(stitch, 0, goal, 1)?;
    let row = ops::reshape(&row, &[row.data().elem_count()])?;
    let ones = Value::constant(tensor(vec![1.0; rows * n], (rows, n))?);
    ops::blend(&ones, &[&ops::times_row(columns, &row)?])
}
