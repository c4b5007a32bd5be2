//! PyTorch archives written by PyTorch (`fixtures/make_torch.py`).

use polyloom_core::checkpoint::Layout;
use polyloom_core::{Checkpoint, DType};

use crate::{fixture, says, values};

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap_or_else(|e| panic!("{e} ({:?})", e.hint()))
}

#[test]
fn every_element_type_is_read() {
    let c = open("dtypes.pt");
    let expected: [(&str, DType, &[usize], &[f32]); 11] = [
        (
            "f64",
            DType::F64,
            &[2, 3],
            &[0.0, 0.25, 0.5, 0.75, 1.0, 1.25],
        ),
        (
            "f32",
            DType::F32,
            &[2, 3],
            &[-2.0, -1.0, 0.0, 1.0, 2.0, 3.0],
        ),
        ("f16", DType::F16, &[2, 3], &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]),
        (
            "bf16",
            DType::BF16,
            &[2, 3],
            &[0.0, 8.0, 16.0, 24.0, 32.0, 40.0],
        ),
        ("i64", DType::I64, &[4], &[0.0, 1.0, 2.0, 3.0]),
        ("u8", DType::U8, &[4], &[0.0, 1.0, 2.0, 3.0]),
        ("bool", DType::Bool, &[3], &[1.0, 0.0, 1.0]),
        ("scalar", DType::F32, &[], &[2.5]),
        ("empty", DType::F32, &[0, 3], &[]),
        (
            "fp8",
            DType::F8E4M3,
            &[2, 3],
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        ),
        ("u16", DType::U16, &[4], &[0.0, 1.0, 2.0, 3.0]),
    ];
    assert_eq!(c.tensors().len(), expected.len());
    for (name, dtype, shape, want) in expected {
        let tensor = c.get(name).unwrap();
        assert_eq!(
            (tensor.dtype, tensor.shape.as_slice()),
            (dtype, shape),
            "{name}"
        );
        assert_eq!(values(&c, name), want, "{name}");
    }
    assert_ne!(c.files()[0].header_hash, 0);
}

#[test]
fn views_are_read_through_their_strides() {
    let c = open("views.pth");
    assert_eq!(
        values(&c, "whole"),
        (0..12).map(|i| i as f32).collect::<Vec<_>>()
    );
    assert_eq!(values(&c, "tied"), values(&c, "whole"));
    assert_eq!(c.get("transposed").unwrap().shape, [4, 3]);
    assert_eq!(
        values(&c, "transposed"),
        [0.0, 4.0, 8.0, 1.0, 5.0, 9.0, 2.0, 6.0, 10.0, 3.0, 7.0, 11.0]
    );
    assert_eq!(
        values(&c, "rows"),
        (4..12).map(|i| i as f32).collect::<Vec<_>>()
    );
    assert!(matches!(c.get("rows").unwrap().layout, Layout::Contiguous));
    assert_eq!(values(&c, "columns"), [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
    assert_eq!(values(&c, "every_other"), [0.0, 2.0, 8.0, 10.0]);
    // Element [k][i][j] of the view is element [i][j][k] of 0..24 in shape 2 x 3 x 4.
    let want: Vec<f32> = (0..24)
        .map(|at| {
            let (k, i, j) = (at / 6, at / 3 % 2, at % 3);
            (i * 12 + j * 4 + k) as f32
        })
        .collect();
    assert_eq!(values(&c, "permuted"), want);
}

#[test]
fn state_dicts_are_found_in_their_wrappers() {
    let c = open("module.bin");
    assert_eq!(c.tensors().keys().collect::<Vec<_>>(), ["weight", "bias"]);
    assert_eq!(values(&c, "weight"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values(&c, "bias"), [7.0, 8.0]);
    let c = open("wrapped.pt");
    assert_eq!(c.tensors().keys().collect::<Vec<_>>(), ["weight"]);
    assert_eq!(values(&c, "weight"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(
        values(&open("protocol4.pt"), "weight"),
        [0.0, 1.0, 2.0, 3.0]
    );
}

#[test]
fn shards_are_joined() {
    let c = open("sharded");
    assert_eq!(c.files().len(), 2);
    assert_eq!(values(&c, "a.weight"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(values(&c, "b.weight"), [1.0, 2.0, 3.0]);
    assert_eq!(values(&c, "b.bias"), [0.0]);
}

#[test]
fn what_is_no_plain_tensor_is_refused_by_name() {
    for (file, words) in [
        ("complex.pt", "tensor `spin`: has element type complex64"),
        ("quantised.pt", "tensor `scale.q`: is quantised"),
        ("sparse.pt", "tensor `s`: is sparse"),
        ("expanded.pt", "tensor `e`: is an expanded view"),
        ("legacy.pt", "is in the format of PyTorch before 1.6"),
        ("object.pt", "uses `torch.nn.modules.linear.Linear`"),
        (
            "no_tensor.pt",
            "holds no named tensor; its keys begin with: epoch",
        ),
    ] {
        let error = Checkpoint::open(fixture(file)).unwrap_err();
        says(&error, words);
        assert!(error.hint().is_some(), "{file}");
    }
}
