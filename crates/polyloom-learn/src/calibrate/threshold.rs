//! From which probability on the second of two classes is answered.

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a cut is chosen by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The largest F1 of the second class.
    F1,
    /// The largest mean of the recalls of both classes.
    BalancedAccuracy,
    /// The largest recall of the second class less its false positive rate (Youden 1950): the cut of the mean of recalls.
    Youden,
    /// The least cost, of a first class answered as the second, and of a second answered as the first.
    Cost(f64, f64),
    /// This probability.
    Fixed(f64),
}

impl Rule {
    /// `f1`, `balanced_accuracy`, `youden`, `cost=FP:FN` or a probability.
    ///
    /// # Errors
    /// Another word; costs below 0 or both 0; a number that is no probability.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = "f1, balanced_accuracy, youden, cost=FP:FN (such as cost=1:5) or a probability such as 0.3";
        match text {
            "f1" => return Ok(Self::F1),
            "balanced_accuracy" => return Ok(Self::BalancedAccuracy),
            "youden" => return Ok(Self::Youden),
            _ => {}
        }
        if let Some(costs) = text.strip_prefix("cost=") {
            let number = |x: &str| x.parse().ok().filter(|x: &f64| *x >= 0.0 && x.is_finite());
            let two = costs
                .split_once(':')
                .and_then(|(a, b)| Some((number(a)?, number(b)?)));
            return match two {
                Some((a, b)) if a + b > 0.0 => Ok(Self::Cost(a, b)),
                _ => Err(format!(
                    "`{costs}` are no two costs FP:FN from 0 on, such as 1:5"
                )),
            };
        }
        let cut = text
            .parse()
            .ok()
            .filter(|x: &f64| (0.0..=1.0).contains(x))
            .ok_or_else(|| format!("`{text}` is no rule; known: {known}"));
        cut.map(Self::Fixed)
    }

    /// As [`Self::parse`] reads it.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::F1 => "f1".into(),
            Self::BalancedAccuracy => "balanced_accuracy".into(),
            Self::Youden => "youden".into(),
            Self::Cost(a, b) => format!("cost={a}:{b}"),
            Self::Fixed(cut) => cut.to_string(),
        }
    }

    /// What it makes of counts, more is better; nothing for a fixed one.
    fn value(&self, counts: &Counts) -> Option<f64> {
        let [hits, alarms, positives, negatives] = [
            counts.hits,
            counts.alarms,
            counts.positives,
            counts.negatives,
        ]
        .map(|n| n as f64);
        // One division of whole numbers each, so that what is equal is equal in floating point.
        let both = positives * negatives;
        Some(match self {
            Self::F1 => 2.0 * hits / (hits + alarms + positives),
            Self::BalancedAccuracy => {
                (hits * negatives + (negatives - alarms) * positives) / (2.0 * both)
            }
            Self::Youden => (hits * negatives - alarms * positives) / both,
            Self::Cost(alarm, miss) => {
                (0.0 - alarm * alarms - miss * (positives - hits)) / (positives + negatives)
            }
            Self::Fixed(_) => return None,
        })
    }
}

/// Rows that are answered as the second class: right and wrong; and how many there are of both classes.
struct Counts {
    hits: usize,
    alarms: usize,
    positives: usize,
    negatives: usize,
}

/// A cut as the file keeps it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The rule, as it was typed.
    pub rule: String,
    /// The second class is answered from this probability on; above 1 never.
    pub cut: f64,
    /// What the rule's measure is on the rows it was chosen by; costs are negative, a mean over rows. None for a fixed cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The same where the likelier class is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_half: Option<f64>,
}

impl Threshold {
    /// The best cut of rows: all are tried, in one sweep over the sorted scores. Equal scores stay together; a cut is the middle
    /// between two neighbours, 0, or the middle between the largest score and 1 (just above 1 where it is 1). Of equally good
    /// cuts that nearest to one half.
    ///
    /// `scores` are probabilities of the second class, `truth` whether a row is of it; both classes are there. Cost: O(n log n).
    /// Peer: scikit-learn `TunedThresholdClassifierCV` (a grid of 100 cuts; here all), `FixedThresholdClassifier`.
    #[must_use]
    pub fn fit(rule: Rule, scores: &[f64], truth: &[bool]) -> Self {
        let positives = truth.iter().filter(|t| **t).count();
        let total = Counts {
            hits: positives,
            alarms: truth.len() - positives,
            positives,
            negatives: truth.len() - positives,
        };
        let half = answered(scores, truth, |p| p > 0.5);
        let at_half = rule.value(&Counts {
            hits: half.0,
            alarms: half.1,
            ..total
        });
        let kept = |cut: f64, value: Option<f64>| Self {
            rule: rule.word(),
            cut,
            value,
            at_half,
        };
        if let Rule::Fixed(cut) = rule {
            return kept(cut, None);
        }
        let mut rows: Vec<(f64, bool)> =
            scores.iter().copied().zip(truth.iter().copied()).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut counts = total;
        let mut best = (0.0, rule.value(&counts));
        let mut ties = rows.chunk_by(|a, b| a.0 == b.0).peekable();
        while let Some(tie) = ties.next() {
            let lost = tie.iter().filter(|(_, t)| *t).count();
            counts.hits -= lost;
            counts.alarms -= tie.len() - lost;
            let cut = match ties.peek() {
                Some(next) => f64::midpoint(tie[0].0, next[0].0),
                None if tie[0].0 < 1.0 => f64::midpoint(tie[0].0, 1.0),
                None => 1.0f64.next_up(),
            };
            let value = rule.value(&counts);
            let nearer = || (cut - 0.5).abs() < (best.0 - 0.5f64).abs();
            if value > best.1 || (value == best.1 && nearer()) {
                best = (cut, value);
            }
        }
        kept(best.0, best.1)
    }

    /// Whether a probability of the second class is answered by it.
    #[must_use]
    pub fn is_over(&self, p: f64) -> bool {
        p >= self.cut
    }

    /// What is wrong with one that was read.
    pub(super) fn fault(&self) -> Option<String> {
        // The least number above 1 is the cut that nothing reaches.
        if !(0.0..=1.0f64.next_up()).contains(&self.cut) {
            return Some(format!("has the cut {}, which is no probability", self.cut));
        }
        Rule::parse(&self.rule).err()
    }
}

/// Rows that are answered: of the class, and not.
fn answered(scores: &[f64], truth: &[bool], over: impl Fn(f64) -> bool) -> (usize, usize) {
    let of = |wanted: bool| {
        let rows = scores.iter().zip(truth);
        rows.filter(|(p, t)| over(**p) && **t == wanted).count()
    };
    (of(true), of(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 6] = [0.125, 0.25, 0.25, 0.375, 0.5, 0.75];
    const TRUTH: [bool; 6] = [false, true, false, true, false, true];

    fn fit(rule: Rule) -> (f64, f64) {
        let found = Threshold::fit(rule, &SCORES, &TRUTH);
        (found.cut, found.value.unwrap())
    }

    /// By hand: from 0.25 on there are 3 hits and 2 alarms, F1 = 6/8; from 0.375 on 2 and 1, F1 = 4/6.
    #[test]
    fn cuts_are_swept() {
        assert_eq!(fit(Rule::F1), (0.1875, 0.75));
        // Recalls 3/3 and 1/3 from 0.25 on, 2/3 and 2/3 from 0.375 on, 1/3 and 3/3 from 0.75 on: equal; the last is 0.625, the
        // second 0.3125, the first 0.1875: 0.625 is the nearest to one half.
        assert_eq!(fit(Rule::BalancedAccuracy), (0.625, 2.0 / 3.0));
        assert_eq!(fit(Rule::Youden).0, 0.625);
        // A miss costs ten: nothing is missed. An alarm costs ten: none is rung.
        assert_eq!(fit(Rule::Cost(1.0, 10.0)), (0.1875, -2.0 / 6.0));
        assert_eq!(fit(Rule::Cost(10.0, 1.0)), (0.625, -2.0 / 6.0));
        // Misses cost nothing: nothing is answered at no cost, and 0.625 rings no alarm either.
        assert_eq!(fit(Rule::Cost(1.0, 0.0)), (0.625, 0.0));
        let half = Threshold::fit(Rule::F1, &SCORES, &TRUTH).at_half;
        assert_eq!(half, Some(0.5));
    }

    #[test]
    fn a_cut_that_nothing_reaches_is_above_the_largest() {
        let never = Threshold::fit(Rule::Cost(1.0, 0.0), &[0.5, 1.0], &[true, false]);
        assert!(never.cut > 1.0 && !never.is_over(1.0) && never.fault().is_none());
        let text = serde_json::to_string(&never).unwrap();
        assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), never);
        let below = Threshold::fit(Rule::Cost(1.0, 0.0), &[0.5, 0.75], &[true, false]);
        assert_eq!(below.cut, 0.875);
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["f1", "balanced_accuracy", "youden", "cost=1:5", "0.3"] {
            assert_eq!(Rule::parse(text).unwrap().word(), text);
        }
        for text in ["f2", "cost=1", "cost=-1:2", "cost=0:0", "1.5", "NaN", ""] {
            assert!(Rule::parse(text).is_err(), "{text}");
        }
        let fixed = Threshold::fit(Rule::Fixed(0.25), &SCORES, &TRUTH);
        assert!(fixed.is_over(0.25) && !fixed.is_over(0.2));
    }
}
