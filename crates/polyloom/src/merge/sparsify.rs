//! The four sparsifiers of methods/merging.md 2.6, surveyed and applied chunk by chunk.

use polyloom_core::rng::Stream;

use super::method::{BLOCK, Next, Unit, Values};
use super::survey::{BlockSums, Cut, High, Low, Selector, Total, magnitude_bits};
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

/// Exact selection of the entries at ascending magnitude positions `from..to` of all entries seen. Of entries with
/// equal magnitude those with the lowest flat index survive.
#[derive(Debug, Clone)]
pub struct Band {
    range: Option<(u64, u64)>,
    selector: Selector,
    edges: Option<(Cut, Cut)>,
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
            edges: None,
        }
    }

    /// Sets the ascending positions `from..to` (not empty).
    pub fn aim(&mut self, from: u64, to: u64) {
        self.range = Some((from, to));
    }

    /// Looks at the magnitudes of a chunk; `total` is the number of entries of all chunks together.
    pub fn survey(&self, place: (usize, usize), total: usize, values: &[f32]) -> Seen {
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
        }
    }

    /// Ends a round.
    pub fn finish(&mut self) -> Next {
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
        for ((k, v), o) in keys.iter().zip(values).zip(out) {
            *o = kept(*v, magnitude_bits(*k).wrapping_sub(from) <= span);
        }
    }
}

/// The value or zero, without a branch: whether an entry survives cannot be predicted.
#[inline]
fn kept(value: f32, keep: bool) -> f32 {
    f32::from_bits(value.to_bits() & u32::from(keep).wrapping_neg())
}

/// Whether all (`true`) or none of the entries equal to an edge survive in this block; `None`: some. Where it is not
/// `None`, the room is updated.
fn edge((key, left): &mut (u32, u64), keys: &[f32]) -> Option<bool> {
    if *left == 0 {
        return Some(false);
    }
    let mut equal = 0u32;
    for k in keys {
        equal += u32::from(magnitude_bits(*k) == *key);
    }
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

/// How a tensor falls into the rows that [`Rule::Magprune`] ranks: along the last axis of a matrix, along axis 1 of
/// anything deeper, and a 1-d tensor is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rows {
    len: usize,
    /// Distance of neighbours in a row.
    stride: usize,
}

impl Rows {
    fn of(shape: &[usize]) -> Self {
        match shape {
            [] => Self { len: 1, stride: 1 },
            [n] | [_, n] => Self { len: *n, stride: 1 },
            [_, n, rest @ ..] => Self {
                len: *n,
                stride: rest.iter().product(),
            },
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
    masks: Vec<((usize, usize), Vec<u64>)>,
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
    Norms(BlockSums, (usize, usize), Vec<u64>),
    /// Nothing: the sparsifier is ready.
    Nothing,
}

impl Sparsifier {
    /// A sparsifier for a tensor of this shape; `stream` feeds the random rules.
    ///
    /// # Errors
    /// If [`Rule::Magprune`] could leave the open interval (0, 1) of probabilities.
    pub fn new(rule: Rule, rescale: Rescale, shape: &[usize], stream: Stream) -> Result<Self> {
        let n: usize = shape.iter().product();
        let share = |x: f64| ((x * n as f64) as u64).min(n as u64);
        let band = |from, to| {
            if from < to {
                Plan::Band(Box::new(Band::new(from, to)))
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

    /// True if survey rounds are needed.
    pub fn surveys(&self) -> bool {
        !self.done
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
        if ranked {
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
            sorter: Sorter::default(),
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
    sorter: Sorter,
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
                for ((o, v), draw) in out.iter_mut().zip(values).zip(&self.draws) {
                    *o = kept(*v, draw < below);
                }
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
                        self.sorter.sort(v, first, rows.stride);
                        ramp.cut(&self.sorter.keys, (v, d), (first, rows.stride), o);
                    }
                }
            }
        }
        self.at += values.len() as u64;
    }

    /// Two 32-bit draws come from each 64-bit number of the stream.
    fn draw(&mut self, n: usize) {
        self.draws.resize(n, 0);
        let stream = self.sparsifier.stream;
        let odd = (self.at % 2) as usize;
        let (head, rest) = self.draws[..n].split_at_mut(odd.min(n));
        if let [one] = head {
            *one = (stream.bits(self.at / 2) >> 32) as u32;
        }
        let from = self.at.div_ceil(2);
        let (pairs, tail) = rest.as_chunks_mut::<2>();
        let count = pairs.len() as u64;
        for (pair, i) in pairs.iter_mut().zip(from..) {
            let bits = stream.bits(i);
            *pair = [bits as u32, (bits >> 32) as u32];
        }
        if let [one] = tail {
            *one = stream.bits(from + count) as u32;
        }
    }
}

/// The bound below which a uniform 32-bit draw falls with probability `p`.
fn draw_below(p: f64) -> u32 {
    (p * (1u64 << 32) as f64) as u32
}

/// The rising keep probability of [`Rule::Magprune`], inverted: a draw says which rank is the first to survive it.
#[derive(Debug, Clone, Copy)]
struct Ramp {
    /// First surviving rank of draw `u` (0 to 2^32) = `scale u + shift`, truncated, within the row.
    scale: f64,
    shift: f64,
}

impl Ramp {
    fn new(least: f64, epsilon: f64, len: usize) -> Self {
        // p(rank) = least + 2 epsilon rank / (m - 1), so draw u keeps rank > x(u) = (u - least) (m - 1) / (2 epsilon).
        // Without a slope a huge factor makes the step at `least`.
        let slope = if epsilon > 0.0 && len > 1 {
            (len as f64 - 1.0) / (2.0 * epsilon)
        } else {
            1e18
        };
        Self {
            scale: slope / (1u64 << 32) as f64,
            shift: 1.0 - slope * least,
        }
    }

    /// Writes the survivors of one row. `sorted` holds the row's magnitudes, ascending, and one larger key.
    fn cut(
        self,
        sorted: &[u32],
        (values, draws): (&[f32], &[u32]),
        (first, stride): (usize, usize),
        out: &mut [f32],
    ) {
        let last = sorted.len() - 1;
        let decide = |value: f32, draw: u32| {
            let x = f64::from(draw) * self.scale + self.shift;
            let at = (x.clamp(0.0, last as f64) as u32 as usize).min(last);
            let (key, there) = (magnitude_bits(value), sorted[at]);
            // Equal magnitudes share the mean of their ranks. (For zeros it does not matter.)
            let tied = key == there && key != 0 && {
                let from = sorted.partition_point(|k| *k < key);
                let to = sorted.partition_point(|k| *k <= key);
                (from + to - 1) as f64 * 0.5 > x - 1.0
            };
            kept(value, (key > there) | tied)
        };
        if stride == 1 {
            for ((o, v), d) in out.iter_mut().zip(values).zip(draws) {
                *o = decide(*v, *d);
            }
        } else {
            for i in (first..values.len()).step_by(stride) {
                out[i] = decide(values[i], draws[i]);
            }
        }
    }
}

/// Survivors of a chunk that the survey has already decided on, as bits.
#[derive(Debug, Default)]
struct Mask<'a> {
    words: &'a [u64],
    at: usize,
}

impl Mask<'_> {
    /// Bits of the entries that are not zero.
    fn pack(values: &[f32], words: &mut Vec<u64>) {
        words.extend(values.chunks(64).map(|block| {
            let mut word = 0;
            for (i, x) in block.iter().enumerate() {
                word |= u64::from(*x != 0.0) << i;
            }
            word
        }));
    }

    /// Copies the next survivors to `out`; `false` if nothing was decided.
    fn next(&mut self, values: &[f32], out: &mut [f32]) -> bool {
        if self.words.is_empty() {
            return false;
        }
        for (i, (v, o)) in values.iter().zip(out).enumerate() {
            let at = self.at + i;
            *o = kept(*v, self.words[at / 64] >> (at % 64) & 1 == 1);
        }
        self.at += values.len();
        true
    }
}

/// Sorts the magnitudes of rows.
#[derive(Debug, Default)]
struct Sorter {
    keys: Vec<u32>,
    other: Vec<u32>,
}

impl Sorter {
    /// Sets `keys` to the magnitudes of every `stride`-th entry from `first` on, ascending, and a larger one.
    fn sort(&mut self, values: &[f32], first: usize, stride: usize) {
        self.keys.clear();
        if stride == 1 {
            let row = values[first..].iter();
            self.keys.extend(row.map(|x| magnitude_bits(*x)));
        } else {
            let column = values[first..].iter().step_by(stride);
            self.keys.extend(column.map(|x| magnitude_bits(*x)));
        }
        if self.keys.len() < 512 {
            self.keys.sort_unstable();
        } else {
            self.count();
        }
        self.keys.push(u32::MAX);
    }

    /// Three stable counting passes over 11, 10 and 10 bits of the key.
    fn count(&mut self) {
        const PASSES: [(u32, usize); 3] = [(0, 1 << 11), (11, 1 << 10), (21, 1 << 10)];
        let mut counts = [[0u32; 1 << 11]; 3];
        for key in &self.keys {
            for (count, (shift, bins)) in counts.iter_mut().zip(PASSES) {
                count[(key >> shift) as usize & (bins - 1)] += 1;
            }
        }
        self.other.resize(self.keys.len(), 0);
        for (count, (shift, bins)) in counts.iter_mut().zip(PASSES) {
            let mut sum = 0;
            for c in &mut count[..bins] {
                sum += std::mem::replace(c, sum);
            }
            for key in &self.keys {
                let c = &mut count[(key >> shift) as usize & (bins - 1)];
                self.other[*c as usize] = *key;
                *c += 1;
            }
            std::mem::swap(&mut self.keys, &mut self.other);
        }
    }
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
    fn magprune_ranks_rows() {
        let mut sorter = Sorter::default();
        sorter.sort(&[3.0, -1.0, 1.0, 0.0], 0, 1);
        let keys = |v: &[f32]| {
            v.iter()
                .map(|x| magnitude_bits(*x))
                .chain([u32::MAX])
                .collect::<Vec<_>>()
        };
        assert_eq!(sorter.keys, keys(&[0.0, 1.0, 1.0, 3.0]));
        // Axis 1 of a [1, 3, 2] tensor, second column: 5, -4, 6.
        sorter.sort(&[0.0, 5.0, 0.0, -4.0, 0.0, 6.0], 1, 2);
        assert_eq!(sorter.keys, keys(&[4.0, 5.0, 6.0]));
        // The counting sort agrees with the comparing one.
        let mut v: Vec<f32> = (0..3000)
            .map(|i| ((i * 7919) % 1013) as f32 - 500.0)
            .collect();
        sorter.sort(&v, 0, 1);
        v.sort_by_key(|x| magnitude_bits(*x));
        assert_eq!(sorter.keys, keys(&v));
    }

    #[test]
    fn magprune_draws_against_ranks() {
        // Ranks 0..5 of 5: p = 0.2, 0.35, 0.5, 0.65, 0.8; the two equal entries of ranks 1 and 2 have 0.425.
        let row = [4.0f32, 2.0, -2.0, 1.0, 3.0];
        let p = [0.8, 0.425, 0.425, 0.2, 0.65];
        let mut sorter = Sorter::default();
        sorter.sort(&row, 0, 1);
        let ramp = Ramp::new(0.2, 0.3, 5);
        for step in 0..1000 {
            let u = (f64::from(step) + 0.5) / 1000.0;
            let draw = (u * (1u64 << 32) as f64) as u32;
            let mut out = [9.0; 5];
            ramp.cut(&sorter.keys, (&row, &[draw; 5]), (0, 1), &mut out);
            for i in 0..5 {
                assert_eq!(out[i] != 0.0, u < p[i], "{u} {i}");
            }
        }
        let mut out = [0.0];
        sorter.sort(&[7.0], 0, 1);
        let ramp = Ramp::new(0.4, 0.0, 1);
        for (u, want) in [(0.0, 7.0), (0.39, 7.0), (0.41, 0.0), (0.999, 0.0)] {
            let draw = (u * (1u64 << 32) as f64) as u32;
            ramp.cut(&sorter.keys, (&[7.0], &[draw]), (0, 1), &mut out);
            assert_eq!(out[0], want, "{u}");
        }
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
