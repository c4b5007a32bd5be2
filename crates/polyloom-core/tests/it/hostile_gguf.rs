//! GGUF files that lie.

use crate::build::Gguf;
use crate::{open_bytes, refused, says};

const NAME: &str = "model.gguf";

fn plain() -> Gguf {
    Gguf::default().text("general.architecture", "unmapped")
}

/// Two rows of 32 bytes-as-floats: a file that is read.
fn good() -> Gguf {
    plain().tensor("w", &[4, 2], 0, 0).data(32)
}

#[track_caller]
fn lies(file: &Gguf, words: &str) {
    says(&refused(NAME, &file.bytes()), words);
}

#[test]
fn every_prefix_is_refused() {
    let whole = good().bytes();
    let c = open_bytes(NAME, &whole).unwrap();
    assert_eq!(c.get("w").unwrap().shape, [2, 4]);
    for n in 0..whole.len() {
        refused(NAME, &whole[..n]);
    }
}

#[test]
fn absurd_counts_and_lengths_are_refused() {
    lies(
        &Gguf {
            entries: u64::MAX,
            ..good()
        },
        "metadata entries in",
    );
    lies(
        &Gguf {
            tensors: u64::MAX,
            ..good()
        },
        "tensors in",
    );
    lies(
        &Gguf {
            tensors: 1 << 30,
            ..good()
        },
        "claims 1073741824 tensors",
    );
    lies(
        &plain().meta("k", 8, &u64::MAX.to_le_bytes()),
        "breaks off in a metadata value",
    );
    let array = |kind: u32, n: u64| [&kind.to_le_bytes()[..], &n.to_le_bytes()].concat();
    for kind in [0, 4, 8, 9, 12] {
        lies(
            &plain().meta("k", 9, &array(kind, u64::MAX)),
            "breaks off in a metadata array",
        );
    }
    lies(
        &plain().meta("k", 9, &array(99, 1)),
        "array of unknown type 99",
    );
    lies(&plain().meta("k", 99, &[]), "value of unknown type 99");
    let nested: Vec<u8> = (0..10_000).flat_map(|_| array(9, 1)).collect();
    lies(&plain().meta("k", 9, &nested), "nested too deeply");
    let mut name = good();
    name.infos[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    lies(&name, "breaks off in a tensor name");
    lies(
        &plain().tensor(&"n".repeat(5000), &[1], 0, 0).data(32),
        "a tensor name of more than 4096 bytes",
    );
    let mut text = good();
    text.infos[8] = 0xFF;
    lies(&text, "not UTF-8");
}

#[test]
fn tensors_must_lie_in_the_file() {
    let one =
        |dims: &[u64], kind: u32, offset: u64| plain().tensor("w", dims, kind, offset).data(32);
    lies(&one(&[4, 3], 0, 0), "tensor `w`: lies at byte 0");
    lies(&one(&[4], 0, 32), "past the end of the file");
    lies(&one(&[4], 0, u64::MAX), "past the end of the file");
    lies(&one(&[1 << 62], 0, 0), "past the end of the file");
    lies(&one(&[u64::MAX, 2], 0, 0), "more elements than can exist");
    lies(&one(&[0, 4], 0, 0), "cannot hold");
    lies(&one(&[16, 2], 8, 0), "which Q8_0 cannot hold");
    lies(&one(&[1, 1, 1, 1, 1], 0, 0), "has 5 dimensions");
    lies(&one(&[32], 6, 0), "tensor `w`: has type Q5_0");
    lies(&one(&[32], 77, 0), "has type number 77");
    lies(&good().tensor("w", &[1], 0, 0), "appears twice");
    lies(&good().tensor("v", &[1], 0, 16), "overlaps tensor");
}

#[test]
fn settings_are_checked() {
    lies(&good().number("general.alignment", 0), "not a power of two");
    lies(
        &good().number("general.alignment", 33),
        "not a power of two",
    );
    lies(
        &good().text("general.architecture", "llama"),
        "`general.architecture` twice",
    );
    lies(
        &Gguf::default().tensor("w", &[1], 0, 0).data(32),
        "does not name its `general.architecture`",
    );
    lies(&good().number("split.count", 3), "one of 3 parts");
    lies(&good().text("general.type", "adapter"), "of type `adapter`");
    lies(&plain(), "holds no tensor");
    let mut old = good().bytes();
    old[4] = 1;
    says(&refused(NAME, &old), "GGUF version 1");
    old[4..8].copy_from_slice(&[0, 0, 0, 3]);
    says(&refused(NAME, &old), "big-endian");
    says(
        &refused(NAME, b"version https://git-lfs.github.com/spec/v1\n"),
        "is not a GGUF file",
    );
}

#[test]
fn llama_settings_that_cannot_be_are_refused() {
    let llama = |heads: u32, rows: u64| {
        let mut file = Gguf::default().text("general.architecture", "llama");
        for (key, value) in [
            ("embedding_length", 4),
            ("feed_forward_length", 4),
            ("block_count", 1),
            ("attention.head_count", heads),
        ] {
            file = file.number(&format!("llama.{key}"), value);
        }
        file.tensor("blk.0.attn_q.weight", &[1, rows], 0, 0)
            .data(32)
    };
    let fine = open_bytes(NAME, &llama(2, 8).bytes()).unwrap();
    assert!(fine.get("model.layers.0.self_attn.q_proj.weight").is_some());
    lies(
        &llama(0, 8),
        "`llama.attention.head_count` that is not a positive whole number",
    );
    lies(&llama(3, 8), "8 rows, which 3 heads cannot share");
    lies(&llama(8, 8), "8 rows, which 8 heads cannot share");
    lies(
        &llama(2, 8).tensor("blk.0.odd.weight", &[1], 0, 32).data(64),
        "has no counterpart",
    );
    let mut bare = Gguf::default().text("general.architecture", "llama");
    bare = bare.tensor("output.weight", &[1], 0, 0).data(32);
    lies(&bare, "has no metadata `llama.embedding_length`");
}
