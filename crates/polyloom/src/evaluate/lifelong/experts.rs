//! A lifelong learner beside experts that learned one task alone.

use super::log::Log;
use super::preprocess::smooth;
use crate::evaluate::sum::{mean, sum};

/// Performance on a task relative to each of its experts: the sums of the values learned with, both cut to the shorter.
/// `None` where the task was not learned or has no experts; a run that sums to 0 gives an infinite or `NaN` ratio.
///
/// Source: l2metrics `STERelativePerf`, averaging "metrics".
pub fn relative_performance(log: &Log, task: u32) -> Option<Vec<f64>> {
    let learned = log.learned(task);
    let experts = log.experts_of(task)?;
    if learned.is_empty() {
        return None;
    }
    let ratio = |run: &Vec<f64>| {
        let shorter = learned.len().min(run.len());
        let total = |values: &[f64]| sum(values[..shorter].iter().copied());
        total(&learned) / total(run)
    };
    Some(experts.runs.iter().map(ratio).collect())
}

/// Where a learning curve is highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saturation {
    /// The highest value of the smoothed curve.
    pub value: f64,
    /// Its first index.
    pub experiences: usize,
}

/// The highest point of a curve after [`smooth`]; of nothing, `NaN` at 0.
pub fn saturation(values: &[f64]) -> Saturation {
    let smoothed = smooth(values);
    let mut found = Saturation {
        value: f64::NAN,
        experiences: 0,
    };
    for (i, &x) in smoothed.iter().enumerate() {
        if i == 0 || x > found.value {
            found = Saturation {
                value: x,
                experiences: i,
            };
        }
    }
    found
}

/// Sample efficiency on a task, and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleEfficiency {
    /// The lifelong learner's saturation on the task.
    pub learner: Saturation,
    /// Saturation of each expert run; runs that are highest at their first value are left out.
    pub experts: Vec<Saturation>,
    /// Per expert run kept: the learner's highest value over the expert's, times the expert's experiences over the
    /// learner's; above 1 where the learner is better or faster. 0 where the learner stays below a fifth of the expert's
    /// value, or where its values fall over the experiences (slope of least squares).
    pub values: Vec<f64>,
}

/// Sample efficiency relative to each of a task's experts. `None` where the task was not learned, has no experts, or the
/// learner's curve is highest at its first value.
///
/// Source: l2metrics `SampleEfficiency`, averaging "metrics". The slope is taken over the task's own experiences in a row;
/// l2metrics takes it over the experiences of the whole run, which can differ in sign only where it is near 0.
pub fn sample_efficiency(log: &Log, task: u32) -> Option<SampleEfficiency> {
    let learned = log.learned(task);
    let experts = log.experts_of(task)?;
    let learner = saturation(&learned);
    if learner.experiences == 0 {
        return None;
    }
    let falls = slope(&learned) < 0.0;
    let curves = experts.runs.iter().map(|run| saturation(run));
    let experts: Vec<Saturation> = curves.filter(|s| s.experiences > 0).collect();
    let value = |expert: &Saturation| {
        if falls || learner.value < 0.2 * expert.value {
            return 0.0;
        }
        let faster = expert.experiences as f64 / learner.experiences as f64;
        learner.value / expert.value * faster
    };
    Some(SampleEfficiency {
        learner,
        values: experts.iter().map(value).collect(),
        experts,
    })
}

/// Slope of the least-squares line over the index, up to a positive factor.
fn slope(values: &[f64]) -> f64 {
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let centre = mean(values.iter().copied());
    let places = values.iter().enumerate();
    sum(places.map(|(i, x)| (i as f64 - middle) * (x - centre)))
}

#[cfg(test)]
mod tests {
    use super::super::log::{Block, BlockKind, Experts};
    use super::*;

    fn log(learned: &[&[f64]], runs: &[&[f64]]) -> Log {
        let block = |values: &&[f64]| Block {
            kind: BlockKind::Learning,
            task: 0,
            values: values.to_vec(),
        };
        let experts = Experts {
            task: 0,
            runs: runs.iter().map(|r| r.to_vec()).collect(),
        };
        Log::new(learned.iter().map(block).collect(), vec![experts]).unwrap()
    }

    #[test]
    fn by_hand() {
        let log = log(
            &[&[1.0, 2.0], &[3.0, 2.0]],
            &[&[2.0, 4.0], &[1.0, 1.0, 2.0, 2.0, 6.0], &[9.0, 1.0]],
        );
        let found = relative_performance(&log, 0).unwrap();
        assert_eq!(found, [0.5, 8.0 / 6.0, 0.3]);
        let found = sample_efficiency(&log, 0).unwrap();
        assert_eq!((found.learner.value, found.learner.experiences), (3.0, 2));
        // 3/4 of the value at 1/2 of the speed; 3/6 at twice the speed; the third run is highest at once.
        assert_eq!(found.values, [0.375, 1.0]);
        assert!(relative_performance(&log, 1).is_none() && sample_efficiency(&log, 1).is_none());
    }

    #[test]
    fn curves_that_fail() {
        let falling = log(&[&[5.0, 6.0, 1.0, 0.5]], &[&[0.0, 1.0]]);
        assert_eq!(sample_efficiency(&falling, 0).unwrap().values, [0.0]);
        let low = log(&[&[0.0, 1.0]], &[&[0.0, 6.0]]);
        assert_eq!(sample_efficiency(&low, 0).unwrap().values, [0.0]);
        let at_once = log(&[&[6.0, 1.0]], &[&[0.0, 6.0]]);
        assert!(sample_efficiency(&at_once, 0).is_none());
    }
}
