//! Numbers that are fitted: strengths from who beats whom, abilities from single answers.

use super::counting::Aggregate;
use super::import::{Answer, TaskAnswers};
use super::ranking::{refused, standing};
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::aggregate::comparisons::Comparisons;
use crate::evaluate::aggregate::irt::{Marginal, Model};
use crate::evaluate::aggregate::pairwise::{Estimator, Strengths, elo_scale, fit};
use crate::evaluate::aggregate::{Direction, ScoreMatrix, Standing};

/// Strengths on the Elo scale; pulled together where the comparisons do not fix them (α = 0.01, as ONEBench).
pub(super) fn strengths(
    by: Aggregate,
    matrix: &ScoreMatrix,
    comparisons: &Comparisons,
    note: &mut Option<String>,
) -> Result<Standing, EvalError> {
    let apart = comparisons.components();
    let found: Strengths = if apart.len() > 1 {
        *note = Some(format!(
            "{by}: some systems always win or lose, or never meet ({} groups): strengths are pulled together \
             (alpha 0.01) and gaps between groups mean little",
            apart.len()
        ));
        fit(comparisons, Estimator::Ridge, 0.01)?
    } else {
        fit(comparisons, Estimator::Ridge, 0.0)?
    };
    let mut met = vec![false; comparisons.items()];
    // Of the tasks that count: a draw leaves some out.
    for (t, _) in matrix.ranked() {
        let present: Vec<usize> = (0..met.len())
            .filter(|&s| !matrix.row(s)[t].is_nan())
            .collect();
        if present.len() > 1 {
            present.into_iter().for_each(|s| met[s] = true);
        }
    }
    let value = found.theta.iter().zip(met);
    let value = value.map(|(t, met)| if met { elo_scale(*t) } else { f64::NAN });
    Ok(standing(matrix, value.collect(), Direction::Higher))
}

/// Items above this are thinned for the fit, evenly: the ability of a system hardly moves, the time does.
const ITEMS: usize = 4000;

/// Abilities by item response theory, from answers that are right or wrong.
pub(super) fn abilities(
    matrix: &ScoreMatrix,
    answers: &[TaskAnswers],
    note: &mut Option<String>,
) -> Result<Standing> {
    let lacks = |what: &str| {
        MergeError::plan("no-answers", format!("irt: {what}"))
            .hint("give single answers: samples_*.jsonl of lm-eval, or tables with a row per system and example (0 or 1)")
    };
    let systems = matrix.systems().len();
    let mut items: Vec<Vec<Option<bool>>> = Vec::new();
    for task in answers {
        if matrix
            .tasks()
            .get(task.task)
            .is_none_or(|t| t.direction != Some(Direction::Higher))
        {
            continue;
        }
        for id in 0..task.ids.len() {
            let mut item = Vec::with_capacity(systems);
            for list in &task.answers {
                let value = list.get(id).copied().flatten().map(Answer::mean);
                item.push(match value {
                    None => None,
                    Some(x) if x == 0.0 || x == 1.0 => Some(x == 1.0),
                    Some(x) => {
                        let name = &matrix.tasks()[task.task].name;
                        return Err(lacks(&format!(
                            "task `{name}` has answers that score {x}, not 0 or 1"
                        )));
                    }
                });
            }
            if item.iter().flatten().count() > 1 {
                items.push(item);
            }
        }
    }
    if items.is_empty() || systems < 3 {
        return Err(lacks(if systems < 3 {
            "needs at least three systems"
        } else {
            "there are no single answers"
        }));
    }
    let step = items.len().div_ceil(ITEMS);
    let all = items.len();
    let items: Vec<_> = items.into_iter().step_by(step).collect();
    let rows: Vec<Vec<Option<bool>>> = (0..systems)
        .map(|s| items.iter().map(|i| i[s]).collect())
        .collect();
    // Few systems: one discrimination for all items, or it follows the noise.
    let model = if systems < 20 {
        Model::Shared
    } else {
        Model::PerItem
    };
    let marginal = Marginal {
        model,
        ..Marginal::default()
    };
    let fitted = marginal
        .fit(&rows)
        .map_err(|e| refused(Aggregate::Irt, &e))?;
    let value = rows.iter().map(|row| {
        if row.iter().flatten().next().is_none() {
            return Ok(f64::NAN);
        }
        // MAP: with thousands of answers the posterior is narrower than the points that EAP sums over.
        fitted.items.ability_map(row)
    });
    let value: Vec<f64> = value
        .collect::<Result<_, _>>()
        .map_err(|e| refused(Aggregate::Irt, &e))?;
    let kind = if systems < 20 {
        "one steepness for all items"
    } else {
        "a steepness per item"
    };
    let thin = if step > 1 {
        format!(" (every {step}th of {all})")
    } else {
        String::new()
    };
    let rest = if fitted.converged {
        ""
    } else {
        "; the fit did not come to rest"
    };
    *note = Some(format!(
        "irt: {} examples{thin}, {kind}{rest}; for difficulty, not for headlines",
        items.len()
    ));
    Ok(standing(matrix, value, Direction::Higher))
}
