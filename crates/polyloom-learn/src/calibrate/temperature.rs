//! One number by which logits are divided.

/// Temperatures lie between this and its inverse.
const LEAST: f64 = 0.01;

/// Newton's steps and halvings at most; 60 halvings alone reach the tolerance from the widest bracket.
const ROUNDS: usize = 200;

/// A temperature that was fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// Logits are divided by it; in [0.01, 100].
    pub value: f64,
    /// The loss falls further beyond the range: rows that are all right (at 0.01), or answers that tell nothing (at 100).
    pub at_bound: bool,
}

/// The temperature under which the mean log loss of rows is least.
///
/// `logits` holds rows of `classes`, finite; `truth` the class of each. With b = 1/T the loss is convex, and its derivative is
/// the mean over rows of `E_p[z] - z_y`, with p = softmax(b z): its root is found by Newton's steps kept in a bracket, in f64,
/// until a step changes b by less than 1e-12 of itself. Cost: rows x classes a step, about ten of them.
/// Of two classes the order of rows stays, but for probabilities that f32 rounds to 1.
/// Source: Guo et al. 2017, section 4.2. Differs: solved to the tolerance, where their code takes 50 steps of L-BFGS.
#[must_use]
pub fn fit(logits: &[f64], classes: usize, truth: &[u32]) -> Temperature {
    let (mut low, mut high) = (LEAST, 1.0 / LEAST);
    let bound = |b: f64| Temperature {
        value: 1.0 / b,
        at_bound: true,
    };
    let slope = |b: f64| derivatives(logits, classes, truth, b);
    if slope(low).0 >= 0.0 {
        return bound(low);
    }
    if slope(high).0 <= 0.0 {
        return bound(high);
    }
    let mut b = 1.0;
    for _ in 0..ROUNDS {
        let (first, second) = slope(b);
        if first < 0.0 {
            low = b;
        } else {
            high = b;
        }
        let newton = b - first / second;
        // Halvings of the logarithm: the bracket spans four orders.
        let next = match newton > low && newton < high {
            true => newton,
            false => (low * high).sqrt(),
        };
        let step = (next - b).abs();
        b = next;
        if step <= 1e-12 * b {
            break;
        }
    }
    Temperature {
        value: 1.0 / b,
        at_bound: false,
    }
}

/// First and second derivative of the mean loss by b = 1/T.
fn derivatives(logits: &[f64], classes: usize, truth: &[u32], b: f64) -> (f64, f64) {
    let (mut first, mut second) = (0.0, 0.0);
    let mut p = vec![0.0; classes];
    for (row, &y) in logits.chunks_exact(classes).zip(truth) {
        p.copy_from_slice(row);
        softmax(&mut p, b);
        let mean: f64 = p.iter().zip(row).map(|(p, z)| p * z).sum();
        let spread = |(p, z): (&f64, &f64)| p * (z - mean).powi(2);
        first += mean - row.get(y as usize).copied().unwrap_or(mean);
        second += p.iter().zip(row).map(spread).sum::<f64>();
    }
    let n = truth.len().max(1) as f64;
    (first / n, second / n)
}

/// Probabilities softmax(b z) in place of logits z.
pub(super) fn softmax(z: &mut [f64], b: f64) {
    let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    z.iter_mut().for_each(|z| *z = ((*z - most) * b).exp());
    let sum: f64 = z.iter().sum();
    z.iter_mut().for_each(|z| *z /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows with logits [0, 2], of which three of four are of the second class: the best probability is 3/4, so 2/T = ln 3.
    #[test]
    fn the_optimum_is_that_of_a_logistic_curve() {
        let logits = [0.0, 2.0].repeat(4);
        let found = fit(&logits, 2, &[1, 1, 1, 0]);
        assert!((found.value - 2.0 / 3.0f64.ln()).abs() < 1e-11, "{found:?}");
        assert!(!found.at_bound);
        // Three classes with logits [1, 0, 0], right in half of the rows: e^b / (e^b + 2) = 1/2.
        let found = fit(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 3, &[0, 2]);
        assert!((found.value - 1.0 / 2.0f64.ln()).abs() < 1e-11, "{found:?}");
    }

    #[test]
    fn where_there_is_no_optimum_the_bound_is_told() {
        let logits = [0.0, 2.0, 3.0, 0.0];
        let right = fit(&logits, 2, &[1, 0]);
        assert!(right.at_bound && (right.value - 0.01).abs() < 1e-12);
        let wrong = fit(&logits, 2, &[0, 1]);
        assert!(wrong.at_bound && (wrong.value - 100.0).abs() < 1e-9);
        // All logits alike: every temperature is the same, and none is better.
        assert!(fit(&[1.0; 4], 2, &[0, 1]).at_bound);
    }
}
