//! One table out of single scores.

use std::collections::{BTreeSet, HashMap, HashSet};

use indexmap::IndexMap;

use super::entry::{Answers, Entry, Gathered, is_asked};
use super::{Imported, Options, TaskAnswers};
use crate::error::{MergeError, Result};
use crate::evaluate::aggregate::{Direction, TaskColumn};
use crate::evaluate::board::results::{Cell, Results, System, Task};
use crate::evaluate::metric::registry;
use crate::evaluate::statistics::mean::standard_error;
use crate::evaluate::sum::mean;

/// A score, and whether it was computed here from single answers.
struct Scored {
    entry: Entry,
    computed: bool,
}

/// Makes the table.
pub(super) fn assemble(mut found: Gathered, options: &Options) -> Result<Imported> {
    let alias = |name: String| found.aliases.get(&name).cloned().unwrap_or(name);
    let answers: IndexMap<(String, String), Answers> = std::mem::take(&mut found.answers)
        .into_iter()
        .map(|((system, task), a)| ((alias(system), task), a))
        .collect();
    let mut all: Vec<Scored> = Vec::with_capacity(found.entries.len() + answers.len());
    let stated = std::mem::take(&mut found.entries).into_iter();
    all.extend(stated.map(|entry| Scored {
        entry,
        computed: false,
    }));
    all.extend(answers.iter().map(|(key, a)| Scored {
        entry: score(key, a),
        computed: true,
    }));
    let members = std::mem::take(&mut found.members);
    if !members.is_empty() {
        // Of whatever file: a task beside the group that holds it would count twice.
        all.retain(|s| !members.contains(&s.entry.task));
        let names: Vec<&str> = members.iter().map(String::as_str).take(6).collect();
        found.note(format!(
            "groups count, their tasks do not: {}{}",
            names.join(", "),
            if members.len() > 6 { ", ..." } else { "" }
        ));
    }
    if !found.aggregates.is_empty() {
        let names: BTreeSet<&String> = found.aggregates.iter().collect();
        let names: Vec<&str> = names.into_iter().map(String::as_str).take(6).collect();
        let text = format!(
            "groups are left out, their tasks count: {} (--groups turns it round)",
            names.join(", ")
        );
        found.note(text);
    }
    let metric_of = choose(&all, options, &mut found.notes);
    all.retain(|s| metric_of.get(&s.entry.task) == Some(&s.entry.metric));
    settings(&all, &mut found);

    let mut systems: IndexMap<String, System> = IndexMap::new();
    let mut tasks: IndexMap<String, Task> = IndexMap::new();
    let mut cells: HashMap<(usize, usize), Vec<Scored>> = HashMap::new();
    for scored in all {
        let entry = &scored.entry;
        if !entry.value.is_finite() {
            return Err(MergeError::plan(
                "bad-score",
                format!(
                    "`{}` on `{}` scores {}",
                    entry.system, entry.task, entry.value
                ),
            )
            .at(found.files[entry.file].display().to_string())
            .hint("leave a score that is not defined out"));
        }
        if !systems.contains_key(&entry.system) {
            let mut system = System::new(entry.system.clone());
            system.source = Some(found.files[entry.file].clone());
            system.costs = found.costs.swap_remove(&entry.system).unwrap_or_default();
            systems.insert(entry.system.clone(), system);
        }
        let task = tasks.entry(entry.task.clone()).or_insert_with(|| {
            let mut column = TaskColumn::new(entry.task.clone());
            column.direction = direction(entry, options);
            Task::new(column, entry.metric.clone())
        });
        learn(task, entry);
        let s = systems.get_index_of(&entry.system).unwrap_or_default();
        let t = tasks.get_index_of(&entry.task).unwrap_or_default();
        cells.entry((s, t)).or_default().push(scored);
    }
    let mut table = vec![None; systems.len() * tasks.len()];
    for ((s, t), list) in cells {
        table[s * tasks.len() + t] = Some(cell(list, &found)?);
    }
    let results = Results {
        systems: systems.into_values().collect(),
        tasks: tasks.into_values().collect(),
        cells: table,
    };
    let left: Vec<_> = options
        .conditions
        .iter()
        .filter(|c| !found.applied.contains(&c.key))
        .cloned()
        .collect();
    if results.filled() == 0 {
        let said: Vec<String> = options.conditions.iter().map(ToString::to_string).collect();
        return Err(match said.is_empty() {
            true => MergeError::plan("empty", "no score in these files")
                .hint("groups of lm-eval alone? --groups takes them as tasks"),
            false => MergeError::plan(
                "nothing-left",
                format!("no score is left where {}", said.join(" and ")),
            )
            .hint("loosen a condition"),
        });
    }
    let results = if left.is_empty() {
        results
    } else {
        results.filter(&left)?
    };
    let answers = align(&results, &answers);
    Ok(Imported {
        results,
        answers,
        replicate: found.replicate,
        notes: found.notes,
    })
}

/// The mean of single answers.
fn score((system, task): &(String, String), answers: &Answers) -> Entry {
    let values: Vec<f64> = answers.by_id.values().map(|a| a.mean()).collect();
    Entry {
        system: system.clone(),
        task: task.clone(),
        metric: answers.metric.clone(),
        primary: true,
        value: mean(values.iter().copied()),
        stderr: standard_error(&values).ok().filter(|x| x.is_finite()),
        n: Some(values.len() as u64),
        direction: answers.direction,
        group: answers.tags.get("group").and_then(|g| g.first().cloned()),
        tags: answers.tags.clone(),
        file: answers.file,
        ..Entry::default()
    }
}

/// A metric for each task: one that is asked for, else the one that most systems have, else the first.
fn choose(all: &[Scored], options: &Options, notes: &mut Vec<String>) -> HashMap<String, String> {
    type Votes<'a> = IndexMap<&'a str, (HashSet<&'a str>, bool)>;
    let mut votes: IndexMap<&str, Votes> = IndexMap::new();
    for Scored { entry, .. } in all {
        let metrics = votes.entry(&entry.task).or_default();
        let (systems, primary) = metrics.entry(&entry.metric).or_default();
        systems.insert(&entry.system);
        *primary |= entry.primary;
    }
    let mut others: IndexMap<&str, usize> = IndexMap::new();
    let mut chosen = HashMap::new();
    for (task, metrics) in votes {
        let asked = options
            .metrics
            .iter()
            .find_map(|m| metrics.keys().position(|k| is_asked(k, m)));
        let most = (0..metrics.len()).max_by_key(|&i| {
            let (systems, primary) = &metrics[i];
            (systems.len(), *primary, std::cmp::Reverse(i))
        });
        let at = asked.or(most).unwrap_or_default();
        for (i, metric) in metrics.keys().enumerate() {
            if i != at {
                *others.entry(metric).or_default() += 1;
            }
        }
        if let Some((metric, _)) = metrics.get_index(at) {
            chosen.insert(task.to_owned(), (*metric).to_owned());
        }
    }
    if !others.is_empty() && options.metrics.is_empty() {
        let names: Vec<&str> = others.keys().copied().take(5).collect();
        let more = if others.len() > 5 { ", ..." } else { "" };
        notes.push(format!(
            "one metric counts per task; not shown: {}{more} (--metric NAME)",
            names.join(", ")
        ));
    }
    chosen
}

/// Says where a task was not run in the same way.
fn settings(all: &[Scored], found: &mut Gathered) {
    let mut seen: IndexMap<&str, IndexMap<&str, &str>> = IndexMap::new();
    for Scored { entry, .. } in all.iter().filter(|s| !s.entry.setting.is_empty()) {
        let settings = seen.entry(&entry.task).or_default();
        settings.entry(&entry.setting).or_insert(&entry.system);
    }
    let differ: Vec<_> = seen.into_iter().filter(|(_, s)| s.len() > 1).collect();
    let Some((task, settings)) = differ.first() else {
        return;
    };
    let said: Vec<String> = settings
        .iter()
        .take(2)
        .map(|(s, system)| format!("{s} ({system})"))
        .collect();
    let more = match differ.len() - 1 {
        0 => String::new(),
        n => format!(", and so on {n} more tasks"),
    };
    let text = format!(
        "not the same test for all: {task} with {}{more}",
        said.join(" and ")
    );
    found.note(text);
}

/// The good end of a task: as asked, as stated, as the metric is known, by its name; else up.
fn direction(entry: &Entry, options: &Options) -> Option<Direction> {
    if options
        .lower
        .iter()
        .any(|l| *l == entry.metric || *l == entry.task)
    {
        return Some(Direction::Lower);
    }
    if let Some(stated) = entry.direction {
        return stated;
    }
    let name = entry.metric.split(',').next().unwrap_or_default();
    if let Some(metric) = registry::find(name) {
        return Some(if metric.higher_is_better() {
            Direction::Higher
        } else {
            Direction::Lower
        });
    }
    const LOWER: &[&str] = &[
        "perplexity",
        "ppl",
        "loss",
        "error",
        "err",
        "wer",
        "cer",
        "mse",
        "rmse",
        "mae",
        "nll",
        "bpb",
        "ter",
        "latency",
        "seconds",
        "bits",
    ];
    let lower = name.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    Some(if words.any(|w| LOWER.contains(&w)) {
        Direction::Lower
    } else {
        Direction::Higher
    })
}

fn learn(task: &mut Task, entry: &Entry) {
    let column = &mut task.column;
    column.chance = column.chance.or(entry.chance);
    column.maximum = column.maximum.or(entry.maximum);
    column.expert = column.expert.or(entry.expert);
    column.size = column.size.max(entry.n);
    if let Some(weight) = entry.weight {
        column.weight = weight;
    }
    if column.group.is_none() {
        column.group.clone_from(&entry.group);
    }
    if task.hash.is_none() {
        task.hash.clone_from(&entry.hash);
    }
    for (tag, values) in &entry.tags {
        let known = task.tags.entry(tag.clone()).or_default();
        for value in values {
            if !known.contains(value) {
                known.push(value.clone());
            }
        }
    }
}

/// One cell out of the scores of a system on a task: replicates, or one score that may be stated and computed.
fn cell(mut list: Vec<Scored>, found: &Gathered) -> Result<Cell> {
    if list.len() > 1 && list.iter().any(|s| !s.computed) {
        list.retain(|s| !s.computed);
    }
    let labels: HashSet<&String> = list
        .iter()
        .filter_map(|s| s.entry.replicate.as_ref())
        .collect();
    if list.len() > 1 && labels.len() == list.len() {
        list.sort_by(|a, b| order(&a.entry).total_cmp(&order(&b.entry)));
        let replicates: Vec<f64> = list.iter().map(|s| s.entry.value).collect();
        let mut cell = Cell::new(mean(replicates.iter().copied()));
        cell.n = list[0].entry.n;
        cell.replicates = replicates;
        return Ok(cell);
    }
    let first = &list[0].entry;
    if let Some(other) = list.iter().find(|s| s.entry.value != first.value) {
        let other = &other.entry;
        let same = first.file == other.file;
        let (a, b) = (
            found.files[first.file].display(),
            found.files[other.file].display(),
        );
        let error = MergeError::plan(
            "two-scores",
            format!(
                "two scores of `{}` on `{}`: {} and {}{}",
                first.system,
                first.task,
                first.value,
                other.value,
                if same {
                    String::new()
                } else {
                    format!(", the second in {b}")
                }
            ),
        )
        .at(a.to_string());
        if !same {
            return Err(error.hint(format!("name the systems: one={a} other={b}")));
        }
        let differ: Vec<&str> = first
            .tags
            .iter()
            .filter(|(k, v)| other.tags.get(*k) != Some(v))
            .map(|(k, _)| k.as_str())
            .collect();
        return Err(match differ.as_slice() {
            [] => error.hint("repeated runs need a column that counts them (seed, run, checkpoint)"),
            keys => error.hint(format!(
                "they differ in {}: choose with --where {}={}, or make it part of the name: --system or --task with a list of columns",
                keys.join(", "),
                keys[0],
                first.tags[keys[0]].join(",")
            )),
        });
    }
    Ok(Cell {
        value: first.value,
        stderr: first.stderr,
        interval: first.interval,
        n: first.n,
        replicates: Vec::new(),
        record: first.record.clone(),
    })
}

/// Replicates in the order of their numbers (step 900 before 10000), else of the file.
fn order(entry: &Entry) -> f64 {
    let label = entry.replicate.as_deref().unwrap_or_default();
    let digits: String = label
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    digits.parse().unwrap_or(0.0)
}

/// Answers in the rows and columns of the table.
fn align(results: &Results, answers: &IndexMap<(String, String), Answers>) -> Vec<TaskAnswers> {
    let rows: HashMap<&str, usize> = results
        .systems
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.as_str(), i))
        .collect();
    let columns: HashMap<&str, usize> = results
        .tasks
        .iter()
        .enumerate()
        .map(|(i, t)| (t.column.name.as_str(), i))
        .collect();
    let mut of_task: Vec<Vec<(usize, &Answers)>> = vec![Vec::new(); results.tasks.len()];
    for ((system, task), list) in answers {
        if let (Some(&s), Some(&t)) = (rows.get(system.as_str()), columns.get(task.as_str()))
            && results.tasks[t].metric == list.metric
        {
            of_task[t].push((s, list));
        }
    }
    let mut found = Vec::new();
    for (task, lists) in of_task
        .into_iter()
        .enumerate()
        .filter(|(_, l)| !l.is_empty())
    {
        let mut ids: IndexMap<&str, usize> = IndexMap::new();
        for id in lists.iter().flat_map(|(_, a)| a.by_id.keys()) {
            let next = ids.len();
            ids.entry(id).or_insert(next);
        }
        let mut by_system = vec![Vec::new(); results.systems.len()];
        for (s, list) in lists {
            by_system[s] = vec![None; ids.len()];
            for (id, answer) in &list.by_id {
                by_system[s][ids[id.as_str()]] = Some(*answer);
            }
        }
        let ids = ids.into_keys().map(str::to_owned).collect();
        found.push(TaskAnswers {
            task,
            ids,
            answers: by_system,
        });
    }
    found
}
