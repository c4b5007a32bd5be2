//! How sure the order is: the leaderboard drawn again, over tasks, over examples, or from stated standard errors.

use rayon::prelude::*;

use super::headline::Headline;
use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::rank::average_ranks;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::draw::Seed;
use crate::evaluate::statistics::replicates::quantile_of_sorted;
use crate::evaluate::statistics::special::normal_quantile;

/// What was drawn again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Tasks, with replacement: would another collection of such tasks rank them so?
    Tasks,
    /// Examples within each task, with replacement, the same ones for all systems: would other examples?
    Examples,
    /// Scores around what was measured, from the standard error of each cell, systems independent: where systems met
    /// the same examples this is wider than the truth.
    Errors,
}

impl Basis {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Examples => "examples",
            Self::Errors => "standard-errors",
        }
    }

    /// What was done, for the sentence under a chart.
    pub fn words(self) -> &'static str {
        match self {
            Self::Tasks => "tasks drawn again with replacement",
            Self::Examples => {
                "examples drawn again within each task, the same ones for all systems"
            }
            Self::Errors => "scores drawn again from their standard errors, systems independent",
        }
    }
}

/// Headline values of many draws.
#[derive(Debug, Clone)]
pub struct Draws {
    /// What was drawn.
    pub basis: Basis,
    /// Level of the intervals, such as 0.95.
    pub level: f64,
    /// By draw, then by system; more is better, `NaN` where not defined.
    values: Vec<Vec<f64>>,
}

/// Scores of the examples of every counted task: `[task][system][example]`.
pub type ExampleScores = Vec<Vec<Vec<f64>>>;

/// What the draws say of a system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle of the headline values, more is better; `NaN` bounds where it is not defined.
    pub value: Interval,
    /// The middle of the places.
    pub rank: Interval,
    /// Share of the draws in which the system is first; several that tie share the draw.
    pub best: f64,
}

fn seed(what: &str) -> Seed {
    Seed::of("polyloom.report/1", what)
}

impl Draws {
    /// Tasks drawn again. O(draws · systems · tasks).
    pub fn over_tasks(headline: &Headline, systems: usize, draws: usize, level: f64) -> Self {
        let n = headline.tasks.len();
        let seed = seed("tasks");
        let one = |number: usize| {
            let mut draw = seed.draw(number as u64);
            let mut times = vec![0.0; n];
            for _ in 0..n {
                times[draw.index(n) as usize] += 1.0;
            }
            let value = |s| headline.value(s, &|i| times[i]);
            (0..systems).map(value).collect()
        };
        Self {
            basis: Basis::Tasks,
            level,
            values: (0..draws).into_par_iter().map(one).collect(),
        }
    }

    /// Examples drawn again within each task. O(draws · examples · systems).
    pub fn over_examples(
        headline: &Headline,
        matrix: &ScoreMatrix,
        examples: &ExampleScores,
        draws: usize,
        level: f64,
    ) -> Self {
        let seed = seed("examples");
        let one = |number: usize| {
            let mut draw = seed.draw(number as u64);
            let columns: Vec<Vec<f64>> = examples
                .iter()
                .map(|systems| {
                    let n = systems[0].len();
                    let drawn: Vec<u32> = (0..n).map(|_| draw.index(n)).collect();
                    let mean = |values: &Vec<f64>| {
                        drawn.iter().map(|i| values[*i as usize]).sum::<f64>() / n as f64
                    };
                    systems.iter().map(mean).collect()
                })
                .collect();
            values(&headline.with_scores(matrix, &columns), matrix)
        };
        Self {
            basis: Basis::Examples,
            level,
            values: (0..draws).into_par_iter().map(one).collect(),
        }
    }

    /// Scores drawn from their standard errors, `errors[task of the headline][system]`.
    pub fn over_errors(
        headline: &Headline,
        matrix: &ScoreMatrix,
        errors: &[Vec<f64>],
        draws: usize,
        level: f64,
    ) -> Self {
        let seed = seed("standard errors");
        let one = |number: usize| {
            let mut draw = seed.draw(number as u64);
            let columns: Vec<Vec<f64>> = headline
                .tasks
                .iter()
                .zip(errors)
                .map(|((t, _), errors)| {
                    let scores = matrix.column(*t).zip(errors);
                    scores
                        .map(|(x, e)| x + e * normal_quantile(draw.unit().max(1e-300)))
                        .collect()
                })
                .collect();
            values(&headline.with_scores(matrix, &columns), matrix)
        };
        Self {
            basis: Basis::Errors,
            level,
            values: (0..draws).into_par_iter().map(one).collect(),
        }
    }

    /// How many draws.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Intervals of every system's value and place.
    pub fn spreads(&self, systems: usize) -> Vec<Spread> {
        let mut places: Vec<Vec<f64>> = vec![Vec::with_capacity(self.count()); systems];
        let mut best = vec![0.0; systems];
        for row in &self.values {
            let present: Vec<usize> = (0..systems).filter(|&s| !row[s].is_nan()).collect();
            let turned: Vec<f64> = present.iter().map(|&s| -row[s]).collect();
            let top = turned.iter().copied().fold(f64::INFINITY, f64::min);
            let first = turned.iter().filter(|x| **x == top).count() as f64;
            for ((&s, rank), value) in present.iter().zip(average_ranks(&turned)).zip(&turned) {
                places[s].push(rank);
                if *value == top {
                    best[s] += 1.0 / first;
                }
            }
        }
        places
            .into_par_iter()
            .enumerate()
            .map(|(s, places)| Spread {
                value: self.middle(self.values.iter().map(|row| row[s]).collect()),
                rank: self.middle(places),
                best: best[s] / self.count() as f64,
            })
            .collect()
    }

    /// Interval of the difference of two systems, first less second.
    pub fn difference(&self, first: usize, second: usize) -> Interval {
        let rows = self.values.iter();
        self.middle(rows.map(|row| row[first] - row[second]).collect())
    }

    /// Whether the difference of two systems leaves 0 out.
    pub fn resolved(&self, first: usize, second: usize) -> bool {
        let found = self.difference(first, second);
        found.low > 0.0 || found.high < 0.0
    }

    fn middle(&self, mut values: Vec<f64>) -> Interval {
        values.retain(|x| !x.is_nan());
        if values.is_empty() {
            return Interval::new(f64::NAN, f64::NAN);
        }
        values.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        let at = |p| quantile_of_sorted(&values, p);
        Interval::new(at(tail), at(1.0 - tail))
    }
}

fn values(headline: &Headline, matrix: &ScoreMatrix) -> Vec<f64> {
    let systems = matrix.systems().len();
    (0..systems).map(|s| headline.value(s, &|_| 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::headline::RankBy;
    use super::*;
    use crate::evaluate::aggregate::matrix::tests::matrix;

    #[test]
    fn a_clear_winner_and_two_alike() {
        // The first beats the others everywhere; the others win in turns.
        let rows: Vec<Vec<f64>> = vec![
            (0..12).map(|t| 0.9 + 0.001 * f64::from(t)).collect(),
            (0..12).map(|t| 0.5 + 0.1 * f64::from(t % 2)).collect(),
            (0..12).map(|t| 0.6 - 0.1 * f64::from(t % 2)).collect(),
        ];
        let m = matrix(&[&rows[0], &rows[1], &rows[2]], &[]);
        let h = Headline::of(&m, RankBy::Mean).unwrap();
        let d = Draws::over_tasks(&h, 3, 500, 0.95);
        assert!(d.resolved(0, 1) && d.resolved(2, 0) && !d.resolved(1, 2));
        let s = d.spreads(3);
        assert_eq!((s[0].rank.low, s[0].rank.high, s[0].best), (1.0, 1.0, 1.0));
        assert_eq!((s[1].rank.low, s[1].rank.high), (2.0, 3.0));
        assert!(s[1].value.contains(0.55));
        // Zero errors: every draw is the table itself.
        let e = Draws::over_errors(&h, &m, &vec![vec![0.0; 3]; 12], 20, 0.95);
        let value = e.spreads(3)[1].value;
        assert!((value.high - value.low).abs() < 1e-12);
        // Examples that are all alike draw themselves; systems see the same examples.
        let examples = vec![vec![vec![1.0, 0.0, 1.0, 0.0], vec![0.9, -0.1, 0.9, -0.1]]; 1];
        let two = matrix(&[&[0.5], &[0.4]], &[]);
        let h = Headline::of(&two, RankBy::Mean).unwrap();
        let d = Draws::over_examples(&h, &two, &examples, 200, 0.95);
        let difference = d.difference(0, 1);
        assert!((difference.low - 0.1).abs() < 1e-12 && (difference.high - 0.1).abs() < 1e-12);
        assert!(d.resolved(0, 1));
    }
}
