//! Kernels around kernels: steps on task vectors before a method, steps on the merged vector after it.
//!
//! Order of a merge, always on task vectors: `D_i -> pre -> method -> V -> post -> R = W0 + V`.

use super::method::{
    Chunk, Job, Kernel, Kind, Next, Param, Part, Partial, Scope, Unit, Unset, Values, typed,
};
use super::pre;
use super::survey::{BlockSums, Total};
use crate::error::{MergeError, Result};

/// The contract of a step.
#[derive(Debug)]
pub struct StepSpec {
    /// Step name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper or program, section.
    pub source: &'static str,
    /// True for steps on task vectors (`[[merge.pre]]`), false for steps on the merged vector (`[[merge.post]]`).
    pub pre: bool,
    /// Parameters.
    pub params: &'static [Param],
}

const ANY: Kind = Kind::Number(f64::NEG_INFINITY, f64::INFINITY);

/// All steps.
pub static STEPS: &[StepSpec] = &[
    pre::SPARSIFY,
    pre::ELECT_SIGN,
    StepSpec {
        name: "lines",
        summary: "Scale the merged vector by depth: alpha + beta i/(L-1) for block i of L, alpha outside",
        source: "LiNeS (Wang et al. 2024), eval/eval.py; methods section 3.7",
        pre: false,
        params: &[
            Param::shared(
                "alpha",
                Kind::NumberOr("auto"),
                Unset::Word("auto"),
                "Scale of the first block and of everything outside blocks; \"auto\" = (|sum D_i|_1 / |V|_1) / n.",
            )
            .whole(),
            Param::shared("beta", ANY, Unset::Required, "Added linearly up to the last block.").whole(),
            Param::shared("block", Kind::Text, Unset::Nothing, "Name of the layer list, if it is not the one inferred.")
                .whole(),
        ],
    },
    StepSpec {
        name: "scale",
        summary: "Multiply the merged vector by a factor",
        source: "ours",
        pre: false,
        params: &[Param::shared("factor", ANY, Unset::Required, "The factor.")],
    },
    StepSpec {
        name: "exclude",
        summary: "Set the merged vector of named tensors to zero: they keep the base's values",
        source: "ours",
        pre: false,
        params: &[Param::shared("names", Kind::Names, Unset::Required, "Substrings of tensor names.").whole()],
    },
];

/// A step by name.
pub fn step(name: &str, pre: bool) -> Option<&'static StepSpec> {
    STEPS.iter().find(|s| s.name == name && s.pre == pre)
}

/// What a post-step does to V.
enum Post {
    Lines {
        alpha: Option<f64>,
        beta: f64,
        block: String,
    },
    Scale(f64),
    Exclude(Vec<String>),
}

/// A kernel followed by post-steps.
pub struct PostKernel {
    inner: Box<dyn Kernel>,
    steps: Vec<Post>,
    experts: usize,
    surveying_inner: bool,
    inner_rounds: usize,
    norms: Total,
}

impl PostKernel {
    /// Wraps `inner`; `steps` are (name, values) in file order.
    ///
    /// # Errors
    /// An unknown step (a planning bug).
    pub fn wrap(
        inner: Box<dyn Kernel>,
        steps: &[(&str, &Values)],
        job: &Job,
    ) -> Result<Box<dyn Kernel>> {
        if steps.is_empty() {
            return Ok(inner);
        }
        let steps = steps
            .iter()
            .map(|(name, values)| {
                Ok(match *name {
                    "lines" => Post::Lines {
                        alpha: values.maybe("alpha"),
                        beta: values.number("beta"),
                        block: values.word("block").to_owned(),
                    },
                    "scale" => Post::Scale(values.number("factor")),
                    "exclude" => Post::Exclude(
                        values
                            .names("names")
                            .into_iter()
                            .map(str::to_owned)
                            .collect(),
                    ),
                    other => return Err(MergeError::Internal(format!("no post-step `{other}`"))),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let surveying_inner = inner.surveys();
        Ok(Box::new(Self {
            inner,
            steps,
            experts: job.experts.len(),
            surveying_inner,
            inner_rounds: 0,
            norms: Total::new(2),
        }))
    }

    fn auto(&self) -> Option<usize> {
        self.steps
            .iter()
            .position(|s| matches!(s, Post::Lines { alpha: None, .. }))
    }

    /// Applies the first `count` steps to `v`.
    fn post(&self, chunk: &Chunk, count: usize, v: &mut [f32]) {
        for step in &self.steps[..count] {
            match step {
                Post::Exclude(names) => {
                    if names.iter().any(|n| chunk.tensor.name.contains(n.as_str())) {
                        v.fill(0.0);
                    }
                }
                Post::Scale(factor) => v.iter_mut().for_each(|x| *x *= *factor as f32),
                Post::Lines { alpha, beta, block } => {
                    let alpha = alpha.unwrap_or_else(|| {
                        let (sum, merged) = (self.norms.get(0), self.norms.get(1));
                        // A zero merged vector stays zero whatever the scale.
                        if merged > 0.0 {
                            sum / merged / self.experts.max(1) as f64
                        } else {
                            0.0
                        }
                    });
                    let layer = chunk.tensor.layer.filter(|_| {
                        block.is_empty() || chunk.tensor.name.starts_with(&format!("{block}."))
                    });
                    let factor = match layer {
                        Some((i, n)) if n > 1 => alpha + beta * i as f64 / (n - 1) as f64,
                        _ => alpha,
                    };
                    v.iter_mut()
                        .for_each(|x| *x = (f64::from(*x) * factor) as f32);
                }
            }
        }
    }
}

impl Kernel for PostKernel {
    fn surveys(&self) -> bool {
        self.inner.surveys() || self.auto().is_some()
    }

    fn unit(&self) -> Unit {
        self.inner.unit()
    }

    fn tabulates(&self) -> bool {
        self.inner.tabulates()
    }

    fn samples(&self) -> bool {
        self.surveying_inner && self.inner.samples()
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        if self.surveying_inner {
            return self.inner.survey(round, chunk);
        }
        let mut v = vec![0.0; chunk.len()];
        self.inner.apply(chunk, &mut v)?;
        self.post(chunk, self.auto().unwrap_or(0), &mut v);
        let mut sum = vec![0.0f32; chunk.len()];
        for input in chunk.inputs {
            for (s, x) in sum.iter_mut().zip(*input) {
                *s += x;
            }
        }
        let mut sums = BlockSums::new(2);
        // Chunks that start at rows are summed row by row, so that the sums do not depend on the chunk size.
        let piece = match self.inner.unit() {
            Unit::Row => chunk.tensor.last_axis(),
            Unit::Chunk | Unit::Tensor => chunk.len(),
        };
        for (sum, v) in sum.chunks(piece.max(1)).zip(v.chunks(piece.max(1))) {
            sums.l1(0, sum);
            sums.l1(1, v);
        }
        Ok(Box::new(sums))
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        if self.surveying_inner {
            return self.inner.absorb(round, partial);
        }
        self.norms.absorb(&typed::<BlockSums>(partial)?);
        Ok(())
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        if self.surveying_inner {
            if self.inner.finish(round)? == Next::Again {
                return Ok(Next::Again);
            }
            self.surveying_inner = false;
            self.inner_rounds = round + 1;
            return Ok(if self.auto().is_some() {
                Next::Again
            } else {
                Next::Done
            });
        }
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        self.inner.apply(chunk, out)?;
        self.post(chunk, self.steps.len(), out);
        Ok(())
    }

    fn part(&self, part: Part, chunk: &Chunk, out: &mut [f32]) -> Result<bool> {
        self.inner.part(part, chunk, out)
    }

    fn task_scale(&self, task: usize) -> Option<f64> {
        self.inner.task_scale(task)
    }
}

/// What a kernel with post-steps must cover: the whole model if a step needs sums over it.
pub fn post_scope(steps: &[(&str, &Values)]) -> Scope {
    let auto =
        |(name, values): &(&str, &Values)| *name == "lines" && values.maybe("alpha").is_none();
    if steps.iter().any(auto) {
        Scope::Model
    } else {
        Scope::Tensor
    }
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "calls read better with json! in place"
)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Map, json};

    use super::*;
    use crate::merge::method::TensorJob;
    use crate::merge::params::complete;
    use crate::merge::run::{Collect, Group, Memory, Options, run};

    struct Sum;

    impl Kernel for Sum {
        fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
            super::super::linear::weighted_sum(&vec![1.0; chunk.inputs.len()], chunk.inputs, out);
            Ok(())
        }
    }

    fn merged(name: &str, given: serde_json::Value) -> Vec<Vec<f32>> {
        let spec = step(name, false).unwrap();
        let given: Map<_, _> = given.as_object().cloned().unwrap();
        let values = complete(spec.params, &given, false).unwrap();
        let tensor = |name: &str, layer| {
            Arc::new(TensorJob {
                name: name.into(),
                shape: vec![2],
                shared: Values::default(),
                each: vec![Values::default(); 2],
                layer,
                before: 0,
            })
        };
        let job = Job {
            tensors: vec![
                tensor("embed", None),
                tensor("layers.0.w", Some((0, 2))),
                tensor("layers.1.w", Some((1, 2))),
            ],
            experts: vec!["a".into(), "b".into()],
            has_base: true,
            seed: 0,
            statistics: None,
            inner_maker: None,
        };
        let steps = [(name, &values)];
        let make = |job: &Job| PostKernel::wrap(Box::new(Sum), &steps, job);
        let group = Group {
            job: &job,
            deltas: true,
            scope: post_scope(&steps),
            make: &make,
        };
        let feed = Memory {
            base: vec![&[0.0, 0.0]; 3],
            inputs: vec![vec![&[1.0, 2.0]; 3], vec![&[3.0, -2.0]; 3]],
        };
        let sink = Collect::new(&job.tensors);
        run(&group, None, &feed, &sink, &Options::default()).unwrap();
        sink.into_values()
    }

    #[test]
    fn lines_scales_by_depth() {
        let got = merged("lines", json!({"alpha": 0.5, "beta": 1.0}));
        assert_eq!(got, [[2.0, 0.0], [2.0, 0.0], [6.0, 0.0]]);
    }

    #[test]
    fn lines_auto_divides_by_the_number_of_experts() {
        // V is the plain sum, so the L1 ratio is 1 and alpha = 1/2.
        let got = merged("lines", json!({"alpha": "auto", "beta": 0.0}));
        assert_eq!(got, [[2.0, 0.0]; 3]);
    }

    #[test]
    fn scale_and_exclude() {
        assert_eq!(merged("scale", json!({"factor": 0.25})), [[1.0, 0.0]; 3]);
        let got = merged("exclude", json!({"names": ["layers.0"]}));
        assert_eq!(got, [[4.0, 0.0], [0.0, 0.0], [4.0, 0.0]]);
    }
}
