//! Golden statistics of the random methods of the mergekit family. (Their files run in tests/it/golden.rs.)

#![allow(clippy::print_stdout, reason = "tests say how much they ran")]

use std::path::PathBuf;
use std::sync::Arc;

use polyloom_core::Checkpoint;
use serde_json::Value;

use super::method::{Job, Kind, TensorJob, Unset, Values};
use super::properties::merge;

fn golden() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden");
    let root = std::env::var_os("POLYLOOM_GOLDEN").map_or_else(|| beside.into(), PathBuf::from);
    let root = root.join("merging");
    root.is_dir().then_some(root)
}

/// The first of `sources` that has a parameter gives its value.
fn values(spec: &super::method::Spec, each: bool, sources: &[&Value]) -> Values {
    let mut out = Values::default();
    for p in spec.params.iter().filter(|p| p.each == each) {
        let given = sources.iter().find_map(|s| s.get(p.name)).cloned();
        let value = given.or(match p.unset {
            Unset::Required | Unset::Nothing => None,
            Unset::RequiredInYaml(x) | Unset::Number(x) => Some(x.into()),
            Unset::Flag(b) => Some(b.into()),
            Unset::Word(w) => Some(w.into()),
        });
        if let Some(v) = value {
            let v = match (p.kind, v) {
                (Kind::Rescale, Value::Bool(true)) => "l1".into(),
                (_, v) => v,
            };
            out.set(p.name, v);
        }
    }
    out
}

/// Draws of the random methods: every statistic within four standard errors of the peer's.
#[test]
fn golden_statistics() {
    const SEEDS: u64 = 300;
    let Some(root) = golden() else {
        return;
    };
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(root.join("manifest.json")).unwrap()).unwrap();
    let mut ran = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let (Some(statistics), Some(method)) = (
            case["statistics"].as_object(),
            case["method"].as_str().and_then(super::find),
        ) else {
            continue;
        };
        let open = |n: &str| {
            let set = case["set"].as_str().unwrap();
            Checkpoint::open(root.join("models").join(set).join(n)).unwrap()
        };
        let (base, expert) = (open("base"), open(case["inputs"][0].as_str().unwrap()));
        let given = serde_json::json!({"weight": 1.0});
        let sources = [&case["params"]["parameters"], &given];
        for (name, want) in statistics {
            let all = |c: &Checkpoint| c.read_all(c.get(name).unwrap()).unwrap();
            let (w0, w1) = (all(&base), all(&expert));
            let d: Vec<f32> = w1.iter().zip(&w0).map(|(a, b)| a - b).collect();
            let mut job = Job {
                tensors: vec![Arc::new(TensorJob {
                    name: name.clone(),
                    shape: base.get(name).unwrap().shape.clone(),
                    shared: values(method.spec(), false, &sources),
                    each: vec![values(method.spec(), true, &sources)],
                    layer: None,
                    before: 0,
                })],
                experts: vec!["ft_a".into()],
                has_base: true,
                seed: 0,
                statistics: None,
                inner_maker: None,
            };
            let zeros = vec![vec![0.0; d.len()]];
            let moving = d.iter().filter(|x| **x != 0.0).count() as f64;
            let squares: f64 = d.iter().map(|x| f64::from(*x).powi(2)).sum();
            let mut rows = Vec::new();
            for seed in 0..SEEDS {
                job.seed = seed;
                let v = merge(method, &job, &zeros, &[vec![d.clone()]], 0).unwrap();
                let pairs = || v[0].iter().map(|x| f64::from(*x)).zip(&d);
                rows.push([
                    pairs().filter(|(v, _)| *v != 0.0).count() as f64 / moving,
                    pairs().map(|(v, _)| v.abs()).sum::<f64>(),
                    pairs().map(|(v, _)| v * v).sum(),
                    pairs().map(|(v, d)| v * f64::from(*d)).sum::<f64>() / squares,
                ]);
            }
            let words = [
                "mean_kept_fraction",
                "mean_l1_of_merged_delta",
                "mean_of_sum_of_squares",
                "slope_of_mean_on_task_vector",
            ];
            let n = SEEDS as f64;
            for (k, word) in words.iter().enumerate() {
                let mean = rows.iter().map(|r| r[k]).sum::<f64>() / n;
                let variance = rows.iter().map(|r| (r[k] - mean).powi(2)).sum::<f64>() / n;
                let want_mean = want[*word].as_f64().unwrap();
                // Both sides are means of many draws. (An exact norm has no spread but a rounding.)
                let error = (variance * (1.0 / n + 1.0 / case["seeds"].as_f64().unwrap())).sqrt();
                let off = (mean - want_mean).abs();
                println!(
                    "{} {name} {word}: {mean} {want_mean} +- {error}",
                    case["name"]
                );
                assert!(
                    off <= 4.0 * error + 1e-6 * want_mean,
                    "{} {word}",
                    case["name"]
                );
                if k == 0 {
                    let spread = want["std_kept_fraction"].as_f64().unwrap();
                    let error = spread * (1.0 / n).sqrt();
                    assert!(
                        (variance.sqrt() - spread).abs() <= 4.0 * error,
                        "{}",
                        case["name"]
                    );
                }
            }
        }
        ran += 1;
    }
    println!("{ran} golden cases ran");
    assert!(ran >= 5);
}
