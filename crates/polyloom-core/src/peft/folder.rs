//! An adapter folder: its configuration and which tensors belong to which module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::{AdapterConfig, PeftType};
use crate::checkpoint::{Checkpoint, Scratch, StoredTensor};
use crate::error::{Error, Result};

/// What stands before every name in an adapter file.
pub const PREFIX: &str = "base_model.model.";

/// What kind of layer the factors of a module belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerKind {
    /// `y = x W^T`, W `[out, in]` (or `[in, out]` with `fan_in_fan_out`).
    Linear,
    /// A table `[V, d]`; delta is `s (B A)^T`.
    Embedding,
    /// Convolution with the dimensions of A after the first: `[in / groups, k..]`.
    Conv(Vec<usize>),
}

/// The tensors of one adapted module, by their names in the file.
#[derive(Debug, Clone, Default)]
pub struct AdaptedModule {
    /// `lora_A.weight`, `lora_embedding_A` or `poly_lora_A`.
    pub a: Option<String>,
    /// `lora_B.weight`, `lora_embedding_B` or `poly_lora_B`.
    pub b: Option<String>,
    /// `lora_B.bias`.
    pub b_bias: Option<String>,
    /// `lora_magnitude_vector`.
    pub magnitude: Option<String>,
    /// `ia3_l`.
    pub ia3: Option<String>,
    /// `poly_router.module_logits`.
    pub logits: Option<String>,
    /// True for an embedding.
    pub embedding: bool,
}

/// The two factors of one module as plain matrices; delta is `scaling * b a`.
#[derive(Debug, Clone)]
pub struct Factors {
    /// `[rank, inputs]`, row-major (convolutions: inputs are channels times kernel; embeddings: V).
    pub a: Vec<f32>,
    /// `[outputs, rank]`, row-major.
    pub b: Vec<f32>,
    /// Rank of the tensors.
    pub rank: usize,
    /// Columns of A.
    pub inputs: usize,
    /// Rows of B.
    pub outputs: usize,
    /// `alpha / rank` or `alpha / sqrt(rank)`.
    pub scaling: f64,
    /// Kind of the layer.
    pub kind: LayerKind,
}

/// A PEFT adapter folder. Opening reads the configuration and the header; tensors are read on demand.
#[derive(Debug)]
pub struct AdapterFolder {
    /// The folder.
    pub path: PathBuf,
    /// `adapter_config.json`.
    pub config: AdapterConfig,
    /// The tensors of the file.
    pub tensors: Checkpoint,
    /// Adapted modules by their name inside the base, sorted.
    pub modules: BTreeMap<String, AdaptedModule>,
    /// Tensors stored whole: name inside the base (`classifier.weight`, `q_proj.bias`, `embed_tokens.weight`) to
    /// name in the file.
    pub whole: BTreeMap<String, String>,
    /// What was ignored or is odd, in full sentences without the file name.
    pub warnings: Vec<String>,
}

/// The part of a module a suffix stands for.
enum Part {
    A,
    B,
    BBias,
    Magnitude,
    Ia3,
    Logits,
}

const SUFFIXES: &[(&str, Part, bool)] = &[
    (".lora_A.weight", Part::A, false),
    (".lora_B.weight", Part::B, false),
    (".lora_B.bias", Part::BBias, false),
    (".lora_embedding_A", Part::A, true),
    (".lora_embedding_B", Part::B, true),
    (".lora_magnitude_vector", Part::Magnitude, false),
    (".lora_magnitude_vector.weight", Part::Magnitude, false),
    (".ia3_l", Part::Ia3, false),
    (".poly_lora_A", Part::A, false),
    (".poly_lora_B", Part::B, false),
    (".poly_router.module_logits", Part::Logits, false),
];

impl AdapterFolder {
    /// Opens a folder that holds `adapter_config.json` and `adapter_model.safetensors` or `adapter_model.bin`
    /// (safetensors wins when both exist).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config_path = path.join("adapter_config.json");
        if !config_path.exists() {
            return Err(Error::format(path, "holds no adapter_config.json")
                .with_hint("an adapter is a PEFT folder: adapter_config.json and adapter_model.safetensors"));
        }
        let config = AdapterConfig::read(&config_path)?;
        let file = ["adapter_model.safetensors", "adapter_model.bin"]
            .iter()
            .map(|name| path.join(name))
            .find(|p| p.exists())
            .ok_or_else(|| {
                Error::format(path, "holds no adapter_model.safetensors").with_hint(
                    "the adapter was saved incompletely; export it again from the training run",
                )
            })?;
        Self::new(path, config, Checkpoint::open(file)?)
    }

    /// Sorts the tensors of an adapter into modules and checks them against the configuration.
    pub fn new(path: &Path, config: AdapterConfig, tensors: Checkpoint) -> Result<Self> {
        let mut modules: BTreeMap<String, AdaptedModule> = BTreeMap::new();
        let mut whole = BTreeMap::new();
        let mut warnings = config.warnings.clone();
        for full in tensors.tensors().keys() {
            let name = full.strip_prefix(PREFIX).unwrap_or(full);
            let part = SUFFIXES
                .iter()
                .find_map(|(s, part, e)| Some((name.strip_suffix(s)?, part, *e)));
            if let Some((module, part, embedding)) = part {
                let entry = modules.entry(module.to_owned()).or_default();
                entry.embedding |= embedding;
                let slot = match part {
                    Part::A => &mut entry.a,
                    Part::B => &mut entry.b,
                    Part::BBias => &mut entry.b_bias,
                    Part::Magnitude => &mut entry.magnitude,
                    Part::Ia3 => &mut entry.ia3,
                    Part::Logits => &mut entry.logits,
                };
                if let Some(earlier) = slot.replace(full.clone()) {
                    return Err(Error::tensor(
                        tensors.origin(),
                        full,
                        format!("means the same as tensor `{earlier}`"),
                    ));
                }
            } else if name.contains(".lora_")
                || name.contains(".token_adapter.")
                || name.contains(".original_module.")
            {
                warnings.push(format!(
                    "tensor `{full}` is not expected here and is ignored"
                ));
            } else {
                let plain = name
                    .replace(".modules_to_save.", ".")
                    .replace(".base_layer.", ".");
                whole.insert(plain, full.clone());
            }
        }
        let folder = Self {
            path: path.to_owned(),
            config,
            tensors,
            modules,
            whole,
            warnings,
        };
        folder.checked()
    }

    fn checked(mut self) -> Result<Self> {
        let file = self.file().to_owned();
        if self.modules.is_empty() && self.whole.is_empty() {
            return Err(Error::format(&file, "holds no tensors of an adapter"));
        }
        let any_magnitude = self.modules.values().any(|m| m.magnitude.is_some());
        if self.config.dora && !any_magnitude {
            let name = file
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            return Err(Error::format(
                &self.config.path,
                format!("`use_dora` is true, but {name} holds no `lora_magnitude_vector` tensors"),
            )
            .with_hint(
                "the adapter was saved incompletely; export it again from the training run",
            ));
        }
        if !self.config.dora && any_magnitude {
            self.warnings.push(
                "`use_dora` is false, so the `lora_magnitude_vector` tensors are ignored".into(),
            );
            for module in self.modules.values_mut() {
                module.magnitude = None;
            }
        }
        let mut notes = Vec::new();
        for (name, module) in &self.modules {
            let lacks = |what: &str, has: &Option<String>| {
                Error::tensor(
                    &file,
                    has.as_deref().unwrap_or(name),
                    format!("has no partner `{name}{what}`"),
                )
                .with_hint(
                    "the adapter was saved incompletely; export it again from the training run",
                )
            };
            if self.config.peft_type == PeftType::Ia3 {
                let Some(l) = &module.ia3 else {
                    return Err(lacks(".ia3_l", &module.a));
                };
                self.stored(l)?;
                continue;
            }
            let (suffix_a, suffix_b) = match (self.config.peft_type, module.embedding) {
                (PeftType::Poly, _) => (".poly_lora_A", ".poly_lora_B"),
                (_, true) => (".lora_embedding_A", ".lora_embedding_B"),
                _ => (".lora_A.weight", ".lora_B.weight"),
            };
            let any = [&module.b, &module.b_bias, &module.magnitude, &module.ia3]
                .into_iter()
                .find(|o| o.is_some())
                .unwrap_or(&None);
            let Some(a) = &module.a else {
                return Err(lacks(suffix_a, any));
            };
            let Some(b) = &module.b else {
                return Err(lacks(suffix_b, &module.a));
            };
            let (a, b) = (self.stored(a)?, self.stored(b)?);
            if self.config.peft_type == PeftType::Poly {
                if module.logits.is_none() {
                    return Err(lacks(".poly_router.module_logits", &module.a));
                }
                continue;
            }
            let rank = a.shape[0];
            // With groups the factors of a convolution are grouped too.
            let grouped = a.shape.len() > 2 && rank % b.shape[1] == 0;
            if (b.shape[1] != rank && !grouped) || b.shape[2..].iter().any(|&k| k != 1) {
                return Err(Error::tensor(
                    &file,
                    &b.name,
                    format!(
                        "has shape {:?}, which does not fit A {:?}",
                        b.shape, a.shape
                    ),
                ));
            }
            let said = self.config.rank_of(name)?;
            if said != rank {
                notes.push(format!(
                    "module `{name}` has rank {rank} in the file but {said} in adapter_config.json; the file is used"
                ));
            }
            if self.config.dora && module.magnitude.is_none() {
                return Err(lacks(".lora_magnitude_vector", &module.a));
            }
        }
        self.warnings.extend(notes);
        Ok(self)
    }

    /// The tensor file, for messages.
    pub fn file(&self) -> &Path {
        self.tensors
            .files()
            .first()
            .map_or(&*self.path, |f| f.path.as_path())
    }

    /// A stored tensor that must not be empty or, except for vectors like `ia3_l`, one-dimensional.
    fn stored(&self, name: &str) -> Result<&StoredTensor> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::tensor(self.file(), name, "is not in the file"));
        };
        if tensor.elements() == 0 || tensor.shape.len() < 2 {
            return Err(Error::tensor(
                self.file(),
                name,
                format!("has shape {:?}, so nothing was saved in it", tensor.shape),
            )
            .with_hint(
                "an unfinished sharded training run saves empty factors; gather the weights and export again",
            ));
        }
        Ok(tensor)
    }

    /// Reads one tensor of the file whole.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::tensor(self.file(), name, "is not in the file"));
        };
        let mut out = vec![0.0; tensor.elements()];
        self.tensors
            .read_f32(tensor, 0..out.len(), &mut out, &mut Scratch::default())?;
        Ok(out)
    }

    /// Reads the factors of a LoRA module; an error for modules that are not one.
    pub fn factors(&self, module: &str) -> Result<Factors> {
        let missing = || Error::tensor(self.file(), module, "is not a LoRA module of this adapter");
        let entry = self.modules.get(module).ok_or_else(missing)?;
        let (Some(a), Some(b), PeftType::Lora) = (&entry.a, &entry.b, self.config.peft_type) else {
            return Err(missing());
        };
        let (stored_a, stored_b) = (self.stored(a)?, self.stored(b)?);
        let kind = if entry.embedding {
            LayerKind::Embedding
        } else if stored_a.shape.len() > 2 {
            LayerKind::Conv(stored_a.shape[1..].to_vec())
        } else {
            LayerKind::Linear
        };
        let rank = stored_a.shape[0];
        let (inputs, outputs) = (stored_a.row_len(), stored_b.shape[0]);
        if stored_b.shape[1] != rank {
            return Err(Error::tensor(
                self.file(),
                b,
                "belongs to a convolution with groups, which has no delta of its own",
            ));
        }
        Ok(Factors {
            a: self.read(a)?,
            b: self.read(b)?,
            rank,
            inputs,
            outputs,
            scaling: self.config.scaling(module, rank)?,
            kind,
        })
    }
}
