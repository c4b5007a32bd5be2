//! Model references to opened models.

use std::path::PathBuf;
use std::sync::Arc;

use polyloom_core::Checkpoint;

use super::capped;
use crate::error::{MergeError, Result};
use crate::plan::reference::{self, Places};
use crate::plan::weights::{Opened, Weights};
use crate::recipe::Recipe;

/// Opens a model reference on its own (for `inspect`, `diff`, `convert`).
///
/// # Errors
/// Not found, unreadable, or an adapter that does not fit.
pub fn open_model(
    model: crate::recipe::Model,
    dialect: crate::recipe::Dialect,
    places: &Places,
) -> Result<Opened> {
    let reference = &model.reference;
    let path = reference::locate(
        &reference.path,
        reference.revision.as_deref(),
        dialect,
        places,
    )?;
    let checkpoint = Arc::new(Checkpoint::open(&path)?);
    match &reference.adapter {
        None if path.join("adapter_config.json").exists() => Err(MergeError::plan(
            "adapter-without-base",
            format!(
                "{}: is an adapter folder; it needs the base it was trained on",
                path.display()
            ),
        )
        .hint(format!("write it as `BASE+{}`", path.display()))),
        None => Ok(Opened::new(model, path, None, Weights::Plain(checkpoint))),
        Some((adapter, revision)) => {
            let adapter = reference::locate(adapter, revision.as_deref(), dialect, places)?;
            let (weights, warnings) = Weights::folded(checkpoint, &adapter)?;
            let mut opened = Opened::new(model, path, Some(adapter), weights);
            opened.warnings = warnings;
            Ok(opened)
        }
    }
}

pub(super) fn open_models(
    recipe: &Recipe,
    places: &Places,
) -> Result<Vec<Opened>, Vec<MergeError>> {
    let places = Places {
        recipe_folder: recipe
            .file
            .as_ref()
            .and_then(|f| f.parent())
            .map(PathBuf::from)
            .or_else(|| places.recipe_folder.clone()),
        cache: places.cache.clone(),
    };
    let mut models = Vec::new();
    let mut errors = Vec::new();
    for model in &recipe.models {
        match open_model(model.clone(), recipe.dialect, &places) {
            Ok(opened) => models.push(opened),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(models)
    } else {
        Err(capped(errors))
    }
}
