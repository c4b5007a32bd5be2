//! `polyloom eval`

mod endpoint;
mod groups;
mod models;
mod predictions;
mod table;
mod target;
mod woven;

pub(super) use models::lists;
pub(super) use target::names;

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::Options;
use polyloom::evaluate::board::score::ask::{Settings, Style};
use polyloom::evaluate::board::score::extract::Extract;
use polyloom::tasks::spec::TaskSpec;
use serde_json::{Value, json};

use crate::args_eval::EvalArgs;
use crate::hub::Hub;
use crate::ui::{Failure, Ui};

/// Results by task.
type Entries = Vec<(String, Value)>;

/// Runs the command.
pub fn run(args: &EvalArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    if !args.fuse.fuse.is_empty() && args.models.is_empty() {
        let what = "--fuse puts small experts into a model that runs here";
        return Err(MergeError::plan("bad-flag", what).into());
    }
    match (&args.predictions, &args.server.endpoint) {
        (Some(file), _) => predictions::run(args, file, ui),
        (None, Some(url)) => endpoint::run(args, url, ui),
        _ if !args.models.is_empty() => models::run(args, hub(false), ui),
        _ => Err(MergeError::plan("arguments", "there is nothing to score")
            .hint("polyloom eval MODEL... runs models, --endpoint URL asks a server, --predictions FILE scores what others predicted")
            .into()),
    }
}

/// How models that answer in text are asked.
fn settings(args: &EvalArgs, style: Style, spec: &TaskSpec) -> Settings {
    Settings {
        split: args.split.clone(),
        limit: args.limit,
        style,
        prompt: args.prompt.clone(),
        fewshot: args.fewshot,
        max_tokens: args.max_tokens,
        raw: args.extract.is_some() || !spec.parse.is_empty(),
    }
}

/// How is scored.
fn options(args: &EvalArgs) -> Result<Options, Failure> {
    Ok(Options {
        split: args.split.clone(),
        allow_partial: args.allow_partial || args.limit.is_some(),
        level: 1.0 - args.alpha,
        draws: usize::try_from(args.bootstrap).unwrap_or(usize::MAX),
        extract: args.extract.as_deref().map(Extract::named).transpose()?,
        metrics: args.metrics.clone(),
    })
}

fn reused(task: &str, ui: &Ui) {
    ui.note(&format!(
        "{task}: nothing changed, its records are used again (--force scores again)"
    ));
}

/// Events of results, and what a reader of them should know. `missing`: examples without a prediction are told.
fn tell(system: Option<&str>, entries: &Entries, missing: bool, ui: &Ui) {
    let mut told = "";
    for (task, entry) in entries {
        let mut event = json!({"type": "result", "task": task});
        if let (Some(event), Some(entry)) = (event.as_object_mut(), entry.as_object()) {
            if let Some(system) = system {
                event.insert("system".into(), system.into());
            }
            event.extend(entry.clone());
        }
        ui.event(&event);
        // Groups of a task share their examples' remarks.
        let samples = entry["samples"].as_str().unwrap_or("");
        let place = match system {
            Some(system) => format!("{system}: {task}"),
            None => task.clone(),
        };
        remarks(&place, entry, told != samples, missing, ui);
        told = samples;
    }
}

/// The event of the end.
fn done(output: &str, tasks: usize, ui: &Ui) {
    ui.event(&json!({"type": "done", "output": output, "tasks": tasks}));
}

/// What a reader of the numbers should know.
fn remarks(task: &str, entry: &Value, first_of_task: bool, missing: bool, ui: &Ui) {
    let count = |name: &str| entry[name]["count"].as_u64().unwrap_or(0);
    let first = |name: &str| {
        let ids = entry[name]["first"].as_array().map_or(&[][..], |a| &a[..]);
        let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
        ids.join(", ")
    };
    if first_of_task {
        if missing && count("missing") > 0 {
            let n = count("missing");
            ui.note(&format!(
                "{task}: {n} examples have no prediction, such as {}",
                first("missing")
            ));
        }
        if count("extra") > 0 {
            let n = count("extra");
            ui.note(&format!(
                "{task}: {n} ids are not in the task, such as {}",
                first("extra")
            ));
        }
        for note in entry["notes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            ui.note(&format!("{task}: {note}"));
        }
    }
    if let Some(reason) = entry["reason"].as_str() {
        ui.note(&format!(
            "{task}: {} is n/a: {reason}",
            entry["metric"].as_str().unwrap_or("")
        ));
    }
    for (name, metric) in entry["metrics"].as_object().into_iter().flatten() {
        if let Some(reason) = metric["reason"].as_str() {
            ui.note(&format!("{task}: {name} is n/a: {reason}"));
        }
    }
}
