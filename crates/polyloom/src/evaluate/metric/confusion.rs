//! Which class was predicted for which: counts that can be filled in parts and merged.

use std::collections::{BTreeMap, BTreeSet};

use crate::evaluate::error::same_length;
use crate::evaluate::metric::prf::ClassCounts;
use crate::evaluate::sum::Sum;
use crate::evaluate::{EvalError, Result};

/// Class ids below this are counted in a square array, others in a map.
const DENSE: u32 = 1024;

/// Counts of (true class, predicted class), filled one by one or in bulk, and merged in any order.
///
/// Classes are ids; [`codes`] makes them from labels of any ordered type. Counting is exact; weights are added with
/// compensation, so that parts counted apart and merged agree with one pass to the last rounding.
/// Cost: O(1) per example for ids below 1024 (one square array of the largest id), O(log cells) for others.
#[derive(Debug, Clone, Default)]
pub struct Confusion {
    counts: Grid<u64>,
    weights: Grid<Sum>,
}

trait Cell: Copy + Default {
    fn merge(&mut self, other: &Self);
    fn seen(&self) -> bool;
}

impl Cell for u64 {
    fn merge(&mut self, other: &Self) {
        *self += other;
    }

    fn seen(&self) -> bool {
        *self > 0
    }
}

impl Cell for Sum {
    fn merge(&mut self, other: &Self) {
        Self::merge(self, other);
    }

    fn seen(&self) -> bool {
        self.count() > 0
    }
}

/// A square of `side` for small ids, a map for pairs with a large one.
#[derive(Debug, Clone, Default)]
struct Grid<C> {
    side: u32,
    dense: Vec<C>,
    sparse: BTreeMap<(u32, u32), C>,
}

impl<C: Cell> Grid<C> {
    #[inline]
    fn cell(&mut self, truth: u32, predicted: u32) -> &mut C {
        let last = truth.max(predicted);
        if last >= self.side {
            if last >= DENSE {
                return self.sparse.entry((truth, predicted)).or_default();
            }
            self.grow(last);
        }
        &mut self.dense[truth as usize * self.side as usize + predicted as usize]
    }

    #[cold]
    fn grow(&mut self, last: u32) {
        let (old, new) = (self.side as usize, (last + 1).next_power_of_two());
        let mut dense = vec![C::default(); new as usize * new as usize];
        for i in 0..old {
            let at = i * new as usize;
            dense[at..at + old].copy_from_slice(&self.dense[i * old..(i + 1) * old]);
        }
        (self.side, self.dense) = (new, dense);
    }

    fn merge(&mut self, other: &Self) {
        other.cells().for_each(|(t, p, c)| self.cell(t, p).merge(c));
    }

    /// Cells that were touched: small ids row by row, then the others.
    fn cells(&self) -> impl Iterator<Item = (u32, u32, &C)> {
        let rows = self.dense.chunks(self.side.max(1) as usize).zip(0..);
        let dense = rows.flat_map(|(row, t)| row.iter().zip(0..).map(move |(c, p)| (t, p, c)));
        let sparse = self.sparse.iter().map(|(&(t, p), c)| (t, p, c));
        dense.filter(|(_, _, c)| c.seen()).chain(sparse)
    }
}

impl Confusion {
    /// Counts an example.
    #[inline]
    pub fn add(&mut self, truth: u32, predicted: u32) {
        *self.counts.cell(truth, predicted) += 1;
    }

    /// Counts an example with a weight. A weight of 0 names its classes and changes nothing else.
    ///
    /// # Errors
    /// A weight that is negative or not finite.
    pub fn add_weighted(&mut self, truth: u32, predicted: u32, weight: f64) -> Result<()> {
        check_weight("confusion", weight)?;
        self.weights.cell(truth, predicted).add(weight);
        Ok(())
    }

    /// Counts lists of examples, each with its weight where weights are given.
    ///
    /// # Errors
    /// Lists that are empty or of different lengths, or a bad weight.
    pub fn extend(
        &mut self,
        truth: &[u32],
        predicted: &[u32],
        weight: Option<&[f64]>,
    ) -> Result<()> {
        same_length("truth and predictions", truth.len(), predicted.len())?;
        let pairs = truth.iter().zip(predicted);
        let Some(weight) = weight else {
            pairs.for_each(|(&t, &p)| self.add(t, p));
            return Ok(());
        };
        same_length("examples and weights", truth.len(), weight.len())?;
        pairs
            .zip(weight)
            .try_for_each(|((&t, &p), &w)| self.add_weighted(t, p, w))
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.weights.merge(&other.weights);
    }

    /// Whether any example had a weight.
    pub(super) fn is_weighted(&self) -> bool {
        self.weights.cells().next().is_some()
    }

    /// Counted cells: true class, predicted class, examples.
    pub(super) fn counted(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.counts.cells().map(|(t, p, &n)| (t, p, n))
    }

    /// The finished table over the sorted union of the classes seen on either side.
    ///
    /// Cost: O(cells + classes log classes).
    ///
    /// # Errors
    /// Nothing was counted.
    pub fn finish(&self) -> Result<Table> {
        let counts = self.counts.cells().map(|(t, p, &c)| ((t, p), c as f64));
        let weights = self.weights.cells().map(|(t, p, w)| ((t, p), w.total()));
        let mut cells: Vec<((u32, u32), f64)> = counts.chain(weights).collect();
        if cells.is_empty() {
            return Err(EvalError::Empty { what: "confusion" });
        }
        cells.sort_by_key(|c| c.0);
        // A cell that was counted with and without weights is one.
        cells.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0.0 };
            same
        });
        let mut classes: Vec<u32> = cells
            .chunk_by(|a, b| a.0.0 == b.0.0)
            .map(|r| r[0].0.0)
            .collect();
        let mut predicted: Vec<u32> = cells.iter().map(|c| c.0.1).collect();
        predicted.sort_unstable();
        predicted.dedup();
        classes.append(&mut predicted);
        classes.sort_unstable();
        classes.dedup();
        let place = |id| classes.partition_point(|&c| c < id);
        let mut sums = vec![[Sum::default(); 3]; classes.len()];
        let mut total = Sum::default();
        let mut placed = Vec::with_capacity(cells.len());
        for ((t, p), x) in cells {
            let (t, p) = (place(t), place(p));
            if t == p {
                sums[t][0].add(x);
            }
            sums[t][1].add(x);
            sums[p][2].add(x);
            total.add(x);
            placed.push((t, p, x));
        }
        let counts = sums.iter().map(|[hits, support, predicted]| ClassCounts {
            hits: hits.total(),
            support: support.total(),
            predicted: predicted.total(),
        });
        Ok(Table {
            counts: counts.collect(),
            classes,
            cells: placed,
            total: total.total(),
        })
    }
}

/// Refuses weights that are negative or not finite.
pub(crate) fn check_weight(what: &'static str, weight: f64) -> Result<()> {
    if weight.is_finite() && weight >= 0.0 {
        return Ok(());
    }
    Err(EvalError::invalid(what, format!("a weight is {weight}")))
}

/// A finished confusion table; the metrics of `metric::classification` are its methods.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub(super) classes: Vec<u32>,
    pub(super) counts: Vec<ClassCounts>,
    /// (place of the true class, place of the predicted class, weight), by rows.
    pub(super) cells: Vec<(usize, usize, f64)>,
    pub(super) total: f64,
}

impl Table {
    /// The classes seen in truth or prediction, ascending.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// Weight of all examples.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Counts of the given classes, in that order, or of all seen; a class that was never seen has zeros.
    ///
    /// # Errors
    /// An empty list, or a class that it names twice.
    pub fn class_counts(&self, classes: Option<&[u32]>) -> Result<Vec<ClassCounts>> {
        let Some(classes) = classes else {
            return Ok(self.counts.clone());
        };
        self.places(classes).map(|places| {
            let counts = |place: Option<usize>| place.map(|i| self.counts[i]).unwrap_or_default();
            places.into_iter().map(counts).collect()
        })
    }

    /// The table over the given classes, in that order: `[i][j]` is the weight of examples of class i that were predicted
    /// as class j. Examples with another class on either side are left out.
    ///
    /// # Errors
    /// An empty list, or a class that it names twice.
    pub fn matrix(&self, classes: &[u32]) -> Result<Vec<Vec<f64>>> {
        let mut to = vec![None; self.classes.len()];
        for (i, place) in self.places(classes)?.into_iter().enumerate() {
            if let Some(place) = place {
                to[place] = Some(i);
            }
        }
        let mut matrix = vec![vec![0.0; classes.len()]; classes.len()];
        for &(t, p, x) in &self.cells {
            if let (Some(t), Some(p)) = (to[t], to[p]) {
                matrix[t][p] = x;
            }
        }
        Ok(matrix)
    }

    fn places(&self, classes: &[u32]) -> Result<Vec<Option<usize>>> {
        if classes.is_empty() {
            return Err(EvalError::Empty { what: "class list" });
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = classes.iter().find(|c| !seen.insert(**c)) {
            return Err(EvalError::invalid(
                "class list",
                format!("class {twice} stands twice"),
            ));
        }
        Ok(classes
            .iter()
            .map(|c| self.classes.binary_search(c).ok())
            .collect())
    }
}

/// Labels as class ids: the sorted labels of both lists, and each list as places in them. Strings sort by code point.
///
/// Cost: O(n log classes).
pub fn codes<T: Ord + Clone>(truth: &[T], predicted: &[T]) -> (Vec<T>, Vec<u32>, Vec<u32>) {
    let classes: BTreeSet<&T> = truth.iter().chain(predicted).collect();
    let classes: Vec<T> = classes.into_iter().cloned().collect();
    let ids = |labels: &[T]| {
        let place = |label| classes.partition_point(|c| c < label) as u32;
        labels.iter().map(place).collect()
    };
    let (truth, predicted) = (ids(truth), ids(predicted));
    (classes, truth, predicted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_and_large_ids_share_a_table() {
        let mut all = Confusion::default();
        all.extend(&[0, 5, 2_000_000, 5], &[0, 2_000_000, 2_000_000, 0], None)
            .unwrap();
        all.add_weighted(5, 0, 0.5).unwrap();
        let table = all.finish().unwrap();
        assert_eq!(table.classes(), [0, 5, 2_000_000]);
        assert_eq!(table.total(), 4.5);
        let matrix = table.matrix(&[2_000_000, 5, 0, 7]).unwrap();
        assert_eq!(matrix[1], [1.0, 0.0, 1.5, 0.0]);
        assert_eq!(matrix[0], [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(
            table.class_counts(Some(&[7])).unwrap(),
            [ClassCounts::default()]
        );
        assert_eq!(table.class_counts(None).unwrap()[2].predicted, 2.0);
    }

    #[test]
    fn refuses() {
        let mut all = Confusion::default();
        assert!(all.finish().is_err());
        assert!(all.extend(&[], &[], None).is_err());
        assert!(all.extend(&[1], &[1, 2], None).is_err());
        assert!(all.extend(&[1], &[1], Some(&[])).is_err());
        assert!(all.add_weighted(0, 0, -1.0).is_err());
        assert!(all.add_weighted(0, 0, f64::NAN).is_err());
        all.add(0, 1);
        let table = all.finish().unwrap();
        assert!(table.matrix(&[]).is_err() && table.matrix(&[1, 1]).is_err());
    }

    #[test]
    fn labels_become_places() {
        let (classes, truth, predicted) = codes(&["b", "ä"], &["Z", "b"]);
        assert_eq!(classes, ["Z", "b", "ä"]);
        assert_eq!((truth, predicted), (vec![1, 2], vec![0, 1]));
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(
            rows in prop::collection::vec((0u32..6, 0u32..6, 0u32..8), 1..60),
            cut in 0usize..60,
        ) {
            let id = |c: u32| if c == 5 { 5000 } else { c * 20 };
            let count = |rows: &[(u32, u32, u32)]| {
                let mut part = Confusion::default();
                for &(t, p, w) in rows {
                    if w == 0 {
                        part.add(id(t), id(p));
                    } else {
                        part.add_weighted(id(t), id(p), f64::from(w) / 8.0).unwrap();
                    }
                }
                part
            };
            let cut = cut.min(rows.len());
            let mut merged = count(&rows[cut..]);
            merged.merge(&count(&rows[..cut]));
            prop_assert_eq!(merged.finish().unwrap(), count(&rows).finish().unwrap());
        }
    }
}
