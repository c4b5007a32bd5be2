//! Gauss–Hermite points for means over a standard normal variable.

/// Points and weights (sum 1) with Σ w f(x) = E f(X) for a standard normal X and polynomials f of degree below 2 n: the
/// eigenvalues of the Jacobi matrix of Hermite's polynomials, found by counting signs (Sturm) and halving; the weights from
/// the orthonormal polynomials. O(n²).
pub(crate) fn normal_points(n: usize) -> Vec<(f64, f64)> {
    let off = |k: usize| (k as f64).sqrt();
    // Eigenvalues below x: negative pivots of J − x.
    let below = |x: f64| {
        let (mut count, mut pivot) = (0, 1.0);
        for k in 0..n {
            let before = if k == 0 { 0.0 } else { off(k).powi(2) / pivot };
            pivot = -x - before;
            if pivot == 0.0 {
                pivot = f64::MIN_POSITIVE.sqrt();
            }
            count += usize::from(pivot < 0.0);
        }
        count
    };
    let widest = 2.0 * (n as f64).sqrt() + 1.0;
    (0..n)
        .map(|i| {
            let (mut low, mut high) = (-widest, widest);
            loop {
                let middle = f64::midpoint(low, high);
                if middle <= low || middle >= high {
                    break;
                }
                if below(middle) > i {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            // Signs are lost at the middle point itself, which is exact by symmetry.
            let x = if 2 * i + 1 == n { 0.0 } else { low };
            let (mut last, mut now, mut total) = (0.0, 1.0, 0.0);
            for k in 0..n {
                total += now * now;
                (last, now) = (now, (x * now - off(k) * last) / off(k + 1));
            }
            (x, 1.0 / total)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_normal_variable() {
        let three = normal_points(3);
        assert!((three[2].0 - 3f64.sqrt()).abs() < 1e-14 && (three[1].1 - 2.0 / 3.0).abs() < 1e-14);
        for n in [1, 2, 5, 41, 61] {
            let points = normal_points(n);
            let moment = |k: i32| points.iter().map(|(x, w)| w * x.powi(k)).sum::<f64>();
            assert!((moment(0) - 1.0).abs() < 1e-13, "{n}");
            assert!(moment(1).abs() < 1e-13);
            if n >= 5 {
                assert!(
                    (moment(2) - 1.0).abs() < 1e-12 && (moment(8) - 105.0).abs() < 1e-9,
                    "{n}"
                );
            }
        }
    }
}
