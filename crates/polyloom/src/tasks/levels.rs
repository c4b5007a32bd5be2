//! Held-out levels of one table: rows of seen tasks, tasks of seen categories, whole categories.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::slice;
use crate::error::{MergeError, Result};

/// Where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Seen in training.
    Train,
    /// An unseen row of a seen task.
    Instance,
    /// A row of an unseen task of a seen category.
    Task,
    /// A row of an unseen category.
    Category,
}

impl Level {
    /// All levels, the seen one first.
    pub const ALL: [Self; 4] = [Self::Train, Self::Instance, Self::Task, Self::Category];

    /// Its name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Instance => "held_out_instance",
            Self::Task => "held_out_task",
            Self::Category => "held_out_category",
        }
    }
}

/// The level of every row. Of the categories, then of the tasks of those that are left, then of the rows of every task
/// that is left, this share is held out: at least one, never all, chosen by seed. A task with one row keeps it.
///
/// # Errors
/// Fewer than two categories, fewer than two tasks in the categories that stay, a task that two categories have (its rows
/// would leak), a share outside (0, 1), a row without category or task.
pub fn assign(categories: &[Value], tasks: &[Value], share: f64, seed: u64) -> Result<Vec<Level>> {
    let bad = |what: String| MergeError::plan("bad-levels", what);
    if !(share > 0.0 && share < 1.0) {
        return Err(bad(format!("the share {share} is not between 0 and 1")));
    }
    let mut of_task = BTreeMap::<String, String>::new();
    for (row, (category, task)) in categories.iter().zip(tasks).enumerate() {
        if category.is_null() || task.is_null() {
            return Err(bad(format!("row {} has no category or no task", row + 1)));
        }
        let (category, task) = (category.to_string(), task.to_string());
        match of_task.get(&task) {
            Some(other) if *other != category => {
                return Err(bad(format!(
                    "the task {task} is in the categories {other} and {category}: it would leak"
                )));
            }
            _ => {
                of_task.insert(task, category);
            }
        }
    }
    let held = |names: Vec<&String>, salt: u64| -> BTreeSet<String> {
        let n = names.len() as u64;
        let count = ((n as f64 * share).round() as u64).clamp(1, n.saturating_sub(1));
        let order = slice::order(n, Some(seed.wrapping_add(salt)));
        let chosen = order.into_iter().take(count as usize);
        chosen
            .filter_map(|i| names.get(i as usize))
            .map(|n| (*n).clone())
            .collect()
    };
    let all: BTreeSet<&String> = of_task.values().collect();
    if all.len() < 2 {
        return Err(bad(format!(
            "there is {} category; two or more are needed",
            all.len()
        )));
    }
    let out_categories = held(all.into_iter().collect(), 0);
    let left: Vec<&String> = of_task
        .iter()
        .filter(|(_, c)| !out_categories.contains(*c))
        .map(|(t, _)| t)
        .collect();
    if left.len() < 2 {
        return Err(bad(
            "the categories that stay have one task; nothing could be held out".into(),
        ));
    }
    let out_tasks = held(left, 1);
    let mut rows = BTreeMap::<String, Vec<usize>>::new();
    let mut levels = vec![Level::Train; tasks.len()];
    for (row, task) in tasks.iter().enumerate() {
        let task = task.to_string();
        if out_categories.contains(&of_task[&task]) {
            levels[row] = Level::Category;
        } else if out_tasks.contains(&task) {
            levels[row] = Level::Task;
        } else {
            rows.entry(task).or_default().push(row);
        }
    }
    for (k, rows) in rows.values().enumerate() {
        let n = rows.len() as u64;
        let count =
            ((n as f64 * share).round() as u64).clamp(u64::from(n > 1), n.saturating_sub(1));
        let seed = seed.wrapping_add(2 + k as u64);
        for i in slice::order(n, Some(seed)).into_iter().take(count as usize) {
            levels[rows[i as usize]] = Level::Instance;
        }
    }
    Ok(levels)
}

/// What the held-out levels share with training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// The level.
    pub level: Level,
    /// Its rows.
    pub rows: u64,
    /// Its rows whose input is that of a row of training.
    pub leaked: u64,
}

/// Counts the rows of every held-out level whose input (a hash of it) training has too.
#[must_use]
pub fn leaks(levels: &[Level], inputs: &[u64]) -> Vec<Leak> {
    let rows = || levels.iter().zip(inputs);
    let train: HashSet<u64> = rows()
        .filter(|(l, _)| **l == Level::Train)
        .map(|(_, h)| *h)
        .collect();
    let mut counts = HashMap::<Level, (u64, u64)>::new();
    for (level, hash) in rows() {
        let (all, leaked) = counts.entry(*level).or_default();
        *all += 1;
        *leaked += u64::from(train.contains(hash));
    }
    let of = |level: &Level| {
        let (rows, leaked) = counts.get(level).copied().unwrap_or_default();
        Leak {
            level: *level,
            rows,
            leaked,
        }
    };
    Level::ALL[1..].iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn levels_never_share_a_task_or_category(
            categories in 2usize..6, per in 2usize..5, rows in 2usize..9, share in 0.05f64..0.95, seed in any::<u64>(),
        ) {
            let n = categories * per * rows;
            let category: Vec<Value> = (0..n).map(|i| json!(format!("c{}", i % categories))).collect();
            let task: Vec<Value> = (0..n).map(|i| json!(i % (categories * per))).collect();
            // Task i belongs to category i % categories, as `categories` divides the number of tasks.
            let levels = assign(&category, &task, share, seed).unwrap();
            let set = |values: &[Value], keep: &[Level]| -> BTreeSet<String> {
                levels.iter().zip(values).filter(|(l, _)| keep.contains(l)).map(|(_, v)| v.to_string()).collect()
            };
            use Level::{Category, Instance, Task, Train};
            prop_assert!(set(&category, &[Category]).is_disjoint(&set(&category, &[Train, Instance, Task])));
            prop_assert!(set(&task, &[Task]).is_disjoint(&set(&task, &[Train, Instance, Category])));
            prop_assert_eq!(set(&task, &[Instance]), set(&task, &[Train]));
            for level in Level::ALL {
                prop_assert!(levels.contains(&level));
            }
            prop_assert_eq!(assign(&category, &task, share, seed).unwrap(), levels);
        }
    }

    #[test]
    fn leaks_are_counted_and_shared_tasks_refused() {
        let levels = [
            Level::Train,
            Level::Train,
            Level::Instance,
            Level::Task,
            Level::Category,
        ];
        let found = leaks(&levels, &[1, 2, 2, 3, 1]);
        let counts: Vec<(u64, u64)> = found.iter().map(|l| (l.rows, l.leaked)).collect();
        assert_eq!(counts, [(1, 1), (1, 0), (1, 1)]);
        let values = |v: &[i32]| v.iter().map(|i| json!(i)).collect::<Vec<_>>();
        let told = assign(&values(&[1, 2]), &values(&[7, 7]), 0.5, 0)
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("the task 7 is in the categories 1 and 2"),
            "{told}"
        );
        assert!(assign(&values(&[1, 1]), &values(&[1, 2]), 0.5, 0).is_err());
        assert!(assign(&values(&[1, 2]), &values(&[1, 2]), 1.0, 0).is_err());
    }
}
