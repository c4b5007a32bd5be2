//! What trials show.

use polyloom_learn::tune::trials::{Ended, Outcome, Study, Told, Values};
use serde_json::json;

use crate::ui::{Progress, Ui};

/// Trials that are shown.
const SHOWN: usize = 10;
/// Characters of their values.
const WIDE: usize = 58;

/// Shows what happens to a trial.
pub fn tell(told: &Told<'_>, at: &mut u64, line: &Progress<'_>, ui: &Ui) {
    match told {
        Told::Begins(number, values) => {
            line.at(*at, &format!("trial {number}: {}", text(values)));
            *at += 1;
        }
        Told::Trial(trial, found) => {
            if let Some(why) = &trial.refused {
                let first = why.lines().next().unwrap_or_default();
                ui.note(&format!(
                    "trial {} ({}) is refused: {first}",
                    trial.number,
                    text(&trial.values)
                ));
            }
            let values: serde_json::Map<_, _> = trial
                .values
                .iter()
                .map(|(k, v)| (k.clone(), json!(v)))
                .collect();
            ui.event(&json!({"type": "trial", "trial": trial.number, "values": values, "share": trial.share, "file": trial.file, "refused": trial.refused, "reused": found}));
        }
        Told::Round(number, best, apart) => {
            ui.event(&json!({"type": "round", "round": number, "best": best, "told_apart": apart}));
            ui.detail(&format!(
                "round {number}: best {best:.4}{}",
                match apart {
                    Some(true) => ", told apart from the best before",
                    Some(false) => ", not told apart from the best before",
                    None => "",
                }
            ));
        }
    }
}

fn text(values: &Values) -> String {
    if values.is_empty() {
        return "as it stands".into();
    }
    let one = |(key, value): &(String, String)| format!("{key}={value}");
    values.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// What fits into a line; the list on disk has the whole.
fn short(text: &str) -> String {
    match text.char_indices().nth(WIDE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The table of trials and what it means.
pub fn shown(found: &Outcome, study: &Study<'_>, ui: &Ui) {
    let mut order: Vec<usize> = (0..found.trials.len())
        .filter(|t| found.scores[*t].is_some())
        .collect();
    let score = |t: usize| found.scores[t].unwrap_or(f64::NAN);
    let up = score(found.best)
        >= order
            .iter()
            .map(|t| score(*t))
            .fold(f64::NEG_INFINITY, f64::max);
    order.sort_by(|a, b| match up {
        true => score(*b).total_cmp(&score(*a)),
        false => score(*a).total_cmp(&score(*b)),
    });
    let heading = study.objective.heading();
    let mut lines = vec![format!("trial  {heading:<8}  values")];
    let digits = study.objective.digits();
    for t in order.iter().take(SHOWN) {
        lines.push(format!(
            "{t:>5}  {:<8}  {}",
            format!("{:.digits$}", score(*t)),
            short(&text(&found.trials[*t].values))
        ));
    }
    if order.len() > SHOWN {
        lines.push(format!("       ... and {} more", order.len() - SHOWN));
    }
    let best = &found.trials[found.best];
    let n = found.trials.len();
    lines.push(match &found.gain {
        Some(gain) => format!(
            "best of {n}: {}; {:+.digits$} to the recipe as it stands, 95 % {:+.digits$} to {:+.digits$}{}: {}",
            text(&best.values),
            gain.value,
            gain.interval.low,
            gain.interval.high,
            if gain.paired { "" } else { " (not paired)" },
            if gain.resolved { "resolved" } else { "not resolved" },
        ),
        None if best.values.is_empty() => format!("best of {n}: the recipe as it stands"),
        None => format!("best of {n}: {}; the recipe as it stands cannot be made", text(&best.values)),
    });
    if let Ended::NotResolved(rounds) = found.ended {
        lines.push(format!(
            "ended early: {rounds} round{} without a point that is told apart from the best before (--patience 0 tries all)",
            if rounds == 1 { "" } else { "s" }
        ));
    }
    if study.split == "test" {
        lines.push("chosen on the test rows: their scores are no scores on new rows".into());
    }
    ui.say(&lines.join("\n"));
    let values: serde_json::Map<_, _> = best
        .values
        .iter()
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    ui.event(&json!({
        "type": "done", "best": found.best, "values": values, "score": score(found.best), "trials": n,
        "gain": found.gain.map(|g| json!({"value": g.value, "interval": [g.interval.low, g.interval.high], "resolved": g.resolved, "paired": g.paired})),
        "ended": match found.ended { Ended::Tried => "tried", Ended::NotResolved(_) => "not-resolved" },
    }));
}
