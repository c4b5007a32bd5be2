//! A model for every fold, scored on the rows that it did not see.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::folds::{FILE, Folds, SCHEMA, Scores};
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::output::Output;
use polyloom::evaluate::board::score::{Measured, Options, Scored, score};
use polyloom::tasks::data::save::save;
use polyloom::tasks::spec::{GroupAs, TaskSpec};

use super::plan::{ALL, Fold, HELD, Plan};
use super::record::{Record, Said, Score, Work};
use crate::error::{Error, Result};
use crate::tasks::encoder::Keeping;
use crate::tasks::evaluate::{self, Run, Shelf};
use crate::tasks::system::no_head;
use crate::tasks::{Base, Opened, System};
use crate::train::session::Options as There;
use crate::train::{self, Given, Recipe, train};

/// Rows of a pass.
const BATCH: usize = 1024;
/// Draws of the bootstrap for intervals that nothing reads.
const NO_DRAWS: usize = 2;
/// Name of the results of the rows of the first repeat, in the folder of the scores.
pub const RESULTS: &str = "results.json";
/// Name of the table of answers.
pub const PREDICTIONS: &str = "predictions.csv";

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told<'t> {
    /// A fold begins: repeat and fold from 0; by task the rows that are learned, that stop training, that are held out.
    Begins(usize, usize, &'t [[usize; 3]]),
    /// Its training tells something.
    Inside(&'t train::Told),
    /// It is scored: values of the metrics that count; `true` where it was found on disk.
    Scored(usize, usize, &'t [(String, f64)], bool),
}

/// What an interrupted run left may be gone on with, or there is nothing.
///
/// # Errors
/// A folder of scores that is there, without `resume` or `force`.
pub fn check(place: &Path, there: There) -> Result<()> {
    if !place.exists() || there.resume || there.force {
        return Ok(());
    }
    Err(match place.join(FILE).exists() {
        true => Error::file(place, "exists already")
            .hint("choose another name or pass --force to replace it"),
        false => Error::file(place, "holds folds of a run that was interrupted")
            .hint("--resume goes on with them, --force begins again"),
    })
}

/// Trains the recipe once for each fold, scores every model on its held-out rows and writes to `place`: the scores
/// (`folds.json`), for every task the answers of all repeats (`predictions.csv`, below a folder of the task where there are
/// several), and results with the means over folds, whose records are the answers of the first repeat (`results.json`). A fold's run has the seed of
/// the recipe plus the number of its repeat. A fold that is done is kept until all are; with `there.resume` it is not run
/// again, and the bytes are the same.
///
/// # Errors
/// As [`Plan::of`], [`train()`] and [`score`]; a folder that is there; [`polyloom_core::Error::Interrupted`] where `watch` says
/// stop.
pub fn cross(
    recipe: &Recipe,
    given: &[Given],
    place: &Path,
    there: There,
    watch: &mut dyn FnMut(&Told<'_>) -> bool,
) -> Result<Folds> {
    check(place, there)?;
    // Folds meet the same texts.
    let _kept = Keeping::begin();
    let plan = Plan::of(recipe, given)?;
    let key = plan.key();
    if there.resume && place.join(FILE).exists() {
        let held = Folds::read(place)?;
        if held.key == key {
            return Ok(held);
        }
        return Err(
            Error::file(place, "holds folds of another recipe or of other rows")
                .hint("--force replaces them"),
        );
    }
    if there.force && !there.resume && place.exists() {
        std::fs::remove_dir_all(place).map_err(|e| polyloom_core::Error::io(place, "remove", e))?;
    }
    let work = Work::begin(place)?;
    let mut records = Vec::new();
    for repeat in 0..plan.repeats {
        for fold in 0..plan.folds {
            let held = work.read(repeat, fold, &key)?;
            let found = held.is_some();
            let record = match held {
                Some(record) => record,
                None => {
                    let made = one(&plan, recipe, (repeat, fold), &key, &work, watch)?;
                    work.write(&made)?
                }
            };
            let primary = record.scores.iter().filter(|s| s.primary);
            let values: Vec<(String, f64)> = primary
                .map(|s| (s.name.clone(), s.value.unwrap_or(f64::NAN)))
                .collect();
            records.push(record);
            if !watch(&Told::Scored(repeat, fold, &values, found)) {
                return Err(polyloom_core::Error::Interrupted.into());
            }
        }
    }
    let folds = summary(&plan, recipe, given, key, &records)?;
    answered(&plan, given, &records, place, &folds)?;
    let text = serde_json::to_string_pretty(&folds)
        .map_err(|e| MergeError::Internal(format!("{FILE}: {e}")))?;
    let file = place.join(FILE);
    let part = place.join("folds.part");
    std::fs::write(&part, text + "\n")
        .and_then(|()| std::fs::rename(&part, &file))
        .map_err(|e| polyloom_core::Error::io(&file, "write", e))?;
    work.end()?;
    Ok(folds)
}

/// Trains and scores a fold. The model lies in the folder of work and goes.
fn one(
    plan: &Plan<'_>,
    recipe: &Recipe,
    (repeat, number): (usize, usize),
    key: &str,
    work: &Work,
    watch: &mut dyn FnMut(&Told<'_>) -> bool,
) -> Result<Record> {
    let fold = plan.fold(repeat, number)?;
    if !watch(&Told::Begins(repeat, number, &fold.rows)) {
        return Err(polyloom_core::Error::Interrupted.into());
    }
    let mut own = recipe.clone();
    own.seed = recipe.seed.wrapping_add(repeat as u64);
    // What is left is a training of its own.
    (own.train.folds, own.train.repeats) = (None, None);
    own.train.fold_splits.clear();
    let folder = work
        .folder
        .join(format!("model-{}-{}", repeat + 1, number + 1));
    let opened = Opened::fresh(&own, &fold.tasks)?;
    // A checkpoint of this fold is gone on with; a model that was not scored is made again.
    let there = There {
        resume: true,
        force: true,
        no_sync: true,
    };
    let mut inside = |_: &Path, told: &train::Told| watch(&Told::Inside(told));
    train(&own, &opened, &fold.tasks, &folder, there, &mut inside)?;
    let record = scored(&fold, &folder, key, (repeat, number))?;
    std::fs::remove_dir_all(&folder).map_err(|e| polyloom_core::Error::io(&folder, "remove", e))?;
    Ok(record)
}

/// The spec by which folds are scored: over all rows of a fold, where a task has groups that are tasks too (a fold has too
/// few rows of each); rows of a group count as a cluster in intervals.
fn as_scored(spec: &TaskSpec) -> TaskSpec {
    let mut spec = spec.clone();
    if let Some(table) = &mut spec.table
        && table.group_as == GroupAs::Task
    {
        table.group_as = GroupAs::Cluster;
    }
    spec
}

/// What the model in a folder says of the rows that the fold holds out, and how right it is.
fn scored(
    fold: &Fold,
    folder: &Path,
    key: &str,
    (repeat, number): (usize, usize),
) -> Result<Record> {
    let system = System::find(&folder.display().to_string(), None, None)?;
    let base = Base::open(&system.base, None)?;
    let ready = base.ready(&system)?;
    let run = Run {
        ready: &ready,
        reader: &base.reader,
        model: (folder, key),
        batch: BATCH,
    };
    let options = Options {
        split: HELD.into(),
        draws: NO_DRAWS,
        ..Options::default()
    };
    let mut record = Record {
        key: key.to_owned(),
        repeat,
        fold: number,
        scores: Vec::new(),
        said: IndexMap::new(),
    };
    for (task, held) in fold.tasks.iter().zip(&fold.held) {
        let (spec, loader) = (&task.spec, task.loader());
        let Some(found) = evaluate::files(&system, spec)? else {
            return Err(no_head(&system, &spec.id, ""));
        };
        let mut shelf = Shelf::new(HELD, None);
        let (answers, _) = run.predict(spec, &loader, &found, &mut shelf)?;
        let scores = score(&as_scored(spec), &loader, &task.hash, &answers, &options)?;
        for one in scores {
            let metrics = one.metrics.iter().enumerate();
            record.scores.extend(metrics.map(|(at, m)| Score {
                name: one.task.clone(),
                task: spec.id.clone(),
                metric: m.name.clone(),
                primary: at == 0,
                higher_is_better: m.higher_is_better,
                value: Some(m.value).filter(|v| v.is_finite()),
                reason: reason(m),
            }));
        }
        let said = Said {
            columns: answers.columns,
            rows: numbered(answers.rows, task, held)?,
        };
        record.said.insert(spec.id.clone(), said);
    }
    Ok(record)
}

fn reason(m: &Measured) -> Option<String> {
    let none = || (!m.value.is_finite()).then(|| format!("{} is {}", m.name, m.value));
    m.reason.clone().or_else(none)
}

/// Answers with the numbers of their rows among those of all folds.
fn numbered(
    rows: Vec<serde_json::Map<String, serde_json::Value>>,
    task: &Given,
    held: &[usize],
) -> Result<Vec<(usize, serde_json::Map<String, serde_json::Value>)>> {
    // Ids of the held-out rows, in their order: of a column, or counted from 0.
    let mut places = std::collections::HashMap::new();
    let column = &task.spec.fields.id;
    let mut at = 0;
    task.loader().rows(HELD, &mut |table| {
        for row in 0..table.rows() {
            let id = match &**column {
                "" => at.to_string(),
                column => match table.at(row, column) {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                },
            };
            places.insert(id, at);
            at += 1;
        }
        Ok(())
    })?;
    let lost = || MergeError::Internal("an answer to a row that no fold holds out".into());
    rows.into_iter()
        .map(|mut row| {
            let id = row.get("id").and_then(serde_json::Value::as_str);
            let place = id.and_then(|id| places.get(id));
            let number = place.and_then(|p| held.get(*p)).copied().ok_or_else(lost)?;
            if column.is_empty() {
                row.insert("id".into(), number.to_string().into());
            }
            Ok((number, row))
        })
        .collect()
}

/// All folds as the file has them.
fn summary(
    plan: &Plan<'_>,
    recipe: &Recipe,
    given: &[Given],
    key: String,
    records: &[Record],
) -> Result<Folds> {
    let tasks: IndexMap<_, _> = given
        .iter()
        .enumerate()
        .map(|(at, g)| (g.spec.id.clone(), plan.drawn(at)))
        .collect();
    let mut found: IndexMap<(&str, &str), Scores> = IndexMap::new();
    let empty = vec![vec![None; plan.folds]; plan.repeats];
    for record in records {
        for s in &record.scores {
            let entry = found.entry((&s.name, &s.metric)).or_insert_with(|| Scores {
                name: s.name.clone(),
                task: s.task.clone(),
                metric: s.metric.clone(),
                primary: s.primary,
                higher_is_better: s.higher_is_better,
                values: empty.clone(),
                reason: None,
                mean: None,
                deviation: None,
                stderr: None,
                interval: None,
            });
            entry.values[record.repeat][record.fold] = s.value;
            if let (None, Some(why)) = (&entry.reason, &s.reason) {
                let (repeat, fold) = (record.repeat + 1, record.fold + 1);
                entry.reason = Some(format!("repeat {repeat}, fold {fold}: {why}"));
            }
        }
    }
    let ratio = |s: &Scores| tasks.get(&s.task).map_or(0.0, |t| t.ratio);
    let scores = found.into_values().map(|s| {
        let ratio = ratio(&s);
        Ok(s.summed(ratio)?)
    });
    let new = recipe.train.new.as_ref();
    let model = new.and_then(|n| n.get("architecture"));
    let model = model
        .and_then(toml::Value::as_str)
        .unwrap_or("shared_bottom");
    Ok(Folds {
        schema: SCHEMA.into(),
        polyloom: env!("CARGO_PKG_VERSION").into(),
        key,
        model: model.to_owned(),
        folds: plan.folds,
        repeats: plan.repeats,
        seed: recipe.seed,
        scores: scores.collect::<Result<_>>()?,
        tasks,
    })
}

/// The metrics of a target by its folds: means over all of them, in place of values over all rows.
fn means(scored: &mut Scored, folds: &Folds) {
    for metric in &mut scored.metrics {
        let same = |s: &&Scores| s.name == scored.task && s.metric == metric.name;
        let Some(found) = folds.scores.iter().find(same) else {
            continue;
        };
        metric.value = found.mean.unwrap_or(f64::NAN);
        metric.stderr = found.stderr.unwrap_or(f64::NAN);
        metric.interval = found.interval.map(|[low, high]| (low, high));
        metric.method = "folds";
        metric.reason.clone_from(&found.reason);
    }
}

/// Writes the answers of all repeats; as results the means over folds, with the answers of the first repeat as records.
fn answered(
    plan: &Plan<'_>,
    given: &[Given],
    records: &[Record],
    place: &Path,
    folds: &Folds,
) -> Result<()> {
    let results = place.join(RESULTS);
    let all = |path: PathBuf, rows, columns| Answers {
        path,
        hash: folds.key.clone(),
        rows,
        columns,
        task: None,
        chosen: Columns {
            id: Some("id".into()),
            ..Columns::default()
        },
    };
    let nothing = all(place.to_owned(), Vec::new(), Vec::new());
    let mut output = Output::open(&results, &folds.model, &nothing, true)?;
    for (at, task) in given.iter().enumerate() {
        let id = &task.spec.id;
        let mut rows = Vec::new();
        let mut columns = Vec::new();
        for record in records {
            let Some(said) = record.said.get(id) else {
                continue;
            };
            columns.clone_from(&said.columns);
            rows.extend(said.rows.iter().map(|(row, said)| (record, *row, said)));
        }
        rows.sort_by_key(|(record, row, _)| (record.repeat, *row));
        let first = rows.iter().filter(|(record, ..)| record.repeat == 0);
        let first = first.map(|(_, row, said)| {
            let mut said = (*said).clone();
            if task.spec.fields.id.is_empty() {
                said.insert("id".into(), plan.place(at, *row).to_string().into());
            }
            said
        });
        let first = first.collect();
        let whole = plan.whole(at);
        let options = Options {
            split: ALL.into(),
            ..Options::default()
        };
        let answers = all(place.to_owned(), first, columns.clone());
        let mut scored = score(
            &as_scored(&whole.spec),
            &whole.loader(),
            &task.hash,
            &answers,
            &options,
        )?;
        scored.iter_mut().for_each(|s| means(s, folds));
        output.add(id, &folds.key, &scored)?;
        let file = match given {
            [_] => place.join(PREDICTIONS),
            _ => {
                let folder = place.join(id);
                std::fs::create_dir_all(&folder)
                    .map_err(|e| polyloom_core::Error::io(&folder, "create", e))?;
                folder.join(PREDICTIONS)
            }
        };
        columns.splice(1..1, ["repeat".to_owned(), "fold".to_owned()]);
        let rows = rows.into_iter().map(|(record, _, said)| {
            let mut row = said.clone();
            row.insert("repeat".into(), (record.repeat + 1).into());
            row.insert("fold".into(), (record.fold + 1).into());
            row
        });
        save(&all(file.clone(), rows.collect(), columns).table(), &file)?;
    }
    Ok(output.write()?)
}
