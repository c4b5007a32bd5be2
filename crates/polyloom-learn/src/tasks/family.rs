//! A model opened as tasks use it: trunk, reader of inputs, heads.

use std::collections::HashMap;
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
    /// Those that hold no fractions (places of tokens, counters), as their bytes: no model reads them, all keep them.
    pub whole: HashMap<String, Vec<u8>>,
    /// Things to tell the user.
    pub warnings: Vec<String>,
}

impl Opened {
    /// Opens `MODEL` or `MODEL+ADAPTER` (folded in): a folder, or a repository of the local Hub cache.
    ///
    /// # Errors
    /// What cannot be found or read, an architecture that is not known.
    pub fn open(reference: &str) -> Result<Self> {
        Self::load(named(reference)?)
    }

    /// Opens the model of a folder with an adapter folded into its weights.
    ///
    /// # Errors
    /// As [`Self::open`]; an adapter that does not fit.
    pub fn folded(model: &Path, adapter: &Path) -> Result<Self> {
        Self::load(placed(model, Some(adapter))?)
    }

    fn load(given: recipe::Model) -> Result<Self> {
        let opened = open_model(given, Dialect::Loom, &Places::default())?;
        let Some(config) = opened.config().cloned() else {
            let error = MergeError::plan("no-config", "holds no config.json");
            return Err(error
                .at(opened.path.display().to_string())
                .hint("a model is a folder with config.json and weights, as save_pretrained writes it")
                .into());
        };
        let (mut tensors, mut stored) = (Vec::new(), Vec::new());
        let (mut whole, mut scratch) = (HashMap::new(), Scratch::default());
        for (name, entry) in &opened.tensors {
            if !entry.dtype.is_float() {
                let n = entry.shape.iter().product();
                let mut bytes = vec![0u8; entry.dtype.bytes_of(n).unwrap_or(0) as usize];
                opened.read_bytes(name, 0, &mut bytes)?;
                whole.insert(name.clone(), bytes);
                stored.push((name.clone(), entry.dtype, entry.shape.clone()));
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
            whole,
            warnings: opened.warnings,
        })
    }
}

/// A folder, with the adapter to fold in, as a model of a recipe.
fn placed(model: &Path, adapter: Option<&Path>) -> Result<recipe::Model> {
    let text = |path: &Path| path.display().to_string();
    let mut given = named(&text(model))?;
    given.reference.adapter = adapter.map(|a| (text(a), None));
    Ok(given)
}

/// The fingerprint of a model's weights with an adapter folded in.
///
/// # Errors
/// Files that cannot be read, an adapter that does not fit.
pub fn fingerprint(model: &Path, adapter: Option<&Path>) -> Result<String> {
    let opened = open_model(placed(model, adapter)?, Dialect::Loom, &Places::default())?;
    Ok(polyloom::plan::statistics::fingerprint(&opened)?)
}

/// A reference as a model of a recipe.
pub(super) fn named(reference: &str) -> Result<recipe::Model> {
    let recipe = recipe::from_models("passthrough", None, &[reference.to_owned()])?;
    let none = || MergeError::plan("arguments", "no model").into();
    recipe.models.into_iter().next().ok_or_else(none)
}

/// Heads of a folder, in the order of its task list; without one all files below `heads/`, by name.
///
/// # Errors
/// A head that is listed and not there, files that are no heads.
pub fn heads(folder: &Path) -> Result<Vec<Head>> {
    let root = folder.join("heads");
    let mut tasks = listed(folder)?;
    if tasks.is_empty() {
        tasks = heads_below(&root)?;
    }
    tasks
        .iter()
        .map(|task| Head::read(&Head::path(&root, task), task))
        .collect()
}

/// What `polyloom.json` of a folder says; nothing where there is none.
pub(crate) fn provenance(folder: &Path) -> Result<serde_json::Value> {
    let file = folder.join("polyloom.json");
    Ok(match file.exists() {
        true => polyloom_core::checkpoint::read_json(&file)?,
        false => serde_json::Value::Null,
    })
}

/// Ids of the tasks that a folder names as its own.
///
/// # Errors
/// A `polyloom.json` that cannot be read.
pub fn listed(folder: &Path) -> Result<Vec<String>> {
    let provenance = provenance(folder)?;
    let tasks = provenance["tasks"].as_array().into_iter().flatten();
    let id = |t: &serde_json::Value| Some(t["id"].as_str()?.to_owned());
    Ok(tasks.filter_map(id).collect())
}

/// Tasks of the files in a folder of heads, by name.
///
/// # Errors
/// A folder that cannot be read.
pub fn heads_below(root: &Path) -> Result<Vec<String>> {
    let mut tasks = Vec::new();
    below(root, "", &mut tasks)?;
    tasks.sort();
    Ok(tasks)
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
