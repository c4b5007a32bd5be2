//! The board: predictions that others made, scored and compared; results of many systems on many tasks.

pub mod compare;
pub mod condition;
pub mod import;
pub mod predictions;
pub mod ranking;
pub mod results;
pub mod score;
#[cfg(test)]
mod sparse_board;
pub mod stages;
pub mod uncertainty;
pub mod views;
