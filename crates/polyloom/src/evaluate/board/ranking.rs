//! Ways of making one number per system out of scores on many tasks, and how firm the order is.

use std::fmt;
use std::str::FromStr;

use super::import::{Imported, TaskAnswers};
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::aggregate::comparisons::Comparisons;
use crate::evaluate::aggregate::irt::{Marginal, Model};
use crate::evaluate::aggregate::kemeny::kemeny;
use crate::evaluate::aggregate::mean::{Missing, group_mean, size_weighted_mean, task_mean};
use crate::evaluate::aggregate::pairwise::{Estimator, Strengths, elo_scale, fit};
use crate::evaluate::aggregate::ranking::{
    Borda, Middle, Preferences, borda, copeland, mean_rank, win_rate,
};
use crate::evaluate::aggregate::relative::{delta_m, normalised_mean, relative};
use crate::evaluate::aggregate::synergy::synergy_of_matrix;
use crate::evaluate::aggregate::{Direction, ScoreMatrix, Standing};

macro_rules! aggregates {
    ($($variant:ident $name:literal $digits:literal $says:literal;)*) => {
        /// A way of making one number per system.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Aggregate {
            $(#[doc = $says] $variant,)*
        }

        impl Aggregate {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it is, in a line.
            pub fn says(self) -> &'static str {
                match self { $(Self::$variant => $says),* }
            }

            /// Digits after the point that its table shows.
            pub fn digits(self) -> usize {
                match self { $(Self::$variant => $digits),* }
            }
        }
    };
}

aggregates! {
    Mean "mean" 4 "mean score over the tasks";
    SizeMean "size_mean" 4 "mean score, tasks by their number of examples";
    GroupMean "group_mean" 4 "mean of the means of groups of tasks";
    AboveChance "above_chance" 2 "mean of 0 = guessing, 100 = the best possible score";
    Normalised "normalised" 4 "mean of score / score of the task's own expert";
    DeltaM "delta_m" 4 "mean relative gain over the task's own expert";
    Borda "borda" 1 "systems beaten, summed over the tasks";
    BordaAll "borda_mteb" 1 "number of systems less the rank, summed over the tasks; absent is 0 (MTEB)";
    MeanRank "mean_rank" 2 "mean rank over the tasks, less is better";
    WinRate "win_rate" 4 "mean share of the other systems beaten (HELM)";
    Copeland "copeland" 1 "majorities won against the other systems";
    Kemeny "kemeny" 0 "place in the order with the fewest disagreements";
    BradleyTerry "bt" 0 "Bradley-Terry strength from pairs of systems, Elo scale";
    PlackettLuce "pl" 0 "Plackett-Luce strength from the order on each task, Elo scale";
    Irt "irt" 3 "ability by item response theory, from single answers";
    Synergy "synergy" 2 "General-Level 4: groups comprehension and generation against specialists";
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Aggregate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|a| a.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|a| a.name()).collect();
            format!("unknown; there are {}", names.join(", "))
        })
    }
}

impl Aggregate {
    /// The good end of its numbers.
    pub fn good(self) -> Direction {
        match self {
            Self::MeanRank | Self::Kemeny => Direction::Lower,
            _ => Direction::Higher,
        }
    }

    /// Whether it reads the sizes of differences and so the scale of the scores; the others read orders alone.
    pub fn reads_scale(self) -> bool {
        matches!(
            self,
            Self::Mean
                | Self::SizeMean
                | Self::GroupMean
                | Self::AboveChance
                | Self::Normalised
                | Self::DeltaM
                | Self::Synergy
        )
    }
}

/// Numbers, places and a remark.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// How they were made.
    pub by: Aggregate,
    /// Numbers and places.
    pub standing: Standing,
    /// What the reader should know: not unique, regularised.
    pub note: Option<String>,
}

fn refused(by: Aggregate, error: &EvalError) -> MergeError {
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
        Aggregate::MeanRank => mean_rank(matrix),
        Aggregate::WinRate => win_rate(matrix, Middle::Mean),
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
    Ok(Ranked { by, standing, note })
}

fn standing(matrix: &ScoreMatrix, value: Vec<f64>, good: Direction) -> Standing {
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
    let directions: Vec<_> = matrix
        .tasks()
        .iter()
        .filter(|t| t.expert.is_some())
        .map(|t| t.direction)
        .collect();
    let up = directions.iter().all(|d| *d == Some(Direction::Higher));
    Ok(Standing::new(
        value,
        all.iter().map(|r| r.missing).collect(),
        up.then_some(Direction::Higher),
    ))
}

fn by_kemeny(matrix: &ScoreMatrix, note: &mut Option<String>) -> Standing {
    let found = kemeny(&Preferences::of_matrix(matrix), 100);
    let mut value = vec![f64::NAN; matrix.systems().len()];
    // Equal best orders: the mean place.
    for (s, v) in value.iter_mut().enumerate() {
        let places = found
            .orders
            .iter()
            .filter_map(|o| o.iter().position(|x| *x == s));
        let (sum, n) = places.fold((0.0, 0.0), |(a, n), p| (a + p as f64 + 1.0, n + 1.0));
        *v = sum / n;
    }
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

/// Strengths on the Elo scale; pulled together where the comparisons do not fix them (α = 0.01, as ONEBench).
fn strengths(
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
    for t in 0..matrix.tasks().len() {
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

fn abilities(
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
                let value = list
                    .get(id)
                    .copied()
                    .flatten()
                    .map(super::import::Answer::mean);
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

/// The default ways of counting. Scores of one scale and direction without gaps: the mean, the win rate and Borda's
/// points. Several scales or directions: the same without the mean, which would add what does not belong together. With
/// gaps: strengths and the win rate, which read what was measured; in large tables the win rate first, for a thousand
/// draws of it cost little.
pub fn usual(imported: &Imported) -> Vec<Aggregate> {
    let results = &imported.results;
    let (systems, tasks) = (results.systems.len(), results.tasks.len());
    let whole = results.filled() == results.cells.len();
    let large = systems * systems * (tasks + 20 * systems) >= 4_000_000;
    match (one_scale(imported), whole) {
        (true, true) => vec![Aggregate::Mean, Aggregate::WinRate, Aggregate::Borda],
        (false, true) => vec![
            Aggregate::WinRate,
            Aggregate::Borda,
            Aggregate::BradleyTerry,
        ],
        (true, false) if large => {
            vec![Aggregate::WinRate, Aggregate::BradleyTerry, Aggregate::Mean]
        }
        (true, false) => vec![Aggregate::BradleyTerry, Aggregate::WinRate, Aggregate::Mean],
        (false, false) if large => vec![Aggregate::WinRate, Aggregate::BradleyTerry],
        (false, false) => vec![Aggregate::BradleyTerry, Aggregate::WinRate],
    }
}

/// Whether more is better on all tasks, and no task leaves 0 to 1 where another stays in it.
fn one_scale(imported: &Imported) -> bool {
    let results = &imported.results;
    let inside = |t: usize| {
        let cells = (0..results.systems.len()).filter_map(|s| results.cell(s, t));
        cells.map(|c| c.value).all(|x| (-1.0..=1.0).contains(&x))
    };
    let up = results
        .tasks
        .iter()
        .all(|t| t.column.direction == Some(Direction::Higher));
    let inside: Vec<bool> = (0..results.tasks.len()).map(inside).collect();
    up && inside.windows(2).all(|w| w[0] == w[1])
}
