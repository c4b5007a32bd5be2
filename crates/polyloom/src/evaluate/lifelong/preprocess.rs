//! What is done to a log before it is measured: smoothing, clamping of outliers, one scale for all tasks; in this order.

use super::log::{BlockKind, Log};
use crate::evaluate::error::{EvalError, Result};
use crate::evaluate::statistics::check_finite;
use crate::evaluate::statistics::replicates::quantile_of_sorted;
use crate::evaluate::sum::sum;

/// A moving mean that keeps the length: window `min(floor(0.2 n), 100)`, ends reflected; fewer than three values in the
/// window leave everything as it is.
///
/// The window's middle lies one place before the value (odd window) or half a place (even), as in the source. Cost:
/// O(n · window). Source: l2metrics `smooth(window="flat")`.
pub fn smooth(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    let window = (n / 5).min(100);
    if window < 3 {
        return values.to_vec();
    }
    // With the window's length less one of reflected values on each side, the windows number n + window - 1, of which
    // those from floor(window/2 - 1) are kept.
    let reflect = |i: isize| {
        let i = i.unsigned_abs();
        values[if i < n { i } else { 2 * (n - 1) - i }]
    };
    let first = (window / 2).saturating_sub(1) as isize - (window as isize - 1);
    (0..n as isize)
        .map(|i| {
            let from = first + i;
            sum((from..from + window as isize).map(reflect)) / window as f64
        })
        .collect()
}

impl Log {
    /// Smooths every learning block and expert run; evaluation blocks too where `evaluations` is set.
    pub fn smoothed(mut self, evaluations: bool) -> Self {
        for block in &mut self.blocks {
            if evaluations || block.kind == BlockKind::Learning {
                block.values = smooth(&block.values);
            }
        }
        for run in self.experts.iter_mut().flat_map(|e| &mut e.runs) {
            *run = smooth(run);
        }
        self
    }

    /// Limits the values of each task to the quantiles `low` and `high` (0.1 and 0.9 are usual) of all its values, those of
    /// its experts among them.
    ///
    /// # Errors
    /// A quantile outside `[0, 1]`, or `low` above `high`.
    pub fn clamped(mut self, low: f64, high: f64) -> Result<Self> {
        const WHAT: &str = "clamping of outliers";
        check_finite(WHAT, &[low, high])?;
        if !(0.0 <= low && low <= high && high <= 1.0) {
            let problem = format!("quantiles {low} and {high}");
            return Err(EvalError::invalid(WHAT, problem));
        }
        for task in self.tasks() {
            let mut sorted: Vec<f64> = self.values_of(task).map(|x| *x).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let [low, high] = [low, high].map(|p| quantile_of_sorted(&sorted, p));
            self.values_of(task).for_each(|x| *x = x.clamp(low, high));
        }
        Ok(self)
    }

    /// Brings each task's values, those of its experts among them, to 1..101: `100 (x - min)/(max - min) + 1`, so that
    /// ratios never divide by 0. A task of one value only becomes 1.
    pub fn normalised(mut self) -> Self {
        for task in self.tasks() {
            let bounds = (f64::INFINITY, f64::NEG_INFINITY);
            let (low, high) = self
                .values_of(task)
                .fold(bounds, |(low, high), x| (low.min(*x), high.max(*x)));
            self.values_of(task).for_each(|x| {
                *x = if low == high {
                    1.0
                } else {
                    (*x - low) / (high - low) * 100.0 + 1.0
                };
            });
        }
        self
    }

    /// Every value of a task.
    fn values_of(&mut self, task: u32) -> impl Iterator<Item = &mut f64> {
        let blocks = self.blocks.iter_mut().filter(move |b| b.task == task);
        let experts = self.experts.iter_mut().filter(move |e| e.task == task);
        let runs = experts.flat_map(|e| e.runs.iter_mut().flatten());
        blocks.flat_map(|b| &mut b.values).chain(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::{Block, Experts};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn window_of_three() {
        let values: Vec<f64> = (0..15).map(f64::from).collect();
        let found = smooth(&values);
        // The value and the two before it; 2 1 | 0 1 2 at the reflected end.
        assert_eq!(found.len(), 15);
        assert_eq!(found[..3], [1.0, 2.0 / 3.0, 1.0]);
        assert_eq!(smooth(&values[..14]), values[..14]);
    }

    #[test]
    fn scale_and_outliers() {
        let block = |task, values: &[f64]| Block {
            kind: BlockKind::Learning,
            task,
            values: values.to_vec(),
        };
        let expert = Experts {
            task: 1,
            runs: vec![vec![4.0, 0.0]],
        };
        let log = Log::new(vec![block(1, &[2.0, 3.0]), block(2, &[7.0])], vec![expert]).unwrap();
        let found = log.clone().normalised();
        assert_eq!(found.blocks()[0].values, [51.0, 76.0]);
        assert_eq!(found.experts()[0].runs[0], [101.0, 1.0]);
        assert_eq!(found.blocks()[1].values, [1.0]);
        // Values 0 2 3 4: the quantiles at 1/3 and 2/3 are 2 and 3.
        let found = log.clone().clamped(1.0 / 3.0, 2.0 / 3.0).unwrap();
        assert!((found.experts()[0].runs[0][0] - 3.0).abs() < 1e-12);
        assert!((found.experts()[0].runs[0][1] - 2.0).abs() < 1e-12);
        assert!(log.clone().clamped(0.9, 0.1).is_err() && log.clamped(f64::NAN, 0.9).is_err());
    }

    proptest! {
        #[test]
        fn smoothing_stays_within_the_values(values in prop::collection::vec(-9.0..9.0f64, 1..90)) {
            let found = smooth(&values);
            prop_assert_eq!(found.len(), values.len());
            let (low, high) = values.iter().fold((9.0f64, -9.0f64), |(l, h), x| (l.min(*x), h.max(*x)));
            prop_assert!(found.iter().all(|x| (low - 1e-12..=high + 1e-12).contains(x)));
        }

        #[test]
        fn scale_does_not_depend_on_the_unit(values in prop::collection::vec(-9i32..9, 2..30), factor in 1i32..8) {
            let log = |factor: f64| {
                let block = Block {
                    kind: BlockKind::Evaluation,
                    task: 0,
                    values: values.iter().map(|&x| f64::from(x) * factor + 3.0).collect(),
                };
                Log::new(vec![block], vec![]).unwrap().normalised().blocks[0].values.clone()
            };
            for (a, b) in log(1.0).into_iter().zip(log(f64::from(factor))) {
                prop_assert!((a - b).abs() < 1e-10 && (1.0..=101.0).contains(&a));
            }
        }
    }
}
