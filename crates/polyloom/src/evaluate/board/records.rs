//! The single answers behind scores: predictions as they were given, records that results name, answers of the files.

use std::path::Path;

use indexmap::IndexMap;

use super::import::{Answer, Imported, TaskAnswers};
use super::predictions::{Columns, Example, Predictions};
use super::results::Results;

/// Predictions by name of the system.
pub type BySystem = IndexMap<String, Predictions>;

/// Whether a file holds records of `polyloom eval`.
fn is_record(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

/// Everything that is known example by example. For a task of a system what was given counts, else the record that its
/// cell names, else the answers that came with the results. Adds a sentence to `notes` where a record cannot be read.
pub fn complete(imported: &Imported, mut given: BySystem, notes: &mut Vec<String>) -> BySystem {
    let results = &imported.results;
    for (s, system) in results.systems.iter().enumerate() {
        if given.contains_key(&system.name) {
            continue;
        }
        let mut all = Predictions {
            path: system.source.clone().unwrap_or_default(),
            tasks: IndexMap::new(),
            binary: true,
        };
        let mut seen: Vec<&Path> = Vec::new();
        for t in 0..results.tasks.len() {
            let record = results.cell(s, t).and_then(|c| c.record.as_deref());
            let Some(record) = record.filter(|r| is_record(r) && !seen.contains(r)) else {
                continue;
            };
            seen.push(record);
            match Predictions::read(record, &Columns::default()) {
                Ok(found) => {
                    all.binary &= found.binary;
                    all.tasks.extend(found.tasks);
                    all.path = record.to_path_buf();
                }
                Err(error) => notes.push(format!("records not read: {error}")),
            }
        }
        for task in &imported.answers {
            let name = &results.tasks[task.task].column.name;
            let Some(answers) = task
                .answers
                .get(s)
                .filter(|_| !all.tasks.contains_key(name))
            else {
                continue;
            };
            let each = task.ids.iter().zip(answers);
            let examples: IndexMap<String, Example> = each
                .filter_map(|(id, answer)| Some((id.clone(), example((*answer)?))))
                .collect();
            if !examples.is_empty() {
                all.binary &= examples.values().all(|e| e.value == 0.0 || e.value == 1.0);
                all.tasks.insert(name.clone(), examples);
            }
        }
        if !all.tasks.is_empty() {
            given.insert(system.name.clone(), all);
        }
    }
    given
}

fn example(answer: Answer) -> Example {
    Example {
        value: answer.mean(),
        texts: None,
        confidence: None,
        second: None,
        input: None,
    }
}

/// The answers of a table out of predictions, task by task: what is drawn again.
pub fn answers_of(results: &Results, predictions: &BySystem) -> Vec<TaskAnswers> {
    let of_task = |(task, info): (usize, &super::results::Task)| {
        let name = info.column.name.as_str();
        let lists: Vec<Option<&IndexMap<String, Example>>> = results
            .systems
            .iter()
            .map(|system| {
                let tasks = &predictions.get(&system.name)?.tasks;
                // A file without a column of tasks is one task, `all`.
                tasks
                    .get(name)
                    .or_else(|| tasks.get("").filter(|_| name == "all"))
            })
            .collect();
        let mut ids: IndexMap<&str, usize> = IndexMap::new();
        for id in lists.iter().flatten().flat_map(|list| list.keys()) {
            let next = ids.len();
            ids.entry(id).or_insert(next);
        }
        if ids.is_empty() {
            return None;
        }
        let answers = lists.iter().map(|list| {
            let Some(list) = list else {
                return Vec::new();
            };
            let answer = |id: &&str| {
                let sum = list.get(*id)?.value;
                Some(Answer { trials: 1, sum })
            };
            ids.keys().map(answer).collect()
        });
        Some(TaskAnswers {
            task,
            answers: answers.collect(),
            ids: ids.keys().map(|id| (*id).to_owned()).collect(),
        })
    };
    results
        .tasks
        .iter()
        .enumerate()
        .filter_map(of_task)
        .collect()
}

/// The single answers behind a table: as they came with it and, where cells name records, from those too.
pub fn answers(imported: &Imported, notes: &mut Vec<String>) -> Vec<TaskAnswers> {
    let cells = imported.results.cells.iter().flatten();
    if cells.filter_map(|c| c.record.as_deref()).any(is_record) {
        answers_of(
            &imported.results,
            &complete(imported, BySystem::new(), notes),
        )
    } else {
        imported.answers.clone()
    }
}

/// Attempts and passes of every problem that was tried several times, by name of the system.
pub fn attempts(imported: &Imported) -> IndexMap<String, Vec<(u64, u64)>> {
    let mut found = IndexMap::new();
    for (s, system) in imported.results.systems.iter().enumerate() {
        let lists = imported
            .answers
            .iter()
            .filter_map(|task| task.answers.get(s));
        let passed = |a: &Answer| {
            let whole = a.sum.fract() == 0.0 && (0.0..=f64::from(a.trials)).contains(&a.sum);
            (a.trials > 1 && whole).then_some((u64::from(a.trials), a.sum as u64))
        };
        let problems: Vec<(u64, u64)> = lists.flatten().flatten().filter_map(passed).collect();
        if !problems.is_empty() {
            found.insert(system.name.clone(), problems);
        }
    }
    found
}
