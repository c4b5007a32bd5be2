//! Restores one task's model from a bundle. Of masks it is bit for bit what the method with `task = "…"` writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use polyloom_core::checkpoint::{Scratch, read_json};
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};
use polyloom_core::{Checkpoint, DType, dtype};
use rayon::prelude::*;
use serde_json::json;

use super::bundle::{Bundle, FORMATS, TensorRecord};
use super::delta::{DeltaFile, Stored};
use super::mask::{self, Covered, MaskFile};
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
    if !FORMATS.contains(&&*bundle.format) {
        return Err(bad(format!(
            "has format `{}`; this version reads {}",
            bundle.format,
            FORMATS.map(|f| format!("`{f}`")).join(" and ")
        )));
    }
    // Names of tasks become names of files.
    let safe = |id: &str| {
        let mut parts = Path::new(id).components();
        !id.is_empty() && parts.all(|c| matches!(c, std::path::Component::Normal(_)))
    };
    if let Some(task) = bundle.tasks.iter().find(|t| !safe(&t.id)) {
        return Err(bad(format!("its task `{}` is no name", task.id)));
    }
    Ok(bundle)
}

fn open_base(bundle: &Bundle, folder: &Path, moved: Option<&str>) -> Result<Opened> {
    let record = &bundle.base;
    let reference = match moved {
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
    if moved.is_none() && !record.path.exists() {
        return Err(MergeError::plan(
            "no-base",
            format!(
                "its base `{}` is no longer at {}",
                record.reference,
                record.path.display()
            ),
        )
        .at(folder.display().to_string())
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
                folder.display()
            ),
        )
        .at(base.path.display().to_string())
        .hint(format!("the bundle was made with `{}`", record.reference)));
    }
    Ok(base)
}

/// The model of one task of a bundle, tensor by tensor.
pub struct Restorer {
    /// What the bundle says of itself.
    pub bundle: Bundle,
    /// The task, as the bundle lists it.
    pub task: usize,
    base: Opened,
    rounded: Option<DType>,
    outputs: Vec<OutTensor>,
    content: Content,
}

enum Content {
    Masks(Box<Masks>),
    /// The file, and each changed tensor's place in it.
    Deltas(Box<DeltaFile>, Vec<Option<usize>>),
}

/// A shared vector with a task's mask and factor.
struct Masks {
    shared: Checkpoint,
    masks: MaskFile,
    scale: Option<f32>,
}

/// Buffers of a thread.
#[derive(Default)]
pub struct Buffers {
    base: Vec<f32>,
    vector: Vec<f32>,
    bits: Vec<u8>,
    scratch: Scratch,
}

impl Restorer {
    /// Opens a bundle for a task (its id, or the name of its expert). `base` says where the base is now.
    ///
    /// # Errors
    /// A damaged bundle, an unknown task, another base.
    pub fn open(folder: &Path, task: &str, base: Option<&str>) -> Result<Self> {
        let bundle = read_bundle(folder)?;
        let found = bundle.tasks.iter().position(|t| t.id == task);
        let found = found.or_else(|| bundle.tasks.iter().position(|t| t.expert == task));
        let task = found.ok_or_else(|| {
            let names: Vec<&str> = bundle.tasks.iter().map(|t| t.id.as_str()).collect();
            MergeError::plan("unknown-task", format!("has no task `{task}`"))
                .at(folder.display().to_string())
                .hint(format!("the tasks are {}", names.join(", ")))
        })?;
        let base = open_base(&bundle, folder, base)?;
        let outputs = bundle
            .tensors
            .iter()
            .map(|t| planned(t, &base, folder))
            .collect::<Result<Vec<_>>>()?;
        let id = &bundle.tasks[task].id;
        let content = if bundle.is_deltas() {
            let changed: Vec<&TensorRecord> = bundle.tensors.iter().filter(|t| t.masked).collect();
            let file = DeltaFile::open(&folder.join(format!("deltas/{id}.safetensors")), &changed)?;
            let mut next = 0..;
            let places = bundle
                .tensors
                .iter()
                .map(|t| t.masked.then(|| next.next()).flatten());
            Content::Deltas(Box::new(file), places.collect())
        } else {
            let shared = Checkpoint::open(folder.join("shared.safetensors"))?;
            let tensors = bundle.tensors.iter().filter(|t| t.masked);
            for t in tensors.clone() {
                let vector = shared.get(&t.name);
                if vector
                    .is_none_or(|v| v.shape != t.shape || !v.dtype.is_float() || v.dtype.is_block())
                {
                    let what = format!(
                        "shared.safetensors has no tensor `{}` {:?}",
                        t.name, t.shape
                    );
                    return Err(
                        MergeError::plan("bad-bundle", what).at(folder.display().to_string())
                    );
                }
            }
            let tensors = tensors.map(|t| (&*t.name, &*t.shape)).collect();
            let path = folder.join(format!("masks/{id}.safetensors"));
            let masks = MaskFile::open(&path, &Covered::new(&shared, tensors)?)?;
            let scale = masks.scale()?.map(|s| s as f32);
            Content::Masks(Box::new(Masks {
                shared,
                masks,
                scale,
            }))
        };
        Ok(Self {
            rounded: bundle.dtype.as_deref().and_then(DType::from_safetensors),
            task,
            base,
            outputs,
            content,
            bundle,
        })
    }

    /// Tensors of the restored model.
    #[must_use]
    pub fn outputs(&self) -> &[OutTensor] {
        &self.outputs
    }

    /// The base.
    #[must_use]
    pub fn base(&self) -> &Opened {
        &self.base
    }

    /// What is stored of a tensor on its own; nothing where masks restore it, or where it is the base's.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn part(&self, i: usize) -> Result<Option<Stored>> {
        match &self.content {
            Content::Deltas(file, places) => match places[i] {
                Some(at) => file.part(at, &self.bundle.tensors[i]),
                None => Ok(None),
            },
            Content::Masks(_) => Ok(None),
        }
    }

    /// All numbers of a tensor as the restored model has them.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn values(&self, i: usize) -> Result<Vec<f32>> {
        let output = &self.outputs[i];
        let n = output.shape.iter().product();
        let part = self.part(i)?;
        let mut bytes = vec![0u8; output.bytes() as usize];
        self.chunk(i, part.as_ref(), 0, n, &mut Buffers::default(), &mut bytes)?;
        let mut out = vec![0f32; n];
        dtype::widen(output.dtype, &bytes, &mut out);
        Ok(out)
    }

    /// Elements `start..start + n` of a tensor as bytes of its type.
    fn chunk(
        &self,
        i: usize,
        part: Option<&Stored>,
        start: usize,
        n: usize,
        b: &mut Buffers,
        out: &mut [u8],
    ) -> Result<()> {
        let output = &self.outputs[i];
        let record = &self.bundle.tensors[i];
        let size = output.dtype.block().1;
        let same = matches!(self.content, Content::Deltas(..)) && part.is_none();
        let as_stored = self
            .base
            .get(&output.name)
            .is_some_and(|e| e.dtype == output.dtype);
        if !record.masked || (same && as_stored && self.rounded.is_none()) {
            return self
                .base
                .read_bytes(&output.name, (start * size) as u64, out);
        }
        b.base.resize(n, 0.0);
        self.base
            .read(&output.name, start, &mut b.base, &mut b.scratch)?;
        if let Some(dtype) = self.rounded {
            dtype::round_through(&mut b.base, dtype);
        }
        match &self.content {
            Content::Deltas(..) => {
                if let Some(part) = part {
                    part.apply(&output.shape, start, &mut b.base);
                }
                dtype::narrow(&b.base, output.dtype, out);
            }
            Content::Masks(held) => {
                let Masks {
                    shared,
                    masks,
                    scale,
                } = &**held;
                b.vector.resize(n, 0.0);
                let tensor = shared
                    .get(&output.name)
                    .ok_or_else(|| MergeError::Internal(format!("no shared `{}`", output.name)))?;
                shared.read_f32(tensor, start..start + n, &mut b.vector, &mut b.scratch)?;
                masks.read(&output.name, start, n, &mut b.bits)?;
                for (i, (v, base)) in b.vector.iter_mut().zip(&b.base).enumerate() {
                    // The same steps as in the merge: the masked vector first, then the base.
                    let kept = if mask::bit(&b.bits, i) {
                        scale.map_or(*v, |s| s * *v)
                    } else {
                        0.0
                    };
                    *v = kept + *base;
                }
                dtype::narrow(&b.vector, output.dtype, out);
            }
        }
        Ok(())
    }
}

/// Writes the model of one task.
///
/// # Errors
/// A damaged bundle, an unknown task, another base, a full disk; the target is then absent.
pub fn restore(options: &RestoreOptions) -> Result<Report> {
    let restorer = Restorer::open(&options.bundle, &options.task, options.base.as_deref())?;
    let bundle = &restorer.bundle;
    let task = &bundle.tasks[restorer.task];
    let outputs = restorer.outputs();
    let layout = Layout::new(outputs, options.shard_size, "model");
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
    let written = AtomicU64::new(0);
    for i in 0..outputs.len() {
        tensor(&restorer, i, &writer, options, &written)?;
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

/// One tensor of the output, once base and record agree about it.
fn planned(record: &TensorRecord, base: &Opened, bundle: &Path) -> Result<OutTensor> {
    let bad =
        |what: String| Err(MergeError::plan("bad-bundle", what).at(bundle.display().to_string()));
    let Some(dtype) = DType::from_safetensors(&record.dtype)
        .filter(|d| !record.masked || (d.is_float() && !d.is_block()))
    else {
        return bad(format!(
            "tensor `{}` has the type `{}`, which cannot be restored",
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
    Ok(OutTensor {
        name: record.name.clone(),
        dtype,
        shape: record.shape.clone(),
    })
}

fn tensor(
    restorer: &Restorer,
    i: usize,
    writer: &TensorWriter,
    options: &RestoreOptions,
    written: &AtomicU64,
) -> Result<()> {
    /// Elements at once: whole bytes of bits.
    const CHUNK: usize = 1 << 16;
    let output = &restorer.outputs()[i];
    let part = restorer.part(i)?;
    let total: usize = output.shape.iter().product();
    let starts: Vec<usize> = (0..total).step_by(CHUNK).collect();
    starts.par_iter().try_for_each_init(
        Default::default,
        |(buffers, out): &mut (Buffers, Vec<u8>), start| {
            if options.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                return Err(polyloom_core::Error::Interrupted.into());
            }
            let n = CHUNK.min(total - start);
            let size = output.dtype.block().1;
            out.resize(n * size, 0);
            restorer.chunk(i, part.as_ref(), *start, n, buffers, out)?;
            writer.write(i, (start * size) as u64, out)?;
            let sum = written.fetch_add(out.len() as u64, Ordering::Relaxed);
            if let Some(progress) = options.progress {
                progress(sum + out.len() as u64, &output.name);
            }
            Ok(())
        },
    )
}
