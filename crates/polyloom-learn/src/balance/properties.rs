//! What holds for every method of the registry.

use polyloom_core::rng::Stream;
use serde_json::{Map, json};

use super::{At, Balance, Combined, Given, State, methods};

const PARAMETERS: usize = 40;

fn random(tasks: usize, seed: u64) -> Vec<Vec<f32>> {
    let s = Stream::new(seed, "balance", 0);
    let one = |t: usize| {
        let at = |i: usize| s.normal((t * PARAMETERS + i) as u64);
        (0..PARAMETERS).map(at).collect()
    };
    (0..tasks).map(one).collect()
}

fn begin(name: &str, tasks: usize) -> Balance {
    Balance::new(name, &Map::new(), tasks).unwrap()
}

/// A step in the second epoch or later, where every method is past its beginning.
fn step(
    b: &mut Balance,
    g: &[Vec<f32>],
    losses: &[Option<f64>],
    number: u64,
) -> (Combined, Vec<f32>) {
    let rows: Vec<&[f32]> = g.iter().map(Vec::as_slice).collect();
    let differences: Vec<Vec<f32>> = g
        .iter()
        .map(|g| g.iter().map(|x| 0.1 * x * x).collect())
        .collect();
    let differences: Vec<&[f32]> = differences.iter().map(Vec::as_slice).collect();
    let places = [
        ("a.weight".to_owned(), 0..30),
        ("a.bias".to_owned(), 30..PARAMETERS),
    ];
    let given = Given {
        losses,
        gradients: &rows,
        differences: Some(&differences),
        places: &places,
        at: At {
            step: number,
            epoch: number,
            steps: 100,
            rate: 0.01,
            seed: 3,
        },
    };
    let mut out = vec![f32::NAN; PARAMETERS];
    let combined = b.combine(&given, &mut out);
    assert!(out.iter().all(|x| x.is_finite()), "{}", b.method.name);
    (combined, out)
}

fn close(name: &str, a: &[f32], b: &[f32]) {
    let size = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * size + 1e-7, "{name}: {a} {b}");
    }
}

#[test]
fn every_method_is_documented() {
    let mut names = std::collections::BTreeSet::new();
    for method in methods() {
        let s = method;
        assert!(names.insert(s.name), "{} comes twice", s.name);
        for text in [s.summary, s.source, s.formula, s.degenerate] {
            assert!(!text.is_empty(), "{}", s.name);
        }
        for p in s.params {
            assert!(p.doc.ends_with('.'), "{}.{}", s.name, p.name);
        }
    }
    let error = Balance::new("mgad", &Map::new(), 2)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.hints(), ["did you mean `mgda`?"]);
    let given = json!({"c": -1.0});
    assert!(Balance::new("cagrad", given.as_object().unwrap(), 2).is_err());
}

#[test]
fn a_task_without_a_gradient_is_left_out() {
    let full = random(3, 1);
    let losses = [Some(0.5), Some(1.5), Some(0.7)];
    for method in methods() {
        let name = method.name;
        let mut with = vec![full[0].clone(), vec![0.0; PARAMETERS], full[2].clone()];
        let (mut a, mut b) = (begin(name, 3), begin(name, 3));
        let (zero, d) = step(&mut a, &with, &losses, 0);
        // No labelled row is the same as a gradient of zero, whatever lies in its place.
        with[1].fill(7.0);
        let (none, e) = step(&mut b, &with, &[losses[0], None, losses[2]], 0);
        assert_eq!((&zero.absent, &none.absent), (&vec![1], &vec![1]), "{name}");
        assert_eq!((zero.weights[1], zero.own[1]), (0.0, 1.0), "{name}");
        assert_eq!((&d, zero.unsolved), (&e, None), "{name}");
        assert_eq!(a.counts.absent, [0, 1, 0]);
        // Nothing at all.
        let (_, d) = step(&mut a, &with, &[None; 3], 1);
        assert!(d.iter().all(|x| *x == 0.0), "{name}");
    }
}

#[test]
fn the_order_of_tasks_does_not_count() {
    let g = random(3, 5);
    let losses = [Some(0.5), Some(1.5), Some(0.7)];
    for method in methods() {
        let name = method.name;
        // Random orders and weights are drawn by number of the task.
        if ["rlw", "pcgrad", "gradvac"].contains(&name) {
            continue;
        }
        let (mut a, mut b) = (begin(name, 3), begin(name, 3));
        for number in 0..3 {
            let (first, d) = step(&mut a, &g, &losses, number);
            let turned = [g[2].clone(), g[0].clone(), g[1].clone()];
            let (second, e) = step(&mut b, &turned, &[losses[2], losses[0], losses[1]], number);
            close(name, &d, &e);
            for (i, j) in [(0, 1), (1, 2), (2, 0)] {
                let (x, y) = (first.weights[i], second.weights[j]);
                assert!((x - y).abs() <= 1e-6 * x.abs().max(1.0), "{name}: {x} {y}");
            }
        }
    }
}

#[test]
fn twice_as_long_gradients() {
    // Directions that do not depend on the length of the gradients but for a factor.
    let g = random(3, 9);
    let long: Vec<Vec<f32>> = g
        .iter()
        .map(|g| g.iter().map(|x| 4.0 * x).collect())
        .collect();
    let losses = [Some(0.5), Some(1.5), Some(0.7)];
    for (name, power) in [
        ("mgda", 1),
        ("imtl", 1),
        ("aligned", 1),
        ("upgrad", 1),
        ("fairgrad", -1),
        ("equal", 1),
    ] {
        let (_, d) = step(&mut begin(name, 3), &g, &losses, 0);
        let (_, e) = step(&mut begin(name, 3), &long, &losses, 0);
        // Nash's weights fall as the length rises: d keeps its length.
        let factor = if power == 1 { 0.25 } else { 1.0 };
        let e: Vec<f32> = e.iter().map(|x| factor * x).collect();
        close(name, &e, &d);
    }
}

#[test]
fn no_loss_rises_where_the_method_says_so() {
    for case in 0..50 {
        let g = random(4, 100 + case);
        let losses = [Some(1.0); 4];
        for name in ["mgda", "nash", "fairgrad", "imtl"] {
            let (found, _) = step(&mut begin(name, 4), &g, &losses, 0);
            if name == "imtl" {
                // The same projection on all, of either sign.
                let conflict = found.conflict.as_ref().unwrap();
                let a = &conflict.alignment;
                assert!(a.iter().all(|x| (x - a[0]).abs() < 1e-5), "{a:?}");
            } else {
                assert_eq!(
                    found.conflict.as_ref().unwrap().hurt().count(),
                    0,
                    "{name} {case}"
                );
            }
        }
    }
}

#[test]
fn without_an_answer_equal_weights_are_taken_and_counted() {
    let g = random(1, 2).remove(0);
    let opposed = [g.clone(), g.iter().map(|x| -x).collect()];
    for name in ["nash", "fairgrad", "imtl"] {
        let mut b = begin(name, 2);
        let (found, d) = step(&mut b, &opposed, &[Some(1.0); 2], 0);
        assert!(found.unsolved.is_some(), "{name}");
        assert_eq!(
            (&found.weights[..], b.counts.unsolved),
            (&[0.5, 0.5][..], 1)
        );
        assert!(d.iter().all(|x| x.abs() < 1e-6));
    }
    for name in ["mgda", "cagrad", "aligned", "upgrad", "pcgrad"] {
        let (found, _) = step(&mut begin(name, 2), &opposed, &[Some(1.0); 2], 0);
        assert_eq!(found.unsolved, None, "{name}");
    }
}

#[test]
fn a_state_goes_on_to_the_bit() {
    let losses = [Some(0.5), Some(1.5), Some(0.7)];
    for method in methods() {
        let name = method.name;
        let mut one = begin(name, 3);
        for number in 0..4 {
            step(&mut one, &random(3, number), &losses, number);
            one.after(&[Some(0.4), Some(1.3), Some(0.7)]);
            one.validated(&[0.5, 0.4 + 0.1 * number as f64, 0.3]);
        }
        let state = one.state();
        let text = serde_json::to_string(&(&state, &one.counts)).unwrap();
        let (mut read, counts): (State, _) = serde_json::from_str(&text).unwrap();
        read.rows = state.rows;
        let mut two = begin(name, 3);
        two.restore(read, counts).unwrap();
        for number in 4..7 {
            let (a, d) = step(&mut one, &random(3, number), &losses, number);
            let (b, e) = step(&mut two, &random(3, number), &losses, number);
            assert_eq!((a, d), (b, e), "{name}");
        }
        assert_eq!(one.counts, two.counts, "{name}");
    }
}

#[test]
fn threads_do_not_count() {
    let losses = [Some(0.5), Some(1.5), Some(0.7)];
    for method in methods() {
        let name = method.name;
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut b = begin(name, 3);
                (0..3)
                    .map(|i| step(&mut b, &random(3, i), &losses, i))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(with(1), with(3), "{name}");
    }
}
