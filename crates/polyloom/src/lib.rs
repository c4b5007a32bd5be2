//! One system for many tasks: recipes and plans, every training-free merge, compression and adapter operation.
//!
//! Data flow: text -> [`recipe`] -> plan (all headers read, every parameter resolved for every tensor) -> run.
#![forbid(unsafe_code)]

pub mod adapt;
pub mod compress;
pub mod diff;
pub mod doctor;
pub mod error;
pub mod evaluate;
mod html;
pub mod inspect;
pub mod merge;
pub mod moe;
pub mod output;
pub mod plan;
pub mod recipe;
pub mod reference;
pub mod suggest;
pub mod tasks;
pub mod vocab;

pub use error::{MergeError, Result};
