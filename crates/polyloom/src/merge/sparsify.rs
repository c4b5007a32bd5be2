//! The four sparsifiers of methods/merging.md 2.6, surveyed and applied chunk by chunk.

use polyloom_core::rng::Stream;
use polyloom_core::wide;

use super::band::{Band, BandWalk, Seen, kept};
use super::method::{BLOCK, Next, Unit, Values};
use super::ranks::{Mask, Ramp, Ranker, Rows};
use super::survey::{BlockSums, Total};
use crate::error::{MergeError, Result};

/// Which entries of a task vector survive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// All of them.
    Keep,
    /// The `max(1, int(density n))` largest magnitudes (TIES).
    Magnitude {
        /// Share that survives; 1 or more keeps all, 0 or less none.
        density: f64,
    },
    /// The largest `int(gamma n)` go, then the smallest until the density holds (Model Breadcrumbs).
    Outliers {
        /// Share that survives; 1 or more keeps all, whatever `gamma` is.
        density: f64,
        /// Share of largest magnitudes to remove.
        gamma: f64,
    },
    /// Every entry with probability `density` (DARE).
    Bernoulli {
        /// Probability of survival; 1 or more keeps all.
        density: f64,
    },
    /// Every entry with a probability that rises with its rank in its row, from `density - epsilon` to
    /// `density + epsilon` (DELLA).
    Magprune {
        /// Mean probability of survival; 1 or more keeps all, 0 or less none.
        density: f64,
        /// Half the spread of the probability.
        epsilon: f64,
    },
}

/// What survivors are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// Nothing.
    Off,
    /// `L1(before) / L1(after)`, as mergekit does; skipped where either is below 1e-7.
    L1,
    /// `1 / density`, as the DARE paper and PEFT do.
    Inverse,
}

impl Rescale {
    /// The value of a parameter of form [`super::method::Kind::Rescale`]; `true` means `"l1"`.
    pub fn of(values: &Values, name: &str) -> Self {
        match values.word(name) {
            "l1" => Self::L1,
            "inverse" => Self::Inverse,
            _ if values.flag(name) => Self::L1,
            _ => Self::Off,
        }
    }
}

#[derive(Debug, Clone)]
enum Plan {
    All,
    Nothing,
    Band(Box<Band>),
    /// Survival where a 32-bit draw is below this.
    Bernoulli(u32),
    /// Survival where a draw maps to no more than the entry's rank.
    Magprune(Rows, Ramp),
}

/// One sparsifier for one task vector of one tensor (or, for the magnitude rules, of the whole model). The owner
/// calls `survey` for every chunk, `absorb` in order, `finish`, until that says [`Next::Done`]; then `walk`.
#[derive(Debug, Clone)]
pub struct Sparsifier {
    plan: Plan,
    elements: usize,
    stream: Stream,
    /// Length of the pieces that L1 sums are kept for; 0 = blocks of the chunk.
    piece: usize,
    norms: Option<Total>,
    /// What the survey of [`Rule::Magprune`] decided, by chunk: ranking once is enough.
    masks: Vec<((usize, usize), Vec<u32>)>,
    keeps_masks: bool,
    scale: f32,
    /// The band's edges are known: what is left is the norms.
    selected: bool,
    done: bool,
}

/// What [`Sparsifier::survey`] found in one chunk.
#[derive(Debug)]
pub enum Found {
    /// Magnitudes.
    Band(Seen),
    /// L1 norms before and after, the chunk's place, and the survivors if they were costly to find.
    Norms(BlockSums, (usize, usize), Vec<u32>),
    /// Nothing: the sparsifier is ready.
    Nothing,
}

impl Sparsifier {
    /// A sparsifier for a tensor of this shape; `stream` feeds the random rules. For one cut over a whole model give
    /// the magnitude rules the shape `[elements of all tensors]`; random rules count positions within a tensor, so
    /// they need a sparsifier each.
    ///
    /// # Errors
    /// If [`Rule::Magprune`] could leave the open interval (0, 1) of probabilities.
    pub fn new(rule: Rule, rescale: Rescale, shape: &[usize], stream: Stream) -> Result<Self> {
        let n: usize = shape.iter().product();
        let share = |x: f64| ((x * n as f64) as u64).min(n as u64);
        let band = |from, to| {
            if from < to {
                let band = Band::new(from, to);
                // Below this a sample would hold nearly everything.
                let long = n >= 1 << 16;
                let band = if long { band.sampled(n as u64) } else { band };
                Plan::Band(Box::new(band))
            } else {
                Plan::Nothing
            }
        };
        let (plan, density) = match rule {
            Rule::Keep => (Plan::All, 1.0),
            Rule::Magnitude { density }
            | Rule::Outliers { density, .. }
            | Rule::Bernoulli { density }
            | Rule::Magprune { density, .. }
                if density >= 1.0 =>
            {
                (Plan::All, 1.0)
            }
            Rule::Magnitude { density }
            | Rule::Bernoulli { density }
            | Rule::Magprune { density, .. }
                if density <= 0.0 =>
            {
                (Plan::Nothing, 1.0)
            }
            Rule::Magnitude { density } => {
                let n = n as u64;
                (band(n.saturating_sub(share(density).max(1)), n), density)
            }
            Rule::Outliers { density, gamma } => {
                let kept = share(density);
                let bottom = (n as u64 - kept).saturating_sub(share(gamma));
                (band(bottom, bottom + kept), density)
            }
            Rule::Bernoulli { density } => (Plan::Bernoulli(draw_below(density)), density),
            Rule::Magprune { density, epsilon } => {
                let (least, most) = (density - epsilon, density + epsilon);
                if least <= 0.0 || most >= 1.0 {
                    return Err(MergeError::plan(
                        "epsilon-range",
                        format!(
                            "density {density} and epsilon {epsilon} give keep probabilities from {least} to {most}; \
                             they must lie between 0 and 1"
                        ),
                    )
                    .hint(format!(
                        "choose an epsilon below {}",
                        density.min(1.0 - density)
                    )));
                }
                let rows = Rows::of(shape);
                let ramp = match rows.len {
                    1 => Ramp::new(density, 0.0, 1), // The peer divides 0 by 0 here.
                    m => Ramp::new(least, epsilon, m),
                };
                (Plan::Magprune(rows, ramp), density)
            }
        };
        let trivial = matches!(plan, Plan::All | Plan::Nothing);
        let measured = rescale == Rescale::L1 && !trivial;
        let piece = match &plan {
            Plan::Magprune(rows, _) if rows.stride == 1 => rows.len,
            _ => 0,
        };
        Ok(Self {
            done: trivial || !(measured || matches!(plan, Plan::Band(_))),
            norms: measured.then(|| Total::new(2)),
            masks: Vec::new(),
            keeps_masks: true,
            scale: match rescale {
                Rescale::Inverse if !trivial => (1.0 / density) as f32,
                _ => 1.0,
            },
            selected: !matches!(plan, Plan::Band(_)),
            plan,
            elements: n,
            stream,
            piece,
        })
    }

    /// Says that chunks will start at rows of this length instead of at blocks (an owner whose unit is
    /// [`Unit::Row`]): sums are then kept by row, so that they do not depend on the chunk size.
    #[must_use]
    pub fn in_rows(mut self, len: usize) -> Self {
        self.piece = len;
        self
    }

    /// Says that many tensors are surveyed before the first is written: ranks are then found twice instead of being
    /// remembered.
    #[must_use]
    pub fn without_masks(mut self) -> Self {
        self.keeps_masks = false;
        self
    }

    /// Says that no sample spread over its entries can be had: the survey then takes the long way.
    #[must_use]
    pub fn without_samples(mut self) -> Self {
        if let Plan::Band(band) = &mut self.plan {
            band.long_way();
        }
        self
    }

    /// True if survey rounds are needed.
    pub fn surveys(&self) -> bool {
        !self.done
    }

    /// True if a full survey makes tables; see [`super::method::Kernel::tabulates`].
    pub fn tabulates(&self) -> bool {
        matches!(&self.plan, Plan::Band(band) if !self.done && !self.selected && !band.samples())
    }

    /// True if the coming survey round is content with a sample.
    pub fn samples(&self) -> bool {
        match &self.plan {
            Plan::Band(band) => self.done || (!self.selected && band.samples()),
            _ => self.done,
        }
    }

    /// The smallest piece that it can work on.
    pub fn unit(&self) -> Unit {
        match &self.plan {
            Plan::Magprune(Rows { stride: 1, .. }, _) => Unit::Row,
            Plan::Magprune(..) => Unit::Tensor,
            _ => Unit::Chunk,
        }
    }

    /// True if every entry survives unchanged.
    pub fn keeps_all(&self) -> bool {
        matches!(self.plan, Plan::All)
    }

    /// What survivors are to be multiplied by (known after the survey).
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// A good number of entries for one call of [`Walk::next`]: it fits the nearest cache and does not cut a row.
    pub fn step(&self) -> usize {
        match &self.plan {
            Plan::Magprune(Rows { len, stride: 1 }, _) => (STEP / (*len).max(1)).max(1) * *len,
            Plan::Magprune(..) => self.elements,
            _ => STEP,
        }
        .max(1)
    }

    /// Looks at the task vector of a chunk; `place` = (tensor, start).
    pub fn survey(&self, place: (usize, usize), values: &[f32]) -> Found {
        if self.done {
            return Found::Nothing;
        }
        if let Plan::Band(band) = &self.plan
            && !self.selected
        {
            return Found::Band(band.survey(place, self.elements, values));
        }
        let mut sums = BlockSums::new(2);
        let mut walk = self.walk(place);
        let ranked = matches!(self.plan, Plan::Magprune(..));
        let (piece, span) = match (&self.plan, self.piece) {
            (Plan::Magprune(Rows { stride: 2.., .. }, _), _) => (BLOCK, self.elements),
            (_, 0) => (BLOCK, BLOCK),
            (_, piece) => (piece, piece * (BLOCK / piece).max(1)),
        };
        // Survivors of ranked rules are kept whole, to be packed; others pass by.
        let room = if ranked { values.len() } else { span };
        let mut kept = vec![0.0; room.min(values.len())];
        for (i, v) in values.chunks(span.max(1)).enumerate() {
            let from = if ranked { i * span } else { 0 };
            let kept = &mut kept[from..from + v.len()];
            walk.next(v, kept);
            for (v, k) in v.chunks(piece).zip(kept.chunks(piece)) {
                sums.l1(0, v);
                sums.l1(1, k);
            }
        }
        let mut words = Vec::new();
        if ranked && self.keeps_masks {
            Mask::pack(&kept, &mut words);
        }
        Found::Norms(sums, place, words)
    }

    /// Takes what was found, in chunk order.
    pub fn absorb(&mut self, found: Found) {
        match (found, &mut self.plan, &mut self.norms) {
            (Found::Band(seen), Plan::Band(band), _) => band.absorb(seen),
            (Found::Norms(sums, place, words), _, Some(total)) => {
                total.absorb(&sums);
                if !words.is_empty() {
                    self.masks.push((place, words));
                }
            }
            _ => {}
        }
    }

    /// Ends a round.
    pub fn finish(&mut self) -> Next {
        if self.done {
            return Next::Done;
        }
        if let Plan::Band(band) = &mut self.plan
            && !self.selected
        {
            if band.finish() == Next::Again {
                return Next::Again;
            }
            self.selected = true;
            if self.norms.is_some() && band.edges.is_some() {
                return Next::Again;
            }
        } else if let Some(norms) = &self.norms {
            let (before, after) = (norms.get(0), norms.get(1));
            if before >= 1e-7 && after >= 1e-7 {
                self.scale = (before / after) as f32;
            }
        }
        self.done = true;
        Next::Done
    }

    /// Starts sparsifying the chunk at `place`.
    pub fn walk(&self, place: (usize, usize)) -> Walk<'_> {
        Walk {
            sparsifier: self,
            band: match &self.plan {
                Plan::Band(band) => band.walk(place),
                _ => BandWalk::default(),
            },
            at: place.1 as u64,
            draws: Vec::new(),
            ranker: Ranker::default(),
            mask: match self.masks.binary_search_by_key(&place, |m| m.0) {
                Ok(i) => Mask {
                    words: &self.masks[i].1,
                    at: 0,
                },
                Err(_) => Mask::default(),
            },
        }
    }
}

/// Entries of one step: the working set of a kernel's inner loops stays in the first cache.
pub(super) const STEP: usize = 1024;

/// A walk along one chunk.
#[derive(Debug)]
pub struct Walk<'a> {
    sparsifier: &'a Sparsifier,
    band: BandWalk,
    at: u64,
    draws: Vec<u32>,
    ranker: Ranker,
    mask: Mask<'a>,
}

impl Walk<'_> {
    /// Copies the next entries to `out`, removed ones as zero; survivors are not yet multiplied by
    /// [`Sparsifier::scale`].
    pub fn next(&mut self, values: &[f32], out: &mut [f32]) {
        match &self.sparsifier.plan {
            Plan::All => out.copy_from_slice(values),
            Plan::Nothing => out.fill(0.0),
            Plan::Band(_) => self.band.next(values, values, out),
            Plan::Bernoulli(below) => {
                self.draw(values.len());
                wide(
                    #[inline(always)]
                    || {
                        for ((o, v), draw) in out.iter_mut().zip(values).zip(&self.draws) {
                            *o = kept(*v, draw < below);
                        }
                    },
                );
            }
            Plan::Magprune(rows, ramp) => {
                if self.mask.next(values, out) {
                    self.at += values.len() as u64;
                    return;
                }
                self.draw(values.len());
                let span = (rows.len * rows.stride).max(1);
                for ((v, o), d) in values
                    .chunks(span)
                    .zip(out.chunks_mut(span))
                    .zip(self.draws.chunks(span))
                {
                    for first in 0..rows.stride {
                        self.ranker.cut(*ramp, (v, d), (first, rows.stride), o);
                    }
                }
            }
        }
        self.at += values.len() as u64;
    }

    fn draw(&mut self, n: usize) {
        self.draws.resize(n, 0);
        self.sparsifier.stream.draws(self.at, &mut self.draws[..n]);
    }
}

/// The bound below which a uniform 32-bit draw falls with probability `p`.
fn draw_below(p: f64) -> u32 {
    (p * (1u64 << 32) as f64) as u32
}
#[cfg(test)]
mod tests {
    use super::*;

    /// Sparsifies in chunks of `size` and returns (entries, scale).
    fn run(
        rule: Rule,
        rescale: Rescale,
        shape: &[usize],
        values: &[f32],
        size: usize,
    ) -> (Vec<f32>, f32) {
        let mut s = Sparsifier::new(rule, rescale, shape, Stream::new(5, "t", 0)).unwrap();
        while s.surveys() {
            for (i, c) in values.chunks(size).enumerate() {
                let found = s.survey((0, i * size), c);
                s.absorb(found);
            }
            s.finish();
        }
        let mut out = vec![9.0; values.len()];
        for (i, (c, o)) in values.chunks(size).zip(out.chunks_mut(size)).enumerate() {
            let mut walk = s.walk((0, i * size));
            let step = if s.unit() == Unit::Chunk { 3 } else { s.step() };
            for (c, o) in c.chunks(step).zip(o.chunks_mut(step)) {
                walk.next(c, o);
            }
        }
        (out, s.scale())
    }

    #[test]
    fn magnitude_keeps_the_largest_lowest_index_first() {
        let v = [1.0, -3.0, 2.0, 0.0, -2.0, 2.0, 0.5, 4.0];
        for size in [1, 2, 3, 8] {
            let (out, scale) = run(
                Rule::Magnitude { density: 0.5 },
                Rescale::L1,
                &[8],
                &v,
                size,
            );
            assert_eq!(out, [0.0, -3.0, 2.0, 0.0, -2.0, 0.0, 0.0, 4.0], "{size}");
            assert_eq!(scale, 14.5 / 11.0);
        }
        // Never fewer than one.
        assert_eq!(
            run(Rule::Magnitude { density: 0.01 }, Rescale::Off, &[8], &v, 8).0[7],
            4.0
        );
    }

    #[test]
    fn outliers_removes_both_ends() {
        let v = [10.0, -1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -9.0];
        let rule = |density, gamma| Rule::Outliers { density, gamma };
        for size in [3, 10] {
            // n = 10: one outlier goes, five survive, so the four smallest go.
            let (out, _) = run(rule(0.5, 0.1), Rescale::Off, &[10], &v, size);
            assert_eq!(out, [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, -9.0]);
            // density + gamma > 1: only one outlier can go.
            let (out, _) = run(rule(0.9, 0.4), Rescale::Off, &[10], &v, size);
            assert_eq!(out, [0.0, -1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -9.0]);
            assert_eq!(run(rule(1.0, 0.4), Rescale::Off, &[10], &v, size).0, v);
            assert_eq!(
                run(rule(0.05, 0.4), Rescale::Off, &[10], &v, size).0,
                [0.0; 10]
            );
        }
        // Five equal entries at positions 2..7 ascending, of which 3..6 survive: the first three.
        let v = [0.1, 0.2, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 4.0, 5.0];
        for size in [1, 4, 10] {
            let (out, _) = run(rule(0.3, 0.4), Rescale::Off, &[10], &v, size);
            assert_eq!(
                out,
                [0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
                "{size}"
            );
        }
    }

    #[test]
    fn bernoulli_is_the_same_for_any_chunk_and_keeps_the_norm() {
        let v: Vec<f32> = (0..10_001).map(|i| (i as f32 * 0.37).sin()).collect();
        let rule = Rule::Bernoulli { density: 0.3 };
        let (one, scale) = run(rule, Rescale::L1, &[10_001], &v, 10_001);
        assert_eq!(
            run(rule, Rescale::L1, &[10_001], &v, 4096),
            (one.clone(), scale)
        );
        assert_eq!(
            run(rule, Rescale::Off, &[10_001], &v, 77),
            (one.clone(), 1.0)
        );
        assert_eq!(
            run(rule, Rescale::Inverse, &[10_001], &v, 10_001).1,
            (1.0 / 0.3) as f32
        );
        let kept = one.iter().filter(|x| **x != 0.0).count() as f64 / 10_000.0;
        assert!(
            (kept - 0.3).abs() < 4.0 * (0.21f64 / 10_000.0).sqrt(),
            "{kept}"
        );
        let l1 = |v: &[f32]| v.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        assert!((l1(&one) * f64::from(scale) / l1(&v) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn magprune_keeps_large_entries_more_often() {
        let row: Vec<f32> = (1..=600).map(|i| i as f32).collect();
        let v: Vec<f32> = (0..200).flat_map(|_| row.clone()).collect();
        let rule = Rule::Magprune {
            density: 0.5,
            epsilon: 0.3,
        };
        let (out, _) = run(rule, Rescale::Off, &[200, 600], &v, 600 * 7);
        let share = |columns: std::ops::Range<usize>| {
            let n = columns.len() as f64 * 200.0;
            out.chunks(600)
                .map(|r| r[columns.clone()].iter().filter(|x| **x != 0.0).count())
                .sum::<usize>() as f64
                / n
        };
        // First tenth: ranks 0..60 of 600, mean p = 0.2 + 0.6 * 29.5 / 599.
        for (columns, p) in [(0..60, 0.2295), (540..600, 0.7705), (0..600, 0.5)] {
            let se = (p * (1.0 - p) / (columns.len() as f64 * 200.0)).sqrt();
            assert!((share(columns.clone()) - p).abs() < 4.0 * se, "{columns:?}");
        }
        let conv = run(rule, Rescale::L1, &[2, 300, 2], &v[..1200], 1200).0;
        assert!(conv.contains(&0.0) && conv.iter().any(|x| *x != 0.0));
        for (density, epsilon) in [(0.1, 0.1), (0.9, 0.1)] {
            let rule = Rule::Magprune { density, epsilon };
            let e = Sparsifier::new(rule, Rescale::Off, &[4], Stream::new(0, "t", 0)).unwrap_err();
            assert_eq!(e.code(), "epsilon-range");
        }
    }
}
