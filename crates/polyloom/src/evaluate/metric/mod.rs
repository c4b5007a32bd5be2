//! Metrics, one family of near relatives per file.

pub mod answer_match;
pub mod rouge;
