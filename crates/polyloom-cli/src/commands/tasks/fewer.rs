//! `polyloom tasks downsample`, and `tasks check --against`.

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::EvalError;
use polyloom::evaluate::aggregate::downsample::{Complete, Criterion, Downsample};
use polyloom::evaluate::board::import;

use polyloom::tasks::catalogue::Entry;
use polyloom::tasks::check::{Finding, Level, Report};
use polyloom::tasks::contamination;
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use serde_json::{Value, json};

use super::columns;
use crate::args_tasks::{CheckArgs, CriterionArg, DownsampleArgs};
use crate::ui::{Failure, Ui};

/// Leaves out the tasks that the others predict.
pub fn downsample(args: &DownsampleArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let mut read = import::import(&args.files, &args.results.options())?;
    for note in std::mem::take(&mut read.notes) {
        ui.note(&note);
    }
    let bad = |e: EvalError| MergeError::plan("bad-scores", e.to_string());
    let complete = Complete::of(&read.results.matrix()?).map_err(bad)?;
    let matrix = &complete.matrix;
    let names: Vec<&str> = matrix.tasks().iter().map(|t| &*t.name).collect();
    let mut keep = Vec::new();
    for name in &args.keep {
        let Some(i) = names.iter().position(|n| n == name) else {
            let error = MergeError::plan("bad-flag", format!("--keep: unknown task `{name}`"));
            let near = polyloom::suggest::nearest(name, &names, 1);
            return Err(match near.first() {
                Some(near) => error.hint(format!("did you mean `{near}`?")).into(),
                None => error.into(),
            });
        };
        keep.push(i);
    }
    for (what, out) in [
        ("systems", &complete.systems_out),
        ("tasks", &complete.tasks_out),
    ] {
        if !out.is_empty() {
            let first: Vec<&str> = out.iter().take(3).map(String::as_str).collect();
            let rest = if out.len() > 3 { ", ..." } else { "" };
            let n = out.len();
            ui.note(&format!(
                "{n} {what} are left out for their gaps: {}{rest}",
                first.join(", ")
            ));
        }
    }
    let rules = Downsample {
        criterion: match args.criterion {
            CriterionArg::Pearson => Criterion::Pearson,
            CriterionArg::Spearman => Criterion::Spearman,
            CriterionArg::Mse => Criterion::MseZscore,
        },
        size: args.size,
        least: (args.least > 0.0).then_some(args.least),
        keep,
        keep_groups: !args.ignore_groups,
    };
    let done = rules.run(matrix).map_err(bad)?;
    let mut lines = vec![["removed", "predicted with"].map(String::from)];
    for (task, value) in &done.removed {
        ui.event(&json!({"type": "removed", "task": names[*task], "predicted": value}));
        lines.push([names[*task].to_owned(), format!("{value:.3}")]);
    }
    if lines.len() > 1 {
        ui.say(&columns(&lines));
    }
    let kept: Vec<&str> = done.kept.iter().map(|t| names[*t]).collect();
    ui.answer(&kept.join("\n"));
    ui.say(&format!(
        "{} of {} tasks kept over {} systems; rank correlation with all tasks (Spearman, Borda) {:.3}",
        kept.len(),
        names.len(),
        matrix.systems().len(),
        done.borda_agreement
    ));
    ui.event(&json!({
        "type": "done", "kept": kept, "tasks": names.len(), "systems": matrix.systems().len(),
        "systems_out": complete.systems_out, "tasks_out": complete.tasks_out, "rank_correlation": done.borda_agreement,
    }));
    Ok(ExitCode::SUCCESS)
}

/// Adds what a task shares with training files to its report, and writes the clean rows where that was asked for.
pub fn against(
    entry: &Entry,
    loader: &Loader,
    args: &CheckArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let spec = &entry.spec;
    let files: Vec<&Path> = args.against.iter().map(AsRef::as_ref).collect();
    for overlap in contamination::check(spec, loader, &files, &Limits::default())? {
        let at = format!("splits.{}", overlap.split);
        let n = overlap.hit.len();
        if let Some((row, share)) = overlap.worst {
            let text = format!(
                "{n} of {} rows have a run of 13 words that the training files have; most in row {} ({:.0} % of its runs)",
                overlap.rows,
                row + 1,
                100.0 * share
            );
            report.findings.push(Finding {
                level: Level::Warning,
                code: "contamination",
                at: at.clone(),
                text,
            });
        }
        let judged = overlap.rows - overlap.short;
        let text = format!(
            "{judged} of {} rows were compared with {} training files; {} are shorter than 13 words",
            overlap.rows,
            files.len(),
            overlap.short
        );
        report.findings.push(Finding {
            level: Level::Note,
            code: "compared",
            at,
            text,
        });
        if let Some(folder) = &args.clean {
            clean(loader, &overlap, &folder.join(&spec.id))?;
        }
    }
    report.findings.sort_by_key(|f| std::cmp::Reverse(f.level));
    Ok(())
}

/// Writes the rows of a split that no training file has.
fn clean(loader: &Loader, overlap: &contamination::Overlap, folder: &Path) -> Result<(), Failure> {
    let file = folder.join(format!("{}.jsonl", overlap.split));
    let (mut text, mut at) = (String::new(), 0u64);
    loader.rows(&overlap.split, &mut |table| {
        for row in 0..table.rows() {
            if overlap.hit.binary_search(&at).is_err() {
                text += &Value::Object(table.row(row)).to_string();
                text.push('\n');
            }
            at += 1;
        }
        Ok(())
    })?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, text))
        .map_err(|e| polyloom_core::Error::io(&file, "write", e))?;
    Ok(())
}
