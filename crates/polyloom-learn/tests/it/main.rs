//! Whole models.

mod fresh;
mod hostile;
mod models;
