//! The best split of a node by a column, from its sums by bin.

use polyloom_core::wide;

use super::bins::Cuts;
use super::growth::Growth;
use super::histogram::Lanes;
use super::tree::SET;

/// Bins that are weighed at once.
const BLOCK: usize = 64;

/// Gains that are smaller than this share of what they are the difference of are rounding.
const ROUNDING: f64 = 1e-12;

/// Which rows go left.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// Bins up to `last`; `next` is the first on the right that has rows, if there is one.
    UpTo {
        /// The last bin.
        last: usize,
        /// The bin after the gap.
        next: Option<usize>,
    },
    /// Bins of categories.
    Set([u64; SET]),
}

/// A split of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The column.
    pub column: usize,
    /// By how much it lowers the loss.
    pub gain: f64,
    /// Which bins go left.
    pub left: Left,
    /// Whether rows without a value go left.
    pub missing_left: bool,
    /// Sums of the lanes on the left side.
    pub sums: Vec<f64>,
}

/// The best split of a column: what is needed to compare it with others.
pub(super) struct Found {
    pub column: usize,
    pub gain: f64,
    /// The last bin on the left; of categories the last of `order`.
    last: usize,
    missing_left: bool,
    /// Categories of the node in the order that was cut.
    order: Option<Vec<usize>>,
}

/// What a split of a node is weighed by.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub growth: &'a Growth,
    pub lanes: Lanes,
    /// Sums of the lanes over the node.
    pub total: &'a [f64],
    /// What the node scores unsplit.
    pub score: f64,
}

/// Where a run over ordered bins found its best cut.
#[derive(Clone, Copy)]
struct Cut {
    gain: f64,
    /// The last ordered bin on the left.
    last: usize,
    missing_left: bool,
}

/// `sum_k G_k^2 / (H_k + l2)`.
pub(super) fn score(sums: &[f64], lanes: Lanes, l2: f64) -> f64 {
    (0..lanes.outputs)
        .map(|k| part(sums[k], sums[lanes.hessian(k)] + l2))
        .sum()
}

#[inline(always)]
fn part(g: f64, h: f64) -> f64 {
    // Differences of sums may leave a hessian of nothing a rounding below 0.
    if h > 1e-12 { g * g / h } else { 0.0 }
}

impl Scan<'_> {
    /// The best split of a column whose bins, the missing one last, are `bins`.
    pub fn best(
        &self,
        column: usize,
        cuts: &Cuts,
        bins: &[f64],
        block: &mut Block,
    ) -> Option<Found> {
        let (cut, order) = match cuts {
            Cuts::Number(_) => (self.ordered(bins, block)?, None),
            Cuts::Category(_) => self.categories(bins, block)?,
        };
        Some(Found {
            column,
            gain: cut.gain,
            last: cut.last,
            missing_left: cut.missing_left,
            order,
        })
    }

    /// Categories ordered by their mean gradient, output by output; the best cut of all the orders.
    fn categories(&self, bins: &[f64], block: &mut Block) -> Option<(Cut, Option<Vec<usize>>)> {
        let n = self.lanes.len;
        let (known, missing) = bins.split_at(bins.len() - n);
        let of = |bin: usize| &known[bin * n..][..n];
        let count = self.lanes.count();
        let all = 0..known.len() / n;
        let mut order: Vec<usize> = all.filter(|b| of(*b)[count] > 0.5).collect();
        let mut best: Option<(Cut, Option<Vec<usize>>)> = None;
        for k in 0..self.lanes.outputs {
            let h = self.lanes.hessian(k);
            let mean = |b: &usize| {
                let weight = of(*b)[h] + self.growth.category_smoothing;
                if weight > 0.0 {
                    of(*b)[k] / weight
                } else {
                    0.0
                }
            };
            order.sort_by(|a, b| mean(a).total_cmp(&mean(b)).then(a.cmp(b)));
            let mut sorted: Vec<f64> = order.iter().flat_map(|b| of(*b)).copied().collect();
            sorted.extend_from_slice(missing);
            let better = |cut: &Cut| best.as_ref().is_none_or(|b| cut.gain > b.0.gain);
            if let Some(cut) = self.ordered(&sorted, block).filter(better) {
                best = Some((cut, Some(order.clone())));
            }
        }
        best
    }

    /// What a split does, in full.
    pub fn complete(&self, found: Found, bins: &[f64]) -> Split {
        let (n, count) = (self.lanes.len, self.lanes.count());
        let known = bins.len() / n - 1;
        let of = |bin: usize| &bins[bin * n..][..n];
        let mut sums = vec![0f64; n];
        let mut plus = |bin: usize| sums.iter_mut().zip(of(bin)).for_each(|(s, b)| *s += b);
        if found.missing_left {
            plus(known);
        }
        match &found.order {
            None => (0..=found.last).for_each(plus),
            Some(order) => order[..=found.last].iter().for_each(|b| plus(*b)),
        }
        // Where the node has no missing rows, those that come later go to the larger side.
        let missing_left = match of(known)[count] > 0.5 {
            true => found.missing_left,
            false => 2.0 * sums[count] >= self.total[count],
        };
        let left = match found.order {
            None => Left::UpTo {
                last: found.last,
                next: (found.last + 1..known).find(|b| of(*b)[count] > 0.5),
            },
            Some(order) => {
                let mut set = [0u64; SET];
                let mut put = |b: usize| set[b / 64] |= 1 << (b % 64);
                order[..=found.last].iter().for_each(|b| put(*b));
                // Categories that the node does not have go where the missing go.
                if missing_left {
                    let absent = (0..known).filter(|b| of(*b)[count] < 0.5);
                    absent.for_each(put);
                }
                Left::Set(set)
            }
        };
        Split {
            column: found.column,
            gain: found.gain,
            left,
            missing_left,
            sums,
        }
    }

    /// The best cut of bins in their order; the lowest of equals, missing rows rather right than left.
    fn ordered(&self, bins: &[f64], block: &mut Block) -> Option<Cut> {
        let n = self.lanes.len;
        let known = bins.len() / n - 1;
        let missing = &bins[known * n..];
        let there = missing[self.lanes.count()] > 0.5;
        // With missing rows on the right, all known ones may go left.
        let right = if there {
            known
        } else {
            known.saturating_sub(1)
        };
        let best = self.run(&bins[..right * n], None, block);
        if there {
            let left = &bins[..known.saturating_sub(1) * n];
            let other = self.run(left, Some(missing), block);
            let gain = |c: &Option<(f64, usize)>| c.map_or(f64::NEG_INFINITY, |c| c.0);
            if gain(&other) > gain(&best) {
                return other.map(|(gain, last)| Cut {
                    gain,
                    last,
                    missing_left: true,
                });
            }
        }
        best.map(|(gain, last)| Cut {
            gain,
            last,
            missing_left: false,
        })
    }

    /// The best gain of cuts after each of the bins, with where it is.
    fn run(
        &self,
        bins: &[f64],
        missing: Option<&[f64]>,
        block: &mut Block,
    ) -> Option<(f64, usize)> {
        let n = self.lanes.len;
        let mut running = vec![0f64; n];
        if let Some(missing) = missing {
            running.copy_from_slice(missing);
        }
        let mut best: Option<(f64, usize)> = None;
        for (at, bins) in bins.chunks(BLOCK * n).enumerate() {
            let found = wide(
                #[inline(always)]
                || block.weigh(self, bins, &mut running),
            );
            if let Some((score, i)) = found {
                let gain = score - self.score;
                let enough = gain > self.growth.min_gain && gain > ROUNDING * score;
                if enough && best.is_none_or(|b| gain > b.0) {
                    best = Some((gain, at * BLOCK + i));
                }
            }
        }
        best
    }
}

/// What is known of a block of bins: room that is kept for the next.
pub(super) struct Block {
    /// Running sums of lanes.
    sums: [[f64; BLOCK]; 4],
    /// Running sums of the hessians of all outputs.
    weight: [f64; BLOCK],
    scores: [f64; BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        Self {
            sums: [[0.0; BLOCK]; 4],
            weight: [0.0; BLOCK],
            scores: [0.0; BLOCK],
        }
    }
}

/// Running sums of one lane over bins.
#[inline(always)]
fn prefix(out: &mut [f64; BLOCK], bins: &[f64], lanes: usize, lane: usize, running: &mut f64) {
    for (out, bin) in out.iter_mut().zip(bins.chunks_exact(lanes)) {
        *running += bin[lane];
        *out = *running;
    }
}

/// Running sums of all lanes over bins.
#[inline(always)]
fn prefixes<const L: usize>(out: &mut [[f64; BLOCK]; 4], bins: &[f64], running: &mut [f64]) {
    let Some(kept) = running.first_chunk_mut::<L>() else {
        return;
    };
    let mut running = *kept;
    let bins = bins.as_chunks::<L>().0;
    for (i, bin) in bins.iter().take(BLOCK).enumerate() {
        for l in 0..L {
            running[l] += bin[l];
            out[l][i] = running[l];
        }
    }
    *kept = running;
}

impl Block {
    /// The best score of a cut after each of at most [`BLOCK`] bins, the lowest of equals; `running` holds the sums before
    /// them.
    #[inline(always)]
    fn weigh(
        &mut self,
        scan: &Scan<'_>,
        bins: &[f64],
        running: &mut [f64],
    ) -> Option<(f64, usize)> {
        let (lanes, growth) = (scan.lanes, scan.growth);
        let n = bins.len() / lanes.len;
        let (count, rows) = (lanes.count(), growth.min_rows.max(1) as f64 - 0.5);
        let (all, before) = (scan.total[count], running[count]);
        // Where the count of rows is, of the lanes that are kept.
        let counted = match (lanes.outputs, lanes.len) {
            (1, 2) => {
                prefixes::<2>(&mut self.sums, bins, running);
                1
            }
            (1, 4) => {
                prefixes::<4>(&mut self.sums, bins, running);
                2
            }
            _ => {
                prefix(
                    &mut self.sums[2],
                    bins,
                    lanes.len,
                    count,
                    &mut running[count],
                );
                2
            }
        };
        let single = lanes.outputs == 1;
        // Too few rows on one of the sides of all cuts: nothing to weigh.
        if single && (running[count] <= rows || all - before <= rows) {
            return None;
        }
        self.scores = [0.0; BLOCK];
        let mut weights = 0.0;
        for k in 0..lanes.outputs {
            let h = lanes.hessian(k);
            if !single {
                prefix(&mut self.sums[0], bins, lanes.len, k, &mut running[k]);
            }
            if k < lanes.hessians() {
                if h == count {
                    self.sums[1] = self.sums[counted];
                } else if !single {
                    prefix(&mut self.sums[1], bins, lanes.len, h, &mut running[h]);
                }
                weights += scan.total[h];
                for i in 0..BLOCK {
                    let before = if k == 0 { 0.0 } else { self.weight[i] };
                    self.weight[i] = before + self.sums[1][i];
                }
            }
            self.score(scan.total[k], scan.total[h], growth.l2);
        }
        self.sums[counted][n.min(BLOCK)..].fill(0.0);
        let least = growth.min_hessian;
        for i in 0..BLOCK {
            let (left, h) = (self.sums[counted][i], self.weight[i]);
            let enough = (left > rows) & (all - left > rows);
            let fits = enough & (h >= least) & (weights - h >= least);
            let score = self.scores[i];
            self.scores[i] = if fits { score } else { f64::NEG_INFINITY };
        }
        self.largest()
    }

    /// Adds the scores of one output, whose running sums are the first two.
    #[inline(always)]
    fn score(&mut self, g_all: f64, h_all: f64, l2: f64) {
        for i in 0..BLOCK {
            let (g, h) = (self.sums[0][i], self.sums[1][i]);
            self.scores[i] += part(g, h + l2) + part(g_all - g, h_all - h + l2);
        }
    }

    /// The largest score and where it is first.
    #[inline(always)]
    fn largest(&self) -> Option<(f64, usize)> {
        let larger = |a: f64, b: f64| if b > a { b } else { a };
        let mut most = [f64::NEG_INFINITY; 8];
        for scores in self.scores.as_chunks::<8>().0 {
            for l in 0..8 {
                most[l] = larger(most[l], scores[l]);
            }
        }
        let most = most.into_iter().fold(f64::NEG_INFINITY, larger);
        let at = self.scores.iter().position(|s| *s == most)?;
        (most > f64::NEG_INFINITY).then_some((most, at))
    }
}
