//! How much a benchmark can be relied on ("Quantifying Variance in Evaluation Benchmarks", Madaan et al. 2024;
//! methods/evaluation.md 3.9).

use crate::evaluate::metric::correlation::{KendallVariant, coefficient, kendall, pearson};
use crate::evaluate::sum::{Sum, mean};
use crate::evaluate::{EvalError, Result, error::same_length};

/// Scores of one system over training seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedSpread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, divided by n − 1; `NaN` of one seed.
    pub deviation: f64,
}

impl SeedSpread {
    /// Mean and deviation.
    ///
    /// # Errors
    /// No score, or one that is `NaN`.
    pub fn of(scores: &[f64]) -> Result<Self> {
        present("spread over seeds", scores)?;
        let centre = mean(scores.iter().copied());
        let squares: Sum = scores.iter().map(|x| (x - centre).powi(2)).collect();
        Ok(Self {
            mean: centre,
            deviation: (squares.total() / (scores.len() as f64 - 1.0)).sqrt(),
        })
    }

    /// Mean over deviation: how far the score stands out of what seeds do to it. Infinite where seeds do nothing.
    pub fn signal_to_noise(&self) -> f64 {
        self.mean / self.deviation
    }
}

/// Whether scores rise along checkpoints: Kendall's τ-b of scores and order, 1 = always rising. `NaN` where the scores are
/// all the same. O(n²). Use it on accuracy and on the probability or log-likelihood of the right choice alike.
///
/// # Errors
/// No score, or one that is `NaN`.
pub fn monotonicity(scores: &[f64]) -> Result<f64> {
    present("monotonicity over checkpoints", scores)?;
    let order: Vec<f64> = (0..scores.len()).map(|i| i as f64).collect();
    Ok(coefficient(kendall(scores, &order, KendallVariant::B)))
}

/// What single items of a test say about the systems.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemStatistics {
    /// Share of systems that are right, by item.
    pub difficulty: Vec<f64>,
    /// Correlation of an item with the total score, which contains it; `NaN` where all systems do the same.
    pub item_total: Vec<f64>,
    /// Correlation of an item with the total over the other items; `NaN` where one of the two is constant. Negative: the
    /// better systems fail it (a wrong key, an ambiguous item).
    pub item_rest: Vec<f64>,
}

/// Statistics of items from `scores[system][item]`, 1 right and 0 wrong or any number between. O(systems · items).
///
/// # Errors
/// No system or item, rows of different lengths, a `NaN`.
pub fn item_statistics(scores: &[Vec<f64>]) -> Result<ItemStatistics> {
    const WHAT: &str = "item statistics";
    let items = scores.first().map_or(0, Vec::len);
    for row in scores {
        same_length(WHAT, items, row.len())?;
        present(WHAT, row)?;
    }
    if items == 0 {
        return Err(EvalError::Empty { what: WHAT });
    }
    let total: Vec<f64> = scores.iter().map(|r| r.iter().sum()).collect();
    let mut found = ItemStatistics {
        difficulty: Vec::with_capacity(items),
        item_total: Vec::with_capacity(items),
        item_rest: Vec::with_capacity(items),
    };
    for item in 0..items {
        let column: Vec<f64> = scores.iter().map(|r| r[item]).collect();
        let rest: Vec<f64> = total.iter().zip(&column).map(|(t, x)| t - x).collect();
        found.difficulty.push(mean(column.iter().copied()));
        found.item_total.push(coefficient(pearson(&column, &total)));
        found.item_rest.push(coefficient(pearson(&column, &rest)));
    }
    Ok(found)
}

/// Share of comparisons that are resolved: whose interval, given as (low, high), excludes 0. Over all pairs of systems
/// with paired bootstrap intervals this is the discriminability of a benchmark.
///
/// # Errors
/// No interval, a `NaN`, a low end above the high one.
pub fn resolved_share(intervals: &[(f64, f64)]) -> Result<f64> {
    const WHAT: &str = "share of resolved pairs";
    same_length(WHAT, intervals.len(), intervals.len())?;
    let ordered = |(low, high): &(f64, f64)| low <= high;
    if let Some((low, high)) = intervals.iter().find(|i| !ordered(i)) {
        return Err(EvalError::invalid(
            WHAT,
            format!("the interval {low} to {high}"),
        ));
    }
    let resolved = intervals
        .iter()
        .filter(|(low, high)| *low > 0.0 || *high < 0.0);
    Ok(resolved.count() as f64 / intervals.len() as f64)
}

fn present(what: &'static str, scores: &[f64]) -> Result<()> {
    same_length(what, scores.len(), scores.len())?;
    match scores.iter().position(|x| x.is_nan()) {
        Some(at) => Err(EvalError::invalid(what, format!("score {at} is NaN"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_checkpoints() {
        let spread = SeedSpread::of(&[48.0, 50.0, 52.0]).unwrap();
        assert_eq!((spread.mean, spread.deviation), (50.0, 2.0));
        assert_eq!(spread.signal_to_noise(), 25.0);
        assert!(SeedSpread::of(&[1.0]).unwrap().deviation.is_nan());
        assert_eq!(monotonicity(&[1.0, 2.0, 5.0]).unwrap(), 1.0);
        assert!((monotonicity(&[2.0, 1.0, 5.0]).unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert!(monotonicity(&[2.0, 2.0]).unwrap().is_nan());
        assert!(monotonicity(&[]).is_err() && monotonicity(&[f64::NAN]).is_err());
    }

    #[test]
    fn items() {
        let right = [
            [1.0, 1.0, 0.0],
            [1.0, 1.0, 0.0],
            [1.0, 0.0, 1.0],
            [1.0, 0.0, 0.0],
        ];
        let rows: Vec<Vec<f64>> = right.iter().map(|r| r.to_vec()).collect();
        let found = item_statistics(&rows).unwrap();
        assert_eq!(found.difficulty, [1.0, 0.5, 0.25]);
        assert!(found.item_total[0].is_nan());
        // Totals 2, 2, 2, 1 and the item 1, 1, 0, 0.
        assert!((found.item_total[1] - 1.0 / 3f64.sqrt()).abs() < 1e-12);
        // Rest 1, 1, 2, 1.
        assert!((found.item_rest[1] + 1.0 / 3f64.sqrt()).abs() < 1e-12);
        assert!(item_statistics(&[]).is_err() && item_statistics(&[vec![]]).is_err());
        assert!(item_statistics(&[vec![1.0], vec![1.0, 0.0]]).is_err());
    }

    #[test]
    fn resolved() {
        let intervals = [(0.1, 0.2), (-0.1, 0.1), (-2.0, -1.0), (0.0, 1.0)];
        assert_eq!(resolved_share(&intervals).unwrap(), 0.5);
        assert!(resolved_share(&[]).is_err());
        assert!(resolved_share(&[(f64::NAN, 1.0)]).is_err());
    }
}
