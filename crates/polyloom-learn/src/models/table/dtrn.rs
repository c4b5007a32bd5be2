//! Deep task-specific bottom representation, its refine part: every goal weighs the fields of a row before shared experts.

use super::architecture::{Architecture, Golden, Kind, LAYERS, Param, Spec, Unset};
use super::{Front, Pass, TableModel, Tensors, mmoe};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Dtrn];

struct Dtrn;

static SPEC: Spec = Spec {
    name: "dtrn",
    summary: "Each goal weighs the embedded fields of a row for itself, then mmoe on what it sees",
    source: "Deep Task-specific Bottom Representation Network (DTRN), its refine part; Hu et al., CVPR 2018 (squeeze and excitation)",
    formula: "`s = 2 sigmoid(W2 relu(W1 mean_d e + b1) + b2)` over the fields, `e'_f = s_f e_f`, own weights by goal; then mmoe on `e'_t`. Numbers of a `raw` front are not weighed, those of a `linear` one are one more field.",
    differs: "Without the paper's attention over a behaviour sequence, whose weights a network makes: rows of tables have no sequence.",
    uses: LAYERS,
    params: &[
        mmoe::EXPERTS,
        Param::shared(
            "reduction",
            Kind::Integer(1, 65536),
            Unset::Number(2.0),
            "Fields over the width between `W1` and `W2`.",
        ),
    ],
    golden: Golden::Cases(&["dtrn_refine"]),
};

/// Fields that are weighed.
fn fields(model: &TableModel) -> usize {
    let c = &model.config;
    c.categories.len() + usize::from(c.front == Front::Linear && c.numeric > 0)
}

/// The mean of every field `[rows, fields]` of `[rows, fields, width]`.
///
/// # Errors
/// Another number of axes.
pub fn means(embedded: &Value) -> Result<Value> {
    let &[rows, fields, width] = embedded.dims() else {
        return Err(Error::shape(
            "refine",
            format!("{:?}, not [rows, fields, width]", embedded.dims()),
        ));
    };
    let flat = ops::reshape(embedded, &[rows * fields, width])?;
    let share = vec![1.0 / width as f32; width];
    let share = Value::constant(tensor(share, (width, 1))?);
    ops::reshape(&ops::product(&flat, &share)?, &[rows, fields])
}

/// Fields `[rows, fields, width]` times `2 sigmoid` of scores `[rows, fields]`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn refined(embedded: &Value, scores: &Value) -> Result<Value> {
    let &[rows, fields, width] = embedded.dims() else {
        return Err(Error::shape(
            "refine",
            format!("{:?}, not [rows, fields, width]", embedded.dims()),
        ));
    };
    let factors = ops::scale(&ops::activate(scores, Activation::Sigmoid)?, 2.0)?;
    let factors = ops::reshape(&factors, &[rows * fields, 1])?;
    let flat = ops::reshape(embedded, &[rows * fields, width])?;
    ops::reshape(&ops::blend(&factors, &[&flat])?, &[rows, fields, width])
}

impl Architecture for Dtrn {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        mmoe::hidden(model)?;
        if fields(model) == 0 {
            return Err(Error::Config {
                what: "`dtrn` weighs fields: it needs a categorical field, or numbers with front `linear`".to_owned(),
            });
        }
        Ok(())
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (input, experts) = (model.input(), model.count("experts"));
        let fields = fields(model);
        let narrow = (fields / model.count("reduction")).max(1);
        to.front("", &model.config)?;
        let width = to.experts("experts", experts, input, &model.config.hidden)?;
        for goal in 0..model.goals() {
            to.gate(&format!("goals.{goal}.refine.down"), [narrow, fields])?;
            to.gate(&format!("goals.{goal}.refine.up"), [fields, narrow])?;
            to.gate(&format!("goals.{goal}.gate"), [experts, input])?;
        }
        to.towers(&model.config, width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let model = pass.model;
        let (fields, width) = (fields(model), model.config.embed_dim);
        let whole = pass.features("")?;
        // Fields stand first, numbers as they are behind them.
        let first = fields * width;
        let mixed: Vec<Value> = goals
            .iter()
            .map(|&goal| {
                let (whole, rows) = (pass.own(goal, &whole)?, pass.own_rows(goal));
                let embedded = match whole.dims()[1] == first {
                    true => whole.clone(),
                    false => ops::narrow(&whole, 1, 0, first)?,
                };
                let embedded = ops::reshape(&embedded, &[rows, fields, width])?;
                let level = means(&embedded)?;
                let low = pass.linear(&format!("goals.{goal}.refine.down"), &level)?;
                let low = ops::activate(&low, Activation::Relu)?;
                let scores = pass.linear(&format!("goals.{goal}.refine.up"), &low)?;
                let seen = ops::reshape(&refined(&embedded, &scores)?, &[rows, first])?;
                let x = match whole.dims()[1] - first {
                    0 => seen,
                    rest => ops::concat(&[&seen, &ops::narrow(&whole, 1, first, rest)?], 1)?,
                };
                let layers = model.config.hidden.len();
                let experts = pass.experts("experts", model.count("experts"), &x, layers)?;
                let name = format!("goals.{goal}.gate");
                pass.mix(&name, &pass.gate(&name, &x)?, &[("experts", &experts)])
            })
            .collect::<Result<_>>()?;
        pass.towers(goals, &mixed)
    }
}
