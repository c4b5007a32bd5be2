//! The board: predictions that others made, scored and compared; results of many systems on many tasks.

pub mod compare;
pub mod condition;
pub mod import;
pub mod predictions;
pub mod ranking;
pub mod results;
pub mod score;
pub mod uncertainty;
pub mod views;
