//! Ways of counting that add over the tasks: what a system gets on each.

use super::counting::Aggregate;
use super::ranking::well_covered;
use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::relative::{normalised, reference, relative};

/// What every system gets on every task, so that its number is their sum, or their mean by weight.
#[derive(Debug, Clone)]
pub struct Linear {
    tasks: usize,
    /// Row-major systems x tasks; `NaN` where nothing counts.
    cells: Vec<f64>,
    weights: Vec<f64>,
    /// A mean; else a sum.
    mean: bool,
    /// A gap leaves the system without a number.
    strict: bool,
}

impl Linear {
    /// Of a table; `None` for ways of counting that do not add over the tasks, and where the table lacks what they need
    /// (which [`super::ranking::rank`] says).
    pub fn of(by: Aggregate, matrix: &ScoreMatrix, missing: Missing) -> Option<Self> {
        let (systems, tasks) = (matrix.systems().len(), matrix.tasks().len());
        let mut found = Self {
            tasks,
            cells: vec![f64::NAN; systems * tasks],
            weights: matrix.tasks().iter().map(|t| t.weight).collect(),
            mean: true,
            strict: missing == Missing::Strict,
        };
        match by {
            Aggregate::Mean | Aggregate::SizeMean => {
                found.fill(|s, t| matrix.row(s)[t]);
                if by == Aggregate::SizeMean {
                    for (weight, task) in found.weights.iter_mut().zip(matrix.tasks()) {
                        *weight *= match task.size {
                            Some(n) => n as f64,
                            None if *weight == 0.0 => 0.0,
                            None => return None,
                        };
                    }
                }
            }
            Aggregate::AboveChance => {
                let ends = |t: usize| {
                    let task = &matrix.tasks()[t];
                    Some((task.chance?, task.maximum?))
                };
                if (0..tasks).any(|t| found.weights[t] > 0.0 && ends(t).is_none()) {
                    return None;
                }
                found.fill(|s, t| {
                    let (low, high) = ends(t).unwrap_or((0.0, 1.0));
                    normalised(matrix.row(s)[t], low, high, true)
                });
            }
            Aggregate::DeltaM | Aggregate::Normalised => {
                for (weight, task) in found.weights.iter_mut().zip(matrix.tasks()) {
                    if reference(task).is_none() {
                        *weight = 0.0;
                    }
                }
                for (s, row) in found.cells.chunks_exact_mut(tasks).enumerate() {
                    match by {
                        Aggregate::DeltaM => row.copy_from_slice(&relative(matrix, s).per_task),
                        _ => row.iter_mut().enumerate().for_each(|(t, cell)| {
                            let expert = matrix.tasks()[t].expert.unwrap_or(f64::NAN);
                            *cell = matrix.row(s)[t] / expert;
                        }),
                    }
                }
            }
            Aggregate::Borda | Aggregate::BordaAll | Aggregate::MeanRank | Aggregate::WinRate => {
                found.mean = matches!(by, Aggregate::MeanRank | Aggregate::WinRate);
                let enough = match found.mean && found.strict {
                    true => well_covered(matrix),
                    false => vec![true; systems],
                };
                found.strict = false;
                for t in 0..tasks {
                    let ranks = matrix.ranks(t);
                    let present = ranks.iter().filter(|r| !r.is_nan()).count() as f64;
                    if by == Aggregate::WinRate && present < 2.0 {
                        continue;
                    }
                    for (s, rank) in ranks.into_iter().enumerate().filter(|(s, _)| enough[*s]) {
                        found.cells[s * tasks + t] = match by {
                            Aggregate::Borda => present - rank,
                            Aggregate::BordaAll => systems as f64 - rank,
                            Aggregate::WinRate => (present - rank) / (present - 1.0),
                            _ => rank,
                        };
                    }
                }
            }
            _ => return None,
        }
        Some(found)
    }

    fn fill(&mut self, value: impl Fn(usize, usize) -> f64) {
        let tasks = self.tasks;
        for (at, cell) in self.cells.iter_mut().enumerate() {
            *cell = value(at / tasks, at % tasks);
        }
    }

    /// Whether a gap leaves a system without a number.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// What a system gets on a task; `NaN` where nothing counts.
    pub fn cell(&self, system: usize, task: usize) -> f64 {
        match self.weights[task] > 0.0 {
            true => self.cells[system * self.tasks + task],
            false => f64::NAN,
        }
    }

    /// The number of every system, every task counted so many times.
    pub fn values(&self, times: &[f64]) -> Vec<f64> {
        let row = |cells: &[f64]| {
            let (mut sum, mut weight, mut lacks) = (0.0, 0.0, false);
            for ((x, w), k) in cells.iter().zip(&self.weights).zip(times) {
                if x.is_nan() {
                    lacks |= *w > 0.0;
                } else {
                    sum += x * w * k;
                    weight += w * k;
                }
            }
            match (self.strict && lacks, self.mean) {
                (true, _) => f64::NAN,
                (_, true) => sum / weight,
                (_, false) => sum,
            }
        };
        self.cells.chunks_exact(self.tasks).map(row).collect()
    }
}

/// What a system gets on each task by a way of counting or, where that does not add over tasks, by what it reads: the
/// score itself, or the share of the others that are beaten. For tests over tasks.
pub fn per_task(by: Aggregate, matrix: &ScoreMatrix, missing: Missing) -> Option<Linear> {
    Linear::of(by, matrix, missing).or_else(|| {
        let read = match by.reads_scale() {
            true => Aggregate::Mean,
            false => Aggregate::WinRate,
        };
        Linear::of(read, matrix, missing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::matrix::tests::matrix;
    use crate::evaluate::board::ranking::rank;

    #[test]
    fn sums_over_tasks_are_the_ways_of_counting() {
        let plain = matrix(
            &[
                &[0.5, 3.0, 0.2, 0.9],
                &[0.7, 1.0, f64::NAN, 0.9],
                &[0.6, f64::NAN, f64::NAN, f64::NAN],
            ],
            &[1],
        );
        let mut tasks = plain.tasks().to_vec();
        for (t, task) in tasks.iter_mut().enumerate() {
            (task.chance, task.maximum) = (Some(0.1), Some(1.0));
            (task.expert, task.size) = (Some(0.8), Some(10 + t as u64));
            task.weight = 1.0 + t as f64;
        }
        tasks[2].expert = None;
        let cells = (0..3).flat_map(|s| plain.row(s).to_vec()).collect();
        let m = ScoreMatrix::new(plain.systems().to_vec(), tasks, cells).unwrap();
        let mut seen = 0;
        for missing in [Missing::Strict, Missing::Skip] {
            for by in Aggregate::ALL {
                let Some(linear) = Linear::of(*by, &m, missing) else {
                    continue;
                };
                seen += 1;
                let found = linear.values(&[1.0; 4]);
                let wanted = rank(*by, &m, missing, &[]).unwrap().standing.value;
                for (a, b) in found.iter().zip(&wanted) {
                    let same = (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-12;
                    assert!(same, "{by} {missing:?}: {found:?}, {wanted:?}");
                }
            }
        }
        assert_eq!(seen, 18);
        // Measured on one weight of ten: no win rate, unless what is there counts.
        let last = |missing| rank(Aggregate::WinRate, &m, missing, &[]).unwrap();
        assert!(last(Missing::Strict).standing.value[2].is_nan());
        assert!(
            last(Missing::Strict)
                .note
                .unwrap()
                .contains("1 of 3 systems")
        );
        assert_eq!(last(Missing::Skip).standing.value[2], 0.5);
    }
}
