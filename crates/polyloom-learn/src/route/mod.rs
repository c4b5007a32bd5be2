//! Which expert an input belongs to: routers over features of a model.
//!
//! A [`Router`] reads one vector per input ([`Tap`] says which) and answers with weights over experts. The rules know
//! nothing of models: they stand in files of their own, over plain slices ([`Points`]). Those that hold vectors of the
//! experts ([`Centroid`], [`Knn`], [`Pilots`]) take further experts and lose some without training; those that were
//! trained ([`Linear`], [`Mlp`]) are fitted again.

mod centroid;
mod file;
mod knn;
mod linear;
mod mlp;
mod mlp_fit;
mod pilots;
mod points;
mod router;

pub use centroid::Centroid;
pub use knn::Knn;
pub use linear::Linear;
pub use mlp::{Hidden, Mlp};
pub use mlp_fit::MlpFit;
pub use pilots::{Pilot, Pilots, Reduce, Similarity};
pub use points::{Labelled, Points};
pub use router::{Decision, Expert, Method, Reads, Router, Rule, Tap};
