//! Weighted factors against the peers' vectors.

use std::path::Path;

use polyloom::compress::lowrank::{Axis, decompose, importance};
use polyloom_core::Checkpoint;
use polyloom_core::linalg::Matrix;
use serde_json::Value;

#[test]
fn golden_fwsvd() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/adapters");
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let mut ran = 0;
    for case in manifest["cases"].as_array().unwrap() {
        if case["canonical"]["method"] != "fwsvd" {
            continue;
        }
        let name = case["name"].as_str().unwrap();
        let file = Checkpoint::open(root.join(case["file"].as_str().unwrap())).unwrap();
        let read = |key: &str| file.read_all(file.get(key).unwrap()).unwrap();
        let params = &case["canonical"]["params"];
        let rank = params["rank"].as_u64().unwrap() as usize;
        let axis = match params["axis"].as_str().unwrap() {
            "input" => Axis::Input,
            _ => Axis::Output,
        };
        let shape = &file.get("in.weight").unwrap().shape;
        let (rows, cols) = (shape[0], shape[1]);
        let w = Matrix::from_f32(rows, cols, &read("in.weight"));
        let gradients = read("in.per_batch_gradients");
        let batches = gradients.len() / (rows * cols);
        let mut fisher = vec![0f32; rows * cols];
        for g in gradients.chunks_exact(rows * cols) {
            fisher
                .iter_mut()
                .zip(g)
                .for_each(|(f, g)| *f += g * g / batches as f32);
        }
        let floor = params["floor"].as_f64().unwrap();
        let i = importance(&fisher, (rows, cols), axis, floor);
        let d = decompose(&w, Some((axis, &i))).unwrap();
        let (left, right) = (d.left.first_columns(rank), d.right.first_rows(rank));
        let made = left.times(&right);
        let atol = case["tolerance"]["atol"].as_f64().unwrap();
        let rtol = case["tolerance"]["rtol"].as_f64().unwrap();
        let close = |what: &str, found: &[f64], wanted: &[f32]| {
            assert_eq!(found.len(), wanted.len(), "{name} {what}");
            for (f, w) in found.iter().zip(wanted) {
                let w = f64::from(*w);
                assert!(
                    (f - w).abs() <= atol + rtol * w.abs(),
                    "{name} {what}: {f} {w}"
                );
            }
        };
        let fisher: Vec<f64> = fisher.iter().map(|f| f64::from(*f)).collect();
        close("fisher", &fisher, &read("out.fisher"));
        close("approximation", &made.data, &read("out.approximation"));
        // Columns of the left factor and rows of the right one are known up to a sign they share.
        let wanted = Matrix::from_f32(rows, rank, &read("out.left"));
        let sign: Vec<f64> = (0..rank)
            .map(|k| {
                let dot: f64 = (0..rows)
                    .map(|r| wanted.data[r * rank + k] * left.data[r * rank + k])
                    .sum();
                dot.signum()
            })
            .collect();
        close("left", &left.scale_columns(&sign).data, &read("out.left"));
        close("right", &right.scale_rows(&sign).data, &read("out.right"));
        let error = |of: &Matrix| {
            let mut rest = w.clone();
            rest.add(-1.0, of);
            match axis {
                Axis::Input => rest.scale_columns(&i).norm().powi(2),
                Axis::Output => rest.scale_rows(&i).norm().powi(2),
            }
        };
        close(
            "weighted error",
            &[error(&made)],
            &read("out.weighted_error"),
        );
        let plain = decompose(&w, None).unwrap();
        let plain = plain
            .left
            .first_columns(rank)
            .times(&plain.right.first_rows(rank));
        close(
            "weighted error of plain factors",
            &[error(&plain)],
            &read("out.weighted_error_plain_svd"),
        );
        ran += 1;
    }
    assert_eq!(ran, 3);
}
