//! Gradients by value: kept, added to, written in place.

use std::collections::{HashMap, HashSet};

use candle_core::Tensor;
use polyloom_core::nn::elementwise::{add_assign, map2};
use polyloom_core::nn::embedding::{Rows, add_backward};
use polyloom_core::nn::matmul::{self, Threads, View, ViewMut};

use super::slice::{on_cpu, slice, tensor, write};
use super::value::Value;
use crate::error::{Error, In, Result};

/// Gradients of the leaves, and of the values inside of the graph that were asked for.
#[derive(Debug, Default)]
pub struct Gradients {
    slots: HashMap<u64, Slot>,
    kept: HashSet<u64>,
    by_rows: bool,
}

#[derive(Debug, Clone)]
enum Slot {
    /// A place that waits: the first gradient is written over what is there.
    Empty(Tensor),
    /// Ours alone: later ones are added in place.
    Owned(Tensor),
    /// Others hold it too.
    Shared(Tensor),
    /// Of a table, so far reached by lookups alone: the rows that were looked up, and the place for the whole.
    Rows(Tensor, Rows),
}

impl Slot {
    /// The gradient of a whole table in its place.
    fn whole(self) -> Result<Self> {
        match self {
            Self::Rows(place, rows) if rows.rows.is_empty() => Ok(Self::Empty(place)),
            Self::Rows(place, rows) => {
                let width = place.dims().last().copied().unwrap_or_default();
                write(&place, |to| rows.write(to, width))?;
                Ok(Self::Owned(place))
            }
            other => Ok(other),
        }
    }
}

impl Gradients {
    /// The gradient of a value; `None` where none reached it, or where it is kept by rows.
    pub fn get(&self, value: &Value) -> Option<&Tensor> {
        match self.slots.get(&value.id())? {
            Slot::Empty(_) | Slot::Rows(..) => None,
            Slot::Owned(t) | Slot::Shared(t) => Some(t),
        }
    }

    /// The gradient of a table that only lookups reached, where it is kept by rows
    /// ([`super::Parameters::gradients_by_rows`]); no rows where nothing reached it.
    pub fn rows(&self, value: &Value) -> Option<&Rows> {
        match self.slots.get(&value.id())? {
            Slot::Rows(_, rows) => Some(rows),
            _ => None,
        }
    }

    /// Whether gradients of tables are kept by rows.
    pub fn by_rows(&self) -> bool {
        self.by_rows
    }

    /// Keeps the gradient of a value inside of the graph.
    pub fn keep(&mut self, value: &Value) {
        self.kept.insert(value.id());
    }

    /// A place for the gradient of a value; what is there does not count.
    pub(super) fn place(&mut self, value: &Value, at: Tensor) {
        self.slots.insert(value.id(), Slot::Empty(at));
    }

    /// A gradient that is there.
    pub(super) fn set(&mut self, value: &Value, gradient: Tensor) {
        self.slots.insert(value.id(), Slot::Owned(gradient));
    }

    /// A place for the gradient of a table, kept by rows as long as only lookups reach it.
    pub(super) fn place_rows(&mut self, value: &Value, at: Tensor) {
        self.by_rows = true;
        self.slots
            .insert(value.id(), Slot::Rows(at, Rows::default()));
    }

    /// The slot of a value, taken out, as a whole.
    fn remove(&mut self, value: &Value) -> Result<Option<Slot>> {
        self.slots.remove(&value.id()).map(Slot::whole).transpose()
    }

    pub(super) fn take(&mut self, value: &Value) -> Option<Tensor> {
        let id = value.id();
        match self.slots.remove(&id)? {
            // Rows are kept for leaves, which nothing goes on from.
            Slot::Empty(_) | Slot::Rows(..) => None,
            Slot::Owned(t) | Slot::Shared(t) => {
                if self.kept.contains(&id) {
                    self.slots.insert(id, Slot::Shared(t.clone()));
                }
                Some(t)
            }
        }
    }
}

/// Where an operation puts the gradients of its inputs.
pub struct Into<'a> {
    pub(super) gradients: &'a mut Gradients,
    pub(super) inputs: &'a [Value],
    pub(super) reached: Vec<Value>,
}

impl Into<'_> {
    /// Whether the gradient of an input is wanted.
    pub fn wants(&self, input: usize) -> bool {
        self.inputs[input].wants_gradient()
    }

    pub(super) fn start(&mut self, value: &Value, grad: Tensor) -> Result<()> {
        self.put(value, Slot::Shared(grad))
    }

    /// Hands over a gradient that nothing else holds.
    ///
    /// # Errors
    /// A gradient of another shape than its input.
    pub fn give(&mut self, input: usize, grad: Tensor) -> Result<()> {
        self.hand(input, Slot::Owned(grad))
    }

    /// Hands over a gradient that others may hold.
    ///
    /// # Errors
    /// As [`Into::give`].
    pub fn share(&mut self, input: usize, grad: &Tensor) -> Result<()> {
        self.hand(input, Slot::Shared(grad.clone()))
    }

    /// Elements of a gradient on the processor, nothing else holds them.
    ///
    /// # Errors
    /// Another number of elements than the input has.
    pub fn give_values(&mut self, input: usize, grad: Vec<f32>) -> Result<()> {
        if !self.wants(input) {
            return Ok(());
        }
        let shape = self.inputs[input].dims().to_vec();
        self.give(input, tensor(grad, shape)?)
    }

    fn hand(&mut self, input: usize, slot: Slot) -> Result<()> {
        if !self.wants(input) {
            return Ok(());
        }
        let value = self.inputs[input].clone();
        self.put(&value, slot)
    }

    fn put(&mut self, value: &Value, slot: Slot) -> Result<()> {
        let (Slot::Empty(new) | Slot::Owned(new) | Slot::Shared(new) | Slot::Rows(new, _)) = &slot;
        if new.dims() != value.dims() {
            return Err(Error::shape(
                "gradient",
                format!("{:?} for a value of {:?}", new.dims(), value.dims()),
            ));
        }
        let merged = match self.gradients.remove(value)? {
            None | Some(Slot::Rows(..)) => {
                self.reached.push(value.clone());
                slot
            }
            Some(Slot::Empty(place)) => {
                self.reached.push(value.clone());
                if on_cpu([&place, new]) {
                    let new = new.contiguous().during("gradient")?;
                    let new = slice(&new)?;
                    write(&place, |to| to.copy_from_slice(&new))?;
                    Slot::Owned(place)
                } else {
                    slot
                }
            }
            Some(Slot::Owned(old) | Slot::Shared(old)) if !on_cpu([&old, new]) => {
                Slot::Owned((old + new).during("gradient")?)
            }
            Some(Slot::Owned(old)) => {
                let new = new.contiguous().during("gradient")?;
                let new = slice(&new)?;
                write(&old, |to| add_assign(to, &new))?;
                Slot::Owned(old)
            }
            Some(Slot::Shared(old)) => match slot {
                Slot::Owned(new) => {
                    let old = old.contiguous().during("gradient")?;
                    let old = slice(&old)?;
                    write(&new, |to| add_assign(to, &old))?;
                    Slot::Owned(new)
                }
                _ => {
                    let (old, new) = (
                        old.contiguous().during("gradient")?,
                        new.contiguous().during("gradient")?,
                    );
                    let both = map2(
                        &slice(&old)?,
                        &slice(&new)?,
                        #[inline(always)]
                        |a, b| a + b,
                    );
                    Slot::Owned(tensor(both, value.dims())?)
                }
            },
        };
        self.gradients.slots.insert(value.id(), merged);
        Ok(())
    }

    /// Adds the product `a b` to the gradient of an input on the processor.
    ///
    /// # Errors
    /// A place that is not on the processor.
    pub fn product(&mut self, input: usize, a: View<'_>, b: View<'_>) -> Result<()> {
        if !self.wants(input) {
            return Ok(());
        }
        if !self.gradients.slots.contains_key(&self.inputs[input].id()) {
            return self.give_values(input, matmul::product(1.0, a, b, Threads::All));
        }
        let (rows, columns) = (a.rows(), b.columns());
        self.write(input, |to, add| {
            matmul::matmul(
                ViewMut::new(to, rows, columns),
                add,
                1.0,
                a,
                b,
                Threads::All,
            );
        })
    }

    /// Adds the gradients of looked-up rows to that of a table on the processor.
    ///
    /// # Errors
    /// A place that is not on the processor.
    pub fn add_rows(&mut self, input: usize, ids: &[u32], grad: &[f32]) -> Result<()> {
        let width = self.inputs[input].dims()[1];
        let id = self.inputs[input].id();
        if let Some(Slot::Rows(_, rows)) = self.gradients.slots.get_mut(&id) {
            rows.add(width, ids, grad);
            return Ok(());
        }
        self.write(input, |to, add| {
            if !add {
                to.fill(0.0);
            }
            add_backward(to, width, ids, grad);
        })
    }

    /// Lets `f(elements, add)` write the gradient of an input on the processor: over what is there, or with `add` onto it.
    ///
    /// # Errors
    /// A place that is not on the processor.
    pub fn write(&mut self, input: usize, f: impl FnOnce(&mut [f32], bool)) -> Result<()> {
        if !self.wants(input) {
            return Ok(());
        }
        let value = self.inputs[input].clone();
        let place = match self.gradients.remove(&value)? {
            Some(Slot::Owned(place)) => {
                write(&place, |to| f(to, true))?;
                place
            }
            Some(Slot::Empty(place)) => {
                self.reached.push(value.clone());
                write(&place, |to| f(to, false))?;
                place
            }
            shared => {
                let mut values = vec![0f32; value.data().elem_count()];
                let place = match &shared {
                    Some(Slot::Shared(old)) => {
                        let old = old.contiguous().during("gradient")?;
                        values.copy_from_slice(&slice(&old)?);
                        f(&mut values, true);
                        values
                    }
                    _ => {
                        self.reached.push(value.clone());
                        f(&mut values, false);
                        values
                    }
                };
                tensor(place, value.dims())?
            }
        };
        self.gradients.slots.insert(value.id(), Slot::Owned(place));
        Ok(())
    }
}
