//! Statistics files of experts, opened beside their models (methods that need Fisher or Gram information).
//!
//! A file is a safetensors file with one tensor per weight, named `<weight name>.gram` (`[in, in]`, `X'X / rows` of the
//! inputs of a linear layer) or `<weight name>.fisher` (the diagonal Fisher information, in the shape of the weight).
//! Weights go by their names in the expert's own file. The header says what they were collected on (`polyloom stats`):
//! `task`, `task_hash`, `rows`, `split`, `kind`, `seed` and `model`, a [`fingerprint`] of the weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyloom_core::Checkpoint;
use polyloom_core::checkpoint::{Scratch, StoredTensor};

use super::{Group, Opened, Plan, settings};
use crate::error::{MergeError, Result};
use crate::merge::method::Statistics;
use crate::recipe::Recipe;

struct Files {
    files: Vec<Option<(String, Checkpoint)>>,
    /// Output tensor -> per expert, the names its weight goes by.
    names: BTreeMap<String, Vec<Vec<String>>>,
}

impl Files {
    fn find(&self, expert: usize, name: &str) -> Option<(&Checkpoint, &StoredTensor)> {
        let (_, file) = self.files.get(expert)?.as_ref()?;
        let (weight, kind) = name.rsplit_once('.')?;
        let spellings = self.names.get(weight)?.get(expert)?;
        let tensor = spellings
            .iter()
            .find_map(|s| file.get(&format!("{s}.{kind}")))?;
        Some((file, tensor))
    }
}

impl Statistics for Files {
    fn shape(&self, expert: usize, name: &str) -> Option<Vec<usize>> {
        self.find(expert, name).map(|(_, t)| t.shape.clone())
    }

    fn read(&self, expert: usize, name: &str, start: usize, out: &mut [f32]) -> Result<()> {
        let (file, tensor) = self
            .find(expert, name)
            .ok_or_else(|| MergeError::Internal(format!("statistics `{name}` were not planned")))?;
        let range = start..start + out.len();
        file.read_f32(tensor, range, out, &mut Scratch::default())?;
        Ok(())
    }

    fn file(&self, expert: usize) -> Option<String> {
        let (path, _) = self.files.get(expert)?.as_ref()?;
        Some(path.clone())
    }
}

/// The statistics file of each expert of a group: what `stats` says per input, else `stats` of its `[[expert]]`.
fn files_of(recipe: &Recipe, models: &[Opened], group: &Group) -> Vec<Option<String>> {
    group
        .experts
        .iter()
        .enumerate()
        .map(|(i, expert)| {
            let each = group.members.first().and_then(|m| m.job.each.get(i));
            match each.map(|v| v.word("stats")).filter(|w| !w.is_empty()) {
                Some(path) => Some(path.to_owned()),
                None => {
                    let path = models[*expert].model.stats.as_ref()?;
                    Some(settings::beside(recipe, path).unwrap_or_else(|| path.clone()))
                }
            }
        })
        .collect()
}

/// Values that a fingerprint takes from the beginning, the middle and the end of every tensor.
const SAMPLED: usize = 32;

/// A fingerprint of a model's weights as they are opened (adapters folded in): names, shapes and a few values of every
/// tensor of fractions. It is the same for the same numbers in another format or type, and cheap enough for every plan:
/// it tells experts of one base apart, and does not prove that nothing was changed.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(model: &Opened) -> Result<String> {
    let mut entries: Vec<_> = model.tensors.iter().collect();
    entries.sort_by(|a, b| a.1.stored.cmp(&b.1.stored));
    let (mut text, mut scratch) = (Vec::new(), Scratch::default());
    for (name, entry) in entries {
        if !entry.dtype.is_float() {
            continue;
        }
        text.extend(format!("{} {:?}\n", entry.stored, entry.shape).into_bytes());
        let n: usize = entry.shape.iter().product();
        let most = SAMPLED.min(n);
        for start in [0, (n - most) / 2, n - most] {
            let mut values = vec![0f32; most];
            model.read(name, start, &mut values, &mut scratch)?;
            text.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    let hash = polyloom_core::hash::xxh3(&text);
    Ok(format!("{FINGERPRINT}{hash:016x}"))
}

const FINGERPRINT: &str = "xxh3-64-weights:";

/// What does not fit together: statistics that were collected on another model than their expert, or on other data of
/// the task than the expert was trained on. Files that say nothing about it are taken as they are.
///
/// # Errors
/// A file that cannot be read.
pub fn doubts(recipe: &Recipe, models: &[Opened], group: &Group) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, expert) in files_of(recipe, models, group)
        .into_iter()
        .zip(&group.experts)
    {
        let Some(path) = path else { continue };
        let file = Checkpoint::open(&path)?;
        let said = |key: &str| file.metadata().get(key).map(String::as_str);
        let expert = &models[*expert];
        let name = &expert.model.name;
        if let Some(model) = said("model").filter(|m| m.starts_with(FINGERPRINT))
            && fingerprint(expert)? != model
        {
            found.push(format!(
                "{path}: these statistics were collected on other weights than those of `{name}`; `polyloom stats` collects its own"
            ));
        }
        let (Some(task), Some(hash)) = (said("task"), said("task_hash")) else {
            continue;
        };
        if let Some(trained) = trained_on(expert, task)?.filter(|t| t != hash) {
            let short = |h: &str| h.chars().take(12).collect::<String>();
            found.push(format!(
                "{path}: task `{task}` was {} when these statistics were collected and {} when `{name}` was trained: its data or its spec is another one",
                short(hash),
                short(&trained),
            ));
        }
    }
    Ok(found)
}

/// Hash of a task that an expert's `polyloom.json` says it was trained on.
fn trained_on(expert: &Opened, task: &str) -> Result<Option<String>> {
    let folder = expert.adapter.as_deref().unwrap_or(&expert.path);
    let file = folder.join("polyloom.json");
    if !file.exists() {
        return Ok(None);
    }
    let told = polyloom_core::checkpoint::read_json(&file)?;
    let below = format!("{task}/");
    let of = told["tasks"].as_array().into_iter().flatten().find(|t| {
        let id = t["id"].as_str().unwrap_or_default();
        id == task || id.starts_with(&below)
    });
    Ok(of.and_then(|t| Some(t["task_hash"].as_str()?.to_owned())))
}

/// All statistics files of a plan, each once.
pub fn paths(plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for group in plan.groups.iter().filter(|g| g.statistics.is_some()) {
        for path in files_of(&plan.recipe, &plan.models, group)
            .into_iter()
            .flatten()
        {
            if !all.contains(&path) {
                all.push(path);
            }
        }
    }
    all
}

/// Opens the statistics of a group's experts; `None` if the recipe names none.
///
/// # Errors
/// A file that cannot be read.
pub fn open(
    recipe: &Recipe,
    models: &[Opened],
    group: &Group,
) -> Result<Option<Arc<dyn Statistics>>> {
    let paths = files_of(recipe, models, group);
    if paths.iter().all(Option::is_none) {
        return Ok(None);
    }
    let files = paths
        .into_iter()
        .map(|path| {
            Ok(path
                .map(|p| Checkpoint::open(&p).map(|c| (p, c)))
                .transpose()?)
        })
        .collect::<Result<_>>()?;
    let mut names = BTreeMap::new();
    for member in &group.members {
        let spellings = member.inputs.iter().map(|input| {
            // Rows that are re-ordered by token have no statistics in that order.
            let Some(input) = input.as_ref().filter(|i| !i.by_token) else {
                return Vec::new();
            };
            let stored = models[input.model]
                .get(&input.name)
                .map(|e| e.stored.clone());
            stored.into_iter().chain([input.name.clone()]).collect()
        });
        names.insert(member.job.name.clone(), spellings.collect());
    }
    Ok(Some(Arc::new(Files { files, names })))
}
