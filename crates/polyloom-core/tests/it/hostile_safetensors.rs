//! safetensors files and indexes that lie.

use polyloom_core::Checkpoint;

use crate::build::safetensors;
use crate::{open_bytes, refused, says};

const NAME: &str = "model.safetensors";

#[track_caller]
fn header(text: &str, data: usize, words: &str) {
    says(&refused(NAME, &safetensors(text, &vec![0; data])), words);
}

#[test]
fn lengths_are_checked_before_anything_is_allocated() {
    says(&refused(NAME, b""), "has 0 bytes");
    says(&refused(NAME, b"abc"), "has 3 bytes");
    says(&refused(NAME, &u64::MAX.to_le_bytes()), "claims a header");
    let mut huge = (1u64 << 40).to_le_bytes().to_vec();
    huge.extend(b"{}");
    says(
        &refused(NAME, &huge),
        "claims a header of 1099511627776 bytes",
    );
    let mut short = 100u64.to_le_bytes().to_vec();
    short.extend(b"{}");
    says(&refused(NAME, &short), "but the file has 10");
}

#[test]
fn every_prefix_of_a_file_is_refused() {
    let whole = safetensors(
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        &[0; 8],
    );
    assert!(open_bytes(NAME, &whole).is_ok());
    for n in 0..whole.len() {
        refused(NAME, &whole[..n]);
    }
}

#[test]
fn headers_that_lie_are_refused() {
    header("", 0, "not valid");
    header("[]", 0, "not valid");
    header("{", 0, "not valid");
    header(r#"{"a":1}"#, 0, "tensor `a`");
    let one = |dtype: &str, shape: &str, range: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{range}}}}}"#)
    };
    header(
        &one("F32", "[2]", "[0,8]"),
        7,
        "by the header, the file has",
    );
    header(&one("F32", "[2]", "[0,4]"), 8, "needs 8");
    header(&one("F32", "[2]", "[8,0]"), 8, "claims bytes 8..0");
    header(&one("F32", "[-1]", "[0,4]"), 8, "tensor `a`");
    header(&one("F32", "[1.5]", "[0,4]"), 8, "tensor `a`");
    header(&one("Q7", "[1]", "[0,1]"), 8, "element type `Q7`");
    header(&one("C64", "[1]", "[0,8]"), 8, "element type `C64`");
    let big = u64::MAX;
    header(
        &one("F32", "[1]", &format!("[{},{big}]", big - 4)),
        8,
        "ends at byte",
    );
    header(
        &one("F32", &format!("[{big},{big}]"), "[0,8]"),
        8,
        "more elements than can exist",
    );
    header(
        &one("F32", &format!("[{big}]"), "[0,8]"),
        8,
        "claims bytes 0..8",
    );
    // No element, but products of some axes that overflow.
    header(
        &one("F32", &format!("[0,{big},{big}]"), "[0,0]"),
        0,
        "more elements than can exist",
    );
    header(
        &one("F32", "[99999999999999999999]", "[0,8]"),
        8,
        "tensor `a`",
    );
}

#[test]
fn overlaps_and_duplicates_are_refused() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"{b}":{{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}}}"#
        )
    };
    header(&two("[0,4]", "b"), 8, "overlaps tensor");
    header(&two("[2,6]", "b"), 8, "overlaps tensor");
    header(&two("[0,4]", "a"), 8, "`a` appears twice");
    header(
        r#"{"__metadata__":{"k":"v"},"__metadata__":{"k":"w"}}"#,
        0,
        "`__metadata__` appears twice",
    );
    header(r#"{"__metadata__":{"k":1}}"#, 0, "not valid");
    header(
        r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#,
        1,
        "duplicate field",
    );
}

#[test]
fn bad_text_and_deep_nesting_are_refused() {
    let mut bytes = safetensors(
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        &[0],
    );
    bytes[10] = 0xFF;
    says(&refused(NAME, &bytes), "not valid");
    let deep = "[".repeat(100_000);
    header(&format!(r#"{{"a":{deep}"#), 0, "not valid");
    header(&format!(r#"{{"__metadata__":{deep}"#), 0, "not valid");
    header(
        &format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":{deep}"#),
        0,
        "not valid",
    );
}

#[test]
fn empty_tensors_and_scalars_are_fine() {
    let c = open_bytes(
        NAME,
        &safetensors(
            r#"{"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#,
            &[5],
        ),
    );
    // The file is gone by now; opening has kept its handle.
    let c = c.unwrap();
    assert_eq!(c.read_all(c.get("e").unwrap()).unwrap(), [0.0; 0]);
    assert_eq!(c.read_all(c.get("s").unwrap()).unwrap(), [5.0]);
}

#[test]
fn indexes_that_lie_are_refused() {
    let shard = |name: &str| {
        safetensors(
            &format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#),
            &[0],
        )
    };
    let open = |index: &str| {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("1.safetensors", &shard("a"));
        write("2.safetensors", &shard("b"));
        write("3.safetensors", &shard("a"));
        write("model.safetensors.index.json", index.as_bytes());
        Checkpoint::open(folder.path())
    };
    let good = open(r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#).unwrap();
    assert_eq!(good.tensors().keys().collect::<Vec<_>>(), ["a", "b"]);
    for (index, words) in [
        ("{}", "has no `weight_map`"),
        ("nonsense", "is not valid JSON"),
        (r#"{"weight_map":{"a":1}}"#, "entry `a` is not a file name"),
        (
            r#"{"weight_map":{"a":"../1.safetensors"}}"#,
            "points outside the folder",
        ),
        (
            r#"{"weight_map":{"a":"/etc/passwd"}}"#,
            "points outside the folder",
        ),
        (
            r#"{"weight_map":{"a":"..\\1.safetensors"}}"#,
            "points outside the folder",
        ),
        (r#"{"weight_map":{"a":""}}"#, "is a folder"),
        (
            r#"{"weight_map":{"a":"9.safetensors"}}"#,
            "not in the folder: 9.safetensors",
        ),
        (
            r#"{"weight_map":{"a":"1.safetensors","c":"2.safetensors"}}"#,
            "tensor `c`: is promised",
        ),
        (
            r#"{"weight_map":{"a":"1.safetensors","b":"3.safetensors"}}"#,
            "tensor `a`: is also in",
        ),
    ] {
        match open(index) {
            Err(error) => says(&error, words),
            Ok(_) => panic!("{index} was read"),
        }
    }
    let deep = format!(r#"{{"weight_map":{}"#, r#"{"a":"#.repeat(100_000));
    says(&open(&deep).unwrap_err(), "is not valid JSON");
}
