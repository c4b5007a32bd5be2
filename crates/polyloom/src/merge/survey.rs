//! Tools for surveys: exact selection by magnitude, and sums whose value does not depend on chunking.

use polyloom_core::wide;

use super::method::BLOCK;

/// Sums of one chunk, kept per block of [`BLOCK`] elements: `sums[quantity]` holds one partial per block, so that the
/// total (added in order by [`Total`]) is the same for any chunk size and thread count.
#[derive(Debug, Clone, Default)]
pub struct BlockSums {
    sums: Vec<Vec<f64>>,
}

impl BlockSums {
    /// Room for `quantities` sums.
    pub fn new(quantities: usize) -> Self {
        Self {
            sums: vec![Vec::new(); quantities],
        }
    }

    /// Adds `f(i)` for `i` in `0..len` (positions in the chunk) to quantity `q`.
    pub fn add(&mut self, q: usize, len: usize, f: impl Fn(usize) -> f64) {
        for from in (0..len).step_by(BLOCK) {
            let to = (from + BLOCK).min(len);
            // Eight running sums let the compiler use wide registers; their order is fixed.
            let mut lanes = [0.0f64; 8];
            for i in from..to {
                lanes[(i - from) % 8] += f(i);
            }
            self.sums[q].push(lanes.iter().sum());
        }
    }

    /// Adds the dot product of two runs to quantity `q`.
    pub fn dot(&mut self, q: usize, a: &[f32], b: &[f32]) {
        for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
            self.sums[q].push(wide(
                #[inline(always)]
                || {
                    let mut lanes = [0.0f64; LANES];
                    let (a_body, a_rest) = a.as_chunks::<LANES>();
                    let (b_body, b_rest) = b.as_chunks::<LANES>();
                    for (x, y) in a_body.iter().zip(b_body) {
                        for k in 0..LANES {
                            lanes[k] += f64::from(x[k]) * f64::from(y[k]);
                        }
                    }
                    for (k, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
                        lanes[k] += f64::from(*x) * f64::from(*y);
                    }
                    lanes.iter().sum()
                },
            ));
        }
    }

    /// Adds the L1 norm of a run to quantity `q`. Four entries at a time are added as `f32`, everything else as `f64`:
    /// the relative error of each four is below 2^-23, of both signs, and theirs of the sum far below `f32`'s.
    pub fn l1(&mut self, q: usize, a: &[f32]) {
        for a in a.chunks(BLOCK) {
            self.sums[q].push(wide(
                #[inline(always)]
                || {
                    let mut lanes = [0.0f64; LANES];
                    let (body, rest) = a.as_chunks::<{ 4 * LANES }>();
                    for x in body {
                        for k in 0..LANES {
                            let one = x[k].abs() + x[k + LANES].abs();
                            let two = x[k + 2 * LANES].abs() + x[k + 3 * LANES].abs();
                            lanes[k] += f64::from(one + two);
                        }
                    }
                    for (k, x) in rest.iter().enumerate() {
                        lanes[k % LANES] += f64::from(x.abs());
                    }
                    lanes.iter().sum()
                },
            ));
        }
    }
}

/// Running sums side by side, in fixed order: enough to hide the latency of an addition.
const LANES: usize = 16;

/// Totals of [`BlockSums`], absorbed in chunk order.
#[derive(Debug, Clone, Default)]
pub struct Total(Vec<f64>);

impl Total {
    /// Room for `quantities` totals.
    pub fn new(quantities: usize) -> Self {
        Self(vec![0.0; quantities])
    }

    /// Adds a chunk's blocks, in order.
    pub fn absorb(&mut self, part: &BlockSums) {
        for (total, blocks) in self.0.iter_mut().zip(&part.sums) {
            for b in blocks {
                *total += b;
            }
        }
    }

    /// Total of quantity `q`.
    pub fn get(&self, q: usize) -> f64 {
        self.0[q]
    }
}

/// Order of magnitudes as an integer: `|x|` compares like its bits; NaN sorts above infinity.
#[inline]
pub fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7FFF_FFFF
}

/// Sign, exponent and five bits of mantissa: a table of 64 KiB, and bins a few percent wide.
const HIGH_SHIFT: u32 = 18;
const HIGH_BINS: usize = 1 << 14;

/// Finds order statistics of values mapped to `u32` keys (such as [`magnitude_bits`]) exactly, in two streaming
/// rounds: a histogram of the high bits, then the keys inside the few bins that matter.
///
/// Ranks count from the smallest key, from 0. Ties are resolved by position: see [`Cut`].
#[derive(Debug, Clone, Default)]
pub struct Selector {
    count: u64,
    high: Vec<u64>,
    /// Wanted ranks, with the bin they fall into and the number of keys below that bin.
    wanted: Vec<(u64, usize, u64)>,
    /// Per wanted rank: sorted runs (key, count) of each chunk in order, with the chunk's identity.
    runs: Vec<Vec<ChunkRuns>>,
}

/// Runs of equal keys inside the wanted bins of one chunk.
#[derive(Debug, Clone)]
struct ChunkRuns {
    place: (usize, usize),
    runs: Vec<(u32, u32)>,
}

/// Round 0 of a [`Selector`] over one chunk.
#[derive(Debug)]
pub struct High(Vec<u32>);

/// Round 1 of a [`Selector`] over one chunk.
#[derive(Debug)]
pub struct Low {
    place: (usize, usize),
    /// One list of runs per wanted rank.
    runs: Vec<Vec<(u32, u32)>>,
}

impl Selector {
    /// Counts the keys of a chunk by their high bits.
    pub fn high(keys: impl Iterator<Item = u32>) -> High {
        let mut tables = vec![0u32; HIGH_BINS];
        for key in keys {
            tables[(key >> HIGH_SHIFT) as usize & (HIGH_BINS - 1)] += 1;
        }
        High(tables)
    }

    /// Takes a chunk's counts (any order).
    pub fn absorb_high(&mut self, part: &High) {
        self.high.resize(HIGH_BINS, 0);
        for (total, n) in self.high.iter_mut().zip(&part.0) {
            *total += u64::from(*n);
            self.count += u64::from(*n);
        }
    }

    /// How many keys were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True once the ranks are stated: the next round is [`Self::low`].
    pub fn ready(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// States the ranks to find (from the smallest, from 0, each below [`Self::count`]), once: the table of the first
    /// round is dropped.
    ///
    /// # Panics
    /// If a rank is not below the count.
    pub fn want(&mut self, ranks: &[u64]) {
        for &rank in ranks {
            assert!(rank < self.count, "rank {rank} of {} keys", self.count);
            let mut below = 0;
            let bin = self
                .high
                .iter()
                .position(|n| {
                    if below + n > rank {
                        return true;
                    }
                    below += n;
                    false
                })
                .unwrap_or(HIGH_BINS - 1);
            self.wanted.push((rank, bin, below));
            self.runs.push(Vec::new());
        }
        self.high = Vec::new();
    }

    /// Collects the keys of a chunk that fall into the bins of the wanted ranks. `place` = (tensor, start).
    pub fn low(&self, place: (usize, usize), keys: impl Iterator<Item = u32>) -> Low {
        let mut runs: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.wanted.len()];
        let bins: Vec<u32> = self.wanted.iter().map(|w| w.1 as u32).collect();
        let mut found: Vec<u32> = match bins[..] {
            [] => Vec::new(),
            [a] => keys.filter(|k| k >> HIGH_SHIFT == a).collect(),
            [a, b] => keys
                .filter(|k| (k >> HIGH_SHIFT == a) | (k >> HIGH_SHIFT == b))
                .collect(),
            _ => keys.filter(|k| bins.contains(&(k >> HIGH_SHIFT))).collect(),
        };
        found.sort_unstable();
        for key in found {
            // Ranks in one bin share the runs of the first.
            let Some(owner) = bins.iter().position(|b| *b == key >> HIGH_SHIFT) else {
                continue;
            };
            match runs[owner].last_mut() {
                Some((k, n)) if *k == key => *n += 1,
                _ => runs[owner].push((key, 1)),
            }
        }
        Low { place, runs }
    }

    /// Takes a chunk's keys, in (tensor, chunk) order.
    pub fn absorb_low(&mut self, part: Low) {
        for (i, runs) in part.runs.into_iter().enumerate() {
            if !runs.is_empty() {
                self.runs[i].push(ChunkRuns {
                    place: part.place,
                    runs,
                });
            }
        }
    }

    /// The cut at wanted rank number `i` (in the order given to [`Self::want`]).
    pub fn cut(&self, i: usize) -> Cut {
        let (rank, bin, below) = self.wanted[i];
        let owner = self
            .wanted
            .iter()
            .position(|(_, b, _)| *b == bin)
            .unwrap_or(i);
        // All keys of the bin by their low bits.
        let mut totals = vec![0u64; 1 << HIGH_SHIFT];
        for chunk in &self.runs[owner] {
            for (key, n) in &chunk.runs {
                totals[*key as usize & ((1 << HIGH_SHIFT) - 1)] += u64::from(*n);
            }
        }
        let mut smaller = below;
        let mut key = (bin as u32) << HIGH_SHIFT;
        let mut equal = 0;
        for (low, n) in totals.into_iter().enumerate() {
            key = (bin as u32) << HIGH_SHIFT | low as u32;
            equal = n;
            if smaller + n > rank {
                break;
            }
            smaller += n;
        }
        let mut before = Vec::new();
        let mut seen = 0;
        for chunk in &self.runs[owner] {
            if let Ok(at) = chunk.runs.binary_search_by_key(&key, |r| r.0) {
                before.push((chunk.place, seen));
                seen += u64::from(chunk.runs[at].1);
            }
        }
        Cut {
            key,
            smaller,
            equal,
            larger: self.count - smaller - equal,
            before,
        }
    }
}

/// An order statistic: the key at a rank, how many keys are smaller, equal and larger, and how many equal ones stand
/// before each chunk (so that "the lowest flat index wins" costs no third pass).
#[derive(Debug, Clone)]
pub struct Cut {
    /// The key at the wanted rank.
    pub key: u32,
    /// Keys below it.
    pub smaller: u64,
    /// Keys equal to it.
    pub equal: u64,
    /// Keys above it.
    pub larger: u64,
    before: Vec<((usize, usize), u64)>,
}

impl Cut {
    /// A cut found by other means: `before` lists, for the chunks that hold equal keys, how many stand before them.
    pub(super) fn new(
        key: u32,
        smaller: u64,
        equal: u64,
        total: u64,
        before: Vec<((usize, usize), u64)>,
    ) -> Self {
        Self {
            key,
            smaller,
            equal,
            larger: total - smaller - equal,
            before,
        }
    }

    /// A cut above all of `total` keys.
    pub(super) fn above_all(total: u64) -> Self {
        Self::new(u32::MAX, total, 0, total, Vec::new())
    }

    /// The cut at `rank` (from the smallest, from 0) of keys that all stand in one chunk; reorders them.
    ///
    /// # Panics
    /// If there are no more than `rank` keys.
    pub fn whole(place: (usize, usize), keys: &mut [u32], rank: u64) -> Self {
        let (below, key, above) = keys.select_nth_unstable(rank as usize);
        let key = *key;
        let equal_below = below.iter().filter(|k| **k == key).count();
        let equal_above = above.iter().filter(|k| **k == key).count();
        Self {
            key,
            smaller: (below.len() - equal_below) as u64,
            equal: (equal_below + 1 + equal_above) as u64,
            larger: (above.len() - equal_above) as u64,
            before: vec![(place, 0)],
        }
    }

    /// Number of equal keys before the chunk at (tensor, start), in flat order. Exact for chunks that hold one.
    pub fn equal_before(&self, place: (usize, usize)) -> u64 {
        match self.before.binary_search_by_key(&place, |b| b.0) {
            Ok(at) => self.before[at].1,
            Err(0) => 0,
            Err(at) if at == self.before.len() => self.equal,
            Err(at) => self.before[at].1,
        }
    }

    /// A test that keeps exactly the `k` largest keys of all, equal ones by lowest flat index, over the chunk at
    /// `place` walked in order.
    pub fn keep_largest(&self, k: u64, place: (usize, usize)) -> impl FnMut(u32) -> bool + use<> {
        let room = k.saturating_sub(self.larger).min(self.equal);
        let mut left = room.saturating_sub(self.equal_before(place));
        let threshold = self.key;
        move |key| {
            if key == threshold {
                let keep = left > 0;
                left = left.saturating_sub(1);
                keep
            } else {
                key > threshold
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(values: &[f32], k: u64, chunk: usize) -> Vec<bool> {
        let keys = |v: &[f32]| v.iter().map(|x| magnitude_bits(*x)).collect::<Vec<_>>();
        let mut s = Selector::default();
        for c in values.chunks(chunk) {
            s.absorb_high(&Selector::high(keys(c).into_iter()));
        }
        s.want(&[values.len() as u64 - k]);
        for (i, c) in values.chunks(chunk).enumerate() {
            let low = s.low((0, i * chunk), keys(c).into_iter());
            s.absorb_low(low);
        }
        let cut = s.cut(0);
        let mut out = Vec::new();
        for (i, c) in values.chunks(chunk).enumerate() {
            let mut keep = cut.keep_largest(k, (0, i * chunk));
            out.extend(c.iter().map(|x| keep(magnitude_bits(*x))));
        }
        out
    }

    #[test]
    fn keeps_exactly_k_lowest_index_first() {
        let v = [1.0, -2.0, 2.0, 0.5, 2.0, -2.0, 3.0];
        for chunk in 1..=7 {
            assert_eq!(
                select(&v, 3, chunk),
                [false, true, true, false, false, false, true],
                "{chunk}"
            );
        }
    }

    #[test]
    fn agrees_with_sorting() {
        let s = polyloom_core::rng::Stream::new(3, "t", 0);
        let v: Vec<f32> = (0..5000)
            .map(|i| (s.uniform(i) * 200.0).floor() / 37.0 - 2.0)
            .collect();
        for k in [1u64, 7, 100, 2500, 4999, 5000] {
            let mut order: Vec<usize> = (0..v.len()).collect();
            order.sort_by_key(|i| (std::cmp::Reverse(magnitude_bits(v[*i])), *i));
            let mut want = vec![false; v.len()];
            order[..k as usize].iter().for_each(|i| want[*i] = true);
            assert_eq!(select(&v, k, 640), want, "k = {k}");
        }
    }
}
