//! `polyloom tasks new` and `split`: the verbs that write.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::data::Limits;
use polyloom::tasks::infer::{self, Role, Wishes};
use polyloom::tasks::level_files::{self, Category};
use polyloom::tasks::levels::Level;
use polyloom::tasks::load::Loader;
use polyloom::tasks::split::{self, By};
use serde_json::json;

use super::columns;
use crate::args_tasks::{NewArgs, SplitArgs};
use crate::ui::{Failure, Ui};

pub fn exists(file: &Path) -> Failure {
    MergeError::plan("output-exists", "exists already")
        .at(file.display().to_string())
        .hint("--force replaces it")
        .into()
}

/// Where the spec of a table or a folder lies, if nothing is said.
pub fn spec_file(table: &Path) -> PathBuf {
    match table.is_dir() {
        // A folder's name may have a dot in it.
        true => {
            let mut name = table.components().as_path().as_os_str().to_owned();
            name.push(".task.toml");
            name.into()
        }
        false => table.with_extension("task.toml"),
    }
}

/// Writes a spec for a table.
pub fn new(args: &NewArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let beside = || spec_file(&args.table);
    let output = args.output.clone().unwrap_or_else(beside);
    let text = write(args, &output, ui)?;
    ui.answer(&match args.dry_run {
        true => text,
        false => output.display().to_string(),
    });
    Ok(ExitCode::SUCCESS)
}

/// The same, with the answer left to the caller: the text of the spec.
pub fn write(args: &NewArgs, output: &Path, ui: &Ui) -> Result<String, Failure> {
    if output.exists() && !args.force && !args.dry_run {
        return Err(exists(output));
    }
    let said = &args.columns;
    let wishes = Wishes {
        id: args.id.clone().unwrap_or_default(),
        targets: said.targets.clone(),
        group: said.group.clone(),
        group_as: said.group_as.into(),
        time: said.time.clone(),
        weight: said.weight.clone(),
        drop: said.drop.clone(),
        session: said.session.clone(),
        order: said.order.clone(),
        item: said.item.clone(),
        history: said.history.clone(),
        mark: said.mark.clone().unwrap_or_default(),
        sample: said.sample.clone().unwrap_or_default(),
        inputs: args.input.clone(),
        seed: args.seed,
    };
    if args.input.len() > 2 {
        let error = MergeError::plan("bad-flag", "--input names more than two columns");
        return Err(error.hint("one text, or the two of a pair").into());
    }
    let limits = Limits::default();
    let images = args.table.is_dir();
    if images && said.weight.is_some() {
        let error = MergeError::plan(
            "bad-flag",
            "--weight names a column, and a folder of images has none",
        );
        return Err(error.hint("leave it out").into());
    }
    let (mut spec, inferred) = if images {
        let (spec, n) = infer::images(&args.table, &wishes, &limits)?;
        let classes = spec.labels.names.len();
        ui.say(&format!("{n} images of {classes} classes"));
        (spec, Vec::new())
    } else {
        infer::infer(&args.table, &wishes, &limits)?
    };
    // The spec finds its table beside it; elsewhere it has to name the folder.
    let folder = |p: &Path| {
        let parent = p
            .parent()
            .filter(|f| !f.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        parent.canonicalize().ok()
    };
    if images {
        let beside = folder(output) == folder(&args.table);
        spec.source.root = match (beside, args.table.file_name()) {
            (true, Some(name)) => name.to_string_lossy().into_owned(),
            _ => {
                let whole = args.table.canonicalize();
                whole
                    .unwrap_or_else(|_| args.table.clone())
                    .display()
                    .to_string()
            }
        };
    } else if folder(output) != folder(&args.table)
        && let Some(table) = folder(&args.table)
    {
        spec.source.root = table.display().to_string();
    }
    if let Some(problem) = polyloom::tasks::validate::task(&spec).into_iter().next() {
        let text = format!("`{}`: {}", problem.path, problem.message);
        return Err(MergeError::plan("bad-task", text)
            .hint("--id names the task")
            .into());
    }
    let mut lines = vec![["column", "role", "because", "missing"].map(String::from)];
    for c in &inferred {
        let missing = if c.missing > 0 {
            c.missing.to_string()
        } else {
            String::new()
        };
        lines.push([
            c.name.clone(),
            c.role.name().into(),
            c.because.clone(),
            missing,
        ]);
        let mut event = json!({"type": "column"});
        if let (Some(event), Ok(serde_json::Value::Object(all))) =
            (event.as_object_mut(), serde_json::to_value(c))
        {
            event.extend(all);
        }
        ui.event(&event);
    }
    if !images {
        ui.say(&columns(&lines));
    }
    let used = [spec.fields.input.clone(), spec.fields.input2.clone()];
    for c in inferred
        .iter()
        .filter(|c| c.role == Role::Text && !used.contains(&c.name))
    {
        ui.note(&format!(
            "`{}` is running text: models of tables hash its words, or train with --embed MODEL (--drop {} leaves it out)",
            c.name, c.name
        ));
    }
    for target in &spec.targets {
        ui.say(&format!(
            "target {}: {} ({})",
            target.name, target.kind, target.metrics[0].name
        ));
    }
    if let (Some(kind), Some(metric)) = (spec.kind, spec.metrics.first()) {
        ui.say(&format!(
            "target {}: {kind} ({})",
            spec.fields.target, metric.name
        ));
    }
    let text = super::toml(&spec)?;
    if !args.dry_run {
        let part = output.with_extension("toml.part");
        std::fs::write(&part, &text)
            .and_then(|()| std::fs::rename(&part, output))
            .map_err(|e| polyloom_core::Error::io(output, "write", e))?;
    }
    ui.event(&json!({"type": "done", "task": spec.id, "output": output, "spec": spec}));
    Ok(text)
}

/// Splits a table, or tasks, into held-out levels. Exit code 1 where training has rows of them.
fn levels(args: &SplitArgs, by: &str, ui: &Ui) -> Result<ExitCode, Failure> {
    for level in Level::ALL {
        for extension in ["csv", "tsv", "jsonl"] {
            let file = args.output.join(format!("{}.{extension}", level.name()));
            if file.exists() && !args.force {
                return Err(exists(&file));
            }
        }
    }
    let (folder, limits) = (&args.output, Limits::default());
    let (done, leaks) = if let Some((category, task)) = by.split_once(',') {
        let names = [category.trim(), task.trim()];
        split::write_levels(
            &table(args)?,
            names,
            args.hold_out,
            args.seed,
            folder,
            &limits,
        )?
    } else {
        let known = Category::ALL.iter().find(|(name, _)| *name == by);
        let Some((_, category)) = known else {
            let names: Vec<&str> = Category::ALL.iter().map(|(name, _)| *name).collect();
            let what = format!("--levels: `{by}` is neither CATEGORY,TASK nor a kind of category");
            return Err(MergeError::plan("bad-flag", what)
                .hint(format!(
                    "two columns of a table; or of tasks: {}",
                    names.join(", ")
                ))
                .into());
        };
        let (catalogue, ids) = super::catalogue(&args.places, &args.tables)?;
        let ids = super::expanded(&catalogue, &ids)?;
        let mut tasks = Vec::new();
        for id in &ids {
            let entry = catalogue.task(id)?;
            let place = super::roots(&args.places).folder(entry)?;
            tasks.push((&entry.spec, Loader::new(&entry.spec, place, limits)));
        }
        level_files::write(
            &tasks,
            *category,
            &args.split,
            args.hold_out,
            args.seed,
            folder,
        )?
    };
    for part in &done {
        ui.say(&format!("{}   {} rows", part.file.display(), part.rows));
        ui.event(&json!({"type": "part", "file": part.file, "rows": part.rows}));
    }
    let mut leaked = 0;
    for leak in &leaks {
        leaked += leak.leaked;
        ui.event(
            &json!({"type": "leak", "level": leak.level, "rows": leak.rows, "leaked": leak.leaked}),
        );
        if leak.leaked > 0 {
            let (n, rows) = (leak.leaked, leak.rows);
            ui.say(&format!(
                "leak: {n} of {rows} rows of {} are in train too",
                leak.level.name()
            ));
        }
    }
    if leaked == 0 {
        ui.say("no row of a held-out level is in train");
    }
    ui.answer(&args.output.display().to_string());
    ui.event(&json!({"type": "done", "output": args.output, "seed": args.seed, "leaked": leaked}));
    Ok(ExitCode::from(u8::from(leaked > 0)))
}

/// The one table.
fn table(args: &SplitArgs) -> Result<PathBuf, Failure> {
    match &args.tables[..] {
        [table] => Ok(table.into()),
        several => {
            let what = format!("there are {} tables; one is split at a time", several.len());
            Err(MergeError::plan("bad-flag", what)
                .hint("several tasks are split with --levels type, skill, domain, ...")
                .into())
        }
    }
}

/// Splits a table into files.
pub fn split(args: &SplitArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    if let Some(columns) = &args.levels {
        return levels(args, columns, ui);
    }
    let mut parts: Vec<(String, f64)> = Vec::new();
    for part in &args.parts {
        let bad = || {
            MergeError::plan("bad-flag", format!("--parts: `{part}` is not NAME=SHARE"))
                .hint("such as --parts train=0.8,test=0.2")
        };
        let (name, share) = part.split_once('=').ok_or_else(bad)?;
        let share: f64 = share.trim().parse().map_err(|_| bad())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if name.is_empty() || !name.chars().all(plain) || parts.iter().any(|p| p.0 == name) {
            return Err(bad().into());
        }
        parts.push((name.to_owned(), share));
    }
    for (name, _) in &parts {
        for extension in ["csv", "tsv", "jsonl"] {
            let file = args.output.join(format!("{name}.{extension}"));
            if file.exists() && !args.force {
                return Err(exists(&file));
            }
        }
    }
    let by = match (&args.stratify, &args.group, &args.time) {
        (Some(column), _, _) => By::Stratified(column.clone()),
        (_, Some(column), _) => By::Grouped(column.clone()),
        (_, _, Some(column)) => By::Timed(column.clone()),
        _ => By::Rows,
    };
    let done = split::write(
        &table(args)?,
        &by,
        &parts,
        args.seed,
        &args.output,
        &Limits::default(),
    )?;
    for part in &done {
        ui.say(&format!("{}   {} rows", part.file.display(), part.rows));
        ui.event(&json!({"type": "part", "file": part.file, "rows": part.rows}));
    }
    ui.answer(&args.output.display().to_string());
    ui.event(&json!({"type": "done", "output": args.output, "seed": args.seed}));
    Ok(ExitCode::SUCCESS)
}
