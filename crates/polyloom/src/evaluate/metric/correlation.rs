//! Correlation of two lists of numbers: Pearson, Spearman, Kendall, with two-sided p-values.
//!
//! A correlation with a `NaN`, or with a constant list, is undefined: `NaN`.

use crate::evaluate::error::EvalError;
use crate::evaluate::rank::{key, sorted, sorted_pairs, ties};
use crate::evaluate::statistics::special::{beta_tails, normal_sf, t_two_sided};
use crate::evaluate::sum::{mean, sum};
use crate::evaluate::{Result, error};

/// A coefficient and how often independent lists reach it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    /// The coefficient, in [-1, 1]; 0 for independent lists.
    pub r: f64,
    /// Probability of a coefficient at least as far from 0 under independence.
    pub p: f64,
}

/// The coefficient alone; `NaN` also where the lists are too short or differ in length.
pub(crate) fn coefficient(found: Result<Correlation>) -> f64 {
    found.map_or(f64::NAN, |c| c.r)
}

const UNDEFINED: Correlation = Correlation {
    r: f64::NAN,
    p: f64::NAN,
};

/// Refuses different lengths; says whether the lists are long enough and free of `NaN`.
fn usable(x: &[f64], y: &[f64]) -> Result<bool> {
    if x.len() != y.len() {
        error::same_length("correlated values", x.len(), y.len())?;
    }
    Ok(x.len() > 1 && !x.iter().chain(y).any(|v| v.is_nan()))
}

/// Pearson's r: linear correlation. `NaN` for a constant list or a value that is not finite.
///
/// The p-value is that of r under independent normal values (a beta distribution over [-1, 1]); two examples have p = 1.
/// Cost: O(n). Source: scipy `pearsonr`.
///
/// # Errors
/// Lists of different lengths or with fewer than two values.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<Correlation> {
    let usable = usable(x, y)?;
    if x.len() < 2 {
        let problem = format!("{} values, at least 2 are needed", x.len());
        return Err(EvalError::invalid("Pearson correlation", problem));
    }
    let constant = |v: &[f64]| v.iter().all(|a| *a == v[0]);
    let finite = x.iter().chain(y).all(|v| v.is_finite());
    if !usable || !finite || constant(x) || constant(y) {
        return Ok(UNDEFINED);
    }
    if x.len() == 2 {
        let r = (x[1] - x[0]).signum() * (y[1] - y[0]).signum();
        return Ok(Correlation { r, p: 1.0 });
    }
    let (x, y) = (unit(x), unit(y));
    let r = sum(x.iter().zip(&y).map(|(a, b)| a * b)).clamp(-1.0, 1.0);
    let half = x.len() as f64 / 2.0 - 1.0;
    let far = (1.0 - r.abs()) / 2.0;
    let p = 2.0 * beta_tails(half, half, far, 1.0 - far).0;
    Ok(Correlation { r, p: p.min(1.0) })
}

/// Distances from the mean, scaled to length 1 without leaving the range of numbers.
fn unit(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let scaled = || values.iter().map(|v| v / largest);
    let centre = mean(scaled());
    let length = sum(scaled().map(|v| (v - centre).powi(2))).sqrt();
    scaled().map(|v| (v - centre) / length).collect()
}

/// Spearman's ρ: Pearson's r of the ranks, ties sharing the mean of theirs. `NaN` for a constant list or fewer than two
/// values. Infinite values are ranked.
///
/// Counted in integers, so it is exact up to the last division. The p-value is Student's t with n − 2 degrees of freedom,
/// `NaN` for two values. Cost: O(n log n). Source: scipy `spearmanr`.
///
/// # Errors
/// Lists of different lengths.
pub fn spearman(x: &[f64], y: &[f64]) -> Result<Correlation> {
    if !usable(x, y)? {
        return Ok(UNDEFINED);
    }
    // Twice the distance of a rank from the mean rank (n + 1) / 2, for places before+1 ..= before+n of a tie.
    let middle = x.len() as i64 + 1;
    let twice = |before: usize, tie: usize| (2 * before + tie + 1) as i64 - middle;
    let order = |v: &[f64]| sorted(v.iter().copied());
    let (by_x, by_y) = rayon::join(|| order(x), || order(y));
    let mut of_x = vec![0i64; x.len()];
    let (mut xx, mut yy, mut xy) = (0i128, 0i128, 0i128);
    let mut before = 0;
    for tie in ties(&by_x) {
        let distance = twice(before, tie.len());
        tie.iter().for_each(|&(_, i)| of_x[i] = distance);
        xx += tie.len() as i128 * i128::from(distance).pow(2);
        before += tie.len();
    }
    before = 0;
    for tie in ties(&by_y) {
        let distance = i128::from(twice(before, tie.len()));
        let with: i128 = tie.iter().map(|&(_, i)| i128::from(of_x[i])).sum();
        xy += distance * with;
        yy += tie.len() as i128 * distance.pow(2);
        before += tie.len();
    }
    if xx == 0 || yy == 0 {
        return Ok(UNDEFINED);
    }
    let length = if xx == yy {
        xx as f64
    } else {
        (xx as f64).sqrt() * (yy as f64).sqrt()
    };
    let r = (xy as f64 / length).clamp(-1.0, 1.0);
    let free = x.len() as f64 - 2.0;
    let t = r * (free / ((1.0 + r) * (1.0 - r))).sqrt();
    let p = t_two_sided(t, free);
    Ok(Correlation { r, p })
}

/// How Kendall's τ treats ties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KendallVariant {
    /// τ_b: (P − Q) / sqrt((P + Q + T)(P + Q + U)).
    #[default]
    B,
    /// τ_c (Stuart): 2 (P − Q) / (n² (m − 1) / m), m the smaller number of distinct values.
    C,
}

/// Kendall's τ: concordant minus discordant pairs. `NaN` for a constant list or fewer than two values.
///
/// The p-value is exact where nothing ties and there are at most 33 values (or at most one pair is out of order, or in
/// order), else that of a normal distribution with the variance for ties. Cost: O(n log n). Source: Knight 1966, Kendall
/// 1970; scipy `kendalltau`.
///
/// # Errors
/// Lists of different lengths.
pub fn kendall(x: &[f64], y: &[f64], variant: KendallVariant) -> Result<Correlation> {
    if !usable(x, y)? {
        return Ok(UNDEFINED);
    }
    let n = x.len();
    let by_y = sorted_pairs(y.iter().enumerate().map(|(i, v)| (key(*v), i)).collect());
    let tied_y = Ties::of(ties(&by_y).map(<[_]>::len));
    // By x; equal x stay in the order of y.
    let mut by_x: Vec<(u64, usize)> = by_y
        .iter()
        .zip(0..)
        .map(|(p, i)| (key(x[p.1]), i))
        .collect();
    by_x = sorted_pairs(by_x);
    let tied_x = Ties::of(ties(&by_x).map(<[_]>::len));
    let (mut both, mut order) = (0i128, Vec::with_capacity(n));
    for tie in ties(&by_x) {
        let start = order.len();
        order.extend(tie.iter().map(|&(_, i)| by_y[i].0));
        let lengths = order[start..].chunk_by(|a, b| a == b).map(<[_]>::len);
        both += lengths.map(|l| pairs(l as i128)).sum::<i128>();
    }
    let discordant = inversions(&mut order);
    let total = pairs(n as i128);
    if tied_x.pairs == total || tied_y.pairs == total {
        return Ok(UNDEFINED);
    }
    let balance = (total - tied_x.pairs - tied_y.pairs + both - 2 * discordant) as f64;
    let r = match variant {
        KendallVariant::B => {
            let without = |t: &Ties| ((total - t.pairs) as f64).sqrt();
            balance / without(&tied_x) / without(&tied_y)
        }
        KendallVariant::C => {
            let classes = tied_x.distinct.min(tied_y.distinct) as f64;
            2.0 * balance / ((n as f64).powi(2) * (classes - 1.0) / classes)
        }
    };
    let rarer = discordant.min(total - discordant);
    let untied = tied_x.pairs == 0 && tied_y.pairs == 0;
    let p = if untied && (n <= 33 || rarer <= 1) {
        exact_p(n, rarer as usize)
    } else {
        let n = n as f64;
        let m = n * (n - 1.0);
        let variance = (m * (2.0 * n + 5.0) - tied_x.cubes - tied_y.cubes) / 18.0
            + 2.0 * tied_x.pairs as f64 * tied_y.pairs as f64 / m
            + tied_x.triples * tied_y.triples / (9.0 * m * (n - 2.0));
        2.0 * normal_sf(balance.abs() / variance.sqrt())
    };
    Ok(Correlation {
        r: r.clamp(-1.0, 1.0),
        p: p.min(1.0),
    })
}

fn pairs(n: i128) -> i128 {
    n * (n - 1) / 2
}

/// What the ties of one list enter the variance with.
#[derive(Default)]
struct Ties {
    pairs: i128,
    triples: f64,
    cubes: f64,
    distinct: usize,
}

impl Ties {
    fn of(lengths: impl Iterator<Item = usize>) -> Self {
        lengths.fold(Self::default(), |mut all, length| {
            let t = length as f64;
            all.pairs += pairs(length as i128);
            all.triples += t * (t - 1.0) * (t - 2.0);
            all.cubes += t * (t - 1.0) * (2.0 * t + 5.0);
            all.distinct += 1;
            all
        })
    }
}

/// Sorts and counts the pairs that were out of order, by merging runs bottom up.
fn inversions(values: &mut Vec<u64>) -> i128 {
    /// Runs of this length are sorted by insertion first.
    const RUN: usize = 16;
    let mut count = 0i128;
    for run in values.chunks_mut(RUN) {
        for i in 1..run.len() {
            let mut j = i;
            while j > 0 && run[j - 1] > run[j] {
                run.swap(j - 1, j);
                j -= 1;
            }
            count += (i - j) as i128;
        }
    }
    let mut merged = vec![0; values.len()];
    let mut width = RUN;
    while width < values.len() {
        for (from, to) in values.chunks(2 * width).zip(merged.chunks_mut(2 * width)) {
            let (left, right) = from.split_at(width.min(from.len()));
            let (mut i, mut j) = (0, 0);
            for place in to {
                let from_right = i == left.len() || j < right.len() && right[j] < left[i];
                *place = if from_right { right[j] } else { left[i] };
                count += if from_right {
                    (left.len() - i) as i128
                } else {
                    0
                };
                j += usize::from(from_right);
                i += usize::from(!from_right);
            }
        }
        std::mem::swap(values, &mut merged);
        width *= 2;
    }
    count
}

/// Probability of an order of `n` values with at most `rarer` pairs against the trend, both directions together: Kendall's
/// recurrence over the number of orders with so many inversions.
fn exact_p(n: usize, rarer: usize) -> f64 {
    if n <= 2 || 4 * rarer == n * (n - 1) {
        return 1.0;
    }
    let factorial = |n: usize| (2..=n).map(|i| i as f64).product::<f64>();
    match rarer {
        0 => 2.0 / factorial(n),
        1 => 2.0 / factorial(n - 1),
        _ => {
            let mut orders = vec![0.0; rarer + 1];
            (orders[0], orders[1]) = (1.0, 1.0);
            for j in 3..=n {
                // Orders of j values: sums over the last j entries of those of j - 1 values.
                let mut window = 0.0;
                let before = orders.clone();
                for (c, place) in orders.iter_mut().enumerate() {
                    window += before[c];
                    if c >= j {
                        window -= before[c - j];
                    }
                    *place = window;
                }
            }
            (2.0 * sum(orders) / factorial(n)).clamp(0.0, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::rank::average_ranks;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-15;
        assert!(close(pearson(&x, &y).unwrap().r, 0.8));
        assert_eq!(spearman(&x, &y).unwrap().r, 0.8);
        // One of six pairs out of order; of 24 orders, 4 have at most one: twice 4/24.
        let tau = kendall(&x, &y, KendallVariant::B).unwrap();
        assert!(close(tau.r, 4.0 / 6.0) && close(tau.p, 1.0 / 3.0));
        // Three values: t with one degree of freedom of r = 1/2 is atan: 1 − 2/π·atan(sqrt(1/3)) = 2/3.
        let p = spearman(&x[..3], &[1.0, 3.0, 2.0]).unwrap().p;
        assert!((p - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn undefined_and_refused() {
        let (x, one) = ([1.0, 2.0, 3.0], [1.0; 3]);
        for y in [one, [1.0, f64::NAN, 2.0]] {
            assert!(pearson(&x, &y).unwrap().r.is_nan());
            assert!(spearman(&y, &x).unwrap().r.is_nan());
            assert!(kendall(&x, &y, KendallVariant::C).unwrap().r.is_nan());
        }
        assert!(pearson(&x, &x[1..]).is_err() && pearson(&[1.0], &[1.0]).is_err());
        assert!(spearman(&x, &[]).is_err() && kendall(&x, &[], KendallVariant::B).is_err());
        assert!(spearman(&[], &[]).unwrap().r.is_nan());
        assert!(spearman(&x[..2], &[2.0, 1.0]).unwrap().p.is_nan());
    }

    /// All pairs, one by one.
    fn slow_tau(x: &[f64], y: &[f64]) -> f64 {
        let (mut balance, mut distinct_x, mut distinct_y) = (0.0, 0.0f64, 0.0f64);
        for i in 0..x.len() {
            for j in 0..i {
                let sign = |a: f64, b: f64| f64::from(a > b) - f64::from(a < b);
                let (a, b) = (sign(x[i], x[j]), sign(y[i], y[j]));
                balance += a * b;
                distinct_x += a.abs();
                distinct_y += b.abs();
            }
        }
        balance / (distinct_x * distinct_y).sqrt()
    }

    #[test]
    fn orders_are_counted() {
        // Of 120 orders of five values, 1 + 4 + 9 have at most two inversions.
        assert!((exact_p(5, 2) - 28.0 / 120.0).abs() < 1e-15);
        assert_eq!(exact_p(5, 5), 1.0);
    }

    proptest! {
        #[test]
        fn tau_is_its_definition(rows in prop::collection::vec((-4i32..4, -4i32..4), 2..80)) {
            let (x, y): (Vec<f64>, Vec<f64>) =
                rows.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            let (fast, slow) = (kendall(&x, &y, KendallVariant::B).unwrap().r, slow_tau(&x, &y));
            prop_assert!((fast - slow).abs() < 1e-12 || fast.is_nan() && slow.is_nan());
        }

        #[test]
        fn order_of_examples_does_not_matter(
            rows in prop::collection::vec((-9i32..9, -9i32..9), 2..40),
        ) {
            let (x, y): (Vec<f64>, Vec<f64>) =
                rows.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            let back = |v: &[f64]| v.iter().rev().copied().collect::<Vec<f64>>();
            let (a, b) = (spearman(&x, &y).unwrap(), spearman(&back(&y), &back(&x)).unwrap());
            prop_assert!(a == b || a.r.is_nan() && b.r.is_nan() || a.p.is_nan() && a.r == b.r);
            let ranked = pearson(&average_ranks(&x), &average_ranks(&y)).unwrap().r;
            prop_assert!((ranked - a.r).abs() < 1e-12 || ranked.is_nan() && a.r.is_nan());
        }
    }
}
