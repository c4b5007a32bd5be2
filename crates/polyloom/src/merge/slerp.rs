//! `slerp`: from the base to one other model along the arc between them.

use super::gram::{Combine, Gram};
use super::method::{Base, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "slerp",
    summary: "Spherical interpolation between the base and one model",
    source: "Shoemake 1985; mergekit 0.1.5 merge_methods/slerp.py",
    formula: "With `a = W0`, `b = W1` flattened, `c = cos(a, b)`, `h = acos c`: \
              `R = (sin((1-t) h) a + sin(t h) b) / sin h`; if `|c| > 0.9995`, `R = (1-t) a + t b`.",
    differs: "",
    cost: "two passes, O(elements)",
    base: Base::Required,
    experts: (1, 1),
    deltas: false,
    scope: Scope::Tensor,
    params: &[Param::shared(
        "t",
        Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
        Unset::Required,
        "Position on the arc: 0 is the base, 1 the other model.",
    )],
    on: None,
    golden: Golden::Cases(&["slerp"]),
    missing: Missing::CopyLone,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Slerp];

struct Slerp;

impl Method for Slerp {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let t = job.tensors[0].shared.number("t");
        let solve = Box::new(move |gram: &Gram| {
            let c = cosine(gram, 1e-8);
            Ok(if c.abs() > 0.9995 {
                vec![1.0 - t, t]
            } else {
                on_arc(c, t)
            })
        });
        Ok(Box::new(Combine::new(1, true, false, solve)))
    }
}

/// Cosine of two vectors; a norm up to `least` counts as 1.
fn cosine(gram: &Gram, least: f64) -> f64 {
    let length = |i| match gram.norm(i) {
        n if n <= least => 1.0,
        n => n,
    };
    (gram.dot(0, 1) / (length(0) * length(1))).clamp(-1.0, 1.0)
}

/// Factors of the two ends at position `t` of an arc whose angle has cosine `c`.
pub(super) fn on_arc(c: f64, t: f64) -> Vec<f64> {
    let h = c.acos();
    vec![((1.0 - t) * h).sin() / h.sin(), (t * h).sin() / h.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_circle_by_hand() {
        let gram = Gram::of(&[&[1.0, 0.0], &[0.0, 2.0]]);
        let f = on_arc(cosine(&gram, 1e-8), 1.0 / 3.0);
        // sin 60 and sin 30 degrees over sin 90.
        assert!((f[0] - 0.75f64.sqrt()).abs() < 1e-12 && (f[1] - 0.5).abs() < 1e-12);
        // A zero vector has no angle to anything.
        assert_eq!(cosine(&Gram::of(&[&[0.0, 0.0], &[0.0, 2.0]]), 1e-8), 0.0);
    }
}
