//! `linear`: the weighted average of all inputs.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset,
};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "linear",
    summary: "Weighted average of all inputs (model soup)",
    source: "Model soups (Wortsman et al. 2022); mergekit 0.1.5 merge_methods/linear.py",
    formula: "`R = sum_i w_i W_i`, divided by `sum_i w_i` if `normalize`. A listed base is one more input.",
    differs: "",
    cost: "one pass, O(elements x inputs)",
    base: Base::Ignored,
    experts: (1, usize::MAX),
    deltas: false,
    scope: Scope::Tensor,
    params: &[
        Param::each(
            "weight",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::RequiredInYaml(1.0),
            "Share of this input.",
        ),
        Param::shared(
            "normalize",
            Kind::Flag,
            Unset::Flag(true),
            "Divide by the sum of the weights.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["linear"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Linear];

struct Linear;

struct Average {
    weights: Vec<f32>,
}

impl Method for Linear {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let weights: Vec<f64> = tensor.each.iter().map(|v| v.number("weight")).collect();
        // No guard: weights that sum to zero give infinities, as in the peer; the planner warns.
        let divisor = if tensor.shared.flag("normalize") {
            weights.iter().sum()
        } else {
            1.0
        };
        Ok(Box::new(Average {
            weights: weights.iter().map(|w| (w / divisor) as f32).collect(),
        }))
    }
}

impl Kernel for Average {
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        weighted_sum(&self.weights, chunk.inputs, out);
        Ok(())
    }
}

/// `out = sum_i weights[i] * inputs[i]`, in input order.
pub(super) fn weighted_sum(weights: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
    match inputs.split_first() {
        None => out.fill(0.0),
        Some((first, rest)) => {
            for (o, x) in out.iter_mut().zip(*first) {
                *o = weights[0] * x;
            }
            for (x, w) in rest.iter().zip(&weights[1..]) {
                for (o, x) in out.iter_mut().zip(*x) {
                    *o += w * x;
                }
            }
        }
    }
}
