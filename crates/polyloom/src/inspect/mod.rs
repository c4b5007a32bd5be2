//! What is inside a checkpoint, an adapter, a mask bundle or a recipe, from headers alone; with a base also how far a
//! checkpoint lies from it.

mod distance;
mod recipe;

use std::collections::BTreeMap;
use std::path::Path;

use polyloom_core::checkpoint::read_json;
use polyloom_core::peft::AdapterFolder;
use polyloom_core::writer::human;
use serde::Serialize;

use crate::compress::Bundle;
use crate::error::Result;
use crate::plan::Opened;
use crate::plan::names::is_head;

pub use distance::{AgainstBase, against};
pub use recipe::{RecipeInfo, Used, describe as describe_recipe};

/// A tensor, as `inspect --tensors` lists it.
#[derive(Debug, Clone, Serialize)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Stored type.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// A full checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// As given.
    pub model: String,
    /// `model_type` of config.json.
    pub architecture: Option<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements by stored type, most first.
    pub dtypes: Vec<(String, u64)>,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of files and their bytes.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Name and length of the layer lists, longest first.
    pub layers: Vec<(String, usize)>,
    /// Tensors of a task head.
    pub heads: Vec<String>,
    /// Rows of the input embedding.
    pub vocabulary: Option<usize>,
    /// What stands beside the tensors.
    pub companions: Vec<String>,
    /// What was odd.
    pub warnings: Vec<String>,
}

/// An adapter folder.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterInfo {
    /// As given.
    pub adapter: String,
    /// `LORA`, `IA3` ...
    pub kind: String,
    /// The base it was trained on, as its config says.
    pub base: Option<String>,
    /// Rank and alpha of its config.
    pub rank: usize,
    /// Alpha of its config.
    pub alpha: f64,
    /// Words that change the arithmetic: rsLoRA, DoRA, patterns ...
    pub flags: Vec<String>,
    /// Last parts of the module names, with how many modules have them.
    pub targets: Vec<(String, usize)>,
    /// Adapted modules.
    pub modules: usize,
    /// Weights saved whole.
    pub whole: Vec<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// What was odd.
    pub warnings: Vec<String>,
}

/// Looks at an opened checkpoint.
pub fn describe_model(model: &Opened) -> ModelInfo {
    let mut dtypes: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in model.tensors.values() {
        *dtypes.entry(entry.dtype.name()).or_default() +=
            entry.shape.iter().product::<usize>() as u64;
    }
    let mut dtypes: Vec<(String, u64)> =
        dtypes.into_iter().map(|(d, n)| (d.to_owned(), n)).collect();
    dtypes.sort_by_key(|d| std::cmp::Reverse(d.1));
    let mut layers: Vec<(String, usize)> = model
        .blocks
        .lists()
        .iter()
        .map(|l| (l.prefix.clone(), l.count))
        .collect();
    layers.sort_by_key(|l| std::cmp::Reverse(l.1));
    let embedding = |name: &str| {
        [
            "embed_tokens.weight",
            "word_embeddings.weight",
            "wte.weight",
            "shared.weight",
        ]
        .iter()
        .any(|e| name.ends_with(e))
    };
    let companions = if model.path.is_dir() {
        let mut files = crate::output::companion_files(&model.path).unwrap_or_default();
        files.sort();
        files.iter().map(|f| f.display().to_string()).collect()
    } else {
        Vec::new()
    };
    let checkpoint = model.weights.checkpoint();
    let mut warnings = model.warnings.clone();
    if checkpoint.dropped_scales() {
        warnings.push("fp8 scale tensors are applied on reading".into());
    }
    ModelInfo {
        model: model.model.reference.to_string(),
        architecture: model
            .config()
            .and_then(|c| c.get("model_type"))
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned),
        parameters: dtypes.iter().map(|d| d.1).sum(),
        dtypes,
        tensors: model.tensors.len(),
        files: checkpoint.files().len(),
        bytes: checkpoint.files().iter().map(|f| f.len).sum(),
        layers,
        heads: model
            .tensors
            .keys()
            .filter(|n| is_head(n))
            .cloned()
            .collect(),
        vocabulary: model
            .tensors
            .iter()
            .find(|(name, _)| embedding(name))
            .and_then(|(_, e)| e.shape.first().copied()),
        companions,
        warnings,
    }
}

/// The tensors of a checkpoint, in the order of its files.
pub fn tensors(model: &Opened) -> Vec<TensorInfo> {
    model
        .tensors
        .iter()
        .map(|(name, e)| TensorInfo {
            name: name.clone(),
            dtype: e.dtype.name().to_owned(),
            shape: e.shape.clone(),
        })
        .collect()
}

/// Opens an adapter folder and looks at it.
///
/// # Errors
/// Unreadable, or not what its config says.
pub fn describe_adapter(path: &Path) -> Result<AdapterInfo> {
    let folder = AdapterFolder::open(path)?;
    let config = &folder.config;
    let mut flags = Vec::new();
    for (set, word) in [
        (config.rslora, "rsLoRA"),
        (config.dora, "DoRA"),
        (config.lora_bias, "bias in B"),
        (config.fan_in_fan_out, "fan_in_fan_out"),
        (!config.rank_pattern.is_empty(), "rank per module"),
        (!config.alpha_pattern.is_empty(), "alpha per module"),
    ] {
        if set {
            flags.push(word.to_owned());
        }
    }
    let mut targets: BTreeMap<String, usize> = BTreeMap::new();
    for name in folder.modules.keys() {
        let last = name.rsplit('.').next().unwrap_or(name);
        *targets.entry(last.to_owned()).or_default() += 1;
    }
    let tensors = &folder.tensors;
    Ok(AdapterInfo {
        adapter: path.display().to_string(),
        kind: config.peft_type.word().to_owned(),
        base: config
            .raw
            .get("base_model_name_or_path")
            .and_then(serde_json::Value::as_str)
            .filter(|b| !b.is_empty())
            .map(str::to_owned),
        rank: config.rank,
        alpha: config.alpha,
        flags,
        targets: targets.into_iter().collect(),
        modules: folder.modules.len(),
        whole: folder.whole.keys().cloned().collect(),
        parameters: tensors
            .tensors()
            .values()
            .map(|t| t.elements() as u64)
            .sum(),
        bytes: tensors.files().iter().map(|f| f.len).sum(),
        warnings: folder
            .warnings
            .iter()
            .chain(&config.warnings)
            .cloned()
            .collect(),
    })
}

/// The record of a mask bundle, if the folder is one.
pub fn bundle(path: &Path) -> Option<Bundle> {
    let mut document = read_json(&path.join("polyloom.json")).ok()?;
    serde_json::from_value(document.get_mut("bundle")?.take()).ok()
}

/// 109.5 M, 3.2 k, 940.
pub fn count(n: u64) -> String {
    let units = [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")];
    units.iter().find(|(u, _)| n >= *u).map_or_else(
        || n.to_string(),
        |(u, name)| format!("{:.1} {name}", n as f64 / *u as f64),
    )
}

/// Joins what fits into a line and counts the rest.
fn some(items: &[String], most: usize) -> String {
    let shown = items
        .iter()
        .take(most)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match items.len().checked_sub(most) {
        Some(rest) if rest > 0 => format!("{shown} and {rest} more"),
        _ => shown,
    }
}

impl ModelInfo {
    /// A few lines for people.
    pub fn text(&self) -> String {
        let kinds: Vec<String> = match &self.dtypes[..] {
            [(one, _)] => vec![one.to_lowercase()],
            many => many
                .iter()
                .map(|(d, n)| format!("{} {}", count(*n), d.to_lowercase()))
                .collect(),
        };
        let mut out = format!(
            "{}   full checkpoint{}, {} parameters, {}, {} file{}, {}\n",
            self.model,
            self.architecture
                .as_ref()
                .map_or(String::new(), |a| format!(", {a}")),
            count(self.parameters),
            kinds.join(" + "),
            self.files,
            if self.files == 1 { "" } else { "s" },
            human(self.bytes),
        );
        let mut line = vec![format!("{} tensors", self.tensors)];
        line.extend(self.layers.iter().map(|(name, n)| format!("{n} x {name}")));
        if let Some(rows) = self.vocabulary {
            line.push(format!("vocabulary {rows}"));
        }
        out += &format!("  {}\n", line.join(", "));
        if !self.heads.is_empty() {
            out += &format!("  task head: {}\n", some(&self.heads, 4));
        }
        if !self.companions.is_empty() {
            out += &format!("  beside it: {}\n", some(&self.companions, 6));
        }
        for warning in &self.warnings {
            out += &format!("  note: {warning}\n");
        }
        out
    }
}

impl AdapterInfo {
    /// A few lines for people.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}   adapter, {}, rank {}, alpha {}, {} parameters, {}\n",
            self.adapter,
            self.kind,
            self.rank,
            self.alpha,
            count(self.parameters),
            human(self.bytes),
        );
        let targets: Vec<String> = self
            .targets
            .iter()
            .map(|(t, n)| format!("{n} x {t}"))
            .collect();
        out += &format!("  {} modules: {}\n", self.modules, some(&targets, 6));
        if !self.flags.is_empty() {
            out += &format!("  {}\n", self.flags.join(", "));
        }
        if !self.whole.is_empty() {
            out += &format!("  saved whole: {}\n", some(&self.whole, 4));
        }
        if let Some(base) = &self.base {
            out += &format!("  trained on {base}\n");
        }
        for warning in &self.warnings {
            out += &format!("  note: {warning}\n");
        }
        out
    }
}

/// A few lines about a bundle.
pub fn bundle_text(path: &Path, bundle: &Bundle) -> String {
    let masked = bundle.tensors.iter().filter(|t| t.masked).count();
    let tasks: Vec<String> = bundle.tasks.iter().map(|t| t.id.clone()).collect();
    let a = bundle.accounting;
    let kind = if bundle.is_deltas() { "delta" } else { "mask" };
    let mut stored = Vec::new();
    for (what, bytes) in [
        ("shared vector", a.shared),
        ("masks", a.masks),
        ("deltas", a.deltas),
    ] {
        if bytes > 0 {
            stored.push(format!("{what} {}", human(bytes)));
        }
    }
    format!(
        "{}   {kind} bundle, {}, {} task{}, {masked} of {} tensors changed\n  tasks: {}\n  base: {}\n  {}: {:.1} % of the experts' size, {:.1} % with the base on both sides\n",
        path.display(),
        bundle.method,
        tasks.len(),
        if tasks.len() == 1 { "" } else { "s" },
        bundle.tensors.len(),
        some(&tasks, 8),
        bundle.base.reference,
        stored.join(", "),
        100.0 * a.deltas_only(),
        100.0 * a.with_base(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        assert_eq!(count(109_482_240), "109.5 M");
        assert_eq!(count(999), "999");
        assert_eq!(count(3_200), "3.2 k");
        let names: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        assert_eq!(some(&names, 2), "a, b and 1 more");
        assert_eq!(some(&names, 3), "a, b, c");
    }
}
