use super::*;
use crate::engine::{Parameters, slice};
use crate::models::{Penalised, Plain, Trained};

const WIDTH: usize = 3;

fn experts(gate: Gate, more: impl FnOnce(&mut Config)) -> Experts {
    let mut config = Config {
        experts: 4,
        top_k: 2,
        gate,
        inner: 5,
        goals: ["a", "b", "c"].map(str::to_owned).to_vec(),
        ..Config::default()
    };
    more(&mut config);
    Experts::new(config, WIDTH, Activation::Gelu).unwrap()
}

fn drawn(of: &Experts) -> Vec<(String, crate::engine::Tensor)> {
    let one = |(part, shape, _): Part| {
        let stream = Stream::new(5, part, 0);
        let n: usize = shape.iter().product();
        let values = (0..n as u64).map(|i| 0.7 * stream.normal(i)).collect();
        (format!("moe.{part}"), tensor(values, shape).unwrap())
    };
    of.tensors().into_iter().map(one).collect()
}

fn rows(n: usize) -> Value {
    let stream = Stream::new(6, "rows", 0);
    let values = (0..(n * WIDTH) as u64).map(|i| stream.normal(i)).collect();
    Value::constant(tensor(values, (n, WIDTH)).unwrap())
}

fn said(of: &Experts, source: &dyn Source, x: &Value, goals: &[u32]) -> Vec<f32> {
    let made = of.forward(source, "moe", x, goals).unwrap();
    slice(made.data()).unwrap().to_vec()
}

const GATES: [Gate; 4] = [Gate::Goal, Gate::Conditioned, Gate::Window, Gate::Shared];

/// All experts run on every row, weighed by what the gate keeps: the same but for the order of sums.
#[test]
fn grouped_is_as_all_experts() {
    for gate in GATES {
        let of = experts(gate, |_| {});
        let source = Plain::new(drawn(&of));
        let (x, goals) = (rows(7), [0, 2, 1, 0, 1, 2, 2]);
        let found = said(&of, &source, &x, &goals);
        let part = |name: &str, at: usize| {
            slab(&source.tensor(&format!("moe.{name}")).unwrap(), at).unwrap()
        };
        for (row, goal) in goals.iter().enumerate() {
            let goal = *goal as usize;
            let x = ops::narrow(&x, 0, row, 1).unwrap();
            let p = of.gate(&source, "moe", goal, &x).unwrap();
            let kept = of.keep(&p).unwrap();
            let weights = slice(kept.weights.data()).unwrap().to_vec();
            let mut sum = [0f32; WIDTH];
            for (expert, weight) in of.of_goal(goal).zip(weights) {
                let up = (part("up.weight", expert), part("up.bias", expert));
                let down = (part("down.weight", expert), part("down.bias", expert));
                let y = ops::linear(&x, &up.0, Some(&up.1)).unwrap();
                let y = ops::activate(&y, Activation::Gelu).unwrap();
                let y = ops::linear(&y, &down.0, Some(&down.1)).unwrap();
                let y = slice(y.data()).unwrap();
                sum.iter_mut().zip(&*y).for_each(|(s, y)| *s += weight * y);
            }
            let own = &found[row * WIDTH..][..WIDTH];
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(own.iter().zip(&sum).all(near), "{gate:?} {own:?} {sum:?}");
        }
    }
}

/// What a goal's rows say does not depend on the goals beside them, nor on experts that its gate does not see.
#[test]
fn a_goal_is_alone() {
    for gate in GATES {
        let of = experts(gate, |_| {});
        let source = Plain::new(drawn(&of));
        let x = rows(6);
        let both = said(&of, &source, &x, &[0, 1, 0, 1, 1, 0]);
        let own = ops::rows(&x, &[0, 2, 5]).unwrap();
        let alone = said(&of, &source, &own, &[0; 3]);
        for (at, row) in [0, 2, 5].into_iter().zip(alone.chunks_exact(WIDTH)) {
            assert_eq!(&both[at * WIDTH..][..WIDTH], row, "{gate:?}");
        }
    }
    let of = experts(Gate::Window, |_| {});
    assert_eq!((of.of_goal(0), of.of_goal(2)), (0..2, 2..4));
    let before = said(&of, &Plain::new(drawn(&of)), &rows(4), &[0; 4]);
    let other = drawn(&of).into_iter().map(|(name, t)| {
        let mut values = slice(&t).unwrap().to_vec();
        let half = values.len() / 2;
        let gate = name.contains("gate");
        // Experts 2 and 3, and the gates of the other goals.
        let from = if gate { values.len() / 3 } else { half };
        values[from..].iter_mut().for_each(|x| *x = f32::NAN);
        (name, tensor(values, t.dims()).unwrap())
    });
    let after = said(&of, &Plain::new(other), &rows(4), &[0; 4]);
    assert!(before == after && before.iter().all(|x| x.is_finite()));
}

/// A goal's own part says the same to the bit.
#[test]
fn a_goal_can_be_taken_out() {
    for gate in GATES {
        let of = experts(gate, |_| {});
        let whole = Plain::new(drawn(&of));
        let own = Experts::new(of.alone(1).unwrap(), WIDTH, Activation::Gelu).unwrap();
        let parts = drawn(&of).into_iter().map(|(name, t)| {
            let part = of.part(1, name.strip_prefix("moe.").unwrap(), &t).unwrap();
            (name, part)
        });
        let parts: Vec<_> = parts.collect();
        for ((part, shape, _), (name, t)) in own.tensors().iter().zip(&parts) {
            assert_eq!(
                (format!("moe.{part}").as_str(), shape.as_slice()),
                (&**name, t.dims())
            );
        }
        let part = Plain::new(parts);
        let x = rows(6);
        assert_eq!(
            said(&of, &whole, &x, &[1; 6]),
            said(&own, &part, &x, &[0; 6])
        );
        assert!(of.alone(3).is_err());
    }
}

/// Slopes of all tensors beside differences, penalties among them; noise is drawn by the seed.
#[test]
fn slopes_beside_differences() {
    for (gate, mutual) in [
        (Gate::Goal, 0.3),
        (Gate::Conditioned, 0.3),
        (Gate::Window, 0.0),
        (Gate::Shared, 0.0),
    ] {
        for (top_p, renormalise) in [(None, false), (None, true), (Some(0.6), false)] {
            let of = experts(gate, |c| {
                (c.balance, c.mutual_information) = (0.2, mutual);
                (c.top_p, c.renormalise) = (top_p, renormalise);
                c.noise = Some(0.1);
            });
            let parameters = Parameters::new(drawn(&of)).unwrap();
            let frozen = Plain::default();
            let (x, goals) = (rows(8), [0, 1, 2, 0, 1, 2, 0, 0]);
            let loss = || {
                let trained = Trained {
                    parameters: &parameters,
                    frozen: &frozen,
                    seed: Some(3),
                };
                let kept = Penalised::over(&trained);
                let said = of.forward(&kept, "moe", &x, &goals).unwrap();
                let squares = ops::mul(&said, &said).unwrap();
                let sum = ops::sum(&squares).unwrap();
                ops::add(&sum, &kept.sum().unwrap()).unwrap()
            };
            let mut gradients = parameters.gradients().unwrap();
            loss().backward_into(&mut gradients).unwrap();
            let flat = parameters.gathered(&gradients).unwrap().to_vec();
            for p in parameters.iter() {
                let found = &flat[p.at.clone()];
                let of = |i: &usize| found[*i].abs();
                let most = (0..found.len()).max_by(|a, b| of(a).total_cmp(&of(b)));
                let at = p.at.start + most.unwrap();
                let number = |d: f32| {
                    parameters.update(|w, _| w[at] += d).unwrap();
                    let found = f64::from(loss().number().unwrap());
                    parameters.update(|w, _| w[at] -= d).unwrap();
                    found
                };
                let numeric = (number(1e-3) - number(-1e-3)) / 2e-3;
                let a = f64::from(flat[at]);
                assert!(
                    (a - numeric).abs() <= 0.03 * numeric.abs() + 2e-3,
                    "{gate:?} {top_p:?} {renormalise} {}: {a} and {numeric}",
                    p.name
                );
            }
        }
    }
}

#[test]
fn numbers_that_make_no_mixture_are_named() {
    let wrong = |more: fn(&mut Config)| {
        let mut config = Config::default();
        more(&mut config);
        let made = Experts::new(config, WIDTH, Activation::Gelu);
        made.unwrap_err().to_string()
    };
    assert!(wrong(|c| c.experts = 0).contains("moe.experts"));
    assert!(wrong(|c| c.top_k = 17).contains("moe.top_k 17 of 16"));
    assert!(wrong(|c| (c.gate, c.window) = (Gate::Window, 3)).contains("of 3 of 16"));
    assert!(wrong(|c| c.top_p = Some(2.0)).contains("moe.top_p"));
    assert!(wrong(|c| c.every = 0).contains("moe.every"));
    assert!(wrong(|c| c.balance = f32::NAN).contains("moe.balance"));
    let mutual = |c: &mut Config| (c.gate, c.mutual_information) = (Gate::Shared, 1.0);
    assert!(wrong(mutual).contains("mutual_information"));
    let of = experts(Gate::Goal, |_| {});
    let source = Plain::new(drawn(&of));
    assert!(of.forward(&source, "moe", &rows(2), &[0, 3]).is_err());
    assert!(of.forward(&source, "moe", &rows(2), &[0]).is_err());
}
