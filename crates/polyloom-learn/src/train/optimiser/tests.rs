//! Optimisers by hand and beside PyTorch.

use super::*;
use crate::engine::{Value, tensor};
use crate::ops;

fn parameters() -> Parameters {
    let matrix = tensor(vec![1.0, -2.0, 0.5, 3.0], (2, 2)).unwrap();
    Parameters::new([
        ("m".to_owned(), matrix),
        ("b".to_owned(), tensor(vec![1.0, 1.0], 2).unwrap()),
    ])
    .unwrap()
}

fn loss(p: &Parameters) -> Value {
    let x = Value::constant(tensor(vec![1.0, 2.0], (1, 2)).unwrap());
    let y = ops::linear(
        &x,
        &p.get("m").unwrap().value,
        Some(&p.get("b").unwrap().value),
    )
    .unwrap();
    ops::mean(&ops::mul(&y, &y).unwrap()).unwrap()
}

fn run(optimiser: &mut Optimiser, p: &Parameters, steps: usize) -> Vec<f32> {
    for _ in 0..steps {
        let mut gradients = p.gradients().unwrap();
        loss(p).backward_into(&mut gradients).unwrap();
        optimiser.step(p, &gradients, 0.05).unwrap();
    }
    p.weights().unwrap().to_vec()
}

#[test]
fn a_loss_falls_and_a_state_goes_on_to_the_bit() {
    let p = parameters();
    let mut optimiser = Optimiser {
        clip: 1.0,
        spare_vectors: true,
        ..Optimiser::new(Rule::adamw(0.1), &p)
    };
    let before = loss(&p).number().unwrap();
    run(&mut optimiser, &p, 10);
    let (weights, saved) = (p.weights().unwrap().to_vec(), optimiser.clone());
    let end = run(&mut optimiser, &p, 10);
    assert!(loss(&p).number().unwrap() < 0.3 * before);
    let again = parameters();
    again.update(|w, _| w.copy_from_slice(&weights)).unwrap();
    let mut other = Optimiser {
        clip: 1.0,
        spare_vectors: true,
        ..Optimiser::new(Rule::adamw(0.1), &again)
    };
    other
        .restore(saved.steps, &[], saved.state().to_vec())
        .unwrap();
    assert_eq!(run(&mut other, &again, 10), end);
    assert!(other.restore(1, &[], vec![vec![0.0; 6]]).is_err());
}

#[test]
fn what_stays_stays() {
    let p = parameters();
    let mut optimiser = Optimiser {
        clip: 1.0,
        still: 4,
        ..Optimiser::new(Rule::adamw(0.1), &p)
    };
    let end = run(&mut optimiser, &p, 3);
    assert_eq!(end[..4], [1.0, -2.0, 0.5, 3.0]);
    assert!(end[4..] != [1.0, 1.0]);
    let new = optimiser.anew(&p, None).unwrap();
    assert_eq!((new.steps, new.still, new.state()[0][4]), (0, 4, 0.0));
}

#[test]
fn clipping_by_hand_and_bad_gradients() {
    let p = parameters();
    let mut gradients = p.gradients().unwrap();
    // y = (-2, 7.5), d/dy of the mean of squares = y: the gradients' length is √(4 + 56.25) √(1 + 4 + 1).
    loss(&p).backward_into(&mut gradients).unwrap();
    let mut sgd = Optimiser {
        clip: 1.0,
        ..Optimiser::new(
            Rule::Sgd {
                momentum: 0.0,
                decay: 0.0,
                nesterov: false,
            },
            &p,
        )
    };
    let seen = sgd.step(&p, &gradients, 1.0).unwrap();
    let length = (60.25f64 * 6.0).sqrt();
    assert!((seen.length - length).abs() < 1e-4);
    assert!((f64::from(p.weights().unwrap()[0]) - (1.0 + 2.0 / length)).abs() < 1e-5);
    p.update(|w, _| w[0] = f32::NAN).unwrap();
    let mut gradients = p.gradients().unwrap();
    loss(&p).backward_into(&mut gradients).unwrap();
    let before: Vec<u32> = p.weights().unwrap().iter().map(|x| x.to_bits()).collect();
    let error = sgd.step(&p, &gradients, 1.0).unwrap_err().to_string();
    assert!(
        error.contains("not finite; the first is that of `m`"),
        "{error}"
    );
    assert_eq!(
        p.weights()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect::<Vec<_>>(),
        before
    );
}

/// Two columns of four rows, looked up in three steps; the loss is the sum of what was found times these numbers.
const STEPS: [(&[u32], &[f32]); 3] = [
    (&[0, 2, 0], &[1.0, 2.0, -1.0, 0.5, 0.5, -3.0]),
    (&[1, 2], &[2.0, 1.0, 1.0, 1.0]),
    (&[0], &[-4.0, 0.125]),
];

fn table() -> Parameters {
    let numbers = vec![1.0, -2.0, 0.5, 3.0, -1.5, 0.25, 2.0, 1.0];
    Parameters::new([("table".to_owned(), tensor(numbers, (4, 2)).unwrap())]).unwrap()
}

fn found(p: &Parameters, ids: &[u32]) -> Value {
    ops::embedding(&p.get("table").unwrap().value, ids, &[ids.len()]).unwrap()
}

fn rule(decay: f32) -> Rule {
    Rule::Adam {
        betas: [0.9, 0.99],
        eps: 1e-8,
        decay,
        coupled: false,
    }
}

fn looked_up(tables: Tables, decay: f32) -> (Vec<f32>, Vec<Vec<f32>>) {
    let p = table();
    let mut optimiser = Optimiser {
        tables,
        ..Optimiser::new(rule(decay), &p)
    };
    for (ids, numbers) in STEPS {
        let numbers = tensor(numbers.to_vec(), (ids.len(), 2)).unwrap();
        let loss =
            ops::sum(&ops::mul(&found(&p, ids), &Value::constant(numbers)).unwrap()).unwrap();
        let mut gradients = optimiser.gradients(&p).unwrap();
        loss.backward_into(&mut gradients).unwrap();
        optimiser.step(&p, &gradients, 0.1).unwrap();
    }
    (p.weights().unwrap().to_vec(), optimiser.state().to_vec())
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-6, "{a} and {b}");
    }
}

/// torch.optim.SparseAdam, Adam and AdamW of PyTorch 2.15, betas (0.9, 0.99), rate 0.1, on the same steps.
#[test]
fn tables_beside_pytorch() {
    let (weights, moments) = looked_up(Tables::Lazy, 0.0);
    near(
        &weights,
        &[
            0.939_472_9,
            -1.850_852_6,
            0.425_754,
            2.925_754,
            -1.405_263_2,
            0.053_612_53,
            2.0,
            1.0,
        ],
    );
    near(
        &moments[0],
        &[-0.265, -0.0775, 0.2, 0.1, 0.01, 0.145, 0.0, 0.0],
    );
    near(
        &moments[1],
        &[
            0.182_275,
            0.010_056_25,
            0.04,
            0.01,
            0.0199,
            0.012_475,
            0.0,
            0.0,
        ],
    );
    let (weights, moments) = looked_up(Tables::Dense, 0.0);
    near(
        &weights,
        &[
            0.874_351_1,
            -1.789_186_7,
            0.368_231_06,
            2.868_231,
            -1.409_340_9,
            -0.021_064_825,
            2.0,
            1.0,
        ],
    );
    near(
        &moments[0],
        &[-0.2785, -0.0685, 0.18, 0.09, 0.009, 0.1305, 0.0, 0.0],
    );
    near(
        &looked_up(Tables::Dense, 0.5).0,
        &[
            0.744_833_9,
            -1.517_044_5,
            0.300_630_84,
            2.444_068_2,
            -1.204_890_1,
            -0.042_151_727,
            1.714_75,
            0.857_375,
        ],
    );
    // Lazily a row decays in the steps that name it: the last one never, the second once by 1 - 0.1 * 0.5.
    let lazy = looked_up(Tables::Lazy, 0.5).0;
    assert_eq!(lazy[6..], [2.0, 1.0]);
    let moved = looked_up(Tables::Lazy, 0.0).0[2] - 0.5;
    assert!((lazy[2] - (0.5 * 0.95 + moved)).abs() < 1e-6);
}

/// What reaches a table.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Lookups,
    /// An output layer that is the embedding: the whole table, then lookups on the way back.
    Tied,
    /// A penalty on the whole table: lookups, then the whole.
    Penalty,
}

fn backward(p: &Parameters, gradients: &mut Gradients, reach: Reach) {
    let table = &p.get("table").unwrap().value;
    let penalty = ops::sum(&ops::mul(table, table).unwrap()).unwrap();
    let x = found(p, &[1, 3, 1]);
    let scores = match reach {
        Reach::Tied => ops::linear(&x, table, None).unwrap(),
        _ => ops::mul(&x, &x).unwrap(),
    };
    let mix = (0..scores.data().elem_count()).map(|i| (i as f32).cos());
    let mix = Value::constant(tensor(mix.collect(), scores.dims()).unwrap());
    let mut loss = ops::sum(&ops::mul(&scores, &mix).unwrap()).unwrap();
    if reach == Reach::Penalty {
        loss = ops::add(&loss, &penalty).unwrap();
    }
    loss.backward_into(gradients).unwrap();
}

#[test]
fn gradients_by_rows_are_those_of_the_whole() {
    for reach in [Reach::Lookups, Reach::Tied, Reach::Penalty] {
        let p = table();
        let (mut whole, mut rows) = (p.gradients().unwrap(), p.gradients_by_rows().unwrap());
        // Twice: gradients add up.
        for _ in 0..2 {
            backward(&p, &mut whole, reach);
        }
        let expected = p.gathered(&whole).unwrap().to_vec();
        for _ in 0..2 {
            backward(&p, &mut rows, reach);
        }
        let kept = rows.rows(&p.get("table").unwrap().value);
        match reach {
            Reach::Lookups => assert_eq!(kept.unwrap().rows, [1, 3]),
            _ => assert!(kept.is_none()),
        }
        near(&p.gathered(&rows).unwrap(), &expected);
        let run = |tables| {
            let p = table();
            let mut optimiser = Optimiser {
                tables,
                clip: 0.5,
                ..Optimiser::new(rule(0.0), &p)
            };
            let mut all = Vec::new();
            for _ in 0..2 {
                let mut gradients = optimiser.gradients(&p).unwrap();
                backward(&p, &mut gradients, reach);
                let seen = optimiser.step(&p, &gradients, 0.1).unwrap();
                assert!(seen.scale < 1.0, "clipped");
                all.push(seen.length as f32);
            }
            all.extend(p.weights().unwrap().iter());
            all
        };
        near(&run(Tables::Lazy), &run(Tables::Dense));
    }
}

#[test]
fn lazy_tables_ask_for_rows() {
    let p = table();
    let mut optimiser = Optimiser {
        tables: Tables::Lazy,
        ..Optimiser::new(Rule::adamw(0.1), &p)
    };
    let mut gradients = p.gradients().unwrap();
    backward(&p, &mut gradients, Reach::Lookups);
    let said = optimiser.step(&p, &gradients, 0.1).unwrap_err().to_string();
    assert!(said.contains("Optimiser::gradients"), "{said}");
    // A pass that reaches nothing moves nothing.
    let before = p.weights().unwrap().to_vec();
    let gradients = optimiser.gradients(&p).unwrap();
    assert_eq!(optimiser.step(&p, &gradients, 0.1).unwrap().length, 0.0);
    assert_eq!(p.weights().unwrap().to_vec(), before);
    p.update(|w, _| w[2] = f32::NAN).unwrap();
    let mut gradients = optimiser.gradients(&p).unwrap();
    backward(&p, &mut gradients, Reach::Lookups);
    let said = optimiser.step(&p, &gradients, 0.1).unwrap_err().to_string();
    assert!(said.contains("the first is that of `table`"), "{said}");
}
