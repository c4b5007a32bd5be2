//! `polyloom route eval` of routers over saved systems

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use polyloom::MergeError;
use polyloom_learn::route::fit::scores_of;
use polyloom_learn::route::predicted::{Limits, Predicted};
use polyloom_learn::route::records::Scores;
use polyloom_learn::route::{Decision, Points, Router, Rule};
use serde_json::json;

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
    let sense = sense(router, args.model.as_deref(), args.batch, hub, ui)?;
    let stop = super::super::stop_flag()?;
    let (mut points, mut scores) = (Points::default(), Vec::new());
    for task in &tasks {
        let mut watch = |_| !stop.load(Ordering::SeqCst);
        let found = sense.task(task, &args.split, args.limit, 0, &mut watch)?;
        points.width = found.points.width;
        points.values.extend(found.points.values);
        scores.extend(scores_of(
            results,
            &router.experts,
            &task.spec.id,
            &found.ids,
        )?);
    }
    told(router, &router.decide_all(&points)?, &scores, ui);
    if let Some(cost) = &args.sweep {
        let Rule::Predicted(rule) = &router.rule else {
            let what = "--sweep weighs costs, which predicted_loss alone does";
            return Err(MergeError::plan("bad-flag", what).into());
        };
        sweep(rule, router, cost, &points, &scores, ui)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The mean score of choices.
fn mean(decided: &[Decision], scores: &[Vec<f64>]) -> f64 {
    let one = |(d, row): (&Decision, &Vec<f64>)| d.expert.map_or(0.0, |i| row[i]);
    decided.iter().zip(scores).map(one).sum::<f64>() / scores.len().max(1) as f64
}

fn told(router: &Router, decided: &[Decision], scores: &[Vec<f64>], ui: &Ui) {
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
    ui.answer(&lines.join("\n"));
    ui.event(&json!({
        "type": "result", "rows": scores.len(), "chosen": chosen, "best": best, "systems": systems,
    }));
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
