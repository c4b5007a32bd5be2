//! Does the score order the times of events? Concordance with right censoring.

use crate::evaluate::error::same_length;
use crate::evaluate::rank::{sorted, ties};
use crate::evaluate::{EvalError, Result};

/// Pairs of examples whose order in time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairs {
    /// The later event has the higher score.
    pub concordant: u64,
    /// The later event has the lower score.
    pub discordant: u64,
    /// The scores are equal.
    pub tied: u64,
}

/// Counts the comparable pairs: the earlier time is an event. At equal times a pair is comparable where exactly one is an
/// event, which then counts as the earlier one; two events at one time are not comparable.
///
/// `event` says whether the time is an event (true) or the end of observation; without it all are events. Scores are higher
/// for later events. Cost: O(n log n).
///
/// # Errors
/// Lists that are empty or of different lengths, a time or score that is `NaN`.
pub fn comparable_pairs(time: &[f64], score: &[f64], event: Option<&[bool]>) -> Result<Pairs> {
    same_length("times and scores", time.len(), score.len())?;
    if let Some(event) = event {
        same_length("times and events", time.len(), event.len())?;
    }
    if let Some(i) = (0..time.len()).find(|&i| time[i].is_nan() || score[i].is_nan()) {
        let problem = format!("time or score {i} is NaN");
        return Err(EvalError::invalid("concordance", problem));
    }
    let event = |i: usize| event.is_none_or(|e| e[i]);
    // Places of the scores among the distinct ones, from 1.
    let mut place = vec![0; score.len()];
    let mut distinct = 0;
    for tie in ties(&sorted(score.iter().copied())) {
        distinct += 1;
        tie.iter().for_each(|&(_, i)| place[i] = distinct);
    }
    let mut later = Later::new(distinct);
    let mut found = Pairs {
        concordant: 0,
        discordant: 0,
        tied: 0,
    };
    let mut order = sorted(time.iter().copied());
    order.reverse();
    for tie in ties(&order) {
        let here = || tie.iter().map(|&(_, i)| i);
        here()
            .filter(|&i| !event(i))
            .for_each(|i| later.add(place[i]));
        for i in here().filter(|&i| event(i)) {
            let (below, equal) = (later.below(place[i]), later.at[place[i]]);
            found.discordant += below;
            found.tied += equal;
            found.concordant += later.count - below - equal;
        }
        here()
            .filter(|&i| event(i))
            .for_each(|i| later.add(place[i]));
    }
    Ok(found)
}

/// Share of the comparable pairs that the scores order rightly, ties counting half; in [0, 1], 0.5 is chance.
///
/// Counted in integers, so it is exact up to the last division. Cost: O(n log n).
/// Source: Harrell 1982; lifelines `concordance_index`.
///
/// # Errors
/// As [`comparable_pairs`], and where no pair is comparable.
pub fn c_index(time: &[f64], score: &[f64], event: Option<&[bool]>) -> Result<f64> {
    let pairs = comparable_pairs(time, score, event)?;
    let all = pairs.concordant + pairs.discordant + pairs.tied;
    if all == 0 {
        let problem = "no pair of examples is comparable";
        return Err(EvalError::invalid("concordance", problem));
    }
    Ok((pairs.concordant as f64 + pairs.tied as f64 / 2.0) / all as f64)
}

/// How many scores are below a place: a Fenwick tree.
struct Later {
    tree: Vec<u64>,
    at: Vec<u64>,
    count: u64,
}

impl Later {
    fn new(places: usize) -> Self {
        Self {
            tree: vec![0; places + 1],
            at: vec![0; places + 1],
            count: 0,
        }
    }

    fn add(&mut self, place: usize) {
        self.count += 1;
        self.at[place] += 1;
        let mut i = place;
        while i < self.tree.len() {
            self.tree[i] += 1;
            i += i & i.wrapping_neg();
        }
    }

    fn below(&self, place: usize) -> u64 {
        let (mut i, mut sum) = (place - 1, 0);
        while i > 0 {
            sum += self.tree[i];
            i &= i - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let (time, score) = ([1.0, 1.0, 2.0], [0.1, 0.9, 0.5]);
        // Against time 2: 0.1 < 0.5 is right, 0.9 > 0.5 is wrong; the two events at 1 are not compared.
        assert_eq!(c_index(&time, &score, None).unwrap(), 0.5);
        // The second is censored at 1: compared with the first only.
        let event = [true, false, true];
        assert_eq!(c_index(&time, &score, Some(&event)).unwrap(), 1.0);
        assert_eq!(c_index(&[1.0, 2.0], &[3.0, 3.0], None).unwrap(), 0.5);
    }

    #[test]
    fn refuses() {
        assert!(c_index(&[], &[], None).is_err() && c_index(&[1.0], &[1.0], None).is_err());
        assert!(c_index(&[1.0, 2.0], &[1.0, 2.0], Some(&[false; 2])).is_err());
        assert!(c_index(&[1.0, f64::NAN], &[1.0, 2.0], None).is_err());
        assert!(c_index(&[1.0, 2.0], &[1.0, 2.0], Some(&[true])).is_err());
    }

    proptest! {
        #[test]
        fn pairs_one_by_one(
            rows in prop::collection::vec((0i32..6, -4i32..4, any::<bool>()), 1..60),
        ) {
            let mut slow = Pairs { concordant: 0, discordant: 0, tied: 0 };
            for a in rows.iter().filter(|r| r.2) {
                for b in rows.iter().filter(|b| a.0 < b.0 || a.0 == b.0 && !b.2) {
                    match a.1.cmp(&b.1) {
                        std::cmp::Ordering::Less => slow.concordant += 1,
                        std::cmp::Ordering::Greater => slow.discordant += 1,
                        std::cmp::Ordering::Equal => slow.tied += 1,
                    }
                }
            }
            let time: Vec<f64> = rows.iter().map(|r| f64::from(r.0)).collect();
            let score: Vec<f64> = rows.iter().map(|r| f64::from(r.1)).collect();
            let event: Vec<bool> = rows.iter().map(|r| r.2).collect();
            prop_assert_eq!(comparable_pairs(&time, &score, Some(&event)).unwrap(), slow);
        }
    }
}
