//! The bootstrap: how a number would vary had other examples been drawn, found by drawing examples again with
//! replacement.
//!
//! Three forms, all with the random numbers of [`super::draw`] and thus the same bytes for any number of threads:
//! any statistic over resampled indices, a statistic of counts (a confusion matrix, say) that never walks the examples
//! again, and the mean. Examples that belong together are drawn together ([`Bootstrap::clusters`]).
//! Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993).

use rayon::prelude::*;

use super::check_finite;
use super::draw::Seed;
use super::mean::Clusters;
use super::replicates::Replicates;
use crate::evaluate::error::{EvalError, Result};
use crate::evaluate::sum::{Sum, mean};

const WHAT: &str = "bootstrap";
/// Draws that a thread makes at least, so that its buffers are worth their allocation.
const BATCH: usize = 8;

/// How many draws, from which random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of draws; 1000 is usual, 2000 for intervals in a report.
    pub draws: usize,
    /// Where the random numbers begin.
    pub seed: Seed,
}

impl Bootstrap {
    /// A thousand draws.
    pub fn new(seed: Seed) -> Self {
        Self { draws: 1000, seed }
    }

    /// The same with another number of draws.
    pub fn with_draws(self, draws: usize) -> Self {
        Self { draws, ..self }
    }

    /// A statistic over `n` examples given as indices, which come in the order drawn; the point estimate is that of
    /// `0..n`. `scratch` makes what a thread reuses from draw to draw.
    ///
    /// Cost: `draws` times (n + the statistic), over all threads. A statistic may be `NaN` where it is not defined.
    ///
    /// # Errors
    /// No draws, no examples, or more than 2^32 of them.
    pub fn indices<S>(
        &self,
        n: usize,
        scratch: impl Fn() -> S + Sync,
        statistic: impl Fn(&mut S, &[u32]) -> f64 + Sync,
    ) -> Result<Replicates> {
        let all = self.all(n)?;
        let point = statistic(&mut scratch(), &all);
        let values = self.each(
            || (scratch(), vec![0; n]),
            |(scratch, indices), number| {
                let mut draw = self.seed.draw(number);
                indices.iter_mut().for_each(|i| *i = draw.index(n));
                statistic(scratch, indices)
            },
        );
        Ok(Replicates { point, values })
    }

    /// A statistic of how many examples fall into each of `cells` cells, `cell` naming that of each example: for a
    /// confusion matrix of k classes `truth * k + prediction`, for answers right and wrong 0 and 1.
    ///
    /// Cost: `draws` times (n + cells + the statistic), some 5 ns per example and thread.
    ///
    /// # Errors
    /// No draws, no examples, more than 2^32, or a cell number out of range.
    pub fn counts(
        &self,
        cell: &[u32],
        cells: usize,
        statistic: impl Fn(&[u64]) -> f64 + Sync,
    ) -> Result<Replicates> {
        self.all(cell.len())?;
        let observed = count(cell, cells)?;
        let n = cell.len();
        let values = self.each(
            || vec![0u64; cells],
            |counts, number| {
                counts.fill(0);
                let mut draw = self.seed.draw(number);
                for _ in 0..n {
                    counts[cell[draw.index(n) as usize] as usize] += 1;
                }
                statistic(counts)
            },
        );
        Ok(Replicates {
            point: statistic(&observed),
            values,
        })
    }

    /// The mean of per-example values.
    ///
    /// # Errors
    /// No draws, no values, more than 2^32, or one that is not finite.
    pub fn mean(&self, values: &[f64]) -> Result<Replicates> {
        check_finite(WHAT, values)?;
        self.indices(
            values.len(),
            || (),
            |(), indices| mean(indices.iter().map(|&i| values[i as usize])),
        )
    }

    /// A statistic over examples that are drawn by cluster: as many clusters as there are, each with all its examples, in
    /// the order drawn. The number of examples varies from draw to draw.
    ///
    /// # Errors
    /// No draws.
    pub fn clusters<S>(
        &self,
        clusters: &Clusters,
        scratch: impl Fn() -> S + Sync,
        statistic: impl Fn(&mut S, &[u32]) -> f64 + Sync,
    ) -> Result<Replicates> {
        let all = self.all(clusters.examples())?;
        let point = statistic(&mut scratch(), &all);
        let values = self.each(
            || (scratch(), Vec::with_capacity(all.len())),
            |(scratch, indices), number| {
                indices.clear();
                let mut draw = self.seed.draw(number);
                for _ in 0..clusters.len() {
                    let place = draw.index(clusters.len()) as usize;
                    indices.extend_from_slice(clusters.members(place));
                }
                statistic(scratch, indices)
            },
        );
        Ok(Replicates { point, values })
    }

    /// Runs every draw by its number; results in the order of the draws.
    pub(crate) fn each<S, T: Send>(
        &self,
        scratch: impl Fn() -> S + Sync,
        draw: impl Fn(&mut S, u64) -> T + Sync,
    ) -> Vec<T> {
        (0..self.draws)
            .into_par_iter()
            .with_min_len(BATCH)
            .map_init(&scratch, |scratch, number| draw(scratch, number as u64))
            .collect()
    }

    fn all(&self, n: usize) -> Result<Vec<u32>> {
        if n == 0 || self.draws == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        match u32::try_from(n) {
            Ok(n) => Ok((0..n).collect()),
            Err(_) => Err(EvalError::invalid(WHAT, "more than 2^32 examples")),
        }
    }
}

/// How many examples fall into each cell.
fn count(cell: &[u32], cells: usize) -> Result<Vec<u64>> {
    let mut counts = vec![0u64; cells];
    for (i, &c) in cell.iter().enumerate() {
        let Some(count) = counts.get_mut(c as usize) else {
            let problem = format!("cell {c} at {i}, but there are {cells}");
            return Err(EvalError::invalid(WHAT, problem));
        };
        *count += 1;
    }
    Ok(counts)
}

/// A statistic without each example in turn, for [`Replicates::bca`]: pairs of a value and how many examples give it.
///
/// Cost: n times the statistic, over all threads: quadratic for a statistic that walks the examples.
pub fn jackknife_indices<S>(
    n: usize,
    scratch: impl Fn() -> S + Sync,
    statistic: impl Fn(&mut S, &[u32]) -> f64 + Sync,
) -> Vec<(f64, u64)> {
    (0..n)
        .into_par_iter()
        .with_min_len(BATCH)
        .map_init(
            || (scratch(), Vec::with_capacity(n)),
            |(scratch, indices), left_out| {
                indices.clear();
                indices.extend((0..n as u32).filter(|&i| i as usize != left_out));
                (statistic(scratch, indices), 1)
            },
        )
        .collect()
}

/// As [`jackknife_indices`], for a statistic of counts: one evaluation per cell, whatever the number of examples.
///
/// # Errors
/// A cell number out of range.
pub fn jackknife_counts(
    cell: &[u32],
    cells: usize,
    statistic: impl Fn(&[u64]) -> f64,
) -> Result<Vec<(f64, u64)>> {
    let mut counts = count(cell, cells)?;
    let mut found = Vec::new();
    for c in 0..cells {
        let examples = counts[c];
        if examples > 0 {
            counts[c] -= 1;
            found.push((statistic(&counts), examples));
            counts[c] = examples;
        }
    }
    Ok(found)
}

/// As [`jackknife_indices`], for the mean, in O(n).
pub fn jackknife_mean(values: &[f64]) -> Vec<(f64, u64)> {
    let total: Sum = values.iter().copied().collect();
    let rest = values.len() as f64 - 1.0;
    let without = |x: &f64| ((total.total() - x) / rest, 1);
    values.iter().map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(draws: usize) -> Bootstrap {
        Bootstrap::new(Seed::of("task", "metric")).with_draws(draws)
    }

    #[test]
    fn forms_agree() {
        let right: Vec<f64> = (0..90).map(|i| f64::from(u8::from(i % 3 > 0))).collect();
        let cell: Vec<u32> = right.iter().map(|&x| x as u32).collect();
        let share = |counts: &[u64]| counts[1] as f64 / (counts[0] + counts[1]) as f64;
        let by_mean = bootstrap(300).mean(&right).unwrap();
        let by_counts = bootstrap(300).counts(&cell, 2, share).unwrap();
        assert_eq!(by_mean, by_counts);
        assert_eq!(by_mean.point, 2.0 / 3.0);
        // Every example a cluster of its own: the same draws again.
        let alone = Clusters::new(&(0..90).collect::<Vec<u32>>()).unwrap();
        let of = |(): &mut (), indices: &[u32]| mean(indices.iter().map(|&i| right[i as usize]));
        assert_eq!(by_mean, bootstrap(300).clusters(&alone, || (), of).unwrap());
        // sqrt(p q / n) = 0.0497
        let deviation = by_mean.standard_error();
        assert!((deviation - 0.0497).abs() < 0.006, "{deviation}");
    }

    #[test]
    fn threads_do_not_matter() {
        let values: Vec<f64> = (0..57).map(|i| f64::from(i).sin()).collect();
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new();
            let pool = pool.num_threads(threads).build().unwrap();
            pool.install(|| bootstrap(101).mean(&values).unwrap())
        };
        assert_eq!(with(1), with(3));
        // Fewer draws are the first ones.
        let few = bootstrap(10).mean(&values).unwrap().values;
        assert_eq!(few, with(2).values[..10]);
    }

    #[test]
    fn clusters_vary_more() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i / 10 % 2)).collect();
        let clusters = Clusters::new(&(0..60).map(|i| i / 10).collect::<Vec<u32>>()).unwrap();
        let of = |(): &mut (), indices: &[u32]| mean(indices.iter().map(|&i| values[i as usize]));
        let together = bootstrap(500).clusters(&clusters, || (), of).unwrap();
        let apart = bootstrap(500).mean(&values).unwrap();
        assert!(together.standard_error() > 2.5 * apart.standard_error());
    }

    #[test]
    fn leaving_one_out() {
        let values = [0.0, 1.0, 1.0, 4.0];
        let mut wanted = vec![(2.0, 1), (5.0 / 3.0, 1), (5.0 / 3.0, 1), (2.0 / 3.0, 1)];
        assert_eq!(jackknife_mean(&values), wanted);
        let of = |(): &mut (), indices: &[u32]| mean(indices.iter().map(|&i| values[i as usize]));
        assert_eq!(jackknife_indices(4, || (), of), wanted);
        let of = |counts: &[u64]| {
            let total: u64 = counts.iter().sum();
            (counts[1] + 4 * counts[2]) as f64 / total as f64
        };
        wanted.remove(1);
        wanted[1].1 = 2;
        assert_eq!(jackknife_counts(&[0, 1, 1, 2], 4, of).unwrap(), wanted);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(bootstrap(0).mean(&[1.0]).is_err());
        assert!(bootstrap(10).mean(&[]).is_err());
        assert!(bootstrap(10).mean(&[1.0, f64::NAN]).is_err());
        assert!(bootstrap(10).counts(&[0, 2], 2, |_| 0.0).is_err());
    }
}
