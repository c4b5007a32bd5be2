//! Leading singular triples and polar factors through the Gram matrix of the shorter side: a third of the work of a full
//! decomposition. The Gram matrix squares the spectrum, so a direction whose singular value is `c` times the largest is
//! found to about `1e-16 / c^2`; where that is not good enough the full decomposition is taken.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Par};

use super::{Matrix, Svd, svd};

/// Least trusted square of a singular value beside the largest: directions are then right to some 1e-8, well below the
/// rounding of the `f32` that they end in.
const TRUST: f64 = 1e-8;

/// Squares of the singular values, falling, and the vectors of the shorter side as columns; `None` where the full
/// decomposition must be taken: the square at `last` is not to be trusted, or nothing converges.
fn spectrum(m: &Matrix, last: usize) -> Option<(Vec<f64>, Matrix)> {
    let k = m.rows.min(m.cols);
    if k == 0 || last >= k || m.data.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let short = if m.rows <= m.cols {
        m.view()
    } else {
        m.view().transpose()
    };
    let mut gram = Mat::<f64>::zeros(k, k);
    matmul(
        gram.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        short,
        BlockStructure::Rectangular,
        short.transpose(),
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    let mut vectors = Mat::<f64>::zeros(k, k);
    let mut values = Diag::<f64>::zeros(k);
    let with = ComputeEigenvectors::Yes;
    let request = evd::self_adjoint_evd_scratch::<f64>(k, with, Par::Seq, Default::default());
    evd::self_adjoint_evd(
        gram.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
        Default::default(),
    )
    .ok()?;
    let values = values.column_vector();
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    let squares: Vec<f64> = order.iter().map(|i| values[*i].max(0.0)).collect();
    if squares[last] <= TRUST * squares[0] {
        return None;
    }
    let mut columns = Matrix::zeros(k, k);
    for r in 0..k {
        for (c, i) in order.iter().enumerate() {
            columns.data[r * k + c] = vectors[(r, *i)];
        }
    }
    Some((squares, columns))
}

/// The first `n` singular triples (all of them if there are fewer). Signs are as they come out, the same on every run.
///
/// # Errors
/// As [`svd`].
pub fn leading(m: &Matrix, n: usize) -> Result<Svd, String> {
    let n = n.min(m.rows).min(m.cols);
    if n == 0 {
        return Ok(Svd {
            u: Matrix::zeros(m.rows, 0),
            s: Vec::new(),
            vt: Matrix::zeros(0, m.cols),
        });
    }
    let Some((squares, vectors)) = spectrum(m, n - 1) else {
        let all = svd(m)?;
        return Ok(Svd {
            u: all.u.first_columns(n),
            s: all.s[..n].to_vec(),
            vt: all.vt.first_rows(n),
        });
    };
    let s: Vec<f64> = squares[..n].iter().map(|x| x.sqrt()).collect();
    let inverse: Vec<f64> = s.iter().map(|s| 1.0 / s).collect();
    let short = vectors.first_columns(n);
    Ok(if m.rows <= m.cols {
        let vt = short.transposed().times(m).scale_rows(&inverse);
        Svd { u: short, s, vt }
    } else {
        let u = m.times(&short).scale_columns(&inverse);
        let vt = short.transposed();
        Svd { u, s, vt }
    })
}

/// The nearest matrix with orthonormal rows or columns (`P Q'` of `P S Q'`), and the singular values in falling order.
///
/// # Errors
/// As [`svd`].
pub fn polar(m: &Matrix) -> Result<(Matrix, Vec<f64>), String> {
    let k = m.rows.min(m.cols);
    let Some((squares, vectors)) = spectrum(m, k.saturating_sub(1)) else {
        let d = svd(m)?;
        return Ok((d.u.times(&d.vt), d.s));
    };
    let s: Vec<f64> = squares.iter().map(|x| x.sqrt()).collect();
    // The inverse root of the Gram matrix, as a product of two halves.
    let quarter: Vec<f64> = s.iter().map(|s| 1.0 / s.sqrt()).collect();
    let half = vectors.scale_columns(&quarter);
    let root = half.times(&half.transposed());
    let nearest = if m.rows <= m.cols {
        root.times(m)
    } else {
        m.times(&root)
    };
    Ok((nearest, s))
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
            for n in [0, 1, 3, 500] {
                let d = leading(&m, n).unwrap();
                let n = n.min(full.s.len());
                assert_eq!((d.u.cols, d.s.len(), d.vt.rows), (n, n, n));
                let product = |d: &Svd, n: usize| {
                    let u = d.u.first_columns(n).scale_columns(&d.s[..n]);
                    u.times(&d.vt.first_rows(n))
                };
                let (got, want) = (product(&d, n), product(&full, n));
                if want.norm() > 0.0 {
                    assert!(distance(&got, &want) < 1e-9, "{n}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut m = random(4, 6, "n");
        m.data[3] = f64::NAN;
        assert!(leading(&m, 2).is_err() && polar(&m).is_err());
    }
}
