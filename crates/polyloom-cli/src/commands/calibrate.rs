//! `polyloom calibrate`

use std::collections::BTreeMap;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use polyloom_learn::calibrate::conformal::Level;
use polyloom_learn::calibrate::fit::split_of;
use polyloom_learn::calibrate::{CALIBRATION, Calibration, Method, OfHead, Settings, fit};
use polyloom_learn::tasks::evaluate::{self, Found};
use polyloom_learn::tasks::{Base, Reader, System};
use serde_json::json;

use super::eval::lists;
use super::replace;
use super::tasks::{catalogue, roots};
use crate::args_calibrate::{CalibrateArgs, MethodArg};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &CalibrateArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let place = args.model.display().to_string();
    let mut system = System::find(&place, None, None)?;
    // What is there already is fitted anew, not built upon.
    system.calibration = None;
    let file = system.folder.join(CALIBRATION);
    let bad = |code: &'static str, what: String| MergeError::plan(code, what).at(place.clone());
    let base = Base::open(&system.base, None)?;
    if !matches!(base.reader, Reader::Tables(_)) {
        let error = bad("not-calibrated", "is no model of tables".into());
        return Err(error
            .hint("polyloom train people.csv --targets A,B writes one")
            .into());
    }
    if file.exists() && !args.force && !args.dry_run {
        let error = MergeError::plan("output-exists", "exists already");
        return Err(error
            .at(file.display().to_string())
            .hint("--force fits all of it anew")
            .into());
    }
    let ready = base.ready(&system)?;
    let (catalogue, ids) = catalogue(&args.places, &args.tasks)?;
    let split = split_of(&system.folder)?;
    let settings = settings(args);
    let (mut heads, mut notes) = (BTreeMap::new(), Vec::new());
    let mut known: Vec<String> = Vec::new();
    let lists = lists(std::slice::from_ref(&system), &catalogue, &ids)?;
    let mut work: Vec<(_, Vec<Found>)> = Vec::new();
    for id in lists.iter().flatten() {
        let entry = catalogue.task(id)?;
        let found = evaluate::files(&system, &entry.spec)?.ok_or_else(|| {
            bad("no-head", format!("has no head for `{id}`"))
                .hint("-t TASK names the task that it learned")
        })?;
        evaluate::check(&found, &entry.spec, ready.model())?;
        known.extend(found.iter().map(|f| f.target.clone()));
        work.push((entry, found));
    }
    let named = settings.cuts.iter().filter_map(|(of, _)| of.as_ref());
    if let Some(name) = named.chain(&settings.targets).find(|t| !known.contains(t)) {
        let error = bad("no-target", format!("has no target `{name}`"));
        return Err(error
            .hint(format!("its targets: {}", known.join(", ")))
            .into());
    }
    for (entry, found) in &work {
        let folder = roots(&args.places).folder(entry)?;
        let loader = Loader::new(&entry.spec, folder, Limits::default());
        loader.split(&split)?;
        let (fitted, said) = fit(
            &ready,
            &base.reader,
            &entry.spec,
            &loader,
            (found, &split),
            &settings,
        )?;
        heads.extend(fitted);
        notes.extend(said);
    }
    notes.iter().for_each(|n| ui.note(n));
    if heads.is_empty() {
        return Err(bad(
            "not-calibrated",
            "has no target that something is fitted for".into(),
        )
        .into());
    }
    told(&heads, &split, ui);
    if args.dry_run {
        ui.note(&format!("would write {}", file.display()));
    } else {
        replace(&file, &Calibration::new(&split, heads).text()?)?;
        ui.answer(&file.display().to_string());
    }
    ui.event(
        &json!({"type": "done", "output": file.display().to_string(), "written": !args.dry_run}),
    );
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &CalibrateArgs) -> Settings {
    Settings {
        method: match args.method {
            MethodArg::Temperature => Method::Temperature,
            MethodArg::Isotonic => Method::Isotonic,
            MethodArg::None => Method::None,
        },
        cuts: args.threshold.clone(),
        targets: args.targets.clone(),
    }
}

/// What was fitted, a line for each thing.
fn told(heads: &BTreeMap<String, OfHead>, split: &str, ui: &Ui) {
    for (name, of) in heads {
        let rows = of.rows;
        if let Some(before) = of.before {
            let after = of.after.filter(|_| of.map.is_some());
            let pair = |a: f64, b: Option<f64>| match b {
                Some(b) => format!("{a:.4} -> {b:.4}"),
                None => format!("{a:.4}"),
            };
            ui.say(&format!(
                "{name}: {rows} rows of {split}: log loss {}, calibration error {}",
                pair(before.log_loss, after.map(|a| a.log_loss)),
                pair(before.ece, after.map(|a| a.ece)),
            ));
        }
        if let Some(cut) = &of.threshold {
            let was = match (cut.value, cut.at_half) {
                (Some(now), Some(half)) => format!(": {now:.4}, at one half {half:.4}"),
                _ => String::new(),
            };
            let class = of.classes.last().map_or("", |c| c);
            ui.say(&format!(
                "{name}: `{class}` from {:.4} on ({}){was}",
                cut.cut, cut.rule
            ));
        }
        if let (true, Ok(most)) = (
            of.classes.is_empty(),
            of.errors.quantile(Level::USUAL, name),
        ) {
            ui.say(&format!(
                "{name}: {rows} rows of {split}: intervals of {} are ± {most:.4}",
                Level::USUAL.shown()
            ));
        }
        // Errors of rows are for the file.
        let event = json!({"type": "result", "head": name, "split": split, "rows": rows, "map": of.map, "before": of.before, "after": of.after, "threshold": of.threshold});
        ui.event(&event);
    }
}
