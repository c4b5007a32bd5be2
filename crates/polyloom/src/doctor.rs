//! Checks of this machine and of files: what would stop a run later is said now.

use std::path::{Path, PathBuf};

use polyloom_core::checkpoint::{Scratch, read_json};
use polyloom_core::writer::{free_space, human};
use polyloom_core::{Checkpoint, hash};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::error::{MergeError, Result};
use crate::plan::reference::Places;
use crate::plan::{self};
use crate::recipe;

/// The answer of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Fine.
    Ok,
    /// Will be in the way of some runs.
    Warn,
    /// Something is broken.
    Fail,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its answer.
    pub status: Status,
    /// What was checked: `cpu`, `memory`, `disk`, `files`, `recipe`.
    pub what: &'static str,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl Check {
    fn new(status: Status, what: &'static str, text: String) -> Self {
        Self {
            status,
            what,
            text,
            hints: Vec::new(),
        }
    }

    fn failed(what: &'static str, error: &MergeError) -> Self {
        Self {
            hints: error.hints().iter().map(ToString::to_string).collect(),
            ..Self::new(Status::Fail, what, error.to_string())
        }
    }
}

/// What to check besides the machine.
#[derive(Debug, Clone, Default)]
pub struct Subjects {
    /// Recipes, models, adapters, bundles.
    pub files: Vec<PathBuf>,
    /// Where outputs would go.
    pub output: PathBuf,
    /// Also read every tensor and look for NaN and infinity, and compute full hashes.
    pub full: bool,
}

/// Runs all checks.
pub fn run(subjects: &Subjects, places: &Places) -> Vec<Check> {
    let mut checks = vec![cpu(), memory()];
    let mut needed = 0;
    let mut found = Vec::new();
    for file in &subjects.files {
        let ending = file.extension().and_then(|e| e.to_str()).unwrap_or("");
        if matches!(ending, "toml" | "yml" | "yaml") {
            let (check, bytes) = recipe_check(file, places);
            needed += bytes;
            found.extend(check);
        } else {
            found.push(model_check(file, subjects.full));
        }
    }
    checks.push(disk(&subjects.output, needed));
    checks.extend(found);
    checks
}

fn cpu() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut parts = vec![format!("{cores} core{}", if cores == 1 { "" } else { "s" })];
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            (std::is_x86_feature_detected!("avx2"), "AVX2"),
            (std::is_x86_feature_detected!("fma"), "FMA"),
            (std::is_x86_feature_detected!("avx512f"), "AVX-512"),
        ];
        parts.extend(has.iter().filter(|h| h.0).map(|h| h.1.to_owned()));
        if !has[0].0 {
            let text = format!(
                "{}, no AVX2: merges run with narrower registers",
                parts.join(", ")
            );
            return Check::new(Status::Warn, "cpu", text);
        }
    }
    parts.push(std::env::consts::ARCH.to_owned());
    Check::new(Status::Ok, "cpu", parts.join(", "))
}

/// Total and available memory, where the system says.
pub fn memory_bytes() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|k| k * 1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

fn memory() -> Check {
    match memory_bytes() {
        None => Check::new(
            Status::Ok,
            "memory",
            "this system does not say how much is free".into(),
        ),
        Some((total, free)) => {
            let low = free < 512 << 20;
            let status = if low { Status::Warn } else { Status::Ok };
            Check::new(
                status,
                "memory",
                format!("{}, {} free", human(total), human(free)),
            )
        }
    }
}

fn disk(output: &Path, needed: u64) -> Check {
    // The folder need not exist yet.
    let there = output
        .ancestors()
        .find(|p| p.exists() && !p.as_os_str().is_empty());
    let place = there.unwrap_or(Path::new("."));
    let Some(free) = free_space(place) else {
        return Check::new(
            Status::Ok,
            "disk",
            format!(
                "{}: this system does not say how much is free",
                place.display()
            ),
        );
    };
    let mut text = format!("{} free in {}", human(free), place.display());
    if needed > 0 {
        text += &format!("; the recipe needs {}", human(needed));
    }
    let status = if free < needed.max(1 << 30) {
        Status::Warn
    } else {
        Status::Ok
    };
    Check::new(status, "disk", text)
}

/// Plans a recipe; the bytes it will write.
fn recipe_check(file: &Path, places: &Places) -> (Vec<Check>, u64) {
    let failed = |errors: Vec<MergeError>| {
        (
            errors.iter().map(|e| Check::failed("recipe", e)).collect(),
            0,
        )
    };
    let recipes = match recipe::read(file) {
        Ok(recipes) => recipes,
        Err(errors) => return failed(errors),
    };
    // Later stages of a multi-document file need the outputs of earlier ones.
    let Some(first) = recipes.into_iter().next() else {
        return (Vec::new(), 0);
    };
    match plan::build(first, places) {
        Err(errors) => failed(errors),
        Ok(plan) => {
            let peak = plan.peak_bytes(rayon::current_num_threads());
            let tight = memory_bytes().is_some_and(|(_, free)| free < peak);
            let status = if tight { Status::Warn } else { Status::Ok };
            let text = format!(
                "{}: plans; reads {}, writes {}, peak about {}",
                file.display(),
                human(plan.bytes_read()),
                human(plan.bytes_written()),
                human(peak),
            );
            (
                vec![Check::new(status, "recipe", text)],
                plan.bytes_written(),
            )
        }
    }
}

fn model_check(path: &Path, full: bool) -> Check {
    match checked(path, full) {
        Ok(text) => Check::new(Status::Ok, "files", text),
        Err(error) => Check::failed("files", &error),
    }
}

/// Opens what lies there, compares it with its provenance, and with `full` reads every number.
fn checked(path: &Path, full: bool) -> Result<String> {
    let bundle = crate::inspect::bundle(path);
    let checkpoint = if path.join("adapter_config.json").exists() {
        polyloom_core::peft::AdapterFolder::open(path)?.tensors
    } else if bundle.is_some() {
        Checkpoint::open(path.join("shared.safetensors"))?
    } else {
        Checkpoint::open(path)?
    };
    let mut text = format!(
        "{}: {} tensors readable",
        path.display(),
        checkpoint.tensors().len()
    );
    let provenance = path.join("polyloom.json");
    if provenance.exists() {
        let compared = compare_hashes(path, &read_json(&provenance)?)?;
        if compared > 0 {
            text += ", hashes match polyloom.json";
        }
    }
    if full {
        finite(&checkpoint)?;
        text += ", all numbers finite";
    }
    Ok(text)
}

/// Compares the files that `polyloom.json` lists; how many had a hash.
fn compare_hashes(folder: &Path, document: &Value) -> Result<usize> {
    let mut compared = 0;
    for output in document["outputs"].as_array().into_iter().flatten() {
        let (Some(name), Some(want)) = (output["file"].as_str(), output["hash"].as_str()) else {
            continue;
        };
        let file = folder.join(name);
        let found = if let Some(hex) = want.strip_prefix("sha256:") {
            (hash::sha256_file(&file)?, hex.to_owned())
        } else if let Some(hex) = want.strip_prefix("xxh3-64-header:") {
            let header = Checkpoint::open(&file)?.files()[0].header_hash;
            (format!("{header:016x}"), hex.to_owned())
        } else {
            continue;
        };
        compared += 1;
        if found.0 != found.1 {
            return Err(MergeError::plan("hash-differs", "is not the file that polyloom.json describes: its hash differs")
                .at(file.display().to_string())
                .hint("it was changed after it was written; merge again, or remove polyloom.json if that was meant"));
        }
    }
    Ok(compared)
}

/// Reads every float tensor; the first NaN or infinity is an error.
fn finite(checkpoint: &Checkpoint) -> Result<()> {
    const CHUNK: usize = 1 << 18;
    let tensors: Vec<_> = checkpoint
        .tensors()
        .iter()
        .filter(|(_, t)| t.dtype.is_float())
        .collect();
    tensors.par_iter().try_for_each(|(name, tensor)| {
        let mut scratch = Scratch::default();
        let elements = tensor.elements();
        let mut values = vec![0.0; CHUNK.min(elements)];
        for start in (0..elements).step_by(CHUNK) {
            let n = CHUNK.min(elements - start);
            checkpoint.read_f32(tensor, start..start + n, &mut values[..n], &mut scratch)?;
            if let Some(at) = values[..n].iter().position(|v| !v.is_finite()) {
                return Err(MergeError::NonFinite {
                    file: checkpoint.path_of(tensor).display().to_string(),
                    tensor: (*name).clone(),
                    what: if values[at].is_nan() {
                        "NaN"
                    } else {
                        "infinity"
                    },
                    index: start + at,
                });
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let checks = run(&Subjects::default(), &Places::default());
        let what: Vec<&str> = checks.iter().map(|c| c.what).collect();
        assert_eq!(what, ["cpu", "memory", "disk"]);
        assert!(checks.iter().all(|c| c.status != Status::Fail));
    }

    #[test]
    fn a_missing_file_fails() {
        let subjects = Subjects {
            files: vec!["nowhere/model".into(), "nowhere/loom.toml".into()],
            ..Subjects::default()
        };
        let checks = run(&subjects, &Places::default());
        let failed: Vec<&str> = checks
            .iter()
            .filter(|c| c.status == Status::Fail)
            .map(|c| c.what)
            .collect();
        assert_eq!(failed, ["files", "recipe"]);
    }
}
