//! The delta file: what one task changed in the base, every tensor stored in one of a few ways.
//!
//! A safetensors file, `format = "delta/1"`, with a few long tensors that hold the numbers of all parameters, one after the
//! other in the order of the bundle: `values` (factors), `own.F16`, `own.BF16`, ... (the expert's own numbers), `scales`
//! (F32), `bits` and `gaps` (U8). Metadata `kinds` is a JSON list with a word for every parameter, which says what it takes
//! of each: `""` nothing (it is the base's), `"o"` the expert's numbers, `"l3"` factors of rank 3, `"s"` a bit for every
//! element and one scale, `"r"` the same with a scale for every row, `"g5:7"` five entries whose places are coded in seven
//! bytes.

use std::collections::BTreeMap;
use std::path::Path;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType, dtype};

use super::bundle::TensorRecord;
use super::mask::{bit, bytes_of};
use crate::error::{MergeError, Result};

/// Value of the metadata key `format`.
pub const FORMAT: &str = "delta/1";

/// What one task changed in a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// The expert's own numbers, in the type of the tensor.
    Own(Vec<f32>),
    /// `left [rows, rank]` times `right [rank, cols]` is added; see [`as_matrix`].
    LowRank {
        /// Rank.
        rank: usize,
        /// Row-major.
        left: Vec<f32>,
        /// Row-major.
        right: Vec<f32>,
    },
    /// `+scale` is added where a bit is set, `-scale` where it is not.
    Signs {
        /// Packed as in mask files.
        bits: Vec<u8>,
        /// One, or one for every row.
        scales: Vec<f32>,
    },
    /// Entries that take the expert's own numbers.
    Graft {
        /// Their places, rising.
        at: Vec<usize>,
        /// Their numbers.
        values: Vec<f32>,
    },
}

/// Rows and columns that a tensor has as a matrix: its first axis against the others, axes of length 1 before it left out;
/// `None` for vectors and scalars.
#[must_use]
pub fn as_matrix(shape: &[usize]) -> Option<(usize, usize)> {
    let first = shape.iter().position(|d| *d != 1)?;
    let cols: usize = shape[first + 1..].iter().product();
    (cols > 1).then_some((shape[first], cols))
}

impl Stored {
    /// Bytes of its numbers, with factors of `store` and the tensor itself of `own`.
    #[must_use]
    pub fn bytes(&self, store: DType, own: DType) -> usize {
        let size = |d: DType| d.block().1;
        match self {
            Self::Own(values) => values.len() * size(own),
            Self::LowRank { left, right, .. } => (left.len() + right.len()) * size(store),
            Self::Signs { bits, scales } => bits.len() + 4 * scales.len(),
            Self::Graft { at, values } => gaps(at).len() + values.len() * size(own),
        }
    }

    fn word(&self) -> String {
        match self {
            Self::Own(_) => "o".into(),
            Self::LowRank { rank, .. } => format!("l{rank}"),
            Self::Signs { scales, .. } if scales.len() == 1 => "s".into(),
            Self::Signs { .. } => "r".into(),
            Self::Graft { at, .. } => format!("g{}:{}", at.len(), gaps(at).len()),
        }
    }

    /// Turns elements of the base from `start` on into those of the task.
    pub fn apply(&self, shape: &[usize], start: usize, values: &mut [f32]) {
        match self {
            Self::Own(own) => values.copy_from_slice(&own[start..start + values.len()]),
            Self::LowRank { rank, left, right } => {
                let (_, cols) = as_matrix(shape).unwrap_or((0, 1));
                let mut sums = vec![0f32; cols];
                let mut at = 0;
                while at < values.len() {
                    let (row, from) = ((start + at) / cols, (start + at) % cols);
                    let n = (cols - from).min(values.len() - at);
                    let sums = &mut sums[..n];
                    sums.fill(0.0);
                    for k in 0..*rank {
                        let l = left[row * rank + k];
                        let r = &right[k * cols + from..][..n];
                        sums.iter_mut().zip(r).for_each(|(s, r)| *s += l * r);
                    }
                    let out = &mut values[at..at + n];
                    out.iter_mut().zip(sums).for_each(|(o, s)| *o += *s);
                    at += n;
                }
            }
            Self::Signs { bits, scales } => {
                let cols = match scales.len() {
                    1 => usize::MAX,
                    _ => as_matrix(shape).map_or(usize::MAX, |m| m.1),
                };
                for (i, v) in values.iter_mut().enumerate() {
                    let at = start + i;
                    let a = scales[at / cols];
                    *v += if bit(bits, at) { a } else { -a };
                }
            }
            Self::Graft { at, values: own } => {
                let first = at.partition_point(|p| *p < start);
                let places = at[first..].iter().zip(&own[first..]);
                let end = start + values.len();
                for (p, own) in places.take_while(|(p, _)| **p < end) {
                    values[p - start] = *own;
                }
            }
        }
    }
}

/// Rising places as the distance of each from the one before it, seven bits a byte, the lowest first.
fn gaps(at: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(at.len() * 2);
    let mut next = 0;
    for p in at {
        let mut gap = p - next;
        next = p + 1;
        while gap > 0x7F {
            out.push(gap as u8 | 0x80);
            gap >>= 7;
        }
        out.push(gap as u8);
    }
    out
}

/// The `count` places of coded gaps, all below `n`; `None` where the bytes are none.
fn places(bytes: &[u8], count: usize, n: usize) -> Option<Vec<usize>> {
    let mut found = Vec::with_capacity(count.min(bytes.len()));
    let (mut gap, mut shift, mut next) = (0usize, 0u32, 0usize);
    for byte in bytes {
        gap |= usize::from(byte & 0x7F).checked_shl(shift)?;
        shift += 7;
        if shift > 63 {
            return None;
        }
        if byte & 0x80 == 0 {
            let at = next.checked_add(gap).filter(|p| *p < n)?;
            found.push(at);
            (gap, shift, next) = (0, 0, at + 1);
        }
    }
    (shift == 0 && found.len() == count).then_some(found)
}

/// The bytes of a delta file: what a task changed in `tensors`, in their order. Factors are rounded to `store`.
///
/// # Errors
/// Numbers that are too large for their type.
pub fn file(
    tensors: &[&TensorRecord],
    parts: &[Option<Stored>],
    store: DType,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut pools: BTreeMap<String, (DType, Vec<u8>)> = BTreeMap::new();
    let mut kinds = Vec::with_capacity(parts.len());
    for (record, part) in tensors.iter().zip(parts) {
        let Some(part) = part else {
            kinds.push(String::new());
            continue;
        };
        kinds.push(part.word());
        let mut put = |pool: &str, dtype: DType, values: &[f32]| -> Result<()> {
            let mut bytes = vec![0u8; values.len() * dtype.block().1];
            if dtype::narrow(values, dtype, &mut bytes) > 0 {
                let what = format!("numbers of `{}` are too large for {dtype}", record.name);
                return Err(
                    MergeError::plan("overflow", what).hint("compress.store = \"f32\" or \"bf16\"")
                );
            }
            let pool = pools.entry(pool.into()).or_insert((dtype, Vec::new()));
            pool.1.extend(bytes);
            Ok(())
        };
        let own = DType::from_safetensors(&record.dtype).unwrap_or(DType::F32);
        let pool = format!("own.{}", own.name());
        match part {
            Stored::Own(values) => put(&pool, own, values)?,
            Stored::LowRank { left, right, .. } => {
                put("values", store, left)?;
                put("values", store, right)?;
            }
            Stored::Signs { scales, .. } => put("scales", DType::F32, scales)?,
            Stored::Graft { values, .. } => put(&pool, own, values)?,
        }
        let bytes = match part {
            Stored::Signs { bits, .. } => ("bits", bits.clone()),
            Stored::Graft { at, .. } => ("gaps", gaps(at)),
            _ => continue,
        };
        let pool = pools
            .entry(bytes.0.into())
            .or_insert((DType::U8, Vec::new()));
        pool.1.extend(bytes.1);
    }
    let mut metadata = metadata.clone();
    metadata.insert("format".into(), FORMAT.into());
    metadata.insert("kinds".into(), serde_json::json!(kinds).to_string());
    let tensors: Vec<(OutTensor, Vec<u8>)> = pools
        .into_iter()
        .map(|(name, (dtype, bytes))| {
            let shape = vec![bytes.len() / dtype.block().1];
            (OutTensor { name, dtype, shape }, bytes)
        })
        .collect();
    Ok(safetensors_bytes(&tensors, &metadata))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Same,
    Own,
    LowRank(usize),
    Signs { by_row: bool },
    Graft { entries: usize, bytes: usize },
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "" => Self::Same,
            "o" => Self::Own,
            "s" => Self::Signs { by_row: false },
            "r" => Self::Signs { by_row: true },
            _ => match word.split_at_checked(1)? {
                ("l", rank) => Self::LowRank(rank.parse().ok()?),
                ("g", rest) => {
                    let (entries, bytes) = rest.split_once(':')?;
                    Self::Graft {
                        entries: entries.parse().ok()?,
                        bytes: bytes.parse().ok()?,
                    }
                }
                _ => return None,
            },
        })
    }
}

/// A piece of a pool.
type Piece = (String, u64, u64);

/// An opened delta file.
pub struct DeltaFile {
    file: Checkpoint,
    parts: Vec<(Kind, Vec<Piece>)>,
}

impl DeltaFile {
    /// Opens a file for the parameters of a bundle; every number in it must belong to one of them.
    ///
    /// # Errors
    /// Not a delta file, or one for other parameters.
    pub fn open(path: &Path, tensors: &[&TensorRecord]) -> Result<Self> {
        let bad = |what: String| {
            MergeError::plan("bad-delta", what)
                .at(path.display().to_string())
                .hint("write the bundle again with `polyloom compress`")
        };
        let file = Checkpoint::open(path)?;
        match file.metadata().get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(f) => {
                return Err(bad(format!(
                    "has format `{f}`; this version reads `{FORMAT}`"
                )));
            }
            None => return Err(bad("is no delta file: its header has no `format`".into())),
        }
        let text = file.metadata().get("kinds").map_or("", String::as_str);
        let words: Vec<String> = serde_json::from_str(text)
            .map_err(|e| bad(format!("its metadata `kinds` cannot be read: {e}")))?;
        if words.len() != tensors.len() {
            let what = format!(
                "tells of {} tensors; the bundle has {}",
                words.len(),
                tensors.len()
            );
            return Err(bad(what));
        }
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        let mut parts = Vec::with_capacity(words.len());
        for (word, record) in words.iter().zip(tensors) {
            let kind = Kind::of(word);
            let wrong = || {
                bad(format!(
                    "`{word}` is no way to store `{}` {:?}",
                    record.name, record.shape
                ))
            };
            let kind = kind.ok_or_else(wrong)?;
            let sizes = sizes(kind, record).ok_or_else(wrong)?;
            let mut pieces = Vec::with_capacity(sizes.len());
            for (pool, n) in sizes {
                let from = ends.entry(pool.clone()).or_default();
                let to = from.checked_add(n as u64).ok_or_else(wrong)?;
                pieces.push((pool, *from, to));
                *from = to;
            }
            parts.push((kind, pieces));
        }
        for (pool, end) in &ends {
            let found = file.get(pool).map_or(0, |t| t.elements() as u64);
            if found != *end {
                return Err(bad(format!(
                    "`{pool}` has {found} numbers; `kinds` asks for {end}"
                )));
            }
            let u8s = matches!(&**pool, "bits" | "gaps");
            if file
                .get(pool)
                .is_some_and(|t| (t.dtype == DType::U8) != u8s)
            {
                return Err(bad(format!("`{pool}` has another type")));
            }
        }
        if let Some(name) = file.tensors().keys().find(|n| !ends.contains_key(*n)) {
            return Err(bad(format!("nothing uses its tensor `{name}`")));
        }
        Ok(Self { file, parts })
    }

    /// What is stored of the parameter at a place of the list; `None` for the base's.
    ///
    /// # Errors
    /// The file cannot be read; places of entries that are none.
    pub fn part(&self, i: usize, record: &TensorRecord) -> Result<Option<Stored>> {
        let (kind, pieces) = &self.parts[i];
        let numbers = |at: usize| -> Result<Vec<f32>> {
            let (pool, from, to) = &pieces[at];
            let tensor = self.file.get(pool);
            let mut out = vec![0f32; (to - from) as usize];
            if let Some(tensor) = tensor {
                let range = *from as usize..*to as usize;
                self.file
                    .read_f32(tensor, range, &mut out, &mut Scratch::default())?;
            }
            Ok(out)
        };
        let bytes = |at: usize| -> Result<Vec<u8>> {
            let (pool, from, to) = &pieces[at];
            let mut out = vec![0u8; (to - from) as usize];
            if let Some(tensor) = self.file.get(pool) {
                self.file.read_bytes(tensor, *from..*to, &mut out)?;
            }
            Ok(out)
        };
        Ok(Some(match *kind {
            Kind::Same => return Ok(None),
            Kind::Own => Stored::Own(numbers(0)?),
            Kind::LowRank(rank) => Stored::LowRank {
                rank,
                left: numbers(0)?,
                right: numbers(1)?,
            },
            Kind::Signs { .. } => Stored::Signs {
                scales: numbers(0)?,
                bits: bytes(1)?,
            },
            Kind::Graft { entries, .. } => {
                let n = record.shape.iter().product();
                let at = places(&bytes(1)?, entries, n).ok_or_else(|| {
                    let what =
                        format!("the places of the entries of `{}` are damaged", record.name);
                    MergeError::plan("bad-delta", what).at(self.file.origin().display().to_string())
                })?;
                Stored::Graft {
                    at,
                    values: numbers(0)?,
                }
            }
        }))
    }
}

/// What a parameter takes of which pool; `None` where it cannot be stored so.
fn sizes(kind: Kind, record: &TensorRecord) -> Option<Vec<(String, usize)>> {
    let n = record
        .shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let own = format!("own.{}", record.dtype);
    Some(match kind {
        Kind::Same => Vec::new(),
        Kind::Own => vec![(own, n)],
        Kind::LowRank(rank) => {
            let (rows, cols) = as_matrix(&record.shape)?;
            if rank == 0 || rank > rows.min(cols) {
                return None;
            }
            vec![
                ("values".into(), rows * rank),
                ("values".into(), rank * cols),
            ]
        }
        Kind::Signs { by_row } => {
            let scales = if by_row {
                as_matrix(&record.shape)?.0
            } else {
                1
            };
            vec![("scales".into(), scales), ("bits".into(), bytes_of(n))]
        }
        Kind::Graft { entries, bytes } => {
            if entries > n || bytes < entries {
                return None;
            }
            vec![(own, entries), ("gaps".into(), bytes)]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, shape: &[usize]) -> TensorRecord {
        TensorRecord {
            name: name.into(),
            dtype: "F32".into(),
            shape: shape.to_vec(),
            masked: true,
        }
    }

    #[test]
    fn places_there_and_back() {
        let at = [0usize, 1, 128, 129, 20_000, 3_000_000];
        let bytes = gaps(&at);
        assert_eq!(places(&bytes, 6, 3_000_001).unwrap(), at);
        assert!(places(&bytes, 6, 3_000_000).is_none(), "behind the end");
        assert!(places(&bytes, 5, 3_000_001).is_none(), "one too many");
        assert!(places(&bytes[..bytes.len() - 1], 6, 3_000_001).is_none());
        assert!(places(&[0xFF; 12], 1, usize::MAX).is_none());
    }

    #[test]
    fn every_kind_comes_back_and_applies() {
        let records = [
            record("a", &[2, 3]),
            record("b", &[3]),
            record("c", &[1, 2, 2]),
            record("d", &[2, 2]),
            record("e", &[5]),
        ];
        let parts = [
            Some(Stored::LowRank {
                rank: 1,
                left: vec![1.0, -2.0],
                right: vec![1.0, 0.5, 0.25],
            }),
            Some(Stored::Own(vec![7.0, 8.0, 9.0])),
            Some(Stored::Signs {
                bits: vec![0b1010_0000],
                scales: vec![0.5, 2.0],
            }),
            None,
            Some(Stored::Graft {
                at: vec![1, 4],
                values: vec![5.0, 6.0],
            }),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let all: Vec<&TensorRecord> = records.iter().collect();
        std::fs::write(
            &path,
            file(&all, &parts, DType::F16, &BTreeMap::new()).unwrap(),
        )
        .unwrap();
        let opened = DeltaFile::open(&path, &all).unwrap();
        for (i, part) in parts.iter().enumerate() {
            assert_eq!(opened.part(i, all[i]).unwrap(), *part);
        }
        let applied = |i: usize, start: usize, n: usize| {
            let mut values = vec![1.0; n];
            if let Some(part) = opened.part(i, all[i]).unwrap() {
                part.apply(&records[i].shape, start, &mut values);
            }
            values
        };
        assert_eq!(applied(0, 0, 6), [2.0, 1.5, 1.25, -1.0, 0.0, 0.5]);
        assert_eq!(applied(0, 2, 3), [1.25, -1.0, 0.0]);
        assert_eq!(applied(1, 1, 2), [8.0, 9.0]);
        assert_eq!(applied(2, 0, 4), [1.5, 0.5, 3.0, -1.0]);
        assert_eq!(applied(3, 0, 4), [1.0; 4]);
        assert_eq!(applied(4, 1, 4), [5.0, 1.0, 1.0, 6.0]);
        // For other parameters it is refused.
        assert!(DeltaFile::open(&path, &all[..4]).is_err());
        let other = record("b", &[4]);
        assert!(DeltaFile::open(&path, &[all[0], &other, all[2], all[3], all[4]]).is_err());
    }
}
