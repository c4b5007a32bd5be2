//! `polyloom tune`

mod tables;
mod told;
mod trials;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use polyloom::plan::reference::Places;
use polyloom::recipe::{self, Dialect};
use polyloom_core::writer::FolderOptions;
use polyloom_learn::tune::learn::Step;
use polyloom_learn::tune::recipe::{Expert, Loss};
use polyloom_learn::tune::session::{Finished, Told};
use polyloom_learn::tune::{Recipe, tune};
use serde_json::json;

use super::train::given;
use super::weave;
use crate::args_tune::{Method, Per, TuneArgs};
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Running, Ui};

/// Runs the command.
pub fn run(args: &TuneArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    if let Some(asked) = trials::asked(args, ui)? {
        return trials::run(&asked, args, hub, ui);
    }
    if weave::is_asked(args) {
        return weave::run(args, hub, ui);
    }
    let recipe = asked(args)?;
    let tasks = given(&recipe.tasks(), &args.places)?;
    if bring(&recipe.base, &recipe.experts, &hub(args.dry_run), ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        planned(&recipe, args, ui);
        return Ok(ExitCode::SUCCESS);
    }
    let stop = super::stop_flag()?;
    let options = FolderOptions {
        force: args.force,
        no_sync: args.no_sync,
        ..FolderOptions::default()
    };
    let mut line = Line {
        ui,
        bar: ui.running(),
        steps: (0, 0),
        told: Instant::now(),
    };
    let done = tune(
        &recipe,
        &tasks,
        &args.output,
        options,
        args.resume,
        &mut |told| {
            line.tell(told);
            !stop.load(Ordering::SeqCst)
        },
    );
    if let Some(bar) = line.bar {
        bar.end();
    }
    if done.is_err() && stop.load(Ordering::SeqCst) {
        ui.note("stopped after a step; the same command with --resume goes on");
    }
    match done? {
        Some(done) => finished(&done, &recipe, ui),
        None => ui.note("is done already; nothing to go on with"),
    }
    ui.answer(&args.output.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// Brings base and experts that lie on the Hub.
pub(super) fn bring(
    base: &str,
    experts: &[Expert],
    hub: &Hub,
    ui: &Ui,
) -> Result<Brought, Failure> {
    let mut named = vec![base.to_owned()];
    named.extend(experts.iter().map(|e| e.path.clone()));
    let one = |path| recipe::from_models("passthrough", None, std::slice::from_ref(path));
    let models: Vec<_> = named.iter().map(one).collect::<Result<_, _>>()?;
    let needs = models
        .iter()
        .flat_map(|r| &r.models)
        .flat_map(|m| hub::needs(&m.reference));
    Ok(hub.bring(needs, Dialect::Loom, &Places::default(), ui)?)
}

/// The recipe with the flags put in.
fn asked(args: &TuneArgs) -> Result<Recipe, Failure> {
    let mut set = args.set.clone();
    let mut put = |key: &str, value: Option<String>| {
        set.extend(value.map(|value| (key.to_owned(), value)));
    };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    put("base.path", args.base.as_deref().map(quoted));
    if !args.tasks.is_empty() {
        let list: Vec<toml::Value> = args.tasks.iter().map(|t| t.clone().into()).collect();
        put("tune.tasks", Some(toml::Value::Array(list).to_string()));
    }
    let heads = args.heads.as_ref().map(|p| p.display().to_string());
    put("tune.heads", heads.as_deref().map(quoted));
    put("tune.method", args.method.map(Method::word).map(quoted));
    let per = args.per.map(|p| match p {
        Per::Tensor => "tensor",
        Per::Task => "task",
    });
    put("tune.per", per.map(quoted));
    put("tune.split", args.split.as_deref().map(quoted));
    put("tune.limit", args.limit.map(|x| x.to_string()));
    put("tune.steps", args.steps.map(|x| x.to_string()));
    put("tune.batch", args.batch.map(|x| x.to_string()));
    put("tune.rate", args.rate.map(|x| format!("{x:?}")));
    put("tune.max_length", args.max_length.map(|x| x.to_string()));
    put("seed", args.seed.map(|x| x.to_string()));
    Ok(match file(args) {
        Some(file) => Recipe::open(file, &set)?,
        None => {
            let table = |path: &String| {
                let mut expert = toml::Table::new();
                expert.insert("path".into(), path.clone().into());
                toml::Value::Table(expert)
            };
            let mut whole = toml::Table::new();
            let experts = args.inputs.iter().map(table).collect();
            whole.insert("expert".into(), toml::Value::Array(experts));
            Recipe::read(&whole.to_string(), "flags", &set)?
        }
    })
}

/// The recipe that is named, where no experts are.
pub(super) fn file(args: &TuneArgs) -> Option<&Path> {
    match &args.inputs[..] {
        [one] if Path::new(one).extension().is_some_and(|e| e == "toml") => Some(Path::new(one)),
        _ => None,
    }
}

/// What would be done.
fn planned(recipe: &Recipe, args: &TuneArgs, ui: &Ui) {
    let t = &recipe.tune;
    let loss = match recipe.loss() {
        Loss::Entropy => "the entropy of unlabelled rows",
        Loss::EntropyShare => "the entropy of unlabelled rows as a share of ln(classes)",
        Loss::Information => "the information in the answers to unlabelled rows",
        Loss::Supervised => "the loss on labelled rows",
        Loss::Pseudo => "what sure rows are called, asked of changed ones,",
        Loss::Contrastive => "the contrastive loss of pairs",
    };
    ui.answer(&format!(
        "plan: coefficients of {} experts over {}, one per {}\n  against {loss} of split `{}`: {}\n  rate {}, seed {}\n  writes {}",
        recipe.experts.len(),
        recipe.base,
        format!("{:?}", recipe.per()).to_lowercase(),
        t.split,
        recipe.tasks().join(", "),
        recipe.rate(),
        recipe.seed,
        args.output.display(),
    ));
    ui.event(&json!({"type": "plan", "recipe": recipe}));
}

fn finished(done: &Finished, recipe: &Recipe, ui: &Ui) {
    let (first, last) = done.losses;
    let mut lines = vec![format!(
        "{} coefficients learned; loss {first:.4} at the first step, {last:.4} at the last",
        done.coefficients
    )];
    let width = done.experts.iter().map(|(n, _)| n.chars().count()).max();
    let width = width.unwrap_or(0);
    for (name, mean) in &done.experts {
        lines.push(format!("  {name:<width$}  mean coefficient {mean:.3}"));
    }
    ui.say(&lines.join("\n"));
    if recipe.tune.split == "test" {
        ui.note("the inputs of the test rows were seen (transductive): scores on them are no scores on new rows");
    }
    let means: serde_json::Map<_, _> = done
        .experts
        .iter()
        .map(|(n, m)| (n.clone(), json!(m)))
        .collect();
    ui.event(&json!({
        "type": "done", "output": done.folder, "coefficients": done.coefficients,
        "loss_first": first, "loss_last": last, "means": means,
    }));
}

/// The progress line.
struct Line<'a> {
    ui: &'a Ui,
    bar: Option<Running>,
    steps: (u32, u32),
    told: Instant,
}

impl Line<'_> {
    fn tell(&mut self, told: &Told) {
        match told {
            Told::Begun {
                experts,
                coefficients,
                rows,
                steps,
                from,
                warnings,
            } => {
                self.steps = *steps;
                let of_mask = match steps.0 {
                    0 => String::new(),
                    n => format!("{n} steps of a mask, "),
                };
                warnings.iter().for_each(|w| self.ui.warning(w));
                let list: Vec<String> = rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
                self.ui.say(&format!(
                    "{coefficients} coefficients of {experts} experts, {of_mask}{} steps{}; rows: {}",
                    steps.1,
                    from.map_or_else(String::new, |n| format!(", going on after step {n}")),
                    list.join(", ")
                ));
            }
            Told::Mask(step) => self.step("mask step", step, self.steps.0, &[]),
            Told::Step(step, means) => self.step("step", step, self.steps.1, means),
        }
    }

    fn step(&mut self, kind: &str, step: &Step, of: u32, means: &[f64]) {
        if let Some(bar) = &self.bar {
            bar.say(&format!("{kind} {}/{of}  loss {:.4}", step.step, step.loss));
        } else if self.ui.json && self.told.elapsed().as_secs() >= 1 {
            self.told = Instant::now();
            self.ui.event(&json!({"type": "progress", "of": kind, "step": step.step, "steps": of, "loss": step.loss, "losses": step.losses, "coefficients": means}));
        }
    }
}
