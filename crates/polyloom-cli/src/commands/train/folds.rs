//! `polyloom train --folds`: scores by cross-validation beside the model.

use std::sync::atomic::Ordering;

use polyloom::evaluate::board::folds::{Folds, Scores};
use polyloom_learn::folds::{self, Plan, Told, cross};
use polyloom_learn::train::session::Options;
use polyloom_learn::train::{Given, Recipe};
use serde_json::json;

use crate::args_train::TrainArgs;
use crate::commands::tasks::columns;
use crate::ui::{Failure, Ui};

/// What the folds would be.
///
/// # Errors
/// As [`Plan::of`].
pub fn planned(args: &TrainArgs, recipe: &Recipe, given: &[Given], ui: &Ui) -> Result<(), Failure> {
    let plan = Plan::of(recipe, given)?;
    for (at, task) in given.iter().enumerate() {
        let drawn = plan.drawn(at);
        ui.answer(&format!(
            "  {} folds x {} of {} rows of {} ({}), by {}: {} models more, scores in {}",
            plan.folds,
            plan.repeats,
            drawn.rows,
            task.spec.id,
            drawn.splits.join(", "),
            drawn.by,
            plan.folds * plan.repeats,
            folds::folder(&args.output).display(),
        ));
        ui.event(&json!({"type": "folds-plan", "task": task.spec.id, "folds": plan.folds, "repeats": plan.repeats, "drawn": drawn}));
    }
    Ok(())
}

/// The folds can be drawn and written.
///
/// # Errors
/// As [`Plan::of`]; a folder of scores that is there.
pub fn check(
    args: &TrainArgs,
    options: Options,
    recipe: &Recipe,
    given: &[Given],
) -> Result<(), Failure> {
    folds::run::check(&folds::folder(&args.output), options)?;
    Plan::of(recipe, given)?;
    Ok(())
}

/// Trains and scores the folds.
///
/// # Errors
/// As [`cross`].
pub fn run(
    args: &TrainArgs,
    options: Options,
    recipe: &Recipe,
    given: &[Given],
    ui: &Ui,
) -> Result<(), Failure> {
    let place = folds::folder(&args.output);
    let stop = super::super::stop_flag()?;
    let of = recipe.train.folds.unwrap_or_default() as u64;
    let models = of * u64::from(recipe.train.repeats.unwrap_or(1));
    let line = ui.steps("folds", models);
    let mut at = 0;
    let found = cross(recipe, given, &place, options, &mut |told| {
        match told {
            Told::Begins(repeat, fold, rows) => {
                line.at(at, &format!("repeat {}, fold {}", repeat + 1, fold + 1));
                let rows: Vec<_> = given.iter().zip(*rows).map(|(g, [train, validation, held])| {
                    json!({"task": g.spec.id, "train": train, "validation": validation, "held": held})
                }).collect();
                ui.event(
                    &json!({"type": "fold", "repeat": repeat + 1, "fold": fold + 1, "rows": rows}),
                );
            }
            Told::Inside(_) => {}
            Told::Scored(repeat, fold, values, found) => {
                at += 1;
                let values: serde_json::Map<_, _> = values
                    .iter()
                    .map(|(name, value)| (name.clone(), json!(value)))
                    .collect();
                ui.event(&json!({"type": "fold-scores", "repeat": repeat + 1, "fold": fold + 1, "values": values, "reused": found}));
            }
        }
        !stop.load(Ordering::SeqCst)
    });
    line.end();
    let found = match found {
        Err(error) if stop.load(Ordering::SeqCst) => {
            ui.note("stopped; the same command with --resume goes on with the folds that are done");
            return Err(error.into());
        }
        found => found?,
    };
    shown(&found, ui)?;
    ui.say(&format!("folds: {}", place.display()));
    ui.event(&json!({"type": "folds", "folder": place, "folds": found}));
    Ok(())
}

/// The table of scores.
fn shown(found: &Folds, ui: &Ui) -> Result<(), Failure> {
    for (id, drawn) in &found.tasks {
        let times = match found.repeats {
            1 => String::new(),
            n => format!(", {n} times"),
        };
        let model = &found.model;
        let sees = match &*drawn.by {
            "time" => {
                "a fold as one that learned the rows before it; the first rows are only learned"
            }
            _ => "a row as one that it did not see",
        };
        ui.say(&format!(
            "{id}: {} rows in {} folds by {}{times}; {model} answers {sees}",
            drawn.rows, found.folds, drawn.by,
        ));
    }
    let head = [
        "target",
        "metric",
        "mean",
        "95 % interval",
        "lowest .. highest fold",
    ];
    let mut lines = vec![head.map(String::from)];
    for scores in found.shown()? {
        lines.push(line(&scores));
        if let (None, Some(why)) = (scores.mean, &scores.reason) {
            ui.note(&format!(
                "{}: {why}; a mean over the other folds would be of other rows",
                scores.name
            ));
        }
    }
    ui.answer(&columns(&lines));
    Ok(())
}

fn line(scores: &Scores) -> [String; 5] {
    let all = scores.values.iter().flatten().flatten();
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(*x), high.max(*x))
    });
    [
        scores.name.clone(),
        scores.metric.clone(),
        scores.mean.map_or("n/a".into(), |m| format!("{m:.4}")),
        scores
            .interval
            .map_or("n/a".into(), |[a, b]| format!("{a:.4} .. {b:.4}")),
        format!("{low:.4} .. {high:.4}"),
    ]
}
