//! Probability-level fusion (FuseLLM, Wan et al. 2024; for classifiers): a model learns what others say of its rows, whatever
//! their size or family.
//!
//! Of every row the sources' class probabilities are made one: those of the source that finds the right answer likeliest
//! ("min_ce"), or their mean with weights `softmax(-cross-entropy)` ("avg_ce"). The loss is
//! `lambda CE(gold) + (1 - lambda) KL(fused || model)`, the KL between distributions softened by the temperature. Where
//! labels are not looked at, a source's cross-entropy is the entropy of what it says.

use std::path::PathBuf;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::recipe::Recipe;
use crate::engine::Value;
use crate::error::Result;
use crate::ops;
use crate::tasks::evaluate::{files, own};
use crate::tasks::fit::fit;
use crate::tasks::forward::outputs;
use crate::tasks::system::no_head;
use crate::tasks::{Base, Head, HeadKind, Rows, System};

/// Rows of a pass of a source.
const BATCH: usize = 64;

/// How the sources' probabilities of a row are made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Those of the source with the lowest cross-entropy; the first of equals.
    #[default]
    MinCe,
    /// The mean, weighted by the softmax of the negative cross-entropies.
    AvgCe,
}

/// `[train.fuse]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fuse {
    /// Models with heads for the tasks: folders, `MODEL+ADAPTER`, folders of heads.
    pub sources: Vec<String>,
    /// Folder of heads for all of them; each source's own where none is named.
    pub heads: Option<PathBuf>,
    /// How they are made one.
    pub rule: Rule,
    /// Share of the loss on the labels.
    pub lambda: f64,
    /// What both sides' scores are divided by.
    pub temperature: f64,
    /// Whether labels are looked at, here and in the rule.
    pub labels: bool,
}

impl Default for Fuse {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            heads: None,
            rule: Rule::default(),
            lambda: 0.5,
            temperature: 2.0,
            labels: true,
        }
    }
}

impl Fuse {
    /// Whether the values can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> std::result::Result<(), MergeError> {
        let bad = |what: &str| Err(MergeError::plan("bad-recipe", what));
        if !(0.0..=1.0).contains(&self.lambda) {
            return bad("`train.fuse.lambda` must be in 0 to 1");
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return bad("`train.fuse.temperature` must be above 0");
        }
        if !self.labels && self.lambda > 0.0 {
            return Err(MergeError::plan(
                "bad-recipe",
                "`train.fuse.labels = false` and a `lambda` above 0, which is the share of the loss on labels",
            )
            .hint("lambda = 0"));
        }
        Ok(())
    }
}

/// What the sources say of the rows of a head, made one and softened: rows times classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Soft {
    classes: usize,
    values: Vec<f32>,
}

impl Soft {
    /// The loss of scores on drawn rows; `hard` is the loss on their labels.
    ///
    /// # Errors
    /// Scores of another shape.
    pub fn mixed(
        &self,
        fuse: &Fuse,
        hard: Option<Value>,
        said: &Value,
        rows: &[u32],
    ) -> Result<Option<Value>> {
        let mut targets = Vec::with_capacity(rows.len() * self.classes);
        for row in rows {
            targets.extend_from_slice(&self.values[*row as usize * self.classes..][..self.classes]);
        }
        // KL is the cross-entropy less the entropy of the targets, which has no gradient but belongs to the number.
        let entropy: f64 = targets
            .iter()
            .filter(|q| **q > 0.0)
            .map(|q| -f64::from(*q) * f64::from(*q).ln())
            .sum();
        let scores = ops::scale(said, (1.0 / fuse.temperature) as f32)?;
        let soft = ops::soft_cross_entropy(&scores, &targets)?;
        let known = (entropy / rows.len().max(1) as f64) as f32;
        let soft = ops::sub(
            &soft,
            &Value::constant(crate::engine::tensor(vec![known], ())?),
        )?;
        let soft = ops::scale(&soft, (1.0 - fuse.lambda) as f32)?;
        Ok(Some(match hard.filter(|_| fuse.lambda > 0.0) {
            Some(hard) => ops::add(&soft, &ops::scale(&hard, fuse.lambda as f32)?)?,
            None => soft,
        }))
    }
}

/// Asks all sources for the training rows of all tasks.
///
/// # Errors
/// Sources that cannot be opened or have no head for a task, tasks that do not ask for one class of several.
pub(super) fn ask(recipe: &Recipe, tasks: &mut [Learned<'_>], heads: &[Head]) -> Result<()> {
    let Some(fuse) = &recipe.train.fuse else {
        return Ok(());
    };
    // By task, head and source: what it says, rows times classes.
    let mut said: Vec<Vec<Vec<Vec<f32>>>> = tasks
        .iter()
        .map(|t| vec![Vec::new(); t.heads.len()])
        .collect();
    for name in &fuse.sources {
        let system = System::find(name, None, fuse.heads.as_deref())?;
        let most = system.max_length()?.or(recipe.train.max_length);
        let base = Base::open(&system.base, most)?;
        let ready = base.ready(&system)?;
        for (task, said) in tasks.iter().zip(&mut said) {
            let spec = &task.given.spec;
            let found = match files(&system, spec)? {
                Some(found) => found,
                None => own(&ready, spec)?.ok_or_else(|| {
                    let target = spec.targets.first().map_or("", |t| &*t.name);
                    no_head(&system, &spec.id, target)
                })?,
            };
            for ((found, target), said) in
                found.into_iter().zip(&heads[task.heads.clone()]).zip(said)
            {
                if target.kind != HeadKind::Classification {
                    let what = format!(
                        "task `{}` does not ask for one class of several",
                        target.task
                    );
                    return Err(MergeError::plan("bad-task", what)
                        .hint("train.fuse is for classifiers; leave the task out")
                        .into());
                }
                let t = &recipe.train;
                let loader = task.loader();
                let feature = found.head.feature;
                let rows = Rows::read(spec, &loader, &t.split, &base.reader, feature, t.limit)?;
                let at = rows.asked.iter().position(|a| a.target == found.target);
                let asked = &rows.asked[at.unwrap_or(0)];
                let (head, _) = fit(found.head, asked, ready.model(), &found.place, found.own)?;
                let one = [&head];
                let rows = ready.with(&one, |model, source| {
                    outputs(model, source, &base.reader, &one, &rows.shown, BATCH)
                })?;
                let rows = rows.into_iter().next().unwrap_or_default();
                said.push(aligned(&rows, &head, target, name)?);
            }
        }
    }
    for (task, said) in tasks.iter_mut().zip(said) {
        for (place, sources) in said.into_iter().enumerate() {
            let classes = heads[task.heads.clone()][place].outputs();
            let wanted = &task.train.wanted[place];
            let values = fused(fuse, &sources, wanted, classes);
            task.soft.push(Some(Soft { classes, values }));
        }
    }
    Ok(())
}

/// Probabilities in the order of the target's classes, found by name; the mass of others is dropped.
fn aligned(rows: &[Vec<f32>], head: &Head, target: &Head, source: &str) -> Result<Vec<f32>> {
    let same = head.labels == target.labels || head.labels.is_empty() || target.labels.is_empty();
    if same && head.outputs() == target.outputs() {
        return Ok(rows.concat());
    }
    let at: Vec<Option<usize>> = target
        .labels
        .iter()
        .map(|label| head.labels.iter().position(|l| l == label))
        .collect();
    if at.iter().all(Option::is_none) {
        let what = format!("has no class of task `{}`", target.task);
        return Err(MergeError::plan("head-differs", what)
            .at(source.to_owned())
            .into());
    }
    let mut values = Vec::with_capacity(rows.len() * at.len());
    for row in rows {
        let own = at.iter().map(|a| a.map_or(0.0, |a| row[a]));
        let total: f32 = own.clone().sum();
        // A row of which all mass is on other classes says nothing.
        let even = 1.0 / at.len() as f32;
        values.extend(own.map(|p| if total > 0.0 { p / total } else { even }));
    }
    Ok(values)
}

/// One softened distribution per row.
fn fused(fuse: &Fuse, sources: &[Vec<f32>], wanted: &[Option<Wanted>], classes: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(wanted.len() * classes);
    for (i, wanted) in wanted.iter().enumerate() {
        let rows: Vec<Vec<f64>> = sources
            .iter()
            .map(|s| {
                s[i * classes..][..classes]
                    .iter()
                    .map(|p| f64::from(*p))
                    .collect()
            })
            .collect();
        let costs: Vec<f64> = rows
            .iter()
            .map(|p| cost(p, wanted.as_ref(), fuse.labels))
            .collect();
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let weights: Vec<f64> = match fuse.rule {
            Rule::MinCe => {
                let first = costs.iter().position(|c| *c == least);
                (0..rows.len())
                    .map(|k| if Some(k) == first { 1.0 } else { 0.0 })
                    .collect()
            }
            Rule::AvgCe => {
                let raw: Vec<f64> = costs.iter().map(|c| (least - c).exp()).collect();
                let total: f64 = raw.iter().sum();
                raw.iter().map(|w| w / total).collect()
            }
        };
        let mixed = |c: usize| {
            rows.iter()
                .zip(&weights)
                .map(|(p, w)| w * p[c])
                .sum::<f64>()
        };
        // softmax(log p / T)
        let soft: Vec<f64> = (0..classes)
            .map(|c| mixed(c).powf(1.0 / fuse.temperature))
            .collect();
        let total: f64 = soft.iter().sum();
        values.extend(soft.iter().map(|s| (s / total) as f32));
    }
    values
}

/// Cross-entropy of a distribution with what is right; its own entropy where that is not known or not looked at.
fn cost(p: &[f64], wanted: Option<&Wanted>, labels: bool) -> f64 {
    match wanted.filter(|_| labels) {
        Some(Wanted::Class(c)) => -p[*c as usize].max(f64::MIN_POSITIVE).ln(),
        _ => p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rule: Rule, temperature: f64, labels: bool) -> Fuse {
        Fuse {
            rule,
            temperature,
            labels,
            ..Fuse::default()
        }
    }

    #[test]
    fn the_source_that_finds_the_answer_likelier_is_taken() {
        let sources = [vec![0.9f32, 0.1, 0.6, 0.4], vec![0.5, 0.5, 0.2, 0.8]];
        let wanted = [Some(Wanted::Class(0)), Some(Wanted::Class(1))];
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let found = fused(&of(Rule::MinCe, 1.0, true), &sources, &wanted, 2);
        assert!(near(&found, &[0.9, 0.1, 0.2, 0.8]), "{found:?}");
        // Without labels the surer one: 0.9 against 0.5, and 0.8 against 0.6.
        let found = fused(&of(Rule::MinCe, 1.0, false), &sources, &[None, None], 2);
        assert!(near(&found, &[0.9, 0.1, 0.2, 0.8]), "{found:?}");
        // Weights 0.9 and 0.5 of the probabilities of the right class, over their sum.
        let found = fused(&of(Rule::AvgCe, 1.0, true), &sources, &wanted[..1], 2);
        let right = (0.9 * 0.9 + 0.5 * 0.5) / 1.4;
        assert!(near(&found, &[right, 1.0 - right]), "{found:?}");
        // Softened: the roots of 0.9 and 0.1.
        let found = fused(&of(Rule::MinCe, 2.0, true), &sources, &wanted[..1], 2);
        let (a, b) = (0.9f32.sqrt(), 0.1f32.sqrt());
        assert!(near(&found, &[a / (a + b), b / (a + b)]), "{found:?}");
    }

    #[test]
    fn a_target_that_says_the_same_has_no_loss_left() {
        let soft = Soft {
            classes: 2,
            values: vec![0.75, 0.25, 0.5, 0.5],
        };
        let fuse = Fuse {
            lambda: 0.0,
            temperature: 2.0,
            labels: false,
            ..Fuse::default()
        };
        let scores = |values: Vec<f32>| Value::leaf(crate::engine::tensor(values, (2, 2)).unwrap());
        let same = scores(vec![0.0, -2.0 * 3f32.ln(), 1.0, 1.0]);
        let loss = soft.mixed(&fuse, None, &same, &[0, 1]).unwrap().unwrap();
        assert!(loss.number().unwrap().abs() < 1e-6);
        // KL of (0.75, 0.25) to (0.5, 0.5), for one of two rows.
        let even = scores(vec![0.0; 4]);
        let loss = soft.mixed(&fuse, None, &even, &[0, 1]).unwrap().unwrap();
        let kl = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
        assert!((loss.number().unwrap() - kl / 2.0).abs() < 1e-6);
        // Half of it beside half of the loss on labels.
        let fuse = Fuse {
            lambda: 0.5,
            labels: true,
            ..fuse
        };
        let hard = ops::cross_entropy(&even, &[0, 0], 0.0).unwrap();
        let loss = soft
            .mixed(&fuse, Some(hard), &even, &[0, 1])
            .unwrap()
            .unwrap();
        assert!((loss.number().unwrap() - (kl / 4.0 + 2f32.ln() / 2.0)).abs() < 1e-6);
    }
}
