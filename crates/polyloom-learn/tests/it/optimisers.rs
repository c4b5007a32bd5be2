//! The vectors of golden/joint/optim (PyTorch, Sophia's program) and of the choice of tasks.

#![allow(clippy::print_stdout, reason = "tests say what they ran")]

use polyloom_learn::engine::{Parameters, Value, slice, tensor};
use polyloom_learn::train::mpts::{acquisition, largest, predicted};
use polyloom_learn::train::optimiser::Curvature;
use polyloom_learn::train::{Optimiser, Rule};

use super::balance::case::Case;
use super::balance::cases;

fn pair(case: &Case) -> [f32; 2] {
    let betas = case.numbers("betas");
    [betas[0] as f32, betas[1] as f32]
}

fn rule(case: &Case) -> Rule {
    let decay = case.number("weight_decay") as f32;
    let sophia = |curvature, factor: f64| Rule::Sophia {
        curvature,
        betas: pair(case),
        factor: factor as f32,
        decay,
    };
    match case.told["method"].as_str().unwrap() {
        "sophia_g" => sophia(Curvature::Labels, case.number("rho") * case.number("bs")),
        "sophia_h" => sophia(Curvature::Product, case.number("gamma")),
        name => Rule::Adam {
            betas: pair(case),
            eps: case.number("eps") as f32,
            decay,
            coupled: name == "adam",
        },
    }
}

/// Twelve steps over given gradients, estimates of curvature every fourth.
fn steps(case: &Case) {
    let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let (_, start) = case.tensor("data", "p0");
    let n = start.len();
    let values = tensor(narrow(&start), n).unwrap();
    let parameters = Parameters::new([("p".to_owned(), values)]).unwrap();
    let mut optimiser = Optimiser::new(rule(case), &parameters);
    let (_, gradients) = case.tensor("data", "grads");
    let (_, estimates) = case.tensor("data", "hess_samples");
    let key = case.told["files"]["key"].as_str().unwrap();
    let (_, wanted) = case.tensor("data", key);
    let sophia = key.starts_with("sophia");
    for (step, wanted) in wanted.chunks(n).enumerate() {
        let of = |all: &[f64]| narrow(&all[step * n..][..n]);
        if sophia && step.is_multiple_of(case.number("hessian_every") as usize) {
            optimiser.estimate(&of(&estimates)).unwrap();
        }
        let gradients = parameters
            .gradients_from(|g| g.copy_from_slice(&of(&gradients)))
            .unwrap();
        let rate = case.number("lr") as f32;
        optimiser.step(&parameters, &gradients, rate).unwrap();
        let found: Vec<f64> = parameters
            .weights()
            .unwrap()
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        case.near(&format!("step {step}"), &found, wanted);
        if sophia {
            let (_, h) = case.tensor("data", &format!("{key}_h"));
            let found: Vec<f64> = optimiser.state()[1].iter().map(|x| f64::from(*x)).collect();
            case.near("h", &found, &h[step * n..][..n]);
        }
    }
}

/// Predictions of the risk of candidates, their scores, and who is chosen.
fn mpts(case: &Case) {
    let value = |name: &str| {
        let (shape, values) = case.tensor("data", name);
        let values = values.iter().map(|x| *x as f32).collect();
        Value::constant(tensor(values, shape).unwrap())
    };
    let layer = |name: &str| [value(&format!("w.{name}")), value(&format!("w.{name}.b"))];
    let layers = ["d0", "d1", "d2", "mu"].map(layer);
    let found = predicted(&layers, &value("candidates"), &value("z")).unwrap();
    let found = slice(found.data()).unwrap();
    let samples = case.number("samples") as usize;
    let of = |name| case.number(name);
    let scores = acquisition(&found, samples, of("gamma_mu"), of("gamma_sigma"));
    case.near("score", &scores, &case.tensor("data", "score").1);
    let chosen = largest(&scores, case.number("select") as usize);
    let chosen: Vec<f64> = chosen.into_iter().map(|i| i as f64).collect();
    case.near("selected", &chosen, &case.tensor("data", "selected").1);
}

#[test]
fn golden_joint_optimisers() {
    let mut ran = Vec::new();
    for (family, case) in cases() {
        match (family.as_str(), case.told["method"].as_str().unwrap()) {
            ("optim", _) => steps(&case),
            ("layers", "mpts") => mpts(&case),
            _ => continue,
        }
        ran.push(case.name().to_owned());
    }
    println!("computed: {ran:?}");
    assert_eq!(ran.len(), 5, "{ran:?}");
}
