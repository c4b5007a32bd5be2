//! The GGUF header: metadata and tensor descriptions, read through a small window.

use indexmap::IndexMap;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::source::{Source, number};

/// Bytes read at once.
const WINDOW: usize = 64 << 10;
/// Longest key, tensor name or text value that is kept, in bytes.
const MAX_TEXT: u64 = 4096;
/// Longest array of numbers that is kept (per-layer settings).
const MAX_ARRAY: u64 = 1024;
/// Most metadata entries and tensors.
const MAX_ENTRIES: u64 = 1 << 20;
/// Deepest nesting of arrays.
const MAX_DEPTH: usize = 4;

/// A metadata value; long texts and arrays nobody needs (tokenizers) are passed over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Self>),
    Skipped,
}

impl Value {
    /// The number in an integer, or in an array of one and the same integer.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            Self::Array(items) => {
                let first = items.first()?.count()?;
                items
                    .iter()
                    .all(|v| v.count() == Some(first))
                    .then_some(first)
            }
            _ => None,
        }
    }
}

/// One tensor's description, as it stands in the file.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) name: String,
    /// Innermost first.
    pub(super) dims: Vec<u64>,
    pub(super) kind: u64,
    /// From the start of the data.
    pub(super) offset: u64,
}

/// Everything before the data.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) meta: IndexMap<String, Value>,
    pub(super) infos: Vec<Info>,
    /// Where the data starts.
    pub(super) data: u64,
    pub(super) hash: u64,
}

struct Cursor<'a, S> {
    source: &'a S,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<S: Source> Cursor<'_, S> {
    fn cut(&self, what: &str) -> Error {
        Error::format(
            self.source.path(),
            format!("ends or breaks off in {what} (byte {})", self.at),
        )
        .with_hint("the download was cut off, or the file is damaged; fetch it again")
    }

    fn left(&self) -> u64 {
        self.source.len() - self.at
    }

    fn skip(&mut self, n: u64, what: &str) -> Result<()> {
        if n > self.left() {
            return Err(self.cut(what));
        }
        self.at += n;
        Ok(())
    }

    fn number<const N: usize>(&mut self, what: &str) -> Result<u64> {
        let inside = |c: &Self| {
            let from = c.at.checked_sub(c.window_at)?;
            number::<N>(&c.window, usize::try_from(from).ok()?)
        };
        if inside(self).is_none() {
            let n = self.left().min(WINDOW as u64);
            self.window = self.source.bytes(self.at, n, what)?;
            self.window_at = self.at;
        }
        let value = inside(self).ok_or_else(|| self.cut(what))?;
        self.at += N as u64;
        Ok(value)
    }

    /// A text; `None` (and passed over) if it is longer than [`MAX_TEXT`].
    fn text(&mut self, what: &str) -> Result<Option<String>> {
        let n = self.number::<8>(what)?;
        if n > self.left() {
            return Err(self.cut(what));
        }
        if n > MAX_TEXT {
            self.skip(n, what)?;
            return Ok(None);
        }
        let bytes = self.source.bytes(self.at, n, what)?;
        self.at += n;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::format(self.source.path(), format!("has {what} that is not UTF-8")))
    }

    fn name(&mut self, what: &str) -> Result<String> {
        self.text(what)?.ok_or_else(|| {
            Error::format(
                self.source.path(),
                format!("has {what} of more than {MAX_TEXT} bytes"),
            )
        })
    }

    fn value(&mut self, kind: u64, depth: usize) -> Result<Value> {
        let what = "a metadata value";
        Ok(match kind {
            0 => Value::Unsigned(self.number::<1>(what)?),
            1 => Value::Signed(i64::from((self.number::<1>(what)? as u8).cast_signed())),
            2 => Value::Unsigned(self.number::<2>(what)?),
            3 => Value::Signed(i64::from((self.number::<2>(what)? as u16).cast_signed())),
            4 => Value::Unsigned(self.number::<4>(what)?),
            5 => Value::Signed(i64::from((self.number::<4>(what)? as u32).cast_signed())),
            6 => {
                // The shortest decimal of the f32: 1e-5 is meant, not 9.999999747378752e-6.
                let value = f32::from_bits(self.number::<4>(what)? as u32);
                Value::Float(value.to_string().parse().unwrap_or(f64::from(value)))
            }
            7 => Value::Bool(self.number::<1>(what)? != 0),
            8 => self.text(what)?.map_or(Value::Skipped, Value::Text),
            9 => return self.array(depth),
            10 => Value::Unsigned(self.number::<8>(what)?),
            11 => Value::Signed(self.number::<8>(what)?.cast_signed()),
            12 => Value::Float(f64::from_bits(self.number::<8>(what)?)),
            _ => {
                return Err(Error::format(
                    self.source.path(),
                    format!("has a metadata value of unknown type {kind}"),
                ));
            }
        })
    }

    fn array(&mut self, depth: usize) -> Result<Value> {
        let what = "a metadata array";
        let (kind, n) = (self.number::<4>(what)?, self.number::<8>(what)?);
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => {
                return Err(Error::format(
                    self.source.path(),
                    format!("has a metadata array of unknown type {kind}"),
                ));
            }
        };
        if n > self.left() / size {
            return Err(self.cut(what));
        }
        if kind == 9 && depth >= MAX_DEPTH {
            return Err(Error::format(
                self.source.path(),
                "has metadata arrays nested too deeply",
            ));
        }
        match kind {
            8 => {
                for _ in 0..n {
                    let len = self.number::<8>(what)?;
                    self.skip(len, what)?;
                }
                Ok(Value::Skipped)
            }
            9 => {
                for _ in 0..n {
                    self.array(depth + 1)?;
                }
                Ok(Value::Skipped)
            }
            _ if n > MAX_ARRAY => {
                self.skip(n * size, what)?;
                Ok(Value::Skipped)
            }
            _ => (0..n)
                .map(|_| self.value(kind, depth))
                .collect::<Result<_>>()
                .map(Value::Array),
        }
    }
}

/// Reads the header and checks every length in it against the file's.
pub(super) fn read(source: &impl Source) -> Result<Header> {
    let mut cursor = Cursor {
        source,
        at: 0,
        window: Vec::new(),
        window_at: 0,
    };
    let bad = |text: String| Error::format(source.path(), text);
    let what = "the header";
    if source.len() < 24 || cursor.number::<4>(what)? != u64::from(u32::from_le_bytes(*b"GGUF")) {
        return Err(bad("is not a GGUF file".into())
            .with_hint("the file is damaged, or a git-lfs pointer instead of the file itself"));
    }
    let version = cursor.number::<4>(what)?;
    if !(2..=3).contains(&version) {
        let text = if version & 0xFFFF == 0 {
            "is a big-endian GGUF file".into()
        } else {
            format!("has GGUF version {version}; 2 and 3 are read")
        };
        return Err(bad(text).with_hint("convert the model again with a current llama.cpp"));
    }
    let (tensors, entries) = (cursor.number::<8>(what)?, cursor.number::<8>(what)?);
    // The least that one entry takes: a key's length, a type and a byte; or a name's length, dimensions, type, offset.
    for (n, least, what) in [(entries, 13, "metadata entries"), (tensors, 24, "tensors")] {
        if n > MAX_ENTRIES || n > cursor.left() / least {
            return Err(bad(format!("claims {n} {what} in {} bytes", source.len()))
                .with_hint("the download was cut off, or the file is damaged; fetch it again"));
        }
    }
    let mut meta = IndexMap::new();
    for _ in 0..entries {
        let key = cursor.name("a metadata key")?;
        let kind = cursor.number::<4>("a metadata type")?;
        let value = cursor.value(kind, 0)?;
        if meta.contains_key(&key) {
            return Err(bad(format!("has metadata key `{key}` twice")));
        }
        meta.insert(key, value);
    }
    let mut infos = Vec::with_capacity(tensors as usize);
    for _ in 0..tensors {
        let name = cursor.name("a tensor name")?;
        let n = cursor.number::<4>("a tensor's dimensions")?;
        if n > 4 {
            return Err(Error::tensor(
                source.path(),
                name,
                format!("has {n} dimensions; GGUF allows 4"),
            ));
        }
        let dims = (0..n)
            .map(|_| cursor.number::<8>("a tensor's dimensions"))
            .collect::<Result<_>>()?;
        infos.push(Info {
            name,
            dims,
            kind: cursor.number::<4>("a tensor's type")?,
            offset: cursor.number::<8>("a tensor's offset")?,
        });
    }
    let align = match meta.get("general.alignment") {
        None => 32,
        Some(value) => value
            .count()
            .filter(|n| n.is_power_of_two() && *n <= 1 << 20)
            .ok_or_else(|| bad("has a `general.alignment` that is not a power of two".into()))?,
    };
    let data = cursor.at.next_multiple_of(align);
    let mut hasher = Xxh3::new();
    let mut at = 0;
    while at < cursor.at {
        let n = (cursor.at - at).min(1 << 20);
        hasher.update(&source.bytes(at, n, what)?);
        at += n;
    }
    Ok(Header {
        meta,
        infos,
        data,
        hash: hasher.digest(),
    })
}
