//! What must hold for every registered method, or for families of them.

#![allow(clippy::print_stdout, reason = "tests say how much they ran")]

use std::sync::Arc;

use polyloom_core::rng::Stream;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::method::{Base, Job, Method, Param, Scope, Spec, Statistics, TensorJob, Unset};
use super::run::{Collect, Group, Memory, Options, run};
use super::{find, methods, params};
use crate::error::Result;

/// Tensors as `[tensor][element]`.
type Tensors = Vec<Vec<f32>>;

/// Runs a method over tensors in memory.
pub(super) fn merge(
    method: &'static dyn Method,
    job: &Job,
    base: &Tensors,
    inputs: &[Tensors],
    chunk: usize,
) -> Result<Tensors> {
    let feed = Memory {
        base: base.iter().map(Vec::as_slice).collect(),
        inputs: inputs
            .iter()
            .map(|i| i.iter().map(Vec::as_slice).collect())
            .collect(),
    };
    let sink = Collect::new(&job.tensors);
    let group = Group {
        job,
        deltas: method.spec().deltas,
        scope: method.spec().scope,
        make: &|job| method.kernel(job),
    };
    let options = Options {
        chunk,
        ..Options::default()
    };
    run(&group, None, &feed, &sink, &options)?;
    Ok(sink.into_values())
}

/// Scores of three experts and of the averages that have to be judged: the first and the third stay.
const SCORES: &str = "expert0,3\nexpert1,2\nexpert2,1\nexpert0+expert1,2.5\nexpert0+expert2,3\n";

/// A file of [`SCORES`] that outlives the tests.
fn scores() -> &'static str {
    static FILE: std::sync::LazyLock<tempfile::NamedTempFile> = std::sync::LazyLock::new(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SCORES).unwrap();
        file
    });
    FILE.path().to_str().unwrap()
}

/// Statistics that every tensor has: Gram matrices of rank three plus a diagonal, uneven Fisher values.
struct Planted(std::collections::BTreeMap<String, Vec<usize>>);

impl Statistics for Planted {
    fn shape(&self, _: usize, name: &str) -> Option<Vec<usize>> {
        let (weight, kind) = name.rsplit_once('.')?;
        let shape = self.0.get(weight)?;
        match (kind, &shape[..]) {
            ("gram", [_, cols]) => Some(vec![*cols, *cols]),
            ("fisher", _) => Some(shape.clone()),
            _ => None,
        }
    }

    fn read(&self, expert: usize, name: &str, start: usize, out: &mut [f32]) -> Result<()> {
        let s = Stream::new(17, name, expert as u64);
        let width = self.shape(expert, name).and_then(|s| s.last().copied());
        let width = width.unwrap_or(1).max(1);
        for (i, x) in out.iter_mut().enumerate() {
            let (r, c) = ((start + i) / width, (start + i) % width);
            *x = if name.ends_with(".gram") {
                let at = |row: usize, k: usize| s.normal((row * 3 + k) as u64);
                (0..3).map(|k| at(r, k) * at(c, k)).sum::<f32>() + f32::from(u8::from(r == c))
            } else {
                s.normal((start + i) as u64).powi(2)
            };
        }
        Ok(())
    }

    fn file(&self, expert: usize) -> Option<String> {
        Some(format!("statistics of expert {expert}"))
    }
}

/// A value for a parameter that has no default.
fn required(param: &Param) -> Option<Value> {
    match (param.unset, param.name) {
        (Unset::Required, "scores") => Some(json!(scores())),
        (Unset::Required, "t") => Some(json!(0.3)),
        (Unset::Required, _) => Some(json!(0.8)),
        _ => None,
    }
}

/// A job with the given words where the method knows them and defaults elsewhere.
fn job(spec: &Spec, shapes: &[&[usize]], experts: usize, words: &Value) -> Result<Job> {
    let complete = |each: bool| {
        let known: Vec<Param> = spec
            .params
            .iter()
            .filter(|p| p.each == each)
            .copied()
            .collect();
        let given: Map<String, Value> = known
            .iter()
            .filter_map(|p| {
                let value = words.get(p.name).cloned().or_else(|| required(p))?;
                Some((p.name.to_owned(), value))
            })
            .collect();
        params::complete(&known, &given, false)
    };
    let (shared, each) = (complete(false)?, complete(true)?);
    let mut before = 0;
    let tensors = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let tensor = TensorJob {
                name: format!("model.layers.{i}.weight"),
                shape: shape.to_vec(),
                shared: shared.clone(),
                each: vec![each.clone(); experts],
                layer: Some((i, shapes.len())),
                before,
            };
            before += tensor.elements() as u64;
            Arc::new(tensor)
        })
        .collect();
    let inner = |job: &Job| {
        let method = find("task_arithmetic").expect("registered");
        let mut inner = job.clone();
        for tensor in &mut inner.tensors {
            let shapes: &[&[usize]] = &[&tensor.shape];
            let new = self::job(method.spec(), shapes, tensor.each.len(), &json!({}))?;
            let mut new = (*new.tensors[0]).clone();
            new.name.clone_from(&tensor.name);
            *tensor = Arc::new(new);
        }
        method.kernel(&inner)
    };
    let planted = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| (format!("model.layers.{i}.weight"), shape.to_vec()))
        .collect();
    Ok(Job {
        tensors,
        experts: (0..experts).map(|i| format!("expert{i}")).collect(),
        has_base: spec.base != Base::Ignored,
        seed: 11,
        statistics: Some(Arc::new(Planted(planted))),
        inner_maker: spec.on.map(|_| Arc::new(inner) as _),
    })
}

fn counts(spec: &Spec) -> usize {
    3.clamp(spec.experts.0, spec.experts.1)
}

/// Base and experts with heavy ties, zeros and untouched parts.
fn models(shapes: &[&[usize]], experts: usize) -> (Tensors, Vec<Tensors>) {
    let draw = |who: u64| -> Tensors {
        shapes
            .iter()
            .enumerate()
            .map(|(t, shape)| {
                let n: usize = shape.iter().product();
                let s = Stream::new(who, "data", t as u64);
                (0..n as u64)
                    .map(|i| (s.normal(i) * 40.0).round() / 64.0)
                    .collect()
            })
            .collect()
    };
    let base = draw(0);
    let inputs = (1..=experts as u64)
        .map(|who| {
            let mut all = draw(who);
            for (t, (x, b)) in all.iter_mut().zip(&base).enumerate() {
                for (i, (x, b)) in x.iter_mut().zip(b).enumerate() {
                    let delta = if i % 3 == 0 { 0.0 } else { *x / 8.0 };
                    *x = b + if t == who as usize { 0.0 } else { delta };
                }
            }
            all
        })
        .collect();
    (base, inputs)
}

fn bits(tensors: &Tensors) -> Vec<Vec<u32>> {
    tensors
        .iter()
        .map(|t| t.iter().map(|x| x.to_bits()).collect())
        .collect()
}

/// Settings that bring out branches which defaults leave alone.
fn settings() -> Vec<Value> {
    vec![
        json!({"steps": 3}),
        json!({"steps": 3, "density": 0.4, "select_topk": 0.3, "filter_wise": true, "nuslerp_flatten": false,
               "scale": 0.5, "rescale": "l1", "gamma": 0.1}),
        json!({"steps": 3, "density": 0.6, "nuslerp_flatten": false, "nuslerp_row_wise": true,
               "rescale": "inverse", "epsilon": 0.125, "weight": -0.75}),
    ]
}

#[test]
fn bytes_do_not_depend_on_chunks_or_threads() {
    let shapes: &[&[usize]] = &[&[37, 613], &[8195], &[3, 70, 5, 2], &[1], &[]];
    let mut ran = 0;
    for method in methods() {
        let spec = method.spec();
        let n = counts(spec);
        let (base, inputs) = models(shapes, n);
        for words in settings() {
            let Ok(job) = job(spec, shapes, n, &words) else {
                continue; // A setting outside this method's range.
            };
            let base = if job.has_base {
                base.clone()
            } else {
                Vec::new()
            };
            let whole = match merge(method, &job, &base, &inputs, 1 << 20) {
                Ok(values) => bits(&values),
                Err(e) => {
                    println!("{}: not run: {e}", spec.name);
                    continue;
                }
            };
            for chunk in [4096, 3 * 4096] {
                let got = merge(method, &job, &base, &inputs, chunk).unwrap();
                assert!(bits(&got) == whole, "{} {words}: chunk {chunk}", spec.name);
            }
            for threads in [1, 2, 3, 7] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let got = pool.install(|| merge(method, &job, &base, &inputs, 4096).unwrap());
                assert!(
                    bits(&got) == whole,
                    "{} {words}: {threads} threads",
                    spec.name
                );
            }
            ran += 1;
        }
    }
    println!("{ran} settings ran");
    assert!(ran >= 40, "{ran}");
}

/// Tensors that all threads work on together take another path through the engine.
#[test]
fn bytes_of_large_tensors_do_not_depend_on_threads() {
    let shapes: &[&[usize]] = &[&[2051, 2049]];
    let (base, inputs) = models(shapes, 2);
    for name in ["ties", "dare_ties", "della", "multislerp", "sce"] {
        let method = find(name).unwrap();
        let words = json!({"density": 0.4, "select_topk": 0.3, "rescale": "l1"});
        let job = job(method.spec(), shapes, 2, &words).unwrap();
        let got = [(1, 0), (3, 3 << 18)].map(|(threads, chunk)| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            bits(&pool.install(|| merge(method, &job, &base, &inputs, chunk).unwrap()))
        });
        assert!(got[0] == got[1], "{name}");
    }
}

#[test]
fn zero_task_vectors_give_the_base() {
    let shapes: &[&[usize]] = &[&[6, 9], &[17], &[]];
    let mut ran = Vec::new();
    for method in methods() {
        let spec = method.spec();
        let n = counts(spec);
        let (base, _) = models(shapes, n);
        for words in settings().into_iter().filter(|w| w.get("weight").is_none()) {
            let Ok(mut job) = job(spec, shapes, n, &words) else {
                continue;
            };
            if spec.base == Base::Ignored || spec.scope == Scope::Tensor && job.tensors.is_empty() {
                continue;
            }
            job.seed = 3;
            let Ok(got) = merge(method, &job, &base, &vec![base.clone(); n], 0) else {
                continue;
            };
            for (a, b) in got.iter().flatten().zip(base.iter().flatten()) {
                assert!(
                    (a - b).abs() <= 1e-6 * b.abs(),
                    "{} {words}: {a} {b}",
                    spec.name
                );
            }
            ran.push(spec.name);
        }
    }
    assert!(ran.len() >= 20, "{ran:?}");
}

#[test]
fn no_experts_give_the_base() {
    let shapes: &[&[usize]] = &[&[6, 9]];
    let (base, _) = models(shapes, 1);
    for method in methods().filter(|m| m.spec().experts.0 == 0) {
        let job = job(method.spec(), shapes, 0, &json!({})).unwrap();
        let got = merge(method, &job, &base, &[], 0).unwrap();
        assert_eq!(got, base, "{}", method.spec().name);
    }
}

/// Numbers whose sums are exact, so that the order of experts cannot show in a rounding.
fn exact(n: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec((-64i8..=64).prop_map(|x| f32::from(x) / 64.0), n)
}

fn close(a: &Tensors, b: &Tensors) -> bool {
    a.iter()
        .flatten()
        .zip(b.iter().flatten())
        .all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn order_of_experts_does_not_matter(
        base in exact(24), a in exact(24), b in exact(24), c in exact(24), density in 0.1..1.0f64,
    ) {
        let symmetric = [
            "linear", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "multislerp", "karcher", "sce",
            "ram", "ramplus_tl", "model_stock",
        ];
        for name in symmetric {
            let method = find(name).unwrap();
            let words = json!({"density": density, "select_topk": density});
            let job = job(method.spec(), &[&[4, 6]], 3, &words).unwrap();
            let run = |order: [&Vec<f32>; 3]| {
                let inputs: Vec<Tensors> = order.map(|x| vec![x.clone()]).to_vec();
                merge(method, &job, &vec![base.clone()], &inputs, 0).unwrap()
            };
            let first = run([&a, &b, &c]);
            prop_assert!(first[0].iter().all(|x| x.is_finite()), "{}", name);
            prop_assert!(close(&run([&c, &a, &b]), &first), "{}", name);
        }
    }

    #[test]
    fn density_one_is_dense(base in exact(24), a in exact(24), b in exact(24)) {
        let run = |name: &str, words: Value| {
            let method = find(name).unwrap();
            let job = job(method.spec(), &[&[4, 6]], 2, &words).unwrap();
            let inputs = [vec![a.clone()], vec![b.clone()]];
            bits(&merge(method, &job, &vec![base.clone()], &inputs, 0).unwrap())
        };
        let words = json!({"density": 1.0, "normalize": true, "weight": 0.5, "lambda": 0.75});
        let dense = run("task_arithmetic", words.clone());
        for name in ["dare_linear", "breadcrumbs", "della_linear"] {
            prop_assert_eq!(run(name, words.clone()), dense.clone(), "{}", name);
        }
        let elected = run("ties", words.clone());
        for name in ["dare_ties", "breadcrumbs_ties", "della"] {
            prop_assert_eq!(run(name, words.clone()), elected.clone(), "{}", name);
        }
    }

    #[test]
    fn weight_on_one_expert_returns_it(base in exact(24), a in exact(24), b in exact(24), c in exact(24)) {
        for name in ["linear", "task_arithmetic"] {
            let method = find(name).unwrap();
            let mut job = job(method.spec(), &[&[24]], 3, &json!({})).unwrap();
            let mut tensor = (*job.tensors[0]).clone();
            for (values, weight) in tensor.each.iter_mut().zip([1.0, 0.0, 0.0]) {
                values.set("weight", json!(weight));
            }
            job.tensors = vec![Arc::new(tensor)];
            let inputs = [vec![a.clone()], vec![b.clone()], vec![c.clone()]];
            let got = merge(method, &job, &vec![base.clone()], &inputs, 0).unwrap();
            prop_assert_eq!(&got[0], &a, "{}", name);
        }
    }
}

#[test]
fn contracts_are_complete() {
    let mut names = std::collections::BTreeSet::new();
    for method in methods() {
        let spec = method.spec();
        assert!(names.insert(spec.name), "{} is registered twice", spec.name);
        for text in [
            spec.name,
            spec.summary,
            spec.source,
            spec.formula,
            spec.cost,
        ] {
            assert!(!text.trim().is_empty(), "{}", spec.name);
        }
        assert!(
            !spec.summary.contains('\n') && !spec.summary.ends_with('.'),
            "{}",
            spec.name
        );
        assert!(spec.experts.0 <= spec.experts.1, "{}", spec.name);
        assert!(spec.on.is_none_or(|on| find(on).is_some()), "{}", spec.name);
        let mut words = std::collections::BTreeSet::new();
        for param in spec.params {
            assert!(
                words.insert(param.name),
                "{}.{} twice",
                spec.name,
                param.name
            );
            assert!(param.doc.ends_with('.'), "{}.{}", spec.name, param.name);
        }
        match spec.golden {
            super::method::Golden::Cases(cases) => assert!(!cases.is_empty(), "{}", spec.name),
            super::method::Golden::None(reason) => assert!(!reason.is_empty(), "{}", spec.name),
        }
        assert!(std::ptr::eq(find(spec.name).unwrap().spec(), spec));
    }
    assert!(names.len() >= 20);
}
