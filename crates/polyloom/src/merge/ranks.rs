//! Ranks within rows, and random survival by rank (DELLA).

use polyloom_core::wide;

use super::band::kept;
use super::bracket::BITS;
use super::survey::magnitude_bits;

/// How a tensor falls into the rows that [`Rule::Magprune`](super::sparsify::Rule::Magprune) ranks: along the last
/// axis of a matrix, along axis 1 of anything deeper, and a 1-d tensor is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) len: usize,
    /// Distance of neighbours in a row.
    pub(super) stride: usize,
}

impl Rows {
    pub(super) fn of(shape: &[usize]) -> Self {
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

/// The rising keep probability of [`Rule::Magprune`](super::sparsify::Rule::Magprune), inverted: a draw says which
/// rank is the first to survive it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    /// First surviving rank of draw `u` (0 to 2^32) = `scale u + shift`, truncated, within the row.
    scale: f64,
    shift: f64,
    /// Draws below the first let every rank survive, those from the second on none.
    sure: (u32, u32),
}

impl Ramp {
    pub(super) fn new(least: f64, epsilon: f64, len: usize) -> Self {
        // p(rank) = least + 2 epsilon rank / (m - 1), so draw u keeps rank > x(u) = (u - least) (m - 1) / (2 epsilon).
        // Without a slope a huge factor makes the step at `least`.
        let slope = if epsilon > 0.0 && len > 1 {
            (len as f64 - 1.0) / (2.0 * epsilon)
        } else {
            1e18
        };
        let mut ramp = Self {
            scale: slope / (1u64 << 32) as f64,
            shift: 1.0 - slope * least,
            sure: (0, 0),
        };
        // The first draws whose rank reaches 1 and the length: found, not computed, for the roundings of `first`.
        let reaching = |rank: f64| {
            let (mut below, mut above) = (0, 1u64 << 32);
            while below < above {
                let middle = below + (above - below) / 2;
                if ramp.first(middle as u32) < rank {
                    below = middle + 1;
                } else {
                    above = middle;
                }
            }
            // (Probabilities lie between 0 and 1, so that both exist.)
            below.min(u64::from(u32::MAX)) as u32
        };
        ramp.sure = (reaching(1.0), reaching(len as f64));
        ramp
    }

    /// The first rank that a draw lets survive; truncated, and between 0 and the length of the row.
    #[inline]
    fn first(self, draw: u32) -> f64 {
        f64::from(draw) * self.scale + self.shift
    }
}

/// Entries of which one word says which survive.
const WORD: usize = 32;

/// Survivors of a chunk that the survey has already decided on, as bits.
#[derive(Debug, Default)]
pub(super) struct Mask<'a> {
    pub(super) words: &'a [u32],
    pub(super) at: usize,
}

impl Mask<'_> {
    /// Bits of the entries that are not zero.
    pub(super) fn pack(values: &[f32], words: &mut Vec<u32>) {
        wide(
            #[inline(always)]
            || {
                words.extend(values.chunks(WORD).map(|block| {
                    let bits = block.iter().zip(BITS);
                    bits.fold(0, |word, (x, bit)| {
                        word | bit & u32::from(*x != 0.0).wrapping_neg()
                    })
                }));
            },
        );
    }

    /// Copies the next survivors to `out`; `false` if nothing was decided.
    pub(super) fn next(&mut self, values: &[f32], out: &mut [f32]) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let words = &self.words[self.at / WORD..];
        if self.at.is_multiple_of(WORD) {
            wide(
                #[inline(always)]
                || {
                    let blocks = values.chunks(WORD).zip(out.chunks_mut(WORD));
                    for ((values, out), word) in blocks.zip(words) {
                        for ((v, o), bit) in values.iter().zip(out).zip(BITS) {
                            *o = kept(*v, word & bit != 0);
                        }
                    }
                },
            );
        } else {
            for (i, (v, o)) in values.iter().zip(out).enumerate() {
                let at = self.at % WORD + i;
                *o = kept(*v, words[at / WORD] & BITS[at % WORD] != 0);
            }
        }
        self.at += values.len();
        true
    }
}

/// Decides which entries of a row survive, without sorting it. Most draws decide for every rank or for none; for the
/// others a histogram of the magnitudes brackets the entry's rank, and only where the draw falls into the bracket is
/// the rank counted out.
#[derive(Debug, Default)]
pub(super) struct Ranker {
    /// Bins of the entries, and how many entries have a bin: two tables that take turns, so that neighbours in the same
    /// bin need not wait for each other. In the first stands then how many entries lie below.
    bins: Vec<u16>,
    counts: [Vec<u32>; 2],
    /// Entries whose draw leaves the rank to decide, as bits.
    open: Vec<u32>,
    /// By bin: a magnitude in it and its ranks (from, to), if they were counted out in the row of this number.
    known: Vec<(u64, u32, u32, u32)>,
    row: u64,
    /// A row whose entries are not neighbours.
    gathered: (Vec<f32>, Vec<u32>, Vec<f32>),
}

impl Ranker {
    /// Writes the survivors of the row of every `stride`-th entry from `first` on.
    pub(super) fn cut(
        &mut self,
        ramp: Ramp,
        (values, draws): (&[f32], &[u32]),
        (first, stride): (usize, usize),
        out: &mut [f32],
    ) {
        if stride == 1 {
            self.cut_row(ramp, &values[first..], &draws[first..], &mut out[first..]);
            return;
        }
        let (mut row, mut its_draws, mut survivors) = std::mem::take(&mut self.gathered);
        row.clear();
        row.extend(values[first..].iter().step_by(stride));
        its_draws.clear();
        its_draws.extend(draws[first..].iter().step_by(stride));
        survivors.resize(row.len(), 0.0);
        self.cut_row(ramp, &row, &its_draws, &mut survivors);
        for (o, v) in out[first..].iter_mut().step_by(stride).zip(&survivors) {
            *o = *v;
        }
        self.gathered = (row, its_draws, survivors);
    }

    fn cut_row(&mut self, ramp: Ramp, values: &[f32], draws: &[u32], out: &mut [f32]) {
        let top = self.decide(ramp, values, draws, out);
        if self.open.iter().all(|word| *word == 0) {
            return;
        }
        self.row += 1;
        self.fill(values, top);
        let (below, bins, known) = (&*self.counts[0], &*self.bins, &mut *self.known);
        for (block, word) in self.open.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let at = block * WORD + word.trailing_zeros() as usize;
                word &= word - 1;
                let x = ramp.first(draws[at]);
                let rank = x as u32;
                let bin = usize::from(bins[at]);
                let (from, to) = (below[bin], below[bin + 1]);
                // Arithmetic in place of conditions, which would become branches: on which side of a bin a draw falls
                // cannot be predicted.
                let survives = (i64::from(rank) - i64::from(from)) >> 63;
                out[at] = f32::from_bits(values[at].to_bits() & survives as u32);
                if rank.wrapping_sub(from) < to - from {
                    let key = magnitude_bits(values[at]);
                    let known = &mut known[bin];
                    if (known.0, known.1) != (self.row, key) {
                        let (from, to) = ranks_of(values, key);
                        *known = (self.row, key, from, to);
                    }
                    let (from, to) = (known.2, known.3);
                    // Equal magnitudes share the mean of their ranks.
                    let tied = rank < to && f64::from(from + to - 1) * 0.5 > x - 1.0;
                    out[at] = kept(values[at], rank < from || tied);
                }
            }
        }
    }

    /// Decides what the draws alone decide, notes the rest, and finds the largest magnitude.
    fn decide(&mut self, ramp: Ramp, values: &[f32], draws: &[u32], out: &mut [f32]) -> u32 {
        let (all, none) = ramp.sure;
        self.open.resize(values.len().div_ceil(WORD), 0);
        let open = &mut self.open;
        wide(
            #[inline(always)]
            || {
                let mut top = 0;
                let blocks = values.chunks(WORD).zip(draws.chunks(WORD));
                for (((values, draws), out), word) in
                    blocks.zip(out.chunks_mut(WORD)).zip(open.iter_mut())
                {
                    let mut undecided = 0;
                    for (((v, d), o), bit) in values.iter().zip(draws).zip(out).zip(BITS) {
                        let key = magnitude_bits(*v);
                        top = key.max(top);
                        *o = kept(*v, *d < all);
                        // (Zeros are zero whether they survive or not.)
                        let rank_decides = (d.wrapping_sub(all) < none - all) & (key != 0);
                        undecided |= bit & u32::from(rank_decides).wrapping_neg();
                    }
                    *word = undecided;
                }
                top
            },
        )
    }

    /// Counts the entries by bins: 16 octaves below the largest one, anything smaller in the first bin.
    fn fill(&mut self, values: &[f32], top: u32) {
        let size = (values.len() / 4).next_power_of_two().clamp(16, 2048);
        let shift = 23 + 4 - size.ilog2();
        let low = top.saturating_sub(((size as u32) << shift) - 1);
        self.bins.resize(values.len(), 0);
        let bins = &mut self.bins;
        wide(
            #[inline(always)]
            || {
                for (v, bin) in values.iter().zip(bins.iter_mut()) {
                    *bin = ((magnitude_bits(*v).max(low) - low) >> shift) as u16;
                }
            },
        );
        for counts in &mut self.counts {
            counts.clear();
            counts.resize(size + 1, 0);
        }
        self.known.resize(2048, (0, 0, 0, 0));
        let [even, odd] = &mut self.counts;
        let (even, odd) = (&mut **even, &mut **odd);
        let (pairs, last) = self.bins.as_chunks::<2>();
        for [a, b] in pairs {
            even[usize::from(*a)] += 1;
            odd[usize::from(*b)] += 1;
        }
        for bin in last {
            even[usize::from(*bin)] += 1;
        }
        let mut below = 0;
        for (even, odd) in even.iter_mut().zip(odd) {
            let here = *even + *odd;
            *even = below;
            below += here;
        }
    }
}

/// How many magnitudes are below `key`, and how many are not above it.
fn ranks_of(values: &[f32], key: u32) -> (u32, u32) {
    let key = key.cast_signed();
    wide(
        #[inline(always)]
        || {
            let (mut below, mut within) = (0u32, 0u32);
            for v in values {
                let k = magnitude_bits(*v).cast_signed();
                below += u32::from(k < key);
                within += u32::from(k <= key);
            }
            (below, within)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as it is written: sort, rank, compare.
    fn by_sorting(ramp: Ramp, values: &[f32], draws: &[u32]) -> Vec<bool> {
        let mut sorted: Vec<u32> = values.iter().map(|x| magnitude_bits(*x)).collect();
        sorted.sort_unstable();
        let keep = |(v, d): (&f32, &u32)| {
            let key = magnitude_bits(*v);
            let from = sorted.partition_point(|k| *k < key);
            let to = sorted.partition_point(|k| *k <= key);
            let x = ramp.first(*d);
            let rank = x.clamp(0.0, sorted.len() as f64) as usize;
            rank < from || (rank < to && (from + to - 1) as f64 * 0.5 > x - 1.0)
        };
        values.iter().zip(draws).map(keep).collect()
    }

    #[test]
    fn agrees_with_sorting() {
        let s = polyloom_core::rng::Stream::new(4, "ranks", 0);
        for (n, round) in [
            (1, 0.0),
            (7, 0.0),
            (300, 8.0),
            (900, 0.0),
            (900, 64.0),
            (5000, 512.0),
            (5000, 0.0),
        ] {
            let values: Vec<f32> = (0..n)
                .map(|i| {
                    let x = s.normal(i);
                    let x = if round > 0.0 {
                        (x * round).round() / round
                    } else {
                        x
                    };
                    // A few outliers, so that the bulk lies far below the largest.
                    if i % 97 == 3 { x * 1e4 } else { x }
                })
                .collect();
            let draws: Vec<u32> = (0..n).map(|i| s.bits(10_000 + i) as u32).collect();
            for (least, epsilon) in [(0.3, 0.2), (0.05, 0.01), (0.1, 0.4)] {
                let ramp = Ramp::new(least, epsilon, n as usize);
                let mut out = vec![9.0; n as usize];
                Ranker::default().cut(ramp, (&values, &draws), (0, 1), &mut out);
                for ((o, v), keep) in out
                    .iter()
                    .zip(&values)
                    .zip(by_sorting(ramp, &values, &draws))
                {
                    assert_eq!(*o, if keep { *v } else { 0.0 });
                }
            }
        }
        // Axis 1 of a [1, 3, 2] tensor, second column: 5, -4, 6; a draw of 0 keeps all but the lowest ranks.
        let values = [0.0, 5.0, 0.0, -4.0, 0.0, 6.0];
        let mut out = [9.0; 6];
        let ramp = Ramp::new(0.2, 0.3, 3);
        Ranker::default().cut(ramp, (&values, &[u32::MAX / 2; 6]), (1, 2), &mut out);
        assert_eq!(
            [out[0], out[2], out[4]],
            [9.0; 3],
            "the other column is untouched"
        );
        assert_eq!([out[1], out[3], out[5]], [5.0, 0.0, 6.0]);
    }

    #[test]
    fn magprune_draws_against_ranks() {
        // Ranks 0..5 of 5: p = 0.2, 0.35, 0.5, 0.65, 0.8; the two equal entries of ranks 1 and 2 have 0.425.
        let row = [4.0f32, 2.0, -2.0, 1.0, 3.0];
        let p = [0.8, 0.425, 0.425, 0.2, 0.65];
        let mut ranker = Ranker::default();
        let ramp = Ramp::new(0.2, 0.3, 5);
        for step in 0..1000 {
            let u = (f64::from(step) + 0.5) / 1000.0;
            let draw = (u * (1u64 << 32) as f64) as u32;
            let mut out = [9.0; 5];
            ranker.cut(ramp, (&row, &[draw; 5]), (0, 1), &mut out);
            for i in 0..5 {
                assert_eq!(out[i] != 0.0, u < p[i], "{u} {i}");
            }
        }
        let mut out = [0.0];
        let ramp = Ramp::new(0.4, 0.0, 1);
        for (u, want) in [(0.0, 7.0), (0.39, 7.0), (0.41, 0.0), (0.999, 0.0)] {
            let draw = (u * (1u64 << 32) as f64) as u32;
            ranker.cut(ramp, (&[7.0], &[draw]), (0, 1), &mut out);
            assert_eq!(out[0], want, "{u}");
        }
    }
}
