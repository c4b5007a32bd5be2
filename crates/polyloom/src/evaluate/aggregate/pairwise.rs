//! Strengths from choices: Bradley–Terry and Plackett–Luce (methods/evaluation.md 3.4).
//!
//! P(i is chosen out of a set) = e^θi / Σ e^θj. Over pairs that is the model of Bradley and Terry (1952), over rankings
//! that of Plackett (1975) and Luce (1959). Strengths are log-odds and sum to 0.

use super::comparisons::Comparisons;
use super::newton::{centre, newton};
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "strengths";

/// How strengths are estimated. At α = 0 all three give the maximum-likelihood estimate; with α > 0 each is pulled towards
/// equal strengths in its own way, so that their numbers differ. The names of `choix` are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimator {
    /// Newton's method on the negative log-likelihood plus α Σ θ² (`opt_pairwise`, `opt_rankings`, `opt_top1`). Quadratic
    /// convergence; the one to use.
    Ridge,
    /// Iterated Luce spectral ranking of Maystre and Grossglauser (2015): the stationary distribution of a Markov chain
    /// whose every rate has α added (`ilsr_*`).
    Ilsr,
    /// Minorisation–maximisation of Hunter (2004), (wins + α) / (denominator + α) (`mm_*`). Slow where few comparisons
    /// link two groups.
    Mm,
}

/// Estimated strengths.
#[derive(Debug, Clone, PartialEq)]
pub struct Strengths {
    /// Log-odds by item; they sum to 0.
    pub theta: Vec<f64>,
    /// Log-likelihood of the comparisons at `theta`, without any penalty.
    pub log_likelihood: f64,
    /// Whether α pulled them together; without it the estimate would not exist for every set of comparisons.
    pub regularised: bool,
    /// Steps until it stood still.
    pub steps: usize,
}

/// Fits strengths; `alpha` is the weight of what pulls them together.
///
/// Cost per step: the squares of the sizes of the choices plus n³ ([`Estimator::Ridge`]), the sizes plus n³
/// ([`Estimator::Ilsr`]), the sizes ([`Estimator::Mm`]).
///
/// # Errors
/// [`EvalError::NotIdentifiable`] at α = 0 where the comparisons do not link every item with every other in both
/// directions; an α that is negative or not finite; a fit that does not come to rest (comparisons of wildly different
/// weights).
pub fn fit(comparisons: &Comparisons, estimator: Estimator, alpha: f64) -> Result<Strengths> {
    if !(alpha.is_finite() && alpha >= 0.0) {
        return Err(EvalError::invalid(WHAT, format!("the penalty {alpha}")));
    }
    if alpha == 0.0 {
        let components = comparisons.components();
        if components.len() > 1 {
            return Err(EvalError::NotIdentifiable {
                what: WHAT,
                components,
            });
        }
    }
    let (theta, steps) = match estimator {
        Estimator::Ridge => ridge(comparisons, alpha),
        Estimator::Ilsr => rest(comparisons, 10_000, 1e-12, |w| {
            spectral(comparisons, alpha, w)
        }),
        Estimator::Mm => rest(comparisons, 1_000_000, 1e-11, |w| {
            minorise(comparisons, alpha, w)
        }),
    }?;
    let log_likelihood = log_likelihood(comparisons, &theta);
    Ok(Strengths {
        theta,
        log_likelihood,
        regularised: alpha > 0.0,
        steps,
    })
}

/// Fits every strongly connected component by itself, without penalty: strengths compare within a component only.
/// Components that nobody outside beats come first; the items of each are in `items`, in the order of its `theta`.
///
/// # Errors
/// As [`fit`].
pub fn fit_components(
    comparisons: &Comparisons,
    estimator: Estimator,
) -> Result<Vec<(Vec<usize>, Strengths)>> {
    let components = comparisons.components().into_iter();
    components
        .map(|items| {
            let strengths = fit(&comparisons.within(&items)?, estimator, 0.0)?;
            Ok((items, strengths))
        })
        .collect()
}

/// Log-likelihood of the comparisons at given strengths.
pub fn log_likelihood(comparisons: &Comparisons, theta: &[f64]) -> f64 {
    let of = |items: &[u32], weight: f64| {
        let top = items
            .iter()
            .map(|&i| theta[i as usize])
            .fold(f64::MIN, f64::max);
        let sum: f64 = items.iter().map(|&i| (theta[i as usize] - top).exp()).sum();
        weight * (theta[items[0] as usize] - top - sum.ln())
    };
    comparisons.choices().map(|(items, w)| of(items, w)).sum()
}

/// Strengths on the scale of Elo ratings, mean 1000: 400 points are odds of 10 to 1.
pub fn elo_scale(theta: f64) -> f64 {
    400.0 / std::f64::consts::LN_10 * theta + 1000.0
}

fn unrest(steps: usize) -> EvalError {
    EvalError::invalid(WHAT, format!("no rest after {steps} steps"))
}

/// Repeats a map from weights (mean 1) to log-strengths until it moves nothing.
fn rest(
    comparisons: &Comparisons,
    most: usize,
    tolerance: f64,
    map: impl Fn(&[f64]) -> Vec<f64>,
) -> Result<(Vec<f64>, usize)> {
    let n = comparisons.items();
    let (mut theta, mut weights) = (vec![0.0; n], vec![1.0; n]);
    for step in 1..=most {
        let mut next = map(&weights);
        centre(&mut next);
        let moves = next.iter().zip(&theta).map(|(a, b)| (a - b).abs());
        let moved = moves.fold(0.0, f64::max);
        theta = next;
        if !moved.is_finite() {
            break;
        }
        if moved <= tolerance {
            return Ok((theta, step));
        }
        let total: f64 = theta.iter().map(|t| t.exp()).sum();
        weights.clear();
        weights.extend(theta.iter().map(|t| t.exp() * n as f64 / total));
    }
    Err(unrest(most))
}

fn minorise(comparisons: &Comparisons, alpha: f64, weights: &[f64]) -> Vec<f64> {
    let (mut wins, mut share) = (vec![alpha; weights.len()], vec![alpha; weights.len()]);
    for (items, weight) in comparisons.choices() {
        let sum: f64 = items.iter().map(|&i| weights[i as usize]).sum();
        wins[items[0] as usize] += weight;
        items
            .iter()
            .for_each(|&i| share[i as usize] += weight / sum);
    }
    wins.iter().zip(share).map(|(w, s)| (w / s).ln()).collect()
}

/// Log of the stationary distribution of the chain that moves from losers to winners, by the elimination of Grassmann,
/// Taksar and Heyman (1985), which subtracts nothing.
fn spectral(comparisons: &Comparisons, alpha: f64, weights: &[f64]) -> Vec<f64> {
    let n = weights.len();
    let mut rate = vec![alpha; n * n];
    for (items, weight) in comparisons.choices() {
        let sum: f64 = items.iter().map(|&i| weights[i as usize]).sum();
        for &loser in &items[1..] {
            rate[loser as usize * n + items[0] as usize] += weight / sum;
        }
    }
    for k in (1..n).rev() {
        let (above, below) = rate.split_at_mut(k * n);
        let out = &below[..k];
        let total: f64 = out.iter().sum();
        for row in above.chunks_exact_mut(n) {
            row[k] /= total;
            let into = row[k];
            row[..k]
                .iter_mut()
                .zip(out)
                .for_each(|(r, o)| *r += into * o);
        }
    }
    let mut mass = vec![1.0; n];
    for k in 1..n {
        mass[k] = (0..k).map(|i| mass[i] * rate[i * n + k]).sum();
    }
    mass.iter().map(|m: &f64| m.ln()).collect()
}

/// Newton's method on the negative log-likelihood plus α Σ θ².
fn ridge(comparisons: &Comparisons, alpha: f64) -> Result<(Vec<f64>, usize)> {
    let n = comparisons.items();
    let loss = |theta: &[f64]| {
        alpha * theta.iter().map(|t| t * t).sum::<f64>() - log_likelihood(comparisons, theta)
    };
    let scale = comparisons.weight().max(1.0);
    newton(vec![0.0; n], n, scale, loss, |theta| {
        derivatives(comparisons, alpha, theta)
    })
    .map_err(unrest)
}

fn derivatives(comparisons: &Comparisons, alpha: f64, theta: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = theta.len();
    let mut gradient: Vec<f64> = theta.iter().map(|t| 2.0 * alpha * t).collect();
    let mut curvature = vec![0.0; n * n];
    (0..n).for_each(|i| curvature[i * n + i] = 2.0 * alpha);
    let mut share = Vec::new();
    let (mut whole, mut half) = (vec![0.0; n], vec![0.0; n * n]);
    for (items, weight) in comparisons.choices() {
        let top = items
            .iter()
            .map(|&i| theta[i as usize])
            .fold(f64::MIN, f64::max);
        share.clear();
        share.extend(items.iter().map(|&i| (theta[i as usize] - top).exp()));
        let sum: f64 = share.iter().sum();
        share.iter_mut().for_each(|s| *s /= sum);
        gradient[items[0] as usize] -= weight;
        if items.len() * 4 > n {
            // Most items take part: whole rows below the diagonal, mirrored at the end.
            whole.fill(0.0);
            for (&i, p) in items.iter().zip(&share) {
                let i = i as usize;
                gradient[i] += weight * p;
                curvature[i * n + i] += weight * p;
                whole[i] = *p;
            }
            for &i in items {
                let i = i as usize;
                let times = weight * whole[i];
                let row = &mut half[i * n..=i * n + i];
                row.iter_mut()
                    .zip(&whole)
                    .for_each(|(c, q)| *c += times * q);
            }
            continue;
        }
        for (&i, p) in items.iter().zip(&share) {
            let i = i as usize;
            gradient[i] += weight * p;
            curvature[i * n + i] += weight * p;
            for (&j, q) in items.iter().zip(&share) {
                curvature[i * n + j as usize] -= weight * p * q;
            }
        }
    }
    for i in 0..n {
        for j in 0..=i {
            curvature[i * n + j] -= half[i * n + j];
            if i != j {
                curvature[j * n + i] -= half[i * n + j];
            }
        }
    }
    (gradient, curvature)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Estimator; 3] = [Estimator::Ridge, Estimator::Ilsr, Estimator::Mm];

    #[test]
    fn two_items_by_hand() {
        // 3 wins against 1: log 3 apart.
        let games = Comparisons::of_pairs(2, &[(0, 1), (0, 1), (1, 0), (0, 1)]).unwrap();
        for estimator in ALL {
            let found = fit(&games, estimator, 0.0).unwrap();
            let half = 3f64.ln() / 2.0;
            assert!(
                (found.theta[0] - half).abs() < 1e-9,
                "{estimator:?} {found:?}"
            );
            assert!((found.theta[1] + half).abs() < 1e-9);
            assert!((found.log_likelihood - (3.0 * 0.75f64.ln() + 0.25f64.ln())).abs() < 1e-9);
        }
        assert!((elo_scale(10f64.ln()) - 1400.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_fitted_says_why() {
        let games = Comparisons::of_pairs(3, &[(0, 1), (1, 0), (0, 2)]).unwrap();
        for estimator in ALL {
            match fit(&games, estimator, 0.0) {
                Err(EvalError::NotIdentifiable { components, .. }) => {
                    assert_eq!(components, [vec![0, 1], vec![2]]);
                }
                other => panic!("{other:?}"),
            }
            let found = fit(&games, estimator, 0.01).unwrap();
            assert!(found.regularised && found.theta[0] > found.theta[1]);
            assert!(fit(&games, estimator, -1.0).is_err());
            assert!(fit(&games, estimator, f64::NAN).is_err());
        }
        let parts = fit_components(&games, Estimator::Ridge).unwrap();
        assert_eq!(parts[0].0, [0, 1]);
        assert!(parts[0].1.theta[0].abs() < 1e-12);
        assert_eq!(parts[1].1.theta, [0.0]);
    }

    #[test]
    fn one_in_a_thousand() {
        let mut games = Comparisons::new(3).unwrap();
        for (a, b, w) in [(0, 1, 1e6), (1, 0, 1.0), (1, 2, 1e6), (2, 1, 1.0)] {
            games.add_choice(a, &[b], w).unwrap();
        }
        let found = fit(&games, Estimator::Ridge, 0.0).unwrap();
        let step = 1e6f64.ln();
        assert!((found.theta[0] - step).abs() < 1e-6, "{found:?}");
        assert!((found.theta[2] + step).abs() < 1e-6);
    }

    proptest! {
        /// The three estimators agree at α = 0, and renumbering the items renumbers the strengths.
        #[test]
        fn estimators_agree(
            rankings in prop::collection::vec(Just(vec![0usize, 1, 2, 3]).prop_shuffle(), 4..12),
            cut in 2usize..=4,
        ) {
            let rankings: Vec<Vec<usize>> =
                rankings.into_iter().enumerate().map(|(i, mut r)| {
                    if i % 2 == 0 {
                        r.truncate(cut);
                    }
                    r
                }).collect();
            let data = Comparisons::of_rankings(4, &rankings).unwrap();
            if data.components().len() == 1 {
                let found = ALL.map(|e| fit(&data, e, 0.0).unwrap().theta);
                for other in &found[1..] {
                    for (a, b) in found[0].iter().zip(other) {
                        prop_assert!((a - b).abs() < 1e-6, "{found:?}");
                    }
                }
                let turned: Vec<Vec<usize>> =
                    rankings.iter().map(|r| r.iter().map(|i| (i + 1) % 4).collect()).collect();
                let turned = Comparisons::of_rankings(4, &turned).unwrap();
                let turned = fit(&turned, Estimator::Ridge, 0.0).unwrap().theta;
                for i in 0..4 {
                    prop_assert!((turned[(i + 1) % 4] - found[0][i]).abs() < 1e-8);
                }
            }
        }
    }
}
