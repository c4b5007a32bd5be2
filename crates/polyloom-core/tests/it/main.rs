//! Files as other programs write them, and files as nobody should.

mod gguf;
mod torch;

use std::path::PathBuf;

use polyloom_core::{Checkpoint, Error};

/// A file of `tests/fixtures`.
fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", name]
        .iter()
        .collect()
}

/// All values of a tensor.
fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint
        .get(name)
        .unwrap_or_else(|| panic!("no tensor `{name}`"));
    checkpoint
        .read_all(tensor)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Asserts that an error says `words`, and names its file.
#[track_caller]
fn says(error: &Error, words: &str) {
    let text = error.to_string();
    assert!(
        text.contains(words),
        "`{text}` should contain `{words}` (hint: {:?})",
        error.hint()
    );
    match error {
        Error::Io { path, .. } | Error::Format { path, .. } | Error::Tensor { path, .. } => {
            assert!(!path.as_os_str().is_empty());
        }
        other => panic!("{other}"),
    }
}
