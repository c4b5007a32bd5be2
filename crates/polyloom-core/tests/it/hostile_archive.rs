//! PyTorch archives that lie or want to run something.

use crate::build::{Entry, View, archive, pickle, zip};
use crate::{open_bytes, refused, says};

const NAME: &str = "pytorch_model.bin";
const VIEW: View<'static> = View {
    name: "w",
    key: "0",
    len: 6,
    offset: 0,
    shape: &[2, 3],
    strides: &[3, 1],
};
const STORAGE: (&str, &[f32]) = ("0", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);

fn good() -> Vec<Entry> {
    archive(&[VIEW], &[STORAGE])
}

/// An archive of any pickle.
fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    let mut entries = good();
    entries[0].data = pickle.to_vec();
    zip(&entries, false)
}

#[track_caller]
fn pickled(pickle: &[u8], words: &str) {
    says(&refused(NAME, &with_pickle(pickle)), words);
}

#[track_caller]
fn viewed(view: &View<'_>, words: &str) {
    pickled(&pickle(std::slice::from_ref(view)), words);
}

#[test]
fn archives_in_both_zip_dialects_are_read() {
    for zip64 in [false, true] {
        let c = open_bytes(NAME, &zip(&good(), zip64)).unwrap();
        assert_eq!(c.read_all(c.get("w").unwrap()).unwrap(), STORAGE.1);
    }
}

#[test]
fn nothing_is_called_and_the_caller_is_named() {
    let dict = |value: &[u8]| [b"\x80\x02}X\x01\0\0\0w", value, b"s."].concat();
    for (value, words) in [
        (&b"cos\nsystem\nX\x02\0\0\0id\x85R"[..], "uses `os.system`"),
        (b"cposix\nsystem\nX\x02\0\0\0id\x85R", "uses `posix.system`"),
        (
            b"c__builtin__\neval\nX\x01\0\0\x001\x85R",
            "uses `__builtin__.eval`",
        ),
        (
            b"X\x08\0\0\0builtinsX\x04\0\0\0exec\x93)R",
            "uses `builtins.exec`",
        ),
        (b"ctorch\nload\n)R", "uses `torch.load`"),
        (b"ctorch.hub\nload\n)R", "uses `torch.hub.load`"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R",
            "uses `torch._utils._rebuild_tensor_v2.__globals__`",
        ),
        (
            b"ctorch.storage\n_load_from_bytes\nB\0\0\0\0\x85R",
            "uses `torch.storage._load_from_bytes`",
        ),
        (
            b"ctorch.jit._pickle\nbuild_intlist\n)R",
            "uses `torch.jit._pickle.build_intlist`",
        ),
        // The call hides as an argument of an allowed one.
        (
            b"ccollections\nOrderedDict\n(cnt\nsystem\nX\x02\0\0\0id\x85RtR",
            "uses `nt.system`",
        ),
        // What a call returns is called again: here a tuple of plain data stands for it.
        (
            b"ccollections\nOrderedDict\n)R)R",
            "calls something that is not a name",
        ),
        (b"ctorch\nfloat32\n)R", "calls an element type"),
        (b"ccollections\nOrderedDict\n)}\x92", "opcode 0x92"),
        (b"ccollections\nOrderedDict\n)\x81", "opcode 0x81"),
        (b"\x82\x01", "opcode 0x82"),
        (b"(X\x01\0\0\0ao", "opcode 0x6f"),
        (b"Pstorage\n", "opcode 0x50"),
        (b"X\x01\0\0\0a}b", "sets the state"),
        (b"X\x01\0\0\0aQ", "not a storage"),
    ] {
        pickled(&dict(value), words);
    }
    let error = refused(
        NAME,
        &with_pickle(&dict(b"cos\nsystem\nX\x02\0\0\0id\x85R")),
    );
    assert!(error.hint().is_some_and(|h| h.contains("trust")));
}

#[test]
fn bombs_are_refused() {
    let mut marks = b"\x80\x02".to_vec();
    marks.extend([b'('; 1 << 20]);
    pickled(&marks, "more values than any state dict needs");
    let mut values = b"\x80\x02".to_vec();
    values.extend(vec![b'N'; 5 << 20]);
    pickled(&values, "more values than any state dict needs");
    // A list of many pairs, copied into one dict after another.
    let mut copies = b"\x80\x02](K\x01K\x02\x86".to_vec();
    copies.extend(vec![b'2'; 1 << 16]);
    copies.extend(b"e\x85q\x000ccollections\nOrderedDict\nq\x01");
    for _ in 0..1 << 12 {
        copies.extend(b"h\x01h\x00R0");
    }
    pickled(&copies, "more values than any state dict needs");
    // Lists in lists need no recursion here.
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(vec![b']'; 1 << 20]);
    deep.extend(vec![b'a'; (1 << 20) - 1]);
    deep.push(b'.');
    pickled(&deep, "holds no dict of tensors");
    // A dict that holds itself.
    pickled(b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.", "too many dicts");
    pickled(b"\x80\x02X\xff\xff\xff\xff", "ends too early");
    pickled(
        b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        "ends too early",
    );
    pickled(b"\x80\x02\x8b\xff\xff\xff\xff", "ends too early");
}

#[test]
fn views_must_lie_in_their_storage() {
    viewed(
        &View { offset: 1, ..VIEW },
        "tensor `w`: reaches past its storage",
    );
    viewed(
        &View {
            shape: &[3, 3],
            ..VIEW
        },
        "reaches past its storage",
    );
    viewed(&View { offset: -1, ..VIEW }, "negative offset");
    viewed(
        &View {
            offset: i64::MAX,
            ..VIEW
        },
        "reaches past its storage",
    );
    viewed(
        &View {
            strides: &[i64::MAX, 1],
            ..VIEW
        },
        "reaches past its storage",
    );
    viewed(
        &View {
            strides: &[-3, 1],
            ..VIEW
        },
        "not made of numbers",
    );
    viewed(
        &View {
            strides: &[1],
            ..VIEW
        },
        "more or fewer strides",
    );
    viewed(
        &View {
            shape: &[i64::MAX, i64::MAX],
            ..VIEW
        },
        "more elements than can exist",
    );
    viewed(
        &View {
            shape: &[i64::MAX],
            strides: &[0],
            ..VIEW
        },
        "is an expanded view",
    );
    viewed(
        &View {
            shape: &[1; 17],
            strides: &[1; 17],
            ..VIEW
        },
        "too many dimensions",
    );
    viewed(
        &View { len: 5, ..VIEW },
        "has a storage of 5 elements of F32, but its entry has 24 bytes",
    );
    viewed(
        &View {
            len: i64::MAX,
            ..VIEW
        },
        "but its entry has 24 bytes",
    );
    viewed(&View { len: -6, ..VIEW }, "not a storage");
    viewed(
        &View { key: "1", ..VIEW },
        "entry `data/1`, which is missing",
    );
    viewed(
        &View {
            key: "../data.pkl",
            ..VIEW
        },
        "which is missing",
    );
}

#[test]
fn entries_must_be_stored_and_honest() {
    let bent = |bend: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = good();
        bend(&mut entries);
        refused(NAME, &zip(&entries, false))
    };
    says(
        &bent(&|e| e[0].method = 8),
        "entry `m/data.pkl` is compressed",
    );
    says(
        &bent(&|e| e[2].method = 8),
        "entry `m/data/0` is compressed",
    );
    says(&bent(&|e| e[2].flags = 1), "is encrypted");
    says(
        &bent(&|e| e[2].claims = Some(1 << 30)),
        "past the end of the archive's data",
    );
    says(
        &bent(&|e| e[0].claims = Some(u32::MAX - 1)),
        "past the end of the archive's data",
    );
    says(
        &bent(&|e| e[2].local_name = Some("m/data/9".into())),
        "another name before its data",
    );
    says(
        &bent(&|e| e[1].data = b"big".to_vec()),
        "has byte order `big`",
    );
    says(&bent(&|e| e.push(e[2].clone())), "holds `m/data/0` twice");
    says(
        &bent(&|e| e.push(Entry::new("n/data.pkl", b"."))),
        "should hold one `NAME/data.pkl`",
    );
    says(
        &bent(&|e| drop(e.remove(0))),
        "should hold one `NAME/data.pkl`",
    );
    says(
        &bent(&|e| e[0].name = "data.pkl".into()),
        "should hold one `NAME/data.pkl`",
    );
}

#[test]
fn every_prefix_of_an_archive_is_refused() {
    for zip64 in [false, true] {
        let whole = zip(&good(), zip64);
        for n in 0..whole.len() {
            refused(NAME, &whole[..n]);
        }
        let mut longer = whole.clone();
        longer.push(0);
        says(&refused(NAME, &longer), "it has no end record");
    }
    for n in 0..pickle(&[VIEW]).len() {
        refused(NAME, &with_pickle(&pickle(&[VIEW])[..n]));
    }
}

#[test]
fn directories_that_lie_are_refused() {
    let whole = zip(&good(), false);
    let end = whole.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut out = whole.clone();
        out[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        refused(NAME, &out)
    };
    says(&with(10, &60000u16.to_le_bytes()), "claims 60000 entries");
    says(&with(12, &u32::MAX.to_le_bytes()), "no zip64 locator");
    says(
        &with(12, &(1u32 << 31).to_le_bytes()),
        "directory passes its end record",
    );
    says(
        &with(16, &(end as u32).to_le_bytes()),
        "directory passes its end record",
    );
    says(&with(16, &0u32.to_le_bytes()), "directory is not readable");
    let wide = zip(&good(), true);
    let mut far = wide.clone();
    let locator = wide.len() - 22 - 20;
    far[locator + 8..locator + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    says(&refused(NAME, &far), "zip64 end record");
    says(
        &refused(NAME, b"version https://git-lfs.github.com/spec/v1\n"),
        "is not a PyTorch checkpoint",
    );
    says(&refused(NAME, b"\x80\x02}q\x00."), "is a bare pickle");
    says(&refused(NAME, b""), "is not a PyTorch checkpoint");
}
