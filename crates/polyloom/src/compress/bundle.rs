//! Writes a mask bundle: `shared.safetensors`, `masks/<task>.safetensors`, heads, config, tokenizer, provenance.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use polyloom_core::dtype;
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};
use polyloom_core::{Checkpoint, DType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::mask::{self, Coding, Covered, MaskFile};
use crate::error::{MergeError, Result};
use crate::merge::method::{Job, Kernel, Part, Scope};
use crate::merge::run::{self, Options, Sink};
use crate::plan::execute::{PlanFeed, Report, RunOptions};
use crate::plan::{How, Plan, companions, provenance};

/// Methods that split into a shared vector and one mask per task.
pub const METHODS: [&str; 3] = ["tall", "emr", "magnitude_mask"];

/// Formats of a bundle that are read: that of masks alone, and that of coded masks and of deltas.
pub const FORMATS: [&str; 2] = ["mask-bundle/1", "bundle/2"];

/// A file that lies beside the deltas: its name in the bundle and its bytes.
pub type Extra = (String, Vec<u8>);

/// What a bundle says of itself, in `polyloom.json` under `bundle`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// Its format, with the version.
    pub format: String,
    /// The method that restores.
    pub method: String,
    /// The base.
    pub base: BaseRecord,
    /// Inputs are rounded to this type first, if any.
    pub dtype: Option<String>,
    /// Tensors of a restored model, in output order.
    pub tensors: Vec<TensorRecord>,
    /// The tasks.
    pub tasks: Vec<TaskRecord>,
    /// What it costs.
    pub accounting: Accounting,
}

impl Bundle {
    /// Whether every task has a delta of its own; else they share a vector.
    #[must_use]
    pub fn is_deltas(&self) -> bool {
        !METHODS.contains(&&*self.method)
    }
}

/// The base that a bundle's vectors are added to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaseRecord {
    /// As named in the recipe.
    pub reference: String,
    /// Where it was found.
    pub path: PathBuf,
    /// Adapter folded into it, where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Name mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Name mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// Length and header hash of each of its files: another base is refused.
    pub files: Vec<(u64, String)>,
}

/// One tensor of a restored model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TensorRecord {
    /// Name.
    pub name: String,
    /// Type on disk.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// True if the shared vector and the mask change it; else the base's bytes are copied.
    pub masked: bool,
}

/// One task of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Task id: names mask and head.
    pub id: String,
    /// Name of the expert in the recipe.
    pub expert: String,
}

/// Bytes of a bundle beside what it replaces.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
pub struct Accounting {
    /// The shared vector.
    pub shared: u64,
    /// All masks.
    pub masks: u64,
    /// Deltas of tasks on their own.
    #[serde(default)]
    pub deltas: u64,
    /// What coding made of the masks.
    #[serde(default)]
    pub coding: Coding,
    /// The experts' checkpoints.
    pub experts: u64,
    /// The base's checkpoint.
    pub base: u64,
}

impl Accounting {
    /// Bytes of the bundle's tensors.
    pub fn stored(&self) -> u64 {
        self.shared + self.masks + self.deltas
    }

    /// Share of the experts' bytes that the deltas take (the base on neither side).
    pub fn deltas_only(&self) -> f64 {
        self.stored() as f64 / self.experts.max(1) as f64
    }

    /// The same with the base counted on both sides.
    pub fn with_base(&self) -> f64 {
        (self.stored() + self.base) as f64 / (self.experts + self.base).max(1) as f64
    }
}

/// What makes a plan a bundle: refuses what a restored model could not reproduce.
fn check(plan: &Plan) -> Result<usize> {
    if !METHODS.contains(&plan.recipe.method.as_str()) {
        let what = format!(
            "merge method `{}` has no masks to store",
            plan.recipe.method
        );
        return Err(
            MergeError::plan("no-masks", what).hint("choose --method tall, emr or magnitude_mask")
        );
    }
    restorable(plan)
}

/// The base of a plan that can be restored from it; refuses what a restored model could not reproduce.
pub(super) fn restorable(plan: &Plan) -> Result<usize> {
    let refuse = |code, what: String, hint: &str| Err(MergeError::plan(code, what).hint(hint));
    let base = plan
        .recipe
        .base
        .ok_or_else(|| MergeError::Internal("a bundle without base".into()))?;
    if !plan.recipe.post.is_empty() {
        return refuse(
            "post-in-bundle",
            "post-steps act on one task's vector, a bundle holds the vector of all".into(),
            "leave `[[merge.post]]` out, or change the shared vector through `on`",
        );
    }
    if plan.vocabulary.is_some() || plan.truncated.is_some() || plan.stacked.is_some() {
        return refuse(
            "vocabulary-in-bundle",
            "a bundle is restored onto the base, so vocabulary and layers must stay the base's"
                .into(),
            "leave tokenizer and slices out of this recipe",
        );
    }
    if plan
        .groups
        .iter()
        .any(|g| g.base != Some(base) || g.experts.len() != plan.groups[0].experts.len())
        || (plan.groups.len() > 1
            && plan
                .groups
                .iter()
                .any(|g| g.composition.scope() == Scope::Model))
    {
        return refuse(
            "several-groups",
            "a bundle holds one merge of the same experts over the whole model".into(),
            "leave slices and modules out of this recipe",
        );
    }
    for output in &plan.outputs {
        if let How::Copy(input) = &output.how
            && input.model != base
        {
            return refuse(
                "not-in-base",
                format!(
                    "tensor `{}` is not in the base, so it cannot be restored from it",
                    output.tensor.name
                ),
                "use --intersection, or --heads separate for classification heads",
            );
        }
    }
    Ok(base)
}

/// What the bundle of a plan will take, known from headers alone.
///
/// # Errors
/// As [`write()`]: another method, or something that cannot be restored from the base.
pub fn accounting(plan: &Plan) -> Result<Accounting> {
    let base = check(plan)?;
    let experts: &[usize] = plan.groups.first().map_or(&[], |g| &g.experts);
    let elements: Vec<usize> = plan
        .groups
        .iter()
        .flat_map(|g| &g.members)
        .map(|m| m.job.elements())
        .collect();
    let bits: usize = elements.iter().map(|n| mask::bytes_of(*n)).sum();
    Ok(Accounting {
        shared: (elements.iter().sum::<usize>() * store(plan).block().1) as u64,
        masks: (bits * experts.len()) as u64,
        deltas: 0,
        coding: Coding::default(),
        experts: experts.iter().map(|e| length(plan, *e)).sum(),
        base: length(plan, base),
    })
}

/// Bytes of the files of a model.
pub(super) fn length(plan: &Plan, model: usize) -> u64 {
    let files = plan.models[model].weights.files();
    files.iter().map(|f| f.len).sum()
}

/// The type that the shared vector is kept in.
fn store(plan: &Plan) -> DType {
    let first = plan.groups.first().and_then(|g| g.members.first());
    let word = first.map_or("", |m| m.job.shared.word("store"));
    DType::from_word(word).unwrap_or(DType::F32)
}

/// Runs a plan of one of [`METHODS`] and writes its bundle.
///
/// # Errors
/// Another method, something that cannot be restored from the base, or what a merge can fail with; the target is then
/// absent.
pub fn write(plan: &Plan, options: &RunOptions, extras: &[Extra]) -> Result<(Report, Accounting)> {
    check(plan)?;
    let tensors: Vec<&OutTensor> = plan
        .groups
        .iter()
        .flat_map(|g| &g.members)
        .map(|m| &plan.outputs[m.output].tensor)
        .collect();
    let shared: Vec<OutTensor> = tensors
        .iter()
        .map(|t| OutTensor {
            dtype: store(plan),
            ..(*t).clone()
        })
        .collect();
    let bits: Vec<OutTensor> = tensors
        .iter()
        .map(|t| OutTensor {
            name: t.name.clone(),
            dtype: DType::U8,
            shape: vec![mask::bytes_of(t.shape.iter().product())],
        })
        .collect();
    let tasks = tasks(plan)?;
    let mut accounting = accounting(plan)?;
    let folder = OutputFolder::create(
        &options.target,
        FolderOptions {
            force: options.force,
            no_sync: options.no_sync,
            resume: false,
            fingerprint: String::new(),
            bytes: accounting.shared + accounting.masks + (16 << 20),
        },
    )?;
    let sink = BundleSink {
        plan,
        folder: &folder,
        tasks: &tasks,
        shared,
        bits,
        first: 0,
        writers: OnceLock::new(),
        edges: Mutex::default(),
        options,
        written: std::sync::atomic::AtomicU64::new(0),
    };
    let sink = fill(plan, options, sink)?;
    for writer in sink.writers.into_inner().into_iter().flatten() {
        writer.close()?;
    }
    code(plan, &folder, &tasks, &mut accounting)?;
    finish(plan, folder, options, tasks, accounting, extras)
}

/// Puts coded masks in the place of those that are longer, and counts the bytes of the files.
fn code(
    plan: &Plan,
    folder: &OutputFolder,
    tasks: &[TaskRecord],
    accounting: &mut Accounting,
) -> Result<()> {
    let members = plan.groups.iter().flat_map(|g| &g.members);
    let members: std::collections::HashSet<usize> = members.map(|m| m.output).collect();
    // In the order of the record, as the reader goes through it.
    let tensors = plan
        .outputs
        .iter()
        .enumerate()
        .filter(|(i, _)| members.contains(i));
    let tensors = tensors
        .map(|(_, o)| (&*o.tensor.name, &*o.tensor.shape))
        .collect();
    let shared = Checkpoint::open(folder.path().join("shared.safetensors"))?;
    let covered = Covered::new(&shared, tensors)?;
    let size = |path: &std::path::Path| -> Result<u64> {
        let meta =
            std::fs::metadata(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        Ok(meta.len())
    };
    accounting.shared = size(&folder.path().join("shared.safetensors"))?;
    accounting.masks = 0;
    for task in tasks {
        let name = format!("masks/{}.safetensors", task.id);
        let path = folder.path().join(&name);
        let raw = MaskFile::open(&path, &covered)?;
        let coded = mask::coded(&raw, &covered, &mut accounting.coding)?;
        drop(raw);
        if let Some(bytes) = coded {
            folder.write_file(&name, &bytes)?;
        }
        accounting.masks += size(&path)?;
    }
    Ok(())
}

/// What a bundle calls the task of an expert: its id, or the expert's name where it has none or names a file.
#[must_use]
pub fn task_id(model: &crate::recipe::Model) -> String {
    let plain = |task: &String| {
        let mut parts = std::path::Path::new(task).components();
        parts.all(|c| matches!(c, std::path::Component::Normal(_))) && !task.ends_with(".toml")
    };
    let task = model.task.as_ref().filter(|t| plain(t));
    task.unwrap_or(&model.name).clone()
}

/// Tasks of the experts; each has its own.
pub(super) fn tasks(plan: &Plan) -> Result<Vec<TaskRecord>> {
    let experts: &[usize] = plan.groups.first().map_or(&[], |g| &g.experts);
    let tasks: Vec<TaskRecord> = experts
        .iter()
        .map(|e| {
            let model = &plan.models[*e].model;
            TaskRecord {
                id: task_id(model),
                expert: model.name.clone(),
            }
        })
        .collect();
    for (i, task) in tasks.iter().enumerate() {
        if tasks[..i].iter().any(|t| t.id == task.id) {
            return Err(MergeError::plan(
                "same-task",
                format!("two experts have the task `{}`", task.id),
            )
            .hint("give each [[expert]] its own `task`"));
        }
    }
    Ok(tasks)
}

/// What lies beside the deltas of every bundle, and its record.
pub(super) fn finish(
    plan: &Plan,
    folder: OutputFolder,
    options: &RunOptions,
    tasks: Vec<TaskRecord>,
    accounting: Accounting,
    extras: &[Extra],
) -> Result<(Report, Accounting)> {
    let base = restorable(plan)?;
    let inputs = provenance::inputs(plan, options.hash)?;
    let masked = METHODS.contains(&&*plan.recipe.method);
    let (shared, kind): (&[&str], _) = match masked {
        true => (&["shared.safetensors"], "masks"),
        false => (&[], "deltas"),
    };
    let mut report = Report {
        output: PathBuf::new(),
        tensors: plan.groups.iter().map(|g| g.members.len()).sum(),
        bytes: accounting.stored(),
        files: shared
            .iter()
            .map(|s| (*s).to_owned())
            .chain(tasks.iter().map(|t| format!("{kind}/{}.safetensors", t.id)))
            .collect(),
        synced: folder.synced(),
        overflow: Vec::new(),
        notes: Vec::new(),
    };
    companions::write_config(plan, &folder, &mut report)?;
    companions::write_tokenizer(plan, &folder, &mut report)?;
    for head in &plan.heads {
        companions::write_head(plan, head, &folder)?;
    }
    for (name, bytes) in extras {
        folder.write_file(name, bytes)?;
    }
    let bundle = Bundle {
        format: FORMATS[1].into(),
        method: plan.recipe.method.clone(),
        base: base_record(plan, base),
        dtype: plan.recipe.dtype.map(|d| d.name().to_owned()),
        tensors: records(plan),
        tasks,
        accounting,
    };
    let mut document = provenance::document(plan, &inputs, &[]);
    document["kind"] = json!(if masked {
        "mask-bundle"
    } else {
        "delta-bundle"
    });
    document["bundle"] =
        serde_json::to_value(&bundle).map_err(|e| MergeError::Internal(format!("bundle: {e}")))?;
    companions::write_json(&folder, "polyloom.json", &document)?;
    report.output = folder.commit()?;
    Ok((report, accounting))
}

/// Tensors of a restored model.
pub(super) fn records(plan: &Plan) -> Vec<TensorRecord> {
    let one = |o: &crate::plan::Output| TensorRecord {
        name: o.tensor.name.clone(),
        dtype: o.tensor.dtype.name().to_owned(),
        shape: o.tensor.shape.clone(),
        masked: matches!(o.how, How::Merge(..)),
    };
    plan.outputs.iter().map(one).collect()
}

fn base_record(plan: &Plan, base: usize) -> BaseRecord {
    let opened = &plan.models[base];
    let found = |p: &PathBuf| std::path::absolute(p).unwrap_or_else(|_| p.clone());
    BaseRecord {
        reference: opened.model.reference.to_string(),
        path: found(&opened.path),
        adapter: opened.adapter.as_ref().map(found),
        strip_prefix: opened.model.strip_prefix.clone(),
        add_prefix: opened.model.add_prefix.clone(),
        files: super::restore::file_marks(opened),
    }
}

fn fill<'a>(
    plan: &'a Plan,
    options: &RunOptions,
    mut sink: BundleSink<'a>,
) -> Result<BundleSink<'a>> {
    let parts: Vec<Part> = std::iter::once(Part::Shared)
        .chain((0..sink.tasks.len()).map(Part::Mask))
        .collect();
    for group in &plan.groups {
        let members: Vec<usize> = (0..group.members.len()).collect();
        let job = plan.job(group);
        let make = |job: &Job| -> Result<Box<dyn Kernel>> { group.composition.build(job) };
        let run_group = run::Group {
            job: &job,
            deltas: group.composition.deltas(),
            scope: group.composition.scope(),
            make: &make,
        };
        if group.composition.scope() == Scope::Tensor {
            sink.open(&|_| None)?;
        }
        let feed = PlanFeed::new(plan, group, &members, options.allow_nonfinite);
        let run_options = Options {
            chunk: options.chunk,
            stop: options.stop,
            progress: None,
        };
        run::run_parts(&run_group, &parts, &feed, &sink, &run_options)?;
        sink.first += group.members.len();
    }
    let edges = sink.edges.get_mut().unwrap_or_else(PoisonError::into_inner);
    if !edges.is_empty() {
        return Err(MergeError::Internal(
            "bits of a mask were never written".into(),
        ));
    }
    Ok(sink)
}

/// Parts of bytes that chunks share: (part, tensor, byte) -> (bits so far, how many).
type Edges = HashMap<(usize, usize, usize), (u8, usize)>;

struct BundleSink<'a> {
    plan: &'a Plan,
    folder: &'a OutputFolder,
    tasks: &'a [TaskRecord],
    shared: Vec<OutTensor>,
    bits: Vec<OutTensor>,
    /// Index of the running group's first tensor.
    first: usize,
    writers: OnceLock<Vec<TensorWriter>>,
    edges: Mutex<Edges>,
    options: &'a RunOptions<'a>,
    written: std::sync::atomic::AtomicU64,
}

impl BundleSink<'_> {
    /// Opens the files once what their headers say is known.
    fn open(&self, scale: &dyn Fn(usize) -> Option<f64>) -> Result<()> {
        if self.writers.get().is_some() {
            return Ok(());
        }
        let method = &self.plan.recipe.method;
        let metadata = BTreeMap::from([
            ("format".to_owned(), "pt".to_owned()),
            ("method".to_owned(), method.clone()),
        ]);
        let layout = Layout::with_metadata(&self.shared, u64::MAX, "shared", &metadata);
        let mut writers = vec![TensorWriter::create(self.folder, &layout)?];
        let shapes: Map<String, Value> = self
            .shared
            .iter()
            .map(|t| (t.name.clone(), json!(t.shape)))
            .collect();
        for (i, task) in self.tasks.iter().enumerate() {
            let mut metadata = BTreeMap::from([
                ("format".to_owned(), mask::FORMAT.to_owned()),
                ("method".to_owned(), method.clone()),
                ("task".to_owned(), task.id.clone()),
                (
                    "shapes".to_owned(),
                    Value::Object(shapes.clone()).to_string(),
                ),
            ]);
            let values = self.plan.groups.first().and_then(|g| g.members.first());
            for (name, value) in values.iter().flat_map(|m| {
                let shared = m.job.shared.iter();
                shared.chain(m.job.each[i].iter())
            }) {
                if matches!(name, "mask_lambda" | "density" | "task_vector_scale") {
                    metadata.insert(name.to_owned(), value.to_string());
                }
            }
            if let Some(scale) = scale(i) {
                metadata.insert("scale".to_owned(), json!({"*": scale}).to_string());
            }
            let stem = format!("masks/{}", task.id);
            let layout = Layout::with_metadata(&self.bits, u64::MAX, &stem, &metadata);
            writers.push(TensorWriter::create(self.folder, &layout)?);
        }
        let _ = self.writers.set(writers);
        Ok(())
    }

    fn put(&self, part: usize, tensor: usize, at: u64, bytes: &[u8]) -> Result<()> {
        let writers = self
            .writers
            .get()
            .ok_or_else(|| MergeError::Internal("bundle files are not open".into()))?;
        writers[part].write(tensor, at, bytes)?;
        let n = bytes.len() as u64;
        let sum = self
            .written
            .fetch_add(n, std::sync::atomic::Ordering::Relaxed)
            + n;
        if let Some(progress) = self.options.progress {
            progress(sum, &self.shared[tensor].name);
        }
        Ok(())
    }

    /// Writes whole bytes; bits of a byte that chunks share wait for the others.
    fn put_bits(&self, part: usize, tensor: usize, start: usize, values: &[f32]) -> Result<()> {
        let total: usize = self.shared[tensor].shape.iter().product();
        let end = start + values.len();
        let on = |i: usize| values[i - start] != 0.0;
        let first = start.next_multiple_of(8).min(end);
        let last = if end == total {
            end
        } else {
            (end / 8 * 8).max(first)
        };
        // A chunk that ends the tensor but starts inside its last byte has no whole bytes at all.
        let whole = if first.is_multiple_of(8) {
            first..last
        } else {
            first..first
        };
        if !whole.is_empty() {
            let mut bytes = Vec::new();
            mask::pack(whole.clone().map(on), &mut bytes);
            self.put(part, tensor, (whole.start / 8) as u64, &bytes)?;
        }
        for i in (start..whole.start).chain(whole.end..end) {
            let byte = i / 8;
            let want = (total - byte * 8).min(8);
            let ready = {
                let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
                let entry = edges.entry((part, tensor, byte)).or_default();
                entry.0 |= u8::from(on(i)) << (7 - i % 8);
                entry.1 += 1;
                (entry.1 == want)
                    .then(|| edges.remove(&(part, tensor, byte)))
                    .flatten()
            };
            if let Some((bits, _)) = ready {
                self.put(part, tensor, byte as u64, &[bits])?;
            }
        }
        Ok(())
    }
}

impl Sink for BundleSink<'_> {
    fn write(&self, _: usize, _: usize, _: &[f32]) -> Result<()> {
        Err(MergeError::Internal("a bundle has parts, no result".into()))
    }

    fn ready(&self, kernel: &dyn Kernel) -> Result<()> {
        self.open(&|task| kernel.task_scale(task))
    }

    fn write_part(&self, part: usize, tensor: usize, start: usize, values: &[f32]) -> Result<()> {
        let tensor = self.first + tensor;
        if part > 0 {
            return self.put_bits(part, tensor, start, values);
        }
        let dtype = self.shared[tensor].dtype;
        let size = dtype.block().1;
        let mut bytes = vec![0; values.len() * size];
        if dtype::narrow(values, dtype, &mut bytes) > 0 {
            let what = format!(
                "numbers of `{}` are too large for {dtype}",
                self.shared[tensor].name
            );
            return Err(MergeError::plan("overflow", what).hint("--shared store=f32"));
        }
        self.put(0, tensor, (start * size) as u64, &bytes)
    }
}
