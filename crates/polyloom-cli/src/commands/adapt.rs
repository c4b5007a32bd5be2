//! `polyloom adapt`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use polyloom::adapt::{
    self, AdapterSet, Combination, CombineOptions, ExtractOptions, FoldWriteOptions, SignRule,
    Split,
};
use polyloom::moe;
use polyloom::plan::reference::{Places, locate};
use polyloom::recipe::Dialect;
use polyloom::{MergeError, Result};
use polyloom_core::peft::{AdapterFolder, FoldOptions, Folded};
use polyloom_core::writer::{FolderOptions, human};
use polyloom_core::{Checkpoint, DType};
use polyloom_learn::models::streams::layer_inputs;
use serde_json::json;

use crate::args_adapt::{
    AdaptArgs, AdaptCommand, AdapterOut, CombineArgs, ExtractArgs, FoldArgs, MoeArgs,
};
use crate::hub::{self, Brought, Hub, Need, Role};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: AdaptArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let (needs, dry_run) = needs_of(&args.command);
    if hub(dry_run).bring(needs, Dialect::Loom, &Places::default(), ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    match args.command {
        AdaptCommand::Fold(args) => fold(&args, ui),
        AdaptCommand::Extract(args) => extract(args, ui),
        AdaptCommand::Combine(args) => combine(&args, ui),
        AdaptCommand::Stack(args) => {
            let adapters = open_all(&args.adapters)?;
            let sizes = weights(&args.sizes, &args.adapters)?;
            let set = adapt::stack(&adapters, &sizes, dtype(args.out.dtype.as_deref())?)?;
            write(
                &set,
                &format!("{} adapters, stacked exactly.", adapters.len()),
                &args.out,
                ui,
            )
        }
        AdaptCommand::Resize(args) => {
            let set = adapt::resize(&open_adapter(&args.adapter)?, args.rank)?;
            write(
                &set,
                &format!("`{}` at rank {}.", args.adapter.display(), args.rank),
                &args.out,
                ui,
            )
        }
        AdaptCommand::Convert(args) => {
            let base = args.base.as_deref().map(open_base).transpose()?;
            let set = adapt::to_plain_lora(&open_adapter(&args.adapter)?, base.as_ref())?;
            write(
                &set,
                &format!("`{}` as plain LoRA.", args.adapter.display()),
                &args.out,
                ui,
            )
        }
        AdaptCommand::ScaleIntruders(args) => {
            let base = open_base(&args.base)?;
            let adapter = open_adapter(&args.adapter)?;
            let (set, counts) =
                adapt::scale_intruders(&adapter, &base, args.top_k, args.epsilon, args.lambda)?;
            let total: usize = counts.iter().map(|c| c.1).sum();
            ui.say(&format!(
                "{total} intruder dimensions in {} modules",
                counts.iter().filter(|c| c.1 > 0).count()
            ));
            write(
                &set,
                &format!(
                    "`{}` with {total} intruder dimensions scaled by {}.",
                    args.adapter.display(),
                    args.lambda
                ),
                &args.out,
                ui,
            )
        }
        AdaptCommand::Moe(args) => assemble(&args, hub(false), ui),
    }
}

fn path_of(text: &str) -> Result<PathBuf> {
    locate(text, None, Dialect::Loom, &Places::default())
}

fn open_base(text: &str) -> Result<Checkpoint> {
    Ok(Checkpoint::open(path_of(text)?)?)
}

fn open_adapter(path: &Path) -> Result<AdapterFolder> {
    let path = match path.to_str() {
        Some(text) => path_of(text)?,
        None => path.to_owned(),
    };
    Ok(AdapterFolder::open(path)?)
}

/// The models and adapters that a command opens, and whether it only plans.
fn needs_of(command: &AdaptCommand) -> (Vec<Need<'_>>, bool) {
    fn need(role: Role, path: &str) -> Need<'_> {
        Need {
            role,
            path,
            revision: None,
        }
    }
    fn adapter(path: &Path) -> Option<Need<'_>> {
        path.to_str().map(|text| need(Role::Adapter, text))
    }
    let model = |text| need(Role::Model, text);
    match command {
        AdaptCommand::Fold(args) => {
            let needs = adapter(&args.adapter)
                .into_iter()
                .chain([model(&args.base)]);
            (needs.collect(), args.out.dry_run)
        }
        AdaptCommand::Extract(args) => (vec![model(&args.base), model(&args.model)], false),
        AdaptCommand::Combine(args) => (
            args.adapters.iter().filter_map(|p| adapter(p)).collect(),
            false,
        ),
        AdaptCommand::Stack(args) => (
            args.adapters.iter().filter_map(|p| adapter(p)).collect(),
            false,
        ),
        AdaptCommand::Resize(args) => (adapter(&args.adapter).into_iter().collect(), false),
        AdaptCommand::Convert(args) => {
            let base = args.base.as_deref().map(model);
            (
                adapter(&args.adapter).into_iter().chain(base).collect(),
                false,
            )
        }
        AdaptCommand::ScaleIntruders(args) => {
            let needs = adapter(&args.adapter)
                .into_iter()
                .chain([model(&args.base)]);
            (needs.collect(), false)
        }
        // Its file says what it needs.
        AdaptCommand::Moe(_) => (Vec::new(), false),
    }
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<AdapterFolder>, Failure> {
    let mut errors = Vec::new();
    let mut adapters = Vec::new();
    for path in paths {
        match open_adapter(path) {
            Ok(adapter) => adapters.push(adapter),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(adapters)
    } else {
        Err(errors.into())
    }
}

fn dtype(word: Option<&str>) -> Result<Option<DType>> {
    word.map(|word| {
        DType::from_word(word)
            .filter(|d| d.is_float())
            .ok_or_else(|| {
                MergeError::plan("bad-dtype", format!("`{word}` is not a type to write"))
                    .hint("one of f32, bf16, f16, f64")
            })
    })
    .transpose()
}

/// Weights by position, by folder name, or from a file.
fn weights(text: &str, adapters: &[PathBuf]) -> Result<Vec<f64>> {
    let names: Vec<&str> = adapters
        .iter()
        .map(|p| p.file_name().and_then(|n| n.to_str()).unwrap_or_default())
        .collect();
    let number = |t: &str| {
        t.trim()
            .parse::<f64>()
            .map_err(|_| MergeError::plan("bad-value", format!("weight `{t}` is not a number")))
    };
    let by_name = |pairs: Vec<(String, f64)>| -> Result<Vec<f64>> {
        if let Some((unknown, _)) = pairs.iter().find(|(n, _)| !names.contains(&n.as_str())) {
            return Err(MergeError::plan(
                "bad-value",
                format!("a weight is given for `{unknown}`, which is not among the adapters"),
            )
            .hint(format!("the names are {}", names.join(", "))));
        }
        names
            .iter()
            .map(|name| {
                pairs
                    .iter()
                    .find(|(n, _)| n == name)
                    .map(|p| p.1)
                    .ok_or_else(|| {
                        MergeError::plan("bad-value", format!("no weight is given for `{name}`"))
                    })
            })
            .collect()
    };
    if Path::new(text).is_file() {
        let content =
            std::fs::read_to_string(text).map_err(|e| polyloom_core::Error::io(text, "read", e))?;
        let mut pairs = Vec::new();
        for line in content.lines().filter(|l| !l.trim().is_empty()) {
            let (name, weight) = line.rsplit_once(',').ok_or_else(|| {
                MergeError::plan("bad-value", format!("line `{line}` is not `name,weight`"))
                    .at(text)
            })?;
            if let Ok(weight) = weight.trim().parse() {
                pairs.push((name.trim().to_owned(), weight));
            } else if !pairs.is_empty() {
                // Only the first line may be a heading.
                return Err(
                    MergeError::plan("bad-value", format!("line `{line}` has no number")).at(text),
                );
            }
        }
        return by_name(pairs);
    }
    if text.contains('=') {
        let pairs = text
            .split(',')
            .map(|pair| {
                let (name, weight) = pair.split_once('=').ok_or_else(|| {
                    MergeError::plan("bad-value", format!("`{pair}` is not name=weight"))
                })?;
                Ok((name.trim().to_owned(), number(weight)?))
            })
            .collect::<Result<_>>()?;
        return by_name(pairs);
    }
    let list = text.split(',').map(number).collect::<Result<Vec<_>>>()?;
    match list.len() {
        1 => Ok(vec![list[0]; adapters.len()]),
        n if n == adapters.len() => Ok(list),
        n => Err(MergeError::plan(
            "list-length",
            format!("{n} weights for {} adapters", adapters.len()),
        )),
    }
}

fn write(set: &AdapterSet, summary: &str, out: &AdapterOut, ui: &Ui) -> Result<ExitCode, Failure> {
    for warning in &set.warnings {
        ui.warning(warning);
    }
    let options = FolderOptions {
        force: out.force,
        no_sync: out.no_sync,
        ..FolderOptions::default()
    };
    let folder = set.write(&out.output, summary, options)?;
    let errors: Vec<f64> = set.report.iter().filter_map(|r| r.relative_error).collect();
    let worst = errors.iter().copied().fold(0.0, f64::max);
    if !errors.is_empty() {
        ui.say(&format!(
            "{} modules, relative error up to {worst:.3e}",
            set.modules.len()
        ));
    }
    ui.event(&json!({"type": "done", "output": folder, "modules": set.modules.len(), "worst_relative_error": worst}));
    ui.answer(&folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}

fn fold(args: &FoldArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let target = args
        .out
        .output
        .clone()
        .ok_or_else(|| MergeError::plan("arguments", "no output folder").hint("add -o DIR"))?;
    if args.out.resume || args.out.hash != crate::args::Hash::Fast {
        return Err(MergeError::plan(
            "arguments",
            "`adapt fold` knows neither --resume nor --hash",
        )
        .hint(format!(
            "`polyloom convert {}+{} -o …` does the same and knows both",
            args.base,
            args.adapter.display()
        ))
        .into());
    }
    let base = Arc::new(open_base(&args.base)?);
    let adapter = open_adapter(&args.adapter)?;
    let folded = Folded::with(
        base,
        adapter,
        FoldOptions {
            weight: args.weight,
        },
    )?;
    if args.out.dry_run {
        let touched = folded
            .tensors()
            .iter()
            .filter(|(n, ..)| folded.touched(n))
            .count();
        ui.answer(&format!(
            "plan: fold {} into {}: {touched} tensors change",
            args.adapter.display(),
            args.base
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let options = FoldWriteOptions {
        dtype: dtype(args.dtype.as_deref())?,
        shard_size: args.out.shard_size,
        allow_nonfinite: args.out.allow_nonfinite,
        folder: FolderOptions {
            force: args.out.force,
            no_sync: args.out.no_sync,
            ..FolderOptions::default()
        },
    };
    let report = adapt::fold(&folded, &target, &options)?;
    for warning in &report.warnings {
        ui.warning(warning);
    }
    ui.say(&format!(
        "{} of {} tensors changed, {}",
        report.touched,
        report.tensors,
        human(report.bytes)
    ));
    ui.event(&json!({"type": "done", "output": report.folder, "tensors": report.tensors, "touched": report.touched}));
    ui.answer(&report.folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}

fn extract(args: ExtractArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (base, tuned) = (open_base(&args.base)?, open_base(&args.model)?);
    let split = match (args.distribute_scale, args.scale_side.as_str()) {
        (true, _) => Split::Balanced,
        (false, "b") => Split::OnB,
        (false, _) => Split::OnA,
    };
    let options = ExtractOptions {
        rank: args.rank,
        energy: args.energy,
        sv_epsilon: args.sv_epsilon,
        split,
        include: args.include,
        exclude: args.exclude,
        embed_lora: args.embed_lora,
        skip_undecomposable: args.skip_undecomposable,
        modules_to_save: args.modules_to_save,
        dtype: dtype(args.out.dtype.as_deref())?,
        base_name: Some(args.base.clone()),
        ..ExtractOptions::default()
    };
    let set = adapt::extract(&base, &tuned, &options)?;
    write(
        &set,
        &format!("Extracted from `{}` against `{}`.", args.model, args.base),
        &args.out,
        ui,
    )
}

fn combine(args: &CombineArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let combination = Combination::from_word(&args.combination).ok_or_else(|| {
        let names: Vec<&str> = Combination::ALL.iter().map(|(w, _)| *w).collect();
        let error = MergeError::plan(
            "bad-value",
            format!(
                "unknown combination `{}`; expected one of: {}",
                args.combination,
                names.join(", ")
            ),
        );
        match polyloom::suggest::nearest(&args.combination, &names, 1).first() {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        }
    })?;
    let adapters = open_all(&args.adapters)?;
    let mut options = CombineOptions::new(combination, weights(&args.weights, &args.adapters)?);
    options.rank = args.rank;
    options.clamp = args.clamp;
    options.density = args.density;
    options.sign = if args.sign == "frequency" {
        SignRule::Frequency
    } else {
        SignRule::Total
    };
    options.seed = args.seed;
    options.dtype = dtype(args.out.dtype.as_deref())?;
    let set = adapt::combine(&adapters, &options)?;
    write(
        &set,
        &format!(
            "{} adapters, combined by `{}`.",
            adapters.len(),
            combination.word()
        ),
        &args.out,
        ui,
    )
}

fn assemble(args: &MoeArgs, hub: Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let text = std::fs::read_to_string(&args.recipe)
        .map_err(|e| polyloom_core::Error::io(&args.recipe, "read", e))?;
    let recipe = moe::MoeRecipe::parse(&text, &args.recipe.display().to_string())?;
    let places = Places {
        recipe_folder: args.recipe.parent().map(Path::to_owned),
        cache: None,
    };
    let models = recipe
        .experts
        .iter()
        .chain(&recipe.shared)
        .map(|e| &e.model);
    hub.bring(
        models.chain([&recipe.base]).flat_map(hub::needs),
        Dialect::Mergekit,
        &places,
        ui,
    )?;
    let open = |reference: &polyloom::recipe::ModelRef| -> Result<Checkpoint> {
        let path = locate(
            &reference.path,
            reference.revision.as_deref(),
            Dialect::Mergekit,
            &places,
        )?;
        Ok(Checkpoint::open(path)?)
    };
    let base = open(&recipe.base)?;
    let experts = recipe
        .experts
        .iter()
        .map(|e| open(&e.model))
        .collect::<Result<Vec<_>>>()?;
    let shared = recipe
        .shared
        .iter()
        .map(|e| open(&e.model))
        .collect::<Result<Vec<_>>>()?;
    let forward = |base: &Checkpoint, prompts: &[Vec<u32>], taken| {
        layer_inputs(base, prompts, taken).map_err(|error| match error {
            polyloom_learn::Error::Merge(error) => error,
            polyloom_learn::Error::Core(error) => error.into(),
            other => MergeError::plan("bad-model", other.to_string())
                .at(base.origin().display().to_string())
                .hint("gate_mode cheap_embed needs no forward pass"),
        })
    };
    let plan = moe::plan(
        &recipe,
        &base,
        &experts.iter().collect::<Vec<_>>(),
        &shared.iter().collect::<Vec<_>>(),
        Some(&forward),
    )?;
    plan.warnings.iter().for_each(|w| ui.warning(w));
    ui.say(&format!(
        "{} experts, {}",
        experts.len(),
        human(plan.bytes())
    ));
    let options = moe::RunOptions {
        output: args.output.clone(),
        shard_size: args.shard_size,
        seed: args.seed,
        force: args.force,
        no_sync: args.no_sync,
        allow_nonfinite: args.allow_nonfinite,
    };
    let folder = moe::run(&plan, &options)?;
    ui.event(&json!({"type": "done", "output": folder}));
    ui.answer(&folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}
