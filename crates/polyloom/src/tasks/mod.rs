//! The task catalogue: any data set becomes a task by annotation, without code.
//!
//! A task is one file (`polyloom.task/1`, TOML, JSON or YAML): where its rows are, which column is what, how they are
//! split, scored and asked. [`spec`] holds its types, [`read`] reads and checks it, [`data`] reads the rows,
//! [`catalogue`] finds tasks by id, [`check`] looks for what makes scores wrong (leaks, duplicates, empty rows).

pub mod catalogue;
pub mod check;
pub mod contamination;
pub mod corrupt;
pub mod data;
pub mod fewshot;
pub mod folds;
pub mod hash;
pub mod import;
pub mod infer;
pub mod level_files;
pub mod levels;
pub mod load;
pub mod metrics;
pub mod predicate;
pub mod prompt;
pub(crate) mod python;
pub mod read;
pub mod sample;
pub mod shipped;
pub mod skill_mix;
pub mod slice;
pub mod spec;
pub mod split;
pub mod synth;
pub mod task_json;
pub mod validate;

pub use catalogue::{Catalogue, Roots};
pub use spec::TaskSpec;
