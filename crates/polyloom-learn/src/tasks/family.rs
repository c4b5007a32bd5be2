//! A model opened as tasks use it: trunk, reader of inputs, heads.

use std::path::Path;

use polyloom::MergeError;
use polyloom::plan::open_model;
use polyloom::plan::reference::Places;
use polyloom::recipe::{self, Dialect};
use polyloom_core::DType;
use polyloom_core::checkpoint::Scratch;

use super::head::Head;
use crate::engine::tensor;
use crate::error::Result;
use crate::models::Plain;
use crate::models::open::Model;

/// A model in memory, with what its folder says beside the weights.
pub struct Opened {
    /// Trunk and weights.
    pub model: Model,
    /// What `config.json` says.
    pub config: serde_json::Value,
    /// Tensors of the checkpoint in its order, with their types.
    pub stored: Vec<(String, DType, Vec<usize>)>,
    /// Things to tell the user.
    pub warnings: Vec<String>,
}

impl Opened {
    /// Opens `MODEL` or `MODEL+ADAPTER` (folded in): a folder, or a repository of the local Hub cache.
    ///
    /// # Errors
    /// What cannot be found or read, an architecture that is not known.
    pub fn open(reference: &str) -> Result<Self> {
        let given = [reference.to_owned()];
        let recipe = recipe::from_models("passthrough", None, &given)?;
        let Some(given) = recipe.models.into_iter().next() else {
            return Err(MergeError::plan("arguments", "no model").into());
        };
        let opened = open_model(given, Dialect::Loom, &Places::default())?;
        let Some(config) = opened.config().cloned() else {
            let error = MergeError::plan("no-config", "holds no config.json");
            return Err(error
                .at(opened.path.display().to_string())
                .hint("a model is a folder with config.json and weights, as save_pretrained writes it")
                .into());
        };
        let (mut tensors, mut stored) = (Vec::new(), Vec::new());
        let mut scratch = Scratch::default();
        for (name, entry) in &opened.tensors {
            if !entry.dtype.is_float() {
                continue;
            }
            let mut values = vec![0f32; entry.shape.iter().product()];
            opened.read(name, 0, &mut values, &mut scratch)?;
            tensors.push((name.clone(), tensor(values, entry.shape.clone())?));
            stored.push((name.clone(), entry.dtype, entry.shape.clone()));
        }
        Ok(Self {
            model: Model::of(&opened.path, &config, Plain::new(tensors))?,
            config,
            stored,
            warnings: opened.warnings,
        })
    }
}

/// Heads of a folder, in the order of its task list; without one all files below `heads/`, by name.
///
/// # Errors
/// A head that is listed and not there, files that are no heads.
pub fn heads(folder: &Path) -> Result<Vec<Head>> {
    let provenance = folder.join("polyloom.json");
    let listed = match provenance.exists() {
        true => polyloom_core::checkpoint::read_json(&provenance)?,
        false => serde_json::Value::Null,
    };
    let mut tasks: Vec<String> = listed["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|t| Some(t["id"].as_str()?.to_owned()))
        .collect();
    let root = folder.join("heads");
    if tasks.is_empty() {
        below(&root, "", &mut tasks)?;
        tasks.sort();
    }
    tasks
        .iter()
        .map(|task| Head::read(&Head::path(&root, task), task))
        .collect()
}

/// Tasks that have a file below a folder.
fn below(folder: &Path, prefix: &str, tasks: &mut Vec<String>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries =
        std::fs::read_dir(folder).map_err(|e| polyloom_core::Error::io(folder, "read", e))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            below(&entry.path(), &format!("{prefix}{name}/"), tasks)?;
        } else if let Some(task) = name.strip_suffix(".safetensors") {
            tasks.push(format!("{prefix}{task}"));
        }
    }
    Ok(())
}
