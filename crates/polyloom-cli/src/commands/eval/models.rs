//! `polyloom eval MODEL...`: models, adapters and heads are run on tasks and scored.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::ask::Style;
use polyloom::evaluate::board::score::output::{Output, key};
use polyloom::evaluate::board::score::{Options, score};
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom::tasks::Catalogue;
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::tasks::content::Hashes;
use polyloom_learn::tasks::evaluate::{self, Found, Heard, Run, Shelf};
use polyloom_learn::tasks::speak::Spoken;
use polyloom_learn::tasks::system::no_head;
use polyloom_learn::tasks::{Base, System};
use serde_json::json;

use super::table::{matrix, table};
use super::{Entries, done, groups, options, reused, settings, target, tell, woven};
use crate::args_eval::EvalArgs;
use crate::commands::fuse;
use crate::commands::tasks::{catalogue, expanded, roots};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &EvalArgs, hub: Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let options = options(args)?;
    let small = fuse::names(&args.fuse);
    for model in args.models.iter().chain(&args.base).chain(small) {
        let recipe = recipe::from_models("passthrough", None, std::slice::from_ref(model))?;
        let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
        if hub.bring(needs, recipe.dialect, &Places::default(), ui)? == Brought::Said {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let small = fuse::Small::open(&args.fuse, args.max_length, ui)?;
    if small.is_some() && args.output.is_none() {
        let what = "--fuse needs -o: results beside the model are those of the model alone";
        return Err(MergeError::plan("bad-flag", what).into());
    }
    let find = |m: &String| System::find(m, args.base.as_deref(), args.heads.as_deref());
    let systems: Vec<System> = args.models.iter().map(find).collect::<Result<_, _>>()?;
    let several = systems.len() > 1;
    let mut names = target::names(&systems);
    match (&args.name, &mut names[..]) {
        (Some(name), [one]) => one.clone_from(name),
        (Some(_), _) => {
            return Err(MergeError::plan(
                "bad-flag",
                "--name names one system, and there are several",
            )
            .into());
        }
        (None, _) => {}
    }
    let (catalogue, ids) = catalogue(&args.places, &args.tasks)?;
    let lists = lists(&systems, &catalogue, &ids)?;
    let tasks = tasks(&catalogue, &lists, args)?;
    let mut hashes = Hashes::new();
    let mut asked = Vec::new();
    for ((system, name), list) in systems.iter().zip(names).zip(&lists) {
        let path = target::file(args.output.as_deref(), &system.folder, &name, several)?;
        let said = Answers {
            path: system.folder.clone(),
            hash: match &small {
                None => system.hash(&mut hashes)?,
                Some(small) => small.hash(&system.hash(&mut hashes)?),
            },
            rows: Vec::new(),
            columns: Vec::new(),
            task: None,
            chosen: Columns::default(),
        };
        let stale = Output::is_stale(&path, &said);
        if stale {
            ui.note(&format!(
                "{}: holds results of what the model was before; they are replaced",
                path.display()
            ));
        }
        let output = Output::open(&path, &name, &said, args.force || stale)?;
        let most = match args.max_length {
            Some(n) => Some(n),
            None => system.max_length()?,
        };
        let mut jobs = Vec::new();
        for task in tasks.iter().filter(|t| list.contains(&t.spec.id)) {
            let mut settings = format!("{} rows {:?} tokens {most:?}", task.hash, args.limit);
            if system.woven && args.task_known {
                settings += " task known";
            }
            // How a decoder is asked, where it is not as the task says.
            let ways = (&args.prompt, args.fewshot, args.max_tokens);
            if ways != (&None, None, None) {
                settings += &format!(" asked {ways:?}");
            }
            let key = key(&settings, &said, &options);
            let held = output.unchanged(&key).filter(|_| !args.force);
            jobs.push((task, key, held));
        }
        asked.push(Work {
            system,
            name,
            path,
            said,
            most,
            output,
            jobs,
            entries: Vec::new(),
            ran: false,
        });
    }
    // A base is opened once for all systems that read texts alike.
    let mut order: Vec<Opening> = Vec::new();
    for work in &asked {
        let opening = Opening::of(work);
        if !order.contains(&opening) {
            order.push(opening);
        }
    }
    let steps: usize = asked.iter().map(|w| w.jobs.len()).sum();
    ui.event(&json!({"type": "plan", "systems": systems.len(), "bases": order.len(), "tasks": tasks.len(), "runs": steps}));
    let progress = ui.steps("evaluating", steps as u64);
    let (mut at, mut speakers) = (0, 0);
    for opening in &order {
        let of = asked.iter_mut().filter(|w| Opening::of(w) == *opening);
        let mut each = |what: &str| {
            progress.at(at, what);
            at += 1;
        };
        let (works, small) = (of.collect(), small.as_ref());
        speakers += on_base(works, several, args, &options, small, &mut each, ui)?;
    }
    progress.end();
    let asked_for = [
        ("--prompt", args.prompt.is_some()),
        ("--fewshot", args.fewshot.is_some()),
        ("--max-tokens", args.max_tokens.is_some()),
        ("--extract", args.extract.is_some()),
    ];
    let ran = asked.iter().any(|w| w.ran);
    for (flag, _) in asked_for
        .iter()
        .filter(|(_, given)| *given && ran && speakers == 0)
    {
        ui.note(&format!("no effect here: {flag} (no decoder was asked)"));
    }
    let missing = args.limit.is_none();
    for work in &asked {
        tell(several.then_some(&*work.name), &work.entries, missing, ui);
    }
    if let [one] = &asked[..] {
        ui.answer(&table(&one.entries, args));
        woven::told(&one.entries)
            .iter()
            .for_each(|line| ui.answer(line));
        let lines = groups::told(&catalogue, &ids, &one.entries, ui)?;
        lines.iter().for_each(|line| ui.answer(line));
        ui.answer(&format!("results: {}", one.path.display()));
        done(&one.path.display().to_string(), one.entries.len(), ui);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<(String, Entries)> = asked
        .iter()
        .map(|w| (w.name.clone(), w.entries.clone()))
        .collect();
    ui.answer(&matrix(&rows));
    let shown = match &args.output {
        Some(folder) => folder.display().to_string(),
        None => "beside each system".into(),
    };
    ui.answer(&format!("results: {shown}"));
    done(&shown, tasks.len(), ui);
    Ok(ExitCode::SUCCESS)
}

/// A task that is asked of systems.
struct Task<'c> {
    spec: &'c TaskSpec,
    loader: Loader<'c>,
    hash: String,
}

/// A system with what is asked of it: tasks, keys of their results, results that hold still.
struct Work<'a> {
    system: &'a System,
    name: String,
    path: PathBuf,
    said: Answers,
    /// Tokens that texts are cut to.
    most: Option<usize>,
    output: Output,
    jobs: Vec<(&'a Task<'a>, String, Option<Entries>)>,
    entries: Entries,
    /// Something of it was run.
    ran: bool,
}

/// A base and how it reads inputs: what systems share.
#[derive(PartialEq)]
struct Opening {
    base: PathBuf,
    most: Option<usize>,
    preprocessor: Option<PathBuf>,
}

impl Opening {
    fn of(work: &Work<'_>) -> Self {
        Self {
            base: real(&work.system.base),
            most: work.most,
            preprocessor: work.system.preprocessor(),
        }
    }
}

/// The path without links, so that two names of a base are one.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Ids of the tasks of every system: those that were given, else its own.
pub(in crate::commands) fn lists(
    systems: &[System],
    catalogue: &Catalogue,
    given: &[String],
) -> Result<Vec<Vec<String>>, Failure> {
    if !given.is_empty() {
        return Ok(vec![expanded(catalogue, given)?; systems.len()]);
    }
    let of = |system: &System| -> Result<Vec<String>, Failure> {
        let place = system.folder.display().to_string();
        let own = system.tasks()?;
        if own.is_empty() {
            let what = "has no heads that would name tasks, and none was given";
            return Err(MergeError::plan("no-task", what)
                .at(place)
                .hint("-t TASK,TASK (`polyloom tasks list`, or spec files)")
                .into());
        }
        let mut ids: Vec<String> = Vec::new();
        for name in own {
            // Heads of targets name the task before them.
            let parent = name.rsplit_once('/').map_or("", |(task, _)| task);
            let known = catalogue.task(&name).or_else(|_| catalogue.task(parent));
            let task = known.map_err(|_| {
                MergeError::plan("no-task", format!("is for the task `{name}`, which is not in the catalogue"))
                    .at(place.clone())
                    .hint("--catalogue PATH adds specs; -t TASK or -t SPEC.toml says which tasks are meant")
            })?;
            if !ids.contains(&task.spec.id) {
                ids.push(task.spec.id.clone());
            }
        }
        Ok(ids)
    };
    systems.iter().map(of).collect()
}

/// The tasks of all lists, each once, with the hashes of their data.
fn tasks<'c>(
    catalogue: &'c Catalogue,
    lists: &[Vec<String>],
    args: &EvalArgs,
) -> Result<Vec<Task<'c>>, Failure> {
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for id in lists.iter().flatten() {
        if tasks.iter().any(|t| t.spec.id == *id) {
            continue;
        }
        let entry = catalogue.task(id)?;
        let folder = roots(&args.places).folder(entry)?;
        let loader = Loader::new(&entry.spec, folder, Limits::default());
        loader.split(&args.split)?;
        tasks.push(Task {
            hash: task_hash(&entry.spec, &loader.hashes()?),
            spec: &entry.spec,
            loader,
        });
    }
    Ok(tasks)
}

/// Runs the systems of a base; it is opened once, and only if something is to be run. Gives how often a decoder was asked.
fn on_base(
    mut works: Vec<&mut Work<'_>>,
    several: bool,
    args: &EvalArgs,
    options: &Options,
    small: Option<&fuse::Small>,
    each: &mut dyn FnMut(&str),
    ui: &Ui,
) -> Result<usize, Failure> {
    let mut speakers = 0;
    let runs = |w: &Work<'_>| w.jobs.iter().any(|(_, _, held)| held.is_none());
    let mut base = None;
    if works.iter().any(|w| runs(w)) {
        let path = &works[0].system.base;
        let pictures = works[0].system.preprocessor();
        let opened = Base::prepared(path, works[0].most, pictures.as_deref())?;
        ui.event(
            &json!({"type": "model", "model": path.display().to_string(), "systems": works.len()}),
        );
        ui.detail(&format!(
            "{}: opened once for {} systems",
            path.display(),
            works.len()
        ));
        base = Some(opened);
    }
    let mut shelf = Shelf::new(&args.split, args.limit);
    let mut heads: Vec<Vec<Option<Vec<Found>>>> = Vec::new();
    // What cannot work is said before anything runs.
    for work in &works {
        let mut list = Vec::new();
        for (task, _, held) in &work.jobs {
            let found = match held {
                Some(_) => None,
                None => evaluate::files(work.system, task.spec)?,
            };
            if let (Some(found), Some(base)) = (&found, &base) {
                evaluate::check(found, task.spec, &base.opened.model)?;
            }
            list.push(found);
        }
        heads.push(list);
    }
    for (work, heads) in works.iter_mut().zip(heads) {
        let ready = match &base {
            Some(base) if runs(work) => {
                let ready = base.ready(work.system)?;
                ready
                    .warnings
                    .iter()
                    .for_each(|w| ui.warning(&format!("{}: {w}", work.name)));
                if ready.is_folded() {
                    ui.detail(&format!("{}: folded into weights of its own", work.name));
                }
                Some((base, ready))
            }
            _ => None,
        };
        let work: &mut Work<'_> = work;
        for ((task, key, held), found) in work.jobs.iter_mut().zip(heads) {
            each(&format!("{} on {}", work.name, task.spec.id));
            if let Some(held) = held.take() {
                let place = if several {
                    format!("{}: {}", work.name, task.spec.id)
                } else {
                    task.spec.id.clone()
                };
                reused(&place, ui);
                work.entries.extend(held);
                continue;
            }
            let Some((base, ready)) = &ready else {
                continue;
            };
            let mut unread = 0;
            work.ran = true;
            let run = Run {
                ready,
                reader: &base.reader,
                model: (&work.said.path, &work.said.hash),
                batch: args.batch as usize,
            };
            if small.is_some() && ready.woven().is_some() {
                let what = "--fuse works on a plain model; this one is woven";
                let place = work.system.folder.display().to_string();
                return Err(MergeError::plan("bad-flag", what).at(place).into());
            }
            if let (Some(found), Some(model)) = (&found, ready.woven()) {
                let (readings, notes) =
                    run.predict_woven(model, task.spec, &task.loader, found, &mut shelf)?;
                notes.iter().for_each(|n| ui.note(n));
                let entries = woven::scored(
                    &woven::Asked {
                        spec: task.spec,
                        loader: &task.loader,
                        hash: &task.hash,
                        key,
                        known: args.task_known,
                        options,
                    },
                    &readings,
                    &mut work.output,
                )?;
                work.entries.extend(entries);
                work.output.write()?;
                continue;
            }
            let speech = || settings(args, Style::Completion, task.spec);
            let most = args.max_length;
            let heard = match small {
                None => run.hear(task.spec, &task.loader, found, &mut shelf, &speech, most)?,
                Some(small) => {
                    let (of, heads) = ((task.spec, &task.loader), (found, &mut shelf));
                    small.hear(&run, of, heads, &speech, most)?
                }
            };
            let answers = match heard {
                Heard::Answers(answers, notes) => {
                    notes.iter().for_each(|n| ui.note(n));
                    answers
                }
                Heard::Spoken(spoken) => {
                    speakers += 1;
                    unread = spoken.unread;
                    told(&work.name, &task.spec.id, &spoken, ui);
                    spoken.answers
                }
                Heard::Nothing if several => {
                    let what = format!("{}: no head for {}, left out", work.name, task.spec.id);
                    ui.note(&what);
                    continue;
                }
                Heard::Nothing => {
                    let target = task.spec.targets.first().map_or("", |t| &*t.name);
                    return Err(no_head(work.system, &task.spec.id, target).into());
                }
            };
            let mut options = options.clone();
            options.allow_partial |= unread > 0;
            let scored = score(task.spec, &task.loader, &task.hash, &answers, &options)?;
            work.entries
                .extend(work.output.add(&task.spec.id, key, &scored)?);
            // What is done stays, whatever comes after.
            work.output.write()?;
        }
        if work.entries.is_empty() {
            let roots: Vec<String> = work
                .system
                .heads
                .iter()
                .map(|r| r.display().to_string())
                .collect();
            return Err(
                MergeError::plan("no-head", "has no head for any of the tasks")
                    .at(work.system.folder.display().to_string())
                    .hint(format!(
                        "looked in {}; --heads DIR names another folder",
                        roots.join(" and ")
                    ))
                    .into(),
            );
        }
    }
    Ok(speakers)
}

fn told(system: &str, task: &str, spoken: &Spoken, ui: &Ui) {
    if spoken.cut > 0 {
        let n = spoken.cut;
        ui.note(&format!("{system}: {n} prompts of {task} are longer than the model takes; their beginning was cut off"));
    }
    if spoken.unread > 0 {
        let n = spoken.unread;
        ui.note(&format!(
            "{system}: {n} answers on {task} hold no number and are left out"
        ));
    }
}
