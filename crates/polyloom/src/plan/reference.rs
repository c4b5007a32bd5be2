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

/// A model of the Hugging Face hub, as a reference names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository {
    /// `org/name`.
    pub id: String,
    /// Branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}@{}", self.id, self.revision)
    }
}

impl Repository {
    /// Its folder in a cache.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.id.replace('/', "--")))
    }

    /// The folder of its files in a cache, if there is one. It need not be complete.
    pub fn snapshot(&self, cache: &Path) -> Option<PathBuf> {
        let folder = self.folder(cache);
        let commit = std::fs::read_to_string(folder.join("refs").join(&self.revision)).ok();
        let commit = commit.as_deref().map_or(self.revision.as_str(), str::trim);
        // The file's content becomes a path; it must stay inside.
        let path = folder.join("snapshots").join(commit);
        (is_revision(commit) && path.is_dir()).then_some(path)
    }
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
    let mut tried = match here(path, places) {
        Ok(found) => return Ok(found),
        Err(tried) => tried,
    };
    let repository = repository(path, revision, dialect)?;
    if let Some(repository) = &repository
        && let Some(cache) = places.cache()
    {
        if let Some(found) = repository.snapshot(&cache) {
            return Ok(found);
        }
        tried.push(format!(
            "{} (revision {})",
            repository.folder(&cache).display(),
            repository.revision
        ));
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

/// The hub model a reference stands for: none if it names a folder that exists or is no hub name.
///
/// # Errors
/// `hf:` followed by something that is no repository, or a revision that is no revision.
pub fn on_hub(
    path: &str,
    revision: Option<&str>,
    dialect: Dialect,
    places: &Places,
) -> Result<Option<Repository>> {
    match here(path, places) {
        Ok(_) => Ok(None),
        Err(_) => repository(path, revision, dialect),
    }
}

impl Places {
    /// The Hugging Face cache: the one given, else the environment's.
    pub fn cache(&self) -> Option<PathBuf> {
        self.cache.clone().or_else(cache_folder)
    }
}

/// The reference as a folder or file on this machine, or the places where it is not.
fn here(path: &str, places: &Places) -> Result<PathBuf, Vec<String>> {
    let mut tried = Vec::new();
    if path.starts_with("hf:") {
        return Err(tried);
    }
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
    Err(tried)
}

fn repository(path: &str, revision: Option<&str>, dialect: Dialect) -> Result<Option<Repository>> {
    let named = path.strip_prefix("hf:");
    let bare = is_repository(path) && dialect == Dialect::Mergekit;
    let Some(id) = named.or(if bare { Some(path) } else { None }) else {
        return Ok(None);
    };
    let (id, revision) = match id.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (id, revision),
    };
    let revision = revision.unwrap_or("main");
    if !is_repository(id) {
        return Err(MergeError::plan(
            "bad-reference",
            format!("`hf:{id}` is not of the form hf:org/name"),
        ));
    }
    if !is_revision(revision) {
        return Err(MergeError::plan(
            "bad-reference",
            format!("`{revision}` (of `hf:{id}`) is not a branch, tag or commit"),
        ));
    }
    Ok(Some(Repository {
        id: id.to_owned(),
        revision: revision.to_owned(),
    }))
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

/// True for text that can be a git revision and stays inside a folder when used as a path.
fn is_revision(text: &str) -> bool {
    text.split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.'))
        && !text.contains("..")
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+'))
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
        // What stands in a ref becomes a path, too.
        std::fs::write(model.join("refs/odd"), "../..\n").unwrap();
        assert!(locate("hf:org/name@odd", None, Dialect::Loom, &places).is_err());
    }
}
