//! Metrics, one family of near relatives per file.

pub mod answer_match;
pub mod bleu;
pub mod chrf;
pub mod classification;
pub mod confusion;
pub mod multiple_choice;
pub mod pass_at_k;
pub mod perplexity;
pub mod prf;
pub mod ranking;
pub mod retrieval;
pub mod rouge;
pub mod ter;
