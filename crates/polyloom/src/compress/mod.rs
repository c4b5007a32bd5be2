//! Deltas stored small: one shared vector and one bit per parameter and task.

mod bundle;
pub mod mask;
mod restore;

pub use bundle::{Accounting, Bundle, METHODS, accounting, write};
pub use restore::{RestoreOptions, restore};
