//! Operations on adapter files without training: combining, stacking, extracting, resizing, converting.
//!
//! Every operation works module by module (in parallel, results in name order), computes in `f64` on the factors and
//! returns an [`AdapterSet`], which [`AdapterSet::write`] puts on disk as a PEFT folder; [`fold`] streams a full model.
//! Reading a folded model without writing it: [`polyloom_core::peft::Folded`].

mod combine;
mod extract;
mod fold;
#[cfg(test)]
mod properties;
mod reshape;
mod rules;
mod set;
mod skills;
mod truncate;

pub(crate) use combine::refuse;
pub use combine::{
    Combination, CombineOptions, Masks, Share, clamp_factors, combine, combine_factors, stack,
};
pub use extract::{ExtractOptions, Split, extract};
pub use fold::{FoldReport, FoldWriteOptions, fold};
pub use reshape::{Intruders, intruders, max_cosines, resize, scale_intruders, to_plain_lora};
pub use rules::{SignRule, disjoint_mean, elect, top_by_magnitude};
pub use set::{AdapterSet, ModuleReport, Pair};
pub use skills::{PolyTask, SkillLayout, Skills, mixing_weights, poly_to_lora, smora_fixed_mask};
pub use truncate::{energy_rank, product_svd, truncated_svd};
