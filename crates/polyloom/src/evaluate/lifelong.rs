//! Lifelong learning: a learner that meets tasks one after the other, measured by alternating evaluation and learning
//! blocks.
//!
//! A [`log::Log`] holds the blocks in order and, where there are any, the learning curves of experts for one task. Before
//! measuring it is smoothed, clamped and brought to one scale ([`preprocess`]); [`summary::lifetime`] gives every measure
//! per task and over the life. Source: New et al., "Lifelong learning metrics" (2022), and its program l2metrics.

pub mod experts;
pub mod learning;
pub mod log;
pub mod preprocess;
pub mod summary;
