//! Sequences of losses, and weights inside of a loss.

use polyloom_learn::balance::method::Gram;
use polyloom_learn::balance::within::{self, Mft, Rows};
use polyloom_learn::balance::{At, Balancer, State, Step, losses};
use serde_json::{Value as Json, json};

use super::{Case, begin, rows};

/// Whether cases of a method are computed here.
pub fn known(method: &str) -> bool {
    let here = [
        "dwa",
        "uncertainty",
        "famo",
        "gls",
        "scale_invariant",
        "rlw",
        "coba",
        "mft_loss",
        "sample_reweight",
        "graddrop",
        "rep_mtl",
    ];
    here.contains(&method)
}

pub fn solve(case: &Case) {
    match case.told["method"].as_str().unwrap() {
        "dwa" => dwa(case),
        "uncertainty" => uncertainty(case),
        "famo" => famo(case),
        "gls" => {
            let (all, n) = course(case, "losses");
            let found: Vec<f64> = all.chunks(n).flat_map(losses::gls).collect();
            case.near("weights", &found, &data(case, "gls_weight"));
        }
        "scale_invariant" => scale_invariant(case),
        "rlw" => {
            let (normals, n) = course(case, "rlw_normals");
            let found: Vec<f64> = normals.chunks(n).flat_map(losses::rlw).collect();
            case.near("weights", &found, &data(case, "rlw_w"));
        }
        "coba" => coba(case),
        "mft_loss" => mft(case),
        "sample_reweight" => samples(case),
        "graddrop" => graddrop(case),
        _ => rep_mtl(case),
    }
}

fn data(case: &Case, key: &str) -> Vec<f64> {
    case.tensor("data", key).1
}

fn course(case: &Case, key: &str) -> (Vec<f64>, usize) {
    let (shape, values) = case.tensor("data", key);
    (values, shape[1])
}

/// Weights of one step from its losses.
fn weigh(balancer: &mut dyn Balancer, losses: &[f64], number: u64) -> Vec<f64> {
    let tasks: Vec<usize> = (0..losses.len()).collect();
    let gradients = vec![&[1.0f32][..]; losses.len()];
    let step = Step {
        tasks: &tasks,
        losses,
        gradients: &gradients,
        gram: &Gram::of(&gradients),
        parts: &[],
        second: None,
        at: At {
            step: number,
            epoch: number,
            ..At::default()
        },
    };
    balancer.weigh(&step).unwrap().whole().unwrap().to_vec()
}

/// Weights of all steps of a course.
fn weights(method: &str, params: &Json, losses: &[f64], n: usize) -> Vec<f64> {
    let mut balancer = begin(method, params, n);
    let steps = losses.chunks(n).enumerate();
    steps
        .flat_map(|(i, l)| weigh(&mut *balancer, l, i as u64))
        .collect()
}

fn dwa(case: &Case) {
    let (all, n) = course(case, "losses");
    if case.param("window").is_null() {
        for temperature in case.numbers("temperatures") {
            let found = weights("dwa", &json!({"temperature": temperature}), &all, n);
            case.near(
                "weights",
                &found,
                &data(case, &format!("dwa_T{temperature:.1}")),
            );
        }
    } else {
        let found = weights("dwa", &case.told["params"], &all, n);
        // The loss is averaged: the weights are those over T.
        let found: Vec<f64> = found.iter().map(|w| w * n as f64).collect();
        case.near("weights", &found, &data(case, "dwa_window3"));
    }
}

fn uncertainty(case: &Case) {
    let (all, n) = course(case, "losses");
    for form in ["libmtl", "nash"] {
        for (moves, rate) in [("sgd", 0.1), ("adam", 0.01)] {
            let params = json!({"form": form, "optimiser": moves, "rate": rate});
            let mut balancer = begin("uncertainty", &params, n);
            let (mut w, mut s) = (Vec::new(), Vec::new());
            for (i, l) in all.chunks(n).enumerate() {
                w.extend(weigh(&mut *balancer, l, i as u64));
                s.extend_from_slice(&balancer.state().numbers["values"]);
            }
            case.near("w", &w, &data(case, &format!("uw_{form}_{moves}_w")));
            case.near("s", &s, &data(case, &format!("uw_{form}_{moves}_s")));
        }
    }
}

fn famo(case: &Case) {
    let ((before, n), (after, _)) = (course(case, "losses"), course(case, "losses_after"));
    let tasks: Vec<usize> = (0..n).collect();
    for gamma in case.numbers("gamma") {
        let params = json!({"gamma": gamma, "w_lr": case.param("w_lr")});
        let mut balancer = begin("famo", &params, n);
        let (mut w, mut logits) = (Vec::new(), Vec::new());
        for (i, (b, a)) in before.chunks(n).zip(after.chunks(n)).enumerate() {
            w.extend(weigh(&mut *balancer, b, i as u64));
            balancer.after(&tasks, a);
            logits.extend_from_slice(&balancer.state().numbers["values"]);
        }
        case.near(
            "weights",
            &w,
            &data(case, &format!("famo_g{gamma}_effective_weight")),
        );
        case.near(
            "logits",
            &logits,
            &data(case, &format!("famo_g{gamma}_logits_after")),
        );
    }
}

fn scale_invariant(case: &Case) {
    let (all, n) = course(case, "losses");
    for (plus, key) in [
        (false, "scale_invariant_weight"),
        (true, "scale_invariant_log1p_weight"),
    ] {
        let found = weights("scale_invariant", &json!({"log1p": plus}), &all, n);
        case.near("weights", &found, &data(case, key));
    }
}

fn coba(case: &Case) {
    let (shape, losses) = case.tensor("data", "valid_losses");
    let (tasks, looks) = (shape[0], shape[1]);
    let params = json!({"warmup": case.param("warmup"), "history": case.param("history"), "tau": case.param("tau")});
    let mut balancer = begin("coba", &params, tasks);
    // The losses are over their first values already.
    let begun = State::of([
        ("first", vec![1.0; tasks]),
        ("weights", vec![1.0 / tasks as f64; tasks]),
        ("losses", Vec::new()),
        ("slopes", Vec::new()),
        ("worst", Vec::new()),
    ]);
    balancer.restore(begun).unwrap();
    let mut found = Vec::new();
    for i in 0..looks {
        let now: Vec<f64> = (0..tasks).map(|t| losses[t * looks + i]).collect();
        balancer.validated(&now);
        if i + 1 >= case.number("first_step") as usize {
            found.extend(weigh(&mut *balancer, &now, i as u64));
        }
    }
    let expected = data(case, "weights");
    case.near("weights", &found[..expected.len()], &expected);
    let slopes = balancer.state().numbers["slopes"].clone();
    let expected = data(case, "slopes");
    case.near("slopes", &slopes[..expected.len()], &expected);
}

fn mft(case: &Case) {
    let (shape, logits) = case.tensor("data", "logits");
    let classes = shape[2];
    let mask = data(case, "loss_mask");
    let task: Vec<usize> = data(case, "task_id").iter().map(|t| *t as usize).collect();
    let given = data(case, "task_weights");
    let entropies: Vec<f64> = logits
        .chunks(classes)
        .zip(data(case, "labels"))
        .map(|(x, label)| {
            let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
            most + sum.ln() - x[label as usize]
        })
        .collect();
    let loss = |mode, weights: &[f64]| -> f64 {
        let factors = within::mft(mode, &mask, &task, weights);
        factors.iter().zip(&entropies).map(|(f, l)| f * l).sum()
    };
    let modes = [
        ("case1", Mft::Tokens),
        ("case2", Mft::Rows),
        ("case3", Mft::TasksByTokens),
        ("case4", Mft::TasksByRows),
        ("coba", Mft::TasksByTokens),
    ];
    for (name, mode) in modes {
        let equal = vec![1.0 / given.len() as f64; given.len()];
        for (weights, which) in [(&equal, "equal"), (&given, "given")] {
            let key = format!("{name}_{which}");
            case.near(&key, &[loss(mode, weights)], &data(case, &key));
        }
    }
    let focal = within::focal(&entropies, &mask, task.len(), 2.0);
    case.near("focal", &[focal], &data(case, "focal_sample_gamma2"));
}

fn samples(case: &Case) {
    let losses = data(case, "losses");
    case.near("h", &within::heights(&losses), &data(case, "h"));
    let rules = [
        ("linupper", Rows::LinUpper),
        ("quadratic", Rows::Quadratic),
        ("extremes", Rows::Extremes),
        ("linear", Rows::Linear),
    ];
    for (name, rule) in rules {
        for r in case.numbers("r") {
            let found = within::row_weights(&losses, rule, case.number("alpha"), r);
            case.near(name, &found, &data(case, &format!("{name}_r{r:.1}")));
        }
    }
}

fn graddrop(case: &Case) {
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let representation = narrow(data(case, "rep"));
    let (shape, gradients) = case.tensor("data", "task_grads");
    let gradients = rows(&shape, &gradients);
    let gradients: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
    let uniform = narrow(data(case, "U"));
    for leak in case.numbers("leak") {
        let (p, d) = within::graddrop(&representation, &gradients, &uniform, leak);
        case.near("P", &p, &data(case, "P"));
        let d: Vec<f64> = d.into_iter().map(f64::from).collect();
        case.near("d", &d, &data(case, &format!("d_leak{leak:.1}")));
    }
}

fn rep_mtl(case: &Case) {
    let (shape, saliency) = case.tensor("data", "saliency");
    let saliency = rows(&shape, &saliency);
    let saliency: Vec<&[f32]> = saliency.iter().map(Vec::as_slice).collect();
    let found = within::rep_mtl(&saliency, shape[1], shape[2], case.number("tau"));
    case.near("tsr", &[found.tsr], &data(case, "tsr"));
    case.near("csa", &[found.csa], &data(case, "csa"));
    case.near("shares", &found.shares, &data(case, "task_distribution"));
}
