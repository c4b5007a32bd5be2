//! Strengths where a tie is an outcome of its own: Davidson's extension of Bradley–Terry.
//!
//! P(i beats j) = e^θi / D, P(tie) = ν √(e^θi e^θj) / D, D = e^θi + e^θj + ν √(e^θi e^θj): of two equally strong items a
//! share ν / (2 + ν) of the games ties. Source: Davidson, "On extending the Bradley–Terry model to accommodate ties in
//! paired comparison experiments" (1970). Bradley–Terry itself counts a tie as a win for each side
//! ([`super::pairwise::fit`]); without ties the two are the same.

use super::games::Games;
use super::newton::newton;
use super::pairwise::{Estimator, fit};
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "strengths with ties";

/// Estimated strengths and how often equals tie.
#[derive(Debug, Clone, PartialEq)]
pub struct WithTies {
    /// Log-odds by item among games without a tie; they sum to 0.
    pub theta: Vec<f64>,
    /// ν: 0 without ties, infinite where every game ties.
    pub tie: f64,
    /// Log-likelihood of the games, without any penalty.
    pub log_likelihood: f64,
    /// Whether α pulled the strengths together.
    pub regularised: bool,
    /// Steps until it stood still.
    pub steps: usize,
}

impl WithTies {
    /// Share of ties among games of equally strong items.
    pub fn tie_share(&self) -> f64 {
        match self.tie.is_infinite() {
            true => 1.0,
            false => self.tie / (2.0 + self.tie),
        }
    }
}

/// The most likely strengths, with α Σ θ² as penalty; Newton's method over the strengths and log ν together.
///
/// Cost per step: n³.
///
/// # Errors
/// [`EvalError::NotIdentifiable`] at α = 0 where wins and ties do not link every item with every other in both
/// directions; an α that is negative or not finite; no game; a fit that does not come to rest.
pub fn davidson(games: &Games, alpha: f64) -> Result<WithTies> {
    if !(alpha.is_finite() && alpha >= 0.0) {
        return Err(EvalError::invalid(WHAT, format!("the penalty {alpha}")));
    }
    let n = games.items();
    let pairs = Pairs::of(games);
    let ties: f64 = pairs.list.iter().map(|p| p.ties).sum();
    let wins: f64 = pairs.list.iter().map(|p| p.wins[0] + p.wins[1]).sum();
    if wins + ties == 0.0 {
        return Err(EvalError::Empty { what: WHAT });
    }
    let both = games.comparisons()?;
    if ties == 0.0 {
        let found = fit(&both, Estimator::Ridge, alpha)?;
        return Ok(WithTies {
            theta: found.theta,
            tie: 0.0,
            log_likelihood: found.log_likelihood,
            regularised: found.regularised,
            steps: found.steps,
        });
    }
    let components = both.components();
    if alpha == 0.0 && components.len() > 1 {
        return Err(EvalError::NotIdentifiable {
            what: WHAT,
            components,
        });
    }
    if wins == 0.0 {
        return Ok(WithTies {
            theta: vec![0.0; n],
            tie: f64::INFINITY,
            log_likelihood: 0.0,
            regularised: alpha > 0.0,
            steps: 0,
        });
    }
    let mut start = vec![0.0; n + 1];
    // Where all are equally strong: ties / wins = ν / 2.
    start[n] = (2.0 * ties / wins).ln();
    let loss =
        |at: &[f64]| alpha * at[..n].iter().map(|t| t * t).sum::<f64>() - pairs.log_likelihood(at);
    let (at, steps) = newton(start, n, (wins + ties).max(1.0), loss, |at| {
        pairs.derivatives(alpha, at)
    })
    .map_err(|steps| EvalError::invalid(WHAT, format!("no rest after {steps} steps")))?;
    Ok(WithTies {
        log_likelihood: pairs.log_likelihood(&at),
        tie: at[n].exp(),
        theta: at[..n].to_vec(),
        regularised: alpha > 0.0,
        steps,
    })
}

/// Games of two items.
struct Pair {
    items: [usize; 2],
    /// Of the first, of the second.
    wins: [f64; 2],
    ties: f64,
}

struct Pairs {
    list: Vec<Pair>,
}

impl Pairs {
    fn of(games: &Games) -> Self {
        let n = games.items();
        let all = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let pair = all.map(|(i, j)| Pair {
            items: [i, j],
            wins: [games.wins(i, j), games.wins(j, i)],
            ties: games.ties(i, j),
        });
        Self {
            list: pair
                .filter(|p| p.wins[0] + p.wins[1] + p.ties > 0.0)
                .collect(),
        }
    }

    /// Logarithms of the chances of a win of the first, of the second, of a tie. The last value of `at` is log ν.
    fn chances(at: &[f64], pair: &Pair) -> [f64; 3] {
        let [a, b] = pair.items.map(|i| at[i]);
        let logs = [a, b, f64::midpoint(a, b) + at[at.len() - 1]];
        let top = logs.into_iter().fold(f64::MIN, f64::max);
        let sum: f64 = logs.iter().map(|l| (l - top).exp()).sum();
        logs.map(|l| l - top - sum.ln())
    }

    fn log_likelihood(&self, at: &[f64]) -> f64 {
        let of = |pair: &Pair| {
            let p = Self::chances(at, pair);
            let term = |count: f64, log: f64| if count > 0.0 { count * log } else { 0.0 };
            term(pair.wins[0], p[0]) + term(pair.wins[1], p[1]) + term(pair.ties, p[2])
        };
        self.list.iter().map(of).sum()
    }

    /// Gradient and curvature of the negative log-likelihood with its penalty.
    fn derivatives(&self, alpha: f64, at: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let m = at.len();
        let mut gradient: Vec<f64> = at.iter().map(|t| 2.0 * alpha * t).collect();
        gradient[m - 1] = 0.0;
        let mut curvature = vec![0.0; m * m];
        (0..m - 1).for_each(|i| curvature[i * m + i] = 2.0 * alpha);
        for pair in &self.list {
            let games = pair.wins[0] + pair.wins[1] + pair.ties;
            let [a, b, t] = Self::chances(at, pair).map(f64::exp);
            let places = [pair.items[0], pair.items[1], m - 1];
            // What each outcome adds to: the first, the second, log ν.
            let adds = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 1.0]];
            let mean = [a + 0.5 * t, b + 0.5 * t, t];
            let seen = [
                pair.wins[0] + 0.5 * pair.ties,
                pair.wins[1] + 0.5 * pair.ties,
                pair.ties,
            ];
            for (r, &row) in places.iter().enumerate() {
                gradient[row] += games * mean[r] - seen[r];
                for (c, &column) in places.iter().enumerate() {
                    let square: f64 = [a, b, t]
                        .iter()
                        .zip(adds)
                        .map(|(p, x)| p * x[r] * x[c])
                        .sum();
                    curvature[row * m + column] += games * (square - mean[r] * mean[c]);
                }
            }
        }
        (gradient, curvature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn games(n: usize, list: &[(usize, usize, f64, f64)]) -> Games {
        let mut found = Games::new(n).unwrap();
        for &(a, b, wins, ties) in list {
            let mut scores = vec![f64::NAN; n];
            (scores[a], scores[b]) = (1.0, 0.0);
            found.add_scores(&scores, wins).unwrap();
            scores[b] = 1.0;
            found.add_scores(&scores, ties).unwrap();
        }
        found
    }

    #[test]
    fn two_items_by_hand() {
        // 4 wins, 1 loss, 4 ties: odds 4 to 1; ties / sqrt(wins losses) = ν = 2.
        let found = davidson(&games(2, &[(0, 1, 4.0, 4.0), (1, 0, 1.0, 0.0)]), 0.0).unwrap();
        assert!((found.theta[0] - 2f64.ln()).abs() < 1e-10, "{found:?}");
        assert!((found.tie - 2.0).abs() < 1e-9 && (found.tie_share() - 0.5).abs() < 1e-9);
        let ninths = |k: f64| (k / 9.0).ln();
        let likelihood = 8.0 * ninths(4.0) + ninths(1.0);
        assert!((found.log_likelihood - likelihood).abs() < 1e-9);
    }

    #[test]
    fn four_items_as_a_general_optimiser_finds_them() {
        // scipy.optimize.minimize of the likelihood as written above, ν by its logarithm.
        let mut all = Games::new(4).unwrap();
        for (a, b, wins, losses, ties) in [
            (0, 1, 5.0, 2.0, 3.0),
            (0, 2, 7.0, 1.0, 1.0),
            (0, 3, 4.0, 4.0, 4.0),
            (1, 2, 3.0, 3.0, 2.0),
            (1, 3, 6.0, 2.0, 0.0),
            (2, 3, 2.0, 5.0, 3.0),
        ] {
            all.merge(&games(4, &[(a, b, wins, ties), (b, a, losses, 0.0)]))
                .unwrap();
        }
        let found = davidson(&all, 0.0).unwrap();
        let theta = [0.623_530_33, 0.118_806_23, -0.700_836_82, -0.041_499_74];
        for (f, t) in found.theta.iter().zip(theta) {
            assert!((f - t).abs() < 2e-8, "{found:?}");
        }
        assert!((found.tie - 0.633_461_494).abs() < 1e-7);
        assert!((found.log_likelihood + 58.189_178_420_252).abs() < 1e-9);
    }

    #[test]
    fn without_ties_as_bradley_and_terry() {
        let all = games(3, &[(0, 1, 3.0, 0.0), (1, 2, 2.0, 0.0), (2, 0, 1.0, 0.0)]);
        let found = davidson(&all, 0.0).unwrap();
        let other = fit(&all.comparisons().unwrap(), Estimator::Ridge, 0.0).unwrap();
        assert_eq!((found.theta, found.tie), (other.theta, 0.0));
        let equal = davidson(&games(2, &[(0, 1, 0.0, 5.0)]), 0.0).unwrap();
        assert_eq!((equal.theta, equal.tie), (vec![0.0, 0.0], f64::INFINITY));
    }

    #[test]
    fn what_cannot_be_fitted_says_why() {
        let alone = games(3, &[(0, 1, 3.0, 1.0), (0, 2, 2.0, 0.0)]);
        let refused = davidson(&alone, 0.0);
        assert!(matches!(refused, Err(EvalError::NotIdentifiable { .. })));
        let found = davidson(&alone, 0.01).unwrap();
        assert!(
            found.regularised && found.theta[0] > found.theta[1] && found.theta[1] > found.theta[2]
        );
        assert!(davidson(&Games::new(2).unwrap(), 0.1).is_err());
        assert!(davidson(&alone, f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn no_other_strengths_are_likelier(
            counts in prop::collection::vec((0u8..4, 1u8..4, 1u8..4), 6),
            moves in prop::collection::vec(-0.1..0.1f64, 5),
        ) {
            let mut all = Games::new(4).unwrap();
            let pairs = (0..4).flat_map(|i| (i + 1..4).map(move |j| (i, j)));
            for ((i, j), (ties, wins, losses)) in pairs.zip(&counts) {
                all.merge(&games(4, &[(i, j, f64::from(*wins), f64::from(*ties)), (j, i, f64::from(*losses), 0.0)]))
                    .unwrap();
            }
            let found = davidson(&all, 0.0).unwrap();
            prop_assume!(found.tie > 0.0);
            let pairs = Pairs::of(&all);
            let mut at: Vec<f64> = found.theta.clone();
            at.push(found.tie.ln());
            at.iter_mut().zip(&moves).for_each(|(a, m)| *a += m);
            prop_assert!(pairs.log_likelihood(&at) <= found.log_likelihood + 1e-9);
        }
    }
}
