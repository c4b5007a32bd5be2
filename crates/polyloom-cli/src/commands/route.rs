//! `polyloom route`

mod eval;
mod eval_saved;
mod fit;
mod query;
mod saved;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom_learn::route::{Router, Sense};
use serde_json::json;

use crate::args_route::{RouteArgs, RouteVerb, Writing};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &RouteArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    match &args.verb {
        RouteVerb::Fit(args) => fit::run(args, &hub(args.dry_run), ui),
        RouteVerb::Query(args) => query::run(args, &hub(false), ui),
        RouteVerb::Eval(args) => eval::run(args, &hub(false), ui),
        RouteVerb::Add(args) => fit::add(args, &hub(false), ui),
        RouteVerb::Remove(args) => fit::remove(args, ui),
        RouteVerb::Profile(args) => saved::profile(args, ui),
        RouteVerb::Recruit(args) => saved::recruit(args, ui),
        RouteVerb::Threshold(args) => saved::threshold(args, ui),
    }
}

/// Fetches a model where that is allowed; says whether that is all there is to do.
fn fetched(model: &str, hub: &Hub, ui: &Ui) -> Result<bool, Failure> {
    let recipe = recipe::from_models("passthrough", None, &[model.to_owned()])?;
    let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
    Ok(hub.bring(needs, recipe.dialect, &Places::default(), ui)? == Brought::Said)
}

/// The model behind a router, in memory.
fn sense(
    router: &Router,
    model: Option<&str>,
    batch: usize,
    hub: &Hub,
    ui: &Ui,
) -> Result<Sense, Failure> {
    if let Some(name) = model.or(router.reads.model.as_deref()) {
        fetched(name, hub, ui)?;
    }
    let mut found = Sense::for_router(router, model)?;
    found.batch = batch;
    found.warnings.iter().for_each(|w| ui.warning(w));
    Ok(found)
}

/// Splits `NAME=VALUE`.
fn named<'a>(given: &'a str, flag: &str) -> Result<(&'a str, &'a str), Failure> {
    given.split_once('=').ok_or_else(|| {
        let what = format!("`{given}` is no NAME=VALUE");
        MergeError::plan("bad-flag", what)
            .at(flag.to_owned())
            .into()
    })
}

/// A number behind `NAME=`.
fn number(text: &str, flag: &str) -> Result<f64, Failure> {
    let found = text.trim().parse().ok().filter(|x: &f64| x.is_finite());
    found.ok_or_else(|| {
        let what = format!("`{text}` is no number");
        MergeError::plan("bad-flag", what)
            .at(flag.to_owned())
            .into()
    })
}

/// Writes a router and says so.
fn written(router: &Router, file: &Path, writing: &Writing, ui: &Ui) -> Result<ExitCode, Failure> {
    router.save(file, writing.force, !writing.no_sync)?;
    ui.answer(&file.display().to_string());
    let names: Vec<&str> = router.experts.iter().map(|e| &*e.name).collect();
    ui.event(&json!({
        "type": "done", "output": file, "method": router.method().word(), "experts": names,
        "fitted": router.fitted,
    }));
    Ok(ExitCode::SUCCESS)
}

/// The path itself, for what is saved in a file: relative paths mean something in one folder only.
fn whole(path: &str) -> String {
    let found = PathBuf::from(path).canonicalize();
    found.map_or_else(|_| path.to_owned(), |p| p.display().to_string())
}

/// A share in hundredths.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |s| format!("{:.1} %", 100.0 * s))
}
