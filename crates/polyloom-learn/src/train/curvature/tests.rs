//! Estimates by hand, and beside curvatures that are known.

use super::*;
use crate::engine::{Parameters, tensor};
use crate::models::Plain;
use crate::tasks::Feature;

fn trainee(weights: Vec<f32>) -> Trainee {
    let n = weights.len();
    let parameters = Parameters::new([("w".to_owned(), tensor(weights, (1, n)).unwrap())]).unwrap();
    Trainee::over_weights(Plain::new([]), parameters, None).unwrap()
}

/// Of the loss `sum_i a_i w_i^2 / 2` and of one with a product: `H u` is exact but for rounding.
#[test]
fn products_by_hand() {
    let t = trainee(vec![1.0, -2.0, 0.5]);
    let stream = Stream::new(3, "sophia", 0);
    let u: Vec<f64> = (0..3).map(|i| f64::from(stream.normal(i))).collect();
    let gradient = || {
        let w = t.parameters.weights()?.to_vec();
        // L = w0^2 - 2 w1^2 + 3 w0 w1 + 4 w2^2 + w2^3
        Ok(vec![
            2.0 * w[0] + 3.0 * w[1],
            -4.0 * w[1] + 3.0 * w[0],
            8.0 * w[2] + 3.0 * w[2] * w[2],
        ])
    };
    let found = product(&t, stream, 1e-2, gradient).unwrap();
    let wanted = [
        u[0] * (2.0 * u[0] + 3.0 * u[1]),
        u[1] * (3.0 * u[0] - 4.0 * u[1]),
        u[2] * 11.0 * u[2],
    ];
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(
            (f64::from(*found) - wanted).abs() < 1e-3,
            "{found} and {wanted}"
        );
    }
    assert_eq!(t.parameters.weights().unwrap().to_vec(), [1.0, -2.0, 0.5]);
    // Weights of 0 have no length to take a share of.
    let zero = trainee(vec![0.0; 2]);
    let same = || Ok(zero.parameters.weights()?.to_vec());
    let found = product(&zero, stream, 1e-3, same).unwrap();
    assert!(
        (f64::from(found[0]) - u[0] * u[0]).abs() < 1e-3,
        "{found:?}"
    );
}

fn head(kind: HeadKind, labels: &[&str]) -> Head {
    let labels = labels.iter().map(|l| (*l).to_owned()).collect();
    Head::zeros("t", Feature::Cls, kind, labels, 1).unwrap()
}

fn scores(values: &[f32], width: usize) -> Value {
    Value::constant(tensor(values.to_vec(), (values.len() / width, width)).unwrap())
}

/// The share of draws is the probability, within four standard deviations.
#[test]
fn answers_are_drawn_by_their_probabilities() {
    let n = 4000;
    let near = |found: usize, of: usize, p: f64| {
        let off = (found as f64 / of as f64 - p).abs();
        assert!(
            off < 4.0 * (p * (1.0 - p) / of as f64).sqrt(),
            "{found} of {of}, {p}"
        );
    };
    let known = vec![true; n];
    let stream = Stream::new(1, "labels", 0);
    let three = head(HeadKind::Classification, &["a", "b", "c"]);
    // Softmax of (0, ln 2, ln 5): 1/8, 2/8, 5/8.
    let row = [0.0, 2f32.ln(), 5f32.ln()];
    let said = scores(&row.repeat(n), 3);
    let drawn = answers(&three, &said, &known, stream).unwrap();
    for (class, p) in [0.125, 0.25, 0.625].into_iter().enumerate() {
        let of = |w: &&Option<Wanted>| **w == Some(Wanted::Class(class as u32));
        near(drawn.iter().filter(of).count(), n, p);
    }
    let labels = head(HeadKind::Multilabel, &["a", "b"]);
    let said = scores(&[0.0, 3f32.ln()].repeat(n), 2);
    let drawn = answers(&labels, &said, &known, stream).unwrap();
    for (label, p) in [0.5, 0.75].into_iter().enumerate() {
        let holds = |w: &&Option<Wanted>| match w {
            Some(Wanted::Set(set)) => set.contains(&(label as u32)),
            _ => false,
        };
        near(drawn.iter().filter(holds).count(), n, p);
    }
    let mut line = head(HeadKind::Regression, &[]);
    line.scale = [10.0, 2.0];
    let mut some = known.clone();
    some[1] = false;
    let drawn = answers(&line, &scores(&[1.5].repeat(n), 1), &some, stream).unwrap();
    assert!(drawn[1].is_none());
    // 10 + 2 (1.5 + e), e of variance 1/2.
    let off: Vec<f64> = drawn
        .iter()
        .filter_map(|w| match w {
            Some(Wanted::Number(x)) => Some((x - 10.0) / 2.0 - 1.5),
            _ => None,
        })
        .collect();
    let mean = off.iter().sum::<f64>() / off.len() as f64;
    let variance = off.iter().map(|x| x * x).sum::<f64>() / off.len() as f64;
    assert!(
        mean.abs() < 0.05 && (variance - 0.5).abs() < 0.05,
        "{mean} {variance}"
    );
    // Scores that are far apart draw the sure one.
    let sure = answers(&three, &scores(&[0.0, 500.0, -500.0], 3), &[true], stream).unwrap();
    assert_eq!(sure, [Some(Wanted::Class(1))]);
}

/// A linear head over inputs x: the Gauss-Newton diagonal of the mean cross-entropy of two classes is
/// `mean(p (1 - p) x^2)`, and so is the mean over draws of the estimate; likewise `mean(2 x^2)` of the mean square.
#[test]
fn squares_of_drawn_labels_have_the_mean_of_gauss_and_newton() {
    let x = [1.0f32, -2.0, 0.5, 3.0];
    let inputs = Value::constant(tensor(x.to_vec(), (4, 1)).unwrap());
    let draws = 3000u64;
    let mean_of = |head: &Head, weights: Vec<f32>| -> f64 {
        let mut sum = 0.0;
        for i in 0..draws {
            let rows = head.outputs();
            let w = Value::leaf(tensor(weights.clone(), (rows, 1)).unwrap());
            let said = ops::linear(&inputs, &w, None).unwrap();
            let stream = Stream::new(5, "labels", i);
            let drawn = answers(head, &said, &[true; 4], stream).unwrap();
            let drawn: Vec<Option<&Wanted>> = drawn.iter().map(Option::as_ref).collect();
            let (mean, n) = loss(head, &said, &drawn, 0.0).unwrap().unwrap();
            let part = ops::scale(&mean, (n as f32).sqrt()).unwrap();
            let gradients = part.backward().unwrap();
            let g = slice(gradients.get(&w).unwrap()).unwrap()[0];
            sum += f64::from(g * g);
        }
        sum / draws as f64
    };
    let two = head(HeadKind::Classification, &["a", "b"]);
    let found = mean_of(&two, vec![0.4, 0.0]);
    let wanted: f64 = x
        .iter()
        .map(|x| {
            let p = 1.0 / (1.0 + f64::from(-0.4 * x).exp());
            p * (1.0 - p) * f64::from(x * x) / 4.0
        })
        .sum();
    assert!((found / wanted - 1.0).abs() < 0.1, "{found} and {wanted}");
    let line = head(HeadKind::Regression, &[]);
    let found = mean_of(&line, vec![0.4]);
    let wanted: f64 = x.iter().map(|x| 2.0 * f64::from(x * x) / 4.0).sum();
    assert!((found / wanted - 1.0).abs() < 0.1, "{found} and {wanted}");
}

#[test]
fn keys_that_do_not_go_together_are_refused() {
    let told = |more: &str| {
        let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{more}");
        Recipe::read(&text, "f", &[]).unwrap_err().to_string()
    };
    assert!(told("[train.sophia]\nevery = 5\n").contains("is about `optimiser"));
    let g = "optimiser = \"sophia_g\"\n";
    assert!(told(&format!("{g}[train.sophia]\nevery = 0\n")).contains("at least 1"));
    assert!(told(&format!("{g}[train.sophia]\nrho = -1.0\n")).contains("`train.sophia.rho` is -1"));
    assert!(told(&format!("{g}embedding_update = \"lazy\"\n")).contains("all rows of a table"));
    assert!(told(&format!("{g}[train.balance]\nmethod = \"mgda\"\n")).contains("curvature of one"));
    assert!(told(&format!("{g}[train.fuse]\nsources = [\"x\"]\n")).contains("draws labels"));
    let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{g}");
    let recipe = Recipe::read(&text, "f", &[]).unwrap();
    assert_eq!((recipe.betas(), recipe.decay()), ([0.965, 0.99], 0.1));
}
