//! Which tasks can be left out: those that the others predict (MMTEB's task selection, Enevoldsen et al. 2025;
//! methods/evaluation.md 3.10).

use std::collections::BTreeMap;

use super::matrix::ScoreMatrix;
use super::ranking::{Borda, borda};
use crate::evaluate::metric::correlation::{coefficient, pearson, spearman};
use crate::evaluate::sum::mean;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "predicting tasks from each other";

/// How well the scores of a task are predicted from the scores on the other tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Number of the task.
    pub task: usize,
    /// Predicted scores by system, each from a fit that did not see the system.
    pub predicted: Vec<f64>,
    /// Pearson correlation of predicted and observed scores; `NaN` where all systems score the same.
    pub pearson: f64,
    /// Spearman correlation of the two.
    pub spearman: f64,
    /// Mean squared difference of the two after each is scaled to mean 0 and deviation 1.
    pub mse_zscore: f64,
}

/// Predicts every task from all others by least squares with an intercept, each system left out once.
///
/// With more other tasks than systems the fit is that of the least norm (as scikit-learn's `LinearRegression`), from the
/// kernel of the scores with a ridge of 1e-12 of its mean diagonal, so that equal rows do no harm. All tasks and systems
/// come from one decomposition: O(systems · tasks²), or O(systems³ + tasks · systems²) with more tasks than systems.
///
/// # Errors
/// Fewer than three systems or two tasks; a missing score (choose systems and tasks that are complete, or fill them).
pub fn predictions(matrix: &ScoreMatrix) -> Result<Vec<Prediction>> {
    let (systems, tasks) = (matrix.systems().len(), matrix.tasks().len());
    if systems < 3 || tasks < 2 {
        let problem = format!("{systems} systems and {tasks} tasks");
        return Err(EvalError::invalid(WHAT, problem));
    }
    if let Some(at) = (0..systems * tasks).find(|i| matrix.row(i / tasks)[i % tasks].is_nan()) {
        let (system, task) = (
            &matrix.systems()[at / tasks],
            &matrix.tasks()[at % tasks].name,
        );
        let problem = format!("system {system:?} has no score on task {task:?}");
        return Err(EvalError::invalid(WHAT, problem));
    }
    let all: Vec<usize> = (0..tasks).collect();
    Ok(of_columns(matrix, &all))
}

/// The part of a table that has no gaps, and what had to go.
#[derive(Debug, Clone)]
pub struct Complete {
    /// Systems x tasks without gaps.
    pub matrix: ScoreMatrix,
    /// Systems left out for their gaps, in order.
    pub systems_out: Vec<String>,
    /// Tasks left out for their gaps, in order.
    pub tasks_out: Vec<String>,
}

impl Complete {
    /// Removes gaps greedily: the system or task with the largest share of gaps goes, tasks at ties (then the first), until
    /// none is left. O((systems + tasks)²).
    ///
    /// # Errors
    /// Nothing is left.
    pub fn of(matrix: &ScoreMatrix) -> Result<Self> {
        let mut systems: Vec<usize> = (0..matrix.systems().len()).collect();
        let mut tasks: Vec<usize> = (0..matrix.tasks().len()).collect();
        let gap = |s: usize, t: usize| matrix.row(s)[t].is_nan();
        let count = |n: usize, gap: &dyn Fn(usize) -> bool| (0..n).filter(|&i| gap(i)).count();
        let mut of_system: Vec<usize> = systems
            .iter()
            .map(|&s| count(tasks.len(), &|t| gap(s, t)))
            .collect();
        let mut of_task: Vec<usize> = tasks
            .iter()
            .map(|&t| count(systems.len(), &|s| gap(s, t)))
            .collect();
        let (mut systems_out, mut tasks_out) = (Vec::new(), Vec::new());
        let most = |left: &[usize], gaps: &[usize]| {
            let first = (0, 0);
            left.iter().enumerate().fold(
                first,
                |most, (i, &x)| if gaps[x] > most.1 { (i, gaps[x]) } else { most },
            )
        };
        loop {
            let (s, by_system) = most(&systems, &of_system);
            let (t, by_task) = most(&tasks, &of_task);
            if by_system == 0 && by_task == 0 {
                break;
            }
            // Shares of unequal wholes, compared without division.
            if by_task * tasks.len() >= by_system * systems.len() {
                let out = tasks.remove(t);
                systems
                    .iter()
                    .filter(|&&s| gap(s, out))
                    .for_each(|&s| of_system[s] -= 1);
                tasks_out.push(matrix.tasks()[out].name.clone());
            } else {
                let out = systems.remove(s);
                tasks
                    .iter()
                    .filter(|&&t| gap(out, t))
                    .for_each(|&t| of_task[t] -= 1);
                systems_out.push(matrix.systems()[out].clone());
            }
        }
        if systems.is_empty() || tasks.is_empty() {
            return Err(EvalError::invalid(
                WHAT,
                "no systems and tasks without gaps are left",
            ));
        }
        Ok(Self {
            matrix: matrix.select(&systems, &tasks)?,
            systems_out,
            tasks_out,
        })
    }
}

/// What decides which task is predicted best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Criterion {
    /// Pearson correlation.
    #[default]
    Pearson,
    /// Spearman correlation.
    Spearman,
    /// 1 − the mean squared difference of scaled scores.
    MseZscore,
}

impl Criterion {
    fn of(self, p: &Prediction) -> f64 {
        match self {
            Self::Pearson => p.pearson,
            Self::Spearman => p.spearman,
            Self::MseZscore => 1.0 - p.mse_zscore,
        }
    }
}

/// Rules of leaving out.
#[derive(Debug, Clone, PartialEq)]
pub struct Downsample {
    /// What decides.
    pub criterion: Criterion,
    /// Fewest tasks to keep; at least 2.
    pub size: usize,
    /// Stop when no task is predicted at least this well; `None` goes on down to `size`.
    pub least: Option<f64>,
    /// Tasks that stay, by number.
    pub keep: Vec<usize>,
    /// Never leave out the last task of a group.
    pub keep_groups: bool,
}

impl Default for Downsample {
    /// Pearson, down to 2 tasks while the next is predicted with at least 0.8, groups kept.
    fn default() -> Self {
        Self {
            criterion: Criterion::Pearson,
            size: 2,
            least: Some(0.8),
            keep: Vec::new(),
            keep_groups: true,
        }
    }
}

/// A smaller benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Downsampled {
    /// Tasks left out, in order, each with how well the rest predicted it then.
    pub removed: Vec<(usize, f64)>,
    /// Tasks that stay, in the order of the table.
    pub kept: Vec<usize>,
    /// Spearman correlation of the Borda points on what stays with those on everything: the smaller benchmark ranks the
    /// systems as the whole one where it is near 1 (the paper asks for about 0.97).
    pub borda_agreement: f64,
}

impl Downsample {
    /// Leaves out the best predicted task, one after the other. Ties (to 1e-12) go to the first task; a task on which all systems
    /// score the same predicts nothing, is predicted by nothing, and stays.
    ///
    /// # Errors
    /// As [`predictions`]; a `size` under 2, a task to keep that does not exist.
    pub fn run(&self, matrix: &ScoreMatrix) -> Result<Downsampled> {
        let tasks = matrix.tasks().len();
        if self.size < 2 {
            return Err(EvalError::invalid(WHAT, "fewer than two tasks left"));
        }
        if let Some(task) = self.keep.iter().find(|&&t| t >= tasks) {
            return Err(EvalError::invalid(WHAT, format!("no task {task} to keep")));
        }
        let mut now = predictions(matrix)?;
        let mut kept: Vec<usize> = (0..tasks).collect();
        let mut removed = Vec::new();
        while kept.len() > self.size {
            let mut left = BTreeMap::<&str, usize>::new();
            let group = |t: usize| matrix.tasks()[t].group.as_deref();
            for name in kept.iter().filter_map(|&t| group(t)) {
                *left.entry(name).or_default() += 1;
            }
            let last = |t: usize| self.keep_groups && group(t).is_some_and(|g| left[g] == 1);
            let free = now
                .iter()
                .filter(|p| !self.keep.contains(&p.task) && !last(p.task));
            let best = free.fold(None, |best: Option<(usize, f64)>, p| {
                let value = self.criterion.of(p);
                let better = !value.is_nan() && best.is_none_or(|(_, most)| value > most + 1e-12);
                if better { Some((p.task, value)) } else { best }
            });
            let Some((task, value)) = best.filter(|(_, v)| self.least.is_none_or(|l| *v >= l))
            else {
                break;
            };
            removed.push((task, value));
            kept.retain(|&t| t != task);
            now = of_columns(matrix, &kept);
        }
        let systems: Vec<usize> = (0..matrix.systems().len()).collect();
        let part = matrix.select(&systems, &kept)?;
        let points = |m: &ScoreMatrix| borda(m, Borda::Beaten).value;
        Ok(Downsampled {
            removed,
            borda_agreement: coefficient(spearman(&points(&part), &points(matrix))),
            kept,
        })
    }
}

fn of_columns(matrix: &ScoreMatrix, tasks: &[usize]) -> Vec<Prediction> {
    let observed: Vec<Vec<f64>> = tasks.iter().map(|&t| matrix.column(t).collect()).collect();
    let centred: Vec<Vec<f64>> = observed
        .iter()
        .map(|column| {
            let centre = mean(column.iter().copied());
            column.iter().map(|x| x - centre).collect()
        })
        .collect();
    let residuals = if tasks.len() < matrix.systems().len() {
        by_columns(&centred)
    } else {
        by_kernel(&centred)
    };
    let all = tasks.iter().zip(observed).zip(residuals);
    all.map(|((&task, observed), residual)| {
        let pairs = observed.iter().zip(&residual);
        let predicted: Vec<f64> = pairs.map(|(x, r)| x - r).collect();
        let (z, p) = (scaled(&observed), scaled(&predicted));
        Prediction {
            task,
            pearson: coefficient(pearson(&predicted, &observed)),
            spearman: coefficient(spearman(&predicted, &observed)),
            mse_zscore: mean(z.iter().zip(&p).map(|(a, b)| (a - b).powi(2))),
            predicted,
        }
    })
    .collect()
}

/// Left-out residuals of every column on all others, from one orthogonal basis of the columns (Gram–Schmidt, twice).
/// With G the inverse of the Gram matrix, the residual of column t is X G e_t / G_tt, and the leverages of the other
/// columns are those of all less the squares of the scaled residual; a left-out residual is e / (1 − h).
fn by_columns(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = columns[0].len();
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let (mut independent, mut exact) = (Vec::new(), vec![false; columns.len()]);
    // Rows of R, by basis vector, over the independent columns so far.
    let mut r: Vec<Vec<f64>> = Vec::new();
    for (t, column) in columns.iter().enumerate() {
        let (mut rest, mut share) = (column.clone(), vec![0.0; basis.len()]);
        for _ in 0..2 {
            for (q, s) in basis.iter().zip(&mut share) {
                let along = dot(q, &rest);
                *s += along;
                rest.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
            }
        }
        let (norm, whole) = (dot(&rest, &rest).sqrt(), dot(column, column).sqrt());
        if norm <= 1e-11 * whole {
            // A combination of earlier columns: it and they are predicted exactly.
            exact[t] = true;
            let weights = back(&r, share);
            let large = 1e-8 * weights.iter().fold(0.0f64, |m, w| m.max(w.abs()));
            let parts = independent.iter().zip(&weights);
            let parts = parts.filter(|(_, w)| w.abs() > large);
            parts.for_each(|(&i, _): (&usize, _)| exact[i] = true);
            continue;
        }
        rest.iter_mut().for_each(|x| *x /= norm);
        basis.push(rest);
        share.push(norm);
        r.push(share);
        independent.push(t);
    }
    let leverage: Vec<f64> = (0..n)
        .map(|i| 1.0 / n as f64 + basis.iter().map(|q| q[i] * q[i]).sum::<f64>())
        .collect();
    let mut found = vec![vec![0.0; n]; columns.len()];
    for (at, &t) in independent.iter().enumerate().filter(|(_, t)| !exact[**t]) {
        // The scaled residual Q R⁻ᵀ e_t / |R⁻ᵀ e_t|.
        let mut weights = vec![0.0; basis.len()];
        for k in at..basis.len() {
            let known: f64 = (at..k).map(|j| r[k][j] * weights[j]).sum();
            weights[k] = (f64::from(u8::from(k == at)) - known) / r[k][k];
        }
        let length = dot(&weights, &weights).sqrt();
        for (i, residual) in found[t].iter_mut().enumerate() {
            let along: f64 = basis.iter().zip(&weights).map(|(q, w)| q[i] * w).sum();
            let (e, direction) = (along / (length * length), along / length);
            *residual = e / (1.0 - leverage[i] + direction * direction);
        }
    }
    found
}

/// Solves Rᵀ-stored triangles: the weights of the independent columns in a combination with the given shares.
fn back(r: &[Vec<f64>], share: Vec<f64>) -> Vec<f64> {
    let mut weights = share;
    for k in (0..weights.len()).rev() {
        let known: f64 = (k + 1..weights.len()).map(|j| r[j][k] * weights[j]).sum();
        weights[k] = (weights[k] - known) / r[k][k];
    }
    weights
}

/// Left-out residuals with at least as many columns as systems. With P the inverse of the centred kernel (on what is
/// orthogonal to the constant), v = P x_t and s = x_tᵀ v, taking column t out of the kernel and its own left-out residual
/// come together as v / ((1 − s) diag P + v²).
fn by_kernel(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = columns[0].len();
    let mut kernel = vec![0.0; n * n];
    for column in columns {
        for (row, &x) in kernel.chunks_exact_mut(n).zip(column) {
            row.iter_mut().zip(column).for_each(|(k, y)| *k += x * y);
        }
    }
    let size = (0..n).map(|i| kernel[i * n + i]).sum::<f64>() / n as f64;
    if size == 0.0 {
        return vec![vec![0.0; n]; columns.len()];
    }
    for (i, row) in kernel.chunks_exact_mut(n).enumerate() {
        row.iter_mut().for_each(|k| *k += size / n as f64);
        row[i] += 1e-12 * size;
    }
    let mut inverse = inverse(kernel, n);
    let constant = 1.0 / (size * (1.0 + 1e-12)) / n as f64;
    inverse.iter_mut().for_each(|p| *p -= constant);
    let residuals = columns.iter().map(|column| {
        let v: Vec<f64> = inverse
            .chunks_exact(n)
            .map(|row| dot(row, column))
            .collect();
        let free = (1.0 - dot(&v, column)).max(0.0);
        let each = v.iter().enumerate();
        let each = each.map(|(i, &v)| match free * inverse[i * n + i] + v * v {
            0.0 => 0.0,
            down => v / down,
        });
        each.collect()
    });
    residuals.collect()
}

/// Inverse of a positive definite matrix by Gauss–Jordan elimination (no pivots needed).
fn inverse(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    for k in 0..n {
        let pivot = 1.0 / a[k * n + k];
        let mut row = a[k * n..(k + 1) * n].to_vec();
        row[k] = 1.0;
        row.iter_mut().for_each(|x| *x *= pivot);
        for (i, other) in a.chunks_exact_mut(n).enumerate() {
            if i == k {
                other.copy_from_slice(&row);
                continue;
            }
            let factor = other[k];
            other[k] = 0.0;
            other
                .iter_mut()
                .zip(&row)
                .for_each(|(x, r)| *x -= factor * r);
        }
    }
    a
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Scaled to mean 0 and deviation 1 (divided by n); `NaN` of a constant list.
fn scaled(values: &[f64]) -> Vec<f64> {
    let centre = mean(values.iter().copied());
    let deviation = mean(values.iter().map(|x| (x - centre).powi(2))).sqrt();
    values.iter().map(|x| (x - centre) / deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::matrix;
    use super::*;

    fn noise(i: usize, j: usize) -> f64 {
        let mixed = (i as u64 * 1009 + j as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn random(n: usize, m: usize) -> ScoreMatrix {
        let rows: Vec<Vec<f64>> = (0..n)
            .map(|i| (0..m).map(|j| noise(i, j)).collect())
            .collect();
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        matrix(&rows, &[])
    }

    #[test]
    fn gaps_go_with_the_row_or_column_that_has_most() {
        let no = f64::NAN;
        let rows: [&[f64]; 4] = [
            &[1.0, 2.0, 3.0],
            &[3.0, no, 5.0],
            &[2.0, 1.0, no],
            &[no, no, 1.0],
        ];
        let done = Complete::of(&matrix(&rows, &[])).unwrap();
        // The last system lacks 2 of 3; then the second and the third task tie with 1 of 3 (a task goes, the first such);
        // then the third system lacks 1 of 2.
        assert_eq!(done.systems_out, ["s3", "s2"]);
        assert_eq!(done.tasks_out, ["t1"]);
        assert_eq!(done.matrix.row(1), [3.0, 5.0]);
        assert!(Complete::of(&matrix(&[&[no]], &[])).is_err());
    }

    #[test]
    fn one_other_task_is_a_line_through_the_rest() {
        // Leaving out (1, 3): the line through (0, 0) and (2, 2) says 1.
        let m = matrix(&[&[0.0, 0.0], &[1.0, 3.0], &[2.0, 2.0]], &[]);
        let found = predictions(&m).unwrap();
        assert!((found[1].predicted[1] - 1.0).abs() < 1e-12);
        // Leaving out (0, 0): through (1, 3) and (2, 2), 4 at 0.
        assert!((found[1].predicted[0] - 4.0).abs() < 1e-12);
    }

    /// Left out by hand: least squares with an intercept over the other rows, by the normal equations.
    fn by_hand(m: &ScoreMatrix, target: usize, out: usize, least_norm: bool) -> f64 {
        let rows: Vec<usize> = (0..m.systems().len()).filter(|&s| s != out).collect();
        let others: Vec<usize> = (0..m.tasks().len()).filter(|&t| t != target).collect();
        let centre = |t: usize| mean(rows.iter().map(|&s| m.row(s)[t]));
        let x =
            |s: usize| -> Vec<f64> { others.iter().map(|&t| m.row(s)[t] - centre(t)).collect() };
        let y: Vec<f64> = rows
            .iter()
            .map(|&s| m.row(s)[target] - centre(target))
            .collect();
        let weights: Vec<f64> = if least_norm {
            // w = Xᵀ (X Xᵀ + 11ᵀ)⁻¹ y: X is centred, so the constant does not disturb.
            let n = rows.len();
            let cell = |i: usize| dot(&x(rows[i / n]), &x(rows[i % n])) + 1.0;
            let inverse = inverse((0..n * n).map(cell).collect(), n);
            let alpha: Vec<f64> = inverse.chunks_exact(n).map(|r| dot(r, &y)).collect();
            let weight = |t: usize| -> f64 { (0..n).map(|i| alpha[i] * x(rows[i])[t]).sum() };
            (0..others.len()).map(weight).collect()
        } else {
            let p = others.len();
            let cell = |i: usize| -> f64 { rows.iter().map(|&s| x(s)[i / p] * x(s)[i % p]).sum() };
            let inverse = inverse((0..p * p).map(cell).collect(), p);
            let moment = |t: usize| -> f64 { rows.iter().zip(&y).map(|(&s, y)| x(s)[t] * y).sum() };
            let moments: Vec<f64> = (0..p).map(moment).collect();
            inverse.chunks_exact(p).map(|r| dot(r, &moments)).collect()
        };
        centre(target) + dot(&weights, &x(out))
    }

    #[test]
    fn one_decomposition_is_as_many_fits() {
        for (systems, tasks) in [(9, 4), (9, 8), (7, 12), (7, 8), (7, 7)] {
            let m = random(systems, tasks);
            for (t, found) in predictions(&m).unwrap().iter().enumerate() {
                for (s, &predicted) in found.predicted.iter().enumerate() {
                    let direct = by_hand(&m, t, s, tasks >= systems);
                    let close = (predicted - direct).abs() <= 1e-6 * direct.abs().max(1.0);
                    assert!(close, "{systems} x {tasks}: {predicted} against {direct}");
                }
            }
        }
    }

    #[test]
    fn a_copy_is_predicted_and_left_out() {
        let base = random(8, 3);
        let rows: Vec<Vec<f64>> = (0..8)
            .map(|s| {
                let r = base.row(s);
                vec![r[0], r[1], r[2], 2.0 * r[1] + 1.0]
            })
            .collect();
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let m = matrix(&rows, &[]);
        let found = predictions(&m).unwrap();
        assert!(found[1].pearson > 1.0 - 1e-12 && found[3].pearson > 1.0 - 1e-12);
        assert!(found[0].pearson < 0.99);
        let run = Downsample {
            least: Some(0.999),
            ..Downsample::default()
        };
        let small = run.run(&m).unwrap();
        assert_eq!((&small.kept[..], small.removed.len()), (&[0, 2, 3][..], 1));
        let kept = Downsample {
            keep: vec![1],
            ..run.clone()
        };
        assert_eq!(kept.run(&m).unwrap().kept, [0, 1, 2]);
        let everything = Downsample {
            keep: vec![0, 1, 2, 3],
            ..run
        };
        assert!(everything.run(&m).unwrap().borda_agreement > 1.0 - 1e-12);
    }

    #[test]
    fn groups_keep_their_last_task() {
        let m = random(6, 4);
        let mut tasks = m.tasks().to_vec();
        for (task, group) in tasks.iter_mut().zip(["a", "b", "b", "b"]) {
            task.group = Some(group.into());
        }
        let cells = (0..6).flat_map(|s| m.row(s).to_vec()).collect();
        let m = ScoreMatrix::new(m.systems().to_vec(), tasks, cells).unwrap();
        let rules = Downsample {
            least: None,
            ..Downsample::default()
        };
        let small = rules.run(&m).unwrap();
        assert_eq!((small.kept[0], small.kept.len()), (0, 2));
    }

    #[test]
    fn bad_tables_are_refused() {
        assert!(predictions(&random(2, 4)).is_err());
        assert!(predictions(&random(4, 1)).is_err());
        let missing = matrix(&[&[1.0, f64::NAN], &[1.0, 2.0], &[3.0, 1.0]], &[]);
        assert!(predictions(&missing).is_err());
        let m = random(4, 3);
        assert!(
            Downsample {
                size: 1,
                ..Downsample::default()
            }
            .run(&m)
            .is_err()
        );
        assert!(
            Downsample {
                keep: vec![3],
                ..Downsample::default()
            }
            .run(&m)
            .is_err()
        );
    }
}
