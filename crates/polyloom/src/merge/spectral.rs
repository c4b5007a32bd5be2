//! Spectral methods: `iso_c`, `iso_cts`, `tsv_m`. Matrices are decomposed, everything else is averaged.

use std::ops::Range;

use polyloom_core::linalg::{Matrix, polar, svd};

use super::long::{Held, Left, Long};
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Pieces, Scope, Spec, TensorJob,
    Unit, Unset,
};
use crate::error::Result;

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

const COST: &str = "a few passes; per matrix and expert (`iso_c`: per matrix) an eigendecomposition of the Gram matrix in f64, a thin SVD where the spectrum is too wide for that; the matrix is read in blocks, so that memory is that of some squares of its shorter side; one thread each, two tensors at a time";

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
    tasks: usize,
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
            tasks: job.experts.len(),
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
fn below<'a>(parts: impl Iterator<Item = &'a Matrix>, cols: usize) -> Matrix {
    let data: Vec<f64> = parts.flat_map(|p| p.data.iter().copied()).collect();
    Matrix {
        rows: data.len() / cols.max(1),
        cols,
        data,
    }
}

fn mean(s: &[f64]) -> f64 {
    s.iter().sum::<f64>() / s.len().max(1) as f64
}

impl Spectral {
    /// The rules are the same for a matrix and its transpose (but for the projection of `iso_cts`), so that all is
    /// written for one with more rows than columns.
    fn merge(&self, long: &mut Long) -> Result<()> {
        match self.rule {
            Rule::IsoC => self.iso_c(long),
            Rule::IsoCts => self.iso_cts(long),
            Rule::TsvM => self.tsv_m(long),
        }
    }

    fn iso_c(&self, long: &mut Long) -> Result<()> {
        let (n, k) = (self.tasks, long.columns());
        let gram = long.gram(k, |long, rows| long.sum(n, rows))?;
        if gram.is_zero() {
            return long.write_zeros();
        }
        if let Some(found) = gram.spectrum(k - 1) {
            let flat = mean(&found.s) * self.lambda;
            let root = found.inverse_root();
            for rows in long.blocks() {
                let block = long.sum(n, &rows)?.times(&root);
                long.write(&rows, &block, flat)?;
            }
            return Ok(());
        }
        let whole = long.whole(k, |long, rows| long.sum(n, rows))?;
        let d = long.trusted(svd(&whole))?;
        let flat = mean(&d.s) * self.lambda;
        write_rows(long, &d.u, &d.vt, flat)
    }

    fn tsv_m(&self, long: &mut Long) -> Result<()> {
        let n = self.tasks;
        let r = long.columns() / n;
        if r == 0 {
            return long.trusted(Err(format!("has fewer rows or columns than the {n} tasks")));
        }
        let mut all = Vec::new();
        for task in 0..n {
            all.push(long.triples(r, |long, rows| long.read(task, rows))?);
        }
        let s: Vec<f64> = all.iter().flat_map(|t| t.s.iter().copied()).collect();
        let right = below(all.iter().map(|t| &t.right), long.columns());
        let lefts: Vec<Left> = all.into_iter().map(|t| t.left).collect();
        self.join(long, &s, &right, |long, rows| {
            let parts: Result<Vec<Matrix>> = (lefts.iter().enumerate())
                .map(|(task, left)| Ok(left.rows(rows, &long.read(task, rows)?)))
                .collect();
            Ok(beside(&parts?, rows.len()))
        })
    }

    fn iso_cts(&self, long: &mut Long) -> Result<()> {
        let (n, k) = (self.tasks, long.columns());
        let c0 = (k as f64 * self.common) as usize;
        let per_task = ((k - c0) as f64 / n as f64).round_ties_even() as usize;
        let c = k.saturating_sub(per_task * n);
        let q = (k - c) / n;
        let common = long.triples(c, |long, rows| long.sum(n, rows))?;
        // What is left of each task vector without the common left vectors of the tensor as it is stored.
        let mut inside = Vec::new();
        if long.upright() && c > 0 {
            inside = vec![Matrix::zeros(c, k); n];
            for rows in long.blocks() {
                let left = common.left.rows(&rows, &long.sum(n, &rows)?).transposed();
                for (task, inside) in inside.iter_mut().enumerate() {
                    inside.add_product(1.0, &left, &long.read(task, &rows)?);
                }
            }
        }
        let columns = common.right.transposed();
        let rest = |long: &mut Long, task: usize, rows: &Range<usize>| -> Result<Matrix> {
            let mut rest = long.read(task, rows)?;
            if let Some(inside) = inside.get(task) {
                let left = common.left.rows(rows, &long.sum(n, rows)?);
                rest.add_product(-1.0, &left, inside);
            } else if c > 0 {
                let along = rest.times(&columns);
                rest.add_product(-1.0, &along, &common.right);
            }
            Ok(rest)
        };
        // Per task the left vectors as rows of its task vector and rows of the common left vectors times small matrices.
        let (mut all, mut less) = (Vec::new(), Vec::new());
        for task in 0..n {
            let mut own = long.triples(q, |long, rows| rest(long, task, rows))?;
            let mut through = Matrix::zeros(0, 0);
            if let Left::Through(factor) = &mut own.left
                && c > 0
            {
                if let Some(inside) = inside.get(task) {
                    through = inside.times(factor);
                } else {
                    let along = common.right.times(factor);
                    factor.add_product(-1.0, &columns, &along);
                }
            }
            all.push(own);
            less.push(through);
        }
        let own = all.iter().flat_map(|t| t.s.iter().copied());
        let s: Vec<f64> = own.chain(common.s.iter().copied()).collect();
        let flat = vec![mean(&s); s.len()];
        let rights = all.iter().map(|t| &t.right).chain([&common.right]);
        let right = below(rights, k);
        self.join(long, &flat, &right, |long, rows| {
            let shared = common.left.rows(rows, &long.sum(n, rows)?);
            let mut parts = Vec::new();
            for (task, (own, less)) in all.iter().zip(&less).enumerate() {
                let mut part = own.left.rows(rows, &long.read(task, rows)?);
                if less.rows > 0 {
                    part.add_product(-1.0, &shared, less);
                }
                parts.push(part);
            }
            parts.push(shared);
            Ok(beside(&parts, rows.len()))
        })
    }

    /// Writes `lambda orth(U) diag(s) orth(V')`, the rows of U as `left` makes them.
    fn join(
        &self,
        long: &mut Long,
        s: &[f64],
        right: &Matrix,
        left: impl Fn(&mut Long, &Range<usize>) -> Result<Matrix>,
    ) -> Result<()> {
        if s.iter().all(|s| *s == 0.0) {
            return long.write_zeros();
        }
        let right = long.trusted(polar(right))?.0.scale_rows(s);
        let gram = long.gram(s.len(), &left)?;
        let Some(found) = gram.spectrum(s.len() - 1) else {
            let whole = long.whole(s.len(), left)?;
            let d = long.trusted(svd(&whole))?;
            return write_rows(long, &d.u, &d.vt.times(&right), self.lambda);
        };
        let factor = found.inverse_root().times(&right);
        for rows in long.blocks() {
            let block = left(long, &rows)?.times(&factor);
            long.write(&rows, &block, self.lambda)?;
        }
        Ok(())
    }
}

/// Writes `scale left right`.
fn write_rows(long: &mut Long, left: &Matrix, right: &Matrix, scale: f64) -> Result<()> {
    for rows in long.blocks() {
        let part = Matrix {
            rows: rows.len(),
            cols: left.cols,
            data: left.data[rows.start * left.cols..rows.end * left.cols].to_vec(),
        };
        long.write(&rows, &part.times(right), scale)?;
    }
    Ok(())
}

impl Kernel for Spectral {
    fn unit(&self) -> Unit {
        Unit::Tensor
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        self.merge(&mut Long::new(chunk.tensor, &mut Held::new(chunk, out)))
    }

    fn pieces(&self, tensor: &TensorJob, pieces: &mut dyn Pieces) -> Result<bool> {
        self.merge(&mut Long::new(tensor, pieces))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::method::Values;

    fn close(a: &[f32], b: &[f64]) {
        for (x, y) in a.iter().zip(b) {
            assert!((f64::from(*x) - y).abs() < 1e-6, "{a:?} against {b:?}");
        }
    }

    /// Merges matrices of `rows` rows, with `common` 0.5.
    fn merged(rule: Rule, rows: usize, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let kernel = Spectral {
            rule,
            lambda: 1.0,
            common: 0.5,
            tasks: inputs.len(),
        };
        let tensor = TensorJob {
            name: "w".into(),
            shape: vec![rows, inputs[0].len() / rows],
            shared: Values::default(),
            each: Vec::new(),
            layer: None,
            before: 0,
        };
        let mut out = vec![f32::NAN; inputs[0].len()];
        let chunk = Chunk {
            tensor: &tensor,
            index: 0,
            start: 0,
            base: None,
            inputs,
        };
        kernel.apply(&chunk, &mut out)?;
        Ok(out)
    }

    #[test]
    fn iso_c_flattens_the_spectrum() {
        // Singular values 3 and 1 become 2 and 2; a reflection keeps its sign.
        let d: [&[f32]; 1] = [&[3.0, 0.0, 0.0, -1.0]];
        close(&merged(Rule::IsoC, 2, &d).unwrap(), &[2.0, 0.0, 0.0, -2.0]);
        // Values too far apart for the Gram matrix: the full decomposition.
        let d: [&[f32]; 1] = [&[3.0, 0.0, 0.0, -1e-6]];
        let half = 0.5 * (3.0 + 1e-6);
        close(
            &merged(Rule::IsoC, 2, &d).unwrap(),
            &[half, 0.0, 0.0, -half],
        );
    }

    #[test]
    fn tsv_m_of_orthogonal_tasks_is_their_sum() {
        let d: [&[f32]; 2] = [&[3.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 2.0]];
        let sum = merged(Rule::TsvM, 2, &d).unwrap();
        close(&sum, &[3.0, 0.0, 0.0, 2.0]);
        let error = merged(Rule::TsvM, 1, &d).unwrap_err().to_string();
        assert!(
            error.contains("fewer rows or columns than the 2 tasks"),
            "{error}"
        );
    }

    #[test]
    fn a_transpose_merges_to_the_transpose() {
        // More than one block of rows; `iso_cts` projects on one side alone, so that its transposes differ.
        let (rows, cols) = (300, 7);
        let s = polyloom_core::rng::Stream::new(3, "spectral", 0);
        let tall: Vec<Vec<f32>> = (0..2)
            .map(|t| {
                (0..rows * cols)
                    .map(|i| s.normal((t * rows * cols + i) as u64))
                    .collect()
            })
            .collect();
        let flip = |m: &[f32]| -> Vec<f32> {
            (0..rows * cols)
                .map(|i| m[i % rows * cols + i / rows])
                .collect()
        };
        let wide: Vec<Vec<f32>> = tall.iter().map(|m| flip(m)).collect();
        fn slices(m: &[Vec<f32>]) -> Vec<&[f32]> {
            m.iter().map(Vec::as_slice).collect()
        }
        for rule in [Rule::IsoC, Rule::TsvM] {
            let a = merged(rule, rows, &slices(&tall)).unwrap();
            let b = merged(rule, cols, &slices(&wide)).unwrap();
            let worst = flip(&a)
                .iter()
                .zip(&b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 1e-5, "{worst}");
        }
    }

    #[test]
    fn zero_task_vectors_stay_zero() {
        for r in [Rule::IsoC, Rule::IsoCts, Rule::TsvM] {
            close(&merged(r, 2, &[&[0.0; 6], &[0.0; 6]]).unwrap(), &[0.0; 6]);
        }
    }
}
