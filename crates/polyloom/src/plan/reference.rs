//! From a model reference to files: folders, single files, the local Hugging Face cache.

use std::path::{Path, PathBuf};

use crate::error::{MergeError, Result};
use crate::recipe::{Dialect, ModelRef};

/// Where references are looked up.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Folder of the recipe file; tried before the working directory.
    pub recipe_folder: Option<PathBuf>,
    /// The Hugging Face cache (`hub` folder); `None` = from the environment.
    pub cache: Option<PathBuf>,
}

/// Resolves a reference's model part (not its adapter) to a path.
///
/// Order: relative to the recipe file, relative to the working directory, the local Hugging Face cache for
/// `hf:org/name` and, in mergekit files, a bare `org/name`.
///
/// # Errors
/// Not found: lists the places and the way to fetch.
pub fn locate(
    path: &str,
    revision: Option<&str>,
    dialect: Dialect,
    places: &Places,
) -> Result<PathBuf> {
    let mut tried = Vec::new();
    let hub_name = path.strip_prefix("hf:");
    if hub_name.is_none() {
        let expanded = match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(path),
        };
        if let Some(folder) = &places.recipe_folder {
            let candidate = folder.join(&expanded);
            if candidate.exists() {
                return Ok(candidate);
            }
            tried.push(candidate.display().to_string());
        }
        if expanded.exists() {
            return Ok(expanded);
        }
        let shown = expanded.display().to_string();
        if !tried.contains(&shown) {
            tried.push(shown);
        }
    }
    let bare = is_repository(path) && dialect == Dialect::Mergekit;
    let repository = hub_name.or(if bare { Some(path) } else { None });
    if let Some(repository) = repository {
        let (repository, revision) = match repository.split_once('@') {
            Some((r, rev)) => (r, Some(rev)),
            None => (repository, revision),
        };
        if !is_repository(repository) {
            return Err(MergeError::plan(
                "bad-reference",
                format!("`hf:{repository}` is not of the form hf:org/name"),
            ));
        }
        let cache = places.cache.clone().or_else(cache_folder);
        if let Some(cache) = cache {
            let revision = revision.unwrap_or("main");
            let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
            if let Some(found) = snapshot(&folder, revision) {
                return Ok(found);
            }
            tried.push(format!("{} (revision {revision})", folder.display()));
        }
    }
    let mut error = MergeError::plan("model-not-found", format!("model `{path}` was not found"));
    error = error.hint(format!("looked at: {}", tried.join("; ")));
    if repository.is_some() {
        error = error.hint("nothing is fetched unless --download is given");
    } else if is_repository(path) {
        error = error.hint(format!(
            "for a model of the Hugging Face hub write hf:{path}"
        ));
    }
    Err(error)
}

/// The `hub` folder of the Hugging Face cache, as its own tools find it.
pub fn cache_folder() -> Option<PathBuf> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    var("HF_HUB_CACHE")
        .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| var("HF_HOME").map(|h| h.join("hub")))
        .or_else(|| var("XDG_CACHE_HOME").map(|h| h.join("huggingface").join("hub")))
        .or_else(|| var("HOME").map(|h| h.join(".cache").join("huggingface").join("hub")))
}

fn snapshot(folder: &Path, revision: &str) -> Option<PathBuf> {
    let safe = !revision.contains("..") && !revision.starts_with('/');
    let commit = std::fs::read_to_string(folder.join("refs").join(revision))
        .ok()
        .filter(|_| safe);
    let commit = commit.as_deref().map_or(revision, str::trim);
    let path = folder.join("snapshots").join(commit);
    (safe && path.is_dir()).then_some(path)
}

/// True for `org/name` with the characters the hub allows.
pub fn is_repository(text: &str) -> bool {
    let mut parts = text.split('/');
    let ok = |p: Option<&str>| {
        p.is_some_and(|p| {
            !p.is_empty()
                && !p.starts_with('.')
                && p.chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        })
    };
    ok(parts.next()) && ok(parts.next()) && parts.next().is_none()
}

/// A short name for a reference: the last part of its path without the file's ending, plus the adapter's.
pub fn short_name(reference: &ModelRef) -> String {
    let last = |path: &str| {
        let path = path.trim_end_matches(['/', '\\']);
        let name = Path::new(path)
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or(path);
        [".safetensors", ".bin", ".pt", ".pth", ".gguf"]
            .iter()
            .find_map(|e| name.strip_suffix(e))
            .unwrap_or(name)
            .to_owned()
    };
    match &reference.adapter {
        None => last(&reference.path),
        Some((adapter, _)) => format!("{}+{}", last(&reference.path), last(adapter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_read_like_its_own_tools_do() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("models--org--name");
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        std::fs::write(model.join("refs/main"), "abc\n").unwrap();
        let places = Places {
            cache: Some(dir.path().to_owned()),
            recipe_folder: None,
        };
        let want = model.join("snapshots/abc");
        assert_eq!(
            locate("hf:org/name", None, Dialect::Loom, &places).unwrap(),
            want
        );
        assert_eq!(
            locate("hf:org/name@abc", None, Dialect::Loom, &places).unwrap(),
            want
        );
        assert_eq!(
            locate("org/name", None, Dialect::Mergekit, &places).unwrap(),
            want
        );
        let error = locate("org/name", None, Dialect::Loom, &places).unwrap_err();
        assert!(
            error.hints().iter().any(|h| h.contains("hf:org/name")),
            "{:?}",
            error.hints()
        );
        let error = locate("hf:org/other", None, Dialect::Loom, &places).unwrap_err();
        assert!(error.hints().iter().any(|h| h.contains("--download")));
        assert!(locate("hf:org/name@../../x", None, Dialect::Loom, &places).is_err());
    }
}
