//! Ranks within rows, and random survival by rank (DELLA).

use polyloom_core::wide;

use super::band::kept;
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
        Self {
            scale: slope / (1u64 << 32) as f64,
            shift: 1.0 - slope * least,
        }
    }

    /// The first rank that a draw lets survive; truncated, and between 0 and the length of the row.
    #[inline]
    fn first(self, draw: u32) -> f64 {
        f64::from(draw) * self.scale + self.shift
    }
}

/// Survivors of a chunk that the survey has already decided on, as bits.
#[derive(Debug, Default)]
pub(super) struct Mask<'a> {
    pub(super) words: &'a [u64],
    pub(super) at: usize,
}

impl Mask<'_> {
    /// Bits of the entries that are not zero.
    pub(super) fn pack(values: &[f32], words: &mut Vec<u64>) {
        words.extend(values.chunks(64).map(|block| {
            let mut word = 0;
            for (i, x) in block.iter().enumerate() {
                word |= u64::from(*x != 0.0) << i;
            }
            word
        }));
    }

    /// Copies the next survivors to `out`; `false` if nothing was decided.
    pub(super) fn next(&mut self, values: &[f32], out: &mut [f32]) -> bool {
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

/// Decides which entries of a row survive, without sorting it: a histogram of the magnitudes brackets every entry's
/// rank, and only where the draw falls into the bracket is the rank counted out.
#[derive(Debug, Default)]
pub(super) struct Ranker {
    /// Magnitudes of the row.
    keys: Vec<u32>,
    bins: Vec<Bin>,
    /// Entries whose draw falls into their bin's ranks.
    unclear: Vec<u32>,
}

/// A bin of magnitudes.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    /// Entries in it; then entries below it.
    count: u32,
    /// Its first magnitude, and the bits in which others differ from it.
    first: u32,
    mixed: u32,
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
        self.keys.clear();
        if stride == 1 {
            let row = values[first..].iter();
            self.keys.extend(row.map(|x| magnitude_bits(*x)));
        } else {
            let column = values[first..].iter().step_by(stride);
            self.keys.extend(column.map(|x| magnitude_bits(*x)));
        }
        let (low, shift) = self.fill();
        let last = self.keys.len() as f64;
        let Self {
            keys,
            bins,
            unclear,
        } = self;
        unclear.resize(keys.len(), 0);
        let mut waiting = 0;
        for (i, key) in keys.iter().enumerate() {
            let at = first + i * stride;
            let rank = ramp.first(draws[at]).clamp(0.0, last) as u32;
            let bin = (key.saturating_sub(low) >> shift) as usize;
            let (from, to) = (bins[bin].count, bins[bin + 1].count);
            out[at] = kept(values[at], rank < from);
            unclear[waiting] = i as u32;
            // (Zeros are zero whether they survive or not.)
            waiting += usize::from((rank >= from) & (rank < to) & (*key != 0));
        }
        for i in &unclear[..waiting] {
            let i = *i as usize;
            let (key, at) = (keys[i], first + i * stride);
            let bin = (key.saturating_sub(low) >> shift) as usize;
            let (from, to) = if bins[bin].mixed == 0 {
                (bins[bin].count, bins[bin + 1].count)
            } else {
                ranks_of(keys, key)
            };
            let x = ramp.first(draws[at]);
            let rank = x.clamp(0.0, last) as u32;
            // Equal magnitudes share the mean of their ranks.
            let tied = rank < to && f64::from(from + to - 1) * 0.5 > x - 1.0;
            out[at] = kept(values[at], rank < from || tied);
        }
    }

    /// Counts the keys by bins: 16 octaves below the largest one, anything smaller in the first bin. Returns the key
    /// at which the bins start and their width as a shift.
    fn fill(&mut self) -> (u32, u32) {
        let size = self.keys.len().next_power_of_two().clamp(16, 2048);
        let shift = 23 + 4 - size.ilog2();
        let top = wide(
            #[inline(always)]
            || self.keys.iter().fold(0, |a, b| a.max(*b)),
        );
        let low = top.saturating_sub(((size as u32) << shift) - 1);
        self.bins.clear();
        self.bins.resize(size + 1, Bin::default());
        for key in &self.keys {
            let bin = &mut self.bins[(key.saturating_sub(low) >> shift) as usize];
            bin.first = if bin.count == 0 { *key } else { bin.first };
            bin.mixed |= bin.first ^ key;
            bin.count += 1;
        }
        let mut below = 0;
        for bin in &mut self.bins {
            below += std::mem::replace(&mut bin.count, below);
        }
        (low, shift)
    }
}

/// How many keys are below `key`, and how many are not above it.
fn ranks_of(keys: &[u32], key: u32) -> (u32, u32) {
    wide(
        #[inline(always)]
        || {
            let (mut below, mut within) = (0u32, 0u32);
            for k in keys {
                below += u32::from(*k < key);
                within += u32::from(*k <= key);
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
