//! Bytes that parsers read by position: an open file, or a slice in tests and fuzz targets.

use std::path::Path;

use crate::checkpoint::OpenFile;
use crate::error::{Error, Result};

/// Something with a length and positioned reads.
pub(crate) trait Source {
    /// The file, for messages.
    fn path(&self) -> &Path;
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Fills `out` from byte `offset` on; an error if that passes the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    /// Reads `n` bytes; the length is checked against the file's before anything is allocated.
    fn bytes(&self, offset: u64, n: u64, what: &str) -> Result<Vec<u8>> {
        if offset.checked_add(n).is_none_or(|end| end > self.len()) {
            return Err(Error::format(
                self.path(),
                format!(
                    "puts {what} at byte {offset} with {n} bytes, but the file has {}",
                    self.len()
                ),
            )
            .with_hint("the download was cut off, or the file is damaged"));
        }
        let mut out = vec![0; n as usize];
        self.read_at(offset, &mut out)?;
        Ok(out)
    }
}

impl Source for OpenFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, out)
    }
}

impl Source for &[u8] {
    fn path(&self) -> &Path {
        Path::new("bytes")
    }

    fn len(&self) -> u64 {
        (**self).len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(out.len())?));
        match part {
            Some(part) => {
                out.copy_from_slice(part);
                Ok(())
            }
            None => Err(Error::format(self.path(), "ends too early")),
        }
    }
}

/// Little-endian number of `N <= 8` bytes at `at`; `None` past the end.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}
