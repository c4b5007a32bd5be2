//! The vectors of golden/joint that weigh losses and balance gradients: every case is computed.

#![allow(clippy::print_stdout, reason = "tests say what they leave out")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;
use polyloom_learn::balance::method::{Gram, Second, Weights};
use polyloom_learn::balance::{At, Balancer, State, Step, Unsolved, find};
use polyloom_learn::balance::{cagrad, gradnorm, project};
use serde_json::{Map, Value as Json, json};

pub mod case;
mod peers;
mod sequences;

use case::Case;

/// Gradients of a case, as rows.
struct Tasks {
    gradients: Vec<Vec<f32>>,
    losses: Vec<f64>,
    all: Vec<usize>,
}

impl Tasks {
    fn of(case: &Case) -> Self {
        let (shape, g) = case.tensor("input", "G");
        let losses = case.tensor("input", "losses").1;
        Self {
            gradients: rows(&shape, &g),
            all: (0..losses.len()).collect(),
            losses,
        }
    }

    fn len(&self) -> usize {
        self.losses.len()
    }

    fn refs(&self) -> Vec<&[f32]> {
        self.gradients.iter().map(Vec::as_slice).collect()
    }

    fn gram(&self) -> Gram {
        Gram::of(&self.refs())
    }

    /// A step of a balancer without the rule for tasks without gradients, as the vectors have it: weights and direction.
    fn step(
        &self,
        balancer: &mut dyn Balancer,
        number: u64,
        second: Option<Second<'_>>,
    ) -> Result<(Weights, Vec<f64>), Unsolved> {
        let (refs, gram) = (self.refs(), self.gram());
        let step = Step {
            tasks: &self.all,
            losses: &self.losses,
            gradients: &refs,
            gram: &gram,
            parts: &[],
            second,
            at: At {
                step: number,
                epoch: number,
                ..At::default()
            },
        };
        let weights = balancer.weigh(&step)?;
        let rows = balancer.rows(&step);
        let direction = sum(weights.whole().unwrap(), &rows);
        Ok((weights, direction))
    }
}

fn rows(shape: &[usize], values: &[f64]) -> Vec<Vec<f32>> {
    let row = |r: &[f64]| r.iter().map(|x| *x as f32).collect();
    values
        .chunks(shape[1..].iter().product())
        .map(row)
        .collect()
}

fn sum(weights: &[f64], rows: &[&[f32]]) -> Vec<f64> {
    let mut out = vec![0.0; rows[0].len()];
    for (w, row) in weights.iter().zip(rows) {
        out.iter_mut()
            .zip(*row)
            .for_each(|(o, x)| *o += w * f64::from(*x));
    }
    out
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A balancer of the registry.
fn begin(method: &str, params: &Json, tasks: usize) -> Box<dyn Balancer> {
    let method = find(method).unwrap_or_else(|| panic!("no {method}"));
    let params = params.as_object().cloned().unwrap_or_else(Map::new);
    let values = polyloom::merge::params::complete(method.params, &params, false).unwrap();
    (method.begin)(&values, tasks)
}

/// Methods whose one step is compared as it is: parameters, and what the vectors have beside the direction.
fn plain(case: &Case, params: &Json) {
    let tasks = Tasks::of(case);
    let mut balancer = begin(case.told["method"].as_str().unwrap(), params, tasks.len());
    let (weights, direction) = tasks.step(&mut *balancer, 0, None).unwrap();
    case.same("d", &direction);
    if case.told["method"] != "stch" {
        case.same("w", weights.whole().unwrap());
    }
}

fn uncertainty(case: &Case) {
    let params = json!({"init": case.param("init"), "optimiser": "sgd", "rate": 1.0});
    let tasks = Tasks::of(case);
    let mut balancer = begin("uncertainty", &params, tasks.len());
    let (weights, direction) = tasks.step(&mut *balancer, 0, None).unwrap();
    case.same("d", &direction);
    case.same("w", weights.whole().unwrap());
    let after = balancer.state().numbers["values"].clone();
    let slopes: Vec<f64> = after.iter().map(|s| case.number("init") - s).collect();
    case.same("ds", &slopes);
}

fn stch(case: &Case) {
    let tasks = Tasks::of(case);
    let mut balancer = begin("stch", &json!({"mu": case.param("mu")}), tasks.len());
    balancer
        .restore(State::of([("nadir", case.numbers("nadir"))]))
        .unwrap();
    let (_, direction) = tasks.step(&mut *balancer, 0, None).unwrap();
    case.same("d", &direction);
}

fn gradnorm_step(case: &Case) {
    let tasks = Tasks::of(case);
    let gram = tasks.gram();
    let lengths: Vec<f64> = (0..tasks.len()).map(|i| gram.norm(i)).collect();
    let first = case.numbers("initial_losses");
    let pace: Vec<f64> = tasks
        .losses
        .iter()
        .zip(&first)
        .map(|(l, f)| l / f)
        .collect();
    let s = case.numbers("s");
    let (weights, slopes) = gradnorm::paced(&s, &lengths, &pace, case.number("alpha"));
    case.same("w", &weights);
    case.same("ds", &slopes);
    // And the balancer on it, moved by plain descent at rate 1.
    let params = json!({"alpha": case.param("alpha"), "optimiser": "sgd", "rate": 1.0});
    let mut balancer = begin("gradnorm", &params, tasks.len());
    let ones = vec![1.0; tasks.len()];
    let state = State::of([("values", s.clone()), ("sums", first), ("counts", ones)]);
    balancer.restore(state).unwrap();
    let (_, direction) = tasks.step(&mut *balancer, 1, None).unwrap();
    case.same("d", &direction);
    let after = balancer.state().numbers["values"].clone();
    let moved: Vec<f64> = s.iter().zip(after).map(|(a, b)| a - b).collect();
    case.same("ds", &moved);
}

fn mgda(case: &Case) {
    let tasks = Tasks::of(case);
    let params = json!({"normalise": case.param("norm")});
    let mut balancer = begin("mgda", &params, tasks.len());
    let (weights, direction) = tasks.step(&mut *balancer, 0, None).unwrap();
    assert!(weights.whole().unwrap().iter().all(|w| *w >= 0.0));
    let of = |what: &str| case.told["tolerance"][what].as_f64().unwrap();
    let (found, best) = (dot(&direction, &direction), case.expected("objective")[0]);
    assert!(
        (found - best).abs() <= of("objective_atol") + of("objective_rtol") * best,
        "{}: {found}, expected {best}",
        case.name()
    );
}

fn cagrad_dual(case: &Case) {
    let tasks = Tasks::of(case);
    let params = json!({"c": case.param("c"), "rescale": case.param("rescale")});
    let mut balancer = begin("cagrad", &params, tasks.len());
    let (_, direction) = tasks.step(&mut *balancer, 0, None).unwrap();
    let dual = cagrad::dual(&tasks.gram(), case.number("c")).unwrap();
    let of = |what: &str| case.told["tolerance"][what].as_f64().unwrap();
    let best = case.expected("objective")[0];
    assert!(
        dual.objective - best <= best.abs() * of("objective_rtol") + of("objective_atol"),
        "{}: {}, expected {best}",
        case.name(),
        dual.objective
    );
    let d = case.expected("d");
    let cosine = dot(&direction, &d) / (dot(&d, &d) * dot(&direction, &direction)).sqrt();
    if let Some(least) = case.told["tolerance"]["direction_cosine"].as_f64() {
        assert!(cosine >= least, "{}: cosine {cosine}", case.name());
    }
}

fn orders(told: &Json) -> Vec<Vec<usize>> {
    let list = |o: &Json| -> Vec<usize> {
        let all = o.as_array().unwrap().iter();
        all.map(|j| j.as_u64().unwrap() as usize).collect()
    };
    told.as_array().unwrap().iter().map(list).collect()
}

fn pcgrad(case: &Case) {
    let tasks = Tasks::of(case);
    let weights = project::pcgrad(&tasks.gram(), &orders(case.param("order")));
    case.same("d", &sum(&weights, &tasks.refs()));
}

fn gradvac(case: &Case) {
    let tasks = Tasks::of(case);
    let vectors = project::Vectors {
        gram: tasks.gram(),
        pieces: vec![tasks.refs()],
    };
    let mut rho = vec![0.0; tasks.len() * tasks.len()];
    let mut directions = Vec::new();
    for order in case.param("order").as_array().unwrap() {
        let weights = project::gradvac(&vectors, &mut rho, case.number("beta"), &orders(order));
        directions.extend(sum(&weights, &tasks.refs()));
    }
    case.same("d", &directions);
    case.same("rho", &rho);
}

fn imtl(case: &Case) {
    plain(case, &json!({}));
    let tasks = Tasks::of(case);
    let params = json!({"form": "hybrid", "loss_scale": case.param("loss_scale"), "optimiser": "sgd", "rate": 1.0});
    let mut balancer = begin("imtl", &params, tasks.len());
    let (_, direction) = tasks.step(&mut *balancer, 0, None).unwrap();
    case.same("d", &direction);
    let after = balancer.state().numbers["values"].clone();
    let slopes: Vec<f64> = after
        .iter()
        .map(|s| case.number("loss_scale") - s)
        .collect();
    case.same("ds", &slopes);
}

/// `A w = w^(-1/alpha)`: where the vectors have no answer, ours has none either, or one that satisfies the equation.
fn fair(case: &Case, method: &str, params: &Json, alpha: f64) -> bool {
    let tasks = Tasks::of(case);
    let mut balancer = begin(method, params, tasks.len());
    let found = tasks.step(&mut *balancer, 0, None);
    if case.kind() != "not_attained" {
        let (weights, direction) = found.unwrap();
        case.same("d", &direction);
        case.same("w", weights.whole().unwrap());
        return true;
    }
    let Ok((weights, _)) = found else {
        return false;
    };
    let (gram, w) = (tasks.gram(), weights.whole().unwrap());
    for i in 0..w.len() {
        let residual = gram.dot_sum(i, w) * w[i].powf(1.0 / alpha) - 1.0;
        assert!(
            w[i] > 0.0 && residual.abs() <= 1e-8,
            "{}: {residual}",
            case.name()
        );
    }
    println!(
        "{}: no answer in the vectors; ours satisfies the equation",
        case.name()
    );
    true
}

/// Three steps of a method that remembers.
fn three_steps(case: &Case, params: &Json, scales: &[f64], weighted: bool) {
    let tasks = Tasks::of(case);
    let mut balancer = begin(case.told["method"].as_str().unwrap(), params, tasks.len());
    let (mut directions, mut weights) = (Vec::new(), Vec::new());
    for (number, scale) in scales.iter().enumerate() {
        let one = |g: &Vec<f32>| g.iter().map(|x| (f64::from(*x) * scale) as f32).collect();
        let scaled = Tasks {
            gradients: tasks.gradients.iter().map(one).collect(),
            losses: tasks.losses.clone(),
            all: tasks.all.clone(),
        };
        let (w, d) = scaled.step(&mut *balancer, number as u64, None).unwrap();
        weights.extend_from_slice(w.whole().unwrap());
        directions.extend(d);
    }
    case.same("d", &directions);
    if weighted {
        case.same("w", &weights);
    }
}

fn flat(case: &Case) {
    let tasks = Tasks::of(case);
    if case.name().ends_with("perturbation") {
        let rho = case.number("rho");
        let moved = tasks.gradients.iter();
        let moved = moved.flat_map(|g| polyloom_learn::balance::flat::perturbation(g, rho));
        return case.same("d", &moved.map(f64::from).collect::<Vec<f64>>());
    }
    let sharp = {
        let file = &case.files["expected"];
        let stored = file.get("flat.g_sam").unwrap();
        let mut bytes = vec![0u8; 8 * stored.elements()];
        let range = 0..bytes.len() as u64;
        file.read_bytes(stored, range, &mut bytes).unwrap();
        let values: Vec<f64> = bytes
            .chunks(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        (stored.shape.clone(), values)
    };
    let width = sharp.0[1];
    let differences: Vec<Vec<f32>> = (0..tasks.len())
        .map(|t| {
            let of = sharp.1[t * width..][..width]
                .iter()
                .zip(&tasks.gradients[t]);
            of.map(|(s, g)| (s - f64::from(*g)) as f32).collect()
        })
        .collect();
    let differences: Vec<&[f32]> = differences.iter().map(Vec::as_slice).collect();
    let gram = Gram::of(&differences);
    if case.param("inner") == "pcgrad" {
        let orders = orders(case.param("order"));
        let here = sum(&project::pcgrad(&tasks.gram(), &orders), &tasks.refs());
        let there = sum(&project::pcgrad(&gram, &orders), &differences);
        return case.same(
            "d",
            &here
                .iter()
                .zip(there)
                .map(|(a, b)| a + b)
                .collect::<Vec<f64>>(),
        );
    }
    let second = Second {
        differences: &differences,
        gram: &gram,
    };
    let mut balancer = begin(
        "flat_mtl",
        &json!({"inner": case.param("inner")}),
        tasks.len(),
    );
    let (_, direction) = tasks.step(&mut *balancer, 0, Some(second)).unwrap();
    case.same("d", &direction);
}

fn gradients(case: &Case) {
    let params = &case.told["params"];
    match case.told["method"].as_str().unwrap() {
        "equal" => plain(case, &json!({"reduction": "sum"})),
        "gls" | "scale_invariant" | "aligned" | "upgrad" => plain(case, params),
        "uncertainty" => uncertainty(case),
        "stch" => stch(case),
        "gradnorm" => gradnorm_step(case),
        "mgda" => mgda(case),
        "cagrad" => cagrad_dual(case),
        "pcgrad" => pcgrad(case),
        "gradvac" => gradvac(case),
        "imtl" => imtl(case),
        "nash" => assert_eq!(
            fair(case, "nash", params, 1.0),
            case.kind() != "not_attained"
        ),
        "fairgrad" => {
            fair(case, "fairgrad", params, case.number("alpha"));
        }
        "moco" => three_steps(case, params, &[1.0; 3], true),
        "db_mtl" => three_steps(case, params, &[1.0; 3], false),
        "excess" => {
            let scales = case.numbers("gradient_scale_per_step");
            three_steps(case, &json!({"step": case.param("step")}), &scales, true);
        }
        "flat_mtl" => flat(case),
        other => panic!("no one computes {other}"),
    }
}

/// The folder of the vectors: `POLYLOOM_GOLDEN`, else `../shared/golden` beside the checkout, else the subset in the
/// repository.
fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    [
        std::env::var_os("POLYLOOM_GOLDEN").map(PathBuf::from),
        Some(root.join("../shared/golden")),
        Some(root.join("tests/golden")),
    ]
    .into_iter()
    .flatten()
    .map(|p| p.join("joint"))
    .find(|p| p.join("manifest.json").exists())
    .expect("no test vectors: set POLYLOOM_GOLDEN")
}

/// All cases, with the family of their file.
pub fn cases() -> Vec<(String, Case)> {
    let root = folder();
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let manifest: Vec<Json> = serde_json::from_str(&text).unwrap();
    let case = |told: Json| {
        let files = told["files"].as_object().unwrap();
        let named = ["input", "expected", "data"].into_iter();
        let named: Vec<(&str, &str)> = named
            .filter_map(|n| Some((n, files.get(n)?.as_str()?)))
            .collect();
        let family = named[0].1.split('/').next().unwrap().to_owned();
        let open = |(name, file): &(&str, &str)| {
            let path = root.join(file);
            // Gains are JSON.
            path.extension()
                .is_some_and(|e| e == "safetensors")
                .then(|| ((*name).to_owned(), Checkpoint::open(&path).unwrap()))
        };
        let files = named.iter().filter_map(open).collect();
        (family, Case { told, files })
    };
    manifest.into_iter().map(case).collect()
}

#[test]
fn golden_joint_weights() {
    let (mut ran, mut left) = (BTreeMap::new(), BTreeMap::new());
    for (family, case) in cases() {
        let method = case.told["method"].as_str().unwrap().to_owned();
        let solve: fn(&Case) = match family.as_str() {
            "grads" => gradients,
            "seq" if sequences::known(&method) => sequences::solve,
            // Layers, trees (forest.rs), optimisers and sampling are of other parts.
            _ => {
                *left.entry(method).or_insert(0) += 1;
                continue;
            }
        };
        solve(&case);
        *ran.entry(method).or_insert(0) += 1;
    }
    println!("computed: {ran:?}\nnot here: {left:?}");
    assert!(ran.len() >= 25, "{ran:?}");
}
