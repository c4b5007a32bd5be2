//! Text for measuring: tokens as numbers, n-grams as numbers, stems.

pub(crate) mod edits;
mod grams;
pub mod porter;
pub mod tokenize;
mod words;

pub(crate) use grams::Clips;
pub(crate) use words::{Map, Words};
