//! Metrics of a [`Table`]: accuracy, balanced accuracy, precision, recall and F-score, correlation, agreement.

use super::confusion::{Confusion, Table};
use super::prf::{Average, Prf, PrfOptions, averaged, per_class};
use crate::evaluate::Result;
use crate::evaluate::sum::{Sum, mean, sum};

/// How far a wrong class counts in Cohen's kappa. Distances are between the places of the classes in ascending order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KappaWeights {
    /// Every wrong class counts the same.
    #[default]
    None,
    /// By distance: for classes in an order.
    Linear,
    /// By squared distance.
    Quadratic,
}

/// Accuracy of two lists of class ids: the share of equal ones, in [0, 1].
///
/// Source: scikit-learn `accuracy_score`.
///
/// # Errors
/// Lists that are empty or of different lengths.
pub fn accuracy(truth: &[u32], predicted: &[u32]) -> Result<f64> {
    table(truth, predicted).map(|t| t.accuracy())
}

/// F1 of two lists of class ids, averaged over the classes that occur in either; 0/0 is 0.
///
/// Source: scikit-learn `f1_score`. Cost: O(n + classes²) for ids below 1024.
///
/// # Errors
/// Lists that are empty or of different lengths.
pub fn f1(truth: &[u32], predicted: &[u32], average: Average) -> Result<f64> {
    let prf = table(truth, predicted)?.prf(None, average, &PrfOptions::default())?;
    Ok(prf.f)
}

/// Matthews' correlation of two lists of class ids, in [-1, 1]; see [`Table::mcc`].
///
/// # Errors
/// Lists that are empty or of different lengths.
pub fn mcc(truth: &[u32], predicted: &[u32]) -> Result<f64> {
    table(truth, predicted).map(|t| t.mcc())
}

/// The table of two lists of class ids.
///
/// # Errors
/// Lists that are empty or of different lengths.
pub fn table(truth: &[u32], predicted: &[u32]) -> Result<Table> {
    let mut all = Confusion::default();
    all.extend(truth, predicted, None)?;
    all.finish()
}

impl Table {
    fn trace(&self) -> f64 {
        sum(self.counts.iter().map(|c| c.hits))
    }

    /// Share of examples with the right class, in [0, 1]; `NaN` where all weights are 0.
    ///
    /// Source: scikit-learn `accuracy_score`.
    pub fn accuracy(&self) -> f64 {
        self.trace() / self.total
    }

    /// Mean recall of the classes that occur in the truth, in [0, 1]; classes that were only predicted are left out, as are
    /// classes without weight. `NaN` where all weights are 0. Chance is one over the number of classes.
    ///
    /// Source: scikit-learn `balanced_accuracy_score`.
    pub fn balanced_accuracy(&self) -> f64 {
        mean(self.recalls())
    }

    /// Balanced accuracy with chance at 0 and the best at 1: (b − 1/C) / (1 − 1/C) over the C classes that occur in the
    /// truth. With one class there is no chance to correct for: `NaN` where all is right, else negative infinity.
    ///
    /// Source: scikit-learn `balanced_accuracy_score(adjusted=True)`.
    pub fn balanced_accuracy_adjusted(&self) -> f64 {
        let chance = 1.0 / self.recalls().count() as f64;
        (self.balanced_accuracy() - chance) / (1.0 - chance)
    }

    fn recalls(&self) -> impl Iterator<Item = f64> {
        let seen = self.counts.iter().filter(|c| c.support > 0.0);
        seen.map(|c| c.hits / c.support)
    }

    /// Precision, recall and F-score averaged over the given classes, or over all seen in truth or prediction.
    ///
    /// Source: scikit-learn `precision_recall_fscore_support`, as are 0/0 and the averages; see
    /// [`averaged`].
    ///
    /// # Errors
    /// A class list that is empty or names a class twice, or a `beta` below 0.
    pub fn prf(
        &self,
        classes: Option<&[u32]>,
        average: Average,
        options: &PrfOptions,
    ) -> Result<Prf> {
        averaged(&self.class_counts(classes)?, average, options)
    }

    /// Precision, recall and F-score of each of the given classes, or of all seen in truth or prediction.
    ///
    /// # Errors
    /// As [`prf`](Self::prf).
    pub fn prf_per_class(&self, classes: Option<&[u32]>, options: &PrfOptions) -> Result<Vec<Prf>> {
        per_class(&self.class_counts(classes)?, options)
    }

    /// Matthews' correlation coefficient for any number of classes, in [-1, 1]; 0 where truth or prediction is constant.
    ///
    /// (c·s − Σ p t) / sqrt((s² − Σ p²)(s² − Σ t²)) with c the trace, s the total, p and t the sums by prediction and truth.
    /// Source: Gorodkin 2004, scikit-learn `matthews_corrcoef`.
    pub fn mcc(&self) -> f64 {
        let s = self.total;
        let minus = |square: f64, f: fn(&super::prf::ClassCounts) -> f64| {
            let mut all: Sum = self.counts.iter().map(|c| -f(c)).collect();
            all.add(square);
            all.total()
        };
        let above = minus(self.trace() * s, |c| c.predicted * c.support);
        let predicted = minus(s * s, |c| c.predicted * c.predicted);
        let support = minus(s * s, |c| c.support * c.support);
        // Weights leave a rounding where a constant leaves 0.
        let constant = |x: f64| x <= 1e-14 * s * s;
        if s.is_nan() || constant(predicted) || constant(support) {
            return 0.0;
        }
        above / (predicted.sqrt() * support.sqrt())
    }

    /// Cohen's kappa: agreement beyond chance, at most 1; 0 is chance. `NaN` where only one class occurs on both sides,
    /// as chance is then always right.
    ///
    /// 1 − Σ w n / Σ w e, e the table expected from its sums. Source: Cohen 1960 and 1968, scikit-learn `cohen_kappa_score`.
    pub fn cohen_kappa(&self, weights: KappaWeights) -> f64 {
        let classes = || self.counts.iter().zip(0..);
        let distance = |t: usize, p: usize| match weights {
            KappaWeights::None => f64::from(t != p),
            KappaWeights::Linear => t.abs_diff(p) as f64,
            KappaWeights::Quadratic => (t.abs_diff(p) as f64).powi(2),
        };
        let seen = sum(self.cells.iter().map(|&(t, p, x)| distance(t, p) * x));
        let expected = match weights {
            KappaWeights::None => {
                let both: Sum = self
                    .counts
                    .iter()
                    .map(|c| -c.support * c.predicted)
                    .collect();
                let mut all = both;
                all.add(self.total * self.total);
                all.total()
            }
            KappaWeights::Linear => {
                // |i − j| counts the borders between i and j: what lies left of a border against what lies right.
                let (mut left_t, mut left_p) = (Sum::default(), Sum::default());
                sum(self.counts.iter().map(|c| {
                    left_t.add(c.support);
                    left_p.add(c.predicted);
                    let (t, p) = (left_t.total(), left_p.total());
                    t * (self.total - p) + p * (self.total - t)
                }))
            }
            KappaWeights::Quadratic => {
                // Variances of both sides and the distance of their means.
                let moments = |weight: fn(&super::prf::ClassCounts) -> f64| {
                    let centre = sum(classes().map(|(c, i)| weight(c) * f64::from(i))) / self.total;
                    let spread =
                        classes().map(|(c, i)| weight(c) * (f64::from(i) - centre).powi(2));
                    (centre, sum(spread))
                };
                let (t, p) = (moments(|c| c.support), moments(|c| c.predicted));
                self.total * (t.1 + p.1 + self.total * (t.0 - p.0).powi(2))
            }
        };
        1.0 - seen * self.total / expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Weight = fn(f64) -> f64;

    /// Kappa as the definition has it.
    fn slow_kappa(table: &Table, weight: Weight) -> f64 {
        let (mut seen, mut expected) = (0.0, 0.0);
        let matrix = table.matrix(table.classes()).unwrap();
        for (i, row) in matrix.iter().enumerate() {
            for (j, n) in row.iter().enumerate() {
                let w = weight((i as f64 - j as f64).abs());
                seen += w * n;
                expected += w * table.counts[i].support * table.counts[j].predicted / table.total;
            }
        }
        1.0 - seen / expected
    }

    #[test]
    fn by_hand() {
        // Rows: truth 0 -> 2 right, 1 wrong; truth 1 -> 1 right.
        let t = table(&[0, 0, 0, 1], &[0, 0, 1, 1]).unwrap();
        assert_eq!(t.accuracy(), 0.75);
        assert_eq!(t.balanced_accuracy(), (2.0 / 3.0 + 1.0) / 2.0);
        // (3·4 − (3·2 + 1·2)) / sqrt((16 − 8)(16 − 10)) = 4 / sqrt(48)
        assert!((t.mcc() - 4.0 / 48f64.sqrt()).abs() < 1e-15);
        // Chance agrees 2·3/16 + 2·1/16 = 1/2: (0.75 − 0.5) / 0.5
        assert_eq!(t.cohen_kappa(KappaWeights::None), 0.5);
        let f = f1(&[0, 0, 0, 1], &[0, 0, 1, 1], Average::Macro).unwrap();
        assert!((f - (0.8 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        assert!(accuracy(&[], &[]).is_err() && mcc(&[1], &[]).is_err());
    }

    #[test]
    fn one_class() {
        let right = table(&[1, 1], &[1, 1]).unwrap();
        assert_eq!((right.accuracy(), right.mcc()), (1.0, 0.0));
        assert!(right.cohen_kappa(KappaWeights::Quadratic).is_nan());
        assert!(right.balanced_accuracy_adjusted().is_nan());
        let wrong = table(&[1, 1], &[0, 0]).unwrap();
        assert_eq!(
            (wrong.mcc(), wrong.cohen_kappa(KappaWeights::None)),
            (0.0, 0.0)
        );
    }

    #[test]
    fn weightless() {
        let mut all = Confusion::default();
        all.add_weighted(0, 1, 0.0).unwrap();
        let t = all.finish().unwrap();
        assert!(t.accuracy().is_nan() && t.balanced_accuracy().is_nan());
        assert_eq!(t.mcc(), 0.0);
    }

    proptest! {
        #[test]
        fn kappa_is_its_definition(rows in prop::collection::vec((0u32..5, 0u32..5), 2..40)) {
            let (truth, predicted): (Vec<u32>, Vec<u32>) = rows.into_iter().unzip();
            let t = table(&truth, &predicted).unwrap();
            let kinds: [(KappaWeights, Weight); 3] = [
                (KappaWeights::None, |d| f64::from(d > 0.0)),
                (KappaWeights::Linear, |d| d),
                (KappaWeights::Quadratic, |d| d * d),
            ];
            for (kind, weight) in kinds {
                let (fast, slow) = (t.cohen_kappa(kind), slow_kappa(&t, weight));
                prop_assert!((fast - slow).abs() < 1e-12 || fast.is_nan() && slow.is_nan());
            }
        }

        #[test]
        fn order_does_not_matter(rows in prop::collection::vec((0u32..4, 0u32..4), 1..40)) {
            let (truth, predicted): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
            let (back_t, back_p): (Vec<u32>, Vec<u32>) = rows.iter().rev().copied().unzip();
            prop_assert_eq!(table(&truth, &predicted).unwrap(), table(&back_t, &back_p).unwrap());
        }

        #[test]
        fn micro_f1_is_accuracy(rows in prop::collection::vec((0u32..4, 0u32..4), 1..40)) {
            let (truth, predicted): (Vec<u32>, Vec<u32>) = rows.into_iter().unzip();
            let micro = f1(&truth, &predicted, Average::Micro).unwrap();
            prop_assert!((micro - accuracy(&truth, &predicted).unwrap()).abs() < 1e-15);
        }
    }
}
