//! Ranks within rows, and random survival by rank (DELLA).

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

    /// Writes the survivors of one row. `sorted` holds the row's magnitudes, ascending, and one larger key.
    pub(super) fn cut(
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

/// Sorts the magnitudes of rows.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    pub(super) keys: Vec<u32>,
    other: Vec<u32>,
}

impl Sorter {
    /// Sets `keys` to the magnitudes of every `stride`-th entry from `first` on, ascending, and a larger one.
    pub(super) fn sort(&mut self, values: &[f32], first: usize, stride: usize) {
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
}
