//! A perceptron of four pixels, two hidden units and a head of two classes, by hand and by differences.

use std::collections::BTreeMap;
use std::path::Path;

use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use polyloom::tasks::read::Document;
use polyloom::tasks::spec::TaskSpec;
use polyloom_core::Checkpoint;
use polyloom_core::writer::safetensors_bytes;

use super::*;

/// Grey pictures of 2 x 2.
const PICTURES: [(&str, [u8; 4]); 3] = [
    ("a", [255, 0, 255, 0]),
    ("a", [0, 0, 255, 255]),
    ("b", [51, 102, 204, 255]),
];
const WEIGHT: [f32; 8] = [0.5, -0.25, 1.0, 0.75, -0.5, 0.5, 0.25, 1.5];
const BIAS: [f32; 2] = [0.125, -0.5];
const HEAD: [f32; 4] = [1.0, -0.5, 0.25, 0.75];

fn save(file: &Path, tensors: &[(&str, &[usize], &[f32])], labels: &str) {
    let list: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let out = OutTensor {
                name: (*name).into(),
                dtype: DType::F32,
                shape: shape.to_vec(),
            };
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (out, bytes)
        })
        .collect();
    let metadata = BTreeMap::from([("labels".to_owned(), labels.to_owned())]);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, safetensors_bytes(&list, &metadata)).unwrap();
}

/// The model with its head, and the task.
fn made(dir: &Path) -> (System, TaskSpec) {
    let config = r#"{"model_type": "polyloom-mlp", "image_size": 2, "num_channels": 1, "hidden_sizes": [2]}"#;
    save(
        &dir.join("model/model.safetensors"),
        &[
            ("layers.0.weight", &[2, 4], &WEIGHT),
            ("layers.0.bias", &[2], &BIAS),
            ("unused", &[3], &[1.0; 3]),
        ],
        "[]",
    );
    std::fs::write(dir.join("model/config.json"), config).unwrap();
    save(
        &dir.join("model/heads/dots.safetensors"),
        &[("weight", &[2, 2], &HEAD), ("bias", &[2], &[0.0, 0.5])],
        r#"["a", "b"]"#,
    );
    for (i, (class, pixels)) in PICTURES.iter().enumerate() {
        let folder = dir.join("pictures").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{i}.raw")), pixels).unwrap();
    }
    let spec = r#"
schema = "polyloom.task/1"
id = "dots"
type = "classification"
[modality]
input = ["image"]
[source]
kind = "image_folder"
root = "pictures"
size = [2, 2, 1]
[splits]
train = {}
[fields]
id = "file"
input = "image"
target = "label"
[labels]
names = ["a", "b"]
[[metrics]]
name = "accuracy"
primary = true
"#;
    let Document::Task(spec) = polyloom::tasks::read::toml(spec, "dots.toml").unwrap() else {
        panic!("no task");
    };
    let model = dir.join("model").display().to_string();
    (System::find(&model, None, None).unwrap(), *spec)
}

fn settings() -> Settings {
    Settings {
        gram: true,
        fisher: Some(Squares::PerSample),
        rows: 3,
        split: "train".into(),
        seed: 0,
        batch: 2,
    }
}

/// Writes a file of statistics and opens it.
fn collected(dir: &Path, settings: &Settings) -> Checkpoint {
    let (system, spec) = made(dir);
    let base = Base::whole(&system, None).unwrap();
    let loader = Loader::new(&spec, dir.join("pictures"), Limits::default());
    let found = heads(&system, &base, &spec).unwrap();
    let mut told = Vec::new();
    let made = collect(&base, &spec, &loader, &found, settings, &mut |n| {
        told.push(n);
        true
    });
    let made = made.unwrap();
    assert_eq!(told.last(), Some(&settings.steps()));
    let metadata = made.metadata("dots", "h", "m", settings);
    let file = dir.join("s.safetensors");
    made.write(&file, &metadata, true, false).unwrap();
    Checkpoint::open(&file).unwrap()
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    file.read_all(file.get(name).unwrap()).unwrap()
}

/// Pixels as the model sees them.
fn inputs() -> Vec<[f64; 4]> {
    let of = |p: &[u8; 4]| p.map(|p| f64::from(p) / 127.5 - 1.0);
    PICTURES.iter().map(|(_, p)| of(p)).collect()
}

/// Outputs of the head over weights `[weight, bias]`.
fn scores(weights: &[f64], x: &[f64; 4]) -> [f64; 2] {
    let unit = |u: usize| {
        let sum: f64 = (0..4).map(|i| weights[4 * u + i] * x[i]).sum();
        (sum + weights[8 + u]).max(0.0)
    };
    let h = [unit(0), unit(1)];
    [0, 1].map(|c| {
        let row = &HEAD[2 * c..][..2];
        f64::from(row[0]) * h[0] + f64::from(row[1]) * h[1] + [0.0, 0.5][c]
    })
}

/// Gradient of `sum_c sqrt(p_c) log p_c` (first factor held) by central differences.
fn gradient(x: &[f64; 4]) -> Vec<f64> {
    let weights: Vec<f64> = WEIGHT.iter().chain(&BIAS).map(|w| f64::from(*w)).collect();
    let logs = |w: &[f64]| {
        let z = scores(w, x);
        let sum = z[0].exp() + z[1].exp();
        z.map(|z| z - sum.ln())
    };
    let held = logs(&weights).map(|l| (l / 2.0).exp());
    let value = |at: usize, step: f64| {
        let mut w = weights.clone();
        w[at] += step;
        let l = logs(&w);
        l[0] * held[0] + l[1] * held[1]
    };
    (0..10)
        .map(|i| (value(i, 1e-5) - value(i, -1e-5)) / 2e-5)
        .collect()
}

#[test]
fn gram_matrices_and_squares_are_those_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let file = collected(dir.path(), &settings());
    let gram = values(&file, "layers.0.weight.gram");
    let x = inputs();
    for i in 0..4 {
        for j in 0..4 {
            let want = x.iter().map(|x| x[i] * x[j]).sum::<f64>() / 3.0;
            assert!((f64::from(gram[4 * i + j]) - want).abs() < 1e-6);
        }
    }
    let mean = |squares: &dyn Fn(usize) -> f64, name: &str, at: usize, n: usize| {
        let got = values(&file, name);
        assert_eq!(got.len(), n);
        for (i, got) in got.iter().enumerate() {
            let want = squares(at + i) / 3.0;
            assert!(
                (f64::from(*got) - want).abs() < 1e-6 + 1e-4 * want,
                "{name} {i}: {got} {want}"
            );
        }
    };
    let per_sample = |i: usize| x.iter().map(|x| gradient(x)[i].powi(2)).sum::<f64>();
    assert!(per_sample(0) > 1e-4, "the test sees nothing");
    mean(&per_sample, "layers.0.weight.fisher", 0, 8);
    mean(&per_sample, "layers.0.bias.fisher", 8, 2);
    assert_eq!(values(&file, "unused.fisher"), [0.0; 3]);
    // Heads that lie beside the model are no part of it.
    assert_eq!(file.tensors().len(), 4);
    let said = |key: &str| file.metadata().get(key).map(String::as_str);
    let want = [
        ("task", "dots"),
        ("task_hash", "h"),
        ("model", "m"),
        ("rows", "3"),
        ("split", "train"),
        ("kind", "gram,fisher"),
        ("seed", "0"),
        ("squares", "per-sample"),
    ];
    for (key, value) in want {
        assert_eq!(said(key), Some(value));
    }
}

#[test]
fn batches_are_summed_before_they_are_squared_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let per_batch = |batch: usize| {
        let settings = Settings {
            fisher: Some(Squares::PerBatch),
            batch,
            ..settings()
        };
        let file = collected(dir.path(), &settings);
        values(&file, "layers.0.weight.fisher")
    };
    let x = inputs();
    let got = per_batch(3);
    for (i, got) in got.iter().enumerate() {
        let sum: f64 = x.iter().map(|x| gradient(x)[i]).sum();
        assert!((f64::from(*got) - sum * sum / 3.0).abs() < 1e-6);
    }
    let file = collected(dir.path(), &settings());
    assert_eq!(per_batch(1), values(&file, "layers.0.weight.fisher"));
    assert_ne!(per_batch(3), per_batch(1));
}

/// A perceptron of two layers without a head.
fn deep(dir: &Path, name: &str, first: &[f32; 8], second: &[f32; 4]) -> System {
    let folder = dir.join(name);
    save(
        &folder.join("model.safetensors"),
        &[
            ("layers.0.weight", &[2, 4], first),
            ("layers.0.bias", &[2], &BIAS),
            ("layers.1.weight", &[2, 2], second),
            ("layers.1.bias", &[2], &[0.0; 2]),
        ],
        "[]",
    );
    let config = r#"{"model_type": "polyloom-mlp", "image_size": 2, "num_channels": 1, "hidden_sizes": [2, 2]}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    System::find(&folder.display().to_string(), None, None).unwrap()
}

#[test]
fn blocks_are_seen_through_those_that_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (_, spec) = made(dir.path());
    let loader = Loader::new(&spec, dir.path().join("pictures"), Limits::default());
    let other = [0.25, 1.0, -0.5, 0.5, 1.0, 0.5, -0.75, 0.25];
    let systems = [
        deep(dir.path(), "a", &WEIGHT, &HEAD),
        deep(dir.path(), "b", &other, &[0.5, 0.25, -1.0, 1.0]),
    ];
    let bases = systems.map(|s| Base::whole(&s, None).unwrap());
    let settings = Settings {
        fisher: None,
        ..settings()
    };
    let opened = |made: &Statistics| {
        let file = dir.path().join("s.safetensors");
        made.write(&file, &BTreeMap::new(), true, false).unwrap();
        let file = Checkpoint::open(&file).unwrap();
        [0, 1].map(|i| values(&file, &format!("layers.{i}.weight.gram")))
    };
    let alone = |base: &Base| {
        opened(&collect(base, &spec, &loader, &[], &settings, &mut |_| true).unwrap())
    };
    let together = |which: &[usize]| -> Vec<[Vec<f32>; 2]> {
        let experts: Vec<_> = which
            .iter()
            .map(|i| sequential::Expert {
                base: &bases[*i],
                spec: &spec,
                loader: &loader,
                found: &[],
            })
            .collect();
        let mut told = (0, 0);
        let made = sequential::collect(&experts, &settings, 0.9, &mut |rows, all| {
            told = (rows, all);
            true
        });
        assert_eq!(told, (12, 12));
        made.unwrap().iter().map(opened).collect()
    };
    let found = together(&[0, 1]);
    let plain = [alone(&bases[0]), alone(&bases[1])];
    // Before the first block nothing is merged: one block is RegMean.
    assert_eq!((&found[0][0], &found[1][0]), (&plain[0][0], &plain[1][0]));
    assert_ne!(found[0][1], plain[0][1]);
    // The second sees what the merged first makes of the pictures, the same of both experts.
    let mut sums = polyloom::merge::regmean::Sums::new(2, 4, 2, 0.9);
    sums.add(&WEIGHT, &plain[0][0]);
    sums.add(&other, &plain[1][0]);
    let merged = sums.solve().unwrap();
    let mut want = [0f64; 4];
    for x in inputs() {
        let h = [0, 1].map(|u| {
            let sum: f64 = (0..4).map(|i| f64::from(merged[4 * u + i]) * x[i]).sum();
            (sum + f64::from(BIAS[u])).max(0.0)
        });
        for (i, want) in want.iter_mut().enumerate() {
            *want += h[i / 2] * h[i % 2] / 3.0;
        }
    }
    for found in &found {
        for (got, want) in found[1].iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{found:?} {want:?}");
        }
    }
    // Copies of one model merge to that model.
    for found in together(&[0, 0]) {
        for (a, b) in found.iter().flatten().zip(plain[0].iter().flatten()) {
            assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} {b}");
        }
    }
}

#[test]
fn a_run_stops_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (system, spec) = made(dir.path());
    let base = Base::whole(&system, None).unwrap();
    let loader = Loader::new(&spec, dir.path().join("pictures"), Limits::default());
    let found = heads(&system, &base, &spec).unwrap();
    let stopped = collect(&base, &spec, &loader, &found, &settings(), &mut |n| n < 3);
    let error = stopped.err().unwrap();
    assert!(matches!(error, crate::Error::Core(CoreError::Interrupted)));
    let none = Settings {
        split: "test".into(),
        ..settings()
    };
    assert!(collect(&base, &spec, &loader, &found, &none, &mut |_| true).is_err());
}
