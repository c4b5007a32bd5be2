//! `polyloom train`

mod folds;
mod line;
pub(super) mod table;
mod twins;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;
use polyloom::tasks::predicate::Predicate;
use polyloom_learn::models::forest::ARCHITECTURES;
use polyloom_learn::tasks::Opened;
use polyloom_learn::tasks::language::Learn;
use polyloom_learn::train::mixing::Mixing;
use polyloom_learn::train::recipe::{Method as Kind, Objective};
use polyloom_learn::train::run::Evaluation;
use polyloom_learn::train::session::{Finished, Options, work_folder};
use polyloom_learn::train::{Given, Recipe, train};
use serde_json::json;

use self::line::Line;
use super::tasks::{catalogue, expanded, roots};
use crate::args_train::{Chain, Goals, Language, Method, TrainArgs};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &TrainArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let (mut recipe, said) = asked(args, ui)?;
    let given = given(&recipe.train.tasks, &args.places);
    if args.dry_run {
        let _ = std::fs::remove_file(table::draft());
    }
    let given = given?;
    // Trees have no steps.
    let trees = args
        .model
        .as_deref()
        .is_some_and(|m| ARCHITECTURES.contains(&m));
    if let Some(said) = said.filter(|_| !trees) {
        let rows = rows(&recipe, &given)?;
        table::sized(&mut recipe, &said, rows);
    }
    if args.twins {
        twins::check(args, &recipe)?;
    }
    if let Some(base) = &recipe.base {
        let merge = recipe::from_models("passthrough", None, std::slice::from_ref(base))?;
        let needs = merge.models.iter().flat_map(|m| hub::needs(&m.reference));
        let places = Places::default();
        if hub(args.dry_run).bring(needs, merge.dialect, &places, ui)? == Brought::Said {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let opened = Opened::begin(&recipe, &given)?;
    opened.warnings.iter().for_each(|w| ui.warning(w));
    if args.dry_run {
        planned(&recipe, &given, &opened, args, ui);
        if recipe.train.folds.is_some() {
            folds::planned(args, &recipe, &given, ui)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let stop = super::stop_flag()?;
    let options = Options {
        resume: args.resume,
        force: args.force,
        no_sync: args.no_sync,
    };
    if recipe.train.folds.is_some() {
        // What cannot work is said before anything runs.
        folds::check(args, options, &recipe, &given)?;
    }
    let mut line = Line::new(ui, recipe.train.each);
    let done = train(
        &recipe,
        &opened,
        &given,
        &args.output,
        options,
        &mut |folder, told| {
            line.tell(folder, told);
            !stop.load(Ordering::SeqCst)
        },
    );
    line.end();
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            if stop.load(Ordering::SeqCst) {
                ui.note("stopped after a step; the same command with --resume goes on");
            }
            return Err(error.into());
        }
    };
    for one in &done {
        finished(one, ui);
    }
    if recipe.train.folds.is_some() {
        folds::run(args, options, &recipe, &given, ui)?;
    }
    if args.twins {
        twins::run(args, &recipe, ui)?;
    }
    ui.answer(&args.output.display().to_string());
    let tasks: usize = done.iter().map(|d| d.tasks.len()).sum();
    ui.event(&json!({"type": "done", "output": args.output, "tasks": tasks, "folders": done.iter().map(|d| &d.folder).collect::<Vec<_>>()}));
    Ok(ExitCode::SUCCESS)
}

/// Training rows of all tasks, those where the `sample` of a target holds.
pub(super) fn rows(recipe: &Recipe, given: &[Given]) -> Result<usize, Failure> {
    let mut rows = 0;
    for task in given {
        // None of a target of every row; one that cannot be read is told of where the rows are.
        let samples = task.spec.targets.iter();
        let samples: Option<Vec<Predicate>> =
            samples.map(|t| Predicate::parse(&t.sample).ok()).collect();
        let samples = samples.filter(|s| !s.is_empty());
        task.loader().rows(&recipe.train.split, &mut |table| {
            rows += match &samples {
                None => table.rows(),
                Some(samples) => (0..table.rows())
                    .filter(|row| samples.iter().any(|s| s.holds(&table, *row)))
                    .count(),
            };
            Ok(())
        })?;
    }
    Ok(rows)
}

/// What was said with flags.
type Said = Vec<(String, String)>;

/// The recipe with the flags put in; these too where the rest follows from a table.
fn asked(args: &TrainArgs, ui: &Ui) -> Result<(Recipe, Option<Said>), Failure> {
    let mut set = args.set.clone();
    let named = table::Named {
        file: args.recipe.as_deref(),
        tasks: &args.tasks,
        columns: &args.columns,
        seed: args.seed,
        dry_run: args.dry_run,
    };
    let table = table::given(&named)?;
    let mut put = |key: &str, value: Option<String>| {
        set.extend(value.map(|value| (key.to_owned(), value)));
    };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    put("base.path", args.base.as_deref().map(quoted));
    if !args.tasks.is_empty() {
        let list: Vec<toml::Value> = args.tasks.iter().map(|t| t.clone().into()).collect();
        put("train.tasks", Some(toml::Value::Array(list).to_string()));
    }
    put("train.each", args.each.then(|| "true".to_owned()));
    let method = args.method.map(|m| match m {
        Method::Full => "full",
        Method::Head => "head",
        Method::Lora => "lora",
    });
    put("train.method", method.map(quoted));
    let language = args.language.map(|l| match l {
        Language::Texts => "texts",
        Language::Answers => "answers",
    });
    put("train.language.learn", language.map(quoted));
    put("train.epochs", args.epochs.map(|x| format!("{x:?}")));
    put("train.steps", args.steps.map(|x| x.to_string()));
    put("train.batch", args.batch.map(|x| x.to_string()));
    put("train.rate", args.rate.map(|x| format!("{x:?}")));
    put("train.lora.rank", args.rank.map(|x| x.to_string()));
    put("train.balance.method", args.balancer.as_deref().map(quoted));
    let chain = args.chain.map(|c| match c {
        Chain::EntireSpace => "entire_space",
        Chain::Ordered => "ordered",
    });
    put(
        "train.class_weight",
        args.class_weight
            .as_deref()
            .map(table::class_weight)
            .transpose()?,
    );
    put("train.new.prepare.embed", args.embed.as_deref().map(quoted));
    put("train.chain.loss", chain.map(quoted));
    put("train.limit", args.limit.map(|x| x.to_string()));
    put("train.folds", args.folds.map(|x| x.to_string()));
    put("train.repeats", args.repeats.map(|x| x.to_string()));
    put("seed", args.seed.map(|x| x.to_string()));
    if let Some(table) = table {
        let spec = table::spec(table, &named, ui)?;
        let list = toml::Value::Array(vec![spec.display().to_string().into()]);
        put("train.tasks", Some(list.to_string()));
    }
    put("train.new.architecture", args.model.as_deref().map(quoted));
    let goals = args.goals.map(|g| match g {
        Goals::Targets => "targets",
        Goals::Groups => "groups",
    });
    put("train.new.goals", goals.map(quoted));
    Ok(match &args.recipe {
        Some(file) if table.is_none() => (Recipe::open(file, &set)?, None),
        _ if table.is_some() || args.model.is_some() || args.goals.is_some() => {
            let by_group = |(key, value): &(String, String)| {
                key == "train.new.goals" && value.trim_matches('"') == "groups"
            };
            let text = table::recipe(args.model.as_deref(), set.iter().any(by_group));
            (Recipe::read(&text, "defaults of tables", &set)?, Some(set))
        }
        _ => (Recipe::read("", "flags", &set)?, None),
    })
}

/// The tasks, with their folders and hashes.
pub(super) fn given(
    named: &[String],
    places: &crate::args_tasks::Places,
) -> Result<Vec<Given>, Failure> {
    let (catalogue, ids) = catalogue(places, named)?;
    let mut found = Vec::new();
    for id in expanded(&catalogue, &ids)? {
        let task = catalogue.task(&id)?;
        let folder = roots(places).folder(task)?;
        let loader = Loader::new(&task.spec, folder.clone(), Limits::default());
        let hash = task_hash(&task.spec, &loader.hashes()?);
        found.push(Given {
            spec: task.spec.clone(),
            folder,
            hash,
            parts: Arc::default(),
        });
    }
    Ok(found)
}

/// What would be done.
fn planned(recipe: &Recipe, given: &[Given], opened: &Opened, args: &TrainArgs, ui: &Ui) {
    let t = &recipe.train;
    let numbers: usize = opened
        .stored
        .iter()
        .map(|(_, _, s)| s.iter().product::<usize>())
        .sum();
    let what = match t.method {
        Kind::Full => "every weight that the task uses".to_owned(),
        Kind::Head => "the head alone".to_owned(),
        Kind::Lora => format!("low-rank parts of rank {}", t.lora.rank),
    };
    let base = recipe.base.as_deref().unwrap_or("a new model");
    let what = match t.language.as_ref().map(|l| l.learn) {
        Some(Learn::Texts) => format!("{what}, next tokens of texts,"),
        Some(Learn::Answers) => format!("{what}, answers to prompts,"),
        None if t.objective == Objective::Reconstruct => format!("{what}, masked patches,"),
        None => what,
    };
    let ids: Vec<&str> = given.iter().map(|g| &*g.spec.id).collect();
    let length = match t.steps {
        Some(steps) => format!("{steps} steps"),
        None if !t.stage.is_empty() => "steps by stage".to_owned(),
        None => format!("{} epochs", t.epochs.unwrap_or(3.0)),
    };
    let how = if t.each {
        "one expert each"
    } else {
        "together"
    };
    let staged = match t.stage.len() {
        0 => String::new(),
        n => format!(" in {n} stages"),
    };
    let how = match t.mixing {
        Mixing::Batch => how.to_owned(),
        Mixing::Alternate => format!("{how}, one a step"),
        Mixing::Unmixed => format!("{how}, one a step (unmixed)"),
    };
    let balanced = t.balance.as_ref();
    let balanced = balanced.map_or_else(String::new, |b| format!(", balanced by {}", b.method));
    ui.answer(&format!(
        "plan: {what} of {base} ({:.1} M numbers)\n  tasks, {how}{staged}{balanced}: {}\n  {length}, batch {} x {}, rate {}, seed {}\n  writes {}; checkpoint and log in {} while it runs",
        numbers as f64 / 1e6,
        ids.join(", "),
        t.batch,
        t.accumulate,
        recipe.rate(),
        recipe.seed,
        args.output.display(),
        work_folder(&args.output).display(),
    ));
    ui.event(&json!({"type": "plan", "recipe": recipe, "numbers": numbers, "tasks": ids}));
}

fn finished(one: &Finished, ui: &Ui) {
    let place = one.folder.display();
    let Some((steps, given)) = one.steps else {
        ui.note(&format!("{place} is there already and is left as it is"));
        return;
    };
    let scores = one.evaluation.as_ref().map(scores).unwrap_or_default();
    let which = match given == steps {
        true => format!("{steps} steps"),
        false => format!("step {given} of {steps}, the best"),
    };
    ui.say(&format!("{place}: {which}{scores}"));
    for line in one.balance.iter().flat_map(balanced) {
        ui.say(&line);
    }
    if one.epochs.len() > 1 {
        let list = one.epochs.iter().map(|(t, x)| (t, *x));
        ui.say(&format!("epochs: {}", seen(list)));
    }
    let tasks: serde_json::Map<String, serde_json::Value> = one
        .evaluation
        .iter()
        .flat_map(|e| &e.tasks)
        .map(|(name, (metric, value, n))| {
            (
                name.clone(),
                json!({"metric": metric, "value": value, "n": n}),
            )
        })
        .collect();
    ui.event(&json!({"type": "result", "folder": one.folder, "steps": steps, "given": given, "validation": tasks, "balance": one.balance, "epochs": one.epochs}));
}

/// How often the rows of tasks are seen.
fn seen<'a>(epochs: impl Iterator<Item = (&'a String, f64)>) -> String {
    let list: Vec<String> = epochs.map(|(task, x)| format!("{task} {x:.2}")).collect();
    list.join(", ")
}

/// What balancing came to: whom steps hurt, who was absent, what fell back.
fn balanced(counts: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
    let number = |v: &serde_json::Value| v.as_u64().unwrap_or(0);
    let (Some(method), Some(steps)) = (counts["method"].as_str(), counts["steps"].as_u64()) else {
        return Vec::new();
    };
    let goals = counts["goals"].as_object().into_iter().flatten();
    let of = |(name, g): (&String, &serde_json::Value)| {
        let weight = g["mean_weight"].as_f64().unwrap_or(0.0);
        let mut text = format!("{name} {weight:.2}, hurt {}", number(&g["hurt"]));
        if number(&g["absent"]) > 0 {
            text += &format!(", absent {}", number(&g["absent"]));
        }
        text
    };
    let list: Vec<String> = goals.map(of).collect();
    let looked = match number(&counts["looked"]) {
        n if n == steps => "steps".to_owned(),
        n => format!("of {n} steps whose gradients were looked at those"),
    };
    let mut lines = vec![format!(
        "{method} over {steps} steps: mean weight, {looked} that raise the loss: {}",
        list.join("; ")
    )];
    if number(&counts["unsolved"]) > 0 {
        let unsolved = number(&counts["unsolved"]);
        lines.push(format!(
            "{unsolved} steps had no answer of {method} and took equal weights"
        ));
    }
    lines
}

fn scores(e: &Evaluation) -> String {
    let one = |(name, (metric, value, n)): (&String, &(String, f64, u64))| {
        format!("{name} {metric} {value:.3} (n {n})")
    };
    let list: Vec<String> = e.tasks.iter().take(4).map(one).collect();
    let more = e.tasks.len().saturating_sub(4);
    let more = if more > 0 {
        format!(", {more} more")
    } else {
        String::new()
    };
    let mean = if e.tasks.len() > 1 {
        format!(", mean {:.3}", e.mean)
    } else {
        String::new()
    };
    format!("; validation: {}{more}{mean}", list.join(", "))
}
