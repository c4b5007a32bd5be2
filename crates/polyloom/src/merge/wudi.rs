//! `wudi`: a merged vector that disturbs no task on the directions its own task vector spans.

use polyloom_core::linalg::Matrix;

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unit, Unset,
};
use super::spectral::{EXCLUDE, LAMBDA, Mean, VOCABULARY, decomposed};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "wudi",
    summary: "Moves the sum of task matrices to where it disturbs each task's own row space least",
    source: "WUDI-Merging (Cheng et al. 2025); fusion_bench/method/wudi",
    formula: "Per matrix from `T = sum_i D_i`: `steps` steps of Adam (rate `lr`, betas 0.9 and 0.999, eps 1e-8) on `sum_i |(T - D_i) D_i'|_F^2 / |D_i|_F^2`, whose gradient is `2 (T G - C)` with `G = sum_i D_i' D_i / |D_i|^2`, `C = sum_i D_i D_i' D_i / |D_i|^2`; `V = lambda T`. Other tensors: mean of the task vectors times `lambda`.",
    differs: "A task whose matrix is unchanged (`|D_i| = 0`) is left out of the loss; the peer divides by zero and returns NaN for the tensor. The descent runs in f64.",
    cost: "one pass; per matrix `steps` products [out, in] x [in, in] in f64 whatever the number of experts, one thread each, two tensors at a time",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        Param::shared(
            "steps",
            Kind::Integer(0, 1_000_000),
            Unset::Number(300.0),
            "Steps of the descent.",
        )
        .whole(),
        Param::shared(
            "lr",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1e-5),
            "Learning rate: about the most an entry moves per step.",
        )
        .whole(),
        LAMBDA,
        EXCLUDE,
        VOCABULARY,
    ],
    on: None,
    golden: Golden::Cases(&["wudi"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Wudi];

struct Wudi;

struct Descent {
    rows: usize,
    steps: usize,
    rate: f64,
    lambda: f64,
}

impl Method for Wudi {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let lambda = tensor.shared.number("lambda");
        if !decomposed(tensor) {
            return Ok(Box::new(Mean((lambda / job.experts.len() as f64) as f32)));
        }
        Ok(Box::new(Descent {
            rows: tensor.shape[0],
            steps: tensor.shared.number("steps") as usize,
            rate: tensor.shared.number("lr"),
            lambda,
        }))
    }
}

impl Descent {
    /// `T` after all steps.
    fn merged(&self, rows: usize, cols: usize, inputs: &[&[f32]]) -> Matrix {
        let mut t = Matrix::zeros(rows, cols);
        // The loss in T: G is shared by all tasks, C is its constant part.
        let mut g = Matrix::zeros(cols, cols);
        let mut c = Matrix::zeros(rows, cols);
        for input in inputs {
            let d = Matrix::from_f32(rows, cols, input);
            t.add(1.0, &d);
            let squared = d.norm().powi(2);
            if squared > 0.0 {
                let mut own = Matrix::zeros(cols, cols);
                own.add_gram(1.0 / squared, &d);
                c.add_product(1.0, &d, &own);
                g.add(1.0, &own);
            }
        }
        let (b1, b2, eps) = (0.9f64, 0.999f64, 1e-8);
        let mut mean = vec![0.0; t.data.len()];
        let mut square = vec![0.0; t.data.len()];
        let mut gradient = Matrix::zeros(rows, cols);
        let (mut b1_t, mut b2_t) = (1.0, 1.0);
        for _ in 0..self.steps {
            b1_t *= b1;
            b2_t *= b2;
            for (x, c) in gradient.data.iter_mut().zip(&c.data) {
                *x = -2.0 * c;
            }
            gradient.add_product(2.0, &t, &g);
            let (step, root) = (self.rate / (1.0 - b1_t), (1.0f64 - b2_t).sqrt());
            let moments = mean.iter_mut().zip(&mut square);
            for ((x, dx), (m, v)) in t.data.iter_mut().zip(&gradient.data).zip(moments) {
                *m = b1 * *m + (1.0 - b1) * dx;
                *v = b2 * *v + (1.0 - b2) * dx * dx;
                *x -= step * *m / (v.sqrt() / root + eps);
            }
        }
        t
    }
}

impl Kernel for Descent {
    fn unit(&self) -> Unit {
        Unit::Tensor
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let cols = chunk.len() / self.rows.max(1);
        let merged = self.merged(self.rows, cols, chunk.inputs);
        for (o, v) in out.iter_mut().zip(&merged.data) {
            *o = (v * self.lambda) as f32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descent(steps: usize, rate: f64) -> Descent {
        Descent {
            rows: 1,
            steps,
            rate,
            lambda: 1.0,
        }
    }

    #[test]
    fn one_task_and_orthogonal_tasks_are_already_best() {
        // (T - D) D' = 0 at the start, so nothing moves; a zero task vector is left out.
        let got = descent(50, 0.1).merged(1, 2, &[&[3.0, 4.0], &[0.0, 0.0]]);
        assert_eq!(got.data, [3.0, 4.0]);
        let got = descent(50, 0.1).merged(1, 2, &[&[2.0, 0.0], &[0.0, 5.0]]);
        assert_eq!(got.data, [2.0, 5.0]);
    }

    #[test]
    fn one_step_by_hand() {
        // D = 1 and 2 in one dimension: T = 3, gradient 2((3-1) + (3-2)) = 6; Adam's first step is the rate itself.
        let got = descent(1, 0.25).merged(1, 1, &[&[1.0], &[2.0]]);
        assert!((got.data[0] - 2.75).abs() < 1e-8, "{got:?}");
    }

    #[test]
    fn the_descent_finds_the_minimum() {
        // In one dimension G = 2 and C = 1 + 2: the minimum is T = 1.5.
        let got = descent(4000, 0.01).merged(1, 1, &[&[1.0], &[2.0]]);
        assert!((got.data[0] - 1.5).abs() < 1e-3, "{got:?}");
    }

    #[test]
    fn no_change_stays_none() {
        let got = descent(3, 0.1).merged(1, 3, &[&[0.0; 3], &[0.0; 3]]);
        assert_eq!(got.data, [0.0; 3]);
    }
}
