//! Scores of systems on tasks with what is known about each: what every importer makes and every board and report reads.

use std::path::PathBuf;

use indexmap::IndexMap;

use crate::error::{MergeError, Result};
use crate::evaluate::aggregate::{Direction, ScoreMatrix, TaskColumn};

use super::condition::Condition;

/// Scores of systems on tasks; a cell may be missing.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// Rows.
    pub systems: Vec<System>,
    /// Columns.
    pub tasks: Vec<Task>,
    /// Row-major, `systems.len() * tasks.len()`.
    pub cells: Vec<Option<Cell>>,
}

/// A model, a merge, a method: whatever has scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct System {
    /// Unique among the systems.
    pub name: String,
    /// The file (the first, of several) that its scores come from.
    pub source: Option<PathBuf>,
    /// What it costs, in units of its own: `params`, `bytes`, `seconds`, `tokens`, ...
    pub costs: IndexMap<String, f64>,
}

/// A task and the metric that its column holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Name, direction, weight and references, as aggregation reads them.
    pub column: TaskColumn,
    /// Name of the metric; empty where nobody said.
    pub metric: String,
    /// `skill`, `domain`, `modality`, `capability`, `group`, ... -> values.
    pub tags: IndexMap<String, Vec<String>>,
    /// Hash of the task's spec and data.
    pub hash: Option<String>,
}

/// One score.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The score; finite. The mean of the replicates where there are several.
    pub value: f64,
    /// Its standard error over examples.
    pub stderr: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// Examples behind it.
    pub n: Option<u64>,
    /// The scores of seeds, checkpoints or runs, in order; empty where there was one run.
    pub replicates: Vec<f64>,
    /// The file of per-example records.
    pub record: Option<PathBuf>,
}

impl Cell {
    /// A score of which nothing else is known.
    pub fn new(value: f64) -> Self {
        Self {
            value,
            stderr: None,
            interval: None,
            n: None,
            replicates: Vec::new(),
            record: None,
        }
    }

    /// The standard error: as stated, else from the replicates (standard deviation / square root of their number), else
    /// from a stated interval, read as 95 % of a normal distribution.
    pub fn standard_error(&self) -> Option<f64> {
        if self.stderr.is_some() {
            return self.stderr;
        }
        if self.replicates.len() > 1 {
            let n = self.replicates.len() as f64;
            let mean = self.replicates.iter().sum::<f64>() / n;
            let squares: f64 = self.replicates.iter().map(|x| (x - mean).powi(2)).sum();
            return Some((squares / (n - 1.0) / n).sqrt());
        }
        let (low, high) = self.interval?;
        Some((high - low) / (2.0 * 1.959_963_984_540_054))
    }
}

impl System {
    /// A system of which nothing else is known.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

impl Task {
    /// A task of a metric, of which nothing else is known.
    pub fn new(column: TaskColumn, metric: impl Into<String>) -> Self {
        Self {
            column,
            metric: metric.into(),
            tags: IndexMap::new(),
            hash: None,
        }
    }
}

impl Results {
    /// The cell of a system (row) and a task (column); `None` where it is missing or out of range.
    pub fn cell(&self, system: usize, task: usize) -> Option<&Cell> {
        if task >= self.tasks.len() {
            return None;
        }
        self.cells.get(system * self.tasks.len() + task)?.as_ref()
    }

    /// How many cells hold a score.
    pub fn filled(&self) -> usize {
        self.cells.iter().flatten().count()
    }

    /// The table that every aggregation reads.
    ///
    /// # Errors
    /// What [`ScoreMatrix::new`] refuses: nothing at all, names that stand twice, infinite numbers.
    pub fn matrix(&self) -> Result<ScoreMatrix> {
        let systems = self.systems.iter().map(|s| s.name.clone()).collect();
        let tasks = self.tasks.iter().map(|t| t.column.clone()).collect();
        let value = |cell: &Option<Cell>| cell.as_ref().map_or(f64::NAN, |c| c.value);
        let cells = self.cells.iter().map(value).collect();
        ScoreMatrix::new(systems, tasks, cells).map_err(|e| {
            MergeError::plan("bad-results", e.to_string())
                .hint("a board needs at least one system and one task, and finite scores")
        })
    }

    /// The same results with the systems and tasks whose numbers are given, in that order; numbers out of range are
    /// passed over.
    #[must_use]
    pub fn select(&self, systems: &[usize], tasks: &[usize]) -> Self {
        let rows = systems.iter().copied().filter(|&s| s < self.systems.len());
        let rows: Vec<usize> = rows.collect();
        let columns = tasks.iter().copied().filter(|&t| t < self.tasks.len());
        let columns: Vec<usize> = columns.collect();
        let pick = |&s: &usize| columns.iter().map(move |&t| self.cell(s, t).cloned());
        Self {
            systems: rows.iter().map(|&s| self.systems[s].clone()).collect(),
            tasks: columns.iter().map(|&t| self.tasks[t].clone()).collect(),
            cells: rows.iter().flat_map(pick).collect(),
        }
    }

    /// The systems and tasks that hold to every condition; systems left without a score are dropped.
    ///
    /// # Errors
    /// A condition on a tag that no task has, or conditions that leave nothing.
    pub fn filter(&self, conditions: &[Condition]) -> Result<Self> {
        for condition in conditions {
            condition.known(self)?;
        }
        let tasks: Vec<usize> = (0..self.tasks.len())
            .filter(|&t| conditions.iter().all(|c| c.takes_task(&self.tasks[t])))
            .collect();
        let systems: Vec<usize> = (0..self.systems.len())
            .filter(|&s| conditions.iter().all(|c| c.takes_system(&self.systems[s])))
            .filter(|&s| conditions.is_empty() || tasks.iter().any(|&t| self.cell(s, t).is_some()))
            .collect();
        if systems.is_empty() || tasks.is_empty() {
            let said: Vec<String> = conditions.iter().map(ToString::to_string).collect();
            return Err(MergeError::plan(
                "nothing-left",
                format!("no score is left where {}", said.join(" and ")),
            )
            .hint(format!(
                "{} systems and {} tasks were read; loosen a condition",
                self.systems.len(),
                self.tasks.len()
            )));
        }
        Ok(self.select(&systems, &tasks))
    }

    /// Both tables in one: systems and tasks of the same name are the same. What one side does not know of a system or a
    /// task, the other adds.
    ///
    /// # Errors
    /// A task that the two measure with different metrics or in different directions or with different hashes, a cell
    /// that both hold with different values.
    pub fn merge(mut self, other: Self) -> Result<Self> {
        let columns: IndexMap<String, usize> = self.tasks.iter().enumerate().map(named).collect();
        let rows = self.systems.iter().enumerate();
        let mut rows: IndexMap<String, usize> = rows.map(|(s, x)| (x.name.clone(), s)).collect();
        let (mut columns, width) = (columns, self.tasks.len());
        let mut to = Vec::with_capacity(other.tasks.len());
        for task in other.tasks.iter().cloned() {
            let name = task.column.name.clone();
            let at = *columns.entry(name).or_insert(self.tasks.len());
            match self.tasks.get_mut(at) {
                Some(mine) => mine.learn(task)?,
                None => self.tasks.push(task),
            }
            to.push(at);
        }
        let mut table: Vec<Vec<Option<Cell>>> = Vec::with_capacity(self.systems.len());
        for row in 0..self.systems.len() {
            let mut cells = self.cells[row * width..][..width].to_vec();
            cells.resize(self.tasks.len(), None);
            table.push(cells);
        }
        let mut cells = other.cells.into_iter();
        for system in other.systems {
            let row = *rows.entry(system.name.clone()).or_insert(table.len());
            if row == table.len() {
                table.push(vec![None; self.tasks.len()]);
                self.systems.push(system);
            } else {
                let mine = &mut self.systems[row];
                mine.source = mine.source.take().or(system.source);
                for (cost, value) in system.costs {
                    mine.costs.entry(cost).or_insert(value);
                }
            }
            for (cell, &column) in cells.by_ref().take(to.len()).zip(&to) {
                let mine = &mut table[row][column];
                match (&mine, cell) {
                    (_, None) => {}
                    (None, cell) => *mine = cell,
                    (Some(a), Some(b)) if a.value == b.value => {}
                    (Some(a), Some(b)) => {
                        let (system, task) = (&self.systems[row].name, &self.tasks[column]);
                        return Err(MergeError::plan(
                            "two-scores",
                            format!(
                                "two scores of `{system}` on `{}`: {} and {}",
                                task.column.name, a.value, b.value
                            ),
                        )
                        .hint("give one of the two systems another name"));
                    }
                }
            }
        }
        self.cells = table.into_iter().flatten().collect();
        Ok(self)
    }
}

impl Task {
    /// Takes over what it does not know from the same task elsewhere.
    fn learn(&mut self, other: Self) -> Result<()> {
        let name = &self.column.name;
        let differ = |what: &str, a: &str, b: &str| {
            MergeError::plan(
                "task-differs",
                format!("task `{name}`: {what} {a} in one place, {b} in another"),
            )
            .hint("rename one of the two tasks, or leave one of the files out")
        };
        if !self.metric.is_empty() && !other.metric.is_empty() && self.metric != other.metric {
            return Err(differ("measured by", &self.metric, &other.metric));
        }
        if self.column.direction != other.column.direction {
            let word = |d: Option<Direction>| match d {
                Some(Direction::Higher) => "higher is better",
                Some(Direction::Lower) => "lower is better",
                None => "no good end",
            };
            let (a, b) = (self.column.direction, other.column.direction);
            return Err(differ("direction is", word(a), word(b)));
        }
        if let (Some(a), Some(b)) = (&self.hash, &other.hash)
            && a != b
        {
            return Err(differ("hash is", a, b));
        }
        if self.metric.is_empty() {
            self.metric = other.metric;
        }
        self.hash = self.hash.take().or(other.hash);
        let (mine, theirs) = (&mut self.column, other.column);
        mine.chance = mine.chance.or(theirs.chance);
        mine.maximum = mine.maximum.or(theirs.maximum);
        mine.expert = mine.expert.or(theirs.expert);
        mine.size = mine.size.or(theirs.size);
        mine.group = mine.group.take().or(theirs.group);
        for (tag, values) in other.tags {
            let known = self.tags.entry(tag).or_default();
            for value in values {
                if !known.contains(&value) {
                    known.push(value);
                }
            }
        }
        Ok(())
    }
}

fn named((at, task): (usize, &Task)) -> (String, usize) {
    (task.column.name.clone(), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(systems: &[&str], tasks: &[&str], cells: &[f64]) -> Results {
        let task = |t: &&str| Task::new(TaskColumn::new(*t), "accuracy");
        let cell = |x: &f64| (!x.is_nan()).then(|| Cell::new(*x));
        Results {
            systems: systems.iter().map(|s| System::new(*s)).collect(),
            tasks: tasks.iter().map(task).collect(),
            cells: cells.iter().map(cell).collect(),
        }
    }

    #[test]
    fn two_tables_become_one() {
        let a = results(&["x", "y"], &["t", "u"], &[1.0, 2.0, 3.0, f64::NAN]);
        let b = results(&["y", "z"], &["u", "v"], &[4.0, 5.0, 6.0, 7.0]);
        let both = a.merge(b).unwrap();
        let value = |s, t| both.cell(s, t).map(|c| c.value);
        assert_eq!(both.systems.len(), 3);
        let names: Vec<_> = both.tasks.iter().map(|t| &t.column.name[..]).collect();
        assert_eq!(names, ["t", "u", "v"]);
        assert_eq!((value(0, 0), value(0, 2)), (Some(1.0), None));
        assert_eq!((value(1, 1), value(1, 2)), (Some(4.0), Some(5.0)));
        assert_eq!((value(2, 0), value(2, 1)), (None, Some(6.0)));
        assert_eq!(both.filled(), 7);
        assert!(both.matrix().unwrap().row(2)[0].is_nan());
    }

    #[test]
    fn two_tables_that_disagree_are_refused() {
        let a = results(&["x"], &["t"], &[1.0]);
        assert!(a.clone().merge(a.clone()).is_ok());
        let b = results(&["x"], &["t"], &[2.0]);
        assert_eq!(a.clone().merge(b).unwrap_err().code(), "two-scores");
        let mut c = results(&["z"], &["t"], &[2.0]);
        c.tasks[0].metric = "f1".into();
        assert_eq!(a.clone().merge(c).unwrap_err().code(), "task-differs");
        let mut d = results(&["z"], &["t"], &[2.0]);
        d.tasks[0].column.direction = Some(Direction::Lower);
        assert_eq!(a.merge(d).unwrap_err().code(), "task-differs");
    }

    #[test]
    fn standard_errors_come_from_what_is_there() {
        let mut cell = Cell::new(0.5);
        assert_eq!(cell.standard_error(), None);
        cell.interval = Some((0.4, 0.6));
        assert!((cell.standard_error().unwrap() - 0.051_021_35).abs() < 1e-6);
        cell.replicates = vec![0.4, 0.6];
        assert!((cell.standard_error().unwrap() - 0.1).abs() < 1e-12);
        cell.stderr = Some(0.02);
        assert_eq!(cell.standard_error(), Some(0.02));
    }

    #[test]
    fn conditions_make_boards() {
        let mut all = results(&["x", "y"], &["t", "u"], &[1.0, 2.0, 3.0, f64::NAN]);
        all.tasks[1]
            .tags
            .insert("skill".into(), vec!["maths".into(), "code".into()]);
        let keep = |text: &str| all.filter(&[text.parse().unwrap()]);
        let maths = keep("skill=maths").unwrap();
        assert_eq!((maths.systems.len(), maths.tasks.len()), (1, 1));
        assert_eq!(keep("skill!=maths").unwrap().systems.len(), 2);
        assert_eq!(keep("system=y*").unwrap().systems[0].name, "y");
        assert_eq!(keep("skill=love").unwrap_err().code(), "nothing-left");
        assert_eq!(keep("colour=red").unwrap_err().code(), "unknown-tag");
    }
}
