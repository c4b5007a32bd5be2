//! `polyloom diag`: which columns a model of tables rests on, what experts are used for, which tasks help which, how sharp the
//! minimum is.

mod cocktail;
mod experts;
mod routing;
mod sharpness;

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::models::open::Trunk;
use polyloom_learn::tasks::content::Hashes;
use polyloom_learn::tasks::evaluate::{self, Found, Run, Shelf};
use polyloom_learn::tasks::importance::{Importance, Settings};
use polyloom_learn::tasks::system::no_head;
use polyloom_learn::tasks::{Base, System};
use serde_json::json;

use super::eval::lists;
use super::tasks::{catalogue, roots};
use crate::args_diag::{Diag, DiagArgs, ImportanceArgs, OnArgs};
use crate::ui::{Failure, Ui};

/// Characters of a column's name that are shown.
const NAME: usize = 48;

/// Runs the command.
pub fn run(args: &DiagArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    match &args.what {
        Diag::Importance(args) => importance(args, ui),
        Diag::Experts(args) => experts::run(args, ui),
        Diag::Cocktail(args) => cocktail::run(args, ui),
        Diag::Sharpness(args) => sharpness::run(args, ui),
    }
}

/// What a diagnosis is made of.
struct On<'a> {
    run: Run<'a>,
    spec: &'a TaskSpec,
    loader: Loader<'a>,
    /// The hash of the task with its data.
    hash: String,
    found: Vec<Found>,
    shelf: Shelf,
}

/// Opens a model and the one task that it is looked at with.
fn on<T>(
    args: &OnArgs,
    ui: &Ui,
    look: impl FnOnce(On<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let system = System::find(&args.model, None, None)?;
    let given: Vec<String> = args.task.iter().cloned().collect();
    let (catalogue, ids) = catalogue(&args.places, &given)?;
    let ids = lists(std::slice::from_ref(&system), &catalogue, &ids)?.concat();
    let [id] = &ids[..] else {
        let what = format!("{} tasks: {}", ids.len(), ids.join(", "));
        return Err(MergeError::plan("bad-flag", what)
            .hint("a model is looked at with one task at a time: -t TASK")
            .into());
    };
    let entry = catalogue.task(id)?;
    let spec = &entry.spec;
    let loader = Loader::new(spec, roots(&args.places).folder(entry)?, Limits::default());
    loader.split(&args.split)?;
    let hash = task_hash(spec, &loader.hashes()?);
    let found = evaluate::files(&system, spec)?;
    let base = Base::open(&system.base, None)?;
    // Experts of a decoder that speaks choose tokens, whatever comes behind them.
    let speaks = matches!(base.opened.model.trunk, Trunk::Decoder(_));
    let found = match found {
        None if speaks && base.opened.model.experts().is_some() => Vec::new(),
        None => {
            let first = spec.targets.first().map_or("", |t| &*t.name);
            return Err(no_head(&system, &spec.id, first).into());
        }
        Some(found) => found,
    };
    evaluate::check(&found, spec, &base.opened.model)?;
    let ready = base.ready(&system)?;
    ready.warnings.iter().for_each(|w| ui.warning(w));
    let of_model = system.hash(&mut Hashes::new())?;
    look(On {
        run: Run {
            ready: &ready,
            reader: &base.reader,
            model: (&system.folder, &of_model),
            batch: args.batch as usize,
        },
        spec,
        loader,
        hash,
        found,
        shelf: Shelf::new(&args.split, args.limit),
    })
}

fn importance(args: &ImportanceArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let settings = Settings {
        repeats: args.repeats as usize,
        seed: args.seed,
    };
    let mut progress = None;
    let mut watch = |done: usize, all: usize, column: &str| {
        let line = progress.get_or_insert_with(|| ui.steps("permuting", all as u64));
        line.at(done as u64, column);
    };
    let made = on(&args.on, ui, |mut on| {
        let of = (&on.found[..], &mut on.shelf);
        let made = on
            .run
            .importance(on.spec, &on.loader, &on.hash, of, settings, &mut watch)?;
        Ok(made)
    });
    if let Some(progress) = progress {
        progress.end();
    }
    let (made, notes) = made?;
    notes.iter().for_each(|n| ui.note(n));
    for one in &made {
        tell(one, args, ui);
    }
    ui.note("columns that say the same share their importance: while one is permuted, the others still say it");
    ui.event(
        &json!({"type": "done", "targets": made.len(), "repeats": args.repeats, "seed": args.seed}),
    );
    Ok(ExitCode::SUCCESS)
}

/// A target with its columns, the most important first.
fn tell((whole, list): &Importance, args: &ImportanceArgs, ui: &Ui) {
    for one in list {
        ui.event(&json!({
            "type": "importance",
            "task": whole.task,
            "split": args.on.split,
            "metric": whole.metric,
            "higher_is_better": whole.higher_is_better,
            "value": whole.value,
            "n": whole.n,
            "column": one.column,
            "drop": one.mean(),
            "deviation": one.deviation(),
            "drops": one.drops,
        }));
    }
    let way = match whole.higher_is_better {
        true => "drops",
        false => "rises",
    };
    ui.answer(&format!(
        "{}   {} {:.4}, {} rows of split {}; it {way} by",
        whole.task, whole.metric, whole.value, whole.n, args.on.split
    ));
    let names: Vec<String> = list.iter().map(|w| short(&w.column)).collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    for (name, one) in names.iter().zip(list) {
        let spread = one
            .deviation()
            .map_or_else(String::new, |d| format!(" ± {}", number(d)));
        ui.answer(&format!(
            "  {name:<width$}  {:>9}{spread}",
            number(one.mean())
        ));
    }
}

/// Four decimals, of large and small numbers four digits.
fn number(x: f64) -> String {
    match x.abs() {
        a if a != 0.0 && !(1e-3..1e4).contains(&a) => format!("{x:.2e}"),
        _ => format!("{x:.4}"),
    }
}

fn short(name: &str) -> String {
    match name.chars().count() > NAME {
        true => name.chars().take(NAME - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}
