//! Whole models.

mod differences;
mod fresh;
mod hostile;
mod models;
mod sources;
