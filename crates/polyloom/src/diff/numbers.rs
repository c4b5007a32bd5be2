//! What is measured of one tensor, or summed over the tensors of a layer or a model.

use super::spectrum::Spectrum;

/// Sums and counts over entries; every rate is formed from them, so that layers and models add up exactly.
///
/// Pair tables are `[n, n]`, row-major and symmetric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// Experts.
    pub n: usize,
    /// Entries of the tensor.
    pub elements: u64,
    /// Squared norm of the base's values; `None` without a base.
    pub base_square: Option<f64>,
    /// Inner products of the task vectors.
    pub dots: Vec<f64>,
    /// Entries that differ from the base, per expert.
    pub changed: Vec<u64>,
    /// Entries in which at least two experts moved in opposite directions.
    pub conflicts: u64,
    /// Per pair: entries that both changed.
    pub both: Vec<u64>,
    /// Per pair: entries that both changed, in opposite directions.
    pub opposed: Vec<u64>,
    /// Entries among the largest of its tensor, per expert (never unchanged ones).
    pub top: Vec<u64>,
    /// Per pair: entries among the largest of both.
    pub top_both: Vec<u64>,
    /// Per pair: those of [`Self::top_both`] that point in opposite directions.
    pub top_opposed: Vec<u64>,
    /// Entries among the largest of at least two experts.
    pub top_shared: u64,
    /// Those of [`Self::top_shared`] in which two of these experts point in opposite directions.
    pub top_conflicts: u64,
    /// Spectra per expert; empty where none was asked for or the tensor is no matrix.
    pub spectra: Vec<Spectrum>,
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Numbers {
    /// Zeros for `n` experts.
    pub fn new(n: usize, with_base: bool) -> Self {
        Self {
            n,
            base_square: with_base.then_some(0.0),
            dots: vec![0.0; n * n],
            changed: vec![0; n],
            both: vec![0; n * n],
            opposed: vec![0; n * n],
            top: vec![0; n],
            top_both: vec![0; n * n],
            top_opposed: vec![0; n * n],
            ..Self::default()
        }
    }

    /// Adds another tensor's.
    pub fn add(&mut self, other: &Self) {
        fn each<T: std::ops::AddAssign + Copy>(to: &mut [T], from: &[T]) {
            for (a, b) in to.iter_mut().zip(from) {
                *a += *b;
            }
        }
        self.elements += other.elements;
        if let (Some(a), Some(b)) = (&mut self.base_square, other.base_square) {
            *a += b;
        }
        each(&mut self.dots, &other.dots);
        each(&mut self.changed, &other.changed);
        self.conflicts += other.conflicts;
        each(&mut self.both, &other.both);
        each(&mut self.opposed, &other.opposed);
        each(&mut self.top, &other.top);
        each(&mut self.top_both, &other.top_both);
        each(&mut self.top_opposed, &other.top_opposed);
        self.top_shared += other.top_shared;
        self.top_conflicts += other.top_conflicts;
        if self.spectra.is_empty() {
            self.spectra.clone_from(&other.spectra);
        } else {
            for (a, b) in self.spectra.iter_mut().zip(&other.spectra) {
                a.add(b);
            }
        }
    }

    /// Length of an expert's task vector.
    pub fn norm(&self, expert: usize) -> f64 {
        self.dots[expert * self.n + expert].max(0.0).sqrt()
    }

    /// Length of the base's values.
    pub fn base_norm(&self) -> Option<f64> {
        self.base_square.map(f64::sqrt)
    }

    /// Length of a task vector over that of the base; `None` without a base or where the base is zero.
    pub fn relative(&self, expert: usize) -> Option<f64> {
        let base = self.base_norm().filter(|b| *b > 0.0)?;
        Some(self.norm(expert) / base)
    }

    /// Root mean square of the entries of a task vector.
    pub fn rms(&self, expert: usize) -> f64 {
        if self.elements == 0 {
            return 0.0;
        }
        self.norm(expert) / (self.elements as f64).sqrt()
    }

    /// Share of the entries that an expert changed.
    pub fn changed_share(&self, expert: usize) -> f64 {
        share(self.changed[expert], self.elements).unwrap_or(0.0)
    }

    /// Cosine of two task vectors; 0 if one is zero.
    pub fn cosine(&self, a: usize, b: usize) -> f64 {
        let length = self.norm(a) * self.norm(b);
        if length > 0.0 {
            (self.dots[a * self.n + b] / length).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    }

    /// Share of all entries in which at least two experts moved in opposite directions.
    pub fn conflict(&self) -> f64 {
        share(self.conflicts, self.elements).unwrap_or(0.0)
    }

    /// Share of the entries that both changed in which they moved in opposite directions; `None` if there are none.
    pub fn pair_conflict(&self, a: usize, b: usize) -> Option<f64> {
        let at = a * self.n + b;
        share(self.opposed[at], self.both[at])
    }

    /// The same among the entries that are among the largest of both.
    pub fn pair_top_conflict(&self, a: usize, b: usize) -> Option<f64> {
        let at = a * self.n + b;
        share(self.top_opposed[at], self.top_both[at])
    }

    /// Share of the entries among the largest of at least two experts in which two of these disagree.
    pub fn top_conflict(&self) -> Option<f64> {
        share(self.top_conflicts, self.top_shared)
    }

    /// Jaccard index of the sets of largest entries of two experts; `None` if both are empty.
    pub fn overlap(&self, a: usize, b: usize) -> Option<f64> {
        let both = self.top_both[a * self.n + b];
        share(both, self.top[a] + self.top[b] - both)
    }

    /// All pairs `(a, b)` with `a < b`.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let n = self.n;
        (0..n).flat_map(move |a| (a + 1..n).map(move |b| (a, b)))
    }

    /// Mean over all pairs of what is known of them; `None` if nothing is.
    pub fn mean_over_pairs(&self, f: impl Fn(usize, usize) -> Option<f64>) -> Option<f64> {
        mean(self.pairs().filter_map(|(a, b)| f(a, b)))
    }

    /// Mean over the experts.
    pub fn mean(&self, f: impl Fn(usize) -> f64) -> f64 {
        mean((0..self.n).map(f)).unwrap_or(0.0)
    }
}

/// Mean of numbers; `None` if there are none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for v in values {
        sum += v;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}
