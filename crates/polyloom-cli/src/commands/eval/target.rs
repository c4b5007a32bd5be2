//! Where results go, and what systems are called.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom_learn::tasks::System;

use crate::ui::Failure;

/// Names of systems: that of the folder, with folders above it where two are alike.
pub fn names(systems: &[System]) -> Vec<String> {
    let parts = |system: &System| -> Vec<String> {
        let typed = Path::new(&system.reference);
        match typed.canonicalize() {
            Ok(path) => {
                let names = path.components().rev();
                names
                    .map(|c| c.as_os_str().to_string_lossy().into_owned())
                    .collect()
            }
            // A model of the hub, or MODEL+ADAPTER.
            Err(_) if system.adapter.is_some() => vec![system.name()],
            Err(_) => {
                let name = system.reference.trim_start_matches("hf:");
                let name = name.split('@').next().unwrap_or(name);
                name.split('/').rev().map(str::to_owned).collect()
            }
        }
    };
    let all: Vec<Vec<String>> = systems.iter().map(parts).collect();
    let name = |parts: &[String], n: usize| {
        let mut taken: Vec<&str> = parts.iter().take(n).map(|p| &**p).collect();
        taken.reverse();
        taken.join("-")
    };
    (0..all.len())
        .map(|i| {
            let unique = |n: &usize| {
                let own = name(&all[i], *n);
                let same = all.iter().filter(|other| name(other, *n) == own);
                same.count() == 1
            };
            match (1..=3).find(unique) {
                Some(n) => name(&all[i], n),
                None => format!("{}-{}", name(&all[i], 1), i + 1),
            }
        })
        .collect()
}

/// The results file of a system.
pub fn file(
    output: Option<&Path>,
    folder: &Path,
    name: &str,
    several: bool,
) -> Result<PathBuf, Failure> {
    let Some(output) = output else {
        // A folder that polyloom wrote keeps its results; others may not be for writing.
        return Ok(match folder.join("polyloom.json").exists() {
            true => folder.join("results.json"),
            false => PathBuf::from(format!("{name}.results.json")),
        });
    };
    let text = output.as_os_str().to_string_lossy();
    let is_file = output.extension().is_some_and(|e| e == "json");
    if several && (output.is_file() || is_file) {
        return Err(
            MergeError::plan("bad-flag", "is one file, and there are several systems")
                .at(output.display().to_string())
                .hint("-o DIR/ takes a results file for each")
                .into(),
        );
    }
    Ok(match several || output.is_dir() || text.ends_with('/') {
        true => output.join(format!("{name}.json")),
        false => output.to_owned(),
    })
}
