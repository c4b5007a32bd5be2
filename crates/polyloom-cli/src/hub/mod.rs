//! `--download`: models that are not on this machine come into the Hugging Face cache before anything is planned.
//! Compiled with feature `hub`; beside it only [`crate::endpoint`] opens a socket.

#[cfg_attr(
    not(feature = "hub"),
    allow(dead_code, reason = "the client uses the rest")
)]
mod choose;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod settings;
#[cfg(feature = "hub")]
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use polyloom::plan::reference::{Places, Repository, on_hub};
use polyloom::recipe::{Dialect, ModelRef};
use polyloom::{MergeError, Result};

use crate::ui::Ui;
pub use choose::Role;

/// What a command may do with models that are not here.
#[derive(Debug, Clone, Copy)]
pub struct Hub {
    /// `--download` was given.
    pub download: bool,
    /// Only say what would be fetched.
    pub dry_run: bool,
}

/// One place of a reference.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// What it is used as.
    pub role: Role,
    /// The path as typed.
    pub path: &'a str,
    /// `@revision`, if it stands apart.
    pub revision: Option<&'a str>,
}

/// The places of a reference: the model and, after `+`, the adapter.
pub fn needs(reference: &ModelRef) -> impl Iterator<Item = Need<'_>> {
    let model = Need {
        role: Role::Model,
        path: &reference.path,
        revision: reference.revision.as_deref(),
    };
    let adapter = reference.adapter.as_ref().map(|(path, revision)| Need {
        role: Role::Adapter,
        path,
        revision: revision.as_deref(),
    });
    std::iter::once(model).chain(adapter)
}

/// Whether the command can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// All that can be here is here.
    Here,
    /// `--dry-run`: it was only said what would be fetched.
    Said,
}

impl Hub {
    /// Brings what is needed into the cache. Without `--download` nothing happens: the plan says what is
    /// missing.
    ///
    /// # Errors
    /// Everything that keeps a model from coming.
    pub fn bring<'a>(
        self,
        needs: impl IntoIterator<Item = Need<'a>>,
        dialect: Dialect,
        places: &Places,
        ui: &Ui,
    ) -> Result<Brought, Vec<MergeError>> {
        if !self.download {
            return Ok(Brought::Here);
        }
        let mut wanted: BTreeMap<Repository, BTreeSet<Role>> = BTreeMap::new();
        let cache = places.cache();
        for need in needs {
            let found = on_hub(need.path, need.revision, dialect, places);
            if let Some(repository) = found.map_err(|e| vec![e])?
                && !cache
                    .as_deref()
                    .and_then(|c| repository.snapshot(c))
                    .is_some_and(|folder| is_complete(&folder, need.role))
            {
                wanted.entry(repository).or_default().insert(need.role);
            }
        }
        if wanted.is_empty() {
            return Ok(Brought::Here);
        }
        let cache = cache.ok_or_else(|| {
            vec![
                MergeError::plan("arguments", "there is no place for downloaded models")
                    .hint("set HF_HOME or give --cache DIR"),
            ]
        })?;
        get(&wanted, &cache, self.dry_run, ui)?;
        Ok(if self.dry_run {
            Brought::Said
        } else {
            Brought::Here
        })
    }
}

#[cfg(feature = "hub")]
use fetch::fetch as get;

#[cfg(not(feature = "hub"))]
fn get(
    wanted: &BTreeMap<Repository, BTreeSet<Role>>,
    _: &Path,
    _: bool,
    _: &Ui,
) -> Result<(), Vec<MergeError>> {
    Err(wanted
        .keys()
        .map(|repository| {
            MergeError::plan(
                "no-hub",
                "is not in the cache, and this program was built without the download client",
            )
            .at(repository.to_string())
            .hint("build it with `cargo install --path crates/polyloom-cli --features hub`")
        })
        .collect())
}

/// True if a folder of the cache holds all weight files: other tools may have put only some files there.
fn is_complete(folder: &Path, role: Role) -> bool {
    let names: BTreeSet<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        // Through the link: its content may be gone.
        .filter(|e| e.path().is_file())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    let shards = |index: &str| -> Result<Vec<String>, ()> {
        let text = std::fs::read(folder.join(index)).map_err(|_| ())?;
        choose::shards(&text).ok_or(())
    };
    match choose::weights(&names, role, shards) {
        Ok(Ok(files)) => files.iter().all(|f| names.contains(f)),
        _ => false,
    }
}
