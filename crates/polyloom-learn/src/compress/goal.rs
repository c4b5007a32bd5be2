//! One goal of a model whose experts are chosen by goal, or whose goals have memories, as a model of its own.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom_core::writer::{FolderOptions, OutputFolder};
use serde_json::json;

use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::Trunk;
use crate::tasks::{Head, Opened};
use crate::train::write;

/// What was taken out.
#[derive(Debug)]
pub struct Taken {
    /// The folder.
    pub folder: PathBuf,
    /// Name of the goal.
    pub goal: String,
    /// Numbers of the trunk before and after.
    pub parameters: (usize, usize),
}

/// Writes what a goal needs of a model: all that goals share, its gates, the experts that these can reach, its memory, its head. It answers
/// as the whole model does, to the bit. `goal` is a name of `moe.goals` (`task_expert.goals`), or what stands behind its last `/`.
///
/// # Errors
/// A model without such goals, no goal of that name or several, no head for it, an output that is there.
pub fn take(model: &str, goal: &str, out: &Path, options: FolderOptions) -> Result<Taken> {
    if out.exists() && !options.force {
        return Err(Error::file(out, "exists already")
            .hint("choose another name or pass --force to replace it"));
    }
    let mut opened = Opened::open(model)?;
    let bad = |code, what: String| MergeError::plan(code, what).at(model.to_owned());
    let experts = opened.model.experts().cloned();
    let memories = match &opened.model.trunk {
        Trunk::Vit(vit) => vit.memories.clone(),
        _ => None,
    };
    let goals = match (&experts, &memories) {
        (Some(experts), _) => experts.config.goals.clone(),
        (None, Some(memories)) => memories.config.goals.clone(),
        (None, None) => {
            let what = "has no experts that are chosen by goal".to_owned();
            return Err(bad("no-experts", what)
                .hint("models trained with [train.new.moe], [train.moe] or [train.new.task_expert] do")
                .into());
        }
    };
    let last = |name: &str| name.rsplit('/').next() == Some(goal);
    let exact = goals.iter().position(|g| g == goal);
    let ends: Vec<usize> = (0..goals.len()).filter(|i| last(&goals[*i])).collect();
    let ((Some(place), _) | (None, &[place])) = (exact, &ends[..]) else {
        let what = format!("has no goal `{goal}`, or several that end so");
        let hint = format!("its goals: {}", goals.join(", "));
        return Err(bad("no-goal", what).hint(hint).into());
    };
    let name = goals[place].clone();
    let mut head = Head::read(
        &Head::path(&opened.model.folder.join("heads"), &name),
        &name,
    )?;
    head.goal = 0;
    let mut new = Vec::new();
    let mut stored = Vec::new();
    for (tensor, dtype, mut shape) in std::mem::take(&mut opened.stored) {
        let whole = |name: &str| opened.model.weights.tensor(name);
        if let (Some((before, part)), Some(experts)) = (tensor.split_once(".moe."), &experts) {
            let of = |part: &str| Ok(whole(&format!("{before}.moe.{part}"))?.data().clone());
            let Some(kept) = experts.part(place, part, &of)? else {
                continue;
            };
            shape = kept.dims().to_vec();
            new.push((tensor.clone(), kept));
        }
        let name = match &memories {
            Some(memories) => memories.alone(place, &tensor),
            None => Some(tensor.clone()),
        };
        let Some(name) = name else { continue };
        if name != tensor {
            new.push((name.clone(), whole(&tensor)?.data().clone()));
        }
        stored.push((name, dtype, shape));
    }
    opened.stored = stored;
    let numbers = opened.model.weights.iter().map(|(_, t)| t.elem_count());
    let before = numbers.sum();
    let shapes = opened
        .stored
        .iter()
        .map(|(.., s)| s.iter().product::<usize>());
    let after = shapes.sum();
    let source = opened.model.weights.with(new);
    let said = |e| Error::file(out, format!("config.json: {e}"));
    if let Some(experts) = &experts {
        opened.config["moe"] = serde_json::to_value(experts.alone(place)?).map_err(said)?;
    }
    if memories.is_some() {
        opened.config["task_expert"]["goals"] = json!([&name]);
    }
    let folder = OutputFolder::create(out, options)?;
    write::model(&folder, &opened, &source, None)?;
    folder.write_file(Head::path(Path::new("heads"), &name), &head.bytes()?)?;
    let provenance = json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "goal",
        "model": write::whole_path(model),
        "goal": name,
        "tasks": write::listed(&[head]),
    });
    let text =
        serde_json::to_string_pretty(&provenance).map_err(|e| Error::file(out, e.to_string()))?;
    folder.write_file("polyloom.json", format!("{text}\n").as_bytes())?;
    Ok(Taken {
        folder: folder.commit()?,
        goal: name,
        parameters: (before, after),
    })
}
