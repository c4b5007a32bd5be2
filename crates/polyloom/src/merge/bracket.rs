//! Exact order statistics for one full pass: a sample says between which keys the answers lie, and the pass counts
//! what is below and keeps what is between. If the sample misled, the caller falls back to [`super::survey::Selector`].

use polyloom_core::wide;

use super::survey::Cut;

/// Search for the keys at some ranks (ascending order, from 0).
#[derive(Debug, Clone)]
pub struct Bracket {
    ranks: Vec<u64>,
    total: u64,
    /// Sampled keys, piece by piece.
    sample: Vec<Vec<u32>>,
    /// First and last key between which each rank is expected.
    spans: Vec<(u32, u32)>,
    /// Keys below each span.
    below: Vec<u64>,
    seen: Vec<Vec<((usize, usize), Inside)>>,
}

/// What one chunk holds inside one span. Keys equal to an end are counted, not kept: they may be nearly all there are.
#[derive(Debug, Clone, Default)]
pub struct Inside {
    below: u64,
    first: u32,
    last: u32,
    between: Vec<u32>,
}

/// What [`Bracket::look`] found.
#[derive(Debug)]
pub enum Glance {
    /// A piece of the sample.
    Sample(Vec<u32>),
    /// A chunk (its place) of the full pass, by rank.
    Full((usize, usize), Vec<Inside>),
}

impl Bracket {
    /// Searches for `ranks` among `total` keys.
    pub fn new(ranks: Vec<u64>, total: u64) -> Self {
        Self {
            below: vec![0; ranks.len()],
            seen: vec![Vec::new(); ranks.len()],
            ranks,
            total,
            sample: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// True as long as a sample is all that is needed.
    pub fn samples(&self) -> bool {
        self.spans.is_empty()
    }

    /// Looks at a chunk; keys are magnitudes of `values`.
    pub fn look(&self, place: (usize, usize), values: &[f32]) -> Glance {
        if self.samples() {
            return Glance::Sample(values.iter().map(|v| v.to_bits() & MAGNITUDE).collect());
        }
        let mut found = vec![Inside::default(); self.spans.len()];
        for step in values.chunks(STEP) {
            for (inside, (first, last)) in found.iter_mut().zip(&self.spans) {
                inside.look(step, *first, *last);
            }
        }
        Glance::Full(place, found)
    }

    /// Takes what was found, in chunk order.
    pub fn absorb(&mut self, glance: Glance) {
        match glance {
            Glance::Sample(keys) => self.sample.push(keys),
            Glance::Full(place, found) => {
                for (i, mut inside) in found.into_iter().enumerate() {
                    self.below[i] += inside.below;
                    if inside.first > 0 || inside.last > 0 || !inside.between.is_empty() {
                        inside.between.shrink_to_fit();
                        self.seen[i].push((place, inside));
                    }
                }
            }
        }
    }

    /// Ends the sampled round.
    pub fn aim(&mut self) {
        let mut all: Vec<u32> = self.sample.concat();
        all.sort_unstable();
        let n = all.len() as f64;
        for rank in &self.ranks {
            let share = *rank as f64 / self.total.max(1) as f64;
            let middle = all[((share * n) as usize).min(all.len() - 1)];
            // Neighbours resemble each other, so the error is read off the spread between pieces.
            let shares = self.sample.iter().map(|piece| {
                piece.iter().filter(|k| **k < middle).count() as f64 / piece.len().max(1) as f64
            });
            let pieces = self.sample.len().max(2) as f64;
            let mean = shares.clone().sum::<f64>() / pieces;
            let variance = shares.map(|s| (s - mean).powi(2)).sum::<f64>() / (pieces - 1.0);
            let slack = 4.0 * (variance / pieces).sqrt() * n + 8.0;
            let (from, to) = (share * n - slack, share * n + slack);
            let first = if from < 0.0 { 0 } else { all[from as usize] };
            let last = all.get(to as usize).copied().unwrap_or(MAGNITUDE);
            self.spans.push((first, last));
        }
        self.sample = Vec::new();
    }

    /// The cuts at the ranks after the full pass; `None` if a rank lies outside its span.
    pub fn cuts(&self) -> Option<Vec<Cut>> {
        (0..self.ranks.len()).map(|i| self.cut(i)).collect()
    }

    fn cut(&self, i: usize) -> Option<Cut> {
        let (first, last) = self.spans[i];
        let seen = &self.seen[i];
        let sum = |f: fn(&Inside) -> u64| seen.iter().map(|(_, s)| f(s)).sum::<u64>();
        let at_first = sum(|s| u64::from(s.first));
        let at_last = sum(|s| u64::from(s.last));
        let between = sum(|s| s.between.len() as u64);
        let rank = self.ranks[i].checked_sub(self.below[i])?;
        let (key, smaller) = if rank < at_first {
            (first, 0)
        } else if rank < at_first + between {
            let mut keys = Vec::with_capacity(between as usize);
            seen.iter()
                .for_each(|(_, s)| keys.extend_from_slice(&s.between));
            let (below, key, _) = keys.select_nth_unstable((rank - at_first) as usize);
            let key = *key;
            let smaller = below.iter().filter(|k| **k < key).count() as u64;
            (key, at_first + smaller)
        } else if rank < at_first + between + at_last {
            (last, at_first + between)
        } else {
            return None;
        };
        let mut before = Vec::new();
        let mut equal = 0;
        for (place, inside) in seen {
            let here = if key == first {
                u64::from(inside.first)
            } else if key == last {
                u64::from(inside.last)
            } else {
                inside.between.iter().filter(|k| **k == key).count() as u64
            };
            if here > 0 {
                before.push((*place, equal));
                equal += here;
            }
        }
        let smaller = self.below[i] + smaller;
        Some(Cut::new(key, smaller, equal, self.total, before))
    }
}

const MAGNITUDE: u32 = 0x7FFF_FFFF;

/// Elements of one step: the counters stay in registers.
const STEP: usize = 512;
/// Elements of which one word says which to keep.
const WORD: usize = 32;
/// The bits of a word, for loops that collect one from comparisons.
pub(super) const BITS: [u32; WORD] = {
    let mut bits = [0; WORD];
    let mut i = 0;
    while i < WORD {
        bits[i] = 1 << i;
        i += 1;
    }
    bits
};

impl Inside {
    /// Looks at up to [`STEP`] values.
    fn look(&mut self, values: &[f32], first: u32, last: u32) {
        let mut words = [0u32; STEP / WORD];
        wide(
            #[inline(always)]
            || {
                let (whole, rest) = values.as_chunks::<WORD>();
                for (keys, word) in whole.iter().zip(&mut words) {
                    *word = self.count(keys, first, last);
                }
                if !rest.is_empty() {
                    words[whole.len()] = self.count(rest, first, last);
                }
            },
        );
        for (keys, mut word) in values.chunks(WORD).zip(words) {
            while word != 0 {
                let key = keys[word.trailing_zeros() as usize].to_bits() & MAGNITUDE;
                self.between.push(key);
                word &= word - 1;
            }
        }
        if first == last {
            self.last = 0;
        }
    }

    /// Counts keys and tells, bit by bit, which lie strictly between the ends. Part of a wide loop: a call would keep
    /// it from the wide registers.
    #[inline(always)]
    fn count(&mut self, values: &[f32], first: u32, last: u32) -> u32 {
        // Magnitudes have no sign bit, and signed comparisons are the cheaper ones.
        let (first, last) = (first.cast_signed(), last.cast_signed());
        let (mut below, mut at_first, mut at_last, mut between) = (0u32, 0u32, 0u32, 0u32);
        for (v, bit) in values.iter().zip(BITS) {
            let key = (v.to_bits() & MAGNITUDE).cast_signed();
            below += u32::from(key < first);
            at_first += u32::from(key == first);
            at_last += u32::from(key == last);
            between |= bit & u32::from((key > first) & (key < last)).wrapping_neg();
        }
        self.below += u64::from(below);
        self.first += at_first;
        self.last += at_last;
        between
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(values: &[f32], ranks: &[u64], sample: &[f32], chunk: usize) -> Option<Vec<Cut>> {
        let mut b = Bracket::new(ranks.to_vec(), values.len() as u64);
        for piece in sample.chunks(16) {
            let glance = b.look((0, 0), piece);
            b.absorb(glance);
        }
        b.aim();
        for (i, c) in values.chunks(chunk).enumerate() {
            let glance = b.look((0, i * chunk), c);
            b.absorb(glance);
        }
        b.cuts()
    }

    #[test]
    fn agrees_with_sorting() {
        let s = polyloom_core::rng::Stream::new(3, "t", 0);
        for steps in [3.0, 40.0, 1e6] {
            // Few distinct values, many, all: ends of spans that many keys share must be counted right.
            let v: Vec<f32> = (0..20_000)
                .map(|i| ((s.uniform(i) - 0.5) * steps).round())
                .collect();
            let mut keys: Vec<u32> = v.iter().map(|x| x.to_bits() & MAGNITUDE).collect();
            keys.sort_unstable();
            for rank in [0u64, 10, 9_000, 16_000, 19_999] {
                let cut = &cuts(&v, &[rank], &v[..4_000], 640).unwrap()[0];
                let key = keys[rank as usize];
                assert_eq!(cut.key, key, "{steps} {rank}");
                assert_eq!(
                    cut.smaller,
                    keys.iter().filter(|k| **k < key).count() as u64
                );
                assert_eq!(cut.equal, keys.iter().filter(|k| **k == key).count() as u64);
                assert_eq!(cut.smaller + cut.equal + cut.larger, 20_000);
                let equal = |v: &[f32]| v.iter().filter(|x| x.to_bits() & MAGNITUDE == key).count();
                assert_eq!(cut.equal_before((0, 6_400)), equal(&v[..6_400]) as u64);
            }
        }
    }

    #[test]
    fn a_misleading_sample_is_noticed() {
        let v: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        // The sample holds only small values, but rank 9,000 is beyond them all: its span is open at the top.
        assert!(
            cuts(&v, &[9_000], &v[..2_000], 1_000).is_none_or(|c| c[0].key == 9_000f32.to_bits())
        );
        assert!(cuts(&v, &[5_000], &v[..2_000], 1_000).is_none());
    }
}
