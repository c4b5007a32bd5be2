//! Order of numbers: sorting by value and ranks with ties.

use rayon::prelude::*;

/// Values from which buckets come first.
const BUCKETS_FROM: usize = 4096;
/// How many buckets there are at most.
const BUCKETS: usize = 4096;

/// A number as an integer of the same order; both zeros are one key. `NaN` has keys beyond the infinities.
pub(crate) fn key(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

/// Keys with the places of their values, ascending; equal values keep their order.
///
/// Cost: O(n log n), with most of the work inside the cache.
pub(crate) fn sorted(values: impl Iterator<Item = f64>) -> Vec<(u64, usize)> {
    let keys = values.enumerate().map(|(i, x)| (key(x), i)).collect();
    sorted_pairs(keys)
}

/// Sorts by key, then place: one pass spreads the pairs over buckets by the high bits in which the keys differ, and the
/// buckets, which fit the cache, are sorted by comparison on all threads (no two pairs are equal, so there is one order).
pub(crate) fn sorted_pairs(mut pairs: Vec<(u64, usize)>) -> Vec<(u64, usize)> {
    if pairs.len() < BUCKETS_FROM {
        pairs.sort_unstable();
        return pairs;
    }
    let keys = || pairs.iter().map(|p| p.0);
    let (least, most) = keys().fold((u64::MAX, 0), |(a, b), k| (a.min(k), b.max(k)));
    let shift = (64 - (most - least).leading_zeros()).saturating_sub(BUCKETS.ilog2());
    let bucket = |key: u64| ((key - least) >> shift) as usize;
    let mut ends = vec![0; BUCKETS];
    keys().for_each(|k| ends[bucket(k)] += 1);
    let mut start = 0;
    for end in &mut ends {
        start += std::mem::replace(end, start);
    }
    let mut spread = vec![(0, 0); pairs.len()];
    for &pair in &pairs {
        let place = &mut ends[bucket(pair.0)];
        spread[*place] = pair;
        *place += 1;
    }
    let (mut rest, mut start) = (&mut *spread, 0);
    let mut buckets = Vec::with_capacity(BUCKETS);
    for end in ends {
        let (bucket, more) = rest.split_at_mut(end - start);
        buckets.push(bucket);
        (rest, start) = (more, end);
    }
    buckets
        .into_par_iter()
        .with_min_len(64)
        .for_each(<[_]>::sort_unstable);
    spread
}

/// Ranges of equal keys in a sorted list.
pub(crate) fn ties(sorted: &[(u64, usize)]) -> impl Iterator<Item = &[(u64, usize)]> {
    sorted.chunk_by(|a, b| a.0 == b.0)
}

/// Ranks from 1 in ascending order; equal values share the mean of their ranks.
///
/// `NaN` has the rank `NaN` and takes no place among the others; `-0` equals `0`. Cost: O(n log n).
/// Source: fractional ranking as in scipy `rankdata(method="average")`, which by default spreads one `NaN` to all.
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut ranks = vec![f64::NAN; values.len()];
    let order = sorted(values.iter().copied());
    let mut before = 0;
    for tie in ties(&order) {
        if values[tie[0].1].is_nan() {
            continue;
        }
        // Places before+1 ..= before+n.
        let rank = before as f64 + (tie.len() + 1) as f64 / 2.0;
        tie.iter().for_each(|&(_, i)| ranks[i] = rank);
        before += tie.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_share_the_mean() {
        assert_eq!(
            average_ranks(&[10.0, 20.0, 10.0, 5.0]),
            [2.5, 4.0, 2.5, 1.0]
        );
        assert_eq!(
            average_ranks(&[0.0, -0.0, f64::NEG_INFINITY]),
            [2.5, 2.5, 1.0]
        );
        let ranks = average_ranks(&[f64::NAN, 3.0, -f64::NAN, 1.0]);
        assert!(ranks[0].is_nan() && ranks[2].is_nan());
        assert_eq!((ranks[1], ranks[3]), (2.0, 1.0));
        assert!(average_ranks(&[]).is_empty());
    }

    #[test]
    fn long_lists_sort_like_short_ones() {
        let values: Vec<f64> = (0..10_000)
            .map(|i| (f64::from(i) * 1.7).sin() * 10f64.powi(i % 7 - 3))
            .map(|x| if x.abs() < 1e-4 { 0.0 } else { x })
            .collect();
        let mut expected: Vec<usize> = (0..values.len()).collect();
        expected.sort_by(|&a, &b| values[a].partial_cmp(&values[b]).unwrap());
        let found: Vec<usize> = sorted(values.iter().copied())
            .into_iter()
            .map(|p| p.1)
            .collect();
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn keys_order(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(key(a).cmp(&key(b)), a.partial_cmp(&b).unwrap());
        }

        #[test]
        fn ranks_sum_and_follow_a_permutation(values in prop::collection::vec(-4i32..4, 0..40)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let n = values.len() as f64;
            let ranks = average_ranks(&values);
            prop_assert_eq!(ranks.iter().sum::<f64>(), n * (n + 1.0) / 2.0);
            let reversed: Vec<f64> = values.iter().rev().copied().collect();
            let mut back = average_ranks(&reversed);
            back.reverse();
            prop_assert_eq!(back, ranks);
        }
    }
}
