//! `polyloom eval`

mod groups;

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::extract::Extract;
use polyloom::evaluate::board::score::output::{Output, key};
use polyloom::evaluate::board::score::{Options, lm_eval, score, score_values};
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;
use serde_json::{Value, json};

use super::tasks::{catalogue, expanded, roots};
use crate::args_eval::EvalArgs;
use crate::ui::{Failure, Ui};

/// Rows of the table; more are in the results file.
const SHOWN: usize = 24;

/// Runs the command.
pub fn run(args: &EvalArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let columns = Columns {
        id: args.id.clone(),
        task: args.task_column.clone(),
        prediction: args.prediction.clone(),
        only: args.only.clone(),
    };
    let mut answers = Answers::read(&args.predictions, columns)?;
    lm_eval::prepare(&mut answers)?;
    let options = Options {
        split: args.split.clone(),
        allow_partial: args.allow_partial,
        level: 1.0 - args.alpha,
        draws: usize::try_from(args.bootstrap).unwrap_or(usize::MAX),
        extract: args.extract.as_deref().map(Extract::named).transpose()?,
        metrics: args.metrics.clone(),
    };
    let stem = args
        .predictions
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let path = args.output.clone().unwrap_or_else(|| {
        args.predictions
            .with_file_name(format!("{stem}.results.json"))
    });
    let name = args.name.clone().unwrap_or_else(|| match &args.only[..] {
        [] => stem,
        only => only
            .iter()
            .map(|(_, value)| &**value)
            .collect::<Vec<_>>()
            .join(" "),
    });
    let mut output = Output::open(&path, &name, &answers, args.force)?;
    let (entries, groups) = if args.values.is_some() || own(args, &answers) {
        (
            by_values(args, &answers, &options, &mut output, ui)?,
            Vec::new(),
        )
    } else {
        by_tasks(args, &answers, &options, &mut output, ui)?
    };
    output.write()?;
    let mut told = "";
    for (task, entry) in &entries {
        let mut event = json!({"type": "result", "task": task});
        if let (Some(event), Some(entry)) = (event.as_object_mut(), entry.as_object()) {
            event.extend(entry.clone());
        }
        ui.event(&event);
        // Groups of a task share their examples' remarks.
        let samples = entry["samples"].as_str().unwrap_or("");
        remarks(task, entry, told != samples, ui);
        told = samples;
    }
    ui.answer(&table(&entries, args));
    groups.iter().for_each(|line| ui.answer(line));
    ui.answer(&format!("results: {}", path.display()));
    ui.event(
        &json!({"type": "done", "output": path.display().to_string(), "tasks": entries.len()}),
    );
    Ok(ExitCode::SUCCESS)
}

/// Whether the file brings its own scores: lm-eval samples for which no task is named.
fn own(args: &EvalArgs, answers: &Answers) -> bool {
    args.tasks.is_empty() && lm_eval::is_samples(&answers.columns)
}

type Entries = Vec<(String, Value)>;

fn by_values(
    args: &EvalArgs,
    answers: &Answers,
    options: &Options,
    output: &mut Output,
    ui: &Ui,
) -> Result<Entries, Failure> {
    let task = lm_eval::task_name(&args.predictions);
    let key = key(&format!("values {:?}", args.values), answers, options);
    if let Some(entries) = output.unchanged(&key).filter(|_| !args.force) {
        reused(&task, ui);
        return Ok(entries);
    }
    let scored = score_values(answers, args.values.as_deref(), options)?;
    Ok(output.add(&task, &key, &scored)?)
}

fn reused(task: &str, ui: &Ui) {
    ui.note(&format!(
        "{task}: nothing changed, its records are used again (--force scores again)"
    ));
}

fn by_tasks(
    args: &EvalArgs,
    answers: &Answers,
    options: &Options,
    output: &mut Output,
    ui: &Ui,
) -> Result<(Entries, Vec<String>), Failure> {
    let named = if args.tasks.is_empty() {
        answers.tasks()
    } else {
        args.tasks.clone()
    };
    if named.is_empty() {
        let error = MergeError::plan("no-task", "names no task, and none was given");
        return Err(error
            .at(answers.path.display().to_string())
            .hint("--task TASK (`polyloom tasks list`, or a spec file); --values COLUMN for scores that the file holds")
            .into());
    }
    let (catalogue, ids) = catalogue(&args.places, &named)?;
    let mut entries = Vec::new();
    for id in expanded(&catalogue, &ids)? {
        let task = catalogue.task(&id)?;
        let folder = roots(&args.places).folder(task)?;
        let loader = Loader::new(&task.spec, folder, Limits::default());
        loader.split(&options.split)?;
        let hash = task_hash(&task.spec, &loader.hashes()?);
        let key = key(&hash, answers, options);
        if let Some(found) = output.unchanged(&key).filter(|_| !args.force) {
            reused(&id, ui);
            entries.extend(found);
            continue;
        }
        let scored = score(&task.spec, &loader, &hash, answers, options)?;
        entries.extend(output.add(&id, &key, &scored)?);
        // What is done stays, should a later task fail.
        output.write()?;
    }
    let lines = groups::told(&catalogue, &ids, &entries, ui)?;
    Ok((entries, lines))
}

/// What a reader of the numbers should know.
fn remarks(task: &str, entry: &Value, first_of_task: bool, ui: &Ui) {
    let count = |name: &str| entry[name]["count"].as_u64().unwrap_or(0);
    let first = |name: &str| {
        let ids = entry[name]["first"].as_array().map_or(&[][..], |a| &a[..]);
        let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
        ids.join(", ")
    };
    if first_of_task {
        if count("missing") > 0 {
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

/// One line of the table.
struct Line {
    task: String,
    metric: String,
    value: String,
    interval: String,
    n: String,
    against: String,
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        None => "n/a".into(),
        Some(x) if x.abs() >= 100.0 => format!("{x:.1}"),
        Some(x) if x.abs() >= 10.0 => format!("{x:.2}"),
        Some(x) => format!("{x:.3}"),
    }
}

fn line(task: &str, name: &str, entry: &Value, expert: &Value) -> Line {
    let interval = match (&entry["interval"][0], &entry["interval"][1]) {
        (Value::Null, _) | (_, Value::Null) => "n/a".into(),
        (low, high) => format!("{} .. {}", number(low), number(high)),
    };
    let against = match (entry["value"].as_f64(), expert.as_f64()) {
        (Some(x), Some(b)) => format!("{:+.1}", points(x, b)),
        _ => String::new(),
    };
    Line {
        task: task.into(),
        metric: name.into(),
        value: number(&entry["value"]),
        interval,
        n: entry["n"].to_string(),
        against,
    }
}

/// How far a score is from that of the reference, in hundredths.
fn points(x: f64, reference: f64) -> f64 {
    100.0 * (x - reference)
}

fn table(entries: &[(String, Value)], args: &EvalArgs) -> String {
    let mut lines = Vec::new();
    for (task, entry) in entries.iter().take(SHOWN) {
        lines.push(line(
            task,
            entry["metric"].as_str().unwrap_or(""),
            entry,
            &entry["expert"],
        ));
        if entries.len() <= 12 {
            for (name, other) in entry["metrics"].as_object().into_iter().flatten() {
                lines.push(line("", name, other, &Value::Null));
            }
        }
    }
    lines.extend(mean(entries));
    let against = lines.iter().any(|l| !l.against.is_empty());
    let width = |of: fn(&Line) -> &str, least: usize| {
        lines
            .iter()
            .map(|l| of(l).chars().count())
            .max()
            .unwrap_or(0)
            .max(least)
    };
    let interval = format!("{:.0} % interval", 100.0 * (1.0 - args.alpha));
    let (metric, value) = (width(|l| &l.metric, 6), width(|l| &l.value, 6));
    let (range, n) = (width(|l| &l.interval, interval.len()), width(|l| &l.n, 4));
    let left =
        80usize.saturating_sub(metric + value + range + n + 8 + if against { 16 } else { 0 });
    let task = width(|l| &l.task, 4).min(left.max(8));
    let row = |l: [&str; 6]| {
        let head: String = shortened(l[0], task);
        let text = format!(
            "{head:<task$}  {:<metric$}  {:>value$}  {:<range$}  {:>n$}  {:>14}",
            l[1], l[2], l[3], l[4], l[5]
        );
        text.trim_end().to_owned()
    };
    let last = if against { "vs single-task" } else { "" };
    let mut out = vec![row(["task", "metric", "value", &interval, "n", last])];
    out.extend(
        lines
            .iter()
            .map(|l| row([&l.task, &l.metric, &l.value, &l.interval, &l.n, &l.against])),
    );
    if entries.len() > SHOWN {
        out.insert(
            out.len() - usize::from(mean(entries).is_some()),
            format!("... and {} more in the results file", entries.len() - SHOWN),
        );
    }
    out.join("\n")
}

/// The end of a long name: what tells tasks of one kind apart.
fn shortened(name: &str, width: usize) -> String {
    let n = name.chars().count();
    if n <= width {
        return name.to_owned();
    }
    let rest: String = name.chars().skip(n + 3 - width.max(4)).collect();
    format!("...{rest}")
}

/// Mean over tasks of one metric, those without a value left out and counted.
fn mean(entries: &[(String, Value)]) -> Option<Line> {
    let (_, first) = entries.first()?;
    if entries.len() < 2 || entries.iter().any(|(_, e)| e["metric"] != first["metric"]) {
        return None;
    }
    let values: Vec<f64> = entries
        .iter()
        .filter_map(|(_, e)| e["value"].as_f64())
        .collect();
    let missing = entries.len() - values.len();
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let gaps: Vec<f64> = entries
        .iter()
        .filter_map(|(_, e)| Some(points(e["value"].as_f64()?, e["expert"].as_f64()?)))
        .collect();
    Some(Line {
        task: "mean".into(),
        metric: if missing > 0 {
            format!("({missing} n/a left out)")
        } else {
            String::new()
        },
        value: if values.is_empty() {
            "n/a".into()
        } else {
            number(&json!(mean(&values)))
        },
        interval: String::new(),
        n: String::new(),
        against: if gaps.len() == entries.len() {
            format!("{:+.1}", mean(&gaps))
        } else {
            String::new()
        },
    })
}
