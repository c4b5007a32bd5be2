//! Maintenance, transfer and recovery from the terminal performances of blocks.

use super::log::{BlockKind, Log};
use crate::evaluate::sum::mean;

/// What an evaluation block is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The first evaluation after the latest learning block of the task (MRLEP).
    Evaluation,
    /// The latest learning block of the task that was followed by an evaluation (MRTLP).
    Learning,
}

/// A number that belongs to a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtBlock {
    /// Place of the block in the log.
    pub block: usize,
    /// The number.
    pub value: f64,
}

/// For each evaluation block of a task that follows the first evaluation after a learning block: its value less that of the
/// reference, above 0 where performance rose while other tasks were learned. In the order of the blocks.
///
/// Source: l2metrics `PerformanceMaintenance`.
pub fn maintenance(log: &Log, task: u32, reference: Reference) -> Vec<AtBlock> {
    let learning = log.places(task, BlockKind::Learning);
    let evaluations = log.places(task, BlockKind::Evaluation);
    let firsts: Vec<usize> = learning
        .iter()
        .filter_map(|l| evaluations.iter().copied().find(|e| e > l))
        .collect();
    let terminal = |place: usize| log.blocks()[place].terminal();
    let value = |&block: &usize| {
        let first = firsts.iter().copied().rfind(|&f| f < block)?;
        if firsts.contains(&block) {
            return None;
        }
        let compared = match reference {
            Reference::Evaluation => first,
            Reference::Learning => learning.iter().copied().rfind(|&l| l < block)?,
        };
        let value = terminal(block) - terminal(compared);
        Some(AtBlock { block, value })
    };
    evaluations.iter().filter_map(value).collect()
}

/// What learning one task did to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transfer {
    /// The task that was learned.
    pub from: u32,
    /// The task that was evaluated before and after.
    pub to: u32,
    /// Place of the evaluation block after.
    pub block: usize,
    /// Whether `to` had not been learned before (forward), or had (backward).
    pub forward: bool,
    /// Value after over value before; `NaN` where that was 0.
    pub ratio: f64,
    /// Difference over sum of the two, in `[-1, 1]` for values above 0; `NaN` where the sum is 0.
    pub contrast: f64,
}

/// Transfer between all pairs of tasks: two evaluations of a task in a row with learning of another one between them, in
/// the order of the later evaluations.
///
/// An evaluation after two tasks, or after forward and backward learning, gives one transfer per direction: that from the
/// task that comes last in the log's order of first occurrence, as in l2metrics `Transfer`.
pub fn transfers(log: &Log) -> Vec<Transfer> {
    let tasks = log.tasks();
    let mut found: Vec<Transfer> = Vec::new();
    for &from in &tasks {
        let learning = log.places(from, BlockKind::Learning);
        for &to in tasks.iter().filter(|&&to| to != from) {
            let first_learned = log.places(to, BlockKind::Learning).first().copied();
            let evaluations = log.places(to, BlockKind::Evaluation);
            for &place in &learning {
                let forward = first_learned.is_none_or(|first| place < first);
                let between = |pair: &&[usize]| pair[0] < place && place < pair[1];
                for pair in evaluations.windows(2).filter(between) {
                    let [before, after] = [pair[0], pair[1]].map(|p| log.blocks()[p].terminal());
                    let sum = before + after;
                    let transfer = Transfer {
                        from,
                        to,
                        block: pair[1],
                        forward,
                        ratio: if before == 0.0 {
                            f64::NAN
                        } else {
                            after / before
                        },
                        contrast: if sum == 0.0 {
                            f64::NAN
                        } else {
                            (after - before) / sum
                        },
                    };
                    found.retain(|t| t.block != pair[1] || t.forward != forward);
                    found.push(transfer);
                }
            }
        }
    }
    found.sort_by_key(|t| (t.block, t.forward));
    found
}

/// For each learning block of a task but its first: experiences until a value reaches the terminal performance of the
/// previous one, 0 for the first experience, n + 1 where none of n does.
///
/// Source: l2metrics `RecoveryTime`.
pub fn recovery_times(log: &Log, task: u32) -> Vec<AtBlock> {
    let learning = log.places(task, BlockKind::Learning);
    let time = |pair: &[usize]| {
        let wanted = log.blocks()[pair[0]].terminal();
        let values = &log.blocks()[pair[1]].values;
        let reached = values.iter().position(|&x| x >= wanted);
        AtBlock {
            block: pair[1],
            value: reached.unwrap_or(values.len() + 1) as f64,
        }
    };
    learning.windows(2).map(time).collect()
}

/// Performance recovery: the Theil–Sen slope of a task's recovery times with its sign turned, above 0 where recovery
/// becomes faster; `NaN` for fewer than two times.
pub fn performance_recovery(log: &Log, task: u32) -> f64 {
    let times: Vec<f64> = recovery_times(log, task).iter().map(|t| t.value).collect();
    -theil_sen(&times)
}

/// Median of the slopes between all pairs of values one apart; `NaN` for fewer than two. Cost: O(n² log n).
/// Peer: `scipy.stats.theilslopes`.
pub fn theil_sen(values: &[f64]) -> f64 {
    let mut slopes = Vec::with_capacity(values.len() * values.len() / 2);
    for (i, a) in values.iter().enumerate() {
        let later = values[i + 1..].iter().zip(1u32..);
        slopes.extend(later.map(|(b, apart)| (b - a) / f64::from(apart)));
    }
    median(slopes)
}

/// The middle value, or the mean of the middle two; `NaN` of nothing.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => values[n / 2],
        _ => mean([values[n / 2 - 1], values[n / 2]]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Block;
    use super::*;
    use proptest::prelude::*;

    fn log(blocks: &[(char, u32, &[f64])]) -> Log {
        let block = |&(kind, task, values): &(char, u32, &[f64])| Block {
            kind: if kind == 'E' {
                BlockKind::Evaluation
            } else {
                BlockKind::Learning
            },
            task,
            values: values.to_vec(),
        };
        Log::new(blocks.iter().map(block).collect(), vec![]).unwrap()
    }

    #[test]
    fn two_tasks_by_hand() {
        let log = log(&[
            ('E', 1, &[1.0]),
            ('E', 2, &[2.0]),
            ('L', 1, &[1.0, 5.0]),
            ('E', 1, &[4.0]),
            ('E', 2, &[3.0]),
            ('L', 2, &[2.0, 6.0]),
            ('E', 1, &[3.0]),
            ('E', 2, &[6.0]),
            ('L', 1, &[2.0, 5.5]),
        ]);
        let kept = maintenance(&log, 1, Reference::Evaluation);
        assert_eq!(
            kept,
            [AtBlock {
                block: 6,
                value: -1.0
            }]
        );
        assert_eq!(maintenance(&log, 1, Reference::Learning)[0].value, -2.0);
        assert!(maintenance(&log, 2, Reference::Evaluation).is_empty());
        let found = transfers(&log);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].from, found[0].to, found[0].forward), (1, 2, true));
        assert_eq!((found[0].ratio, found[0].contrast), (1.5, 0.2));
        assert_eq!(
            (found[1].from, found[1].to, found[1].forward),
            (2, 1, false)
        );
        assert_eq!(found[1].ratio, 0.75);
        assert_eq!(
            recovery_times(&log, 1),
            [AtBlock {
                block: 8,
                value: 1.0
            }]
        );
        assert!(performance_recovery(&log, 1).is_nan());
    }

    #[test]
    fn recovery_that_never_comes_and_its_trend() {
        let log = log(&[
            ('L', 0, &[0.0, 1.0]),
            ('L', 0, &[0.0, 0.5]),
            ('L', 0, &[0.0, 0.5]),
            ('L', 0, &[0.75, 0.75]),
        ]);
        let times: Vec<f64> = recovery_times(&log, 0).iter().map(|t| t.value).collect();
        assert_eq!(times, [3.0, 1.0, 0.0]);
        // Slopes -2, -1.5, -1.
        assert_eq!(performance_recovery(&log, 0), 1.5);
        assert_eq!(theil_sen(&[0.0, 3.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 8.0]), 3.0);
    }

    #[test]
    fn nothing_before_is_no_ratio() {
        let log = log(&[('E', 1, &[0.0]), ('L', 2, &[1.0]), ('E', 1, &[0.0])]);
        let found = transfers(&log);
        assert!(found[0].ratio.is_nan() && found[0].contrast.is_nan());
    }

    proptest! {
        #[test]
        fn theil_sen_finds_a_line_with_outliers(slope in -5i32..5, n in 8usize..30, wrong in 0usize..8) {
            let mut values: Vec<f64> = (0..n).map(|i| f64::from(slope) * i as f64).collect();
            values[wrong] += 1e6;
            prop_assert_eq!(theil_sen(&values), f64::from(slope));
            values.reverse();
            prop_assert_eq!(theil_sen(&values), -f64::from(slope));
        }
    }
}
