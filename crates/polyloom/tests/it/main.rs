//! Whole recipes on small checkpoints.

#![allow(clippy::print_stdout, reason = "tests say how many cases ran")]

mod bundles;
mod fuzz_smoke;
mod golden;
mod indicators;
mod round_trip;
mod runs;
mod statistics;
mod support;
