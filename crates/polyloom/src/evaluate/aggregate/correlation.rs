//! Correlations of short lists, as scipy defines them.

use crate::evaluate::rank::average_ranks;
use crate::evaluate::sum::{Sum, mean};

/// Pearson's correlation; `NaN` where a list is constant, empty or not of the other's length.
pub(crate) fn pearson(x: &[f64], y: &[f64]) -> f64 {
    if x.len() != y.len() || constant(x) || constant(y) {
        return f64::NAN;
    }
    let (mx, my) = (mean(x.iter().copied()), mean(y.iter().copied()));
    let total = |terms: &dyn Fn((&f64, &f64)) -> f64| -> f64 {
        x.iter().zip(y).map(terms).collect::<Sum>().total()
    };
    let xy = total(&|(a, b)| (a - mx) * (b - my));
    let xx = total(&|(a, _)| (a - mx).powi(2));
    let yy = total(&|(_, b)| (b - my).powi(2));
    (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0)
}

/// Spearman's correlation: Pearson's of the ranks, ties averaged.
pub(crate) fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&average_ranks(x), &average_ranks(y))
}

/// Kendall's τ-b; `NaN` where a list is constant. O(n²).
pub(crate) fn kendall(x: &[f64], y: &[f64]) -> f64 {
    let (mut same, mut tied_x, mut tied_y, mut pairs) = (0i64, 0i64, 0i64, 0i64);
    for i in 0..x.len() {
        for j in i + 1..x.len() {
            let (a, b) = (x[i] - x[j], y[i] - y[j]);
            pairs += 1;
            tied_x += i64::from(a == 0.0);
            tied_y += i64::from(b == 0.0);
            same += match a * b {
                p if p > 0.0 => 1,
                p if p < 0.0 => -1,
                _ => 0,
            };
        }
    }
    let (x, y) = ((pairs - tied_x) as f64, (pairs - tied_y) as f64);
    if x == 0.0 || y == 0.0 {
        return f64::NAN;
    }
    (same as f64 / x.sqrt() / y.sqrt()).clamp(-1.0, 1.0)
}

fn constant(x: &[f64]) -> bool {
    x.windows(2).all(|w| w[0] == w[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]);
        assert!((pearson(&x, &y) - 0.8).abs() < 1e-15);
        assert!((spearman(&x, &[1.0, 30.0, 20.0, 400.0]) - 0.8).abs() < 1e-15);
        assert!((kendall(&x, &y) - 4.0 / 6.0).abs() < 1e-15);
        // One tie in x: 5 concordant of sqrt(5 · 6).
        let tied = kendall(&[1.0, 1.0, 2.0, 3.0], &x);
        assert!((tied - 5.0 / 30f64.sqrt()).abs() < 1e-15);
        assert!(pearson(&x, &[2.0; 4]).is_nan() && kendall(&x, &[2.0; 4]).is_nan());
        assert!(pearson(&[], &[]).is_nan());
    }
}
