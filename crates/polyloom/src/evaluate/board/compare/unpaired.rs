//! Systems of which only scores are known, not examples: the weaker, unpaired comparison.

use super::internal;
use crate::error::Result;
use crate::evaluate::aggregate::matrix::Direction;
use crate::evaluate::board::results::Results;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::evaluate::statistics::special::{normal_cdf, normal_quantile};

/// Two systems on one task, by their scores alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpaired {
    /// The task.
    pub task: String,
    /// Its metric; empty where nobody said.
    pub metric: String,
    /// Score of the first system.
    pub first: f64,
    /// Score of the second.
    pub second: f64,
    /// Second less first.
    pub difference: f64,
    /// Standard error of the difference as if the two had met different examples; `NaN` where an error is not known.
    pub error: f64,
    /// Interval of the difference (normal).
    pub interval: Interval,
    /// Two-sided p-value of z = difference / error.
    pub p: f64,
    /// The same after Holm's correction over the tasks with a p-value.
    pub p_holm: f64,
    /// The smallest true difference that would show 4 times in 5.
    pub detectable: f64,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// Compares two systems of a table on the tasks that both have. Both met the same examples, so their errors mostly go
/// together, and this test, which takes them as independent, misses differences that a paired one would show.
///
/// # Errors
/// None in practice: p-values are numbers between 0 and 1.
pub fn unpaired(
    results: &Results,
    first: usize,
    second: usize,
    alpha: f64,
) -> Result<Vec<Unpaired>> {
    let z = -normal_quantile(0.5 * alpha);
    let mut found = Vec::new();
    for (t, task) in results.tasks.iter().enumerate() {
        let (Some(a), Some(b)) = (results.cell(first, t), results.cell(second, t)) else {
            continue;
        };
        let error = match (a.standard_error(), b.standard_error()) {
            (Some(a), Some(b)) => a.hypot(b),
            _ => f64::NAN,
        };
        let difference = b.value - a.value;
        let p = if error > 0.0 {
            2.0 * normal_cdf(-(difference / error).abs())
        } else {
            f64::NAN
        };
        found.push(Unpaired {
            task: task.column.name.clone(),
            metric: task.metric.clone(),
            first: a.value,
            second: b.value,
            difference,
            error,
            interval: Interval::new(difference - z * error, difference + z * error),
            p,
            p_holm: f64::NAN,
            detectable: (z + normal_quantile(0.8)) * error,
            higher_is_better: task.column.direction != Some(Direction::Lower),
        });
    }
    let p: Vec<f64> = found.iter().map(|u| u.p).filter(|p| !p.is_nan()).collect();
    if !p.is_empty() {
        let mut adjusted = adjust(&p, Correction::Holm).map_err(internal)?.into_iter();
        for task in found.iter_mut().filter(|u| !u.p.is_nan()) {
            task.p_holm = adjusted.next().unwrap_or(f64::NAN);
        }
    }
    Ok(found)
}
