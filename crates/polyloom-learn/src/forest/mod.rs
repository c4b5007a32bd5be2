//! Gradient-boosted trees over tables, for one target or many.
//!
//! Columns become at most 255 bins ([`bins`]), trees are grown leaf by leaf from sums over bins ([`grow`]) with any number
//! of outputs. [`boost`] adds them by Newton steps, target by target or for all targets at once; [`r_mtgb`] tells tasks that
//! belong together from outliers. [`fit()`] trains, a [`Forest`] answers, and is one file ([`mod@file`]). Everything is a function of data, parameters and
//! seed; threads do not change a bit of it.

pub mod bins;
pub mod boost;
pub mod data;
pub mod dense;
pub mod file;
mod fit;
mod groups;
pub mod grow;
pub mod growth;
pub mod histogram;
mod labelled;
mod loss;
mod model;
pub mod r_mtgb;
mod read;
mod sides;
pub mod split;
pub mod tree;
mod walk;

pub use bins::Cutting;
pub use boost::Boost;
pub use data::{Column, Labels, Sample, Table, Target, UNKNOWN, Values};
pub use fit::{Method, Params, Progress, Watch, fit};
pub use growth::Growth;
pub use model::{Ensemble, Feature, Forest, Output, Sides, Use};
pub use r_mtgb::RMtgb;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
