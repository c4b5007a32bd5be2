//! A source of weights that shows what flows into linear layers.

use std::cell::RefCell;

use crate::engine::Value;
use crate::error::Result;
use crate::models::{Point, Source};

/// Weights of another source; `see(name, x)` is told the input of every linear layer before it is used.
pub struct Observed<'a, F> {
    base: &'a dyn Source,
    see: RefCell<F>,
}

impl<'a, F: FnMut(&str, &Value) -> Result<()>> Observed<'a, F> {
    /// Over a source.
    pub fn new(base: &'a dyn Source, see: F) -> Self {
        let see = RefCell::new(see);
        Self { base, see }
    }
}

impl<F: FnMut(&str, &Value) -> Result<()>> Source for Observed<'_, F> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.base.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        (self.see.borrow_mut())(name, x)?;
        self.base.linear(name, x)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.base.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.base.dropout()
    }
}
