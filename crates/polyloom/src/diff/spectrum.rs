//! Ranks of differences, and directions that the base does not have.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{Options, Source, Task};
use crate::adapt::energy_rank;
use crate::error::{MergeError, Result};

/// Larger matrices are not decomposed: this many entries take about a gigabyte in `f64` with their factors.
pub(super) const LARGEST: usize = 1 << 25;

/// Effective rank: the exponential of the entropy of the singular values divided by their sum (Roy and Vetterli 2007).
/// Between 1 and their number; 0 if all are zero.
pub fn effective_rank(singular_values: &[f64]) -> f64 {
    let sum: f64 = singular_values.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let entropy: f64 = singular_values
        .iter()
        .map(|s| s / sum)
        .filter(|p| *p > 0.0)
        .map(|p| -p * p.ln())
        .sum();
    entropy.exp()
}

/// Stable rank: the sum of the squared singular values over the largest square. Between 1 and their number; 0 if all
/// are zero.
pub fn stable_rank(singular_values: &[f64]) -> f64 {
    let top = singular_values.iter().fold(0.0f64, |m, s| m.max(*s));
    if top <= 0.0 {
        return 0.0;
    }
    singular_values.iter().map(|s| (s / top).powi(2)).sum()
}

/// Spectrum of one expert's difference, or sums over the matrices of a layer or model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spectrum {
    /// Matrices.
    pub matrices: u64,
    /// Sum of [`effective_rank`].
    pub effective: f64,
    /// Sum of [`effective_rank`] over the smaller dimension.
    pub effective_share: f64,
    /// Sum of [`stable_rank`].
    pub stable: f64,
    /// Sum of the smallest ranks that hold 90 % of the squared singular values.
    pub rank90: u64,
    /// Sum of these ranks over the smaller dimension.
    pub rank90_share: f64,
    /// Intruder dimensions; `None` without a base.
    pub intruders: Option<u64>,
}

impl Spectrum {
    /// From the singular values of a matrix whose smaller dimension is `smaller`.
    pub fn new(singular_values: &[f64], smaller: usize, intruders: Option<usize>) -> Self {
        let effective = effective_rank(singular_values);
        let zero = singular_values.iter().all(|s| *s <= 0.0);
        let rank90 = if zero {
            0
        } else {
            energy_rank(singular_values, 0.9)
        };
        Self {
            matrices: 1,
            effective,
            effective_share: effective / smaller.max(1) as f64,
            stable: stable_rank(singular_values),
            rank90: rank90 as u64,
            rank90_share: rank90 as f64 / smaller.max(1) as f64,
            intruders: intruders.map(|n| n as u64),
        }
    }

    /// Adds another matrix's.
    pub fn add(&mut self, other: &Self) {
        self.matrices += other.matrices;
        self.effective += other.effective;
        self.effective_share += other.effective_share;
        self.stable += other.stable;
        self.rank90 += other.rank90;
        self.rank90_share += other.rank90_share;
        self.intruders = match (self.intruders, other.intruders) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
    }

    fn mean(&self, sum: f64) -> f64 {
        if self.matrices == 0 {
            0.0
        } else {
            sum / self.matrices as f64
        }
    }

    /// Mean effective rank of the matrices.
    pub fn mean_effective(&self) -> f64 {
        self.mean(self.effective)
    }

    /// Mean of effective rank over smaller dimension.
    pub fn mean_effective_share(&self) -> f64 {
        self.mean(self.effective_share)
    }

    /// Mean stable rank of the matrices.
    pub fn mean_stable(&self) -> f64 {
        self.mean(self.stable)
    }

    /// Mean of the ranks that hold 90 % of the squared singular values.
    pub fn mean_rank90(&self) -> f64 {
        self.mean(self.rank90 as f64)
    }

    /// Mean of these ranks over the smaller dimension.
    pub fn mean_rank90_share(&self) -> f64 {
        self.mean(self.rank90_share)
    }
}

/// Spectra of all matrices. Each decomposition runs on one thread; where they hold whole tensors, two run at a time.
pub(super) fn run(
    source: &dyn Source,
    tasks: &[Task],
    options: &Options,
) -> Result<Vec<Vec<Spectrum>>> {
    let one = |task: &Task| -> Result<Vec<Spectrum>> {
        options.stopped()?;
        let small = !source.whole_spectra() || task.elements() <= LARGEST;
        let found = match task.matrix().filter(|_| small) {
            Some(_) => source.spectra(task, options.intruders)?,
            None => Vec::new(),
        };
        options.done(task.elements(), &task.name);
        Ok(found)
    };
    if !source.whole_spectra() {
        return tasks.par_iter().map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Result<Vec<Spectrum>>>>> =
        tasks.iter().map(|_| Mutex::new(None)).collect();
    let worker = || {
        loop {
            let t = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(t) else { break };
            let found = one(task);
            let failed = found.is_err();
            if let Ok(mut slot) = slots[t].lock() {
                *slot = Some(found);
            }
            if failed {
                next.store(tasks.len(), Ordering::Relaxed);
            }
        }
    };
    rayon::join(worker, worker);
    let mut out = Vec::with_capacity(tasks.len());
    for slot in slots {
        match slot.into_inner().ok().flatten() {
            Some(found) => out.push(found?),
            None => out.push(Vec::new()),
        }
    }
    Ok(out)
}

/// The error of a decomposition.
pub(super) fn problem(file: &str, tensor: &str, text: &str) -> MergeError {
    MergeError::plan("bad-tensor", format!("tensor `{tensor}`: {text}")).at(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_hand() {
        assert_eq!(effective_rank(&[0.0, 0.0]), 0.0);
        assert!((effective_rank(&[2.0, 2.0, 2.0]) - 3.0).abs() < 1e-12);
        assert!((effective_rank(&[5.0, 0.0]) - 1.0).abs() < 1e-12);
        // p = (3/4, 1/4): H = 0.75 ln(4/3) + 0.25 ln 4 = 0.5623351446188083.
        assert!((effective_rank(&[3.0, 1.0]) - 0.562_335_144_618_808_3f64.exp()).abs() < 1e-12);
        assert_eq!(stable_rank(&[4.0, 2.0, 2.0]), 1.5);
        assert_eq!(stable_rank(&[0.0]), 0.0);
        let s = Spectrum::new(&[3.0, 1.0], 2, Some(1));
        assert_eq!((s.rank90, s.intruders), (1, Some(1)));
        assert_eq!(Spectrum::new(&[0.0, 0.0], 2, None).rank90, 0);
    }
}
