//! Other readings of a table: capability by domain, noise of seeds and checkpoints, instructions, cross-capability scores,
//! coverage of repeated attempts, metrics that rest on shared words.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::import::{Imported, TaskAnswers};
use super::results::{Results, Task};
use crate::error::{MergeError, Result};
use crate::evaluate::aggregate::Direction;
use crate::evaluate::aggregate::cross::{CrossCounts, cross};
use crate::evaluate::aggregate::instruction::{InstructionReport, InstructionTable};
use crate::evaluate::aggregate::reliability::{SeedSpread, monotonicity};
use crate::evaluate::metric::beta_binomial::BetaBinomial;
use crate::evaluate::metric::pass_at_k::{PowerLaw, coverage, doublings};
use crate::evaluate::sum::mean;

/// A part of a capability by domain matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Support {
    /// No task is of the two.
    NoTask,
    /// There are tasks, the system has a score on none of them.
    Unsupported,
    /// Mean over the tasks that the system has scores on, and how many of all.
    Score(f64, usize, usize),
}

/// Mean scores by two tags.
#[derive(Debug, Clone)]
pub struct TagMatrix {
    /// Values of the first tag.
    pub rows: Vec<String>,
    /// Values of the second tag.
    pub columns: Vec<String>,
    /// By system, then row, then column.
    pub cells: Vec<Vec<Support>>,
}

fn values<'a>(task: &'a Task, tag: &str) -> Vec<&'a str> {
    match tag {
        "task" => vec![&task.column.name],
        "metric" => vec![&task.metric],
        "group" if task.tags.get("group").is_none() => {
            task.column.group.iter().map(String::as_str).collect()
        }
        _ => task
            .tags
            .get(tag)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect(),
    }
}

/// Means of the scores by two tags: what every system can do, and where it has nothing to show.
///
/// # Errors
/// A tag that no task has.
pub fn by_tags(results: &Results, first: &str, second: &str) -> Result<TagMatrix> {
    let all = |tag: &str| {
        let set: BTreeSet<&str> = results.tasks.iter().flat_map(|t| values(t, tag)).collect();
        let list: Vec<String> = set.into_iter().map(str::to_owned).collect();
        if list.is_empty() {
            let there: BTreeSet<&String> =
                results.tasks.iter().flat_map(|t| t.tags.keys()).collect();
            let there: Vec<&str> = there.into_iter().map(String::as_str).collect();
            let there = if there.is_empty() {
                "none".to_owned()
            } else {
                there.join(", ")
            };
            return Err(
                MergeError::plan("unknown-tag", format!("no task has the tag `{tag}`"))
                    .hint(format!("tags of these tasks: {there}; also task, metric")),
            );
        }
        Ok(list)
    };
    let (rows, columns) = (all(first)?, all(second)?);
    let mut members = vec![Vec::new(); rows.len() * columns.len()];
    for (t, task) in results.tasks.iter().enumerate() {
        for a in values(task, first) {
            for b in values(task, second) {
                let at =
                    |list: &[String], x: &str| list.iter().position(|y| y == x).unwrap_or_default();
                members[at(&rows, a) * columns.len() + at(&columns, b)].push(t);
            }
        }
    }
    let cell = |s: usize, tasks: &Vec<usize>| {
        let scores: Vec<f64> = tasks
            .iter()
            .filter_map(|&t| results.cell(s, t))
            .map(|c| c.value)
            .collect();
        match (tasks.len(), scores.len()) {
            (0, _) => Support::NoTask,
            (_, 0) => Support::Unsupported,
            (n, k) => Support::Score(mean(scores), k, n),
        }
    };
    let of = |s: usize| members.iter().map(|m| cell(s, m)).collect();
    let cells = (0..results.systems.len()).map(of).collect();
    Ok(TagMatrix {
        rows,
        columns,
        cells,
    })
}

/// How much a task's scores move without a reason, and how much they tell.
#[derive(Debug, Clone)]
pub struct Noise {
    /// Number of the task.
    pub task: usize,
    /// Systems with at least two replicates.
    pub systems: usize,
    /// Mean over the systems of the standard deviation over replicates.
    pub deviation: f64,
    /// Mean over the systems of mean / standard deviation (signal to noise of "Quantifying Variance").
    pub signal_to_noise: f64,
    /// Standard deviation of the systems' means over `deviation`: above 1, systems differ by more than their runs do.
    pub spread: f64,
    /// Mean over the systems of Kendall's τ between replicates and their order; means something for checkpoints.
    pub monotonicity: f64,
}

/// Noise over replicates, task by task; empty where there are none.
///
/// # Errors
/// Replicates that are not finite.
pub fn noise(results: &Results) -> Result<Vec<Noise>> {
    let fail = |e: crate::evaluate::EvalError| MergeError::plan("bad-results", e.to_string());
    let mut found = Vec::new();
    for task in 0..results.tasks.len() {
        let cells = (0..results.systems.len()).filter_map(|s| results.cell(s, task));
        let cells: Vec<_> = cells.filter(|c| c.replicates.len() > 1).collect();
        if cells.is_empty() {
            continue;
        }
        let spreads = cells.iter().map(|c| SeedSpread::of(&c.replicates));
        let spreads: Vec<SeedSpread> = spreads.collect::<Result<_, _>>().map_err(fail)?;
        let order = cells.iter().map(|c| monotonicity(&c.replicates));
        let order: Vec<f64> = order.collect::<Result<_, _>>().map_err(fail)?;
        let means: Vec<f64> = spreads.iter().map(|s| s.mean).collect();
        let deviation = mean(spreads.iter().map(|s| s.deviation));
        let finite = |list: Vec<f64>| mean(list.into_iter().filter(|x| x.is_finite()));
        found.push(Noise {
            task,
            systems: cells.len(),
            deviation,
            signal_to_noise: finite(spreads.iter().map(SeedSpread::signal_to_noise).collect()),
            spread: SeedSpread::of(&means).map_or(f64::NAN, |s| s.deviation) / deviation,
            monotonicity: finite(order),
        });
    }
    Ok(found)
}

/// Gains, spreads and hits of systems (models) over tasks (datasets) under several instructions.
///
/// # Errors
/// No column of instructions, a cell without one score per instruction.
pub fn instructions(imported: &Imported, top: usize) -> Result<InstructionReport> {
    let results = &imported.results;
    let known = imported.replicate.as_deref();
    if !matches!(known, Some("instruction" | "prompt_id" | "template")) {
        return Err(MergeError::plan(
            "no-instructions",
            "the files have no column of instructions",
        )
        .hint("a long table with system, task, instruction (or prompt_id, template) and value"));
    }
    let count = results
        .cells
        .iter()
        .flatten()
        .map(|c| c.replicates.len())
        .max()
        .unwrap_or(0);
    let mut scores = Vec::new();
    for (at, cell) in results.cells.iter().enumerate() {
        match cell {
            Some(cell) if cell.replicates.len() == count && count > 0 => {
                scores.extend(&cell.replicates);
            }
            _ => {
                let n = results.tasks.len();
                let (system, task) = (
                    &results.systems[at / n].name,
                    &results.tasks[at % n].column.name,
                );
                return Err(MergeError::plan(
                    "no-instructions",
                    format!("`{system}` on `{task}` has not one score for each of the {count} instructions"),
                )
                .hint("leave what is incomplete out: --where task!=... or --where system!=..."));
            }
        }
    }
    let shape = [results.systems.len(), results.tasks.len(), count];
    let table = InstructionTable::new(shape, scores);
    let report = table.and_then(|t| t.report(top.min(count).max(1)));
    report.map_err(|e| MergeError::plan("no-instructions", e.to_string()))
}

/// Where the scores on tasks that need two capabilities lie, against tasks that need one of them: by system.
///
/// # Errors
/// No task with exactly two values of the tag whose capabilities have tasks of their own.
pub fn cross_capabilities(results: &Results, tag: &str) -> Result<Vec<CrossCounts>> {
    let mut single: IndexMap<&str, Vec<usize>> = IndexMap::new();
    for (t, task) in results.tasks.iter().enumerate() {
        if let [one] = values(task, tag)[..] {
            single.entry(one).or_default().push(t);
        }
    }
    let pairs: Vec<(usize, [&str; 2])> = results
        .tasks
        .iter()
        .enumerate()
        .filter_map(|(t, task)| match values(task, tag)[..] {
            [a, b] if single.contains_key(a) && single.contains_key(b) => Some((t, [a, b])),
            _ => None,
        })
        .collect();
    if pairs.is_empty() {
        return Err(MergeError::plan(
            "no-pairs",
            format!("no task has two values of the tag `{tag}` that have tasks of their own"),
        )
        .hint("tag a task with both of its capabilities, and tasks of each alone with one"));
    }
    let counts = |s: usize| {
        let score = |t: usize| {
            let direction = results.tasks[t]
                .column
                .direction
                .unwrap_or(Direction::Higher);
            results
                .cell(s, t)
                .map_or(f64::NAN, |c| direction.oriented(c.value))
        };
        let own = |name: &str| {
            mean(
                single[name]
                    .iter()
                    .map(|&t| score(t))
                    .filter(|x| !x.is_nan()),
            )
        };
        let mut found = CrossCounts::default();
        for (t, [a, b]) in &pairs {
            if let Some(c) = cross(own(a), own(b), score(*t)) {
                found.add(c.kind);
            }
        }
        found
    };
    Ok((0..results.systems.len()).map(counts).collect())
}

/// Coverage of a system on a task over repeated attempts, and its curve.
#[derive(Debug, Clone)]
pub struct Coverage {
    /// Number of the system.
    pub system: usize,
    /// Number of the task.
    pub task: usize,
    /// Attempts per example, the least.
    pub attempts: u64,
    /// k and mean pass@k.
    pub points: Vec<(u64, f64)>,
    /// exp(a k^b), fitted to the smaller half of the ks.
    pub law: Option<PowerLaw>,
    /// Largest difference of curve and coverage at the ks held out.
    pub held_out: f64,
    /// Spread of the examples' chances, from the passes of each, for ks beyond the attempts; none where nothing passed
    /// or nothing failed.
    pub spread: Option<BetaBinomial>,
}

/// Coverage where examples were attempted several times; ks above the attempts are left out. The curve is fitted to the
/// smaller ks and checked on the larger half.
///
/// # Errors
/// Attempts that score other than 0 or 1, no example with more than one attempt.
pub fn coverages(imported: &Imported, ks: &[u64]) -> Result<Vec<Coverage>> {
    let mut found = Vec::new();
    for answers in &imported.answers {
        for system in 0..answers.answers.len() {
            if let Some(one) = coverage_of(answers, system, ks)? {
                found.push(one);
            }
        }
    }
    if found.is_empty() {
        return Err(MergeError::plan("no-attempts", "no example was attempted more than once")
            .hint("a long table with system, id, attempt and score (0 or 1), or with columns samples and passes"));
    }
    Ok(found)
}

fn coverage_of(answers: &TaskAnswers, system: usize, ks: &[u64]) -> Result<Option<Coverage>> {
    let bad = |what: String| MergeError::plan("no-attempts", what);
    let mut problems = Vec::new();
    for (id, answer) in answers.ids.iter().zip(&answers.answers[system]) {
        let Some(answer) = answer else { continue };
        if answer.sum.fract() != 0.0 || answer.sum < 0.0 || answer.sum > f64::from(answer.trials) {
            return Err(bad(format!(
                "example `{id}`: attempts score {} of {}",
                answer.sum, answer.trials
            ))
            .hint("pass@k counts attempts that are right (1) or wrong (0)"));
        }
        problems.push((u64::from(answer.trials), answer.sum as u64));
    }
    let attempts = problems.iter().map(|p| p.0).min().unwrap_or(0);
    if attempts < 2 {
        return Ok(None);
    }
    let mut ks: Vec<u64> = match ks.is_empty() {
        true => doublings(attempts),
        false => ks.iter().copied().filter(|k| *k <= attempts).collect(),
    };
    ks.sort_unstable();
    ks.dedup();
    let values = coverage(&problems, &ks).map_err(|e| bad(e.to_string()))?;
    let points: Vec<(u64, f64)> = ks
        .into_iter()
        .zip(values)
        .filter_map(|(k, v)| Some((k, v?)))
        .collect();
    let fit = points.len().div_ceil(2);
    let (x, y): (Vec<f64>, Vec<f64>) = points[..fit].iter().map(|(k, c)| (*k as f64, *c)).unzip();
    let law = if fit >= 2 && fit < points.len() {
        PowerLaw::fit(&x, &y).ok()
    } else {
        None
    };
    let off = |law: &PowerLaw| {
        let rest = points[fit..]
            .iter()
            .map(|(k, c)| (law.at(*k as f64) - c).abs());
        rest.fold(0.0, f64::max)
    };
    Ok(Some(Coverage {
        system,
        task: answers.task,
        attempts,
        held_out: law.as_ref().map_or(f64::NAN, off),
        points,
        law,
        spread: BetaBinomial::fit(&problems).ok(),
    }))
}

/// The family of a metric that counts words or characters shared with a reference.
fn overlap(metric: &str) -> Option<&'static str> {
    let name = metric.split(',').next().unwrap_or_default().to_lowercase();
    ["bleu", "rouge", "chrf", "meteor", "ter"]
        .into_iter()
        .find(|family| {
            let word = |w: &str| w.trim_end_matches(|c: char| c.is_ascii_digit()) == *family;
            name.starts_with(family) && *family != "ter"
                || name.split(|c: char| !c.is_alphanumeric()).any(word)
        })
}

/// The one family of overlap metrics that all tasks rest on, if so.
pub fn one_overlap(results: &Results) -> Option<&'static str> {
    let mut families = results
        .tasks
        .iter()
        .filter(|t| t.column.weight > 0.0)
        .map(|t| overlap(&t.metric));
    let first = families.next()??;
    families.all(|f| f == Some(first)).then_some(first)
}
