//! Runs a plan: chunks in, chunks out, a folder that appears whole or not at all.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use polyloom_core::checkpoint::Scratch;
use polyloom_core::dtype;
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};

use super::{Group, How, Input, Plan};
use crate::error::{MergeError, Result};
use crate::merge::method::{Job, Kernel};
use crate::merge::run::{self, Feed, Options, Sink};
use crate::vocab::Row;

/// How inputs and outputs are hashed for the provenance file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashKind {
    /// Size, modification time and a hash of the header: costs nothing.
    #[default]
    Fast,
    /// SHA-256 of every file.
    Full,
    /// None.
    None,
}

/// Hears of progress.
pub type Hear<'a> = dyn Fn(u64, &str) + Sync + 'a;

/// Settings of a run that do not change the tensors.
pub struct RunOptions<'a> {
    /// Output folder.
    pub target: PathBuf,
    /// Largest shard in bytes.
    pub shard_size: u64,
    /// Replace an existing folder.
    pub force: bool,
    /// Skip fsync.
    pub no_sync: bool,
    /// Continue an interrupted run.
    pub resume: bool,
    /// Merge NaN and infinity like numbers.
    pub allow_nonfinite: bool,
    /// Elements per chunk; 0 = default.
    pub chunk: usize,
    /// Provenance hashes.
    pub hash: HashKind,
    /// Raised to stop.
    pub stop: Option<&'a AtomicBool>,
    /// Hears (bytes written so far, tensor name).
    pub progress: Option<&'a Hear<'a>>,
}

/// What a run did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// The folder.
    pub output: PathBuf,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of tensor files.
    pub bytes: u64,
    /// Files of the checkpoint.
    pub files: Vec<String>,
    /// Whether the data was synced to disk.
    pub synced: bool,
    /// Values that became infinite in a narrower type: (tensor, count).
    pub overflow: Vec<(String, usize)>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// Runs a plan.
///
/// # Errors
/// Unreadable input, NaN or infinity, a full disk, an interrupt; the target is then absent.
pub fn execute(plan: &Plan, options: &RunOptions) -> Result<Report> {
    let tensors: Vec<OutTensor> = plan.outputs.iter().map(|o| o.tensor.clone()).collect();
    let layout = Layout::new(&tensors, options.shard_size, "model");
    let inputs = super::provenance::inputs(plan, options.hash)?;
    let fingerprint = super::provenance::fingerprint(plan, &inputs, options.shard_size);
    let folder = OutputFolder::create(
        &options.target,
        FolderOptions {
            force: options.force,
            no_sync: options.no_sync,
            resume: options.resume,
            fingerprint,
            bytes: layout.total() + (16 << 20),
        },
    )?;
    match fill(plan, options, &folder, &layout, &inputs) {
        Ok(mut report) => {
            report.output = folder.commit()?;
            Ok(report)
        }
        Err(error) => {
            // An interrupted multi-shard run can be resumed; anything else leaves nothing behind.
            let finished = layout.shards.len() > 1
                && layout
                    .shards
                    .iter()
                    .any(|s| folder.path().join(&s.name).exists());
            if finished && matches!(error, MergeError::Core(polyloom_core::Error::Interrupted)) {
                folder.keep_partial();
            }
            Err(error)
        }
    }
}

fn fill(
    plan: &Plan,
    options: &RunOptions,
    folder: &OutputFolder,
    layout: &Layout,
    inputs: &[super::provenance::InputRecord],
) -> Result<Report> {
    let writer = TensorWriter::create(folder, layout)?;
    let out = Out {
        plan,
        writer: &writer,
        options,
        written: AtomicUsize::new(0),
        overflow: Mutex::default(),
    };
    let mut buffer = Vec::new();
    for (i, output) in plan.outputs.iter().enumerate() {
        match &output.how {
            How::Copy(input) => out.copy(i, std::slice::from_ref(input), &mut buffer)?,
            How::Equal(inputs) => out.copy(i, inputs, &mut buffer)?,
            How::Merge(..) => {}
        }
    }
    for group in &plan.groups {
        out.merge(group)?;
    }
    let overflow = out
        .overflow
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    writer.close()?;
    let mut report = Report {
        output: PathBuf::new(),
        tensors: plan.outputs.len(),
        bytes: layout.total(),
        files: layout.shards.iter().map(|s| s.name.clone()).collect(),
        synced: folder.synced(),
        overflow: overflow.into_iter().collect(),
        notes: Vec::new(),
    };
    if let Some((name, text)) = &layout.index {
        folder.write_file(name, text)?;
    }
    super::companions::write(plan, options, folder, layout, inputs, &mut report)?;
    Ok(report)
}

struct Out<'a> {
    plan: &'a Plan,
    writer: &'a TensorWriter,
    options: &'a RunOptions<'a>,
    written: AtomicUsize,
    overflow: Mutex<std::collections::BTreeMap<String, usize>>,
}

impl Out<'_> {
    fn put(&self, output: usize, at: u64, bytes: &[u8]) -> Result<()> {
        self.writer.write(output, at, bytes)?;
        let sum = self.written.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if let Some(progress) = self.options.progress {
            progress(sum as u64, &self.plan.outputs[output].tensor.name);
        }
        Ok(())
    }

    /// Copies stored bytes; further inputs must hold the same.
    fn copy(&self, output: usize, inputs: &[Input], buffer: &mut Vec<u8>) -> Result<()> {
        const PIECE: u64 = 4 << 20;
        let tensor = &self.plan.outputs[output].tensor;
        let total = tensor.bytes();
        if self.writer.finished(output) {
            return Ok(());
        }
        let mut at = 0;
        let mut other = Vec::new();
        while at < total {
            if self.options.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                return Err(polyloom_core::Error::Interrupted.into());
            }
            let n = PIECE.min(total - at);
            buffer.resize(n as usize, 0);
            let first = &self.plan.models[inputs[0].model];
            first.read_bytes(&inputs[0].name, at, buffer)?;
            for input in &inputs[1..] {
                let model = &self.plan.models[input.model];
                other.resize(n as usize, 0);
                model.read_bytes(&input.name, at, &mut other)?;
                if other != *buffer {
                    return Err(MergeError::plan(
                        "integer-differs",
                        format!("tensor `{}` holds {}s that differ from {}", input.name, tensor.dtype, first.file_of(&inputs[0].name)),
                    )
                    .at(model.file_of(&input.name))
                    .hint("integers and flags are not merged; leave the tensor out or make it equal first"));
                }
            }
            self.put(output, at, buffer)?;
            at += n;
        }
        Ok(())
    }

    fn merge(&self, group: &Group) -> Result<()> {
        let model_scope = group.composition.scope() == crate::merge::method::Scope::Model;
        // A resumed run skips tensors of finished shards, unless the method looks at the whole model.
        let members: Vec<usize> = (0..group.members.len())
            .filter(|m| model_scope || !self.writer.finished(group.members[*m].output))
            .collect();
        let job = Job {
            tensors: members
                .iter()
                .map(|m| group.members[*m].job.clone())
                .collect(),
            ..self.plan.job(group)
        };
        let make = |job: &Job| -> Result<Box<dyn Kernel>> { group.composition.build(job) };
        let run_group = run::Group {
            job: &job,
            deltas: group.composition.deltas(),
            scope: group.composition.scope(),
            make: &make,
        };
        let feed = PlanFeed {
            plan: self.plan,
            group,
            members: &members,
            allow_nonfinite: self.options.allow_nonfinite,
        };
        let sink = PlanSink {
            out: self,
            group,
            members: &members,
        };
        let options = Options {
            chunk: self.options.chunk,
            stop: self.options.stop,
            progress: None,
        };
        run::run(&run_group, None, &feed, &sink, &options)
    }
}

/// Reads inputs for kernels: names mapped, vocabulary rows re-ordered, values rounded where the recipe says so.
pub struct PlanFeed<'a> {
    plan: &'a Plan,
    group: &'a Group,
    members: &'a [usize],
    allow_nonfinite: bool,
}

impl<'a> PlanFeed<'a> {
    /// A feed for some members of a group.
    pub fn new(
        plan: &'a Plan,
        group: &'a Group,
        members: &'a [usize],
        allow_nonfinite: bool,
    ) -> Self {
        Self {
            plan,
            group,
            members,
            allow_nonfinite,
        }
    }

    fn source(&self, tensor: usize, input: Option<usize>) -> Result<&Input> {
        let member = &self.group.members[self.members[tensor]];
        let source = match input {
            None => member.base.as_ref(),
            // `missing = "base"`: an absent tensor counts as unchanged.
            Some(i) => member.inputs[i].as_ref().or(member.base.as_ref()),
        };
        source.ok_or_else(|| MergeError::Internal(format!("no input for `{}`", member.job.name)))
    }

    fn one(
        &self,
        input: &Input,
        elements: usize,
        start: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let model = &self.plan.models[input.model];
        let finite = if input.by_token {
            self.rows(input, elements, start, out, scratch)?;
            false
        } else {
            model.read(&input.name, start, out, scratch)?
        };
        if !self.allow_nonfinite && !finite && !all_finite(out) {
            let at = out.iter().position(|v| !v.is_finite()).unwrap_or(0);
            return Err(MergeError::NonFinite {
                file: model.file_of(&input.name),
                tensor: input.name.clone(),
                what: if out[at].is_nan() { "NaN" } else { "infinity" },
                index: start + at,
            });
        }
        if let Some(dtype) = self.plan.recipe.dtype {
            dtype::round_through(out, dtype);
        }
        Ok(())
    }

    /// Assembles vocabulary rows of one model by token.
    fn rows(
        &self,
        input: &Input,
        elements: usize,
        start: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let vocabulary = self
            .plan
            .vocabulary
            .as_ref()
            .ok_or_else(|| MergeError::Internal("no vocabulary".into()))?;
        let width = (elements / vocabulary.padded_size.max(1)).max(1);
        let mut row_values = vec![0.0; width];
        let mut at = start;
        let mut rest = out;
        while !rest.is_empty() {
            let (row, column) = (at / width, at % width);
            let n = (width - column).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            now.fill(0.0);
            let mut add = |model: usize,
                           source: usize,
                           scale: f32,
                           now: &mut [f32],
                           scratch: &mut Scratch|
             -> Result<()> {
                let values = &mut row_values[..n];
                self.vocab_read(model, input, source * width + column, values, scratch)?;
                for (o, v) in now.iter_mut().zip(values.iter()) {
                    *o += v * scale;
                }
                Ok(())
            };
            match &vocabulary.rows[input.model][row] {
                Row::Own(source) => add(input.model, *source as usize, 1.0, now, scratch)?,
                Row::Zero => {}
                Row::Mean(sources) => {
                    for (model, source) in sources {
                        add(
                            *model,
                            *source as usize,
                            1.0 / sources.len() as f32,
                            now,
                            scratch,
                        )?;
                    }
                }
                Row::MeanOfReal => {
                    // Few rows are padding; their mean is taken again for each, over this model's assembled rows.
                    let mut sum = vec![0.0f64; n];
                    let mut one = vec![0.0; n];
                    for real in 0..vocabulary.size {
                        self.rows(input, elements, real * width + column, &mut one, scratch)?;
                        for (s, v) in sum.iter_mut().zip(&one) {
                            *s += f64::from(*v);
                        }
                    }
                    for (o, s) in now.iter_mut().zip(&sum) {
                        *o = (s / vocabulary.size.max(1) as f64) as f32;
                    }
                }
            }
            at += n;
            rest = later;
        }
        Ok(())
    }

    /// The same tensor of another model (or the one its head is tied to there).
    fn vocab_read(
        &self,
        model: usize,
        input: &Input,
        start: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let opened = &self.plan.models[model];
        if opened.get(&input.name).is_some() {
            opened.read(&input.name, start, out, scratch)?;
            return Ok(());
        }
        let name = super::names::tied_to(&input.name, |n| opened.get(n).is_some()).or_else(|| {
            let heads = ["lm_head.weight", "embed_out.weight"];
            heads
                .iter()
                .find(|h| opened.get(h).is_some())
                .map(|h| (*h).to_owned())
        });
        match name {
            Some(name) => {
                opened.read(&name, start, out, scratch)?;
                Ok(())
            }
            None => Err(MergeError::plan(
                "missing-tensor",
                format!("lacks `{}`, whose rows another model needs", input.name),
            )
            .at(opened.path.display().to_string())),
        }
    }
}

/// True if no value is NaN or infinite: no exponent has all bits set. Integer logic, so that it runs in wide registers.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7F80_0000;
    polyloom_core::wide(
        #[inline(always)]
        || {
            let mut bad = 0;
            for v in values {
                bad |= u32::from(v.to_bits() & EXPONENT == EXPONENT);
            }
            bad == 0
        },
    )
}

impl Feed for PlanFeed<'_> {
    fn read(
        &self,
        tensor: usize,
        input: Option<usize>,
        start: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let elements = self.group.members[self.members[tensor]].job.elements();
        self.one(self.source(tensor, input)?, elements, start, out, scratch)
    }

    fn read_less(
        &self,
        tensor: usize,
        input: usize,
        start: usize,
        minus: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let source = self.source(tensor, Some(input))?;
        let model = &self.plan.models[source.model];
        let plain = !source.by_token && self.plan.recipe.dtype.is_none();
        if plain && model.read_less(&source.name, start, minus, out, scratch)? {
            return Ok(());
        }
        self.read(tensor, Some(input), start, out, scratch)?;
        dtype::subtract(out, minus);
        Ok(())
    }
}

struct PlanSink<'a> {
    out: &'a Out<'a>,
    group: &'a Group,
    members: &'a [usize],
}

thread_local! {
    static BYTES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Sink for PlanSink<'_> {
    fn write(&self, tensor: usize, start: usize, values: &[f32]) -> Result<()> {
        let output = self.group.members[self.members[tensor]].output;
        let target = &self.out.plan.outputs[output].tensor;
        let size = target.dtype.block().1;
        BYTES.with_borrow_mut(|bytes| {
            bytes.resize(values.len() * size, 0);
            let lost = dtype::narrow(values, target.dtype, bytes);
            if lost > 0 {
                let mut overflow = self
                    .out
                    .overflow
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *overflow.entry(target.name.clone()).or_default() += lost;
            }
            self.out.put(output, (start * size) as u64, bytes)
        })
    }
}
