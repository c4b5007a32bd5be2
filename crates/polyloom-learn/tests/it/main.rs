//! Whole models.

mod hostile;
mod models;
