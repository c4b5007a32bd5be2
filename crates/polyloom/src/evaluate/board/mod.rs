//! The board: predictions that others made, scored and compared.

pub mod compare;
pub mod predictions;
