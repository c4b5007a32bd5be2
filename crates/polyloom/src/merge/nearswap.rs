//! `nearswap`: takes the other model where it is close to the base.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset,
};
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "nearswap",
    summary: "Takes the other model's value where it is near the base's",
    source: "mergekit 0.1.5 merge_methods/nearswap.py (after alchemonaut/QuartetAnemoi-70B)",
    formula: "`s = clamp(t / max(|W0 - W1|, 1e-6), 0, 1)`; `R = s W1 + (1 - s) W0`.",
    differs: "",
    cost: "one pass, O(elements)",
    base: Base::Required,
    experts: (1, 1),
    deltas: false,
    scope: Scope::Tensor,
    params: &[Param::shared(
        "t",
        Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
        Unset::Required,
        "Distance up to which the other model's value is taken whole.",
    )],
    on: None,
    golden: Golden::Cases(&["nearswap"]),
    missing: Missing::CopyBase,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&NearSwap];

struct NearSwap;

struct Swap(f32);

impl Method for NearSwap {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(Swap(job.tensors[0].shared.number("t") as f32)))
    }
}

impl Kernel for Swap {
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let (Some(base), [other]) = (chunk.base, chunk.inputs) else {
            return Err(MergeError::Internal(
                "nearswap needs a base and one model".into(),
            ));
        };
        for ((o, a), b) in out.iter_mut().zip(base).zip(*other) {
            let s = (self.0 / (a - b).abs().max(1e-6)).clamp(0.0, 1.0);
            *o = s * b + (1.0 - s) * a;
        }
        Ok(())
    }
}
