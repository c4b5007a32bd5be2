//! `polyloom compress`

mod slim;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use polyloom::MergeError;
use polyloom::compress::{self, Accounting, RestoreOptions};
use polyloom::plan::execute::RunOptions;
use polyloom::plan::reference::Places;
use polyloom::plan::{self, Plan};
use polyloom_core::writer::{FolderOptions, human};
use polyloom_learn::compress::goal;
use polyloom_learn::compress::make::{Maker, Writing};
use polyloom_learn::compress::prune::{Kind, Saliency};
use polyloom_learn::compress::pruning::{self, Settings};
use polyloom_learn::compress::session::{Done, Told};
use polyloom_learn::compress::{self as learned, Compress, Method, front};
use serde_json::json;

use super::merge::{bring, check_memory, chunk_from_environment, done, hash_kind, recipes};
use super::train::given;
use crate::args::MergeArgs;
use crate::args_compress::{CompressArgs, CompressCommand, GoalArgs, PruneArgs, RestoreArgs};
use crate::hub::{Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: CompressArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    match args.command {
        Some(CompressCommand::Restore(args)) => restore(args, ui),
        Some(CompressCommand::Prune(args)) => prune(args, ui),
        Some(CompressCommand::Goal(args)) => goal(&args, ui),
        Some(CompressCommand::Slim(args)) => slim::run(args, ui),
        None => bundle(args, hub, ui),
    }
}

fn bundle(whole: CompressArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let settings = settings(&whole)?;
    let CompressArgs {
        merge: mut args,
        places: roots,
        ..
    } = whole;
    args.set.retain(|s| !s.starts_with("compress."));
    let recipe_file = args.inputs.iter().any(|i| i.ends_with(".toml"));
    let mut asked = match &args.method {
        Some(word) => Method::named(word),
        None => settings.as_ref().and_then(|s| s.method),
    };
    // Deltas of every task are read through a merge that has no parameters of its own.
    if asked.is_some_and(|m| !m.is_masks()) {
        args.method = (!recipe_file).then(|| "task_arithmetic".into());
    } else if args.method.is_none() && !recipe_file && args.base.is_some() {
        args.method = Some(asked.map_or("tall", Method::word).into());
    }
    let mut recipes = recipes(&mut args)?;
    let (Some(recipe), true) = (recipes.pop(), recipes.is_empty()) else {
        return Err(MergeError::plan(
            "arguments",
            "a bundle is made from one recipe, this file holds several",
        )
        .into());
    };
    let compares = settings
        .as_ref()
        .is_some_and(|s| s.keep.is_some() || (s.budget.is_some() && asked.is_none()));
    if asked.is_none() && !compares {
        asked = Method::named(&recipe.method);
    }
    let places = Places {
        recipe_folder: None,
        cache: args.cache.clone(),
    };
    let one = std::slice::from_ref(&recipe);
    if bring(one, hub(args.out.dry_run), &places, ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    let measured = settings.is_some() || asked.is_some_and(|m| !m.is_masks());
    if measured && !args.out.dry_run {
        let settings = settings.unwrap_or_default();
        let tasks: Option<Vec<String>> = tasks(&recipe);
        let writing = Writing {
            force: args.out.force,
            no_sync: args.out.no_sync,
            hash: hash_kind(args.out.hash),
            stop: None,
        };
        let target = target(&args)?;
        let rows = compares || learned::session::needs_rows(&settings, asked);
        let given = match tasks {
            Some(tasks) if rows => given(&tasks, &roots)?,
            _ => Vec::new(),
        };
        let settings = match asked {
            Some(method) if compares => Compress {
                methods: vec![method],
                ..settings
            },
            _ => settings,
        };
        let maker = Maker {
            recipe: &recipe,
            settings: &settings,
            places: &places,
            writing,
        };
        return measure(
            &maker,
            asked.filter(|_| !compares),
            &given,
            &target,
            compares,
            ui,
        );
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
    let target = target(&args)?;
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

fn target(args: &MergeArgs) -> Result<PathBuf, MergeError> {
    let none = || MergeError::plan("arguments", "no output folder").hint("add -o DIR");
    args.out.output.clone().ok_or_else(none)
}

/// `[compress]` of the recipe with what was typed; `None` where there is neither.
fn settings(args: &CompressArgs) -> Result<Option<Compress>, Failure> {
    let pairs = args.merge.set.iter().filter(|s| s.starts_with("compress."));
    let mut set: Vec<(String, String)> = pairs
        .filter_map(|s| s.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    if let Some(budget) = &args.budget {
        set.push((
            "compress.budget".into(),
            toml::Value::from(&**budget).to_string(),
        ));
    }
    if let Some(keep) = args.keep {
        set.push(("compress.keep".into(), format!("{keep:?}")));
    }
    if args.sure {
        set.push(("compress.sure".into(), "true".into()));
    }
    Ok(
        match args.merge.inputs.iter().find(|i| i.ends_with(".toml")) {
            Some(file) => Compress::open(file.as_ref(), &set)?,
            None => Compress::read("", "flags", &set)?,
        },
    )
}

/// The tasks of the experts, where every one has one.
fn tasks(recipe: &polyloom::recipe::Recipe) -> Option<Vec<String>> {
    let sources = recipe
        .modules
        .iter()
        .flat_map(|m| &m.slices)
        .flat_map(|s| &s.sources);
    sources
        .map(|s| recipe.models[s.model].task.clone())
        .collect()
}

/// Makes a bundle by what models score.
fn measure(
    maker: &Maker<'_>,
    method: Option<Method>,
    given: &[polyloom_learn::train::Given],
    target: &Path,
    compares: bool,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let started = Instant::now();
    let stop = super::stop_flag()?;
    let mut hear = |told: &Told<'_>| {
        tell(told, ui);
        !stop.load(Ordering::SeqCst)
    };
    let made = match (compares, method) {
        (true, _) => learned::compare(maker, given, target, &mut hear)?,
        (false, Some(method)) => learned::compress(maker, method, given, target, &mut hear)?,
        (false, None) => {
            let what = format!("`{}` is no way to store deltas", maker.recipe.method);
            return Err(MergeError::plan("no-method", what)
                .hint("--method tall, emr, magnitude_mask, lowrank, bits or graft; --keep 99% or --budget 2MB compares them")
                .into());
        }
    };
    finished(&made, maker.settings, ui);
    done(&made.report, started.elapsed().as_secs_f64(), ui);
    Ok(ExitCode::SUCCESS)
}

fn tell(told: &Told<'_>, ui: &Ui) {
    let percent = |x: f64| format!("{:.2}", 100.0 * x);
    match told {
        Told::Begun { rows, experts } => {
            let list: Vec<String> = rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
            let mean = experts.iter().map(|e| e.value).sum::<f64>() / experts.len().max(1) as f64;
            ui.say(&format!(
                "rows that decide: {}; experts: mean {mean:.4}",
                list.join(", ")
            ));
        }
        Told::Threshold(lambda, scores) => {
            let mean = scores.iter().map(|s| s.value).sum::<f64>() / scores.len().max(1) as f64;
            ui.say(&format!("mask_lambda {lambda}: mean {mean:.4}"));
            let values: Vec<f64> = scores.iter().map(|s| s.value).collect();
            ui.event(&json!({"type": "threshold", "mask_lambda": lambda, "values": values}));
        }
        Told::Graft(task, pass) => {
            let best = if pass.best { ", best" } else { "" };
            ui.say(&format!(
                "{task}: pass {}: {:.4}{best}",
                pass.pass, pass.score.value
            ));
            ui.event(&json!({"type": "pass", "task": task, "pass": pass.pass, "value": pass.score.value, "loss": pass.score.loss, "best": pass.best}));
        }
        Told::Candidate(c) => {
            ui.say(&format!(
                "{} {}: {}, keeps {} %",
                c.method.word(),
                c.how,
                human(c.bytes),
                percent(c.kept.share)
            ));
            ui.event(&json!({"type": "candidate", "candidate": c}));
        }
    }
}

fn finished(made: &Done, settings: &Compress, ui: &Ui) {
    if let Some((all, chosen)) = &made.front {
        ui.answer(&front::table(all, Some(*chosen)));
        ui.answer(&format!(
            "the plot is front.svg, all numbers are in front.json; split `{}`",
            settings.split
        ));
    }
    for (task, lambda) in made.lambdas.iter().flatten() {
        ui.say(&format!("  {task}: mask_lambda {lambda}"));
    }
    if let Some(grafts) = &made.grafts {
        let shown = |e: &Option<f64>| e.map_or_else(|| "-".into(), |e| format!("{e:.3}"));
        for (task, share, [base, expert, graft]) in &grafts.tasks {
            ui.say(&format!(
                "  {task}: {:.3} % of the weights; calibration error: base {}, expert {}, graft {}",
                100.0 * share,
                shown(base),
                shown(expert),
                shown(graft)
            ));
        }
        ui.say(
            "  share of a task's entries that another grafts too (rows, columns in this order):",
        );
        for row in &grafts.overlap {
            let cells: Vec<String> = row.iter().map(|x| format!("{x:.2}")).collect();
            ui.say(&format!("    {}", cells.join(" ")));
        }
    }
    if let Some(kept) = &made.kept {
        let interval = kept.interval.map_or_else(String::new, |(a, b)| {
            format!(" ({:.2} to {:.2})", 100.0 * a, 100.0 * b)
        });
        ui.say(&format!(
            "  keeps {:.2} %{interval} of the experts' scores on `{}`",
            100.0 * kept.share,
            settings.split
        ));
    }
    ui.say(&account(made.accounting));
    ui.event(&json!({
        "type": "result", "accounting": made.accounting, "lambdas": made.lambdas, "grafts": made.grafts, "kept": made.kept,
    }));
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

fn goal(args: &GoalArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let options = FolderOptions {
        force: args.force,
        no_sync: args.no_sync,
        ..FolderOptions::default()
    };
    let made = goal::take(&args.model, &args.goal, &args.output, options)?;
    let (before, after) = made.parameters;
    ui.say(&format!("  {}: {before} -> {after} parameters", made.goal));
    ui.event(&json!({"type": "done", "output": made.folder, "goal": made.goal, "parameters": [before, after]}));
    ui.answer(&made.folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}

fn prune(args: PruneArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let stop = super::stop_flag()?;
    let given = given(&args.tasks, &args.places)?;
    let settings = Settings {
        model: args.model,
        heads: args.heads,
        preprocessor: args.preprocessor,
        split: args.split,
        limit: args.limit,
        max_length: args.max_length,
        bound: args.bound,
        target: args.target,
        saliency: match args.saliency {
            crate::args_compress::Saliency::L1 => Saliency::L1,
            crate::args_compress::Saliency::Taylor => Saliency::Taylor,
        },
    };
    let options = FolderOptions {
        force: args.force,
        no_sync: args.no_sync,
        ..FolderOptions::default()
    };
    let bar = ui.running();
    let made = pruning::prune(&settings, &given, &args.output, options, &mut |passes| {
        if let Some(bar) = &bar {
            bar.say(&format!("pass {passes} over all rows"));
        }
        !stop.load(Ordering::SeqCst)
    });
    if let Some(bar) = bar {
        bar.end();
    }
    let made = made?;
    let d = &made.decided;
    let layers = made.parts.iter().map(|p| p.0 + 1).max().unwrap_or(0);
    for layer in 0..layers {
        let of = |kind: Kind| {
            let found = made.parts.iter().find(|p| p.0 == layer && p.1 == kind);
            found.map_or_else(String::new, |p| format!("{} of {}", p.2, p.3))
        };
        ui.say(&format!(
            "  layer {layer}: heads {}, channels {}",
            of(Kind::Heads),
            of(Kind::Channels)
        ));
    }
    for (task, (before, after)) in made.tasks.iter().zip(d.before.iter().zip(&d.after)) {
        let rise = 100.0 * (after - before) / before;
        ui.say(&format!(
            "  {task}: loss {before:.4} -> {after:.4} ({rise:+.2} %)"
        ));
    }
    let (before, after) = made.parameters;
    ui.say(&format!(
        "  {before} -> {after} parameters; {:.1} % of the work of heads and channels saved",
        100.0 * d.saved
    ));
    ui.event(&json!({"type": "done", "output": made.folder, "decided": d, "parts": made.parts, "parameters": [before, after]}));
    ui.answer(&made.folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}
