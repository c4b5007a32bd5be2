//! A strong and a weak model (RouteLLM, Ong et al. 2024): how likely the strong one wins, from which likelihood on it is
//! asked, and what that brings.

use polyloom::MergeError;
use polyloom::evaluate::aggregate::comparisons::Comparisons;
use polyloom::evaluate::aggregate::pairwise::{Estimator, elo_scale, fit};
use polyloom::evaluate::statistics::replicates::quantile_of_sorted;

use super::points::Points;
use crate::error::Result;

fn wrong(what: impl Into<String>) -> crate::Error {
    MergeError::plan("bad-win-rates", what).into()
}

/// The threshold from which on a share of the calls goes to the strong model, on prompts like these: the `1 - share` quantile
/// of their win rates. Calls are strong where the win rate is at least the threshold. Other traffic needs another one.
///
/// # Errors
/// No win rates, a share outside 0 to 1, numbers that are not finite.
pub fn threshold(win_rates: &[f64], share: f64) -> Result<f64> {
    if win_rates.is_empty() || win_rates.iter().any(|w| !w.is_finite()) {
        return Err(wrong("a threshold needs win rates, all of them finite"));
    }
    if !(0.0..=1.0).contains(&share) {
        return Err(wrong(format!(
            "a share of {share} of the calls; it must be in 0 to 1"
        )));
    }
    let mut sorted = win_rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(quantile_of_sorted(&sorted, 1.0 - share))
}

/// What calls bring at a share of strong ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Win rate from which on the strong model is asked; above 1 for none.
    pub threshold: f64,
    /// Share of calls that go to the strong model.
    pub share: f64,
    /// Mean score of the answers.
    pub score: f64,
}

/// What a router brings over all thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// From none to all calls to the strong model.
    pub places: Vec<Place>,
}

impl Curve {
    /// Of every prompt's win rate and the scores of both models on it. Prompts of equal win rates move together.
    ///
    /// # Errors
    /// No prompts, lengths that differ, numbers that are not finite.
    pub fn new(win_rates: &[f64], strong: &[f64], weak: &[f64]) -> Result<Self> {
        let n = win_rates.len();
        if n == 0 || strong.len() != n || weak.len() != n {
            return Err(wrong(format!(
                "{n} win rates with {} strong and {} weak scores",
                strong.len(),
                weak.len()
            )));
        }
        let all = win_rates.iter().chain(strong).chain(weak);
        if all.clone().any(|x| !x.is_finite()) {
            return Err(wrong("win rates and scores must be finite"));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| win_rates[b].total_cmp(&win_rates[a]));
        let mut score: f64 = weak.iter().sum();
        let mut places = vec![Place {
            threshold: f64::INFINITY,
            share: 0.0,
            score: score / n as f64,
        }];
        for (i, &row) in order.iter().enumerate() {
            score += strong[row] - weak[row];
            let next = order.get(i + 1).map(|r| win_rates[*r]);
            if next == Some(win_rates[row]) {
                continue;
            }
            places.push(Place {
                threshold: win_rates[row],
                share: (i + 1) as f64 / n as f64,
                score: score / n as f64,
            });
        }
        Ok(Self { places })
    }

    /// Scores of the weak and of the strong model alone.
    #[must_use]
    pub fn ends(&self) -> (f64, f64) {
        let of = |place: Option<&Place>| place.map_or(f64::NAN, |p| p.score);
        (of(self.places.first()), of(self.places.last()))
    }

    /// Share of the gap between the models that is recovered at a place; NaN where there is no gap.
    #[must_use]
    pub fn recovered(&self, place: &Place) -> f64 {
        let (weak, strong) = self.ends();
        match strong == weak {
            true => f64::NAN,
            false => (place.score - weak) / (strong - weak),
        }
    }

    /// The mean recovered share over all shares of calls (APGR): 0 the weak model, 1 the strong one, 0.5 a router that
    /// knows nothing. The area under straight lines between the places.
    #[must_use]
    pub fn recovered_area(&self) -> f64 {
        let parts = self.places.windows(2).map(|w| {
            let mean = (self.recovered(&w[0]) + self.recovered(&w[1])) / 2.0;
            mean * (w[1].share - w[0].share)
        });
        parts.sum()
    }

    /// The place with the fewest strong calls that recovers a share of the gap (CPT).
    #[must_use]
    pub fn least_calls(&self, recovered: f64) -> Option<Place> {
        let enough = |p: &&Place| self.recovered(p) >= recovered;
        self.places.iter().find(enough).copied()
    }
}

/// Win rates of one model over another by RouteLLM's matrix factorisation: `sigmoid(w . (unit(P_strong) * V e) -
/// w . (unit(P_weak) * V e))`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factorised {
    /// A vector for each model.
    pub models: Points,
    /// From text embeddings to those vectors, `[width, embedding]`.
    pub projection: Points,
    /// Weights of the products.
    pub classifier: Vec<f32>,
}

impl Factorised {
    /// How likely `strong` wins over `weak`, for each embedding of a prompt.
    ///
    /// # Errors
    /// Models that are not there, widths that differ.
    pub fn win_rates(&self, prompts: &Points, strong: usize, weak: usize) -> Result<Vec<f64>> {
        let width = self.models.width;
        if strong.max(weak) >= self.models.len() {
            return Err(wrong(format!("{} models", self.models.len())));
        }
        if prompts.width != self.projection.width
            || self.projection.len() != width
            || self.classifier.len() != width
        {
            return Err(wrong("widths of models, projection and prompts do not fit"));
        }
        let unit = self.models.clone().unit();
        let (strong, weak) = (unit.row(strong), unit.row(weak));
        let projected = prompts.products(&self.projection);
        Ok(projected
            .chunks_exact(width)
            .map(|v| {
                let of = |i: usize| {
                    f64::from(self.classifier[i]) * f64::from(strong[i] - weak[i]) * f64::from(v[i])
                };
                let apart: f64 = (0..width).map(of).sum();
                1.0 / (1.0 + (-apart).exp())
            })
            .collect())
    }
}

/// How a battle of two models went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The first won.
    First,
    /// The second won.
    Second,
    /// Neither: half a win for each.
    Tie,
}

/// Weights of past battles by how similar their prompts are to a new one: `10 * 10^(similarity / largest similarity)`.
///
/// # Errors
/// No similarities, none above 0.
pub fn weighting(similarities: &[f64]) -> Result<Vec<f64>> {
    let top = similarities
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    if !(top > 0.0 && top.is_finite()) {
        return Err(wrong("weights of battles need a similarity above 0"));
    }
    Ok(similarities
        .iter()
        .map(|s| 10.0 * 10f64.powf(s / top))
        .collect())
}

/// Ratings of models (Elo's scale, mean 1000) from weighted battles: Bradley and Terry's model by maximum likelihood.
///
/// # Errors
/// Lengths that differ; battles that do not link all models in both directions.
pub fn ratings(
    models: usize,
    battles: &[(usize, usize, Outcome)],
    weights: &[f64],
) -> Result<Vec<f64>> {
    if battles.len() != weights.len() {
        return Err(wrong(format!(
            "{} battles with {} weights",
            battles.len(),
            weights.len()
        )));
    }
    let failed = |e: polyloom::evaluate::EvalError| wrong(e.to_string());
    let mut all = Comparisons::new(models).map_err(failed)?;
    for ((a, b, outcome), weight) in battles.iter().zip(weights) {
        let mut won = |winner, loser, by| all.add_choice(winner, &[loser], by).map_err(failed);
        match outcome {
            Outcome::First => won(*a, *b, *weight)?,
            Outcome::Second => won(*b, *a, *weight)?,
            Outcome::Tie => {
                won(*a, *b, weight / 2.0)?;
                won(*b, *a, weight / 2.0)?;
            }
        }
    }
    let found = fit(&all, Estimator::Ridge, 0.0).map_err(failed)?;
    Ok(found.theta.into_iter().map(elo_scale).collect())
}

/// How likely a model of one rating wins over one of another.
#[must_use]
pub fn win_rate(strong: f64, weak: f64) -> f64 {
    1.0 - 1.0 / (1.0 + 10f64.powf((strong - weak) / 400.0))
}

/// Tiers of models of like ratings, 0 for the highest: the split of the sorted ratings with the smallest sum of variances
/// within tiers.
///
/// # Errors
/// No tiers or more than models, ratings that are not finite.
pub fn tiers(ratings: &[f64], count: usize) -> Result<Vec<usize>> {
    let n = ratings.len();
    if count == 0 || count > n || ratings.iter().any(|r| !r.is_finite()) {
        return Err(wrong(format!("{count} tiers of {n} ratings")));
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| ratings[b].total_cmp(&ratings[a]));
    let sorted: Vec<f64> = order.iter().map(|i| ratings[*i]).collect();
    let variance = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        part.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / part.len() as f64
    };
    // least[i][t]: of the first i ratings in t tiers, and where the last tier begins.
    let mut least = vec![vec![(f64::INFINITY, 0usize); count + 1]; n + 1];
    least[0][0] = (0.0, 0);
    for i in 1..=n {
        for t in 1..=count.min(i) {
            for begin in t - 1..i {
                let sum = least[begin][t - 1].0 + variance(&sorted[begin..i]);
                if sum < least[i][t].0 {
                    least[i][t] = (sum, begin);
                }
            }
        }
    }
    let mut found = vec![0; n];
    let mut end = n;
    for t in (1..=count).rev() {
        let begin = least[end][t].1;
        for &model in &order[begin..end] {
            found[model] = t - 1;
        }
        end = begin;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_bring() {
        // The strong model is better on the prompts with the larger win rates.
        let win = [0.9, 0.8, 0.3, 0.3];
        let found = Curve::new(&win, &[1.0, 1.0, 1.0, 0.0], &[0.0, 0.0, 1.0, 0.0]).unwrap();
        let places: Vec<(f64, f64)> = found.places.iter().map(|p| (p.share, p.score)).collect();
        assert_eq!(places, [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (1.0, 0.75)]);
        assert_eq!(found.recovered_area(), 0.75);
        let place = found.least_calls(0.8).unwrap();
        assert_eq!((place.share, place.threshold), (0.5, 0.8));
        assert_eq!(threshold(&win, 0.5).unwrap(), 0.55);
        assert!(threshold(&win, 1.5).is_err());
        let same = Curve::new(&win, &[1.0; 4], &[1.0; 4]).unwrap();
        assert!(same.recovered_area().is_nan());
    }

    #[test]
    fn a_tie_is_half_a_win() {
        use Outcome::{First, Second, Tie};
        let battles = [
            (0, 1, First),
            (0, 1, Tie),
            (1, 0, First),
            (0, 1, Second),
            (0, 1, First),
        ];
        // 2.5 wins each with these weights.
        let found = ratings(2, &battles, &[1.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
        assert!((found[0] - found[1]).abs() < 1e-6);
        let found = ratings(2, &battles[..3], &[3.0, 2.0, 0.5]).unwrap();
        let odds = (found[0] - found[1]) / 400.0;
        assert!((odds - (4.0f64 / 1.5).log10()).abs() < 1e-6);
        assert!((win_rate(found[0], found[1]) - 4.0 / 5.5).abs() < 1e-6);
        assert!(ratings(2, &[(0, 1, First)], &[1.0]).is_err());
    }
}
