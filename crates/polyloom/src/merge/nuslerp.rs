//! `nuslerp`: spherical interpolation of two models or task vectors, by tensor, row or column.

use super::gram::{Combine, Gram};
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unset, typed,
};
use super::slerp::on_arc;
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "nuslerp",
    summary: "Spherical interpolation of two models, or of their task vectors if there is a base",
    source: "mergekit 0.1.5 merge_methods/nuslerp.py",
    formula: "`t = w_2 / (w_1 + w_2)` (0.5 if the sum is below 1e-6), then as `slerp` between the two, but with the \
              straight line only where `1 - cos^2 <= 1e-16`.",
    differs: "",
    cost: "two passes by tensor or column, one by row; O(elements)",
    base: Base::Optional,
    experts: (2, 2),
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
            "nuslerp_flatten",
            Kind::Flag,
            Unset::Flag(true),
            "One angle for the whole tensor.",
        ),
        Param::shared(
            "nuslerp_row_wise",
            Kind::Flag,
            Unset::Flag(false),
            "Without `nuslerp_flatten`: an angle per column (`true`) or per row of the last axis (`false`); \
             the names are the peer's.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["nuslerp"]),
    missing: Missing::CopyLone,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&NuSlerp];

struct NuSlerp;

impl Method for NuSlerp {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let (first, second) = (
            tensor.each[0].number("weight"),
            tensor.each[1].number("weight"),
        );
        let sum = first + second;
        let t = if sum.abs() < 1e-6 { 0.5 } else { second / sum };
        let flatten = tensor.shared.flag("nuslerp_flatten");
        if !flatten && tensor.shared.flag("nuslerp_row_wise") && tensor.shape.len() > 1 {
            let columns = tensor.shape[1..].iter().product();
            return Ok(Box::new(Columns {
                t,
                sums: vec![[0.0; 3]; columns],
                factors: vec![[0.0; 2]; columns],
            }));
        }
        let solve = Box::new(move |gram: &Gram| {
            Ok(factors(t, [gram.dot(0, 0), gram.dot(0, 1), gram.dot(1, 1)]).to_vec())
        });
        Ok(Box::new(Combine::new(2, false, !flatten, solve)))
    }
}

/// Factors of two vectors from their dot products 0-0, 0-1 and 1-1.
fn factors(t: f64, [aa, ab, bb]: [f64; 3]) -> [f64; 2] {
    const LEAST: f64 = 1e-14; // Square of the least norm, 1e-7.
    // One square root, so that opposite vectors have a cosine of exactly -1.
    let c = (ab / (aa.max(LEAST) * bb.max(LEAST)).sqrt()).clamp(-1.0, 1.0);
    if 1.0 - c * c <= 1e-16 {
        return [1.0 - t, t];
    }
    let f = on_arc(c, t);
    [f[0], f[1]]
}

/// One angle per index of all axes but the first.
struct Columns {
    t: f64,
    sums: Vec<[f64; 3]>,
    factors: Vec<[f32; 2]>,
}

impl Kernel for Columns {
    fn surveys(&self) -> bool {
        true
    }

    // Sums go down the columns in row order whatever the chunks are, so the adding up happens in `absorb`.
    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        let pairs: Vec<[f32; 2]> = chunk.inputs[0]
            .iter()
            .zip(chunk.inputs[1])
            .map(|(a, b)| [*a, *b])
            .collect();
        Ok(Box::new((chunk.start, pairs)))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        let (start, pairs) = typed::<(usize, Vec<[f32; 2]>)>(partial)?;
        let columns = self.sums.len();
        let mut rest = pairs.as_slice();
        let mut at = start % columns;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(columns - at));
            for ([aa, ab, bb], [a, b]) in self.sums[at..].iter_mut().zip(now) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                *aa += a * a;
                *ab += a * b;
                *bb += b * b;
            }
            (rest, at) = (later, 0);
        }
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        for (f, sums) in self.factors.iter_mut().zip(&self.sums) {
            *f = factors(self.t, *sums).map(|x| x as f32);
        }
        self.sums = vec![[0.0; 3]; self.sums.len()];
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let columns = self.factors.len();
        let mut from = 0;
        while from < out.len() {
            let at = (chunk.start + from) % columns;
            let to = (from + columns - at).min(out.len());
            for (((o, a), b), [x, y]) in out[from..to]
                .iter_mut()
                .zip(&chunk.inputs[0][from..to])
                .zip(&chunk.inputs[1][from..to])
                .zip(&self.factors[at..])
            {
                *o = x * a + y * b;
            }
            from = to;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_by_hand() {
        // A right angle, halfway.
        let half = 0.5f64.sqrt();
        let f = factors(0.5, [4.0, 0.0, 9.0]);
        assert!((f[0] - half).abs() < 1e-12 && (f[1] - half).abs() < 1e-12);
        // Parallel, opposite and zero vectors are joined by a line.
        assert_eq!(factors(0.25, [1.0, 2.0, 4.0]), [0.75, 0.25]);
        assert_eq!(factors(0.25, [0.37, -0.37, 0.37]), [0.75, 0.25]);
        assert!(factors(0.25, [0.0, 0.0, 0.0]).iter().all(|x| x.is_finite()));
    }
}
