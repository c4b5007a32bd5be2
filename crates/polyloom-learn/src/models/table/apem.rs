//! Adaptive pattern extraction: several ways to relate the fields of a row to each other, of which every goal chooses.

use super::architecture::{Architecture, Golden, Kind, Param, Spec, Unset};
use super::{Common, Init, Pass, TableModel, Tensors, dtrn, fields};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::models::place_of;
use crate::ops::{self, Activation, Attend, Mask};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&Apem];

struct Apem;

static SPEC: Spec = Spec {
    name: "apem",
    summary: "Patterns of fields by attention through inducing vectors; each goal mixes the patterns by what they say of a row",
    source: "Adaptive Pattern Extraction Multi-task learning (APEM), our definition of it; Lee et al., ICML 2019 (Set Transformer: attention through inducing vectors); Hu et al., CVPR 2018 (squeeze and excitation)",
    formula: "`E`: the vectors of the fields of a row `[F, d]`, of a category its embedding, of a number `x_j w_j + b_j`. Pattern `j` of `k`, with `m` inducing vectors `I_j`: `H = MAB(I_j, E)`, `E_j = MAB(E, H)`, where `MAB(X, Y) = LN(Z + W2 act(W1 Z + b1) + b2)`, `Z = LN(X + Attn(X, Y))`, `act` the `activation`; \
        then `s = 2 sigmoid(W2 relu(W1 mean_d E_j + b1) + b2)` over the fields and `E_j <- s E_j`. Goal `t` has an indicator `a_t` of `p` numbers: `c_t = softmax_j(a_t . W mean_F E_j)`, `h_t = tower_t(bottom(sum_j c_t[j] E_j))`, the fields side by side.",
    differs: "The paper leaves room; this is what is computed here: one head of attention, the feed-forward part of a block as wide as a field, fields without positions (each keeps its place in what the bottom reads).",
    uses: &[
        Common::Hidden,
        Common::Tower,
        Common::Dropout,
        Common::Activation,
    ],
    params: &[
        Param::shared(
            "patterns",
            Kind::Integer(1, 256),
            Unset::Number(2.0),
            "Patterns `k`.",
        ),
        Param::shared(
            "inducing",
            Kind::Integer(1, 4096),
            Unset::Number(8.0),
            "Inducing vectors `m` of a pattern.",
        ),
        Param::shared(
            "reduction",
            Kind::Integer(1, 65536),
            Unset::Number(2.0),
            "Fields over the width between `W1` and `W2`.",
        ),
        Param::shared(
            "indicator",
            Kind::Integer(1, 65536),
            Unset::Number(16.0),
            "Numbers `p` of a goal's indicator.",
        ),
    ],
    golden: Golden::None("a paper without public code; tested by hand and against differences"),
};

/// Declares a block of attention between vectors of a width.
fn declare_block(to: &mut Tensors, name: &str, width: usize) -> Result<()> {
    let part = |part: &str| format!("{name}.{part}");
    to.gate(&part("query"), [width, width])?;
    // A bias of keys would move all scores of a query alike.
    let key = part("key.weight");
    to.add(key, &[width, width], Init::xavier(width, width))?;
    for linear in ["value", "out"] {
        to.gate(&part(linear), [width, width])?;
    }
    to.norm(&part("norm1"), width)?;
    to.linear(&part("up"), [width, width], Init::he(width))?;
    to.gate(&part("down"), [width, width])?;
    to.norm(&part("norm2"), width)
}

/// Vectors `x [rows, n, width]` that look at others `y [rows, of, width]`: attention, then two layers, each added to what
/// went in and normed.
fn block(pass: &Pass<'_>, name: &str, x: &Value, y: &Value) -> Result<Value> {
    let part = |part: &str| format!("{name}.{part}");
    let linear = |which: &str, x: &Value| pass.linear(&part(which), x);
    let rule = Attend::full(1);
    let rate = pass.model.config.dropout;
    let rule = pass.weights.attending(rule, rate, place_of(name));
    let (k, v) = (linear("key", y)?, linear("value", y)?);
    let seen = ops::attention(&linear("query", x)?, &k, &v, rule, Mask::default())?;
    let seen = ops::add(&linear("out", &seen)?, x)?;
    let z = pass.layer_norm(&part("norm1"), &seen)?;
    let up = ops::activate(&linear("up", &z)?, pass.model.activation)?;
    let more = linear("down", &pass.dropped(&part("up"), up)?)?;
    pass.layer_norm(&part("norm2"), &ops::add(&more, &z)?)
}

/// The mean vector `[rows, width]` of the fields `[rows, fields * width]`.
fn mean_of_fields(x: &Value, rows: usize, fields: usize) -> Result<Value> {
    let share = vec![1.0 / fields as f32; rows * fields];
    let share = Value::constant(tensor(share, (rows, fields))?);
    ops::blend(&share, &[x])
}

/// A pattern of the fields `[rows, fields, width]`: they side by side, `[rows, fields * width]`.
fn pattern(pass: &Pass<'_>, name: &str, embedded: &Value) -> Result<Value> {
    let &[rows, fields, width] = embedded.dims() else {
        let what = format!("{:?}, not [rows, fields, width]", embedded.dims());
        return Err(Error::shape("apem", what));
    };
    let part = |part: &str| format!("{name}.{part}");
    let inducing = pass.model.count("inducing");
    let ids: Vec<u32> = (0..rows * inducing)
        .map(|i| (i % inducing) as u32)
        .collect();
    let points = ops::rows(&pass.tensor(&part("inducing.weight"))?, &ids)?;
    let points = ops::reshape(&points, &[rows, inducing, width])?;
    let held = block(pass, &part("gather"), &points, embedded)?;
    let found = block(pass, &part("spread"), embedded, &held)?;
    let level = dtrn::means(&found)?;
    let low = pass.linear(&part("refine.down"), &level)?;
    let low = ops::activate(&low, Activation::Relu)?;
    let scores = pass.linear(&part("refine.up"), &low)?;
    ops::reshape(&dtrn::refined(&found, &scores)?, &[rows, fields * width])
}

impl Architecture for Apem {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let c = &model.config;
        let (fields, width) = (fields::count(c), c.embed_dim);
        let narrow = (fields / model.count("reduction")).max(1);
        let p = model.count("indicator");
        fields::declare(c, to)?;
        for j in 0..model.count("patterns") {
            let part = |part: &str| format!("patterns.{j}.{part}");
            let points = [model.count("inducing"), width];
            to.add(part("inducing.weight"), &points, Init::Normal(1.0))?;
            declare_block(to, &part("gather"), width)?;
            declare_block(to, &part("spread"), width)?;
            to.gate(&part("refine.down"), [narrow, fields])?;
            to.gate(&part("refine.up"), [fields, narrow])?;
        }
        // Without biases: they would move the scores of all patterns alike.
        let selector = Init::xavier(width, p);
        to.add("selector.weight", &[p, width], selector)?;
        for goal in 0..model.goals() {
            let name = format!("goals.{goal}.indicator.weight");
            to.add(name, &[1, p], Init::xavier(p, 1))?;
        }
        let bottom = to.layers("bottom", fields * width, &c.hidden)?;
        to.towers(c, bottom)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let c = &pass.model.config;
        let embedded = fields::vectors(pass)?;
        let fields = fields::count(c);
        let names: Vec<String> = (0..pass.model.count("patterns"))
            .map(|j| format!("patterns.{j}"))
            .collect();
        let patterns = names.iter().map(|name| pattern(pass, name, &embedded));
        let patterns: Vec<Value> = patterns.collect::<Result<_>>()?;
        let said = patterns.iter().map(|found| {
            let mean = mean_of_fields(found, pass.rows(), fields)?;
            pass.linear("selector", &mean)
        });
        let said: Vec<Value> = said.collect::<Result<_>>()?;
        let bottoms = goals.iter().map(|&goal| {
            let name = format!("goals.{goal}.indicator");
            let scores = said.iter().map(|said| {
                let own = pass.own(goal, said)?;
                pass.linear(&name, &own)
            });
            let scores: Vec<Value> = scores.collect::<Result<_>>()?;
            let choice = ops::softmax(&ops::concat(&scores.iter().collect::<Vec<_>>(), 1)?)?;
            let own = patterns.iter().map(|found| pass.own(goal, found));
            let own: Vec<Value> = own.collect::<Result<_>>()?;
            let parts: Vec<(&str, &Value)> = names.iter().map(String::as_str).zip(&own).collect();
            let x = pass.mix(&name, &choice, &parts)?;
            pass.layers("bottom", &x, c.hidden.len())
        });
        pass.towers(goals, &bottoms.collect::<Result<Vec<_>>>()?)
    }
}
