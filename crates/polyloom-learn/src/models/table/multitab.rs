//! MultiTab: a transformer over the features of a row and one token for every goal, with masks between them.

use super::architecture::{Architecture, Golden, Kind, Param, Spec, Unset};
use super::{Common, Init, Pass, TableModel, Tensors, fields};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::models::place_of;
use crate::ops::{self, Activation, Attend, Mask};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&MultiTab];

struct MultiTab;

static SPEC: Spec = Spec {
    name: "multitab",
    summary: "A transformer over the features of a row and a token of every goal, with masked attention between goals",
    source: "Sinodinos et al., AAAI 2026; Armanfard-Lab/MultiTab models/mtt.py",
    formula: "Tokens: one of every goal, the vector of every category, `x_j w_j + b_j` of every number. Block: `x += Attn(LN x, mask)`, `x += W2 GELU(W1 LN x)`; with `attention = \"row_col\"` a second one over the rows of the batch, a row being its tokens side by side. `h_t = tower_t` of the goal's token.",
    differs: "The default here is `col`: with `row_col`, the paper's, a row's answer depends on the rows beside it. A goal's token is one vector, theirs a weight and a bias on the constant 1. No rotary positions.",
    uses: &[Common::Tower, Common::Dropout, Common::Activation],
    params: &[
        Param::shared(
            "blocks",
            Kind::Integer(1, 256),
            Unset::Number(1.0),
            "Blocks.",
        ),
        Param::shared(
            "heads",
            Kind::Integer(1, 1024),
            Unset::Number(4.0),
            "Heads of attention, a divisor of `embed_dim`.",
        ),
        Param::shared(
            "ff",
            Kind::Integer(1, 65536),
            Unset::Number(256.0),
            "Width of the feed-forward part.",
        ),
        Param::shared(
            "mask",
            Kind::Word(&[
                ("none", "none"),
                ("TxT", "TxT"),
                ("FxT", "FxT"),
                ("FxT_TxT", "FxT_TxT"),
            ]),
            Unset::Word("TxT"),
            "What may not look at what: goals at other goals (`TxT`), features at goals (`FxT`), both.",
        ),
        Param::shared(
            "attention",
            Kind::Word(&[("col", "col"), ("row_col", "row_col")]),
            Unset::Word("col"),
            "Over the features of a row, or after it over the rows of the batch too.",
        ),
    ],
    golden: Golden::Cases(&["multitab", "multitab_mask"]),
};

/// Whether a query may not look at a key: `[length, length]`, row after row, of `tasks` tokens of goals before those of the
/// features; `kind` is a word of `mask`.
pub fn blocked(kind: &str, tasks: usize, length: usize) -> Vec<bool> {
    let (among, from) = (
        matches!(kind, "TxT" | "FxT_TxT"),
        matches!(kind, "FxT" | "FxT_TxT"),
    );
    (0..length * length)
        .map(|i| {
            let (query, key) = (i / length, i % length);
            key < tasks && key != query && if query < tasks { among } else { from }
        })
        .collect()
}

/// Sizes of a model.
struct Sizes {
    goals: usize,
    tokens: usize,
    width: usize,
    heads: usize,
    rows: bool,
}

impl Sizes {
    fn of(model: &TableModel) -> Self {
        let c = &model.config;
        Self {
            goals: model.goals(),
            tokens: model.goals() + fields::count(c),
            width: c.embed_dim,
            heads: model.count("heads"),
            rows: model.values.word("attention") == "row_col",
        }
    }
}

/// Declares the tensors of a [`block`].
///
/// # Errors
/// More elements than any memory holds.
pub(super) fn declare_block(to: &mut Tensors, name: &str, width: usize, ff: usize) -> Result<()> {
    let part = |part: &str| format!("{name}.{part}");
    to.norm(&part("norm1"), width)?;
    for linear in ["query", "key", "value", "out"] {
        to.gate(&part(linear), [width, width])?;
    }
    to.norm(&part("norm2"), width)?;
    to.gate(&part("up"), [ff, width])?;
    to.gate(&part("down"), [width, ff])
}

/// One encoder block over `x [sequences, length, width]`.
///
/// # Errors
/// Tensors that are absent or of another shape.
pub(super) fn block(
    pass: &Pass<'_>,
    name: &str,
    x: &Value,
    rule: Attend,
    mask: Mask<'_>,
) -> Result<Value> {
    let part = |part: &str| format!("{name}.{part}");
    let y = pass.layer_norm(&part("norm1"), x)?;
    let linear = |which: &str, x: &Value| pass.linear(&part(which), x);
    let (q, k, v) = (
        linear("query", &y)?,
        linear("key", &y)?,
        linear("value", &y)?,
    );
    let rule = pass
        .weights
        .attending(rule, pass.model.config.dropout, place_of(name));
    let seen = linear("out", &ops::attention(&q, &k, &v, rule, mask)?)?;
    let x = ops::add(&seen, x)?;
    let y = linear("up", &pass.layer_norm(&part("norm2"), &x)?)?;
    let y = pass.dropped(&part("up"), ops::activate(&y, Activation::Gelu)?)?;
    ops::add(&linear("down", &y)?, &x)
}

/// The tokens `[rows, tokens, width]`: of goals, of categories, of numbers.
fn tokens(pass: &Pass<'_>, s: &Sizes) -> Result<Value> {
    let goals = fields::repeated(pass, "tokens.goals.weight", s.goals)?;
    let goals = ops::reshape(&goals, &[pass.rows(), s.goals, s.width])?;
    ops::concat(&[&goals, &fields::vectors(pass)?], 1)
}

impl Architecture for MultiTab {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        let s = Sizes::of(model);
        if !s.width.is_multiple_of(s.heads) {
            return Err(Error::Config {
                what: format!("embed_dim {} is no multiple of heads {}", s.width, s.heads),
            });
        }
        // The mask is one number a pair of tokens and head.
        let pairs = s.tokens.checked_mul(s.tokens);
        let numbers = pairs.and_then(|n| n.checked_mul(s.heads));
        if numbers.is_none_or(|n| n > 1 << 28) {
            return Err(Error::Config {
                what: format!(
                    "{} goals, categories and numbers with {} heads: their mask fills every memory",
                    s.tokens, s.heads
                ),
            });
        }
        Ok(())
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (s, ff) = (Sizes::of(model), model.count("ff"));
        fields::declare(&model.config, to)?;
        to.add(
            "tokens.goals.weight",
            &[s.goals, s.width],
            Init::Normal(0.01),
        )?;
        for i in 0..model.count("blocks") {
            declare_block(to, &format!("blocks.{i}.columns"), s.width, ff)?;
            if s.rows {
                let wide = s.tokens * s.width;
                declare_block(to, &format!("blocks.{i}.rows"), wide, ff)?;
            }
        }
        to.towers(&model.config, s.width)
    }

    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>> {
        let (s, rows) = (Sizes::of(pass.model), pass.rows());
        let kind = pass.model.values.word("mask");
        let one = blocked(kind, s.goals, s.tokens).into_iter();
        let one: Vec<f32> = one
            .map(|b| if b { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        let bias = tensor(one.repeat(s.heads), (s.heads, s.tokens, s.tokens))?;
        let bias = Value::constant(bias);
        let mask = Mask {
            keys: None,
            bias: (kind != "none").then_some(&bias),
        };
        let mut x = tokens(pass, &s)?;
        for i in 0..pass.model.count("blocks") {
            let rule = Attend::full(s.heads);
            x = block(pass, &format!("blocks.{i}.columns"), &x, rule, mask)?;
            if s.rows {
                let wide = ops::reshape(&x, &[1, rows, s.tokens * s.width])?;
                let name = format!("blocks.{i}.rows");
                let seen = block(pass, &name, &wide, rule, Mask::default())?;
                x = ops::reshape(&seen, &[rows, s.tokens, s.width])?;
            }
        }
        let own: Vec<Value> = goals
            .iter()
            .map(|&goal| {
                let token = ops::reshape(&ops::narrow(&x, 1, goal, 1)?, &[rows, s.width])?;
                pass.own(goal, &token)
            })
            .collect::<Result<_>>()?;
        pass.towers(goals, &own)
    }
}
