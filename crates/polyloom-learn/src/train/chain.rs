//! Targets of a task in a chain, where one thing happens only after another: an impression, a click, a purchase.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::tasks::predicate::Predicate;
use polyloom::tasks::spec::TaskSpec;
use serde::{Deserialize, Serialize};

use crate::engine::Value;
use crate::error::Result;
use crate::models::table::loss::ordered;
use crate::ops;
use crate::tasks::{Head, HeadKind, Rows};

/// How a chain is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainLoss {
    /// ESMM (Ma et al., SIGIR 2018): a target with a `sample` about another one is learned as the product of both
    /// probabilities, over all rows.
    EntireSpace,
    /// AITM's calibrator (Xi et al., KDD 2021): what a target's probability is above that of the one before it costs.
    Ordered,
}

/// `[train.chain]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChainRecipe {
    /// Which loss.
    pub loss: ChainLoss,
    /// Of "ordered": what the calibrator's loss is multiplied by; 0.6 in the paper.
    #[serde(default = "calibrator")]
    pub weight: f64,
}

fn calibrator() -> f64 {
    0.6
}

/// The chain of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    recipe: ChainRecipe,
    /// For each target the place of the one that has to happen before it.
    before: Vec<Option<usize>>,
}

impl Chain {
    /// Of a task's targets and their heads; its training rows must agree with it.
    ///
    /// # Errors
    /// Targets without a chain, of more than two classes or of numbers; a row in which the second thing happened without
    /// the first.
    pub fn of(recipe: ChainRecipe, spec: &TaskSpec, heads: &[Head], rows: &Rows) -> Result<Self> {
        let id = &spec.id;
        let before = match recipe.loss {
            ChainLoss::EntireSpace => links(spec)?,
            ChainLoss::Ordered => {
                if let Some(t) = spec.targets.iter().find(|t| !t.sample.is_empty()) {
                    let what = format!(
                        "task `{id}`: the ordered chain of `train.chain` has an answer for every row, and target `{}` is of rows with `{}` alone",
                        t.name, t.sample
                    );
                    return Err(MergeError::plan("bad-task", what)
                        .hint("leave out `sample` where the column says 0 for all other rows, or loss = \"entire_space\"")
                        .into());
                }
                (0..spec.targets.len()).map(|t| t.checked_sub(1)).collect()
            }
        };
        if before.iter().all(Option::is_none) {
            let what =
                format!("task `{id}` has no targets in a chain, which `train.chain` is about");
            return Err(MergeError::plan("bad-task", what)
                .hint("\"entire_space\": `sample = \"click == 1\"` on the second target; \"ordered\": two targets or more")
                .into());
        }
        let chain = Self { recipe, before };
        for (place, head) in heads.iter().enumerate() {
            let linked = chain.before[place].is_some() || chain.before.contains(&Some(place));
            if linked && (head.kind != HeadKind::Classification || head.outputs() != 2) {
                let what = format!(
                    "target `{}` is one of a chain (`train.chain`), and not of two classes",
                    head.task
                );
                return Err(MergeError::plan("bad-task", what)
                    .hint("something of a chain happens or does not: two classes, the second is that it does")
                    .into());
            }
        }
        chain.agrees(heads, rows)?;
        Ok(chain)
    }

    /// Whether what a row says of a target goes with what it says of the one before.
    fn agrees(&self, heads: &[Head], rows: &Rows) -> Result<()> {
        for (place, before) in self.before.iter().enumerate() {
            let Some(before) = before else { continue };
            let happened = |at: usize, row: usize| happened(rows.wanted[at][row].as_ref());
            let own = |row: usize| match self.recipe.loss {
                // The sample of the target says where it exists.
                ChainLoss::EntireSpace => rows.wanted[place][row].is_some(),
                ChainLoss::Ordered => happened(place, row) == Some(true),
            };
            let odd = (0..rows.len()).find(|r| own(*r) && happened(*before, *r) == Some(false));
            if let Some(row) = odd {
                let what = format!(
                    "row `{}`: there is a `{}` without `{}`, which comes before it in the chain",
                    rows.ids[row], heads[place].task, heads[*before].task
                );
                return Err(MergeError::plan("bad-task", what)
                    .hint("the second of two classes (in order) is the one that happened; `sample` names it")
                    .into());
            }
        }
        Ok(())
    }

    /// Whether a target is learned as the product of all steps up to it ([`Self::loss`]), in place of its head's own loss.
    #[must_use]
    pub fn is_product(&self, place: usize) -> bool {
        self.recipe.loss == ChainLoss::EntireSpace && self.before[place].is_some()
    }

    /// The mean loss of the product of all steps up to a target, with how many rows it is of; `None` where no row says what is
    /// right. `said` are outputs of all heads, `wanted` what is right by head and row.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn loss(
        &self,
        place: usize,
        said: &[Value],
        wanted: &dyn Fn(usize, usize) -> Option<Wanted>,
        rows: usize,
    ) -> Result<Option<(Value, usize)>> {
        let mut path = vec![place];
        while let Some(before) = path.last().and_then(|p| self.before[*p]) {
            path.push(before);
        }
        path.reverse();
        let all = |row: usize| {
            // The first thing that did not happen says that nothing after it did.
            for at in &path {
                match happened(wanted(*at, row).as_ref())? {
                    true => {}
                    false => return Some(0.0),
                }
            }
            Some(1.0)
        };
        let (known, labels): (Vec<u32>, Vec<f32>) = (0..rows)
            .filter_map(|row| Some((row as u32, all(row)?)))
            .unzip();
        if known.is_empty() {
            return Ok(None);
        }
        let scores = path
            .iter()
            .map(|at| ops::rows(&margin(&said[*at])?, &known));
        let scores: Vec<Value> = scores.collect::<Result<_>>()?;
        let scores: Vec<&Value> = scores.iter().collect();
        let value = ops::chained_cross_entropy(&scores, &labels)?;
        Ok(Some((value, known.len())))
    }

    /// What a target costs more because it is likelier than the one before it.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn more(&self, place: usize, said: &[Value]) -> Result<Option<Value>> {
        let (ChainLoss::Ordered, Some(before)) = (self.recipe.loss, self.before[place]) else {
            return Ok(None);
        };
        let cost = ordered(&[margin(&said[before])?, margin(&said[place])?])?;
        let weight = self.recipe.weight as f32;
        cost.map(|cost| ops::scale(&cost, weight)).transpose()
    }
}

/// For each target the one that its `sample` is about.
fn links(spec: &TaskSpec) -> Result<Vec<Option<usize>>> {
    let mut before = Vec::with_capacity(spec.targets.len());
    for target in &spec.targets {
        let bad = |why: String| {
            let what = format!("`targets.{}.sample`: {why}", target.name);
            MergeError::plan("bad-task", what)
        };
        let predicate = match &*target.sample {
            "" => Predicate::default(),
            text => Predicate::parse(text).map_err(bad)?,
        };
        let mut columns = predicate.columns();
        let of = |column: &str| spec.targets.iter().position(|t| t.column == column);
        before.push(match (columns.next(), columns.next()) {
            (Some(one), None) => of(one),
            _ => None,
        });
    }
    for start in 0..before.len() {
        let mut at = start;
        for _ in 0..before.len() {
            match before[at] {
                Some(next) => at = next,
                None => break,
            }
        }
        if before[at].is_some() {
            let name = &spec.targets[start].name;
            let what = format!("`targets.{name}.sample`: targets that wait for each other");
            return Err(MergeError::plan("bad-task", what).into());
        }
    }
    Ok(before)
}

/// Whether the second of two classes is right.
fn happened(wanted: Option<&Wanted>) -> Option<bool> {
    match wanted {
        Some(Wanted::Class(class)) => Some(*class == 1),
        _ => None,
    }
}

/// The score (logit) `[rows, 1]` of the second of two classes.
fn margin(outputs: &Value) -> Result<Value> {
    ops::sub(
        &ops::narrow(outputs, 1, 1, 1)?,
        &ops::narrow(outputs, 1, 0, 1)?,
    )
}
