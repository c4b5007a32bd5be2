//! Spectral methods: `iso_c`, `iso_cts`, `tsv_m`. Matrices are decomposed, everything else is averaged.

use polyloom_core::linalg::{Matrix, Svd, leading, polar};

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, TensorJob, Unit,
    Unset,
};
use crate::error::{MergeError, Result};

pub(super) const LAMBDA: Param = Param::shared(
    "lambda",
    Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
    Unset::Number(1.0),
    "Factor of the merged vector.",
);
pub(super) const EXCLUDE: Param = Param::shared(
    "exclude",
    Kind::Names,
    Unset::Nothing,
    "Substrings of names of matrices to average instead.",
)
.whole();
pub(super) const VOCABULARY: Param = Param::shared(
    "vocabulary",
    Kind::Word(&[("average", "average"), ("decompose", "decompose")]),
    Unset::Word("average"),
    "What happens to token embeddings and output heads.",
)
.whole();

const COST: &str = "one pass; per matrix and expert (`iso_c`: per matrix) an eigendecomposition of the Gram matrix in f64, a thin SVD where the spectrum is too wide for that; one thread each, two tensors at a time";

static ISO_C: Spec = Spec {
    name: "iso_c",
    summary: "Sums task matrices and makes their spectrum flat",
    source: "No Task Left Behind (Marczak et al. 2025), Iso-C; isotropic_merging/iso_utils.py",
    formula: "`sum_i D_i = U diag(s) V'`; `V = lambda mean(s) U V'`. Other tensors: mean of the task vectors times `lambda`.",
    differs: "",
    cost: COST,
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[LAMBDA, EXCLUDE, VOCABULARY],
    on: None,
    golden: Golden::Cases(&["iso_c"]),
    missing: Missing::Refuse,
};

static ISO_CTS: Spec = Spec {
    name: "iso_cts",
    summary: "As `iso_c`, with directions of each task beside the common ones",
    source: "No Task Left Behind (Marczak et al. 2025), Iso-CTS; isotropic_merging/iso_utils.py",
    formula: "`m = min(shape)`, `c0 = int(m common_fraction)`, `c = m - round((m - c0)/n) n` (half to even, at least 0), `q = (m - c)/n`. Common: first c triples of `sum_i D_i`; per task the first q of `D_i - U_c U_c' D_i`; blocks of tasks, then common; `V = lambda mean(s) orth(U) orth(V')` with `orth(P S Q') = P Q'`.",
    differs: "Too many tasks for a small matrix give c = 0 (no common part) instead of a failure.",
    cost: COST,
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        LAMBDA,
        Param::shared(
            "common_fraction",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.8),
            "Share of the spectrum for common directions.",
        )
        .whole(),
        EXCLUDE,
        VOCABULARY,
    ],
    on: None,
    golden: Golden::Cases(&["iso_cts"]),
    missing: Missing::Refuse,
};

static TSV_M: Spec = Spec {
    name: "tsv_m",
    summary: "Joins the leading singular triples of all tasks after making them orthogonal",
    source: "Task Singular Vectors (Gargiulo et al. 2025), TSV-Merge",
    formula: "`r = int(m/n)`; the first r triples of each `D_i` side by side; `V = lambda orth(U) diag(s) orth(V')`. Other tensors: mean of the task vectors times `lambda`.",
    differs: "",
    cost: COST,
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[LAMBDA, EXCLUDE, VOCABULARY],
    on: None,
    golden: Golden::Cases(&["tsv_m"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[
    &Entry(&ISO_C, Rule::IsoC),
    &Entry(&ISO_CTS, Rule::IsoCts),
    &Entry(&TSV_M, Rule::TsvM),
];

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    IsoC,
    IsoCts,
    TsvM,
}

struct Entry(&'static Spec, Rule);

struct Spectral {
    rule: Rule,
    lambda: f64,
    common: f64,
    rows: usize,
}

/// Mean of task vectors, for what is not decomposed.
pub(super) struct Mean(pub(super) f32);

/// True for matrices that are decomposed.
pub(super) fn decomposed(tensor: &TensorJob) -> bool {
    let [rows, _] = tensor.shape[..] else {
        return false;
    };
    let excluded = tensor
        .shared
        .names("exclude")
        .iter()
        .any(|n| tensor.name.contains(n));
    let vocabulary = tensor.shared.word("vocabulary") == "average"
        && crate::vocab::is_vocab_tensor(&tensor.name, &tensor.shape, rows);
    !excluded && !vocabulary
}

impl Method for Entry {
    fn spec(&self) -> &'static Spec {
        self.0
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let lambda = tensor.shared.number("lambda");
        if !decomposed(tensor) {
            return Ok(Box::new(Mean((lambda / job.experts.len() as f64) as f32)));
        }
        Ok(Box::new(Spectral {
            rule: self.1,
            lambda,
            common: tensor.shared.maybe("common_fraction").unwrap_or(0.0),
            rows: tensor.shape[0],
        }))
    }
}

impl Kernel for Mean {
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        super::linear::weighted_sum(&vec![self.0; chunk.inputs.len()], chunk.inputs, out);
        Ok(())
    }
}

/// Columns of all matrices side by side.
fn beside(parts: &[Matrix], rows: usize) -> Matrix {
    let cols = parts.iter().map(|p| p.cols).sum();
    let mut out = Matrix::zeros(rows, cols);
    let mut at = 0;
    for part in parts {
        for r in 0..rows {
            out.data[r * cols + at..][..part.cols]
                .copy_from_slice(&part.data[r * part.cols..][..part.cols]);
        }
        at += part.cols;
    }
    out
}

/// Rows of all matrices below each other.
fn below(parts: &[Matrix], cols: usize) -> Matrix {
    let data: Vec<f64> = parts.iter().flat_map(|p| p.data.iter().copied()).collect();
    Matrix {
        rows: parts.iter().map(|p| p.rows).sum(),
        cols,
        data,
    }
}

fn mean(s: &[f64]) -> f64 {
    s.iter().sum::<f64>() / s.len().max(1) as f64
}

impl Spectral {
    /// Task vectors are widened one at a time: in f64 they would be most of the memory.
    fn merged(&self, inputs: &[&[f32]]) -> Result<Matrix, String> {
        let rows = self.rows;
        let cols = inputs[0].len() / rows.max(1);
        let (m, n) = (rows.min(cols), inputs.len());
        let deltas = || inputs.iter().map(|d| Matrix::from_f32(rows, cols, d));
        let sum = || {
            let mut total = Matrix::zeros(rows, cols);
            for input in inputs {
                let pairs = total.data.iter_mut().zip(*input);
                pairs.for_each(|(t, d)| *t += f64::from(*d));
            }
            total
        };
        if inputs.iter().all(|d| d.iter().all(|x| *x == 0.0)) {
            return Ok(Matrix::zeros(rows, cols));
        }
        let (u, s, vt) = match self.rule {
            Rule::IsoC => {
                let (mut nearest, s) = polar(&sum())?;
                let flat = mean(&s);
                nearest.data.iter_mut().for_each(|x| *x *= flat);
                return Ok(nearest);
            }
            Rule::IsoCts => {
                let c0 = (m as f64 * self.common) as usize;
                let per_task = ((m - c0) as f64 / n as f64).round_ties_even() as usize;
                let c = m.saturating_sub(per_task * n);
                let q = (m - c) / n;
                let Svd { u: common, s, vt } = leading(&sum(), c)?;
                let (mut us, mut ss, mut vs) = (Vec::new(), Vec::new(), Vec::new());
                for mut rest in deltas() {
                    if c > 0 {
                        let inside = common.transposed().times(&rest);
                        rest.add_product(-1.0, &common, &inside);
                    }
                    let d = leading(&rest, q)?;
                    us.push(d.u);
                    vs.push(d.vt);
                    ss.extend(d.s);
                }
                us.push(common);
                vs.push(vt);
                ss.extend(s);
                let flat = vec![mean(&ss); ss.len()];
                (beside(&us, rows), flat, below(&vs, cols))
            }
            Rule::TsvM => {
                let r = m / n;
                let (mut us, mut ss, mut vs) = (Vec::new(), Vec::new(), Vec::new());
                for delta in deltas() {
                    let d = leading(&delta, r)?;
                    us.push(d.u);
                    vs.push(d.vt);
                    ss.extend(d.s);
                }
                if r == 0 {
                    return Err(format!("has fewer rows or columns than the {n} tasks"));
                }
                (beside(&us, rows), ss, below(&vs, cols))
            }
        };
        Ok(polar(&u)?.0.scale_columns(&s).times(&polar(&vt)?.0))
    }
}

impl Kernel for Spectral {
    fn unit(&self) -> Unit {
        Unit::Tensor
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let merged = self.merged(chunk.inputs).map_err(|e| {
            MergeError::plan(
                "decomposition",
                format!("tensor `{}`: {e}", chunk.tensor.name),
            )
            .hint("average it instead: add a part of its name to `exclude`")
        })?;
        for (o, v) in out.iter_mut().zip(&merged.data) {
            *o = (v * self.lambda) as f32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &Matrix, b: &[f64]) {
        for (x, y) in a.data.iter().zip(b) {
            assert!((x - y).abs() < 1e-9, "{:?} against {b:?}", a.data);
        }
    }

    fn rule(rule: Rule) -> Spectral {
        Spectral {
            rule,
            lambda: 1.0,
            common: 0.8,
            rows: 2,
        }
    }

    #[test]
    fn iso_c_flattens_the_spectrum() {
        // Singular values 3 and 1 become 2 and 2; a reflection keeps its sign.
        let d: [&[f32]; 1] = [&[3.0, 0.0, 0.0, -1.0]];
        let merged = rule(Rule::IsoC).merged(&d).unwrap();
        close(&merged, &[2.0, 0.0, 0.0, -2.0]);
    }

    #[test]
    fn tsv_m_of_orthogonal_tasks_is_their_sum() {
        let d: [&[f32]; 2] = [&[3.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 2.0]];
        close(&rule(Rule::TsvM).merged(&d).unwrap(), &[3.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn zero_task_vectors_stay_zero() {
        for r in [Rule::IsoC, Rule::IsoCts, Rule::TsvM] {
            let merged = rule(r).merged(&[&[0.0; 6], &[0.0; 6]]).unwrap();
            close(&merged, &[0.0; 6]);
        }
    }
}
