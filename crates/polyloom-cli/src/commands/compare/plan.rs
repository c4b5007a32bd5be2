//! Power before the run.

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::compare::plan::{Answer, Question, independent};
use polyloom::evaluate::board::compare::{Metric, Slices, compare_with};
use polyloom::evaluate::board::predictions::Predictions;
use serde_json::json;

use super::event::number;
use super::{columns, settings};
use crate::args_compare::CompareArgs;
use crate::ui::{Failure, Ui};

/// What a pilot tells.
struct Pilot {
    examples: u64,
    baseline: f64,
    /// Share of right and wrong answers that changed; `None` for scores.
    disagree: Option<f64>,
    deviation: f64,
}

/// Runs the plan.
pub fn run(args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let difference = args.difference.unwrap_or(0.0);
    let pilot = pilot(args)?;
    let question = Question {
        difference,
        alpha: args.alpha,
        power: args.power,
        comparisons: args.comparisons,
        examples: args.n.or(pilot.as_ref().map(|p| p.examples)),
    };
    let baseline = args.baseline.or(pilot.as_ref().map(|p| p.baseline));
    let answers = answers(args, &question, baseline, pilot.as_ref())?;
    if ui.json {
        for (answer, note) in &answers {
            let (chance, least) = answer.at_hand.unwrap_or((f64::NAN, f64::NAN));
            ui.event(&json!({
                "type": "plan", "difference": difference, "baseline": baseline, "alpha": args.alpha,
                "power": args.power, "comparisons": args.comparisons, "disagree": answer.disagree,
                "sd": answer.deviation, "examples_needed": answer.needed, "n": question.examples,
                "power_at_n": number(chance), "minimum_detectable": number(least), "note": note,
            }));
        }
        ui.event(&json!({"type": "done"}));
    } else {
        ui.answer(&text(&question, baseline, &answers));
    }
    Ok(ExitCode::SUCCESS)
}

fn pilot(args: &CompareArgs) -> Result<Option<Pilot>, MergeError> {
    let [first, second] = &args.files[..] else {
        return match args.files.len() {
            0 => Ok(None),
            n => Err(MergeError::plan(
                "arguments",
                format!("a pilot is two files, not {n}"),
            )),
        };
    };
    let columns = columns(args);
    let (old, new) = (
        Predictions::read(first, &columns)?,
        Predictions::read(second, &columns)?,
    );
    let mut settings = settings(args);
    settings.metric = Metric::Mean;
    let found = compare_with(&old, &new, &Slices::default(), &settings)?;
    let examples: u64 = found.tasks.iter().map(|t| t.n).sum();
    let n = examples as f64;
    let over = |f: &dyn Fn(&polyloom::evaluate::board::compare::Paired) -> f64| {
        found.tasks.iter().map(|t| f(t) * t.n as f64).sum::<f64>() / n
    };
    let changed = found.tasks.iter().map(|t| t.worse.len() + t.better.len());
    let disagree = changed.sum::<usize>() as f64 / n;
    let centre = over(&|t| t.difference);
    let squares = found
        .tasks
        .iter()
        .flat_map(|t| t.worse.iter().chain(&t.better));
    let squares: f64 = squares
        .map(|f| (f.examples.1.value - f.examples.0.value).powi(2))
        .sum();
    let binary = old.binary && new.binary;
    Ok(Some(Pilot {
        examples,
        baseline: over(&|t| t.first.mean),
        disagree: binary.then_some(disagree),
        deviation: (squares / n - centre * centre).max(0.0).sqrt(),
    }))
}

fn answers(
    args: &CompareArgs,
    question: &Question,
    baseline: Option<f64>,
    pilot: Option<&Pilot>,
) -> Result<Vec<(Answer, String)>, MergeError> {
    let said = |text: &str| text.to_owned();
    if let Some(sd) = args.sd {
        return Ok(vec![(question.for_scores(sd)?, said("as given"))]);
    }
    if let Some(share) = args.disagree {
        return Ok(vec![(question.for_answers(share)?, said("as given"))]);
    }
    if let Some(pilot) = pilot {
        let answer = match pilot.disagree {
            Some(share) => question.for_answers(share)?,
            None => question.for_scores(pilot.deviation)?,
        };
        return Ok(vec![(answer, said("as in the pilot"))]);
    }
    let Some(baseline) = baseline else {
        let error = MergeError::plan("bad-plan", "--plan needs to know how much results vary");
        return Err(error.hint(
            "--baseline 0.8 for right and wrong answers, --sd 0.3 for scores, or two files of a pilot",
        ));
    };
    let reached = baseline + question.difference;
    if !(0.0..=1.0).contains(&reached) {
        let what = format!("{baseline} and {reached} are not both shares of right answers");
        return Err(MergeError::plan("bad-plan", what));
    }
    let most = independent(baseline, question.difference);
    let mut found = Vec::new();
    for share in [0.02, 0.05, 0.1, 0.2, 0.3] {
        if share > question.difference.abs() && share < most {
            found.push((question.for_answers(share)?, String::new()));
        }
    }
    if most > question.difference.abs() {
        found.push((question.for_answers(most)?, said("as if independent")));
    }
    if found.is_empty() {
        let what = "from 0 or to 1 every change is in one direction: nothing to plan";
        return Err(MergeError::plan("bad-plan", what));
    }
    Ok(found)
}

fn text(question: &Question, baseline: Option<f64>, answers: &[(Answer, String)]) -> String {
    let from = baseline.map_or_else(String::new, |b| {
        format!(" ({b:.4} -> {:.4})", b + question.difference)
    });
    let shared = match question.comparisons {
        1 => String::new(),
        k => format!(", shared by {k} comparisons"),
    };
    let mut out = vec![
        format!("to show a difference of {:+}{from}", question.difference),
        format!(
            "at level {}{shared} with a chance of {}",
            question.alpha, question.power
        ),
        String::new(),
    ];
    let spread = if answers[0].0.disagree.is_some() {
        "disagree on"
    } else {
        "deviation"
    };
    let mut head = format!("{spread:>11}  {:>15}", "examples needed");
    if let Some(n) = question.examples {
        let with = format!("chance with {n}");
        head += &format!("  {with:>18}  {:>11}", "least shown");
    }
    out.push(head);
    for (answer, note) in answers {
        let spread = answer.disagree.map_or_else(
            || format!("{:.4}", answer.deviation),
            |share| format!("{:.1} %", 100.0 * share),
        );
        let mut line = format!("{spread:>11}  {:>15}", answer.needed);
        if let Some((chance, least)) = answer.at_hand {
            line += &format!("  {chance:>18.3}  {least:>11.4}");
        }
        if !note.is_empty() {
            line += &format!("  {note}");
        }
        out.push(line);
    }
    out.push(String::new());
    out.push("paired: both systems on the same examples. Related systems disagree on few.".into());
    out.join("\n")
}
