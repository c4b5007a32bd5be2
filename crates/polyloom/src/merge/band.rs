//! Exact selection of a band of magnitudes: a sample and one full survey round, or two full ones.

use polyloom_core::wide;

use super::bracket::{Bracket, Glance};
use super::method::Next;
use super::survey::{Cut, High, Low, Selector, magnitude_bits};

/// Exact selection of the entries at ascending magnitude positions `from..to` of all entries seen. Of entries with
/// equal magnitude those with the lowest flat index survive.
#[derive(Debug, Clone)]
pub struct Band {
    range: Option<(u64, u64)>,
    selector: Selector,
    /// The short way, as long as it is open.
    bracket: Option<Bracket>,
    /// All entries, if the band reaches to the largest of them.
    to_the_top: Option<u64>,
    pub(super) edges: Option<(Cut, Cut)>,
}

/// What [`Band`] learns from one chunk.
#[derive(Debug)]
pub enum Seen {
    /// The chunk is everything, so the answer is known at once.
    Whole(Box<(Cut, Cut)>),
    /// First round.
    High(High),
    /// Second round.
    Low(Low),
    /// The short way.
    Glance(Glance),
}

impl Band {
    /// The band of ascending positions `from..to` (not empty).
    pub fn new(from: u64, to: u64) -> Self {
        let mut band = Self::open();
        band.aim(from, to);
        band
    }

    /// A band whose positions depend on the first round; [`Self::aim`] must be called before that round ends.
    pub fn open() -> Self {
        Self {
            range: None,
            selector: Selector::default(),
            bracket: None,
            to_the_top: None,
            edges: None,
        }
    }

    /// Lets the first round be a sample, which saves a full one. `total` is the number of entries.
    #[must_use]
    pub fn sampled(mut self, total: u64) -> Self {
        if let Some((from, to)) = self.range {
            let ranks = if to == total {
                vec![from]
            } else {
                vec![from, to - 1]
            };
            self.to_the_top = (to == total).then_some(total);
            self.bracket = Some(Bracket::new(ranks, total));
        }
        self
    }

    /// Takes [`Self::sampled`] back.
    pub fn long_way(&mut self) {
        self.bracket = None;
        self.to_the_top = None;
    }

    /// True if the coming round is content with a sample.
    pub fn samples(&self) -> bool {
        self.bracket.as_ref().is_some_and(Bracket::samples)
    }

    /// Sets the ascending positions `from..to` (not empty).
    pub fn aim(&mut self, from: u64, to: u64) {
        self.range = Some((from, to));
    }

    /// Looks at the magnitudes of a chunk; `total` is the number of entries of all chunks together.
    pub fn survey(&self, place: (usize, usize), total: usize, values: &[f32]) -> Seen {
        if let Some(bracket) = &self.bracket {
            return Seen::Glance(bracket.look(place, values));
        }
        let keys = values.iter().map(|x| magnitude_bits(*x));
        if values.len() == total
            && let Some((from, to)) = self.range
            && !self.selector.ready()
        {
            let mut keys: Vec<u32> = keys.collect();
            let low = Cut::whole(place, &mut keys, from);
            let high = Cut::whole(place, &mut keys, to - 1);
            Seen::Whole(Box::new((low, high)))
        } else if self.selector.ready() {
            Seen::Low(self.selector.low(place, keys))
        } else {
            Seen::High(Selector::high(keys))
        }
    }

    /// Takes what [`Self::survey`] saw, in chunk order.
    pub fn absorb(&mut self, seen: Seen) {
        match seen {
            Seen::Whole(edges) => self.edges = Some(*edges),
            Seen::High(high) => self.selector.absorb_high(&high),
            Seen::Low(low) => self.selector.absorb_low(low),
            Seen::Glance(glance) => {
                if let Some(bracket) = &mut self.bracket {
                    bracket.absorb(glance);
                }
            }
        }
    }

    /// Ends a round.
    pub fn finish(&mut self) -> Next {
        if let Some(bracket) = &mut self.bracket {
            if bracket.samples() {
                bracket.aim();
                return Next::Again;
            }
            let found = bracket.cuts();
            self.bracket = None;
            let Some(mut cuts) = found else {
                return Next::Again; // The sample misled: the long way.
            };
            let low = cuts.remove(0);
            let high = cuts.pop().or(self.to_the_top.map(Cut::above_all));
            self.edges = high.map(|high| (low, high));
            return Next::Done;
        }
        if self.edges.is_some() || self.selector.count() == 0 {
            return Next::Done;
        }
        if self.selector.ready() {
            self.edges = Some((self.selector.cut(0), self.selector.cut(1)));
            self.selector = Selector::default();
            return Next::Done;
        }
        let Some((from, to)) = self.range else {
            return Next::Done;
        };
        self.selector.want(&[from, to - 1]);
        Next::Again
    }

    /// Starts applying the band to the chunk at `place`.
    pub fn walk(&self, place: (usize, usize)) -> BandWalk {
        let (Some((low, high)), Some((from, to))) = (&self.edges, self.range) else {
            return BandWalk::default(); // Nothing was surveyed: an empty tensor.
        };
        let left = |cut: &Cut| {
            let ends = (cut.smaller + cut.equal).min(to);
            let room = ends - cut.smaller.max(from).min(ends);
            (cut.key, room.saturating_sub(cut.equal_before(place)))
        };
        BandWalk {
            low: left(low),
            high: left(high),
        }
    }
}

/// A walk along a chunk that keeps the entries of a [`Band`].
#[derive(Debug, Clone, Copy, Default)]
pub struct BandWalk {
    low: (u32, u64),
    high: (u32, u64),
}

impl BandWalk {
    /// Copies the next entries to `out`, those outside the band as zero. `keys` decide (pass `values` twice for
    /// magnitudes of the values themselves).
    pub fn next(&mut self, keys: &[f32], values: &[f32], out: &mut [f32]) {
        // Whether entries equal to an edge survive is a matter of how many came before; within nearly all blocks the
        // answer is the same for all of them.
        let low = edge(&mut self.low, keys);
        let high = if self.low.0 == self.high.0 {
            low
        } else {
            edge(&mut self.high, keys)
        };
        let (Some(low_in), Some(high_in)) = (low, high) else {
            let one_edge = self.low.0 == self.high.0;
            for ((k, v), o) in keys.iter().zip(values).zip(out) {
                let k = magnitude_bits(*k);
                let keep = if k == self.low.0 {
                    low.unwrap_or_else(|| take(&mut self.low.1))
                } else if k == self.high.0 && !one_edge {
                    high.unwrap_or_else(|| take(&mut self.high.1))
                } else {
                    k > self.low.0 && k < self.high.0
                };
                *o = if keep { *v } else { 0.0 };
            }
            return;
        };
        let from = i64::from(self.low.0) + i64::from(!low_in);
        let to = i64::from(self.high.0) - i64::from(!high_in);
        if from > to {
            out.fill(0.0);
            return;
        }
        let (from, span) = (from as u32, (to - from) as u32);
        wide(
            #[inline(always)]
            || {
                for ((k, v), o) in keys.iter().zip(values).zip(out) {
                    *o = kept(*v, magnitude_bits(*k).wrapping_sub(from) <= span);
                }
            },
        );
    }
}

/// The value or zero, without a branch: whether an entry survives cannot be predicted.
#[inline]
pub(super) fn kept(value: f32, keep: bool) -> f32 {
    f32::from_bits(value.to_bits() & u32::from(keep).wrapping_neg())
}

/// Whether all (`true`) or none of the entries equal to an edge survive in this block; `None`: some. Where it is not
/// `None`, the room is updated.
fn edge((key, left): &mut (u32, u64), keys: &[f32]) -> Option<bool> {
    if *left == 0 {
        return Some(false);
    }
    let equal = wide(
        #[inline(always)]
        || {
            let mut equal = 0u32;
            for k in keys {
                equal += u32::from(magnitude_bits(*k) == *key);
            }
            equal
        },
    );
    if u64::from(equal) > *left {
        return None;
    }
    *left -= u64::from(equal);
    Some(true)
}

fn take(left: &mut u64) -> bool {
    let keep = *left > 0;
    *left = left.saturating_sub(1);
    keep
}
