//! Tensors on disk, numeric kernels on plain slices, random numbers: what every other crate of Polyloom stands on.
//!
//! This crate knows no tasks, methods or models. Files are read by positioned reads into reused buffers and never
//! mapped whole. It is the only crate that may hold `unsafe`.

pub mod checkpoint;
pub mod dtype;
pub mod error;
pub mod gguf;
pub mod hash;
pub mod linalg;
pub mod memory;
pub mod nn;
pub mod peft;
pub mod pickle;
pub mod rng;
pub mod safetensors;
mod source;
pub mod wide;
pub mod writer;

pub use checkpoint::{Checkpoint, StoredTensor};
pub use dtype::DType;
pub use error::{Error, Result};
pub use wide::wide;
