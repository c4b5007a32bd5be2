//! More than two systems: ranks with their uncertainty, every pair with Holm's correction, groups that are not told
//! apart.

use super::{Metric, Settings, corpus_value, internal, student};
use crate::error::{MergeError, Result};
use crate::evaluate::board::predictions::Predictions;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::bootstrap::Bootstrap;
use crate::evaluate::statistics::draw::Seed;
use crate::evaluate::statistics::friedman::{
    Cliques, Friedman, cliques, friedman, nemenyi_critical_difference,
};
use crate::evaluate::statistics::mean::standard_deviation;
use crate::evaluate::statistics::multiplicity::Correction;
use crate::evaluate::statistics::pairwise::pairwise;
use crate::evaluate::statistics::power::minimum_detectable;
use crate::evaluate::statistics::ranks::{RankUncertainty, over_tasks};
use crate::evaluate::statistics::wilcoxon::Zeros;
use crate::evaluate::sum::mean;

/// What the systems are compared over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Tasks: what holds for other tasks of the kind.
    Tasks,
    /// Examples of all tasks: what holds for other examples of these tasks.
    Examples,
}

/// Tasks from which they, and not their examples, are compared over unless asked otherwise: with fewer no pair of four
/// systems can differ after Holm's correction.
const TASKS: usize = 8;

/// Two of several systems.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// First system, by place.
    pub first: usize,
    /// Second system, by place; above the first.
    pub second: usize,
    /// Second less first: mean over the blocks.
    pub difference: f64,
    /// Interval of the difference (Student's t over the blocks), without a correction for the number of pairs.
    pub interval: Interval,
    /// Wilcoxon's signed ranks over the blocks.
    pub p: f64,
    /// The same after Holm's correction over the pairs.
    pub p_holm: f64,
    /// The smallest true difference that such blocks would show 4 times in 5 for this pair alone.
    pub detectable: f64,
}

/// Several systems on the same examples.
#[derive(Debug, Clone)]
pub struct Many {
    /// What they are compared over.
    pub blocks: Blocks,
    /// Number of blocks.
    pub n: u64,
    /// Tasks.
    pub tasks: Vec<String>,
    /// Score of every system on every task: one row per task.
    pub scores: Vec<Vec<f64>>,
    /// Mean of the blocks of every system.
    pub means: Vec<f64>,
    /// Mean rank over the blocks, 1 the best; its interval and the chance of being best where the blocks are drawn again.
    pub ranks: Vec<RankUncertainty>,
    /// Whether there is any difference.
    pub friedman: Friedman,
    /// Mean ranks closer than this are not told apart by Nemenyi's test.
    pub critical_difference: f64,
    /// All pairs.
    pub pairs: Vec<Pair>,
    /// Groups of which no pair differs after Holm's correction.
    pub groups: Cliques,
    /// Groups by the critical difference.
    pub nemenyi: Cliques,
    /// Examples that not every file holds.
    pub left_out: u64,
}

/// Compares systems on the examples that all files hold, over tasks or examples; `None` takes the tasks where there are at
/// least eight.
///
/// # Errors
/// Fewer than two systems, examples that a file lacks (unless allowed), no shared example, labels that contradict each
/// other, a metric over the whole set with examples as blocks, too many examples for ranks (none).
pub fn many(systems: &[Predictions], blocks: Option<Blocks>, settings: &Settings) -> Result<Many> {
    let Some((head, rest)) = systems.split_first() else {
        return Err(MergeError::plan("arguments", "no systems"));
    };
    let mut left_out = 0u64;
    let mut tasks = Vec::new();
    let (mut scores, mut rows) = (Vec::new(), Vec::new());
    for (task, examples) in &head.tasks {
        let mut here: Vec<Vec<&super::Example>> = Vec::new();
        for (id, example) in examples {
            let others = rest
                .iter()
                .map(|s| s.tasks.get(task).and_then(|t| t.get(id)));
            let others: Option<Vec<_>> = others.collect();
            let Some(others) = others else {
                left_out += 1;
                continue;
            };
            let label = |e: &super::Example| e.texts.as_ref().map(|t| t.1.trim().to_owned());
            if let Some(place) = others
                .iter()
                .position(|e| matches!((label(e), label(example)), (Some(a), Some(b)) if a != b))
            {
                let what = format!(
                    "disagrees with {} on what is right for example `{id}`",
                    head.path.display()
                );
                return Err(MergeError::plan("labels-differ", what)
                    .at(rest[place].path.display().to_string()));
            }
            here.push([example].into_iter().chain(others).collect());
        }
        if here.is_empty() {
            continue;
        }
        tasks.push(task.clone());
        let of = |s: usize| -> Result<f64> {
            if settings.metric == Metric::Mean {
                return Ok(mean(here.iter().map(|e| e[s].value)));
            }
            let column: Vec<&super::Example> = here.iter().map(|e| e[s]).collect();
            corpus_value(settings.metric, &column)
        };
        scores.push((0..systems.len()).map(of).collect::<Result<Vec<f64>>>()?);
        rows.extend(
            here.iter()
                .map(|e| e.iter().map(|e| e.value).collect::<Vec<f64>>()),
        );
    }
    let most = systems
        .iter()
        .map(|s| s.tasks.values().map(indexmap::IndexMap::len).sum::<usize>());
    left_out = left_out.max((most.max().unwrap_or(0) - rows.len()) as u64);
    if left_out > 0 && !settings.allow_partial {
        let what = format!("{left_out} examples are not in all files");
        return Err(MergeError::plan("examples-differ", what)
            .hint("--allow-partial compares the examples that all hold"));
    }
    if rows.is_empty() {
        return Err(
            MergeError::plan("examples-differ", "the files share no example")
                .hint("--id COLUMN names the column that tells examples apart"),
        );
    }
    let blocks = blocks.unwrap_or(if tasks.len() >= TASKS || settings.metric != Metric::Mean {
        Blocks::Tasks
    } else {
        Blocks::Examples
    });
    if blocks == Blocks::Examples && settings.metric != Metric::Mean {
        let what = format!("{} has no value per example", settings.metric.name());
        return Err(
            MergeError::plan("bad-metric", what).hint("--over tasks compares it over tasks")
        );
    }
    let table = match blocks {
        Blocks::Tasks => scores.clone(),
        Blocks::Examples => rows,
    };
    over(tasks, scores, &table, blocks, left_out, settings)
}

fn over(
    tasks: Vec<String>,
    scores: Vec<Vec<f64>>,
    table: &[Vec<f64>],
    blocks: Blocks,
    left_out: u64,
    settings: &Settings,
) -> Result<Many> {
    let systems = table.first().map_or(0, Vec::len);
    let n = table.len() as u64;
    let sign = if settings.lower_is_better { -1.0 } else { 1.0 };
    let signed: Vec<Vec<f64>> = table
        .iter()
        .map(|row| row.iter().map(|x| sign * x).collect())
        .collect();
    let level = 1.0 - settings.alpha;
    let tests = pairwise(&signed, Zeros::default(), Correction::Holm).map_err(internal)?;
    let mut pairs = Vec::with_capacity(tests.pairs.len());
    for pair in &tests.pairs {
        let differences: Vec<f64> = table
            .iter()
            .map(|row| row[pair.second] - row[pair.first])
            .collect();
        let deviation = standard_deviation(&differences);
        let difference = mean(differences.iter().copied());
        let detectable = if n > 1 {
            minimum_detectable(deviation, n, settings.alpha, 0.8).map_err(internal)?
        } else {
            f64::NAN
        };
        pairs.push(Pair {
            first: pair.first,
            second: pair.second,
            difference,
            interval: student(difference, deviation / (n as f64).sqrt(), n, settings.alpha),
            p: pair.p,
            p_holm: pair.adjusted,
            detectable,
        });
    }
    let bootstrap = Bootstrap::new(Seed::of("compare", "ranks")).with_draws(settings.draws);
    let friedman = friedman(&signed).map_err(internal)?;
    let critical_difference =
        nemenyi_critical_difference(systems, table.len(), level).map_err(internal)?;
    let near = |a: usize, b: usize| {
        let ranks = &friedman.mean_ranks;
        (ranks[a] - ranks[b]).abs() <= critical_difference
    };
    let nemenyi = cliques(&friedman.mean_ranks, near);
    let means = (0..systems).map(|s| mean(table.iter().map(|row| row[s])));
    Ok(Many {
        blocks,
        n,
        tasks,
        scores,
        means: means.collect(),
        ranks: over_tasks(&signed, &bootstrap, level).map_err(internal)?,
        friedman,
        critical_difference,
        groups: tests.cliques(settings.alpha),
        nemenyi,
        pairs,
        left_out,
    })
}
