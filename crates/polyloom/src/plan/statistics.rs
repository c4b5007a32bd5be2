//! Statistics files of experts, opened beside their models (methods that need Fisher or Gram information).
//!
//! A file is a safetensors file with one tensor per weight, named `<weight name>.gram` (`[in, in]`, `X'X / rows` of the
//! inputs of a linear layer) or `<weight name>.fisher` (the diagonal Fisher information, in the shape of the weight).
//! Weights go by their names in the expert's own file.

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
