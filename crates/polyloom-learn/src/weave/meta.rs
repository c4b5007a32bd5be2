//! `woven.json`: what a woven folder holds.

use std::path::Path;

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Name and version of the format.
pub const FORMAT: &str = "polyloom.woven/1";
/// The file that makes a folder a woven model.
pub const FILE: &str = "woven.json";
/// What the base gets on top before any part acts.
pub const SHARED: &str = "shared.safetensors";
/// Vectors that find the expert of a token, layer by layer (SMILE).
pub const GATES: &str = "gates.safetensors";
/// What mixes the experts' feed-forward parts (WEMoE).
pub const MIXERS: &str = "mixers.safetensors";
/// What chooses expert and head.
pub const ROUTER: &str = "router.safetensors";

/// How the parts act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Twin-Merging: parts beyond a shared expert, mixed by input.
    #[default]
    Twin,
    /// SMILE: the experts' singular vectors choose by token and layer.
    Smile,
    /// WEMoE: feed-forward parts mixed by input, layer by layer.
    Wemoe,
}

impl Method {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Twin => "twin",
            Self::Smile => "smile",
            Self::Wemoe => "wemoe",
        }
    }
}

/// The model that everything stands on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct BaseRef {
    /// A folder, or a repository of the Hub.
    pub path: String,
    /// Fingerprint of its weights.
    pub hash: String,
}

/// One expert.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ExpertMeta {
    /// Its name; its parts are `parts/<name>.safetensors`.
    pub name: String,
    /// Its task.
    pub task: String,
    /// Its heads: names below `heads/`.
    pub heads: Vec<String>,
    /// Tensors that have a part.
    pub tensors: usize,
    /// Largest rank of a part; none where no part is one of factors.
    pub rank: Option<usize>,
    /// Bytes of its parts on disk.
    pub bytes: u64,
}

/// How the router's answer becomes weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Routing {
    /// Experts that get a weight at most; all where none is given.
    pub top: Option<usize>,
    /// Weights are whole multiples of one over this; exact where it is 0.
    pub levels: u32,
}

/// SMILE's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Gating {
    /// Singular vectors of an expert that find its tokens.
    pub gate_rank: usize,
    /// Experts of a token.
    pub top: usize,
}

/// Bytes on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Sizes {
    /// The shared vector.
    pub shared: u64,
    /// All parts.
    pub parts: u64,
    /// Router, gates, mixers.
    pub routing: u64,
    /// Heads.
    pub heads: u64,
    /// What whole copies of the experts' changed tensors would take in the type of the base; for comparison.
    pub copies: u64,
}

impl Sizes {
    /// All that the folder adds to the base.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.shared + self.parts + self.routing + self.heads
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Meta {
    /// [`FORMAT`].
    pub format: String,
    /// Version of the program that wrote it.
    pub polyloom: String,
    /// How the parts act.
    pub method: Method,
    /// The base.
    pub base: BaseRef,
    /// Type of the numbers of the shared vector and the parts.
    pub dtype: String,
    /// The experts, in the order of the router's weights.
    pub experts: Vec<ExpertMeta>,
    /// The router; none for a single expert.
    pub routing: Option<Routing>,
    /// SMILE's numbers.
    pub gating: Option<Gating>,
    /// WEMoE's feed-forward parts: names of their linear layers.
    pub blocks: Vec<Vec<String>>,
    /// Bytes.
    pub sizes: Sizes,
}

impl Meta {
    /// Whether a folder is a woven model.
    #[must_use]
    pub fn is_there(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }

    /// Reads and checks `woven.json`.
    ///
    /// # Errors
    /// No JSON, another format or version, values that cannot be.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let json = polyloom_core::checkpoint::read_json(&file)?;
        let format = json["format"].as_str().unwrap_or("none");
        if format != FORMAT {
            let what = format!("is of the format `{format}`; this version reads `{FORMAT}`");
            return Err(match format.starts_with("polyloom.woven/") {
                true => Error::file(&file, what).hint("a newer polyloom wrote it"),
                false => Error::file(&file, what),
            });
        }
        let meta: Self =
            serde_json::from_value(json).map_err(|e| Error::file(&file, e.to_string()))?;
        meta.check().map_err(|what| Error::file(&file, what))?;
        Ok(meta)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.experts.is_empty() {
            return Err("names no experts".into());
        }
        for (i, expert) in self.experts.iter().enumerate() {
            let name = &expert.name;
            if !is_plain(name) {
                return Err(format!(
                    "expert {} has the name `{name}`, which is no name of a file",
                    i + 1
                ));
            }
            if self.experts[..i].iter().any(|e| e.name == *name) {
                return Err(format!("two experts are called `{name}`"));
            }
            if let Some(head) = expert.heads.iter().find(|h| !h.split('/').all(is_plain)) {
                return Err(format!(
                    "expert `{name}` has the head `{head}`, which is no name of a file"
                ));
            }
        }
        if let Some(routing) = &self.routing {
            if routing.top == Some(0) || routing.levels > 1 << 16 {
                return Err("`routing` has `top` 0 or more than 65536 `levels`".into());
            }
        } else if self.experts.len() > 1 {
            return Err("has several experts and no `routing`".into());
        }
        match (self.method, self.gating) {
            (Method::Smile, None) => Err("is of method `smile` and has no `gating`".into()),
            (Method::Smile, Some(g)) if g.gate_rank == 0 || g.top == 0 => {
                Err("`gating` has a `gate_rank` or `top` of 0".into())
            }
            (Method::Wemoe, _) if self.blocks.iter().all(Vec::is_empty) => {
                Err("is of method `wemoe` and names no `blocks`".into())
            }
            _ => Ok(()),
        }
    }

    /// As text.
    ///
    /// # Errors
    /// Never in practice.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| MergeError::Internal(format!("{FILE}: {e}")))?;
        Ok(text + "\n")
    }

    /// The expert of a task.
    #[must_use]
    pub fn expert_of(&self, task: &str) -> Option<usize> {
        let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        let same = self.experts.iter().position(|e| e.task == task);
        same.or_else(|| {
            self.experts
                .iter()
                .position(|e| last(&e.task) == last(task))
        })
    }
}

/// Whether a name is one of a file, with no folder in it.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._- ".contains(c))
}
