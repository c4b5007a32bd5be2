//! Files as other programs write them, and files as nobody should.

mod build;
mod gguf;
mod hostile_archive;
mod hostile_gguf;
mod hostile_safetensors;
mod properties;
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
        Error::Io { path, .. }
        | Error::Full { path, .. }
        | Error::Format { path, .. }
        | Error::Tensor { path, .. } => {
            assert!(!path.as_os_str().is_empty());
        }
        other => panic!("{other}"),
    }
}

/// Writes `bytes` as a file called `name` and opens it.
fn open_bytes(name: &str, bytes: &[u8]) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

/// The error that opening such a file must give.
#[track_caller]
fn refused(name: &str, bytes: &[u8]) -> Error {
    match open_bytes(name, bytes) {
        Err(error) => error,
        Ok(c) => panic!("{name} was read: {:?}", c.tensors().keys()),
    }
}
