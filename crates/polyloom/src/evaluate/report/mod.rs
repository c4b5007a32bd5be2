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
mod export;
mod flips;
mod heat;
mod intervals;
mod links;
mod orders;
mod page;
mod skills;
mod sources;
pub mod svg;
mod table;
#[cfg(test)]
mod tests;
mod wins;

use indexmap::IndexMap;

use super::aggregate::ScoreMatrix;
use super::board::counting::{Aggregate, usual};
use super::board::order::Order;
use super::board::predictions::Predictions;
use super::board::records::answers_of;
use super::board::results::Results;
use super::board::stages::Stages;
use super::board::uncertainty::Settings;
use super::sum::mean;
use crate::error::{MergeError, Result};
use cd::CriticalDifference;
use orders::Orders;
use table::{Parts, Table};

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
    /// What orders the leaderboard; else the first of [`usual`].
    pub rank_by: Option<Aggregate>,
    /// The system that others are compared with.
    pub baseline: Option<String>,
    /// Tag of the bars and the radar; else the first usual one.
    pub by: Option<String>,
    /// Systems that are the stages of a continual-learning run, in order.
    pub stages: Vec<String>,
    /// What gaps do, the draws, and the level of intervals and tests.
    pub settings: Settings,
    /// Examples listed for each direction of each pair.
    pub examples: usize,
}

impl Options {
    /// 1 − the level of intervals and tests.
    fn alpha(&self) -> f64 {
        1.0 - self.settings.level
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: None,
            rank_by: None,
            baseline: None,
            by: None,
            stages: Vec::new(),
            settings: Settings::default(),
            examples: 40,
        }
    }
}

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
        let by = options
            .rank_by
            .or_else(|| usual(&results).first().copied())
            .unwrap_or(Aggregate::WinRate);
        let answers = answers_of(&results, &predictions);
        let ranked = Order::of(by, &results, &answers, &matrix, &options.settings)?;
        notes.extend(ranked.ranked.note.clone());
        let missing = options.settings.missing;
        let orders = Orders::of(&matrix, missing);
        let table = Table::of(Parts {
            results: &results,
            matrix: &matrix,
            order: ranked,
            missing,
            orders: &orders,
            baseline,
        });
        let order: Vec<String> = table.rows.iter().map(|r| r.name.clone()).collect();
        // The best of those that were asked on most tasks.
        let asked = |name: &String| predictions.get(name).map_or(0, |p| p.tasks.len());
        let most = order.iter().map(asked).max().filter(|n| *n > 0);
        let with_predictions = order.iter().find(|name| Some(asked(name)) == most);
        let reference = options.baseline.as_ref().or(with_predictions);
        let pairs = match reference {
            Some(reference) => {
                flips::pairs(&predictions, reference, &order, options.alpha(), &mut notes)?
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
        let title = options.title.clone();
        let title = title.unwrap_or_else(|| size(&matrix).replace(", ", " on "));
        Ok(Self {
            title,
            difference: CriticalDifference::of(&matrix, options.settings.level),
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

/// "3 systems, 1 task".
fn size(matrix: &ScoreMatrix) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}, {}",
        count(matrix.systems().len(), "system"),
        count(matrix.tasks().len(), "task")
    )
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
