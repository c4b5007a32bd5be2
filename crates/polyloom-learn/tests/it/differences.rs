//! Gradients beside finite differences.

use polyloom_learn::engine::{Parameters, Value};

/// Holds the gradient of `loss` against differences of `moved`, for every parameter at the element where it is largest;
/// both say the same at the weights that are there. Where `none` says so a gradient may be 0.
pub fn agree(
    who: &str,
    parameters: &Parameters,
    loss: &dyn Fn() -> Value,
    moved: &dyn Fn() -> Value,
    none: &dyn Fn(&str) -> bool,
) {
    let start = loss();
    let (a, b) = (start.number().unwrap(), moved().number().unwrap());
    assert!(
        (a - b).abs() <= 1e-5 * (1.0 + b.abs()),
        "{who}: {a} and {b}"
    );
    let mut gradients = parameters.gradients().unwrap();
    start.backward_into(&mut gradients).unwrap();
    let flat = parameters.gathered(&gradients).unwrap().to_vec();
    for p in parameters.iter() {
        let found = &flat[p.at.clone()];
        let of = |i: &usize| found[*i].abs();
        let largest = (0..found.len())
            .max_by(|a, b| of(a).total_cmp(&of(b)))
            .unwrap();
        assert!(
            found[largest] != 0.0 || none(&p.name),
            "{who}: no gradient for {}",
            p.name
        );
        let at = p.at.start + largest;
        let number = |d: f32| {
            parameters.update(|w, _| w[at] += d).unwrap();
            let found = f64::from(moved().number().unwrap());
            parameters.update(|w, _| w[at] -= d).unwrap();
            found
        };
        let h = 4e-3;
        let numeric = (number(h) - number(-h)) / f64::from(2.0 * h);
        let (a, b) = (f64::from(found[largest]), numeric);
        assert!(
            (a - b).abs() <= 0.03 * b.abs() + 2e-4,
            "{who}, {}: {a} and {b}",
            p.name
        );
    }
}
