//! Distributions of tokens on disk: what sources say of many tokens does not fill the memory.
//!
//! A row takes `3 + 6 n` bytes for n kept entries: how many, the logarithm of what the others share, and of each entry its id
//! and the logarithm of its probability, as f16 (FuseLLM keeps the top logits so). What is read back is made to add up to 1.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use polyloom_core::{DType, dtype};

use super::tokens::Row;
use crate::error::{Error, Result};

/// Where there is no row.
const NONE: u8 = u8::MAX;

/// Rows of sequences, in a file without a name that goes when it is dropped.
#[derive(Debug)]
pub(super) struct Shelf {
    file: Mutex<File>,
    folder: PathBuf,
    /// By sequence: where its rows begin, and bytes of them.
    places: Vec<(u64, usize)>,
    end: u64,
}

impl Shelf {
    /// An empty one for so many sequences, in a folder.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn new(folder: &Path, sequences: usize) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|e| polyloom_core::Error::io(folder, "create", e))?;
        let file = tempfile::tempfile_in(folder)
            .map_err(|e| polyloom_core::Error::io(folder, "write a file of distributions in", e))?;
        Ok(Self {
            file: Mutex::new(file),
            folder: folder.to_owned(),
            places: vec![(0, 0); sequences],
            end: 0,
        })
    }

    fn failed(&self, what: &'static str, error: std::io::Error) -> Error {
        polyloom_core::Error::io(&self.folder, what, error).into()
    }

    /// Puts the rows of a sequence there.
    ///
    /// # Errors
    /// A full disk.
    pub fn put(&mut self, sequence: usize, rows: &[Option<Row>]) -> Result<()> {
        let mut bytes = Vec::with_capacity(rows.len() * 64);
        rows.iter()
            .for_each(|row| written(row.as_ref(), &mut bytes));
        let done = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let at = file.seek(SeekFrom::Start(self.end));
            at.and_then(|_| file.write_all(&bytes))
        };
        done.map_err(|e| self.failed("write distributions in", e))?;
        if let Some(place) = self.places.get_mut(sequence) {
            *place = (self.end, bytes.len());
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// The rows of a sequence; none of one that was not put there.
    ///
    /// # Errors
    /// A disk that does not give back what was written.
    pub fn rows(&self, sequence: usize) -> Result<Vec<Option<Row>>> {
        let (from, length) = self.places.get(sequence).copied().unwrap_or_default();
        let mut bytes = vec![0; length];
        let done = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let at = file.seek(SeekFrom::Start(from));
            at.and_then(|_| file.read_exact(&mut bytes))
        };
        done.map_err(|e| self.failed("read distributions in", e))?;
        let (mut rows, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let (row, behind) = read(rest).ok_or_else(|| {
                let broken = std::io::Error::from(std::io::ErrorKind::InvalidData);
                self.failed("read distributions in", broken)
            })?;
            rows.push(row);
            rest = behind;
        }
        Ok(rows)
    }
}

/// A logarithm as f16.
fn half(p: f64) -> [u8; 2] {
    let mut bytes = [0; 2];
    dtype::narrow(&[p.ln() as f32], DType::F16, &mut bytes);
    bytes
}

fn written(row: Option<&Row>, to: &mut Vec<u8>) {
    let Some(row) = row else {
        return to.push(NONE);
    };
    // At most ten entries are kept.
    to.push(row.kept.len().min(usize::from(NONE) - 1) as u8);
    to.extend(half(row.rest));
    for (id, p) in row.kept.iter().take(usize::from(NONE) - 1) {
        to.extend(id.to_le_bytes());
        to.extend(half(*p));
    }
}

/// The first row of bytes, and what stands behind it; `None` where they end before.
fn read(bytes: &[u8]) -> Option<(Option<Row>, &[u8])> {
    let (&count, mut bytes) = bytes.split_first()?;
    if count == NONE {
        return Some((None, bytes));
    }
    let mut take = |n: usize| {
        let (own, rest) = bytes.split_at_checked(n)?;
        bytes = rest;
        Some(own)
    };
    let number = |half: &[u8]| {
        let mut value = [0f32];
        dtype::widen(DType::F16, half, &mut value);
        f64::from(value[0]).exp()
    };
    let mut rest = number(take(2)?);
    let mut kept = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let id = u32::from_le_bytes(take(4)?.try_into().ok()?);
        kept.push((id, number(take(2)?)));
    }
    let total = rest + kept.iter().map(|(_, p)| p).sum::<f64>();
    kept.iter_mut().for_each(|(_, p)| *p /= total);
    rest /= total;
    Some((Some(Row { kept, rest }), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::new(&dir.path().join("work"), 3).unwrap();
        let row = |kept: &[(u32, f64)], rest| {
            Some(Row {
                kept: kept.to_vec(),
                rest,
            })
        };
        let first = vec![row(&[(7, 0.5), (70_000, 0.25)], 0.25), None];
        let second = vec![
            None,
            row(&[(1, 1.0)], 0.0),
            row(&[(2, 0.9), (3, 1e-4)], 0.0999),
        ];
        shelf.put(2, &second).unwrap();
        shelf.put(0, &first).unwrap();
        for (sequence, rows) in [(0, first), (1, Vec::new()), (2, second)] {
            let found = shelf.rows(sequence).unwrap();
            assert_eq!(found.len(), rows.len());
            for (found, row) in found.iter().zip(&rows) {
                assert_eq!(found.is_some(), row.is_some());
                let (Some(found), Some(row)) = (found, row) else {
                    continue;
                };
                let mut sum = found.rest;
                for ((a, p), (b, q)) in found.kept.iter().zip(&row.kept) {
                    assert_eq!(a, b);
                    // f16 has 11 bits: half of the last one, of a logarithm down to -9.2.
                    assert!((p - q).abs() < q * 0.005, "{p} {q}");
                    sum += p;
                }
                assert!((sum - 1.0).abs() < 1e-12 && (found.rest - row.rest).abs() < 1e-3);
            }
        }
        // Nothing is left behind.
        assert_eq!(
            std::fs::read_dir(dir.path().join("work")).unwrap().count(),
            0
        );
    }

    #[test]
    fn broken_bytes() {
        let mut bytes = Vec::new();
        let row = Row {
            kept: vec![(1, 0.5)],
            rest: 0.5,
        };
        written(Some(&row), &mut bytes);
        assert_eq!(bytes.len(), 9);
        for n in 0..bytes.len() {
            assert!(read(&bytes[..n]).is_none());
        }
    }
}
