//! A run from recipe to folder: experts opened, heads found, rows read, coefficients learned, the merged model written.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::output::card::{self, CardInfo};
use polyloom::plan::open_model;
use polyloom::plan::reference::Places;
use polyloom::recipe::{self as merge, Dialect};
use polyloom_core::writer::{FolderOptions, OutputFolder};
use serde_json::json;

use super::coefficients::Coefficients;
use super::concrete::{self, Mask, learn_mask};
use super::keep::{self, ENDING, Keeper, Now, Stage};
use super::learn::{Progress, Settings, Step, learn};
use super::objective::{Wanted, chosen, objective, seen};
use super::recipe::{Loss, Method, On, Recipe};
use super::vectors::{Expert, Vectors};
use crate::engine::Parameters;
use crate::error::{Error, Result};
use crate::image::PREPROCESSOR;
use crate::models::{Source, Trained};
use crate::tasks::{Head, Opened, Reader};
use crate::train::Given;
use crate::train::Schedule;
use crate::train::log::{EVENTS, LOG, Log};
use crate::train::work::{There, Work};
use crate::train::write;

/// Name of the learned numbers in a folder.
pub const COEFFICIENTS: &str = "coefficients.json";

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Everything is read.
    Begun {
        /// Experts, coefficients in all.
        experts: usize,
        /// Numbers that are learned.
        coefficients: usize,
        /// Rows of every task.
        rows: Vec<(String, usize)>,
        /// Steps of the mask, where there is one, and of the coefficients.
        steps: (u32, u32),
        /// Steps that a run which was stopped had done, of the mask or of the coefficients.
        from: Option<u32>,
        /// Things to tell the user.
        warnings: Vec<String>,
    },
    /// A step of the mask.
    Mask(Step),
    /// A step, and every expert's mean coefficient after it.
    Step(Step, Vec<f64>),
}

/// A run that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Where.
    pub folder: PathBuf,
    /// Names of the experts, and the mean of their coefficients.
    pub experts: Vec<(String, f64)>,
    /// Numbers that were learned.
    pub coefficients: usize,
    /// Losses of the first and the last step.
    pub losses: (f64, f64),
}

/// Learns coefficients and writes the merged model with its heads to `out`; `None` where it is there already and `resume` asks
/// for no more. While the run goes on, its checkpoint and log lie in `<out>.tuning`; with `resume` a run that was stopped goes
/// on from there to the bytes that it would have written.
///
/// # Errors
/// Experts of another base, tasks without rows or heads, heads without classes where entropy is asked for, an output that
/// is there or an interrupted run (without `resume` or `force`), a checkpoint of another run, and as [`learn`].
pub fn tune(
    recipe: &Recipe,
    tasks: &[Given],
    out: &Path,
    options: FolderOptions,
    resume: bool,
    watch: &mut dyn FnMut(&Told) -> bool,
) -> Result<Option<Finished>> {
    recipe.check()?;
    let there = There {
        resume,
        force: options.force,
    };
    let Some(work) = Work::begin(out, ENDING, there, keep::steps)? else {
        return Ok(None);
    };
    let done = run(recipe, tasks, out, work.folder(), options, watch);
    work.end(done).map(Some)
}

/// The run, with its folder of work.
fn run(
    recipe: &Recipe,
    tasks: &[Given],
    out: &Path,
    work: &Path,
    options: FolderOptions,
    watch: &mut dyn FnMut(&Told) -> bool,
) -> Result<Finished> {
    let opened = Opened::open(&recipe.base)?;
    let mut warnings = opened.warnings.clone();
    let experts = experts(&recipe.experts, &mut warnings)?;
    let names: Vec<String> = experts.iter().map(|(name, _)| name.clone()).collect();
    let experts = experts.into_iter().map(|(_, e)| e).collect();
    let pictures = recipe.tune.preprocessor.as_deref();
    let reader = Reader::prepared(&opened.model, recipe.tune.max_length, pictures)?;
    let wanted = Wanted {
        base: &recipe.base,
        experts: &recipe.experts,
        heads: recipe.tune.heads.as_deref(),
        split: &recipe.tune.split,
        limit: recipe.tune.limit,
        entropy: !matches!(recipe.loss(), Loss::Supervised | Loss::Contrastive),
        vectors: (recipe.loss() == Loss::Contrastive).then_some(recipe.seed),
        table: "tune",
    };
    let seen = seen(&wanted, &opened, &reader, tasks)?;
    let seen = chosen(seen, recipe, &reader, tasks)?;
    let base = &opened.model.weights;
    let merged_names = trunk(&opened)?;
    let per = (recipe.per(), recipe.tune.groups);
    let vectors = Vectors::new(base, &merged_names, experts, per, recipe.seed)?;
    let vectors = match recipe.tune.density {
        Some(density) => vectors.selected(density)?,
        None => vectors,
    };
    let tensors = merged_names
        .iter()
        .map(|name| Ok((name.clone(), base.tensor(name)?.data().clone())))
        .collect::<Result<Vec<_>>>()?;
    let merged = Parameters::new(tensors)?;
    let frozen = base.with(
        seen.iter()
            .flat_map(|s| s.heads.iter().flat_map(Head::tensors)),
    );
    let init = recipe.init() as f32;
    let mut coefficients =
        Coefficients::new(vectors.rows(), vectors.experts(), init, recipe.form());
    let rows: Vec<usize> = seen.iter().map(|s| s.rows.len()).collect();
    let settings = settings(recipe, &rows);
    let masked = recipe.tune.method == Method::Concrete;
    let mut keeper = Keeper::new(work, recipe, tasks, &rows);
    let kept = keeper.kept()?;
    let begun = Told::Begun {
        experts: vectors.experts(),
        coefficients: coefficients.raw.len(),
        rows: tasks
            .iter()
            .map(|t| t.spec.id.clone())
            .zip(rows.clone())
            .collect(),
        steps: (
            if masked { recipe.tune.mask_steps } else { 0 },
            settings.schedule.steps,
        ),
        from: kept.as_ref().map(|k| k.progress.step),
        warnings,
    };
    if !watch(&begun) {
        return Err(polyloom_core::Error::Interrupted.into());
    }
    let mut teller = Teller {
        log: Log::keeping(work, |line| keep::is_of(kept.as_ref(), line))?,
        keeper,
        trouble: None,
        tasks,
        names: &names,
        watch,
    };
    let batch = recipe.batch(seen.len());
    let mut of_step =
        |source: &dyn Source, step| objective(recipe, &opened, &reader, &seen, batch, source, step);
    let mut progress = Progress::new(coefficients.raw.len());
    let mut mask = masked.then(|| Mask::new(&vectors.lengths()));
    let mut of_mask = mask.as_ref().map(|m| Progress::new(m.logits.len()));
    if let Some(kept) = kept {
        let numbers = match (kept.stage, &mut mask) {
            (Stage::Mask, Some(mask)) => &mut mask.logits,
            _ => &mut coefficients.raw,
        };
        if numbers.len() != kept.numbers.len() {
            return Err(teller.keeper.other());
        }
        numbers.copy_from_slice(&kept.numbers);
        match (kept.stage, &mut mask, kept.mask) {
            (Stage::Mask, ..) => of_mask = Some(kept.progress),
            (Stage::Coefficients, Some(mask), Some(done)) if done.len() == mask.logits.len() => {
                mask.logits = done;
                of_mask = None;
                progress = kept.progress;
            }
            (Stage::Coefficients, None, None) => progress = kept.progress,
            _ => return Err(teller.keeper.other()),
        }
    }
    if let (Some(mask), Some(progress)) = (&mut mask, &mut of_mask) {
        let t = &recipe.tune;
        let done = learn_mask(
            &concrete::Settings {
                steps: t.mask_steps,
                rate: t.mask_rate as f32,
                temperature: t.temperature as f32,
                inner_rate: (t.on == On::Adamerging).then_some(t.inner_rate as f32),
                seed: recipe.seed,
            },
            &vectors,
            &merged,
            &frozen,
            &coefficients,
            mask,
            progress,
            &mut of_step,
            &mut |step, mask, progress| {
                let now = Now {
                    stage: Stage::Mask,
                    progress,
                    numbers: &mask.logits,
                    mask: None,
                };
                teller.tell(&now, &Told::Mask(step.clone()))
            },
        );
        teller.ended(done)?;
    }
    let vectors = match &mask {
        Some(mask) => vectors.masked(mask.factors()),
        None => vectors,
    };
    let done = learn(
        &settings,
        &vectors,
        &merged,
        &frozen,
        &mut coefficients,
        &mut progress,
        &mut of_step,
        &mut |step, now, progress| {
            let at = Now {
                stage: Stage::Coefficients,
                progress,
                numbers: &now.raw,
                mask: mask.as_ref().map(|m| &m.logits[..]),
            };
            teller.tell(&at, &Told::Step(step.clone(), now.means()))
        },
    );
    teller.ended(done)?;
    let [first, last] = teller.keeper.losses.map(|x| x.unwrap_or(f64::NAN));
    let folder = OutputFolder::create(out, options)?;
    for name in [LOG, EVENTS] {
        folder.copy_file(&work.join(name), name)?;
    }
    let heads: Vec<Head> = seen.into_iter().flat_map(|s| s.heads).collect();
    let source = Trained {
        parameters: &merged,
        frozen: &frozen,
        seed: None,
    };
    write::model(&folder, &opened, &source, recipe.dtype()?)?;
    if let Some(file) = pictures {
        folder.copy_file(file, PREPROCESSOR)?;
    }
    for head in heads.iter().filter(|h| h.has_layers()) {
        let name = Head::path(Path::new("heads"), &head.task);
        folder.write_file(name, &head.bytes()?)?;
    }
    let text = |value: &serde_json::Value| {
        let text = serde_json::to_string_pretty(value);
        text.map_err(|e| Error::file(out, e.to_string()))
    };
    let table = coefficients.json(&names, &vectors.tensors(), recipe.tune.groups);
    folder.write_file(COEFFICIENTS, format!("{}\n", text(&table)?).as_bytes())?;
    let provenance = json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "tune",
        "base": write::whole_path(&recipe.base),
        "experts": recipe.experts.iter().map(|e| write::whole_path(&e.path)).collect::<Vec<_>>(),
        "recipe": recipe,
        "seed": recipe.seed,
        "steps": settings.schedule.steps,
        "coefficients": coefficients.raw.len(),
        "losses": {"first": first, "last": last},
        "test_inputs_seen": recipe.tune.split == "test",
        "tasks": write::listed(&heads),
    });
    folder.write_file(
        "polyloom.json",
        format!("{}\n", text(&provenance)?).as_bytes(),
    )?;
    let means: Vec<(String, f64)> = names.into_iter().zip(coefficients.means()).collect();
    folder.write_file(
        "README.md",
        card(recipe, &means, settings.schedule.steps, out).as_bytes(),
    )?;
    Ok(Finished {
        folder: folder.commit()?,
        experts: means,
        coefficients: coefficients.raw.len(),
        losses: (first, last),
    })
}

/// Whom a step is told: checkpoint, log, the caller.
struct Teller<'a> {
    keeper: Keeper<'a>,
    log: Log,
    trouble: Option<Error>,
    tasks: &'a [Given],
    names: &'a [String],
    watch: &'a mut dyn FnMut(&Told) -> bool,
}

impl Teller<'_> {
    /// Whether to go on.
    fn tell(&mut self, at: &Now<'_>, told: &Told) -> bool {
        let line = match told {
            Told::Mask(step) => line("mask", step, self.tasks, &[], &[]),
            Told::Step(step, means) => line("step", step, self.tasks, self.names, means),
            Told::Begun { .. } => return true,
        };
        let loss = line["loss"].as_f64();
        self.keeper.losses = [self.keeper.losses[0].or(loss), loss];
        let go_on = (self.watch)(told);
        let done = self
            .log
            .line(&line)
            .and_then(|()| self.keeper.keep(at, !go_on));
        self.trouble = done.err();
        go_on && self.trouble.is_none()
    }

    /// What stopped a loop, if it was not the caller.
    fn ended(&mut self, done: Result<()>) -> Result<()> {
        done.map_err(|e| self.trouble.take().unwrap_or(e))
    }
}

fn settings(recipe: &Recipe, rows: &[usize]) -> Settings {
    let t = &recipe.tune;
    Settings {
        schedule: Schedule {
            rate: recipe.rate() as f32,
            warm: 0,
            steps: recipe.steps(rows),
            shape: recipe.schedule(),
        },
        betas: t.betas.map(|b| b as f32),
        eps: t.eps as f32,
        decay: recipe.decay() as f32,
        clip: recipe.clip(),
        penalty: (t.penalty, t.penalty_power),
    }
}

/// Experts by their names, opened.
pub(crate) fn experts(
    named: &[super::recipe::Expert],
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Expert)>> {
    let mut found: Vec<(String, Expert)> = Vec::new();
    for expert in named {
        let recipe = merge::from_models("passthrough", None, std::slice::from_ref(&expert.path))?;
        let none = || MergeError::plan("arguments", "no model");
        let mut model = recipe.models.into_iter().next().ok_or_else(none)?;
        model.strip_prefix.clone_from(&expert.strip_prefix);
        model.add_prefix.clone_from(&expert.add_prefix);
        let opened = open_model(model, Dialect::Loom, &Places::default())?;
        warnings.extend(opened.warnings.iter().cloned());
        let name = expert.name.clone().or_else(|| expert.task.clone());
        let name = name.unwrap_or_else(|| opened.model.name.clone());
        if found.iter().any(|(n, _)| *n == name) {
            let what = format!("two experts are called `{name}`");
            let error = MergeError::plan("bad-recipe", what);
            return Err(error.hint("give one of them a `name`").into());
        }
        found.push((name, Expert::Stored(Box::new(opened))));
    }
    Ok(found)
}

/// Tensors that are merged: all with fractions but the model's own classifier.
pub(crate) fn trunk(opened: &Opened) -> Result<Vec<String>> {
    let own = opened.model.classifier()?;
    let of_head = |name: &str| {
        own.is_some() && (name.starts_with("classifier.") || name.starts_with("pre_classifier."))
    };
    let kept = opened
        .stored
        .iter()
        .filter(|(name, dtype, _)| dtype.is_float() && !of_head(name));
    Ok(kept.map(|(name, ..)| name.clone()).collect())
}

fn line(
    kind: &str,
    step: &Step,
    tasks: &[Given],
    experts: &[String],
    means: &[f64],
) -> serde_json::Value {
    let by = |names: Vec<&str>, values: &[f64]| {
        let pairs = names.into_iter().zip(values);
        let map: serde_json::Map<_, _> = pairs.map(|(n, x)| (n.to_owned(), json!(x))).collect();
        map
    };
    let ids = tasks.iter().map(|t| &*t.spec.id).collect();
    json!({
        "type": kind,
        "step": step.step,
        "loss": step.loss,
        "losses": by(ids, &step.losses),
        "coefficients": by(experts.iter().map(String::as_str).collect(), means),
        "gradient": step.length,
        "rate": step.rate,
    })
}

fn card(recipe: &Recipe, means: &[(String, f64)], steps: u32, target: &Path) -> String {
    let (method, source) = match recipe.tune.method {
        Method::Adamerging => ("adamerging", "AdaMerging (Yang et al. 2024)"),
        Method::Atlas => ("atlas", "aTLAS (Zhang et al. 2024)"),
        Method::Concrete => ("concrete", "a concrete mask (Tang et al. 2023)"),
        Method::SelfPositioning => ("self_positioning", "Self Positioning (Li et al. 2024)"),
    };
    let heads = match recipe.loss() {
        Loss::Contrastive => "",
        _ => ", heads in `heads/`",
    };
    let all = |name: &str, value: String| ("all".to_owned(), name.to_owned(), value);
    let mut parameters = vec![
        all("per", format!("{:?}", recipe.per()).to_lowercase()),
        all("rows", format!("split `{}`", recipe.tune.split)),
        all("steps", steps.to_string()),
        all("seed", recipe.seed.to_string()),
    ];
    for (name, mean) in means {
        parameters.push((
            name.clone(),
            "mean coefficient".into(),
            format!("{mean:.4}"),
        ));
    }
    card::render(&CardInfo {
        title: recipe.name.clone().unwrap_or_else(|| {
            let name = target.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }),
        library: "transformers".to_owned(),
        tag: "merge".to_owned(),
        summary: format!(
            "Merged by Polyloom with coefficients learned by {source} on {}; they are in `{COEFFICIENTS}`{heads}",
            recipe.tasks().join(", ")
        ),
        method: method.to_owned(),
        base: Some(recipe.base.clone()),
        parameters,
        versions: vec![("polyloom".to_owned(), env!("CARGO_PKG_VERSION").to_owned())],
        ..CardInfo::default()
    })
}
