//! Files of results: paired by their records, else by their scores alone.

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::compare::stored::stored;
use polyloom::evaluate::board::compare::unpaired::Unpaired;
use polyloom::evaluate::board::import::{self, Source};
use serde_json::json;

use super::event::{number, pair};
use super::{clipped, gate, judged, names, probability, range, settings, small};
use crate::args_compare::CompareArgs;
use crate::ui::{Failure, Ui};

const WARNING: &str = "only scores are known, not examples: the z test takes the errors as independent \
and misses changes that a paired test shows; overlapping intervals do not mean that there is no difference";

/// Whether a path holds results and not predictions.
pub fn is(path: &Path) -> bool {
    path.is_dir()
        || path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("json"))
}

/// Runs the comparison of two files of results.
pub fn run(first: &Path, second: &Path, args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    for (flag, given) in [
        ("--slice", !args.slice.is_empty()),
        ("--score", args.score.is_some()),
        ("--prediction", args.prediction.is_some()),
        ("--label", args.label.is_some()),
    ] {
        if given {
            let error = MergeError::plan("bad-flag", format!("{flag} is for files of predictions"));
            return Err(error.into());
        }
    }
    let gate = gate(args)?;
    let mut shown = names(&args.files);
    if shown[0] == shown[1] {
        shown[1].push_str(" (2)");
    }
    let source = |name: &str, path: &Path| Source {
        name: Some(name.to_owned()),
        path: path.to_owned(),
    };
    let sources = [source(&shown[0], first), source(&shown[1], second)];
    let imported = import::import(&sources, &import::Options::default())?;
    let results = &imported.results;
    let row = |name: &str| {
        let place = results.systems.iter().position(|s| s.name == name);
        place.ok_or_else(|| {
            MergeError::plan(
                "examples-differ",
                format!("`{name}` holds no system of its own"),
            )
            .hint("`polyloom board` reads files of several systems")
        })
    };
    let found = stored(results, row(&shown[0])?, row(&shown[1])?, &settings(args))?;
    for note in &found.notes {
        ui.note(note);
    }
    let (paired, rest) = (&found.paired, &found.unpaired);
    if paired.tasks.is_empty() && rest.is_empty() {
        let error = MergeError::plan("examples-differ", "shares no task with the other file");
        return Err(error.at(second.display().to_string()).into());
    }
    if !rest.is_empty() {
        ui.warning(WARNING);
    }
    // An allowance may name a task that only has scores.
    let mut of_paired = gate.clone();
    of_paired
        .tasks
        .retain(|t, _| rest.iter().all(|u| u.task != *t));
    let faults = of_paired.faults(paired)?;
    let worse: Vec<(&Unpaired, f64)> = rest
        .iter()
        .filter_map(|u| {
            let allowance = gate.tasks.get(&u.task).copied().or(gate.allowance)?;
            let fell = if u.higher_is_better {
                -u.difference
            } else {
                u.difference
            };
            (u.p_holm < args.alpha && fell > allowance).then_some((u, allowance))
        })
        .collect();
    if ui.json {
        for u in rest {
            ui.event(&json!({
                "type": "unpaired", "task": u.task, "metric": u.metric, "old": number(u.first),
                "new": number(u.second), "difference": number(u.difference),
                "interval": pair(u.interval), "p": number(u.p), "p_holm": number(u.p_holm),
                "test": "unpaired-z", "minimum_detectable": number(u.detectable),
                "higher_is_better": u.higher_is_better,
            }));
        }
        for (u, allowance) in &worse {
            ui.event(&json!({
                "type": "failed", "task": u.task, "slice": null, "reason": "worse", "limit": allowance,
            }));
        }
    } else if !rest.is_empty() {
        ui.answer(&table(rest, &shown));
    }
    for (u, allowance) in &worse {
        ui.say(&format!(
            "{}: worse by {:.4}, allowed {allowance}",
            u.task,
            u.difference.abs()
        ));
    }
    let more: Vec<String> = worse.iter().map(|(u, _)| u.task.clone()).collect();
    judged(paired, &faults, more, args, ui)
}

fn table(rest: &[Unpaired], names: &[String]) -> String {
    let width = rest
        .iter()
        .map(|u| u.task.chars().count())
        .max()
        .unwrap_or(4);
    let width = width.clamp(4, 22);
    let (a, b) = (clipped(&names[0], 8), clipped(&names[1], 8));
    let mut out = vec![format!(
        "{:<width$} {a:>8} {b:>8} {:>8}  {:<18} {:>7}  {}",
        "task", "change", "interval", "p", "least"
    )];
    for u in rest {
        out.push(format!(
            "{:<width$} {:>8.4} {:>8.4} {:>+8.4}  {:<18} {:>7}  {}",
            clipped(&u.task, width),
            u.first,
            u.second,
            u.difference,
            range(u.interval, true),
            probability(u.p_holm),
            small(u.detectable)
        ));
    }
    out.push(String::new());
    out.push("p: unpaired z on scores alone (Holm); least: true change that shows 4 in 5".into());
    out.join("\n")
}
