//! A complete score matrix out of a table file: long (`system`, `task`, `score`) or wide (a row per system).

use std::path::Path;

use indexmap::IndexMap;

use super::data::{self, Limits, Table};
use crate::error::{MergeError, Result};
use crate::evaluate::aggregate::{ScoreMatrix, TaskColumn};

/// What was read, and what had to go so that no cell is empty.
#[derive(Debug, Clone)]
pub struct Scores {
    /// Systems x tasks without gaps.
    pub matrix: ScoreMatrix,
    /// Systems left out for their gaps.
    pub systems_out: Vec<String>,
    /// Tasks left out for their gaps.
    pub tasks_out: Vec<String>,
}

const SYSTEM: [&str; 3] = ["system", "model", "name"];
const SCORE: [&str; 3] = ["score", "value", "main_score"];
const GROUP: [&str; 3] = ["group", "type", "category"];

/// Reads scores. Long tables have the columns `system` (or `model`, `name`), `task`, `score` (or `value`, `main_score`) and
/// perhaps `group` (or `type`, `category`); several scores of a cell are averaged. Any other table is wide: its first
/// column names the systems, its columns of numbers are tasks.
///
/// Gaps are removed greedily: the system or task with the largest share of gaps goes, tasks at ties, until none is left.
///
/// # Errors
/// A file that is no table, a score that is no number, nothing left without gaps.
pub fn complete(path: &Path, limits: &Limits) -> Result<Scores> {
    let kind = data::kind_of(path)
        .ok_or_else(|| data::bad(path, "is no table that is known by its name"))?;
    let mut cells: IndexMap<String, IndexMap<String, (f64, f64)>> = IndexMap::new();
    let mut groups: IndexMap<String, Option<String>> = IndexMap::new();
    let mut row_number = 0u64;
    data::read(path, kind, limits, &mut |t: Table| {
        let first = |names: &[&str]| names.iter().find(|n| t.has(n)).map(|n| (*n).to_owned());
        let long = t
            .has("task")
            .then(|| Some((first(&SYSTEM)?, first(&SCORE)?)))
            .flatten();
        let group = first(&GROUP);
        for row in 0..t.rows() {
            row_number += 1;
            let text = |name: &str| {
                t.column(name)
                    .map_or_else(String::new, |c| c.cell(row).to_text())
            };
            let mut add =
                |system: String, task: String, score: Option<f64>, group: Option<String>| {
                    groups.entry(task.clone()).or_insert(group);
                    let of = cells.entry(system).or_default();
                    if let Some(score) = score {
                        let cell = of.entry(task).or_default();
                        *cell = (cell.0 + score, cell.1 + 1.0);
                    }
                };
            let number = |cell: data::Cell, name: &str| match cell.to_number() {
                Some(x) if x.is_finite() => Ok(Some(x)),
                _ if cell.is_empty() || cell.to_text().eq_ignore_ascii_case("nan") => Ok(None),
                _ => Err(data::bad_row(
                    path,
                    row_number,
                    format!("`{name}`: {:?} is no score", cell.to_text()),
                )),
            };
            if let Some((system, score)) = &long {
                let cell = t.column(score).map_or(data::Cell::Null, |c| c.cell(row));
                add(
                    text(system),
                    text("task"),
                    number(cell, score)?,
                    group.as_deref().map(text),
                );
            } else {
                let mut columns = t.columns();
                let Some((_, names)) = columns.next() else {
                    continue;
                };
                let system = names.cell(row).to_text();
                for (task, column) in columns {
                    add(
                        system.clone(),
                        task.to_owned(),
                        number(column.cell(row), task)?,
                        None,
                    );
                }
            }
        }
        Ok(())
    })?;
    let (mut systems, mut tasks): (Vec<String>, Vec<String>) = (
        cells.keys().cloned().collect(),
        groups.keys().cloned().collect(),
    );
    let (mut systems_out, mut tasks_out) = (Vec::new(), Vec::new());
    let gap = |s: &String, t: &String| !cells[s].contains_key(t);
    loop {
        let of_system =
            |s: &String| tasks.iter().filter(|t| gap(s, t)).count() as f64 / tasks.len() as f64;
        let of_task =
            |t: &String| systems.iter().filter(|s| gap(s, t)).count() as f64 / systems.len() as f64;
        let most = |shares: Vec<f64>| {
            let first = (0usize, 0.0f64);
            shares
                .into_iter()
                .enumerate()
                .fold(first, |m, (i, x)| if x > m.1 { (i, x) } else { m })
        };
        let (s, by_system) = most(systems.iter().map(of_system).collect());
        let (t, by_task) = most(tasks.iter().map(of_task).collect());
        if by_system == 0.0 && by_task == 0.0 {
            break;
        }
        if by_task >= by_system {
            tasks_out.push(tasks.remove(t));
        } else {
            systems_out.push(systems.remove(s));
        }
    }
    if systems.is_empty() || tasks.is_empty() {
        return Err(data::bad(path, "has no systems and tasks without gaps"));
    }
    let columns = tasks.iter().map(|t| {
        let mut column = TaskColumn::new(t.clone());
        column.group.clone_from(&groups[t]);
        column
    });
    let values = systems
        .iter()
        .flat_map(|s| tasks.iter().map(move |t| (s, t)));
    let values = values.map(|(s, t)| cells[s][t].0 / cells[s][t].1).collect();
    let matrix = ScoreMatrix::new(systems.clone(), columns.collect(), values).map_err(|e| {
        MergeError::plan("bad-scores", e.to_string()).at(path.display().to_string())
    })?;
    Ok(Scores {
        matrix,
        systems_out,
        tasks_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(text: &str) -> Result<Scores> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        complete(&path, &Limits::default())
    }

    #[test]
    fn long_and_wide_tables_lose_their_gaps() {
        let long =
            read("model,task,score,type\na,t,1,g\na,u,2,g\nb,t,3,g\nb,u,4,g\na,v,1,h\nb,t,5,g\n")
                .unwrap();
        assert_eq!(
            (long.matrix.systems(), &long.tasks_out[..]),
            (&["a".to_owned(), "b".into()][..], &["v".to_owned()][..])
        );
        assert_eq!(long.matrix.row(1), [4.0, 4.0]);
        assert_eq!(long.matrix.tasks()[0].group.as_deref(), Some("g"));
        let wide = read("who,t,u,w\na,1,2,3\nb,3,,5\nc,2,1,NaN\nd,,,1\n").unwrap();
        // d lacks 2 of 3, then u and b tie (the task goes), then c lacks 1 of 2.
        assert_eq!(wide.systems_out, ["d", "c"]);
        assert_eq!(wide.tasks_out, ["u"]);
        assert_eq!(wide.matrix.row(1), [3.0, 5.0]);
        assert!(
            read("who,t\na,x\n")
                .unwrap_err()
                .to_string()
                .contains("\"x\" is no score")
        );
    }

    #[test]
    fn groups_are_counted() {
        let table = read("model,task,score,group\na,t,1,g\na,u,1,h\n").unwrap();
        let mut of = BTreeMap::new();
        for task in table.matrix.tasks() {
            *of.entry(task.group.clone()).or_insert(0) += 1;
        }
        assert_eq!(of.len(), 2);
    }
}
