//! `polyloom route eval` of routers over saved systems

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::output::{Output, key};
use polyloom::evaluate::board::score::{Options, score_values};
use polyloom_core::checkpoint::read_json;
use polyloom_core::hash::sha256_file;
use polyloom_core::writer::OutputFile;
use polyloom_learn::route::fit::scores_of;
use polyloom_learn::route::predicted::{Limits, Predicted};
use polyloom_learn::route::records::{self, Scores};
use polyloom_learn::route::{Decision, Points, Router, Rule};
use serde_json::{Map, Value, json};

use super::super::train::given;
use super::sense;
use crate::args_route::EvalArgs;
use crate::hub::Hub;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(
    args: &EvalArgs,
    router: &Router,
    results: &[Scores],
    hub: &Hub,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    let place = || args.router.display().to_string();
    if results.is_empty() {
        let what = "chooses among saved systems, whose scores are needed";
        return Err(MergeError::plan("bad-flag", what)
            .at(place())
            .hint("--results NAME=results.json,NAME=results.json")
            .into());
    }
    let mut ids = args.tasks.clone();
    if ids.is_empty() {
        let own = router.fitted.get("tasks").and_then(|t| t.as_array());
        let own = own.into_iter().flatten();
        ids.extend(own.filter_map(|t| t.as_str().map(str::to_owned)));
    }
    if ids.is_empty() {
        let error = MergeError::plan("bad-router", "does not say what tasks it was fitted on");
        return Err(error
            .at(place())
            .hint("-t TASK says whose rows are asked")
            .into());
    }
    let tasks = given(&ids, &args.places)?;
    let output = args.output.as_deref();
    if let Some(file) = output {
        OutputFile::check(file, args.force)?;
    }
    let sense = sense(router, args.model.as_deref(), args.batch, hub, ui)?;
    let stop = super::super::stop_flag()?;
    let (mut points, mut scores, mut parts) = (Points::default(), Vec::new(), Vec::new());
    for task in &tasks {
        let mut watch = |_| !stop.load(Ordering::SeqCst);
        let found = sense.task(task, &args.split, args.limit, 0, &mut watch)?;
        let rows = scores.len()..scores.len() + found.ids.len();
        parts.push(Part {
            task: &task.spec.id,
            hash: &task.hash,
            rows,
            ids: found.ids.clone(),
        });
        points.width = found.points.width;
        points.values.extend(found.points.values);
        scores.extend(scores_of(
            results,
            &router.experts,
            &task.spec.id,
            &found.ids,
        )?);
    }
    let decided = router.decide_all(&points)?;
    told(router, &decided, &scores, &parts, ui);
    if let Some(file) = output {
        write(args, file, router, &decided, &scores, &parts)?;
        ui.say(&format!("results of the choices: {}", file.display()));
    }
    if let Some(cost) = &args.sweep {
        let Rule::Predicted(rule) = &router.rule else {
            let what = "--sweep weighs costs, which predicted_loss alone does";
            return Err(MergeError::plan("bad-flag", what).into());
        };
        sweep(rule, router, cost, &points, &scores, ui)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows of a task among all rows that are asked.
struct Part<'a> {
    task: &'a str,
    hash: &'a str,
    rows: Range<usize>,
    ids: Vec<String>,
}

/// Writes what the chosen systems scored on every row, as results of a system of its own.
fn write(
    args: &EvalArgs,
    file: &Path,
    router: &Router,
    decided: &[Decision],
    scores: &[Vec<f64>],
    parts: &[Part<'_>],
) -> Result<(), Failure> {
    let names = router.names();
    // What is right is the same in the results of all systems.
    let first = args.results.first().and_then(|r| r.split_once('='));
    let targets = records::targets(Path::new(first.map_or("", |(_, path)| path)))?;
    let metric = |task: &str| -> Result<String, Failure> {
        // The metric that the systems were scored by, where their results name it.
        for given in &args.results {
            let path = Path::new(given.split_once('=').map_or("", |(_, path)| path));
            if path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("json"))
            {
                let said = read_json(path)?;
                if let Some(name) = said["tasks"][task]["metric"].as_str() {
                    return Ok(name.to_owned());
                }
            }
        }
        Ok("score".to_owned())
    };
    let options = Options {
        split: args.split.clone(),
        ..Options::default()
    };
    let mut said = Answers {
        path: args.router.clone(),
        hash: sha256_file(&args.router)?,
        rows: Vec::new(),
        columns: Vec::new(),
        task: Some("task".to_owned()),
        chosen: Columns::default(),
    };
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut output = Output::open(file, &name, &said, true)?;
    for part in parts {
        let metric = metric(part.task)?;
        let row = |(id, at): (&String, usize)| {
            let chosen = decided[at].expert;
            let cells = json!({
                "task": part.task, "id": id, &*metric: chosen.map_or(0.0, |i| scores[at][i]),
                "prediction": chosen.map_or("none", |i| names[i]),
                "target": targets.get(part.task).and_then(|t| t.get(id)),
            });
            cells.as_object().cloned().unwrap_or_default()
        };
        said.columns = ["task", "id", &metric, "prediction", "target"]
            .map(str::to_owned)
            .to_vec();
        said.rows = part.ids.iter().zip(part.rows.clone()).map(row).collect();
        let mut scored = score_values(&said, Some(&metric), &options)?;
        for one in &mut scored {
            one.hash = Some(part.hash.to_owned());
            one.split = Some(args.split.clone());
        }
        let settings = format!("{} routed {:?}", part.hash, args.results);
        output.add(part.task, &key(&settings, &said, &options), &scored)?;
    }
    output.write()?;
    Ok(())
}

/// The mean score of choices.
fn mean(decided: &[Decision], scores: &[Vec<f64>]) -> f64 {
    let one = |(d, row): (&Decision, &Vec<f64>)| d.expert.map_or(0.0, |i| row[i]);
    decided.iter().zip(scores).map(one).sum::<f64>() / scores.len().max(1) as f64
}

fn told(router: &Router, decided: &[Decision], scores: &[Vec<f64>], parts: &[Part<'_>], ui: &Ui) {
    let (names, n) = (router.names(), scores.len().max(1) as f64);
    let width = names
        .iter()
        .map(|s| s.chars().count())
        .max()
        .unwrap_or(0)
        .max(16);
    let mut lines = vec![format!("{:<width$}   score   chosen", "system")];
    let mut systems = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let own = scores.iter().map(|row| row[i]).sum::<f64>() / n;
        let share = decided.iter().filter(|d| d.expert == Some(i)).count() as f64 / n;
        lines.push(format!(
            "{name:<width$}  {own:.4}  {:>5.1} %",
            100.0 * share
        ));
        systems.push(json!({"system": name, "score": own, "share": share}));
    }
    let best = scores
        .iter()
        .map(|row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let best = best.sum::<f64>() / n;
    let chosen = mean(decided, scores);
    lines.push(format!("{:<width$}  {chosen:.4}", "the router"));
    lines.push(format!("{:<width$}  {best:.4}", "best of each row"));
    let tasks = by_task(&names, decided, scores, parts, &mut lines);
    ui.answer(&lines.join("\n"));
    ui.event(&json!({
        "type": "result", "rows": scores.len(), "chosen": chosen, "best": best, "systems": systems,
        "tasks": tasks,
    }));
}

/// A line for every task of several: what each system scores, the router, the best of each row.
fn by_task(
    names: &[&str],
    decided: &[Decision],
    scores: &[Vec<f64>],
    parts: &[Part<'_>],
    lines: &mut Vec<String>,
) -> Vec<Value> {
    let width = parts.iter().map(|p| p.task.chars().count()).max();
    let width = width.unwrap_or(0).max(4);
    let wide: Vec<usize> = names.iter().map(|n| n.chars().count().max(6)).collect();
    if parts.len() > 1 {
        let heads = names.iter().zip(&wide).map(|(n, w)| format!("  {n:>w$}"));
        let heads: String = heads.collect();
        lines.push(format!(
            "{:<width$}  {:>5}{heads}  {:>6}  {:>6}",
            "task", "rows", "router", "best"
        ));
    }
    let mut found = Vec::new();
    for part in parts {
        let (rows, decided) = (&scores[part.rows.clone()], &decided[part.rows.clone()]);
        let n = rows.len().max(1) as f64;
        let of = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>() / n;
        let each: Vec<f64> = (0..names.len()).map(of).collect();
        let top = |row: &Vec<f64>| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best = rows.iter().map(top).sum::<f64>() / n;
        let chosen = mean(decided, rows);
        if parts.len() > 1 {
            let cells = each.iter().zip(&wide).map(|(x, w)| format!("  {x:>w$.4}"));
            let cells: String = cells.collect();
            lines.push(format!(
                "{:<width$}  {:>5}{cells}  {chosen:.4}  {best:.4}",
                part.task,
                rows.len()
            ));
        }
        let systems: Map<String, Value> = names
            .iter()
            .zip(&each)
            .map(|(name, x)| ((*name).to_owned(), json!(x)))
            .collect();
        found.push(json!({
            "task": part.task, "rows": rows.len(), "systems": systems, "chosen": chosen, "best": best,
        }));
    }
    found
}

/// What choices bring and cost as a cost weighs more and more; places that another one beats in both are left out.
fn sweep(
    rule: &Predicted,
    router: &Router,
    cost: &str,
    points: &Points,
    scores: &[Vec<f64>],
    ui: &Ui,
) -> Result<(), Failure> {
    let mut places: Vec<(f64, f64, f64)> = Vec::new();
    // From nothing to a weight at which the costs decide alone, in steps of a fifth of a power of ten.
    let weights = (-15..=10).map(|i| 10f64.powf(f64::from(i) / 5.0));
    for weight in std::iter::once(0.0).chain(weights) {
        let mut limits: Limits = rule.limits.clone();
        limits.weights.insert(cost.to_owned(), weight);
        let weighed = Router {
            rule: Rule::Predicted(Box::new(Predicted {
                limits,
                ..rule.clone()
            })),
            ..router.clone()
        };
        let decided = weighed.decide_all(points)?;
        let values = &rule.costs[cost];
        let paid: f64 = decided
            .iter()
            .filter_map(|d| d.expert)
            .map(|i| values[i])
            .sum();
        places.push((
            weight,
            paid / decided.len().max(1) as f64,
            mean(&decided, scores),
        ));
    }
    let beaten = |(_, paid, score): &(f64, f64, f64)| {
        let better =
            |o: &(f64, f64, f64)| o.1 <= *paid && o.2 >= *score && (o.1 < *paid || o.2 > *score);
        places.iter().any(better)
    };
    let mut front: Vec<(f64, f64, f64)> = Vec::new();
    for place in places.iter().filter(|p| !beaten(p)) {
        // Of places that are the same the smallest weight.
        if !front.iter().any(|f| (f.1, f.2) == (place.1, place.2)) {
            front.push(*place);
        }
    }
    let mut lines = vec![format!(
        "{:>10}  {:>14}  score",
        "weight",
        format!("mean {cost}")
    )];
    let row = |(weight, paid, score): &(f64, f64, f64)| {
        format!("{weight:>10.4}  {paid:>14.6e}  {score:.4}")
    };
    lines.extend(front.iter().map(row));
    ui.answer(&lines.join("\n"));
    let list: Vec<_> = front
        .iter()
        .map(|(weight, paid, score)| json!({"weight": weight, "cost": paid, "score": score}))
        .collect();
    ui.event(&json!({"type": "front", "cost": cost, "places": list}));
    Ok(())
}
