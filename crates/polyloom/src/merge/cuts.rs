//! Cuts by magnitude over the whole model: one exact order statistic per task vector, in two survey rounds.

use super::method::{Chunk, Kernel, Next, Partial, typed};
use super::survey::{Cut, High, Low, Selector, magnitude_bits};
use crate::error::Result;

/// The order statistic of rank `rank(d)` (from the smallest, from 0; `None`: no cut) of every task vector of length `d`.
pub(super) struct Cuts {
    selectors: Vec<Selector>,
    rank: Box<dyn Fn(u64) -> Option<u64> + Send + Sync>,
    cuts: Vec<Option<Cut>>,
    elements: u64,
}

enum Seen {
    High(Vec<High>),
    Low(Vec<Low>),
}

impl Cuts {
    /// For `experts` task vectors.
    pub(super) fn new(
        experts: usize,
        rank: impl Fn(u64) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        Self {
            selectors: vec![Selector::default(); experts],
            rank: Box::new(rank),
            cuts: Vec::new(),
            elements: 0,
        }
    }

    fn keys<'a>(input: &&'a [f32]) -> impl Iterator<Item = u32> + Clone + use<'a> {
        input.iter().map(|x| magnitude_bits(*x))
    }

    /// Looks at a chunk in round 0 or 1.
    pub(super) fn survey(&self, round: usize, chunk: &Chunk) -> Partial {
        let place = (chunk.index, chunk.start);
        Box::new(if round == 0 {
            Seen::High(
                chunk
                    .inputs
                    .iter()
                    .map(|x| Selector::high(Self::keys(x)))
                    .collect(),
            )
        } else {
            Seen::Low(
                self.selectors
                    .iter()
                    .zip(chunk.inputs)
                    .map(|(s, x)| s.low(place, Self::keys(x)))
                    .collect(),
            )
        })
    }

    /// Takes what [`Self::survey`] saw, in order.
    pub(super) fn absorb(&mut self, partial: Partial) -> Result<()> {
        match typed::<Seen>(partial)? {
            Seen::High(parts) => self
                .selectors
                .iter_mut()
                .zip(&parts)
                .for_each(|(s, p)| s.absorb_high(p)),
            Seen::Low(parts) => self
                .selectors
                .iter_mut()
                .zip(parts)
                .for_each(|(s, p)| s.absorb_low(p)),
        }
        Ok(())
    }

    /// Ends a round; [`Next::Done`] when the cuts are known.
    pub(super) fn finish(&mut self, round: usize) -> Next {
        self.elements = self.selectors.first().map_or(0, Selector::count);
        let rank = (self.rank)(self.elements).filter(|r| *r < self.elements);
        match (round, rank) {
            (0, Some(rank)) => {
                self.selectors.iter_mut().for_each(|s| s.want(&[rank]));
                Next::Again
            }
            (0, None) => {
                self.cuts = vec![None; self.selectors.len()];
                Next::Done
            }
            _ => {
                self.cuts = self.selectors.iter().map(|s| Some(s.cut(0))).collect();
                self.selectors.clear();
                Next::Done
            }
        }
    }

    /// The cut of a task vector; `None`: everything is kept.
    pub(super) fn of(&self, expert: usize) -> Option<&Cut> {
        self.cuts.get(expert).and_then(Option::as_ref)
    }

    /// Length of a task vector.
    pub(super) fn elements(&self) -> u64 {
        self.elements
    }
}

/// An `on` merge inside another kernel: its survey rounds come first.
pub(super) struct InnerFirst {
    kernel: Box<dyn Kernel>,
    surveying: bool,
    rounds: usize,
}

impl InnerFirst {
    /// Wraps the inner kernel.
    pub(super) fn new(kernel: Box<dyn Kernel>) -> Self {
        Self {
            surveying: kernel.surveys(),
            kernel,
            rounds: 0,
        }
    }

    /// True while the inner kernel still surveys.
    pub(super) fn surveying(&self) -> bool {
        self.surveying
    }

    /// The outer kernel's own round number.
    pub(super) fn own_round(&self, round: usize) -> usize {
        round - self.rounds
    }

    /// The inner kernel.
    pub(super) fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    /// Hands a partial on.
    pub(super) fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        self.kernel.absorb(round, partial)
    }

    /// Ends one of the inner kernel's rounds; true if it is ready now.
    pub(super) fn finish(&mut self, round: usize) -> Result<bool> {
        if self.kernel.finish(round)? == Next::Done {
            self.surveying = false;
            self.rounds = round + 1;
        }
        Ok(!self.surveying)
    }

    /// The multi-task vector of a chunk.
    pub(super) fn vector(&self, chunk: &Chunk) -> Result<Vec<f32>> {
        let mut t = vec![0.0; chunk.len()];
        self.kernel.apply(chunk, &mut t)?;
        Ok(t)
    }
}
