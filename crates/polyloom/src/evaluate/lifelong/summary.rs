//! The lifetime values: each measure per task, and over the tasks.

use super::experts::{relative_performance, sample_efficiency};
use super::learning::{Reference, maintenance, median, performance_recovery, transfers};
use super::log::Log;
use crate::evaluate::sum::mean;

/// How values are brought together over tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    /// Their mean. The default.
    #[default]
    Mean,
    /// Their median.
    Median,
}

/// The measures of one task; `NaN` where one is not defined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskSummary {
    /// The task.
    pub task: u32,
    /// Mean maintenance against the first evaluation after learning (MRLEP).
    pub maintenance: f64,
    /// Mean maintenance against the learning block (MRTLP).
    pub maintenance_from_learning: f64,
    /// Performance recovery.
    pub recovery: f64,
    /// Mean performance relative to the experts.
    pub relative_performance: f64,
    /// Mean sample efficiency over the experts.
    pub sample_efficiency: f64,
}

/// The measures over the whole life; `NaN` where no task or pair has one, undefined ones left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifetime {
    /// Per task, in the order of first occurrence.
    pub tasks: Vec<TaskSummary>,
    /// Maintenance over the tasks that have it (MRLEP).
    pub maintenance: f64,
    /// Maintenance against the learning blocks (MRTLP).
    pub maintenance_from_learning: f64,
    /// Performance recovery.
    pub recovery: f64,
    /// Performance relative to experts.
    pub relative_performance: f64,
    /// Sample efficiency.
    pub sample_efficiency: f64,
    /// Forward transfer by contrast: the first value of each pair of tasks.
    pub forward_contrast: f64,
    /// Forward transfer by ratio.
    pub forward_ratio: f64,
    /// Backward transfer by contrast.
    pub backward_contrast: f64,
    /// Backward transfer by ratio.
    pub backward_ratio: f64,
}

/// All measures of a log. Values are expected on one scale for all tasks ([`Log::normalised`]).
///
/// Source: l2metrics `report.py`.
pub fn lifetime(log: &Log, over: Over) -> Lifetime {
    let together = |values: &mut dyn Iterator<Item = f64>| {
        let defined = values.filter(|x| !x.is_nan());
        match over {
            Over::Mean => mean(defined),
            Over::Median => median(defined.collect()),
        }
    };
    let of = |task: u32| {
        let kept = |reference| mean(maintenance(log, task, reference).iter().map(|m| m.value));
        TaskSummary {
            task,
            maintenance: kept(Reference::Evaluation),
            maintenance_from_learning: kept(Reference::Learning),
            recovery: performance_recovery(log, task),
            relative_performance: mean(relative_performance(log, task).unwrap_or_default()),
            sample_efficiency: mean(sample_efficiency(log, task).map_or(vec![], |s| s.values)),
        }
    };
    let tasks: Vec<TaskSummary> = log.tasks().into_iter().map(of).collect();
    let measure = |field: fn(&TaskSummary) -> f64| together(&mut tasks.iter().map(field));
    // The first value of each pair.
    let transfers = transfers(log);
    let first = |forward: bool, field: fn(&super::learning::Transfer) -> f64| {
        let mut pairs = Vec::new();
        let mut values = Vec::new();
        for t in transfers.iter().filter(|t| t.forward == forward) {
            if !pairs.contains(&(t.from, t.to)) && !field(t).is_nan() {
                pairs.push((t.from, t.to));
                values.push(field(t));
            }
        }
        together(&mut values.into_iter())
    };
    Lifetime {
        maintenance: measure(|t| t.maintenance),
        maintenance_from_learning: measure(|t| t.maintenance_from_learning),
        recovery: measure(|t| t.recovery),
        relative_performance: measure(|t| t.relative_performance),
        sample_efficiency: measure(|t| t.sample_efficiency),
        forward_contrast: first(true, |t| t.contrast),
        forward_ratio: first(true, |t| t.ratio),
        backward_contrast: first(false, |t| t.contrast),
        backward_ratio: first(false, |t| t.ratio),
        tasks,
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::{Block, BlockKind};
    use super::*;

    #[test]
    fn three_tasks_by_hand() {
        let block = |kind, task, value: f64| Block {
            kind,
            task,
            values: vec![value],
        };
        let mut blocks = Vec::new();
        // Evaluations of tasks 0, 1, 2 around the learning of each.
        let rows = [
            [1.0, 1.0, 2.0],
            [4.0, 2.0, 2.0],
            [3.0, 8.0, 3.0],
            [2.0, 8.0, 9.0],
        ];
        for (stage, row) in rows.iter().enumerate() {
            if stage > 0 {
                blocks.push(block(BlockKind::Learning, stage as u32 - 1, 5.0));
            }
            for (task, &value) in row.iter().enumerate() {
                blocks.push(block(BlockKind::Evaluation, task as u32, value));
            }
        }
        let log = Log::new(blocks, vec![]).unwrap();
        let found = lifetime(&log, Over::Mean);
        // Task 0: 3 - 4 and 2 - 4; task 1: 8 - 8; task 2 has none.
        assert_eq!(found.tasks[0].maintenance, -1.5);
        assert_eq!(found.tasks[1].maintenance, 0.0);
        assert!(found.tasks[2].maintenance.is_nan());
        assert_eq!(found.maintenance, -0.75);
        // Forward 0->1: 2, 0->2: 1, 1->2: 1.5; backward 1->0: 3/4, 2->0: 2/3, 2->1: 1.
        assert_eq!(found.forward_ratio, 1.5);
        assert!((found.backward_ratio - (0.75 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-15);
        assert_eq!(lifetime(&log, Over::Median).backward_ratio, 0.75);
        assert!(found.sample_efficiency.is_nan() && found.recovery.is_nan());
    }
}
