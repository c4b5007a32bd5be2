//! `polyloom predict`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Asked};
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom::tasks::data::{self, Limits};
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::tasks::answers::answers;
use polyloom_learn::tasks::fit::fit;
use polyloom_learn::tasks::system::no_head;
use polyloom_learn::tasks::{Base, Head, System};
use serde_json::json;

use super::run::{self, COLUMNS};
use super::tasks::catalogue;
use crate::args_predict::PredictArgs;
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &PredictArgs, hub: Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let beside = || args.file.with_extension("predictions.csv");
    let output = args.output.clone().unwrap_or_else(beside);
    if output.exists() && !args.force {
        return Err(MergeError::plan("output-exists", "exists already")
            .at(output.display().to_string())
            .hint("--force replaces it")
            .into());
    }
    for model in std::iter::once(&args.model).chain(&args.base) {
        let recipe = recipe::from_models("passthrough", None, std::slice::from_ref(model))?;
        let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
        if hub.bring(needs, recipe.dialect, &Places::default(), ui)? == Brought::Said {
            return Ok(ExitCode::SUCCESS);
        }
    }
    // A head can answer for a task that no catalogue knows.
    let (catalogue, ids) = catalogue(&args.places, std::slice::from_ref(&args.task))?;
    let spec = ids
        .first()
        .and_then(|id| catalogue.task(id).ok())
        .map(|e| &e.spec);
    let asked = spec.map(examples::asked).transpose()?.unwrap_or_default();
    let task = spec.map_or(&*args.task, |s| &*s.id);
    let (ids, inputs) = rows(args, spec)?;
    let system = System::find(&args.model, args.base.as_deref(), args.heads.as_deref())?;
    let most = match args.max_length {
        Some(n) => Some(n),
        None => system.max_length()?,
    };
    let pictures = system.preprocessor();
    let base = Base::prepared(&system.base, most, pictures.as_deref())?;
    let ready = base.ready(&system)?;
    ready.warnings.iter().for_each(|w| ui.warning(w));
    let targets: Vec<&str> = match &asked[..] {
        [] => vec![""],
        asked => asked.iter().map(|a| &*a.target).collect(),
    };
    let (mut heads, mut said) = (Vec::new(), Vec::new());
    for target in &targets {
        let Some((head, file)) = system.head(task, target)? else {
            return Err(no_head(&system, task, target).into());
        };
        let head = fitted(
            head,
            asked.iter().find(|a| a.target == *target),
            &ready,
            &file,
        )?;
        let mut given = Vec::with_capacity(inputs.len());
        for input in &inputs {
            given.push(run::given(&base.reader, input)?);
        }
        let shown = base.reader.show(&given, head.feature)?;
        let found = ready.outputs(&base.reader, &[&head], &shown, args.batch as usize)?;
        said.extend(found);
        heads.push(head);
    }
    let named: Vec<(&str, &Head)> = targets.into_iter().zip(&heads).collect();
    answers(&system.folder, "", &ids, &named, &said).write(&output)?;
    ui.answer(&output.display().to_string());
    ui.event(&json!({"type": "done", "output": output.display().to_string(), "rows": ids.len()}));
    Ok(ExitCode::SUCCESS)
}

/// The head in the words of the task, where the task is known.
fn fitted(
    head: Head,
    asked: Option<&Asked>,
    ready: &polyloom_learn::tasks::system::Ready<'_>,
    file: &std::path::Path,
) -> Result<Head, Failure> {
    let Some(asked) = asked else { return Ok(head) };
    let (head, _) = fit(
        head,
        asked,
        ready.model(),
        &file.display().to_string(),
        false,
    )?;
    Ok(head)
}

type Rows = (Vec<String>, Vec<run::Input>);

/// Ids and inputs of the file.
fn rows(args: &PredictArgs, spec: Option<&TaskSpec>) -> Result<Rows, Failure> {
    let place = args.file.display().to_string();
    let bad = |what: String| MergeError::plan("bad-input", what).at(place.clone());
    let kind = data::kind_of(&args.file).ok_or_else(|| {
        bad("is no file of rows that is known by its name".into())
            .hint(".csv, .tsv, .jsonl, .json or .parquet")
    })?;
    let (mut ids, mut inputs) = (Vec::new(), Vec::new());
    data::read(&args.file, kind, &Limits::default(), &mut |table| {
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        let lacks = |name: &str| {
            bad(format!("has no column `{name}`"))
                .hint(format!("its columns: {}", names.join(", ")))
        };
        let asked = |given: &Option<String>| match given {
            Some(name) if !names.contains(&&**name) => Err(lacks(name)),
            given => Ok(given.clone()),
        };
        let there = |name: &str| names.contains(&name).then(|| name.to_owned());
        let own = |of: fn(&TaskSpec) -> &String| spec.and_then(|s| there(of(s)));
        let column = asked(&args.column)?
            .or_else(|| own(|s| &s.fields.input))
            .or_else(|| COLUMNS.iter().find_map(|c| there(c)));
        let Some(column) = column else {
            let error = bad("has no column of inputs of a usual name".into());
            return Err(error.hint(format!("--column NAME; its columns: {}", names.join(", "))));
        };
        let second = match (asked(&args.column2)?, spec.map(|s| &*s.fields.input2)) {
            (Some(given), _) => Some(given),
            (None, None | Some("")) => None,
            (None, Some(own)) => Some(there(own).ok_or_else(|| lacks(own))?),
        };
        let id = asked(&args.id)?
            .or_else(|| own(|s| &s.fields.id))
            .or_else(|| there("id"));
        for row in 0..table.rows() {
            let text = |name: &str| {
                let column = table.column(name);
                column.map_or_else(String::new, |c| c.cell(row).to_text())
            };
            ids.push(id.as_deref().map_or_else(|| ids.len().to_string(), text));
            inputs.push((text(&column), second.as_deref().map(text)));
        }
        Ok(())
    })?;
    if inputs.is_empty() {
        return Err(bad("holds no rows".into()).into());
    }
    Ok((ids, inputs))
}
