//! `polyloom eval --predictions`

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::output::{Output, key};
use polyloom::evaluate::board::score::{Options, lm_eval, score, score_values};
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;

use super::table::table;
use super::{Entries, done, groups, options, reused, tell};
use crate::args_eval::EvalArgs;
use crate::commands::tasks::{catalogue, expanded, roots};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &EvalArgs, file: &Path, ui: &Ui) -> Result<ExitCode, Failure> {
    let columns = Columns {
        id: args.id.clone(),
        task: args.task_column.clone(),
        prediction: args.prediction.clone(),
        only: args.only.clone(),
    };
    let mut answers = Answers::read(file, columns)?;
    lm_eval::prepare(&mut answers)?;
    let options = options(args)?;
    let stem = file.file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy().into_owned();
    let beside = || file.with_file_name(format!("{stem}.results.json"));
    let path = args.output.clone().unwrap_or_else(beside);
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
    tell(None, &entries, true, ui);
    ui.answer(&table(&entries, args));
    groups.iter().for_each(|line| ui.answer(line));
    ui.answer(&format!("results: {}", path.display()));
    done(&path.display().to_string(), entries.len(), ui);
    Ok(ExitCode::SUCCESS)
}

/// Whether the file brings its own scores: lm-eval samples for which no task is named.
fn own(args: &EvalArgs, answers: &Answers) -> bool {
    args.tasks.is_empty() && lm_eval::is_samples(&answers.columns)
}

fn by_values(
    args: &EvalArgs,
    answers: &Answers,
    options: &Options,
    output: &mut Output,
    ui: &Ui,
) -> Result<Entries, Failure> {
    let task = lm_eval::task_name(&answers.path);
    let key = key(&format!("values {:?}", args.values), answers, options);
    if let Some(entries) = output.unchanged(&key).filter(|_| !args.force) {
        reused(&task, ui);
        return Ok(entries);
    }
    let scored = score_values(answers, args.values.as_deref(), options)?;
    Ok(output.add(&task, &key, &scored)?)
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
