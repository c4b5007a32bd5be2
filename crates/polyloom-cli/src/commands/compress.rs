//! `polyloom compress`

use std::process::ExitCode;
use std::time::Instant;

use polyloom::MergeError;
use polyloom::compress::{self, Accounting, RestoreOptions};
use polyloom::plan::execute::RunOptions;
use polyloom::plan::reference::Places;
use polyloom::plan::{self, Plan};
use polyloom_core::writer::human;
use serde_json::json;

use super::merge::{bring, check_memory, chunk_from_environment, done, hash_kind, recipes};
use crate::args::{CompressArgs, CompressCommand, MergeArgs, RestoreArgs};
use crate::hub::{Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: CompressArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    match args.command {
        Some(CompressCommand::Restore(args)) => restore(args, ui),
        None => bundle(args.merge, hub, ui),
    }
}

fn bundle(mut args: MergeArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let from_flags = args.method.is_none() && !args.inputs.iter().any(|i| i.ends_with(".toml"));
    if from_flags && args.base.is_some() {
        args.method = Some("tall".into());
    }
    let mut recipes = recipes(&mut args)?;
    let (Some(recipe), true) = (recipes.pop(), recipes.is_empty()) else {
        return Err(MergeError::plan(
            "arguments",
            "a bundle is made from one recipe, this file holds several",
        )
        .into());
    };
    let places = Places {
        recipe_folder: None,
        cache: args.cache.clone(),
    };
    let one = std::slice::from_ref(&recipe);
    if bring(one, hub(args.out.dry_run), &places, ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan::build(recipe, &places)?;
    if args.strict {
        plan.check_strict()?;
    }
    for note in &plan.notes {
        if note.warning {
            ui.warning(&note.text);
        } else {
            ui.note(&note.text);
        }
    }
    if args.out.dry_run {
        ui.answer(&plan_text(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    let target = args
        .out
        .output
        .clone()
        .ok_or_else(|| MergeError::plan("arguments", "no output folder").hint("add -o DIR"))?;
    check_memory(&plan, "compressing", args.memory.memory)?;
    let started = Instant::now();
    let stop = super::stop_flag()?;
    let progress = ui.progress("compressing", compress::accounting(&plan)?.stored());
    let hear = |done: u64, what: &str| progress.at(done, what);
    let options = RunOptions {
        target,
        shard_size: u64::MAX,
        force: args.out.force,
        no_sync: args.out.no_sync,
        resume: false,
        allow_nonfinite: args.out.allow_nonfinite,
        chunk: chunk_from_environment(),
        hash: hash_kind(args.out.hash),
        stop: Some(&stop),
        progress: Some(&hear),
    };
    let result = compress::write(&plan, &options, &[]);
    progress.end();
    let (report, accounting) = result?;
    ui.event(&json!({"type": "result", "accounting": accounting}));
    ui.say(&account(accounting));
    done(&report, started.elapsed().as_secs_f64(), ui);
    Ok(ExitCode::SUCCESS)
}

fn plan_text(plan: &Plan) -> Result<String, Failure> {
    Ok(format!(
        "plan: compress by {}, {} tensors\n{}",
        plan.recipe.method,
        plan.outputs.len(),
        account(compress::accounting(plan)?)
    ))
}

/// Storage, stated twice: the base on neither side, and on both; and what coding made of masks.
fn account(a: Accounting) -> String {
    let mut parts = Vec::new();
    for (what, bytes) in [
        ("shared vector", a.shared),
        ("masks", a.masks),
        ("deltas", a.deltas),
    ] {
        if bytes > 0 {
            parts.push(format!("{what} {}", human(bytes)));
        }
    }
    let mut text = format!(
        "  {}; experts {}, base {}\n  {:.1} % of the experts' size (deltas only), {:.1} % with the base on both sides",
        parts.join(", "),
        human(a.experts),
        human(a.base),
        100.0 * a.deltas_only(),
        100.0 * a.with_base(),
    );
    let c = a.coding;
    if c.raw > 0 {
        text += &format!(
            "\n  bits of the masks: {} of {} after coding ({:.1} %); entropy of each on its own: {:.1} %",
            human(c.stored),
            human(c.raw),
            100.0 * c.stored as f64 / c.raw as f64,
            100.0 * c.entropy / c.raw as f64,
        );
    }
    text
}

fn restore(args: RestoreArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let stop = super::stop_flag()?;
    let progress = ui.progress("restoring", 0);
    let hear = |done: u64, what: &str| progress.at(done, what);
    let result = compress::restore(&RestoreOptions {
        bundle: args.bundle,
        task: args.task,
        base: args.base,
        target: args.output,
        shard_size: args.shard_size,
        force: args.force,
        no_sync: args.no_sync,
        stop: Some(&stop),
        progress: Some(&hear),
    });
    progress.end();
    done(&result?, started.elapsed().as_secs_f64(), ui);
    Ok(ExitCode::SUCCESS)
}
