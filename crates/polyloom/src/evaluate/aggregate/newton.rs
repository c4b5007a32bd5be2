//! Newton's method for strengths, whose common level nothing fixes.

/// Moves values so that they sum to 0.
pub(super) fn centre(theta: &mut [f64]) {
    let mean = theta.iter().sum::<f64>() / theta.len() as f64;
    theta.iter_mut().for_each(|t| *t -= mean);
}

/// Minimises a convex loss with halved steps; gives the place and the steps taken, or the number of steps after which
/// there was no rest. The first `strengths` values keep the sum 0; the direction in which nothing changes (all of them at
/// once) gets curvature of its own, so that the matrix is positive definite without a penalty too.
///
/// `derivatives` gives the gradient and the row-major curvature. At rest no part of the gradient exceeds 1e-12 `scale`.
pub(super) fn newton(
    start: Vec<f64>,
    strengths: usize,
    scale: f64,
    loss: impl Fn(&[f64]) -> f64,
    derivatives: impl Fn(&[f64]) -> (Vec<f64>, Vec<f64>),
) -> Result<(Vec<f64>, usize), usize> {
    const MOST: usize = 500;
    let n = start.len();
    let mut theta = start;
    let mut now = loss(&theta);
    for step in 1..=MOST {
        let (gradient, mut curvature) = derivatives(&theta);
        let steepest = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        if steepest <= 1e-12 * scale {
            return Ok((theta, step));
        }
        let trace: f64 = (0..strengths).map(|i| curvature[i * n + i]).sum();
        for row in curvature.chunks_exact_mut(n).take(strengths) {
            row[..strengths]
                .iter_mut()
                .for_each(|c| *c += trace / (strengths * strengths) as f64);
        }
        let Some(direction) = solve_positive(curvature, gradient.clone()) else {
            break;
        };
        let slope: f64 = direction.iter().zip(&gradient).map(|(d, g)| d * g).sum();
        let (mut size, noise) = (1.0, 8.0 * f64::EPSILON * now.abs());
        let better = loop {
            let mut next: Vec<f64> = theta
                .iter()
                .zip(&direction)
                .map(|(t, d)| t - size * d)
                .collect();
            centre(&mut next[..strengths]);
            let value = loss(&next);
            // Near the end the sum is flat within its rounding error, and the gradient decides.
            if value <= now - 1e-4 * size * slope + noise {
                break Some((next, value));
            }
            size /= 2.0;
            if size < 1e-10 {
                break None;
            }
        };
        match better {
            Some((next, value)) => (theta, now) = (next, value),
            // No step lowers the sum any more: its rounding error is reached.
            None if steepest <= 1e-7 * scale => return Ok((theta, step)),
            None => break,
        }
    }
    Err(MOST)
}

/// Solves a x = b by Cholesky's decomposition; `None` where `a` is not positive definite.
fn solve_positive(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for j in 0..n {
        for i in j..n {
            let (ri, rj) = (&a[i * n..i * n + j], &a[j * n..j * n + j]);
            let dot: f64 = ri.iter().zip(rj).map(|(x, y)| x * y).sum();
            let rest = a[i * n + j] - dot;
            if i == j && rest.is_nan() | (rest <= 0.0) {
                return None;
            }
            a[i * n + j] = if i == j {
                rest.sqrt()
            } else {
                rest / a[j * n + j]
            };
        }
    }
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    Some(b)
}
