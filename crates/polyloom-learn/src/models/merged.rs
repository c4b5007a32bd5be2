//! Merged weights as a source: what fine-tuning changed, added to the base with coefficients that can be learned.
//!
//! Task arithmetic (Ilharco et al. 2023) with one coefficient per task; with one per task and tensor (or group of tensors)
//! what AdaMerging (Yang et al. 2024) learns.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Point, Source};
use crate::engine::{Tensor, Value};
use crate::error::{Error, In, Result};
use crate::ops;

/// What fine-tuning on one task changed: tuned minus base, by name. A tensor that is not there did not change.
pub type TaskVector = HashMap<String, Tensor>;

/// The difference of fine-tuned tensors and those of a base; tensors that the base lacks (heads) are left out.
///
/// # Errors
/// A tensor of another shape than the base's.
pub fn task_vector<'t>(
    base: &dyn Source,
    tuned: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
) -> Result<TaskVector> {
    let mut found = TaskVector::new();
    for (name, tuned) in tuned {
        let Some(base) = base.find(name)? else {
            continue;
        };
        if base.dims() != tuned.dims() {
            return Err(Error::shape(
                "task vector",
                format!(
                    "`{name}` is {:?} in the base and {:?} tuned",
                    base.dims(),
                    tuned.dims()
                ),
            ));
        }
        let difference = (tuned - base.data()).during("task vector")?;
        found.insert(name.to_owned(), difference);
    }
    Ok(found)
}

/// Which coefficients a tensor takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// All tensors the same: coefficients are `[1, tasks]`.
    One,
    /// Each the row of its name; a tensor without a row keeps the base's numbers.
    Each(HashMap<String, usize>),
}

impl Rows {
    /// A row of its own for every tensor that changed, in the order of the names.
    #[must_use]
    pub fn each(vectors: &[TaskVector]) -> Self {
        let mut names: Vec<&String> = vectors.iter().flat_map(|v| v.keys()).collect();
        names.sort_unstable();
        names.dedup();
        Self::Each(names.into_iter().cloned().zip(0..).collect())
    }

    /// Rows of coefficients that are needed.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Each(rows) => rows.values().max().map_or(0, |n| n + 1),
        }
    }
}

/// `base + Σ c[row of the tensor, task] vector[task]` for every tensor.
///
/// A tensor is merged when it is first asked for and then held, so that a model which uses it twice sums its gradients: make
/// a new source for every step. Gradients reach the coefficients and the base where they are asked for, never the vectors.
pub struct Merged<'a> {
    base: &'a dyn Source,
    vectors: &'a [TaskVector],
    rows: &'a Rows,
    coefficients: Value,
    made: RefCell<HashMap<String, Value>>,
}

impl<'a> Merged<'a> {
    /// Of a base, what each task changed, and coefficients `[rows, tasks]`.
    ///
    /// # Errors
    /// Coefficients of another shape.
    pub fn new(
        base: &'a dyn Source,
        vectors: &'a [TaskVector],
        rows: &'a Rows,
        coefficients: Value,
    ) -> Result<Self> {
        let wanted = [rows.count(), vectors.len()];
        if coefficients.dims() != wanted {
            return Err(Error::shape(
                "merged weights",
                format!("coefficients of {:?}, not {wanted:?}", coefficients.dims()),
            ));
        }
        Ok(Self {
            base,
            vectors,
            rows,
            coefficients,
            made: RefCell::default(),
        })
    }

    fn make(&self, name: &str, base: Value) -> Result<Value> {
        let row = match self.rows {
            Rows::One => 0,
            Rows::Each(rows) => match rows.get(name) {
                Some(row) => *row,
                None => return Ok(base),
            },
        };
        let parts: Vec<Option<&Tensor>> = self.vectors.iter().map(|v| v.get(name)).collect();
        if parts.iter().all(Option::is_none) {
            return Ok(base);
        }
        ops::mixture(&base, &parts, &self.coefficients, row)
    }
}

impl Source for Merged<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        if let Some(made) = self.made.borrow().get(name) {
            return Ok(Some(made.clone()));
        }
        let Some(base) = self.base.find(name)? else {
            return Ok(None);
        };
        let made = self.make(name, base)?;
        self.made.borrow_mut().insert(name.to_owned(), made.clone());
        Ok(Some(made))
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.base.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.base.dropout()
    }
}
