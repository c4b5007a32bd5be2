use super::*;
use crate::engine::{Parameters, slice};
use crate::models::{Penalised, Plain, Trained};

const WIDTH: usize = 3;
const SIZES: [usize; 2] = [WIDTH, 4];

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
    Experts::new(config, SIZES, Activation::Gelu).unwrap()
}

fn drawn(of: &Experts) -> Vec<(String, crate::engine::Tensor)> {
    let one = |(part, shape, _): Part| {
        let stream = Stream::new(5, &part, 0);
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
    let goals: Vec<Option<u32>> = goals.iter().map(|g| Some(*g)).collect();
    let made = of.forward(source, "moe", x, &goals).unwrap();
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

/// The tensors of a goal alone, which must have the shapes that it declares.
fn taken(
    of: &Experts,
    whole: &Plain,
    goal: usize,
    alone: &Experts,
) -> Vec<(String, crate::engine::Tensor)> {
    let tensor = |part: &str| Ok(whole.tensor(&format!("moe.{part}"))?.data().clone());
    let one = |(part, shape, _): Part| {
        let kept = of.part(goal, &part, &tensor).unwrap().unwrap();
        assert_eq!(kept.dims(), shape, "{part}");
        (format!("moe.{part}"), kept)
    };
    alone.tensors().into_iter().map(one).collect()
}

/// A goal's own part says the same to the bit.
#[test]
fn a_goal_can_be_taken_out() {
    for gate in GATES {
        let of = experts(gate, |_| {});
        let whole = Plain::new(drawn(&of));
        let own = Experts::new(of.alone(1).unwrap(), SIZES, Activation::Gelu).unwrap();
        let parts = taken(&of, &whole, 1, &own);
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
                (c.switch, c.entropy) = (0.3, 0.2);
                (c.top_p, c.renormalise) = (top_p, renormalise);
                c.noise = Some(0.1);
            });
            let parameters = Parameters::new(drawn(&of)).unwrap();
            let frozen = Plain::default();
            let (x, goals) = (rows(8), [0, 1, 2, 0, 9, 2, 0, 0]);
            // One is filling.
            let goals = goals.map(|g| (g < 9).then_some(g));
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
        let made = Experts::new(config, SIZES, Activation::Gelu);
        made.unwrap_err().to_string()
    };
    assert!(wrong(|c| c.experts = 0).contains("moe.experts"));
    assert!(wrong(|c| c.top_k = 17).contains("moe.top_k 17 of 16"));
    assert!(wrong(|c| (c.gate, c.window) = (Gate::Window, 3)).contains("of 3 of 16"));
    assert!(wrong(|c| c.top_p = Some(2.0)).contains("moe.top_p"));
    assert!(wrong(|c| c.every = 0).contains("moe.every"));
    assert!(wrong(|c| c.every = 5).contains("none has experts"));
    assert!(wrong(|c| c.last = Some(5)).contains("moe.last 5 of 4"));
    assert!(wrong(|c| c.last = Some(0)).contains("moe.last 0"));
    assert!(wrong(|c| c.switch = -1.0).contains("moe.switch"));
    assert!(wrong(|c| c.entropy = f32::INFINITY).contains("moe.entropy"));
    assert!(wrong(|c| c.balance = f32::NAN).contains("moe.balance"));
    let mutual = |c: &mut Config| (c.gate, c.mutual_information) = (Gate::Shared, 1.0);
    assert!(wrong(mutual).contains("mutual_information"));
    let of = experts(Gate::Goal, |_| {});
    let source = Plain::new(drawn(&of));
    let goals = [Some(0), Some(3)];
    assert!(of.forward(&source, "moe", &rows(2), &goals).is_err());
    assert!(of.forward(&source, "moe", &rows(2), &goals[..1]).is_err());
    // With a share of probability nobody asks how many experts a token has.
    experts(Gate::Goal, |c| {
        (c.experts, c.top_k, c.top_p) = (2, 4, Some(0.4));
    });
}

#[test]
fn layers_and_rows_by_hand() {
    let every = experts(Gate::Goal, |_| {});
    let last = experts(Gate::Goal, |c| c.last = Some(1));
    let of = |e: &Experts| (0..4).map(|layer| e.are_in(layer)).collect::<Vec<_>>();
    assert_eq!(of(&every), [false, true, false, true]);
    assert_eq!(of(&last), [false, false, false, true]);
    let present = [true, true, true, false];
    let rows = every.of_rows(&[2, 1], 2, &present).unwrap();
    assert_eq!(rows, [Some(2), Some(2), Some(1), None]);
    let told = every.of_rows(&[2], 2, &present).unwrap_err().to_string();
    assert!(told.contains("1 goals for 2 inputs"), "{told}");
    let shared = experts(Gate::Shared, |_| {});
    let rows = shared.of_rows(&[], 2, &present).unwrap();
    assert_eq!(rows, [Some(0), Some(0), Some(0), None]);
    assert!(shared.of_rows(&[0, 0], 2, &present).is_err());
    // Two layers of 5 x 3 and 3 x 5 with their biases; a gate of 4 x 6 and a vector of 3.
    assert_eq!(every.sizes(), [38, 12]);
    assert_eq!(experts(Gate::Conditioned, |_| {}).sizes(), [38, 27]);
}

/// Filling says nothing, and changes nothing of what is said, nor of what is added to the loss.
#[test]
fn filling_takes_no_part() {
    for gate in GATES {
        let of = experts(gate, |c| {
            (c.balance, c.switch, c.entropy) = (0.2, 0.3, 0.4);
        });
        let plain = Plain::new(drawn(&of));
        let x = rows(6);
        let mixed = [Some(1), None, Some(0), None, None, Some(1)];
        let own = ops::rows(&x, &[0, 2, 5]).unwrap();
        let run = |x: &Value, goals: &[Option<u32>]| {
            let kept = Penalised::over(&plain);
            let said = of.forward(&kept, "moe", x, goals).unwrap();
            let values = slice(said.data()).unwrap().to_vec();
            (values, kept.sum().unwrap().number().unwrap())
        };
        let (whole, all) = run(&x, &mixed);
        let (some, own) = run(&own, &[Some(1), Some(0), Some(1)]);
        assert!((all - own).abs() < 1e-6, "{gate:?}");
        let row = |at: usize| &whole[at * WIDTH..][..WIDTH];
        assert_eq!([row(0), row(2), row(5)].concat(), some, "{gate:?}");
        assert!([1, 3, 4].iter().all(|at| row(*at) == [0.0; WIDTH]));
    }
    let of = experts(Gate::Goal, |_| {});
    let none = of.forward(&Plain::new(drawn(&of)), "moe", &rows(2), &[None; 2]);
    assert_eq!(slice(none.unwrap().data()).unwrap().to_vec(), [0.0; 6]);
}

/// Copies of one expert whose weights are renormalised say what it says, whatever the gate chooses.
#[test]
fn copies_are_one_layer() {
    for (gate, top_p) in [(Gate::Conditioned, None), (Gate::Goal, Some(0.4))] {
        let of = experts(gate, |c| (c.renormalise, c.top_p) = (true, top_p));
        let alike = drawn(&of).into_iter().map(|(name, t)| {
            let values = slice(&t).unwrap().to_vec();
            let values = match name.contains("gate") {
                true => values,
                false => values[..values.len() / 4].repeat(4),
            };
            (name, tensor(values, t.dims()).unwrap())
        });
        let source = Plain::new(alike);
        let x = rows(5);
        let found = said(&of, &source, &x, &[0, 1, 2, 0, 1]);
        let part = |name: &str| slab(&source.tensor(&format!("moe.{name}")).unwrap(), 0).unwrap();
        let y = ops::linear(&x, &part("up.weight"), Some(&part("up.bias"))).unwrap();
        let y = ops::activate(&y, Activation::Gelu).unwrap();
        let y = ops::linear(&y, &part("down.weight"), Some(&part("down.bias"))).unwrap();
        let wanted = slice(y.data()).unwrap().to_vec();
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(found.iter().zip(&wanted).all(near), "{gate:?}");
    }
}

/// Weights for another number of experts than the configuration says are refused, whatever the gate.
#[test]
fn weights_of_other_experts_are_refused() {
    for gate in GATES {
        let of = |n: usize| experts(gate, |c| (c.experts, c.top_k, c.window) = (n, 2, n.min(4)));
        let (x, goals) = (rows(6), [Some(2); 6]);
        for (said, there) in [(6, 4), (4, 6), (6, 3)] {
            let source = Plain::new(drawn(&of(there)));
            let found = of(said).forward(&source, "moe", &x, &goals);
            let same = gate == Gate::Window && said.min(4) == there.min(4);
            assert!(found.is_err() || same, "{gate:?} {said} {there}");
        }
    }
}

/// An added goal's gate sees the first experts and its own; the others answer as before, and each alone as in the whole.
#[test]
fn goals_are_added() {
    for gate in [Gate::Goal, Gate::Conditioned, Gate::Window] {
        let before = experts(gate, |_| {});
        let names = ["d", "e"].map(str::to_owned);
        let mut config = before.grown(&names[..1], 2).unwrap();
        assert!(before.grown(&["b".to_owned()], 2).is_err());
        config = Experts::new(config, SIZES, Activation::Gelu)
            .unwrap()
            .grown(&names[1..], 0)
            .unwrap();
        let of = Experts::new(config, SIZES, Activation::Gelu).unwrap();
        let source = Plain::new(drawn(&of));
        let old: Vec<String> = before.tensors().into_iter().map(|t| t.0).collect();
        assert!(of.tensors().len() > old.len());
        let x = rows(5);
        let kept = drawn(&of).into_iter();
        let kept = kept.filter(|(name, _)| old.iter().any(|o| *name == format!("moe.{o}")));
        let plain = Plain::new(kept);
        for goals in [[0, 1, 2, 0, 1], [2, 2, 2, 0, 0]] {
            assert_eq!(
                said(&of, &source, &x, &goals),
                said(&before, &plain, &x, &goals)
            );
        }
        assert_eq!(of.reached(3), [0, 1, 2, 3, 4, 5]);
        assert_eq!(of.reached(4), [0, 1, 2, 3]);
        assert_eq!(of.place(5), ("added.0.".to_owned(), 1));
        for goal in 0..5 {
            let whole = said(&of, &source, &x, &[goal; 5]);
            let alone = Experts::new(of.alone(goal as usize).unwrap(), SIZES, Activation::Gelu);
            let alone = alone.unwrap();
            let own = taken(&of, &source, goal as usize, &alone);
            assert_eq!(said(&alone, &Plain::new(own), &x, &[0; 5]), whole);
        }
        let mixed = said(&of, &source, &x, &[0, 3, 4, 1, 3]);
        assert!(mixed.iter().all(|v| v.is_finite()));
    }
    let goals = |n: usize, gate| Config {
        goals: (0..n).map(|i| i.to_string()).collect(),
        added: vec![1],
        gate,
        ..Config::default()
    };
    let refused = |config| Experts::new(config, SIZES, Activation::Gelu).is_err();
    assert!(refused(goals(1, Gate::Goal)) && !refused(goals(2, Gate::Goal)));
    assert!(refused(goals(2, Gate::Shared)));
}

/// A gated expert of one token by hand: `down (silu(gated x) * up x)`, without biases; gates of goals are none of a decoder's.
#[test]
fn gated_experts_by_hand() {
    let shared = |config: &mut Config| {
        (config.experts, config.top_k, config.inner) = (2, 1, 1);
        config.goals.clear();
    };
    let of = experts(Gate::Shared, shared).gated().unwrap();
    let names: Vec<String> = of.tensors().into_iter().map(|t| t.0).collect();
    assert_eq!(
        names,
        ["gate.weight", "gated.weight", "up.weight", "down.weight"]
    );
    assert_eq!(of.sizes(), [3 * WIDTH, 2 * WIDTH]);
    let t = |name: &str, values: &[f32], shape: &[usize]| {
        (
            format!("moe.{name}"),
            tensor(values.to_vec(), shape).unwrap(),
        )
    };
    // The second expert is chosen: its scores are 0 and 2.
    let source = Plain::new([
        t("gate.weight", &[0.0, 0.0, 0.0, 2.0, 0.0, 0.0], &[2, 3]),
        t("gated.weight", &[9.0, 9.0, 9.0, 1.0, 1.0, 0.0], &[2, 1, 3]),
        t("up.weight", &[9.0, 9.0, 9.0, 0.0, 3.0, 1.0], &[2, 1, 3]),
        t("down.weight", &[9.0, 9.0, 9.0, 1.0, 0.0, -2.0], &[2, 3, 1]),
    ]);
    let of = Experts {
        activation: Activation::Silu,
        ..of
    };
    let x = Value::constant(tensor(vec![1.0, 2.0, -1.0], (1, 3)).unwrap());
    let found = said(&of, &source, &x, &[0]);
    let gate = 1.0 / (1.0 + (-2f64).exp());
    let inner = 3.0 / (1.0 + (-3f64).exp()) * 5.0;
    for (found, due) in found.iter().zip([1.0, 0.0, -2.0]) {
        assert!(
            (f64::from(*found) - gate * inner * due).abs() < 1e-5,
            "{found}"
        );
    }
    let goal = experts(Gate::Goal, |_| {}).gated().unwrap_err();
    assert!(goal.to_string().contains("moe.gate of a decoder"), "{goal}");
}
