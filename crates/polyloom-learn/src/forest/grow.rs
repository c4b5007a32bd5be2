//! Growing one tree: leaf by leaf, the one with the largest gain first.
//!
//! A split sums the bins of the smaller child alone; the other's are what is left of the parent's (Ke et al., LightGBM,
//! NeurIPS 2017, section 2.1). Columns are worked on at the same time, each by one thread in the order of its rows, and
//! compared in their order: the same tree for any number of threads.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;

use super::bins::{Bins, Codes, Cuts};
use super::growth::Growth;
use super::histogram::{Gathered, Lanes, NARROW, Statistics, add, subtract};
use super::sides::sides;
use super::split::{Found, Left, Scan, Split, score};
use super::tree::{Node, Test, Tree, contains};

/// Additions below which one thread is faster than asking others.
const ALONE: usize = 1 << 15;

/// Sums by bin, for every column; empty for columns that cannot be split.
type Histogram = Vec<Vec<f64>>;

/// A tree that was grown.
#[derive(Debug, Clone, PartialEq)]
pub struct Grown {
    /// The tree.
    pub tree: Tree,
    /// Of each leaf, where its rows stand in [`Grower::rows`].
    pub leaves: Vec<Range<usize>>,
}

/// Grows trees over the same bins, one after the other, in buffers that it keeps.
#[derive(Debug)]
pub struct Grower<'a> {
    bins: &'a Bins,
    growth: Growth,
    /// Columns with more than one bin that rows stand in.
    usable: Vec<bool>,
    rows: Vec<u32>,
    other: Vec<u32>,
    gathered: Vec<f32>,
    pool: Vec<Histogram>,
    /// Lanes that the histograms of the pool are for.
    lanes: usize,
}

/// A node whose best split is known.
struct Open {
    node: usize,
    rows: Range<usize>,
    depth: usize,
    sums: Vec<f64>,
    histogram: Histogram,
    best: Split,
}

/// A node that came from a split or is the root.
struct Fresh {
    node: usize,
    rows: Range<usize>,
    depth: usize,
    sums: Vec<f64>,
}

/// Nodes by gain; of equal gains the one that is older.
#[derive(PartialEq)]
struct Next(f64, Reverse<usize>);

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// A tree that is being grown.
struct Build {
    tree: Tree,
    ends: Vec<Fresh>,
    open: Vec<Option<Open>>,
    queue: BinaryHeap<Next>,
    /// Whether leaves are bounded, so that the order matters.
    bounded: bool,
}

impl Build {
    fn push(&mut self, open: Open) {
        // Without a bound the newest is next: few nodes are open at a time, each with its histogram.
        let age = self.open.len();
        let gain = if self.bounded {
            open.best.gain
        } else {
            age as f64
        };
        self.queue.push(Next(gain, Reverse(age)));
        self.open.push(Some(open));
    }

    fn pop(&mut self) -> Option<Open> {
        self.queue
            .pop()
            .and_then(|n| self.open.get_mut(n.1.0)?.take())
    }
}

impl<'a> Grower<'a> {
    /// A grower over bins.
    #[must_use]
    pub fn new(bins: &'a Bins, growth: Growth) -> Self {
        let usable = |(cuts, codes): (&Cuts, &Codes)| match (cuts.bins(), codes) {
            (0, _) => false,
            (1, Codes::Narrow(codes)) => codes.contains(&1),
            (1, Codes::Wide(codes)) => codes.contains(&1),
            _ => true,
        };
        Self {
            bins,
            growth,
            usable: bins.cuts.iter().zip(&bins.codes).map(usable).collect(),
            rows: Vec::new(),
            other: Vec::new(),
            gathered: Vec::new(),
            pool: Vec::new(),
            lanes: 0,
        }
    }

    /// The rows of the tree that was grown last, leaf by leaf.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// A tree on some rows (all, if none are named) whose leaves are `rate * G / (H + l2)` for each output.
    ///
    /// Cost: a pass over the smaller side of every split, over all columns; 8 bytes for each column, bin and lane of every
    /// node that waits (at most `max_leaves`, or the depth where there is no bound). Of splits with equal gains the first
    /// column's with the lowest threshold is taken; a threshold is the middle between the node's values on both sides.
    pub fn grow(&mut self, statistics: &Statistics, rows: Option<&[u32]>, rate: f64) -> Grown {
        if self.lanes != statistics.lanes.len {
            self.pool.clear();
            self.lanes = statistics.lanes.len;
        }
        self.rows.clear();
        match rows {
            Some(rows) => self.rows.extend_from_slice(rows),
            None => self.rows.extend(0..self.bins.rows as u32),
        }
        self.other.resize(self.rows.len(), 0);
        let mut build = Build {
            tree: Tree {
                nodes: vec![Node::Leaf(0)],
                ..Tree::default()
            },
            ends: Vec::new(),
            open: Vec::new(),
            queue: BinaryHeap::new(),
            bounded: self.growth.max_leaves > 0,
        };
        self.plant(statistics, rows.is_none(), &mut build);
        let mut leaves = 1;
        while self.growth.max_leaves == 0 || leaves < self.growth.max_leaves {
            let Some(open) = build.pop() else { break };
            leaves += 1;
            let last = leaves == self.growth.max_leaves;
            self.split(statistics, open, last, &mut build);
        }
        self.finish(build, statistics.lanes, rate)
    }

    /// Makes leaves of what was not split.
    fn finish(&mut self, mut build: Build, lanes: Lanes, rate: f64) -> Grown {
        while let Some(open) = build.pop() {
            self.pool.push(open.histogram);
            build.ends.push(Fresh {
                node: open.node,
                rows: open.rows,
                depth: open.depth,
                sums: open.sums,
            });
        }
        build.ends.sort_by_key(|e| e.node);
        let mut tree = build.tree;
        for (leaf, end) in (0u32..).zip(&build.ends) {
            tree.nodes[end.node] = Node::Leaf(leaf);
            let value = |k: usize| {
                let h = end.sums[lanes.hessian(k)] + self.growth.l2;
                if h > 1e-12 {
                    (rate * end.sums[k] / h) as f32
                } else {
                    0.0
                }
            };
            tree.values.extend((0..lanes.outputs).map(value));
        }
        Grown {
            tree,
            leaves: build.ends.into_iter().map(|e| e.rows).collect(),
        }
    }

    /// The root.
    fn plant(&mut self, statistics: &Statistics, all: bool, build: &mut Build) {
        let lanes = statistics.lanes.len;
        let mut gathered = std::mem::take(&mut self.gathered);
        let values = if all {
            &statistics.values
        } else {
            statistics.gather(&self.rows, &mut gathered);
            &gathered
        };
        let mut sums = vec![0f64; lanes];
        for row in values.chunks_exact(lanes) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, v)| *s += f64::from(*v));
        }
        let root = Fresh {
            node: 0,
            rows: 0..self.rows.len(),
            depth: 0,
            sums,
        };
        if self.may_split(&root) {
            let mut histogram = self.histogram();
            let node = Gathered {
                rows: (!all).then_some(&self.rows),
                values,
            };
            let mut nothing = vec![Vec::new(); self.bins.cuts.len()];
            let scan = self.scan(statistics, &root.sums);
            let (best, _) = self.weigh(node, &mut histogram, &mut nothing, (Some(scan), None));
            self.close(root, histogram, best, build);
        } else {
            build.ends.push(root);
        }
        self.gathered = gathered;
    }

    fn may_split(&self, node: &Fresh) -> bool {
        let deep = self.growth.max_depth > 0 && node.depth >= self.growth.max_depth;
        !deep && node.rows.len() >= 2 * self.growth.min_rows.max(1)
    }

    fn scan<'s>(&'s self, statistics: &Statistics, sums: &'s [f64]) -> Scan<'s> {
        Scan {
            growth: &self.growth,
            lanes: statistics.lanes,
            total: sums,
            score: score(sums, statistics.lanes, self.growth.l2),
        }
    }

    /// A histogram from the pool, whatever it holds.
    fn histogram(&mut self) -> Histogram {
        let fresh = || {
            let of = |(cuts, usable): (&Cuts, &bool)| match usable {
                true => vec![0.0; (cuts.bins() + 1).max(NARROW) * self.lanes],
                false => Vec::new(),
            };
            self.bins.cuts.iter().zip(&self.usable).map(of).collect()
        };
        self.pool.pop().unwrap_or_else(fresh)
    }

    /// A node that was weighed: open if it has a split, else a leaf.
    fn close(&mut self, node: Fresh, histogram: Histogram, best: Option<Split>, build: &mut Build) {
        match best {
            Some(best) => build.push(Open {
                node: node.node,
                rows: node.rows,
                depth: node.depth,
                sums: node.sums,
                histogram,
                best,
            }),
            None => {
                self.pool.push(histogram);
                build.ends.push(node);
            }
        }
    }

    /// Splits a node and weighs its children, unless no more leaves are wanted.
    fn split(&mut self, statistics: &Statistics, open: Open, last: bool, build: &mut Build) {
        let best = open.best;
        let middle = open.rows.start + self.partition(open.rows.clone(), &best);
        let right = open.sums.iter().zip(&best.sums).map(|(a, b)| a - b);
        let child = build.tree.nodes.len();
        let (right, rows) = (right.collect(), open.rows);
        let fresh = |node: usize, rows: Range<usize>, sums: Vec<f64>| Fresh {
            node,
            rows,
            depth: open.depth + 1,
            sums,
        };
        let left = fresh(child, rows.start..middle, best.sums);
        let right = fresh(child + 1, middle..rows.end, right);
        build.tree.nodes.extend([Node::Leaf(0), Node::Leaf(0)]);
        build.tree.nodes[open.node] = Node::Split {
            column: best.column as u32,
            test: match best.left {
                Left::UpTo { last, next } => {
                    Test::AtMost(self.bins.cuts[best.column].threshold(last, next))
                }
                Left::Set(set) => {
                    build.tree.sets.push(set);
                    Test::OneOf(build.tree.sets.len() as u32 - 1)
                }
            },
            missing_left: best.missing_left,
            left: child as u32,
            right: child as u32 + 1,
            gain: best.gain as f32,
        };
        let (small, large) = if left.rows.len() <= right.rows.len() {
            (left, right)
        } else {
            (right, left)
        };
        let mut parent = open.histogram;
        let wanted = |node: &Fresh| !last && self.may_split(node);
        let (small_wanted, large_wanted) = (wanted(&small), wanted(&large));
        if !small_wanted && !large_wanted {
            self.pool.push(parent);
            build.ends.extend([small, large]);
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut histogram = self.histogram();
        let rows = &self.rows[small.rows.clone()];
        statistics.gather(rows, &mut gathered);
        let node = Gathered {
            rows: Some(rows),
            values: &gathered,
        };
        let scans = (
            small_wanted.then(|| self.scan(statistics, &small.sums)),
            large_wanted.then(|| self.scan(statistics, &large.sums)),
        );
        let (of_small, of_large) = self.weigh(node, &mut histogram, &mut parent, scans);
        self.gathered = gathered;
        self.close(small, histogram, of_small, build);
        self.close(large, parent, of_large, build);
    }

    /// Sums the bins of a node, makes those of its sibling from the parent's, and finds the best splits of both.
    fn weigh(
        &self,
        node: Gathered<'_>,
        histogram: &mut Histogram,
        parent: &mut Histogram,
        scans: (Option<Scan<'_>>, Option<Scan<'_>>),
    ) -> (Option<Split>, Option<Split>) {
        let lanes = self.lanes;
        let one = |(column, (bins, parent)): (usize, (&mut Vec<f64>, &mut Vec<f64>))| {
            if bins.is_empty() {
                return (None, None);
            }
            let cuts = &self.bins.cuts[column];
            let used = (cuts.bins() + 1) * lanes;
            bins[..used].fill(0.0);
            add(bins, lanes, &self.bins.codes[column], node);
            let bins = &bins[..used];
            let small = scans.0.and_then(|s| s.best(column, cuts, bins));
            let large = scans.1.and_then(|s| {
                let parent = &mut parent[..used];
                subtract(parent, bins);
                s.best(column, cuts, parent)
            });
            (small, large)
        };
        let found: Vec<_> = if node.values.len() * histogram.len() < ALONE {
            let both = histogram.iter_mut().zip(parent.iter_mut());
            both.enumerate().map(one).collect()
        } else {
            let both = histogram.par_iter_mut().zip(parent.par_iter_mut());
            both.enumerate().map(one).collect()
        };
        let better = |best: Option<Found>, next: Option<Found>| match (best, next) {
            (Some(best), Some(next)) if next.gain > best.gain => Some(next),
            (None, next) => next,
            (best, _) => best,
        };
        let (small, large) = found
            .into_iter()
            .fold((None, None), |(a, b), (c, d)| (better(a, c), better(b, d)));
        let complete = |scan: Option<Scan<'_>>, found: Option<Found>, bins: &Histogram| {
            let (scan, found) = scan.zip(found)?;
            let used = (self.bins.cuts[found.column].bins() + 1) * lanes;
            let bins = &bins[found.column][..used];
            Some(scan.complete(found, bins))
        };
        (
            complete(scans.0, small, histogram),
            complete(scans.1, large, parent),
        )
    }

    /// Sorts the rows of a node into those that go left and the others, each in their order, and says how many go left.
    fn partition(&mut self, range: Range<usize>, split: &Split) -> usize {
        let missing = self.bins.cuts[split.column].bins();
        let passes = |bin: usize| match &split.left {
            _ if bin == missing => split.missing_left,
            Left::UpTo { last, .. } => bin <= *last,
            Left::Set(set) => contains(set, bin),
        };
        let passes: Vec<bool> = (0..=missing).map(passes).collect();
        let rows = &mut self.rows[range.clone()];
        let other = &mut self.other[range];
        match &self.bins.codes[split.column] {
            Codes::Narrow(codes) => sides(rows, other, codes, &passes),
            Codes::Wide(codes) => sides(rows, other, codes, &passes),
        }
    }
}

#[cfg(test)]
#[path = "grow_tests.rs"]
mod tests;
