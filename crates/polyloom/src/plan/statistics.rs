//! Statistics files of experts, opened beside their models (methods that need Fisher or Gram information).

use std::sync::Arc;

use polyloom_core::Checkpoint;
use polyloom_core::checkpoint::Scratch;

use super::{Group, Plan};
use crate::error::Result;
use crate::merge::method::Statistics;

struct Files(Vec<Option<Checkpoint>>);

impl Statistics for Files {
    fn shape(&self, expert: usize, name: &str) -> Option<Vec<usize>> {
        self.0
            .get(expert)?
            .as_ref()?
            .get(name)
            .map(|t| t.shape.clone())
    }

    fn read(&self, expert: usize, name: &str, start: usize, out: &mut [f32]) -> Result<()> {
        let missing =
            || crate::MergeError::Internal(format!("statistics `{name}` were not planned"));
        let file = self
            .0
            .get(expert)
            .and_then(Option::as_ref)
            .ok_or_else(missing)?;
        let tensor = file.get(name).ok_or_else(missing)?;
        Ok(file.read_f32(
            tensor,
            start..start + out.len(),
            out,
            &mut Scratch::default(),
        )?)
    }
}

/// Opens the statistics of a group's experts; `None` if the recipe names none.
///
/// # Errors
/// A file that cannot be read.
pub fn open(plan: &Plan, group: &Group) -> Result<Option<Arc<dyn Statistics>>> {
    let mut files = Vec::new();
    for expert in &group.experts {
        let model = &plan.models[*expert].model;
        files.push(match &model.stats {
            None => None,
            Some(path) => {
                let folder = plan.recipe.file.as_ref().and_then(|f| f.parent());
                let near = folder.map(|f| f.join(path)).filter(|p| p.exists());
                Some(Checkpoint::open(near.unwrap_or_else(|| path.into()))?)
            }
        });
    }
    if files.iter().all(Option::is_none) {
        return Ok(None);
    }
    Ok(Some(Arc::new(Files(files))))
}
