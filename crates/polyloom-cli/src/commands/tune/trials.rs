//! `polyloom tune --over`: trials of a merge, a training or learned coefficients.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use polyloom::MergeError;
use polyloom::evaluate::board::counting::Aggregate;
use polyloom::plan;
use polyloom::plan::execute::{HashKind, RunOptions, execute};
use polyloom::plan::reference::{Places, locate};
use polyloom::recipe;
use polyloom_core::writer::FolderOptions;
use polyloom_learn::Error;
use polyloom_learn::folds::cross;
use polyloom_learn::tasks::Opened;
use polyloom_learn::train::session::Options;
use polyloom_learn::train::{self, train};
use polyloom_learn::tune::recipe::Tune;
use polyloom_learn::tune::scoring::{Scoring, SearchKind};
use polyloom_learn::tune::search::{Axis, CmaEs, Grid, Halving, Random, Search, dimensions};
use polyloom_learn::tune::trials::{self, Study, Values};
use polyloom_learn::tune::{Recipe, tune};
use polyloom_learn::weave::make::weave;
use polyloom_learn::weave::recipe as woven;
use serde_json::json;

use super::tables::{New, folded, folds};
use super::told::{shown, tell};
use crate::args_tune::{How, TuneArgs};
use crate::commands::merge::bring;
use crate::commands::train::table::draft;
use crate::commands::train::{given, rows};
use crate::hub::{Brought, Hub};
use crate::ui::{Failure, Ui};

/// Trials where nothing says how many.
const TRIALS: usize = 24;
/// Points of a round of random ones.
const ROUND: usize = 8;
/// Deviation of the first generation, as a share of each range (mergekit-evolve's).
const SIGMA: f64 = 1.0 / 6.0;

/// A search that was asked for.
pub(super) struct Asked {
    file: PathBuf,
    /// How models are scored.
    scoring: Scoring,
    axes: Vec<Axis>,
    kind: Kind,
}

/// What a recipe makes.
enum Kind {
    Merge(Box<recipe::Recipe>),
    /// From a recipe, or from the defaults of tables.
    Train(Option<New>),
    Tune,
    Weave,
}

/// What trials are asked for; `None` where the flags and the recipe ask for none.
pub(super) fn asked(args: &TuneArgs, ui: &Ui) -> Result<Option<Asked>, Failure> {
    let flags = &args.trials;
    let new = New::asked(args, ui)?;
    let file = match &args.inputs[..] {
        [one] => Path::new(one),
        _ => Path::new(""),
    };
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or("");
    let yaml = matches!(ending, "yml" | "yaml");
    let mut scoring = match ending {
        "toml" => Scoring::open(file)?,
        _ => Scoring {
            seed: 0,
            tasks: Vec::new(),
            tune: Tune::default(),
        },
    };
    let mut axes = flags.over.clone();
    for (key, value) in &scoring.tune.trials.over {
        if !axes.iter().any(|a| a.key == *key) {
            axes.push(written(key, value)?);
        }
    }
    if axes.is_empty() {
        let odd = [
            ("--trials", flags.trials.is_some()),
            ("--search", flags.search.is_some()),
            ("--objective", flags.objective.is_some()),
            ("--patience", flags.patience.is_some()),
            ("--population", flags.population.is_some()),
        ];
        if let Some((flag, _)) = odd.iter().find(|(_, given)| *given) {
            let what = format!("{flag} is for trials, and nothing varies");
            return Err(MergeError::plan("arguments", what)
                .hint("--over KEY=VALUES says what does")
                .into());
        }
        return Ok(None);
    }
    if let Some(new) = new {
        scoring.tasks.clone_from(&new.tasks);
        fixed(&axes)?;
        return Ok(Some(Asked {
            file: PathBuf::new(),
            scoring,
            axes,
            kind: Kind::Train(Some(new)),
        }));
    }
    if !(yaml || ending == "toml") {
        let what = "trials need a recipe: its keys are what varies";
        return Err(MergeError::plan("arguments", what)
            .hint("polyloom tune loom.toml --over merge.shared.lambda=0.1..1.5 -t TASKS -o OUT")
            .into());
    }
    let text =
        std::fs::read_to_string(file).map_err(|e| polyloom_core::Error::io(file, "read", e))?;
    let has = |key: &str| {
        let table: Option<toml::Table> = toml::from_str(&text).ok();
        table.is_some_and(|t| t.contains_key(key))
    };
    let kind = if yaml || has("merge") {
        let mut recipes = recipe::read(file)?;
        let (Some(one), true) = (recipes.pop(), recipes.is_empty()) else {
            let what = "holds several documents; trials take one merge";
            return Err(MergeError::plan("arguments", what)
                .at(file.display().to_string())
                .into());
        };
        Kind::Merge(Box::new(one))
    } else if has("train") && !has("expert") {
        Kind::Train(None)
    } else if woven::is_woven(&text) {
        Kind::Weave
    } else {
        Kind::Tune
    };
    let experts = match &kind {
        Kind::Merge(recipe) => {
            let slices = recipe.modules.iter().flat_map(|m| &m.slices);
            slices.map(|s| s.sources.len()).max().unwrap_or(0)
        }
        _ => 0,
    };
    fixed(&axes)?;
    for axis in axes.iter_mut().filter(|a| a.experts > 0) {
        axis.experts = experts;
    }
    if !args.tasks.is_empty() {
        scoring.tasks.clone_from(&args.tasks);
    } else if let Kind::Train(_) = kind {
        let recipe = train::Recipe::open(file, &args.set)?;
        scoring.tasks.clone_from(&recipe.train.tasks);
    }
    if scoring.tasks.is_empty() {
        return Err(
            MergeError::plan("no-task", "no task says which point is better")
                .hint("-t TASK,TASK, `task` of every [[expert]], or tune.tasks in the recipe")
                .into(),
        );
    }
    Ok(Some(Asked {
        file: file.to_owned(),
        scoring,
        axes,
        kind,
    }))
}

/// Refuses keys that say what points are scored on.
fn fixed(axes: &[Axis]) -> Result<(), Failure> {
    let keys = [
        "tune.tasks",
        "train.tasks",
        "train.folds",
        "train.repeats",
        "train.fold_splits",
    ];
    match axes.iter().find(|a| keys.contains(&&*a.key)) {
        None => Ok(()),
        Some(axis) => {
            let what = format!(
                "`{}` cannot vary: points on other tasks or rows cannot be compared",
                axis.key
            );
            Err(MergeError::plan("arguments", what).into())
        }
    }
}

/// An axis as it stands in `[tune.trials.over]`: the text of a flag, or a list of values.
fn written(key: &str, value: &toml::Value) -> Result<Axis, Failure> {
    let one = |v: &toml::Value| match v {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = match value {
        toml::Value::Array(all) => all.iter().map(one).collect::<Vec<_>>().join(","),
        other => one(other),
    };
    let axis: Result<Axis, String> = format!("{key}={text}").parse();
    axis.map_err(|e| MergeError::plan("bad-recipe", format!("`tune.trials.over`: {e}")).into())
}

/// Searches, and writes the best.
pub(super) fn run(
    asked: &Asked,
    args: &TuneArgs,
    hub: impl Fn(bool) -> Hub,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    let flags = &args.trials;
    let own = &asked.scoring.tune;
    let tasks = given(&asked.scoring.tasks, &args.places);
    if args.dry_run {
        // The spec of a table is not left behind.
        let _ = std::fs::remove_file(draft());
    }
    let tasks = tasks?;
    let word = flags.objective.as_ref().or(own.trials.objective.as_ref());
    let objective: Aggregate = match word {
        Some(word) => word
            .parse()
            .map_err(|e| MergeError::plan("bad-objective", format!("`{word}`: {e}")))?,
        None => Aggregate::Mean,
    };
    let places = Places::default();
    if let Kind::Merge(recipe) = &asked.kind
        && bring(std::slice::from_ref(recipe), hub(args.dry_run), &places, ui)? == Brought::Said
    {
        return Ok(ExitCode::SUCCESS);
    }
    let seed = args.seed.unwrap_or(asked.scoring.seed);
    let (mut search, how, at_most) = chosen(asked, args, seed)?;
    let study = Study {
        tasks: &tasks,
        split: args.split.clone().unwrap_or_else(|| own.split.clone()),
        limit: args.limit.map(|n| n as usize).or(own.limit),
        heads: args.heads.clone().or_else(|| own.heads.clone()),
        more_heads: heads_of_experts(asked),
        preprocessor: own.preprocessor.clone(),
        prompt: match &asked.kind {
            Kind::Train(None) => {
                let recipe = train::Recipe::open(&asked.file, &args.set)?;
                recipe.train.language.and_then(|l| l.prompt)
            }
            _ => None,
        },
        max_length: args.max_length.map(|n| n as usize).or(own.max_length),
        objective,
        level: 0.95,
        patience: flags
            .patience
            .map(|n| n as usize)
            .or(own.trials.patience)
            .unwrap_or(1),
        seed,
        recipe: identity(asked, args)?,
        axes: asked.axes.clone(),
    };
    let work = PathBuf::from(format!("{}.trials", args.output.display()));
    let names: Vec<&str> = tasks.iter().map(|t| &*t.spec.id).collect();
    let plan = format!(
        "plan: {how} search, {at_most} trials at most, over {}\n  counted by {objective} of split `{}`: {}\n  writes {} (the best) and {} (all)",
        asked
            .axes
            .iter()
            .map(|a| &*a.key)
            .collect::<Vec<_>>()
            .join(", "),
        study.split,
        names.join(", "),
        args.output.display(),
        work.display(),
    );
    if args.dry_run {
        ui.answer(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    ui.detail(&plan);
    ui.event(&json!({"type": "plan", "search": how, "trials": at_most, "tasks": names, "split": study.split, "objective": objective.name()}));
    if args.output.exists() && !args.force {
        return Err(MergeError::plan("exists", "exists already")
            .at(args.output.display().to_string())
            .hint("choose another name or pass --force to replace it")
            .into());
    }
    if args.force && !args.resume && work.exists() {
        std::fs::remove_dir_all(&work).map_err(|e| polyloom_core::Error::io(&work, "remove", e))?;
    }
    let stop = super::super::stop_flag()?;
    let learned = match &asked.kind {
        Kind::Merge(_) => Vec::new(),
        Kind::Tune => Recipe::open(&asked.file, &args.set)?.tasks(),
        Kind::Weave => woven::Recipe::open(&asked.file, &args.set)?.tasks(),
        Kind::Train(Some(new)) => new.tasks.clone(),
        Kind::Train(None) => train::Recipe::open(&asked.file, &args.set)?.train.tasks,
    };
    let learned = match learned.is_empty() {
        true => Vec::new(),
        false => given(&learned, &args.places)?,
    };
    let mut maker = Maker {
        asked,
        args,
        stop: &stop,
        rows: match &asked.kind {
            Kind::Train(Some(new)) => rows(
                &new.recipe(&[&args.set[..], &folds(args)].concat(), None)?,
                &learned,
            )?,
            _ => 0,
        },
        learned,
    };
    let mut line = ui.steps("trials", at_most as u64);
    let mut said = 0u64;
    let found = trials::run(
        &study,
        &mut *search,
        &work,
        args.resume,
        &mut |values, folder| maker.make(values, folder, false),
        &mut |told| {
            tell(told, &mut said, &line, ui);
            !stop.load(Ordering::SeqCst)
        },
    );
    line.end();
    let found = match found {
        Err(error) if stop.load(Ordering::SeqCst) => {
            ui.note(
                "stopped; the same command with --resume goes on with the trials that are done",
            );
            return Err(error.into());
        }
        found => found?,
    };
    line = ui.steps("writing", 1);
    let made = maker.make(&found.trials[found.best].values, &args.output, true);
    line.end();
    made?;
    shown(&found, &study, ui);
    ui.answer(&args.output.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// `heads/` of the models that are merged, where they have any.
fn heads_of_experts(asked: &Asked) -> Vec<PathBuf> {
    let Kind::Merge(recipe) = &asked.kind else {
        return Vec::new();
    };
    let places = Places {
        recipe_folder: asked.file.parent().map(Path::to_owned),
        ..Places::default()
    };
    let of = |model: &recipe::Model| {
        let given = &model.reference;
        // What is not there is said when the first trial is made.
        locate(
            &given.path,
            given.revision.as_deref(),
            recipe.dialect,
            &places,
        )
        .ok()
    };
    let folders = recipe.models.iter().filter_map(of);
    let heads = folders.map(|folder| folder.join("heads"));
    heads.filter(|folder| folder.is_dir()).collect()
}

/// What results depend on beside values, tasks and rows: the recipe as text and what was set.
fn identity(asked: &Asked, args: &TuneArgs) -> Result<String, Failure> {
    let file = &asked.file;
    let text = match &asked.kind {
        Kind::Train(Some(new)) => new.identity(),
        _ => {
            std::fs::read_to_string(file).map_err(|e| polyloom_core::Error::io(file, "read", e))?
        }
    };
    let folds = (args.trials.folds, args.trials.repeats);
    Ok(match folds {
        (None, None) => json!([text, args.set, args.seed]),
        folds => json!([text, args.set, args.seed, folds]),
    }
    .to_string())
}

/// The search, its name, and how many trials it makes at most.
fn chosen(
    asked: &Asked,
    args: &TuneArgs,
    seed: u64,
) -> Result<(Box<dyn Search>, &'static str, usize), Failure> {
    let (flags, own) = (&args.trials, &asked.scoring.tune.trials);
    let axes = &asked.axes;
    let n = dimensions(axes);
    let trials = flags.trials.map(|n| n as usize).or(own.trials);
    if trials == Some(0) {
        return Err(MergeError::plan("arguments", "--trials must be at least 1").into());
    }
    let grid = Grid::size(axes).map(|n| n as usize);
    let fits = |g: &usize| trials.map_or(*g <= 10 * TRIALS, |t| *g <= t);
    let how = flags.search.map(|how| match how {
        How::Grid => SearchKind::Grid,
        How::Random => SearchKind::Random,
        How::Halving => SearchKind::Halving,
        How::CmaEs => SearchKind::CmaEs,
    });
    let by_folds = flags.folds.is_some()
        || matches!(&asked.kind, Kind::Train(None) if train::Recipe::open(&asked.file, &args.set)?.train.folds.is_some());
    let how = how
        .or(own.search)
        .unwrap_or(match grid.is_some_and(|g| fits(&g)) {
            true => SearchKind::Grid,
            false => SearchKind::Random,
        });
    let most = trials.unwrap_or(TRIALS);
    let round = flags.population.map(|n| n as usize).or(own.population);
    Ok(match how {
        SearchKind::Grid => {
            let size = grid.unwrap_or(usize::MAX);
            if !fits(&size) {
                let what = format!(
                    "the grid has {size} points, {} allow{} fewer",
                    trials.map_or("the usual".into(), |t| format!("--trials {t}")),
                    if trials.is_some() { "s" } else { "" }
                );
                return Err(MergeError::plan("arguments", what)
                    .hint("fewer values, LOW..HIGH/POINTS, --trials N, or --search random")
                    .into());
            }
            (Box::new(Grid::new(axes)), "grid", size)
        }
        SearchKind::Random => {
            let search = Random::new(n, most, round.unwrap_or(ROUND), seed);
            (Box::new(search), "random", most)
        }
        SearchKind::Halving if by_folds => {
            let what = "halving scores points on few rows, and folds are all rows";
            return Err(MergeError::plan("arguments", what)
                .hint("--search random, or leave out the folds")
                .into());
        }
        SearchKind::Halving => {
            // Below a tenth of the rows an order says little.
            let points = grid
                .filter(|g| *g <= most)
                .and_then(|_| Grid::new(axes).ask());
            let search = Halving::new(n, most, points.map(|r| r.points), 0.1, seed);
            (Box::new(search), "halving", most + most / 2)
        }
        SearchKind::CmaEs => {
            if let Some(axis) = axes.iter().find(|a| a.space.is_choices()) {
                let what = format!(
                    "`{}` is a list of values; cma-es follows directions",
                    axis.key
                );
                return Err(MergeError::plan("arguments", what)
                    .hint("give it a range LOW..HIGH, or take --search random")
                    .into());
            }
            if round.is_some_and(|r| r < 4) {
                let what = "--population of cma-es must be at least 4";
                return Err(MergeError::plan("arguments", what).into());
            }
            let search = CmaEs::new(vec![0.5; n], SIGMA, most, round, seed);
            (Box::new(search), "cma-es", most)
        }
    })
}

/// The first of what is wrong with a recipe; a trial is refused by one.
fn first(mut problems: Vec<MergeError>) -> MergeError {
    match problems.is_empty() {
        true => MergeError::Internal("a plan that fails without a reason".into()),
        false => problems.swap_remove(0),
    }
}

/// Makes the model of a point.
struct Maker<'a> {
    asked: &'a Asked,
    args: &'a TuneArgs,
    stop: &'a AtomicBool,
    /// Tasks that the models are learned on.
    learned: Vec<train::Given>,
    /// Their training rows, where sizes follow from them.
    rows: usize,
}

impl Maker<'_> {
    /// `last`: what the user asked for, not a trial that is thrown away.
    fn make(&mut self, values: &Values, folder: &Path, last: bool) -> Result<(), Error> {
        let args = self.args;
        let mut set = args.set.clone();
        if let Some(seed) = args.seed {
            set.push(("seed".into(), seed.to_string()));
        }
        set.extend(folds(args));
        set.extend(values.iter().cloned());
        let (force, no_sync) = (last && args.force, !last || args.no_sync);
        match &self.asked.kind {
            Kind::Merge(recipe) => {
                let mut recipe = (**recipe).clone();
                // Another method first: parameters are asked of it.
                set.sort_by_key(|(key, _)| key != "merge.method");
                for (key, value) in &set {
                    match &**key {
                        "merge.method" => recipe.set_method(value)?,
                        _ => recipe.set(key, value)?,
                    }
                }
                let plan = plan::build(recipe, &Places::default()).map_err(first)?;
                let options = RunOptions {
                    target: folder.to_owned(),
                    shard_size: 5_000_000_000,
                    force,
                    no_sync,
                    resume: false,
                    allow_nonfinite: false,
                    chunk: 0,
                    hash: if last { HashKind::Fast } else { HashKind::None },
                    stop: Some(self.stop),
                    progress: None,
                };
                execute(&plan, &options)?;
                Ok(())
            }
            Kind::Tune => {
                let recipe = Recipe::open(&self.asked.file, &set)?;
                let options = FolderOptions {
                    force,
                    no_sync,
                    ..FolderOptions::default()
                };
                let go = &mut |_: &_| !self.stop.load(Ordering::SeqCst);
                tune(&recipe, &self.learned, folder, options, true, go).map(|_| ())
            }
            Kind::Weave => {
                let recipe = woven::Recipe::open(&self.asked.file, &set)?;
                let options = FolderOptions {
                    force,
                    no_sync,
                    ..FolderOptions::default()
                };
                let go = &mut |_: &_| !self.stop.load(Ordering::SeqCst);
                weave(&recipe, &self.learned, folder, options, go).map(|_| ())
            }
            Kind::Train(new) => {
                let mut recipe = match new {
                    Some(new) => new.recipe(&set, Some(self.rows))?,
                    None => train::Recipe::open(&self.asked.file, &set)?,
                };
                if recipe.train.each {
                    let what = "`train.each` makes a folder of models; a trial is one model";
                    return Err(MergeError::plan("bad-recipe", what).into());
                }
                let options = Options {
                    resume: false,
                    force,
                    no_sync,
                };
                if recipe.train.folds.is_some() && !last {
                    folded(&mut recipe, &self.asked.scoring.tasks)?;
                    let stop = self.stop;
                    let done = cross(&recipe, &self.learned, folder, options, &mut |_| {
                        !stop.load(Ordering::SeqCst)
                    });
                    return done.map(|_| ());
                }
                let opened = Opened::begin(&recipe, &self.learned)?;
                let go = &mut |_: &Path, _: &_| !self.stop.load(Ordering::SeqCst);
                train(&recipe, &opened, &self.learned, folder, options, go).map(|_| ())
            }
        }
    }
}
