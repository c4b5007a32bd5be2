//! Architectures, each in one file, over a [`Source`] of weights: a model is a function of its configuration, the source
//! and the input, so that adapters, merges and masks are sources, never variants of a model.

pub mod bert;
pub mod clip;
pub mod decoder;
pub mod deeponet;
pub mod experts;
pub mod forest;
pub mod fresh;
pub mod fusion;
pub mod gates;
pub mod generate;
pub mod lora;
pub mod memories;
pub mod merged;
pub mod mlp;
pub mod open;
pub mod peft;
pub mod relative;
pub mod rotary;
pub mod sentence;
pub mod slim;
mod source;
pub mod streams;
pub mod t3;
pub mod t5;
pub mod table;
mod tokens;
pub mod vit;
pub mod voices;

pub use source::{
    LayerParts, Noted, Noting, Penalised, Plain, Point, Source, Trained, is_statistic,
};
pub(crate) use source::{heads_of, place_of};
pub use tokens::{Batch, Tokens, mean_weights};
