//! `polyloom tasks import` and `export`, and a row as it is asked.

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::catalogue::{Entry, Roots};
use polyloom::tasks::data::Limits;
use polyloom::tasks::fewshot::Shots;
use polyloom::tasks::import::{self, Format};
use polyloom::tasks::load::Loader;
use polyloom::tasks::prompt::{Record, Renderer};
use polyloom::tasks::spec::SourceKind;
use serde_json::{Value, json};

use super::columns;
use crate::args_tasks::{ExportArgs, ImportArgs};
use crate::ui::{Failure, Ui};

/// Turns foreign files into specs.
pub fn import(args: &ImportArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let format = args.format.as_deref().map(|word| {
        Format::ALL
            .into_iter()
            .find(|f| f.name() == word)
            .ok_or_else(|| {
                let names: Vec<&str> = Format::ALL.iter().map(|f| f.name()).collect();
                let near = polyloom::suggest::nearest(word, &names, 1);
                let error =
                    MergeError::plan("bad-flag", format!("--format: unknown format `{word}`"));
                match near.first() {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint(format!("one of: {}", names.join(", "))),
                }
            })
    });
    let found = import::import(&args.path, format.transpose()?, &args.data)?;
    let mut lines = vec![["task", "type", "rows", "format"].map(String::from)];
    for made in &found.tasks {
        let spec = &made.spec;
        let rows = match spec.source.kind {
            SourceKind::Inline => spec.source.rows.len().to_string(),
            _ => "its files".into(),
        };
        lines.push([
            spec.id.clone(),
            spec.type_words(),
            rows,
            made.format.name().into(),
        ]);
        ui.event(&json!({
            "type": "task", "id": spec.id, "kind": spec.type_words(), "format": made.format.name(),
            "file": made.origin, "rows": spec.source.rows.len(),
        }));
    }
    for (group, file) in &found.groups {
        lines.push([
            group.id.clone(),
            "group".into(),
            String::new(),
            Format::LmEval.name().into(),
        ]);
        ui.event(&json!({"type": "group", "id": group.id, "tasks": group.tasks, "file": file}));
    }
    if lines.len() > 1 {
        ui.say(&columns(&lines));
    }
    for (file, note) in &found.notes {
        ui.note(&format!("{}: {note}", file.display()));
    }
    for refused in &found.refused {
        let file = refused.file.display();
        ui.event(&json!({"type": "refused", "file": refused.file, "why": refused.why}));
        ui.say(&format!("refused: {file}: {}", refused.why));
    }
    let mut written = Vec::new();
    if let Some(folder) = args.output.as_ref().filter(|_| !args.dry_run) {
        written = import::write(&found, folder, args.force)?;
        if !written.is_empty() {
            ui.answer(&folder.display().to_string());
        }
    }
    ui.event(&json!({
        "type": "done", "tasks": found.tasks.len(), "groups": found.groups.len(),
        "refused": found.refused.len(), "written": written.len(), "output": args.output,
    }));
    Ok(ExitCode::from(u8::from(!found.refused.is_empty())))
}

/// Writes a task as lm-evaluation-harness YAML.
pub fn export(args: &ExportArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (catalogue, ids) = super::catalogue(&args.places, std::slice::from_ref(&args.task))?;
    let id = ids.first().map_or(args.task.as_str(), String::as_str);
    let entry = catalogue.task(id)?;
    let spec = &entry.spec;
    let inline = spec.source.kind == SourceKind::Inline;
    let rows = args.output.as_ref().map(|o| o.with_extension("jsonl"));
    let name = |p: &std::path::PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
    let rows_name = rows.as_ref().and_then(name);
    if inline && rows_name.is_none() {
        return Err(
            MergeError::plan("bad-flag", "the rows are inside the spec and need a file")
                .hint("-o FILE.yaml writes them into FILE.jsonl")
                .into(),
        );
    }
    let folder = super::roots(&args.places).folder(entry);
    let folder = match folder {
        Ok(folder) => std::path::absolute(&folder)
            .unwrap_or(folder)
            .display()
            .to_string(),
        Err(_) => spec.source.root.clone(),
    };
    let text = import::export::lm_eval(spec, &folder, rows_name.as_deref().unwrap_or_default())?;
    let Some(output) = &args.output else {
        ui.answer(text.trim_end());
        ui.event(&json!({"type": "done", "task": spec.id, "yaml": text}));
        return Ok(ExitCode::SUCCESS);
    };
    let mut files = vec![(output.clone(), text)];
    if let (true, Some(rows)) = (inline, rows) {
        let lines: String = spec
            .source
            .rows
            .iter()
            .map(|r| Value::Object(r.clone()).to_string() + "\n")
            .collect();
        files.push((rows, lines));
    }
    for (file, _) in &files {
        if file.exists() && !args.force {
            return Err(super::make::exists(file));
        }
    }
    for (file, text) in &files {
        std::fs::write(file, text).map_err(|e| polyloom_core::Error::io(file, "write", e))?;
    }
    ui.answer(&output.display().to_string());
    ui.event(&json!({"type": "done", "task": spec.id, "output": output}));
    Ok(ExitCode::SUCCESS)
}

/// Prints a row as a model is asked, with what counts as right.
pub fn example(entry: &Entry, roots: &Roots, number: usize, ui: &Ui) -> Result<(), Failure> {
    let spec = &entry.spec;
    let Some(prompt) = spec.prompts.first() else {
        let error = MergeError::plan("no-prompt", format!("task `{}` has no prompt", spec.id));
        return Err(error.hint("add `[[prompts]]` to its spec").into());
    };
    let loader = Loader::new(spec, roots.folder(entry)?, Limits::default());
    let last = spec
        .splits
        .named
        .keys()
        .next_back()
        .cloned()
        .unwrap_or_default();
    let rows = loader.records(&last)?;
    let row = number
        .checked_sub(1)
        .and_then(|i| rows.get(i))
        .ok_or_else(|| {
            let what = format!(
                "split `{last}` has {} rows, row {number} is none of them",
                rows.len()
            );
            MergeError::plan("no-row", what)
        })?;
    let source = spec.splits.fewshot.as_ref().unwrap_or(&last);
    let pool = if spec.fewshot.n == 0 {
        Vec::new()
    } else {
        loader.records(source)?
    };
    let shots = Shots::new(&spec.fewshot, &pool)?;
    let shots: Vec<Record> = shots.of(row).into_iter().cloned().collect();
    let renderer = Renderer::new();
    let context = renderer.context(prompt, &shots, row)?;
    let question = renderer.question(prompt, row)?;
    ui.event(&json!({
        "type": "example", "task": spec.id, "split": last, "row": number, "context": context,
        "continuations": question.continuations(&prompt.target_delimiter), "gold": question.gold,
        "targets": question.targets,
    }));
    let mut text = context;
    for (i, choice) in question
        .continuations(&prompt.target_delimiter)
        .iter()
        .enumerate()
    {
        let mark = if question.gold == Some(i) { "*" } else { " " };
        text += &format!("\n {mark} {choice:?}");
    }
    if question.choices.is_empty() && !question.targets.is_empty() {
        text += &format!("\n * {}", question.targets.join(" | "));
    }
    ui.answer(&text);
    Ok(())
}
