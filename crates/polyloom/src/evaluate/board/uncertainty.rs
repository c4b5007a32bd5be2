//! How sure an order is: values and places over draws of tasks, of examples, or of scores around what was measured.

mod examples;

use rayon::prelude::*;

pub use examples::over_examples;

use super::counting::Aggregate;
use super::linear::Linear;
use super::ranking::rank;
use crate::evaluate::aggregate::matrix::places;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::draw::Seed;
use crate::evaluate::statistics::replicates::quantile_of_sorted;

/// What is drawn again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Tasks, with replacement: would other tasks of the kind give the same order?
    Tasks,
    /// Examples within each task, with replacement and the same ones for all systems: would other examples?
    Examples,
    /// Scores, from normal distributions with their standard errors, every cell by itself: systems count as unpaired,
    /// which is wider than the truth where they answered the same examples.
    Errors,
}

impl Over {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Examples => "examples",
            Self::Errors => "standard-errors",
        }
    }

    /// What was drawn: "1000 draws of ...".
    pub fn what(self) -> &'static str {
        match self {
            Self::Tasks => "the tasks",
            Self::Examples => "the examples (paired)",
            Self::Errors => "the scores by their standard errors (unpaired)",
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

/// How a table is counted and drawn again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// What gaps do.
    pub missing: Missing,
    /// Seed of the draws.
    pub seed: u64,
    /// Draws at most; a way of counting that is costly on a large table takes fewer.
    pub draws: usize,
    /// Level of the intervals, such as 0.95.
    pub level: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            missing: Missing::Strict,
            seed: 0,
            draws: 2000,
            level: 0.95,
        }
    }
}

/// Fewer tasks than this say nothing about other tasks: of two, every other draw holds one of them alone.
pub const FEW_TASKS: usize = 5;

/// Values and places over draws.
#[derive(Debug, Clone)]
pub struct Uncertainty {
    /// What was drawn.
    pub over: Over,
    /// Number of draws.
    pub draws: usize,
    /// Level of the intervals.
    pub level: f64,
    /// By system: first and last place of the middle draws, 1 = best, systems that tie sharing the smallest; a draw that
    /// gives it no value leaves all places open. `None` without a value in any.
    pub places: Vec<Option<(usize, usize)>>,
    /// By system: share of the draws in which it is first (shared first places are split).
    pub best: Vec<f64>,
    /// By system: the values of the middle draws.
    pub interval: Vec<Option<Interval>>,
    /// Row-major draws x systems.
    values: Vec<f64>,
    good: Direction,
}

impl Uncertainty {
    fn new(over: Over, rows: &[Vec<f64>], level: f64, good: Direction) -> Option<Self> {
        let systems = rows.first().map_or(0, Vec::len);
        if systems == 0 {
            return None;
        }
        let mut best = vec![0.0; systems];
        let mut found: Vec<Vec<f64>> = vec![Vec::with_capacity(rows.len()); systems];
        for row in rows {
            let at = places(row, good);
            let first: Vec<usize> = (0..systems).filter(|&s| at[s] == Some(1)).collect();
            first
                .iter()
                .for_each(|&s| best[s] += 1.0 / first.len() as f64);
            for (s, place) in at.into_iter().enumerate() {
                found[s].extend(place.map(|p| p as f64));
            }
        }
        best.iter_mut().for_each(|b| *b /= rows.len() as f64);
        let interval = (0..systems).into_par_iter();
        let interval = interval.map(|s| middle(rows.iter().map(|r| r[s]).collect(), level));
        // A draw without any task of a system leaves its place open: it may be the first or the last.
        let last = found.iter().filter(|list| !list.is_empty()).count() as f64;
        let ends = |list: Vec<f64>| {
            let absent = rows.len() - list.len();
            let with = |place: f64| {
                let open = std::iter::repeat_n(place, absent);
                middle(list.iter().copied().chain(open).collect(), level)
            };
            let (low, high) = (with(1.0)?.low, with(last)?.high);
            (!list.is_empty()).then(|| (low.floor() as usize, high.ceil() as usize))
        };
        Some(Self {
            over,
            draws: rows.len(),
            level,
            interval: interval.collect(),
            places: found.into_par_iter().map(ends).collect(),
            best,
            values: rows.concat(),
            good,
        })
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.best.len())
    }

    /// The middle draws of the difference of two systems, first less second; `None` where a draw has no value for both.
    pub fn difference(&self, first: usize, second: usize) -> Option<Interval> {
        middle(
            self.rows().map(|r| r[first] - r[second]).collect(),
            self.level,
        )
    }

    /// Whether `better` is better than `other` in so many draws (97.5 % at a level of 95 %). Draws in which the two tie,
    /// or one has no value, tell nothing apart.
    pub fn resolved(&self, better: usize, other: usize) -> bool {
        let value = |row: &[f64], s: usize| self.good.oriented(row[s]);
        let won = self.rows().filter(|r| value(r, better) > value(r, other));
        // The share is asked of counts: 0.975 of 2000 is 1950, not 1950.0000000000002.
        let needed = (1.0 - (1.0 - self.level) / 2.0) * self.draws as f64;
        won.count() as f64 >= needed - 1e-6
    }
}

/// The middle of a list, without its gaps.
fn middle(mut list: Vec<f64>, level: f64) -> Option<Interval> {
    list.retain(|x| !x.is_nan());
    list.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let at = |p| quantile_of_sorted(&list, p);
    (!list.is_empty()).then(|| Interval::new(at(tail), at(1.0 - tail)))
}

fn weighted(matrix: &ScoreMatrix, times: &[f64]) -> Option<ScoreMatrix> {
    let mut tasks = matrix.tasks().to_vec();
    tasks.iter_mut().zip(times).for_each(|(t, k)| t.weight *= k);
    let cells = (0..matrix.systems().len())
        .flat_map(|s| matrix.row(s).to_vec())
        .collect();
    ScoreMatrix::new(matrix.systems().to_vec(), tasks, cells).ok()
}

/// Draws that a way of counting can afford, by what one costs.
fn affordable(by: Aggregate, matrix: &ScoreMatrix, draws: usize) -> usize {
    let (n, t) = (matrix.systems().len() as f64, matrix.tasks().len() as f64);
    let each = match by {
        Aggregate::BradleyTerry => n * n * t + 20.0 * n * n * n,
        Aggregate::PlackettLuce => 20.0 * n * n * n * t,
        Aggregate::Kemeny if n > 9.0 => return 0,
        by if by.from_answers() => return 0,
        Aggregate::Davidson => n * n * t + 20.0 * n * n * n,
        _ => 20.0 * n * t,
    };
    let most = 2e9 / each;
    if most < 100.0 {
        0
    } else {
        (most as usize).min(draws)
    }
}

/// Values and places over draws of tasks.
///
/// # Errors
/// Says what the table lacks for it: tasks, a good end, a way of counting that can be paid.
pub fn over_tasks(
    by: Aggregate,
    matrix: &ScoreMatrix,
    settings: &Settings,
) -> Result<Uncertainty, String> {
    let used = by.tasks_of(matrix);
    if used.len() < FEW_TASKS {
        let tasks = match used.len() {
            1 => "1 task is".to_owned(),
            n => format!("{n} tasks are"),
        };
        return Err(format!("{tasks} too few to draw them again"));
    }
    let seed = Seed::of("board: tasks", &settings.seed.to_string());
    let linear = Linear::of(by, matrix, settings.missing);
    let draws = match linear {
        Some(_) => settings.draws,
        None => affordable(by, matrix, settings.draws),
    };
    let one = |number: usize| {
        let mut draw = seed.draw(number as u64);
        let mut times = vec![0.0; matrix.tasks().len()];
        used.iter()
            .for_each(|_| times[used[draw.index(used.len()) as usize]] += 1.0);
        match &linear {
            Some(linear) => Some(linear.values(&times)),
            None => Some(
                rank(by, &weighted(matrix, &times)?, settings.missing, &[])
                    .ok()?
                    .standing
                    .value,
            ),
        }
    };
    let rows: Option<Vec<Vec<f64>>> = (0..draws).into_par_iter().map(one).collect();
    let good = by.good_in(matrix);
    let found = rows.zip(good);
    found
        .and_then(|(rows, good)| Uncertainty::new(Over::Tasks, &rows, settings.level, good))
        .ok_or_else(|| format!("{by} takes too long to draw again on a table of this size"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::matrix::tests::matrix;
    use crate::evaluate::board::import::{Answer, TaskAnswers};
    use crate::evaluate::board::results::{Cell, Results, System, Task};

    fn results(matrix: &ScoreMatrix, error: Option<f64>) -> Results {
        let cell = |x: f64| {
            let mut cell = Cell::new(x);
            cell.stderr = error;
            (!x.is_nan()).then_some(cell)
        };
        let rows = 0..matrix.systems().len();
        Results {
            systems: matrix.systems().iter().map(System::new).collect(),
            tasks: matrix
                .tasks()
                .iter()
                .map(|t| Task::new(t.clone(), "x"))
                .collect(),
            cells: rows
                .flat_map(|s| matrix.row(s).to_vec())
                .map(cell)
                .collect(),
        }
    }

    #[test]
    fn a_clear_winner_and_two_alike() {
        // The first beats the others everywhere; the others win in turns.
        let rows: Vec<Vec<f64>> = vec![
            (0..12).map(|t| 0.9 + 0.001 * f64::from(t)).collect(),
            (0..12).map(|t| 0.5 + 0.1 * f64::from(t % 2)).collect(),
            (0..12).map(|t| 0.6 - 0.1 * f64::from(t % 2)).collect(),
        ];
        let m = matrix(&[&rows[0], &rows[1], &rows[2]], &[]);
        let settings = Settings {
            draws: 500,
            ..Settings::default()
        };
        for by in [
            Aggregate::Mean,
            Aggregate::WinRate,
            Aggregate::MeanRank,
            Aggregate::BradleyTerry,
        ] {
            let d = over_tasks(by, &m, &settings).unwrap();
            assert!(d.resolved(0, 1) && d.resolved(0, 2), "{by}");
            assert!(
                !d.resolved(2, 0) && !d.resolved(1, 2) && !d.resolved(2, 1),
                "{by}"
            );
            assert_eq!((d.places[0], d.best[0]), (Some((1, 1)), 1.0), "{by}");
            assert_eq!(d.places[1], Some((2, 3)), "{by}");
        }
        let mean = over_tasks(Aggregate::Mean, &m, &settings).unwrap();
        assert!(mean.interval[1].unwrap().contains(0.55));
        let apart = mean.difference(0, 1).unwrap();
        assert!(apart.low > 0.3 && apart.high < 0.42, "{apart:?}");
        // Zero errors: every draw is the table itself.
        let exact = results(&m, Some(0.0));
        let e = over_examples(Aggregate::Mean, &exact, &[], &m, &settings).unwrap();
        let value = e.interval[1].unwrap();
        assert!(e.over == Over::Errors && value.high - value.low < 1e-12);
        let none = results(&m, None);
        let why = over_examples(Aggregate::Mean, &none, &[], &m, &settings).unwrap_err();
        assert!(why.contains("standard errors"), "{why}");
    }

    #[test]
    fn a_draw_without_a_system_says_nothing_of_it() {
        // The last was measured on one task of six, and won it.
        let nan = f64::NAN;
        let m = matrix(
            &[
                &[0.5, 0.6, 0.5, 0.7, 0.5, 0.6],
                &[0.4, 0.7, 0.4, 0.5, 0.6, 0.5],
                &[0.9, nan, nan, nan, nan, nan],
            ],
            &[],
        );
        let d = over_tasks(Aggregate::BradleyTerry, &m, &Settings::default()).unwrap();
        // Drawn in 1 - (5/6)^6 = 67 % of the draws, and first in all of those: too few to be told apart.
        assert!((d.best[2] - 0.665).abs() < 0.04, "{:?}", d.best);
        assert_eq!(d.places[2], Some((1, 3)));
        assert!(!d.resolved(2, 0));
    }

    #[test]
    fn examples_are_the_same_for_all_systems() {
        let m = matrix(&[&[0.5], &[0.4]], &[]);
        let answer = |sum: f64| Some(Answer { trials: 1, sum });
        let mut answers = TaskAnswers {
            task: 0,
            ids: ["a", "b", "c", "d"].map(String::from).to_vec(),
            answers: vec![
                [1.0, 0.0, 1.0, 0.0].map(answer).to_vec(),
                [0.9, -0.1, 0.9, -0.1].map(answer).to_vec(),
            ],
        };
        let settings = Settings::default();
        let table = results(&m, None);
        let why = over_tasks(Aggregate::Mean, &m, &settings).unwrap_err();
        assert_eq!(why, "1 task is too few to draw them again");
        let of = |answers: &TaskAnswers| {
            let list = std::slice::from_ref(answers);
            over_examples(Aggregate::Mean, &table, list, &m, &settings)
        };
        let d = of(&answers).unwrap();
        let apart = d.difference(0, 1).unwrap();
        assert!((apart.low - 0.1).abs() < 1e-12 && (apart.high - 0.1).abs() < 1e-12);
        assert!(d.over == Over::Examples && d.resolved(0, 1) && !d.resolved(1, 0));
        // Answers whose mean is not the score (an F1, say) are not what the score is made of.
        answers.answers[1][0] = answer(0.0);
        assert!(of(&answers).is_err());
    }
}
