//! One number per system and its places, by any way of counting.

use super::answer_strengths;
use super::counting::Aggregate;
use super::import::TaskAnswers;
use super::strengths::{abilities, strengths};
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::aggregate::comparisons::Comparisons;
use crate::evaluate::aggregate::kemeny::{Kemeny, kemeny};
use crate::evaluate::aggregate::mean::{Missing, group_mean, size_weighted_mean, task_mean};
use crate::evaluate::aggregate::ranking::{
    Borda, Middle, Preferences, borda, copeland, mean_rank, win_rate,
};
use crate::evaluate::aggregate::relative::{delta_m, normalised_mean, relative};
use crate::evaluate::aggregate::synergy::synergy_of_matrix;
use crate::evaluate::aggregate::{Direction, ScoreMatrix, Standing};

/// Numbers, places and a remark.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// How they were made.
    pub by: Aggregate,
    /// Numbers and places.
    pub standing: Standing,
    /// The good end of the numbers on this table, if they have one.
    pub good: Option<Direction>,
    /// What the reader should know: not unique, regularised.
    pub note: Option<String>,
}

pub(super) fn refused(by: Aggregate, error: &EvalError) -> MergeError {
    let error = MergeError::plan("cannot-rank", format!("{by}: {error}"));
    match by {
        Aggregate::SizeMean => error.hint("the files must say `n`, the number of examples"),
        Aggregate::GroupMean => error.hint("the files must give every task a group (column `group` or `type`)"),
        Aggregate::AboveChance => error.hint("the files must give every task `chance` and `maximum`"),
        Aggregate::Synergy => {
            error.hint("tasks need groups comprehension, generation and language, scores 0 to 100, and --expert")
        }
        _ => error,
    }
}

/// Ranks the systems of a table.
///
/// # Errors
/// What the way of counting needs and the table lacks: sizes, groups, experts, single answers.
pub fn rank(
    by: Aggregate,
    matrix: &ScoreMatrix,
    missing: Missing,
    answers: &[TaskAnswers],
) -> Result<Ranked> {
    let fail = |e: EvalError| refused(by, &e);
    let mut note = None;
    let standing = match by {
        Aggregate::Mean => task_mean(matrix, missing),
        Aggregate::SizeMean => size_weighted_mean(matrix, missing).map_err(fail)?,
        Aggregate::GroupMean => group_mean(matrix, missing).map_err(fail)?,
        Aggregate::AboveChance => normalised_mean(matrix, missing, true).map_err(fail)?,
        Aggregate::Normalised | Aggregate::DeltaM => {
            against_experts(by, matrix, missing, &mut note)?
        }
        Aggregate::Borda => borda(matrix, Borda::Beaten),
        Aggregate::BordaAll => borda(matrix, Borda::AllSystems),
        Aggregate::MeanRank => covered(by, matrix, missing, mean_rank(matrix), &mut note),
        Aggregate::WinRate => {
            let rates = win_rate(matrix, Middle::Mean);
            covered(by, matrix, missing, rates, &mut note)
        }
        Aggregate::Copeland => copeland(matrix),
        Aggregate::Kemeny => by_kemeny(matrix, &mut note),
        Aggregate::BradleyTerry => {
            let all = Comparisons::pooled(matrix);
            strengths(by, matrix, &all, &mut note).map_err(fail)?
        }
        Aggregate::PlackettLuce => {
            let all = Comparisons::choices_of_matrix(matrix);
            strengths(by, matrix, &all, &mut note).map_err(fail)?
        }
        Aggregate::Davidson => {
            let value = answer_strengths::with_ties(by, matrix, &mut note)?;
            standing(matrix, value, Direction::Higher)
        }
        Aggregate::BradleyTerryAnswers | Aggregate::PlackettLuceAnswers => {
            let value = answer_strengths::of_answers(by, matrix, answers, &mut note)?;
            standing(matrix, value, Direction::Higher)
        }
        Aggregate::Irt => abilities(matrix, answers, &mut note)?,
        Aggregate::Synergy => {
            let found = synergy_of_matrix(matrix, "comprehension", "generation", "language")
                .map_err(fail)?;
            let spread: Vec<String> = found
                .iter()
                .zip(matrix.systems())
                .take(6)
                .map(|(s, name)| {
                    format!(
                        "{name} {:.1}/{:.1}/{:.1}/{:.1}",
                        s.level_2, s.level_3, s.level_4, s.level_5
                    )
                })
                .collect();
            note = Some(format!("General-Level 2/3/4/5: {}", spread.join("; ")));
            standing(
                matrix,
                found.iter().map(|s| s.level_4).collect(),
                Direction::Higher,
            )
        }
    };
    let good = by.good_in(matrix);
    Ok(Ranked {
        by,
        standing,
        good,
        note,
    })
}

/// The systems that were measured on at least half as many tasks (by weight) as the one that was measured on most: a
/// mean over fewer says what they are good at, not how good they are.
pub(super) fn well_covered(matrix: &ScoreMatrix) -> Vec<bool> {
    let ranked: Vec<(usize, f64)> = matrix.ranked().map(|(t, task)| (t, task.weight)).collect();
    let weight = |s: usize| {
        let present = ranked.iter().filter(|(t, _)| !matrix.row(s)[*t].is_nan());
        present.map(|(_, w)| w).sum::<f64>()
    };
    let weights: Vec<f64> = (0..matrix.systems().len()).map(weight).collect();
    let most = weights.iter().copied().fold(0.0, f64::max);
    weights.iter().map(|w| *w >= 0.5 * most).collect()
}

/// Takes the numbers of systems away that were measured on too few tasks, under the strict rule.
fn covered(
    by: Aggregate,
    matrix: &ScoreMatrix,
    missing: Missing,
    found: Standing,
    note: &mut Option<String>,
) -> Standing {
    let enough = well_covered(matrix);
    if missing == Missing::Skip || enough.iter().all(|x| *x) {
        return found;
    }
    let without = enough.iter().filter(|x| !**x).count();
    *note = Some(format!(
        "{by}: {without} of {} systems have no place: they were measured on less than half as many tasks as the best \
         covered one (--missing skip counts what they have)",
        enough.len()
    ));
    let value = found.value.iter().zip(enough);
    let value = value.map(|(x, enough)| if enough { *x } else { f64::NAN });
    Standing::new(value.collect(), found.missing, Some(by.good()))
}

pub(super) fn standing(matrix: &ScoreMatrix, value: Vec<f64>, good: Direction) -> Standing {
    let missing =
        (0..matrix.systems().len()).map(|s| matrix.row(s).iter().filter(|x| x.is_nan()).count());
    let missing = missing.collect();
    Standing::new(value, missing, Some(good))
}

fn against_experts(
    by: Aggregate,
    matrix: &ScoreMatrix,
    missing: Missing,
    note: &mut Option<String>,
) -> Result<Standing> {
    if matrix.tasks().iter().all(|t| t.expert.is_none()) {
        return Err(MergeError::plan(
            "no-expert",
            format!("{by}: no task has the score of an expert"),
        )
        .hint(
            "--expert SYSTEM takes a row of the table, --expert FILE a file with task and value",
        ));
    }
    let first = relative(matrix, 0);
    let without = first
        .excluded
        .iter()
        .filter(|&&t| matrix.tasks()[t].weight > 0.0)
        .count();
    if without > 0 {
        *note = Some(format!(
            "{by}: {without} tasks have no expert (or one of 0) and do not count"
        ));
    }
    if by == Aggregate::DeltaM {
        return Ok(delta_m(matrix, missing));
    }
    let all: Vec<_> = (0..matrix.systems().len())
        .map(|s| relative(matrix, s))
        .collect();
    let value = all.iter().map(|r| match missing {
        Missing::Strict if r.missing > 0 => f64::NAN,
        _ => r.ratio,
    });
    let value = value.collect();
    Ok(Standing::new(
        value,
        all.iter().map(|r| r.missing).collect(),
        by.good_in(matrix),
    ))
}

/// The order with the fewest disagreements, and by system its place in it.
pub(crate) fn consensus(preferences: &Preferences, systems: usize) -> (Kemeny, Vec<f64>) {
    let found = kemeny(preferences, 100);
    let mut value = vec![f64::NAN; systems];
    // Equal best orders: the mean place.
    for (s, v) in value.iter_mut().enumerate() {
        let places = found
            .orders
            .iter()
            .filter_map(|o| o.iter().position(|x| *x == s));
        let (sum, n) = places.fold((0.0, 0.0), |(a, n), p| (a + p as f64 + 1.0, n + 1.0));
        *v = sum / n;
    }
    (found, value)
}

fn by_kemeny(matrix: &ScoreMatrix, note: &mut Option<String>) -> Standing {
    let (found, value) = consensus(&Preferences::of_matrix(matrix), matrix.systems().len());
    *note = match (found.exact, found.unique()) {
        (true, Some(true)) => None,
        (true, _) => Some(format!(
            "kemeny: {}{} best orders with {} disagreements; places are their mean",
            found.orders.len(),
            if found.complete { "" } else { " or more" },
            found.disagreements
        )),
        (false, _) => Some(format!(
            "kemeny: searched, not proved: {} disagreements, at most {} more than the best order",
            found.disagreements,
            found.gap()
        )),
    };
    standing(matrix, value, Direction::Lower)
}
