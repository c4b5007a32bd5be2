//! `polyloom compare`

mod event;
mod folds;
mod many;
mod plan;
mod scores;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::compare::gate::{self, Fault, Gate, Reason};
use polyloom::evaluate::board::compare::{
    Bounds, Choice, Comparison, Metric, Settings, Slices, Verdict, compare_with,
};
use polyloom::evaluate::board::folds::is as is_folds;
use polyloom::evaluate::board::predictions::{Columns, Predictions};
use polyloom::evaluate::statistics::Interval;
use serde_json::json;

use crate::args_compare::{CompareArgs, IntervalArg, MetricArg, TestArg};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    if args.plan {
        return plan::run(args, ui);
    }
    match &args.files[..] {
        [_] => {
            let error = MergeError::plan("arguments", "one file; comparing needs two");
            Err(error.hint("polyloom compare OLD NEW").into())
        }
        [first, second] if is_folds(first) && is_folds(second) => {
            folds::run(first, second, args, ui)
        }
        [first, second] if scores::is(first) && scores::is(second) => {
            scores::run(first, second, args, ui)
        }
        [first, second] => two(first, second, args, ui),
        _ => many::run(args, ui),
    }
}

fn columns(args: &CompareArgs) -> Columns {
    Columns {
        id: args.id.clone(),
        task: args.task_column.clone(),
        prediction: args.prediction.clone(),
        label: args.label.clone(),
        score: args.score.clone(),
        system: None,
    }
}

fn settings(args: &CompareArgs) -> Settings {
    Settings {
        alpha: args.alpha,
        allow_partial: args.allow_partial,
        metric: match args.metric {
            MetricArg::Mean => Metric::Mean,
            MetricArg::Median => Metric::Median,
            MetricArg::MacroF1 => Metric::MacroF1,
            MetricArg::WeightedF1 => Metric::WeightedF1,
            MetricArg::BalancedAccuracy => Metric::BalancedAccuracy,
            MetricArg::Mcc => Metric::Mcc,
            MetricArg::CohenKappa => Metric::CohenKappa,
            MetricArg::Pearson => Metric::Pearson,
            MetricArg::Spearman => Metric::Spearman,
            MetricArg::Rmse => Metric::Rmse,
            MetricArg::Mae => Metric::Mae,
            MetricArg::R2 => Metric::R2,
            MetricArg::ExplainedVariance => Metric::ExplainedVariance,
            MetricArg::RocAuc => Metric::RocAuc,
        },
        test: match args.test {
            TestArg::Auto => Choice::Auto,
            TestArg::Mcnemar => Choice::McNemar,
            TestArg::T => Choice::PairedT,
            TestArg::Wilcoxon => Choice::Wilcoxon,
            TestArg::Sign => Choice::Sign,
            TestArg::Permutation => Choice::Permutation,
            TestArg::Bootstrap => Choice::Bootstrap,
        },
        bounds: match args.interval {
            IntervalArg::Auto => Bounds::Auto,
            IntervalArg::Student => Bounds::Student,
            IntervalArg::Percentile => Bounds::Percentile,
            IntervalArg::Bca => Bounds::Bca,
        },
        draws: args.draws as usize,
        lower_is_better: args.lower_is_better
            || matches!(args.metric, MetricArg::Rmse | MetricArg::Mae),
    }
}

fn gate(args: &CompareArgs) -> Result<Gate, MergeError> {
    let mut tasks = match &args.allow_file {
        Some(file) => gate::allowances(file)?,
        None => Default::default(),
    };
    tasks.extend(args.allow.iter().cloned());
    Ok(Gate {
        allowance: args.fail_if_worse,
        tasks,
        flips: args.max_flips,
    })
}

fn two(first: &Path, second: &Path, args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    if args.over.is_some() {
        let error = MergeError::plan("bad-flag", "--over is for more than two files");
        return Err(error.into());
    }
    let (columns, gate) = (columns(args), gate(args)?);
    let (old, new) = (
        Predictions::read(first, &columns)?,
        Predictions::read(second, &columns)?,
    );
    let slices = Slices::read(first, &columns, &args.slice)?;
    let found = compare_with(&old, &new, &slices, &settings(args))?;
    if !found.left_out.is_empty() {
        let n = found.left_out.len();
        ui.note(&format!(
            "{n} examples that only one file holds were left out"
        ));
    }
    let faults = gate.faults(&found)?;
    judged(&found, &faults, Vec::new(), args, ui)
}

/// Shows what was paired and what does not pass; `failed` names what failed besides.
fn judged(
    found: &Comparison,
    faults: &[Fault],
    mut failed: Vec<String>,
    args: &CompareArgs,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    if ui.json {
        for paired in found.tasks.iter().chain(&found.slices) {
            ui.event(&event::comparison(paired, args));
        }
        if let Some(all) = &found.overall {
            ui.event(&event::overall(all));
        }
    } else if !found.tasks.is_empty() {
        ui.answer(&table::text(found, args));
    }
    for fault in faults {
        let place = table::place(fault.paired);
        let (reason, limit) = match fault.reason {
            Reason::Worse(allowance) => ("worse", allowance),
            Reason::Flips(limit) => ("flips", limit),
        };
        ui.event(&json!({
            "type": "failed", "task": fault.paired.task, "slice": event::slice(fault.paired),
            "reason": reason, "limit": limit,
        }));
        ui.say(&match fault.reason {
            Reason::Worse(allowance) => format!(
                "{place}: worse by {:.4}, allowed {allowance}",
                fault.paired.difference.abs()
            ),
            Reason::Flips(limit) => format!(
                "{place}: {} of {} examples got worse, allowed {:.1} %",
                fault.paired.worse.len(),
                fault.paired.n,
                100.0 * limit
            ),
        });
        failed.push(place);
    }
    let code = u8::from(!failed.is_empty());
    ui.event(&json!({"type": "done", "verdict": verdict(found), "failed": failed}));
    Ok(ExitCode::from(code))
}

/// Short names of the files: their stems, or with the folder where two stems are equal.
fn names(files: &[PathBuf]) -> Vec<String> {
    let stem = |p: &PathBuf| {
        let stem = p.file_stem().unwrap_or(p.as_os_str());
        stem.to_string_lossy().into_owned()
    };
    let stems: Vec<String> = files.iter().map(stem).collect();
    let named = |(i, file): (usize, &PathBuf)| {
        let alone = stems.iter().filter(|s| **s == stems[i]).count() == 1;
        let folder = file.parent().and_then(Path::file_name);
        match folder.filter(|_| !alone) {
            Some(folder) => format!("{}/{}", folder.to_string_lossy(), stems[i]),
            None => stems[i].clone(),
        }
    };
    files.iter().enumerate().map(named).collect()
}

fn clipped(text: &str, most: usize) -> String {
    let n = text.chars().count();
    if n <= most {
        return text.to_owned();
    }
    // The end of a long name tells more than its beginning.
    let end: String = text.chars().skip(n - (most - 2)).collect();
    format!("..{end}")
}

fn range(interval: Interval, signed: bool) -> String {
    let Interval { low, high } = interval;
    match (low.is_nan(), signed) {
        (true, _) => "n/a".into(),
        (_, true) => format!("{low:+.3} .. {high:+.3}"),
        (_, false) => format!("{low:.3} .. {high:.3}"),
    }
}

fn probability(p: f64) -> String {
    match p {
        p if p.is_nan() => "n/a".into(),
        p if p < 0.0001 => "<0.0001".into(),
        p => format!("{p:.4}"),
    }
}

fn small(x: f64) -> String {
    if x.is_nan() {
        "n/a".into()
    } else {
        format!("{x:.4}")
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
        (0, ..) => "not paired".into(),
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
