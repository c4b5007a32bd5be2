//! Does a confidence of 0.8 come with 80 % right answers? Calibration error over bins of the confidence.

use super::class_scores::ClassScores;
use crate::evaluate::error::same_length;
use crate::evaluate::rank::{key, sorted};
use crate::evaluate::sum::{Sum, sum};
use crate::evaluate::{EvalError, Result};

/// What a bin of a reliability diagram holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    confidence: Sum,
    right: u64,
}

impl Bin {
    /// Examples in the bin.
    pub fn count(&self) -> u64 {
        self.confidence.count()
    }

    /// Mean confidence; `NaN` for an empty bin.
    pub fn confidence(&self) -> f64 {
        self.confidence.mean()
    }

    /// Share of right answers; `NaN` for an empty bin.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.count() as f64
    }

    fn gap(&self) -> f64 {
        (self.accuracy() - self.confidence()).abs()
    }

    fn add(&mut self, confidence: f64, right: bool) {
        self.confidence.add(confidence);
        self.right += u64::from(right);
    }
}

/// Calibration errors, each in [0, 1], 0 is best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationError {
    /// Expected calibration error: gaps between accuracy and confidence weighted by the examples in the bin.
    pub l1: f64,
    /// Root of the weighted mean of the squared gaps.
    pub l2: f64,
    /// Largest gap: maximum calibration error.
    pub max: f64,
}

/// Bins of equal width over [0, 1], filled one by one and merged: bin b holds confidences in (b/B, (b+1)/B], the first
/// also 0. Fifteen bins are usual.
///
/// Source: Naeini and others 2015, Guo and others 2017; torchmetrics `calibration_error` (l1, l2, max).
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    bins: Vec<Bin>,
}

impl Calibration {
    /// Empty bins.
    ///
    /// # Errors
    /// No bins.
    pub fn new(bins: usize) -> Result<Self> {
        if bins == 0 {
            return Err(EvalError::invalid("calibration", "0 bins"));
        }
        Ok(Self {
            bins: vec![Bin::default(); bins],
        })
    }

    /// Adds an answer with the confidence it was given with.
    ///
    /// # Errors
    /// A confidence outside [0, 1].
    pub fn add(&mut self, confidence: f64, right: bool) -> Result<()> {
        check_confidence(confidence)?;
        let count = self.bins.len();
        let bin = ((confidence * count as f64).ceil() as usize).saturating_sub(1);
        self.bins[bin.min(count - 1)].add(confidence, right);
        Ok(())
    }

    /// Adds probabilities of the positive class: the confidence is that of the likelier class, at 0.5 of the negative.
    ///
    /// # Errors
    /// Lists that are empty or of different lengths, a probability outside [0, 1].
    pub fn add_binary(&mut self, truth: &[bool], p: &[f64]) -> Result<()> {
        same_length("truth and probabilities", truth.len(), p.len())?;
        let each = truth.iter().zip(p);
        each.into_iter()
            .try_for_each(|(&t, &p)| self.add(p.max(1.0 - p), (p > 0.5) == t))
    }

    /// Adds rows of probabilities: the confidence is that of the best class, the first of equal ones.
    ///
    /// # Errors
    /// A class without a column, lists of different lengths, a probability outside [0, 1].
    pub fn add_classes(&mut self, truth: &[u32], p: &ClassScores<'_>) -> Result<()> {
        p.check_truth(truth)?;
        for (i, &t) in truth.iter().enumerate() {
            let (best, confidence) = p.best(i);
            self.add(confidence, best == t as usize)?;
        }
        Ok(())
    }

    /// Adds what other bins hold.
    ///
    /// # Errors
    /// Another number of bins.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_length("calibration bins", self.bins.len(), other.bins.len())?;
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.confidence.merge(&other.confidence);
            bin.right += other.right;
        }
        Ok(())
    }

    /// The bins from confidence 0 to 1, for a reliability diagram.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// The errors over the bins that hold something.
    ///
    /// # Errors
    /// Nothing was added.
    pub fn finish(&self) -> Result<CalibrationError> {
        errors(&self.bins)
    }
}

fn check_confidence(confidence: f64) -> Result<()> {
    if (0.0..=1.0).contains(&confidence) {
        return Ok(());
    }
    let problem = format!("a confidence is {confidence}, outside [0, 1]");
    Err(EvalError::invalid("calibration", problem))
}

fn errors(bins: &[Bin]) -> Result<CalibrationError> {
    let total: u64 = bins.iter().map(Bin::count).sum();
    if total == 0 {
        return Err(EvalError::Empty {
            what: "calibration error",
        });
    }
    let full = || bins.iter().filter(|b| b.count() > 0);
    let share = |bin: &Bin| bin.count() as f64 / total as f64;
    Ok(CalibrationError {
        l1: sum(full().map(|b| share(b) * b.gap())),
        l2: sum(full().map(|b| share(b) * b.gap().powi(2))).sqrt(),
        max: full().map(Bin::gap).fold(0.0, f64::max),
    })
}

/// Calibration errors over bins that hold (nearly) the same number of answers.
///
/// The sorted confidences are cut into `bins` runs, the first ones longer by one where it does not divide; the border is
/// halfway between the runs and belongs to the lower bin, so that equal confidences stay together and borders that
/// coincide are one. Fewer answers than bins make a bin each. Cost: O(n log n).
/// Source: Kumar and others 2019, the package uncertainty-calibration `get_ece_em` (l1 only), behind HELM's `ece_10_bin`.
///
/// # Errors
/// Lists that are empty or of different lengths, no bins, a confidence outside [0, 1].
pub fn calibration_equal_mass(
    confidence: &[f64],
    right: &[bool],
    bins: usize,
) -> Result<CalibrationError> {
    same_length("confidences and answers", confidence.len(), right.len())?;
    if bins == 0 {
        return Err(EvalError::invalid("calibration", "0 bins"));
    }
    confidence.iter().try_for_each(|&c| check_confidence(c))?;
    let order = sorted(confidence.iter().copied());
    let at = |i: usize| confidence[order[i].1];
    let (n, parts) = (order.len(), bins.min(order.len()));
    let mut borders: Vec<f64> = (1..parts)
        .map(|part| part * (n / parts) + part.min(n % parts))
        .map(|start| (at(start - 1) + at(start)) / 2.0)
        .collect();
    borders.push(1.0);
    borders.dedup_by_key(|b| key(*b));
    let mut filled = vec![Bin::default(); borders.len()];
    let mut bin = 0;
    for i in 0..n {
        while borders[bin] < at(i) {
            bin += 1;
        }
        filled[bin].add(at(i), right[order[i].1]);
    }
    errors(&filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let mut bins = Calibration::new(2).unwrap();
        for (confidence, right) in [(0.0, false), (0.5, true), (0.75, true), (1.0, false)] {
            bins.add(confidence, right).unwrap();
        }
        // (0.25 against 0.5) and (0.875 against 0.5), half the answers each.
        let found = bins.finish().unwrap();
        assert_eq!((found.l1, found.max), (0.3125, 0.375));
        assert_eq!(bins.bins()[0].count(), 2);
        assert!(bins.add(1.1, true).is_err() && bins.add(f64::NAN, true).is_err());
        assert!(Calibration::new(0).is_err() && Calibration::new(3).unwrap().finish().is_err());
        assert!(bins.merge(&Calibration::new(3).unwrap()).is_err());
    }

    #[test]
    fn equal_mass_keeps_ties_together() {
        let confidence = [0.5, 0.9, 0.9, 0.9];
        // Runs (0.5, 0.9) and (0.9, 0.9): the border is 0.9, and all are in one bin.
        let found = calibration_equal_mass(&confidence, &[true; 4], 2).unwrap();
        assert!((found.l1 - 0.2).abs() < 1e-15);
        let each = calibration_equal_mass(&[0.5, 1.0], &[true, false], 10).unwrap();
        assert_eq!((each.l1, each.max), (0.75, 1.0));
        assert!(calibration_equal_mass(&[], &[], 2).is_err());
        assert!(calibration_equal_mass(&[0.5], &[true], 0).is_err());
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(
            rows in prop::collection::vec((0u32..=16, any::<bool>()), 1..50),
            cut in 0usize..50,
        ) {
            let fill = |rows: &[(u32, bool)]| {
                let mut bins = Calibration::new(15).unwrap();
                for &(c, right) in rows {
                    bins.add(f64::from(c) / 16.0, right).unwrap();
                }
                bins
            };
            let cut = cut.min(rows.len());
            let mut merged = fill(&rows[cut..]);
            merged.merge(&fill(&rows[..cut])).unwrap();
            prop_assert_eq!(merged.finish().unwrap(), fill(&rows).finish().unwrap());
        }
    }
}
