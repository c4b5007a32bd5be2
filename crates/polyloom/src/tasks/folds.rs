//! Rows drawn into parts of given shares, so that classes are spread evenly or groups stay whole: the folds of a
//! cross-validation, and the rows that stop training. Rows that have a time are not drawn: [`forward`] cuts them in order.

use polyloom_core::rng::Stream;

pub use super::load::ranks;

/// What a draw minds.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// Labels of every row, each once, as small numbers: a label has its share in every part. Rows without labels fill up.
    Labels(&'a [Vec<u32>]),
    /// The group of every row, as small numbers: a group is in one part.
    Groups(&'a [u32]),
}

/// The part of every row. Shares are above 0 and sum to 1. A function of the seed, the name, `index` and the rows alone.
///
/// Labels: iterative stratification (Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011, algorithm 1) over the rows in a drawn
/// order: the label with the fewest rows left goes first, each of its rows to the part that still wants most of that label,
/// among those alike to the part with most room, among those alike to a drawn one. With one label a row that is stratified
/// k-fold: counts of a label in two parts of equal shares differ by at most one. Groups: in a drawn order, each to the part
/// with most room (scikit-learn's `GroupKFold` puts the largest groups first, which leaves nothing to draw anew). No part is
/// left empty while there are rows, or groups, to fill it with.
///
/// Cost: O(rows parts + labels^2) beside a sort; about 40 bytes a row.
#[must_use]
pub fn draw(by: By<'_>, shares: &[f64], seed: u64, name: &str, index: u64) -> Vec<usize> {
    let stream = Stream::new(seed, name, index);
    match by {
        By::Labels(labels) => stratified(labels, shares, stream),
        By::Groups(groups) => grouped(groups, shares, stream),
    }
}

/// Blocks of time for a forward chain (scikit-learn's `TimeSeriesSplit`): fold k of `folds` is answered by a model of all
/// rows before it. `times` are ranks ([`ranks`]). The block of every row: none for the rows that come before all folds. The
/// last rows are cut into folds of `n / (folds + 1)` rows, what is over comes before them; rows of one time stay together, in
/// the earlier block (the peer cuts between them, so that a model sees rows of the time that it is asked about).
///
/// No folds where a block would have no row: too many of one time, or fewer rows than blocks.
///
/// Cost: a sort.
#[must_use]
pub fn forward(times: &[u32], folds: usize) -> Option<Vec<Option<usize>>> {
    let size = times.len() / (folds + 1);
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|row| times[*row]);
    // Where the folds begin; a time that begins before a cut is of the block before it.
    let begins = |fold: usize| {
        let mut at = times.len() - (folds - fold) * size;
        while at > 0 && at < order.len() && times[order[at]] == times[order[at - 1]] {
            at += 1;
        }
        at
    };
    let mut cuts: Vec<usize> = (0..folds).map(begins).collect();
    cuts.push(times.len());
    if cuts.first() == Some(&0) || cuts.windows(2).any(|pair| pair[0] >= pair[1]) {
        return None;
    }
    let mut blocks = vec![None; times.len()];
    for (fold, cut) in cuts.windows(2).enumerate() {
        for row in &order[cut[0]..cut[1]] {
            blocks[*row] = Some(fold);
        }
    }
    Some(blocks)
}

/// Of rows with times those of the last `share`, rows of one time together; all but the first time at most.
#[must_use]
pub fn latest(times: &[u32], share: f64) -> Vec<bool> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let count = (share * times.len() as f64).round() as usize;
    let at = times.len().saturating_sub(count.max(1));
    let Some(cut) = sorted.get(at) else {
        return vec![false; times.len()];
    };
    // The first of the last rows: its time is among them whole, unless nothing would be left.
    let first = sorted.first();
    let after = |time: &u32| time >= cut && Some(time) != first;
    times.iter().map(after).collect()
}

/// Room that is left in parts.
struct Room {
    /// Rows that a part still takes; below 0 where it has more than its share.
    left: Vec<f64>,
    empty: usize,
    taken: Vec<bool>,
    /// Rows, or groups, that have no part.
    waiting: usize,
    stream: Stream,
}

impl Room {
    fn of(rows: usize, waiting: usize, shares: &[f64], stream: Stream) -> Self {
        Self {
            left: shares.iter().map(|s| s * rows as f64).collect(),
            empty: shares.len(),
            taken: vec![false; shares.len()],
            waiting,
            stream,
        }
    }

    /// The part that wants most of something, then that with most room, then a drawn one; an empty one where as many wait as
    /// parts are empty.
    fn choose(&self, wanted: Option<&[f64]>, draw: u64) -> usize {
        let only_empty = self.waiting <= self.empty;
        let mut open: Vec<usize> = (0..self.left.len())
            .filter(|p| !(only_empty && self.taken[*p]))
            .collect();
        for sizes in wanted.into_iter().chain([&*self.left]) {
            let most = open
                .iter()
                .map(|p| sizes[*p])
                .fold(f64::NEG_INFINITY, f64::max);
            // Shares times rows are rounded; rows are whole.
            open.retain(|p| sizes[*p] > most - 1e-6);
        }
        let at = self.stream.bits(draw) % open.len().max(1) as u64;
        open.get(at as usize).copied().unwrap_or(0)
    }

    fn take(&mut self, part: usize, rows: usize) {
        self.left[part] -= rows as f64;
        self.empty -= usize::from(!std::mem::replace(&mut self.taken[part], true));
        self.waiting -= 1;
    }
}

/// Numbers from 0 in a drawn order.
fn shuffled(n: usize, stream: Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_cached_key(|i| (stream.bits(*i as u64), *i));
    order
}

fn stratified(labels: &[Vec<u32>], shares: &[f64], stream: Stream) -> Vec<usize> {
    let n = labels.len();
    let count = labels.iter().flatten().max().map_or(0, |l| *l as usize + 1);
    let order = shuffled(n, stream);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); count];
    for row in &order {
        for label in &labels[*row] {
            rows[*label as usize].push(*row);
        }
    }
    let mut left: Vec<usize> = rows.iter().map(Vec::len).collect();
    let of = |n: &usize| shares.iter().map(|s| s * *n as f64).collect();
    let mut wanted: Vec<Vec<f64>> = left.iter().map(of).collect();
    let mut room = Room::of(n, n, shares, stream);
    let mut parts: Vec<Option<usize>> = vec![None; n];
    loop {
        let rarest = (0..count).filter(|l| left[*l] > 0).min_by_key(|l| left[*l]);
        let waiting = match rarest {
            Some(label) => &rows[label],
            None => &order,
        };
        for row in waiting {
            if parts[*row].is_some() {
                continue;
            }
            let part = room.choose(rarest.map(|l| &*wanted[l]), (n + row) as u64);
            parts[*row] = Some(part);
            room.take(part, 1);
            for label in &labels[*row] {
                left[*label as usize] -= 1;
                wanted[*label as usize][part] -= 1.0;
            }
        }
        if rarest.is_none() {
            break;
        }
    }
    parts.into_iter().map(Option::unwrap_or_default).collect()
}

fn grouped(groups: &[u32], shares: &[f64], stream: Stream) -> Vec<usize> {
    let count = groups.iter().max().map_or(0, |g| *g as usize + 1);
    let mut sizes = vec![0; count];
    for group in groups {
        sizes[*group as usize] += 1;
    }
    let mut room = Room::of(groups.len(), count, shares, stream);
    let mut parts = vec![0; count];
    for group in shuffled(count, stream) {
        parts[group] = room.choose(None, (count + group) as u64);
        room.take(parts[group], sizes[group]);
    }
    groups.iter().map(|g| parts[*g as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIFTHS: [f64; 5] = [0.2; 5];

    #[test]
    fn time_is_cut_forwards() {
        // 11 rows in 4 blocks: folds of 2, what is over before them; file order does not matter.
        let times: Vec<u32> = (0..11).map(|i| (i * 4) % 11).collect();
        let blocks = forward(&times, 3).unwrap();
        for (time, block) in times.iter().zip(&blocks) {
            let due = [
                None,
                None,
                None,
                None,
                None,
                Some(0),
                Some(0),
                Some(1),
                Some(1),
                Some(2),
                Some(2),
            ];
            assert_eq!(*block, due[*time as usize], "{time}");
        }
        // Rows of one time stay in the earlier block: cuts at 3 and 6 move to 4 and 7.
        let blocks = forward(&[0, 1, 2, 2, 3, 4, 4, 5, 6], 2).unwrap();
        let first = [None; 4].into_iter();
        let due = first.chain([Some(0); 3]).chain([Some(1); 2]);
        assert_eq!(blocks, due.collect::<Vec<_>>());
        assert_eq!(forward(&[0, 0, 0, 0, 0, 1], 2), None);
        assert_eq!(forward(&[0, 1], 2), None);
        assert_eq!(forward(&[], 2), None);
        assert_eq!(
            latest(&[3, 0, 1, 2, 3, 1], 0.34),
            [true, false, false, false, true, false]
        );
        assert_eq!(
            latest(&[3, 0, 1, 2, 3, 1], 0.0),
            [true, false, false, false, true, false]
        );
        assert_eq!(latest(&[1, 1, 2], 0.7), [false, false, true]);
        assert_eq!(latest(&[1, 1], 0.5), [false, false]);
        assert!(latest(&[], 0.5).is_empty());
    }

    fn counts(parts: &[usize], n: usize, of: impl Fn(usize) -> bool) -> Vec<usize> {
        let count = |p| {
            (0..parts.len())
                .filter(|i| parts[*i] == p && of(*i))
                .count()
        };
        (0..n).map(count).collect()
    }

    #[test]
    fn classes_are_spread_evenly() {
        // 7 rows of one class, 43 of the other.
        let labels: Vec<Vec<u32>> = (0..50)
            .map(|i| vec![u32::from(i % 7 != 0 || i > 45)])
            .collect();
        let parts = draw(By::Labels(&labels), &FIFTHS, 3, "folds", 0);
        let mut rare = counts(&parts, 5, |i| labels[i][0] == 0);
        rare.sort_unstable();
        assert_eq!(rare, [1, 1, 1, 2, 2]);
        assert_eq!(counts(&parts, 5, |_| true), [10; 5]);
        assert_eq!(parts, draw(By::Labels(&labels), &FIFTHS, 3, "folds", 0));
        assert_ne!(parts, draw(By::Labels(&labels), &FIFTHS, 3, "folds", 1));
        assert_ne!(parts, draw(By::Labels(&labels), &FIFTHS, 4, "folds", 0));
    }

    #[test]
    fn two_targets_are_spread_both() {
        // Classes of two targets: 0 and 1, 2 and 3.
        let labels: Vec<Vec<u32>> = (0..60u32)
            .map(|i| vec![u32::from(i % 6 == 0), 2 + u32::from(i % 10 == 0)])
            .collect();
        let parts = draw(By::Labels(&labels), &FIFTHS, 1, "folds", 0);
        assert_eq!(counts(&parts, 5, |i| i % 6 == 0), [2; 5]);
        let other = counts(&parts, 5, |i| i % 10 == 0);
        assert!(other.iter().all(|n| (1..=2).contains(n)), "{other:?}");
    }

    #[test]
    fn a_small_share_gets_its_rows() {
        let labels = vec![vec![0]; 20];
        let parts = draw(By::Labels(&labels), &[0.9, 0.1], 0, "v", 0);
        assert_eq!(counts(&parts, 2, |_| true), [18, 2]);
        // Less than half a row is one row all the same, and one of three groups.
        let none = vec![Vec::new(); 9];
        let parts = draw(By::Labels(&none), &[0.99, 0.01], 0, "v", 0);
        assert_eq!(counts(&parts, 2, |_| true), [8, 1]);
        let groups: Vec<u32> = (0..30).map(|i| i % 3).collect();
        let parts = draw(By::Groups(&groups), &[0.9, 0.1], 0, "v", 0);
        assert_eq!(counts(&parts, 2, |_| true), [20, 10]);
    }

    proptest! {
        #[test]
        fn groups_stay_whole_and_no_part_is_empty(
            groups in prop::collection::vec(0u32..9, 1..80), k in 2usize..6, seed in any::<u64>()
        ) {
            // Numbers without gaps, as callers have them.
            let mut known: Vec<u32> = groups.clone();
            known.sort_unstable();
            known.dedup();
            let groups: Vec<u32> = groups.iter().map(|g| known.partition_point(|x| x < g) as u32).collect();
            let shares = vec![1.0 / k as f64; k];
            let parts = draw(By::Groups(&groups), &shares, seed, "folds", 0);
            for (i, part) in parts.iter().enumerate() {
                prop_assert_eq!(*part, parts[groups.iter().position(|g| *g == groups[i]).unwrap()]);
            }
            let filled = (0..k).filter(|p| parts.contains(p)).count();
            prop_assert_eq!(filled, k.min(known.len()));
        }

        #[test]
        fn parts_have_their_sizes(n in 1usize..90, k in 2usize..7, classes in 1u32..4, seed in any::<u64>()) {
            let labels: Vec<Vec<u32>> = (0..n as u32).map(|i| vec![i * 7919 % classes]).collect();
            let parts = draw(By::Labels(&labels), &vec![1.0 / k as f64; k], seed, "folds", 2);
            for class in 0..classes {
                let of = counts(&parts, k, |i| labels[i][0] == class);
                let (low, high) = (of.iter().min().unwrap(), of.iter().max().unwrap());
                prop_assert!(high - low <= 1, "{of:?}");
            }
            let filled = (0..k).filter(|p| parts.contains(p)).count();
            prop_assert_eq!(filled, k.min(n));
        }
    }
}
