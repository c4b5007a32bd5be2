//! `polyloom report`

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::import;
use polyloom::evaluate::board::predictions::{Columns, Predictions};
use polyloom::evaluate::board::records::{self, BySystem};
use polyloom::evaluate::board::views::one_overlap;
use polyloom::evaluate::report::{Inputs, Options, Report, results_of};
use serde_json::json;

use crate::args_report::ReportArgs;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &ReportArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    for file in &args.output {
        check(file, args.force)?;
    }
    let inputs = inputs(args)?;
    for note in &inputs.notes {
        ui.note(note);
    }
    let options = Options {
        title: args.title.clone(),
        rank_by: args.rank_by,
        baseline: args.baseline.clone(),
        by: args.by.clone(),
        stages: args.stages.clone(),
        settings: args.order.settings(1.0 - args.alpha),
        examples: args.examples,
    };
    let told = inputs.notes.len();
    let report = Report::of(inputs, options)?;
    for note in &report.notes()[told..] {
        ui.note(note);
    }
    let (systems, tasks) = report.size();
    for file in &args.output {
        let content = match ending(file).as_str() {
            "html" | "htm" => report.html_in(file.parent()),
            "md" => report.markdown(),
            "csv" => report.csv(),
            "tex" => report.latex(),
            _ => format!("{:#}\n", report.json()),
        };
        super::replace(file, &content)?;
        ui.event(&json!({"type": "file", "path": file, "bytes": content.len()}));
        ui.say(&format!(
            "{}: {} kB",
            file.display(),
            content.len().div_ceil(1000)
        ));
    }
    if ui.json {
        ui.event(
            &json!({"type": "done", "systems": systems, "tasks": tasks, "sentence": report.sentence()}),
        );
    } else {
        ui.answer(&report.sentence());
    }
    Ok(ExitCode::SUCCESS)
}

fn ending(file: &Path) -> String {
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or("");
    ending.to_ascii_lowercase()
}

fn check(file: &Path, force: bool) -> Result<(), MergeError> {
    let at = file.display().to_string();
    if !["html", "htm", "md", "csv", "tex", "json"].contains(&ending(file).as_str()) {
        return Err(MergeError::plan("unknown-format", "is no kind of report")
            .at(at)
            .hint("the ending says what is written: .html, .md, .csv, .tex or .json"));
    }
    if file.exists() && !force {
        return Err(MergeError::plan("output-exists", "exists already")
            .at(at)
            .hint("--force replaces it"));
    }
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|p| !p.is_dir()) {
        return Err(MergeError::plan("output-folder", "is not a folder")
            .at(folder.display().to_string())
            .hint("create it first; the report is written there"));
    }
    Ok(())
}

fn inputs(args: &ReportArgs) -> Result<Inputs, Failure> {
    let mut given = BySystem::new();
    let columns = Columns {
        id: args.id.clone(),
        task: args.results.task.first().cloned(),
        system: args.results.system.first().cloned(),
        ..Columns::default()
    };
    for source in &args.predictions {
        let mut found = Predictions::by_system(&source.path, &columns)?;
        if let Some(name) = &source.name {
            if found.len() != 1 {
                return Err(MergeError::plan(
                    "several-systems",
                    format!("holds {} systems; `{name}=` names one", found.len()),
                )
                .at(source.path.display().to_string())
                .hint("give the file without a name")
                .into());
            }
            found = found.into_values().map(|p| (name.clone(), p)).collect();
        }
        for (name, predictions) in found {
            if given.contains_key(&name) {
                return Err(MergeError::plan(
                    "two-files",
                    format!("predictions of `{name}` are given twice"),
                )
                .at(source.path.display().to_string())
                .hint("NAME=FILE gives the system of a file another name")
                .into());
            }
            given.insert(name, predictions);
        }
    }
    if args.files.is_empty() {
        let results = results_of(&given).filter(&args.results.conditions)?;
        return Ok(Inputs {
            results,
            predictions: given,
            ..Inputs::default()
        });
    }
    let options = args.results.options();
    let mut imported = import::import(&args.files, &options)?;
    let mut notes = std::mem::take(&mut imported.notes);
    if let Some(expert) = &args.expert {
        imported = super::board::with_expert(imported, expert, &options)?;
    }
    if let Some(family) = one_overlap(&imported.results) {
        notes.push(format!(
            "every score here is {family}: it counts words shared with a reference and ranks systems otherwise than people do; add a metric of another kind"
        ));
    }
    let known = |name: &String| imported.results.systems.iter().any(|s| s.name == *name);
    for name in given.keys().filter(|name| !known(name)) {
        notes.push(format!(
            "`{name}` has predictions but no results; NAME=FILE gives it the name of a system"
        ));
    }
    let predictions = records::complete(&imported, given, &mut notes);
    let attempts = records::attempts(&imported);
    Ok(Inputs {
        results: imported.results,
        predictions,
        attempts,
        notes,
    })
}
