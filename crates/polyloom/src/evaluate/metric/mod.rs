//! Metrics, one family of near relatives per file.

pub mod answer_match;
pub mod bleu;
pub mod calibration;
pub mod chrf;
pub mod class_scores;
pub mod classification;
pub mod clustering;
pub mod concordance;
pub mod confusion;
pub mod correlation;
pub mod curve;
pub mod multilabel;
pub mod multiple_choice;
pub mod page;
pub mod pass_at_k;
pub mod perplexity;
pub mod prf;
pub mod ranking;
pub mod registry;
pub mod regression;
pub mod retrieval;
pub mod rouge;
pub mod span;
pub mod ter;
