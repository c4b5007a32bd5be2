//! The board: predictions that others made, scored and compared; results of many systems on many tasks.

mod answer_strengths;
pub mod compare;
pub mod condition;
pub mod counting;
pub mod folds;
pub mod import;
pub mod linear;
pub mod order;
pub mod predictions;
pub mod ranking;
pub mod records;
pub mod results;
pub mod score;
#[cfg(test)]
mod sparse_board;
pub mod stability;
pub mod stages;
mod strengths;
pub mod uncertainty;
pub mod views;
