//! `passthrough`: one model's tensor as it is, for stacks of layers.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset,
};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "passthrough",
    summary: "Copies one model's tensors, scaled if asked",
    source: "mergekit 0.1.5 merge_methods/passthrough.py",
    formula: "`R = scale W`; without `scale` the values are unchanged.",
    differs: "",
    cost: "one pass, O(elements)",
    base: Base::Ignored,
    experts: (1, 1),
    deltas: false,
    scope: Scope::Tensor,
    params: &[Param::each(
        "scale",
        Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
        Unset::Nothing,
        "Factor of the tensor.",
    )],
    on: None,
    golden: Golden::Cases(&["passthrough"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Passthrough];

struct Passthrough;

struct Scale(Option<f32>);

impl Method for Passthrough {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let scale = job.tensors[0].each[0].maybe("scale");
        Ok(Box::new(Scale(scale.map(|x| x as f32))))
    }
}

impl Kernel for Scale {
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(chunk.inputs[0]);
        if let Some(scale) = self.0 {
            out.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::method::TensorJob;
    use super::*;

    #[test]
    fn values_stay_unless_scaled() {
        let tensor = TensorJob {
            name: "t".into(),
            shape: vec![3],
            shared: Default::default(),
            each: Vec::new(),
            layer: None,
            before: 0,
        };
        // A negative zero and a denormal would not survive arithmetic everywhere.
        let values = [-0.0f32, 1e-42, -3.5];
        let chunk = Chunk {
            tensor: &tensor,
            index: 0,
            start: 0,
            base: None,
            inputs: &[&values],
        };
        let mut out = [9.0; 3];
        Scale(None).apply(&chunk, &mut out).unwrap();
        assert_eq!(out.map(f32::to_bits), values.map(f32::to_bits));
        Scale(Some(2.0)).apply(&chunk, &mut out).unwrap();
        assert_eq!(out[2], -7.0);
    }
}
