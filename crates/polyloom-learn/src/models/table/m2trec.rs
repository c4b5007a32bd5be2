//! M2TRec: items by what describes them, sessions as a transformer reads them.

use polyloom::evaluate::board::score::sessions::Step;

use super::architecture::{Architecture, Golden, Kind, Param, Spec, Unset, Visited};
use super::config::Common;
use super::{Init, Pass, TableModel, Tensors, multitab};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Attend, Mask};

/// The entries of this file.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&M2TRec];

struct M2TRec;

static SPEC: Spec = Spec {
    name: "m2trec",
    summary: "Sessions: a transformer over the rows before one, and the next item scored by what describes it",
    source: "Shalaby et al., RecSys 2022 (M2TRec); from the paper, no program was read",
    formula: "One encoder for the items seen and the items scored: `e_i = W MLP(x_i) + b`, `x_i` the features that describe item `i`. A row sees the last `last` rows `i_1 .. i_n` of its session before it: tokens `z_0 = p_0` and `z_k = e_(i_k) + p_k + a_(c_k)`, `p` learned positions, `c_k` whether the item of that row was asked for (a click among impressions). Blocks: `z += Attn(LN z)`, each token seeing itself and earlier ones, `z += W2 GELU(W1 LN z)`; `h = LN z_n`. \
        Item `i` has the score `h . e_i`, heads of classes read `h` (the same for all goals). The loss is the mean over goals of cross-entropies, for the item over all items of the training rows.",
    differs: "Ours, where the paper leaves room: numbers and words of an item go side by side into the MLP; a row without rows before it is read by `p_0` alone; the mean over goals in place of the sum.",
    uses: &[Common::Hidden, Common::Dropout, Common::Activation],
    params: &[
        Param::shared(
            "width",
            Kind::Integer(1, 65536),
            Unset::Number(64.0),
            "Numbers of an item and of a state.",
        ),
        Param::shared(
            "blocks",
            Kind::Integer(1, 256),
            Unset::Number(2.0),
            "Blocks of the transformer.",
        ),
        Param::shared(
            "heads",
            Kind::Integer(1, 1024),
            Unset::Number(4.0),
            "Heads of attention, a divisor of `width`.",
        ),
        Param::shared(
            "ff",
            Kind::Integer(1, 65536),
            Unset::Number(256.0),
            "Width of the feed-forward part.",
        ),
        Param::shared(
            "last",
            Kind::Integer(1, 65536),
            Unset::Number(32.0),
            "Rows before a row that it sees at most, the last ones.",
        ),
    ],
    golden: Golden::None(
        "from the paper alone: attention, norms and losses have vectors of their own, the rest is computed by hand in tests",
    ),
};

/// Items, states and scores that a pass may hold at most, in numbers: 4 GiB.
const MOST: usize = 1 << 30;

/// Vectors of the items `[items, width]`.
fn items(pass: &Pass<'_>) -> Result<Value> {
    let layers = pass.model.config.hidden.len();
    let x = pass.layers("items", &pass.features("")?, layers)?;
    pass.linear("items.out", &x)
}

/// The tokens of sessions `[sessions, tokens, width]`, padded behind, and the place of the last one of each among all.
fn tokens(pass: &Pass<'_>, items: &Value, sessions: &[&[Step]]) -> Result<(Value, Vec<u32>)> {
    let (model, n) = (pass.model, sessions.len());
    let (width, last) = (model.count("width"), model.count("last"));
    let seen = |steps: &'_ [Step]| steps.len().min(last);
    let long = sessions.iter().map(|s| seen(s)).max().unwrap_or(0);
    let length = long + 1;
    // A row of zeros where there is no step: before the first one, and behind the last.
    let (mut of, mut asked) = (Vec::new(), Vec::new());
    let mut ends = Vec::with_capacity(n);
    for (at, steps) in (0u32..).zip(sessions) {
        let steps = &steps[steps.len() - seen(steps)..];
        ends.push(at * length as u32 + steps.len() as u32);
        of.push(0);
        asked.push(0);
        for k in 0..long {
            let step = steps.get(k);
            of.push(step.map_or(0, |s| s.item + 1));
            asked.push(step.map_or(0, |s| 1 + u32::from(s.taken)));
        }
    }
    let zero = |rows: usize| {
        let zeros = crate::engine::tensor(vec![0.0; rows * width], (rows, width))?;
        Ok::<_, Error>(Value::constant(zeros))
    };
    let vectors = ops::rows(&ops::concat(&[&zero(1)?, items], 0)?, &of)?;
    let marks = ops::concat(&[&zero(1)?, &pass.tensor("asked.weight")?], 0)?;
    let marks = ops::rows(&marks, &asked)?;
    let places: Vec<u32> = (0..n).flat_map(|_| 0..length as u32).collect();
    let places = ops::rows(&pass.tensor("positions.weight")?, &places)?;
    let all = ops::add(&ops::add(&vectors, &marks)?, &places)?;
    let all = pass.dropped("positions", all)?;
    Ok((ops::reshape(&all, &[n, length, width])?, ends))
}

impl Architecture for M2TRec {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, model: &TableModel) -> Result<()> {
        let (width, heads) = (model.count("width"), model.count("heads"));
        match width.is_multiple_of(heads) {
            true => Ok(()),
            false => Err(Error::Config {
                what: format!("width {width} is no multiple of heads {heads}"),
            }),
        }
    }

    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize> {
        let (c, width) = (&model.config, model.count("width"));
        to.front("", c)?;
        let input = to.layers("items", model.input(), &c.hidden)?;
        to.gate("items.out", [width, input])?;
        let rows = model.count("last") + 1;
        to.add("positions.weight", &[rows, width], Init::Normal(0.01))?;
        to.add("asked.weight", &[2, width], Init::Normal(0.01))?;
        for i in 0..model.count("blocks") {
            multitab::declare_block(to, &format!("blocks.{i}"), width, model.count("ff"))?;
        }
        to.norm("norm", width)?;
        Ok(width)
    }

    fn forward(&self, _: &Pass<'_>, _: &[usize]) -> Result<Vec<Value>> {
        let what = "`m2trec` reads sessions, and these are single rows";
        Err(Error::shape("table", what))
    }

    fn reads_sessions(&self) -> bool {
        true
    }

    fn visited(&self, pass: &Pass<'_>, sessions: &[&[Step]]) -> Result<Visited> {
        let (model, n) = (pass.model, sessions.len());
        let wide = n.checked_mul(pass.rows()).filter(|all| *all <= MOST);
        if wide.is_none() {
            return Err(Error::Config {
                what: format!(
                    "scores of {} items for {n} rows at once fill every memory: fewer rows a pass (train.batch), or fewer items",
                    pass.rows()
                ),
            });
        }
        let items = items(pass)?;
        let (mut x, ends) = tokens(pass, &items, sessions)?;
        let rule = Attend::causal(model.count("heads"), model.count("heads"));
        for i in 0..model.count("blocks") {
            x = multitab::block(pass, &format!("blocks.{i}"), &x, rule, Mask::default())?;
        }
        let (length, width) = (x.dims()[1], model.count("width"));
        let flat = ops::reshape(&x, &[n * length, width])?;
        let states = pass.layer_norm("norm", &ops::rows(&flat, &ends)?)?;
        Ok(Visited {
            scores: ops::linear(&states, &items, None)?,
            states,
        })
    }
}
