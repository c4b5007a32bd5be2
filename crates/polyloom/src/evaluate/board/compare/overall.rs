//! Two systems over several tasks: the mean of their scores, every task with equal weight.

use super::Paired;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::special::{t_quantile, t_two_sided};
use crate::evaluate::sum::{mean, sum};

/// The means over tasks of two systems and their difference, paired within each task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overall {
    /// Tasks.
    pub tasks: usize,
    /// Mean score of the first system, of the second.
    pub means: [f64; 2],
    /// Second less first.
    pub difference: f64,
    /// Its standard error: what other examples of these same tasks would move it by.
    pub error: f64,
    /// Interval of the difference.
    pub interval: Interval,
    /// Two-sided p-value.
    pub p: f64,
}

impl Overall {
    /// The mean over tasks; `None` below two tasks, and where the error of one is not known.
    ///
    /// The tasks are fixed and their examples independent: the variances of the differences add up, divided by the square
    /// of the number of tasks. The interval is Student's with the degrees of freedom of Welch and Satterthwaite. It says
    /// nothing about other tasks: for that the tasks are drawn (`polyloom board`).
    #[must_use]
    pub fn of(tasks: &[Paired], alpha: f64) -> Option<Self> {
        if tasks.len() < 2 || tasks.iter().any(|t| !t.error.is_finite()) {
            return None;
        }
        let count = tasks.len() as f64;
        let square = |t: &Paired| t.error * t.error;
        let total = sum(tasks.iter().map(square));
        let error = total.sqrt() / count;
        let difference = mean(tasks.iter().map(|t| t.difference));
        let spread = sum(tasks
            .iter()
            .map(|t| square(t) * square(t) / (t.n - 1) as f64));
        let degrees = total * total / spread;
        let (half, p) = match (error > 0.0, difference == 0.0) {
            (true, _) => (
                t_quantile(1.0 - alpha / 2.0, degrees) * error,
                t_two_sided(difference / error, degrees),
            ),
            // Without any spread the difference is certain, or there is none.
            (false, true) => (0.0, 1.0),
            (false, false) => (0.0, 0.0),
        };
        Some(Self {
            tasks: tasks.len(),
            means: [
                mean(tasks.iter().map(|t| t.first.mean)),
                mean(tasks.iter().map(|t| t.second.mean)),
            ],
            difference,
            error,
            interval: Interval::new(difference - half, difference + half),
            p,
        })
    }
}
