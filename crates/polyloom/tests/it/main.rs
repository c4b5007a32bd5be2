//! Whole recipes on small checkpoints.

mod golden;
mod runs;
mod support;
