//! Strengths from single answers and from ties, for the board.

use super::counting::Aggregate;
use super::import::{Answer, TaskAnswers};
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::aggregate::davidson::{WithTies, davidson};
use crate::evaluate::aggregate::games::Games;
use crate::evaluate::aggregate::pairwise::elo_scale;
use crate::evaluate::aggregate::samples::{Model, PULL, Samples};
use crate::evaluate::statistics::bootstrap::Bootstrap;
use crate::evaluate::statistics::draw::Seed;

/// The model of a way of counting that reads single answers.
fn model(by: Aggregate) -> Model {
    match by {
        Aggregate::PlackettLuceAnswers => Model::PlackettLuce,
        _ => Model::BradleyTerry,
    }
}

fn failed(by: Aggregate, error: &EvalError) -> MergeError {
    MergeError::plan("cannot-rank", format!("{by}: {error}"))
}

/// The answers as orders of the systems, example by example; tasks count by their weight, those without direction not at
/// all.
fn samples(matrix: &ScoreMatrix, answers: &[TaskAnswers]) -> Result<Samples, EvalError> {
    let systems = matrix.systems().len();
    let mut found = Samples::new(systems)?;
    for task in answers {
        let column = matrix.tasks().get(task.task).filter(|t| t.weight > 0.0);
        let Some((column, direction)) = column.and_then(|t| Some((t, t.direction?))) else {
            continue;
        };
        let rows: Vec<Vec<f64>> = (0..task.ids.len())
            .map(|id| {
                let score = |list: &Vec<Option<Answer>>| {
                    let answer = list.get(id).copied().flatten();
                    answer.map_or(f64::NAN, |a| direction.oriented(a.mean()))
                };
                task.answers.iter().map(score).collect()
            })
            .collect();
        if !rows.is_empty() {
            found.add_task(column.weight, rows.iter().map(|r| &r[..]))?;
        }
    }
    Ok(found)
}

/// Strengths on the Elo scale from single answers; `NaN` for a system that no example compares with another one.
pub(super) fn of_answers(
    by: Aggregate,
    matrix: &ScoreMatrix,
    answers: &[TaskAnswers],
    note: &mut Option<String>,
) -> Result<Vec<f64>> {
    let samples = samples(matrix, answers).map_err(|e| failed(by, &e))?;
    if samples.examples() == 0 || !samples.compared().contains(&true) {
        return Err(MergeError::plan(
            "no-answers",
            format!("{by}: there are no single answers of two systems on one example"),
        )
        .hint("give single answers: samples_*.jsonl of lm-eval, or tables with a row per system and example"));
    }
    let model = model(by);
    let (theta, pulled) = samples.fit(model, 0.0).map_err(|e| failed(by, &e))?;
    let form = match model {
        Model::PlackettLuce => "each system over all that are worse on it",
        _ => "all pairs, a tie is a win for each",
    };
    let mut said = format!(
        "{by}: {} examples, each an order of the systems measured on it; {form}",
        samples.examples()
    );
    if pulled {
        said += &format!(
            "; some systems always win or lose: strengths are pulled together (alpha {PULL})"
        );
    }
    *note = Some(said);
    Ok(theta.into_iter().map(elo_scale).collect())
}

/// Strengths of draws of examples within each task; `None` where they cost too much.
pub(super) fn drawn(
    by: Aggregate,
    matrix: &ScoreMatrix,
    answers: &[TaskAnswers],
    most: usize,
    seed: &Seed,
) -> Option<Vec<Vec<f64>>> {
    let samples = samples(matrix, answers).ok()?;
    let n = samples.systems() as f64;
    let each = samples.examples() as f64 + samples.orders() as f64 * n * n + 20.0 * n * n * n;
    let draws = ((4e9 / each) as usize).min(most);
    if draws < 50 {
        return None;
    }
    let bootstrap = Bootstrap::new(seed.clone()).with_draws(draws);
    let found = samples.intervals(model(by), 0.0, &bootstrap, 0.95).ok()?;
    let scaled = |row: Vec<f64>| row.into_iter().map(elo_scale).collect();
    Some(found.draws.into_iter().map(scaled).collect())
}

/// Davidson's strengths on the Elo scale; `NaN` for a system that meets no other.
pub(super) fn with_ties(
    by: Aggregate,
    matrix: &ScoreMatrix,
    note: &mut Option<String>,
) -> Result<Vec<f64>> {
    let games = Games::of_matrix(matrix);
    let (found, pulled): (WithTies, bool) = match davidson(&games, 0.0) {
        Err(EvalError::NotIdentifiable { .. }) => {
            (davidson(&games, PULL).map_err(|e| failed(by, &e))?, true)
        }
        other => (other.map_err(|e| failed(by, &e))?, false),
    };
    let mut said = format!(
        "{by}: two equally strong systems would tie on {:.0} % of the tasks",
        100.0 * found.tie_share()
    );
    if pulled {
        said += &format!(
            "; some systems always win or lose: strengths are pulled together (alpha {PULL})"
        );
    }
    *note = Some(said);
    let n = games.items();
    let meets = |a: usize| {
        let with = |b: usize| games.wins(a, b) + games.wins(b, a) + games.ties(a, b) > 0.0;
        (0..n).any(|b| b != a && with(b))
    };
    let theta = found.theta.iter().enumerate();
    Ok(theta
        .map(|(a, t)| if meets(a) { elo_scale(*t) } else { f64::NAN })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::ranking::rank;
    use super::super::uncertainty::{Over, Settings, over_examples};
    use super::*;
    use crate::evaluate::aggregate::TaskColumn;
    use crate::evaluate::aggregate::mean::Missing;
    use crate::evaluate::board::results::{Cell, Results, System, Task};

    /// Right and wrong answers by system.
    fn table(answers: &[&str]) -> (Results, TaskAnswers) {
        let list = |text: &&str| -> Vec<Option<Answer>> {
            let one = |c: char| {
                Some(Answer {
                    trials: 1,
                    sum: f64::from(u8::from(c == '1')),
                })
            };
            text.chars().map(one).collect()
        };
        let lists: Vec<_> = answers.iter().map(list).collect();
        let mean = |l: &Vec<Option<Answer>>| {
            Cell::new(l.iter().flatten().map(|a| a.sum).sum::<f64>() / l.len() as f64)
        };
        let results = Results {
            systems: (0..answers.len())
                .map(|i| System::new(format!("s{i}")))
                .collect(),
            tasks: vec![Task::new(TaskColumn::new("t"), "accuracy")],
            cells: lists.iter().map(|l| Some(mean(l))).collect(),
        };
        let answers = TaskAnswers {
            task: 0,
            ids: (0..answers[0].len()).map(|i| i.to_string()).collect(),
            answers: lists,
        };
        (results, answers)
    }

    #[test]
    fn answers_rank_systems_with_intervals() {
        // 0 beats 1 on three examples and loses one; on two both are right.
        let (results, answers) = table(&["111011", "000111"]);
        let matrix = results.matrix().unwrap();
        let answers = std::slice::from_ref(&answers);
        let of = |by| rank(by, &matrix, Missing::Strict, answers).unwrap();
        let pairs = of(Aggregate::BradleyTerryAnswers);
        // Ties count for both: 5 wins to 3.
        let gap = pairs.standing.value[0] - pairs.standing.value[1];
        assert!((gap - 400.0 * (5f64 / 3.0).log10()).abs() < 1e-6);
        assert!(pairs.note.unwrap().contains("6 examples"));
        let orders = of(Aggregate::PlackettLuceAnswers);
        let gap = orders.standing.value[0] - orders.standing.value[1];
        assert!((gap - 400.0 * 3f64.log10()).abs() < 1e-6);
        let by = Aggregate::BradleyTerryAnswers;
        let settings = Settings {
            draws: 500,
            ..Settings::default()
        };
        let drawn = over_examples(by, &results, answers, &matrix, &settings).unwrap();
        assert_eq!((drawn.over, drawn.draws), (Over::Examples, 500));
        assert_eq!(drawn.places[0], Some((1, 2)));
        assert!(drawn.best[0] > 0.6 && !drawn.resolved(0, 1));
        let told = rank(by, &matrix, Missing::Strict, &[]).unwrap_err();
        assert_eq!(told.code(), "no-answers");
    }

    #[test]
    fn ties_of_tasks_are_told_apart() {
        use crate::evaluate::aggregate::matrix::tests::matrix;
        let m = matrix(&[&[1.0, 1.0, 1.0, 0.0], &[1.0, 0.0, 0.0, 1.0]], &[]);
        let found = rank(Aggregate::Davidson, &m, Missing::Strict, &[]).unwrap();
        let gap = found.standing.value[0] - found.standing.value[1];
        assert!((gap - 400.0 * 2f64.log10()).abs() < 1e-6);
        // ν = ties / sqrt(wins losses) = 1 / sqrt 2: a share of ν / (2 + ν).
        assert!(found.note.unwrap().contains("26 %"));
    }
}
