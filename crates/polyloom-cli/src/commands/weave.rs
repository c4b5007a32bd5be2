//! `polyloom tune` with `[weave]`: woven models.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use polyloom::MergeError;
use polyloom_core::writer::{FolderOptions, human};
use polyloom_learn::weave::make::{Finished, Told, weave};
use polyloom_learn::weave::{Method, Recipe, recipe};
use serde_json::json;

use super::train::given;
use super::tune::{bring, file};
use crate::args_tune::TuneArgs;
use crate::hub::{Brought, Hub};
use crate::ui::{Failure, Running, Ui};

/// Whether a woven model is asked for: by the method, or by a recipe with `[weave]`.
pub fn is_asked(args: &TuneArgs) -> bool {
    match (args.method, file(args)) {
        (Some(method), _) => method.is_woven(),
        (None, Some(file)) => std::fs::read_to_string(file).is_ok_and(|t| recipe::is_woven(&t)),
        (None, None) => false,
    }
}

/// Runs the command.
pub fn run(args: &TuneArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let recipe = asked(args)?;
    let tasks = given(&recipe.tasks(), &args.places)?;
    if bring(&recipe.base, &recipe.experts, &hub(args.dry_run), ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        planned(&recipe, args, ui);
        return Ok(ExitCode::SUCCESS);
    }
    let stop = super::stop_flag()?;
    let options = FolderOptions {
        force: args.force,
        no_sync: args.no_sync,
        ..FolderOptions::default()
    };
    let bar = ui.running();
    let done = weave(&recipe, &tasks, &args.output, options, &mut |told| {
        tell(told, bar.as_ref(), ui);
        !stop.load(Ordering::SeqCst)
    });
    if let Some(bar) = bar {
        bar.end();
    }
    finished(&done?, &recipe, ui);
    ui.answer(&args.output.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// The recipe with the flags put in.
fn asked(args: &TuneArgs) -> Result<Recipe, Failure> {
    if args.per.is_some() {
        let error = MergeError::plan(
            "bad-flag",
            "--per splits coefficients; a woven model has none",
        );
        return Err(error
            .hint("weave.rank and weave.density say how large parts are")
            .into());
    }
    if args.resume {
        let error = MergeError::plan(
            "bad-flag",
            "--resume goes on with coefficients or trials; a woven model is made in one go",
        );
        return Err(error.hint("leave it out").into());
    }
    let mut set = args.set.clone();
    let mut put = |key: &str, value: Option<String>| {
        set.extend(value.map(|value| (key.to_owned(), value)));
    };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    put("base.path", args.base.as_deref().map(quoted));
    let heads = args.heads.as_ref().map(|p| p.display().to_string());
    put("weave.heads", heads.as_deref().map(quoted));
    put("weave.method", args.method.map(|m| quoted(m.word())));
    put("weave.split", args.split.as_deref().map(quoted));
    put("weave.limit", args.limit.map(|x| x.to_string()));
    put("weave.steps", args.steps.map(|x| x.to_string()));
    put("weave.batch", args.batch.map(|x| x.to_string()));
    put("weave.rate", args.rate.map(|x| format!("{x:?}")));
    put("weave.max_length", args.max_length.map(|x| x.to_string()));
    put("seed", args.seed.map(|x| x.to_string()));
    if let Some(file) = file(args) {
        if !args.tasks.is_empty() {
            let error = MergeError::plan(
                "bad-flag",
                "--task: a woven model has the tasks of its experts",
            );
            return Err(error
                .hint("task = \"...\" of every [[expert]] names them")
                .into());
        }
        return Ok(Recipe::open(file, &set)?);
    }
    if args.tasks.len() != args.inputs.len() {
        let what = format!(
            "{} experts and {} tasks; each expert has one",
            args.inputs.len(),
            args.tasks.len()
        );
        return Err(MergeError::plan("bad-flag", what)
            .hint("-t A,B names the experts' tasks in their order")
            .into());
    }
    let table = |(path, task): (&String, &String)| {
        let mut expert = toml::Table::new();
        expert.insert("path".into(), path.clone().into());
        expert.insert("task".into(), task.clone().into());
        toml::Value::Table(expert)
    };
    let mut whole = toml::Table::new();
    let experts = args.inputs.iter().zip(&args.tasks).map(table).collect();
    whole.insert("expert".into(), toml::Value::Array(experts));
    Ok(Recipe::read(&whole.to_string(), "flags", &set)?)
}

/// What would be done.
fn planned(recipe: &Recipe, args: &TuneArgs, ui: &Ui) {
    let w = &recipe.weave;
    let parts = match (w.method, w.rank) {
        (Method::Wemoe, _) => "whole feed-forward parts".to_owned(),
        (_, Some(rank)) => format!("parts of rank {rank}"),
        (Method::Smile, None) if w.density.is_none() && w.mask_rate.is_none() => {
            "parts of rank 128".to_owned()
        }
        _ => format!("{:.3} of every part", recipe.density()),
    };
    ui.answer(&format!(
        "plan: {} of {} experts over {}, {parts}\n  router learns from split `{}`: {}\n  seed {}\n  writes {}",
        w.method.word(),
        recipe.experts.len(),
        recipe.base,
        w.router.split,
        recipe.tasks().join(", "),
        recipe.seed,
        args.output.display(),
    ));
    ui.event(&json!({"type": "plan", "recipe": recipe}));
}

fn tell(told: &Told, bar: Option<&Running>, ui: &Ui) {
    match told {
        Told::Begun {
            experts,
            rows,
            warnings,
        } => {
            warnings.iter().for_each(|w| ui.warning(w));
            let list: Vec<String> = rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
            ui.say(&format!(
                "{experts} experts; rows of the router: {}",
                list.join(", ")
            ));
        }
        Told::Parts(done, of) => {
            if let Some(bar) = bar {
                bar.say(&format!("parts of tensor {done}/{of}"));
            }
        }
        Told::Mixers((step, loss), of) => {
            if let Some(bar) = bar {
                bar.say(&format!("step {step}/{of}  entropy {loss:.4}"));
            }
            ui.event(&json!({"type": "progress", "of": "mixers", "step": step, "steps": of, "loss": loss}));
        }
        Told::Router => {
            if let Some(bar) = bar {
                bar.say("router");
            }
        }
    }
}

fn finished(done: &Finished, recipe: &Recipe, ui: &Ui) {
    let sizes = &done.meta.sizes;
    let ranks = done.meta.experts.iter().filter_map(|e| e.rank).max();
    let rank = ranks.map_or(String::new(), |r| format!(", rank {r} at most"));
    ui.say(&format!(
        "{} beside the base ({} shared, {} parts{rank}, {} routing, {} heads); whole copies take {}",
        human(sizes.added()),
        human(sizes.shared),
        human(sizes.parts),
        human(sizes.routing),
        human(sizes.heads),
        human(sizes.copies),
    ));
    if let Some(fitted) = &done.router {
        let share = fitted
            .held
            .accuracy()
            .map_or("none".to_owned(), |a| format!("{a:.3}"));
        ui.say(&format!(
            "router {} on `{}`: {share} of {} held-out rows go to their expert",
            fitted.router.method().word(),
            fitted.router.tap,
            fitted.held.rows(),
        ));
    }
    let w = &recipe.weave;
    if w.router.split == "test" || (w.method == Method::Wemoe && w.split == "test") {
        ui.note("the inputs of the test rows were seen: scores on them are no scores on new rows");
    }
    ui.event(&json!({
        "type": "done", "output": done.folder, "sizes": sizes,
        "router_accuracy": done.router.as_ref().and_then(|f| f.held.accuracy()),
    }));
}
