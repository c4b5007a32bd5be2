//! What an update changed: predictions that flipped, scores that rose and fell, and what a model that learns task after
//! task keeps.
//!
//! An update with a higher accuracy can still break answers that users relied on; those are the negative flips.

pub mod continual;
pub mod flips;
pub mod scores;

use super::error::{EvalError, Result};

/// Examples of two runs brought together by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aligned {
    /// Places in the old and in the new run of each id that both have, in the old run's order.
    pub pairs: Vec<(usize, usize)>,
    /// Places in the old run of ids that the new one lacks. Listed, not scored.
    pub only_old: Vec<usize>,
    /// Places in the new run of ids that the old one lacks. Listed, not scored.
    pub only_new: Vec<usize>,
}

/// Brings together examples by id. Cost: O(n log n).
///
/// # Errors
/// An id that a run has twice.
pub fn align<T: Ord + std::fmt::Debug>(old: &[T], new: &[T]) -> Result<Aligned> {
    let sorted = |ids: &[T]| -> Result<Vec<usize>> {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by(|&a, &b| ids[a].cmp(&ids[b]));
        match order.windows(2).find(|w| ids[w[0]] == ids[w[1]]) {
            None => Ok(order),
            Some(twice) => {
                let (id, first, second) = (&ids[twice[0]], twice[0], twice[1]);
                let problem = format!("id {id:?} at {first} and again at {second}");
                Err(EvalError::invalid("examples of two runs", problem))
            }
        }
    };
    let (left, right) = (sorted(old)?, sorted(new)?);
    let mut found = Aligned::default();
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        match old[left[i]].cmp(&new[right[j]]) {
            std::cmp::Ordering::Less => {
                found.only_old.push(left[i]);
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                found.only_new.push(right[j]);
                j += 1;
            }
            std::cmp::Ordering::Equal => {
                found.pairs.push((left[i], right[j]));
                i += 1;
                j += 1;
            }
        }
    }
    found.only_old.extend(&left[i..]);
    found.only_new.extend(&right[j..]);
    found.pairs.sort_unstable();
    found.only_old.sort_unstable();
    found.only_new.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_together() {
        let found = align(&["c", "a", "x"], &["a", "b", "c"]).unwrap();
        assert_eq!(found.pairs, [(0, 2), (1, 0)]);
        assert_eq!((found.only_old, found.only_new), (vec![2], vec![1]));
        let problem = align(&["a", "b", "a"], &["a"]).unwrap_err().to_string();
        assert!(problem.contains("\"a\" at 0 and again at 2"), "{problem}");
    }
}
