//! What heads begin with.

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{Asked, Wanted};
use polyloom_core::rng::Stream;

use super::Learned;
use crate::engine::{Tensor, slice, tensor};
use crate::error::Result;
use crate::models::Source;
use crate::models::open::Model;
use crate::tasks::forward::features;
use crate::tasks::{Feature, Head, Reader, Rows, Shown};
use crate::train::probe::{self, Seen, Target};
use crate::train::recipe::{Recipe, Start};

/// Normal numbers of a deviation, from a stream of a name.
fn drawn(seed: u64, name: &str, deviation: f32, shape: &[usize]) -> Result<Tensor> {
    let stream = Stream::new(seed, name, 0);
    let count = shape.iter().product::<usize>() as u64;
    let values = (0..count).map(|i| deviation * stream.normal(i));
    tensor(values.collect(), shape)
}

/// What the heads of a task begin with.
pub(super) fn begin(
    recipe: &Recipe,
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    task: &Learned<'_>,
    heads: &mut [Head],
) -> Result<()> {
    if !heads.iter().any(Head::has_layers) {
        // Vectors are the trunk's; there is nothing to begin.
        return Ok(());
    }
    match &recipe.train.head.start {
        Start::Zero => Ok(()),
        Start::Probe if matches!(task.feature, Feature::Goal | Feature::Patches) => {
            let what = match task.feature {
                Feature::Goal => {
                    "`train.head.start = \"probe\"` fits heads to the features of a base; those of a new model of tables say nothing yet"
                }
                _ => {
                    "`train.head.start = \"probe\"` fits heads of classes and numbers; the task asks for maps"
                }
            };
            Err(MergeError::plan("bad-recipe", what)
                .hint("start = \"random\"")
                .into())
        }
        Start::Random => random(recipe, heads),
        Start::From(folder) => taken(folder, heads),
        Start::Probe => probed((model, source, reader), task, heads),
    }
}

/// Small random numbers, with a layer between where the recipe asks for one.
fn random(recipe: &Recipe, heads: &mut [Head]) -> Result<()> {
    for head in heads.iter_mut().filter(|h| h.has_layers()) {
        let name = format!("heads/{}", head.task);
        if let Some(hidden) = recipe.train.head.hidden {
            // He et al. 2015: what goes in and its activation.
            let inputs = head.inputs();
            let deviation = (2.0 / inputs.max(1) as f32).sqrt();
            let (last, bias) = &mut head.layers[0];
            let outputs = bias.elem_count();
            *last = drawn(recipe.seed, &name, 0.02, &[outputs, hidden])?;
            let first = format!("{name} hidden");
            let weight = drawn(recipe.seed, &first, deviation, &[hidden, inputs])?;
            head.layers
                .insert(0, (weight, tensor(vec![0.0; hidden], hidden)?));
            continue;
        }
        let (w, _) = &mut head.layers[0];
        *w = drawn(recipe.seed, &name, 0.02, w.dims())?;
    }
    Ok(())
}

/// The numbers of files.
fn taken(folder: &Path, heads: &mut [Head]) -> Result<()> {
    let root = match folder.join("heads") {
        inner if inner.is_dir() => inner,
        _ => folder.to_owned(),
    };
    for head in heads.iter_mut().filter(|h| h.has_layers()) {
        let last = head.task.rsplit('/').next().unwrap_or(&head.task);
        let path = match Head::path(&root, &head.task) {
            path if path.exists() => path,
            _ => Head::path(&root, last),
        };
        let found = Head::read(&path, &head.task)?;
        let fits = found.outputs() == head.outputs()
            && found.groups == head.groups
            && found.feature == head.feature
            && found.layers[0].0.dims()[1] == head.layers[0].0.dims()[1]
            && (found.labels.is_empty() || found.labels == head.labels);
        if !fits {
            let what = format!(
                "is a head of {} outputs on {} `{}`; task `{}` needs {} on {} `{}`, with the task's labels",
                found.outputs(),
                found.layers[0].0.dims()[1],
                found.feature.word(),
                head.task,
                head.outputs(),
                head.layers[0].0.dims()[1],
                head.feature.word(),
            );
            let error = MergeError::plan("bad-head", what).at(path.display().to_string());
            return Err(error.into());
        }
        // The file's numbers are in the unit of the task.
        head.scale = [0.0, 1.0];
        head.layers = found.layers;
        head.activation = found.activation;
    }
    Ok(())
}

/// Logistic or ridge regression on the features of the base.
fn probed(
    (model, source, reader): (&Model, &dyn Source, &Reader),
    task: &Learned<'_>,
    heads: &mut [Head],
) -> Result<()> {
    let of = |rows: &Rows| all_features(model, source, reader, task.feature, &rows.shown);
    let train = of(&task.train)?;
    let held = match &task.validation {
        Some(rows) => Some((of(rows)?, rows)),
        None => None,
    };
    for (place, head) in heads.iter_mut().enumerate() {
        let (x, y) = known(&train, &task.train, place, head, &task.train.asked[place]);
        let other = held
            .as_ref()
            .map(|(features, rows)| known(features, rows, place, head, &task.train.asked[place]));
        let other = other.filter(|(_, y)| !y.is_empty());
        let seen = Seen {
            features: &x,
            wanted: &y,
        };
        let other = other.as_ref().map(|(x, y)| Seen {
            features: x,
            wanted: y,
        });
        let outputs = head.outputs();
        let probe = probe::fit(head.kind, outputs, &seen, other.as_ref());
        let width = probe.weight.len() / outputs.max(1);
        head.layers = vec![(
            tensor(probe.weight, (outputs, width))?,
            tensor(probe.bias, outputs)?,
        )];
    }
    Ok(())
}

/// Features of inputs, row by row, without a graph.
fn all_features(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    feature: Feature,
    shown: &[Shown],
) -> Result<Vec<f32>> {
    let width = feature.width(model.width());
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(|&i| (shown[i].length(), i));
    let mut out = vec![0f32; shown.len() * width];
    for part in order.chunks(64) {
        let of = part.iter().map(|&i| &shown[i]).collect();
        let found = features(model, source, reader, &[(feature, of)])?;
        let values = slice(found[0].data())?;
        for (&i, row) in part.iter().zip(values.chunks_exact(width)) {
            out[i * width..][..width].copy_from_slice(row);
        }
    }
    Ok(out)
}

/// Features and answers of the rows that say what is right. Classes of rows whose split names others are found by name.
fn known(
    features: &[f32],
    rows: &Rows,
    place: usize,
    head: &Head,
    asked: &Asked,
) -> (Vec<f32>, Vec<Target>) {
    let width = features.len() / rows.len().max(1);
    let own = &rows.asked[place].classes;
    let class = |c: u32| {
        if *own == asked.classes {
            return Some(c);
        }
        let name = own.get(c as usize)?;
        asked
            .classes
            .iter()
            .position(|n| n == name)
            .map(|p| p as u32)
    };
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (row, wanted) in features.chunks_exact(width.max(1)).zip(&rows.wanted[place]) {
        let target = match wanted {
            Some(Wanted::Class(c)) => class(*c).map(Target::Class),
            Some(Wanted::Set(set)) => {
                Some(Target::Set(set.iter().filter_map(|c| class(*c)).collect()))
            }
            Some(Wanted::Number(n)) => Some(Target::Number((n - head.scale[0]) / head.scale[1])),
            Some(Wanted::Relevant { .. } | Wanted::Map { .. }) | None => None,
        };
        if let Some(target) = target {
            x.extend_from_slice(row);
            y.push(target);
        }
    }
    (x, y)
}
