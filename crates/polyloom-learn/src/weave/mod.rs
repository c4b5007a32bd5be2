//! Woven models: one base, what its experts share, a small part for each, and a router that chooses by input.
//!
//! Twin-Merging (Lu et al. 2024), SMILE and WEMoE (Tang et al. 2024). A woven folder ([`meta`]) holds what stands beside the
//! base; opened ([`Woven`]) it runs inputs grouped by the mix of experts that they take, low-rank parts as two thin products
//! beside the shared weights ([`blend`]), so no weight is made anew. `docs/reference/woven.md` is the format.

mod apart;
pub mod blend;
mod describe;
mod fit;
pub mod make;
pub mod meta;
pub mod mixers;
pub mod mixes;
pub mod part;
mod reading;
pub mod recipe;
pub mod smile;
mod store;
pub mod trace;
pub mod wemoe;
mod woven;

pub use describe::describe;
pub use meta::{Meta, Method};
pub use recipe::Recipe;
pub use woven::{Choice, Expert, Said, Woven, parts_file};
