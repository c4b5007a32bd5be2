//! Which linear layers a model uses, and which of them make up its feed-forward parts: seen while an input runs through.

use std::cell::RefCell;

use crate::engine::Value;
use crate::error::Result;
use crate::models::{Point, Source};

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Names of linear layers, in the order of their first use.
    pub linear: Vec<String>,
    /// Those between a layer's attention and the end of its feed-forward part, by layer.
    pub blocks: Vec<Vec<String>>,
}

/// A source that writes down what is asked of it.
pub struct Trace<'a> {
    source: &'a dyn Source,
    seen: RefCell<Seen>,
    /// Layers since the last attention.
    open: RefCell<Option<Vec<String>>>,
}

impl<'a> Trace<'a> {
    /// Over a source.
    pub fn new(source: &'a dyn Source) -> Self {
        Self {
            source,
            seen: RefCell::default(),
            open: RefCell::default(),
        }
    }

    /// What was seen.
    #[must_use]
    pub fn seen(self) -> Seen {
        self.seen.into_inner()
    }
}

impl Source for Trace<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.source.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let linear = &mut self.seen.borrow_mut().linear;
        if !linear.iter().any(|n| n == name) {
            linear.push(name.to_owned());
        }
        if let Some(open) = &mut *self.open.borrow_mut() {
            open.push(name.to_owned());
        }
        self.source.linear(name, x)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        match point {
            Point::Attention(_) => *self.open.borrow_mut() = Some(Vec::new()),
            Point::FeedForward(_) => {
                let names = self.open.borrow_mut().take().unwrap_or_default();
                let blocks = &mut self.seen.borrow_mut().blocks;
                if !names.is_empty() && !blocks.contains(&names) {
                    blocks.push(names);
                }
            }
            Point::Embedded | Point::Layer(_) => {}
        }
        self.source.pass(point, x)
    }
}
