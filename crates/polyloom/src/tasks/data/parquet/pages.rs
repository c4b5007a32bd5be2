//! The bytes of a Parquet file whose columns are read side by side: every read says where it begins, as one position that
//! all readers share (the `parquet` crate's way with files) would not do.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use polyloom_core::checkpoint::OpenFile;

/// The file.
pub struct Pages(Arc<OpenFile>);

impl Pages {
    /// Opens it.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn open(path: &Path) -> crate::error::Result<Self> {
        Ok(Self(Arc::new(OpenFile::open(path)?)))
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.len
    }
}

impl ChunkReader for Pages {
    type T = BufReader<Part>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(Part {
            file: self.0.clone(),
            at: start,
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.0.len) {
            let what = format!("{length} bytes at {start} reach beyond the end of the file");
            return Err(ParquetError::EOF(what));
        }
        let mut bytes = vec![0; length];
        let read = self.0.read_at(start, &mut bytes);
        read.map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(bytes.into())
    }
}

/// The file from a place on.
pub struct Part {
    file: Arc<OpenFile>,
    at: u64,
}

impl Read for Part {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.file.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = out.len().min(left);
        let read = self.file.read_at(self.at, &mut out[..n]);
        read.map_err(std::io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}
