//! One file that shows results: leaderboard, intervals, heat map, tests, orders, calibration, flips.
//!
//! [`Report::of`] computes everything once from [`Results`] and, where they are given, predictions example by example;
//! [`Report::html`], [`Report::markdown`], [`Report::csv`], [`Report::latex`] and [`Report::json`] only write it down, so
//! they cannot disagree. One chart per file; every chart is inline SVG or a table, nothing is fetched, and names and texts
//! of strangers stay text. Source: methods/evaluation.md, section 6.

mod calibration;
mod cd;
mod compact;
mod continual;
mod coverage;
mod draws;
mod export;
mod flips;
mod headline;
mod heat;
mod intervals;
mod orders;
mod page;
mod skills;
mod sources;
mod svg;
mod table;
#[cfg(test)]
mod tests;
mod wins;

use indexmap::IndexMap;

use super::aggregate::ScoreMatrix;
use super::board::predictions::Predictions;
use super::board::results::Results;
use super::board::stages::Stages;
use super::sum::mean;
use crate::error::{MergeError, Result};
use cd::CriticalDifference;
use draws::{Draws, ExampleScores};
use headline::Headline;
use orders::Orders;
use table::{Parts, Table};

pub use headline::RankBy;

/// What a report is made from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Scores.
    pub results: Results,
    /// Predictions by name of the system, for what is told example by example.
    pub predictions: IndexMap<String, Predictions>,
    /// Attempts and passes of every problem by name of the system, where problems were tried several times.
    pub attempts: IndexMap<String, Vec<(u64, u64)>>,
    /// Sentences for the reader: what was left out on reading.
    pub notes: Vec<String>,
}

/// Settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Heading; else what is compared.
    pub title: Option<String>,
    /// What orders the leaderboard; else [`RankBy::of`].
    pub rank_by: Option<RankBy>,
    /// The system that others are compared with.
    pub baseline: Option<String>,
    /// Tag of the bars and the radar; else the first usual one.
    pub by: Option<String>,
    /// Systems that are the stages of a continual-learning run, in order.
    pub stages: Vec<String>,
    /// 1 − the level of intervals and tests.
    pub alpha: f64,
    /// Draws of the bootstrap.
    pub draws: usize,
    /// Examples listed for each direction of each pair.
    pub examples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: None,
            rank_by: None,
            baseline: None,
            by: None,
            stages: Vec::new(),
            alpha: 0.05,
            draws: 2000,
            examples: 40,
        }
    }
}

/// Fewer tasks than this say nothing about other tasks.
const FEW_TASKS: usize = 5;

/// All that a report shows, computed.
pub struct Report {
    title: String,
    results: Results,
    matrix: ScoreMatrix,
    table: Table,
    orders: Orders,
    difference: std::result::Result<CriticalDifference, String>,
    skills: Option<skills::Skills>,
    reliability: Vec<calibration::Reliability>,
    coverage: Vec<coverage::Coverage>,
    pairs: Vec<flips::Pair>,
    continual: Option<Stages>,
    notes: Vec<String>,
    options: Options,
}

/// Scores of systems of which only predictions are given: the mean over the examples of each task, with its standard
/// error.
pub fn results_of(predictions: &IndexMap<String, Predictions>) -> Results {
    use super::aggregate::TaskColumn;
    use super::board::results::{Cell, System, Task};
    use super::statistics::mean::standard_error;

    let mut tasks: Vec<&str> = Vec::new();
    for task in predictions.values().flat_map(|p| p.tasks.keys()) {
        if !tasks.contains(&task.as_str()) {
            tasks.push(task);
        }
    }
    let binary = predictions.values().all(|p| p.binary);
    let cell = |p: &Predictions, task: &str| {
        let values: Vec<f64> = p.tasks.get(task)?.values().map(|e| e.value).collect();
        let mut cell = Cell::new(mean(values.iter().copied()));
        cell.stderr = standard_error(&values).ok().filter(|e| e.is_finite());
        cell.n = Some(values.len() as u64);
        cell.record = Some(p.path.clone());
        Some(cell)
    };
    let named = |task: &&str| {
        let name = if task.is_empty() { "all" } else { *task };
        let mut column = TaskColumn::new(name);
        column.maximum = binary.then_some(1.0);
        Task::new(column, if binary { "accuracy" } else { "score" })
    };
    Results {
        systems: predictions
            .iter()
            .map(|(name, p)| System {
                source: Some(p.path.clone()),
                ..System::new(name)
            })
            .collect(),
        cells: predictions
            .values()
            .flat_map(|p| tasks.iter().map(move |t| cell(p, t)))
            .collect(),
        tasks: tasks.iter().map(named).collect(),
    }
}

impl Report {
    /// Computes a report.
    ///
    /// # Errors
    /// An empty table, an unknown baseline, stage or tag, a way to rank that the table does not allow, predictions that
    /// contradict each other on what is right.
    pub fn of(inputs: Inputs, options: Options) -> Result<Self> {
        let Inputs {
            results,
            predictions,
            attempts,
            mut notes,
        } = inputs;
        let matrix = results.matrix()?;
        let refuse = |code, message: String| MergeError::plan(code, message);
        let baseline = match &options.baseline {
            None => None,
            Some(name) => {
                let at = matrix.systems().iter().position(|s| s == name);
                Some(at.ok_or_else(|| {
                    refuse(
                        "unknown-system",
                        format!("no system `{name}` to compare with"),
                    )
                    .hint(known(
                        "the systems are",
                        matrix.systems().iter().map(String::as_str),
                    ))
                })?)
            }
        };
        let by = options.rank_by.unwrap_or_else(|| RankBy::of(&matrix));
        let headline = Headline::of(&matrix, by).map_err(|why| {
            refuse("rank-by", why).hint("--rank-by win-rate works for every table of scores")
        })?;
        let orders = Orders::of(&matrix);
        let (draws, why_no_draws) = draw(&headline, &matrix, &results, &predictions, &options);
        let table = Table::of(Parts {
            results: &results,
            matrix: &matrix,
            headline: &headline,
            draws,
            why_no_draws,
            orders: &orders,
            baseline,
        });
        let order: Vec<String> = table.rows.iter().map(|r| r.name.clone()).collect();
        let with_predictions = order.iter().find(|name| predictions.contains_key(*name));
        let reference = options.baseline.as_ref().or(with_predictions);
        let pairs = match reference {
            Some(reference) => {
                flips::pairs(&predictions, reference, &order, options.alpha, &mut notes)?
            }
            None => Vec::new(),
        };
        let reliability = order
            .iter()
            .filter_map(|name| calibration::Reliability::of(name, predictions.get(name)?))
            .collect();
        let continual = if options.stages.is_empty() {
            None
        } else {
            let found = continual::of(&results, &options.stages);
            Some(found.map_err(|why| {
                refuse("stages", why).hint(known(
                    "the systems are",
                    matrix.systems().iter().map(String::as_str),
                ))
            })?)
        };
        let skills =
            skills::Skills::of(&results, &matrix, options.by.as_deref()).map_err(|why| {
                let mut tags: Vec<&str> = Vec::new();
                for tag in results.tasks.iter().flat_map(|t| t.tags.keys()) {
                    if !tags.contains(&tag.as_str()) {
                        tags.push(tag);
                    }
                }
                refuse("unknown-tag", why).hint(known("the tags are", tags.into_iter()))
            })?;
        let title = options.title.clone().unwrap_or_else(|| {
            let count =
                |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            format!(
                "{} on {}",
                count(matrix.systems().len(), "system"),
                count(matrix.tasks().len(), "task")
            )
        });
        Ok(Self {
            title,
            difference: CriticalDifference::of(&matrix, 1.0 - options.alpha),
            coverage: coverage::of(&attempts, &predictions, &order),
            skills,
            reliability,
            pairs,
            continual,
            orders,
            table,
            matrix,
            results,
            notes,
            options,
        })
    }

    /// Systems and tasks of the table.
    pub fn size(&self) -> (usize, usize) {
        (self.matrix.systems().len(), self.matrix.tasks().len())
    }

    /// The sentence of the interval plot: who is first, and how sure that is.
    pub fn sentence(&self) -> String {
        intervals::sentence(&self.table)
    }

    /// What was left out, for the reader.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn known<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown: Vec<String> = names.iter().take(8).map(|n| format!("`{n}`")).collect();
    let more = if names.len() > 8 {
        format!(" and {} more", names.len() - 8)
    } else {
        String::new()
    };
    format!("{what} {}{more}", shown.join(", "))
}

type Drawn = ((Option<Draws>, Option<Draws>), String);

/// The draws that the inputs allow: over tasks where there are several, over examples where all systems answered the same
/// ones, else from standard errors.
fn draw(
    headline: &Headline,
    matrix: &ScoreMatrix,
    results: &Results,
    predictions: &IndexMap<String, Predictions>,
    options: &Options,
) -> Drawn {
    let (systems, level) = (matrix.systems().len(), 1.0 - options.alpha);
    if systems < 2 {
        return ((None, None), "there is one system".into());
    }
    let tasks = (headline.tasks.len() >= FEW_TASKS)
        .then(|| Draws::over_tasks(headline, systems, options.draws, level));
    let examples = example_scores(headline, matrix, predictions)
        .map(|e| Draws::over_examples(headline, matrix, &e, options.draws, level))
        .or_else(|| {
            let errors = standard_errors(headline, results)?;
            Some(Draws::over_errors(
                headline,
                matrix,
                &errors,
                options.draws,
                level,
            ))
        });
    match (tasks, examples) {
        (None, None) => (
            (None, None),
            format!(
                "{} tasks are too few to draw them again, and neither predictions nor standard errors are given for all scores",
                headline.tasks.len()
            ),
        ),
        (None, examples) => ((examples, None), String::new()),
        both => (both, String::new()),
    }
}

/// `[task][system][example]` where every system answered the same examples of every counted task, and their mean is the
/// score of the table.
fn example_scores(
    headline: &Headline,
    matrix: &ScoreMatrix,
    predictions: &IndexMap<String, Predictions>,
) -> Option<ExampleScores> {
    let each: Vec<&Predictions> = matrix
        .systems()
        .iter()
        .map(|name| predictions.get(name))
        .collect::<Option<_>>()?;
    let mut found = Vec::new();
    for (t, _) in &headline.tasks {
        let name = matrix.tasks()[*t].name.as_str();
        let key = if name == "all" && !each[0].tasks.contains_key("all") {
            ""
        } else {
            name
        };
        let ids: Vec<&String> = each[0].tasks.get(key)?.keys().collect();
        let mut systems = Vec::new();
        for (s, predictions) in each.iter().enumerate() {
            let examples = predictions.tasks.get(key)?;
            if examples.len() != ids.len() {
                return None;
            }
            let values: Vec<f64> = ids
                .iter()
                .map(|id| examples.get(*id).map(|e| e.value))
                .collect::<Option<_>>()?;
            let score = matrix.score(s, *t)?;
            if (mean(values.iter().copied()) - score).abs() > 1e-6 * score.abs().max(1.0) {
                return None;
            }
            systems.push(values);
        }
        found.push(systems);
    }
    Some(found)
}

fn standard_errors(headline: &Headline, results: &Results) -> Option<Vec<Vec<f64>>> {
    let error = |s: usize, t: usize| results.cell(s, t)?.standard_error();
    headline
        .tasks
        .iter()
        .map(|(t, _)| (0..results.systems.len()).map(|s| error(s, *t)).collect())
        .collect()
}
