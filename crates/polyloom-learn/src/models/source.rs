//! Where an architecture gets its weights from, and where others may put something in between.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use super::gates::Kept;
use crate::engine::{Parameters, Tensor, Value, slice, tensor};
use crate::error::{Error, In, Result};
use crate::ops::{self, Attend, Moments, Norm};

/// A place in a model where an adapter may change what flows by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// The embedded input, before the first layer.
    Embedded,
    /// The output of a layer's attention, before it joins the stream.
    Attention(usize),
    /// The output of a layer's feed-forward part, before it joins the stream.
    FeedForward(usize),
    /// The stream after a layer.
    Layer(usize),
}

/// Weights by the names of the checkpoint.
pub trait Source {
    /// A tensor of a name; `None` where there is none.
    ///
    /// # Errors
    /// What making it refuses.
    fn find(&self, name: &str) -> Result<Option<Value>>;

    /// A tensor that must be there.
    ///
    /// # Errors
    /// None of that name, and as [`Source::find`].
    fn tensor(&self, name: &str) -> Result<Value> {
        self.find(name)?.ok_or_else(|| Error::Missing {
            name: name.to_owned(),
        })
    }

    /// The linear layer `name.weight`, `name.bias` (where there is one) on an input.
    ///
    /// # Errors
    /// No such weight, shapes that do not fit.
    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let bias = self.find(&format!("{name}.bias"))?;
        ops::linear(x, &self.tensor(&format!("{name}.weight"))?, bias.as_ref())
    }

    /// The layer norm `name.weight`, `name.bias` of an input.
    ///
    /// # Errors
    /// No such tensors, shapes that do not fit.
    fn layer_norm(&self, name: &str, x: &Value, eps: f32) -> Result<Value> {
        let (w, b) = (
            self.tensor(&format!("{name}.weight"))?,
            self.tensor(&format!("{name}.bias"))?,
        );
        ops::norm(x, &w, Some(&b), Norm::layer(eps))
    }

    /// The batch norm `name.weight`, `name.bias` of the columns of an input: over the batch where [`Source::batch_statistics`]
    /// says so, else by `name.running_mean` and `name.running_var`. Over a batch it tells [`Source::note`] their new values,
    /// `0.9` of what they were and `0.1` of what the batch has (variances over one row less: PyTorch's rule and momentum).
    ///
    /// # Errors
    /// No such tensors, shapes that do not fit, one row alone as a batch; training whose source keeps no running values.
    fn batch_norm(&self, name: &str, x: &Value, eps: f32) -> Result<Value> {
        let tensor = |part: &str| self.tensor(&format!("{name}.{part}"));
        let (w, b) = (tensor("weight")?, tensor("bias")?);
        let of = |part: &str| -> Result<Vec<f32>> {
            let running = tensor(part)?.data().contiguous().during("batch norm")?;
            Ok(slice(&running)?.to_vec())
        };
        let running = Moments {
            mean: of("running_mean")?,
            variance: of("running_var")?,
        };
        if !self.batch_statistics(name) {
            // A norm that learns by values which stay as they began would be another one in inference.
            if self.dropout().is_some() && w.wants_gradient() {
                return Err(Error::shape(
                    "batch norm",
                    format!("`{name}` is trained by a source that keeps no running values"),
                ));
            }
            return Ok(ops::batch_norm(x, &w, &b, Some(running), eps)?.0);
        }
        let (y, found) = ops::batch_norm(x, &w, &b, None, eps)?;
        if let Some(found) = found {
            let rows = x.data().elem_count() / found.mean.len().max(1);
            let more = rows as f32 / (rows as f32 - 1.0).max(1.0);
            for (part, old, new, factor) in [
                ("running_mean", running.mean, found.mean, 1.0),
                ("running_var", running.variance, found.variance, more),
            ] {
                let both = old.iter().zip(new);
                let moved = both.map(|(o, n)| (1.0 - MOMENTUM) * o + MOMENTUM * factor * n);
                self.note(&format!("{name}.{part}"), moved.collect());
            }
        }
        Ok(y)
    }

    /// Whether the batch norm of a name takes the statistics of the batch: in training, by a source that keeps what
    /// [`Source::note`] says.
    fn batch_statistics(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Is told what a running statistic should be after this pass.
    fn note(&self, name: &str, values: Vec<f32>) {
        let _ = (name, values);
    }

    /// The dropout of a place of the model (every place draws on its own); the same value outside of training.
    ///
    /// # Errors
    /// A rate that is not in 0 to below 1.
    fn dropped(&self, x: Value, rate: f32, place: u64) -> Result<Value> {
        match self.dropout() {
            Some(seed) => ops::dropout(&x, rate, place_seed(seed, place)),
            None => Ok(x),
        }
    }

    /// An attention's rule with the dropout of its probabilities at a place of the model; as it is outside of training.
    fn attending(&self, rule: Attend, rate: f32, place: u64) -> Attend {
        match self.dropout() {
            Some(seed) => Attend {
                dropout: rate,
                seed: place_seed(seed, place),
                ..rule
            },
            None => rule,
        }
    }

    /// What goes on from a place; the same value where nothing is put in.
    ///
    /// # Errors
    /// What is put in may refuse.
    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        let _ = point;
        Ok(x)
    }

    /// Is told what keeps a mixture's experts in use: `make` gives what is to be added to the loss. It is not asked for where
    /// nothing is learned.
    ///
    /// # Errors
    /// What `make` reports.
    fn penalty(&self, make: &mut dyn FnMut() -> Result<Value>) -> Result<()> {
        let _ = make;
        Ok(())
    }

    /// Is told which experts the gate of a layer keeps for rows of a goal.
    ///
    /// # Errors
    /// What the source makes of it may refuse.
    fn routed(&self, layer: &str, goal: usize, kept: &Kept) -> Result<()> {
        let _ = (layer, goal, kept);
        Ok(())
    }

    /// Seed of the dropout of this pass; `None` for none: inference.
    fn dropout(&self) -> Option<u64> {
        None
    }
}

/// The share of a batch in running statistics.
const MOMENTUM: f32 = 0.1;

/// A number of a name, for seeds: FNV-1a.
pub(crate) fn place_of(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Names of the linear layers of a layer, without `.weight` and `.bias`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerParts {
    /// Queries, keys, values.
    pub inward: [String; 3],
    /// What joins the heads.
    pub joined: String,
    /// What the channels of the feed-forward part are multiplied by, after the activation; of those that are gated.
    pub gated: Option<String>,
    /// Into the feed-forward part.
    pub up: String,
    /// Out of it.
    pub down: String,
    /// What the tensors of experts in place of these begin with.
    pub moe: String,
}

/// Heads of a layer, by the width of its queries: a layer may have lost some (`polyloom compress prune`), each keeps its width.
pub(crate) fn heads_of(query: &Value, hidden: usize, heads: usize) -> usize {
    let width = query.dims().last().copied().unwrap_or(0);
    match hidden / heads.max(1) {
        0 => heads,
        dim if width.is_multiple_of(dim) && width > 0 => width / dim,
        _ => heads,
    }
}

/// Seed of a place of the model, of that of the pass.
fn place_seed(seed: u64, place: u64) -> u64 {
    seed.wrapping_mul(1009).wrapping_add(place)
}

/// Tensors as they are, without gradients.
#[derive(Debug, Default, Clone)]
pub struct Plain {
    tensors: HashMap<String, Value>,
}

impl Plain {
    /// Of named tensors.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let tensors = tensors
            .into_iter()
            .map(|(name, t)| (name, Value::constant(t)));
        Self {
            tensors: tensors.collect(),
        }
    }
}

impl Plain {
    /// The tensors by name, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(n, v)| (n.as_str(), v.data()))
    }

    /// The same with others added, or in place of those of the same name.
    #[must_use]
    pub fn with(&self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let mut all = self.clone();
        let tensors = tensors.into_iter();
        all.tensors
            .extend(tensors.map(|(name, t)| (name, Value::constant(t))));
        all
    }
}

impl Source for Plain {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        Ok(self.tensors.get(name).cloned())
    }
}

/// Whether a tensor is a running statistic of a batch norm: part of a model, and no gradient moves it.
pub fn is_statistic(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

/// What batch norms said of their running statistics, by name.
pub type Noted = RefCell<BTreeMap<String, Vec<f32>>>;

/// Parameters in training among which are running statistics: their batch norms take the statistics of the batch, and what
/// they say of the running ones is kept. Norms whose statistics are not among the parameters stay as they are.
pub struct Noting<'a> {
    /// What is trained.
    pub trained: Trained<'a>,
    /// What was said; the last word counts, and each begins with the one before, as PyTorch's does.
    pub noted: &'a Noted,
}

impl Source for Noting<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        let found = self.trained.find(name)?;
        let noted = self.noted.borrow();
        match (found, noted.get(name).filter(|_| is_statistic(name))) {
            // A norm that is passed again, for another goal or another batch of the step, goes on from there.
            (Some(before), Some(now)) => {
                let now = tensor(now.clone(), before.dims())?;
                Ok(Some(Value::constant(now)))
            }
            (found, _) => Ok(found),
        }
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        self.trained.linear(name, x)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.trained.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.trained.dropout()
    }

    fn batch_statistics(&self, name: &str) -> bool {
        let running = format!("{name}.running_mean");
        self.trained.parameters.get(&running).is_some()
    }

    fn note(&self, name: &str, values: Vec<f32>) {
        self.noted.borrow_mut().insert(name.to_owned(), values);
    }
}

/// A source in training that keeps what [`Source::penalty`] is told.
pub struct Penalised<'a> {
    inner: &'a dyn Source,
    sum: RefCell<Option<Value>>,
}

impl<'a> Penalised<'a> {
    /// Over a source.
    pub fn over(inner: &'a dyn Source) -> Self {
        Self {
            inner,
            sum: RefCell::default(),
        }
    }

    /// The sum of all that was told; `None` where nothing was.
    pub fn sum(self) -> Option<Value> {
        self.sum.into_inner()
    }
}

impl Source for Penalised<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.inner.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        self.inner.linear(name, x)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.inner.pass(point, x)
    }

    fn penalty(&self, make: &mut dyn FnMut() -> Result<Value>) -> Result<()> {
        let told = make()?;
        let mut sum = self.sum.borrow_mut();
        *sum = Some(match sum.take() {
            Some(before) => ops::add(&before, &told)?,
            None => told,
        });
        Ok(())
    }

    fn dropout(&self) -> Option<u64> {
        self.inner.dropout()
    }

    fn batch_statistics(&self, name: &str) -> bool {
        self.inner.batch_statistics(name)
    }

    fn note(&self, name: &str, values: Vec<f32>) {
        self.inner.note(name, values);
    }
}

/// Parameters in training, and everything else from another source.
pub struct Trained<'a> {
    /// What gets gradients.
    pub parameters: &'a Parameters,
    /// The rest.
    pub frozen: &'a dyn Source,
    /// Seed of the dropout of this step.
    pub seed: Option<u64>,
}

impl Source for Trained<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        match self.parameters.get(name) {
            Some(parameter) => Ok(Some(parameter.value.clone())),
            None => self.frozen.find(name),
        }
    }

    fn dropout(&self) -> Option<u64> {
        self.seed
    }
}
