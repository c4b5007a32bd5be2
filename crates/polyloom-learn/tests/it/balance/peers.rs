//! What the peers' solvers find on the same gradients, beside ours: the table of docs/results/balancers.md.
//!
//! `cargo test -p polyloom-learn --test it peers -- --nocapture` prints it.

use std::collections::BTreeMap;

use polyloom_learn::balance::method::Gram;
use polyloom_learn::balance::{cagrad, newton};
use serde_json::json;

use super::{Case, Tasks, begin, cases, dot};

/// Peer and ours of one kind of gradients: cases, those in which the peer misses by more than a thousandth, the worst miss of
/// each.
#[derive(Default)]
struct Row {
    cases: usize,
    missed: usize,
    peer: f64,
    ours: f64,
    where_: String,
}

impl Row {
    fn add(&mut self, case: &Case, peer: f64, ours: f64) {
        self.cases += 1;
        self.missed += usize::from(peer.is_nan() || peer > 1e-3);
        if peer.is_nan() || peer > self.peer {
            (self.peer, self.where_) = (peer, case.name().to_owned());
        }
        self.ours = self.ours.max(ours);
    }
}

fn has(case: &Case, name: &str) -> bool {
    let key = case.told["files"]["key"].as_str().unwrap();
    case.files["expected"]
        .get(&format!("{key}.{name}"))
        .is_some()
}

/// Largest `|w_i^(1/alpha) (A w)_i - 1|`.
fn residual(gram: &Gram, w: &[f64], alpha: f64) -> f64 {
    let of =
        (0..w.len()).map(|i| (gram.dot_sum(i, w) * w[i].max(0.0).powf(1.0 / alpha) - 1.0).abs());
    of.fold(0.0, f64::max)
}

/// How far a value is above the best one.
fn above(value: f64, best: f64) -> f64 {
    ((value - best) / best.abs()).max(0.0)
}

#[test]
fn peers() {
    let mut table: BTreeMap<(String, String), Row> = BTreeMap::new();
    for (family, case) in cases() {
        let method = case.told["method"].as_str().unwrap();
        if family != "grads" || !["mgda", "cagrad", "nash", "fairgrad"].contains(&method) {
            continue;
        }
        let kind = case
            .name()
            .split('/')
            .next()
            .unwrap()
            .rsplit('_')
            .next()
            .unwrap()
            .to_owned();
        let tasks = Tasks::of(&case);
        let gram = tasks.gram();
        let found = match method {
            "mgda" if has(&case, "libmtl_objective") => {
                let best = case.expected("objective")[0];
                // A least length of zero has no share of itself.
                if best < 1e-9 {
                    continue;
                }
                let params = json!({"normalise": case.param("norm")});
                let found = tasks.step(&mut *begin("mgda", &params, tasks.len()), 0, None);
                let ours = found.map(|(_, d)| dot(&d, &d)).unwrap();
                Some((
                    above(case.expected("libmtl_objective")[0], best),
                    above(ours, best),
                ))
            }
            "cagrad" if has(&case, "libmtl_objective") => {
                let ours = cagrad::dual(&gram, case.number("c")).unwrap().objective;
                let best = case.expected("objective")[0];
                Some((
                    above(case.expected("libmtl_objective")[0], best),
                    above(ours, best),
                ))
            }
            "nash" | "fairgrad" if has(&case, "libmtl_w") => {
                let alpha = if method == "nash" {
                    1.0
                } else {
                    case.number("alpha")
                };
                // Where there is no answer there is nothing to miss.
                let ours = newton::solve(&gram, alpha, 200).ok();
                let peer = residual(&gram, &case.expected("libmtl_w"), alpha);
                ours.map(|w| (peer, residual(&gram, &w, alpha)))
            }
            _ => None,
        };
        if let Some((peer, ours)) = found {
            assert!(
                ours <= peer.max(1e-6) || peer.is_nan(),
                "{}: {ours} {peer}",
                case.name()
            );
            let which = match method {
                "mgda" => format!("mgda, {}", case.param("norm").as_str().unwrap()),
                "fairgrad" => format!("fairgrad, alpha {}", case.number("alpha")),
                other => other.to_owned(),
            };
            table
                .entry((which, kind))
                .or_default()
                .add(&case, peer, ours);
        }
    }
    println!(
        "| method | gradients | cases | peer misses | peer's worst | in | our worst |\n|---|---|---|---|---|---|---|"
    );
    for ((method, kind), r) in &table {
        println!(
            "| {method} | {kind} | {} | {} | {:.1e} | {} | {:.1e} |",
            r.cases, r.missed, r.peer, r.where_, r.ours
        );
    }
    assert!(table.values().all(|r| r.ours < 1e-6));
}
