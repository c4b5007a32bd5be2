//! `polyloom stats`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use polyloom::MergeError;
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom::tasks::Catalogue;
use polyloom::tasks::data::Limits;
use polyloom::tasks::hash::task_hash;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_core::writer::OutputFile;
use polyloom_learn::stats::sequential::{self, Expert};
use polyloom_learn::stats::{self, Settings, Squares};
use polyloom_learn::tasks::evaluate::Found;
use polyloom_learn::tasks::system::no_head;
use polyloom_learn::tasks::{Base, System};
use serde_json::json;

use super::eval::{lists, names};
use super::tasks::{catalogue, expanded, roots};
use crate::args_stats::{Kind, StatsArgs};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Progress, Ui};

/// A model, its task, its file.
struct Work {
    system: System,
    task: String,
    file: PathBuf,
}

/// Runs the command.
pub fn run(args: &StatsArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    for model in args.models.iter().chain(&args.base) {
        let recipe = recipe::from_models("passthrough", None, std::slice::from_ref(model))?;
        let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
        let places = Places::default();
        if hub(args.dry_run).bring(needs, recipe.dialect, &places, ui)? == Brought::Said {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let asked = |kind: Kind| match args.kind.is_empty() {
        true => kind == Kind::Gram || !args.through_merged,
        false => args.kind.contains(&kind),
    };
    if args.through_merged && (asked(Kind::Fisher) || !asked(Kind::Gram)) {
        return Err(MergeError::plan(
            "bad-flag",
            "--through-merged is about Gram matrices; Fisher information is each model's own",
        )
        .hint("leave --kind out, or ask for Fisher information in a run of its own")
        .into());
    }
    let settings = Settings {
        gram: asked(Kind::Gram),
        fisher: asked(Kind::Fisher).then_some({
            match args.per_batch {
                true => Squares::PerBatch,
                false => Squares::PerSample,
            }
        }),
        rows: args.rows,
        split: args.split.clone(),
        seed: args.seed,
        batch: args.batch as usize,
    };
    let (catalogue, ids) = catalogue(&args.places, &args.tasks)?;
    let works = works(args, &catalogue, &ids)?;
    for work in &works {
        OutputFile::check(&work.file, args.force)?;
        loader(args, &catalogue, &work.task)?.split(&args.split)?;
    }
    ui.event(&json!({
        "type": "plan", "kind": settings.kind(), "models": works.len(), "rows": args.rows,
        "split": args.split, "seed": args.seed,
    }));
    if args.dry_run {
        ui.answer(&format!(
            "plan: {} of {}, at most {} rows of split {}, seed {}",
            settings.kind(),
            match works.len() {
                1 => "a model".to_owned(),
                n => format!("{n} models"),
            },
            args.rows,
            args.split,
            args.seed
        ));
        for work in &works {
            planned(work, &opened(args, &settings, &catalogue, work, ui)?.1, ui);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.through_merged {
        together(args, &settings, &catalogue, &works, ui)?;
        return Ok(finished(args, &works, ui));
    }
    let progress = ui.steps("collecting", (settings.steps() * works.len()) as u64);
    for (i, work) in works.iter().enumerate() {
        let before = i * settings.steps();
        let done = one(args, &settings, &catalogue, work, (&progress, before), ui);
        if let Err(failure) = done {
            progress.end();
            return Err(failure);
        }
    }
    progress.end();
    Ok(finished(args, &works, ui))
}

fn finished(args: &StatsArgs, works: &[Work], ui: &Ui) -> ExitCode {
    ui.answer(&args.output.display().to_string());
    let files: Vec<&PathBuf> = works.iter().map(|w| &w.file).collect();
    ui.event(&json!({"type": "done", "output": args.output, "files": files}));
    ExitCode::SUCCESS
}

/// Which model on which task goes where.
fn works(args: &StatsArgs, catalogue: &Catalogue, ids: &[String]) -> Result<Vec<Work>, Failure> {
    let find = |m: &String| System::find(m, args.base.as_deref(), args.heads.as_deref());
    let systems: Vec<System> = args.models.iter().map(find).collect::<Result<_, _>>()?;
    let n = systems.len();
    let given = expanded(catalogue, ids)?;
    let tasks = match given.len() {
        0 => {
            let mut tasks = Vec::new();
            for (system, mut own) in systems.iter().zip(lists(&systems, catalogue, &[])?) {
                match (own.pop(), own.len()) {
                    (Some(task), 0) => tasks.push(task),
                    (_, more) => {
                        let what = format!("has heads of {} tasks", more + 1);
                        return Err(MergeError::plan("several-tasks", what)
                            .at(system.folder.display().to_string())
                            .hint("-t TASK says whose rows are meant")
                            .into());
                    }
                }
            }
            tasks
        }
        1 => vec![given[0].clone(); n],
        m if m == n => given,
        m => {
            let what = format!("{m} tasks for {n} models");
            return Err(MergeError::plan("bad-flag", what)
                .at("-t")
                .hint("one task for all models, or one for each in their order")
                .into());
        }
    };
    let is_file = n == 1 && args.output.extension().is_some() && !args.output.is_dir();
    if n > 1
        && (args.output.is_file() || args.output.extension().is_some_and(|e| e == "safetensors"))
    {
        return Err(
            MergeError::plan("bad-flag", "is one file, and there are several models")
                .at(args.output.display().to_string())
                .hint("-o DIR takes a file for each")
                .into(),
        );
    }
    let names = names(&systems);
    let works = systems.into_iter().zip(tasks).zip(names);
    Ok(works
        .map(|((system, task), name)| Work {
            system,
            task,
            file: match is_file {
                true => args.output.clone(),
                false => args.output.join(format!("{name}.safetensors")),
            },
        })
        .collect())
}

fn loader<'c>(
    args: &StatsArgs,
    catalogue: &'c Catalogue,
    task: &str,
) -> Result<Loader<'c>, Failure> {
    let entry = catalogue.task(task)?;
    let folder = roots(&args.places).folder(entry)?;
    Ok(Loader::new(&entry.spec, folder, Limits::default()))
}

/// A model in memory, with its heads for its task.
fn opened(
    args: &StatsArgs,
    settings: &Settings,
    catalogue: &Catalogue,
    work: &Work,
    ui: &Ui,
) -> Result<(Base, Vec<Found>), Failure> {
    let system = &work.system;
    let spec = &catalogue.task(&work.task)?.spec;
    let most = match args.max_length {
        Some(n) => Some(n),
        None => system.max_length()?,
    };
    let base = Base::whole(system, most)?;
    for warning in &base.opened.warnings {
        ui.warning(&format!("{}: {warning}", system.name()));
    }
    let found = stats::heads(system, &base, spec)?;
    if found.is_empty() && settings.fisher.is_some() {
        let target = spec.targets.first().map_or("", |t| &*t.name);
        return Err(match no_head(system, &spec.id, target) {
            polyloom_learn::Error::Merge(error) => error.hint("--kind gram needs no head").into(),
            other => other.into(),
        });
    }
    Ok((base, found))
}

/// Says what would be done.
fn planned(work: &Work, found: &[Found], ui: &Ui) {
    let heads: Vec<&str> = found.iter().map(|f| &*f.place).collect();
    let heads = match heads.len() {
        0 => "no head".to_owned(),
        _ => format!("head {}", heads.join(", ")),
    };
    ui.answer(&format!(
        "  {} on {}, {heads}\n    writes {}",
        work.system.reference,
        work.task,
        work.file.display()
    ));
}

/// Collects and writes the statistics of one model.
fn one(
    args: &StatsArgs,
    settings: &Settings,
    catalogue: &Catalogue,
    work: &Work,
    (progress, before): (&Progress<'_>, usize),
    ui: &Ui,
) -> Result<(), Failure> {
    let Work { system, task, .. } = work;
    let spec = &catalogue.task(task)?.spec;
    let loader = loader(args, catalogue, task)?;
    let (base, found) = opened(args, settings, catalogue, work, ui)?;
    let stop = super::stop_flag()?;
    let what = format!("{} on {}", system.name(), spec.id);
    let collected = stats::collect(&base, spec, &loader, &found, settings, &mut |rows| {
        progress.at((before + rows) as u64, &what);
        !stop.load(Ordering::SeqCst)
    })?;
    written(
        args,
        settings,
        &loader,
        spec,
        work,
        &collected,
        BTreeMap::new(),
        ui,
    )
}

/// Collects and writes the statistics of all models at once, block after block.
fn together(
    args: &StatsArgs,
    settings: &Settings,
    catalogue: &Catalogue,
    works: &[Work],
    ui: &Ui,
) -> Result<(), Failure> {
    let mut held = Vec::new();
    for work in works {
        let spec = &catalogue.task(&work.task)?.spec;
        let loader = loader(args, catalogue, &work.task)?;
        held.push((opened(args, settings, catalogue, work, ui)?, spec, loader));
    }
    let experts: Vec<Expert<'_>> = held
        .iter()
        .map(|((base, found), spec, loader)| Expert {
            base,
            spec,
            loader,
            found,
        })
        .collect();
    let stop = super::stop_flag()?;
    let mut progress = None;
    let collected = sequential::collect(&experts, settings, args.off_diagonal, &mut |rows, all| {
        let line = progress.get_or_insert_with(|| ui.steps("collecting", all as u64));
        line.at(rows as u64, "block after block");
        !stop.load(Ordering::SeqCst)
    });
    if let Some(line) = progress {
        line.end();
    }
    for ((work, (_, spec, loader)), collected) in works.iter().zip(&held).zip(collected?) {
        let more = BTreeMap::from([
            ("inputs".to_owned(), "through-merged".to_owned()),
            ("off_diagonal".to_owned(), args.off_diagonal.to_string()),
            ("models".to_owned(), works.len().to_string()),
        ]);
        written(args, settings, loader, spec, work, &collected, more, ui)?;
    }
    Ok(())
}

/// Writes the file of a model, with `more` in its header.
#[allow(clippy::too_many_arguments, reason = "what a file says of itself")]
fn written(
    args: &StatsArgs,
    settings: &Settings,
    loader: &Loader<'_>,
    spec: &TaskSpec,
    work: &Work,
    collected: &stats::Statistics,
    more: BTreeMap<String, String>,
    ui: &Ui,
) -> Result<(), Failure> {
    let hash = task_hash(spec, &loader.hashes()?);
    let model = work.system.fingerprint()?;
    let mut metadata = collected.metadata(&spec.id, &hash, &model, settings);
    metadata.extend(more);
    collected.write(&work.file, &metadata, args.force, !args.no_sync)?;
    told(&work.file, collected, &metadata, ui);
    Ok(())
}

fn told(file: &Path, collected: &stats::Statistics, metadata: &BTreeMap<String, String>, ui: &Ui) {
    let (grams, fishers) = collected.counts();
    let positions = collected.positions();
    let mut parts = vec![format!("{} rows", collected.rows)];
    if grams > 0 {
        parts.push(format!("{grams} Gram matrices over {positions} positions"));
    }
    if fishers > 0 {
        parts.push(format!("Fisher information of {fishers} tensors"));
    }
    ui.say(&format!("{}: {}", file.display(), parts.join(", ")));
    ui.event(&json!({
        "type": "result", "file": file, "rows": collected.rows, "positions": positions,
        "grams": grams, "fisher": fishers, "metadata": metadata,
    }));
}
