//! Singular values, right vectors and polar factors through the Gram matrix: a third of the work of a full decomposition,
//! and memory of the shorter side alone. The Gram matrix squares the spectrum, so a direction whose singular value is `c` times the largest is
//! found to about `1e-16 / c^2`; where that is not good enough the full decomposition is taken.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use super::{Matrix, svd};

/// Least trusted square of a singular value beside the largest: directions are then right to some 1e-8, well below the
/// rounding of the `f32` that they end in.
const TRUST: f64 = 1e-8;

/// The Gram matrix `A' A` of a matrix that comes in blocks of rows, so that it need not be held.
#[derive(Debug, Clone)]
pub struct Gram {
    /// Its lower triangle.
    sum: Mat<f64>,
}

impl Gram {
    /// Of a matrix of `columns` columns and, as yet, no rows.
    pub fn new(columns: usize) -> Self {
        Self {
            sum: Mat::zeros(columns, columns),
        }
    }

    /// Adds rows. The sum depends on how the rows were cut into blocks in its last bits.
    ///
    /// # Panics
    /// If the block has another number of columns.
    pub fn add(&mut self, block: &Matrix) {
        self.add_view(block.view());
    }

    /// The same, shared out over the threads of the pool by columns: the bits do not depend on their number.
    ///
    /// # Panics
    /// If the block has another number of columns.
    pub fn add_shared(&mut self, block: &Matrix) {
        assert_eq!(self.columns(), block.cols, "gram matrix: columns");
        shared(self.sum.as_mut(), block.view(), 0);
    }

    fn add_view(&mut self, block: MatRef<'_, f64>) {
        matmul(
            self.sum.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            block.transpose(),
            BlockStructure::Rectangular,
            block,
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    }

    /// Number of columns of the matrix.
    pub fn columns(&self) -> usize {
        self.sum.ncols()
    }

    /// The whole symmetric matrix over `divisor`, row by row, rounded once.
    pub fn divided(&self, divisor: f64) -> impl Iterator<Item = f32> + '_ {
        let n = self.columns();
        let at = move |r: usize, c: usize| self.sum[(r.max(c), r.min(c))];
        (0..n).flat_map(move |r| (0..n).map(move |c| (at(r, c) / divisor) as f32))
    }

    /// True if all rows are zero.
    pub fn is_zero(&self) -> bool {
        (0..self.sum.ncols()).all(|i| self.sum[(i, i)] == 0.0)
    }

    /// Singular values and right vectors; `None` where the full decomposition must be taken: the singular value number
    /// `last` (from 0) is too small beside the largest to be trusted, a value is not finite, or nothing converges.
    /// Takes the matrix, for it is large.
    pub fn spectrum(self, last: usize) -> Option<Spectrum> {
        let k = self.sum.ncols();
        let finite = || (0..k).all(|c| (c..k).all(|r| self.sum[(r, c)].is_finite()));
        if last >= k || !finite() {
            return None;
        }
        let mut vectors = Mat::<f64>::zeros(k, k);
        let mut values = Diag::<f64>::zeros(k);
        let with = ComputeEigenvectors::Yes;
        let request = evd::self_adjoint_evd_scratch::<f64>(k, with, Par::Seq, Default::default());
        evd::self_adjoint_evd(
            self.sum.as_ref(),
            values.as_mut(),
            Some(vectors.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(request)),
            Default::default(),
        )
        .ok()?;
        drop(self.sum);
        let values = values.column_vector();
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
        let squares: Vec<f64> = order.iter().map(|i| values[*i].max(0.0)).collect();
        if squares[last] <= TRUST * squares[0] {
            return None;
        }
        let s = squares.iter().map(|x| x.sqrt()).collect();
        let mut columns = Matrix::zeros(k, k);
        for r in 0..k {
            for (c, i) in order.iter().enumerate() {
                columns.data[r * k + c] = vectors[(r, *i)];
            }
        }
        Some(Spectrum {
            s,
            vectors: columns,
        })
    }
}

/// Columns that one thread works on.
const PANEL: usize = 128;

/// Adds `A' a` from the diagonal downwards to columns from number `at` on of a sum, `a` those columns of `A`.
fn shared(mut sum: MatMut<'_, f64>, block: MatRef<'_, f64>, at: usize) {
    let (n, panels) = (sum.ncols(), sum.ncols().div_ceil(PANEL));
    if panels > 1 {
        let half = panels / 2 * PANEL;
        let (left, right) = sum.split_at_col_mut(half);
        rayon::join(
            || shared(left, block, at),
            || shared(right, block, at + half),
        );
    } else if n > 0 && block.nrows() > 0 {
        let rows = sum.nrows() - at;
        matmul(
            sum.as_mut().subrows_mut(at, rows),
            BlockStructure::Rectangular,
            Accum::Add,
            block.subcols(at, rows).transpose(),
            BlockStructure::Rectangular,
            block.subcols(at, n),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    }
}

/// What a Gram matrix says of its matrix.
#[derive(Debug, Clone)]
pub struct Spectrum {
    /// Singular values, falling.
    pub s: Vec<f64>,
    /// Right singular vectors as columns, `[k, k]`. Signs are as they come out, the same on every run.
    pub vectors: Matrix,
}

impl Spectrum {
    /// `(A' A)^(-1/2)`: `A` times it is the nearest matrix with orthonormal columns.
    #[must_use]
    pub fn inverse_root(self) -> Matrix {
        // As a product of two halves.
        let quarter: Vec<f64> = self.s.iter().map(|s| 1.0 / s.sqrt()).collect();
        let half = self.vectors.scale_columns(&quarter);
        let mut root = Matrix::zeros(half.rows, half.rows);
        faer::linalg::matmul::matmul(
            MatMut::from_row_major_slice_mut(&mut root.data, half.rows, half.rows),
            Accum::Replace,
            half.view(),
            half.view().transpose(),
            1.0,
            Par::Seq,
        );
        root
    }
}

/// The nearest matrix with orthonormal rows or columns (`P Q'` of `P S Q'`), and the singular values in falling order.
///
/// # Errors
/// As [`svd`].
pub fn polar(m: &Matrix) -> Result<(Matrix, Vec<f64>), String> {
    let k = m.rows.min(m.cols);
    let wide = m.rows <= m.cols;
    let mut gram = Gram::new(k);
    gram.add_view(if wide { m.view().transpose() } else { m.view() });
    let Some(spectrum) = gram.spectrum(k.saturating_sub(1)) else {
        let d = svd(m)?;
        return Ok((d.u.times(&d.vt), d.s));
    };
    let s = spectrum.s.clone();
    let root = spectrum.inverse_root();
    Ok((if wide { root.times(m) } else { m.times(&root) }, s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn random(rows: usize, cols: usize, name: &str) -> Matrix {
        let s = Stream::new(5, name, 0);
        Matrix {
            rows,
            cols,
            data: (0..rows * cols)
                .map(|i| f64::from(s.normal(i as u64)))
                .collect(),
        }
    }

    fn distance(a: &Matrix, b: &Matrix) -> f64 {
        let mut d = a.clone();
        d.add(-1.0, b);
        d.norm() / b.norm()
    }

    #[test]
    fn agrees_with_the_full_decomposition() {
        // Wide, tall, square, of low rank (no trust in the last values), and nothing but zeros.
        let low = random(40, 3, "l").times(&random(3, 30, "r"));
        let zero = Matrix::zeros(5, 4);
        for m in [
            random(20, 70, "w"),
            random(70, 20, "t"),
            random(30, 30, "s"),
            low,
            zero,
        ] {
            let full = svd(&m).unwrap();
            let (nearest, s) = polar(&m).unwrap();
            for (a, b) in s.iter().zip(&full.s) {
                assert!((a - b).abs() <= 1e-9 * full.s[0], "{a} {b}");
            }
            if full.s.last() > Some(&1e-3) {
                assert!(distance(&nearest, &full.u.times(&full.vt)) < 1e-9);
                let gram = if m.rows <= m.cols {
                    nearest.times(&nearest.transposed())
                } else {
                    nearest.transposed().times(&nearest)
                };
                for i in 0..gram.rows {
                    assert!((gram.data[i * gram.cols + i] - 1.0).abs() < 1e-9);
                }
            }
            // In blocks, along the longer side.
            let tall = if m.rows < m.cols { m.transposed() } else { m };
            let mut gram = Gram::new(tall.cols);
            for rows in tall.data.chunks(7 * tall.cols) {
                gram.add(&Matrix {
                    rows: rows.len() / tall.cols,
                    cols: tall.cols,
                    data: rows.to_vec(),
                });
            }
            let low = full.s[full.s.len() - 1] <= 1e-3;
            assert_eq!(gram.is_zero(), full.s[0] == 0.0);
            let Some(found) = gram.spectrum(tall.cols - 1) else {
                assert!(low);
                continue;
            };
            assert!(!low);
            let left = tall.times(&found.vectors);
            for (c, s) in found.s.iter().enumerate() {
                assert!((s - full.s[c]).abs() <= 1e-9 * full.s[0]);
                let norm = (0..left.rows).map(|r| left.data[r * left.cols + c].powi(2));
                assert!((norm.sum::<f64>().sqrt() - s).abs() <= 1e-9 * full.s[0]);
            }
            let nearest = tall.times(&found.inverse_root());
            assert!(distance(&nearest, &polar(&tall).unwrap().0) < 1e-9);
        }
    }

    #[test]
    fn shared_sums_are_the_product() {
        for (rows, cols) in [(7, 1), (5, 128), (9, 300)] {
            let m = random(rows, cols, "g");
            let mut gram = Gram::new(cols);
            gram.add_shared(&m);
            gram.add_shared(&m);
            let want = m.transposed().times(&m);
            let got: Vec<f32> = gram.divided(2.0).collect();
            for (a, b) in got.iter().zip(&want.data) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut m = random(4, 6, "n");
        m.data[3] = f64::NAN;
        assert!(polar(&m).is_err());
        let mut gram = Gram::new(6);
        gram.add(&m);
        assert!(gram.spectrum(2).is_none());
    }
}
