//! Writing an adapter folder: all at once, with PEFT's file names, key order and metadata.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config::config_text;
use crate::dtype::{self, DType};
use crate::error::{Error, Result};
use crate::writer::{FolderOptions, OutTensor, OutputFolder, safetensors_bytes};

/// A tensor of an adapter to write, computed in `f32`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterTensor {
    /// Full name in the file, such as `base_model.model.layers.0.q_proj.lora_A.weight`.
    pub name: String,
    /// Type on disk; values are rounded to it once.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// Writes `adapter_config.json`, `adapter_model.safetensors` and `README.md` into a hidden sibling of `target` and
/// renames it; returns the folder.
///
/// Adapters are small, so the whole file is built in memory.
pub fn write_adapter(
    target: &Path,
    config: &Map<String, Value>,
    tensors: &[AdapterTensor],
    readme: &str,
    mut options: FolderOptions,
) -> Result<PathBuf> {
    let files = adapter_files(target, config, tensors)?;
    options.bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let folder = OutputFolder::create(target, options)?;
    for (name, bytes) in &files {
        folder.write_file(name, bytes)?;
    }
    folder.write_file("README.md", readme.as_bytes())?;
    folder.commit()
}

/// The files of an adapter folder that PEFT reads, by name; `target` is named in errors.
///
/// # Errors
/// Values that are not finite or too large for their type.
pub fn adapter_files(
    target: &Path,
    config: &Map<String, Value>,
    tensors: &[AdapterTensor],
) -> Result<[(&'static str, Vec<u8>); 2]> {
    let mut stored = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let out = OutTensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        };
        let mut bytes = vec![0; out.bytes() as usize];
        let overflows = dtype::narrow(&tensor.values, tensor.dtype, &mut bytes);
        let finite = tensor.values.iter().all(|v| v.is_finite());
        if overflows > 0 || !finite {
            return Err(Error::tensor(
                target,
                &tensor.name,
                if finite {
                    format!("{overflows} values are too large for {}", tensor.dtype)
                } else {
                    "holds values that are not finite".to_owned()
                },
            )
            .with_hint("write the adapter as f32"));
        }
        stored.push((out, bytes));
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors_bytes(&stored, &metadata);
    Ok([
        ("adapter_model.safetensors", bytes),
        ("adapter_config.json", config_text(config).into_bytes()),
    ])
}
