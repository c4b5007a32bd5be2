//! The part of zip that `torch.save` writes: stored (never compressed) entries found through the central directory.

use indexmap::IndexMap;

use crate::error::{Error, Result};
use crate::source::{Source, number};

/// Largest central directory that is read, in bytes (a million entries of usual name lengths).
const MAX_DIRECTORY: u64 = 128 << 20;

/// The entries of an archive by name.
pub(super) struct Directory {
    entries: IndexMap<String, Entry>,
    /// Where the directory starts: no entry's data may pass it.
    end: u64,
}

/// What the central directory says of one entry.
#[derive(Clone, Copy)]
struct Entry {
    method: u64,
    flags: u64,
    packed: u64,
    size: u64,
    header: u64,
}

/// Bytes of a stored entry in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Directory {
    /// Finds and reads the central directory (zip64 included).
    pub(super) fn read(source: &impl Source) -> Result<Self> {
        let bad = |text: &str| {
            Error::format(source.path(), format!("is a damaged zip archive: {text}"))
                .with_hint("the download was cut off, or the file is damaged; fetch it again")
        };
        let len = source.len();
        let tail_at = len.saturating_sub(22 + 0xFFFF);
        let tail = source.bytes(tail_at, len - tail_at, "the end of the archive")?;
        let end = (0..=tail.len().saturating_sub(22))
            .rev()
            .find(|&at| {
                number::<4>(&tail, at) == Some(0x0605_4b50)
                    && number::<2>(&tail, at + 20) == Some((tail.len() - at - 22) as u64)
            })
            .ok_or_else(|| bad("it has no end record"))?;
        let field = |at: usize| number::<4>(&tail, end + at).unwrap_or(0);
        let mut count = number::<2>(&tail, end + 10).unwrap_or(0);
        let (mut size, mut start) = (field(12), field(16));
        let mut limit = tail_at + end as u64;
        if count == 0xFFFF || size == 0xFFFF_FFFF || start == 0xFFFF_FFFF {
            let locator_at = limit
                .checked_sub(20)
                .ok_or_else(|| bad("it has no zip64 locator"))?;
            let locator = source.bytes(locator_at, 20, "the zip64 locator")?;
            if number::<4>(&locator, 0) != Some(0x0706_4b50) {
                return Err(bad("it has no zip64 locator"));
            }
            limit = number::<8>(&locator, 8).unwrap_or(u64::MAX);
            let wide = source.bytes(limit, 56, "the zip64 end record")?;
            if number::<4>(&wide, 0) != Some(0x0606_4b50) {
                return Err(bad("it has no zip64 end record"));
            }
            count = number::<8>(&wide, 32).unwrap_or(0);
            size = number::<8>(&wide, 40).unwrap_or(0);
            start = number::<8>(&wide, 48).unwrap_or(0);
        }
        if start.checked_add(size).is_none_or(|end| end > limit) {
            return Err(bad("its directory passes its end record"));
        }
        if size > MAX_DIRECTORY || count > size / 46 {
            return Err(bad(&format!(
                "it claims {count} entries in a directory of {size} bytes"
            )));
        }
        let bytes = source.bytes(start, size, "the directory")?;
        let mut entries = IndexMap::new();
        let mut at = 0;
        for _ in 0..count {
            let (name, entry, next) =
                parse_entry(&bytes, at).ok_or_else(|| bad("its directory is not readable"))?;
            at = next;
            if entries.contains_key(&name) {
                return Err(bad(&format!("it holds `{name}` twice")));
            }
            entries.insert(name, entry);
        }
        Ok(Self {
            entries,
            end: start,
        })
    }

    /// All entry names, in the directory's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where an entry's bytes lie; `None` if the archive has no such entry.
    pub(super) fn place(&self, source: &impl Source, name: &str) -> Result<Option<Place>> {
        let Some(entry) = self.entries.get(name) else {
            return Ok(None);
        };
        let bad = |text: String| Error::format(source.path(), format!("entry `{name}` {text}"));
        if entry.method != 0 || entry.packed != entry.size {
            return Err(
                bad("is compressed; torch.save stores tensors uncompressed".into()).with_hint(
                    "the archive was packed again by another tool; save it with torch.save",
                ),
            );
        }
        if entry.flags & 1 != 0 {
            return Err(bad("is encrypted".into()));
        }
        let header = source.bytes(entry.header, 30, "an entry")?;
        let field = |at| number::<2>(&header, at).unwrap_or(0);
        if number::<4>(&header, 0) != Some(0x0403_4b50) || field(8) != 0 {
            return Err(bad("has no matching header before its data".into()));
        }
        let local = source.bytes(entry.header + 30, field(26), "an entry's name")?;
        if local != name.as_bytes() {
            return Err(bad("has another name before its data".into()));
        }
        let offset = entry.header + 30 + field(26) + field(28);
        if offset
            .checked_add(entry.size)
            .is_none_or(|end| end > self.end)
        {
            return Err(bad(format!(
                "claims {} bytes at byte {offset}, past the end of the archive's data",
                entry.size
            ))
            .with_hint("the download was cut off, or the file is damaged"));
        }
        Ok(Some(Place {
            offset,
            size: entry.size,
        }))
    }
}

/// One central directory record at `at`: name, entry and the next record's place.
fn parse_entry(bytes: &[u8], at: usize) -> Option<(String, Entry, usize)> {
    if number::<4>(bytes, at)? != 0x0201_4b50 {
        return None;
    }
    let short = |k: usize| number::<2>(bytes, at + k);
    let (name_len, extra_len, comment_len) = (
        short(28)? as usize,
        short(30)? as usize,
        short(32)? as usize,
    );
    let mut packed = number::<4>(bytes, at + 20)?;
    let mut size = number::<4>(bytes, at + 24)?;
    let mut header = number::<4>(bytes, at + 42)?;
    let name_at = at + 46;
    let name = std::str::from_utf8(bytes.get(name_at..name_at + name_len)?).ok()?;
    let extra = bytes.get(name_at + name_len..name_at + name_len + extra_len)?;
    let mut k = 0;
    while k + 4 <= extra.len() {
        let (id, len) = (number::<2>(extra, k)?, number::<2>(extra, k + 2)? as usize);
        if id == 1 {
            // Only the fields that overflowed are present, in this order.
            let wide = extra.get(k + 4..k + 4 + len)?;
            let mut next = 0;
            for value in [&mut size, &mut packed, &mut header] {
                if *value == 0xFFFF_FFFF {
                    *value = number::<8>(wide, next)?;
                    next += 8;
                }
            }
        }
        k += 4 + len;
    }
    let entry = Entry {
        method: short(10)?,
        flags: short(8)?,
        packed,
        size,
        header,
    };
    Some((
        name.to_owned(),
        entry,
        name_at + name_len + extra_len + comment_len,
    ))
}
