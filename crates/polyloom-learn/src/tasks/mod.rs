//! Models on tasks: heads, rows as a model takes them, predictions, scores.
//!
//! A model of this crate is a trunk, shared by all tasks, and a small head per task. Training, evaluation and serving
//! read a task's rows by [`rows`], run trunk and head by [`forward`], and join what came out with what is right by
//! [`answers`]; none has a way of its own.

pub mod answers;
mod asked;
pub mod content;
pub(crate) mod encoder;
pub mod evaluate;
pub mod experts;
pub mod family;
pub mod fit;
pub mod forward;
mod fresh;
pub mod grow;
pub mod head;
pub mod importance;
pub mod language;
pub mod routing;
pub mod rows;
pub mod search;
pub mod sensors;
pub mod sharpness;
pub mod shelf;
pub mod speak;
pub mod system;
mod upcycle;
pub mod zero_shot;

pub use family::Opened;
pub use head::{Feature, Head, HeadKind};
pub use rows::{Reader, Rows, Shown};
pub use search::Search;
pub use system::{Base, System};
