//! Gradient boosting by Newton steps: one target, or several of any kinds in trees that they share.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bins::Bins;
use super::data::{Sample, Table, wrong};
use super::dense::Dense;
use super::fit::{Progress, Watch};
use super::grow::{Grower, Grown};
use super::growth::Growth;
use super::histogram::{Curvature, Lanes, Statistics};
use super::loss::Loss;
use super::tree::Tree;
use super::walk::Walk;
use crate::error::{Error, Result};
use polyloom_core::rng::Stream;

/// Rows of a block: sums over rows are added up block by block.
pub(super) const BLOCK: usize = 4096;

/// How trees are added.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Boost {
    /// Most trees.
    pub rounds: usize,
    /// What every tree is multiplied by, above 0, at most 1.
    pub lr: f64,
    /// Share of the rows that each tree is grown on, above 0, at most 1: every row is in or out by a draw of its own.
    pub subsample: f64,
    /// Ends after so many rounds without a lower loss on held-out rows, and keeps the trees up to the lowest; 0: never.
    pub patience: usize,
    /// Most bins of a column of numbers, 2 to 65,535; above 255 they take twice the memory.
    pub bins: usize,
    /// Trees.
    pub growth: Growth,
}

impl Default for Boost {
    fn default() -> Self {
        Self {
            rounds: 200,
            lr: 0.1,
            subsample: 1.0,
            patience: 0,
            bins: 255,
            growth: Growth::default(),
        }
    }
}

impl Boost {
    pub(super) fn check(&self) -> Result<()> {
        share("lr", self.lr)?;
        share("subsample", self.subsample)?;
        self.growth.check()
    }
}

/// Whether a parameter is above 0 and at most 1.
pub(super) fn share(name: &str, value: f64) -> Result<()> {
    match value > 0.0 && value <= 1.0 {
        true => Ok(()),
        false => Err(wrong(format!(
            "`{name}` is {value}; it has to be above 0, at most 1"
        ))),
    }
}

/// A target of an ensemble.
pub(super) struct Part {
    pub loss: Loss,
    /// Its first output.
    pub at: usize,
    /// Labels as they are learned; `NaN` is missing.
    pub labels: Vec<f64>,
    /// First scores.
    pub start: Vec<f64>,
    /// What the labels count, by row; without them 1.
    pub weights: Option<Vec<f64>>,
}

impl Part {
    fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w[row])
    }
}

/// Where a target begins.
pub(super) struct Begin {
    /// First scores.
    pub scores: Vec<f64>,
    /// Labels are learned less this,
    pub mean: f64,
    /// and divided by this.
    pub scale: f64,
}

/// Rows with what is to be learned of them.
pub(super) struct Rows<'a> {
    pub table: &'a Table,
    pub parts: Vec<Part>,
}

impl Rows<'_> {
    /// The targets `which` of a sample, which begin as `begin` says.
    pub fn parts(sample: &Sample<'_>, which: &[usize], begin: &[Begin]) -> Vec<Part> {
        let mut at = 0;
        let part = |(t, begin): (&usize, &Begin)| {
            let target = &sample.targets[*t];
            let loss = Loss::of(target);
            let learned = |y: f64| (y - begin.mean) / begin.scale;
            let label = |row: usize| target.label(row).map_or(f64::NAN, learned);
            let part = Part {
                loss,
                at,
                labels: (0..sample.table.rows).map(label).collect(),
                start: begin.scores.clone(),
                weights: (sample.table.weights.is_some() || target.weights.is_some()).then(|| {
                    (0..sample.table.rows)
                        .map(|row| sample.weight(target, row))
                        .collect()
                }),
            };
            at += loss.width();
            part
        };
        which.iter().zip(begin).map(part).collect()
    }

    fn width(&self) -> usize {
        self.parts.iter().map(|p| p.loss.width()).sum()
    }

    /// First scores of all rows.
    fn begin(&self) -> Vec<f64> {
        let start: Vec<f64> = self.parts.iter().flat_map(|p| p.start.clone()).collect();
        start.repeat(self.table.rows)
    }

    /// Rows with a label and a weight; `None`: all.
    fn labelled(&self) -> Option<Vec<u32>> {
        let known = |row: &u32| {
            let row = *row as usize;
            let counts = |p: &Part| p.weight(row) > 0.0 && !p.labels[row].is_nan();
            self.parts.iter().any(counts)
        };
        let rows: Vec<u32> = (0..self.table.rows as u32).filter(known).collect();
        (rows.len() < self.table.rows).then_some(rows)
    }

    fn is_weighed(&self) -> bool {
        self.parts.iter().any(|p| p.weights.is_some())
    }

    /// Whether the labels of a row count the same.
    fn is_weighed_alike(&self) -> bool {
        let first = self.parts.first().map(|p| &p.weights);
        self.parts.iter().all(|p| Some(&p.weights) == first)
    }

    /// The mean over targets of what a row counts.
    fn weight(&self, row: usize) -> f64 {
        let sum: f64 = self.parts.iter().map(|p| p.weight(row)).sum();
        sum / self.parts.len().max(1) as f64
    }

    /// What has to be kept of every row.
    fn lanes(&self) -> Lanes {
        let plain = |p: &Part| p.loss == Loss::Squared;
        let whole = |p: &Part| !p.labels.iter().any(|y| y.is_nan());
        let squared = self.parts.iter().all(plain);
        // Of one target alone, rows without a label are left out.
        let curvature = match squared && (self.parts.len() == 1 || self.parts.iter().all(whole)) {
            true if !self.is_weighed() => Curvature::Ones,
            true if self.is_weighed_alike() => Curvature::Shared,
            true => Curvature::Each,
            false => Curvature::Each,
        };
        Lanes::new(self.width(), curvature)
    }

    /// Fills in gradients at the scores, and says the sum of the losses.
    fn derive(&self, scores: &[f64], out: &mut Statistics) -> f64 {
        let (lanes, width) = (out.lanes, self.width());
        let alone = match &self.parts[..] {
            [part] if width == 1 && part.weights.is_none() => Some(part),
            _ => None,
        };
        let block = |(b, out): (usize, &mut [f32])| {
            if let Some(part) = alone {
                let labels = &part.labels[b * BLOCK..];
                return derive_alone(part.loss, labels, &scores[b * BLOCK..], lanes, out);
            }
            let mut sum = 0.0;
            for (i, out) in out.chunks_exact_mut(lanes.len).enumerate() {
                let row = b * BLOCK + i;
                sum += self.derive_row(row, &scores[row * width..][..width], lanes, out);
            }
            sum
        };
        let blocks = out.values.par_chunks_mut(BLOCK * lanes.len).enumerate();
        blocks.map(block).collect::<Vec<f64>>().iter().sum()
    }

    fn derive_row(&self, row: usize, scores: &[f64], lanes: Lanes, out: &mut [f32]) -> f64 {
        let mut sum = 0.0;
        for part in &self.parts {
            let weight = part.weight(row);
            let (label, n) = (part.labels[row], part.loss.width());
            let (g, rest) = out.split_at_mut(lanes.outputs);
            let g = &mut g[part.at..][..n];
            let h = match lanes.curvature {
                Curvature::Ones => None,
                Curvature::Shared => Some(&mut rest[..1]),
                Curvature::Each => Some(&mut rest[part.at..][..n]),
            };
            if label.is_nan() {
                g.fill(0.0);
                if let Some(h) = h {
                    h.fill(0.0);
                }
            } else {
                sum += part
                    .loss
                    .derive(label, &scores[part.at..][..n], weight, g, h);
            }
        }
        sum
    }

    /// The mean loss of every target, added up.
    fn loss(&self, scores: &[f64]) -> f64 {
        let width = self.width();
        let of = |part: &Part| {
            let n = part.loss.width();
            let block = |(b, scores): (usize, &[f64])| {
                let (mut sum, mut all, mut unused) = (0.0, 0.0, vec![0f32; n]);
                for (i, scores) in scores.chunks_exact(width).enumerate() {
                    let row = b * BLOCK + i;
                    let (label, weight) = (part.labels[row], part.weight(row));
                    if !label.is_nan() {
                        let scores = &scores[part.at..][..n];
                        sum += part.loss.derive(label, scores, weight, &mut unused, None);
                        all += weight;
                    }
                }
                (sum, all)
            };
            let blocks = scores.par_chunks(BLOCK * width).enumerate().map(block);
            let blocks: Vec<(f64, f64)> = blocks.collect();
            let (sum, all) = blocks
                .iter()
                .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
            if all > 0.0 { sum / all } else { 0.0 }
        };
        self.parts.iter().map(of).sum()
    }
}

/// As [`Rows::derive`], over a block of rows of one target with one score, without weights. What is asked of a target is
/// asked once, so that nothing but its formula is left for each row.
fn derive_alone(loss: Loss, labels: &[f64], scores: &[f64], lanes: Lanes, out: &mut [f32]) -> f64 {
    match (loss, lanes.len) {
        (Loss::Squared, 2) => derive_lanes::<2>(Loss::Squared, labels, scores, lanes, out),
        (Loss::Squared, _) => derive_lanes::<4>(Loss::Squared, labels, scores, lanes, out),
        (Loss::Logistic, _) => derive_lanes::<4>(Loss::Logistic, labels, scores, lanes, out),
        (other, _) => derive_lanes::<4>(other, labels, scores, lanes, out),
    }
}

#[inline(always)]
fn derive_lanes<const L: usize>(
    loss: Loss,
    labels: &[f64],
    scores: &[f64],
    lanes: Lanes,
    out: &mut [f32],
) -> f64 {
    let rows = labels.iter().zip(scores).zip(out.as_chunks_mut::<L>().0);
    let mut sum = 0.0;
    for ((label, score), out) in rows {
        let (g, rest) = out.split_at_mut(1);
        let h = (lanes.curvature != Curvature::Ones).then_some(&mut rest[..1]);
        if label.is_nan() {
            g[0] = 0.0;
            h.into_iter().for_each(|h| h.fill(0.0));
        } else {
            sum += loss.derive(*label, std::slice::from_ref(score), 1.0, g, h);
        }
    }
    sum
}

/// Rows that a draw keeps, of those given or of all; `None`: all.
pub(super) fn drawn(
    rows: Option<&[u32]>,
    all: usize,
    share: f64,
    stream: Stream,
    round: usize,
) -> Option<Vec<u32>> {
    if share >= 1.0 {
        return rows.map(<[u32]>::to_vec);
    }
    let at = round as u64 * all as u64;
    let kept = |row: &u32| f64::from(stream.uniform(at + u64::from(*row))) < share;
    Some(match rows {
        Some(rows) => rows.iter().copied().filter(kept).collect(),
        None => (0..all as u32).filter(kept).collect(),
    })
}

/// Adds a tree to the scores of all rows.
pub(super) fn apply(tree: &Tree, rows: &Dense, width: usize, scores: &mut [f64]) {
    let walk = Walk::new(tree);
    let blocks = scores.par_chunks_mut(BLOCK * width).enumerate();
    blocks.for_each(|(b, scores)| add(tree, &walk, rows, b * BLOCK, scores, width));
}

/// Adds a tree to the scores of rows from `first` on.
pub(super) fn add(
    tree: &Tree,
    walk: &Walk<'_>,
    rows: &Dense,
    first: usize,
    scores: &mut [f64],
    width: usize,
) {
    let n = scores.len() / width.max(1);
    if width == 1 {
        let mut scores = scores.iter_mut();
        return walk.leaves(rows, first, n, |leaf| {
            if let Some(score) = scores.next() {
                *score += f64::from(tree.values[leaf]);
            }
        });
    }
    let mut scores = scores.chunks_exact_mut(width);
    walk.leaves(rows, first, n, |leaf| {
        if let Some(scores) = scores.next() {
            plus(scores, tree.value(leaf, width));
        }
    });
}

/// Hands out the rows that a tree was grown on, with the values of their leaves.
pub(super) fn spread(
    grower: &Grower<'_>,
    grown: &Grown,
    width: usize,
    mut to: impl FnMut(usize, &[f32]),
) {
    for (leaf, range) in grown.leaves.iter().enumerate() {
        let values = grown.tree.value(leaf, width);
        let rows = &grower.rows()[range.clone()];
        rows.iter().for_each(|row| to(*row as usize, values));
    }
}

/// Adds the values of a leaf.
pub(super) fn plus(scores: &mut [f64], values: &[f32]) {
    scores
        .iter_mut()
        .zip(values)
        .for_each(|(s, v)| *s += f64::from(*v));
}

/// An ensemble to be grown.
pub(super) struct Job<'a> {
    pub name: &'a str,
    pub bins: &'a Bins,
    pub rows: Rows<'a>,
    pub held: Option<Rows<'a>>,
    pub stream: Stream,
}

impl Job<'_> {
    /// Grows the trees.
    pub fn run(&self, boost: &Boost, watch: &mut Watch<'_>) -> Result<Vec<Tree>> {
        let (rows, width) = (&self.rows, self.rows.width());
        let labelled = rows.labelled();
        let mut grower = Grower::new(self.bins, boost.growth);
        let mut statistics = Statistics::new(rows.table.rows, rows.lanes());
        let mut scores = rows.begin();
        let categories = self.bins.categories();
        let whole = |table: &Table| Dense::new(table, &categories, 0..table.rows);
        // Rows that a tree is not grown on have to find their leaves.
        let dense = (boost.subsample < 1.0).then(|| whole(rows.table));
        let held = self.held.as_ref();
        let mut held = held.map(|rows| (rows, whole(rows.table), rows.begin()));
        let (mut trees, mut best) = (Vec::new(), (f64::INFINITY, 0));
        let weight = self.weight(labelled.as_deref());
        for round in 0..boost.rounds {
            let loss = rows.derive(&scores, &mut statistics) / weight;
            let some = drawn(
                labelled.as_deref(),
                rows.table.rows,
                boost.subsample,
                self.stream,
                round,
            );
            let grown = grower.grow(&statistics, some.as_deref(), boost.lr);
            if let Some(dense) = &dense {
                apply(&grown.tree, dense, width, &mut scores);
            } else if width == 1 {
                spread(&grower, &grown, width, |row, values| {
                    scores[row] += f64::from(values[0]);
                });
            } else {
                spread(&grower, &grown, width, |row, values| {
                    plus(&mut scores[row * width..][..width], values);
                });
            }
            let after = held.as_mut().map(|(rows, dense, scores)| {
                apply(&grown.tree, dense, width, scores);
                rows.loss(scores)
            });
            trees.push(grown.tree);
            let told = Progress {
                part: self.name,
                round: round + 1,
                rounds: boost.rounds,
                loss,
                held: after,
            };
            if !watch(&told) {
                return Err(Error::Ended);
            }
            if let Some(after) = after.filter(|_| boost.patience > 0) {
                if after < best.0 {
                    best = (after, trees.len());
                } else if trees.len() - best.1 >= boost.patience {
                    break;
                }
            }
        }
        if boost.patience > 0 && self.held.is_some() {
            trees.truncate(best.1);
        }
        Ok(trees)
    }

    /// Weight of the rows that are learned from.
    fn weight(&self, rows: Option<&[u32]>) -> f64 {
        let weight = |row: u32| self.rows.weight(row as usize);
        let sum: f64 = match rows {
            Some(rows) => rows.iter().map(|r| weight(*r)).sum(),
            None => (0..self.rows.table.rows as u32).map(weight).sum(),
        };
        if sum > 0.0 { sum } else { 1.0 }
    }
}
