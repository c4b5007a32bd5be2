//! Tables: CSV, TSV, JSON lines, JSON lists and Parquet, of scores or of single examples, long or wide.

mod names;
mod rows;

use std::path::Path;

use indexmap::IndexMap;

use super::entry::Gathered;
use super::{Options, helm};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::registry;
use crate::tasks::data::{self, Cell, Column, Limits, Table};
use names::{ABSENT, COSTS, ID, REPLICATE, SYSTEM, TASK, VALUE};
use rows::Rows;

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
