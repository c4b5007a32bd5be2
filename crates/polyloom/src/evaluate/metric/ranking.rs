//! Rankings by score: nDCG that averages over ties, and what abstaining by confidence is worth.

use crate::evaluate::error::same_length;
use crate::evaluate::sum::{mean, sum};
use crate::evaluate::{EvalError, Result};

fn refuse_nan(what: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().position(|x| x.is_nan()) {
        Some(i) => Err(EvalError::invalid(what, format!("NaN at place {i}"))),
        None => Ok(()),
    }
}

fn discount(rank: usize) -> f64 {
    1.0 / ((rank + 2) as f64).log2()
}

/// How [`ndcg_by_score`] treats equal scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// Equal scores share the mean gain of their block: the expected value over all orders of the tied (McSherry and
    /// Najork 2008; scikit-learn's default).
    Average,
    /// Of equal scores, the later place in the list ranks first: what `ignore_ties=True` does in scikit-learn on lists
    /// short enough for its sort to be stable.
    LaterFirst,
}

/// nDCG of one list with linear gain and log2 discount over the first k ranks, divided by the best possible. 0 where no
/// gain is positive. For many lists take the mean. O(n log n).
///
/// # Errors
/// Lists that are empty or of different lengths, a NaN, a gain that is negative or infinite.
pub fn ndcg_by_score(gains: &[f64], scores: &[f64], k: usize, ties: Ties) -> Result<f64> {
    const WHAT: &str = "nDCG";
    same_length(WHAT, gains.len(), scores.len())?;
    refuse_nan(WHAT, gains)?;
    refuse_nan(WHAT, scores)?;
    if let Some(i) = gains.iter().position(|g| *g < 0.0 || g.is_infinite()) {
        let problem = format!("a gain of {} at place {i}", gains[i]);
        return Err(EvalError::invalid(WHAT, problem));
    }
    let k = k.min(gains.len());
    let mut best = gains.to_vec();
    best.sort_unstable_by(|a, b| b.total_cmp(a));
    let ranks = best.iter().enumerate().take(k);
    let ideal = sum(ranks.map(|(rank, gain)| gain * discount(rank)));
    if ideal == 0.0 {
        return Ok(0.0);
    }
    let mut order: Vec<usize> = (0..gains.len()).collect();
    // Adding zero makes the two zeros equal.
    let score = |i: usize| scores[i] + 0.0;
    order.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)).then(b.cmp(&a)));
    let found = match ties {
        Ties::LaterFirst => {
            let ranks = order.iter().enumerate().take(k);
            sum(ranks.map(|(rank, &i)| gains[i] * discount(rank)))
        }
        Ties::Average => {
            let mut rank = 0;
            let blocks = order.chunk_by(|&a, &b| score(a) == score(b));
            sum(blocks.map(|block| {
                let gain = mean(block.iter().map(|&i| gains[i]));
                let first = rank;
                rank += block.len();
                gain * sum((first..rank.min(k)).map(discount))
            }))
        }
    };
    Ok(found / ideal)
}

/// How much abstaining by a confidence is worth, from about 0 (as abstaining at random) to 1 (as abstaining where the
/// metric is lowest); below 0 it is worse than chance. mteb's `nAUC`.
///
/// For the shares 0, 0.1, … 0.9 the examples of lowest confidence are left out (rounded to an even number at a half, all
/// but one at most; of equal confidence the earlier first) and the metric averaged over the rest; the area under that
/// curve, less the area without abstaining, is divided by the same of the curve that leaves out the lowest values of the
/// metric itself. `NaN` where the metric does not vary, since then nothing can be gained. O(n log n).
///
/// # Errors
/// Lists that are empty or of different lengths, a NaN.
pub fn abstention_nauc(confidence: &[f64], metric: &[f64]) -> Result<f64> {
    const WHAT: &str = "abstention nAUC";
    same_length(WHAT, confidence.len(), metric.len())?;
    refuse_nan(WHAT, confidence)?;
    refuse_nan(WHAT, metric)?;
    let area = |by: &[f64]| {
        let mut order: Vec<usize> = (0..by.len()).collect();
        order.sort_by(|&a, &b| (by[a] + 0.0).total_cmp(&(by[b] + 0.0)));
        let means: Vec<f64> = (0..10)
            .map(|tenths| {
                let share = f64::from(tenths) / 10.0;
                let left_out = (share * by.len() as f64).round_ties_even() as usize;
                let kept = &order[left_out.min(by.len() - 1)..];
                mean(kept.iter().map(|&i| metric[i]))
            })
            .collect();
        sum(means.windows(2).map(|pair| 0.1 * (pair[0] + pair[1]) / 2.0))
    };
    if metric.iter().all(|x| *x == metric[0]) {
        return Ok(f64::NAN);
    }
    let flat = 0.9 * mean(metric.iter().copied());
    let best = area(metric) - flat;
    Ok((area(confidence) - flat) / best)
}

/// What a query's scores say of how sure the ranking is; for [`abstention_nauc`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Confidence {
    /// The highest score; 0 of nothing.
    pub max: f64,
    /// Standard deviation of the scores, dividing by n; 0 of nothing.
    pub std: f64,
    /// The highest score less the second; 0 of fewer than two.
    pub lead: f64,
}

/// The three confidences that mteb derives from a query's scores.
///
/// # Errors
/// A NaN.
pub fn confidence(scores: &[f64]) -> Result<Confidence> {
    refuse_nan("confidence", scores)?;
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let Some(&max) = sorted.first() else {
        return Ok(Confidence::default());
    };
    let center = mean(sorted.iter().copied());
    Ok(Confidence {
        max,
        std: mean(sorted.iter().map(|x| (x - center).powi(2))).sqrt(),
        lead: sorted.get(1).map_or(0.0, |second| max - second),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_ranks() {
        let tied = ndcg_by_score(&[1.0, 0.0, 2.0], &[0.5; 3], 1, Ties::Average).unwrap();
        assert_eq!(tied, 0.5);
        let later = ndcg_by_score(&[1.0, 0.0, 2.0], &[0.5; 3], 1, Ties::LaterFirst).unwrap();
        assert_eq!(later, 1.0);
        let zeros = ndcg_by_score(&[1.0, 0.0], &[0.0, -0.0], 1, Ties::Average).unwrap();
        assert_eq!(zeros, 0.5);
        assert_eq!(ndcg_by_score(&[0.0], &[1.0], 5, Ties::Average), Ok(0.0));
        for (gains, scores) in [([-1.0], [0.0]), ([1.0], [f64::NAN]), ([f64::NAN], [0.0])] {
            assert!(ndcg_by_score(&gains, &scores, 5, Ties::Average).is_err());
        }
    }

    #[test]
    fn abstaining_by_the_metric_itself_is_best() {
        let metric: Vec<f64> = (0..20).map(|i| f64::from(i * 7 % 20)).collect();
        let best = abstention_nauc(&metric, &metric).unwrap();
        assert!((best - 1.0).abs() < 1e-12);
        let against: Vec<f64> = metric.iter().map(|x| -x).collect();
        assert!(abstention_nauc(&against, &metric).unwrap() < -0.5);
        assert!(abstention_nauc(&metric, &[1.0; 20]).unwrap().is_nan());
        assert!(abstention_nauc(&[], &[]).is_err());
    }

    #[test]
    fn confidences() {
        let found = confidence(&[1.0, 3.0]).unwrap();
        assert_eq!((found.max, found.std, found.lead), (3.0, 1.0, 2.0));
        assert_eq!(confidence(&[]).unwrap(), Confidence::default());
    }
}
