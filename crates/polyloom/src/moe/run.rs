//! Planning and streaming the assembly.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::dtype::narrow;
use polyloom_core::rng::Stream;
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};
use polyloom_core::{Checkpoint, DType};

use crate::error::{MergeError, Result};
use crate::output::{self, card};

use super::gates::{self, Forward};
use super::{Architecture, Expert, GateMode, MoeRecipe};

/// Elements read and written at a time, per thread.
const CHUNK: usize = 1 << 18;
const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Where an output tensor comes from.
#[derive(Debug, Clone, PartialEq)]
enum From {
    /// A tensor of the base.
    Base(String),
    /// A tensor of an input (`experts`, then `shared`), with noise and scale.
    Expert {
        input: usize,
        name: String,
        noise: Option<f32>,
        scale: Option<f32>,
    },
    /// Zeros (attention biases that the dense model lacks).
    Zeros,
    /// Router rows of the inputs from this number on, at this layer.
    Gate(usize, usize),
}

/// Everything the run will do; no tensor was read except what router rows are made from.
#[derive(Debug)]
pub struct MoePlan<'a> {
    /// Output architecture.
    pub architecture: Architecture,
    /// config.json of the output.
    pub config: Value,
    /// Output tensors in order.
    pub tensors: Vec<OutTensor>,
    /// Things to tell the user.
    pub warnings: Vec<String>,
    recipe: &'a MoeRecipe,
    base: &'a Checkpoint,
    inputs: Vec<&'a Checkpoint>,
    from: Vec<From>,
    /// Router rows per input; empty for the random modes.
    gates: Vec<gates::Rows>,
    hidden: usize,
}

impl MoePlan<'_> {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(OutTensor::bytes).sum()
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Output folder.
    pub output: PathBuf,
    /// Bytes per file.
    pub shard_size: u64,
    /// Seed of noise and random routers.
    pub seed: u64,
    /// Replace an existing folder.
    pub force: bool,
    /// Skip fsync.
    pub no_sync: bool,
    /// Go on when an input has NaN or infinity.
    pub allow_nonfinite: bool,
}

/// Checks all headers and computes the router rows. `experts` and `shared` are the opened checkpoints of the recipe's
/// lists, in order; `forward` runs the base where router rows come from its hidden states.
pub fn plan<'a>(
    recipe: &'a MoeRecipe,
    base: &'a Checkpoint,
    experts: &[&'a Checkpoint],
    shared: &[&'a Checkpoint],
    forward: Option<Forward<'_>>,
) -> Result<MoePlan<'a>> {
    let specs: Vec<&Expert> = recipe.experts.iter().chain(&recipe.shared).collect();
    let inputs: Vec<&Checkpoint> = experts.iter().chain(shared).copied().collect();
    if inputs.len() != specs.len() || experts.len() != recipe.experts.len() {
        return Err(MergeError::Internal(
            "experts and checkpoints differ in number".into(),
        ));
    }
    if let Some(reference) = specs
        .iter()
        .map(|e| &e.model)
        .chain([&recipe.base])
        .find(|m| m.adapter.is_some())
    {
        return Err(MergeError::plan(
            "moe-adapter",
            format!("`{reference}` is a model with an adapter; assembly reads whole models"),
        )
        .hint("fold the adapter in first: polyloom adapt fold"));
    }
    let config = config_of(base)?;
    let model_type = config
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    for input in &inputs {
        let other = config_of(input)?;
        let other = other
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        if other != model_type {
            return Err(MergeError::plan(
                "moe-architecture",
                format!("is of type `{other}`, the base of type `{model_type}`"),
            )
            .at(input.origin().display().to_string())
            .hint("all models of a mixture must have the base's architecture"));
        }
    }
    let architecture = Architecture::choose(recipe, model_type)?;
    let number = |key: &str| {
        config
            .get(key)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| {
                MergeError::plan("bad-config", format!("config.json has no `{key}`"))
                    .at(base.origin().display().to_string())
            })
    };
    let (layers, hidden) = (number("num_hidden_layers")?, number("hidden_size")?);
    let dtype = match recipe.dtype {
        Some(dtype) => dtype,
        None => default_dtype(base, config),
    };

    let mut out = Builder {
        architecture,
        dtype,
        tensors: Vec::new(),
        from: Vec::new(),
    };
    out.base_tensors(base)?;
    for layer in 0..layers {
        let gate = architecture.gate_name(layer);
        out.push(
            gate,
            vec![recipe.experts.len(), hidden],
            From::Gate(0, layer),
        );
        if let Some(name) = architecture.shared_gate_name(layer) {
            out.push(name, vec![1, hidden], From::Gate(experts.len(), layer));
        }
        for projection in PROJECTIONS {
            let source = format!("model.layers.{layer}.mlp.{projection}.weight");
            let shape = shape_of(base, &source)?;
            for (i, (input, spec)) in inputs.iter().zip(&specs).enumerate() {
                let found = shape_of(input, &source)?;
                if found != shape {
                    return Err(MergeError::plan(
                        "shape-mismatch",
                        format!("tensor `{source}` is {found:?}, in the base {shape:?}"),
                    )
                    .at(input.origin().display().to_string())
                    .hint("experts must have the base's hidden and intermediate sizes"));
                }
                let name = if i < experts.len() {
                    architecture.expert_name(layer, i, projection)
                } else {
                    architecture.shared_name(layer, projection)
                };
                let from = From::Expert {
                    input: i,
                    name: source.clone(),
                    noise: spec.noise_scale,
                    scale: spec.residual_scale.filter(|_| projection == "down_proj"),
                };
                out.push(name, shape.clone(), from);
            }
        }
    }
    let mut warnings = recipe.warnings.clone();
    let sizes = (layers, hidden);
    let gates = gates::rows(recipe, base, &specs, sizes, forward, &mut warnings)?;
    let config = architecture.config(config, recipe, dtype.torch_name(), &mut warnings);
    Ok(MoePlan {
        architecture,
        config,
        tensors: out.tensors,
        warnings,
        recipe,
        base,
        inputs,
        from: out.from,
        gates,
        hidden,
    })
}

struct Builder {
    architecture: Architecture,
    dtype: DType,
    tensors: Vec<OutTensor>,
    from: Vec<From>,
}

impl Builder {
    fn push(&mut self, name: String, shape: Vec<usize>, from: From) {
        self.tensors.push(OutTensor {
            name,
            dtype: self.dtype,
            shape,
        });
        self.from.push(from);
    }

    /// Everything of the base outside its MLPs.
    fn base_tensors(&mut self, base: &Checkpoint) -> Result<()> {
        let refuse = |name: &str, why: String| {
            Err(
                MergeError::plan("moe-architecture", format!("tensor `{name}`: {why}"))
                    .at(base.origin().display().to_string()),
            )
        };
        for (name, tensor) in base.tensors() {
            if name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            if !tensor.dtype.is_float() {
                return refuse(name, format!("is of type {}", tensor.dtype.name()));
            }
            if name.contains(".mlp.") {
                if !PROJECTIONS
                    .iter()
                    .any(|p| name.ends_with(&format!(".mlp.{p}.weight")))
                {
                    return refuse(name, "experts have no such tensor".into());
                }
                continue;
            }
            let output_bias = name.ends_with("o_proj.bias");
            let bias = name.ends_with("_proj.bias");
            let fits = match self.architecture {
                Architecture::Mixtral | Architecture::Deepseek => !bias,
                Architecture::Qwen2 => !output_bias,
                Architecture::Qwen3 => true,
            };
            if !fits {
                return refuse(
                    name,
                    format!("{} has no such bias", self.architecture.name()),
                );
            }
            self.push(name.clone(), tensor.shape.clone(), From::Base(name.clone()));
            // Qwen2's attention always has biases on q, k and v.
            if self.architecture == Architecture::Qwen2
                && let Some(stem) = ["q_proj", "k_proj", "v_proj"].iter().find_map(|p| {
                    name.ends_with(&format!(".{p}.weight"))
                        .then(|| name.trim_end_matches("weight"))
                })
                && base.get(&format!("{stem}bias")).is_none()
            {
                let rows = tensor.shape.first().copied().unwrap_or(0);
                self.push(format!("{stem}bias"), vec![rows], From::Zeros);
            }
        }
        Ok(())
    }
}

fn config_of(model: &Checkpoint) -> Result<&serde_json::Map<String, Value>> {
    model.config().and_then(Value::as_object).ok_or_else(|| {
        MergeError::plan("bad-config", "has no config.json")
            .at(model.origin().display().to_string())
            .hint("experts are folders with config.json and safetensors files")
    })
}

fn default_dtype(base: &Checkpoint, config: &serde_json::Map<String, Value>) -> DType {
    ["dtype", "torch_dtype"]
        .iter()
        .find_map(|key| DType::from_word(config.get(*key)?.as_str()?))
        .or_else(|| base.get("model.embed_tokens.weight").map(|t| t.dtype))
        .filter(|d| d.is_float() && !d.is_block())
        .unwrap_or(DType::F32)
}

fn shape_of(model: &Checkpoint, name: &str) -> Result<Vec<usize>> {
    model.get(name).map(|t| t.shape.clone()).ok_or_else(|| {
        MergeError::plan("missing-tensor", format!("has no tensor `{name}`"))
            .at(model.origin().display().to_string())
    })
}

/// Writes the model; returns the folder.
pub fn run(plan: &MoePlan<'_>, options: &RunOptions) -> Result<PathBuf> {
    let layout = Layout::new(&plan.tensors, options.shard_size, "model");
    let folder = OutputFolder::create(
        &options.output,
        FolderOptions {
            force: options.force,
            no_sync: options.no_sync,
            bytes: layout.total(),
            ..FolderOptions::default()
        },
    )?;
    let writer = TensorWriter::create(&folder, &layout)?;
    (0..plan.tensors.len())
        .into_par_iter()
        .try_for_each(|i| write_tensor(plan, options, &writer, i))?;
    writer.close()?;
    if let Some((name, text)) = &layout.index {
        folder.write_file(name, text)?;
    }
    let json =
        serde_json::to_vec_pretty(&plan.config).map_err(|e| MergeError::Internal(e.to_string()))?;
    folder.write_file("config.json", &json)?;
    let from = plan.base.origin();
    if from.is_dir() {
        for file in output::companion_files(from)? {
            folder.copy_file(&from.join(&file), &file)?;
        }
    }
    folder.write_file("mergekit_moe_config.yml", plan.recipe.text.as_bytes())?;
    folder.write_file(
        "README.md",
        card::render(&card_of(plan, &options.output)).as_bytes(),
    )?;
    Ok(folder.commit()?)
}

fn card_of(plan: &MoePlan<'_>, output: &Path) -> card::CardInfo {
    card::CardInfo {
        title: output
            .file_name()
            .map_or(String::new(), |n| n.to_string_lossy().into_owned()),
        summary: format!(
            "A mixture of {} experts ({}), assembled from dense models.",
            plan.recipe.experts.len(),
            plan.architecture.name()
        ),
        method: "moe".into(),
        base: Some(plan.recipe.base.to_string()),
        models: plan
            .recipe
            .experts
            .iter()
            .chain(&plan.recipe.shared)
            .map(|e| e.model.to_string())
            .collect(),
        recipe: Some(("yaml".into(), plan.recipe.text.clone())),
        versions: vec![("polyloom".into(), env!("CARGO_PKG_VERSION").into())],
        ..card::CardInfo::default()
    }
}

fn write_tensor(
    plan: &MoePlan<'_>,
    options: &RunOptions,
    writer: &TensorWriter,
    i: usize,
) -> Result<()> {
    let out = &plan.tensors[i];
    let (_, size) = out.dtype.block();
    let total: usize = out.shape.iter().product();
    let mut values = vec![0.0f32; CHUNK.min(total)];
    let mut bytes = vec![0u8; values.len() * size];
    let mut scratch = Scratch::default();
    let mut at = 0;
    while at < total {
        let n = CHUNK.min(total - at);
        let values = &mut values[..n];
        let read = |model: &Checkpoint,
                    name: &str,
                    values: &mut [f32],
                    scratch: &mut Scratch|
         -> Result<()> {
            let tensor = model
                .get(name)
                .ok_or_else(|| MergeError::Internal(format!("`{name}` vanished")))?;
            model.read_f32(tensor, at..at + n, values, scratch)?;
            if !options.allow_nonfinite
                && let Some(bad) = values.iter().position(|v| !v.is_finite())
            {
                return Err(MergeError::NonFinite {
                    file: model.path_of(tensor).display().to_string(),
                    tensor: name.to_owned(),
                    what: if values[bad].is_nan() {
                        "NaN"
                    } else {
                        "infinity"
                    },
                    index: at + bad,
                });
            }
            Ok(())
        };
        match &plan.from[i] {
            From::Base(name) => read(plan.base, name, values, &mut scratch)?,
            From::Expert {
                input,
                name,
                noise,
                scale,
            } => {
                read(plan.inputs[*input], name, values, &mut scratch)?;
                if let Some(noise) = noise {
                    let stream = Stream::new(options.seed, &out.name, *input as u64);
                    for (k, v) in values.iter_mut().enumerate() {
                        *v += noise * stream.normal((at + k) as u64);
                    }
                }
                if let Some(scale) = scale {
                    values.iter_mut().for_each(|v| *v *= scale);
                }
            }
            From::Zeros => values.fill(0.0),
            From::Gate(first, layer) => {
                gate_values(
                    plan,
                    (options.seed, &out.name),
                    (*first, *layer),
                    at,
                    values,
                );
            }
        }
        narrow(values, out.dtype, &mut bytes[..n * size]);
        writer.write(i, (at * size) as u64, &bytes[..n * size])?;
        at += n;
    }
    Ok(())
}

/// Elements from `at` on of the router matrix of a layer whose first row belongs to input `first`.
fn gate_values(
    plan: &MoePlan<'_>,
    (seed, name): (u64, &str),
    (first, layer): (usize, usize),
    at: usize,
    out: &mut [f32],
) {
    let bound = 1.0 / (plan.hidden as f32).sqrt();
    for (k, value) in out.iter_mut().enumerate() {
        let (row, col) = ((at + k) / plan.hidden, (at + k) % plan.hidden);
        let stream = Stream::new(seed, name, (first + row) as u64);
        *value = match plan.recipe.gate_mode {
            GateMode::Random => stream.normal(col as u64),
            GateMode::UniformRandom => (2.0 * stream.uniform(col as u64) - 1.0) * bound,
            _ => {
                let rows = &plan.gates[first + row];
                rows[layer.min(rows.len() - 1)][col]
            }
        };
    }
}
