//! Deltas stored small, measured: thresholds and grafts chosen on rows, methods compared at several sizes.
//!
//! Formats and closed forms are those of [`polyloom::compress`]; here is what needs a forward pass.

mod candidates;
pub mod front;
pub mod goal;
pub mod graft;
pub mod grafting;
pub mod judge;
pub mod make;
pub mod prune;
pub mod pruning;
pub mod recipe;
pub mod session;
pub mod slim;

pub use recipe::{Compress, Method};
pub use session::{compare, compress};
