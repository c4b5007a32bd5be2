//! An adapter in memory, ready to be written.

use std::path::{Path, PathBuf};

use polyloom_core::DType;
use polyloom_core::linalg::Matrix;
use polyloom_core::peft::config::lora_defaults;
use polyloom_core::peft::{AdapterTensor, Factors, LayerKind, Names, PREFIX, write_adapter};
use polyloom_core::writer::FolderOptions;
use serde_json::{Map, Value, json};

use crate::error::Result;

/// The two factors of one module; its delta is `b a` (scaling 1 unless an operation says otherwise).
#[derive(Debug, Clone)]
pub struct Pair {
    /// `[rank, inputs]`.
    pub a: Matrix,
    /// `[outputs, rank]`.
    pub b: Matrix,
    /// Kind of the layer, for names and shapes on disk.
    pub kind: LayerKind,
}

impl Pair {
    /// The factors as stored; the scaling is the caller's.
    pub fn from_factors(f: &Factors) -> Self {
        Self {
            a: Matrix::from_f32(f.rank, f.inputs, &f.a),
            b: Matrix::from_f32(f.outputs, f.rank, &f.b),
            kind: f.kind.clone(),
        }
    }

    /// Rank.
    pub fn rank(&self) -> usize {
        self.a.rows
    }

    /// Widened to `rank` with zero rows of A and zero columns of B.
    #[must_use]
    pub fn padded(mut self, rank: usize) -> Self {
        let old = self.rank();
        if old >= rank {
            return self;
        }
        self.a.data.resize(rank * self.a.cols, 0.0);
        self.a.rows = rank;
        let mut b = Matrix::zeros(self.b.rows, rank);
        if old > 0 {
            for (to, from) in b
                .data
                .chunks_exact_mut(rank)
                .zip(self.b.data.chunks_exact(old))
            {
                to[..old].copy_from_slice(from);
            }
        }
        self.b = b;
        self
    }

    fn tensors(&self, module: &str, dtype: DType) -> [AdapterTensor; 2] {
        let (a, b) = match self.kind {
            LayerKind::Embedding => ("lora_embedding_A", "lora_embedding_B"),
            _ => ("lora_A.weight", "lora_B.weight"),
        };
        let (mut shape_a, mut shape_b) = (
            vec![self.rank(), self.a.cols],
            vec![self.b.rows, self.rank()],
        );
        if let LayerKind::Conv(dims) = &self.kind {
            shape_a = [&[self.rank()], dims.as_slice()].concat();
            shape_b.resize(shape_a.len(), 1);
        }
        [(a, shape_a, self.a.to_f32()), (b, shape_b, self.b.to_f32())].map(
            |(suffix, shape, values)| AdapterTensor {
                name: format!("{PREFIX}{module}.{suffix}"),
                dtype,
                shape,
                values,
            },
        )
    }
}

/// What an operation did to one module.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleReport {
    /// The module.
    pub module: String,
    /// Rank of the result.
    pub rank: usize,
    /// Norm of what truncation lost over the norm of what it was given; `None` where nothing was truncated.
    pub relative_error: Option<f64>,
}

/// A LoRA adapter in memory.
#[derive(Debug, Clone)]
pub struct AdapterSet {
    /// `adapter_config.json`, every key PEFT knows.
    pub config: Map<String, Value>,
    /// Factors by module name, in name order.
    pub modules: Vec<(String, Pair, DType)>,
    /// Tensors stored whole, with full names.
    pub whole: Vec<AdapterTensor>,
    /// What happened, per module.
    pub report: Vec<ModuleReport>,
    /// What is odd about the inputs.
    pub warnings: Vec<String>,
}

impl AdapterSet {
    /// A set whose factors already hold their scaling: alpha equals rank everywhere. `r` is the rank of the
    /// configuration; modules of another rank go to `rank_pattern` and `alpha_pattern`.
    pub fn unscaled(
        kept: &Map<String, Value>,
        targets: &Names,
        r: usize,
        modules: Vec<(String, Pair, DType)>,
    ) -> Self {
        let mut config = lora_defaults();
        for key in [
            "task_type",
            "auto_mapping",
            "base_model_name_or_path",
            "revision",
            "fan_in_fan_out",
            "modules_to_save",
            "lora_dropout",
        ] {
            if let Some(value) = kept.get(key) {
                config.insert(key.to_owned(), value.clone());
            }
        }
        config.insert("inference_mode".into(), json!(true));
        config.insert("target_modules".into(), targets.to_json());
        config.insert("r".into(), json!(r));
        config.insert("lora_alpha".into(), json!(r));
        let pattern: Map<String, Value> = modules
            .iter()
            .filter(|(_, pair, _)| pair.rank() != r)
            .map(|(name, pair, _)| (name.clone(), json!(pair.rank())))
            .collect();
        config.insert("alpha_pattern".into(), json!(pattern));
        config.insert("rank_pattern".into(), json!(pattern));
        Self {
            config,
            modules,
            whole: Vec::new(),
            report: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The tensors as they will lie on disk.
    pub fn tensors(&self) -> Vec<AdapterTensor> {
        let mut out: Vec<AdapterTensor> = self
            .modules
            .iter()
            .flat_map(|(name, pair, dtype)| pair.tensors(name, *dtype))
            .chain(self.whole.iter().cloned())
            .collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out
    }

    /// Writes a PEFT folder, all at once. `summary` is the text of the model card.
    pub fn write(&self, target: &Path, summary: &str, options: FolderOptions) -> Result<PathBuf> {
        let base = self.config["base_model_name_or_path"]
            .as_str()
            .map_or(String::new(), |b| format!("base_model: {b}\n"));
        let card = format!("---\n{base}library_name: peft\n---\n\n{summary}\n");
        Ok(write_adapter(
            target,
            &self.config,
            &self.tensors(),
            &card,
            options,
        )?)
    }
}
