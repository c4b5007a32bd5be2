//! The mask file: one format for TALL masks, EMR, grafts and one-bit deltas (methods/adapters.md 6.2).
//!
//! A safetensors file; per parameter one `U8` tensor of `ceil(n / 8)` bytes under the parameter's name: first element in
//! the highest bit, row-major, tail padded with zeros. Header metadata: `format = "mask/1"`, `method`, `task`, `shapes`
//! (JSON, name -> shape), the method's own numbers, and `scale` (JSON, `"*"` -> the task's factor) where it has one.

use std::collections::BTreeMap;
use std::path::Path;

use polyloom_core::Checkpoint;
use serde_json::Value;

use crate::error::{MergeError, Result};

/// Value of the metadata key `format`.
pub const FORMAT: &str = "mask/1";

/// Bytes of the bits of `elements` elements.
pub fn bytes_of(elements: usize) -> usize {
    elements.div_ceil(8)
}

/// Packs eight flags per byte, the first in the highest bit; the tail is padded with zeros.
pub fn pack(flags: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
    out.clear();
    let (mut byte, mut count) = (0u8, 0);
    for flag in flags {
        byte = byte << 1 | u8::from(flag);
        count += 1;
        if count == 8 {
            out.push(byte);
            (byte, count) = (0, 0);
        }
    }
    if count > 0 {
        out.push(byte << (8 - count));
    }
}

/// Bit `i` of packed flags.
pub fn bit(bytes: &[u8], i: usize) -> bool {
    bytes[i / 8] >> (7 - i % 8) & 1 == 1
}

/// An opened mask file.
pub struct MaskFile {
    file: Checkpoint,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl MaskFile {
    /// Opens and checks a mask file: every shape has its bytes, and nothing else is in it.
    ///
    /// # Errors
    /// Not a mask file, or its parts do not agree.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: String| {
            MergeError::plan("bad-mask", what)
                .at(path.display().to_string())
                .hint("write the bundle again with `polyloom compress`")
        };
        let file = Checkpoint::open(path)?;
        match file.metadata().get("format") {
            Some(f) if f == FORMAT => {}
            Some(f) => {
                return Err(bad(format!(
                    "has format `{f}`; this version reads `{FORMAT}`"
                )));
            }
            None => return Err(bad("is no mask file: its header has no `format`".into())),
        }
        let text = file.metadata().get("shapes").map_or("", String::as_str);
        let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_str(text)
            .map_err(|e| bad(format!("its metadata `shapes` cannot be read: {e}")))?;
        for (name, shape) in &shapes {
            let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let want = elements.map(bytes_of);
            let found = file.get(name).map(|t| (t.dtype, t.elements()));
            if found.is_none() || found != want.map(|n| (polyloom_core::DType::U8, n)) {
                return Err(bad(format!(
                    "the mask of `{name}` {shape:?} is missing or has the wrong length"
                )));
            }
        }
        if let Some(name) = file.tensors().keys().find(|n| !shapes.contains_key(*n)) {
            return Err(bad(format!("tensor `{name}` has no entry in `shapes`")));
        }
        Ok(Self { file, shapes })
    }

    /// Shape of a parameter's mask.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// The factor of the whole task (EMR's r), 1 where there is none.
    ///
    /// # Errors
    /// Metadata that is no number.
    pub fn scale(&self) -> Result<Option<f64>> {
        let Some(text) = self.file.metadata().get("scale") else {
            return Ok(None);
        };
        let value: Option<Value> = serde_json::from_str(text).ok();
        value
            .as_ref()
            .and_then(|v| v.get("*"))
            .and_then(Value::as_f64)
            .map(Some)
            .ok_or_else(|| {
                MergeError::plan(
                    "bad-mask",
                    format!("its metadata `scale` is `{text}`, not {{\"*\": number}}"),
                )
                .at(self.file.origin().display().to_string())
            })
    }

    /// Reads the packed bits of elements `start..start + n`; `start` must be a multiple of eight.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, name: &str, start: usize, n: usize, out: &mut Vec<u8>) -> Result<()> {
        let tensor = self
            .file
            .get(name)
            .ok_or_else(|| MergeError::Internal(format!("no mask of `{name}`")))?;
        out.resize(bytes_of(n), 0);
        let from = (start / 8) as u64;
        Ok(self
            .file
            .read_bytes(tensor, from..from + out.len() as u64, out)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_element_in_the_highest_bit() {
        let flags = [
            true, false, false, false, false, false, true, true, false, true,
        ];
        let mut bytes = Vec::new();
        pack(flags.into_iter(), &mut bytes);
        assert_eq!(bytes, [0b1000_0011, 0b0100_0000]);
        let back: Vec<bool> = (0..10).map(|i| bit(&bytes, i)).collect();
        assert_eq!(back, flags);
    }
}
