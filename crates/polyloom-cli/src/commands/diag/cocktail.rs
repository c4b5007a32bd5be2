//! `polyloom diag cocktail`: trainings of sets of tasks, by the commands that a user would type.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::suggest;
use polyloom_learn::train::Recipe;
use polyloom_learn::train::cocktail::{Effect, Judged, Mixture, confirm, judge, mixtures};
use serde_json::{Value, json};

use super::number;
use crate::args_diag::CocktailArgs;
use crate::commands::train::given;
use crate::commands::typed;
use crate::ui::{Failure, Ui};

const ALPHA: f64 = 0.05;

/// Letters of a mixture in the table.
const NAME: usize = 32;

/// Runs the command.
pub fn run(args: &CocktailArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let recipe = opened(args)?;
    let named = given(&recipe.train.tasks, &args.places)?;
    let tasks: Vec<String> = named.iter().map(|g| g.spec.id.clone()).collect();
    let targets = targets(args, &tasks)?;
    // What would fail after hours is said before anything is trained.
    for target in named.iter().filter(|g| targets.contains(&g.spec.id)) {
        for split in [&args.split, &args.confirm] {
            target.loader().split(split)?;
        }
    }
    let made = mixtures(&tasks, &targets);
    let out = &args.output;
    prepared(args, &recipe)?;
    ui.say(&format!(
        "{} trainings for {} of {} tasks",
        made.len(),
        targets.len(),
        tasks.len()
    ));
    ui.event(&json!({"type": "plan", "tasks": tasks, "targets": targets, "mixtures": made.iter().map(|m| &m.name).collect::<Vec<_>>()}));
    let run = Run {
        args,
        recipe: &recipe,
        quiet: ui.muted(),
    };
    let progress = ui.steps("mixtures", made.len() as u64);
    for (i, mixture) in (0..).zip(&made) {
        progress.at(i, &mixture.name);
        run.train(mixture)?;
        let own = mixture.tasks.iter().filter(|t| targets.contains(t));
        run.score(mixture, own, &args.split)?;
    }
    progress.end();
    let mut found = Vec::new();
    for target in &targets {
        let has = |m: &&Mixture| m.tasks.contains(target);
        let mut files: Vec<(usize, PathBuf)> = (0..)
            .zip(&made)
            .filter(|(_, m)| has(m))
            .map(|(i, m)| (i, run.results(m, &args.split)))
            .collect();
        // The target alone first.
        files.sort_by_key(|(i, _)| (made[*i].tasks.len() > 1, *i));
        let judged = judge(target, &files, ALPHA)?;
        let alone = files.first().map_or(0, |f| f.0);
        let confirmed = match judged.best() {
            Some(best) => {
                let pair = [&made[alone], &made[best.mixture]];
                for mixture in pair {
                    run.score(mixture, std::iter::once(target), &args.confirm)?;
                }
                let [first, second] = pair.map(|m| run.results(m, &args.confirm));
                Some(confirm(target, &first, &second, ALPHA)?)
            }
            None => None,
        };
        tell(&judged, confirmed.as_ref(), &made, args, ui);
        found.push(shown(&judged, confirmed.as_ref(), &made));
    }
    let file = out.join("cocktail.json");
    let all = json!({"version": 1, "recipe": args.recipe, "seed": recipe.seed, "split": args.split, "confirm": args.confirm, "targets": found});
    let text =
        serde_json::to_string_pretty(&all).map_err(|e| MergeError::Internal(e.to_string()))?;
    std::fs::write(&file, text + "\n").map_err(|e| polyloom_core::Error::io(&file, "write", e))?;
    ui.answer(&file.display().to_string());
    ui.event(&json!({"type": "done", "output": out, "targets": found}));
    Ok(ExitCode::SUCCESS)
}

/// The recipe with what flags say of it.
fn opened(args: &CocktailArgs) -> Result<Recipe, Failure> {
    let mut set = args.set.clone();
    if let Some(base) = &args.base {
        set.push((
            "base.path".into(),
            toml::Value::from(base.as_str()).to_string(),
        ));
    }
    if !args.tasks.is_empty() {
        let list: Vec<toml::Value> = args.tasks.iter().map(|t| t.clone().into()).collect();
        set.push(("train.tasks".into(), toml::Value::Array(list).to_string()));
    }
    if let Some(seed) = args.seed {
        set.push(("seed".into(), seed.to_string()));
    }
    let recipe = Recipe::open(&args.recipe, &set)?;
    let t = &recipe.train;
    let odd = [
        ("train.each", t.each),
        ("train.folds", t.folds.is_some()),
        ("train.stage", !t.stage.is_empty()),
    ];
    if let Some((key, _)) = odd.iter().find(|(_, there)| *there) {
        let what = format!("`{key}` does not go with sets of tasks: each is one plain training");
        return Err(MergeError::plan("bad-recipe", what)
            .at(args.recipe.display().to_string())
            .hint(format!("leave out {key}"))
            .into());
    }
    Ok(recipe)
}

/// The targets that were named, or all tasks.
fn targets(args: &CocktailArgs, tasks: &[String]) -> Result<Vec<String>, Failure> {
    if tasks.len() < 2 {
        let what = "one task alone has no other to learn with";
        return Err(MergeError::plan("bad-flag", what)
            .hint("-t A,B,C names the tasks")
            .into());
    }
    let names: Vec<&str> = tasks.iter().map(String::as_str).collect();
    for target in &args.target {
        if !tasks.contains(target) {
            let error = MergeError::plan(
                "bad-flag",
                format!("--target `{target}` is none of the tasks"),
            );
            let hint = match suggest::nearest(target, &names, 1).first() {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the tasks: {}", names.join(", ")),
            };
            return Err(error.hint(hint).into());
        }
    }
    Ok(match args.target.is_empty() {
        true => tasks.to_vec(),
        false => {
            let mut named = args.target.clone();
            named.dedup();
            named
        }
    })
}

/// The folder is there, may be filled, and what it has was trained by this recipe.
fn prepared(args: &CocktailArgs, recipe: &Recipe) -> Result<(), Failure> {
    let out = &args.output;
    if out.exists() && args.force {
        std::fs::remove_dir_all(out).map_err(|e| polyloom_core::Error::io(out, "remove", e))?;
    } else if out.exists() && !args.resume {
        return Err(MergeError::plan("output-exists", "exists already")
            .at(out.display().to_string())
            .hint("--resume goes on with what is there, --force replaces it")
            .into());
    }
    // Other tasks make other sets, which stand beside those that are there.
    let mut same = recipe.clone();
    same.train.tasks.clear();
    let same = serde_json::to_string_pretty(&same)
        .map_err(|e| MergeError::Internal(e.to_string()))?
        + "\n";
    let file = out.join("study.json");
    match std::fs::read_to_string(&file) {
        Ok(there) if there == same => return Ok(()),
        Ok(_) => {
            let what = "is of another recipe, base, seed or --set: its models are not those that were asked for";
            return Err(MergeError::plan("other-study", what)
                .at(file.display().to_string())
                .hint("choose another folder, or --force replaces it")
                .into());
        }
        Err(_) => {}
    }
    std::fs::create_dir_all(out.join("models"))
        .map_err(|e| polyloom_core::Error::io(out, "create", e))?;
    std::fs::write(&file, same).map_err(|e| polyloom_core::Error::io(&file, "write", e))?;
    Ok(())
}

struct Run<'a> {
    args: &'a CocktailArgs,
    recipe: &'a Recipe,
    quiet: Ui,
}

impl Run<'_> {
    fn model(&self, mixture: &Mixture) -> PathBuf {
        self.args.output.join("models").join(&mixture.name)
    }

    fn results(&self, mixture: &Mixture, split: &str) -> PathBuf {
        let name = match *split == self.args.split {
            true => format!("{}.json", mixture.name),
            false => format!("{}.{split}.json", mixture.name),
        };
        self.args.output.join(name)
    }

    /// Trains a mixture that is not there yet.
    fn train(&self, mixture: &Mixture) -> Result<(), Failure> {
        let model = self.model(mixture);
        if model.exists() {
            return Ok(());
        }
        let mut words = vec!["train".to_owned(), shown_path(&self.args.recipe)];
        words.extend(["-t".to_owned(), mixture.tasks.join(",")]);
        words.extend(["-o".to_owned(), shown_path(&model)]);
        words.extend(["--seed".to_owned(), self.recipe.seed.to_string()]);
        if let Some(base) = &self.args.base {
            words.extend(["--base".to_owned(), base.clone()]);
        }
        for (key, value) in &self.args.set {
            words.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        words.extend(["--resume", "--no-sync"].map(str::to_owned));
        words.extend(self.places());
        typed(&words, &self.quiet)
    }

    /// Scores tasks of a mixture; what is unchanged is not scored again.
    fn score<'t>(
        &self,
        mixture: &Mixture,
        tasks: impl Iterator<Item = &'t String>,
        split: &str,
    ) -> Result<(), Failure> {
        let tasks: Vec<&str> = tasks.map(String::as_str).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        let mut words = vec!["eval".to_owned(), shown_path(&self.model(mixture))];
        words.extend(["-t".to_owned(), tasks.join(",")]);
        words.extend(["--split".to_owned(), split.to_owned()]);
        words.extend(["--name".to_owned(), mixture.name.clone()]);
        words.extend(["-o".to_owned(), shown_path(&self.results(mixture, split))]);
        let language = self.recipe.train.language.as_ref();
        if let Some(prompt) = language.and_then(|l| l.prompt.as_ref()) {
            words.extend(["--prompt".to_owned(), prompt.clone()]);
        }
        words.extend(self.places());
        typed(&words, &self.quiet)
    }

    /// Where data and specs lie; tasks that were named by their files are known by id then.
    fn places(&self) -> Vec<String> {
        let mut places = self.args.places.clone();
        let files = self.recipe.train.tasks.iter().map(PathBuf::from);
        places.catalogue.extend(files.filter(|f| f.exists()));
        places.words()
    }
}

fn shown_path(path: &Path) -> String {
    path.display().to_string()
}

/// What a mixture has beside the target.
fn others(mixture: &Mixture, target: &str) -> String {
    if mixture.name == "all" {
        return "all tasks".to_owned();
    }
    let list: Vec<&str> = mixture
        .tasks
        .iter()
        .filter(|t| *t != target)
        .map(String::as_str)
        .collect();
    let text = list.join(" + ");
    match text.chars().count() > NAME {
        true => text.chars().take(NAME - 1).chain(['…']).collect(),
        false => text,
    }
}

fn tell(
    judged: &Judged,
    confirmed: Option<&Judged>,
    made: &[Mixture],
    args: &CocktailArgs,
    ui: &Ui,
) {
    let rows = match judged.rows {
        0 => String::new(),
        n => format!(" on {n} rows"),
    };
    ui.answer(&format!(
        "{}   {}{rows} of split {}",
        judged.target, judged.metric, args.split
    ));
    ui.answer(&format!(
        "  {:<NAME$}  {:>7}  {:>7}  {:<18}  {:>6}",
        "learned with", "value", "change", "95 % interval", "p"
    ));
    let best = judged.best().map(|b| b.mixture);
    let mark = |is: bool| if is { ">" } else { " " };
    ui.answer(&format!(
        "{} {:<NAME$}  {:>7}",
        mark(best.is_none()),
        "nothing else",
        number(judged.alone)
    ));
    for effect in &judged.effects {
        let Some(mixture) = made.get(effect.mixture) else {
            continue;
        };
        let is_best = best == Some(effect.mixture);
        ui.answer(&format!(
            "{} {:<NAME$}  {:>7}  {}",
            mark(is_best),
            others(mixture, &judged.target),
            number(effect.value),
            changed(effect)
        ));
    }
    let n = judged.effects.len();
    let Some(best) = judged.best() else {
        ui.answer("  learned alone it scores best\n");
        return;
    };
    let apart = match best.p_holm < ALPHA {
        true => "told apart from learning alone",
        false => "not told apart from learning alone",
    };
    ui.answer(&format!("  the best is {apart} (p by Holm over {n} sets)"));
    if let Some(effect) = confirmed.and_then(|c| c.effects.first()) {
        ui.answer(&format!(
            "  on split {}: {} beside {} alone, {}\n",
            args.confirm,
            number(effect.value),
            number(effect.value - effect.difference),
            changed(effect).trim_end()
        ));
    }
}

/// Change, interval and p-value.
fn changed(effect: &Effect) -> String {
    let interval = format!(
        "{:+.3} .. {:+.3}",
        effect.interval.low, effect.interval.high
    );
    let p = match effect.p_holm {
        p if p.is_nan() => "-".to_owned(),
        p if p < 1e-4 => "<.0001".to_owned(),
        p => format!("{p:.4}"),
    };
    format!("{:>+7.4}  {interval:<18}  {p:>6}", effect.difference)
}

fn shown(judged: &Judged, confirmed: Option<&Judged>, made: &[Mixture]) -> Value {
    let effect = |e: &Effect| {
        let mixture = made.get(e.mixture);
        json!({
            "mixture": mixture.map(|m| &m.name),
            "tasks": mixture.map(|m| &m.tasks),
            "value": e.value,
            "difference": e.difference,
            "interval": [e.interval.low, e.interval.high],
            "p": e.p,
            "p_holm": e.p_holm,
        })
    };
    let best = judged.best();
    json!({
        "target": judged.target,
        "metric": judged.metric,
        "higher_is_better": judged.higher_is_better,
        "rows": judged.rows,
        "alone": judged.alone,
        "mixtures": judged.effects.iter().map(effect).collect::<Vec<_>>(),
        "best": best.map(effect),
        "confirmed": confirmed.and_then(|c| c.effects.first()).map(|e| {
            json!({"value": e.value, "alone": e.value - e.difference, "difference": e.difference, "interval": [e.interval.low, e.interval.high], "p": e.p})
        }),
    })
}
