//! `emr`: elect, mask and rescale: one unified vector, one mask and one number per task.

use polyloom_core::DType;
use polyloom_core::dtype::round_through;

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Part, Partial, Scope,
    Spec, Unset, typed,
};
use super::survey::{BlockSums, Total};
use super::tall::{STORE, needs_task, store_of, task_of};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "emr",
    summary: "Restores one task from a unified vector by its sign mask and scale",
    source: "EMR-merging (Huang et al. 2024), section 3; fusion-bench 0.2.33 method/emr_merging/utils.py",
    formula: "Per tensor `f = +1 where sum_i D_i > 0 else -1`, `M_i = [D_i f > 0]`, `U = f max_i |M_i D_i|`; over the model `r_i = sum over tensors of mean|D_i| / sum over tensors of mean|M_i U|`; `V = r_t M_t U` for the chosen `task`.",
    differs: "The scale sums per-tensor means, as the released code; `rescale_by = \"elements\"` sums elements, as the paper writes.",
    cost: "two passes, O(elements x experts)",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared(
            "rescale_by",
            Kind::Word(&[("tensor_means", "tensor_means"), ("elements", "elements")]),
            Unset::Word("tensor_means"),
            "What the scale of a task compares.",
        )
        .whole(),
        STORE,
        Param::shared(
            "task",
            Kind::Text,
            Unset::Nothing,
            "Expert whose restored model is written.",
        )
        .whole(),
    ],
    on: None,
    golden: Golden::Cases(&["emr"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Emr];

struct Emr;

struct Unified {
    task: Option<usize>,
    names: Vec<String>,
    store: Option<DType>,
    by_tensor: bool,
    /// Per tensor: sums of |D_i|, then of |M_i U|.
    sums: Vec<Total>,
    elements: Vec<usize>,
    scales: Vec<f64>,
}

impl Method for Emr {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let n = job.experts.len();
        Ok(Box::new(Unified {
            task: task_of(job)?,
            names: job.experts.clone(),
            store: store_of(job),
            by_tensor: job.tensors[0].shared.word("rescale_by") == "tensor_means",
            sums: vec![Total::new(2 * n); job.tensors.len()],
            elements: job.tensors.iter().map(|t| t.elements()).collect(),
            scales: vec![1.0; n],
        }))
    }
}

/// The unified vector of a chunk.
fn unified(chunk: &Chunk, store: Option<DType>) -> Vec<f32> {
    let mut u = vec![0.0f32; chunk.len()];
    for input in chunk.inputs {
        for (s, x) in u.iter_mut().zip(*input) {
            *s += x;
        }
    }
    for (k, u) in u.iter_mut().enumerate() {
        let f = if *u > 0.0 { 1.0 } else { -1.0 };
        *u = f * chunk.inputs.iter().map(|d| d[k] * f).fold(0.0f32, f32::max);
    }
    if let Some(dtype) = store {
        round_through(&mut u, dtype);
    }
    u
}

/// Whether task entry `d` agrees with the elected sign. U is zero only where nobody agrees.
fn agrees(d: f32, u: f32) -> bool {
    d * u > 0.0
}

impl Kernel for Unified {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        let u = unified(chunk, self.store);
        let n = chunk.inputs.len();
        let mut sums = BlockSums::new(2 * n);
        for (i, d) in chunk.inputs.iter().enumerate() {
            sums.l1(i, d);
            sums.add(n + i, d.len(), |k| {
                if agrees(d[k], u[k]) {
                    f64::from(u[k].abs())
                } else {
                    0.0
                }
            });
        }
        Ok(Box::new((chunk.index, sums)))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        let (tensor, sums) = typed::<(usize, BlockSums)>(partial)?;
        self.sums[tensor].absorb(&sums);
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        let n = self.scales.len();
        for i in 0..n {
            let total = |q: usize| -> f64 {
                self.sums
                    .iter()
                    .zip(&self.elements)
                    .map(|(s, elements)| {
                        if self.by_tensor {
                            s.get(q) / (*elements).max(1) as f64
                        } else {
                            s.get(q)
                        }
                    })
                    .sum()
            };
            let (own, masked) = (total(i), total(n + i));
            self.scales[i] = if masked > 0.0 { own / masked } else { 1.0 };
        }
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let Some(task) = self.task else {
            return Err(needs_task("emr", &self.names));
        };
        let scale = self.scales[task] as f32;
        for ((o, u), d) in out
            .iter_mut()
            .zip(unified(chunk, self.store))
            .zip(chunk.inputs[task])
        {
            *o = if agrees(*d, u) { scale * u } else { 0.0 };
        }
        Ok(())
    }

    fn part(&self, part: Part, chunk: &Chunk, out: &mut [f32]) -> Result<bool> {
        let u = unified(chunk, self.store);
        match part {
            Part::Shared => out.copy_from_slice(&u),
            Part::Mask(i) => {
                for ((o, u), d) in out.iter_mut().zip(u).zip(chunk.inputs[i]) {
                    *o = f32::from(u8::from(agrees(*d, u)));
                }
            }
        }
        Ok(true)
    }

    fn task_scale(&self, task: usize) -> Option<f64> {
        self.scales.get(task).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn unified_vector_masked_and_rescaled() {
        // f = +, -, -; U = 3, -2, 0 (a zero sum elects -, and nobody is negative there).
        let inputs: &[&[f32]] = &[&[3.0, -2.0, 0.0], &[1.0, 1.0, 0.0]];
        // a: mean|D| = 5/3, mean|M U| = 5/3.
        assert_eq!(
            merged("emr", &[("task", "a".into())], inputs),
            [3.0, -2.0, 0.0]
        );
        // b: 2/3 over 3/3.
        assert_eq!(
            merged("emr", &[("task", "b".into())], inputs),
            [2.0, 0.0, 0.0]
        );
    }
}
