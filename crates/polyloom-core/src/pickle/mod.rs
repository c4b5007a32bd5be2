//! PyTorch checkpoints (`.bin`, `.pt`, `.pth`): the zip archives that `torch.save` has written since version 1.6.
//!
//! The pickle inside is read by a machine that can build dicts, lists, numbers, text and tensor views and nothing
//! else; no name in it is ever called. PyTorch's own `weights_only` reader draws the line at the same place, except
//! that it also calls a few constructors that this one only recognises.

mod calls;
mod machine;
mod storage;
mod value;
mod zip;

use indexmap::IndexMap;

use self::machine::Built;
use self::storage::Element;
use self::value::{Id, Node, View, shorten};
use self::zip::Directory;
use crate::checkpoint::{self, Layout, OpenFile, StoredTensor};
use crate::dtype::DType;
use crate::error::{Error, Problem, Result};
use crate::source::Source;

/// Largest `data.pkl` that is read, in bytes (some 150 are needed per tensor).
const MAX_PICKLE: u64 = 256 << 20;

/// Keys under which training tools put the state dict.
const WRAPPERS: [&str; 6] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "model_state",
    "params",
];

/// Reads the index of a PyTorch zip archive. Offsets and sizes of every view are checked against its storage, and
/// every storage against the file.
pub fn read_index(file: &mut OpenFile, index: usize) -> Result<Vec<StoredTensor>> {
    let (mut tensors, hash) = read(file)?;
    file.header_hash = hash;
    for tensor in &mut tensors {
        tensor.file = index;
    }
    Ok(tensors)
}

/// Reads the index of an archive held in memory (tests and fuzzing).
pub fn parse_archive(bytes: &[u8]) -> Result<Vec<StoredTensor>> {
    read(&bytes).map(|(tensors, _)| tensors)
}

/// Runs a bare `data.pkl` and returns how many named tensors its state dict has (tests and fuzzing).
pub fn parse_pickle(bytes: &[u8]) -> Result<usize, Problem> {
    let built = machine::run(bytes)?;
    Ok(state_dict(&built)?.len())
}

fn read(source: &impl Source) -> Result<(Vec<StoredTensor>, u64)> {
    let start = source.bytes(0, source.len().min(16), "its start")?;
    if !start.starts_with(b"PK") {
        return Err(not_zip(source, &start));
    }
    let directory = Directory::read(source)?;
    let mut pickles = directory.names().filter(|n| {
        n.strip_suffix("data.pkl")
            .is_some_and(|p| p.matches('/').count() == 1 && p.ends_with('/'))
    });
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::format(
            source.path(),
            "is a zip archive, but not one of torch.save: it should hold one `NAME/data.pkl`",
        ));
    };
    let prefix = pickle
        .strip_suffix("data.pkl")
        .unwrap_or_default()
        .to_owned();
    let entry = |name: &str| directory.place(source, &format!("{prefix}{name}"));
    if let Some(place) = entry("byteorder")? {
        let order = source.bytes(place.offset, place.size.min(16), "`byteorder`")?;
        if order != b"little" {
            return Err(Error::format(
                source.path(),
                format!(
                    "has byte order `{}`",
                    shorten(&String::from_utf8_lossy(&order))
                ),
            )
            .with_hint(
                "only little-endian checkpoints are read; save it again on a usual machine",
            ));
        }
    }
    let place = entry("data.pkl")?
        .ok_or_else(|| Error::format(source.path(), "is a zip archive without `data.pkl`"))?;
    if place.size > MAX_PICKLE {
        return Err(Error::format(
            source.path(),
            format!(
                "has a `data.pkl` of {} bytes; the limit is {MAX_PICKLE}",
                place.size
            ),
        ));
    }
    let bytes = source.bytes(place.offset, place.size, "`data.pkl`")?;
    let add_file = |problem: Problem| problem.into_error(source.path());
    let built = machine::run(&bytes).map_err(add_file)?;
    let found = state_dict(&built).map_err(add_file)?;
    let mut tensors = Vec::with_capacity(found.len());
    for (name, node) in found {
        let view = match node {
            Node::Tensor(view) => view,
            Node::Refused(why) => {
                return Err(add_file(
                    Problem::of(name, *why)
                        .with_hint("convert it to a plain tensor and save again"),
                ));
            }
            _ => continue,
        };
        let place = entry(&format!("data/{}", view.storage.key))?;
        tensors.push(stored(name, view, place.map(|p| (p.offset, p.size))).map_err(add_file)?);
    }
    Ok((tensors, xxhash_rust::xxh3::xxh3_64(&bytes)))
}

fn not_zip(source: &impl Source, start: &[u8]) -> Error {
    // The old format begins with a pickled magic number, 0x1950a86a20f9469cfc6c.
    if start.starts_with(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19") {
        return Error::format(source.path(), "is in the format of PyTorch before 1.6")
            .with_hint("load it with torch >= 1.6 and save it again, best as safetensors");
    }
    if start.first() == Some(&0x80) {
        return Error::format(
            source.path(),
            "is a bare pickle, not an archive of torch.save",
        )
        .with_hint("load it with its author's tools and save the state dict, best as safetensors");
    }
    Error::format(
        source.path(),
        "is not a PyTorch checkpoint (no zip archive)",
    )
    .with_hint("the file is damaged, or a git-lfs pointer instead of the file itself")
}

/// The named tensors of the state dict, straight or inside the wrappers that training tools use.
fn state_dict(built: &Built) -> Result<IndexMap<&str, &Node>, Problem> {
    let mut at = built.top;
    for _ in 0..4 {
        let entries = text_entries(built, at);
        let inner = WRAPPERS.iter().find_map(|w| entries.get(w)).copied();
        if let Some(inner) = inner.filter(|id| matches!(built.get(*id), Node::Dict(_))) {
            at = inner;
            continue;
        }
        let tensors: IndexMap<_, _> = entries
            .iter()
            .map(|(name, id)| (*name, built.get(*id)))
            .filter(|(_, node)| matches!(node, Node::Tensor(_) | Node::Refused(_)))
            .collect();
        if !tensors.is_empty() {
            return Ok(tensors);
        }
        let keys: Vec<_> = entries.keys().take(5).map(|k| shorten(k)).collect();
        let what = match built.get(at) {
            Node::Dict(_) => format!(
                "holds no named tensor; its keys begin with: {}",
                keys.join(", ")
            ),
            Node::Tensor(_) => "holds one tensor without a name".into(),
            _ => "holds no dict of tensors".into(),
        };
        return Err(Problem::new(what)
            .with_hint("save the state dict: torch.save(model.state_dict(), path)"));
    }
    Err(Problem::new("wraps its state dict in too many dicts"))
}

/// Entries of a dict with text keys; the last of equal keys counts, as in Python.
fn text_entries(built: &Built, id: Id) -> IndexMap<&str, Id> {
    let Node::Dict(entries) = built.get(id) else {
        return IndexMap::new();
    };
    entries
        .iter()
        .filter_map(|(key, value)| match built.get(*key) {
            Node::Text(key) => Some((key.as_str(), *value)),
            _ => None,
        })
        .collect()
}

/// Checks a view against its storage's bytes `place` (offset and size in the file).
fn stored(name: &str, view: &View, place: Option<(u64, u64)>) -> Result<StoredTensor, Problem> {
    let dtype = match view.storage.element {
        Element::Plain(dtype) => dtype,
        // An untyped storage under an old-style tensor is bytes.
        Element::Untyped => DType::U8,
        Element::Refused(word) => {
            return Err(Problem::of(
                name,
                format!("has element type {word}, which is not supported"),
            )
            .with_hint("convert it to a real floating type and save again"));
        }
    };
    let size = dtype.block().1 as u64;
    let elements = checkpoint::count(name, &view.shape)?;
    let (start, bytes) = match place {
        Some(place) => place,
        None if view.storage.len == 0 && elements == 0 => (0, 0),
        None => {
            return Err(Problem::of(
                name,
                format!(
                    "lies in entry `data/{}`, which is missing",
                    shorten(&view.storage.key)
                ),
            )
            .with_hint("the file is damaged; fetch it again"));
        }
    };
    if view.storage.len.checked_mul(size) != Some(bytes) {
        return Err(Problem::of(
            name,
            format!(
                "has a storage of {} elements of {dtype}, but its entry has {bytes} bytes",
                view.storage.len
            ),
        )
        .with_hint("the file is damaged; fetch it again"));
    }
    let layout = if elements == 0 {
        Layout::Contiguous
    } else {
        let last = view
            .shape
            .iter()
            .zip(&view.strides)
            .try_fold(view.offset, |at, (d, s)| {
                at.checked_add((*d as u64 - 1).checked_mul(*s as u64)?)
            });
        if last.is_none_or(|last| last >= view.storage.len) {
            return Err(Problem::of(
                name,
                format!(
                    "reaches past its storage of {} elements (offset {}, shape {:?}, strides {:?})",
                    view.storage.len, view.offset, view.shape, view.strides
                ),
            ));
        }
        // Only an expanded view (stride 0) has more elements than bytes to back them.
        if elements as u64 > view.storage.len {
            return Err(Problem::of(name, "is an expanded view of a smaller tensor")
                .with_hint("call .contiguous() on it before saving"));
        }
        let mut dense = 1;
        let contiguous = view.shape.iter().zip(&view.strides).rev().all(|(d, s)| {
            let fits = *d == 1 || *s == dense;
            dense *= d;
            fits
        });
        if contiguous {
            Layout::Contiguous
        } else {
            Layout::Strided(view.strides.clone())
        }
    };
    let offset = if elements == 0 {
        start
    } else {
        start + view.offset * size
    };
    Ok(StoredTensor {
        name: name.to_owned(),
        dtype,
        shape: view.shape.clone(),
        file: 0,
        offset,
        layout,
        scale: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: &[u8]) -> String {
        parse_pickle(pickle).unwrap_err().text
    }

    #[test]
    fn foreign_globals_are_named_and_not_run() {
        // What pickle.dumps writes for an object whose __reduce__ is (os.system, ("id",)).
        let text =
            refused(b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.");
        assert!(text.contains("`posix.system`"), "{text}");
        let text = refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.");
        assert!(text.contains("`builtins.eval`"), "{text}");
        let text = refused(b"\x80\x02(i__main__\nX\n.");
        assert!(text.contains("INST"), "{text}");
    }

    #[test]
    fn damaged_pickles_are_refused() {
        for (pickle, word) in [
            (&b""[..], "ends too early"),
            (b"\x80\x02.", "takes a value"),
            (b"\x80\x02}h\x07.", "recalls"),
            (b"\x80\x02X\xff\xff\xff\x7fab", "ends too early"),
            (b"\x80\x09.", "protocol 9"),
            (b"\x80\x02K\x01K\x02K\x03s.", "not a dict"),
            (b"\x80\x02}K\x01\x85R.", "calls something"),
            (b"\x80\x02(K\x010.", "takes a value"),
            (b"\x80\x02t.", "closes a literal"),
        ] {
            let text = refused(pickle);
            assert!(text.contains(word), "{pickle:?}: {text}");
        }
    }

    #[test]
    fn marks_hold_values_back() {
        // A dict inside an open mark can take no value from below the mark.
        assert!(refused(b"\x80\x02}(}K\x01s.").contains("takes a value"));
        assert!(refused(b"\x80\x02}.").contains("no named tensor"));
    }
}
