//! Whole models.

mod adapters;
mod architectures;
mod balance;
mod case;
mod chains;
mod clip;
mod compress;
mod differences;
mod dropout;
mod experts;
mod export;
mod folds;
mod forest;
mod fresh;
mod fuzz_smoke;
mod hostile;
mod models;
mod optimisers;
mod routing;
mod sensors;
mod sources;
mod tables;
mod tune;
mod voices;
mod weave;
