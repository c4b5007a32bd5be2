//! Restores one task's model from a mask bundle, bit for bit what its method with `task = "…"` writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use polyloom_core::checkpoint::{Scratch, read_json};
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};
use polyloom_core::{Checkpoint, DType, dtype};
use rayon::prelude::*;
use serde_json::json;

use super::bundle::{Bundle, TensorRecord};
use super::mask::{self, MaskFile};
use crate::error::{MergeError, Result};
use crate::output::companion_files;
use crate::plan::execute::{Hear, Report};
use crate::plan::reference::Places;
use crate::plan::{Opened, companions, open_model};
use crate::recipe::{Dialect, Model, ModelRef};

/// Settings of a restore.
pub struct RestoreOptions<'a> {
    /// The bundle.
    pub bundle: PathBuf,
    /// Task id, or the name of its expert.
    pub task: String,
    /// Where the base is now, if not where it was.
    pub base: Option<String>,
    /// Output folder.
    pub target: PathBuf,
    /// Largest shard in bytes.
    pub shard_size: u64,
    /// Replace an existing folder.
    pub force: bool,
    /// Skip fsync.
    pub no_sync: bool,
    /// Raised to stop.
    pub stop: Option<&'a AtomicBool>,
    /// Hears (bytes written so far, tensor name).
    pub progress: Option<&'a Hear<'a>>,
}

/// Length and header hash of every file of a model.
pub(super) fn file_marks(model: &Opened) -> Vec<(u64, String)> {
    model
        .weights
        .files()
        .iter()
        .map(|f| (f.len, format!("xxh3-64-header:{:016x}", f.header_hash)))
        .collect()
}

fn read_bundle(folder: &Path) -> Result<Bundle> {
    let file = folder.join("polyloom.json");
    let bad = |what: String| {
        MergeError::plan("bad-bundle", what)
            .at(file.display().to_string())
            .hint("a bundle is a folder that `polyloom compress` wrote")
    };
    if !file.exists() {
        return Err(bad("not found".into()));
    }
    let mut document = read_json(&file)?;
    let bundle = document
        .get_mut("bundle")
        .map(serde_json::Value::take)
        .ok_or_else(|| bad("describes no mask bundle".into()))?;
    let bundle: Bundle =
        serde_json::from_value(bundle).map_err(|e| bad(format!("the bundle's record: {e}")))?;
    if bundle.format != "mask-bundle/1" {
        return Err(bad(format!(
            "has format `{}`; this version reads `mask-bundle/1`",
            bundle.format
        )));
    }
    Ok(bundle)
}

fn open_base(bundle: &Bundle, options: &RestoreOptions) -> Result<Opened> {
    let record = &bundle.base;
    let reference = match &options.base {
        Some(text) => ModelRef::parse(text).map_err(|e| MergeError::plan("bad-reference", e))?,
        None => ModelRef {
            path: record.path.display().to_string(),
            revision: None,
            adapter: record
                .adapter
                .as_ref()
                .map(|a| (a.display().to_string(), None)),
        },
    };
    if options.base.is_none() && !record.path.exists() {
        return Err(MergeError::plan(
            "no-base",
            format!(
                "its base `{}` is no longer at {}",
                record.reference,
                record.path.display()
            ),
        )
        .at(options.bundle.display().to_string())
        .hint("say where it is: --base PATH"));
    }
    let model = Model {
        name: "base".into(),
        reference,
        task: None,
        strip_prefix: record.strip_prefix.clone(),
        add_prefix: record.add_prefix.clone(),
        stats: None,
    };
    let base = open_model(model, Dialect::Loom, &Places::default())?;
    if file_marks(&base) != record.files {
        return Err(MergeError::plan(
            "other-base",
            format!(
                "is not the base of {}: its files have other lengths or headers",
                options.bundle.display()
            ),
        )
        .at(base.path.display().to_string())
        .hint(format!("the bundle was made with `{}`", record.reference)));
    }
    Ok(base)
}

/// Writes the model of one task.
///
/// # Errors
/// A damaged bundle, an unknown task, another base, a full disk; the target is then absent.
pub fn restore(options: &RestoreOptions) -> Result<Report> {
    let bundle = read_bundle(&options.bundle)?;
    let task = bundle
        .tasks
        .iter()
        .find(|t| t.id == options.task || t.expert == options.task)
        .ok_or_else(|| {
            let names: Vec<&str> = bundle.tasks.iter().map(|t| t.id.as_str()).collect();
            MergeError::plan("unknown-task", format!("has no task `{}`", options.task))
                .at(options.bundle.display().to_string())
                .hint(format!("the tasks are {}", names.join(", ")))
        })?;
    let base = open_base(&bundle, options)?;
    let shared = Checkpoint::open(options.bundle.join("shared.safetensors"))?;
    let masks = MaskFile::open(
        &options
            .bundle
            .join(format!("masks/{}.safetensors", task.id)),
    )?;
    let outputs = bundle
        .tensors
        .iter()
        .map(|t| planned(t, &base, &shared, &masks, &options.bundle))
        .collect::<Result<Vec<_>>>()?;
    let layout = Layout::new(&outputs, options.shard_size, "model");
    let folder = OutputFolder::create(
        &options.target,
        FolderOptions {
            force: options.force,
            no_sync: options.no_sync,
            resume: false,
            fingerprint: String::new(),
            bytes: layout.total() + (16 << 20),
        },
    )?;
    let writer = TensorWriter::create(&folder, &layout)?;
    let job = Restoring {
        bundle: &bundle,
        base: &base,
        shared: &shared,
        scale: masks.scale()?.map(|s| s as f32),
        masks: &masks,
        rounded: bundle.dtype.as_deref().and_then(DType::from_safetensors),
        writer: &writer,
        options,
        written: AtomicU64::new(0),
    };
    for (i, output) in outputs.iter().enumerate() {
        job.tensor(i, output)?;
    }
    writer.close()?;
    if let Some((name, text)) = &layout.index {
        folder.write_file(name, text)?;
    }
    for file in companion_files(&options.bundle)? {
        folder.copy_file(&options.bundle.join(&file), &file)?;
    }
    for file in [
        "config.json".to_owned(),
        format!("heads/{}.safetensors", task.id),
    ] {
        let from = options.bundle.join(&file);
        if from.exists() {
            folder.copy_file(&from, &file)?;
        }
    }
    companions::write_json(
        &folder,
        "polyloom.json",
        &json!({
            "polyloom": env!("CARGO_PKG_VERSION"),
            "kind": "restored",
            "task": task.id,
            "method": bundle.method,
            "bundle": options.bundle.display().to_string(),
            "base": bundle.base,
        }),
    )?;
    let synced = folder.synced();
    Ok(Report {
        output: folder.commit()?,
        tensors: outputs.len(),
        bytes: layout.total(),
        files: layout.shards.iter().map(|s| s.name.clone()).collect(),
        synced,
        overflow: Vec::new(),
        notes: Vec::new(),
    })
}

/// One tensor of the output, once base, shared vector and mask agree about it.
fn planned(
    record: &TensorRecord,
    base: &Opened,
    shared: &Checkpoint,
    masks: &MaskFile,
    bundle: &Path,
) -> Result<OutTensor> {
    let bad =
        |what: String| Err(MergeError::plan("bad-bundle", what).at(bundle.display().to_string()));
    let Some(dtype) = DType::from_safetensors(&record.dtype) else {
        return bad(format!(
            "tensor `{}` has the unknown type `{}`",
            record.name, record.dtype
        ));
    };
    let Some(entry) = base.get(&record.name) else {
        return bad(format!("the base lacks tensor `{}`", record.name));
    };
    if entry.shape != record.shape || (!record.masked && entry.dtype != dtype) {
        return bad(format!(
            "the base's tensor `{}` has another shape or type",
            record.name
        ));
    }
    if record.masked {
        let vector = shared.get(&record.name);
        if vector.is_none_or(|t| t.shape != record.shape || t.dtype != DType::F32) {
            return bad(format!(
                "shared.safetensors has no f32 tensor `{}` {:?}",
                record.name, record.shape
            ));
        }
        if masks.shape(&record.name) != Some(&record.shape) {
            return bad(format!("the mask of `{}` is missing", record.name));
        }
    }
    Ok(OutTensor {
        name: record.name.clone(),
        dtype,
        shape: record.shape.clone(),
    })
}

struct Restoring<'a> {
    bundle: &'a Bundle,
    base: &'a Opened,
    shared: &'a Checkpoint,
    masks: &'a MaskFile,
    scale: Option<f32>,
    rounded: Option<DType>,
    writer: &'a TensorWriter,
    options: &'a RestoreOptions<'a>,
    written: AtomicU64,
}

#[derive(Default)]
struct Buffers {
    base: Vec<f32>,
    vector: Vec<f32>,
    bits: Vec<u8>,
    out: Vec<u8>,
    scratch: Scratch,
}

impl Restoring<'_> {
    fn tensor(&self, i: usize, output: &OutTensor) -> Result<()> {
        /// Elements at once: whole bytes of bits.
        const CHUNK: usize = 1 << 16;
        let total: usize = output.shape.iter().product();
        let starts: Vec<usize> = (0..total).step_by(CHUNK).collect();
        starts
            .par_iter()
            .try_for_each_init(Buffers::default, |buffers, start| {
                if self.options.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                    return Err(polyloom_core::Error::Interrupted.into());
                }
                let n = CHUNK.min(total - start);
                let size = output.dtype.block().1;
                buffers.out.resize(n * size, 0);
                if self.bundle.tensors[i].masked {
                    self.chunk(output, *start, n, buffers)?;
                } else {
                    self.base
                        .read_bytes(&output.name, (start * size) as u64, &mut buffers.out)?;
                }
                self.writer.write(i, (start * size) as u64, &buffers.out)?;
                let sum = self
                    .written
                    .fetch_add(buffers.out.len() as u64, Ordering::Relaxed);
                if let Some(progress) = self.options.progress {
                    progress(sum + buffers.out.len() as u64, &output.name);
                }
                Ok(())
            })
    }

    fn chunk(&self, output: &OutTensor, start: usize, n: usize, b: &mut Buffers) -> Result<()> {
        b.base.resize(n, 0.0);
        b.vector.resize(n, 0.0);
        self.base
            .read(&output.name, start, &mut b.base, &mut b.scratch)?;
        if let Some(dtype) = self.rounded {
            dtype::round_through(&mut b.base, dtype);
        }
        let tensor = self
            .shared
            .get(&output.name)
            .ok_or_else(|| MergeError::Internal(format!("no shared `{}`", output.name)))?;
        self.shared
            .read_f32(tensor, start..start + n, &mut b.vector, &mut b.scratch)?;
        self.masks.read(&output.name, start, n, &mut b.bits)?;
        for (i, (v, base)) in b.vector.iter_mut().zip(&b.base).enumerate() {
            // The same steps as in the merge: the masked vector first, then the base.
            let kept = if mask::bit(&b.bits, i) {
                self.scale.map_or(*v, |s| s * *v)
            } else {
                0.0
            };
            *v = kept + *base;
        }
        dtype::narrow(&b.vector, output.dtype, &mut b.out);
        Ok(())
    }
}
