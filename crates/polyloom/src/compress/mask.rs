//! The mask file: one format for TALL masks, EMR, grafts and one-bit deltas (methods/adapters.md 6.2).
//!
//! A safetensors file; per parameter one `U8` tensor of `ceil(n / 8)` bytes under the parameter's name: first element in
//! the highest bit, row-major, tail padded with zeros. Header metadata: `format = "mask/1"`, `method`, `task`, `shapes`
//! (JSON, name -> shape), the method's own numbers, and `scale` (JSON, `"*"` -> the task's factor) where it has one.
//!
//! `format = "mask/2"` is the same bits, coded: the bytes of all parameters in the order of the bundle, one after the
//! other, in blocks of [`BLOCK`] bits. `lengths` (U32) has the coded bytes of each block, `bits` (U8) the blocks. A bit's
//! context is the magnitude of the shared vector at its element and the bit before it ([`super::coder`]).

use std::collections::BTreeMap;
use std::path::Path;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType};
use rayon::prelude::*;
use serde_json::Value;

use super::coder;
use crate::error::{MergeError, Result};

/// Value of the metadata key `format`.
pub const FORMAT: &str = "mask/1";

/// The same of coded bits.
pub const CODED: &str = "mask/2";

/// Bits of a coded block.
pub const BLOCK: usize = 1 << 18;

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

/// Parameters that masks are for, in the order of the bundle, with the vector they cover.
pub struct Covered<'a> {
    /// `shared.safetensors`.
    pub shared: &'a Checkpoint,
    /// Name and shape of each, one after the other.
    pub tensors: Vec<(&'a str, &'a [usize])>,
    /// Where the bytes of each begin, and where the last end.
    starts: Vec<usize>,
}

impl<'a> Covered<'a> {
    /// Of parameters in their order.
    ///
    /// # Errors
    /// Shapes of more elements than there are numbers for.
    pub fn new(shared: &'a Checkpoint, tensors: Vec<(&'a str, &'a [usize])>) -> Result<Self> {
        let mut starts = vec![0usize];
        for (name, shape) in &tensors {
            let end =
                elements(shape).and_then(|n| starts[starts.len() - 1].checked_add(bytes_of(n)));
            let Some(end) = end else {
                return Err(MergeError::plan(
                    "bad-bundle",
                    format!("the shape {shape:?} of `{name}` is too large"),
                ));
            };
            starts.push(end);
        }
        Ok(Self {
            shared,
            tensors,
            starts,
        })
    }

    /// Bytes of all bits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.starts[self.tensors.len()]
    }

    /// The contexts of `n` bits from `start` on: how large the shared vector is there.
    fn contexts(&self, start: usize, n: usize) -> Result<Vec<u8>> {
        let mut found = vec![0u8; n];
        let (mut values, mut scratch) = (Vec::new(), Scratch::default());
        let first = self
            .starts
            .partition_point(|s| s * 8 <= start)
            .saturating_sub(1);
        for (i, (name, shape)) in self.tensors.iter().enumerate().skip(first) {
            let at = self.starts[i] * 8;
            if at >= start + n {
                break;
            }
            let own = elements(shape).unwrap_or(0);
            let from = start.saturating_sub(at).min(own);
            let to = (start + n - at).min(own);
            if from >= to {
                continue;
            }
            let tensor = self.shared.get(name).ok_or_else(|| {
                MergeError::plan(
                    "bad-bundle",
                    format!("shared.safetensors has no tensor `{name}`"),
                )
            })?;
            values.resize(to - from, 0.0);
            self.shared
                .read_f32(tensor, from..to, &mut values, &mut scratch)?;
            for (c, v) in found[at + from - start..].iter_mut().zip(&values) {
                *c = magnitude(*v);
            }
        }
        Ok(found)
    }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

/// Half powers of two of a number, 0 to 63.
fn magnitude(v: f32) -> u8 {
    let halves = v.to_bits() >> 22 & 0x1FF;
    halves.saturating_sub(2 * (127 - 30)).min(63) as u8
}

fn context(of: &[u8], i: usize, previous: bool) -> usize {
    2 * usize::from(of[i]) + usize::from(previous)
}

/// What coding made of the masks of a bundle, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Coding {
    /// One bit each.
    pub raw: u64,
    /// As they are stored.
    pub stored: u64,
    /// The entropy of the bits of every task and tensor on its own: what no code can beat that knows only how many bits
    /// are set. A code that looks at the shared vector can.
    pub entropy: f64,
}

/// The coded form of an uncoded mask file; `None` where it is not smaller.
///
/// Memory: the bits of one task.
///
/// # Errors
/// Files that cannot be read.
pub fn coded(raw: &MaskFile, covered: &Covered<'_>, about: &mut Coding) -> Result<Option<Vec<u8>>> {
    let mut bits = vec![0u8; covered.bytes()];
    let mut part = Vec::new();
    for (i, (name, shape)) in covered.tensors.iter().enumerate() {
        let n = elements(shape).unwrap_or(0);
        raw.read(name, 0, n, &mut part)?;
        let ones: u64 = part.iter().map(|b| u64::from(b.count_ones())).sum();
        about.entropy += coder::entropy(ones, n as u64) / 8.0;
        bits[covered.starts[i]..covered.starts[i + 1]].copy_from_slice(&part);
    }
    let of_block = |(i, block): (usize, &[u8])| -> Result<Vec<u8>> {
        let contexts = covered.contexts(i * BLOCK, block.len() * 8)?;
        let all = (0..block.len() * 8).map(|i| bit(block, i));
        Ok(coder::encode(all, 128, |i, p| context(&contexts, i, p)))
    };
    let blocks: Result<Vec<Vec<u8>>> = bits
        .par_chunks(BLOCK / 8)
        .enumerate()
        .map(of_block)
        .collect();
    let blocks = blocks?;
    let stored: usize = blocks.iter().map(Vec::len).sum::<usize>() + 4 * blocks.len();
    about.raw += bits.len() as u64;
    if stored >= bits.len() {
        about.stored += bits.len() as u64;
        return Ok(None);
    }
    about.stored += stored as u64;
    let lengths: Vec<u8> = blocks
        .iter()
        .flat_map(|b| (b.len() as u32).to_le_bytes())
        .collect();
    let mut metadata = raw.file.metadata().clone();
    metadata.insert("format".into(), CODED.into());
    metadata.remove("shapes");
    let tensor = |name: &str, dtype, n: usize| OutTensor {
        name: name.into(),
        dtype,
        shape: vec![n],
    };
    let all = blocks.concat();
    Ok(Some(safetensors_bytes(
        &[
            (tensor("lengths", DType::U32, blocks.len()), lengths),
            (tensor("bits", DType::U8, all.len()), all),
        ],
        &metadata,
    )))
}

/// An opened mask file.
pub struct MaskFile {
    file: Checkpoint,
    bits: Bits,
}

enum Bits {
    /// In the file.
    Plain,
    /// In memory, with where each parameter's begin.
    Decoded(Vec<u8>, BTreeMap<String, usize>),
}

impl MaskFile {
    /// Opens and checks a mask file: every parameter has its bits, and nothing else is in it. Coded bits are decoded into
    /// memory (a bit for every element).
    ///
    /// # Errors
    /// Not a mask file, or its parts do not agree with each other or with what they are to cover.
    pub fn open(path: &Path, covered: &Covered<'_>) -> Result<Self> {
        let bad = |what: String| {
            MergeError::plan("bad-mask", what)
                .at(path.display().to_string())
                .hint("write the bundle again with `polyloom compress`")
        };
        let file = Checkpoint::open(path)?;
        let bits = match file.metadata().get("format").map(String::as_str) {
            Some(FORMAT) => {
                plain(&file, covered).map_err(bad)?;
                Bits::Plain
            }
            Some(CODED) => decoded(&file, covered, &bad)?,
            Some(f) => {
                return Err(bad(format!(
                    "has format `{f}`; this version reads `{FORMAT}` and `{CODED}`"
                )));
            }
            None => return Err(bad("is no mask file: its header has no `format`".into())),
        };
        Ok(Self { file, bits })
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
        let none = || MergeError::Internal(format!("no mask of `{name}`"));
        let from = start / 8;
        out.resize(bytes_of(n), 0);
        match &self.bits {
            Bits::Plain => {
                let tensor = self.file.get(name).ok_or_else(none)?;
                let range = from as u64..(from + out.len()) as u64;
                self.file.read_bytes(tensor, range, out)?;
            }
            Bits::Decoded(all, starts) => {
                let from = starts.get(name).ok_or_else(none)? + from;
                let found = all.get(from..from + out.len()).ok_or_else(none)?;
                out.copy_from_slice(found);
            }
        }
        Ok(())
    }
}

/// Checks that an uncoded file has the bits of every parameter.
fn plain(file: &Checkpoint, covered: &Covered<'_>) -> std::result::Result<(), String> {
    let text = file.metadata().get("shapes").map_or("", String::as_str);
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_str(text)
        .map_err(|e| format!("its metadata `shapes` cannot be read: {e}"))?;
    for (name, shape) in &shapes {
        let want = elements(shape).map(bytes_of);
        let found = file.get(name).map(|t| (t.dtype, t.elements()));
        if found.is_none() || found != want.map(|n| (DType::U8, n)) {
            return Err(format!(
                "the mask of `{name}` {shape:?} is missing or has the wrong length"
            ));
        }
    }
    if let Some(name) = file.tensors().keys().find(|n| !shapes.contains_key(*n)) {
        return Err(format!("tensor `{name}` has no entry in `shapes`"));
    }
    for (name, shape) in &covered.tensors {
        if shapes.get(*name).map(Vec::as_slice) != Some(*shape) {
            return Err(format!("the mask of `{name}` {shape:?} is missing"));
        }
    }
    Ok(())
}

fn decoded(
    file: &Checkpoint,
    covered: &Covered<'_>,
    bad: &dyn Fn(String) -> MergeError,
) -> Result<Bits> {
    let tensor = |name: &str, dtype: DType| {
        let found = file.get(name).filter(|t| t.dtype == dtype);
        found.ok_or_else(|| bad(format!("has no tensor `{name}` of type {dtype}")))
    };
    let (lengths, bits) = (tensor("lengths", DType::U32)?, tensor("bits", DType::U8)?);
    let count = covered.bytes().div_ceil(BLOCK / 8);
    if lengths.elements() != count {
        let what = format!(
            "holds {} blocks; these parameters have {count}",
            lengths.elements()
        );
        return Err(bad(what));
    }
    let mut words = vec![0u8; 4 * count];
    file.read_bytes(lengths, 0..words.len() as u64, &mut words)?;
    let mut places = Vec::with_capacity(count);
    let mut at = 0u64;
    for word in words.chunks_exact(4) {
        let n = u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        places.push(at..at + n);
        at += n;
    }
    if at != bits.elements() as u64 {
        let what = format!("its blocks take {at} bytes; `bits` has {}", bits.elements());
        return Err(bad(what));
    }
    let mut all = vec![0u8; covered.bytes()];
    all.par_chunks_mut(BLOCK / 8)
        .zip(&places)
        .enumerate()
        .try_for_each(|(i, (out, place))| -> Result<()> {
            let mut bytes = vec![0u8; (place.end - place.start) as usize];
            file.read_bytes(bits, place.clone(), &mut bytes)?;
            let n = out.len() * 8;
            let contexts = covered.contexts(i * BLOCK, n)?;
            let put = |i: usize, on: bool| out[i / 8] |= u8::from(on) << (7 - i % 8);
            coder::decode(&bytes, n, 128, |i, p| context(&contexts, i, p), put);
            Ok(())
        })?;
    let names = covered.tensors.iter().map(|(name, _)| (*name).to_owned());
    Ok(Bits::Decoded(
        all,
        names.zip(covered.starts.iter().copied()).collect(),
    ))
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
