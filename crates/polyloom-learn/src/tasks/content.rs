//! Hashes of what a model is: the files that its outputs depend on.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use polyloom_core::hash::{sha256_file, sha256_text};

use crate::error::Result;

/// Hashes of files that were read already.
pub type Hashes = HashMap<PathBuf, String>;

/// Files of weights and settings.
const KINDS: [&str; 8] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "gguf",
    "json",
    "txt",
    "model",
];

/// Hash of the content of folders (or single files): weights, configuration, tokenizer, pooling, heads. What programs
/// write about a model (`polyloom.json`, results, logs of training) is left out, and so are names of folders.
///
/// # Errors
/// Files that cannot be read.
pub fn of(folders: &[&PathBuf], hashes: &mut Hashes) -> Result<String> {
    let mut text = String::new();
    for (place, folder) in folders.iter().enumerate() {
        let mut files = BTreeMap::new();
        if folder.is_file() {
            files.insert(String::new(), (*folder).clone());
        } else {
            collect(folder, "", &mut files)?;
        }
        for (name, path) in files {
            let hash = match hashes.get(&path) {
                Some(hash) => hash.clone(),
                None => {
                    let hash = sha256_file(&path)?;
                    hashes.insert(path, hash.clone());
                    hash
                }
            };
            text += &format!("{place} {name} {hash}\n");
        }
    }
    Ok(sha256_text(&text))
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries =
        std::fs::read_dir(folder).map_err(|e| polyloom_core::Error::io(folder, "read", e))?;
    for entry in entries.flatten() {
        let (path, name) = (
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        );
        let full = format!("{prefix}{name}");
        if path.is_dir() {
            // Pooling of sentence-transformers lies in numbered folders.
            let pooling = name.starts_with(|c: char| c.is_ascii_digit()) && name.contains('_');
            if !prefix.is_empty() || pooling || has_heads(folder) {
                collect(&path, &format!("{full}/"), files)?;
            }
            continue;
        }
        let kind = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let told = name == "polyloom.json"
            || name.ends_with("results.json")
            || name.ends_with(".log.json")
            || name.starts_with("trainer_state");
        if KINDS.contains(&&*kind) && !told {
            files.insert(full, path);
        }
    }
    Ok(())
}

/// Whether a folder is one of heads: sub-folders are parts of task names.
fn has_heads(folder: &Path) -> bool {
    !folder.join("config.json").exists() && !folder.join("adapter_config.json").exists()
}
