//! Rows of a table, one after another.

use indexmap::IndexMap;

use super::names::{ABSENT, COSTS, KNOWN, TAGS, VALUE};
use super::{Form, Layout};
use crate::error::{MergeError, Result};
use crate::evaluate::board::import::entry::{Entry, Gathered, higher};
use crate::evaluate::board::import::{Answer, Options, helm};
use crate::tasks::data::{self, Cell, Column, Table};

/// Rows on their way into the table of results.
pub(super) struct Rows<'a> {
    pub path: String,
    /// Name of the system where no column names it.
    pub name: String,
    pub stem: String,
    pub number: usize,
    pub row: u64,
    pub passed: u64,
    pub options: &'a Options,
    pub to: &'a mut Gathered,
}

impl Rows<'_> {
    fn bad(&self, code: &'static str, what: String) -> MergeError {
        MergeError::plan(code, what).at(format!("{}: row {}", self.path, self.row))
    }

    /// A score; `None` where it is missing.
    fn score(&self, column: &str, cell: Cell) -> Result<Option<f64>> {
        if cell.is_empty() {
            return Ok(None);
        }
        let text = cell.to_text().trim().to_lowercase();
        let number = match text.as_str() {
            "true" => Some(1.0),
            "false" => Some(0.0),
            _ => cell.to_number(),
        };
        match number {
            Some(x) if x.is_finite() => Ok(Some(x)),
            Some(_) => Ok(None),
            None if ABSENT.contains(&text.as_str()) => Ok(None),
            None => Err(self
                .bad("bad-score", format!("column `{column}`: `{}` is no number", cell.to_text()))
                .hint("a missing score is an empty cell, `-` or `n/a`; another column: --value COLUMN")),
        }
    }

    pub fn take(&mut self, table: &Table, layout: &Layout, row: usize) -> Result<()> {
        self.row += 1;
        let named = |name: &str| layout.names.get(name).and_then(|n| table.column(n));
        let cell = |name: &str| named(name).map_or(Cell::Null, |c| c.cell(row));
        for condition in &self.options.conditions {
            let key = condition.key.to_lowercase();
            if matches!(key.as_str(), "system" | "task") || named(&key).is_none() {
                continue;
            }
            self.to.applied.insert(condition.key.clone());
            if !condition.takes(&cell(&key).to_text()) {
                return Ok(());
            }
        }
        let joined = |columns: &[String]| {
            let texts = columns
                .iter()
                .filter_map(|c| table.column(c))
                .map(|c| c.cell(row).to_text());
            let texts: Vec<String> = texts.map(|t| t.trim().to_owned()).collect();
            match texts.first() {
                Some(first) if !first.is_empty() => texts.join(" / "),
                _ => String::new(),
            }
        };
        let system = match layout.system.is_empty() {
            true => self.name.clone(),
            false => joined(&layout.system),
        };
        let task = match layout.task.is_empty() {
            true => self.stem.clone(),
            false => joined(&layout.task),
        };
        if system.is_empty() || task.is_empty() {
            self.passed += 1;
            return Ok(());
        }
        let number = |name: &str| cell(name).to_number().filter(|x| x.is_finite());
        if !layout.system.is_empty() {
            for (column, cost) in COSTS {
                if let Some(x) = number(column) {
                    self.to.cost(&system, cost, x);
                }
            }
        }
        let replicate = layout.replicate.as_deref().and_then(|c| table.column(c));
        let replicate = replicate.map(|c| c.cell(row).to_text());
        let used = |c: &str| {
            [&layout.system, &layout.task]
                .iter()
                .any(|l| l.iter().any(|u| u == c))
                || layout.id.as_deref() == Some(c)
                || layout.replicate.as_deref() == Some(c)
        };
        let tags = |only: Option<&[&str]>| {
            let mut tags: IndexMap<String, Vec<String>> = IndexMap::new();
            for (plain, name) in &layout.names {
                let Some(Column::Text(column)) = table.column(name) else {
                    continue;
                };
                let wanted = only.is_none_or(|o| o.contains(&plain.as_str()));
                if wanted
                    && !used(name)
                    && !KNOWN.contains(&plain.as_str())
                    && !VALUE.contains(&plain.as_str())
                    && let Some(text) = column.get(row)
                    && text.len() <= 80
                    && data::table::parse_number(text).is_none()
                {
                    tags.insert(plain.clone(), vec![text.trim().to_owned()]);
                }
            }
            tags
        };
        match &layout.form {
            Form::Long {
                value: column,
                metric,
            } => {
                let held = table.column(column).map_or(Cell::Null, |c| c.cell(row));
                let Some(value) = self.score(column, held)? else {
                    self.passed += 1;
                    return Ok(());
                };
                let metric = metric
                    .clone()
                    .or_else(|| Some(cell("metric").to_text()).filter(|m| !m.is_empty()));
                let metric = metric.unwrap_or_default();
                let better = match cell("higher_is_better").to_text().to_lowercase().as_str() {
                    "true" | "1" | "yes" => Some(higher(true)),
                    "false" | "0" | "no" => Some(higher(false)),
                    _ => None,
                };
                if let Some(id) = layout.id.as_deref().and_then(|c| table.column(c)) {
                    let trials = match column.to_lowercase() == "passes" {
                        true => number("samples").filter(|x| x.fract() == 0.0 && *x >= 1.0),
                        false => Some(1.0),
                    };
                    let trials = trials.ok_or_else(|| {
                        self.bad("bad-row", "column `samples` is no number above 0".into())
                    })?;
                    let answer = Answer {
                        trials: trials as u32,
                        sum: value,
                    };
                    let id = id.cell(row).to_text();
                    let key = (system, task, id);
                    return self.answer(
                        key,
                        answer,
                        replicate.is_some(),
                        &metric,
                        better,
                        tags(Some(TAGS)),
                    );
                }
                if let Some(name) = &layout.replicate {
                    self.to.replicate.get_or_insert_with(|| name.to_lowercase());
                }
                let tags = tags(None);
                self.to.entries.push(Entry {
                    group: ["group", "type"]
                        .iter()
                        .find_map(|t| tags.get(*t)?.first().cloned()),
                    system,
                    task,
                    metric,
                    primary: true,
                    value,
                    stderr: number("stderr").or_else(|| number("se")),
                    interval: number("low")
                        .or_else(|| number("ci_low"))
                        .zip(number("high").or_else(|| number("ci_high"))),
                    n: number("n").filter(|x| *x >= 0.0).map(|x| x as u64),
                    direction: better,
                    chance: number("chance"),
                    maximum: number("maximum"),
                    expert: number("expert"),
                    weight: number("weight"),
                    tags,
                    replicate,
                    file: self.number,
                    ..Entry::default()
                });
            }
            Form::WideTasks(columns) => {
                if let Some(name) = &layout.replicate {
                    self.to.replicate.get_or_insert_with(|| name.to_lowercase());
                }
                for column in columns {
                    let held = table.column(column).map_or(Cell::Null, |c| c.cell(row));
                    let Some(value) = self.score(column, held)? else {
                        continue;
                    };
                    let (task, metric) = helm::column(column);
                    self.to.entries.push(Entry {
                        system: system.clone(),
                        task: task.to_owned(),
                        metric: metric.to_owned(),
                        primary: true,
                        value,
                        replicate: replicate.clone(),
                        file: self.number,
                        ..Entry::default()
                    });
                }
            }
            Form::WideSystems(columns) => {
                let id = layout.id.as_deref().and_then(|c| table.column(c));
                let id = id.map_or_else(|| self.row.to_string(), |c| c.cell(row).to_text());
                for column in columns {
                    let held = table.column(column).map_or(Cell::Null, |c| c.cell(row));
                    let Some(value) = self.score(column, held)? else {
                        continue;
                    };
                    let answer = Answer {
                        trials: 1,
                        sum: value,
                    };
                    let key = (column.clone(), task.clone(), id.clone());
                    self.answer(key, answer, replicate.is_some(), "", None, tags(Some(TAGS)))?;
                }
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        (system, task, id): (String, String, String),
        answer: Answer,
        repeated: bool,
        metric: &str,
        direction: Option<Option<crate::evaluate::aggregate::Direction>>,
        tags: IndexMap<String, Vec<String>>,
    ) -> Result<()> {
        let answers = self.to.answers.entry((system, task)).or_default();
        if answers.by_id.is_empty() {
            answers.file = self.number;
            metric.clone_into(&mut answers.metric);
            answers.direction = direction;
        }
        for (tag, values) in tags {
            let known = answers.tags.entry(tag).or_default();
            known.extend(
                values
                    .into_iter()
                    .filter(|v| !known.contains(v))
                    .collect::<Vec<_>>(),
            );
        }
        let held = answers.by_id.entry(id).or_default();
        if held.trials > 0 && !repeated {
            return Err(self
                .bad("duplicate-id", "the same system, task and example stand twice".into())
                .hint("attempts on one example need a column that counts them (run, attempt, repeat); choose other columns with --system and --task"));
        }
        held.trials += answer.trials;
        held.sum += answer.sum;
        self.to.examples += 1;
        Ok(())
    }
}
