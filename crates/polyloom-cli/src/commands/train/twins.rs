//! `polyloom train --twins`: does it pay to learn the targets together? The same rows learned apart, and by boosted trees.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::evaluate::board::folds::is as is_folds;
use polyloom_learn::folds::{self, run::RESULTS};
use polyloom_learn::models::table::Common;
use polyloom_learn::train::Recipe;
use serde_json::json;

use super::super::typed;
use crate::args_train::TrainArgs;
use crate::ui::{Failure, Ui};

/// A whole network for each target.
const APART: &str = "single_task";
/// A boosted model for each target.
const TREES: &str = "gbdt";

/// The folder of twins, their scores and the report.
pub fn folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".twins");
    out.with_file_name(name)
}

/// What is asked for can be done.
///
/// # Errors
/// No new model of tables, one folder for each task, a folder of twins that is there.
pub fn check(args: &TrainArgs, recipe: &Recipe) -> Result<(), Failure> {
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-flag", what).hint(hint).into());
    let kind = recipe.train.new.as_ref().and_then(|n| n.get("model_type"));
    let table = kind.and_then(toml::Value::as_str);
    if !table.is_some_and(|k| k == "polyloom-table" || k == "polyloom-forest") {
        return bad(
            "--twins are those of a new model of tables",
            "polyloom train people.csv --targets A,B --model mmoe --twins -o people",
        );
    }
    if recipe.train.each {
        return bad(
            "--each learns every task apart already",
            "leave out --each or --twins",
        );
    }
    let folder = folder(&args.output);
    if folder.exists() && !args.force && !args.resume {
        return Err(MergeError::plan("output-exists", "exists already")
            .at(folder.display().to_string())
            .hint("choose another name or pass --force to replace it")
            .into());
    }
    Ok(())
}

/// Trains the twins of the model in `args.output`, scores all on the test rows and says what came of it.
///
/// # Errors
/// What training, scoring and reporting report.
pub fn run(args: &TrainArgs, recipe: &Recipe, ui: &Ui) -> Result<(), Failure> {
    let place = folder(&args.output);
    if args.force && place.exists() {
        std::fs::remove_dir_all(&place)
            .map_err(|e| polyloom_core::Error::io(&place, "remove", e))?;
    }
    std::fs::create_dir_all(&place).map_err(|e| polyloom_core::Error::io(&place, "create", e))?;
    let new = recipe.train.new.as_ref();
    let own = new
        .and_then(|n| n.get("architecture"))
        .and_then(toml::Value::as_str);
    let own = own.unwrap_or("shared_bottom").to_owned();
    let mut models = vec![(own.clone(), args.output.clone())];
    let folds = recipe.train.folds.is_some();
    for twin in [APART, TREES].into_iter().filter(|t| *t != own) {
        let out = place.join(twin);
        let scored = !folds || is_folds(&folds::folder(&out));
        if !out.exists() || !scored {
            ui.say(&format!("the same rows by {twin}"));
            typed(&words(twin, &out, args, recipe), &ui.muted())?;
        }
        models.push((twin.to_owned(), out));
    }
    let results = match folds {
        // Every row is answered by a model that did not see it: there is nothing to run.
        true => models
            .iter()
            .map(|(_, model)| folds::folder(model).join(RESULTS).display().to_string())
            .collect(),
        false => scored(&models, &place, args, recipe, ui)?,
    };
    let title = match folds {
        true => {
            "Does it pay to learn these targets together? Every row by models that did not see it"
        }
        false => "Does it pay to learn these targets together?",
    };
    let report = place.join("report.html").display().to_string();
    let mut page = vec!["report".to_owned()];
    page.extend(results.iter().cloned());
    page.extend(["-o", &report, "--force", "--title", title].map(str::to_owned));
    if models.iter().any(|m| m.0 == APART) {
        page.extend(["--baseline".to_owned(), APART.to_owned()]);
    }
    typed(&page, &ui.muted())?;
    for (other, file) in models.iter().zip(&results).skip(1) {
        ui.say(&format!("\n{} less {}:", own, other.0));
        let pair = match folds {
            true => [&other.1, &args.output].map(|m| folds::folder(m).display().to_string()),
            false => [file.clone(), results[0].clone()],
        };
        let [old, new] = pair;
        typed(&["compare".to_owned(), old, new], ui)?;
    }
    ui.answer(&report);
    ui.event(&json!({"type": "twins", "models": models.iter().map(|m| &m.0).collect::<Vec<_>>(), "results": results, "report": report}));
    Ok(())
}

/// Results of all models on the test rows.
fn scored(
    models: &[(String, PathBuf)],
    place: &Path,
    args: &TrainArgs,
    recipe: &Recipe,
    ui: &Ui,
) -> Result<Vec<String>, Failure> {
    let mut results = Vec::new();
    for (name, model) in models {
        let file = place.join(format!("{name}.json"));
        let (model, shown) = (model.display().to_string(), file.display().to_string());
        let mut eval: Vec<String> = ["eval", &model, "--name", name, "-o", &shown]
            .map(str::to_owned)
            .to_vec();
        eval.extend(tasks(recipe));
        eval.extend(args.places.words());
        if !file.exists() {
            typed(&eval, &ui.muted())?;
        }
        results.push(shown);
    }
    Ok(results)
}

/// The command that trains a twin: the same rows, seed and steps; of the network's keys those that both read.
fn words(twin: &str, out: &Path, args: &TrainArgs, recipe: &Recipe) -> Vec<String> {
    let t = &recipe.train;
    let out = out.display().to_string();
    let mut words: Vec<String> = ["train", "--model", twin, "-o", &out, "--no-sync"]
        .map(str::to_owned)
        .to_vec();
    words.extend(tasks(recipe));
    words.extend(args.places.words());
    words.extend(args.resume.then(|| "--resume".to_owned()));
    let mut set = |key: &str, value: String| {
        words.push("--set".to_owned());
        words.push(format!("{key}={value}"));
    };
    set("seed", recipe.seed.to_string());
    if let Some(folds) = t.folds {
        set("train.folds", folds.to_string());
    }
    if let Some(repeats) = t.repeats {
        set("train.repeats", repeats.to_string());
    }
    if !t.fold_splits.is_empty() {
        set(
            "train.fold_splits",
            toml::Value::from(t.fold_splits.clone()).to_string(),
        );
    }
    if let Some(limit) = t.limit {
        set("train.limit", limit.to_string());
    }
    if let Some(weight) = &t.class_weight {
        set("train.class_weight", weight.toml().to_string());
    }
    let new = t.new.clone().unwrap_or_default();
    if let Some(goals) = new.get("goals") {
        set("train.new.goals", goals.to_string());
    }
    // Trees read the same columns: running text as the same vectors.
    let embed = new.get("prepare").and_then(|p| p.get("embed"));
    if let Some(embed) = embed.filter(|_| twin != APART) {
        set("train.new.prepare.embed", embed.to_string());
    }
    if twin == APART {
        let kept = Common::ALL.iter().map(|c| c.word());
        let kept = kept.chain(["embed_dim", "prepare"]);
        for key in kept {
            if let Some(value) = new.get(key) {
                set(&format!("train.new.{key}"), value.to_string());
            }
        }
        set("train.batch", t.batch.to_string());
        set("train.rate", format!("{:?}", recipe.rate()));
        set("train.patience", t.patience.to_string());
        match (t.steps, t.epochs) {
            (Some(steps), _) => set("train.steps", steps.to_string()),
            (None, Some(epochs)) => set("train.epochs", format!("{epochs:?}")),
            (None, None) => {}
        }
    }
    words
}

fn tasks(recipe: &Recipe) -> Vec<String> {
    let all = recipe.train.tasks.iter();
    all.flat_map(|t| ["-t".to_owned(), t.clone()]).collect()
}
