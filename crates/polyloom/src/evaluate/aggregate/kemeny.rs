//! Kemeny consensus: the order with the fewest pairwise disagreements (Kemeny 1959; methods/evaluation.md 3.3).

use super::graph::components;
use super::ranking::Preferences;

/// Largest block of systems that is solved exactly: 2^20 sets of one f64, 8 MiB.
pub const EXACT: usize = 20;

/// Orders with the fewest disagreements.
#[derive(Debug, Clone, PartialEq)]
pub struct Kemeny {
    /// Total weight of votes against the order: the sum over pairs a before b of the tasks that prefer b.
    pub disagreements: f64,
    /// The best orders, best system first, in lexicographic order; one where the search was not exact.
    pub orders: Vec<Vec<usize>>,
    /// Whether no order is better than these.
    pub exact: bool,
    /// Whether `orders` holds all of the best ones.
    pub complete: bool,
    /// No order has fewer disagreements than this.
    pub lower_bound: f64,
}

impl Kemeny {
    /// How far the disagreements can be from the best possible; 0 where exact.
    pub fn gap(&self) -> f64 {
        self.disagreements - self.lower_bound
    }

    /// Whether there is exactly one best order; `None` where that is not known.
    pub fn unique(&self) -> Option<bool> {
        self.exact
            .then_some(self.complete && self.orders.len() == 1)
    }
}

/// The consensus of pairwise preferences; at most `limit` best orders are listed (at least one).
///
/// The systems fall into blocks, every pair across two blocks having a strict majority for the earlier block: no best
/// order mixes blocks (the extended Condorcet criterion of Truchon 1998). A block of up to [`EXACT`] systems is solved by
/// dynamic programming over its subsets, O(2^n n) time and 2^n numbers; a larger one by moving single systems, from the
/// order by Borda points on, until none improves: then `exact` is false and `lower_bound` counts the smaller side of each
/// of its pairs. Ties of weighted votes are recognised up to a relative 1e-9.
pub fn kemeny(preferences: &Preferences, limit: usize) -> Kemeny {
    let n = preferences.systems();
    let p = |a, b| preferences.of(a, b);
    let most = (0..n * n).map(|i| p(i / n, i % n)).fold(0.0, f64::max);
    let tie = 1e-9 * most;
    // An edge from the one that is not preferred: the first component is the one that nobody beats.
    let edge = |a, k| {
        (k < n).then(|| {
            if k != a && p(a, k) <= p(k, a) + tie {
                k
            } else {
                a
            }
        })
    };
    let blocks = components(n, edge);
    let mut found = Kemeny {
        disagreements: 0.0,
        orders: vec![Vec::with_capacity(n)],
        exact: true,
        complete: true,
        lower_bound: 0.0,
    };
    for (at, block) in blocks.iter().enumerate() {
        for &a in block {
            let later = blocks[at + 1..].iter().flatten();
            let against: f64 = later.map(|&b| p(b, a)).sum();
            found.disagreements += against;
            found.lower_bound += against;
        }
        let room = limit.max(1) / found.orders.len();
        let solved = if block.len() <= EXACT {
            exact(block, preferences, tie, room.max(1))
        } else {
            search(block, preferences, tie)
        };
        found.disagreements += solved.disagreements;
        found.lower_bound += solved.lower_bound;
        found.exact &= solved.exact;
        found.complete &= solved.complete;
        let ends = |front: &Vec<usize>| {
            let all = solved.orders.iter();
            all.map(|end| [&front[..], end].concat())
                .collect::<Vec<_>>()
        };
        found.orders = found.orders.iter().flat_map(ends).collect();
    }
    found
}

/// Best orders of a block. `best[set]` is the least cost of ordering the systems of `set` among themselves.
fn exact(block: &[usize], preferences: &Preferences, tie: f64, limit: usize) -> Kemeny {
    let n = block.len();
    let against = Against::new(block, preferences);
    let mut best = vec![0.0f64; 1 << n];
    for set in 1usize..1 << n {
        let (low, high) = against.rows(set);
        let mut least = f64::INFINITY;
        let mut left = set;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            left &= left - 1;
            let cost = best[set & !(1 << first)] + (low[first] + high[first]);
            least = least.min(cost);
        }
        best[set] = least;
    }
    let all = (1 << n) - 1;
    let mut listing = Listing {
        best: &best,
        against: &against,
        block,
        tie: tie * n as f64,
        limit,
        order: Vec::with_capacity(n),
        orders: Vec::new(),
        complete: true,
    };
    listing.go(all);
    Kemeny {
        disagreements: best[all],
        lower_bound: best[all],
        exact: true,
        complete: listing.complete,
        orders: listing.orders,
    }
}

/// Votes against placing a system before all others of a set: sums over the lower and the upper half of the set's bits
/// are looked up, one table each.
struct Against {
    n: usize,
    half: u32,
    low: Vec<f64>,
    high: Vec<f64>,
}

impl Against {
    fn new(block: &[usize], preferences: &Preferences) -> Self {
        let n = block.len();
        let half = n.div_ceil(2);
        let table = |members: &[usize]| {
            let mut sums = vec![0.0; n << members.len()];
            for set in 1usize..1 << members.len() {
                let last = set.ilog2() as usize;
                let rest = (set & !(1 << last)) * n;
                for (v, &system) in block.iter().enumerate() {
                    let other = members[last];
                    let votes = if other == system {
                        0.0
                    } else {
                        preferences.of(other, system)
                    };
                    sums[set * n + v] = sums[rest + v] + votes;
                }
            }
            sums
        };
        Self {
            n,
            half: half as u32,
            low: table(&block[..half]),
            high: table(&block[half..]),
        }
    }

    fn rows(&self, set: usize) -> (&[f64], &[f64]) {
        let (low, high) = (set & ((1 << self.half) - 1), set >> self.half);
        (
            &self.low[low * self.n..][..self.n],
            &self.high[high * self.n..][..self.n],
        )
    }
}

/// Walks through the best orders, smallest first.
struct Listing<'a> {
    best: &'a [f64],
    against: &'a Against,
    block: &'a [usize],
    tie: f64,
    limit: usize,
    order: Vec<usize>,
    orders: Vec<Vec<usize>>,
    complete: bool,
}

impl Listing<'_> {
    fn go(&mut self, set: usize) {
        if set == 0 {
            self.orders.push(self.order.clone());
            return;
        }
        let (low, high) = self.against.rows(set);
        for first in (0..self.block.len()).filter(|f| set >> f & 1 == 1) {
            let rest = set & !(1 << first);
            if self.best[rest] + (low[first] + high[first]) > self.best[set] + self.tie {
                continue;
            }
            if self.orders.len() == self.limit {
                self.complete = false;
                return;
            }
            self.order.push(self.block[first]);
            self.go(rest);
            self.order.pop();
        }
    }
}

/// A good order of a block: Borda's, improved by moving one system at a time to its best place.
fn search(block: &[usize], preferences: &Preferences, tie: f64) -> Kemeny {
    let p = |a: usize, b: usize| preferences.of(a, b);
    let points = |&a: &usize| -> f64 {
        let others = block.iter().filter(|&&b| b != a);
        others.map(|&b| p(a, b) - p(b, a)).sum()
    };
    let mut order: Vec<(usize, f64)> = block.iter().map(|a| (*a, points(a))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut order: Vec<usize> = order.into_iter().map(|(a, _)| a).collect();
    loop {
        let mut improved = false;
        for &system in block {
            let at = order.iter().position(|&s| s == system).unwrap_or(0);
            let (to, gain) = best_place(&order, at, p);
            if gain > tie.max(f64::MIN_POSITIVE) {
                improved = true;
                if to < at {
                    order[to..=at].rotate_right(1);
                } else {
                    order[at..=to].rotate_left(1);
                }
            }
        }
        if !improved {
            break;
        }
    }
    let (mut cost, mut bound) = (0.0, 0.0);
    for (i, &a) in order.iter().enumerate() {
        for &b in &order[i + 1..] {
            cost += p(b, a);
            bound += p(a, b).min(p(b, a));
        }
    }
    Kemeny {
        disagreements: cost,
        orders: vec![order],
        exact: false,
        complete: false,
        lower_bound: bound,
    }
}

/// The place to which moving the system at `at` removes most disagreements, and how many.
fn best_place(order: &[usize], at: usize, p: impl Fn(usize, usize) -> f64) -> (usize, f64) {
    let system = order[at];
    let mut best = (at, 0.0);
    let mut gain = 0.0;
    for to in (0..at).rev() {
        gain += p(system, order[to]) - p(order[to], system);
        if gain > best.1 {
            best = (to, gain);
        }
    }
    gain = 0.0;
    for (to, &other) in order.iter().enumerate().skip(at + 1) {
        gain += p(other, system) - p(system, other);
        if gain > best.1 {
            best = (to, gain);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn votes(n: usize, orders: &[&[usize]]) -> Preferences {
        let mut wins = vec![0.0; n * n];
        for order in orders {
            for (i, &a) in order.iter().enumerate() {
                order[i + 1..].iter().for_each(|&b| wins[a * n + b] += 1.0);
            }
        }
        Preferences::new(n, wins).unwrap()
    }

    fn cost(order: &[usize], p: &Preferences) -> f64 {
        let pairs = (0..order.len()).flat_map(|i| (i + 1..order.len()).map(move |j| (i, j)));
        pairs.map(|(i, j)| p.of(order[j], order[i])).sum()
    }

    #[test]
    fn a_cycle_has_three_best_orders() {
        let p = votes(3, &[&[0, 1, 2], &[1, 2, 0], &[2, 0, 1]]);
        let found = kemeny(&p, 10);
        assert_eq!((found.disagreements, found.gap()), (4.0, 0.0));
        assert_eq!(found.orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!((found.complete, found.unique()), (true, Some(false)));
        let one = kemeny(&p, 1);
        assert_eq!(
            (one.orders.len(), one.complete, one.exact),
            (1, false, true)
        );
    }

    #[test]
    fn agreement_is_kept_whatever_the_number() {
        let order: Vec<usize> = (0..100).rev().collect();
        let found = kemeny(&votes(100, &[&order, &order]), 10);
        assert_eq!((&found.orders[0], found.disagreements), (&order, 0.0));
        assert_eq!(found.unique(), Some(true));
    }

    #[test]
    fn nobody_preferred_means_every_order() {
        let p = Preferences::new(4, vec![0.0; 16]).unwrap();
        let found = kemeny(&p, 100);
        assert_eq!((found.orders.len(), found.complete), (24, true));
        assert!(found.orders.is_sorted());
        assert_eq!(
            kemeny(&Preferences::new(1, vec![0.0]).unwrap(), 5).orders,
            [[0]]
        );
        // 2^20 sets, one block.
        let large = kemeny(&Preferences::new(20, vec![1.0; 400]).unwrap(), 3);
        assert_eq!((large.disagreements, large.orders.len()), (190.0, 3));
        assert!(large.exact && !large.complete);
    }

    #[test]
    fn a_large_block_is_searched() {
        // 24 systems in a ring of majorities: one block, more than is solved exactly.
        let n = 24;
        let mut wins = vec![0.0; n * n];
        for a in 0..n {
            for b in (0..n).filter(|&b| b != a) {
                let ahead = (b + n - a) % n <= n / 2 && (b > a || (b + n - a) % n < n / 2);
                wins[a * n + b] = if ahead { 2.0 } else { 1.0 };
            }
        }
        let p = Preferences::new(n, wins).unwrap();
        let found = kemeny(&p, 10);
        assert!(!found.exact && found.unique().is_none() && found.gap() > 0.0);
        assert_eq!(cost(&found.orders[0], &p), found.disagreements);
        let borda: Vec<usize> = (0..n).collect();
        assert!(found.disagreements <= cost(&borda, &p));
    }

    fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
        if items.is_empty() {
            return vec![vec![]];
        }
        let without = |i: usize| {
            let rest: Vec<usize> = items.iter().copied().filter(|&x| x != i).collect();
            permutations(&rest).into_iter().map(move |mut p| {
                p.insert(0, i);
                p
            })
        };
        items.iter().copied().flat_map(without).collect()
    }

    proptest! {
        /// Every best order and no other, against trying all of them; the search is never better.
        #[test]
        fn as_by_trying_all(wins in prop::collection::vec(0u8..4, 25)) {
            let p = Preferences::new(5, wins.into_iter().map(f64::from).collect()).unwrap();
            let all = permutations(&[0, 1, 2, 3, 4]);
            let least = all.iter().map(|o| cost(o, &p)).fold(f64::MAX, f64::min);
            let best: Vec<_> = all.into_iter().filter(|o| cost(o, &p) == least).collect();
            let found = kemeny(&p, 1000);
            prop_assert_eq!(found.disagreements, least);
            prop_assert_eq!(found.orders, best);
            prop_assert!(found.complete && found.exact);
            let searched = search(&[0, 1, 2, 3, 4], &p, 0.0);
            prop_assert!(searched.disagreements >= least && searched.lower_bound <= least);
        }
    }
}
