//! Scores of two models on the same folds.

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::folds::{Difference, Folds, compare};
use polyloom::evaluate::statistics::Interval;
use serde_json::json;

use super::{clipped, gate, probability, range};
use crate::args_compare::{CompareArgs, IntervalArg, MetricArg, TestArg};
use crate::ui::{Failure, Ui};

/// Characters of a name at most.
const WIDE: usize = 32;

/// Runs the comparison.
pub fn run(first: &Path, second: &Path, args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let odd = [
        ("--id", args.id.is_some()),
        ("--task-column", args.task_column.is_some()),
        ("--prediction", args.prediction.is_some()),
        ("--label", args.label.is_some()),
        ("--score", args.score.is_some()),
        ("--slice", !args.slice.is_empty()),
        ("--metric", args.metric != MetricArg::Mean),
        ("--test", args.test != TestArg::Auto),
        ("--interval", args.interval != IntervalArg::Auto),
        ("--allow-partial", args.allow_partial),
        ("--over", args.over.is_some()),
        ("--flips", args.flips > 0),
        ("--max-flips", args.max_flips.is_some()),
    ];
    if let Some((flag, _)) = odd.iter().find(|(_, given)| *given) {
        let what = format!("{flag} is for files of predictions or results");
        return Err(MergeError::plan("bad-flag", what)
            .hint("folds are compared by the metric of every target, fold by fold")
            .into());
    }
    let gate = gate(args)?;
    let (old, new) = (Folds::read(first)?, Folds::read(second)?);
    let place = |e: MergeError| e.at(second.display().to_string());
    let found = compare(&old, &new, args.alpha).map_err(place)?;
    ui.answer(&table(&old, &new, &found, args));
    for one in &found {
        ui.event(&json!({
            "type": "folds", "task": one.name, "metric": one.metric, "old": one.means[0], "new": one.means[1],
            "difference": one.difference, "interval": one.interval, "p_holm": one.p, "test": "corrected-resampled-t",
            "folds": {"better": one.folds[0], "same": one.folds[1], "worse": one.folds[2]},
            "higher_is_better": one.higher_is_better, "verdict": word(one, args.alpha),
        }));
    }
    let worse: Vec<&Difference> = found
        .iter()
        .filter(|d| {
            let allowed = gate.tasks.get(&d.name).copied().or(gate.allowance);
            let fell = d.better(args.alpha) == Some(false);
            fell && allowed.is_some_and(|a| d.difference.abs() > a)
        })
        .collect();
    for one in &worse {
        ui.say(&format!(
            "{}: worse by {:.4}",
            one.name,
            one.difference.abs()
        ));
        ui.event(&json!({"type": "failed", "task": one.name, "slice": null, "reason": "worse"}));
    }
    Ok(ExitCode::from(u8::from(!worse.is_empty())))
}

fn word(one: &Difference, alpha: f64) -> &'static str {
    match one.better(alpha) {
        Some(true) => "better",
        Some(false) => "worse",
        None => "not told apart",
    }
}

fn table(old: &Folds, new: &Folds, found: &[Difference], args: &CompareArgs) -> String {
    let widths = found.iter().map(|d| d.name.chars().count());
    let width = widths.max().unwrap_or(4).clamp(4, WIDE);
    let (a, b) = (clipped(&old.model, 11), clipped(&new.model, 11));
    let interval = format!("{:.0} % interval", 100.0 * (1.0 - args.alpha));
    let mut out = vec![format!(
        "{:<width$} {:<11} {a:>11} {b:>11} {:>8}  {interval:<18} {:>7}  {:>9}",
        "task", "metric", "change", "p", "folds"
    )];
    for one in found {
        let [low, high] = one.interval;
        let [better, _, worse] = one.folds;
        out.push(format!(
            "{:<width$} {:<11} {:>11.4} {:>11.4} {:>+8.4}  {:<18} {:>7}  {:>9}  {}",
            clipped(&one.name, width),
            clipped(&one.metric, 11),
            one.means[0],
            one.means[1],
            one.difference,
            range(Interval::new(low, high), true),
            probability(one.p.unwrap_or(f64::NAN)),
            format!("+{better} -{worse}"),
            word(one, args.alpha),
        ));
    }
    out.push(String::new());
    out.push(format!(
        "{} folds x {}; p: corrected resampled t over folds (Nadeau and Bengio), Holm over targets; folds: better, worse",
        old.folds, old.repeats
    ));
    out.join("\n")
}
