//! How firm an order is: places over draws of tasks and of examples, one task or one system left out, orders compared.

use rayon::prelude::*;

use super::import::{Answer, Imported, TaskAnswers};
use super::ranking::{Aggregate, rank};
use crate::error::Result;
use crate::evaluate::aggregate::matrix::places;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::relative::relative;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::metric::correlation::{KendallVariant, kendall};
use crate::evaluate::statistics::draw::{Draw, Seed};
use crate::evaluate::statistics::replicates::quantile_of_sorted;
use crate::evaluate::statistics::special::normal_quantile;

/// What is drawn again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Tasks, with replacement: would other tasks of the kind give the same order?
    Tasks,
    /// Examples, with replacement and the same ones for all systems.
    Examples,
    /// Scores, from normal distributions with their standard errors, every cell by itself: systems count as unpaired.
    Errors,
}

/// Places over draws.
#[derive(Debug, Clone)]
pub struct Uncertainty {
    /// What was drawn.
    pub over: Over,
    /// Number of draws.
    pub draws: usize,
    /// By system: the place at the 2.5 % and 97.5 % quantile of the draws; `None` without a value.
    pub places: Vec<Option<(usize, usize)>>,
    /// By system: share of the draws in which it is first (shared first places are split).
    pub best: Vec<f64>,
    /// By system: 95 % of the draws' values.
    pub interval: Vec<Option<(f64, f64)>>,
    /// Row-major draws x systems.
    values: Vec<f64>,
    good: Direction,
}

/// Draws of an interval.
const DRAWS: usize = 1000;

impl Uncertainty {
    fn new(over: Over, rows: &[Vec<f64>], systems: usize, good: Direction) -> Option<Self> {
        if rows.is_empty() || systems == 0 {
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
        let ends = |mut list: Vec<f64>| {
            list.retain(|x| !x.is_nan());
            list.sort_unstable_by(f64::total_cmp);
            (!list.is_empty()).then(|| {
                (
                    quantile_of_sorted(&list, 0.025),
                    quantile_of_sorted(&list, 0.975),
                )
            })
        };
        let interval = (0..systems)
            .map(|s| ends(rows.iter().map(|r| r[s]).collect()))
            .collect();
        let whole =
            |list| ends(list).map(|(low, high)| (low.floor() as usize, high.ceil() as usize));
        Some(Self {
            over,
            draws: rows.len(),
            places: found.into_iter().map(whole).collect(),
            best,
            interval,
            values: rows.concat(),
            good,
        })
    }

    /// Whether `a` is better than `b` in at least 97.5 % of the draws (a tie is half).
    pub fn resolved(&self, a: usize, b: usize) -> bool {
        let n = self.best.len();
        let won: f64 = self
            .values
            .chunks_exact(n)
            .map(|row| {
                match self
                    .good
                    .oriented(row[a])
                    .partial_cmp(&self.good.oriented(row[b]))
                {
                    Some(std::cmp::Ordering::Greater) => 1.0,
                    Some(std::cmp::Ordering::Equal) => 0.5,
                    _ => 0.0,
                }
            })
            .sum();
        won >= 0.975 * self.draws as f64
    }
}

/// What a system gets on a task, for ways of counting that add over the tasks.
struct Linear {
    tasks: usize,
    cells: Vec<f64>,
    weights: Vec<f64>,
    mean: bool,
    strict: bool,
}

impl Linear {
    fn of(by: Aggregate, matrix: &ScoreMatrix, missing: Missing) -> Option<Self> {
        let (systems, tasks) = (matrix.systems().len(), matrix.tasks().len());
        let mut weights: Vec<f64> = matrix.tasks().iter().map(|t| t.weight).collect();
        let mut cells = vec![f64::NAN; systems * tasks];
        let (mut mean, mut strict) = (true, missing == Missing::Strict);
        match by {
            Aggregate::Mean => (0..systems)
                .for_each(|s| cells[s * tasks..][..tasks].copy_from_slice(matrix.row(s))),
            Aggregate::DeltaM | Aggregate::Normalised => {
                for s in 0..systems {
                    let found = relative(matrix, s);
                    found.excluded.iter().for_each(|&t| weights[t] = 0.0);
                    for (t, gain) in found.per_task.iter().enumerate() {
                        cells[s * tasks + t] = match by {
                            Aggregate::DeltaM => *gain,
                            _ => matrix.row(s)[t] / matrix.tasks()[t].expert.unwrap_or(f64::NAN),
                        };
                    }
                }
            }
            Aggregate::Borda | Aggregate::BordaAll | Aggregate::MeanRank | Aggregate::WinRate => {
                (mean, strict) = (
                    matches!(by, Aggregate::MeanRank | Aggregate::WinRate),
                    false,
                );
                for t in 0..tasks {
                    let ranks = matrix.ranks(t);
                    let present = ranks.iter().filter(|r| !r.is_nan()).count() as f64;
                    if by == Aggregate::WinRate && present < 2.0 {
                        continue;
                    }
                    for (s, rank) in ranks.into_iter().enumerate() {
                        cells[s * tasks + t] = match by {
                            Aggregate::Borda => present - rank,
                            Aggregate::BordaAll => systems as f64 - rank,
                            Aggregate::WinRate => (present - rank) / (present - 1.0),
                            _ => rank,
                        };
                    }
                }
            }
            _ => return None,
        }
        Some(Self {
            tasks,
            cells,
            weights,
            mean,
            strict,
        })
    }

    fn values(&self, times: &[f64]) -> Vec<f64> {
        let row = |cells: &[f64]| {
            let (mut sum, mut weight, mut lacks) = (0.0, 0.0, false);
            for ((x, w), k) in cells.iter().zip(&self.weights).zip(times) {
                if x.is_nan() {
                    lacks |= *w > 0.0;
                } else {
                    sum += x * w * k;
                    weight += w * k;
                }
            }
            match (self.strict && lacks, self.mean) {
                (true, _) => f64::NAN,
                (_, true) => sum / weight,
                (_, false) => sum,
            }
        };
        self.cells.chunks_exact(self.tasks).map(row).collect()
    }
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
fn affordable(by: Aggregate, matrix: &ScoreMatrix) -> usize {
    let (n, t) = (matrix.systems().len() as f64, matrix.tasks().len() as f64);
    let each = match by {
        Aggregate::BradleyTerry => n * n * t + 20.0 * n * n * n,
        Aggregate::PlackettLuce => 20.0 * n * n * n * t,
        Aggregate::Kemeny if n > 9.0 => return 0,
        Aggregate::Irt => return 0,
        _ => 20.0 * n * t,
    };
    let most = 2e9 / each;
    if most < 100.0 {
        0
    } else {
        (most as usize).min(DRAWS)
    }
}

/// Places over draws of tasks; `None` where there is one task or the way of counting costs too much.
pub fn over_tasks(
    by: Aggregate,
    matrix: &ScoreMatrix,
    missing: Missing,
    seed: u64,
) -> Option<Uncertainty> {
    let used: Vec<usize> = (0..matrix.tasks().len())
        .filter(|&t| matrix.tasks()[t].weight > 0.0)
        .collect();
    if used.len() < 2 {
        return None;
    }
    let seed = Seed::of("board: tasks", &seed.to_string());
    let linear = Linear::of(by, matrix, missing);
    let draws = if linear.is_some() {
        DRAWS
    } else {
        affordable(by, matrix)
    };
    let one = |number: usize| {
        let mut draw = seed.draw(number as u64);
        let mut times = vec![0.0; matrix.tasks().len()];
        used.iter()
            .for_each(|_| times[used[draw.index(used.len()) as usize]] += 1.0);
        match &linear {
            Some(linear) => Some(linear.values(&times)),
            None => Some(
                rank(by, &weighted(matrix, &times)?, missing, &[])
                    .ok()?
                    .standing
                    .value,
            ),
        }
    };
    let rows: Option<Vec<Vec<f64>>> = (0..draws).into_par_iter().map(one).collect();
    Uncertainty::new(Over::Tasks, &rows?, matrix.systems().len(), by.good())
}

/// Places over draws of examples (where there are single answers for every cell) or of scores by their standard errors
/// (where every cell has one); else `None`.
pub fn over_examples(
    by: Aggregate,
    imported: &Imported,
    matrix: &ScoreMatrix,
    missing: Missing,
    seed: u64,
) -> Option<Uncertainty> {
    let results = &imported.results;
    let (systems, tasks) = (matrix.systems().len(), matrix.tasks().len());
    if by == Aggregate::Irt {
        return None;
    }
    let mut of_task: Vec<Option<&TaskAnswers>> = vec![None; tasks];
    for answers in &imported.answers {
        of_task[answers.task] = Some(answers);
    }
    let whole = (0..systems * tasks).all(|at| {
        let (s, t) = (at / tasks, at % tasks);
        results.cell(s, t).is_none() || of_task[t].is_some_and(|a| !a.answers[s].is_empty())
    });
    let errors: Vec<Option<f64>> = (0..systems * tasks)
        .map(|at| {
            results
                .cell(at / tasks, at % tasks)
                .and_then(super::results::Cell::standard_error)
        })
        .collect();
    let known = (0..errors.len()).all(|i| results.cells[i].is_none() || errors[i].is_some());
    let over = match (whole, known) {
        (true, _) => Over::Examples,
        (false, true) => Over::Errors,
        _ => return None,
    };
    let size: usize = match over {
        Over::Examples => imported.answers.iter().map(|a| a.ids.len() * systems).sum(),
        _ => systems * tasks,
    };
    let cost = affordable(by, matrix).max(if by.reads_scale() { DRAWS } else { 0 });
    let draws = cost.min(4e8 as usize / size.max(1)).min(DRAWS);
    if draws < 50 {
        return None;
    }
    let seed = Seed::of("board: examples", &seed.to_string());
    let one = |number: usize| {
        let mut draw = seed.draw(number as u64);
        let cells = match over {
            Over::Examples => redrawn(&of_task, systems, &mut draw),
            _ => noisy(matrix, &errors, &mut draw),
        };
        let drawn =
            ScoreMatrix::new(matrix.systems().to_vec(), matrix.tasks().to_vec(), cells).ok()?;
        Some(rank(by, &drawn, missing, &[]).ok()?.standing.value)
    };
    let rows: Option<Vec<Vec<f64>>> = (0..draws).into_par_iter().map(one).collect();
    Uncertainty::new(over, &rows?, systems, by.good())
}

fn redrawn(of_task: &[Option<&TaskAnswers>], systems: usize, draw: &mut Draw) -> Vec<f64> {
    let tasks = of_task.len();
    let mut cells = vec![f64::NAN; systems * tasks];
    for (t, answers) in of_task.iter().enumerate() {
        let Some(answers) = answers else { continue };
        let n = answers.ids.len();
        let drawn: Vec<u32> = (0..n).map(|_| draw.index(n)).collect();
        for (s, list) in answers
            .answers
            .iter()
            .enumerate()
            .filter(|(_, l)| !l.is_empty())
        {
            let (mut sum, mut count) = (0.0, 0.0);
            for answer in drawn.iter().filter_map(|&i| list[i as usize]) {
                sum += Answer::mean(answer);
                count += 1.0;
            }
            cells[s * tasks + t] = sum / count;
        }
    }
    cells
}

fn noisy(matrix: &ScoreMatrix, errors: &[Option<f64>], draw: &mut Draw) -> Vec<f64> {
    let tasks = matrix.tasks().len();
    let cell = |(at, error): (usize, &Option<f64>)| {
        // The middle of each of 2^53 equal parts: never 0 or 1.
        let z = normal_quantile(draw.unit() + 0.5 / (1u64 << 53) as f64);
        matrix.row(at / tasks)[at % tasks] + error.unwrap_or(0.0) * z
    };
    errors.iter().enumerate().map(cell).collect()
}

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
    let (n, tasks) = (matrix.systems().len(), matrix.tasks().len());
    let all: Vec<usize> = (0..n).collect();
    let linear = Linear::of(by, matrix, missing);
    let without = |t: usize| {
        let mut times = vec![1.0; tasks];
        times[t] = 0.0;
        let after = match &linear {
            Some(linear) if !linear.strict => linear.values(&times),
            _ => {
                let keep: Vec<usize> = (0..tasks).filter(|&k| k != t).collect();
                let part = matrix
                    .select(&all, &keep)
                    .map_err(|e| crate::MergeError::Internal(e.to_string()))?;
                rank(by, &part, missing, &[])?.standing.value
            }
        };
        Ok(left_out(
            &matrix.tasks()[t].name,
            &base,
            &after,
            &all,
            by.good(),
        ))
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
        Ok(left_out(
            &matrix.systems()[s],
            &before,
            &after,
            &keep,
            by.good(),
        ))
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
