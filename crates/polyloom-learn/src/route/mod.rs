//! Which expert an input belongs to: routers over features of a model.
//!
//! A [`Router`] reads one vector per input ([`Tap`] says which) and answers with weights over experts. The rules know
//! nothing of models: they stand in files of their own, over plain slices ([`Points`]). Those that hold vectors of the
//! experts ([`Centroid`], [`Knn`], [`Pilots`]) take further experts and lose some without training; those that were
//! trained ([`Linear`], [`Mlp`], [`predicted::Predicted`]) are fitted again.
//!
//! Beside them stand [`skills`] (recruiting by profiles) and [`win_rate`] (a strong and a weak model): functions over
//! numbers.

pub mod assess;
mod centroid;
mod file;
pub mod fit;
mod knn;
mod linear;
mod mlp;
mod mlp_fit;
mod pilots;
mod points;
pub mod predicted;
pub mod records;
mod router;
pub mod sense;
pub mod skills;
pub mod tap;
pub mod win_rate;

pub use centroid::Centroid;
pub use fit::{Fit, Fitted};
pub use knn::Knn;
pub use linear::Linear;
pub use mlp::{Hidden, Mlp};
pub use mlp_fit::MlpFit;
pub use pilots::{Pilot, Pilots, Reduce, Similarity};
pub use points::{Labelled, Points};
pub use router::{Decision, Expert, Method, Reads, Router, Rule, Tap};
pub use sense::Sense;
