//! `magmax`: per element, the entry of the largest magnitude.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset,
};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "magmax",
    summary: "Takes, per element, the task-vector entry of the largest magnitude",
    source: "MagMax (Marczak et al. 2024), section 4",
    formula: "`V = lambda D_t` with `t = argmax_t |D_t|` per element; of equal magnitudes the later expert's.",
    differs: "",
    cost: "one pass, O(elements x experts)",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[Param::shared(
        "lambda",
        Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
        Unset::Number(0.5),
        "Factor of the merged vector.",
    )],
    on: None,
    golden: Golden::Cases(&["magmax"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&MagMax];

struct MagMax;

struct Largest(f32);

impl Method for MagMax {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(Largest(
            job.tensors[0].shared.number("lambda") as f32
        )))
    }
}

impl Kernel for Largest {
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        for input in chunk.inputs {
            for (o, x) in out.iter_mut().zip(*input) {
                *o = if x.abs() >= o.abs() { *x } else { *o };
            }
        }
        out.iter_mut().for_each(|o| *o *= self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn the_largest_magnitude_wins_and_the_later_of_equals() {
        let got = merged(
            "magmax",
            &[("lambda", 1.0.into())],
            &[&[1.0, -3.0, 2.0], &[-2.0, 1.0, -2.0]],
        );
        assert_eq!(got, [-2.0, -3.0, -2.0]);
    }
}
