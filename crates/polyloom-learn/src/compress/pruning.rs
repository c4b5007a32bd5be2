//! A run of [`super::prune`]: a model with heads of several tasks in, a smaller one out.

use std::path::{Path, PathBuf};

use polyloom_core::writer::{FolderOptions, OutputFolder};
use serde_json::json;

use super::prune::{Decided, Kind, Part, Saliency, Size, decide, parts};
use crate::engine::{Parameters, Tensor, Value, slice};
use crate::error::{Error, Result};
use crate::image::PREPROCESSOR;
use crate::models::open::Model;
use crate::models::{Plain, Source, Trained};
use crate::tasks::forward::features;
use crate::tasks::{Head, Opened, Reader, Shown};
use crate::train::Given;
use crate::train::objective::loss;
use crate::train::write;
use crate::tune::objective::{Seen, Wanted, seen};
use crate::tune::recipe::Expert;

/// Rows of a pass.
const BATCH: usize = 64;

/// What is pruned, on which rows, how far.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Settings {
    /// The model.
    pub model: String,
    /// Folder of heads; else those of the model's folder.
    pub heads: Option<PathBuf>,
    /// Preparation of pictures, where the model's folder has none.
    pub preprocessor: Option<PathBuf>,
    /// Split whose rows tell the losses.
    pub split: String,
    /// Rows of a task at most.
    pub limit: Option<usize>,
    /// Tokens of a text at most.
    pub max_length: Option<usize>,
    /// Largest rise of a task's loss, as a share of it.
    pub bound: f64,
    /// What goes first.
    pub saliency: Saliency,
    /// Share of the work of heads and channels after whose saving nothing more goes.
    pub target: f64,
}

/// A model that was pruned.
pub struct Pruned {
    /// The folder.
    pub folder: PathBuf,
    /// Tasks, in the order of the losses.
    pub tasks: Vec<String>,
    /// What was decided.
    pub decided: Decided,
    /// Layer, kind, units that stay, units that were.
    pub parts: Vec<(usize, Kind, usize, usize)>,
    /// Parameters before and after.
    pub parameters: (usize, usize),
}

/// Prunes a model within the bounds of its tasks and writes it.
///
/// # Errors
/// Another architecture, tasks without rows or heads, what the model reports, an output that is there.
pub fn prune(
    settings: &Settings,
    given: &[Given],
    out: &Path,
    options: FolderOptions,
    watch: &mut dyn FnMut(usize) -> bool,
) -> Result<Pruned> {
    if out.exists() && !options.force {
        return Err(Error::file(out, "exists already")
            .hint("choose another name or pass --force to replace it"));
    }
    let mut opened = Opened::open(&settings.model)?;
    let mut parts = parts(&opened.model)?;
    let pictures = settings.preprocessor.as_deref();
    let reader = Reader::prepared(&opened.model, settings.max_length, pictures)?;
    let mut own = Expert::default();
    own.path.clone_from(&settings.model);
    let wanted = Wanted {
        base: &settings.model,
        experts: &[own],
        heads: settings.heads.as_deref(),
        split: &settings.split,
        limit: settings.limit,
        entropy: false,
        vectors: None,
        table: "prune",
    };
    let seen = seen(&wanted, &opened, &reader, given)?;
    if settings.saliency == Saliency::Taylor {
        let found = taylor(&opened, &reader, &seen, &parts)?;
        for (part, found) in parts.iter_mut().zip(found) {
            part.sort(&found);
        }
    }
    let sizes: Vec<Size> = parts
        .iter()
        .map(|p| Size {
            units: p.units,
            work: p.work,
        })
        .collect();
    let bounds = vec![settings.bound; given.len()];
    let mut passes = 0;
    let decided = decide(&sizes, &bounds, settings.target, &mut |gone| {
        passes += 1;
        if !watch(passes) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
        let masked = masked(&opened.model.weights, &parts, gone)?;
        seen.iter()
            .map(|s| mean_loss(&opened, &masked, &reader, s))
            .collect()
    })?;
    let count = |stored: &[(String, polyloom_core::DType, Vec<usize>)]| -> usize {
        stored
            .iter()
            .map(|(.., s)| s.iter().product::<usize>())
            .sum()
    };
    let before = count(&opened.stored);
    let mut new: Vec<(String, Tensor)> = Vec::new();
    for (part, gone) in parts.iter().zip(&decided.gone).filter(|(_, g)| **g > 0) {
        new.extend(part.removed(&opened.model.weights, *gone)?);
    }
    for (name, t) in &new {
        if let Some(stored) = opened.stored.iter_mut().find(|(n, ..)| n == name) {
            stored.2 = t.dims().to_vec();
        }
    }
    let source = opened.model.weights.with(new);
    describe(&mut opened.config, &parts, &decided);
    let folder = OutputFolder::create(out, options)?;
    write::model(&folder, &opened, &source, None)?;
    if let Some(file) = pictures {
        folder.copy_file(file, PREPROCESSOR)?;
    }
    let heads: Vec<&Head> = seen.iter().flat_map(|s| &s.heads).collect();
    for head in &heads {
        folder.write_file(Head::path(Path::new("heads"), &head.task), &head.bytes()?)?;
    }
    let tasks: Vec<String> = given.iter().map(|g| g.spec.id.clone()).collect();
    let owned: Vec<Head> = heads.into_iter().cloned().collect();
    let provenance = json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "prune",
        "model": write::whole_path(&settings.model),
        "settings": settings,
        "decided": decided,
        "tasks": write::listed(&owned),
    });
    let text =
        serde_json::to_string_pretty(&provenance).map_err(|e| Error::file(out, e.to_string()))?;
    folder.write_file("polyloom.json", format!("{text}\n").as_bytes())?;
    let stay = |(p, gone): (&Part, &usize)| (p.layer, p.kind, p.units - gone, p.units);
    Ok(Pruned {
        folder: folder.commit()?,
        tasks,
        parts: parts.iter().zip(&decided.gone).map(stay).collect(),
        parameters: (before, count(&opened.stored)),
        decided,
    })
}

/// The weights with so many units of each part masked.
fn masked(weights: &Plain, parts: &[Part], gone: &[usize]) -> Result<Plain> {
    let some = parts.iter().zip(gone).filter(|(_, g)| **g > 0);
    let masked: Result<Vec<(String, Tensor)>> = some.map(|(p, g)| p.masked(weights, *g)).collect();
    Ok(weights.with(masked?))
}

/// The mean loss of a task's rows, over its heads.
fn mean_loss(opened: &Opened, weights: &Plain, reader: &Reader, seen: &Seen) -> Result<f64> {
    let source = weights.with(seen.heads.iter().flat_map(Head::tensors));
    let (mut sum, mut count) = (0.0, 0usize);
    each_loss(&opened.model, &source, reader, seen, &mut |_, value, n| {
        sum += f64::from(value.number()?) * n as f64;
        count += n;
        Ok(())
    })?;
    Ok(sum / count.max(1) as f64)
}

/// Mean losses of the task's heads, by their places, over some rows after others, with the number of labels each is the mean of.
pub(super) fn each_loss(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    seen: &Seen,
    take: &mut dyn FnMut(usize, &Value, usize) -> Result<()>,
) -> Result<()> {
    let all: Vec<usize> = (0..seen.rows.len()).collect();
    for part in all.chunks(BATCH) {
        let shown: Vec<&Shown> = part.iter().map(|i| &seen.rows.shown[*i]).collect();
        let found = features(model, source, reader, &[(seen.feature, shown)])?;
        for (place, head) in seen.heads.iter().enumerate() {
            let said = head.forward(source, &found[0])?;
            let wanted: Vec<_> = part
                .iter()
                .map(|i| seen.rows.wanted[place][*i].as_ref())
                .collect();
            if let Some((value, n)) = loss(head, &said, &wanted, 0.0)? {
                take(place, &value, n)?;
            }
        }
    }
    Ok(())
}

/// For every unit of every part the sum over tasks of `|sum w dL/dw|`, L the task's mean loss. Costs a backward pass over the
/// rows of every task; memory holds the gradients of the parts twice.
fn taylor(
    opened: &Opened,
    reader: &Reader,
    seen: &[Seen],
    parts: &[Part],
) -> Result<Vec<Vec<f64>>> {
    let weights = &opened.model.weights;
    let named = parts.iter().flat_map(Part::matrices);
    let tensors = named.map(|name| {
        let t = weights.tensor(&name)?.data().clone();
        Ok((name, t))
    });
    let parameters = Parameters::new(tensors.collect::<Result<Vec<_>>>()?)?;
    let mut salient: Vec<Vec<f64>> = parts.iter().map(|p| vec![0.0; p.units]).collect();
    for task in seen {
        let frozen = weights.with(task.heads.iter().flat_map(Head::tensors));
        let source = Trained {
            parameters: &parameters,
            frozen: &frozen,
            seed: None,
        };
        let (mut whole, mut count) = (vec![0f32; parameters.len()], 0);
        each_loss(&opened.model, &source, reader, task, &mut |_, value, n| {
            let mut found = parameters.gradients()?;
            value.backward_into(&mut found)?;
            let gathered = parameters.gathered(&found)?;
            for (sum, g) in whole.iter_mut().zip(gathered.iter()) {
                *sum += g * n as f32;
            }
            count += n;
            Ok(())
        })?;
        let factor = 1.0 / count.max(1) as f32;
        let product = |name: &str| {
            let p = parameters
                .get(name)
                .ok_or_else(|| Error::shape("prune", format!("`{name}` has no gradient")))?;
            let w = slice(p.value.data())?;
            let terms = w.iter().zip(&whole[p.at.clone()]);
            Ok((
                terms.map(|(w, g)| w * g * factor).collect(),
                p.value.dims()[1],
            ))
        };
        for (part, salient) in parts.iter().zip(&mut salient) {
            for (unit, sum) in salient.iter_mut().zip(part.sums(&product)?) {
                *unit += sum.abs();
            }
        }
    }
    Ok(salient)
}

/// What `config.json` says of a pruned model: `pruned_heads` as `transformers` has it (by layer, those that went), and
/// `polyloom_pruned` with the heads and channels that every layer has left.
fn describe(config: &mut serde_json::Value, parts: &[Part], decided: &Decided) {
    let (mut heads, mut channels, mut went) = (Vec::new(), Vec::new(), serde_json::Map::new());
    for (part, gone) in parts.iter().zip(&decided.gone) {
        match part.kind {
            Kind::Heads => {
                heads.push(part.units - gone);
                if *gone > 0 {
                    let mut list = part.order[..*gone].to_vec();
                    list.sort_unstable();
                    went.insert(part.layer.to_string(), json!(list));
                }
            }
            Kind::Channels => channels.push(part.units - gone),
        }
    }
    if let Some(map) = config.as_object_mut() {
        map.insert("pruned_heads".into(), went.into());
        map.insert(
            "polyloom_pruned".into(),
            json!({"heads": heads, "channels": channels}),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slice;

    #[test]
    fn masked_and_removed_give_the_same() {
        for name in ["vit", "bert", "distilbert"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/models")
                .join(name);
            let opened = Opened::open(&folder.display().to_string()).unwrap();
            let model = &opened.model;
            let parts = parts(model).unwrap();
            let gone: Vec<usize> = parts.iter().map(|p| p.units / 2).collect();
            let masked = masked(&model.weights, &parts, &gone).unwrap();
            let mut new = Vec::new();
            for (part, gone) in parts.iter().zip(&gone) {
                new.extend(part.removed(&model.weights, *gone).unwrap());
            }
            assert!(!new.is_empty());
            let removed = model.weights.with(new);
            let said = |weights: &Plain| -> Vec<f32> {
                let value = match model.pictures() {
                    Some((size, channels)) => {
                        let n = 2 * channels * size * size;
                        let pixels = (0..n)
                            .map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0)
                            .collect();
                        let t = crate::engine::tensor(pixels, (2, channels, size, size)).unwrap();
                        model
                            .look(weights, &crate::engine::Value::constant(t))
                            .unwrap()
                    }
                    None => {
                        let ids = crate::models::Tokens {
                            ids: vec![2, 5, 7, 3],
                            types: vec![0; 4],
                        };
                        let batch = crate::models::Batch::of(&[&ids], 0).unwrap();
                        model.hidden(weights, &batch).unwrap()
                    }
                };
                slice(value.data()).unwrap().to_vec()
            };
            let (a, b, whole) = (said(&masked), said(&removed), said(&model.weights));
            let far = |x: &[f32], y: &[f32]| {
                x.iter()
                    .zip(y)
                    .map(|(x, y)| (x - y).abs())
                    .fold(0f32, f32::max)
            };
            // The same sums without their zeros: only their order in a kernel may differ.
            assert!(far(&a, &b) < 2e-6, "{name}: {}", far(&a, &b));
            assert!(far(&a, &whole) > 1e-4, "{name}: nothing went");
        }
    }
}
