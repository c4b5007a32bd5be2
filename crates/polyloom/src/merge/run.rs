//! Drives kernels over chunks: survey rounds, then the result, with the same bytes for any thread count.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::method::{BLOCK, Chunk, Job, Kernel, Next, Part, Scope, TensorJob, Unit};
use crate::error::{MergeError, Result};

mod streamed;

use streamed::Streamed;

/// Where kernels get their numbers.
pub trait Feed: Sync {
    /// Fills `out` with elements from `start` on of tensor `tensor`; input `None` is the base.
    fn read(
        &self,
        tensor: usize,
        input: Option<usize>,
        start: usize,
        out: &mut [f32],
        buffers: &mut polyloom_core::checkpoint::Scratch,
    ) -> Result<()>;
    /// As [`Self::read`] for input `input`, less `minus`: a task vector.
    fn read_less(
        &self,
        tensor: usize,
        input: usize,
        start: usize,
        minus: &[f32],
        out: &mut [f32],
        buffers: &mut polyloom_core::checkpoint::Scratch,
    ) -> Result<()> {
        self.read(tensor, Some(input), start, out, buffers)?;
        polyloom_core::dtype::subtract(out, minus);
        Ok(())
    }
}

/// Where results go.
pub trait Sink: Sync {
    /// Takes the final values of elements from `start` on. Called once per element, from any thread.
    fn write(&self, tensor: usize, start: usize, values: &[f32]) -> Result<()>;
    /// Takes values of part number `part` of those asked for; see [`run_parts`].
    fn write_part(&self, part: usize, tensor: usize, start: usize, values: &[f32]) -> Result<()> {
        let _ = part;
        self.write(tensor, start, values)
    }
    /// Meets the kernel of a whole-model method when its survey is done, before anything is written.
    fn ready(&self, kernel: &dyn Kernel) -> Result<()> {
        let _ = kernel;
        Ok(())
    }
}

/// Settings of a run that do not change the result.
#[derive(Default)]
pub struct Options<'a> {
    /// Elements per chunk; 0 = the default (32 Ki, 128 Ki with tables). Rounded up to whole blocks.
    pub chunk: usize,
    /// Raised to stop after the current chunk.
    pub stop: Option<&'a AtomicBool>,
    /// Hears of every chunk whose result was written: (tensor, elements).
    pub progress: Option<&'a (dyn Fn(usize, usize) + Sync)>,
}

impl Options<'_> {
    fn check(&self) -> Result<()> {
        if self.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
        Ok(())
    }

    /// Elements per chunk: small enough for the cache where a chunk is read once, larger where a survey keeps tables.
    fn chunk(&self, tables: bool) -> usize {
        let n = match self.chunk {
            0 if tables => 1 << 17,
            0 => 1 << 15,
            n => n,
        };
        n.div_ceil(BLOCK) * BLOCK
    }
}

/// What to do with the tensors of a group: one kernel recipe.
pub struct Group<'a> {
    /// Everything but `tensors` is used as it is.
    pub job: &'a Job,
    /// See [`super::method::Spec::deltas`].
    pub deltas: bool,
    /// See [`super::method::Spec::scope`].
    pub scope: Scope,
    /// Makes the kernel, composed of pre-steps, method and post-steps.
    pub make: &'a (dyn Fn(&Job) -> Result<Box<dyn Kernel>> + Sync),
}

/// Tensors of at least this many elements are worked on by all threads together, smaller ones by one thread each: no
/// thread then waits for another's part of a tensor, and at the end none is left with much more than the others.
fn cooperative(jobs: &[Arc<TensorJob>]) -> usize {
    let all: usize = jobs.iter().map(|t| t.elements()).sum();
    (all / (8 * rayon::current_num_threads())).max(4 << 20)
}

/// Runs a group: `apply` (or, with `part`, that part) of every tensor goes to `sink`.
///
/// # Errors
/// Whatever feed, kernel or sink report first, in tensor order where several fail.
pub fn run(
    group: &Group,
    part: Option<Part>,
    feed: &dyn Feed,
    sink: &dyn Sink,
    options: &Options,
) -> Result<()> {
    run_parts(group, part.as_slice(), feed, sink, options)
}

/// Runs a group once for several parts, each of which goes to [`Sink::write_part`]; without parts the result of
/// `apply` goes to [`Sink::write`].
///
/// # Errors
/// As [`run`].
pub fn run_parts(
    group: &Group,
    parts: &[Part],
    feed: &dyn Feed,
    sink: &dyn Sink,
    options: &Options,
) -> Result<()> {
    let jobs = &group.job.tensors;
    match group.scope {
        Scope::Model => {
            let (kernel, step) = surveyed(group, group.job, 0, feed, options)?;
            sink.ready(&*kernel)?;
            let items: Vec<(usize, Range<usize>)> = jobs
                .iter()
                .enumerate()
                .flat_map(|(t, job)| {
                    pieces(job, kernel.unit(), step)
                        .into_iter()
                        .map(move |r| (t, r))
                })
                .collect();
            items
                .chunks(together(&*kernel, items.len()))
                .try_for_each(|items| {
                    items
                        .par_iter()
                        .try_for_each_init(Loan::take, |loan, (t, range)| {
                            let buffers = &mut loan.0;
                            emit(
                                group,
                                &*kernel,
                                parts,
                                &jobs[*t],
                                *t,
                                *t,
                                range.clone(),
                                feed,
                                sink,
                                options,
                                buffers,
                            )
                        })
                })
        }
        Scope::Tensor => {
            let least = cooperative(jobs);
            let (large, small): (Vec<usize>, Vec<usize>) =
                (0..jobs.len()).partition(|t| jobs[*t].elements() >= least);
            let one = |t: usize| Job {
                tensors: vec![jobs[t].clone()],
                ..group.job.clone()
            };
            let mut whole = Vec::new();
            for t in large {
                let (kernel, step) = surveyed(group, &one(t), t, feed, options)?;
                if kernel.unit() == Unit::Tensor {
                    whole.push((t, kernel));
                    continue;
                }
                pieces(&jobs[t], kernel.unit(), step)
                    .into_par_iter()
                    .try_for_each_init(Loan::take, |loan, range| {
                        let buffers = &mut loan.0;
                        emit(
                            group, &*kernel, parts, &jobs[t], 0, t, range, feed, sink, options,
                            buffers,
                        )
                    })?;
            }
            // Decompositions hold whole tensors: two at a time, whatever the thread count.
            for pair in whole.chunks(2) {
                pair.par_iter().try_for_each(|(t, kernel)| {
                    let range = 0..jobs[*t].elements();
                    emit(
                        group,
                        &**kernel,
                        parts,
                        &jobs[*t],
                        0,
                        *t,
                        range,
                        feed,
                        sink,
                        options,
                        &mut Buffers::default(),
                    )
                })?;
            }
            let serial = |t: usize, buffers: &mut Buffers| -> Result<()> {
                let (kernel, step) = surveyed_serial(group, &one(t), t, feed, options, buffers)?;
                for range in pieces(&jobs[t], kernel.unit(), step) {
                    emit(
                        group, &*kernel, parts, &jobs[t], 0, t, range, feed, sink, options, buffers,
                    )?;
                }
                Ok(())
            };
            let spectral = small.first().is_some_and(|_| {
                small
                    .iter()
                    .any(|t| (group.make)(&one(*t)).is_ok_and(|k| k.unit() == Unit::Tensor))
            });
            if spectral {
                for pair in small.chunks(2) {
                    pair.par_iter()
                        .try_for_each_init(Loan::take, |loan, t| serial(*t, &mut loan.0))?;
                }
                Ok(())
            } else {
                small
                    .par_iter()
                    .with_max_len(1)
                    .try_for_each_init(Loan::take, |loan, t| serial(*t, &mut loan.0))
            }
        }
    }
}

/// How many pieces may be worked on at the same time: decompositions hold whole tensors, so two, whatever the thread
/// count; else `many`.
fn together(kernel: &dyn Kernel, many: usize) -> usize {
    if kernel.unit() == Unit::Tensor {
        2
    } else {
        many.max(1)
    }
}

/// Buffers that outlive the loops, so that memory is taken from the system once and not per chunk.
static SPARE: std::sync::Mutex<Vec<Buffers>> = std::sync::Mutex::new(Vec::new());

/// Buffers on loan from [`SPARE`].
struct Loan(Buffers);

impl Loan {
    fn take() -> Self {
        let spare = SPARE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .pop();
        Self(spare.unwrap_or_default())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut self.0);
        // Whole-tensor buffers are given back to the system: the memory bound is per chunk.
        if buffers.out.capacity() <= 1 << 20 {
            SPARE
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(buffers);
        }
    }
}

/// Buffers of one thread, reused from chunk to chunk.
#[derive(Default)]
struct Buffers {
    base: Vec<f32>,
    inputs: Vec<Vec<f32>>,
    out: Vec<f32>,
    scratch: polyloom_core::checkpoint::Scratch,
}

fn pieces(job: &TensorJob, unit: Unit, chunk: usize) -> Vec<Range<usize>> {
    let n = job.elements();
    let step = match unit {
        Unit::Chunk => chunk,
        Unit::Row => {
            let row = job.last_axis().max(1);
            (chunk / row).max(1) * row
        }
        Unit::Tensor => n.max(1),
    };
    (0..n).step_by(step).map(|s| s..(s + step).min(n)).collect()
}

/// Elements of one piece of a sampled round.
const PIECE: usize = 512;

/// The pieces that a sampled round looks at: (tensor, range), spread evenly over all elements but for a jitter that
/// keeps the spacing from falling into step with the rows. They depend on nothing but the shapes.
fn samples(tensors: &[Arc<TensorJob>]) -> Vec<(usize, Range<usize>)> {
    let total: usize = tensors.iter().map(|t| t.elements()).sum();
    let count = (total >> 14).clamp(64, 2048);
    let stride = (total / count).max(1);
    let jitter = polyloom_core::rng::Stream::new(0, "sample", 0);
    let mut found = Vec::with_capacity(count);
    let (mut tensor, mut before) = (0, 0);
    for piece in 0..count {
        let room = stride.saturating_sub(PIECE) + 1;
        let at = piece * stride + (jitter.bits(piece as u64) % room as u64) as usize;
        while tensor < tensors.len() && at >= before + tensors[tensor].elements() {
            before += tensors[tensor].elements();
            tensor += 1;
        }
        let Some(job) = tensors.get(tensor) else {
            break;
        };
        let start = at - before;
        found.push((tensor, start..(start + PIECE).min(job.elements())));
    }
    found
}

/// Base, inputs and the output buffer of one chunk.
type Loaded<'b> = (Option<&'b [f32]>, Vec<&'b [f32]>, &'b mut Vec<f32>);

fn load<'b>(
    group: &Group,
    fed: usize,
    range: &Range<usize>,
    feed: &dyn Feed,
    buffers: &'b mut Buffers,
) -> Result<Loaded<'b>> {
    let Buffers {
        base,
        inputs,
        out,
        scratch,
    } = buffers;
    let n = range.len();
    if group.job.has_base {
        base.resize(n, 0.0);
        feed.read(fed, None, range.start, &mut base[..n], scratch)?;
    }
    inputs.resize_with(group.job.experts.len(), Vec::new);
    for (i, values) in inputs.iter_mut().enumerate() {
        values.resize(n, 0.0);
        let values = &mut values[..n];
        if group.deltas && group.job.has_base {
            feed.read_less(fed, i, range.start, &base[..n], values, scratch)?;
        } else {
            feed.read(fed, Some(i), range.start, values, scratch)?;
        }
    }
    let base = group.job.has_base.then(|| &base[..n]);
    Ok((base, inputs.iter().map(|v| &v[..n]).collect(), out))
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call site per loop; a struct would only rename them"
)]
fn emit(
    group: &Group,
    kernel: &dyn Kernel,
    parts: &[Part],
    job: &TensorJob,
    index: usize,
    fed: usize,
    range: Range<usize>,
    feed: &dyn Feed,
    sink: &dyn Sink,
    options: &Options,
    buffers: &mut Buffers,
) -> Result<()> {
    options.check()?;
    if kernel.unit() == Unit::Tensor && parts.is_empty() {
        let mut pieces = Streamed::new(group, fed, feed, sink);
        if kernel.pieces(job, &mut pieces)? {
            if let Some(progress) = options.progress {
                progress(fed, range.len());
            }
            return Ok(());
        }
    }
    let (base, inputs, out) = load(group, fed, &range, feed, buffers)?;
    out.resize(range.len(), 0.0);
    let chunk = Chunk {
        tensor: job,
        index,
        start: range.start,
        base,
        inputs: &inputs,
    };
    for (i, part) in parts.iter().enumerate() {
        if !kernel.part(*part, &chunk, out)? {
            return Err(MergeError::Internal(format!("the method has no {part:?}")));
        }
        sink.write_part(i, fed, range.start, out)?;
    }
    if parts.is_empty() {
        kernel.apply(&chunk, out)?;
        if group.deltas
            && let Some(base) = base
        {
            polyloom_core::wide(
                #[inline(always)]
                || {
                    for (o, b) in out.iter_mut().zip(base) {
                        *o += *b;
                    }
                },
            );
        }
        sink.write(fed, range.start, out)?;
    }
    if let Some(progress) = options.progress {
        progress(fed, range.len());
    }
    Ok(())
}

/// Makes a kernel and runs its survey rounds with all threads. `shift` maps the kernel's tensor 0 to the feed's.
pub(crate) fn surveyed(
    group: &Group,
    job: &Job,
    shift: usize,
    feed: &dyn Feed,
    options: &Options,
) -> Result<(Box<dyn Kernel>, usize)> {
    let mut kernel = (group.make)(job)?;
    // Cuts remember where chunks start: the result must be computed in the chunks that were surveyed.
    let step = options.chunk(kernel.surveys() && !kernel.samples() && kernel.tabulates());
    if !kernel.surveys() {
        return Ok((kernel, step));
    }
    let items: Vec<(usize, Range<usize>)> = job
        .tensors
        .iter()
        .enumerate()
        .flat_map(|(t, j)| {
            pieces(j, kernel.unit(), step)
                .into_iter()
                .map(move |r| (t, r))
        })
        .collect();
    // What a wave finds is held until it is absorbed in order; between waves threads wait for each other.
    let many = if kernel.tabulates() { 4 } else { 32 };
    let wave = together(&*kernel, rayon::current_num_threads() * many);
    for round in 0.. {
        let few = (kernel.samples() && kernel.unit() == Unit::Chunk).then(|| samples(&job.tensors));
        let wave = if few.is_some() { 256 } else { wave };
        for items in few.as_deref().unwrap_or(&items).chunks(wave) {
            let view = &*kernel;
            let found: Vec<_> = items
                .par_iter()
                .with_max_len(wave / 64 + 1)
                .map_init(Loan::take, |loan, (t, range)| {
                    let buffers = &mut loan.0;
                    options.check()?;
                    let (base, inputs, _) = load(group, t + shift, range, feed, buffers)?;
                    let chunk = Chunk {
                        tensor: &job.tensors[*t],
                        index: *t,
                        start: range.start,
                        base,
                        inputs: &inputs,
                    };
                    view.survey(round, &chunk)
                })
                .collect();
            for partial in found {
                kernel.absorb(round, partial?)?;
            }
        }
        if kernel.finish(round)? == Next::Done {
            break;
        }
    }
    Ok((kernel, step))
}

fn surveyed_serial(
    group: &Group,
    job: &Job,
    fed: usize,
    feed: &dyn Feed,
    options: &Options,
    buffers: &mut Buffers,
) -> Result<(Box<dyn Kernel>, usize)> {
    let mut kernel = (group.make)(job)?;
    // Cuts remember where chunks start: the result must be computed in the chunks that were surveyed.
    let step = options.chunk(kernel.surveys() && !kernel.samples() && kernel.tabulates());
    if !kernel.surveys() {
        return Ok((kernel, step));
    }
    for round in 0.. {
        let ranges = if kernel.samples() && kernel.unit() == Unit::Chunk {
            samples(&job.tensors).into_iter().map(|s| s.1).collect()
        } else {
            pieces(&job.tensors[0], kernel.unit(), step)
        };
        for range in ranges {
            options.check()?;
            let (base, inputs, _) = load(group, fed, &range, feed, buffers)?;
            let chunk = Chunk {
                tensor: &job.tensors[0],
                index: 0,
                start: range.start,
                base,
                inputs: &inputs,
            };
            let partial = kernel.survey(round, &chunk)?;
            kernel.absorb(round, partial)?;
        }
        if kernel.finish(round)? == Next::Done {
            break;
        }
    }
    Ok((kernel, step))
}

/// Tensors in memory, for tests and small merges: `base[t]`, `inputs[i][t]`.
pub struct Memory<'a> {
    /// Base values per tensor; empty without a base.
    pub base: Vec<&'a [f32]>,
    /// Values per input and tensor.
    pub inputs: Vec<Vec<&'a [f32]>>,
}

impl Feed for Memory<'_> {
    fn read(
        &self,
        tensor: usize,
        input: Option<usize>,
        start: usize,
        out: &mut [f32],
        _: &mut polyloom_core::checkpoint::Scratch,
    ) -> Result<()> {
        let from = match input {
            None => self.base[tensor],
            Some(i) => self.inputs[i][tensor],
        };
        out.copy_from_slice(&from[start..start + out.len()]);
        Ok(())
    }
}

/// Collects results in memory.
pub struct Collect(Vec<std::sync::Mutex<Vec<f32>>>);

impl Collect {
    /// Room for the tensors of a job.
    pub fn new(tensors: &[Arc<TensorJob>]) -> Self {
        Self(
            tensors
                .iter()
                .map(|t| std::sync::Mutex::new(vec![0.0; t.elements()]))
                .collect(),
        )
    }

    /// The values per tensor.
    pub fn into_values(self) -> Vec<Vec<f32>> {
        self.0
            .into_iter()
            .map(|m| {
                m.into_inner()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
            })
            .collect()
    }
}

impl Sink for Collect {
    fn write(&self, tensor: usize, start: usize, values: &[f32]) -> Result<()> {
        let mut all = self.0[tensor]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all[start..start + values.len()].copy_from_slice(values);
        Ok(())
    }
}
