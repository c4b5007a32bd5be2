//! `polyloom merge`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use polyloom::MergeError;
use polyloom::merge;
use polyloom::plan::execute::{HashKind, Report, RunOptions, execute};
use polyloom::plan::reference::Places;
use polyloom::plan::{self, Plan};
use polyloom::recipe::{self, Heads, MissingPolicy, Recipe};
use polyloom_core::DType;
use polyloom_core::writer::human;
use serde_json::json;

use crate::args::{Hash, HeadsArg, MemoryArgs, MergeArgs, OutputArgs};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(mut args: MergeArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    if args.list {
        ui.answer(&polyloom::reference::list());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = &args.explain {
        let method = merge::find(name).ok_or_else(|| unknown_method(name))?;
        ui.answer(&polyloom::reference::explain(method.spec()));
        return Ok(ExitCode::SUCCESS);
    }
    let habit = args.habit.given();
    if !habit.is_empty() {
        ui.note(&format!("no effect here: {}", habit.join(" ")));
    }
    let recipes = recipes(&mut args)?;
    let places = Places {
        recipe_folder: None,
        cache: args.cache.clone(),
    };
    if bring(&recipes, hub(args.out.dry_run), &places, ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    let target = args.out.output.clone();
    let many = recipes.len() > 1;
    let mut last = ExitCode::SUCCESS;
    for recipe in recipes {
        // Stages of a multi-document file become folders inside the output, the last one's being the answer.
        let target = match (&target, many, &recipe.name) {
            (Some(target), true, Some(name)) => Some(target.join(name)),
            (target, _, _) => target.clone(),
        };
        if many && target.as_ref().is_some_and(|t| t.exists()) && !args.out.force {
            ui.note(&format!(
                "{}: finished before, skipped",
                target.unwrap_or_default().display()
            ));
            continue;
        }
        let mut recipe = recipe;
        if many && let Some(folder) = &args.out.output {
            recipe::stage_references(&mut recipe, folder);
        }
        last = one(recipe, target, &args, &places, ui)?;
    }
    Ok(last)
}

fn unknown_method(name: &str) -> MergeError {
    let names: Vec<&str> = merge::methods().map(|m| m.spec().name).collect();
    let near = polyloom::suggest::nearest(name, &names, 3);
    if ["adamerging", "atlas"].contains(&name) {
        let what = format!("`{name}` learns its coefficients on rows of tasks");
        return MergeError::plan("unknown-method", what).hint(format!(
            "polyloom tune --base BASE EXPERT... --method {name} -t TASK,... -o OUT"
        ));
    }
    let error = MergeError::plan("unknown-method", format!("unknown merge method `{name}`"));
    if near.is_empty() {
        error.hint("`polyloom merge --list` shows all methods")
    } else {
        error.hint(format!(
            "did you mean {}?",
            near.iter()
                .map(|n| format!("`{n}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ))
    }
}

/// The recipes of the command line: a file, or flags.
pub(super) fn recipes(args: &mut MergeArgs) -> Result<Vec<Recipe>, Failure> {
    let is_recipe = |text: &str| {
        let ending = Path::new(text)
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default()
            .to_ascii_lowercase();
        matches!(ending.as_str(), "toml" | "yml" | "yaml")
            || (ending == "json" && !text.ends_with(".index.json"))
    };
    let file = args
        .inputs
        .first()
        .filter(|i| is_recipe(i))
        .map(PathBuf::from);
    let mut recipes = match file {
        Some(file) => {
            args.inputs.remove(0);
            // The peer's habit: the second word is the output folder.
            if args.out.output.is_none() && args.inputs.len() == 1 {
                args.out.output = args.inputs.pop().map(PathBuf::from);
            }
            if let Some(surplus) = args.inputs.first() {
                return Err(MergeError::plan("arguments", format!("`{surplus}`: a recipe names its experts itself"))
                    .hint("put experts into the recipe, or leave the recipe out and use --base, --method and --each")
                    .into());
            }
            recipe::read(&file)?
        }
        None => vec![from_flags(args)?],
    };
    for recipe in &mut recipes {
        apply_flags(recipe, args)?;
    }
    Ok(recipes)
}

fn from_flags(args: &MergeArgs) -> Result<Recipe, Failure> {
    if args.inputs.is_empty() {
        return Err(MergeError::plan("arguments", "nothing to merge")
            .hint("give a recipe (polyloom merge loom.toml -o out) or experts (polyloom merge --base B A1 A2 --method ties -o out)")
            .into());
    }
    let method = args.method.clone().ok_or_else(|| {
        MergeError::plan("arguments", "--method is missing")
            .hint("`polyloom merge --list` shows all methods")
    })?;
    if merge::find(&method).is_none() {
        return Err(unknown_method(&method).into());
    }
    Ok(recipe::from_models(
        &method,
        args.base.as_deref(),
        &args.inputs,
    )?)
}

fn dtype(word: &str) -> Result<DType, MergeError> {
    DType::from_word(word)
        .filter(|d| d.is_float())
        .ok_or_else(|| {
            MergeError::plan("bad-dtype", format!("`{word}` is not a type to write"))
                .hint("one of f32, bf16, f16, f64, fp8_e4m3, fp8_e5m2")
        })
}

fn apply_flags(recipe: &mut Recipe, args: &MergeArgs) -> Result<(), Failure> {
    if let (Some(method), Some(_)) = (&args.method, &recipe.file) {
        if merge::find(method).is_none() {
            return Err(unknown_method(method).into());
        }
        recipe.set_method(method)?;
    }
    apply_values(recipe, args, true)?;
    for text in &args.set {
        let (key, value) = pair(text, "--set")?;
        recipe.set(key, value)?;
    }
    for text in &args.shared {
        let (key, value) = pair(text, "--shared")?;
        recipe.set(&format!("merge.shared.{key}"), value)?;
    }
    for text in &args.each {
        let (key, value) = pair(text, "--each")?;
        recipe.set(&format!("merge.each.{key}"), value)?;
    }
    for text in &args.post {
        recipe.add_post(text)?;
    }
    apply_values(recipe, args, false)?;
    if let Some(heads) = args.heads {
        recipe.heads = if heads == HeadsArg::Separate {
            Heads::Separate
        } else {
            Heads::Merge
        };
    }
    if args.intersection {
        recipe.missing = MissingPolicy::Intersection;
    }
    if args.union {
        recipe.missing = MissingPolicy::Union;
    }
    recipe.truncate_embeddings |= args.unsafe_truncate_embeddings;
    recipe.allow_mixed |= args.allow_crimes;
    Ok(())
}

/// Fetches the models of recipes, where that is allowed.
pub(super) fn bring(
    recipes: &[Recipe],
    hub: Hub,
    places: &Places,
    ui: &Ui,
) -> Result<Brought, Failure> {
    let mut all = Brought::Here;
    for recipe in recipes {
        let folder = recipe.file.as_deref().and_then(Path::parent);
        let places = Places {
            recipe_folder: folder.map(Path::to_owned),
            ..places.clone()
        };
        let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
        if hub.bring(needs, recipe.dialect, &places, ui)? == Brought::Said {
            all = Brought::Said;
        }
    }
    Ok(all)
}

/// Values that a flag or a variable may give: the variables' before `--set`, the flags' after it.
fn apply_values(recipe: &mut Recipe, args: &MergeArgs, environment: bool) -> Result<(), Failure> {
    let now = |id: &str| args.from_environment.contains(&id) == environment;
    if let Some(word) = args.dtype.as_ref().filter(|_| now("dtype")) {
        recipe.dtype = Some(dtype(word)?);
    }
    if let Some(word) = args.out_dtype.as_ref().filter(|_| now("out_dtype")) {
        recipe.out_dtype = Some(dtype(word)?);
    }
    if let Some(seed) = args.seed.filter(|_| now("seed")) {
        recipe.seed = seed;
    }
    Ok(())
}

fn pair<'a>(text: &'a str, flag: &str) -> Result<(&'a str, &'a str), MergeError> {
    text.split_once('=')
        .ok_or_else(|| MergeError::plan("arguments", format!("{flag} {text}: expected NAME=VALUE")))
}

fn one(
    recipe: Recipe,
    target: Option<PathBuf>,
    args: &MergeArgs,
    places: &Places,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    let plan = plan::build(recipe, places)?;
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
        ui.event(&plan_event(&plan, &args.out));
        ui.answer(&plan_text(&plan, &args.out));
        return Ok(ExitCode::SUCCESS);
    }
    let target = target.ok_or_else(|| {
        MergeError::plan("arguments", "no output folder")
            .hint("add -o DIR, or --dry-run to see the plan only")
    })?;
    ui.event(&plan_event(&plan, &args.out));
    ui.detail(&plan_text(&plan, &args.out));
    write(&plan, target, &args.out, &args.memory, "merging", ui)
}

/// Runs a plan and reports it; shared with `convert`.
pub fn write(
    plan: &Plan,
    target: PathBuf,
    out: &OutputArgs,
    memory: &MemoryArgs,
    verb: &str,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    check_memory(plan, verb, memory.memory)?;
    let started = Instant::now();
    let stop = super::stop_flag()?;
    let progress = ui.progress(verb, plan.bytes_written());
    let hear = |done: u64, what: &str| progress.at(done, what);
    let options = RunOptions {
        target,
        shard_size: out.shard_size,
        force: out.force,
        no_sync: out.no_sync,
        resume: out.resume,
        allow_nonfinite: out.allow_nonfinite,
        chunk: chunk_from_environment(),
        hash: hash_kind(out.hash),
        stop: Some(&stop),
        progress: Some(&hear),
    };
    let result = execute(plan, &options);
    progress.end();
    let report = result?;
    done(&report, started.elapsed().as_secs_f64(), ui);
    Ok(ExitCode::SUCCESS)
}

/// Refuses a run whose estimate is above what is allowed or free, and says which thread count fits.
pub(super) fn check_memory(
    plan: &Plan,
    verb: &str,
    allowed: Option<u64>,
) -> Result<(), MergeError> {
    let Some(limit) = allowed.or_else(polyloom_core::memory::available) else {
        return Ok(());
    };
    let threads = rayon::current_num_threads();
    let need = plan.peak_bytes(threads);
    if need <= limit {
        return Ok(());
    }
    let error = MergeError::plan(
        "memory",
        format!(
            "{verb} needs about {} of memory with {threads} thread{}; {} are {}",
            human(need),
            if threads == 1 { "" } else { "s" },
            human(limit),
            if allowed.is_some() {
                "allowed (--memory)"
            } else {
                "free"
            },
        ),
    );
    let fitting = (1..threads).rev().find(|t| plan.peak_bytes(*t) <= limit);
    Err(match fitting {
        Some(t) => error.hint(format!(
            "--threads {t} needs about {}",
            human(plan.peak_bytes(t))
        )),
        None => error.hint(format!(
            "one thread needs about {}; --memory SIZE allows a run that is known to fit",
            human(plan.peak_bytes(1))
        )),
    })
}

/// Elements per chunk, for tests that show that the result does not depend on it.
pub(super) fn chunk_from_environment() -> usize {
    std::env::var("POLYLOOM_CHUNK")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

pub(super) fn hash_kind(hash: Hash) -> HashKind {
    match hash {
        Hash::Fast => HashKind::Fast,
        Hash::Full => HashKind::Full,
        Hash::None => HashKind::None,
    }
}

pub(super) fn done(report: &Report, seconds: f64, ui: &Ui) {
    for (tensor, count) in &report.overflow {
        ui.warning(&format!("tensor `{tensor}`: {count} values are too large for the output type and became infinite; choose --out-dtype bf16 or f32"));
    }
    for note in &report.notes {
        ui.note(note);
    }
    ui.event(&json!({
        "type": "done",
        "output": report.output,
        "seconds": seconds,
        "synced": report.synced,
        "tensors": report.tensors,
        "bytes": report.bytes,
    }));
    ui.say(&format!(
        "wrote {} tensors, {} in {:.1} s ({}/s{})",
        report.tensors,
        human(report.bytes),
        seconds,
        human((report.bytes as f64 / seconds.max(1e-3)) as u64),
        if report.synced {
            ""
        } else {
            ", not synced to disk"
        },
    ));
    ui.answer(&report.output.display().to_string());
}

fn plan_event(plan: &Plan, out: &OutputArgs) -> serde_json::Value {
    json!({
        "type": "plan",
        "method": plan.recipe.method,
        "tensors": plan.outputs.len(),
        "passes": plan.passes(),
        "bytes_read": plan.bytes_read(),
        "bytes_written": plan.bytes_written(),
        "peak_bytes": plan.peak_bytes(rayon::current_num_threads()),
        "durable": !out.no_sync,
    })
}

fn plan_text(plan: &Plan, out: &OutputArgs) -> String {
    let experts = plan.models.len() - usize::from(plan.recipe.base.is_some());
    let passes = plan.passes();
    let threads = rayon::current_num_threads();
    let mut text = format!(
        "plan: {}, {experts} expert{}{}, {} tensors, {passes} pass{}\n",
        plan.recipe.method,
        if experts == 1 { "" } else { "s" },
        if plan.recipe.base.is_some() {
            " + base"
        } else {
            ""
        },
        plan.outputs.len(),
        if passes == 1 { "" } else { "es" },
    );
    text += &format!(
        "  reads {}, writes {}, peak about {} with {threads} thread{},\n  {}, hash {}\n",
        human(plan.bytes_read()),
        human(plan.bytes_written()),
        human(plan.peak_bytes(threads)),
        if threads == 1 { "" } else { "s" },
        if out.no_sync {
            "not synced (--no-sync)"
        } else {
            "durable (--no-sync off)"
        },
        format!("{:?}", out.hash).to_lowercase(),
    );
    if !plan.heads.is_empty() {
        let names: Vec<&str> = plan.heads.iter().map(|h| h.task.as_str()).collect();
        text += &format!(
            "  heads kept apart: {} ({})\n",
            names.len(),
            names.join(", ")
        );
    }
    let resolved = polyloom::plan::provenance::resolved(plan);
    let mut values: Vec<String> = Vec::new();
    for (key, value) in resolved["shared"].as_object().into_iter().flatten() {
        values.push(format!("{key} {}", plan.origin_of(key, value)));
    }
    if let Some((_, first)) = resolved["each"].as_object().and_then(|o| o.iter().next()) {
        for (key, value) in first.as_object().into_iter().flatten() {
            values.push(format!("{key} {}", plan.origin_of(key, value)));
        }
    }
    if !values.is_empty() {
        text += &format!("  resolved: {}\n", values.join(", "));
    }
    text
}
