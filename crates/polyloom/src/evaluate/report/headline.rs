//! The number that orders the leaderboard: a mean over tasks of what a system brings to each.

use crate::evaluate::aggregate::relative::normalised;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::rank::average_ranks;
use crate::evaluate::sum::Sum;

/// What orders the leaderboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankBy {
    /// Mean score; every task on one scale with one good end, nothing missing.
    Mean,
    /// Mean of 100 (score − chance) / (maximum − chance).
    Normalised,
    /// Mean relative difference to the tasks' experts.
    DeltaM,
    /// Mean place, ties averaged.
    MeanRank,
    /// Mean share of the other systems that are beaten, ties one half; takes missing cells and mixed metrics.
    WinRate,
}

impl RankBy {
    /// Its name in options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Normalised => "normalised",
            Self::DeltaM => "delta-m",
            Self::MeanRank => "mean-rank",
            Self::WinRate => "win-rate",
        }
    }

    /// Its name over a column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Normalised => "normalised",
            Self::DeltaM => "Δ to experts",
            Self::MeanRank => "mean rank",
            Self::WinRate => "win rate",
        }
    }

    /// What it is, for the sentence under the leaderboard.
    pub fn words(self) -> &'static str {
        match self {
            Self::Mean => "the mean score over tasks",
            Self::Normalised => "the mean of 100 (score − chance) / (maximum − chance) over tasks",
            Self::DeltaM => "the mean relative difference to the tasks' experts",
            Self::MeanRank => "the mean rank over tasks",
            Self::WinRate => {
                "the win rate: the share of the other systems that a system beats on a task, ties one half, as a mean over the tasks it was measured on (at least half of all)"
            }
        }
    }

    /// The first that the table allows: the mean where nothing is missing, all tasks have the same good end and all
    /// scores lie in 0 to 1 or all in 0 to 100; else the win rate.
    pub fn of(matrix: &ScoreMatrix) -> Self {
        let tasks: Vec<usize> = matrix.ranked().map(|(t, _)| t).collect();
        let direction = |t: usize| matrix.tasks()[t].direction;
        let one_end = tasks.windows(2).all(|w| direction(w[0]) == direction(w[1]));
        let mut scale = None;
        let complete = tasks.iter().all(|&t| {
            let highest = matrix.column(t).fold(0.0, f64::max);
            let lowest = matrix.column(t).fold(0.0, f64::min);
            let full = matrix.column(t).all(|x| !x.is_nan());
            // Shares stay within 1; a percentage column lies above it.
            let this = if highest <= 1.0 { 1.0 } else { 100.0 };
            full && lowest >= 0.0 && highest <= 100.0 && *scale.get_or_insert(this) == this
        });
        if one_end && complete && !tasks.is_empty() {
            Self::Mean
        } else {
            Self::WinRate
        }
    }
}

/// What every system brings to every task, on a scale where more is better.
#[derive(Debug, Clone)]
pub struct Headline {
    /// What it is made of.
    pub by: RankBy,
    /// The shown number is this times the mean: −1 where less is better.
    pub sign: f64,
    /// The tasks that count, with their weights.
    pub tasks: Vec<(usize, f64)>,
    /// By task of `tasks`, then by system; `NaN` where missing.
    pub brought: Vec<Vec<f64>>,
}

impl Headline {
    /// Of a table. Tasks without a good end or weight do not count.
    ///
    /// # Errors
    /// Says what the table lacks for it.
    pub fn of(matrix: &ScoreMatrix, by: RankBy) -> Result<Self, String> {
        let tasks: Vec<(usize, f64)> = matrix.ranked().map(|(t, task)| (t, task.weight)).collect();
        let named = |lacks: &dyn Fn(usize) -> bool| {
            let found = tasks.iter().find(|(t, _)| lacks(*t));
            found.map(|(t, _)| matrix.tasks()[*t].name.clone())
        };
        let task = |t: usize| &matrix.tasks()[t];
        if tasks.is_empty() {
            return Err("no task has a direction (higher or lower is better) and a weight".into());
        }
        let first = task(tasks[0].0).direction;
        match by {
            RankBy::Mean => {
                if let Some(name) = named(&|t| task(t).direction != first) {
                    return Err(format!(
                        "the mean needs one good end, and task `{name}` has another than the first"
                    ));
                }
            }
            RankBy::Normalised => {
                let lacks = |t: usize| task(t).chance.is_none() || task(t).maximum.is_none();
                if let Some(name) = named(&lacks) {
                    return Err(format!("task `{name}` states no chance and maximum"));
                }
            }
            RankBy::DeltaM => {
                let lacks = |t: usize| task(t).expert.is_none_or(|x| x == 0.0);
                if let Some(name) = named(&lacks) {
                    return Err(format!(
                        "task `{name}` states no score of an expert (or 0), which a relative difference needs"
                    ));
                }
            }
            RankBy::MeanRank | RankBy::WinRate => {}
        }
        let sign = match by {
            RankBy::Mean => first.map_or(1.0, |d| d.oriented(1.0)),
            RankBy::MeanRank => -1.0,
            _ => 1.0,
        };
        let brought = tasks.iter().map(|(t, _)| {
            let column: Vec<f64> = matrix.column(*t).collect();
            brought(matrix, by, *t, &column)
        });
        Ok(Self {
            by,
            sign,
            brought: brought.collect(),
            tasks,
        })
    }

    /// The mean over tasks, task i of `tasks` counted `times[i]` times; more is better. `NaN` where a counted task is
    /// missing; for the win rate and the mean rank, where less than half of them (by weight) were measured.
    pub fn value(&self, system: usize, times: &dyn Fn(usize) -> f64) -> f64 {
        let strict = !matches!(self.by, RankBy::WinRate | RankBy::MeanRank);
        let (mut total, mut weights, mut all) = (Sum::default(), 0.0, 0.0);
        for (i, ((_, weight), row)) in self.tasks.iter().zip(&self.brought).enumerate() {
            let weight = weight * times(i);
            if weight == 0.0 {
                continue;
            }
            all += weight;
            if row[system].is_nan() {
                if strict {
                    return f64::NAN;
                }
                continue;
            }
            total.add(weight * row[system]);
            weights += weight;
        }
        if weights < 0.5 * all {
            return f64::NAN;
        }
        total.total() / weights
    }

    /// The same number from another column of scores for each task: what a draw brings.
    pub fn with_scores(&self, matrix: &ScoreMatrix, columns: &[Vec<f64>]) -> Self {
        let rows = self.tasks.iter().zip(columns);
        Self {
            brought: rows
                .map(|((t, _), c)| brought(matrix, self.by, *t, c))
                .collect(),
            tasks: self.tasks.clone(),
            ..*self
        }
    }
}

/// What a column of raw scores brings to the systems.
fn brought(matrix: &ScoreMatrix, by: RankBy, task: usize, column: &[f64]) -> Vec<f64> {
    let info = &matrix.tasks()[task];
    let direction = info.direction.unwrap_or(Direction::Higher);
    match by {
        RankBy::Mean => column.iter().map(|x| direction.oriented(*x)).collect(),
        RankBy::Normalised => {
            let (low, high) = (info.chance.unwrap_or(0.0), info.maximum.unwrap_or(1.0));
            let share = |x: &f64| normalised(*x, low, high, false);
            column.iter().map(share).collect()
        }
        RankBy::DeltaM => {
            let expert = info.expert.unwrap_or(f64::NAN);
            let gain = |x: &f64| direction.oriented(x - expert) / expert;
            column.iter().map(gain).collect()
        }
        RankBy::MeanRank | RankBy::WinRate => {
            let present: Vec<usize> = (0..column.len()).filter(|&s| !column[s].is_nan()).collect();
            let worst_first: Vec<f64> = present
                .iter()
                .map(|&s| -direction.oriented(column[s]))
                .collect();
            let n = present.len() as f64;
            let mut found = vec![f64::NAN; column.len()];
            for (&s, rank) in present.iter().zip(average_ranks(&worst_first)) {
                found[s] = match by {
                    RankBy::MeanRank => -rank,
                    // One system alone beats nobody and loses to nobody: the task does not count.
                    _ => (n - rank) / (n - 1.0),
                };
            }
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::matrix::tests::matrix;

    #[test]
    fn headlines_by_hand() {
        let m = matrix(&[&[0.5, 3.0], &[0.7, 1.0], &[0.6, f64::NAN]], &[1]);
        assert_eq!(RankBy::of(&m), RankBy::WinRate);
        let wins = Headline::of(&m, RankBy::WinRate).unwrap();
        let all = |_: usize| 1.0;
        assert_eq!(wins.value(0, &all), 0.0);
        assert_eq!(wins.value(1, &all), 1.0);
        assert_eq!(wins.value(2, &all), 0.5);
        // The second task twice, the first not at all.
        assert!(wins.value(2, &|i| [0.0, 2.0][i]).is_nan());
        let ranks = Headline::of(&m, RankBy::MeanRank).unwrap();
        assert_eq!(ranks.sign * ranks.value(0, &all), 2.5);
        assert!(Headline::of(&m, RankBy::Mean).is_err());
        assert!(Headline::of(&m, RankBy::Normalised).is_err());
        let full = matrix(&[&[0.5, 0.3], &[0.7, 0.2]], &[]);
        assert_eq!(RankBy::of(&full), RankBy::Mean);
        let mean = Headline::of(&full, RankBy::Mean).unwrap();
        assert_eq!(mean.value(0, &all), 0.4);
        let drawn = mean.with_scores(&full, &[vec![1.0, 0.0], vec![0.0, 0.5]]);
        assert_eq!((drawn.value(0, &all), drawn.value(1, &all)), (0.5, 0.25));
        let lower = matrix(&[&[0.5, 0.3], &[0.7, 0.2]], &[0, 1]);
        let mean = Headline::of(&lower, RankBy::Mean).unwrap();
        assert_eq!((mean.sign, mean.value(0, &all)), (-1.0, -0.4));
    }
}
