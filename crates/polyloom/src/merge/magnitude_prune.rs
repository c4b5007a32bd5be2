//! `magnitude_prune`: keeps the largest entries of each task vector (or of the weights) and drops the rest.

use super::breadcrumbs_reference::cut_row;
use super::cuts::Cuts;
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unit, Unset,
};
use super::survey::magnitude_bits;
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "magnitude_prune",
    summary: "Keeps the largest entries of each task vector or of the weights, adds up",
    source: "global magnitude pruning; fusion-bench 0.2.33 method/pruning; rezazzr/breadcrumbs, magnitude baseline",
    formula: "Per scope of m entries: `density` keeps the `int(m density)` largest magnitudes, `drop` removes the `int(m drop)` smallest (ties by lowest index); `V = lambda sum_i` of what is left. `of = \"weights\"` ranks `W_i` and zeroes weights.",
    differs: "",
    cost: "one pass for rows and tensors of a row each, three for the whole model",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared("density", Kind::Number(0.0, 1.0), Unset::Nothing, "Share that is kept; 0.1 if neither this nor `drop` is given.").whole(),
        Param::shared("drop", Kind::Number(0.0, 1.0), Unset::Nothing, "Share that is removed, instead of `density`.").whole(),
        Param::shared("scope", Kind::Word(&[("model", "model"), ("tensor", "tensor"), ("row", "row")]), Unset::Word("model"), "What shares are counted over.").whole(),
        Param::shared(
            "of",
            Kind::Word(&[("task_vector", "task_vector"), ("weights", "weights")]),
            Unset::Word("task_vector"),
            "What is ranked and zeroed.",
        )
        .whole(),
        Param::shared(
            "others",
            Kind::Word(&[("prune", "prune"), ("keep", "keep"), ("base", "base")]),
            Unset::Word("prune"),
            "Treatment of tensors that are not 2-d and of embeddings: like the rest, whole, or the base's values.",
        )
        .whole(),
        Param::shared("lambda", Kind::Number(f64::NEG_INFINITY, f64::INFINITY), Unset::Number(1.0), "Factor of the merged vector."),
    ],
    on: None,
    golden: Golden::Cases(&["magnitude_diff_prune", "magnitude_topk_rows"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Prune];

struct Prune;

#[derive(Clone, Copy, PartialEq)]
enum Others {
    Prune,
    Keep,
    Base,
}

struct Pruned {
    cuts: Option<Cuts>,
    /// Largest entries kept of `m`.
    keep: fn(f64, u64) -> u64,
    share: f64,
    rows: bool,
    whole_tensor: bool,
    weights: bool,
    others: Others,
    lambdas: Vec<f32>,
}

impl Method for Prune {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let shared = &job.tensors[0].shared;
        let (share, keep): (f64, fn(f64, u64) -> u64) =
            match (shared.maybe("density"), shared.maybe("drop")) {
                (Some(_), Some(_)) => {
                    return Err(MergeError::plan(
                        "bad-value",
                        "`density` and `drop` say the same thing in two ways",
                    )
                    .hint("give one of them"));
                }
                (_, Some(drop)) => (drop, |drop, m| m - (m as f64 * drop) as u64),
                (density, None) => (density.unwrap_or(0.1), |density, m| {
                    (m as f64 * density) as u64
                }),
            };
        let scope = shared.word("scope");
        let others = match shared.word("others") {
            "keep" => Others::Keep,
            "base" => Others::Base,
            _ => Others::Prune,
        };
        let cuts = (scope == "model").then(|| {
            Cuts::new(job.experts.len(), move |d| {
                let k = keep(share, d);
                (k > 0 && k < d).then(|| d - k)
            })
        });
        Ok(Box::new(Pruned {
            cuts,
            keep,
            share,
            rows: scope == "row",
            whole_tensor: scope == "tensor",
            weights: shared.word("of") == "weights",
            others,
            lambdas: job
                .tensors
                .iter()
                .map(|t| t.shared.number("lambda") as f32)
                .collect(),
        }))
    }
}

impl Pruned {
    /// What is ranked: task vectors or weights.
    fn ranked<'a>(&self, chunk: &Chunk<'a>, i: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        match chunk.base {
            Some(base) if self.weights => {
                buffer.clear();
                buffer.extend(chunk.inputs[i].iter().zip(base).map(|(d, b)| d + b));
                buffer
            }
            _ => chunk.inputs[i],
        }
    }

    fn exempt(&self, chunk: &Chunk) -> bool {
        let shape = &chunk.tensor.shape;
        let vocabulary = shape
            .first()
            .is_some_and(|r| crate::vocab::is_vocab_tensor(&chunk.tensor.name, shape, *r));
        let embedding = vocabulary || chunk.tensor.name.contains("embedding");
        self.others != Others::Prune && (shape.len() != 2 || embedding)
    }
}

impl Kernel for Pruned {
    fn surveys(&self) -> bool {
        self.cuts.is_some()
    }

    fn unit(&self) -> Unit {
        if self.whole_tensor {
            Unit::Tensor
        } else if self.rows {
            Unit::Row
        } else {
            Unit::Chunk
        }
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        let Some(cuts) = &self.cuts else {
            return Ok(Box::new(()));
        };
        let mut buffers = vec![Vec::new(); chunk.inputs.len()];
        let inputs: Vec<&[f32]> = buffers
            .iter_mut()
            .enumerate()
            .map(|(i, b)| self.ranked(chunk, i, b))
            .collect();
        Ok(cuts.survey(
            round,
            &Chunk {
                inputs: &inputs,
                ..*chunk
            },
        ))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        self.cuts.as_mut().map_or(Ok(()), |c| c.absorb(partial))
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        Ok(self.cuts.as_mut().map_or(Next::Done, |c| c.finish(round)))
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        let lambda = self.lambdas[chunk.index];
        let exempt = self.exempt(chunk);
        if exempt && self.others == Others::Base {
            return Ok(());
        }
        let (mut buffer, mut kept, mut order) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..chunk.inputs.len() {
            buffer.clear();
            kept.clear();
            kept.extend_from_slice(self.ranked(chunk, i, &mut buffer));
            if !exempt {
                match &self.cuts {
                    Some(cuts) => {
                        let k = (self.keep)(self.share, cuts.elements());
                        if k == 0 {
                            kept.fill(0.0);
                        } else if let Some(cut) = cuts.of(i) {
                            let mut keep = cut.keep_largest(k, (chunk.index, chunk.start));
                            for v in &mut kept {
                                if !keep(magnitude_bits(*v)) {
                                    *v = 0.0;
                                }
                            }
                        }
                    }
                    None => {
                        let row = if self.rows {
                            chunk.tensor.last_axis().max(1)
                        } else {
                            kept.len().max(1)
                        };
                        let k = (self.keep)(self.share, row as u64) as usize;
                        kept.chunks_mut(row)
                            .for_each(|r| cut_row(r, &(0..k), &mut order));
                    }
                }
            }
            for (k, o) in out.iter_mut().enumerate() {
                let base = if self.weights {
                    chunk.base.map_or(0.0, |b| b[k])
                } else {
                    0.0
                };
                *o += kept[k] - base;
            }
        }
        out.iter_mut().for_each(|o| *o *= lambda);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn density_and_drop_are_not_complements() {
        let d: &[f32] = &[1.0, -5.0, 3.0, 2.0, 4.0];
        assert_eq!(
            merged("magnitude_prune", &[("density", 0.5.into())], &[d]),
            [0.0, -5.0, 0.0, 0.0, 4.0]
        );
        assert_eq!(
            merged("magnitude_prune", &[("drop", 0.5.into())], &[d]),
            [0.0, -5.0, 3.0, 0.0, 4.0]
        );
    }

    #[test]
    fn equal_magnitudes_go_to_the_lowest_index() {
        let d: &[f32] = &[1.0, -1.0, 1.0, 1.0];
        for scope in ["model", "tensor", "row"] {
            let got = merged(
                "magnitude_prune",
                &[("density", 0.5.into()), ("scope", scope.into())],
                &[d],
            );
            assert_eq!(got, [1.0, -1.0, 0.0, 0.0], "{scope}");
        }
    }
}
