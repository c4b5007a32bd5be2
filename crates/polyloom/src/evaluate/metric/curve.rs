//! Scores of two classes over all thresholds: ROC AUC, average precision, area under the precision-recall curve.

use super::class_scores::ClassScores;
use super::confusion::check_weight;
use crate::evaluate::error::same_length;
use crate::evaluate::rank::{sorted, ties};
use crate::evaluate::sum::{Sum, mean, sum};
use crate::evaluate::{EvalError, Result};

/// Hits and false alarms at every distinct score, from the highest down.
///
/// Examples of weight 0 are left out. Cost: O(n log n).
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Distinct scores, descending; examples with at least this score are called positive.
    pub thresholds: Vec<f64>,
    /// Weight of the positives called positive.
    pub hits: Vec<f64>,
    /// Weight of the negatives called positive.
    pub false_alarms: Vec<f64>,
}

/// A ROC curve from nothing called positive (threshold infinity) to everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Roc {
    /// Share of the negatives called positive; `NaN` where there are none.
    pub false_positive_rate: Vec<f64>,
    /// Share of the positives called positive; `NaN` where there are none.
    pub true_positive_rate: Vec<f64>,
    /// Thresholds, descending.
    pub thresholds: Vec<f64>,
}

fn check(truth: &[bool], scores: &[f64]) -> Result<()> {
    same_length("truth and scores", truth.len(), scores.len())?;
    match scores.iter().position(|s| s.is_nan()) {
        None => Ok(()),
        Some(i) => Err(EvalError::invalid("scores", format!("score {i} is NaN"))),
    }
}

/// Probability that a positive scores above a negative, ties counting half; in [0, 1], 0.5 is chance. `NaN` where one
/// of the classes is missing. Scores may be infinite.
///
/// Counted in integers, so it is exact up to the last division. Cost: O(n log n).
/// Source: Mann-Whitney; scikit-learn `roc_auc_score` (from 1.6, which also gives `NaN`).
///
/// # Errors
/// Lists that are empty or of different lengths, or a score that is `NaN`.
pub fn roc_auc(truth: &[bool], scores: &[f64]) -> Result<f64> {
    check(truth, scores)?;
    Ok(auc(scores.iter().copied(), |i| truth[i]))
}

/// The area with `positive` naming the class of the i-th score; scores must not be `NaN`.
fn auc(scores: impl Iterator<Item = f64>, positive: impl Fn(usize) -> bool) -> f64 {
    let (mut positives, mut negatives, mut twice) = (0u128, 0u128, 0u128);
    for tie in ties(&sorted(scores)) {
        let here = tie.iter().filter(|&&(_, i)| positive(i)).count() as u128;
        let others = tie.len() as u128 - here;
        twice += here * (2 * negatives + others);
        positives += here;
        negatives += others;
    }
    twice as f64 / (2 * positives * negatives) as f64
}

impl Curve {
    /// The curve of binary truth and scores, higher for positives; weights are 1 unless given.
    ///
    /// # Errors
    /// Lists that are empty or of different lengths, a score that is `NaN`, a weight that is negative or not finite.
    pub fn new(truth: &[bool], scores: &[f64], weight: Option<&[f64]>) -> Result<Self> {
        check(truth, scores)?;
        if let Some(weight) = weight {
            same_length("examples and weights", truth.len(), weight.len())?;
            weight.iter().try_for_each(|&w| check_weight("scores", w))?;
        }
        let weight = |i: usize| weight.map_or(1.0, |w| w[i]);
        let mut curve = Self {
            thresholds: Vec::new(),
            hits: Vec::new(),
            false_alarms: Vec::new(),
        };
        let mut sums = [Sum::default(); 2];
        let mut order = sorted(scores.iter().copied());
        order.reverse();
        for tie in ties(&order) {
            let weighted = tie.iter().map(|&(_, i)| i).filter(|&i| weight(i) > 0.0);
            let mut threshold = None;
            for i in weighted {
                sums[usize::from(truth[i])].add(weight(i));
                threshold = Some(scores[i]);
            }
            if let Some(threshold) = threshold {
                curve.thresholds.push(threshold);
                curve.hits.push(sums[1].total());
                curve.false_alarms.push(sums[0].total());
            }
        }
        Ok(curve)
    }

    fn totals(&self) -> (f64, f64) {
        let last = |values: &[f64]| values.last().copied().unwrap_or(0.0);
        (last(&self.hits), last(&self.false_alarms))
    }

    /// The ROC curve with every threshold; scikit-learn's `roc_curve(drop_intermediate=False)`.
    pub fn roc(&self) -> Roc {
        let (positives, negatives) = self.totals();
        let share = |values: &[f64], total: f64| {
            let from_nothing = std::iter::once(0.0).chain(values.iter().copied());
            from_nothing.map(|x| x / total).collect()
        };
        let infinity = std::iter::once(f64::INFINITY);
        Roc {
            false_positive_rate: share(&self.false_alarms, negatives),
            true_positive_rate: share(&self.hits, positives),
            thresholds: infinity.chain(self.thresholds.iter().copied()).collect(),
        }
    }

    /// Area under the ROC curve with weights; without them [`roc_auc`] is exact. `NaN` where a class is missing.
    pub fn roc_auc(&self) -> f64 {
        let roc = self.roc();
        let area = trapezoid(&roc.false_positive_rate, &roc.true_positive_rate);
        area.clamp(0.0, 1.0)
    }

    /// Recall and precision at every threshold. Without positives recall is 1 throughout, as in scikit-learn.
    pub fn recall_precision(&self) -> (Vec<f64>, Vec<f64>) {
        let (positives, _) = self.totals();
        let recall = |h: &f64| if positives == 0.0 { 1.0 } else { h / positives };
        let pairs = self.hits.iter().zip(&self.false_alarms);
        (
            self.hits.iter().map(recall).collect(),
            pairs.map(|(h, f)| h / (h + f)).collect(),
        )
    }

    /// Average precision: the precisions at each threshold weighted by the recall gained there, without interpolation; in
    /// [0, 1], chance is the share of positives. 0 without positives.
    ///
    /// Source: scikit-learn `average_precision_score`.
    pub fn average_precision(&self) -> f64 {
        if self.totals().0 == 0.0 {
            return 0.0;
        }
        let (recall, precision) = self.recall_precision();
        let before = std::iter::once(&0.0).chain(&recall);
        let gained = recall.iter().zip(before).map(|(r, b)| r - b);
        sum(gained.zip(&precision).map(|(g, p)| g * p))
    }

    /// Area under the precision-recall curve by trapezoids from (0, 1): another number than
    /// [`average_precision`](Self::average_precision), and mostly a larger one, since it interpolates between thresholds.
    ///
    /// Source: scikit-learn `auc` of `precision_recall_curve`.
    pub fn pr_auc_trapezoid(&self) -> f64 {
        let (mut recall, mut precision) = self.recall_precision();
        recall.insert(0, 0.0);
        precision.insert(0, 1.0);
        trapezoid(&recall, &precision)
    }
}

fn trapezoid(x: &[f64], y: &[f64]) -> f64 {
    let steps = x.windows(2).zip(y.windows(2));
    sum(steps.map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0))
}

/// How the areas of several classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiAuc {
    /// Each class against the rest, the plain mean.
    OneVsRest,
    /// Each class against the rest, weighted by how often the class occurs.
    OneVsRestWeighted,
    /// Each pair of classes, both ways, the plain mean (Hand and Till 2001).
    OneVsOne,
    /// Each pair of classes, both ways, weighted by how often one of the two occurs.
    OneVsOneWeighted,
}

/// ROC AUC of several classes, in [0, 1], 0.5 is chance; `NaN` where a class never occurs.
///
/// `truth` names the column of each row. Cost: O(classes n log n), for pairs of classes as well. Source: scikit-learn `roc_auc_score(multi_class=...)`.
///
/// # Errors
/// Rows that do not sum to 1 within 1e-5, a class outside the columns, lists that are empty or of different lengths.
pub fn roc_auc_multi(truth: &[u32], scores: &ClassScores<'_>, kind: MultiAuc) -> Result<f64> {
    scores.check_truth(truth)?;
    scores.check_probabilities()?;
    let classes = scores.classes();
    let mut rows = vec![Vec::new(); classes];
    for (i, &t) in truth.iter().enumerate() {
        rows[t as usize].push(i);
    }
    let n = truth.len() as f64;
    let column = |c: usize| move |i: &usize| scores.row(*i)[c];
    let (areas, weights): (Vec<f64>, Vec<f64>) = match kind {
        MultiAuc::OneVsRest | MultiAuc::OneVsRestWeighted => (0..classes)
            .map(|c| {
                let values = (0..truth.len()).map(|i| scores.row(i)[c]);
                (
                    auc(values, |i| truth[i] as usize == c),
                    rows[c].len() as f64 / n,
                )
            })
            .unzip(),
        MultiAuc::OneVsOne | MultiAuc::OneVsOneWeighted => (0..classes)
            .flat_map(|a| (a + 1..classes).map(move |b| (a, b)))
            .map(|(a, b)| {
                let one_way = |of: usize, other: usize| {
                    let values = rows[of].iter().chain(&rows[other]).map(column(of));
                    auc(values, |i| i < rows[of].len())
                };
                let both = rows[a].len() + rows[b].len();
                ((one_way(a, b) + one_way(b, a)) / 2.0, both as f64 / n)
            })
            .unzip(),
    };
    match kind {
        MultiAuc::OneVsRest | MultiAuc::OneVsOne => Ok(mean(areas)),
        MultiAuc::OneVsRestWeighted | MultiAuc::OneVsOneWeighted => {
            let weighted = areas.iter().zip(&weights).map(|(a, w)| a * w);
            Ok(sum(weighted) / sum(weights.iter().copied()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRUTH: [bool; 4] = [false, false, true, true];

    #[test]
    fn by_hand() {
        // Positives 0.35 and 0.8 against 0.1 and 0.4: three of four pairs are right.
        let scores = [0.1, 0.4, 0.35, 0.8];
        assert_eq!(roc_auc(&TRUTH, &scores).unwrap(), 0.75);
        let curve = Curve::new(&TRUTH, &scores, None).unwrap();
        assert_eq!(curve.roc_auc(), 0.75);
        // Recall 1/2 at precision 1, recall 1 at precision 2/3.
        assert!((curve.average_precision() - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-15);
        let tied = Curve::new(&TRUTH, &[0.5; 4], None).unwrap();
        assert_eq!(
            (tied.average_precision(), tied.pr_auc_trapezoid()),
            (0.5, 0.75)
        );
        let infinite = [f64::NEG_INFINITY, 0.0, f64::INFINITY, 1.0];
        assert_eq!(roc_auc(&TRUTH, &infinite).unwrap(), 1.0);
    }

    #[test]
    fn undefined_and_refused() {
        assert!(roc_auc(&[true, true], &[0.1, 0.2]).unwrap().is_nan());
        assert!(roc_auc(&[], &[]).is_err());
        assert!(roc_auc(&TRUTH, &[0.0; 3]).is_err());
        assert!(roc_auc(&TRUTH, &[0.0, f64::NAN, 0.0, 0.0]).is_err());
        assert!(Curve::new(&TRUTH, &[0.0; 4], Some(&[1.0, -1.0, 1.0, 1.0])).is_err());
    }

    #[test]
    fn two_columns_are_the_binary_area() {
        let p = [0.9, 0.4, 0.35, 0.8];
        let both: Vec<f64> = p.iter().flat_map(|p| [1.0 - p, *p]).collect();
        let scores = ClassScores::new(&both, 2).unwrap();
        let truth = [0, 1, 0, 1];
        let binary = roc_auc(&truth.map(|t| t == 1), &p).unwrap();
        for kind in [MultiAuc::OneVsRest, MultiAuc::OneVsOneWeighted] {
            assert_eq!(roc_auc_multi(&truth, &scores, kind).unwrap(), binary);
        }
        assert!(
            roc_auc_multi(&[0; 4], &scores, MultiAuc::OneVsOne)
                .unwrap()
                .is_nan()
        );
        assert!(roc_auc_multi(&[2; 4], &scores, MultiAuc::OneVsOne).is_err());
    }

    proptest! {
        #[test]
        fn pairs_and_areas_agree(rows in prop::collection::vec((any::<bool>(), -3i32..3), 1..50)) {
            let (truth, scores): (Vec<bool>, Vec<f64>) =
                rows.iter().map(|&(t, s)| (t, f64::from(s))).unzip();
            let (mut right, mut pairs) = (0.0, 0.0);
            for (i, a) in rows.iter().enumerate().filter(|(_, r)| r.0) {
                for (j, b) in rows.iter().enumerate().filter(|(_, r)| !r.0) {
                    prop_assert!(i != j);
                    pairs += 1.0;
                    right += f64::from(a.1 > b.1) + 0.5 * f64::from(a.1 == b.1);
                }
            }
            let fast = roc_auc(&truth, &scores).unwrap();
            let curve = Curve::new(&truth, &scores, None).unwrap().roc_auc();
            if pairs == 0.0 {
                prop_assert!(fast.is_nan() && curve.is_nan());
            } else {
                prop_assert_eq!(fast, right / pairs);
                prop_assert!((curve - fast).abs() < 1e-12);
                let flipped: Vec<f64> = scores.iter().map(|s| -s).collect();
                prop_assert!((roc_auc(&truth, &flipped).unwrap() - (1.0 - fast)).abs() < 1e-15);
            }
        }
    }
}
