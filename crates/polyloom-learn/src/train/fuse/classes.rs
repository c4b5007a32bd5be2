//! Classifiers that a classifier learns from.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;

use super::{Fuse, blend};
use crate::engine::Value;
use crate::error::Result;
use crate::tasks::evaluate::{Found, files, own};
use crate::tasks::fit::fit;
use crate::tasks::forward::outputs;
use crate::tasks::system::{Ready, no_head};
use crate::tasks::{Base, Head, HeadKind, Rows, System};
use crate::train::learned::Learned;
use crate::train::recipe::Recipe;

/// Rows of a pass of a source.
const BATCH: usize = 64;

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
    ) -> Result<Value> {
        let mut targets = Vec::with_capacity(rows.len() * self.classes);
        for row in rows {
            targets.extend_from_slice(&self.values[*row as usize * self.classes..][..self.classes]);
        }
        let [lambda, temperature] = fuse.numbers(false);
        blend(lambda, temperature, hard, said, &targets)
    }
}

/// Asks all sources for the training rows of all tasks.
///
/// # Errors
/// Sources that cannot be opened or have no head for a task, tasks that do not ask for one class of several.
pub(in crate::train) fn ask(
    recipe: &Recipe,
    tasks: &mut [Learned<'_>],
    heads: &[Head],
) -> Result<()> {
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
                said.push(probabilities(
                    recipe,
                    (&base, &ready),
                    task,
                    found,
                    target,
                    name,
                )?);
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

/// What a teacher says of a target's training rows, rows times classes; nothing where it has no head for it.
///
/// # Errors
/// As [`ask`].
pub(in crate::train) fn said_by(
    recipe: &Recipe,
    name: &str,
    task: &Learned<'_>,
    place: usize,
    target: &Head,
) -> Result<Option<Vec<f32>>> {
    let system = System::find(name, None, None)?;
    let most = system.max_length()?.or(recipe.train.max_length);
    let asked = &task.train.asked[place].target;
    let Some((head, file)) = system.head(&task.given.spec.id, asked)? else {
        return Ok(None);
    };
    let found = Found {
        target: asked.clone(),
        head,
        place: file.display().to_string(),
        own: false,
    };
    let base = Base::open(&system.base, most)?;
    let ready = base.ready(&system)?;
    probabilities(recipe, (&base, &ready), task, found, target, name).map(Some)
}

/// What a head of another model says of a task's training rows, rows times the target's classes.
fn probabilities(
    recipe: &Recipe,
    (base, ready): (&Base, &Ready<'_>),
    task: &Learned<'_>,
    found: Found,
    target: &Head,
    name: &str,
) -> Result<Vec<f32>> {
    let (t, spec) = (&recipe.train, &task.given.spec);
    let feature = found.head.feature;
    let rows = Rows::read(
        spec,
        &task.loader(),
        &t.split,
        &base.reader,
        feature,
        t.limit,
    )?;
    let at = rows.asked.iter().position(|a| a.target == found.target);
    let asked = &rows.asked[at.unwrap_or(0)];
    let (head, _) = fit(found.head, asked, ready.model(), &found.place, found.own)?;
    let one = [&head];
    let rows = ready.with(&one, |model, source| {
        outputs(model, source, &base.reader, &one, &rows.shown, BATCH)
    })?;
    let rows = rows.into_iter().next().unwrap_or_default();
    aligned(&rows, &head, target, name)
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
    let [_, temperature] = fuse.numbers(false);
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
        let weights = fuse.rule.weights(&costs);
        let mixed = |c: usize| {
            rows.iter()
                .zip(&weights)
                .map(|(p, w)| w * p[c])
                .sum::<f64>()
        };
        // softmax(log p / T)
        let soft: Vec<f64> = (0..classes)
            .map(|c| mixed(c).powf(1.0 / temperature))
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
    use crate::ops;
    use crate::train::fuse::Rule;

    fn of(rule: Rule, temperature: f64, labels: bool) -> Fuse {
        Fuse {
            rule,
            temperature: Some(temperature),
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
            lambda: Some(0.0),
            temperature: Some(2.0),
            labels: false,
            ..Fuse::default()
        };
        let scores = |values: Vec<f32>| Value::leaf(crate::engine::tensor(values, (2, 2)).unwrap());
        let same = scores(vec![0.0, -2.0 * 3f32.ln(), 1.0, 1.0]);
        let loss = soft.mixed(&fuse, None, &same, &[0, 1]).unwrap();
        assert!(loss.number().unwrap().abs() < 1e-6);
        // KL of (0.75, 0.25) to (0.5, 0.5), for one of two rows.
        let even = scores(vec![0.0; 4]);
        let loss = soft.mixed(&fuse, None, &even, &[0, 1]).unwrap();
        let kl = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
        assert!((loss.number().unwrap() - kl / 2.0).abs() < 1e-6);
        // Half of it beside half of the loss on labels.
        let fuse = Fuse {
            lambda: Some(0.5),
            labels: true,
            ..fuse
        };
        let hard = ops::cross_entropy(&even, &[0, 0], 0.0).unwrap();
        let loss = soft.mixed(&fuse, Some(hard), &even, &[0, 1]).unwrap();
        assert!((loss.number().unwrap() - (kl / 4.0 + 2f32.ln() / 2.0)).abs() < 1e-6);
    }
}
