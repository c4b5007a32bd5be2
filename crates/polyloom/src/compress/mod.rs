//! Deltas stored small: one shared vector and one bit per parameter and task, or for every task low-rank factors, signs,
//! a few entries.

mod bundle;
pub mod coder;
pub mod delta;
pub mod lowrank;
pub mod mask;
mod restore;
mod single;

pub use bundle::{Accounting, Bundle, Extra, METHODS, accounting, task_id, write};
pub use restore::{RestoreOptions, Restorer, restore};
pub use single::{Deltas, write_deltas};
