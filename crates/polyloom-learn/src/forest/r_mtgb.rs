//! R-MTGB: trees for all tasks, for two groups of tasks, and for each task (Emami et al. 2025; `GAA-UAM/R-MTGB`).
//!
//! A task's score is `F_shared + (1 - s_t) F_in + s_t F_out + F_task` with `s_t = sigmoid(theta_t)`, learned in three blocks.
//! Which group a task belongs to is learned in the second: tasks that the others do not help end on the other side of 0.5.
//!
//! Tasks may share rows: the trees do not ask which task it is, so a row counts once for each label, with the sum of their
//! residuals.

use polyloom_core::rng::Stream;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bins::{Bins, Cutting};
use super::boost::{BLOCK, apply, drawn, plus, share, spread};
use super::data::{Labels, Sample, Target, wrong};
use super::dense::Dense;
use super::fit::{Progress, Watch};
use super::grow::{Grower, Grown};
use super::growth::Growth;
use super::histogram::{Curvature, Lanes, Statistics};
use super::labelled::Labelled;
use super::loss::{Start, sigmoid, softmax};
use super::model::{Ensemble, Forest, Output, Sides, Use};
use super::tree::Tree;
use crate::error::{Error, Result};

/// Largest label that is learned as it is: gradients are kept in 32 bits.
const LARGE: f64 = 1e18;

/// Parameters of R-MTGB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RMtgb {
    /// Trees for all tasks.
    pub shared_steps: usize,
    /// Pairs of trees for the two groups; the authors' program defaults to 1, which learns no groups.
    pub outlier_steps: usize,
    /// Trees for each task; 1 in the authors' program.
    pub task_steps: usize,
    /// What every tree is multiplied by, above 0, at most 1; also the rate of `theta`.
    pub lr: f64,
    /// Share of the rows that each tree is grown on, above 0, at most 1.
    pub subsample: f64,
    /// Most tests on a path, at least 1.
    pub max_depth: usize,
    /// Trees of one test with exact thresholds, as the authors' program grows whatever depth it is given.
    pub stump: bool,
    /// Most bins of a column of numbers (not with `stump`).
    pub bins: usize,
    /// Numbers are learned less their task's mean and divided by its standard deviation: the paper's are alike already.
    pub standardise: bool,
    /// First `theta`, one for each task; else 0.1 times a standard normal draw.
    pub theta: Option<Vec<f64>>,
}

impl Default for RMtgb {
    fn default() -> Self {
        Self {
            shared_steps: 100,
            outlier_steps: 50,
            task_steps: 50,
            lr: 0.1,
            subsample: 1.0,
            max_depth: 3,
            stump: false,
            bins: 255,
            standardise: true,
            theta: None,
        }
    }
}

impl RMtgb {
    pub(super) fn check(&self, targets: &[Target]) -> Result<()> {
        share("lr", self.lr)?;
        share("subsample", self.subsample)?;
        if self.max_depth == 0 {
            return Err(wrong("`max_depth` is 0; it has to be at least 1"));
        }
        if let Some(theta) = &self.theta
            && (theta.len() != targets.len() || theta.iter().any(|x| !x.is_finite()))
        {
            return Err(wrong(format!(
                "`theta` has to hold a number for each of {} tasks",
                targets.len()
            )));
        }
        let large = |y: &f64| !self.standardise && y.abs() > LARGE;
        let too_large = |t: &&Target| match &t.labels {
            Labels::Regression(y) => y.iter().any(large),
            Labels::Classification { .. } => false,
        };
        if let Some(target) = targets.iter().find(too_large) {
            return Err(wrong(format!(
                "target `{}` has labels above {LARGE:e}, which need `standardise`",
                target.name
            )));
        }
        let first = targets.first();
        let other = targets
            .iter()
            .find(|t| Some(t.classes()) != first.map(Target::classes));
        if let (Some(first), Some(other)) = (first, other) {
            return Err(wrong(format!(
                "`r_mtgb` needs tasks of one kind; `{}` has {} and `{}` {} (use `gbdt_shared`)",
                first.name,
                kind(first),
                other.name,
                kind(other)
            )));
        }
        Ok(())
    }

    pub(super) fn cutting(&self) -> Cutting {
        match self.stump {
            true => Cutting::Exact,
            false => Cutting::Quantiles(self.bins),
        }
    }

    fn growth(&self) -> Growth {
        match self.stump {
            true => Growth::stump(),
            false => Growth::means(self.max_depth),
        }
    }
}

fn kind(target: &Target) -> String {
    match target.classes() {
        0 => "numbers".to_owned(),
        n => format!("{n} classes"),
    }
}

/// A training.
struct Training<'a> {
    sample: &'a Sample<'a>,
    bins: &'a Bins,
    method: &'a RMtgb,
    all: Labelled,
    seed: u64,
    /// Outputs of a tree: 1, or one for each class.
    width: usize,
    classes: bool,
    /// Sums of trees for each row.
    shared: Vec<f64>,
    inside: Vec<f64>,
    outside: Vec<f64>,
    /// Sums of trees of the tasks for each label.
    own: Vec<f64>,
    theta: Vec<f64>,
    /// What is left of each label.
    residuals: Vec<f64>,
    /// Rows that find their leaves, where a tree is not grown on all of them.
    dense: Option<Dense>,
}

/// Trees of the blocks.
pub(super) fn fit(
    sample: &Sample<'_>,
    bins: &Bins,
    method: &RMtgb,
    seed: u64,
    forest: &mut Forest,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let classes = sample.targets.first().map_or(0, Target::classes);
    let start = |target: &Target| match Start::of(sample, target) {
        start if classes == 0 && method.standardise => (start.scores[0], start.scale),
        _ => (0.0, 1.0),
    };
    let starts: Vec<(f64, f64)> = sample.targets.iter().map(start).collect();
    let all = Labelled::of(sample, &starts)?;
    let (width, labels) = (classes.max(1), all.row.len());
    let draws = Stream::new(seed, "r_mtgb.theta", 0);
    let drawn = |t: u64| 0.1 * f64::from(draws.normal(t));
    let mut training = Training {
        sample,
        bins,
        method,
        all,
        seed,
        width,
        classes: classes > 0,
        shared: vec![0.0; bins.rows * width],
        inside: vec![0.0; bins.rows * width],
        outside: vec![0.0; bins.rows * width],
        own: vec![0.0; labels * width],
        theta: match &method.theta {
            Some(theta) => theta.clone(),
            None => (0..sample.targets.len() as u64).map(drawn).collect(),
        },
        residuals: vec![0.0; labels * width],
        dense: (method.subsample < 1.0)
            .then(|| Dense::new(sample.table, &bins.categories(), 0..bins.rows)),
    };
    let shared = training.shared_block(watch)?;
    let (inside, outside) = training.outlier_block(watch)?;
    let own = training.task_block(watch)?;
    let sigma: Vec<f64> = training.theta.iter().map(|x| sigmoid(*x)).collect();
    for (target, (mean, scale)) in sample.targets.iter().zip(&starts) {
        forest.outputs.push(Output {
            name: target.name.clone(),
            classes,
            start: vec![*mean; width],
            scale: *scale,
        });
    }
    let to = |t: usize, factor: f64| Use {
        column: t * width,
        factor,
        output: 0,
        width,
    };
    let mut add = |name: &str, trees: Vec<Tree>, uses: Vec<Use>| {
        if !trees.is_empty() {
            forest.ensembles.push(Ensemble {
                name: name.to_owned(),
                width,
                trees,
                uses,
            });
        }
    };
    let each = |factor: &dyn Fn(f64) -> f64| {
        let tasks = sigma.iter().enumerate();
        tasks.map(|(t, s)| to(t, factor(*s))).collect()
    };
    add("shared", shared, each(&|_| 1.0));
    add("inside", inside, each(&|s| 1.0 - s));
    add("outside", outside, each(&|s| s));
    for (t, trees) in own.into_iter().enumerate() {
        add(&sample.targets[t].name, trees, vec![to(t, 1.0)]);
    }
    forest.sides = Some(Sides {
        theta: training.theta,
        sigma,
    });
    Ok(())
}

impl Training<'_> {
    fn sigma(&self) -> Vec<f64> {
        self.theta.iter().map(|x| sigmoid(*x)).collect()
    }

    /// What is left of every label at the present scores; says the mean loss.
    fn derive(&mut self) -> f64 {
        let (width, sigma) = (self.width, self.sigma());
        let mut residuals = std::mem::take(&mut self.residuals);
        let block = |(b, residuals): (usize, &mut [f64])| {
            let mut sum = 0.0;
            for (i, r) in residuals.chunks_exact_mut(width).enumerate() {
                let e = b * BLOCK + i;
                sum += self.all.weight[e] * self.residual(e, &sigma, r);
            }
            sum
        };
        let blocks = residuals.par_chunks_mut(BLOCK * width).enumerate();
        let sums: Vec<f64> = blocks.map(block).collect();
        self.residuals = residuals;
        let all: f64 = self.all.weight.iter().sum();
        if all > 0.0 {
            sums.iter().sum::<f64>() / all
        } else {
            0.0
        }
    }

    /// What is left of a label; says its loss.
    fn residual(&self, e: usize, sigma: &[f64], out: &mut [f64]) -> f64 {
        let (at, s) = (
            self.all.row[e] as usize * self.width,
            sigma[self.all.task[e] as usize],
        );
        for (k, out) in out.iter_mut().enumerate() {
            let group = (1.0 - s) * self.inside[at + k] + s * self.outside[at + k];
            *out = self.shared[at + k] + group + self.own[e * self.width + k];
        }
        let label = self.all.label[e];
        if !self.classes {
            out[0] = label - out[0];
            return out[0] * out[0] / 2.0;
        }
        let class = label as usize;
        let score = out[class];
        let loss = softmax(out) - score;
        out.iter_mut().for_each(|p| *p = -*p);
        out[class] += 1.0;
        loss
    }

    /// Lanes for trees over labels: a row counts as often as it has labels.
    fn statistics(&self) -> Statistics {
        let once = self.all.starts.windows(2).all(|w| w[1] - w[0] <= 1);
        let plain = once && !self.sample.is_weighed();
        let curvature = if plain {
            Curvature::Ones
        } else {
            Curvature::Shared
        };
        let mut made = Statistics::new(self.bins.rows, Lanes::new(self.width, curvature));
        if !plain {
            let (lanes, all) = (made.lanes, &self.all);
            for (row, out) in made.values.chunks_exact_mut(lanes.len).enumerate() {
                out[lanes.hessian(0)] = all.weight[all.of_row(row)].iter().sum::<f64>() as f32;
            }
        }
        made
    }

    /// Sums the residuals of every row, each by what `factor` says of its task.
    fn pool(&self, factor: &[f64], out: &mut Statistics) {
        let (lanes, width) = (out.lanes.len, self.width);
        let block = |(b, out): (usize, &mut [f32])| {
            for (i, out) in out.chunks_exact_mut(lanes).enumerate() {
                for (k, out) in out[..width].iter_mut().enumerate() {
                    let of = |e: usize| {
                        let by = factor[self.all.task[e] as usize] * self.all.weight[e];
                        by * self.residuals[e * width + k]
                    };
                    *out = self.all.of_row(b * BLOCK + i).map(of).sum::<f64>() as f32;
                }
            }
        };
        let blocks = out.values.par_chunks_mut(BLOCK * lanes).enumerate();
        blocks.for_each(block);
    }

    fn draw(&self, rows: &[u32], block: u64, step: usize) -> Option<Vec<u32>> {
        let stream = Stream::new(self.seed, "r_mtgb.rows", block);
        let whole = rows.len() == self.bins.rows;
        let rows = (!whole).then_some(rows);
        drawn(rows, self.bins.rows, self.method.subsample, stream, step)
    }

    /// Adds what a tree says of every row to sums by row.
    fn add(&self, grower: &Grower<'_>, grown: &Grown, sums: &mut [f64]) {
        if let Some(dense) = &self.dense {
            return apply(&grown.tree, dense, self.width, sums);
        }
        spread(grower, grown, self.width, |row, values| {
            plus(&mut sums[row * self.width..][..self.width], values);
        });
    }

    fn shared_block(&mut self, watch: &mut Watch<'_>) -> Result<Vec<Tree>> {
        let steps = self.method.shared_steps;
        let mut grower = Grower::new(self.bins, self.method.growth());
        let (mut statistics, rows) = (self.statistics(), self.all.rows());
        let same = vec![1.0; self.theta.len()];
        let mut trees = Vec::new();
        for step in 0..steps {
            let loss = self.derive();
            self.pool(&same, &mut statistics);
            let some = self.draw(&rows, 0, step);
            let grown = grower.grow(&statistics, some.as_deref(), self.method.lr);
            let mut sums = std::mem::take(&mut self.shared);
            self.add(&grower, &grown, &mut sums);
            self.shared = sums;
            trees.push(grown.tree);
            tell(watch, "shared", (step, steps), loss)?;
        }
        Ok(trees)
    }

    /// Both trees of a step, and the step of `theta`, come from the scores before it.
    fn outlier_block(&mut self, watch: &mut Watch<'_>) -> Result<(Vec<Tree>, Vec<Tree>)> {
        let (steps, lr) = (self.method.outlier_steps, self.method.lr);
        let mut grower = Grower::new(self.bins, self.method.growth());
        let (mut statistics, rows) = (self.statistics(), self.all.rows());
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        for step in 0..steps {
            let loss = self.derive();
            let sigma = self.sigma();
            let slopes = self.slopes(&sigma);
            let some = self.draw(&rows, 1, step);
            self.pool(&sigma, &mut statistics);
            let grown = grower.grow(&statistics, some.as_deref(), lr);
            let mut sums = std::mem::take(&mut self.outside);
            self.add(&grower, &grown, &mut sums);
            self.outside = sums;
            outer.push(grown.tree);
            let others: Vec<f64> = sigma.iter().map(|s| 1.0 - s).collect();
            self.pool(&others, &mut statistics);
            let grown = grower.grow(&statistics, some.as_deref(), lr);
            let mut sums = std::mem::take(&mut self.inside);
            self.add(&grower, &grown, &mut sums);
            self.inside = sums;
            inner.push(grown.tree);
            for (theta, slope) in self.theta.iter_mut().zip(slopes) {
                *theta += lr * slope;
            }
            tell(watch, "outliers", (step, steps), loss)?;
        }
        Ok((inner, outer))
    }

    /// By `theta_t`: `sum_i r_i s_t (1 - s_t) (F_out - F_in)` over the labels of a task and all outputs.
    fn slopes(&self, sigma: &[f64]) -> Vec<f64> {
        let mut slopes = vec![0.0; sigma.len()];
        for (e, r) in self.residuals.chunks_exact(self.width).enumerate() {
            let at = self.all.row[e] as usize * self.width;
            let apart = self.outside[at..].iter().zip(&self.inside[at..]);
            let sum: f64 = r.iter().zip(apart).map(|(r, (o, i))| r * (o - i)).sum();
            slopes[self.all.task[e] as usize] += self.all.weight[e] * sum;
        }
        let by = slopes.iter().zip(sigma);
        by.map(|(slope, s)| slope * s * (1.0 - s)).collect()
    }

    fn task_block(&mut self, watch: &mut Watch<'_>) -> Result<Vec<Vec<Tree>>> {
        let (steps, width) = (self.method.task_steps, self.width);
        let mut grower = Grower::new(self.bins, self.method.growth());
        let weighted = self.sample.is_weighed();
        let curvature = if weighted {
            Curvature::Shared
        } else {
            Curvature::Ones
        };
        let lanes = Lanes::new(width, curvature);
        let mut statistics = Statistics::new(self.bins.rows, lanes);
        let mut label_of = vec![0usize; self.bins.rows];
        let mut all = Vec::new();
        for t in 0..self.theta.len() {
            let labels = (0..self.all.row.len()).filter(|e| self.all.task[*e] as usize == t);
            let labels: Vec<usize> = labels.collect();
            let rows: Vec<u32> = labels.iter().map(|e| self.all.row[*e]).collect();
            for (e, row) in labels.iter().zip(&rows) {
                label_of[*row as usize] = *e;
            }
            let name = self.sample.targets[t].name.clone();
            let mut trees = Vec::new();
            for step in 0..if rows.is_empty() { 0 } else { steps } {
                let loss = self.fill(&labels, &mut statistics);
                let some = self.draw(&rows, 2 + t as u64, step);
                let grown = grower.grow(&statistics, some.as_deref(), self.method.lr);
                let own = &mut self.own;
                if let Some(dense) = &self.dense {
                    for (e, row) in labels.iter().zip(&rows) {
                        let leaf = grown.tree.leaf(dense.row(*row as usize));
                        plus(
                            &mut own[e * width..][..width],
                            grown.tree.value(leaf, width),
                        );
                    }
                } else {
                    spread(&grower, &grown, width, |row, values| {
                        plus(&mut own[label_of[row] * width..][..width], values);
                    });
                }
                trees.push(grown.tree);
                tell(watch, &name, (step, steps), loss)?;
            }
            all.push(trees);
        }
        Ok(all)
    }

    /// The residuals of one task's labels as lanes of their rows; says their mean loss.
    fn fill(&self, labels: &[usize], out: &mut Statistics) -> f64 {
        let (lanes, width, sigma) = (out.lanes, self.width, self.sigma());
        let mut residual = vec![0f64; width];
        let (mut sum, mut all) = (0.0, 0.0);
        for e in labels {
            let weight = self.all.weight[*e];
            sum += weight * self.residual(*e, &sigma, &mut residual);
            all += weight;
            let out = &mut out.values[self.all.row[*e] as usize * lanes.len..][..lanes.len];
            for (out, r) in out.iter_mut().zip(&residual) {
                *out = (weight * r) as f32;
            }
            if lanes.curvature == Curvature::Shared {
                out[lanes.hessian(0)] = weight as f32;
            }
        }
        sum / all
    }
}

fn tell(watch: &mut Watch<'_>, part: &str, at: (usize, usize), loss: f64) -> Result<()> {
    let told = Progress {
        part,
        round: at.0 + 1,
        rounds: at.1,
        loss,
        held: None,
    };
    match watch(&told) {
        true => Ok(()),
        false => Err(Error::Ended),
    }
}
