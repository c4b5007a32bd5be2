//! Whole tensors that their kernels read and write piece by piece.

use polyloom_core::checkpoint::Scratch;

use super::{Feed, Group, Sink};
use crate::error::Result;
use crate::merge::method::Pieces;

/// A whole tensor that its kernel reads and writes piece by piece.
pub(super) struct Streamed<'a> {
    group: &'a Group<'a>,
    fed: usize,
    feed: &'a dyn Feed,
    sink: &'a dyn Sink,
    base: Vec<f32>,
    scratch: Scratch,
}

impl<'a> Streamed<'a> {
    pub(super) fn new(
        group: &'a Group<'a>,
        fed: usize,
        feed: &'a dyn Feed,
        sink: &'a dyn Sink,
    ) -> Self {
        Self {
            group,
            fed,
            feed,
            sink,
            base: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Fills `self.base` where the method works on task vectors.
    fn subtrahend(&mut self, start: usize, n: usize) -> Result<bool> {
        if !(self.group.deltas && self.group.job.has_base) {
            return Ok(false);
        }
        self.base.resize(n, 0.0);
        self.feed
            .read(self.fed, None, start, &mut self.base, &mut self.scratch)?;
        Ok(true)
    }
}

impl Pieces for Streamed<'_> {
    fn read(&mut self, input: usize, start: usize, out: &mut [f32]) -> Result<()> {
        if self.subtrahend(start, out.len())? {
            self.feed
                .read_less(self.fed, input, start, &self.base, out, &mut self.scratch)
        } else {
            self.feed
                .read(self.fed, Some(input), start, out, &mut self.scratch)
        }
    }

    fn write(&mut self, start: usize, values: &mut [f32]) -> Result<()> {
        if self.subtrahend(start, values.len())? {
            for (v, b) in values.iter_mut().zip(&self.base) {
                *v += *b;
            }
        }
        self.sink.write(self.fed, start, values)
    }
}
