//! `polyloom predict`

mod sessions;
mod table;

use std::borrow::Cow;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Asked, Input};
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom::tasks::data::save::{can_save, save};
use polyloom::tasks::data::table::Cell;
use polyloom::tasks::data::{self, Limits};
use polyloom::tasks::spec::{SourceKind, TaskSpec};
use polyloom_learn::calibrate::told;
use polyloom_learn::tasks::answers;
use polyloom_learn::tasks::fit::fit;
use polyloom_learn::tasks::forward::Output;
use polyloom_learn::tasks::head::Feature;
use polyloom_learn::tasks::rows::Shown;
use polyloom_learn::tasks::system::{Ready, no_head};
use polyloom_learn::tasks::{Base, Head, Reader, System};
use serde_json::json;

use super::run::{self, COLUMNS};
use super::tasks::catalogue;
use crate::args_predict::PredictArgs;
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Inputs of a batch: texts and pictures, whose values fill a cache soon.
const INPUTS: u32 = 32;

/// Inputs of a batch: rows of a table, of which a pass takes a few kilobytes each.
const ROWS: u32 = 1024;

/// Runs the command.
pub fn run(args: &PredictArgs, hub: Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let beside = || args.file.with_extension("predictions.csv");
    let output = args.output.clone().unwrap_or_else(beside);
    can_save(&output)?;
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
    let system = System::find(&args.model, args.base.as_deref(), args.heads.as_deref())?;
    let most = match args.max_length {
        Some(n) => Some(n),
        None => system.max_length()?,
    };
    let pictures = system.preprocessor();
    let base = Base::prepared(&system.base, most, pictures.as_deref())?;
    let ready = base.ready(&system)?;
    ready.warnings.iter().for_each(|w| ui.warning(w));
    let table = matches!(base.reader, Reader::Tables(_));
    let tasks = match &args.task {
        Some(task) => vec![task.clone()],
        None if table => system.tasks()?,
        None => {
            let error = MergeError::plan("no-task", "whose head is to answer?");
            let hint = format!("--task TASK; it has {}", system.tasks()?.join(", "));
            return Err(error.hint(hint).into());
        }
    };
    // A head can answer for a task that no catalogue knows.
    let (catalogue, known) = catalogue(&args.places, args.task.as_slice())?;
    let spec = known
        .first()
        .and_then(|id| catalogue.task(id).ok())
        .map(|e| &e.spec);
    let asked = spec.map(examples::asked).transpose()?.unwrap_or_default();
    // The task and target of every head.
    let wanted: Vec<(&str, &str)> = match (spec, &asked[..]) {
        (Some(spec), [_, ..]) => asked.iter().map(|a| (&*spec.id, &*a.target)).collect(),
        (Some(spec), []) => vec![(&*spec.id, "")],
        (None, _) => tasks.iter().map(|t| (&**t, "")).collect(),
    };
    let mut heads = Vec::new();
    for (task, target) in &wanted {
        let Some((head, file)) = system.head(task, target)? else {
            return Err(no_head(&system, task, target).into());
        };
        let head = fitted(
            head,
            asked.iter().find(|a| a.target == *target),
            &ready,
            &file,
        )?;
        heads.push(head);
    }
    let speaker = Speaker {
        ready: &ready,
        reader: &base.reader,
        heads: &heads,
        batch: args.batch.unwrap_or(if table { ROWS } else { INPUTS }) as usize,
    };
    // Of sessions: one of them, which says what items are called.
    let mut named_by = Vec::new();
    let Said { ids, outputs } = match &base.reader {
        Reader::Tables(preparation) if preparation.sessions().is_some() => {
            let (ids, shown) = sessions::shown(args, preparation, &base.reader)?;
            let outputs = speaker.said(&|_| Ok(Cow::Borrowed(&shown)))?;
            named_by = shown.into_iter().take(1).collect();
            Said { ids, outputs }
        }
        Reader::Tables(preparation) => table::said(args, preparation, spec, &speaker)?,
        reader => {
            let (ids, inputs) = rows(args, spec, reader)?;
            let task = heads.first().map(|h| h.task.clone());
            let show = |feature| Ok(reader.show_of(task.as_deref(), &inputs, feature)?.into());
            Said {
                ids,
                outputs: speaker.said(&show)?,
            }
        }
    };
    let heads: Vec<Cow<'_, Head>> = heads.iter().map(|h| h.naming(&named_by)).collect();
    let several = wanted.len() > 1;
    let named = wanted
        .iter()
        .zip(&heads)
        .map(|((_, target), head)| match *target {
            // Without a spec the head's own name tells the answers apart.
            "" => (head.target(several), &**head),
            target => (target, &**head),
        });
    let named: Vec<(&str, &Head)> = named.collect();
    heads
        .iter()
        .filter_map(|h| told(h))
        .for_each(|n| ui.note(&n));
    let mut made = answers::table(&ids, &named, &outputs);
    if let Some(level) = args.interval {
        made = answers::with_intervals(made, &named, &outputs, level)?;
    }
    save(&made, &output)?;
    ui.answer(&output.display().to_string());
    ui.event(&json!({"type": "done", "output": output.display().to_string(), "rows": ids.len()}));
    Ok(ExitCode::SUCCESS)
}

/// Ids of rows, and what every head says of each.
struct Said {
    ids: Vec<String>,
    outputs: Vec<Vec<Output>>,
}

impl Said {
    /// Of no rows, by so many heads.
    fn of(heads: usize) -> Self {
        Self {
            ids: Vec::new(),
            outputs: vec![Vec::new(); heads],
        }
    }
}

/// The model with the heads that are asked.
struct Speaker<'a> {
    ready: &'a Ready<'a>,
    reader: &'a Reader,
    heads: &'a [Head],
    /// Inputs of a pass.
    batch: usize,
}

/// Inputs as a model takes them for a feature.
type Show<'s> = &'s dyn Fn(Feature) -> polyloom_learn::Result<Cow<'s, [Shown]>>;

impl Speaker<'_> {
    /// What every head says of the inputs. Heads that see the same feature share the pass of the trunk.
    fn said(&self, show: Show<'_>) -> Result<Vec<Vec<Output>>, Failure> {
        let mut said = vec![Vec::new(); self.heads.len()];
        let mut left: Vec<usize> = (0..self.heads.len()).collect();
        while let Some(first) = left.first() {
            let feature = self.heads[*first].feature;
            let (now, later): (Vec<usize>, Vec<usize>) = left
                .into_iter()
                .partition(|i| self.heads[*i].feature == feature);
            let shown = show(feature)?;
            let asked: Vec<&Head> = now.iter().map(|i| &self.heads[*i]).collect();
            let found = self
                .ready
                .outputs(self.reader, &asked, &shown, self.batch)?;
            for (i, found) in now.into_iter().zip(found) {
                said[i] = found;
            }
            left = later;
        }
        Ok(said)
    }
}

/// The head in the words of the task, where the task is known.
fn fitted(
    head: Head,
    asked: Option<&Asked>,
    ready: &Ready<'_>,
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

type Rows = (Vec<String>, Vec<Input>);

/// What a cell holds.
enum Told {
    /// A text or a pair of texts; of models of pictures the name of a file.
    Words(run::Input),
    /// Raw pixels.
    Pixels(Input),
}

/// The format of the file.
fn kind(args: &PredictArgs) -> Result<SourceKind, Failure> {
    let error = || {
        MergeError::plan("bad-input", "is no file of rows that is known by its name")
            .at(args.file.display().to_string())
            .hint(".csv, .tsv, .jsonl, .json or .parquet")
    };
    Ok(data::kind_of(&args.file).ok_or_else(error)?)
}

/// The error about a column that the file lacks.
fn lacks(args: &PredictArgs, column: &str, names: &[&str]) -> MergeError {
    MergeError::plan("bad-input", format!("has no column `{column}`"))
        .at(args.file.display().to_string())
        .hint(format!("its columns: {}", names.join(", ")))
}

/// The error about a file without rows.
fn none(args: &PredictArgs) -> Failure {
    MergeError::plan("bad-input", "holds no rows")
        .at(args.file.display().to_string())
        .into()
}

/// Ids and inputs of the file.
fn rows(args: &PredictArgs, spec: Option<&TaskSpec>, reader: &Reader) -> Result<Rows, Failure> {
    let place = args.file.display().to_string();
    let bad = |what: String| MergeError::plan("bad-input", what).at(place.clone());
    let kind = kind(args)?;
    let pictures = matches!(reader, Reader::Pictures(_) | Reader::Sensors(_));
    let size = spec.and_then(|s| s.source.size).or(match reader {
        Reader::Pictures(of) => Some([of.size, of.size, of.channels].map(|n| n as u32)),
        _ => None,
    });
    let (mut ids, mut inputs) = (Vec::new(), Vec::new());
    data::read(&args.file, kind, &Limits::default(), &mut |table| {
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        let lacks = |name: &str| lacks(args, name, &names);
        let asked = |given: &Option<String>| match given {
            Some(name) if !names.contains(&&**name) => Err(lacks(name)),
            given => Ok(given.clone()),
        };
        let there = |name: &str| names.contains(&name).then(|| name.to_owned());
        let own = |of: fn(&TaskSpec) -> &String| spec.and_then(|s| there(of(s)));
        let column = asked(&args.column)?
            .or_else(|| own(|s| &s.fields.input))
            .or_else(|| there("image").filter(|_| pictures))
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
            let cell = table.column(&column).map(|c| c.cell(row));
            inputs.push(match cell {
                Some(Cell::Bytes(_)) if pictures => {
                    let at = |e: MergeError| e.at(format!("{place}, row {}", ids.len()));
                    Told::Pixels(examples::pixels_in(&table, row, &column, size).map_err(at)?)
                }
                _ => Told::Words((text(&column), second.as_deref().map(text))),
            });
        }
        Ok(())
    })?;
    let mut given = Vec::with_capacity(inputs.len());
    for input in inputs {
        given.push(match input {
            Told::Words(words) => run::given(reader, &words)?,
            Told::Pixels(input) => input,
        });
    }
    match given.is_empty() {
        true => Err(none(args)),
        false => Ok((ids, given)),
    }
}
