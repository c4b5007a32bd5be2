//! `lines` as a method: the merged vector of another merge, scaled by depth.

use super::compose::{PostKernel, step};
use super::method::{Base, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset};
use crate::error::{MergeError, Result};

const ANY: Kind = Kind::Number(f64::NEG_INFINITY, f64::INFINITY);

static SPEC: Spec = Spec {
    name: "lines",
    summary: "Scales another merge's vector by depth: shallow layers, which are shared, move less",
    source: "LiNeS (Wang et al. 2024); wang-kee/LiNeS src/eval/eval.py",
    formula: "With `T` the merged vector of `on`: `V = (alpha + beta i/(L-1)) T` in block i of 0..L-1 (`alpha T` if L = 1), `alpha T` outside blocks. `alpha = \"auto\"`: `(|sum_i D_i|_1 / |T|_1) / n` over the whole model. The same as the post-step `lines` behind the method of `on`.",
    differs: "Layers are those of the block list. The released code takes the first i whose `.i.` occurs in the name, so a number elsewhere in a name can win.",
    cost: "one pass besides the inner merge's, one more with `alpha = \"auto\"`, O(elements x experts)",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared(
            "alpha",
            Kind::NumberOr("auto"),
            Unset::Word("auto"),
            "Scale of the first block and of everything outside blocks, or \"auto\".",
        )
        .whole(),
        Param::shared(
            "beta",
            ANY,
            Unset::Required,
            "Added linearly up to the last block.",
        )
        .whole(),
        Param::shared(
            "block",
            Kind::Text,
            Unset::Nothing,
            "Name of the layer list, if it is not the one inferred.",
        )
        .whole(),
    ],
    on: Some("task_arithmetic"),
    golden: Golden::Cases(&["lines"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Lines];

struct Lines;

impl Method for Lines {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let rule = step("lines", false)
            .ok_or_else(|| MergeError::Internal("no post-step `lines`".into()))?;
        // All its words are the same for every tensor.
        let values = &job.tensors[0].shared;
        PostKernel::wrap(job.inner()?, &[(rule.name, values)], job)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::merged;

    #[test]
    fn outside_blocks_the_vector_is_scaled_by_alpha() {
        let inputs: [&[f32]; 2] = [&[1.0, 2.0], &[3.0, -2.0]];
        let words = [("alpha", json!(0.5)), ("beta", json!(7.0))];
        assert_eq!(merged("lines", &words, &inputs), [2.0, 0.0]);
        // The sum itself has an L1 ratio of 1, so alpha = 1/2 by the rule too.
        let words = [("alpha", json!("auto")), ("beta", json!(7.0))];
        assert_eq!(merged("lines", &words, &inputs), [2.0, 0.0]);
    }
}
