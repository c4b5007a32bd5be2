//! What rows count in the loss of a target: weights of rows (`table.weight` of a spec) times weights of classes
//! (`train.class_weight`).

use std::collections::BTreeMap;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::evaluate::board::score::search::is_search;
use polyloom::suggest;
use serde::{Deserialize, Serialize};

use super::Given;
use super::learned::Learned;
use super::recipe::{Objective, OptimiserName, Start, Train};
use super::representation::Representation;
use crate::error::Result;
use crate::tasks::{Head, HeadKind, Rows};

/// Largest weight of a class.
const MOST: f64 = 1e6;

/// What the rows of the classes of a target count.
#[derive(Debug, Clone, PartialEq)]
pub enum Classes {
    /// `W / (k W_c)` of the sums of row weights over all training rows and over those of a class, k of them: all classes
    /// count alike, and the mean weight is 1. As `class_weight = "balanced"` of scikit-learn.
    Balanced,
    /// By the name of the class; 1 for those that are not named.
    Numbers(BTreeMap<String, f64>),
}

/// `train.class_weight`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub enum ClassWeight {
    /// "balanced", every target of classes; `{ yes = 3.0 }`, the only one.
    All(Classes),
    /// `{ rich = "balanced", job = { cook = 2.0 } }`: by the name of the target, `task/target` where several have it.
    Targets(BTreeMap<String, Classes>),
}

const FORMS: &str =
    "\"balanced\", numbers by class ({ yes = 3.0 }), or these by target ({ rich = \"balanced\" })";

impl TryFrom<toml::Value> for Classes {
    type Error = String;

    fn try_from(said: toml::Value) -> std::result::Result<Self, String> {
        let table = match said {
            toml::Value::String(word) if word == "balanced" => return Ok(Self::Balanced),
            toml::Value::Table(table) if !table.is_empty() => table,
            other => return Err(format!("weights of classes are {FORMS}, not {other}")),
        };
        let number = |(class, value): (String, toml::Value)| {
            let x = match value {
                toml::Value::Float(x) => x,
                toml::Value::Integer(x) => x as f64,
                other => {
                    return Err(format!(
                        "the weight of class `{class}` is {other}, no number"
                    ));
                }
            };
            match x > 0.0 && x <= MOST {
                true => Ok((class, x)),
                false => Err(format!(
                    "the weight of class `{class}` is {x}; it must be above 0, at most {MOST:e}"
                )),
            }
        };
        Ok(Self::Numbers(
            table
                .into_iter()
                .map(number)
                .collect::<std::result::Result<_, _>>()?,
        ))
    }
}

impl TryFrom<toml::Value> for ClassWeight {
    type Error = String;

    fn try_from(said: toml::Value) -> std::result::Result<Self, String> {
        match said {
            toml::Value::Table(table) if !table.is_empty() && !table.values().any(is_number) => {
                let one = |(target, value)| Ok((target, Classes::try_from(value)?));
                let all = table.into_iter().map(one);
                Ok(Self::Targets(
                    all.collect::<std::result::Result<_, String>>()?,
                ))
            }
            said => Ok(Self::All(Classes::try_from(said)?)),
        }
    }
}

fn is_number(value: &toml::Value) -> bool {
    value.is_float() || value.is_integer()
}

impl From<Classes> for toml::Value {
    fn from(classes: Classes) -> Self {
        match classes {
            Classes::Balanced => "balanced".into(),
            Classes::Numbers(numbers) => {
                Self::Table(numbers.into_iter().map(|(c, x)| (c, x.into())).collect())
            }
        }
    }
}

impl From<ClassWeight> for toml::Value {
    fn from(weight: ClassWeight) -> Self {
        match weight {
            ClassWeight::All(classes) => classes.into(),
            ClassWeight::Targets(targets) => {
                Self::Table(targets.into_iter().map(|(t, c)| (t, c.into())).collect())
            }
        }
    }
}

impl ClassWeight {
    /// As a recipe has it.
    #[must_use]
    pub fn toml(&self) -> toml::Value {
        self.clone().into()
    }
}

/// What rows count in the losses of a task: by target, none where all count alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Of the training rows.
    pub train: Vec<Option<Vec<f32>>>,
    /// Of the rows that are looked at.
    pub validation: Vec<Option<Vec<f32>>>,
}

/// A key of `[train]` whose loss does not take weights of rows.
fn unweighed(t: &Train) -> Option<&'static str> {
    let keys = [
        ("train.language", t.language.is_some()),
        ("train.fuse", t.fuse.is_some()),
        ("train.chain", t.chain.is_some()),
        (
            "train.objective = \"contrastive\"",
            t.objective == Objective::Contrastive,
        ),
        ("train.head.start = \"probe\"", t.head.start == Start::Probe),
        (
            "train.optimiser = \"sophia_g\"",
            t.optimiser == OptimiserName::SophiaG,
        ),
        (
            "train.representation.method = \"rep_mtl\"",
            matches!(t.representation, Some(Representation::RepMtl { .. })),
        ),
    ];
    keys.iter().find(|(_, said)| *said).map(|(key, _)| *key)
}

/// Whether `class_weight` goes with the other keys.
///
/// # Errors
/// The first that it does not go with.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    if t.class_weight.is_none() {
        return Ok(());
    }
    // Rows that get their label from teachers would need weights after the fact.
    let pseudo = t.pseudo.is_some().then_some("train.pseudo");
    match unweighed(t).or(pseudo) {
        None => Ok(()),
        Some(key) => {
            let what = format!(
                "`train.class_weight` weighs rows by their class; what `{key}` asks for counts rows alike"
            );
            Err(MergeError::plan("bad-recipe", what).hint("leave out one of them"))
        }
    }
}

/// Refuses tasks whose weights the run would pass over.
///
/// # Errors
/// A task with row weights and a loss that does not take them, weights of targets beside a balancer.
pub(super) fn check_tasks(t: &Train, given: &[Given]) -> Result<()> {
    for task in given {
        let (spec, id) = (&task.spec, &task.spec.id);
        let weighed = spec.table.as_ref().is_some_and(|t| !t.weight.is_empty());
        let search = is_search(spec).then_some("type = \"retrieval\"");
        if let Some(key) = unweighed(t).or(search).filter(|_| weighed) {
            let what = format!(
                "task `{id}` has row weights (`table.weight`); what `{key}` asks for counts rows alike"
            );
            return Err(MergeError::plan("bad-task", what)
                .hint("leave out one of them")
                .into());
        }
        let first = spec.targets.first().map(|t| t.weight);
        let rep_mtl = matches!(t.representation, Some(Representation::RepMtl { .. }));
        let alike = spec.targets.iter().all(|t| Some(t.weight) == first);
        if (t.balance.is_some() || rep_mtl) && !alike {
            let key = if rep_mtl {
                "train.representation"
            } else {
                "train.balance"
            };
            let what = format!(
                "task `{id}` has weights of targets (`targets[].weight`), and `{key}` weighs the targets too"
            );
            return Err(MergeError::plan("bad-task", what)
                .hint("leave out one of them")
                .into());
        }
    }
    Ok(())
}

/// Finds what rows count in the losses of all heads.
///
/// # Errors
/// Targets and classes of `class_weight` that there are not, or that are no classes.
pub(super) fn counts(t: &Train, tasks: &mut [Learned<'_>], heads: &[Head]) -> Result<()> {
    let said = by_head(t.class_weight.as_ref(), heads)?;
    for task in tasks {
        let mut counts = Counts::default();
        for (place, at) in task.heads.clone().enumerate() {
            let factors = said[at].map(|c| factors(c, &heads[at], &task.train, place));
            let factors = factors.transpose()?;
            let of = |rows: &Rows| weights(rows, place, factors.as_deref());
            counts.train.push(of(&task.train));
            counts
                .validation
                .push(task.validation.as_ref().and_then(of));
        }
        task.counts = counts;
    }
    Ok(())
}

/// What is said of every head.
fn by_head<'c>(said: Option<&'c ClassWeight>, heads: &[Head]) -> Result<Vec<Option<&'c Classes>>> {
    let bad = |what: String, hint: String| {
        let what = format!("`train.class_weight` {what}");
        Err(MergeError::plan("bad-recipe", what).hint(hint).into())
    };
    let of_classes = |head: &Head| head.kind == HeadKind::Classification;
    let names = |wanted: &dyn Fn(&Head) -> bool| {
        let names: Vec<&str> = heads
            .iter()
            .filter(|h| wanted(h))
            .map(|h| &*h.task)
            .collect();
        names.join(", ")
    };
    let mut found = vec![None; heads.len()];
    match said {
        None => {}
        Some(ClassWeight::All(classes)) => {
            let places = (0..heads.len()).filter(|i| of_classes(&heads[*i]));
            let places: Vec<usize> = places.collect();
            match (&places[..], classes) {
                ([], _) => {
                    return bad(
                        format!(
                            "weighs classes, and no target is one class of several: {}",
                            names(&|_| true)
                        ),
                        "leave it out; `table.weight` names a column of row weights".into(),
                    );
                }
                ([_, _, ..], Classes::Numbers(_)) => {
                    return bad(
                        format!(
                            "gives numbers by class, and several targets have classes: {}",
                            names(&of_classes)
                        ),
                        "say of which target: { TARGET = { yes = 3.0 } }".into(),
                    );
                }
                _ => places.iter().for_each(|i| found[*i] = Some(classes)),
            }
        }
        Some(ClassWeight::Targets(targets)) => {
            for (name, classes) in targets {
                let is = |head: &Head| {
                    head.task == *name || head.task.rsplit('/').next() == Some(&**name)
                };
                let places: Vec<usize> = (0..heads.len()).filter(|i| is(&heads[*i])).collect();
                match places[..] {
                    [at] if of_classes(&heads[at]) => found[at] = Some(classes),
                    [at] => {
                        return bad(
                            format!(
                                "names the target `{name}`, which is of the kind {}, not one class of several",
                                heads[at].kind.word()
                            ),
                            "leave it out; `table.weight` names a column of row weights".into(),
                        );
                    }
                    [] => {
                        let all: Vec<&str> = heads
                            .iter()
                            .map(|h| h.task.rsplit('/').next().unwrap_or(&h.task))
                            .collect();
                        return bad(
                            format!("names the target `{name}`, which there is not"),
                            near(name, &all, "targets"),
                        );
                    }
                    _ => {
                        return bad(
                            format!("names the target `{name}`, and several have that name"),
                            format!("write the whole name: {}", names(&is)),
                        );
                    }
                }
            }
        }
    }
    Ok(found)
}

fn near(name: &str, all: &[&str], what: &str) -> String {
    match suggest::nearest(name, all, 1).first() {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("its {what}: {}", all.join(", ")),
    }
}

/// The weight of every class of a head.
fn factors(classes: &Classes, head: &Head, rows: &Rows, place: usize) -> Result<Vec<f64>> {
    let names = &rows.asked[place].classes;
    let name = |c: usize| names.get(c).cloned().unwrap_or_else(|| c.to_string());
    match classes {
        Classes::Balanced => {
            let mut sums = vec![0f64; head.outputs()];
            for (row, wanted) in rows.wanted[place].iter().enumerate() {
                if let Some(Wanted::Class(c)) = wanted
                    && let Some(sum) = sums.get_mut(*c as usize)
                {
                    *sum += rows.weights.as_ref().map_or(1.0, |w| f64::from(w[row]));
                }
            }
            let all: f64 = sums.iter().sum();
            let there = sums.iter().filter(|s| **s > 0.0).count() as f64;
            // A class that training rows lack has rows to look at alone.
            let factor = |sum: &f64| if *sum > 0.0 { all / (there * sum) } else { 1.0 };
            Ok(sums.iter().map(factor).collect())
        }
        Classes::Numbers(numbers) => {
            let mut found = vec![1.0; head.outputs()];
            for (class, x) in numbers {
                match (0..found.len()).find(|c| name(*c) == *class) {
                    Some(c) => found[c] = *x,
                    None => {
                        let all: Vec<String> = (0..found.len()).map(name).collect();
                        let all: Vec<&str> = all.iter().map(String::as_str).collect();
                        let what = format!(
                            "`train.class_weight`: target `{}` has no class `{class}`",
                            head.task
                        );
                        return Err(MergeError::plan("bad-recipe", what)
                            .hint(near(class, &all, "classes"))
                            .into());
                    }
                }
            }
            Ok(found)
        }
    }
}

/// Weights of rows times those of their classes; `None` where all are 1.
fn weights(rows: &Rows, place: usize, factors: Option<&[f64]>) -> Option<Vec<f32>> {
    if rows.weights.is_none() && factors.is_none() {
        return None;
    }
    let one = |(row, wanted): (usize, &Option<Wanted>)| {
        let own = rows.weights.as_ref().map_or(1.0, |w| f64::from(w[row]));
        let factor = match (wanted, factors) {
            (Some(Wanted::Class(c)), Some(f)) => f.get(*c as usize).copied().unwrap_or(1.0),
            _ => 1.0,
        };
        (own * factor) as f32
    };
    Some(rows.wanted[place].iter().enumerate().map(one).collect())
}

#[cfg(test)]
mod tests;
