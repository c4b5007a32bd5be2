//! Many tasks, many systems: means, ranks, votes and latent abilities over one table of scores
//! (methods/evaluation.md, section 3).
//!
//! Everything starts from a [`ScoreMatrix`]: systems in rows, tasks in columns, cells that may be missing, and per task
//! what is needed to read its numbers (direction, weight, chance, maximum, the score of its own expert).

pub mod comparisons;
pub mod consensus;
pub mod cross;
pub mod davidson;
pub mod downsample;
pub mod elo;
pub mod games;
pub mod graph;
pub mod instruction;
pub mod irt;
pub mod kemeny;
pub mod matrix;
pub mod mean;
mod newton;
pub mod pairwise;
mod quadrature;
pub mod ranking;
pub mod relative;
pub mod reliability;
pub mod samples;
pub mod synergy;

pub use matrix::{Direction, ScoreMatrix, Standing, TaskColumn};
