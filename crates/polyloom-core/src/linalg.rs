//! Dense linear algebra on small and middling matrices in `f64`: products, thin SVD, thin QR.
//!
//! Every routine runs on one thread, so that every run gives the same bits; callers parallelise over tensors or
//! modules. Matrices are row-major. Factorisations are those of `faer`, with signs fixed where a caller could see them.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::ComputeSvdVectors;
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};

mod gram;

pub use gram::{Gram, Spectrum, polar};

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Values, row-major.
    pub data: Vec<f64>,
}

/// Singular values in falling order with their vectors.
#[derive(Debug, Clone)]
pub struct Svd {
    /// Left vectors, `[rows, k]` with k the smaller dimension.
    pub u: Matrix,
    /// Singular values.
    pub s: Vec<f64>,
    /// Right vectors as rows, `[k, cols]`.
    pub vt: Matrix,
}

impl Matrix {
    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            data: vec![0.0; rows * cols],
        }
    }

    /// From `f32` values.
    ///
    /// # Panics
    /// If there are not `rows * cols` of them.
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * cols, "matrix: number of values");
        Self {
            rows,
            cols,
            data: values.iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// Rounded to `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|&v| v as f32).collect()
    }

    /// The transpose.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.cols, self.rows);
        for r in 0..self.rows {
            for c in 0..self.cols {
                out.data[c * self.rows + r] = self.data[r * self.cols + c];
            }
        }
        out
    }

    /// `self * other`.
    ///
    /// # Panics
    /// If the inner dimensions differ.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.cols, other.rows, "matrix product: inner dimensions");
        let mut out = Self::zeros(self.rows, other.cols);
        if self.cols > 0 && self.rows > 0 && other.cols > 0 {
            faer::linalg::matmul::matmul(
                MatMut::from_row_major_slice_mut(&mut out.data, out.rows, out.cols),
                Accum::Replace,
                self.view(),
                other.view(),
                1.0,
                Par::Seq,
            );
        }
        out
    }

    /// Adds `factor * other`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn add(&mut self, factor: f64, other: &Self) {
        assert_eq!(
            (self.rows, self.cols),
            (other.rows, other.cols),
            "matrix sum: shapes"
        );
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a += factor * b;
        }
    }

    /// Adds `factor * a * b`: the product of `a [rows, k]` and `b [k, cols]` without a copy of it.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_product(&mut self, factor: f64, a: &Self, b: &Self) {
        assert_eq!(
            (self.rows, a.cols, self.cols),
            (a.rows, b.rows, b.cols),
            "matrix product: shapes"
        );
        if a.cols > 0 && self.rows > 0 && self.cols > 0 {
            faer::linalg::matmul::matmul(
                MatMut::from_row_major_slice_mut(&mut self.data, a.rows, b.cols),
                Accum::Add,
                a.view(),
                b.view(),
                factor,
                Par::Seq,
            );
        }
    }

    /// Adds `factor * a' * a` for `a [k, n]`; `self` is `[n, n]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_gram(&mut self, factor: f64, a: &Self) {
        assert_eq!(
            (self.rows, self.cols),
            (a.cols, a.cols),
            "gram matrix: shapes"
        );
        if a.rows > 0 && a.cols > 0 {
            faer::linalg::matmul::matmul(
                MatMut::from_row_major_slice_mut(&mut self.data, a.cols, a.cols),
                Accum::Add,
                a.view().transpose(),
                a.view(),
                factor,
                Par::Seq,
            );
        }
    }

    /// The first `n` columns.
    #[must_use]
    pub fn first_columns(&self, n: usize) -> Self {
        let n = n.min(self.cols);
        let data = self
            .data
            .chunks_exact(self.cols.max(1))
            .flat_map(|row| &row[..n])
            .copied()
            .collect();
        Self {
            rows: self.rows,
            cols: n,
            data,
        }
    }

    /// The first `n` rows.
    #[must_use]
    pub fn first_rows(&self, n: usize) -> Self {
        let n = n.min(self.rows);
        Self {
            rows: n,
            cols: self.cols,
            data: self.data[..n * self.cols].to_vec(),
        }
    }

    /// Multiplies column `c` by `factors[c]`.
    #[must_use]
    pub fn scale_columns(mut self, factors: &[f64]) -> Self {
        for row in self.data.chunks_exact_mut(self.cols.max(1)) {
            for (v, f) in row.iter_mut().zip(factors) {
                *v *= f;
            }
        }
        self
    }

    /// Multiplies row `r` by `factors[r]`.
    #[must_use]
    pub fn scale_rows(mut self, factors: &[f64]) -> Self {
        for (row, f) in self.data.chunks_exact_mut(self.cols.max(1)).zip(factors) {
            for v in row {
                *v *= f;
            }
        }
        self
    }

    /// Root of the sum of squares.
    pub fn norm(&self) -> f64 {
        self.data.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.data, self.rows, self.cols)
    }

    fn from_faer(m: MatRef<'_, f64>) -> Self {
        let mut out = Self::zeros(m.nrows(), m.ncols());
        for r in 0..out.rows {
            for c in 0..out.cols {
                out.data[r * out.cols + c] = m[(r, c)];
            }
        }
        out
    }
}

/// The full thin singular value decomposition; an error text if it does not converge (the matrix holds a value that
/// is not finite).
///
/// Signs are fixed: the entry of largest magnitude of every left vector is positive (the first of equals).
pub fn svd(m: &Matrix) -> Result<Svd, String> {
    if m.data.iter().any(|v| !v.is_finite()) {
        return Err("holds a value that is not finite".into());
    }
    let k = m.rows.min(m.cols);
    if k == 0 {
        return Ok(Svd {
            u: Matrix::zeros(m.rows, 0),
            s: Vec::new(),
            vt: Matrix::zeros(0, m.cols),
        });
    }
    let mut u = Mat::<f64>::zeros(m.rows, k);
    let mut v = Mat::<f64>::zeros(m.cols, k);
    let mut s = Diag::<f64>::zeros(k);
    let thin = ComputeSvdVectors::Thin;
    let request = faer::linalg::svd::svd_scratch::<f64>(
        m.rows,
        m.cols,
        thin,
        thin,
        Par::Seq,
        Default::default(),
    );
    faer::linalg::svd::svd(
        m.view(),
        s.as_mut(),
        Some(u.as_mut()),
        Some(v.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
        Default::default(),
    )
    .map_err(|_| "has no singular value decomposition that converges".to_owned())?;
    let mut u = Matrix::from_faer(u.as_ref());
    let mut vt = Matrix::from_faer(v.as_ref().transpose());
    for c in 0..k {
        let mut best = 0.0f64;
        for r in 0..u.rows {
            let x = u.data[r * k + c];
            if x.abs() > best.abs() {
                best = x;
            }
        }
        if best < 0.0 {
            for r in 0..u.rows {
                u.data[r * k + c] *= -1.0;
            }
            for x in &mut vt.data[c * m.cols..][..m.cols] {
                *x *= -1.0;
            }
        }
    }
    let s = (0..k).map(|i| s.column_vector()[i]).collect();
    Ok(Svd { u, s, vt })
}

/// Thin QR: `q [rows, k]` with orthonormal columns and upper trapezoidal `r [k, cols]`, k the smaller dimension
/// (Householder; signs as LAPACK leaves them are not promised).
pub fn qr(m: &Matrix) -> (Matrix, Matrix) {
    use faer::linalg::householder as h;
    use faer::linalg::qr::no_pivoting::factor as f;
    let k = m.rows.min(m.cols);
    if k == 0 {
        return (Matrix::zeros(m.rows, 0), Matrix::zeros(0, m.cols));
    }
    let mut a = m.view().to_owned();
    let block = f::recommended_block_size::<f64>(m.rows, m.cols);
    let mut coeff = Mat::<f64>::zeros(block, k);
    let request =
        f::qr_in_place_scratch::<f64>(m.rows, m.cols, block, Par::Seq, Default::default());
    f::qr_in_place(
        a.as_mut(),
        coeff.as_mut(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
        Default::default(),
    );
    let mut r = Matrix::zeros(k, m.cols);
    for i in 0..k {
        for j in i..m.cols {
            r.data[i * m.cols + j] = a[(i, j)];
        }
    }
    let mut q = Mat::<f64>::identity(m.rows, k);
    let request =
        h::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(m.rows, block, k);
    h::apply_block_householder_sequence_on_the_left_in_place_with_conj(
        a.as_ref().subcols(0, k),
        coeff.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
    );
    (Matrix::from_faer(q.as_ref()), r)
}

/// Solves `X G = B` for X, `G [n, n]` symmetric and positive definite (its lower triangle is read), `B [k, n]`, by a
/// Cholesky factorisation; `None` if G is not numerically positive definite or holds a value that is not finite.
///
/// # Panics
/// If the shapes do not fit.
pub fn solve_definite(g: &Matrix, mut b: Matrix) -> Option<Matrix> {
    use faer::linalg::cholesky::llt;
    let n = g.rows;
    assert_eq!((g.cols, b.cols), (n, n), "solve: shapes");
    if n == 0 || b.rows == 0 {
        return Some(b);
    }
    let largest = (0..n).fold(0.0f64, |m, i| m.max(g.data[i * n + i]));
    let mut l = g.view().to_owned();
    let request = llt::factor::cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default());
    llt::factor::cholesky_in_place(
        l.as_mut(),
        Default::default(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
        Default::default(),
    )
    .ok()?;
    // A pivot at the size of rounding errors says nothing about the matrix: it counts as zero.
    let least = largest * f64::EPSILON * n as f64;
    if !(0..n).all(|i| l[(i, i)].powi(2) > least) {
        return None;
    }
    // Rows of B are the columns of the right-hand side: G X' = B'.
    let request = llt::solve::solve_in_place_scratch::<f64>(n, b.rows, Par::Seq);
    llt::solve::solve_in_place(
        l.as_ref(),
        MatMut::from_row_major_slice_mut(&mut b.data, b.rows, n).transpose_mut(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
    );
    b.data.iter().all(|v| v.is_finite()).then_some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, cols: usize) -> Matrix {
        let s = crate::rng::Stream::new(3, "m", (rows * 31 + cols) as u64);
        let data = (0..rows * cols)
            .map(|i| f64::from(s.normal(i as u64)))
            .collect();
        Matrix { rows, cols, data }
    }

    fn close(a: &Matrix, b: &Matrix) {
        assert_eq!((a.rows, a.cols), (b.rows, b.cols));
        for (x, y) in a.data.iter().zip(&b.data) {
            assert!((x - y).abs() < 1e-10, "{x} {y}");
        }
    }

    #[test]
    fn factors_multiply_back() {
        for (r, c) in [(5, 3), (3, 5), (4, 4), (70, 40), (1, 6)] {
            let m = sample(r, c);
            let d = svd(&m).unwrap();
            close(&d.u.clone().scale_columns(&d.s).times(&d.vt), &m);
            assert!(d.s.windows(2).all(|w| w[0] >= w[1]));
            let (q, upper) = qr(&m);
            close(&q.times(&upper), &m);
            let k = r.min(c);
            let mut eye = Matrix::zeros(k, k);
            for i in 0..k {
                eye.data[i * k + i] = 1.0;
            }
            close(&q.transposed().times(&q), &eye);
        }
    }

    #[test]
    fn definite_systems_are_solved() {
        for (n, k) in [(1, 3), (4, 2), (60, 7)] {
            let mut g = Matrix::zeros(n, n);
            g.add_gram(1.0, &sample(2 * n, n));
            let x = sample(k, n);
            let mut b = Matrix::zeros(k, n);
            b.add_product(2.0, &x, &g);
            let mut twice = x.clone();
            twice.add(1.0, &x);
            close(&solve_definite(&g, b).unwrap(), &twice);
        }
        // Rank one in two dimensions, and the zero matrix.
        let g = |data: Vec<f64>| Matrix {
            rows: 2,
            cols: 2,
            data,
        };
        assert!(solve_definite(&g(vec![1.0, 1.0, 1.0, 1.0]), Matrix::zeros(1, 2)).is_none());
        assert!(solve_definite(&g(vec![0.0; 4]), Matrix::zeros(1, 2)).is_none());
        assert!(solve_definite(&g(vec![f64::NAN; 4]), Matrix::zeros(1, 2)).is_none());
    }

    #[test]
    fn known_singular_values() {
        // [[3, 0], [0, -4]] has 4 and 3.
        let m = Matrix {
            rows: 2,
            cols: 2,
            data: vec![3.0, 0.0, 0.0, -4.0],
        };
        let d = svd(&m).unwrap();
        assert!((d.s[0] - 4.0).abs() < 1e-14 && (d.s[1] - 3.0).abs() < 1e-14);
    }
}
