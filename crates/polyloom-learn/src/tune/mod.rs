//! Merging coefficients that are learned: AdaMerging (Yang et al. 2024), aTLAS (Zhang et al. 2024), Self Positioning (Li et
//! al. 2024).
//!
//! Merged weights are `base + sum_t c[row, t] (expert_t - base)` for every tensor, whatever the architecture. A step makes
//! them ([`vectors`]), runs trunk and heads over unlabelled or labelled rows, goes back to the weights, and takes the
//! coefficients' gradients as inner products with the task vectors, which are read from disk a chunk at a time. Memory
//! holds base, merged weights and their gradients, however many experts there are.

mod check;
pub mod coefficients;
pub mod concrete;
mod keep;
pub mod learn;
pub(crate) mod objective;
pub mod recipe;
pub mod scoring;
pub mod search;
pub mod session;
pub mod trials;
pub mod vectors;
mod words;

pub use coefficients::{Coefficients, Form};
pub use recipe::Recipe;
pub use session::tune;
