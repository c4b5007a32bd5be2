//! Golden tests of the mergekit family on plain `models:` configs, resolved by a minimal reader of their own.

#![allow(clippy::print_stdout, reason = "tests say how much they ran")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use polyloom_core::Checkpoint;
use serde_json::Value;

use super::method::{Base, Job, Kind, TensorJob, Unset, Values};
use super::properties::merge;

fn golden() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden");
    let root = std::env::var_os("POLYLOOM_GOLDEN").map_or_else(|| beside.into(), PathBuf::from);
    let root = root.join("merging");
    root.is_dir().then_some(root)
}

/// The value of a parameter for one tensor: scalar, gradient over layers, or filters.
fn resolve(value: &Value, tensor: &str, t: f64) -> Option<Value> {
    match value {
        Value::Array(items) if items.first().is_some_and(Value::is_object) => items
            .iter()
            .find(|f| {
                f.get("filter")
                    .is_none_or(|f| tensor.contains(f.as_str().unwrap()))
            })
            .and_then(|f| resolve(&f["value"], tensor, t)),
        Value::Array(items) => {
            let at = t * (items.len() - 1) as f64;
            let (low, part) = (at as usize, at.fract());
            let number = |i: usize| items[i.min(items.len() - 1)].as_f64().unwrap();
            Some(((1.0 - part) * number(low) + part * number(low + 1)).into())
        }
        other => Some(other.clone()),
    }
}

pub(super) fn values(
    spec: &super::method::Spec,
    each: bool,
    sources: &[&Value],
    tensor: &str,
    t: f64,
) -> Values {
    let mut out = Values::default();
    for p in spec.params.iter().filter(|p| p.each == each) {
        let given = sources
            .iter()
            .filter_map(|s| s.get(p.name))
            .find_map(|v| resolve(v, tensor, t));
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

fn close(a: f32, b: f32, tolerance: &Value) -> bool {
    let (rtol, atol) = (&tolerance["rtol"], &tolerance["atol"]);
    let d = f64::from(a) - f64::from(b);
    d.abs() <= atol.as_f64().unwrap() + rtol.as_f64().unwrap() * f64::from(b.abs())
}

#[test]
fn golden_mergekit_configs() {
    let Some(root) = golden() else {
        return;
    };
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(root.join("manifest.json")).unwrap()).unwrap();
    let mut ran = Vec::new();
    let mut failed = Vec::new();
    for case in manifest["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let config = &case["config"];
        let Some(method) = config["merge_method"].as_str().and_then(super::find) else {
            continue;
        };
        let whole = config["slices"].as_array().is_some_and(|s| s.len() == 1);
        let models = match (&config["models"], whole) {
            (Value::Array(m), _) => m,
            (_, true) => config["slices"][0]["sources"].as_array().unwrap(),
            _ => continue,
        };
        if case["set"] == "vocab"
            || name.starts_with("vocab")
            || name.contains("implicit_base")
            || name == "lora_reference"
            || name == "bf16_ta_bf16_math" // Every intermediate rounded to bfloat16: not our arithmetic.
            || case["expected"].is_null()
            || config.get("slices").is_some_and(|_| name.contains("mixed"))
        {
            continue;
        }
        let (checked, wrong, worst) = run_case(&root, case, config, models, method);
        let allowed = case["tolerance"]["max_outliers"].as_u64().unwrap();
        println!("{name}: {wrong} of {checked} outside ({allowed} allowed), {worst}");
        if wrong > allowed || checked == 0 {
            failed.push(name);
        }
        ran.push(name);
    }
    println!("{} golden cases ran", ran.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(ran.len() > 20);
}

fn run_case(
    root: &std::path::Path,
    case: &Value,
    config: &Value,
    models: &[Value],
    method: &'static dyn super::method::Method,
) -> (u64, u64, String) {
    let spec = method.spec();
    let path = |v: &Value| root.join(v.as_str().unwrap().replace("@@", "models/"));
    let base_name = config
        .get("base_model")
        .filter(|_| spec.base != Base::Ignored);
    let experts: Vec<&Value> = models
        .iter()
        .filter(|m| Some(&m["model"]) != base_name)
        .collect();
    let open = |v: &Value| Checkpoint::open(path(v)).unwrap();
    let base = base_name.map(open);
    let inputs: Vec<Checkpoint> = experts.iter().map(|m| open(&m["model"])).collect();
    let expected = Checkpoint::open(root.join(case["expected"].as_str().unwrap())).unwrap();
    let all = |c: &Checkpoint, n: &str| c.read_all(c.get(n).unwrap()).unwrap();
    let layer = |n: &str| -> Option<usize> { n.split('.').find_map(|p| p.parse().ok()) };
    let layers = expected
        .tensors()
        .keys()
        .filter_map(|n| layer(n))
        .max()
        .map_or(1, |l| l + 1);
    let top = &config["parameters"];
    let mut names: Vec<&String> = expected.tensors().keys().collect();
    names.sort();
    let tensors: Vec<Arc<TensorJob>> = names
        .iter()
        .map(|n| {
            let at = layer(n);
            let t = at.map_or(0.0, |l| l as f64 / (layers.max(2) - 1) as f64);
            Arc::new(TensorJob {
                name: (*n).clone(),
                shape: expected.get(n).unwrap().shape.clone(),
                shared: values(spec, false, &[top], n, t),
                each: experts
                    .iter()
                    .map(|e| values(spec, true, &[&e["parameters"], top], n, t))
                    .collect(),
                layer: at.map(|l| (l, layers)),
                before: 0,
            })
        })
        .collect();
    let job = Job {
        tensors: tensors.clone(),
        experts: experts.iter().map(|e| e["model"].to_string()).collect(),
        has_base: base.is_some(),
        seed: 0,
        statistics: None,
        inner_maker: None,
    };
    let base_values: Vec<Vec<f32>> = base
        .iter()
        .flat_map(|b| names.iter().map(|n| all(b, n)))
        .collect();
    let input_values: Vec<Vec<Vec<f32>>> = inputs
        .iter()
        .map(|c| names.iter().map(|n| all(c, n)).collect())
        .collect();
    let mut got = merge(method, &job, &base_values, &input_values, 0).unwrap();
    for (n, got) in names.iter().zip(&mut got) {
        polyloom_core::dtype::round_through(got, expected.get(n).unwrap().dtype);
    }
    let (mut checked, mut wrong) = (0, 0);
    let mut worst = BTreeMap::new();
    for (n, got) in names.iter().zip(&got) {
        for (a, b) in got.iter().zip(&all(&expected, n)) {
            checked += 1;
            if !close(*a, *b, &case["tolerance"]) {
                wrong += 1;
                *worst.entry((*n).clone()).or_insert(0) += 1;
            }
        }
    }
    (checked, wrong, format!("{worst:?}"))
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
                    shared: values(method.spec(), false, &sources, name, 0.0),
                    each: vec![values(method.spec(), true, &sources, name, 0.0)],
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
