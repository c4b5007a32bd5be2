//! `polyloom route fit`, `add` and `remove`

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use polyloom::MergeError;
use polyloom_core::writer::OutputFile;
use polyloom_learn::route::fit::{FittedScores, on_scores, on_tasks};
use polyloom_learn::route::predicted::{Costs, Limits};
use polyloom_learn::route::records::{self, Scores};
use polyloom_learn::route::{self, Expert, Fit, Fitted, MlpFit, Router, Rule, Sense};
use polyloom_learn::tune::Recipe;
use serde_json::json;

use super::super::train::given;
use super::{fetched, named, number, percent, sense, whole, written};
use crate::args_route::{AddArgs, FitArgs, Method, ReduceArg, RemoveArgs, SimilarityArg};
use crate::hub::Hub;
use crate::ui::{Failure, Ui};

/// What is asked: a model, experts with their tasks, a file that prepares pictures.
struct Asked {
    model: String,
    experts: Vec<Expert>,
    tasks: Vec<String>,
    preprocessor: Option<std::path::PathBuf>,
}

/// Runs `route fit`.
pub fn run(args: &FitArgs, hub: &Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let settings = settings(args);
    settings.check()?;
    OutputFile::check(&args.output, args.writing.force)?;
    let bounds = bounds(args)?;
    let asked = asked(args)?;
    let tasks = given(&asked.tasks, &args.places)?;
    let mut experts = asked.experts;
    let results = results(args)?;
    if !results.is_empty() {
        experts = results.iter().map(|(name, _)| saved(name)).collect();
    } else if settings.method == route::Method::PredictedLoss {
        let what = "predicted_loss learns from the scores of saved systems";
        return Err(MergeError::plan("bad-flag", what)
            .hint("--results NAME=results.json,NAME=results.json of `polyloom eval`")
            .into());
    } else if experts.is_empty() {
        experts = tasks
            .iter()
            .map(|t| Expert {
                name: t.spec.id.clone(),
                path: None,
                task: None,
            })
            .collect();
    }
    if results.is_empty() {
        for (expert, task) in experts.iter_mut().zip(&tasks) {
            expert.task = Some(task.spec.id.clone());
        }
    }
    if results.is_empty() && experts.len() != tasks.len() {
        let what = format!("{} experts with {} tasks", experts.len(), tasks.len());
        return Err(MergeError::plan("bad-recipe", what)
            .hint("every [[expert]] needs one `task`, no group of them")
            .into());
    }
    if fetched(&asked.model, hub, ui)? {
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        let list: Vec<&str> = tasks.iter().map(|t| &*t.spec.id).collect();
        ui.answer(&format!(
            "plan: {} router over {} experts, features of {}\n  rows of split `{}`: {}\n  writes {}",
            settings.method.word(),
            experts.len(),
            asked.model,
            args.split,
            list.join(", "),
            args.output.display()
        ));
        ui.event(&json!({
            "type": "plan", "method": settings.method.word(), "experts": experts, "model": asked.model,
            "split": args.split, "tasks": list,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let preprocessor = asked.preprocessor.as_deref();
    let model = whole(&asked.model);
    let mut sense = Sense::open(&model, args.feature, args.reading.max_length, preprocessor)?;
    sense.batch = args.reading.batch;
    sense.warnings.iter().for_each(|w| ui.warning(w));
    let stop = super::super::stop_flag()?;
    let bar = ui.running();
    let names: Vec<String> = experts.iter().map(|e| e.name.clone()).collect();
    let mut watch = |task: usize, rows: usize| {
        if let Some(bar) = &bar {
            bar.say(&format!("features of {}: {rows} rows", tasks[task].spec.id));
        }
        !stop.load(Ordering::SeqCst)
    };
    let found = match results.is_empty() {
        true => on_tasks(&settings, &sense, experts, &tasks, &mut watch).map(|fitted| {
            told(&fitted, &names, ui);
            fitted.router
        }),
        false => {
            let costs = bounds.costs.clone();
            let scores: Vec<Scores> = results.into_iter().map(|(_, s)| s).collect();
            let seen = (&scores[..], costs);
            on_scores(&settings, &sense, experts, &tasks, seen, &mut watch)
                .and_then(|fitted| bound(fitted, bounds, ui))
        }
    };
    if let Some(bar) = bar {
        bar.end();
    }
    let router = found?;
    written(&router, &args.output, &args.writing, ui)
}

/// A saved system as an expert.
fn saved(name: &str) -> Expert {
    Expert {
        name: name.to_owned(),
        path: None,
        task: None,
    }
}

/// Scores of saved systems, by their names.
fn results(args: &FitArgs) -> Result<Vec<(String, Scores)>, Failure> {
    let mut found: Vec<(String, Scores)> = Vec::new();
    for given in &args.results {
        let (name, file) = named(given, "--results")?;
        if found.iter().any(|(n, _)| n == name) {
            let what = format!("`{name}` comes twice");
            return Err(MergeError::plan("bad-flag", what).at("--results").into());
        }
        found.push((name.to_owned(), records::read(Path::new(file))?));
    }
    Ok(found)
}

/// What choices cost and may cost.
struct Bounds {
    costs: Costs,
    limits: Limits,
    budget: Option<(String, f64)>,
}

fn bounds(args: &FitArgs) -> Result<Bounds, Failure> {
    if args.method != Method::PredictedLoss && !args.cost.is_empty() {
        let what = "costs are about predicted_loss";
        return Err(MergeError::plan("bad-flag", what).at("--cost").into());
    }
    let mut costs = Costs::new();
    for given in &args.cost {
        let (name, values) = named(given, "--cost")?;
        let values: Vec<f64> = values
            .split(',')
            .map(|v| number(v, "--cost"))
            .collect::<Result<_, _>>()?;
        if values.len() != args.results.len() || values.iter().any(|v| *v < 0.0) {
            let what = format!(
                "`{name}` has {} values for {} systems; each needs one, at least 0",
                values.len(),
                args.results.len()
            );
            return Err(MergeError::plan("bad-flag", what).at("--cost").into());
        }
        costs.insert(name.to_owned(), values);
    }
    let pairs = |list: &[String], flag: &str| -> Result<_, Failure> {
        let one = |given: &String| {
            let (name, value) = named(given, flag)?;
            Ok((name.to_owned(), number(value, flag)?))
        };
        list.iter().map(one).collect::<Result<_, Failure>>()
    };
    let budget = args.budget.as_deref().map(|given| {
        let (name, value) = named(given, "--budget")?;
        Ok::<_, Failure>((name.to_owned(), number(value, "--budget")?))
    });
    let budget = budget.transpose()?;
    let limits = Limits {
        weights: pairs(&args.weigh, "--weigh")?,
        most: pairs(&args.most, "--most")?,
        allowed: Vec::new(),
    };
    let asked = limits.weights.keys().chain(limits.most.keys());
    let mut asked = asked.chain(budget.iter().map(|(name, _)| name));
    if let Some(name) = asked.find(|name| !costs.contains_key(*name)) {
        let what = format!("there is no cost `{name}`");
        return Err(MergeError::plan("bad-flag", what)
            .hint(format!("--cost {name}=N,N,... gives one for every system"))
            .into());
    }
    Ok(Bounds {
        costs,
        limits,
        budget,
    })
}

/// Puts the limits into a router over saved systems.
fn bound(fitted: FittedScores, bounds: Bounds, ui: &Ui) -> polyloom_learn::Result<Router> {
    told_scores(&fitted, ui);
    let FittedScores {
        mut router, points, ..
    } = fitted;
    let names: Vec<String> = router.experts.iter().map(|e| e.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Rule::Predicted(rule) = &mut router.rule {
        rule.limits = bounds.limits;
        rule.under(&rule.limits, &names)?;
        if let Some((cost, budget)) = bounds.budget {
            let weight = rule.calibrate(&points, &cost, budget, &names)?;
            ui.say(&format!(
                "  weight {weight:.4} of `{cost}` keeps to {budget} on average over the rows learned from"
            ));
        }
    }
    Ok(router)
}

fn told_scores(fitted: &FittedScores, ui: &Ui) {
    let (held, names) = (&fitted.held, fitted.router.names());
    ui.say(&format!(
        "{} router over {} systems, feature {}, learned from {} rows\n  on {} held-out rows: choices score {:.4}, the best single system ({}) {:.4}, the best of each row {:.4}",
        fitted.router.method().word(),
        names.len(),
        fitted.router.tap,
        fitted.points.len(),
        held.rows,
        held.chosen,
        names[fitted.best],
        held.own,
        held.best
    ));
}

fn settings(args: &FitArgs) -> Fit {
    let method = match args.method {
        Method::Centroid => route::Method::Centroid,
        Method::Knn => route::Method::Knn,
        Method::Linear => route::Method::Linear,
        Method::Mlp => route::Method::Mlp,
        Method::Pilots => route::Method::Pilots,
        Method::PredictedLoss => route::Method::PredictedLoss,
    };
    let usual = MlpFit::default();
    Fit {
        split: args.split.clone(),
        most: args.max_per_task,
        seed: args.seed,
        temperature: args.temperature,
        min_similarity: args.min_similarity,
        k: args.k,
        reduce: match args.reduce {
            ReduceArg::Mean => route::Reduce::Mean,
            ReduceArg::Max => route::Reduce::Max,
        },
        similarity: match args.similarity {
            SimilarityArg::Dot => route::Similarity::Dot,
            SimilarityArg::Cosine => route::Similarity::Cosine,
        },
        mlp: MlpFit {
            hidden: args.hidden,
            rate: args.rate.unwrap_or(usual.rate),
            batch: args.batch_rows.unwrap_or(usual.batch),
            epochs: args.epochs.unwrap_or(usual.epochs),
            dropout: args.dropout.unwrap_or(usual.dropout),
            seed: usual.seed,
        },
        ..Fit::new(method)
    }
}

fn asked(args: &FitArgs) -> Result<Asked, Failure> {
    let preprocessor = args.reading.preprocessor.clone();
    let Some(file) = &args.experts else {
        return Ok(Asked {
            model: args.model.clone().unwrap_or_default(),
            experts: Vec::new(),
            tasks: args.tasks.clone(),
            preprocessor,
        });
    };
    let recipe = Recipe::open(Path::new(file), &[])?;
    let (mut experts, mut tasks) = (Vec::new(), Vec::new());
    for expert in &recipe.experts {
        let Some(task) = expert.task.clone() else {
            let what = format!("expert `{}` names no task", expert.path);
            return Err(MergeError::plan("bad-recipe", what)
                .at(file.display().to_string())
                .hint("task = \"...\" says whose rows are its examples")
                .into());
        };
        let name = expert.name.clone().unwrap_or_else(|| task.clone());
        if experts.iter().any(|e: &Expert| e.name == name) {
            let what = format!("two experts are called `{name}`");
            return Err(MergeError::plan("bad-recipe", what)
                .at(file.display().to_string())
                .hint("give one of them a `name`")
                .into());
        }
        experts.push(Expert {
            name,
            path: Some(whole(&expert.path)),
            task: None,
        });
        tasks.push(task);
    }
    Ok(Asked {
        model: args.model.clone().unwrap_or(recipe.base),
        experts,
        tasks,
        preprocessor: preprocessor.or(recipe.tune.preprocessor),
    })
}

fn told(fitted: &Fitted, names: &[String], ui: &Ui) {
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{} router, feature {}, {} numbers; right on {} of {} held-out rows",
        fitted.router.method().word(),
        fitted.router.tap,
        fitted.router.width(),
        percent(fitted.held.accuracy()),
        fitted.held.rows()
    )];
    for (i, (name, rows)) in names.iter().zip(&fitted.rows).enumerate() {
        let (n, right) = fitted.held.of(i);
        lines.push(format!(
            "  {name:<width$}  {rows:>6} rows, held out {right}/{n}"
        ));
    }
    ui.say(&lines.join("\n"));
}

/// Runs `route add`.
pub fn add(args: &AddArgs, hub: &Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let mut router = Router::open(&args.router)?;
    OutputFile::check(&args.output, args.writing.force)?;
    let tasks = given(std::slice::from_ref(&args.task), &args.places)?;
    let [task] = &tasks[..] else {
        let what = format!(
            "`{}` is {} tasks; an expert has one",
            args.task,
            tasks.len()
        );
        return Err(MergeError::plan("bad-flag", what).into());
    };
    let name = args.name.clone().unwrap_or_else(|| task.spec.id.clone());
    let sense = sense(&router, args.model.as_deref(), args.batch, hub, ui)?;
    let stop = super::super::stop_flag()?;
    let mut watch = |_| !stop.load(Ordering::SeqCst);
    let found = sense.task(task, &args.split, args.max_per_task, args.seed, &mut watch)?;
    let expert = Expert {
        name,
        path: args.expert.as_deref().map(whole),
        task: Some(task.spec.id.clone()),
    };
    let rows = found.points.len();
    ui.say(&format!("`{}` added from {rows} rows", expert.name));
    router.add(expert, &found.points, args.k)?;
    written(&router, &args.output, &args.writing, ui)
}

/// Runs `route remove`.
pub fn remove(args: &RemoveArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let mut router = Router::open(&args.router)?;
    OutputFile::check(&args.output, args.writing.force)?;
    router.remove(&args.expert)?;
    written(&router, &args.output, &args.writing, ui)
}
