//! A base checkpoint with an adapter folded in, read by ranges: only the rows asked for are computed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;

use super::config::{BaseChange, PeftType};
use super::folder::{AdapterFolder, LayerKind};
use super::names::BaseNames;
use crate::checkpoint::{Checkpoint, Scratch, StoredTensor};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// How an adapter is folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoldOptions {
    /// Factor on the delta of every LoRA module (1 folds the adapter as it is). Biases, magnitudes and whole modules
    /// of the adapter are taken unscaled, so anything but 1 is refused for DoRA, PiSSA, OLoRA and IA3.
    pub weight: f64,
}

impl Default for FoldOptions {
    fn default() -> Self {
        Self { weight: 1.0 }
    }
}

/// A base with an adapter folded in: LoRA, rsLoRA, DoRA (row norms of the unmerged base, arXiv 2402.09353 section 4),
/// PiSSA and OLoRA (their change of the base is made again), IA3, stored biases and whole modules.
///
/// Computed in `f32` from the stored values whatever the type of the base; memory holds the factors of a few modules.
#[derive(Debug)]
pub struct Folded {
    base: Arc<Checkpoint>,
    adapter: AdapterFolder,
    entries: IndexMap<String, Entry>,
    modules: Vec<Module>,
    /// Modules whose factors are in memory, oldest first.
    recent: Mutex<VecDeque<usize>>,
    warnings: Vec<String>,
}

/// One tensor of the result.
#[derive(Debug)]
struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    source: Source,
    change: Change,
}

/// Where the values before the change come from.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Base(String),
    Adapter(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    None,
    /// The weight of module `i`.
    Weight(usize),
    /// The bias of module `i`: plus the scaled bias of B, or times the IA3 vector.
    Bias(usize),
}

#[derive(Debug)]
struct Module {
    name: String,
    /// Delta is transposed: `[in, out]` weights and embeddings.
    transposed: bool,
    prepared: Mutex<Option<Arc<Prepared>>>,
    /// DoRA: magnitude / norm of every output.
    norms: Mutex<Option<Arc<Vec<f32>>>>,
}

/// What the arithmetic of one module needs.
#[derive(Debug)]
enum Prepared {
    /// `delta[i][j] = scale * sum_k left[i][k] right[k][j]`.
    Delta {
        left: Vec<f32>,
        right: Vec<f32>,
        rank: usize,
        cols: usize,
        scale: f32,
    },
    /// IA3: factor per row.
    Rows(Vec<f32>),
    /// IA3: factor per element of a row.
    Columns(Vec<f32>),
}

/// Modules whose factors stay in memory at once.
const KEPT: usize = 16;
/// Elements of a row that are accumulated at once, on the stack.
const TILE: usize = 512;

impl Folded {
    /// Plans the fold: every adapted module must be found in the base with fitting shapes. Reads headers only.
    pub fn open(base: Arc<Checkpoint>, adapter: AdapterFolder) -> Result<Self> {
        Self::with(base, adapter, FoldOptions::default())
    }

    /// [`Self::open`] with options.
    pub fn with(
        base: Arc<Checkpoint>,
        adapter: AdapterFolder,
        options: FoldOptions,
    ) -> Result<Self> {
        let config = &adapter.config;
        if config.peft_type == PeftType::Poly {
            return Err(Error::format(
                &config.path,
                "is a Poly adapter, whose weights depend on the task",
            )
            .with_hint("export one task as a LoRA folder first"));
        }
        let plain = !config.dora
            && config.peft_type == PeftType::Lora
            && config.base_change == BaseChange::None;
        if options.weight != 1.0 && !plain {
            return Err(Error::format(
                &config.path,
                format!(
                    "cannot be folded with weight {}: only the delta of plain LoRA scales",
                    options.weight
                ),
            ));
        }
        let names = BaseNames::new(&base, &adapter)?;
        let mut entries: IndexMap<String, Entry> = base
            .tensors()
            .values()
            .map(|t| {
                let entry = Entry {
                    dtype: t.dtype,
                    shape: t.shape.clone(),
                    source: Source::Base(t.name.clone()),
                    change: Change::None,
                };
                (t.name.clone(), entry)
            })
            .collect();
        let mut warnings = adapter.warnings.clone();
        for (plain, full) in &adapter.whole {
            let stored = &adapter.tensors.tensors()[full];
            let name = names.of(plain);
            let dtype = entries.get(&name).map_or(stored.dtype, |e| e.dtype);
            if let Some(entry) = entries.get(&name)
                && entry.shape != stored.shape
            {
                warnings.push(format!(
                    "tensor `{name}` is {:?} in the base and {:?} in the adapter, which replaces it",
                    entry.shape, stored.shape
                ));
            }
            entries.insert(
                name,
                Entry {
                    dtype,
                    shape: stored.shape.clone(),
                    source: Source::Adapter(full.clone()),
                    change: Change::None,
                },
            );
        }
        let mut modules = Vec::new();
        for (module, parts) in &adapter.modules {
            let index = modules.len();
            let weight = names.of(&format!("{module}.weight"));
            let Some(entry) = entries.get_mut(&weight) else {
                return Err(names.missing(module));
            };
            if !entry.dtype.is_float() && !entry.dtype.is_block() {
                return Err(Error::tensor(
                    base.origin(),
                    &weight,
                    format!("is {}, which no adapter can change", entry.dtype),
                ));
            }
            let transposed = fit(&adapter, module, &base, &weight, &entry.shape)?;
            entry.change = Change::Weight(index);
            let bias = names.of(&format!("{module}.bias"));
            let ia3_rows = parts.ia3.is_some() && !is_feedforward(&adapter, module)?;
            match entries.get_mut(&bias) {
                Some(entry) if parts.b_bias.is_some() || ia3_rows => {
                    let own = if ia3_rows { &parts.ia3 } else { &parts.b_bias };
                    let own = stored(&adapter.tensors, own.as_deref().unwrap_or_default())?;
                    let needed: usize = entry.shape.iter().product();
                    if own.elements() != needed {
                        return Err(Error::tensor(
                            base.origin(),
                            &bias,
                            format!(
                                "has shape {:?}, but module `{module}` of the adapter has {:?}",
                                entry.shape, own.shape
                            ),
                        ));
                    }
                    entry.change = Change::Bias(index);
                }
                None if parts.b_bias.is_some() => {
                    return Err(Error::tensor(
                        base.origin(),
                        &bias,
                        format!("is missing, but the adapter holds a bias for module `{module}`"),
                    ));
                }
                _ => {}
            }
            modules.push(Module {
                name: module.clone(),
                transposed,
                prepared: Mutex::new(None),
                norms: Mutex::new(None),
            });
        }
        warnings.extend(names.notes(&base, &adapter)?);
        let folded = Self {
            base,
            adapter,
            entries,
            modules,
            recent: Mutex::new(VecDeque::new()),
            warnings,
        };
        if options.weight != 1.0 {
            return Ok(folded.scaled(options.weight));
        }
        Ok(folded)
    }

    fn scaled(mut self, weight: f64) -> Self {
        self.adapter.config.scale_alpha(weight);
        self
    }

    /// The base.
    pub fn base(&self) -> &Arc<Checkpoint> {
        &self.base
    }

    /// The adapter.
    pub fn adapter(&self) -> &AdapterFolder {
        &self.adapter
    }

    /// What was odd: ignored keys and tensors, replaced shapes, targets without tensors.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Name, type and shape of every tensor: those of the base in its order, then those only the adapter has.
    pub fn tensors(&self) -> Vec<(String, DType, Vec<usize>)> {
        self.entries
            .iter()
            .map(|(n, e)| (n.clone(), e.dtype, e.shape.clone()))
            .collect()
    }

    /// True if the adapter changes, replaces or adds this tensor; an untouched one can be copied from the base.
    pub fn touched(&self, name: &str) -> bool {
        self.entries
            .get(name)
            .is_some_and(|e| e.change != Change::None || matches!(e.source, Source::Adapter(_)))
    }

    /// Reads elements `range` (row-major) of the folded tensor `name` as `f32`.
    ///
    /// # Panics
    /// If `out` is not as long as `range`.
    pub fn read_f32(
        &self,
        name: &str,
        range: Range<usize>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some(entry) = self.entries.get(name) else {
            return Err(Error::tensor(
                self.base.origin(),
                name,
                "is not in the base",
            ));
        };
        self.read_source(entry, range.clone(), out, scratch)?;
        match entry.change {
            Change::None => {}
            Change::Bias(i) => self.change_bias(&self.modules[i], range.start, out)?,
            Change::Weight(i) => {
                let prepared = self.prepare(i, entry)?;
                let cols = entry.shape[1..].iter().product::<usize>().max(1);
                match &*prepared {
                    Prepared::Delta { .. } => prepared.add_delta(range.start, out),
                    Prepared::Rows(l) => {
                        for (k, v) in out.iter_mut().enumerate() {
                            *v *= l[(range.start + k) / cols];
                        }
                    }
                    Prepared::Columns(l) => {
                        for (k, v) in out.iter_mut().enumerate() {
                            // A convolution repeats every input's factor over its kernel.
                            *v *= l[(range.start + k) % cols / (cols / l.len()).max(1)];
                        }
                    }
                }
                if self.adapter.config.dora {
                    let factors = self.dora_factors(i, entry, &prepared)?;
                    let by_column = self.modules[i].transposed;
                    for (k, v) in out.iter_mut().enumerate() {
                        let at = range.start + k;
                        *v *= factors[if by_column { at % cols } else { at / cols }];
                    }
                }
            }
        }
        Ok(())
    }

    fn read_source(
        &self,
        entry: &Entry,
        range: Range<usize>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (checkpoint, name) = match &entry.source {
            Source::Base(name) => (&*self.base, name),
            Source::Adapter(name) => (&self.adapter.tensors, name),
        };
        checkpoint.read_f32(stored(checkpoint, name)?, range, out, scratch)?;
        Ok(())
    }

    fn change_bias(&self, module: &Module, start: usize, out: &mut [f32]) -> Result<()> {
        let parts = &self.adapter.modules[&module.name];
        if let Some(l) = &parts.ia3 {
            let l = self.adapter.read(l)?;
            for (v, l) in out.iter_mut().zip(&l[start..]) {
                *v *= l;
            }
        } else if let (Some(c), Some(a)) = (&parts.b_bias, &parts.a) {
            let rank = stored(&self.adapter.tensors, a)?.shape[0];
            let scale = self.adapter.config.scaling(&module.name, rank)? as f32;
            let c = self.adapter.read(c)?;
            for (v, c) in out.iter_mut().zip(&c[start..]) {
                *v += scale * c;
            }
        }
        Ok(())
    }

    /// The factors of module `i`, read once and kept until [`KEPT`] others were used.
    fn prepare(&self, i: usize, entry: &Entry) -> Result<Arc<Prepared>> {
        let prepared = {
            let mut slot = lock(&self.modules[i].prepared);
            if let Some(prepared) = &*slot {
                return Ok(prepared.clone());
            }
            let prepared = Arc::new(self.load(i, entry)?);
            *slot = Some(prepared.clone());
            prepared
        };
        let old = {
            let mut recent = lock(&self.recent);
            recent.push_back(i);
            (recent.len() > KEPT).then(|| recent.pop_front()).flatten()
        };
        if let Some(old) = old {
            *lock(&self.modules[old].prepared) = None;
        }
        Ok(prepared)
    }

    fn load(&self, i: usize, entry: &Entry) -> Result<Prepared> {
        let module = &self.modules[i];
        let parts = &self.adapter.modules[&module.name];
        if let Some(l) = &parts.ia3 {
            let l = self.adapter.read(l)?;
            let by_row = is_feedforward(&self.adapter, &module.name)? == module.transposed;
            return Ok(if by_row {
                Prepared::Rows(l)
            } else {
                Prepared::Columns(l)
            });
        }
        let mut factors = self.adapter.factors(&module.name)?;
        if self.adapter.config.base_change != BaseChange::None {
            let mut weight = vec![0.0; entry.shape.iter().product()];
            let all = 0..weight.len();
            self.read_source(entry, all, &mut weight, &mut Scratch::default())?;
            super::init::undo_base_change(
                self.adapter.config.base_change,
                &mut factors,
                &weight,
                module.transposed,
            )
            .map_err(|problem| Error::tensor(self.adapter.file(), &module.name, problem))?;
        }
        let (rank, scale) = (factors.rank, factors.scaling as f32);
        let (left, right, cols) = if module.transposed {
            (
                transpose(&factors.a, rank, factors.inputs),
                transpose(&factors.b, factors.outputs, rank),
                factors.outputs,
            )
        } else {
            (factors.b, factors.a, factors.inputs)
        };
        Ok(Prepared::Delta {
            left,
            right,
            rank,
            cols,
            scale,
        })
    }

    /// `m / n` per output, n over `W + s B A` of the unmerged base; computed once, in one pass over the tensor.
    fn dora_factors(&self, i: usize, entry: &Entry, prepared: &Prepared) -> Result<Arc<Vec<f32>>> {
        let module = &self.modules[i];
        let mut slot = lock(&module.norms);
        if let Some(factors) = &*slot {
            return Ok(factors.clone());
        }
        let Some(name) = &self.adapter.modules[&module.name].magnitude else {
            return Err(Error::tensor(
                self.adapter.file(),
                &module.name,
                "has no `lora_magnitude_vector`",
            ));
        };
        let magnitude = self.adapter.read(name)?;
        let (rows, cols) = (entry.shape[0], entry.shape[1..].iter().product::<usize>());
        let mut squares = vec![0.0f64; if module.transposed { cols } else { rows }];
        if magnitude.len() != squares.len() {
            return Err(Error::tensor(
                self.adapter.file(),
                name,
                format!(
                    "has {} values for the {} outputs of the base",
                    magnitude.len(),
                    squares.len()
                ),
            ));
        }
        let step = (1usize << 18).div_ceil(cols.max(1));
        let mut buffer = vec![0.0; step * cols];
        let mut scratch = Scratch::default();
        for first in (0..rows).step_by(step) {
            let here = step.min(rows - first) * cols;
            let values = &mut buffer[..here];
            let start = first * cols;
            self.read_source(entry, start..start + here, values, &mut scratch)?;
            prepared.add_delta(start, values);
            for (row, values) in values.chunks_exact(cols).enumerate() {
                if module.transposed {
                    for (s, &v) in squares.iter_mut().zip(values) {
                        *s += f64::from(v) * f64::from(v);
                    }
                } else {
                    squares[first + row] = values.iter().map(|&v| f64::from(v).powi(2)).sum();
                }
            }
        }
        let factors: Vec<f32> = magnitude
            .iter()
            .zip(&squares)
            .map(|(&m, n)| (f64::from(m) / n.sqrt()) as f32)
            .collect();
        let factors = Arc::new(factors);
        *slot = Some(factors.clone());
        Ok(factors)
    }
}

impl Prepared {
    /// Adds the delta of elements `start..` to `out`.
    fn add_delta(&self, start: usize, out: &mut [f32]) {
        let Self::Delta {
            left,
            right,
            rank,
            cols,
            scale,
        } = self
        else {
            return;
        };
        let mut sums = [0.0f32; TILE];
        let mut at = start;
        let mut rest = out;
        while !rest.is_empty() {
            let (row, col) = (at / cols, at % cols);
            let n = (cols - col).min(rest.len()).min(TILE);
            let sums = &mut sums[..n];
            sums.fill(0.0);
            for k in 0..*rank {
                let l = left[row * rank + k];
                for (s, r) in sums.iter_mut().zip(&right[k * cols + col..][..n]) {
                    *s += l * r;
                }
            }
            let (now, later) = rest.split_at_mut(n);
            for (v, s) in now.iter_mut().zip(&*sums) {
                *v += scale * s;
            }
            at += n;
            rest = later;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The guarded values are whole at every point where a panic could happen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stored<'a>(checkpoint: &'a Checkpoint, name: &str) -> Result<&'a StoredTensor> {
    checkpoint
        .get(name)
        .ok_or_else(|| Error::tensor(checkpoint.origin(), name, "is not in the file"))
}

/// `[rows, cols]` to `[cols, rows]`.
pub(super) fn transpose(m: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; m.len()];
    for r in 0..rows {
        for c in 0..cols {
            out[c * rows + r] = m[r * cols + c];
        }
    }
    out
}

/// True if IA3 scales the input of a module. The shape of the vector decides where it can (`[1, in]` or `[out, 1]`),
/// otherwise `feedforward_modules`.
fn is_feedforward(adapter: &AdapterFolder, module: &str) -> Result<bool> {
    let Some(l) = &adapter.modules[module].ia3 else {
        return Ok(false);
    };
    let shape = &stored(&adapter.tensors, l)?.shape;
    if shape.len() == 2 && shape[0] != shape[1] {
        return Ok(shape[0] == 1);
    }
    match &adapter.config.feedforward {
        Some(names) => names
            .matches(module)
            .map_err(|e| adapter.config.bad_pattern("feedforward_modules", &e)),
        None => Ok(false),
    }
}

/// Checks the shapes of a module against its base weight; true if the delta must be transposed.
fn fit(
    adapter: &AdapterFolder,
    module: &str,
    base: &Checkpoint,
    weight: &str,
    shape: &[usize],
) -> Result<bool> {
    let parts = &adapter.modules[module];
    let bad = |what: String| {
        Error::tensor(
            base.origin(),
            weight,
            format!("has shape {shape:?}, but module `{module}` of the adapter {what}"),
        )
        .with_hint("the adapter belongs to another base; its adapter_config.json names one in `base_model_name_or_path`")
    };
    if shape.len() < 2 {
        return Err(bad("needs a matrix".into()));
    }
    if let Some(l) = &parts.ia3 {
        let n = stored(&adapter.tensors, l)?.elements();
        let fifo = adapter.config.fan_in_fan_out && shape.len() == 2;
        let by_row = is_feedforward(adapter, module)? == fifo;
        let expected = shape[usize::from(!by_row)];
        if n != expected {
            return Err(bad(format!(
                "scales {n} values where {expected} are needed"
            )));
        }
        return Ok(fifo);
    }
    let (Some(a), Some(b)) = (&parts.a, &parts.b) else {
        return Err(bad("has no factors".into()));
    };
    let (a, b) = (stored(&adapter.tensors, a)?, stored(&adapter.tensors, b)?);
    let (inputs, outputs) = (a.row_len(), b.shape[0]);
    let kind = match (parts.embedding, a.shape.len()) {
        (true, _) => LayerKind::Embedding,
        (_, 2) => LayerKind::Linear,
        _ => LayerKind::Conv(a.shape[1..].to_vec()),
    };
    let wrong = || bad(format!("has A {:?} and B {:?}", a.shape, b.shape));
    match kind {
        LayerKind::Embedding if shape == [inputs, outputs] => Ok(true),
        LayerKind::Linear => {
            let (plain, flipped) = (shape == [outputs, inputs], shape == [inputs, outputs]);
            match (plain, flipped) {
                (true, true) => Ok(adapter.config.fan_in_fan_out),
                // PEFT corrects the switch by the class of the layer; only the shape tells here.
                (true, false) => Ok(false),
                (false, true) => Ok(true),
                _ => Err(wrong()),
            }
        }
        LayerKind::Conv(dims) if shape[0] == outputs && shape[1..] == dims => Ok(false),
        LayerKind::Conv(dims)
            if shape.len() == dims.len() + 1 && shape[1] < dims[0] && dims[0] % shape[1] == 0 =>
        {
            Err(bad(format!(
                "has A {:?}: a convolution with groups runs but cannot be merged",
                a.shape
            )))
        }
        _ => Err(wrong()),
    }
}
