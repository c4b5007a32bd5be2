//! GGUF files (llama.cpp), versions 2 and 3, as inputs.
//!
//! Tensors of architectures with a name map come out under their Hugging Face names, with the rows of llama-family
//! queries and keys put back in Hugging Face order, so that they merge with any other checkpoint of the architecture.
//! Tensors of all other architectures keep their GGUF names and merge only among themselves.

mod blocks;
mod header;
mod names;

use std::collections::HashSet;

pub use self::blocks::dequantise;
use self::header::{Header, Info, Value};
use crate::checkpoint::{self, Layout, OpenFile, StoredTensor};
use crate::dtype::DType;
use crate::error::{Error, Problem, Result};
use crate::source::Source;

/// Tensors of a file, and its stand-in for `config.json` where the architecture has one.
pub type Index = (Vec<StoredTensor>, Option<serde_json::Value>);

/// Reads the index of a GGUF file. The second value stands in for `config.json`; `None` for an architecture without a
/// name map.
pub fn read_index(file: &mut OpenFile, index: usize) -> Result<Index> {
    let (mut tensors, config, hash) = read(file)?;
    file.header_hash = hash;
    for tensor in &mut tensors {
        tensor.file = index;
    }
    Ok((tensors, config))
}

/// Reads the index of a file held in memory (tests and fuzzing).
pub fn parse(bytes: &[u8]) -> Result<Index> {
    read(&bytes).map(|(tensors, config, _)| (tensors, config))
}

fn read(source: &impl Source) -> Result<(Vec<StoredTensor>, Option<serde_json::Value>, u64)> {
    let header = header::read(source)?;
    check_whole(source, &header)?;
    let add_file = |problem: Problem| problem.into_error(source.path());
    let mut tensors = Vec::with_capacity(header.infos.len());
    let mut seen = HashSet::new();
    for info in &header.infos {
        if !seen.insert(info.name.as_str()) {
            return Err(Error::tensor(source.path(), &info.name, "appears twice"));
        }
        tensors.push(stored(info, &header, source.len()).map_err(add_file)?);
    }
    let mut ranges: Vec<_> = tensors
        .iter()
        .map(|t| {
            (
                t.offset,
                t.dtype.bytes_of(t.elements()).unwrap_or(0),
                &t.name,
            )
        })
        .collect();
    ranges.sort_unstable();
    if let Some([a, b]) = ranges.array_windows().find(|[a, b]| a.0 + a.1 > b.0) {
        return Err(Error::tensor(
            source.path(),
            b.2,
            format!("overlaps tensor `{}`", a.2),
        ));
    }
    let (tensors, config) = names::translate(source, &header, tensors)?;
    Ok((tensors, config, header.hash))
}

/// Refuses files that hold something other than one whole model.
fn check_whole(source: &impl Source, header: &Header) -> Result<()> {
    if let Some(n) = header.meta.get("split.count").and_then(Value::count)
        && n > 1
    {
        return Err(Error::format(
            source.path(),
            format!("is one of {n} parts of a split GGUF file"),
        )
        .with_hint("join the parts first: llama-gguf-split --merge FIRST-PART OUTPUT"));
    }
    if let Some(Value::Text(kind)) = header.meta.get("general.type")
        && kind != "model"
    {
        return Err(Error::format(
            source.path(),
            format!("is a GGUF file of type `{kind}`, not a model"),
        ));
    }
    if header.infos.is_empty() {
        return Err(Error::format(source.path(), "holds no tensor")
            .with_hint("this GGUF file holds only a vocabulary"));
    }
    Ok(())
}

fn stored(info: &Info, header: &Header, len: u64) -> Result<StoredTensor, Problem> {
    let bad = |text: String| Problem::of(&info.name, text);
    let dtype = element(info.kind).map_err(|word| {
        bad(format!("has type {word}, which is not supported"))
            .with_hint("supported: F32 F16 BF16 F64 I8 I16 I32 I64 Q8_0 Q4_0 Q4_K Q6_K; convert the model to one of them")
    })?;
    let shape: Vec<usize> = info
        .dims
        .iter()
        .rev()
        .map(|d| usize::try_from(*d).ok())
        .collect::<Option<_>>()
        .ok_or_else(|| bad("has more elements than can exist".into()))?;
    let elements = checkpoint::count(&info.name, &shape)?;
    let row = shape.last().copied().unwrap_or(1);
    if elements == 0 || row % dtype.block().0 != 0 {
        return Err(bad(format!(
            "has shape {shape:?}, which {dtype} cannot hold"
        )));
    }
    let start = header.data.checked_add(info.offset);
    let end = start.and_then(|at| at.checked_add(dtype.bytes_of(elements)?));
    match (start, end) {
        (Some(offset), Some(end)) if end <= len => Ok(StoredTensor {
            name: info.name.clone(),
            dtype,
            shape,
            file: 0,
            offset,
            layout: Layout::Contiguous,
            scale: None,
        }),
        _ => Err(bad(format!(
            "lies at byte {} of the data with shape {shape:?}, past the end of the file",
            info.offset
        ))
        .with_hint("the download was cut off, or the file is damaged; fetch it again")),
    }
}

/// The element type behind a ggml type number, or its name.
fn element(kind: u64) -> Result<DType, String> {
    Ok(match kind {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        8 => DType::Q8_0,
        12 => DType::Q4K,
        14 => DType::Q6K,
        24 => DType::I8,
        25 => DType::I16,
        26 => DType::I32,
        27 => DType::I64,
        28 => DType::F64,
        30 => DType::BF16,
        _ => {
            let name = match kind {
                3 => "Q4_1",
                6 => "Q5_0",
                7 => "Q5_1",
                10 => "Q2_K",
                11 => "Q3_K",
                13 => "Q5_K",
                16 => "IQ2_XXS",
                17 => "IQ2_XS",
                18 => "IQ3_XXS",
                19 => "IQ1_S",
                20 => "IQ4_NL",
                21 => "IQ3_S",
                22 => "IQ2_S",
                23 => "IQ4_XS",
                29 => "IQ1_M",
                34 => "TQ1_0",
                35 => "TQ2_0",
                39 => "MXFP4",
                _ => return Err(format!("number {kind}")),
            };
            return Err(name.into());
        }
    })
}
