//! What the order hangs on: one task or one system left out, orders compared.

use rayon::prelude::*;

use super::counting::Aggregate;
use super::linear::Linear;
use super::ranking::rank;
use crate::error::Result;
use crate::evaluate::aggregate::matrix::places;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::metric::correlation::{KendallVariant, kendall};

/// What leaving one task or one system out does to the order of the others.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Task or system that was left out.
    pub name: String,
    /// Kendall's τ-b of the others' values with and without it; 1 = the same order.
    pub tau: f64,
    /// Most places that a system moves, counted among the others, and which.
    pub moved: (usize, usize),
    /// Whether another system comes first (for a system left out: among the others).
    pub first: bool,
}

fn left_out(name: &str, before: &[f64], after: &[f64], keep: &[usize], good: Direction) -> LeftOut {
    let both: Vec<usize> = (0..keep.len())
        .filter(|&i| !before[i].is_nan() && !after[i].is_nan())
        .collect();
    let pick = |v: &[f64]| both.iter().map(|&i| v[i]).collect::<Vec<f64>>();
    let (a, b) = (pick(before), pick(after));
    let (was, is) = (places(&a, good), places(&b, good));
    let moves = was
        .iter()
        .zip(&is)
        .map(|(x, y)| x.unwrap_or(0).abs_diff(y.unwrap_or(0)));
    let most = moves
        .enumerate()
        .max_by_key(|&(i, m)| (m, std::cmp::Reverse(i)))
        .unwrap_or((0, 0));
    let top = |p: &[Option<usize>]| p.iter().position(|x| *x == Some(1));
    LeftOut {
        name: name.to_owned(),
        tau: kendall(&a, &b, KendallVariant::B).map_or(f64::NAN, |c| c.r),
        moved: (most.1, both.get(most.0).map_or(0, |&i| keep[i])),
        first: top(&was) != top(&is),
    }
}

/// Leaves out every task, then every system, once. Tasks and systems in the order of the table.
///
/// # Errors
/// What [`rank`] refuses on a smaller table.
pub fn stability(
    by: Aggregate,
    matrix: &ScoreMatrix,
    missing: Missing,
) -> Result<(Vec<LeftOut>, Vec<LeftOut>)> {
    let base = rank(by, matrix, missing, &[])?.standing.value;
    let good = by.good_in(matrix).unwrap_or_else(|| by.good());
    let (n, tasks) = (matrix.systems().len(), matrix.tasks().len());
    let all: Vec<usize> = (0..n).collect();
    let linear = Linear::of(by, matrix, missing);
    let without = |t: usize| {
        let mut times = vec![1.0; tasks];
        times[t] = 0.0;
        let after = match &linear {
            Some(linear) if !linear.is_strict() => linear.values(&times),
            _ => {
                let keep: Vec<usize> = (0..tasks).filter(|&k| k != t).collect();
                let part = matrix
                    .select(&all, &keep)
                    .map_err(|e| crate::MergeError::Internal(e.to_string()))?;
                rank(by, &part, missing, &[])?.standing.value
            }
        };
        Ok(left_out(&matrix.tasks()[t].name, &base, &after, &all, good))
    };
    let by_task = match tasks {
        1 => Vec::new(),
        _ => (0..tasks)
            .into_par_iter()
            .map(without)
            .collect::<Result<_>>()?,
    };
    let columns: Vec<usize> = (0..tasks).collect();
    let alone = |s: usize| {
        let keep: Vec<usize> = (0..n).filter(|&k| k != s).collect();
        let part = matrix
            .select(&keep, &columns)
            .map_err(|e| crate::MergeError::Internal(e.to_string()))?;
        let after = rank(by, &part, missing, &[])?.standing.value;
        let before: Vec<f64> = keep.iter().map(|&k| base[k]).collect();
        Ok(left_out(&matrix.systems()[s], &before, &after, &keep, good))
    };
    let by_system = match n {
        0..=2 => Vec::new(),
        _ => (0..n).into_par_iter().map(alone).collect::<Result<_>>()?,
    };
    Ok((by_task, by_system))
}

/// Two orders of the same systems.
#[derive(Debug, Clone)]
pub struct Disagreement {
    /// Kendall's τ-b.
    pub tau: f64,
    /// Pairs that the two order differently, and all pairs that both order.
    pub pairs: (usize, usize),
    /// Systems with their two places, the largest difference first; places among systems that have both.
    pub systems: Vec<(usize, usize, usize)>,
}

/// Compares two lists of values. O(n²).
pub fn disagreement(a: &[f64], a_good: Direction, b: &[f64], b_good: Direction) -> Disagreement {
    let both: Vec<usize> = (0..a.len())
        .filter(|&s| !a[s].is_nan() && !b[s].is_nan())
        .collect();
    let x: Vec<f64> = both.iter().map(|&s| a_good.oriented(a[s])).collect();
    let y: Vec<f64> = both.iter().map(|&s| b_good.oriented(b[s])).collect();
    let mut pairs = (0, 0);
    for i in 0..x.len() {
        for j in 0..i {
            let (p, q) = (x[i] - x[j], y[i] - y[j]);
            pairs.0 += usize::from(p * q < 0.0);
            pairs.1 += usize::from(p * q != 0.0);
        }
    }
    let (p, q) = (places(&x, Direction::Higher), places(&y, Direction::Higher));
    let rows = both.iter().zip(p.into_iter().zip(q));
    let mut systems: Vec<(usize, usize, usize)> = rows
        .map(|(&s, (p, q))| (s, p.unwrap_or(0), q.unwrap_or(0)))
        .filter(|(_, p, q)| p != q)
        .collect();
    systems.sort_by_key(|&(s, p, q)| (std::cmp::Reverse(p.abs_diff(q)), s));
    Disagreement {
        tau: kendall(&x, &y, KendallVariant::B).map_or(f64::NAN, |c| c.r),
        pairs,
        systems,
    }
}
