//! How right are the answers that a model is surest of?

use crate::evaluate::error::same_length;
use crate::evaluate::rank::sorted;
use crate::evaluate::sum::{Sum, mean};
use crate::evaluate::{EvalError, Result};

/// Accuracy over the surest answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Selective {
    /// Accuracy of the k surest answers, k from 1 to n.
    pub accuracy: Vec<f64>,
}

impl Selective {
    /// The accuracies. Answers of equal confidence count with their mean, which is what a random order of them gives on
    /// average. O(n log n).
    ///
    /// Peer: uncertainty-calibration `get_selective_stats`, behind HELM's `selective_acc@10` and `selective_cov_acc_area`
    /// (`basic_metrics.py`), which leaves equal confidences in the order that numpy's sort gives them.
    ///
    /// # Errors
    /// Lists that are empty or of different lengths, a confidence that is not a number.
    pub fn new(confidence: &[f64], right: &[bool]) -> Result<Self> {
        const WHAT: &str = "selective accuracy";
        same_length(WHAT, confidence.len(), right.len())?;
        if let Some(i) = confidence.iter().position(|c| c.is_nan()) {
            return Err(EvalError::invalid(WHAT, format!("confidence {i} is NaN")));
        }
        let order = sorted(confidence.iter().map(|c| -c));
        let mut accuracy = Vec::with_capacity(order.len());
        let mut hits = Sum::default();
        for tied in order.chunk_by(|a, b| a.0 == b.0) {
            let each = mean(tied.iter().map(|(_, i)| f64::from(u8::from(right[*i]))));
            for _ in tied {
                hits.add(each);
                accuracy.push(hits.mean());
            }
        }
        Ok(Self { accuracy })
    }

    /// Area under accuracy over coverage: the mean of the accuracies.
    pub fn area(&self) -> f64 {
        mean(self.accuracy.iter().copied())
    }

    /// Accuracy of the surest share of the answers, as HELM counts them: the first ⌊share n⌋ + 1, at most n. `NaN` for a
    /// share outside 0 to 1.
    pub fn at(&self, share: f64) -> f64 {
        if !(0.0..=1.0).contains(&share) {
            return f64::NAN;
        }
        let n = self.accuracy.len();
        self.accuracy[((share * n as f64) as usize).min(n - 1)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_hand() {
        let found = Selective::new(&[0.5, 0.9, 0.8, 0.6], &[false, true, false, true]).unwrap();
        // By confidence: right, wrong, right, wrong.
        assert_eq!(found.accuracy, [1.0, 0.5, 2.0 / 3.0, 0.5]);
        assert!((found.area() - 8.0 / 12.0).abs() < 1e-15);
        assert_eq!(
            (found.at(0.1), found.at(0.25), found.at(1.0)),
            (1.0, 0.5, 0.5)
        );
        assert!(found.at(-0.1).is_nan() && found.at(f64::NAN).is_nan());
        // Equal confidences: half a hit each.
        let tied = Selective::new(&[0.7, 0.7, 0.1], &[true, false, true]).unwrap();
        assert_eq!(tied.accuracy, [0.5, 0.5, 2.0 / 3.0]);
        assert!(Selective::new(&[], &[]).is_err());
        assert!(Selective::new(&[f64::NAN], &[true]).is_err());
    }

    #[test]
    fn as_the_package_behind_helm() {
        // uncertainty-calibration 0.1.4, get_selective_stats.
        let confidence = [
            0.31, 0.97, 0.55, 0.62, 0.88, 0.71, 0.45, 0.93, 0.52, 0.66, 0.59, 0.81,
        ];
        let right = [0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1].map(|r| r == 1);
        let found = Selective::new(&confidence, &right).unwrap();
        assert!((found.area() - 0.706_304_112_554_112_6).abs() < 1e-15);
        assert_eq!(found.at(0.1), 0.5);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(rows in prop::collection::vec((0u8..5, any::<bool>()), 1..30), turn in 0usize..30) {
            let of = |rows: &[(u8, bool)]| {
                let (c, r): (Vec<f64>, Vec<bool>) = rows.iter().map(|(c, r)| (f64::from(*c), *r)).unzip();
                Selective::new(&c, &r).unwrap().accuracy
            };
            let mut other = rows.clone();
            other.rotate_left(turn % rows.len());
            for (a, b) in of(&rows).iter().zip(of(&other)) {
                prop_assert!((a - b).abs() < 1e-12);
            }
        }
    }
}
