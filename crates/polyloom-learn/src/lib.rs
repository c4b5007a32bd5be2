//! Whatever needs a forward pass or gradients: values with gradients, operations, architectures over a weight source.
//!
//! Numbers live in tensors of `candle-core`, which this crate keeps behind [`engine`]; the kernels are those of
//! [`polyloom_core::nn`], and the gradients run over a graph of our own ([`engine::Value`]): candle's copies every gradient
//! through a buffer of zeros and adds on one thread.
#![forbid(unsafe_code)]

pub mod balance;
pub mod calibrate;
pub mod compress;
pub mod engine;
pub mod error;
pub mod export;
pub mod folds;
pub mod forest;
pub mod image;
pub mod models;
pub mod ops;
mod recipe;
pub mod route;
pub mod stats;
pub mod table;
pub mod tasks;
pub mod text;
pub mod tokenizer;
pub mod train;
pub mod tune;
pub mod weave;

pub use error::{Error, Result};
