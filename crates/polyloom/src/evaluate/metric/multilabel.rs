//! Several labels per example: which of the labels were found.

use super::confusion::check_weight;
use super::prf::{Average, ClassCounts, Prf, PrfOptions, ZeroDivision, averaged, per_class};
use crate::evaluate::error::same_length;
use crate::evaluate::sum::{Sum, sum};
use crate::evaluate::{EvalError, Result};

/// Counts per label and sums over examples, filled row by row and merged; examples may have weights.
///
/// Cost: O(labels) per example. Source: scikit-learn on indicator matrices, unless a method says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Multilabel {
    /// Hits, support, predicted: sums of weights.
    labels: Vec<[Sum; 3]>,
    options: PrfOptions,
    examples: u64,
    weight: Sum,
    exact: Sum,
    /// Sums over examples of precision, recall, F and Jaccard times the weight, and of the weights of those defined.
    samples: [[Sum; 2]; 4],
    jaccard_empty: Sum,
}

impl Multilabel {
    /// Counts for so many labels; the options hold for precision, recall and F.
    ///
    /// # Errors
    /// No labels, or a `beta` below 0.
    pub fn new(labels: usize, options: PrfOptions) -> Result<Self> {
        options.check()?;
        if labels == 0 {
            return Err(EvalError::Empty { what: "labels" });
        }
        Ok(Self {
            labels: vec![[Sum::default(); 3]; labels],
            options,
            examples: 0,
            weight: Sum::default(),
            exact: Sum::default(),
            samples: [[Sum::default(); 2]; 4],
            jaccard_empty: Sum::default(),
        })
    }

    /// Adds an example: for each label whether it applies and whether it was predicted.
    ///
    /// # Errors
    /// A row of another length.
    pub fn add(&mut self, truth: &[bool], predicted: &[bool]) -> Result<()> {
        self.add_weighted(truth, predicted, 1.0)
    }

    /// Adds an example that counts with a weight (scikit-learn's `sample_weight`).
    ///
    /// # Errors
    /// A row of another length, a weight that is negative or not finite.
    pub fn add_weighted(&mut self, truth: &[bool], predicted: &[bool], weight: f64) -> Result<()> {
        same_length("true and predicted labels", truth.len(), predicted.len())?;
        same_length("labels of an example", truth.len(), self.labels.len())?;
        check_weight("labels", weight)?;
        let mut row = [0u64; 3];
        for ((&t, &p), label) in truth.iter().zip(predicted).zip(&mut self.labels) {
            for (place, holds) in [t && p, t, p].into_iter().enumerate() {
                if holds {
                    row[place] += 1;
                    label[place].add(weight);
                }
            }
        }
        let [hits, support, found] = row;
        self.examples += 1;
        self.weight.add(weight);
        if hits == support && hits == found {
            self.exact.add(weight);
        }
        let prf = self.options.of(&counts(&row.map(|n| n as f64)));
        let jaccard = match support + found - hits {
            0 => {
                self.jaccard_empty.add(weight);
                f64::NAN
            }
            union => hits as f64 / union as f64,
        };
        let values = [prf.precision, prf.recall, prf.f, jaccard];
        for (x, [sum, of]) in values.into_iter().zip(&mut self.samples) {
            if !x.is_nan() {
                sum.add(x * weight);
                of.add(weight);
            }
        }
        Ok(())
    }

    /// Adds what another one counted.
    ///
    /// # Errors
    /// Another number of labels or other options.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_length("labels", self.labels.len(), other.labels.len())?;
        if self.options != other.options {
            return Err(EvalError::invalid("labels", "counted with other options"));
        }
        for (label, other) in self.labels.iter_mut().zip(&other.labels) {
            label.iter_mut().zip(other).for_each(|(a, b)| a.merge(b));
        }
        self.examples += other.examples;
        self.weight.merge(&other.weight);
        self.exact.merge(&other.exact);
        let sums = self.samples.as_flattened_mut().iter_mut();
        sums.zip(other.samples.as_flattened())
            .for_each(|(a, b)| a.merge(b));
        self.jaccard_empty.merge(&other.jaccard_empty);
        Ok(())
    }

    /// Total weight.
    fn some(&self) -> Result<f64> {
        if self.examples == 0 {
            return Err(EvalError::Empty { what: "labels" });
        }
        Ok(self.weight.total())
    }

    fn sample_mean(&self, which: usize) -> f64 {
        let [sum, of] = &self.samples[which];
        sum.total() / of.total()
    }

    /// Counts of each label.
    pub fn label_counts(&self) -> Vec<ClassCounts> {
        self.labels
            .iter()
            .map(|row| counts(&row.each_ref().map(Sum::total)))
            .collect()
    }

    /// Share of the examples with all labels right, in [0, 1]. Source: scikit-learn `accuracy_score`.
    ///
    /// # Errors
    /// No examples.
    pub fn subset_accuracy(&self) -> Result<f64> {
        Ok(self.exact.total() / self.some()?)
    }

    /// Share of the labels, over all examples, that are wrong; in [0, 1], 0 is best. Source: scikit-learn `hamming_loss`.
    ///
    /// # Errors
    /// No examples.
    pub fn hamming_loss(&self) -> Result<f64> {
        let all = self.some()? * self.labels.len() as f64;
        let wrong = self.label_counts();
        Ok(sum(wrong.iter().map(|c| c.support + c.predicted - 2.0 * c.hits)) / all)
    }

    /// Precision, recall and F over the labels.
    ///
    /// # Errors
    /// No examples.
    pub fn prf(&self, average: Average) -> Result<Prf> {
        self.some()?;
        averaged(&self.label_counts(), average, &self.options)
    }

    /// Precision, recall and F of each label.
    ///
    /// # Errors
    /// No examples.
    pub fn prf_per_label(&self) -> Result<Vec<Prf>> {
        self.some()?;
        per_class(&self.label_counts(), &self.options)
    }

    /// Means over the examples of each one's precision, recall and F (scikit-learn's `average="samples"`); undefined ones
    /// are left out, and `NaN` says that all were.
    ///
    /// # Errors
    /// No examples.
    pub fn prf_samples(&self) -> Result<Prf> {
        self.some()?;
        let [precision, recall, f] = [0, 1, 2].map(|i| self.sample_mean(i));
        Ok(Prf {
            precision,
            recall,
            f,
        })
    }

    /// Mean over the examples of shared over all labels that apply or were predicted, in [0, 1]; an example without either
    /// counts as `empty` says.
    ///
    /// With [`ZeroDivision::One`] it is mteb's `hamming_score` (which is not one minus the Hamming loss).
    /// Source: scikit-learn `jaccard_score(average="samples")`.
    ///
    /// # Errors
    /// No examples.
    pub fn jaccard_samples(&self, empty: ZeroDivision) -> Result<f64> {
        let all = self.some()?;
        let total = self.samples[3][0].total();
        Ok(match empty {
            ZeroDivision::Zero => total / all,
            ZeroDivision::One => (total + self.jaccard_empty.total()) / all,
            ZeroDivision::Nan => self.sample_mean(3),
        })
    }
}

fn counts(row: &[f64; 3]) -> ClassCounts {
    let [hits, support, predicted] = *row;
    ClassCounts {
        hits,
        support,
        predicted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(rows: &[([bool; 3], [bool; 3])]) -> Multilabel {
        let mut all = Multilabel::new(3, PrfOptions::default()).unwrap();
        rows.iter().for_each(|(t, p)| all.add(t, p).unwrap());
        all
    }

    #[test]
    fn by_hand() {
        let (yes, no) = (true, false);
        let all = count(&[
            ([yes, no, yes], [yes, yes, no]),
            ([no, no, no], [no, no, no]),
        ]);
        assert_eq!(all.subset_accuracy().unwrap(), 0.5);
        assert_eq!(all.hamming_loss().unwrap(), 2.0 / 6.0);
        assert_eq!(all.prf(Average::Micro).unwrap().f, 0.5);
        assert_eq!(all.prf_samples().unwrap().recall, 0.25);
        assert_eq!(
            all.jaccard_samples(ZeroDivision::One).unwrap(),
            (1.0 + 1.0 / 3.0) / 2.0
        );
        assert_eq!(all.jaccard_samples(ZeroDivision::Nan).unwrap(), 1.0 / 3.0);
        assert_eq!(all.prf_per_label().unwrap()[0].f, 1.0);
    }

    #[test]
    fn a_weight_is_a_number_of_copies() {
        let rows = [
            ([true, false, true], [true, true, false], 3u8),
            ([false, false, false], [false, false, false], 2),
            ([false, true, true], [false, true, true], 1),
        ];
        let mut weighted = count(&[]);
        let mut copies = count(&[]);
        for (t, p, n) in &rows {
            weighted.add_weighted(t, p, f64::from(*n) / 2.0).unwrap();
            (0..*n).for_each(|_| copies.add(t, p).unwrap());
        }
        let all = |m: &Multilabel| {
            [
                m.subset_accuracy().unwrap(),
                m.hamming_loss().unwrap(),
                m.prf(Average::Micro).unwrap().f,
                m.prf(Average::Macro).unwrap().recall,
                m.prf(Average::Weighted).unwrap().f,
                m.prf_samples().unwrap().f,
                m.jaccard_samples(ZeroDivision::One).unwrap(),
                m.jaccard_samples(ZeroDivision::Nan).unwrap(),
            ]
        };
        for (a, b) in all(&weighted).into_iter().zip(all(&copies)) {
            assert!((a - b).abs() < 1e-15, "{a} {b}");
        }
        // By hand: 3 of 6 exact.
        assert_eq!(weighted.subset_accuracy().unwrap(), 0.5);
        assert!(weighted.add_weighted(&[true; 3], &[true; 3], -1.0).is_err());
    }

    #[test]
    fn refuses() {
        let mut all = count(&[]);
        assert!(all.subset_accuracy().is_err() && all.prf(Average::Macro).is_err());
        assert!(all.add(&[true], &[true]).is_err());
        assert!(all.add(&[true; 3], &[true; 2]).is_err());
        assert!(Multilabel::new(0, PrfOptions::default()).is_err());
        let other = PrfOptions {
            beta: 2.0,
            ..Default::default()
        };
        assert!(all.merge(&Multilabel::new(3, other).unwrap()).is_err());
        assert!(
            all.merge(&Multilabel::new(2, PrfOptions::default()).unwrap())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(
            rows in prop::collection::vec(any::<([bool; 3], [bool; 3])>(), 1..30),
            cut in 0usize..30,
        ) {
            let cut = cut.min(rows.len());
            let mut merged = count(&rows[cut..]);
            merged.merge(&count(&rows[..cut])).unwrap();
            let whole = count(&rows);
            prop_assert_eq!(merged.label_counts(), whole.label_counts());
            let (a, b) = (merged.prf_samples().unwrap(), whole.prf_samples().unwrap());
            prop_assert!((a.f - b.f).abs() < 1e-15 && (a.recall - b.recall).abs() < 1e-15);
        }
    }
}
