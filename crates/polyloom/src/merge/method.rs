//! What a merge method is: a contract that planner and docs read, and a kernel that sees chunks.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{MergeError, Result};

/// Whether a method works against a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Must be given.
    Required,
    /// Used if given.
    Optional,
    /// Not special: a listed base is one more input.
    Ignored,
}

/// What a kernel covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One tensor; a kernel is made for each.
    Tensor,
    /// The whole model: one kernel surveys all float tensors, in ascending byte order of their names.
    Model,
}

/// The smallest piece a kernel can work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Any run of elements.
    Chunk,
    /// Whole rows of the last axis (a 1-d tensor is one row).
    Row,
    /// The whole tensor.
    Tensor,
}

/// What holds a method to the outside world.
#[derive(Debug, Clone, Copy)]
pub enum Golden {
    /// `method` words of golden manifests that hold its cases.
    Cases(&'static [&'static str]),
    /// Why it has none.
    None(&'static str),
}

/// The form of a parameter's value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A real number in a closed range.
    Number(f64, f64),
    /// A whole number in a closed range.
    Integer(i64, i64),
    /// `true` or `false`.
    Flag,
    /// One of these words. A pair is (accepted spelling, canonical word).
    Word(&'static [(&'static str, &'static str)]),
    /// `"l1"`, `"inverse"` or `false`; `true` is read as `"l1"`.
    Rescale,
    /// A number, or this word.
    NumberOr(&'static str),
    /// Free text (a task, a list name).
    Text,
    /// The path of a file; a relative one is looked for beside the recipe file, then in the working directory.
    File,
    /// A list of names.
    Names,
}

/// The value of a parameter nobody set.
#[derive(Debug, Clone, Copy)]
pub enum Unset {
    /// It is an error not to set it.
    Required,
    /// Required in a mergekit file; this number in a `loom.toml`.
    RequiredInYaml(f64),
    /// A number.
    Number(f64),
    /// A flag.
    Flag(bool),
    /// A word.
    Word(&'static str),
    /// Stays unset.
    Nothing,
}

/// One parameter of a method: name, form, default and the line of help.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// The recipe word.
    pub name: &'static str,
    /// Given per input (`[merge.each]`, `[expert.merge]`) instead of once.
    pub each: bool,
    /// May be a gradient or a list of filters (resolved per tensor).
    pub per_tensor: bool,
    /// Form and range.
    pub kind: Kind,
    /// Default.
    pub unset: Unset,
    /// What it does, one sentence.
    pub doc: &'static str,
}

impl Param {
    /// Given once per merge; may vary by tensor.
    pub const fn shared(name: &'static str, kind: Kind, unset: Unset, doc: &'static str) -> Self {
        Self {
            name,
            each: false,
            per_tensor: true,
            kind,
            unset,
            doc,
        }
    }

    /// Given per input; may vary by tensor.
    pub const fn each(name: &'static str, kind: Kind, unset: Unset, doc: &'static str) -> Self {
        Self {
            name,
            each: true,
            per_tensor: true,
            kind,
            unset,
            doc,
        }
    }

    /// The same for all tensors: a list is an error at the plan.
    #[must_use]
    pub const fn whole(mut self) -> Self {
        self.per_tensor = false;
        self
    }
}

/// The contract of a method.
#[derive(Debug)]
pub struct Spec {
    /// Registry name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper or program, section.
    pub source: &'static str,
    /// The formula, in Markdown.
    pub formula: &'static str,
    /// Where a peer's same name does something else; empty if nowhere.
    pub differs: &'static str,
    /// Time and passes in words.
    pub cost: &'static str,
    /// Base rule.
    pub base: Base,
    /// Fewest and most inputs, the base not counted (for `Base::Ignored` a listed base counts).
    pub experts: (usize, usize),
    /// Inputs arrive as task vectors `W_i - W0` and the kernel yields the merged vector `V`; else inputs arrive as
    /// weights and the kernel yields the result.
    pub deltas: bool,
    /// What a kernel covers.
    pub scope: Scope,
    /// All parameters.
    pub params: &'static [Param],
    /// The inner method of a method that works on another merge's multi-task vector.
    pub on: Option<&'static str>,
    /// Its test vectors.
    pub golden: Golden,
    /// What to do with a tensor that some inputs lack.
    pub missing: Missing,
}

/// What a method does with an optional tensor that some inputs lack (methods/merging.md 9.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// An error.
    Refuse,
    /// A lone tensor is copied (slerp family).
    CopyLone,
    /// Copied if the base has it and nobody else does, else an error (nearswap).
    CopyBase,
    /// The base's is copied; without one the tensor is left out (model_stock).
    CopyBaseOrSkip,
}

/// Parameters of one tensor (and, for per-input ones, one expert), checked and completed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(BTreeMap<&'static str, Value>);

impl Values {
    /// Sets a value (the planner's side).
    pub fn set(&mut self, name: &'static str, value: Value) {
        self.0.insert(name, value);
    }

    /// A number; the planner has made sure that it is there.
    ///
    /// # Panics
    /// If the method did not declare `name` or it may be unset (a bug).
    pub fn number(&self, name: &str) -> f64 {
        self.maybe(name)
            .unwrap_or_else(|| panic!("parameter `{name}` was not resolved"))
    }

    /// A number that may be unset.
    pub fn maybe(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// A flag; unset is `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A word; unset is empty.
    pub fn word(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// A list of names; unset is empty.
    pub fn names(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        }
    }

    /// All pairs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(k, v)| (*k, v))
    }
}

/// One output tensor as a kernel sees it.
#[derive(Debug, Clone)]
pub struct TensorJob {
    /// Name in the output.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Once-per-merge parameters, resolved for this tensor.
    pub shared: Values,
    /// Per-input parameters, resolved for this tensor, in input order.
    pub each: Vec<Values>,
    /// Index of the layer in its block list and the list's length, if the tensor is inside one.
    pub layer: Option<(usize, usize)>,
    /// Elements of the float tensors before this one (whole-model order).
    pub before: u64,
}

impl TensorJob {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of a row of the last axis; a 1-d tensor is one row, a scalar has length 1.
    pub fn last_axis(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Statistics that arrive as files (methods/merging.md section 5), read on demand.
pub trait Statistics: Send + Sync {
    /// Shape of expert `expert`'s tensor `name` (`<weight>.gram`, `<weight>.fisher`), if it has one.
    fn shape(&self, expert: usize, name: &str) -> Option<Vec<usize>>;
    /// Fills `out` with elements `start..` of it.
    fn read(&self, expert: usize, name: &str, start: usize, out: &mut [f32]) -> Result<()>;
    /// The file of an expert's statistics, for messages; `None` if it has none.
    fn file(&self, expert: usize) -> Option<String> {
        let _ = expert;
        None
    }
}

/// Makes the kernel of an `on = {…}` merge; see [`Job::inner`].
pub type InnerMaker = dyn Fn(&Job) -> Result<Box<dyn Kernel>> + Send + Sync;

/// What a kernel is made for: one tensor, or all float tensors of the model in name order.
#[derive(Clone)]
pub struct Job {
    /// The tensors.
    pub tensors: Vec<Arc<TensorJob>>,
    /// Names of the experts, in input order.
    pub experts: Vec<String>,
    /// True if chunks carry a base.
    pub has_base: bool,
    /// The recipe's seed.
    pub seed: u64,
    /// Statistics files, if the recipe names any.
    pub statistics: Option<Arc<dyn Statistics>>,
    /// Maker of the inner kernel, for methods with `on`.
    pub inner_maker: Option<Arc<InnerMaker>>,
}

impl Job {
    /// The kernel of the `on` merge: its `apply` yields the multi-task vector `T` for the same chunks.
    /// The caller must run the inner kernel's survey rounds before its own.
    pub fn inner(&self) -> Result<Box<dyn Kernel>> {
        match &self.inner_maker {
            Some(make) => make(self),
            None => Err(MergeError::Internal("method has no inner merge".into())),
        }
    }
}

/// A run of elements of one tensor: equal lengths everywhere.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    /// The tensor.
    pub tensor: &'a TensorJob,
    /// Its index in [`Job::tensors`].
    pub index: usize,
    /// First element.
    pub start: usize,
    /// Base values.
    pub base: Option<&'a [f32]>,
    /// Task vectors or weights (see [`Spec::deltas`]), in input order.
    pub inputs: &'a [&'a [f32]],
}

impl Chunk<'_> {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty, reason = "chunks are never empty")]
    pub fn len(&self) -> usize {
        self.inputs
            .first()
            .map_or_else(|| self.base.map_or(0, <[f32]>::len), |x| x.len())
    }
}

/// What a survey found in one chunk; the kernel that made it is the one that absorbs it.
pub type Partial = Box<dyn Any + Send>;

/// Whether another pass over the data is needed before `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// One more survey round.
    Again,
    /// Ready.
    Done,
}

/// A piece of a method's result beyond the merged tensor (mask bundles).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The vector that all tasks share.
    Shared,
    /// The mask of expert `i`, as 0.0 and 1.0.
    Mask(usize),
}

/// The arithmetic of one merge over one tensor or the whole model.
///
/// The engine calls, for round 0, 1, ...: `survey` for every chunk (any order, any thread), then `absorb` for the
/// answers in (tensor, chunk) order, then `finish`; when `finish` says [`Next::Done`] it calls `apply` for every
/// chunk. Chunks start at multiples of [`BLOCK`] (or at rows, by [`Kernel::unit`]); sums that must not depend on the
/// chunk size are kept per block of [`BLOCK`] elements and added in order (see [`super::survey::BlockSums`]).
pub trait Kernel: Send + Sync {
    /// True if at least one survey round is needed.
    fn surveys(&self) -> bool {
        false
    }
    /// The smallest piece.
    fn unit(&self) -> Unit {
        Unit::Chunk
    }
    /// True if the coming survey round is content with a sample of the elements. It may still be shown all of them,
    /// and what it is shown in such a round are not the chunks of `apply`.
    fn samples(&self) -> bool {
        false
    }
    /// True if a full survey makes tables of about 10^4 entries for every chunk: chunks are then larger.
    fn tabulates(&self) -> bool {
        true
    }
    /// Looks at a chunk in round `round`.
    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        let _ = (round, chunk);
        Ok(Box::new(()))
    }
    /// Takes what `survey` found, in order of (tensor, chunk).
    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        let _ = (round, partial);
        Ok(())
    }
    /// Ends a round.
    fn finish(&mut self, round: usize) -> Result<Next> {
        let _ = round;
        Ok(Next::Done)
    }
    /// Computes the result (or the merged vector `V`) for a chunk. `out` has the chunk's length and unspecified content.
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()>;
    /// Computes the result (or the merged vector) of a whole tensor piece by piece, for kernels of [`Unit::Tensor`] that
    /// need not hold it; `false`, with nothing written, if this one must.
    fn pieces(&self, tensor: &TensorJob, pieces: &mut dyn Pieces) -> Result<bool> {
        let _ = (tensor, pieces);
        Ok(false)
    }
    /// Computes a part of the result for a chunk; `false` if the method has no such part.
    fn part(&self, part: Part, chunk: &Chunk, out: &mut [f32]) -> Result<bool> {
        let _ = (part, chunk, out);
        Ok(false)
    }
    /// The number that scales task `i`'s restored model, for methods that have one (EMR).
    fn task_scale(&self, task: usize) -> Option<f64> {
        let _ = task;
        None
    }
}

/// The inputs of a whole tensor (task vectors, for methods that take those) and its result, piece by piece.
pub trait Pieces {
    /// Fills `out` with elements of an input from `start` on; as often as one likes.
    ///
    /// # Errors
    /// The input cannot be read.
    fn read(&mut self, input: usize, start: usize, out: &mut [f32]) -> Result<()>;
    /// Takes elements of the result from `start` on, every one once, in any order; `values` is left with any content.
    ///
    /// # Errors
    /// The output cannot be written.
    fn write(&mut self, start: usize, values: &mut [f32]) -> Result<()>;
}

/// Elements of one block of order-independent sums; chunk starts are multiples of it.
pub const BLOCK: usize = 4096;

/// A merge method: its contract and the maker of its kernels.
pub trait Method: Sync {
    /// The contract.
    fn spec(&self) -> &'static Spec;
    /// A kernel for one tensor ([`Scope::Tensor`]) or the whole model.
    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>>;
    /// Looks at a whole group (all its tensors, whatever the scope) while planning, when headers and small files can be
    /// read but no tensor data: what it finds wrong ends the plan, what it returns is said to the user as notes.
    ///
    /// # Errors
    /// The group cannot be merged, for instance because a statistic is missing.
    fn check(&self, job: &Job) -> Result<Vec<String>> {
        let _ = job;
        Ok(Vec::new())
    }
}

/// Gives a kernel's partial its type back.
///
/// # Errors
/// [`MergeError::Internal`] if it is another kernel's.
pub fn typed<T: 'static>(partial: Partial) -> Result<T> {
    partial
        .downcast::<T>()
        .map(|b| *b)
        .map_err(|_| MergeError::Internal("survey partial of another kernel".into()))
}
