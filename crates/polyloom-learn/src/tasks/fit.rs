//! Which head answers which task, and in which order of classes.

use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Asked;
use serde_json::Value as Json;

use super::head::{Feature, Head, HeadKind, maps};
use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::{Model, Trunk};
use crate::ops::Activation;

/// Labels that are written in a message.
const SHOWN: usize = 6;

/// Id of a task with its target, if it has one.
#[must_use]
pub fn full(task: &str, target: &str) -> String {
    match target {
        "" => task.to_owned(),
        target => format!("{task}/{target}"),
    }
}

/// Name of the goal of a group, as the board names a group's task: `task/group` or `task/group/target`.
#[must_use]
pub fn of_group(task: &str, group: &str, target: &str) -> String {
    full(&format!("{task}/{group}"), target)
}

/// Whether a head of this name is one for a task: the names are equal, or one of them leaves out the folders of the other.
#[must_use]
pub fn is_for(head: &str, task: &str, target: &str) -> bool {
    let all = full(task, target);
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let short = full(&last(task), target);
    let ends = || head.ends_with(&format!("/{all}"));
    head == all || head == short || (!task.contains('/') && ends())
}

/// Names of the linear layers of the classifier that a model was saved with, in order; none where it has none. RoBERTa's
/// head has a layer of its own before the last, DistilBERT's stands before the head; BERT's pooler belongs to the trunk.
///
/// # Errors
/// Never in practice: weights in memory.
pub fn own_layers(model: &Model) -> Result<Vec<&'static str>> {
    Ok(match (model.classifier()?, &model.trunk) {
        (None, _) => Vec::new(),
        (Some(name @ "classifier.out_proj"), _) => vec!["classifier.dense", name],
        (Some(name), Trunk::Bert(b)) if b.config.model_type == "distilbert" => {
            vec!["pre_classifier", name]
        }
        (Some(name), _) => vec![name],
    })
}

/// The classifier of a model that was saved with one, as a head. Its labels are those of `id2label`, none where these
/// only count.
///
/// # Errors
/// Tensors of a classifier that are not there, a classifier on a decoder.
pub fn own_head(model: &Model, config: &Json) -> Result<Option<Head>> {
    let names = own_layers(model)?;
    if names.is_empty() {
        return Ok(None);
    }
    let weights = &model.weights;
    let layer = |name: &&str| -> Result<(Tensor, Tensor)> {
        let weight = weights.tensor(&format!("{name}.weight"))?.data().clone();
        let out = weight.dims().first().copied().unwrap_or(0);
        let bias = match weights.find(&format!("{name}.bias"))? {
            Some(bias) => bias.data().clone(),
            None => tensor(vec![0.0; out], out)?,
        };
        Ok((weight, bias))
    };
    let mut head = Head {
        task: "classifier".into(),
        feature: Feature::Cls,
        goal: 0,
        groups: Vec::new(),
        kind: HeadKind::Classification,
        labels: model.classes.clone(),
        task_hash: None,
        layers: names.iter().map(layer).collect::<Result<_>>()?,
        activation: Activation::Tanh,
        scale: [0.0, 1.0],
        positive: 1.0,
        calibration: None,
    };
    match &model.trunk {
        Trunk::Bert(b) if b.config.model_type == "distilbert" => head.activation = Activation::Relu,
        Trunk::Bert(_) if names.len() == 1 => head.feature = Feature::Pooled,
        Trunk::Bert(_) | Trunk::Vit(_) | Trunk::Mlp(_) | Trunk::T3(_) | Trunk::DeepOnet(_) => {}
        Trunk::Decoder(_) | Trunk::T5(_) | Trunk::Clip(_) | Trunk::Table(_) | Trunk::Forest(_) => {
            let what = "has a head of classes on a decoder, a T5, a CLIP or a model of tables, which cannot be run yet";
            return Err(Error::file(&model.folder, what));
        }
    }
    let counted =
        |(i, label): (usize, &String)| *label == i.to_string() || *label == format!("LABEL_{i}");
    if head.labels.iter().enumerate().all(counted) {
        head.labels.clear();
    }
    head.kind = match config["problem_type"].as_str() {
        Some("multi_label_classification") => HeadKind::Multilabel,
        Some("regression") => HeadKind::Regression,
        None if head.outputs() == 1 => HeadKind::Regression,
        _ => HeadKind::Classification,
    };
    Ok(Some(head))
}

/// The head with its outputs in the order of the task's classes and their names, and what should be said about it.
/// Labels that it lacks are those of the task in order, where the count fits; `counts` takes them by number too where
/// names differ. A task whose classes are those of its rows keeps the head's own.
///
/// # Errors
/// A head of another kind, for other classes or another number of them, or for another trunk; the error names both sides.
pub fn fit(
    mut head: Head,
    asked: &Asked,
    model: &Model,
    place: &str,
    counts: bool,
) -> Result<(Head, Option<String>)> {
    let what = match &*asked.target {
        "" => "the task".to_owned(),
        target => format!("the target `{target}`"),
    };
    let bad = |said: String| MergeError::plan("head-differs", said).at(place.to_owned());
    if head.kind == HeadKind::Embedding {
        // Vectors are compared by their cosine, whatever the trunk.
        return Ok((head, None));
    }
    let kind = HeadKind::of(asked);
    if head.kind != kind {
        let error = bad(format!(
            "is a head of {}; {what} asks for {}",
            head.kind.word(),
            kind.word()
        ));
        return Err(error
            .hint("--heads DIR names a folder of other heads")
            .into());
    }
    if kind == HeadKind::Items {
        return Ok((head, None));
    }
    let (width, seen) = (head.feature.width(model.width()), head.inputs());
    if seen != width {
        let error = bad(format!(
            "takes {seen} numbers; the feature `{}` of {} has {width}",
            head.feature.word(),
            model.folder.display()
        ));
        return Err(error.hint("the head was made for another trunk").into());
    }
    if matches!(kind, HeadKind::Dense(_)) {
        maps::fit(&head, asked, model, place)?;
        return Ok((head, None));
    }
    let n = head.outputs();
    if kind == HeadKind::Regression {
        if n != 1 {
            return Err(bad(format!("has {n} outputs; {what} asks for one number")).into());
        }
        return Ok((head, None));
    }
    let classes = &asked.classes;
    if classes.is_empty() || (asked.discovered && !head.labels.is_empty()) {
        return Ok((head, None));
    }
    let differs = |head: &Head| {
        let own = match head.labels.len() {
            0 => format!("{n} classes without names"),
            _ => format!("{n} classes ({})", listed(&head.labels)),
        };
        let of_rows = if asked.discovered { " in its rows" } else { "" };
        let error = bad(format!(
            "has {own}; {what} has {}{of_rows} ({})",
            classes.len(),
            listed(classes)
        ));
        error.hint("a head answers the classes it was trained for; --heads DIR names a folder of other heads")
    };
    if n != classes.len() {
        return Err(differs(&head).into());
    }
    if head.labels.is_empty() {
        head.labels.clone_from(classes);
        let note = counts.then(|| {
            format!(
                "{place}: its classes have no names; they are taken for those of {what} in order"
            )
        });
        return Ok((head, note));
    }
    let of = |class: &String| {
        let same = head.labels.iter().position(|l| l == class);
        same.or_else(|| {
            let lower = class.to_lowercase();
            head.labels.iter().position(|l| l.to_lowercase() == lower)
        })
    };
    let order: Option<Vec<usize>> = classes.iter().map(of).collect();
    let all = |order: &[usize]| (0..n).all(|i| order.contains(&i));
    match order.filter(|o| all(o)) {
        Some(order) => {
            if order.iter().enumerate().any(|(i, o)| i != *o) {
                reorder(&mut head, &order)?;
            }
            head.labels.clone_from(classes);
            Ok((head, None))
        }
        None if counts => {
            let note = format!(
                "{place}: its classes ({}) have other names than those of {what} ({}); they are taken in order",
                listed(&head.labels),
                listed(classes)
            );
            head.labels.clone_from(classes);
            Ok((head, Some(note)))
        }
        None => Err(differs(&head).into()),
    }
}

fn listed(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(SHOWN).map(|n| &**n).collect();
    let dots = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{}{dots}", first.join(", "))
}

/// Outputs of the last layer in another order.
fn reorder(head: &mut Head, order: &[usize]) -> Result<()> {
    if let Some(calibration) = &mut head.calibration {
        Arc::make_mut(calibration).reorder(order);
    }
    let Some((weight, bias)) = head.layers.last_mut() else {
        return Ok(());
    };
    let &[all, width] = weight.dims() else {
        return Ok(());
    };
    let (w, b) = (slice(weight)?.to_vec(), slice(bias)?.to_vec());
    // The outputs of every group lie side by side.
    let starts = (0..all).step_by(order.len().max(1));
    let whole: Vec<usize> = starts
        .flat_map(|start| order.iter().map(move |i| start + i))
        .collect();
    let rows = whole
        .iter()
        .flat_map(|&i| w[i * width..][..width].iter().copied());
    *weight = tensor(rows.collect(), (all, width))?;
    *bias = tensor(whole.iter().map(|&i| b[i]).collect(), all)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_folders_out() {
        assert!(is_for("digits", "vision/digits", ""));
        assert!(is_for("vision/digits", "vision/digits", ""));
        assert!(is_for("vision/digits", "digits", ""));
        assert!(!is_for("audio/digits", "vision/digits", ""));
        assert!(is_for("people/income", "people", "income"));
        assert!(is_for("people/income", "tables/people", "income"));
        assert!(!is_for("income", "people", "income"));
    }

    #[test]
    fn outputs_follow_the_order_of_the_task() {
        let labels = ["b".to_owned(), "a".to_owned()];
        let mut head = Head::zeros(
            "t",
            Feature::Cls,
            HeadKind::Classification,
            labels.to_vec(),
            2,
        )
        .unwrap();
        head.layers[0] = (
            tensor(vec![1.0, 2.0, 3.0, 4.0], (2, 2)).unwrap(),
            tensor(vec![5.0, 6.0], 2).unwrap(),
        );
        reorder(&mut head, &[1, 0]).unwrap();
        assert_eq!(*slice(&head.layers[0].0).unwrap(), [3.0, 4.0, 1.0, 2.0]);
        assert_eq!(*slice(&head.layers[0].1).unwrap(), [6.0, 5.0]);
    }
}
