//! The folder that a run gives: a model, a PEFT adapter or heads alone, with heads, card, log and provenance.

use std::path::{Path, PathBuf};

use polyloom::output::card::{self, CardInfo};
use polyloom::output::companion_files;
use polyloom_core::peft::adapter_files;
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};
use polyloom_core::{DType, dtype};
use serde_json::{Value as Json, json};

use super::log::{EVENTS, LOG};
use super::recipe::{Method, Recipe};
use super::run::{Job, Outcome};
use crate::engine::slice;
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::Trunk;
use crate::table::TABLE;
use crate::tasks::language::Learn;
use crate::tasks::{Head, Opened};

/// Bytes of a file of weights at most.
const SHARD: u64 = 5_000_000_000;

/// Writes the folder, all at once.
///
/// # Errors
/// A full disk, a folder that is there already (without `options.force`), weights too large for their type.
pub fn write(
    job: &Job<'_>,
    opened: &Opened,
    outcome: &Outcome,
    target: &Path,
    options: FolderOptions,
) -> Result<PathBuf> {
    let recipe = job.recipe;
    let mut heads = outcome.heads()?;
    if recipe.train.add.is_some() {
        heads.extend(others(opened, &heads)?);
    }
    let dtype = recipe.dtype()?;
    let folder = OutputFolder::create(target, options)?;
    match recipe.train.method {
        Method::Full => outcome
            .trainee
            .with(None, |source| model(&folder, opened, source, dtype))?,
        Method::Lora => {
            if let Some(set) = &outcome.trainee.low_rank {
                // PEFT looks at every module of the model, also at those that the tasks do not use.
                let modules: Vec<String> = opened
                    .stored
                    .iter()
                    .filter(|(_, dtype, shape)| dtype.is_float() && shape.len() == 2)
                    .filter_map(|(name, ..)| Some(name.strip_suffix(".weight")?.to_owned()))
                    .collect();
                let mut config = set.config(base_name(recipe).as_deref(), &modules);
                if recipe.train.language.is_some() {
                    config.insert("task_type".into(), json!("CAUSAL_LM"));
                }
                let tensors =
                    set.tensors(&outcome.trainee.parameters, dtype.unwrap_or(DType::F32))?;
                for (name, bytes) in adapter_files(target, &config, &tensors)? {
                    folder.write_file(name, &bytes)?;
                }
            }
        }
        Method::Head => {}
    }
    for head in heads.iter().filter(|h| h.has_file()) {
        let name = Head::path(Path::new("heads"), &head.task);
        folder.write_file(name, &head.bytes()?)?;
    }
    for name in [LOG, EVENTS] {
        let file = job.work.join(name);
        if file.exists() {
            folder.copy_file(&file, name)?;
        }
    }
    let provenance = provenance(job, outcome, &heads);
    let text = serde_json::to_string_pretty(&provenance)
        .map_err(|e| Error::file(target, format!("polyloom.json: {e}")))?;
    folder.write_file("polyloom.json", format!("{text}\n").as_bytes())?;
    folder.write_file("README.md", card(job, outcome, target).as_bytes())?;
    Ok(folder.commit()?)
}

/// Heads of the goals that a model had learned before others were added.
fn others(opened: &Opened, own: &[Head]) -> Result<Vec<Head>> {
    let folder = opened.model.folder.join("heads");
    let goals = opened.model.goals().unwrap_or_default().iter();
    let before = goals.filter(|g| !own.iter().any(|h| h.task == **g));
    let there = before.filter(|g| Head::path(&folder, g).exists());
    there
        .map(|g| Head::read(&Head::path(&folder, g), g))
        .collect()
}

/// The base as another program finds it from elsewhere: the whole path of a folder, a name of the Hub as it is.
fn base_name(recipe: &Recipe) -> Option<String> {
    recipe.base.as_deref().map(whole_path)
}

/// A folder by its whole path; what is no folder (a name of the Hub) as it was typed.
pub(crate) fn whole_path(typed: &str) -> String {
    let whole = Path::new(typed).canonicalize();
    whole.map_or_else(|_| typed.to_owned(), |p| p.display().to_string())
}

/// `config.json`, weights, tokenizer files of an opened model, with the weights of a source.
///
/// # Errors
/// A full disk, weights that are too large for their type.
pub(crate) fn model(
    folder: &OutputFolder,
    opened: &Opened,
    source: &dyn Source,
    dtype: Option<DType>,
) -> Result<()> {
    match &opened.model.trunk {
        Trunk::Forest(trees) => {
            if let Some(forest) = &trees.forest {
                folder.write_file("model.safetensors", &forest.bytes())?;
            }
        }
        _ => weights(folder, opened, source, dtype)?,
    }
    let mut config = opened.config.clone();
    if let (Some(dtype), Some(map)) = (dtype, config.as_object_mut()) {
        for key in ["dtype", "torch_dtype"] {
            if map.contains_key(key) {
                map.insert(key.into(), dtype.torch_name().into());
            }
        }
    }
    let text = serde_json::to_string_pretty(&config)
        .map_err(|e| Error::file(folder.target(), format!("config.json: {e}")))?;
    folder.write_file("config.json", format!("{text}\n").as_bytes())?;
    if let Some(made) = &opened.model.tokenizer {
        folder.write_file("tokenizer.json", made.tokenizer.as_bytes())?;
        folder.write_file("tokenizer_config.json", made.config.as_bytes())?;
    }
    let from = &opened.model.folder;
    if let (Some(table), false) = (&opened.model.table, from.is_dir()) {
        folder.write_file(TABLE, table.text()?.as_bytes())?;
    }
    if from.is_dir() {
        for file in companion_files(from)? {
            folder.copy_file(&from.join(&file), &file)?;
        }
    }
    Ok(())
}

/// The weights of an opened model, with those of a source.
fn weights(
    folder: &OutputFolder,
    opened: &Opened,
    source: &dyn Source,
    dtype: Option<DType>,
) -> Result<()> {
    let tensors: Vec<OutTensor> = opened
        .stored
        .iter()
        .map(|(name, stored, shape)| OutTensor {
            name: name.clone(),
            // Blocks of few bits cannot be written again.
            dtype: dtype.unwrap_or(if stored.is_block() {
                DType::F32
            } else {
                *stored
            }),
            shape: shape.clone(),
        })
        .collect();
    let layout = Layout::new(&tensors, SHARD, "model");
    let writer = TensorWriter::create(folder, &layout)?;
    for (i, out) in tensors.iter().enumerate() {
        if let Some(bytes) = opened.whole.get(&out.name) {
            writer.write(i, 0, bytes)?;
            continue;
        }
        let value = source.tensor(&out.name)?;
        let values = slice(value.data())?;
        let mut bytes = vec![0u8; out.bytes() as usize];
        let over = dtype::narrow(&values, out.dtype, &mut bytes);
        if over > 0 {
            let what = format!("{over} values are too large for {}", out.dtype);
            return Err(
                polyloom_core::Error::tensor(folder.target(), &out.name, what)
                    .with_hint("write them as f32: `dtype = \"f32\"`")
                    .into(),
            );
        }
        writer.write(i, 0, &bytes)?;
    }
    writer.close()?;
    if let Some((name, text)) = &layout.index {
        folder.write_file(name, text)?;
    }
    Ok(())
}

/// Heads as `polyloom.json` lists them.
pub(crate) fn listed(heads: &[Head]) -> Vec<Json> {
    let one = |h: &Head| {
        json!({
            "id": h.task,
            "head": h.has_file().then(|| format!("heads/{}.safetensors", h.task)),
            "feature": h.feature.word(),
            "kind": h.kind.word(),
            "labels": h.labels,
            "task_hash": h.task_hash,
        })
    };
    heads.iter().map(one).collect()
}

fn provenance(job: &Job<'_>, outcome: &Outcome, heads: &[Head]) -> Json {
    let recipe = job.recipe;
    let tasks = listed(heads);
    let scores = outcome.evaluation.as_ref().map(|e| {
        let of = |(name, (metric, value, n)): (&String, &(String, f64, u64))| {
            (
                name.clone(),
                json!({"metric": metric, "value": value, "n": n}),
            )
        };
        let tasks: serde_json::Map<String, Json> = e.tasks.iter().map(of).collect();
        json!({"split": recipe.train.validation, "step": e.step, "mean": e.mean, "tasks": tasks})
    });
    let mut provenance = json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "train",
        "base": base_name(recipe),
        "recipe": recipe,
        "seed": recipe.seed,
        "steps": {"done": outcome.steps.0, "given": outcome.steps.1},
        "scores": scores,
        "tasks": tasks,
    });
    if let Some(map) = provenance.as_object_mut() {
        if let Some(balance) = &outcome.balance {
            map.insert("balance".into(), Json::Object(balance.clone()));
        }
        if !outcome.epochs.is_empty() {
            map.insert("epochs".into(), json!(outcome.epochs));
        }
    }
    provenance
}

fn card(job: &Job<'_>, outcome: &Outcome, target: &Path) -> String {
    let recipe = job.recipe;
    let t = &recipe.train;
    let (library, method) = match t.method {
        Method::Full if job.model.experts().is_some() => (
            "polyloom",
            "full: every weight of the trunk that the task uses; its layers have experts, which other programs do not know",
        ),
        Method::Full if job.model.sensors().is_some() => (
            "polyloom",
            "full: every weight that the tasks use; its stems by sensor are known to no other program",
        ),
        Method::Full => (
            "transformers",
            "full: every weight of the trunk that the task uses",
        ),
        Method::Lora => ("peft", "lora: low-rank parts beside linear layers"),
        Method::Head => ("polyloom", "head: the head alone, the trunk stays"),
    };
    let tasks = t.tasks.join(", ");
    let parameter = |name: &str, value: String| ("all".to_owned(), name.to_owned(), value);
    let mut parameters = vec![
        parameter("seed", recipe.seed.to_string()),
        parameter("steps", outcome.steps.0.to_string()),
        parameter("batch", (t.batch * t.accumulate as usize).to_string()),
        parameter("rate", recipe.rate().to_string()),
    ];
    if let Some(balance) = &t.balance {
        parameters.push(parameter("balance", balance.method.clone()));
    }
    for (task, (metric, value, n)) in outcome.evaluation.iter().flat_map(|e| &e.tasks) {
        let name = format!("{metric} ({}, n {n})", t.validation);
        parameters.push((task.clone(), name, format!("{value:.4}")));
    }
    card::render(&CardInfo {
        title: recipe.name.clone().unwrap_or_else(|| {
            let name = target.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }),
        library: library.to_owned(),
        tag: "fine-tuned".to_owned(),
        summary: match &t.language {
            Some(language) => {
                let what = match language.learn {
                    Learn::Texts => "the texts of",
                    Learn::Answers => "answers to the prompts of",
                };
                format!("Trained by Polyloom on {what} {tasks}")
            }
            None if t.rebuilds() => {
                format!("Trained by Polyloom to rebuild masked patches of the pictures of {tasks}")
            }
            None if outcome.heads.iter().any(Head::has_layers) => {
                format!("Trained by Polyloom on {tasks}; heads of the tasks are in `heads/`")
            }
            None => format!("Trained by Polyloom on {tasks}; its vectors answer them"),
        },
        method: method.to_owned(),
        base: recipe.base.clone(),
        parameters,
        versions: vec![("polyloom".to_owned(), env!("CARGO_PKG_VERSION").to_owned())],
        ..CardInfo::default()
    })
}
