//! Operations on adapter files without training: combining, stacking, extracting, resizing, converting.
//!
//! Every operation works module by module (in parallel, results in name order), computes in `f64` on the factors and
//! returns an [`AdapterSet`], which [`AdapterSet::write`] puts on disk as a PEFT folder.

mod combine;
mod rules;
mod set;
mod truncate;

pub use combine::{
    Combination, CombineOptions, Masks, Share, clamp_factors, combine, combine_factors, stack,
};
pub use rules::{SignRule, disjoint_mean, elect, top_by_magnitude};
pub use set::{AdapterSet, ModuleReport, Pair};
pub use truncate::{energy_rank, product_svd, truncated_svd};
