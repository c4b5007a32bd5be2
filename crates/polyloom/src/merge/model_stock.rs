//! `model_stock`: between base and average, by the angle between task vectors.

use super::gram::{Combine, Gram};
use super::method::{Base, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "model_stock",
    summary: "Moves from the base towards the average as far as the task vectors agree",
    source: "Model Stock (Jang et al. 2024), section 4; mergekit 0.1.5 merge_methods/model_stock.py",
    formula: "`c` = mean over pairs of `D_i.D_j / max(|D_i||D_j|, 1e-6)`; `t = n c / (1 + (n-1) c)` (0 if the \
              denominator is below 1e-6); `R = t mean_i W_i + (1-t) W0`.",
    differs: "",
    cost: "two passes (one with `filter_wise`), O(elements x experts^2)",
    base: Base::Required,
    experts: (2, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[Param::shared(
        "filter_wise",
        Kind::Flag,
        Unset::Flag(false),
        "One angle per row of the last axis instead of one per tensor.",
    )],
    on: None,
    golden: Golden::Cases(&["model_stock"]),
    missing: Missing::CopyBaseOrSkip,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&ModelStock];

struct ModelStock;

impl Method for ModelStock {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let by_row = job.tensors[0].shared.flag("filter_wise");
        let n = job.experts.len();
        let solve = Box::new(|gram: &Gram| Ok(vec![share(gram) / gram.len() as f64; gram.len()]));
        Ok(Box::new(Combine::new(n, false, by_row, solve)))
    }
}

/// How far to go from the base to the average.
fn share(gram: &Gram) -> f64 {
    let n = gram.len();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for i in 0..n {
        for j in i + 1..n {
            let c = gram.dot(i, j) / (gram.norm(i) * gram.norm(j)).max(1e-6);
            sum += c.clamp(-1.0, 1.0);
            pairs += 1.0;
        }
    }
    let c = sum / pairs;
    let n = n as f64;
    let den = 1.0 + (n - 1.0) * c;
    if den.abs() < 1e-6 { 0.0 } else { n * c / den }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_by_hand() {
        // 60 degrees: c = 1/2, t = 2 * 0.5 / 1.5.
        let t = share(&Gram::of(&[&[1.0, 0.0], &[0.5, 0.75f32.sqrt()]]));
        assert!((t - 2.0 / 3.0).abs() < 1e-6);
        // Opposite: the denominator is 0. Right angle and no vectors: the base.
        assert_eq!(share(&Gram::of(&[&[1.0], &[-1.0]])), 0.0);
        assert_eq!(share(&Gram::of(&[&[1.0, 0.0], &[0.0, 1.0]])), 0.0);
        assert_eq!(share(&Gram::of(&[&[0.0], &[0.0], &[0.0]])), 0.0);
        assert_eq!(share(&Gram::of(&[&[2.0], &[3.0], &[1.0]])), 1.0);
    }
}
