//! Truncated singular value decompositions: of a product from its factors, and of a matrix.

use polyloom_core::linalg::{Matrix, Svd, qr, svd};
use polyloom_core::rng::Stream;

/// SVD of `left right` (`[out, R]` times `[R, in]`) without forming the product when R is the smallest dimension:
/// QR of both factors, then the SVD of a R x R core. Holds all of its singular values that can be non-zero.
pub fn product_svd(left: &Matrix, right: &Matrix) -> Result<Svd, String> {
    if left.cols >= left.rows.min(right.cols) {
        return svd(&left.times(right));
    }
    let (q_left, r_left) = qr(left);
    let (q_right, r_right) = qr(&right.transposed());
    let core = svd(&r_left.times(&r_right.transposed()))?;
    Ok(Svd {
        u: q_left.times(&core.u),
        s: core.s,
        vt: core.vt.times(&q_right.transposed()),
    })
}

/// The first `rank` singular triplets of a matrix.
///
/// Exact up to 512 rows or columns and whenever `rank` is more than an eighth of the smaller dimension; otherwise
/// randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) with 16 extra directions and six
/// rounds. The draw depends on the shape only.
pub fn truncated_svd(m: &Matrix, rank: usize) -> Result<Svd, String> {
    let small = m.rows.min(m.cols);
    let mut found = if small <= 512 || rank * 8 > small {
        svd(m)?
    } else {
        randomised(m, rank + 16)?
    };
    let rank = rank.min(found.s.len());
    found.u = found.u.first_columns(rank);
    found.vt = found.vt.first_rows(rank);
    found.s.truncate(rank);
    Ok(found)
}

fn randomised(m: &Matrix, width: usize) -> Result<Svd, String> {
    let stream = Stream::new(0, "randomised svd", 0);
    let mut draw = Matrix::zeros(m.cols, width);
    for (i, v) in draw.data.iter_mut().enumerate() {
        *v = f64::from(stream.normal(i as u64));
    }
    let transposed = m.transposed();
    let (mut q, _) = qr(&m.times(&draw));
    for _ in 0..6 {
        let (p, _) = qr(&transposed.times(&q));
        q = qr(&m.times(&p)).0;
    }
    let core = svd(&q.transposed().times(m))?;
    Ok(Svd {
        u: q.times(&core.u),
        s: core.s,
        vt: core.vt,
    })
}

/// The smallest k whose first k squared singular values hold at least `share` of all (PEFT's energy rule); all of
/// them if rounding keeps the sum below.
pub fn energy_rank(singular_values: &[f64], share: f64) -> usize {
    let total: f64 = singular_values.iter().map(|s| s * s).sum();
    let mut sum = 0.0;
    for (i, s) in singular_values.iter().enumerate() {
        sum += s * s;
        if sum >= share * total {
            return i + 1;
        }
    }
    singular_values.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, cols: usize, index: u64) -> Matrix {
        let s = Stream::new(5, "sample", index);
        let data = (0..rows * cols)
            .map(|i| f64::from(s.normal(i as u64)))
            .collect();
        Matrix { rows, cols, data }
    }

    #[test]
    fn the_product_is_never_needed() {
        let (b, a) = (sample(30, 4, 0), sample(4, 20, 1));
        let from_factors = product_svd(&b, &a).unwrap();
        let direct = svd(&b.times(&a)).unwrap();
        assert_eq!(from_factors.s.len(), 4);
        for (x, y) in from_factors.s.iter().zip(&direct.s) {
            assert!((x - y).abs() < 1e-10);
        }
        let mut back = from_factors
            .u
            .scale_columns(&from_factors.s)
            .times(&from_factors.vt);
        back.add(-1.0, &b.times(&a));
        assert!(back.norm() < 1e-10);
    }

    #[test]
    fn random_directions_find_a_low_rank_matrix() {
        let m = sample(600, 5, 2).times(&sample(5, 560, 3));
        let d = truncated_svd(&m, 5).unwrap();
        let mut rest = d.u.scale_columns(&d.s).times(&d.vt);
        rest.add(-1.0, &m);
        assert!(rest.norm() < 1e-9 * m.norm());
    }

    #[test]
    fn energy() {
        assert_eq!(energy_rank(&[2.0, 1.0, 1.0], 0.6), 1);
        assert_eq!(energy_rank(&[2.0, 1.0, 1.0], 0.7), 2);
        assert_eq!(energy_rank(&[2.0, 1.0, 1.0], 1.0), 3);
    }
}
