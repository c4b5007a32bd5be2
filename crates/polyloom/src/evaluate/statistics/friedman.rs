//! Several systems on several tasks: is there any difference (Friedman), which mean ranks differ (Nemenyi), and the
//! groups that a critical-difference diagram joins with a bar. Source: Demšar, "Statistical comparisons of classifiers
//! over multiple data sets" (2006).

use super::special::{chi2_sf, f_sf, range_quantile};
use super::{check_finite, check_level};
use crate::evaluate::error::{EvalError, Result};
use crate::evaluate::rank::average_ranks;
use crate::evaluate::sum::{Sum, mean, sum};

/// Refuses anything but one row of finite scores per task, as long as the first.
pub(super) fn check_table(what: &'static str, tasks: &[Vec<f64>], systems: usize) -> Result<()> {
    if tasks.is_empty() {
        return Err(EvalError::Empty { what });
    }
    for (i, row) in tasks.iter().enumerate() {
        if row.len() != systems {
            let problem = format!(
                "task {i} has {} systems, the first has {systems}",
                row.len()
            );
            return Err(EvalError::invalid(what, problem));
        }
        check_finite(what, row)?;
    }
    if systems < 2 {
        let problem = format!("{systems} system; comparing needs two");
        return Err(EvalError::invalid(what, problem));
    }
    Ok(())
}

/// Ranks of scores, 1 the highest, ties sharing the mean.
pub(super) fn ranks_from_best(scores: &[f64]) -> Vec<f64> {
    let turned: Vec<f64> = scores.iter().map(|x| -x).collect();
    average_ranks(&turned)
}

/// Friedman's test with the correction of Iman and Davenport.
#[derive(Debug, Clone, PartialEq)]
pub struct Friedman {
    /// Friedman's statistic, corrected for ties; `NaN` where all systems tie on every task.
    pub chi2: f64,
    /// Its p-value with k - 1 degrees of freedom; too large for few tasks.
    pub p: f64,
    /// Iman and Davenport's `(n-1) chi2 / (n(k-1) - chi2)` (1980); infinite where all tasks order the systems alike.
    pub f: f64,
    /// Its p-value with k - 1 and (k-1)(n-1) degrees of freedom; `NaN` for one task. The one to report.
    pub f_p: f64,
    /// Mean rank of each system, 1 the best.
    pub mean_ranks: Vec<f64>,
}

/// Whether systems differ, from the ranks of their scores (higher is better) on each task: one row per task, one column
/// per system.
///
/// Cost: O(n k log k). Peer: `scipy.stats.friedmanchisquare`, which wants three systems; two are served too.
///
/// # Errors
/// No tasks, fewer than two systems, rows of different lengths, or a score that is not finite.
pub fn friedman(tasks: &[Vec<f64>]) -> Result<Friedman> {
    let systems = tasks.first().map_or(0, Vec::len);
    check_table("Friedman's test", tasks, systems)?;
    let (n, k) = (tasks.len() as f64, systems as f64);
    let mut totals = vec![Sum::default(); systems];
    let mut tied = Sum::default();
    for row in tasks {
        let ranks = ranks_from_best(row);
        ranks.iter().zip(&mut totals).for_each(|(r, t)| t.add(*r));
        let mut sorted = ranks;
        sorted.sort_unstable_by(f64::total_cmp);
        for group in sorted.chunk_by(|a, b| a == b) {
            let t = group.len() as f64;
            tied.add(t * (t * t - 1.0));
        }
    }
    let mean_ranks: Vec<f64> = totals.iter().map(Sum::mean).collect();
    // Around the mean rank: the textbook's difference of large squares loses digits.
    let squares = sum(mean_ranks.iter().map(|r| (r - (k + 1.0) / 2.0).powi(2)));
    let correction = 1.0 - tied.total() / (n * k * (k * k - 1.0));
    let chi2 = if correction <= 0.0 {
        f64::NAN
    } else {
        12.0 * n / (k * (k + 1.0)) * squares / correction
    };
    let rest = n * (k - 1.0) - chi2;
    // All tasks alike leave nothing but rounding.
    let f = if rest <= 1e-12 * chi2 {
        f64::INFINITY
    } else {
        (n - 1.0) * chi2 / rest
    };
    Ok(Friedman {
        chi2,
        p: chi2_sf(chi2, k - 1.0),
        f,
        f_p: f_sf(f, k - 1.0, (k - 1.0) * (n - 1.0)),
        mean_ranks,
    })
}

/// Nemenyi's critical difference of mean ranks, `q sqrt(k(k+1)/(6n))` with `q` the studentized range's quantile over the
/// root of 2, for `systems` on `tasks` at `level` (0.95 for alpha = 0.05).
///
/// # Errors
/// Fewer than two systems, no tasks, or a level outside (0, 1).
pub fn nemenyi_critical_difference(systems: usize, tasks: usize, level: f64) -> Result<f64> {
    const WHAT: &str = "critical difference";
    check_level(WHAT, level)?;
    if systems < 2 || tasks == 0 {
        let problem = format!("{systems} systems on {tasks} tasks");
        return Err(EvalError::invalid(WHAT, problem));
    }
    let (k, n) = (systems as f64, tasks as f64);
    Ok(nemenyi_q(systems, level) * (k * (k + 1.0) / (6.0 * n)).sqrt())
}

/// The `q` of Nemenyi's test: quantile at `level` of the range of `systems` standard normal values, over the root of 2.
/// `NaN` for fewer than two systems.
pub fn nemenyi_q(systems: usize, level: f64) -> f64 {
    range_quantile(level, systems) / std::f64::consts::SQRT_2
}

/// Groups of systems that are not told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cliques {
    /// The systems by mean rank, the best first; ties keep their order.
    pub order: Vec<usize>,
    /// First and last place in `order` of each group; no group lies within another, none has one member only.
    pub groups: Vec<(usize, usize)>,
}

/// The longest runs of systems, by mean rank, of which no two are told apart: `same(i, j)` says whether the systems `i`
/// and `j` are not. For Nemenyi that is `(rank[i] - rank[j]).abs() <= cd`; for Wilcoxon–Holm, an adjusted p-value above
/// alpha.
///
/// Cost: O(k^2) calls of `same`.
pub fn cliques(mean_ranks: &[f64], same: impl Fn(usize, usize) -> bool) -> Cliques {
    let mut order: Vec<usize> = (0..mean_ranks.len()).collect();
    order.sort_by(|&a, &b| mean_ranks[a].total_cmp(&mean_ranks[b]));
    let mut groups = Vec::new();
    let mut reached = 0;
    for first in 0..order.len() {
        let fits = |last: usize| (first..last).all(|p| same(order[p], order[last]));
        let mut last = first;
        while last + 1 < order.len() && fits(last + 1) {
            last += 1;
        }
        if last > first && last > reached {
            groups.push((first, last));
            reached = last;
        }
    }
    Cliques { order, groups }
}

/// Mean score of each system over the tasks: the other order beside the mean ranks.
pub(super) fn mean_scores(tasks: &[Vec<f64>], systems: usize) -> Vec<f64> {
    let of = |system: usize| mean(tasks.iter().map(|row| row[system]));
    (0..systems).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn four_tasks_by_hand() {
        // Ranks 1 2 3, 1 2 3, 1 3 2, 2 1 3: mean ranks 1.25, 2, 2.75.
        let tasks = [
            [9.0, 5.0, 1.0],
            [3.0, 2.0, 1.0],
            [3.0, 1.0, 2.0],
            [2.0, 3.0, 1.0],
        ];
        let found = friedman(&tasks.map(Vec::from)).unwrap();
        assert_eq!(found.mean_ranks, [1.25, 2.0, 2.75]);
        // 12 * 4 / 12 * (0.5625 + 0.5625) = 4.5; (3 * 4.5) / (8 - 4.5).
        assert_eq!(found.chi2, 4.5);
        assert!((found.f - 13.5 / 3.5).abs() < 1e-15);
        assert!((found.p - (-2.25f64).exp()).abs() < 1e-15);
    }

    #[test]
    fn edges() {
        let alike = friedman(&[vec![2.0, 1.0], vec![5.0, 4.0]]).unwrap();
        assert_eq!((alike.chi2, alike.f, alike.f_p), (2.0, f64::INFINITY, 0.0));
        let tied = friedman(&[vec![1.0, 1.0], vec![4.0, 4.0]]).unwrap();
        assert!(tied.chi2.is_nan() && tied.p.is_nan() && tied.f_p.is_nan());
        assert!(friedman(&[]).is_err() && friedman(&[vec![1.0]]).is_err());
        assert!(friedman(&[vec![1.0, 2.0], vec![1.0]]).is_err());
        assert!(friedman(&[vec![1.0, f64::NAN]]).is_err());
    }

    #[test]
    fn groups_of_a_diagram() {
        let ranks = [3.0, 1.0, 1.6, 5.0, 2.2];
        let found = cliques(&ranks, |i, j| (ranks[i] - ranks[j]).abs() <= 1.4);
        assert_eq!(found.order, [1, 2, 4, 0, 3]);
        assert_eq!(found.groups, [(0, 2), (1, 3)]);
        assert!(cliques(&ranks, |_, _| false).groups.is_empty());
        assert_eq!(cliques(&ranks, |_, _| true).groups, [(0, 4)]);
    }

    #[test]
    fn critical_difference_of_two_systems() {
        // q is the normal quantile for two systems.
        let found = nemenyi_critical_difference(2, 9, 0.95).unwrap();
        assert!((found - 1.959_963_984_540_054 / 3.0).abs() < 1e-12);
        assert!(nemenyi_critical_difference(1, 9, 0.95).is_err());
    }

    proptest! {
        #[test]
        fn order_of_tasks_does_not_matter(tasks in prop::collection::vec(prop::collection::vec(0i32..5, 3), 2..12)) {
            let tasks: Vec<Vec<f64>> = tasks.iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
            let backwards: Vec<Vec<f64>> = tasks.iter().rev().cloned().collect();
            let (there, back) = (friedman(&tasks).unwrap(), friedman(&backwards).unwrap());
            prop_assert_eq!(there.chi2.to_bits(), back.chi2.to_bits());
            prop_assert_eq!(&there.mean_ranks, &back.mean_ranks);
            prop_assert!((sum(there.mean_ranks.iter().copied()) - 6.0).abs() < 1e-12);
        }
    }
}
