//! What holds for all files: headers survive a round trip, damage never panics, parts of a tensor equal the whole.

use std::path::Path;
use std::sync::Arc;

use polyloom_core::checkpoint::{Layout, Scratch, StoredTensor};
use polyloom_core::{Checkpoint, DType};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::build::{View, archive, safetensors, zip};
use crate::{fixture, open_bytes};

const PLAIN: [DType; 8] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F8E4M3,
    DType::I32,
    DType::U8,
    DType::Bool,
];

/// A header over tensors of the given types and shapes, one behind the other; and its data's length.
fn header(tensors: &[(String, DType, Vec<usize>)]) -> (String, usize) {
    let mut at = 0;
    let mut map = serde_json::Map::new();
    for (name, dtype, shape) in tensors {
        let end = at + dtype.bytes_of(shape.iter().product()).unwrap() as usize;
        map.insert(
            name.clone(),
            serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [at, end]}),
        );
        at = end;
    }
    (serde_json::Value::Object(map).to_string(), at)
}

/// Opens a file that may be damaged and reads every tensor of it; only errors may come of that.
fn open_and_read(name: &str, bytes: &[u8]) -> bool {
    let Ok(checkpoint) = open_bytes(name, bytes) else {
        return false;
    };
    for tensor in checkpoint.tensors().values() {
        // The widest gap between stored and logical size: 4 bits per element.
        assert!(tensor.elements() <= bytes.len() * 2 + 1, "{tensor:?}");
        checkpoint.read_all(tensor).unwrap();
    }
    true
}

/// All parts of a tensor that `cuts` describe equal the same parts of `whole`.
fn parts_equal(checkpoint: &Checkpoint, tensor: &StoredTensor, whole: &[f32], cuts: &[(f64, f64)]) {
    let mut scratch = Scratch::default();
    for (a, b) in cuts {
        let (a, b) = (
            (a * whole.len() as f64) as usize,
            (b * whole.len() as f64) as usize,
        );
        let range = a.min(b)..a.max(b);
        let mut part = vec![f32::NAN; range.len()];
        checkpoint
            .read_f32(tensor, range.clone(), &mut part, &mut scratch)
            .unwrap();
        assert_eq!(part, whole[range]);
    }
}

/// A number in 0..1 for the start and the end of a part.
fn cuts() -> impl Strategy<Value = Vec<(f64, f64)>> {
    vec((0.0..=1.0, 0.0..=1.0), 1..8)
}

/// Valid files of every format.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let read = |name: &str| std::fs::read(fixture(name)).unwrap();
    let view = View {
        name: "w",
        key: "0",
        len: 6,
        offset: 0,
        shape: &[3, 2],
        strides: &[1, 3],
    };
    let entries = archive(&[view], &[("0", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])]);
    let (text, data) = header(&[
        ("a".into(), DType::F32, vec![2, 3]),
        ("b".into(), DType::F8E4M3, vec![4, 2]),
        ("b_scale".into(), DType::F32, vec![1]),
        ("c".into(), DType::I64, vec![0, 3]),
    ]);
    vec![
        ("m.safetensors", safetensors(&text, &vec![1; data])),
        ("m.bin", zip(&entries, false)),
        ("m.bin", zip(&entries, true)),
        ("m.pt", read("views.pth")),
        ("m.pt", read("wrapped.pt")),
        ("m.gguf", read("llama.gguf")),
        ("m.gguf", read("mixtral.gguf")),
        ("m.gguf", read("blocks.gguf")),
    ]
}

#[test]
fn seeds_are_valid() {
    for (name, bytes) in seeds() {
        assert!(open_and_read(name, &bytes), "{name}");
    }
}

#[test]
fn large_views_are_gathered_across_gaps_and_batches() {
    // 1500 x 800 stored, so 800 x 1500 as seen: more than a batch, neighbours 800 elements apart.
    let (rows, cols) = (1500, 800);
    let storage: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
    let view = View {
        name: "w",
        key: "0",
        len: rows * cols,
        offset: 0,
        shape: &[cols, rows],
        strides: &[1, cols],
    };
    let bytes = zip(&archive(&[view], &[("0", &storage)]), false);
    let c = open_bytes("m.bin", &bytes).unwrap();
    let tensor = c.get("w").unwrap();
    let whole = c.read_all(tensor).unwrap();
    for (i, value) in whole.iter().enumerate() {
        let (col, row) = (i as i64 / rows, i as i64 % rows);
        assert_eq!(*value, (row * cols + col) as f32, "{i}");
    }
    parts_equal(
        &c,
        tensor,
        &whole,
        &[(0.1, 0.1001), (0.3, 0.9), (0.0, 1.0), (0.87, 0.88)],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn headers_round_trip(
        list in vec((".{1,12}", 0..PLAIN.len(), vec(0..5usize, 0..4)), 0..8),
    ) {
        // Prefixed by their place, so that no two names are equal.
        let tensors: Vec<_> = list
            .into_iter()
            .enumerate()
            .map(|(i, (name, dtype, shape))| (format!("{i}{name}"), PLAIN[dtype], shape))
            .collect();
        let (text, data) = header(&tensors);
        let (found, _) = polyloom_core::safetensors::parse_header(text.as_bytes(), data as u64).unwrap();
        let found: Vec<_> = found.into_iter().map(|t| (t.name, t.dtype, t.shape)).collect();
        prop_assert_eq!(found, tensors);
    }

    #[test]
    fn damage_never_panics(
        seed in 0..8usize,
        edits in vec((0.0..1.0f64, any::<u8>(), 0..5u8), 1..6),
        cut in proptest::option::of(0.0..1.0f64),
    ) {
        let (name, mut bytes) = seeds().swap_remove(seed);
        for (place, value, kind) in edits {
            // Headers lie at both ends; half of the edits go there.
            let n = bytes.len();
            let at = match kind {
                0 => (place * n.min(400) as f64) as usize,
                1 => n - 1 - (place * n.min(400) as f64) as usize,
                _ => (place * n as f64) as usize,
            };
            match kind {
                3 => bytes[at] ^= 1 << (value % 8),
                4 => bytes.insert(at, value),
                _ => bytes[at] = value,
            }
        }
        if let Some(cut) = cut {
            bytes.truncate((cut * bytes.len() as f64) as usize + 1);
        }
        open_and_read(name, &bytes);
    }

    #[test]
    fn parts_of_plain_tensors_equal_the_whole(
        dtype in 0..PLAIN.len(),
        shape in vec(1..7usize, 0..4),
        seed in any::<u8>(),
        cuts in cuts(),
    ) {
        let dtype = PLAIN[dtype];
        let (text, data) = header(&[("w".into(), dtype, shape)]);
        // Small bytes: no NaN in any of the types, which would not equal itself.
        let bytes: Vec<u8> = (0..data).map(|i| (i as u8).wrapping_mul(seed) % 60).collect();
        let c = open_bytes("m.safetensors", &safetensors(&text, &bytes)).unwrap();
        let tensor = c.get("w").unwrap();
        let whole = c.read_all(tensor).unwrap();
        let mut want = vec![0.0; whole.len()];
        polyloom_core::dtype::widen(dtype, &bytes, &mut want);
        prop_assert_eq!(&whole, &want);
        parts_equal(&c, tensor, &whole, &cuts);
    }

    #[test]
    fn parts_of_views_equal_the_whole(
        sizes in vec(1..5i64, 1..4),
        steps in vec(1..3i64, 3),
        offset in 0..4i64,
        turn in 0..3usize,
        cuts in cuts(),
    ) {
        // Strides of a dense tensor, widened by steps, with its axes rotated.
        let mut strides = vec![0; sizes.len()];
        let mut next = 1;
        for axis in (0..sizes.len()).rev() {
            strides[axis] = next * steps[axis];
            next = strides[axis] * sizes[axis];
        }
        let (mut shape, mut strides) = (sizes, strides);
        let turn = turn % shape.len();
        shape.rotate_left(turn);
        strides.rotate_left(turn);
        let len = offset + next;
        let storage: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let view = View {
            name: "w",
            key: "0",
            len,
            offset,
            shape: &shape,
            strides: &strides,
        };
        let c = open_bytes("m.bin", &zip(&archive(&[view], &[("0", &storage)]), false)).unwrap();
        let tensor = c.get("w").unwrap();
        let whole = c.read_all(tensor).unwrap();
        // Element by element: the storage holds its own indices.
        let want: Vec<f32> = (0..shape.iter().product::<i64>())
            .map(|mut i| {
                let mut at = offset;
                for axis in (0..shape.len()).rev() {
                    at += i % shape[axis] * strides[axis];
                    i /= shape[axis];
                }
                at as f32
            })
            .collect();
        prop_assert_eq!(&whole, &want);
        parts_equal(&c, tensor, &whole, &cuts);
    }

    #[test]
    fn parts_of_block_scaled_fp8_equal_the_whole(
        rows in 1..300usize,
        cols in 1..300usize,
        cuts in cuts(),
    ) {
        let blocks = [rows.div_ceil(128), cols.div_ceil(128)];
        let (text, _) = header(&[
            ("w".into(), DType::F8E4M3, vec![rows, cols]),
            ("w_scale_inv".into(), DType::F32, blocks.to_vec()),
        ]);
        // 0x38 is 1.0 in F8_E4M3, 0x40 is 2.0.
        let mut data: Vec<u8> = (0..rows * cols).map(|i| if i % 3 == 0 { 0x40 } else { 0x38 }).collect();
        for block in 0..blocks[0] * blocks[1] {
            data.extend((block as f32 + 1.0).to_le_bytes());
        }
        let c = open_bytes("m.safetensors", &safetensors(&text, &data)).unwrap();
        prop_assert!(c.dropped_scales());
        prop_assert_eq!(c.tensors().len(), 1);
        let tensor = c.get("w").unwrap();
        let whole = c.read_all(tensor).unwrap();
        let want: Vec<f32> = (0..rows * cols)
            .map(|i| {
                let block = i / cols / 128 * blocks[1] + i % cols / 128;
                (if i % 3 == 0 { 2.0 } else { 1.0 }) * (block as f32 + 1.0)
            })
            .collect();
        prop_assert_eq!(&whole, &want);
        parts_equal(&c, tensor, &whole, &cuts);
    }

    #[test]
    fn parts_of_reordered_rows_equal_the_whole(
        order in Just((0..12u32).collect::<Vec<_>>()).prop_shuffle(),
        cols in 1..9usize,
        cuts in cuts(),
    ) {
        let (text, data) = header(&[("w".into(), DType::U8, vec![12, cols])]);
        let bytes: Vec<u8> = (0..data).map(|i| i as u8).collect();
        let c = open_bytes("m.safetensors", &safetensors(&text, &bytes)).unwrap();
        let mut tensor = c.get("w").unwrap().clone();
        tensor.layout = Layout::RowOrder(Arc::new(order.clone()));
        let whole = c.read_all(&tensor).unwrap();
        let want: Vec<f32> = (0..12 * cols)
            .map(|i| (order[i / cols] as usize * cols + i % cols) as f32)
            .collect();
        prop_assert_eq!(&whole, &want);
        parts_equal(&c, &tensor, &whole, &cuts);
    }

    #[test]
    fn parts_of_blocks_equal_the_whole(cuts in cuts()) {
        let c = Checkpoint::open(Path::new(&fixture("blocks.gguf"))).unwrap();
        for name in ["q8_0", "q4_0", "q4_k", "q6_k"] {
            let tensor = c.get(name).unwrap();
            let whole = c.read_all(tensor).unwrap();
            parts_equal(&c, tensor, &whole, &cuts);
        }
    }
}
