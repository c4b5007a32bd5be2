//! Measuring: metrics, intervals and tests, aggregation over tasks, change over time (methods/evaluation.md).
//!
//! Everything is computed in f64 from per-example values, in a fixed order or with a compensated sum, so that the same
//! values give the same bits for any thread count. A number that is mathematically undefined is `NaN` and says why; a
//! number over nothing is an error.

pub mod aggregate;
pub mod board;
pub mod change;
pub mod error;
pub mod lifelong;
pub mod metric;
pub mod rank;
pub mod report;
pub mod statistics;
pub mod sum;
pub mod text;

pub use error::{EvalError, Result};
