//! Draws of examples, and of scores around what was measured.

use rayon::prelude::*;

use super::{Over, Settings, Uncertainty, affordable};
use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::board::answer_strengths;
use crate::evaluate::board::counting::Aggregate;
use crate::evaluate::board::import::{Answer, TaskAnswers};
use crate::evaluate::board::linear::Linear;
use crate::evaluate::board::ranking::rank;
use crate::evaluate::board::results::{Cell, Results};
use crate::evaluate::statistics::draw::{Draw, Seed};
use crate::evaluate::statistics::special::normal_quantile;

/// Values and places over draws of examples, where there are single answers behind every score that counts and each is
/// their mean; else of scores by their standard errors, where every score has one.
///
/// # Errors
/// Says what is lacking.
pub fn over_examples(
    by: Aggregate,
    results: &Results,
    answers: &[TaskAnswers],
    matrix: &ScoreMatrix,
    settings: &Settings,
) -> Result<Uncertainty, String> {
    let (systems, tasks) = (matrix.systems().len(), matrix.tasks().len());
    let costly = || format!("{by} takes too long to draw again on a table of this size");
    if by == Aggregate::Irt {
        return Err(costly());
    }
    if by.from_answers() {
        let seed = Seed::of("board: examples", &settings.seed.to_string());
        let rows = answer_strengths::drawn(by, matrix, answers, settings.draws, &seed);
        return rows
            .and_then(|rows| Uncertainty::new(Over::Examples, &rows, settings.level, by.good()))
            .ok_or_else(costly);
    }
    let mut counts = vec![false; tasks];
    by.tasks_of(matrix)
        .into_iter()
        .for_each(|t| counts[t] = true);
    let mut of_task: Vec<Option<&TaskAnswers>> = vec![None; tasks];
    for answers in answers.iter().filter(|a| counts[a.task]) {
        of_task[answers.task] = Some(answers);
    }
    let filled =
        || (0..systems * tasks).filter(|at| counts[at % tasks] && results.cells[*at].is_some());
    if filled().next().is_none() {
        return Err("there are no scores".into());
    }
    let errors: Vec<Option<f64>> = results
        .cells
        .iter()
        .map(|cell| cell.as_ref().and_then(Cell::standard_error))
        .collect();
    let behind = |at: usize| {
        let answers = of_task[at % tasks]?.answers.get(at / tasks)?;
        mean_of(answers.iter().flatten())
    };
    let stated = |at: usize| matrix.row(at / tasks)[at % tasks];
    let over = if filled().all(|at| {
        let score = stated(at);
        behind(at).is_some_and(|m| (m - score).abs() <= 1e-6 * score.abs().max(1.0))
    }) {
        Over::Examples
    } else if filled().all(|at| errors[at].is_some()) {
        Over::Errors
    } else {
        return Err("neither single answers nor standard errors are known for all scores".into());
    };
    let size: usize = match over {
        Over::Examples => of_task
            .iter()
            .flatten()
            .map(|a| a.ids.len() * systems)
            .sum(),
        _ => systems * tasks,
    };
    let cost = match by.reads_scale() {
        true => settings.draws,
        false => affordable(by, matrix, settings.draws),
    };
    let draws = cost.min(8e8 as usize / size.max(1));
    if draws < 50 {
        return Err(costly());
    }
    let seed = Seed::of("board: examples", &settings.seed.to_string());
    let one = |number: usize| {
        let mut draw = seed.draw(number as u64);
        let cells = match over {
            Over::Examples => redrawn(&of_task, systems, &mut draw),
            _ => noisy(matrix, &errors, &mut draw),
        };
        let drawn =
            ScoreMatrix::new(matrix.systems().to_vec(), matrix.tasks().to_vec(), cells).ok()?;
        match Linear::of(by, &drawn, settings.missing) {
            Some(linear) => Some(linear.values(&vec![1.0; tasks])),
            None => Some(rank(by, &drawn, settings.missing, &[]).ok()?.standing.value),
        }
    };
    let rows: Option<Vec<Vec<f64>>> = (0..draws).into_par_iter().map(one).collect();
    let found = rows.zip(by.good_in(matrix));
    found
        .and_then(|(rows, good)| Uncertainty::new(over, &rows, settings.level, good))
        .ok_or_else(costly)
}

fn mean_of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Option<f64> {
    let (sum, n) = answers.fold((0.0, 0.0), |(sum, n), a| (sum + a.mean(), n + 1.0));
    (n > 0.0).then(|| sum / n)
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
