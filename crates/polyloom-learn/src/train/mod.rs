//! Training: what a recipe says ([`recipe`]), the tasks of a run ([`learned`]), the loop ([`mod@run`]), the folder that comes
//! of it ([`mod@write`]); [`session`] puts them together.

pub mod augment;
mod balanced;
mod begin;
pub mod chain;
pub mod cocktail;
pub mod contrast;
pub mod curvature;
mod forest;
mod fuse;
mod given;
mod language;
pub mod learned;
pub mod log;
pub mod lowrank;
pub mod mixing;
pub mod mpts;
pub mod objective;
pub mod optimiser;
mod part;
mod pass;
mod pixels;
pub mod probe;
pub mod pseudo;
pub mod recipe;
pub mod representation;
pub mod rowwise;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod session;
pub mod stages;
pub mod state;
mod step;
mod told;
pub mod trainee;
mod turns;
pub mod weigh;
pub(crate) mod work;
pub mod write;

pub use given::Given;
pub use optimiser::{Optimiser, Rule};
pub use recipe::Recipe;
pub use run::{Job, Outcome, Told, run};
pub use schedule::Schedule;
pub use session::train;
