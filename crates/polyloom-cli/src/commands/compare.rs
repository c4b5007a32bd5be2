//! `polyloom compare`

use std::path::Path;
use std::process::ExitCode;

use polyloom::evaluate::board::compare::{Comparison, Options, Paired, Test, Verdict, compare};
use polyloom::evaluate::board::predictions::{Columns, Example, Predictions};
use polyloom::evaluate::statistics::Interval;
use polyloom::evaluate::statistics::mcnemar::McNemarForm;
use serde_json::{Value, json};

use crate::args_compare::CompareArgs;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let columns = Columns {
        id: args.id.clone(),
        task: args.task_column.clone(),
        prediction: args.prediction.clone(),
        label: args.label.clone(),
        score: args.score.clone(),
        system: None,
    };
    let first = Predictions::read(&args.first, &columns)?;
    let second = Predictions::read(&args.second, &columns)?;
    let options = Options {
        alpha: args.alpha,
        allow_partial: args.allow_partial,
    };
    let found = compare(&first, &second, options)?;
    if !found.left_out.is_empty() {
        let n = found.left_out.len();
        ui.note(&format!(
            "{n} examples that only one file holds were left out"
        ));
    }
    let failed: Vec<&Paired> = found
        .tasks
        .iter()
        .filter(|t| {
            let allowance = args.fail_if_worse.unwrap_or(f64::INFINITY);
            t.verdict == Verdict::Worse && -t.difference > allowance
        })
        .collect();
    if ui.json {
        for task in &found.tasks {
            ui.event(&event(task, args.flips));
        }
        let words: Vec<&str> = failed.iter().map(|t| t.task.as_str()).collect();
        ui.event(&json!({"type": "done", "verdict": verdict(&found), "failed": words}));
    } else {
        ui.answer(&table(&found, args));
    }
    if failed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        ui.say(&format!(
            "worse than allowed on {} of {} tasks",
            failed.len(),
            found.tasks.len()
        ));
        Ok(ExitCode::from(1))
    }
}

fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().chars().take(12).collect()
}

fn range(interval: Interval, signed: bool) -> String {
    let Interval { low, high } = interval;
    match (low.is_nan(), signed) {
        (true, _) => "n/a".into(),
        (_, true) => format!("{low:+.3} .. {high:+.3}"),
        (_, false) => format!("{low:.3} .. {high:.3}"),
    }
}

fn table(found: &Comparison, args: &CompareArgs) -> String {
    let named = |t: &Paired| {
        let task = if t.task.is_empty() { "all" } else { &t.task };
        task.to_owned()
    };
    let width = found
        .tasks
        .iter()
        .map(|t| named(t).chars().count())
        .max()
        .unwrap_or(4);
    let width = width.clamp(4, 24);
    let (a, b) = (name(&args.first), name(&args.second));
    let percent = 100.0 * (1.0 - args.alpha);
    let interval = format!("{percent:.0} % interval");
    let mut out = vec![format!(
        "{:<width$} {:>6} {a:>8} {b:>8} {:>8}  {interval:<18} {:>7}",
        "task", "n", "change", "p"
    )];
    for t in &found.tasks {
        let task: String = named(t).chars().take(width).collect();
        out.push(format!(
            "{task:<width$} {:>6} {:>a$.4} {:>b$.4} {:>+8.4}  {:<18} {:>7}",
            t.n,
            t.first.mean,
            t.second.mean,
            t.difference,
            range(t.interval, true),
            probability(t.p_holm),
            a = a.chars().count().max(8),
            b = b.chars().count().max(8),
        ));
    }
    out.push(String::new());
    out.push(format!(
        "{:<width$} {:>6} {:>8}   least true change that shows 4 times in 5",
        "task", "worse", "better"
    ));
    for t in &found.tasks {
        let task: String = named(t).chars().take(width).collect();
        let detectable = match t.detectable {
            d if d.is_nan() => "n/a".to_owned(),
            d => format!("{d:.4}"),
        };
        let (worse, better) = (t.worse.len(), t.better.len());
        out.push(format!(
            "{task:<width$} {worse:>6} {better:>8}   {detectable}"
        ));
    }
    out.push(String::new());
    if let [t] = &found.tasks[..] {
        let (first, second) = (
            range(t.first.interval, false),
            range(t.second.interval, false),
        );
        out.push(format!("{a} lies in {first}, {b} in {second}"));
    }
    let tests: &[&str] = match found.tasks[0].test {
        Test::McNemar(_) => &["McNemar's test", "right and wrong answers"],
        Test::PairedT => &["the paired t test", "scores"],
    };
    let holm = if found.tasks.len() > 1 {
        ", corrected for the tasks (Holm)"
    } else {
        ""
    };
    out.push(format!("p: {} on {}{holm}", tests[0], tests[1]));
    for t in found.tasks.iter().filter(|_| args.flips > 0) {
        out.push(String::new());
        out.push(format!("{}: worse in {b}", named(t)));
        for flip in t.worse.iter().take(args.flips) {
            let (old, new) = (&flip.examples.0, &flip.examples.1);
            let shown = |e: &Example| match &e.texts {
                Some((prediction, _)) => prediction.trim().to_owned(),
                None => format!("{:.4}", e.value),
            };
            let label = old
                .texts
                .as_ref()
                .map_or_else(String::new, |t| format!(", right: {}", t.1.trim()));
            out.push(clip(&format!(
                "  {}  {} -> {}{label}",
                flip.id,
                shown(old),
                shown(new)
            )));
        }
        if t.worse.len() > args.flips {
            out.push(format!("  and {} more", t.worse.len() - args.flips));
        }
    }
    out.push(String::new());
    out.push(format!("verdict: {}", verdict(found)));
    out.join("\n")
}

/// One line of a terminal: texts of answers may be long.
fn clip(line: &str) -> String {
    let line = line.replace(['\n', '\r', '\t'], " ");
    if line.chars().count() <= 80 {
        return line;
    }
    line.chars().take(77).chain("...".chars()).collect()
}

fn probability(p: f64) -> String {
    if p < 0.0001 {
        "<0.0001".into()
    } else {
        format!("{p:.4}")
    }
}

fn verdict(found: &Comparison) -> String {
    let count = |v: Verdict| found.tasks.iter().filter(|t| t.verdict == v).count();
    let (better, worse, open) = (
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Open),
    );
    match (found.tasks.len(), better, worse) {
        (1, 1, _) => "better".into(),
        (1, _, 1) => "worse".into(),
        (1, ..) => "no clear change".into(),
        _ => {
            let parts = [
                (better, "better on"),
                (worse, "worse on"),
                (open, "no clear change on"),
            ];
            let said: Vec<String> = parts
                .iter()
                .filter(|p| p.0 > 0)
                .map(|(n, words)| format!("{words} {n} of {}", found.tasks.len()))
                .collect();
            said.join(", ")
        }
    }
}

fn event(t: &Paired, flips: usize) -> Value {
    let number = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
    let pair = |i: Interval| json!([number(i.low), number(i.high)]);
    let flips: Vec<Value> = t
        .worse
        .iter()
        .take(flips)
        .map(|f| {
            let side = |e: &Example| {
                let prediction = e.texts.as_ref().map(|t| t.0.clone());
                json!({"value": number(e.value), "prediction": prediction})
            };
            let label = f.examples.0.texts.as_ref().map(|t| t.1.clone());
            json!({"id": f.id, "old": side(&f.examples.0), "new": side(&f.examples.1), "label": label})
        })
        .collect();
    json!({
        "type": "comparison",
        "task": t.task,
        "n": t.n,
        "old": {"mean": number(t.first.mean), "interval": pair(t.first.interval)},
        "new": {"mean": number(t.second.mean), "interval": pair(t.second.interval)},
        "difference": number(t.difference),
        "interval": pair(t.interval),
        "p": number(t.p),
        "p_holm": number(t.p_holm),
        "test": match t.test {
            Test::McNemar(McNemarForm::Exact) => "mcnemar-exact",
            Test::McNemar(McNemarForm::MidP) => "mcnemar-mid-p",
            Test::PairedT => "paired-t",
        },
        "minimum_detectable": number(t.detectable),
        "worse": t.worse.len(),
        "better": t.better.len(),
        "verdict": match t.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Open => "no clear change",
        },
        "flips": flips,
    })
}
