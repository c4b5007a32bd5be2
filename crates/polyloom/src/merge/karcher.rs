//! `karcher`: the Riemannian mean of the inputs' directions.

use super::gram::{Combine, Gram};
use super::method::{Base, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "karcher",
    summary: "Mean direction on the sphere by fixed-point steps, with the average length",
    source: "Karcher 1977; mergekit 0.1.5 merge_methods/karcher.py",
    formula: "From `m` = direction of the mean of unit vectors `u_i`, repeat: `h_i = acos(m.u_i)`, \
              `T = mean_i (h_i / sin h_i)(u_i - cos(h_i) m)`, `m = cos|T| m + sin|T| T/|T|`, until `|T| < tol`; \
              `R = m mean_i |W_i|`.",
    differs: "An input exactly opposite to `m` pulls nowhere; the peer divides by zero.",
    cost: "two passes, O(elements x inputs^2)",
    base: Base::Ignored,
    experts: (1, usize::MAX),
    deltas: false,
    scope: Scope::Tensor,
    params: &[
        Param::shared(
            "max_iter",
            Kind::Integer(0, 1_000_000),
            Unset::Number(10.0),
            "Most steps.",
        ),
        Param::shared(
            "tol",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1e-5),
            "Step length to stop at; inputs no longer than this have no direction.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["karcher"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Karcher];

struct Karcher;

impl Method for Karcher {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let shared = &job.tensors[0].shared;
        let (steps, tol) = (shared.number("max_iter") as u64, shared.number("tol"));
        let solve = Box::new(move |gram: &Gram| Ok(factors(gram, steps, tol)));
        let n = job.experts.len();
        Ok(Box::new(Combine::new(n, false, false, solve)))
    }
}

fn factors(gram: &Gram, steps: u64, tol: f64) -> Vec<f64> {
    let n = gram.len();
    let norms: Vec<f64> = (0..n).map(|i| gram.norm(i)).collect();
    let used: Vec<bool> = norms.iter().map(|x| *x > tol).collect();
    let Some(first) = used.iter().position(|u| *u) else {
        return vec![0.0; n];
    };
    // Unused vectors keep factor 0; a length of 1 avoids 0/0.
    let lengths: Vec<f64> = (0..n)
        .map(|i| if used[i] { norms[i] } else { 1.0 })
        .collect();
    let units = gram.divided(&lengths);
    let share = 1.0 / used.iter().filter(|u| **u).count() as f64;
    let mut m: Vec<f64> = used.iter().map(|u| if *u { share } else { 0.0 }).collect();
    let length = units.norm_of_sum(&m);
    if length < tol {
        m.fill(0.0);
        m[first] = 1.0;
    } else {
        m.iter_mut().for_each(|x| *x /= length);
    }
    for _ in 0..steps {
        let mut step = vec![0.0; n];
        let mut back = 0.0;
        for i in (0..n).filter(|i| used[*i]) {
            let c = units.dot_sum(i, &m).clamp(-1.0, 1.0);
            let h = c.acos();
            if h < tol || h.sin() < 1e-12 {
                continue;
            }
            let pull = share * h / h.sin();
            step[i] += pull;
            back += pull * c;
        }
        for (s, m) in step.iter_mut().zip(&m) {
            *s -= back * m;
        }
        let length = units.norm_of_sum(&step);
        if length < tol || length == 0.0 {
            break;
        }
        let (sin, cos) = length.sin_cos();
        for (m, s) in m.iter_mut().zip(&step) {
            *m = cos * *m + sin * s / length;
        }
        let length = units.norm_of_sum(&m);
        if length > 0.0 {
            m.iter_mut().for_each(|x| *x /= length);
        }
    }
    let mean = norms.iter().sum::<f64>() / n as f64;
    m.iter().zip(&lengths).map(|(m, l)| m * mean / l).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Two directions: halfway between them. A third input without length counts for the scale only.
        let gram = Gram::of(&[&[2.0, 0.0], &[0.0, 4.0], &[0.0, 0.0]]);
        let f = factors(&gram, 10, 1e-5);
        let want = 2.0 * 0.5f64.sqrt();
        assert!((f[0] * 2.0 - want).abs() < 1e-9 && (f[1] * 4.0 - want).abs() < 1e-9);
        assert_eq!(f[2], 0.0);
        assert_eq!(factors(&Gram::of(&[&[0.0], &[0.0]]), 10, 1e-5), [0.0, 0.0]);
        // Opposite inputs: the first one's direction, no NaN.
        let f = factors(&Gram::of(&[&[1.0, 0.0], &[-1.0, 0.0]]), 10, 1e-5);
        assert_eq!(f, [1.0, 0.0]);
    }
}
