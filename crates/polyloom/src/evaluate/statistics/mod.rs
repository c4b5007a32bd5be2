//! Intervals, tests and the numbers around them: how far a difference can be believed.
//!
//! Which one answers which question is told in docs/concepts/believing-a-difference.md. Every interval takes its level as
//! a fraction (0.95), every test is two-sided, every p-value is a fraction.

use crate::evaluate::error::{EvalError, Result};

pub mod bootstrap;
pub mod draw;
pub mod friedman;
pub mod mcnemar;
pub mod mean;
pub mod multiplicity;
pub mod normal_quantile;
pub mod paired;
pub mod pairwise;
pub mod power;
pub mod proportion;
pub mod ranks;
pub mod replicates;
pub mod resampled;
pub mod special;
pub mod wilcoxon;

/// A range that a quantity is believed to lie in, in the quantity's own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// A range by its bounds.
    pub fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// Whether the range holds a value; false where a bound is `NaN`.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// Refuses a level outside (0, 1).
fn check_level(what: &'static str, level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    let problem = format!("level {level} is outside (0, 1)");
    Err(EvalError::invalid(what, problem))
}

/// Refuses values that are not finite, with the first one's place.
pub(crate) fn check_finite(what: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => {
            let problem = format!("value {} at {i}", values[i]);
            Err(EvalError::invalid(what, problem))
        }
    }
}
