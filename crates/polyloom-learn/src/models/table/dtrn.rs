//! Deep task-specific bottom representation: every goal looks at what was before a row in its own way, and weighs the fields of
//! the row before shared experts.

use super::architecture::{Architecture, Golden, Kind, Param, Spec, Unset};
use super::{Common, Front, Pass, TableModel, Tensors, interest, mmoe};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Dtrn];

struct Dtrn;

static SPEC: Spec = Spec {
    name: "dtrn",
    summary: "Each goal looks at what was before a row and weighs the embedded fields for itself, then mmoe on what it sees",
    source: "Deep Task-specific Bottom Representation Network (DTRN), CIKM 2023, our definition of its attention; Hu et al., CVPR 2018 (squeeze and excitation)",
    formula: "`s = 2 sigmoid(W2 relu(W1 mean_d e + b1) + b2)` over the fields, `e'_f = s_f e_f`, own weights by goal; then mmoe on `e'_t`. Numbers of a `raw` front are not weighed, those of a `linear` one are one more field. \
        With `history` (fields of which a row sees what the last rows of its session before it have) there is one more field, the interest of the goal: `q` the vectors of these fields of the row side by side, `s_j = q_j + m_(c_j) + b_j` those of the row `j` steps back, `m` learned by whether it is marked, `b` by `j`. \
        A network makes three vectors of `rank` numbers of goal and row, `[h_q, h_k, h_v] = 1 + W_b relu(W_a [a_t; q] + b_a) + b_b`, `a_t` learned by goal; projections are `Q = U_q diag(h_q) V_q`, `K = U_k diag(h_k) V_k`, `V = U_v diag(h_v) V_v`, the six matrices shared by all goals; `interest_t = sum_j softmax_j((Q q) . (K s_j) / sqrt(d)) V s_j`, zeros without rows before it. `interest = \"mean\"`: `W mean_j s_j`, the same for every goal.",
    differs: "The paper leaves room in its attention: one head, projections of low rank that differ by what stands between two shared matrices, steps told apart by how far back they are.",
    uses: &[
        Common::Front,
        Common::Hidden,
        Common::Tower,
        Common::Norm,
        Common::Dropout,
        Common::Activation,
        Common::History,
    ],
    params: &[
        mmoe::EXPERTS,
        Param::shared(
            "reduction",
            Kind::Integer(1, 65536),
            Unset::Number(2.0),
            "Fields over the width between `W1` and `W2`.",
        ),
        interest::KIND,
        interest::RANK,
        interest::HYPER,
        interest::TASK,
        interest::LAST,
    ],
    golden: Golden::Cases(&["dtrn_refine"]),
};

/// Fields of the row itself that are weighed.
fn own_fields(model: &TableModel) -> usize {
    let c = &model.config;
    c.categories.len() + usize::from(c.front == Front::Linear && c.numeric > 0)
}

/// Fields that are weighed, the interest among them.
fn fields(model: &TableModel) -> usize {
    own_fields(model) + usize::from(interest::is_read(model))
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
        interest::check(model)
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let fields = fields(model);
        let more = (fields - own_fields(model)) * model.config.embed_dim;
        let (input, experts) = (model.input() + more, model.count("experts"));
        let narrow = (fields / model.count("reduction")).max(1);
        to.front("", &model.config)?;
        interest::declare(model, to)?;
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
        let seen = interest::Seen::of(pass)?;
        // Fields stand first, numbers as they are behind them.
        let first = own_fields(model) * width;
        let mixed: Vec<Value> = goals
            .iter()
            .map(|&goal| {
                let (whole, rows) = (pass.own(goal, &whole)?, pass.own_rows(goal));
                let embedded = match whole.dims()[1] == first {
                    true => whole.clone(),
                    false => ops::narrow(&whole, 1, 0, first)?,
                };
                let embedded = match &seen {
                    None => embedded,
                    Some(seen) => ops::concat(&[&embedded, &seen.interest(pass, goal)?], 1)?,
                };
                let embedded = ops::reshape(&embedded, &[rows, fields, width])?;
                let level = means(&embedded)?;
                let low = pass.linear(&format!("goals.{goal}.refine.down"), &level)?;
                let low = ops::activate(&low, Activation::Relu)?;
                let scores = pass.linear(&format!("goals.{goal}.refine.up"), &low)?;
                let seen = ops::reshape(&refined(&embedded, &scores)?, &[rows, fields * width])?;
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
