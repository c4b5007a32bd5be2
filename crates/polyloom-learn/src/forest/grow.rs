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
use super::groups::Group;
use super::growth::Growth;
use super::histogram::{Gathered, Lanes, NARROW, Statistics, subtract};
use super::sides::sides;
use super::split::{Block, Found, Left, Scan, Split, score};
use super::tree::{Node, Test, Tree, contains};

/// Additions below which one thread is faster than asking others.
const ALONE: usize = 1 << 15;

/// Sums by bin, for every group of columns.
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
    groups: Vec<Group>,
    /// Lanes that groups and the histograms of the pool are for.
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
            groups: Vec::new(),
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
            self.groups = Group::all(self.bins, &self.usable, self.lanes);
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
        let mut gathered = std::mem::take(&mut self.gathered);
        let values = if all {
            &statistics.values
        } else {
            statistics.gather(&self.rows, &mut gathered)
        };
        let root = Fresh {
            node: 0,
            rows: 0..self.rows.len(),
            depth: 0,
            sums: statistics.sums(values),
        };
        if self.may_split(&root) {
            let mut histogram = self.histogram();
            let node = Gathered {
                rows: (!all).then_some(&self.rows),
                values,
            };
            let mut nothing = vec![Vec::new(); self.groups.len()];
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
        let fresh = || self.groups.iter().map(|g| vec![0.0; g.len()]).collect();
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
        let node = Gathered {
            rows: Some(rows),
            values: statistics.gather(rows, &mut gathered),
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
        let one = |((group, bins), parent): ((&Group, &mut Vec<f64>), &mut Vec<f64>)| {
            let of = |i: usize| {
                let cuts = &self.bins.cuts[group.columns[i]];
                let from = i * group.stride;
                (cuts, from..from + (cuts.bins() + 1) * lanes)
            };
            for i in 0..group.columns.len() {
                bins[of(i).1].fill(0.0);
            }
            group.add(bins, lanes, self.bins, node);
            let (mut small, mut large, mut block) = (None, None, Block::default());
            for (i, column) in group.columns.iter().enumerate() {
                let (cuts, place) = of(i);
                let bins = &bins[place.clone()];
                let found = scans
                    .0
                    .and_then(|s| s.best(*column, cuts, bins, &mut block));
                small = better(small, found);
                if let Some(scan) = scans.1 {
                    let parent = &mut parent[place];
                    subtract(parent, bins);
                    large = better(large, scan.best(*column, cuts, parent, &mut block));
                }
            }
            (small, large)
        };
        let found: Vec<_> = if node.values.len() * self.usable.len() < ALONE {
            let both = self.groups.iter().zip(histogram.iter_mut());
            both.zip(parent.iter_mut()).map(one).collect()
        } else {
            let both = self.groups.par_iter().zip(histogram.par_iter_mut());
            both.zip(parent.par_iter_mut()).map(one).collect()
        };
        let (small, large) = found
            .into_iter()
            .fold((None, None), |(a, b), (c, d)| (better(a, c), better(b, d)));
        let complete = |scan: Option<Scan<'_>>, found: Option<Found>, bins: &Histogram| {
            let (scan, found) = scan.zip(found)?;
            let at = |group: &Group| group.columns.iter().position(|c| *c == found.column);
            let (g, i) = (0..bins.len()).find_map(|g| Some((g, at(&self.groups[g])?)))?;
            let used = (self.bins.cuts[found.column].bins() + 1) * lanes;
            let bins = &bins[g][i * self.groups[g].stride..][..used];
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
        // A narrow code needs no check.
        let passes: Vec<bool> = (0..(missing + 1).max(NARROW)).map(passes).collect();
        let rows = &mut self.rows[range.clone()];
        let other = &mut self.other[range];
        match &self.bins.codes[split.column] {
            Codes::Narrow(codes) => {
                let passes = passes.first_chunk::<NARROW>();
                let passes = passes.expect("one for each narrow code");
                sides(rows, other, codes, |code| passes[code as usize])
            }
            Codes::Wide(codes) => sides(rows, other, codes, |code| passes[code as usize]),
        }
    }
}

/// The larger gain; of equals the first column's.
fn better(best: Option<Found>, next: Option<Found>) -> Option<Found> {
    match (best, next) {
        (Some(best), Some(next)) => {
            let first = next.gain == best.gain && next.column < best.column;
            Some(if next.gain > best.gain || first {
                next
            } else {
                best
            })
        }
        (None, next) => next,
        (best, None) => best,
    }
}

#[cfg(test)]
#[path = "grow_tests.rs"]
mod tests;
