//! The safetensors header: checked before anything is believed.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::checkpoint::{self, Layout, OpenFile, StoredTensor};
use crate::dtype::DType;
pub use crate::error::Problem;
use crate::error::{Error, Result};

/// Largest header that is read, in bytes (the reference implementation's limit).
pub const MAX_HEADER: u64 = 100_000_000;

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The header in file order, refusing duplicate keys (a plain map would keep the last one silently).
struct Header {
    tensors: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                use serde::de::Error as _;
                let mut header = Header {
                    tensors: Vec::new(),
                    metadata: BTreeMap::new(),
                };
                let mut seen = std::collections::HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` appears twice")));
                    }
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        let entry = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format!("tensor `{name}`: {e}")))?;
                        header.tensors.push((name, entry));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

/// Reads and checks the header: every range inside the file, none overlapping, sizes as types and shapes demand.
pub fn read_index(
    file: &mut OpenFile,
    index: usize,
) -> Result<(Vec<StoredTensor>, BTreeMap<String, String>)> {
    let mut length = [0; 8];
    if file.len < 8 {
        return Err(Error::format(
            &file.path,
            format!("has {} bytes; a safetensors file has at least 8", file.len),
        )
        .with_hint("the file is empty or the download was cut off"));
    }
    file.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > file.len - 8 {
        let problem = if length > MAX_HEADER && file.len > 8 {
            format!("claims a header of {length} bytes; the limit is {MAX_HEADER}")
        } else {
            format!(
                "claims a header of {length} bytes, but the file has {}",
                file.len
            )
        };
        return Err(Error::format(&file.path, problem)
            .with_hint("this is not a safetensors file, or the download was cut off"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(8, &mut bytes)?;
    file.header_hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    let (mut tensors, metadata) = parse_header(&bytes, file.len - 8 - length)
        .map_err(|problem| problem.into_error(&file.path))?;
    for tensor in &mut tensors {
        tensor.file = index;
        tensor.offset += 8 + length;
    }
    Ok((tensors, metadata))
}

/// Parses header bytes for a data section of `data` bytes. Offsets in the result count from the data section.
pub fn parse_header(
    bytes: &[u8],
    data: u64,
) -> Result<(Vec<StoredTensor>, BTreeMap<String, String>), Problem> {
    let header: Header = serde_json::from_slice(bytes).map_err(|e| Problem {
        tensor: None,
        text: format!("has a header that is not valid: {e}"),
        hint: Some("this is not a safetensors file, or it is damaged".into()),
    })?;
    // Messages count from the start of the file, as tools that list files do.
    let front = bytes.len() as u64 + 8;
    let last = header.tensors.iter().map(|(_, e)| e.data_offsets.1).max();
    let last = last.unwrap_or(0);
    let mut tensors = Vec::with_capacity(header.tensors.len());
    let mut ranges = Vec::with_capacity(header.tensors.len());
    for (name, entry) in header.tensors {
        let Some(dtype) = DType::from_safetensors(&entry.dtype) else {
            return Err(Problem {
                hint: Some("supported: F64 F32 F16 BF16 F8_E4M3 F8_E5M2, integers and BOOL".into()),
                ..Problem::of(
                    &name,
                    format!("has element type `{}`, which is not supported", entry.dtype),
                )
            });
        };
        let elements = checkpoint::count(&name, &entry.shape)?;
        let want = dtype.bytes_of(elements);
        let (start, end) = entry.data_offsets;
        if end > data {
            return Err(Problem {
                hint: Some(format!(
                    "the download is incomplete; this file should have {} bytes",
                    front.saturating_add(last)
                )),
                ..Problem::of(
                    &name,
                    format!(
                        "ends at byte {} by the header, the file has {}",
                        front.saturating_add(end),
                        front.saturating_add(data)
                    ),
                )
            });
        }
        if start > end || Some(end - start) != want {
            return Err(Problem::of(
                &name,
                format!(
                    "claims bytes {start}..{end}, but {dtype} of shape {:?} needs {}",
                    entry.shape,
                    want.unwrap_or(u64::MAX)
                ),
            ));
        }
        ranges.push((start, end, tensors.len()));
        tensors.push(StoredTensor {
            name,
            dtype,
            shape: entry.shape,
            file: 0,
            offset: start,
            layout: Layout::Contiguous,
            scale: None,
        });
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if pair[1].0 < pair[0].1 && pair[1].0 < pair[1].1 {
            let (a, b) = (&tensors[pair[0].2].name, &tensors[pair[1].2].name);
            return Err(Problem::of(b, format!("overlaps tensor `{a}`")));
        }
    }
    Ok((tensors, header.metadata))
}
