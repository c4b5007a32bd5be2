//! Training: schedules, optimisers over flat buffers, steps.

pub mod optimiser;
pub mod schedule;

pub use optimiser::{Optimiser, Rule};
pub use schedule::Schedule;
