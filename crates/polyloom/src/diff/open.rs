//! What was given: experts and their base, or adapters alone.

use std::path::{Path, PathBuf};

use polyloom_core::peft::AdapterFolder;

use super::{Options, factors, models};
use crate::error::{MergeError, Result};
use crate::plan::reference::{Places, locate};
use crate::plan::{Opened, open_model};
use crate::recipe::{Dialect, Model, from_models};

/// What is compared.
pub enum Inputs {
    /// Experts, or adapters folded into their base on reading, against that base.
    Models {
        /// The base.
        base: Box<Opened>,
        /// The experts.
        experts: Vec<Opened>,
    },
    /// Adapters among themselves, with their names.
    Adapters(Vec<(String, AdapterFolder)>),
}

impl Inputs {
    /// Elements that [`super::measure`] reports as work in all.
    ///
    /// # Errors
    /// Those of [`super::measure`] that headers show.
    pub fn work(&self, options: &Options) -> Result<u64, Vec<MergeError>> {
        let filter = options.check().map_err(|e| vec![e])?;
        let (tasks, source, _) = match self {
            Self::Models { base, experts } => models::plan(base, experts, &filter)?,
            Self::Adapters(adapters) => factors::plan(adapters, &filter)?,
        };
        let once: u64 = tasks.iter().map(|t| t.elements() as u64).sum();
        let spectral = options.spectral.unwrap_or(!source.whole_spectra());
        Ok(once * (1 + u64::from(spectral)))
    }
}

fn is_adapter(path: &Path) -> bool {
    path.join("adapter_config.json").exists()
}

/// Opens what the command line names: `experts` are models (`path`, `path+adapter`) or, with or without a base, PEFT
/// folders. With a base, a PEFT folder stands for `base+folder`; a base among the experts is taken out.
///
/// # Errors
/// Not found, listed twice, no base where one is needed; all problems, at most ten.
pub fn open(
    base: Option<&str>,
    experts: &[String],
    places: &Places,
) -> Result<Inputs, Vec<MergeError>> {
    let recipe = from_models("linear", None, experts).map_err(|e| vec![e])?;
    let find = |model: &Model| -> Result<PathBuf> {
        let reference = &model.reference;
        locate(
            &reference.path,
            reference.revision.as_deref(),
            Dialect::Loom,
            places,
        )
    };
    let Some(base) = base else {
        return alone(&recipe.models, find);
    };
    let base = from_models("linear", None, &[base.to_owned()])
        .map_err(|e| vec![e])?
        .models
        .swap_remove(0);
    let opened = open_model(base.clone(), Dialect::Loom, places).map_err(|e| vec![e])?;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (mut models, mut errors) = (Vec::new(), Vec::new());
    for mut model in recipe.models {
        let found = find(&model).and_then(|path| {
            if model.reference.adapter.is_none() {
                if real(&path) == real(&opened.path) && opened.adapter.is_none() {
                    return Ok(None);
                }
                if is_adapter(&path) {
                    if base.reference.adapter.is_some() {
                        return Err(MergeError::plan(
                            "adapter-without-base",
                            "is an adapter, and the base has one folded in already",
                        )
                        .at(path.display().to_string())
                        .hint("write the expert as BASE+ADAPTER"));
                    }
                    let adapter = (
                        model.reference.path.clone(),
                        model.reference.revision.take(),
                    );
                    model.reference = base.reference.clone();
                    model.reference.adapter = Some(adapter);
                }
            }
            open_model(model, Dialect::Loom, places).map(Some)
        });
        match found {
            Ok(model) => models.extend(model),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(crate::plan::capped(errors));
    }
    if models.is_empty() {
        return Err(vec![
            MergeError::plan("input-count", "no expert is given besides the base")
                .hint("polyloom diff --base BASE EXPERT ..."),
        ]);
    }
    Ok(Inputs::Models {
        base: Box::new(opened),
        experts: models,
    })
}

/// Without a base: adapters only.
fn alone(
    models: &[Model],
    find: impl Fn(&Model) -> Result<PathBuf>,
) -> Result<Inputs, Vec<MergeError>> {
    let (mut adapters, mut errors) = (Vec::new(), Vec::new());
    for model in models {
        let opened = find(model).and_then(|path| {
            if model.reference.adapter.is_some() || !is_adapter(&path) {
                return Err(MergeError::plan(
                    "no-base",
                    "is a model, and what it changed can only be seen against its base",
                )
                .at(model.reference.to_string())
                .hint("pass --base MODEL; only adapters (PEFT folders) are compared without one"));
            }
            Ok((model.name.clone(), AdapterFolder::open(&path)?))
        });
        match opened {
            Ok(adapter) => adapters.push(adapter),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(Inputs::Adapters(adapters))
    } else {
        Err(crate::plan::capped(errors))
    }
}
