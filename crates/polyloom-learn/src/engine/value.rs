//! The graph: values, what made them, and the way back.

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

use super::gradients::{Gradients, Into};
use super::meaning::Meaning;
use crate::error::{Error, In, Result};

/// What made a value, and how gradients pass it.
pub trait Op: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// What it computes, where others can write it down; `None` where nobody has to.
    fn meaning(&self) -> Option<Meaning<'_>> {
        None
    }

    /// Hands the gradients of the inputs to `into`, from the gradient of the output.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn backward(
        &self,
        inputs: &[Value],
        output: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()>;
}

/// A tensor in a graph. Cheap to clone; values that need no gradient carry no graph.
#[derive(Clone)]
pub struct Value(Arc<Node>);

struct Node {
    id: u64,
    data: Tensor,
    wants: bool,
    origin: Option<Origin>,
}

struct Origin {
    op: Box<dyn Op>,
    inputs: Vec<Value>,
}

/// Later values have larger numbers, so that numbers order the graph.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = self.0.origin.as_ref().map_or("given", |o| o.op.name());
        write!(
            f,
            "Value({made}, {:?}, gradient: {})",
            self.0.data.dims(),
            self.0.wants
        )
    }
}

impl Drop for Node {
    /// One after the other: a long graph must not use up the stack.
    fn drop(&mut self) {
        let mut open: Vec<Value> = self.origin.take().map(|o| o.inputs).unwrap_or_default();
        while let Some(value) = open.pop() {
            if let Some(mut node) = Arc::into_inner(value.0) {
                open.extend(node.origin.take().map(|o| o.inputs).unwrap_or_default());
            }
        }
    }
}

impl Value {
    fn node(data: Tensor, wants: bool, origin: Option<Origin>) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Node {
            id,
            data,
            wants,
            origin,
        }))
    }

    /// A value without gradient: data, frozen weights.
    pub fn constant(data: Tensor) -> Self {
        Self::node(data, false, None)
    }

    /// A value whose gradient is wanted.
    pub fn leaf(data: Tensor) -> Self {
        Self::node(data, true, None)
    }

    /// The output of an operation. Where no input wants a gradient, nothing of the graph is kept.
    pub fn made(data: Tensor, op: impl Op + 'static, inputs: &[&Self]) -> Self {
        if inputs.iter().any(|v| v.0.wants) {
            let inputs = inputs.iter().map(|v| (*v).clone()).collect();
            Self::node(
                data,
                true,
                Some(Origin {
                    op: Box::new(op),
                    inputs,
                }),
            )
        } else {
            Self::constant(data)
        }
    }

    /// The numbers.
    pub fn data(&self) -> &Tensor {
        &self.0.data
    }

    /// Its lengths.
    pub fn dims(&self) -> &[usize] {
        self.0.data.dims()
    }

    /// The value that lies at these places of an axis where this one is several side by side. Its gradient does not go
    /// through this one then, whose other parts it does not concern.
    pub(crate) fn part(&self, axis: usize, start: usize, length: usize) -> Option<Self> {
        let origin = self.0.origin.as_ref()?;
        if origin.op.meaning() != Some(Meaning::Concat(axis)) {
            return None;
        }
        let mut at = 0;
        for input in &origin.inputs {
            let own = input.dims().get(axis)?;
            if at == start && *own == length {
                return Some(input.clone());
            }
            at += own;
        }
        None
    }

    /// Whether a gradient flows here.
    pub fn wants_gradient(&self) -> bool {
        self.0.wants
    }

    /// Later values have larger ones.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// What made it, and of which values; `None` of a leaf and where no graph is kept.
    pub fn origin(&self) -> Option<(&dyn Op, &[Self])> {
        let origin = self.0.origin.as_ref()?;
        Some((&*origin.op, &origin.inputs))
    }

    /// The same numbers without a graph.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self::constant(self.0.data.clone())
    }

    /// The one number of a value.
    ///
    /// # Errors
    /// More than one element.
    pub fn number(&self) -> Result<f32> {
        self.0
            .data
            .flatten_all()
            .and_then(|t| t.reshape(()))
            .and_then(|t| t.to_scalar())
            .during("number")
    }

    /// Gradients of this one number with respect to every leaf it was made from.
    ///
    /// # Errors
    /// More than one element, and what the kernels refuse.
    pub fn backward(&self) -> Result<Gradients> {
        let mut gradients = Gradients::default();
        self.backward_into(&mut gradients)?;
        Ok(gradients)
    }

    /// The same, added to gradients that are there: [`Gradients::keep`] says of which values inside of the graph the
    /// gradient is kept, [`super::Parameters::gradients`] where those of parameters are written. The graph stays: several
    /// values of one graph can go back one after the other.
    ///
    /// # Errors
    /// As [`Value::backward`].
    pub fn backward_into(&self, gradients: &mut Gradients) -> Result<()> {
        if self.0.data.elem_count() != 1 {
            return Err(Error::shape(
                "backward",
                format!("a value of {:?} is no single number", self.dims()),
            ));
        }
        self.backward_from(self.0.data.ones_like().during("backward")?, gradients)
    }

    /// The way back from a gradient of this value.
    ///
    /// # Errors
    /// A gradient of another shape, and what the kernels refuse.
    pub fn backward_from(&self, grad: Tensor, gradients: &mut Gradients) -> Result<()> {
        if grad.dims() != self.dims() {
            return Err(Error::shape(
                "backward",
                format!(
                    "a gradient of {:?} for a value of {:?}",
                    grad.dims(),
                    self.dims()
                ),
            ));
        }
        if !self.0.wants {
            return Ok(());
        }
        let mut open = BinaryHeap::new();
        let mut into = Into {
            gradients,
            inputs: &[],
            reached: Vec::new(),
        };
        into.start(self, grad)?;
        open.push(Next(self.clone()));
        while let Some(Next(value)) = open.pop() {
            let Some(origin) = &value.0.origin else {
                continue;
            };
            let Some(grad) = into.gradients.take(&value) else {
                continue;
            };
            let mut into = Into {
                gradients: into.gradients,
                inputs: &origin.inputs,
                reached: Vec::new(),
            };
            origin
                .op
                .backward(&origin.inputs, &value.0.data, &grad, &mut into)?;
            open.extend(into.reached.into_iter().map(Next));
        }
        Ok(())
    }
}

struct Next(Value);

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.0.0.id == other.0.0.id
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.0.id.cmp(&other.0.0.id)
    }
}
