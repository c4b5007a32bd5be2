//! Ranked retrieval as trec_eval measures it, and as mteb does beyond that.
//!
//! Documents are ordered by score, rounded to single precision as trec_eval stores it, ties by document id in descending
//! byte order; so a difference that single precision loses is a tie. Documents without a judgement count as not relevant.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::evaluate::text::Map;
use crate::evaluate::{EvalError, Result};

/// One query: what was retrieved, in order, and how it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Documents from the first rank on.
    documents: Vec<String>,
    /// Their grades; none where there is no judgement.
    grades: Vec<Option<i64>>,
    /// The positive grades of all judged documents, descending.
    ideal: Vec<i64>,
    /// Judged documents of grade 0.
    rejected: usize,
}

/// Gain of the document at a rank from 0, discounted by its place.
fn discounted(gain: i64, rank: usize) -> f64 {
    gain as f64 / ((rank + 2) as f64).log2()
}

impl Ranked {
    /// Orders a query's documents, and looks up their grades. A grade of 1 or more is relevant; one below 0 counts as not
    /// relevant, and for [`Ranked::bpref`] as no judgement. O(n log n).
    ///
    /// # Errors
    /// A score that is not a number, a document that stands twice in the run or in the judgements.
    pub fn new(run: &[(&str, f64)], judgements: &[(&str, i64)]) -> Result<Self> {
        let mut judged = Map::default();
        for (document, grade) in judgements {
            if judged.insert(*document, *grade).is_some() {
                let problem = format!("{document:?} is judged twice");
                return Err(EvalError::invalid("retrieval", problem));
            }
        }
        if let Some((document, _)) = run.iter().find(|(_, score)| score.is_nan()) {
            let problem = format!("the score of {document:?} is not a number");
            return Err(EvalError::invalid("retrieval", problem));
        }
        let mut order: Vec<(f32, &str)> = run.iter().map(|(d, s)| (*s as f32, *d)).collect();
        order.sort_unstable_by(|a, b| {
            let by_score = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal);
            by_score.then_with(|| b.1.cmp(a.1))
        });
        let mut seen = Map::default();
        for (_, document) in &order {
            if seen.insert(*document, ()).is_some() {
                let problem = format!("{document:?} is retrieved twice");
                return Err(EvalError::invalid("retrieval", problem));
            }
        }
        let mut ideal: Vec<i64> = judgements.iter().map(|j| j.1).filter(|g| *g > 0).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self {
            grades: order.iter().map(|(_, d)| judged.get(d).copied()).collect(),
            documents: order.into_iter().map(|(_, d)| d.to_owned()).collect(),
            ideal,
            rejected: judgements.iter().filter(|j| j.1 == 0).count(),
        })
    }

    /// The documents in order.
    pub fn documents(&self) -> &[String] {
        &self.documents
    }

    /// How many documents were retrieved.
    pub fn retrieved(&self) -> usize {
        self.grades.len()
    }

    /// How many relevant documents there are.
    pub fn relevant(&self) -> usize {
        self.ideal.len()
    }

    /// How many relevant documents were retrieved.
    pub fn relevant_retrieved(&self) -> usize {
        self.hits(usize::MAX)
    }

    /// Gains from the first rank on.
    fn gains(&self) -> impl Iterator<Item = i64> {
        self.grades.iter().map(|grade| grade.unwrap_or(0).max(0))
    }

    fn hits(&self, k: usize) -> usize {
        self.gains().take(k).filter(|gain| *gain > 0).count()
    }

    fn dcg(&self, k: usize) -> f64 {
        let gains = self.gains().enumerate().take(k);
        gains.map(|(rank, gain)| discounted(gain, rank)).sum()
    }

    fn ideal_dcg(&self, k: usize) -> f64 {
        let gains = self.ideal.iter().enumerate().take(k);
        gains.map(|(rank, gain)| discounted(*gain, rank)).sum()
    }

    /// A share that is 0 where there is nothing relevant or nothing retrieved.
    fn share(part: f64, whole: f64) -> f64 {
        if whole > 0.0 { part / whole } else { 0.0 }
    }

    /// nDCG with linear gain (`ndcg_cut`; `ndcg` with `usize::MAX`): Σ gain / log2(rank + 1) over the first k, divided by
    /// that of the best order of all judged documents (Järvelin and Kekäläinen 2002). 0 without relevant documents.
    pub fn ndcg(&self, k: usize) -> f64 {
        Self::share(self.dcg(k), self.ideal_dcg(k))
    }

    /// `Rndcg`: the mean of nDCG at as many ranks as there are documents of the best grade, of the two best, and so on
    /// down to grade 1; and of the whole list where it goes at least two ranks beyond them, as in trec_eval's code.
    pub fn r_ndcg(&self) -> f64 {
        let mut cuts: Vec<usize> = (1..=self.ideal.len())
            .filter(|&n| self.ideal.get(n) != self.ideal.get(n - 1))
            .collect();
        if self.ideal.is_empty() {
            return 0.0;
        }
        if self.retrieved() >= self.ideal.len() + 2 {
            cuts.push(usize::MAX);
        }
        let sum: f64 = cuts.iter().map(|&k| self.ndcg(k)).sum();
        sum / cuts.len() as f64
    }

    /// Average precision of the first k (`map_cut`; `map` with `usize::MAX`): the precisions at the ranks of relevant
    /// documents, divided by the number of all relevant documents, also where k is smaller.
    pub fn average_precision(&self, k: usize) -> f64 {
        let mut hits = 0.0;
        let mut sum = 0.0;
        for (rank, _) in self.gains().enumerate().take(k).filter(|(_, g)| *g > 0) {
            hits += 1.0;
            sum += hits / (rank + 1) as f64;
        }
        Self::share(sum, self.relevant() as f64)
    }

    /// 1 / rank of the first relevant document among the first k (`recip_rank` with `usize::MAX`; `MRR@k` of mteb), 0
    /// without one.
    pub fn reciprocal_rank(&self, k: usize) -> f64 {
        let first = self.gains().take(k).position(|gain| gain > 0);
        first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
    }

    /// Precision of the first k: divided by k even where fewer are retrieved. `NaN` for k = 0.
    pub fn precision(&self, k: usize) -> f64 {
        self.hits(k) as f64 / k as f64
    }

    /// Share of the relevant documents among the first k; 0 without relevant documents.
    pub fn recall(&self, k: usize) -> f64 {
        Self::share(self.hits(k) as f64, self.relevant() as f64)
    }

    /// 1 where a relevant document is among the first k, else 0.
    pub fn success(&self, k: usize) -> f64 {
        f64::from(u8::from(self.hits(k) > 0))
    }

    /// Precision at as many ranks as there are relevant documents (`Rprec`).
    pub fn r_precision(&self) -> f64 {
        self.recall(self.relevant())
    }

    /// Share of the retrieved documents that are relevant (`set_P`).
    pub fn set_precision(&self) -> f64 {
        Self::share(self.relevant_retrieved() as f64, self.retrieved() as f64)
    }

    /// Harmonic mean of [`Ranked::set_precision`] and the recall of the whole list (`set_F`).
    pub fn set_f(&self) -> f64 {
        let both = self.retrieved() + self.relevant();
        Self::share(2.0 * self.relevant_retrieved() as f64, both as f64)
    }

    /// Binary preference (Buckley and Voorhees 2004): how rarely a document judged not relevant stands above a relevant
    /// one; documents without a judgement are passed over.
    pub fn bpref(&self) -> f64 {
        let relevant = self.relevant();
        let bound = relevant.min(self.rejected) as f64;
        let mut above = 0;
        let mut sum = 0.0;
        for grade in self.grades.iter().flatten() {
            if *grade > 0 {
                sum += match above {
                    0 => 1.0,
                    above => 1.0 - above.min(relevant) as f64 / bound,
                };
            } else if *grade == 0 {
                above += 1;
            }
        }
        Self::share(sum, relevant as f64)
    }

    /// Hits among the first k divided by the most there could be, min(R, k) (mteb's `R_cap`); none without relevant
    /// documents or for k = 0.
    pub fn capped_recall(&self, k: usize) -> Option<f64> {
        let most = k.min(self.relevant());
        (most > 0).then(|| self.hits(k) as f64 / most as f64)
    }

    /// Share of the first k ranks taken by documents that no query judges (mteb's `Hole`); ranks that are not filled
    /// count as judged. `NaN` for k = 0.
    pub fn hole(&self, k: usize, judged_for_any_query: impl Fn(&str) -> bool) -> f64 {
        let first = self.documents.iter().take(k);
        let holes = first.filter(|d| !judged_for_any_query(d)).count();
        holes as f64 / k as f64
    }
}

/// Judgements or scores of many queries: query, document, value.
pub type Table<T> = BTreeMap<String, BTreeMap<String, T>>;

/// All queries that stand in both the judgements and the run; the others are not evaluated, as in trec_eval.
///
/// # Errors
/// As [`Ranked::new`], with the query's name.
pub fn rank_all(judgements: &Table<i64>, run: &Table<f64>) -> Result<BTreeMap<String, Ranked>> {
    let mut all = BTreeMap::new();
    for (query, judged) in judgements {
        let Some(found) = run.get(query) else {
            continue;
        };
        let found: Vec<(&str, f64)> = found.iter().map(|(d, s)| (d.as_str(), *s)).collect();
        let judged: Vec<(&str, i64)> = judged.iter().map(|(d, g)| (d.as_str(), *g)).collect();
        let ranked = Ranked::new(&found, &judged).map_err(|problem| {
            EvalError::invalid("retrieval", format!("query {query:?}: {problem}"))
        })?;
        all.insert(query.clone(), ranked);
    }
    Ok(all)
}

/// How far an instruction moved a document from one rank to another, −1 to 1 (p-MRR of FollowIR, Weller et al. 2024):
/// after / before − 1 where it moved up or stayed, 1 − before / after where it moved down, so that moves near the top
/// weigh most. Take the mean over the documents of a query whose relevance the instruction changes, then over queries.
///
/// # Errors
/// A rank of 0; ranks count from 1.
pub fn rank_change(before: usize, after: usize) -> Result<f64> {
    if before == 0 || after == 0 {
        return Err(EvalError::invalid("p-MRR", "ranks count from 1"));
    }
    let (before, after) = (before as f64, after as f64);
    Ok(if before >= after {
        after / before - 1.0
    } else {
        1.0 - before / after
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let run = [("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)];
        let ranked = Ranked::new(&run, &[("b", 2), ("d", 1), ("a", 0), ("e", 1)]).unwrap();
        let all = usize::MAX;
        assert_eq!((ranked.relevant(), ranked.relevant_retrieved()), (3, 2));
        assert_eq!(ranked.average_precision(all), (0.5 + 0.5) / 3.0);
        assert_eq!(ranked.average_precision(2), 0.5 / 3.0);
        assert_eq!(ranked.reciprocal_rank(all), 0.5);
        assert_eq!(ranked.reciprocal_rank(1), 0.0);
        assert_eq!(ranked.precision(10), 0.2);
        assert_eq!(ranked.recall(2), 1.0 / 3.0);
        assert_eq!(ranked.capped_recall(2), Some(0.5));
        assert_eq!(ranked.hole(4, |d| d != "c"), 0.25);
        // One judged document above each, of one: 1 − 1/1 each.
        assert_eq!(ranked.bpref(), 0.0);
        let expected = (2.0 / 3f64.log2()) / (2.0 + 1.0 / 3f64.log2());
        assert!((ranked.ndcg(2) - expected).abs() < 1e-15);
    }

    #[test]
    fn ties_go_down_the_ids() {
        let ranked = Ranked::new(&[("a", 0.1), ("b", 0.1 + 1e-10)], &[]).unwrap();
        assert_eq!(ranked.documents(), ["b", "a"]);
        let ranked = Ranked::new(&[("a", 0.0), ("b", -0.0), ("B", 0.0)], &[]).unwrap();
        assert_eq!(ranked.documents(), ["b", "a", "B"]);
        assert_eq!(
            (ranked.ndcg(3), ranked.bpref(), ranked.r_ndcg()),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(Ranked::new(&[("a", f64::NAN)], &[]).is_err());
        assert!(Ranked::new(&[("a", 1.0), ("a", 2.0)], &[]).is_err());
        assert!(Ranked::new(&[], &[("a", 1), ("a", 0)]).is_err());
        assert!(rank_change(0, 1).is_err());
    }

    proptest! {
        #[test]
        fn order_of_the_input_does_not_matter(
            grades in prop::collection::vec((0u8..4, -1i64..3), 1..30),
            turn in 0usize..30,
        ) {
            let names: Vec<String> = (0..grades.len()).map(|i| format!("d{i}")).collect();
            let mut run: Vec<(&str, f64)> = Vec::new();
            let mut judged: Vec<(&str, i64)> = Vec::new();
            for (name, (score, grade)) in names.iter().zip(&grades) {
                run.push((name, f64::from(*score)));
                judged.push((name, *grade));
            }
            let one = Ranked::new(&run, &judged).unwrap();
            let turn = turn % run.len();
            run.rotate_left(turn);
            judged.reverse();
            prop_assert_eq!(&one, &Ranked::new(&run, &judged).unwrap());
            for k in [1, 3, usize::MAX] {
                for share in [one.ndcg(k), one.average_precision(k), one.recall(k)] {
                    prop_assert!((0.0..=1.0 + 1e-12).contains(&share));
                }
            }
        }
    }
}
