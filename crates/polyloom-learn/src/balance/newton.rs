//! `A w = w^(-1/alpha)`, `w > 0`: the stationary points of Nash-MTL (`alpha = 1`) and FairGrad, by a damped Newton method.
//!
//! They are the minimum of the convex `w'Aw/2 - sum_i f(w_i)` with `f' = w^(-1/alpha)`. Variables are scaled so that each
//! is 1 where the other gradients are orthogonal to its own: lengths that lie far apart cost nothing.

use polyloom_core::linalg::{Matrix, solve_definite};

use super::method::{Gram, Unsolved};

/// Largest `|w_i^(1/alpha) (A w)_i - 1|` of an answer.
pub const RESIDUAL: f64 = 1e-8;

/// Weights `w > 0` with `A w = w^(-1/alpha)`.
///
/// # Errors
/// No such weights: a gradient is zero, or a sum of some of them with positive weights is (to the precision of their dot
/// products).
pub fn solve(gram: &Gram, alpha: f64, most: usize) -> Result<Vec<f64>, Unsolved> {
    let n = gram.len();
    let none = |why: &str| Err(Unsolved(why.to_owned()));
    if (0..n).any(|i| !gram.dot(i, i).is_finite()) {
        return none("a gradient is not finite");
    }
    if (0..n).any(|i| gram.dot(i, i) <= 0.0) {
        return none("a gradient is zero: no weights satisfy the equation");
    }
    // w = scale v; equation i over its own size: (C v)_i = v_i^(-1/alpha) with C_ii = 1.
    let scale: Vec<f64> = (0..n)
        .map(|i| gram.dot(i, i).powf(-alpha / (1.0 + alpha)))
        .collect();
    let size: Vec<f64> = scale.iter().map(|s| s.powf(-1.0 / alpha)).collect();
    // Symmetric: row i of the system is size_i scale_i times its equation.
    let weight: Vec<f64> = (0..n).map(|i| size[i] * scale[i]).collect();
    let coupling = |i: usize, j: usize| gram.dot(i, j) * scale[i] * scale[j];
    let power = 1.0 / alpha;
    let mut v = vec![1.0; n];
    let times = |v: &[f64]| -> Vec<f64> {
        let row = |i: usize| (0..n).map(|j| coupling(i, j) * v[j]).sum::<f64>() / weight[i];
        (0..n).map(row).collect()
    };
    let residual = |v: &[f64]| -> f64 {
        let of = times(v).into_iter().zip(v);
        of.map(|(c, v)| (c * v.powf(power) - 1.0).abs())
            .fold(0.0, f64::max)
    };
    let value = |v: &[f64]| -> f64 {
        let square: f64 = times(v)
            .iter()
            .zip(v)
            .zip(&weight)
            .map(|((c, v), k)| k * c * v)
            .sum();
        let barrier = |v: f64| match alpha {
            1.0 => v.ln(),
            _ => v.powf(1.0 - power) / (1.0 - power),
        };
        0.5 * square
            - v.iter()
                .zip(&weight)
                .map(|(v, k)| k * barrier(*v))
                .sum::<f64>()
    };
    for _ in 0..most {
        let slope: Vec<f64> = times(&v)
            .iter()
            .zip(&v)
            .zip(&weight)
            .map(|((c, v), k)| k * (c - v.powf(-power)))
            .collect();
        // Scaled once more by the roots of the diagonal.
        let root: Vec<f64> = (0..n)
            .map(|i| (coupling(i, i) + weight[i] * power * v[i].powf(-power - 1.0)).sqrt())
            .collect();
        let mut hessian = Matrix::zeros(n, n);
        for i in 0..n {
            for j in 0..n {
                hessian.data[i * n + j] = match i == j {
                    true => 1.0,
                    false => coupling(i, j) / (root[i] * root[j]),
                };
            }
        }
        let right = Matrix {
            rows: 1,
            cols: n,
            data: slope.iter().zip(&root).map(|(s, r)| -s / r).collect(),
        };
        let Some(step) = solve_definite(&hessian, right) else {
            return none("the gradients depend on each other: no weights satisfy the equation");
        };
        let step: Vec<f64> = step.data.iter().zip(&root).map(|(s, r)| s / r).collect();
        let falls: f64 = step.iter().zip(&slope).map(|(a, b)| a * b).sum();
        // Stays positive, then halves until the value falls.
        let bound = step.iter().zip(&v).filter(|(s, _)| **s < 0.0);
        let mut length = bound.map(|(s, v)| -0.95 * v / s).fold(1.0, f64::min);
        let now = value(&v);
        let moved = |length: f64| -> Vec<f64> {
            v.iter().zip(&step).map(|(v, s)| v + length * s).collect()
        };
        while length > 1e-12
            && value(&moved(length)) > now + 1e-4 * length * falls + 1e-13 * now.abs()
        {
            length *= 0.5;
        }
        v = moved(length);
        if residual(&v) <= 1e-13 {
            break;
        }
    }
    let left = residual(&v);
    if left.is_nan() || left > RESIDUAL {
        return Err(Unsolved(format!(
            "no weights satisfy the equation (best residual {left:.1e}): gradients depend on each other or oppose exactly"
        )));
    }
    Ok(v.iter().zip(&scale).map(|(v, s)| v * s).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_and_opposed() {
        // Orthogonal: w_i |g_i|^2 = w_i^(-1/alpha).
        let gram = Gram::of(&[&[1e-3, 0.0], &[0.0, 1e3]]);
        let w = solve(&gram, 1.0, 100).unwrap();
        assert!((w[0] / 1e3 - 1.0).abs() < 1e-7 && (w[1] * 1e3 - 1.0).abs() < 1e-7);
        let w = solve(&gram, 2.0, 100).unwrap();
        assert!(
            (w[0] / 1e4 - 1.0).abs() < 1e-7 && (w[1] * 1e4 - 1.0).abs() < 1e-7,
            "{w:?}"
        );
        assert!(solve(&Gram::of(&[&[1.0, 0.0], &[-2.0, 0.0]]), 1.0, 100).is_err());
        assert!(solve(&Gram::of(&[&[1.0], &[0.0]]), 1.0, 100).is_err());
        assert!(solve(&Gram::of(&[&[1.0], &[f32::NAN]]), 1.0, 100).is_err());
        // Twice the same: 2 (w_1 + w_2) ... each w (w + w) = 1.
        let w = solve(&Gram::of(&[&[1.0], &[1.0]]), 1.0, 100).unwrap();
        assert!((w[0] - 0.5f64.sqrt()).abs() < 1e-12);
    }
}
