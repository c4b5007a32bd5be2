//! PEFT adapter folders, read and written unchanged: `adapter_config.json`, `adapter_model.safetensors` (or the old
//! `adapter_model.bin`), and a view of a base checkpoint with an adapter folded in.
//!
//! Formats and rules follow PEFT 0.21.2 (`tuners/tuners_utils.py`, `tuners/lora`, `utils/save_and_load.py`).

pub mod config;
mod folded;
mod folder;
pub mod init;
pub mod matching;
mod names;
mod write;

pub use config::{AdapterConfig, BaseChange, Bias, PeftType};
pub use folded::{FoldOptions, Folded};
pub use folder::{AdaptedModule, AdapterFolder, Factors, LayerKind, PREFIX};
pub use matching::{Names, PatternError, Targets};
pub use names::BaseNames;
pub use write::{AdapterTensor, adapter_files, write_adapter};
