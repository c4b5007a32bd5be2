//! What a goal finds in the rows of a session before a row: attention whose projections a network makes of goal and row.

use super::architecture::{Kind, Param, Unset};
use super::history::steps;
use super::{Init, Pass, TableModel, Tensors};
use crate::engine::{Tensor, Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Attend, Mask};

/// How what was before a row is read.
pub(super) const KIND: Param = Param::shared(
    "interest",
    Kind::Word(&[("attention", "attention"), ("mean", "mean")]),
    Unset::Word("attention"),
    "With `history`: attention by goal, or the mean of the steps.",
);
/// Rank of the projections.
pub(super) const RANK: Param = Param::shared(
    "rank",
    Kind::Integer(1, 4096),
    Unset::Number(8.0),
    "With `history`: rank of the projections.",
);
/// Width of the network that makes them.
pub(super) const HYPER: Param = Param::shared(
    "hyper",
    Kind::Integer(1, 65536),
    Unset::Number(32.0),
    "With `history`: width of the network that makes the projections.",
);
/// Numbers by which the network knows a goal.
pub(super) const TASK: Param = Param::shared(
    "task",
    Kind::Integer(1, 65536),
    Unset::Number(8.0),
    "With `history`: numbers of a goal's `a_t`.",
);
/// Steps at most.
pub(super) const LAST: Param = Param::shared(
    "last",
    Kind::Integer(1, 4096),
    Unset::Number(32.0),
    "With `history`: rows before a row that it sees at most, the last ones.",
);

/// Whether rows are shown what was before them.
pub(super) fn is_read(model: &TableModel) -> bool {
    !model.config.history.is_empty()
}

/// Whether goals look for themselves.
fn by_goal(model: &TableModel) -> bool {
    model.values.word("interest") == "attention"
}

/// Width of a step.
fn wide(model: &TableModel) -> usize {
    model.config.history.len() * model.config.embed_dim
}

/// Options that mean nothing.
///
/// # Errors
/// Those of a history where there is none, those of attention where there is none.
pub(super) fn check(model: &TableModel) -> Result<()> {
    let of = |params: &[&Param]| {
        let said = params.iter().map(|p| p.name);
        let mut said = said.filter(|name| model.config.options.contains_key(*name));
        said.next()
    };
    let what = match (is_read(model), by_goal(model)) {
        (false, _) => of(&[&KIND, &RANK, &HYPER, &TASK, &LAST]).map(|name| {
            format!("`{name}` is of what was before a row, and rows are read alone: `session` and `history` in `[table]` of the task")
        }),
        (true, false) => of(&[&RANK, &HYPER, &TASK])
            .map(|name| format!("`{name}` is of attention, and interest is the mean: leave it out")),
        (true, true) => None,
    };
    what.map_or(Ok(()), |what| Err(Error::Config { what }))
}

/// Declares what reads the history, where there is one.
///
/// # Errors
/// More elements than any memory holds.
pub(super) fn declare(model: &TableModel, to: &mut Tensors) -> Result<()> {
    if !is_read(model) {
        return Ok(());
    }
    let (step, width) = (wide(model), model.config.embed_dim);
    to.add("history.marks.weight", &[2, step], Init::Normal(0.01))?;
    let back = [model.count("last"), step];
    to.add("history.back.weight", &back, Init::Normal(0.01))?;
    let mut plain = |name: &str, [out, input]: [usize; 2]| {
        let name = format!("history.{name}.weight");
        to.add(name, &[out, input], Init::xavier(input, out))
    };
    if !by_goal(model) {
        return plain("mean", [width, step]);
    }
    let (rank, hyper, task) = (
        model.count("rank"),
        model.count("hyper"),
        model.count("task"),
    );
    // V and U of the queries; of the keys U is kept as it is used, turned over.
    for (name, shape) in [
        ("query", [rank, step]),
        ("query_up", [width, rank]),
        ("key", [rank, step]),
        ("key_down", [rank, width]),
        ("value", [rank, step]),
        ("value_up", [width, rank]),
    ] {
        plain(name, shape)?;
    }
    to.linear(
        "history.hyper.0",
        [hyper, task + step],
        Init::he(task + step),
    )?;
    to.gate("history.hyper.1", [3 * rank, hyper])?;
    for goal in 0..model.goals() {
        let name = format!("goals.{goal}.history.task.weight");
        to.add(name, &[1, task], Init::Normal(1.0))?;
    }
    Ok(())
}

/// What was before the rows of a pass, as far as it is the same for all goals.
pub(super) struct Seen {
    /// Vectors of the history's fields of the rows themselves `[rows, step]`.
    queries: Value,
    /// `V_k s`, `V_v s`, steps of a row side by side `[rows, length * rank]`; of the mean, the interest itself.
    steps: [Value; 2],
    /// 0, or minus infinity where there is no step `[rows, length]`.
    hidden: Value,
    length: usize,
}

impl Seen {
    /// Of a pass; `None` of a model whose rows are read alone.
    ///
    /// # Errors
    /// Rows without a history, codes that are not in their field's vocabulary, tensors that are absent.
    pub(super) fn of(pass: &Pass<'_>) -> Result<Option<Self>> {
        let (model, rows) = (pass.model, pass.rows());
        if !is_read(model) {
            return Ok(None);
        }
        let c = &model.config;
        let found = steps(pass.batch, c, model.count("last"))?;
        let length = found.length;
        let all = pass.embedded_fields(&c.history, &found.codes)?;
        let marks = ops::rows(&pass.tensor("history.marks.weight")?, &found.marks)?;
        let back = ops::rows(&pass.tensor("history.back.weight")?, &found.back)?;
        let all = ops::add(&ops::add(&all, &marks)?, &back)?;
        let fields = c.categories.len();
        let codes = pass.batch.codes.chunks_exact(fields);
        let own: Vec<u32> = codes
            .flat_map(|row| c.history.iter().map(|f| row[*f]))
            .collect();
        let queries = pass.embedded_fields(&c.history, &own)?;
        let steps = match by_goal(model) {
            true => {
                let part = |name: &str| {
                    let part = pass.linear(&format!("history.{name}"), &all)?;
                    ops::reshape(&part, &[rows, length * model.count("rank")])
                };
                [part("key")?, part("value")?]
            }
            false => {
                let mean = mean(&all, &found.hidden, [rows, length, wide(model)])?;
                let interest = pass.linear("history.mean", &mean)?;
                [interest.clone(), interest]
            }
        };
        Ok(Some(Self {
            queries,
            steps,
            hidden: Value::constant(tensor(found.hidden, (rows, length))?),
            length,
        }))
    }

    /// What a goal finds for its own rows, `[rows, embed_dim]`.
    ///
    /// # Errors
    /// Tensors that are absent or of another shape.
    pub(super) fn interest(&self, pass: &Pass<'_>, goal: usize) -> Result<Value> {
        let [keys, values] = &self.steps;
        if !by_goal(pass.model) {
            return pass.own(goal, values);
        }
        let (rows, rank) = (pass.own_rows(goal), pass.model.count("rank"));
        let linear = |name: &str, x: &Value| pass.linear(&format!("history.{name}"), x);
        let queries = pass.own(goal, &self.queries)?;
        let task = pass.tensor(&format!("goals.{goal}.history.task.weight"))?;
        let task = ops::rows(&task, &vec![0; rows])?;
        let made = linear("hyper.0", &ops::concat(&[&task, &queries], 1)?)?;
        let made = linear("hyper.1", &ops::activate(&made, Activation::Relu)?)?;
        let ones = Value::constant(tensor(vec![1.0; rows * 3 * rank], (rows, 3 * rank))?);
        let made = ops::add(&made, &ones)?;
        let [of_query, of_key, of_value] = [0, 1, 2].map(|i| ops::narrow(&made, 1, i * rank, rank));
        // (Q q) . (K s) is a product of `rank` numbers: what U_k does to the query, and V_k to the step.
        let query = linear(
            "query_up",
            &ops::mul(&linear("query", &queries)?, &of_query?)?,
        )?;
        let query = ops::mul(&linear("key_down", &query)?, &of_key?)?;
        let side = |x: &Value, n: usize| ops::reshape(x, &[rows, n, rank]);
        let keys = side(&pass.own(goal, keys)?, self.length)?;
        let values = side(&pass.own(goal, values)?, self.length)?;
        let hidden = pass.own(goal, &self.hidden)?;
        let rule = Attend {
            scale: Some(1.0 / (pass.model.config.embed_dim as f32).sqrt()),
            ..Attend::full(1)
        };
        let mask = Mask {
            keys: Some(hidden.data()),
            bias: None,
        };
        let found = ops::attention(&side(&query, 1)?, &keys, &values, rule, mask)?;
        let found = ops::reshape(&found, &[rows, rank])?;
        linear("value_up", &ops::mul(&found, &of_value?)?)
    }
}

/// Means `[rows, step]` of the steps that there are; zeros of none.
fn mean(all: &Value, hidden: &[f32], [rows, length, step]: [usize; 3]) -> Result<Value> {
    let shares: Vec<f32> = hidden
        .chunks_exact(length)
        .flat_map(|row| {
            let seen = row.iter().filter(|h| **h == 0.0).count().max(1) as f32;
            row.iter().map(move |h| f32::from(*h == 0.0) / seen)
        })
        .collect();
    let shares: Tensor = tensor(shares, (rows, length))?;
    ops::pool(&ops::reshape(all, &[rows, length, step])?, &shares)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use polyloom::evaluate::board::score::sessions::Step;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::models::Plain;
    use crate::models::table::{Before, MODEL_TYPE, Past, TableBatch};

    /// One field of three words 0, 1, 2, one number each; the second row is after a 1 and a marked 2, the first after nothing.
    fn found(more: &Json, goal: usize) -> Vec<f32> {
        let mut config = json!({
            "model_type": MODEL_TYPE, "architecture": "dtrn", "goals": ["a", "b"], "categories": [3], "embed_dim": 1,
            "hidden": [1], "history": [0], "last": 2,
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let model = TableModel::new(serde_json::from_value(config).unwrap()).unwrap();
        let tensors = model.tensors().iter().map(|t| {
            let values = match &*t.name {
                "embedding.weight" => vec![0.0, 1.0, 2.0],
                "history.marks.weight" => vec![0.0, 0.5],
                "history.back.weight" => vec![0.0, 0.25],
                "history.query.weight" => vec![0.1],
                "history.query_up.weight" | "history.key.weight" => vec![1.0],
                "history.key_down.weight" | "history.value.weight" => vec![1.0],
                "history.value_up.weight" | "history.mean.weight" => vec![3.0],
                "goals.1.history.task.weight" => vec![1.0],
                // Reads the goal alone, and changes the values' vector alone.
                "history.hyper.0.weight" => vec![1.0, 0.0],
                "history.hyper.1.weight" => vec![0.0, 0.0, 1.0],
                "history.hyper.1.bias" => vec![0.5, 0.0, 1.0],
                _ => vec![0.0; t.shape.iter().product()],
            };
            (t.name.clone(), tensor(values, t.shape.clone()).unwrap())
        });
        let weights = Plain::new(tensors);
        let step = |item, taken| Step { item, taken };
        let past = Arc::new(Past {
            codes: vec![2, 1],
            // The first one is too long ago.
            steps: vec![step(0, true), step(1, false), step(0, true)],
        });
        let before = |steps| Before {
            past: past.clone(),
            steps,
        };
        let batch = TableBatch {
            rows: 2,
            numbers: Value::constant(tensor(Vec::new(), (2, 0)).unwrap()),
            codes: vec![1, 2],
            before: vec![before(0..0), before(0..3)],
        };
        let pass = Pass {
            model: &model,
            weights: &weights,
            batch: &batch,
            groups: None,
            watch: None,
        };
        let seen = Seen::of(&pass).unwrap().unwrap();
        let found = seen.interest(&pass, goal).unwrap();
        assert_eq!(found.dims(), [2, 1]);
        crate::engine::slice(found.data()).unwrap().to_vec()
    }

    #[test]
    fn goals_look_in_their_own_way_by_hand() {
        let sizes = json!({"rank": 1, "hyper": 1, "task": 1});
        // Steps 1 + 0.25 and 2 + 0.5; the query 1.5 (0.1 . 2) gives them 0.375 and 0.75.
        let last = 1.0 / (1.0 + (-0.375f32).exp());
        let seen = (1.0 - last) * 1.25 + last * 2.5;
        for (goal, of_value) in [(0, 2.0), (1, 3.0)] {
            let found = found(&sizes, goal);
            assert_eq!(found[0], 0.0, "nothing was before it");
            let expected = 3.0 * of_value * seen;
            assert!((found[1] - expected).abs() < 1e-5, "{found:?} {expected}");
        }
    }

    #[test]
    fn means_by_hand() {
        for goal in 0..2 {
            let found = found(&json!({"interest": "mean"}), goal);
            assert_eq!(found[0], 0.0);
            let expected = 3.0 * (1.25 + 2.5) / 2.0;
            assert!((found[1] - expected).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn options_of_no_history_are_refused() {
        let refused = |more: &Json| {
            let mut config = json!({
                "model_type": MODEL_TYPE, "architecture": "dtrn", "goals": ["a"], "categories": [3], "hidden": [2],
            });
            for (key, value) in more.as_object().unwrap() {
                config[key] = value.clone();
            }
            let parsed = serde_json::from_value(config).unwrap();
            TableModel::new(parsed).unwrap_err().to_string()
        };
        let said = refused(&json!({"last": 4}));
        assert!(
            said.contains("`last` is of what was before a row"),
            "{said}"
        );
        let said = refused(&json!({"history": [0], "interest": "mean", "rank": 4}));
        assert!(said.contains("`rank` is of attention"), "{said}");
        for history in [json!([1]), json!([0, 0])] {
            let said = refused(&json!({"history": history}));
            assert!(said.contains("history: field"), "{said}");
        }
        let said = refused(&json!({"architecture": "mmoe", "history": [0]}));
        assert!(said.contains("`history` means nothing"), "{said}");
    }
}
