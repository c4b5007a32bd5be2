//! `multislerp`: spherical average of any number of models by one step from their mean direction.

use super::gram::{Combine, Gram};
use super::method::{Base, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset};
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "multislerp",
    summary: "Weighted spherical average of directions, with averaged lengths",
    source: "mergekit 0.1.5 merge_methods/multislerp.py",
    formula: "`u_i = x_i / (|x_i| + eps)`, `m` = direction of `sum_i w_i u_i`, `g = sum_i w_i (u_i - (u_i.m) m)`, \
              `k = |g| + eps`; `R = (m cos k + g sin(k) / k) sum_i w_i |x_i|`. The `x_i` are task vectors if there is \
              a base.",
    differs: "Where no input differs from the base the result is the base; the peer refuses three or more such inputs.",
    cost: "two passes, O(elements x inputs^2)",
    base: Base::Optional,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        Param::each(
            "weight",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::RequiredInYaml(1.0),
            "Share of this input.",
        ),
        Param::shared(
            "normalize_weights",
            Kind::Flag,
            Unset::Flag(true),
            "Divide the weights by their sum.",
        ),
        Param::shared(
            "eps",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1e-8),
            "Guard added to lengths.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["multislerp"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&MultiSlerp];

struct MultiSlerp;

impl Method for MultiSlerp {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let mut weights: Vec<f64> = tensor.each.iter().map(|v| v.number("weight")).collect();
        if tensor.shared.flag("normalize_weights") {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        let eps = tensor.shared.number("eps");
        let name = tensor.name.clone();
        let n = weights.len();
        let solve = Box::new(move |gram: &Gram| factors(&weights, eps, gram, &name));
        Ok(Box::new(Combine::new(n, false, false, solve)))
    }
}

fn factors(weights: &[f64], eps: f64, gram: &Gram, tensor: &str) -> Result<Vec<f64>> {
    let n = gram.len();
    if n == 1 {
        return Ok(vec![1.0]);
    }
    let norms: Vec<f64> = (0..n).map(|i| gram.norm(i)).collect();
    if norms.iter().all(|x| *x == 0.0) {
        return Ok(vec![0.0; n]);
    }
    let lengths: Vec<f64> = norms.iter().map(|x| x + eps).collect();
    let units = gram.divided(&lengths);
    let mean = units.norm_of_sum(weights);
    // A length below some 1e-8 of its parts is rounding of their dot products.
    let noise = 3e-8 * weights.iter().map(|w| w.abs()).sum::<f64>();
    if mean < eps.max(noise) {
        if n == 2 {
            return Ok(weights.to_vec());
        }
        return Err(MergeError::plan(
            "opposite-directions",
            format!("tensor `{tensor}`: the weighted directions of the inputs cancel, so they have no mean"),
        )
        .hint("change the weights, or use linear"));
    }
    let m: Vec<f64> = weights.iter().map(|w| w / mean).collect();
    let along: f64 = (0..n).map(|i| weights[i] * units.dot_sum(i, &m)).sum();
    let g: Vec<f64> = (0..n).map(|i| weights[i] - along * m[i]).collect();
    let k = units.norm_of_sum(&g) + eps;
    let length: f64 = weights.iter().zip(&norms).map(|(w, x)| w * x).sum();
    let sin = if k == 0.0 { 1.0 } else { k.sin() / k };
    Ok((0..n)
        .map(|i| (m[i] * k.cos() + g[i] * sin) * length / lengths[i])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_angle_by_hand() {
        // Directions (1,0) and (0,1) half each: direction (1,1)/sqrt 2, length (1 + 3)/2.
        let gram = Gram::of(&[&[1.0, 0.0], &[0.0, 3.0]]);
        let f = factors(&[0.5, 0.5], 1e-8, &gram, "t").unwrap();
        let want = 2.0 * 0.5f64.sqrt();
        assert!((f[0] - want).abs() < 1e-6 && (f[1] * 3.0 - want).abs() < 1e-6);
    }

    #[test]
    fn directions_that_cancel() {
        let x: &[f32] = &[0.3, -0.7];
        let y: &[f32] = &[-0.3, 0.7];
        let two = factors(&[0.5, 0.5], 1e-8, &Gram::of(&[x, y]), "t").unwrap();
        assert_eq!(two, [0.5, 0.5]);
        let gram = Gram::of(&[x, y, &[0.0, 0.0]]);
        let e = factors(&[0.4, 0.4, 0.2], 1e-8, &gram, "t").unwrap_err();
        assert_eq!(e.code(), "opposite-directions");
        let zero: &[f32] = &[0.0];
        let none = factors(&[0.4, 0.4, 0.2], 1e-8, &Gram::of(&[zero; 3]), "t").unwrap();
        assert_eq!(none, [0.0; 3]);
    }
}
