//! `polyloom board`

mod show;
mod tables;

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::aggregate::{Direction, ScoreMatrix};
use polyloom::evaluate::board::counting::{Aggregate, usual};
use polyloom::evaluate::board::import::{self, Imported, Options, Source};
use polyloom::evaluate::board::order::Order;
use polyloom::evaluate::board::ranking::{Ranked, rank};
use polyloom::evaluate::board::records;
use polyloom::evaluate::board::stability::{Disagreement, disagreement};
use polyloom::evaluate::board::uncertainty::Uncertainty;
use polyloom::evaluate::board::views::one_overlap;
use serde_json::{Value, json};

use crate::args_board::{BoardArgs, Format};
use crate::ui::{Failure, Ui};

/// Everything that is shown.
pub struct Board {
    imported: Imported,
    matrix: ScoreMatrix,
    /// The first way of counting, and how sure its order is.
    order: Order,
    /// The other ways of counting.
    others: Vec<Ranked>,
}

/// Runs the command.
pub fn run(args: &BoardArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let options = args.results.options();
    let mut imported = import::import(&args.files, &options)?;
    for note in std::mem::take(&mut imported.notes) {
        ui.note(&note);
    }
    if let Some(expert) = &args.expert {
        imported = with_expert(imported, expert, &options)?;
    }
    let board = Board::new(imported, args, ui)?;
    if let Some(family) = one_overlap(&board.imported.results) {
        ui.warning(&format!(
            "every score here is {family}: it counts words shared with a reference and ranks systems otherwise than people do; add a metric of another kind"
        ));
    }
    if ui.json {
        board.events(ui);
    } else {
        ui.answer(&tables::leaderboard(&board, args));
        if args.format == Format::Table {
            ui.answer("");
            for sentence in board.sentences(args) {
                ui.answer(&tables::wrapped(&sentence));
            }
        }
    }
    show::all(&board, args, ui)?;
    ui.event(
        &json!({"type": "done", "systems": board.order.systems.len(), "tasks": board.matrix.tasks().len()}),
    );
    Ok(ExitCode::SUCCESS)
}

/// The table with the scores of each task's own expert: of a system, which leaves the table, or of a file.
pub fn with_expert(
    mut imported: Imported,
    expert: &str,
    options: &Options,
) -> Result<Imported, Failure> {
    let results = &imported.results;
    let row = results.systems.iter().position(|s| s.name == expert);
    let mut scores = vec![None; results.tasks.len()];
    if let Some(row) = row {
        for (t, score) in scores.iter_mut().enumerate() {
            *score = results.cell(row, t).map(|c| c.value);
        }
        let keep: Vec<usize> = (0..results.systems.len()).filter(|&s| s != row).collect();
        let all: Vec<usize> = (0..results.tasks.len()).collect();
        if keep.is_empty() {
            return Err(
                MergeError::plan("no-expert", format!("`{expert}` is the only system")).into(),
            );
        }
        imported.results = results.select(&keep, &all);
        for answers in &mut imported.answers {
            answers.answers.remove(row);
        }
    } else if Path::new(expert).exists() {
        let source = Source {
            name: None,
            path: expert.into(),
        };
        let options = Options {
            conditions: Vec::new(),
            system: Vec::new(),
            task: Vec::new(),
            ..options.clone()
        };
        let other = import::import(&[source], &options)?.results;
        if other.systems.len() != 1 {
            return Err(MergeError::plan("no-expert", format!("holds {} systems, not one expert per task", other.systems.len()))
                .at(expert)
                .hint("a file with columns task and value; or name a system of the board: --expert SYSTEM")
                .into());
        }
        for (score, task) in scores.iter_mut().zip(&results.tasks) {
            let at = other
                .tasks
                .iter()
                .position(|t| t.column.name == task.column.name);
            *score = at.and_then(|t| other.cell(0, t)).map(|c| c.value);
        }
        if scores.iter().all(Option::is_none) {
            return Err(
                MergeError::plan("no-expert", "names none of the board's tasks")
                    .at(expert)
                    .into(),
            );
        }
    } else {
        let names: Vec<&str> = results
            .systems
            .iter()
            .map(|s| s.name.as_str())
            .take(12)
            .collect();
        return Err(MergeError::plan(
            "no-expert",
            format!("`{expert}` is no system of the board and no file"),
        )
        .hint(format!("systems: {}", names.join(", ")))
        .into());
    }
    for (task, score) in imported.results.tasks.iter_mut().zip(scores) {
        task.column.expert = score.or(task.column.expert);
    }
    Ok(imported)
}

impl Board {
    fn new(imported: Imported, args: &BoardArgs, ui: &Ui) -> Result<Self, Failure> {
        let matrix = imported.results.matrix()?;
        let by = match args.aggregate.is_empty() {
            true => usual(&imported.results),
            false => args.aggregate.clone(),
        };
        let settings = args.order.settings(0.95);
        let mut notes = Vec::new();
        let answers = records::answers(&imported, &mut notes);
        notes.iter().for_each(|note| ui.note(note));
        let order = Order::of(by[0], &imported.results, &answers, &matrix, &settings)?;
        let others = by[1..].iter();
        let others = others.map(|&by| rank(by, &matrix, settings.missing, &answers));
        Ok(Self {
            others: others.collect::<Result<_, _>>()?,
            imported,
            matrix,
            order,
        })
    }

    /// All ways of counting, the one that orders first.
    fn ranked(&self) -> impl Iterator<Item = &Ranked> {
        std::iter::once(&self.order.ranked).chain(&self.others)
    }

    /// Whether the order and another way of counting agree; `None` where the other has no good end.
    fn disagreement(&self, other: &Ranked) -> Option<Disagreement> {
        let first = &self.order.ranked;
        Some(disagreement(
            &first.standing.value,
            first.good?,
            &other.standing.value,
            other.good?,
        ))
    }

    fn sentences(&self, args: &BoardArgs) -> Vec<String> {
        let mut out = Vec::new();
        let results = &self.imported.results;
        let (systems, tasks) = (results.systems.len(), results.tasks.len());
        let filled = results.filled();
        let cells = if filled == systems * tasks {
            "no cell is missing".to_owned()
        } else {
            format!(
                "{:.0} % of the cells are missing",
                100.0 * (1.0 - filled as f64 / (systems * tasks) as f64)
            )
        };
        out.push(format!(
            "{} on {}, {cells}. Ordered by {}: {}.",
            counted(systems, "system"),
            counted(tasks, "task"),
            self.order.ranked.by,
            self.order.ranked.by.says()
        ));
        if systems == 1 {
            return out;
        }
        let order = &self.order;
        let open = |draws: &Uncertainty| {
            let pairs = 1..order.systems.len();
            pairs
                .filter(|&at| order.told_apart(draws, at - 1, at) == Some(false))
                .count()
        };
        if let Some(draws) = order.draws() {
            out.push(format!(
                "places: {:.0} % of {} draws of {}. {}",
                100.0 * draws.level,
                draws.draws,
                draws.over.what(),
                match open(draws) {
                    0 => "Every system is told from the one above it.".to_owned(),
                    1 => "~ marks the system that those draws do not tell from the one above (not resolved).".to_owned(),
                    n => format!("~ marks the {n} systems that those draws do not tell from the one above (not resolved)."),
                }
            ));
            let first = order.systems[0];
            if order.ranked.standing.rank[first].is_some() {
                let few = order.first_rests_on(&self.matrix);
                out.push(format!(
                    "{} is first in {:.0} % of the draws.{}",
                    self.matrix.systems()[first],
                    100.0 * draws.best[first],
                    few.map_or_else(String::new, |(on, of)| format!(
                        " It was measured on {on} of {of} tasks only."
                    ))
                ));
            }
        } else if let Some(why) = &order.why_no_draws {
            out.push(format!("No intervals: {why}."));
        }
        if let Some(second) = order.second() {
            out.push(format!(
                "Over {} draws of {} the same order leaves {} of {} neighbours open.",
                second.draws,
                second.over.what(),
                open(second),
                order.placed().saturating_sub(1)
            ));
        }
        let lacking = (0..systems)
            .filter(|&s| self.ranked().any(|r| r.standing.value[s].is_nan()))
            .count();
        if lacking > 0 && filled < systems * tasks {
            out.push(format!("n/a: {lacking} systems lack a score somewhere; --missing skip takes the mean of what they have, over other tasks than their neighbours'."));
        }
        let places = &order.ranked;
        let mut same: Vec<&str> = Vec::new();
        for other in &self.others {
            let Some(found) = self.disagreement(other) else {
                continue;
            };
            let Some(&(s, p, q)) = found.systems.first() else {
                if found.pairs.1 > 0 {
                    same.push(other.by.name());
                }
                continue;
            };
            out.push(format!(
                "{} and {} order {} of {} pairs differently (tau {:.2}); furthest apart: {}, {p} and {q}.",
                places.by, other.by, found.pairs.0, found.pairs.1, found.tau, self.matrix.systems()[s]
            ));
        }
        if !same.is_empty() {
            out.push(format!(
                "The same order by {} as by {}.",
                same.join(" and "),
                places.by
            ));
        }
        let skipped =
            lacking == 0 && filled < systems * tasks && self.ranked().any(|r| r.by.reads_scale());
        if skipped {
            out.push("Means are over the tasks that a system has, which differ from system to system (--missing skip): take win_rate or bt to compare.".into());
        }
        let scales = self.ranked().any(|r| {
            matches!(
                r.by,
                Aggregate::Mean | Aggregate::SizeMean | Aggregate::GroupMean
            )
        });
        let mut metrics: Vec<&str> = results.tasks.iter().map(|t| t.metric.as_str()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        let lower = results
            .tasks
            .iter()
            .any(|t| t.column.direction != Some(Direction::Higher));
        if scales && lower && metrics.len() > 1 {
            out.push("The mean adds scores of different directions and means nothing here: use borda, win_rate or bt.".into());
        } else if scales && metrics.len() > 1 {
            out.push(format!("The mean adds {} different metrics as if they shared a scale; borda, win_rate and bt do not.", metrics.len()));
        }
        out.extend(self.ranked().filter_map(|r| r.note.clone()));
        if args.expert.is_none()
            && args.aggregate.is_empty()
            && results.tasks.iter().any(|t| t.column.expert.is_some())
        {
            out.push(
                "The files name experts: --aggregate delta_m,normalised compares with them.".into(),
            );
        }
        out
    }

    fn events(&self, ui: &Ui) {
        let order = &self.order;
        for (at, &s) in order.systems.iter().enumerate() {
            let mut values = serde_json::Map::new();
            for r in self.ranked() {
                values.insert(
                    r.by.name().into(),
                    json!({"value": number(r.standing.value[s]), "place": r.standing.rank[s]}),
                );
            }
            let draws = |u: &Option<Uncertainty>| match u {
                None => Value::Null,
                Some(u) => json!({
                    "of": u.over.what(), "draws": u.draws, "places": u.places[s], "first": number(u.best[s]),
                    "interval": u.interval[s].map(|i| [i.low, i.high]),
                }),
            };
            ui.event(&json!({
                "type": "system",
                "name": self.matrix.systems()[s],
                "place": order.ranked.standing.rank[s],
                "values": values,
                "missing": order.ranked.standing.missing[s],
                "over_tasks": draws(&order.tasks),
                "over_examples": draws(&order.examples),
                "resolved_from_above": order.resolved(at),
                "costs": self.imported.results.systems[s].costs,
            }));
        }
        for (t, task) in self.imported.results.tasks.iter().enumerate() {
            let column = &task.column;
            let present = self.matrix.column(t).filter(|x| !x.is_nan()).count();
            ui.event(&json!({
                "type": "task", "name": column.name, "metric": task.metric,
                "higher_is_better": column.direction.map(|d| d == Direction::Higher),
                "systems": present, "expert": column.expert, "tags": task.tags,
            }));
        }
        for r in &self.others {
            let Some(found) = self.disagreement(r) else {
                continue;
            };
            ui.event(&json!({
                "type": "orders", "a": order.ranked.by.name(), "b": r.by.name(), "tau": number(found.tau),
                "different_pairs": found.pairs.0, "pairs": found.pairs.1,
            }));
        }
        for note in self.ranked().filter_map(|r| r.note.as_deref()) {
            ui.note(note);
        }
    }
}

/// "1 system", "2 systems".
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A number for JSON; null where it is not defined.
pub fn number(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}
