//! Tables: CSV, TSV, JSON lines, JSON lists and Parquet, of scores or of single examples, long or wide.

use std::path::Path;

use indexmap::IndexMap;

use super::entry::{Entry, Gathered, higher};
use super::{Answer, Options, helm};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::registry;
use crate::tasks::data::{self, Cell, Column, Limits, Table};

const SYSTEM: &[&str] = &[
    "system",
    "model",
    "method",
    "model_name",
    "model/adapter",
    "models",
    "name",
];
const TASK: &[&str] = &[
    "task",
    "task_name",
    "dataset",
    "benchmark",
    "subject",
    "category",
];
const VALUE: &[&str] = &[
    "value",
    "score",
    "result",
    "main_score",
    "correct",
    "passes",
];
const ID: &[&str] = &[
    "id",
    "doc_id",
    "example_id",
    "sample",
    "sample_id",
    "question_id",
    "item",
    "index",
];
const REPLICATE: &[&str] = &[
    "seed",
    "run",
    "checkpoint",
    "step",
    "instruction",
    "prompt_id",
    "template",
    "repeat",
    "replicate",
    "trial",
    "attempt",
    "turn",
];
const COSTS: &[(&str, &str)] = &[
    ("params", "params"),
    ("parameters", "params"),
    ("n_params", "params"),
    ("bytes", "bytes"),
    ("size", "bytes"),
    ("seconds", "seconds"),
    ("time", "seconds"),
    ("tokens", "tokens"),
    ("n_tokens", "tokens"),
];
/// Columns of long tables that are no tags.
const KNOWN: &[&str] = &[
    "metric",
    "n",
    "stderr",
    "se",
    "low",
    "high",
    "ci_low",
    "ci_high",
    "higher_is_better",
    "chance",
    "maximum",
    "expert",
    "weight",
    "samples",
    "hash",
    "task_hash",
    "target",
    "prediction",
    "label",
    "prompt",
];
/// Tags that rows of single examples may carry.
const TAGS: &[&str] = &[
    "skill",
    "domain",
    "modality",
    "capability",
    "language",
    "family",
    "type",
    "group",
    "category",
];
/// What stands for a missing score.
const ABSENT: &[&str] = &["nan", "na", "n/a", "null", "none", "-", "--", "unsupported"];

/// Where everything is in a table.
struct Layout {
    /// Lower-case name to name.
    names: IndexMap<String, String>,
    system: Vec<String>,
    task: Vec<String>,
    id: Option<String>,
    replicate: Option<String>,
    form: Form,
}

enum Form {
    /// A score a row.
    Long {
        value: String,
        metric: Option<String>,
    },
    /// A column a task, a row a system.
    WideTasks(Vec<String>),
    /// A column a system, a row an example.
    WideSystems(Vec<String>),
}

/// Reads a table.
pub(super) fn read(
    path: &Path,
    name: Option<&str>,
    options: &Options,
    to: &mut Gathered,
) -> Result<()> {
    let at = path.display().to_string();
    let kind = data::kind_of(path).ok_or_else(|| {
        MergeError::plan("unknown-format", "is no table")
            .at(&at)
            .hint(".csv, .tsv, .jsonl, .json or .parquet")
    })?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let stem = stem.unwrap_or_else(|| at.clone());
    let mut rows = Rows {
        path: at.clone(),
        name: name.unwrap_or(&stem).to_owned(),
        stem,
        number: to.file(path),
        row: 0,
        passed: 0,
        options,
        to,
    };
    let mut layout = None;
    data::read(path, kind, &Limits::default(), &mut |table| {
        if layout.is_none() {
            layout = Some(Layout::of(&table, options, &at)?);
        }
        if let Some(layout) = &layout {
            for row in 0..table.rows() {
                rows.take(&table, layout, row)?;
            }
        }
        Ok(())
    })?;
    if rows.passed > 0 {
        let text = format!(
            "{at}: {} rows without a system, task or score were passed over",
            rows.passed
        );
        rows.to.note(text);
    }
    Ok(())
}

impl Layout {
    fn of(table: &Table, options: &Options, at: &str) -> Result<Self> {
        let clean = |n: &str| n.trim_start_matches('\u{feff}').trim().to_lowercase();
        let names: IndexMap<String, String> = table
            .columns()
            .map(|(n, _)| (clean(n), n.to_owned()))
            .collect();
        let there = || {
            let list: Vec<&str> = names.values().map(String::as_str).take(30).collect();
            format!("its columns: {}", list.join(", "))
        };
        let given = |columns: &[String]| {
            let one = |c: &String| match names.get(&c.to_lowercase()) {
                Some(name) => Ok(name.clone()),
                None => Err(
                    MergeError::plan("missing-column", format!("has no column `{c}`"))
                        .at(at)
                        .hint(there()),
                ),
            };
            columns.iter().map(one).collect::<Result<Vec<_>>>()
        };
        let usual = |list: &[&str]| list.iter().find_map(|n| names.get(*n).cloned());
        let mut system = given(&options.system)?;
        if system.is_empty() {
            system.extend(usual(SYSTEM));
        }
        let mut task = given(&options.task)?;
        let id = usual(ID).filter(|c| !task.contains(c) && !system.contains(c));
        if task.is_empty() {
            // A category is a task only of single examples: of scores it is a tag.
            let most = if id.is_some() {
                TASK.len()
            } else {
                TASK.len() - 2
            };
            task.extend(usual(&TASK[..most]).filter(|c| !system.contains(c)));
        }
        let metric_named = || {
            names
                .iter()
                .find(|(n, _)| registry::find(n).is_some() || *n == "acc")
        };
        let mut value = match &options.value {
            Some(column) => given(std::slice::from_ref(column))?.into_iter().next(),
            None => usual(VALUE),
        };
        let mut metric = None;
        if value.is_none()
            && (!task.is_empty() || id.is_some())
            && let Some((n, column)) = metric_named()
        {
            (value, metric) = (Some(column.clone()), Some(n.clone()));
        }
        let used = |c: &str| system.iter().chain(&task).any(|u| u == c) || id.as_deref() == Some(c);
        let numeric = |c: &Column, want: fn(&str) -> bool| {
            let cells = (0..c.len()).map(|i| c.cell(i)).filter(|c| !c.is_empty());
            let texts: Vec<String> = cells.map(Cell::to_text).collect();
            !texts.is_empty() && texts.iter().all(|t| want(t))
        };
        let form = if let Some(value) =
            value.filter(|_| !task.is_empty() || id.is_some() || options.value.is_some())
        {
            Form::Long { value, metric }
        } else if system.is_empty() {
            let flags: Vec<String> = table
                .columns()
                .filter(|(n, c)| {
                    !used(n)
                        && numeric(c, |t| {
                            matches!(t.to_lowercase().as_str(), "true" | "false" | "0" | "1")
                        })
                })
                .map(|(n, _)| n.to_owned())
                .collect();
            if flags.len() < 2 {
                let first = table.columns().next();
                let wide =
                    first.filter(|(_, c)| !numeric(c, |t| data::table::parse_number(t).is_some()));
                match wide {
                    Some((n, _)) if table.columns().len() > 1 => system.push(n.to_owned()),
                    _ => {
                        return Err(MergeError::plan("missing-column", "has no column that names the system")
                            .at(at)
                            .hint(there())
                            .hint("name it: --system COLUMN; a long table has system, task and value, a wide one system and a column per task"));
                    }
                }
                Self::tasks_wide(table, &system, &names, at)?
            } else {
                Form::WideSystems(flags)
            }
        } else {
            Self::tasks_wide(table, &system, &names, at)?
        };
        let replicate = usual(REPLICATE).filter(|c| !task.contains(c) && !system.contains(c));
        if matches!(form, Form::WideTasks(_)) {
            task.clear();
        }
        Ok(Self {
            system,
            task,
            id,
            replicate,
            form,
            names,
        })
    }

    fn tasks_wide(
        table: &Table,
        system: &[String],
        names: &IndexMap<String, String>,
        at: &str,
    ) -> Result<Form> {
        let lower = |n: &str| {
            names
                .iter()
                .find(|(_, v)| *v == n)
                .map_or("", |(k, _)| k.as_str())
                .to_owned()
        };
        let number = |t: &str| {
            data::table::parse_number(t).is_some() || ABSENT.contains(&t.to_lowercase().as_str())
        };
        let tasks = table.columns().filter(|(n, c)| {
            let plain = lower(n);
            let cells = (0..c.len()).map(|i| c.cell(i)).filter(|c| !c.is_empty());
            let (mut any, mut all) = (false, 0usize);
            let mut count = 0usize;
            for cell in cells {
                let text = cell.to_text();
                count += 1;
                if number(&text) {
                    all += 1;
                    any |= data::table::parse_number(&text).is_some();
                }
            }
            // Mostly numbers: a stray word in it is then an error with its row.
            !system.iter().any(|s| s == n)
                && any
                && all * 2 > count
                && !COSTS.iter().any(|(c, _)| *c == plain)
                && !REPLICATE.contains(&plain.as_str())
                && !helm::summary(n)
        });
        let tasks: Vec<String> = tasks.map(|(n, _)| n.to_owned()).collect();
        if tasks.is_empty() {
            return Err(MergeError::plan("missing-column", "has no column of scores")
                .at(at)
                .hint("a long table has system, task and value, a wide one system and a column per task"));
        }
        Ok(Form::WideTasks(tasks))
    }
}

struct Rows<'a> {
    path: String,
    /// Name of the system where no column names it.
    name: String,
    stem: String,
    number: usize,
    row: u64,
    passed: u64,
    options: &'a Options,
    to: &'a mut Gathered,
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

    fn take(&mut self, table: &Table, layout: &Layout, row: usize) -> Result<()> {
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
                    && let Some(text) = column.get(row).and_then(Option::as_ref)
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
