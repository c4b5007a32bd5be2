//! Two systems from files of results: paired by their records where there are any, else by their scores alone.

use std::path::Path;

use indexmap::IndexMap;

use super::unpaired::{Unpaired, unpaired};
use super::{Comparison, Metric, Overall, Paired, Settings, Slices, compare_with, correct};
use crate::error::Result;
use crate::evaluate::aggregate::matrix::Direction;
use crate::evaluate::board::predictions::{Columns, Predictions};
use crate::evaluate::board::results::{Cell, Results};
use crate::evaluate::statistics::Interval;

/// What two systems of a table are compared by.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Tasks with records of both systems, example by example.
    pub paired: Comparison,
    /// Tasks of which only the scores are known.
    pub unpaired: Vec<Unpaired>,
    /// Why tasks with records are not paired.
    pub notes: Vec<String>,
}

/// Compares two systems (rows) of a table on the tasks that both have. Records count where they give the score that the
/// table states; the task's own metric is taken where it is F1, Matthews' correlation or the like. Holm's correction is
/// over all tasks, paired or not.
///
/// # Errors
/// Records that cannot be read or that hold different examples (unless allowed).
pub fn stored(
    results: &Results,
    first: usize,
    second: usize,
    settings: &Settings,
) -> Result<Stored> {
    let mut rest = unpaired(results, first, second, settings.alpha)?;
    let mut found = Comparison {
        tasks: Vec::new(),
        slices: Vec::new(),
        overall: None,
        left_out: Vec::new(),
    };
    let mut lower = Vec::new();
    let mut notes = Vec::new();
    for (t, task) in results.tasks.iter().enumerate() {
        let (Some(a), Some(b)) = (results.cell(first, t), results.cell(second, t)) else {
            continue;
        };
        let (Some(old), Some(new)) = (record(a), record(b)) else {
            continue;
        };
        let own = Settings {
            metric: Metric::over_the_set(&task.metric).unwrap_or(settings.metric),
            lower_is_better: task.column.direction == Some(Direction::Lower),
            ..*settings
        };
        let name = &task.column.name;
        let (Some(old), Some(new)) = (of_task(old, name)?, of_task(new, name)?) else {
            notes.push(format!(
                "{name}: its records hold no such task; compared by its scores"
            ));
            continue;
        };
        let one = match compare_with(&old, &new, &Slices::default(), &own) {
            // Records of other programs may lack what the metric reads.
            Err(error) if error.code() == "bad-metric" => {
                notes.push(format!("{name}: {error}; compared by its scores"));
                continue;
            }
            one => one?,
        };
        let Some(paired) = one.tasks.into_iter().next() else {
            continue;
        };
        // What an RMSE is divided by depends on rows alone, so one factor serves both sides and the interval.
        let paired = match task.metric == "rmse_ratio" && a.value > 0.0 {
            true => divided(paired, a.value),
            false => paired,
        };
        let near = |x: f64, y: f64| (x - y).abs() <= 1e-6 * (1.0 + y.abs());
        let partial = !one.left_out.is_empty();
        if !(partial || near(paired.first.mean, a.value) && near(paired.second.mean, b.value)) {
            notes.push(format!(
                "{name}: its records give {:.4} and {:.4}, not the stated {:.4} and {:.4}; compared by its scores",
                paired.first.mean, paired.second.mean, a.value, b.value
            ));
            continue;
        }
        found.left_out.extend(one.left_out);
        lower.push(own.lower_is_better);
        found.tasks.push(paired);
        rest.retain(|u| u.task != *name);
    }
    // Means of what goes up and what goes down would say nothing.
    if lower.iter().all(|l| *l == lower[0]) {
        found.overall = Overall::of(&found.tasks, settings.alpha);
    }
    let tested: Vec<usize> = (0..rest.len()).filter(|u| !rest[*u].p.is_nan()).collect();
    let others: Vec<f64> = tested.iter().map(|u| rest[*u].p).collect();
    let tasks: Vec<(&mut Paired, bool)> = found.tasks.iter_mut().zip(lower).collect();
    for (u, p) in tested
        .into_iter()
        .zip(correct(tasks, &others, settings.alpha)?)
    {
        rest[u].p_holm = p;
    }
    Ok(Stored {
        paired: found,
        unpaired: rest,
        notes,
    })
}

/// A comparison in the unit in which the first side has `value`.
fn divided(mut paired: Paired, value: f64) -> Paired {
    let unit = paired.first.mean / value;
    let scaled = |i: Interval| Interval::new(i.low / unit, i.high / unit);
    for side in [&mut paired.first, &mut paired.second] {
        side.mean /= unit;
        side.interval = scaled(side.interval);
    }
    paired.difference /= unit;
    paired.interval = scaled(paired.interval);
    paired.error /= unit;
    paired.detectable /= unit;
    paired
}

fn record(cell: &Cell) -> Option<&Path> {
    cell.record.as_deref().filter(|p| p.is_file())
}

/// The examples of one task of a file of records, under that name.
fn of_task(path: &Path, task: &str) -> Result<Option<Predictions>> {
    let mut all = Predictions::read(path, &Columns::default())?;
    let only = all.tasks.len() == 1;
    let examples = match all.tasks.shift_remove(task) {
        Some(examples) => examples,
        None if only => match all.tasks.shift_remove_index(0) {
            Some((_, examples)) => examples,
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    all.binary = examples.values().all(|e| e.value == 0.0 || e.value == 1.0);
    all.tasks = IndexMap::from([(task.to_owned(), examples)]);
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::matrix::TaskColumn;
    use crate::evaluate::board::results::{System, Task};

    #[test]
    fn records_pair_where_they_give_the_score() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, right: usize| {
            let row = |i: usize| format!("t,{i},x,{}\n", if i < right { "x" } else { "y" });
            let rows: String = (0..40).map(row).collect();
            let path = dir.path().join(name);
            std::fs::write(&path, format!("task,id,target,prediction\n{rows}")).unwrap();
            path
        };
        let cell = |value: f64, record: Option<std::path::PathBuf>| {
            Some(Cell {
                stderr: Some(0.05),
                record,
                ..Cell::new(value)
            })
        };
        let (old, new) = (write("old.csv", 20), write("new.csv", 32));
        let task = |name: &str| Task::new(TaskColumn::new(name), "accuracy");
        let mut results = Results {
            systems: vec![System::new("a"), System::new("b")],
            tasks: vec![task("t"), task("u")],
            cells: vec![
                cell(0.5, Some(old)),
                cell(0.7, None),
                cell(0.8, Some(new)),
                cell(0.8, None),
            ],
        };
        let settings = super::super::Options {
            alpha: 0.05,
            allow_partial: false,
        }
        .into();
        let found = stored(&results, 0, 1, &settings).unwrap();
        assert_eq!((found.paired.tasks.len(), found.unpaired.len()), (1, 1));
        let paired = &found.paired.tasks[0];
        assert_eq!(
            (paired.better.len(), paired.verdict),
            (12, super::super::Verdict::Better)
        );
        // Two p-values: the smaller counts twice, the larger once.
        assert!((paired.p_holm - 2.0 * paired.p).abs() < 1e-12);
        assert_eq!(found.unpaired[0].p_holm, found.unpaired[0].p);
        results.cells[0].as_mut().unwrap().value = 0.6;
        let found = stored(&results, 0, 1, &settings).unwrap();
        assert_eq!((found.paired.tasks.len(), found.unpaired.len()), (0, 2));
        assert!(
            found.notes[0].contains("not the stated 0.6000"),
            "{:?}",
            found.notes
        );
        // What a correlation cannot read is compared by its scores, not refused.
        results.tasks[0].metric = "pearson".to_owned();
        let found = stored(&results, 0, 1, &settings).unwrap();
        assert_eq!((found.paired.tasks.len(), found.unpaired.len()), (0, 2));
        assert!(
            found.notes[0].contains("needs numbers"),
            "{:?}",
            found.notes
        );
    }

    #[test]
    fn correlations_pair_too_and_the_mean_over_tasks_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, off: f64| {
            let row = |i: usize| {
                let (x, push) = (
                    i as f64,
                    if usize::is_multiple_of(i, 3) {
                        off
                    } else {
                        -off
                    },
                );
                format!("t,{i},{x},{}\n", x + push)
            };
            let rows: String = (0..60).map(row).collect();
            let path = dir.path().join(name);
            std::fs::write(&path, format!("task,id,target,prediction\n{rows}")).unwrap();
            path
        };
        let (old, new) = (write("old.csv", 30.0), write("new.csv", 3.0));
        let pearson = |off: f64| {
            let x: Vec<f64> = (0..60).map(f64::from).collect();
            let y: Vec<f64> = x
                .iter()
                .zip(0..)
                .map(|(x, i)| {
                    x + if usize::is_multiple_of(i, 3) {
                        off
                    } else {
                        -off
                    }
                })
                .collect();
            crate::evaluate::metric::correlation::pearson(&x, &y)
                .unwrap()
                .r
        };
        let cell = |value: f64, record: &std::path::PathBuf| {
            Some(Cell {
                record: Some(record.clone()),
                ..Cell::new(value)
            })
        };
        let results = Results {
            systems: vec![System::new("a"), System::new("b")],
            tasks: vec![
                Task::new(TaskColumn::new("t"), "pearson"),
                Task::new(TaskColumn::new("u"), "pearson"),
            ],
            cells: [(30.0, &old), (30.0, &old), (3.0, &new), (3.0, &new)]
                .map(|(off, file)| cell(pearson(off), file))
                .to_vec(),
        };
        let options = super::super::Options {
            alpha: 0.05,
            allow_partial: false,
        };
        let found = stored(&results, 0, 1, &options.into()).unwrap();
        assert_eq!(found.notes, Vec::<String>::new());
        assert_eq!((found.paired.tasks.len(), found.unpaired.len()), (2, 0));
        let (one, all) = (&found.paired.tasks[0], found.paired.overall.unwrap());
        assert!((one.difference - (pearson(3.0) - pearson(30.0))).abs() < 1e-12);
        assert_eq!(one.verdict, super::super::Verdict::Better);
        assert_eq!(all.tasks, 2);
        assert!((all.difference - one.difference).abs() < 1e-12);
        let of_two = (one.error.powi(2) + found.paired.tasks[1].error.powi(2)).sqrt() / 2.0;
        assert!((all.error - of_two).abs() < 1e-12);
    }
}
