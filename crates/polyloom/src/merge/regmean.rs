//! `regmean`: linear layers whose outputs are nearest to those of all experts on their own inputs.

use std::sync::Arc;

use polyloom_core::linalg::{Matrix, solve_definite};

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Statistics,
    TensorJob, Unit, Unset,
};
use super::spectral::Mean;
use crate::error::{MergeError, Result};

/// The statistics file of one input, for methods that need one.
pub(super) const STATS: Param = Param::each(
    "stats",
    Kind::File,
    Unset::Nothing,
    "This input's statistics file; the same as `stats` in its `[[expert]]`.",
)
.whole();

static SPEC: Spec = Spec {
    name: "regmean",
    summary: "Least-squares average of linear layers, from Gram matrices of their inputs",
    source: "RegMean (Jin et al. 2022); fusion_bench/method/regmean/regmean.py; methods section 5",
    formula: "For every matrix with statistics: `G_i` = the stored `<weight>.gram` (`X'X / rows` of the layer's inputs) with everything off the diagonal times `off_diagonal`; `R = (sum_i W_i G_i) (sum_i G_i)^-1` (weights are [out, in]). Everything else: mean.",
    differs: "Solved in f64 by a Cholesky factorisation; the peer inverts in f32. A singular sum gets a ridge towards the mean of the weights, `sum_i G_i + e I` with e from 1e-8 of the mean diagonal upwards, so that directions no input has seen are averaged.",
    cost: "one pass and one over the statistics; per matrix a factorisation [in, in] and n products [out, in] x [in, in] in f64, one thread each, two tensors at a time",
    base: Base::Ignored,
    experts: (1, usize::MAX),
    deltas: false,
    scope: Scope::Tensor,
    params: &[
        Param::shared(
            "off_diagonal",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.9),
            "Factor of the Gram matrices off their diagonal; 1 changes nothing, 0 keeps the diagonal only.",
        ),
        STATS,
    ],
    on: None,
    golden: Golden::Cases(&["regmean"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&RegMean];

struct RegMean;

struct Solve {
    statistics: Arc<dyn Statistics>,
    experts: Vec<String>,
    name: String,
    rows: usize,
    cols: usize,
    off_diagonal: f64,
}

/// The statistics of a job.
///
/// # Errors
/// Naming the input that has no file, and how to give one.
pub(super) fn statistics<'a>(
    method: &str,
    kind: &str,
    job: &'a Job,
) -> Result<&'a Arc<dyn Statistics>> {
    let without = |statistics: &Arc<dyn Statistics>| {
        (0..job.experts.len()).find(|i| statistics.file(*i).is_none())
    };
    let lacking = match &job.statistics {
        None => Some(0),
        Some(statistics) => without(statistics),
    };
    match (&job.statistics, lacking) {
        (Some(statistics), None) => Ok(statistics),
        (_, lacking) => Err(MergeError::plan(
            "no-statistics",
            format!(
                "merge method `{method}` needs statistics of every input; `{}` has none",
                job.experts.get(lacking.unwrap_or(0)).map_or("", String::as_str)
            ),
        )
        .hint("name its file with `stats = \"FILE\"` in `[[expert]]` (--each stats=FILE,FILE)")
        .hint(format!(
            "`polyloom stats MODEL -t TASK --kind {kind} -o FILE` collects it: safetensors with one tensor `<weight name>.{kind}` per weight"
        ))),
    }
}

fn gram(tensor: &TensorJob) -> String {
    format!("{}.gram", tensor.name)
}

/// True if a tensor is solved: all inputs have its Gram matrix.
///
/// # Errors
/// A Gram matrix of the wrong shape.
fn solved(tensor: &TensorJob, experts: usize, statistics: &dyn Statistics) -> Result<bool> {
    let [_, cols] = tensor.shape[..] else {
        return Ok(false);
    };
    let name = gram(tensor);
    for expert in 0..experts {
        let Some(shape) = statistics.shape(expert, &name) else {
            return Ok(false);
        };
        if shape != [cols, cols] {
            return Err(MergeError::plan(
                "statistics-shape",
                format!(
                    "tensor `{name}` has shape {shape:?}; the weight {:?} needs [{cols}, {cols}]",
                    tensor.shape
                ),
            )
            .at(statistics.file(expert).unwrap_or_default())
            .hint("these statistics belong to another model: `polyloom stats` collects those of this one"));
        }
    }
    Ok(true)
}

impl Method for RegMean {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let statistics = statistics("regmean", "gram", job)?;
        if !solved(tensor, job.experts.len(), &**statistics)? {
            return Ok(Box::new(Mean((1.0 / job.experts.len() as f64) as f32)));
        }
        Ok(Box::new(Solve {
            statistics: statistics.clone(),
            experts: job.experts.clone(),
            name: gram(tensor),
            rows: tensor.shape[0],
            cols: tensor.shape[1],
            off_diagonal: tensor.shared.number("off_diagonal"),
        }))
    }

    fn check(&self, job: &Job) -> Result<Vec<String>> {
        let statistics = statistics("regmean", "gram", job)?;
        let mut averaged = Vec::new();
        let mut matrices = 0;
        for tensor in &job.tensors {
            if tensor.shape.len() == 2 {
                matrices += 1;
                if !solved(tensor, job.experts.len(), &**statistics)? {
                    averaged.push(tensor.name.as_str());
                }
            }
        }
        Ok(match averaged.first() {
            None => Vec::new(),
            Some(first) => vec![format!(
                "{} of {matrices} matrices have no Gram matrix in every statistics file and are averaged; first: {first}",
                averaged.len()
            )],
        })
    }
}

/// One layer of several experts: what RegMean sums over them.
#[derive(Debug)]
pub struct Sums {
    g: Matrix,
    wg: Matrix,
    mean: Matrix,
    share: f64,
    off_diagonal: f64,
}

impl Sums {
    /// Of a layer `[rows, cols]` of so many experts, with the factor of Gram matrices off their diagonal.
    #[must_use]
    pub fn new(rows: usize, cols: usize, experts: usize, off_diagonal: f64) -> Self {
        Self {
            g: Matrix::zeros(cols, cols),
            wg: Matrix::zeros(rows, cols),
            mean: Matrix::zeros(rows, cols),
            share: 1.0 / experts as f64,
            off_diagonal,
        }
    }

    /// Adds an expert's weight `[rows, cols]` and Gram matrix `[cols, cols]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add(&mut self, weight: &[f32], gram: &[f32]) {
        let n = self.g.cols;
        let mut g = Matrix::from_f32(n, n, gram);
        for (i, row) in g.data.chunks_exact_mut(n).enumerate() {
            for (j, v) in row.iter_mut().enumerate() {
                if i != j {
                    *v *= self.off_diagonal;
                }
            }
        }
        let w = Matrix::from_f32(self.wg.rows, n, weight);
        self.wg.add_product(1.0, &w, &g);
        self.g.add(1.0, &g);
        self.mean.add(self.share, &w);
    }

    /// The merged weight; `None` if the sum of the matrices is not positive semi-definite.
    #[must_use]
    pub fn solve(&self) -> Option<Vec<f32>> {
        Some(solve(&self.g, &self.wg, &self.mean)?.to_f32())
    }
}

/// `(sum_i W_i G_i) (sum_i G_i)^-1` from the two sums; `mean` is the mean of the weights.
fn solve(g: &Matrix, wg: &Matrix, mean: &Matrix) -> Option<Matrix> {
    if let Some(x) = solve_definite(g, wg.clone()) {
        return Some(x);
    }
    let n = g.rows;
    let diagonal = (0..n).map(|i| g.data[i * n + i]).sum::<f64>() / n.max(1) as f64;
    if diagonal == 0.0 {
        return Some(mean.clone()); // No input has seen anything.
    }
    let mut ridge = diagonal * 1e-8;
    while ridge <= diagonal {
        let (mut g, mut wg) = (g.clone(), wg.clone());
        for i in 0..n {
            g.data[i * n + i] += ridge;
        }
        wg.add(ridge, mean);
        if let Some(x) = solve_definite(&g, wg) {
            return Some(x);
        }
        ridge *= 10.0;
    }
    None
}

impl Kernel for Solve {
    fn unit(&self) -> Unit {
        Unit::Tensor
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let n = self.cols;
        let mut sums = Sums::new(self.rows, n, chunk.inputs.len(), self.off_diagonal);
        let mut values = vec![0.0f32; n * n];
        for (expert, input) in chunk.inputs.iter().enumerate() {
            self.statistics.read(expert, &self.name, 0, &mut values)?;
            sums.add(input, &values);
        }
        let x = sums.solve().ok_or_else(|| {
            let files: Vec<String> = (0..self.experts.len())
                .filter_map(|i| self.statistics.file(i))
                .collect();
            MergeError::plan(
                "bad-statistics",
                format!(
                    "tensor `{}`: the sum of these matrices is not positive semi-definite, so they are not X'X of any inputs",
                    self.name
                ),
            )
            .at(files.join(", "))
            .hint("collect the statistics again (`polyloom stats`), or leave this tensor out of one file to average the weight")
        })?;
        out.copy_from_slice(&x);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, cols: usize, data: &[f64]) -> Matrix {
        Matrix {
            rows,
            cols,
            data: data.to_vec(),
        }
    }

    fn close(a: &Matrix, b: &[f64]) {
        for (x, y) in a.data.iter().zip(b) {
            assert!((x - y).abs() < 1e-7, "{:?} against {b:?}", a.data);
        }
    }

    #[test]
    fn each_input_counts_where_it_saw_data() {
        // One output, two inputs: expert a saw only the first, b three times as much of the second.
        // G = diag(1, 0) + diag(1, 3); W_a = [2, 9], W_b = [4, 5]: R = [(2 + 4)/2, 15/3].
        let g = matrix(2, 2, &[2.0, 0.0, 0.0, 3.0]);
        let wg = matrix(1, 2, &[2.0 + 4.0, 15.0]);
        close(
            &solve(&g, &wg, &matrix(1, 2, &[3.0, 7.0])).unwrap(),
            &[3.0, 5.0],
        );
    }

    #[test]
    fn directions_nobody_saw_are_averaged() {
        // Only the first input was ever non-zero.
        let g = matrix(2, 2, &[2.0, 0.0, 0.0, 0.0]);
        let wg = matrix(1, 2, &[6.0, 0.0]);
        close(
            &solve(&g, &wg, &matrix(1, 2, &[3.0, 7.0])).unwrap(),
            &[3.0, 7.0],
        );
        let nothing = Matrix::zeros(2, 2);
        let mean = matrix(1, 2, &[3.0, 7.0]);
        close(
            &solve(&nothing, &Matrix::zeros(1, 2), &mean).unwrap(),
            &[3.0, 7.0],
        );
    }

    #[test]
    fn what_is_no_gram_matrix_is_refused() {
        let g = matrix(2, 2, &[1.0, 5.0, 5.0, 1.0]);
        assert!(solve(&g, &Matrix::zeros(1, 2), &Matrix::zeros(1, 2)).is_none());
    }
}
