//! Whole models.

mod models;
