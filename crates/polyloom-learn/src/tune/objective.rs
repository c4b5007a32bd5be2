//! What coefficients are learned on: rows and heads of the tasks, and the loss of a step.

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples;
use polyloom::evaluate::board::score::search::is_search;
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use polyloom_core::rng::Stream;

use super::recipe::{Loss, Recipe};
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::Source;
use crate::ops;
use crate::tasks::evaluate::files;
use crate::tasks::fit::{fit, full};
use crate::tasks::forward::features;
use crate::tasks::{Feature, Head, HeadKind, Opened, Reader, Rows, Shown, System};
use crate::train::Given;
use crate::train::augment::changed;
use crate::train::contrast::contrast;
use crate::train::learned::by_vectors;
use crate::train::objective::loss;
use crate::train::recipe::Objective;
use crate::train::sampler::order;

/// A task whose rows are seen.
pub(crate) struct Seen {
    /// Its rows.
    pub rows: Rows,
    /// What its heads see.
    pub feature: Feature,
    /// A head for each of its targets.
    pub heads: Vec<Head>,
}

/// Which rows are seen, and where their heads lie.
pub(crate) struct Wanted<'a> {
    /// The base.
    pub base: &'a str,
    /// The experts.
    pub experts: &'a [super::recipe::Expert],
    /// Folder of the heads; each expert's own where none is named.
    pub heads: Option<&'a Path>,
    /// Split of the rows.
    pub split: &'a str,
    /// Rows of a task at most.
    pub limit: Option<usize>,
    /// The loss asks for classes: entropy, pseudo labels.
    pub entropy: bool,
    /// The vectors of texts answer: retrieval and similarity, for which no heads are looked for.
    pub vectors: Option<u64>,
    /// Table of the recipe, for messages.
    pub table: &'static str,
}

/// Rows and heads of the tasks.
pub(crate) fn seen(
    wanted: &Wanted<'_>,
    opened: &Opened,
    reader: &Reader,
    tasks: &[Given],
) -> Result<Vec<Seen>> {
    let mut systems = Vec::new();
    match wanted.heads {
        _ if wanted.vectors.is_some() => {}
        Some(heads) => systems.push((None, System::find(wanted.base, None, Some(heads))?)),
        None => {
            for expert in wanted.experts {
                let system = System::find(&expert.path, Some(wanted.base), None)?;
                systems.push((expert.task.as_deref(), system));
            }
        }
    }
    let mut found = Vec::new();
    for given in tasks {
        let spec = &given.spec;
        if let Some(seed) = wanted.vectors {
            found.push(compared(wanted, opened, reader, given, seed)?);
            continue;
        }
        let last = spec.id.rsplit('/').next().unwrap_or_default();
        // The task's own expert is asked first.
        let mut order: Vec<_> = systems.iter().collect();
        order.sort_by_key(|(task, _)| !task.is_some_and(|t| t == spec.id || t == last));
        let mut heads = None;
        for (_, system) in order {
            if let Some(files) = files(system, spec)? {
                heads = Some(files);
                break;
            }
        }
        let Some(files) = heads else {
            let what = format!("no head for task `{}`", spec.id);
            let error = MergeError::plan("no-head", what);
            return Err(error.hint(format!("{}.heads (--heads DIR) names a folder of heads; else they lie in `heads/` of the experts", wanted.table)).into());
        };
        let features = files.iter().map(|f| f.head.feature);
        let Some(feature) = Feature::common(features) else {
            let what = format!("the heads of task `{}` see different features", spec.id);
            return Err(MergeError::plan("bad-head", what).into());
        };
        let loader = Loader::new(spec, given.folder.clone(), Limits::default());
        let split = wanted.split;
        let rows = Rows::read(spec, &loader, split, reader, feature, wanted.limit)?;
        if rows.is_empty() {
            return Err(no_rows(&spec.id, wanted));
        }
        let mut heads = Vec::new();
        for (file, asked) in files.into_iter().zip(&rows.asked) {
            let mut head = file.head;
            head.task = full(&spec.id, &file.target);
            let (mut head, _) = fit(head, asked, &opened.model, &file.place, file.own)?;
            head.task_hash = Some(given.hash.clone());
            let none = matches!(head.kind, HeadKind::Regression | HeadKind::Dense(_));
            if wanted.entropy && none {
                let what = format!(
                    "task `{}` asks for {}, whose entropy is not looked at",
                    spec.id,
                    head.kind.word()
                );
                let error = MergeError::plan("bad-task", what);
                return Err(error.hint("leave its expert or task out, or learn from labels (tune.loss = \"supervised\")").into());
            }
            heads.push(head);
        }
        found.push(Seen {
            rows,
            feature,
            heads,
        });
    }
    Ok(found)
}

/// The pairs of a task of vectors: queries beside relevant documents, drawn by the seed, or two texts and how alike they are.
fn compared(
    wanted: &Wanted<'_>,
    opened: &Opened,
    reader: &Reader,
    given: &Given,
    seed: u64,
) -> Result<Seen> {
    let (spec, split, limit) = (&given.spec, wanted.split, wanted.limit);
    by_vectors(spec, Objective::Contrastive, &opened.model)?;
    let loader = Loader::new(spec, given.folder.clone(), Limits::default());
    let feature = Feature::Embeddings;
    let rows = match is_search(spec) {
        true => Rows::pairs(spec, &loader, split, reader, limit, seed)?,
        false => Rows::read(spec, &loader, split, reader, feature, limit)?,
    };
    if rows.is_empty() {
        return Err(no_rows(&spec.id, wanted));
    }
    let mut head = Head::embedding(&spec.id);
    head.task_hash = Some(given.hash.clone());
    Ok(Seen {
        rows,
        feature,
        heads: vec![head],
    })
}

fn no_rows(task: &str, wanted: &Wanted<'_>) -> Error {
    let what = format!("task `{task}` has no rows in split `{}`", wanted.split);
    let hint = format!("{}.split (--split NAME) chooses another", wanted.table);
    MergeError::plan("empty-task", what).hint(hint).into()
}

/// What a recipe asks of the rows beside: few of a class, pictures and one class of several for pseudo labels.
///
/// # Errors
/// Tasks without classes, a base of texts.
pub(super) fn chosen(
    seen: Vec<Seen>,
    recipe: &Recipe,
    reader: &Reader,
    tasks: &[Given],
) -> Result<Vec<Seen>> {
    let pseudo = recipe.loss() == Loss::Pseudo;
    if pseudo && !matches!(reader, Reader::Pictures(_)) {
        let what = "`tune.loss = \"pseudo\"` asks whether a picture is still known when it is changed; the base reads texts";
        return Err(MergeError::plan("bad-recipe", what)
            .hint("tune.loss = \"entropy\" needs no labels either")
            .into());
    }
    let mut found = Vec::with_capacity(seen.len());
    for (mut one, given) in seen.into_iter().zip(tasks) {
        let id = &given.spec.id;
        if pseudo && one.heads.iter().any(|h| h.kind != HeadKind::Classification) {
            let what = format!(
                "task `{id}` does not ask for one class of several, which a pseudo label is"
            );
            return Err(MergeError::plan("bad-task", what)
                .hint("leave it out of tune.tasks, or tune.loss = \"entropy\"")
                .into());
        }
        if let Some(shots) = recipe.tune.shots {
            one.rows = few(one.rows, shots, id, recipe.seed)?;
        }
        found.push(one);
    }
    Ok(found)
}

/// The sum over tasks of their mean losses on the rows of a step.
pub(super) fn objective(
    recipe: &Recipe,
    opened: &Opened,
    reader: &Reader,
    seen: &[Seen],
    batch: usize,
    source: &dyn Source,
    step: u32,
) -> Result<(Value, Vec<f64>)> {
    let drawn: Vec<Vec<usize>> = seen
        .iter()
        .enumerate()
        .map(|(task, s)| drawn(s.rows.len(), batch, recipe.seed, task, step))
        .collect();
    let parts: Vec<(Feature, Vec<&Shown>)> = seen
        .iter()
        .zip(&drawn)
        .map(|(s, rows)| (s.feature, rows.iter().map(|i| &s.rows.shown[*i]).collect()))
        .collect();
    let found = features(&opened.model, source, reader, &parts)?;
    // FixMatch: what the picture is called as it is, is asked of a changed one.
    let (strong, changed_parts);
    let found = match (recipe.loss(), reader) {
        (Loss::Pseudo, Reader::Pictures(pictures)) => {
            strong = parts
                .iter()
                .enumerate()
                .map(|(task, (_, rows))| {
                    let stream = |i| Stream::new(recipe.seed, "tune: strong", mixed(step, task, i));
                    let one = |(i, shown): (usize, &&Shown)| match shown {
                        Shown::Planes(planes) => {
                            let strength = recipe.tune.augment;
                            Shown::Planes(changed(planes, pictures.size, strength, stream(i)))
                        }
                        other => (*other).clone(),
                    };
                    rows.iter().enumerate().map(one).collect::<Vec<Shown>>()
                })
                .collect::<Vec<_>>();
            changed_parts = parts
                .iter()
                .zip(&strong)
                .map(|((feature, _), rows)| (*feature, rows.iter().collect()))
                .collect::<Vec<(Feature, Vec<&Shown>)>>();
            let strong = features(&opened.model, source, reader, &changed_parts)?;
            found
                .into_iter()
                .zip(strong)
                .map(|(weak, s)| (Some(weak), s))
                .collect()
        }
        _ => found.into_iter().map(|f| (None, f)).collect::<Vec<_>>(),
    };
    let (mut whole, mut losses): (Option<Value>, _) = (None, Vec::with_capacity(seen.len()));
    for ((s, rows), (weak, features)) in seen.iter().zip(&drawn).zip(&found) {
        let mut of_task: Option<Value> = None;
        for (place, head) in s.heads.iter().enumerate() {
            let said = head.forward(source, features)?;
            let value = match recipe.loss() {
                Loss::Entropy => Some(unsure(head, &said)?),
                Loss::EntropyShare => Some(share(head, &unsure(head, &said)?)?),
                Loss::Information => {
                    if head.kind == HeadKind::Multilabel {
                        let what = format!("task `{}` has several labels a row", head.task);
                        let error = MergeError::plan("bad-task", what);
                        return Err(error.hint("tune.loss = \"entropy_share\"").into());
                    }
                    let spread = ops::marginal_entropy(&said)?;
                    Some(share(head, &ops::sub(&unsure(head, &said)?, &spread)?)?)
                }
                Loss::Pseudo => match weak {
                    Some(weak) => {
                        let called = head.forward(source, weak)?;
                        Some(pseudo(&called, &said, recipe.tune.confidence)?)
                    }
                    None => None,
                },
                Loss::Supervised => {
                    loss(head, &said, &known(s, place, rows), 0.0)?.map(|(value, _)| value)
                }
                Loss::Contrastive => {
                    let temperature = recipe.tune.similarity_temperature as f32;
                    contrast(&said, &known(s, place, rows), temperature)?.map(|(value, _)| value)
                }
            };
            of_task = sum(of_task, value)?;
        }
        losses.push(match &of_task {
            Some(value) => f64::from(value.number()?) / s.heads.len() as f64,
            None => 0.0,
        });
        let mean = match of_task {
            Some(value) if s.heads.len() > 1 => {
                Some(ops::scale(&value, 1.0 / s.heads.len() as f32)?)
            }
            other => other,
        };
        whole = sum(whole, mean)?;
    }
    let whole =
        whole.ok_or_else(|| Error::shape("tune", "no row of the step says what is right"))?;
    Ok((whole, losses))
}

/// What is right of some rows, for the head at a place.
fn known<'a>(seen: &'a Seen, place: usize, rows: &[usize]) -> Vec<Option<&'a examples::Wanted>> {
    let wanted = &seen.rows.wanted[place];
    rows.iter().map(|i| wanted[*i].as_ref()).collect()
}

/// One number of a step, a task and a row.
fn mixed(step: u32, task: usize, row: usize) -> u64 {
    (u64::from(step) << 32) | ((task as u64) << 20) | row as u64
}

/// So many rows of every class, drawn by the seed; all of a class that has fewer.
fn few(rows: Rows, shots: usize, task: &str, seed: u64) -> Result<Rows> {
    let mut taken: std::collections::BTreeMap<u32, usize> = std::collections::BTreeMap::new();
    let wanted = rows.wanted.first();
    let mut keep = Vec::new();
    for i in order(rows.len(), seed, 0, 0) {
        let class = match wanted.and_then(|w| w[i as usize].as_ref()) {
            Some(examples::Wanted::Class(class)) => *class,
            None => continue,
            Some(_) => {
                let what =
                    format!("task `{task}` has no classes; `tune.shots` counts rows of each");
                let error = MergeError::plan("bad-task", what);
                return Err(error.hint("tune.limit takes so many rows in all").into());
            }
        };
        let n = taken.entry(class).or_default();
        if *n < shots {
            *n += 1;
            keep.push(i as usize);
        }
    }
    keep.sort_unstable();
    Ok(rows.only(&keep))
}

/// FixMatch's loss (Sohn et al. 2020, equation 4): cross-entropy of what is said of the changed rows on the classes that
/// the rows as they are get with at least that confidence; the others count 0. Mean over all rows.
fn pseudo(called: &Value, said: &Value, confidence: f32) -> Result<Value> {
    let rows = called.data().to_vec2::<f32>().map_err(|e| Error::Tensor {
        op: "pseudo labels",
        source: e,
    })?;
    let (mut at, mut classes) = (Vec::new(), Vec::new());
    for (i, scores) in (0u32..).zip(&rows) {
        let best = (0..scores.len()).fold(0, |a, b| if scores[b] > scores[a] { b } else { a });
        let total: f32 = scores.iter().map(|s| (s - scores[best]).exp()).sum();
        if 1.0 / total >= confidence {
            at.push(i);
            classes.push(best as u32);
        }
    }
    if at.is_empty() {
        // Nothing to learn from in this step; the graph stays whole.
        return ops::scale(&ops::entropy(said)?, 0.0);
    }
    let share = at.len() as f32 / rows.len() as f32;
    ops::scale(
        &ops::cross_entropy(&ops::rows(said, &at)?, &classes, 0.0)?,
        share,
    )
}

fn sum(a: Option<Value>, b: Option<Value>) -> Result<Option<Value>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(ops::add(&a, &b)?),
        (a, b) => a.or(b),
    })
}

/// Mean entropy of what a head says: of its classes, or of every label's yes and no.
pub(crate) fn unsure(head: &Head, said: &Value) -> Result<Value> {
    if head.kind != HeadKind::Multilabel {
        return ops::entropy(said);
    }
    let n = said.data().elem_count();
    let z = ops::reshape(said, &[n, 1])?;
    let zero = Value::constant(crate::engine::tensor(vec![0.0; n], (n, 1))?);
    ops::entropy(&ops::concat(&[&zero, &z], 1)?)
}

/// Nats as a share of the most that a head's classes, or one of its labels, can have.
fn share(head: &Head, nats: &Value) -> Result<Value> {
    let classes = match head.kind {
        HeadKind::Multilabel => 2,
        _ => head.outputs().max(2),
    };
    ops::scale(nats, 1.0 / (classes as f32).ln())
}

/// Rows of a task in a step: `batch` of them in a new order every epoch; all of them where there are no more.
pub(crate) fn drawn(rows: usize, batch: usize, seed: u64, task: usize, step: u32) -> Vec<usize> {
    if batch >= rows {
        return (0..rows).collect();
    }
    let from = u64::from(step) * batch as u64;
    let mut found = Vec::with_capacity(batch);
    let mut epoch = u64::MAX;
    let mut of_epoch = Vec::new();
    for i in from..from + batch as u64 {
        if i / rows as u64 != epoch {
            epoch = i / rows as u64;
            of_epoch = order(rows, seed, task, epoch);
        }
        found.push(of_epoch[(i % rows as u64) as usize] as usize);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_row_once() {
        let mut all: Vec<usize> = (0..5).flat_map(|s| drawn(10, 4, 3, 0, s)).collect();
        assert_eq!(all.len(), 20);
        all[..10].sort_unstable();
        all[10..].sort_unstable();
        let once: Vec<usize> = (0..10).collect();
        assert!(all[..10] == once && all[10..] == once);
        assert_eq!(drawn(3, 4, 3, 0, 9), [0, 1, 2]);
        assert_ne!(drawn(10, 4, 3, 0, 0), drawn(10, 4, 4, 0, 0));
    }

    #[test]
    fn so_many_rows_of_every_class() {
        let classes = [0, 0, 1, 0, 2, 1, 0, 1];
        let rows = Rows {
            asked: Vec::new(),
            ids: (0..8).map(|i| i.to_string()).collect(),
            shown: vec![Shown::Planes(Vec::new()); 8],
            wanted: vec![
                classes
                    .iter()
                    .map(|c| Some(examples::Wanted::Class(*c)))
                    .collect(),
            ],
            weights: None,
        };
        let of = |seed| few(rows.clone(), 2, "t", seed).unwrap();
        let found = of(1);
        let mut kept: Vec<u32> = found.wanted[0]
            .iter()
            .map(|w| match w {
                Some(examples::Wanted::Class(c)) => *c,
                _ => unreachable!(),
            })
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, [0, 0, 1, 1, 2]);
        assert!((1..9).any(|seed| of(seed).ids != found.ids));
    }

    #[test]
    fn only_sure_rows_are_learned_from() {
        let of = |values: &[f32]| {
            Value::leaf(crate::engine::tensor(values.to_vec(), (values.len() / 2, 2)).unwrap())
        };
        // The first row is sure of class 1; the second is not sure.
        let called = of(&[0.0, 9.0, 0.0, 1.0]);
        let said = of(&[3f32.ln(), 0.0, 5.0, 0.0]);
        let found = pseudo(&called, &said, 0.99).unwrap().number().unwrap();
        assert!((found - 4f32.ln() / 2.0).abs() < 1e-6, "{found}");
        assert_eq!(
            pseudo(&of(&[0.0, 1.0]), &of(&[2.0, 0.0]), 0.99)
                .unwrap()
                .number()
                .unwrap(),
            0.0
        );
    }
}
