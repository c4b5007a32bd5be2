//! What stands beside the tensors: config.json, tokenizer, heads, model card, provenance.

use std::collections::BTreeMap;

use polyloom_core::DType;
use polyloom_core::checkpoint::Scratch;
use polyloom_core::writer::{Layout, OutTensor, OutputFolder, safetensors_bytes};
use serde_json::{Value, json};

use super::execute::{HashKind, Report, RunOptions};
use super::provenance::{self, InputRecord};
use super::{Head, Plan};
use crate::error::Result;
use crate::output::{card, chat_template, companion_files, config};
use crate::recipe::Dialect;

/// Writes everything but tensors into the folder under construction.
///
/// # Errors
/// Unreadable inputs or a full disk.
pub fn write(
    plan: &Plan,
    options: &RunOptions,
    folder: &OutputFolder,
    layout: &Layout,
    inputs: &[InputRecord],
    report: &mut Report,
) -> Result<()> {
    write_config(plan, folder, report)?;
    write_tokenizer(plan, folder, report)?;
    for head in &plan.heads {
        write_head(plan, head, folder)?;
    }
    if plan.recipe.dialect == Dialect::Mergekit
        && let Some(text) = &plan.recipe.text
    {
        folder.write_file("mergekit_config.yml", text.as_bytes())?;
    }
    folder.write_file(
        "README.md",
        card::render(&card_info(plan, folder)).as_bytes(),
    )?;
    let mut outputs = Vec::new();
    for shard in &layout.shards {
        let hash = match options.hash {
            HashKind::Full => Some(format!(
                "sha256:{}",
                provenance::sha256(&folder.path().join(&shard.name))?
            )),
            HashKind::Fast => Some(format!(
                "xxh3-64-header:{:016x}",
                polyloom_core::hash::xxh3(&shard.header[8..])
            )),
            HashKind::None => None,
        };
        outputs.push((shard.name.clone(), hash));
    }
    write_json(
        folder,
        "polyloom.json",
        &provenance::document(plan, inputs, &outputs),
    )
}

/// The type most bytes are written in.
fn main_dtype(plan: &Plan) -> DType {
    let mut bytes: BTreeMap<DType, u64> = BTreeMap::new();
    for output in plan.outputs.iter().filter(|o| o.tensor.dtype.is_float()) {
        *bytes.entry(output.tensor.dtype).or_default() += output.tensor.bytes();
    }
    bytes
        .into_iter()
        .max_by_key(|(_, n)| *n)
        .map_or(DType::F32, |(d, _)| d)
}

pub(crate) fn write_config(plan: &Plan, folder: &OutputFolder, report: &mut Report) -> Result<()> {
    let template = &plan.models[plan.template];
    let Some(original) = template.config() else {
        return Ok(());
    };
    let own_head = plan
        .outputs
        .iter()
        .any(|o| super::names::tied_to(&o.tensor.name, |_| true).is_some());
    let tied = original.get("tie_word_embeddings").and_then(Value::as_bool);
    let had_head = plan
        .models
        .iter()
        .any(|m| m.get("lm_head.weight").is_some());
    let old = template.blocks.main().map_or(0, |l| l.count);
    let layers = plan
        .stacked
        .iter()
        .map(|sources| config::LayerEdit {
            tower: None,
            old,
            sources: sources.as_slice(),
        })
        .collect();
    let tokenizer_of = plan
        .vocabulary
        .as_ref()
        .map(|v| v.files_from)
        .filter(|m| *m != plan.template);
    let edited = config::edit_config(
        original,
        &config::Edits {
            dtype: Some(main_dtype(plan)),
            layers,
            vocab_size: plan
                .vocabulary
                .as_ref()
                .map(|v| v.padded_size)
                .or(plan.truncated),
            token_ids: tokenizer_of.and_then(|m| plan.models[m].config()),
            tied: match tied {
                Some(true) if own_head => Some(false),
                Some(false) if !own_head && had_head => Some(true),
                _ => None,
            },
            dequantized: plan
                .models
                .iter()
                .any(|m| m.weights.checkpoint().dropped_scales()),
        },
    );
    report.notes.extend(edited.warnings);
    write_json(folder, "config.json", &edited.config)
}

pub(crate) fn write_json(folder: &OutputFolder, name: &str, value: &Value) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| crate::MergeError::Internal(format!("{name}: {e}")))?;
    text.push(b'\n');
    Ok(folder.write_file(name, &text)?)
}

pub(crate) fn write_tokenizer(
    plan: &Plan,
    folder: &OutputFolder,
    report: &mut Report,
) -> Result<()> {
    let source = plan
        .vocabulary
        .as_ref()
        .map_or(plan.template, |v| v.files_from);
    let from = plan.models[source].folder().to_owned();
    // A single file on its own is not a model folder: whatever lies beside it is not ours to copy.
    if plan.models[source].path.is_dir() {
        for file in companion_files(&from)? {
            let edited = plan.vocabulary.as_ref();
            if file == std::path::Path::new("tokenizer.json")
                && edited.is_some_and(|v| v.tokenizer_json.is_some())
            {
                continue;
            }
            if file == std::path::Path::new("tokenizer_config.json")
                && let Some(vocabulary) = edited
            {
                let config = polyloom_core::checkpoint::read_json(&from.join(&file))?;
                write_json(
                    folder,
                    "tokenizer_config.json",
                    &vocabulary.edit_tokenizer_config(&config),
                )?;
                continue;
            }
            folder.copy_file(&from.join(&file), &file)?;
        }
    }
    if let Some(json) = plan
        .vocabulary
        .as_ref()
        .and_then(|v| v.tokenizer_json.as_ref())
    {
        folder.write_file("tokenizer.json", json)?;
    }
    if let Some(wanted) = &plan.recipe.chat_template {
        let texts = plan
            .models
            .iter()
            .map(|m| chat_template::read(m.folder()))
            .collect::<Result<Vec<_>>>()?;
        match chat_template::resolve(wanted, &texts)? {
            None => report
                .notes
                .push("chat_template `auto`: no input has one, so none is written".into()),
            Some(text) => {
                let written = folder.path().join("tokenizer_config.json");
                let config = if written.exists() {
                    Some(polyloom_core::checkpoint::read_json(&written)?)
                } else {
                    None
                };
                let file_style = folder.path().join("chat_template.jinja").exists();
                let (config, file) = chat_template::write(config.as_ref(), &text, file_style);
                write_json(folder, "tokenizer_config.json", &config)?;
                if let Some(bytes) = file {
                    folder.write_file("chat_template.jinja", &bytes)?;
                }
            }
        }
    }
    if plan.models[plan.template].config().is_none() {
        report
            .notes
            .push("the inputs have no config.json, so the output has none".into());
    }
    Ok(())
}

/// `heads/<task>.safetensors` with its metadata (labels from the expert's config where it has any).
pub(crate) fn write_head(plan: &Plan, head: &Head, folder: &OutputFolder) -> Result<()> {
    let model = &plan.models[head.model];
    let mut tensors = Vec::new();
    for (name, stored) in &head.tensors {
        let Some(entry) = model.get(stored) else {
            continue;
        };
        let mut values = vec![0.0; entry.shape.iter().product()];
        model.read(stored, 0, &mut values, &mut Scratch::default())?;
        let dtype = if entry.dtype.is_float() && !entry.dtype.is_block() {
            entry.dtype
        } else {
            DType::F32
        };
        let tensor = OutTensor {
            name: name.clone(),
            dtype,
            shape: entry.shape.clone(),
        };
        let mut bytes = vec![0; tensor.bytes() as usize];
        polyloom_core::dtype::narrow(&values, dtype, &mut bytes);
        tensors.push((tensor, bytes));
    }
    let labels: Option<Vec<Value>> = model
        .config()
        .and_then(|c| c.get("id2label"))
        .and_then(Value::as_object)
        .map(|map| {
            let mut pairs: Vec<(usize, Value)> = map
                .iter()
                .filter_map(|(k, v)| k.parse().ok().map(|i| (i, v.clone())))
                .collect();
            pairs.sort_by_key(|p| p.0);
            pairs.into_iter().map(|p| p.1).collect()
        });
    let mut metadata = BTreeMap::from([
        ("task".to_owned(), head.task.clone()),
        ("kind".to_owned(), "classification".to_owned()),
        ("feature".to_owned(), "cls".to_owned()),
    ]);
    if let Some(labels) = labels {
        metadata.insert("labels".to_owned(), json!(labels).to_string());
    }
    let name = format!("heads/{}.safetensors", head.task);
    Ok(folder.write_file(name, &safetensors_bytes(&tensors, &metadata))?)
}

fn card_info(plan: &Plan, folder: &OutputFolder) -> card::CardInfo {
    let recipe = &plan.recipe;
    let resolved = provenance::resolved(plan);
    let mut parameters: Vec<(String, String, String)> = pairs(resolved.get("shared"))
        .into_iter()
        .map(|(k, v)| ("all".to_owned(), k, v))
        .collect();
    for (model, values) in resolved
        .get("each")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        parameters.extend(
            pairs(Some(values))
                .into_iter()
                .map(|(k, v)| (model.clone(), k, v)),
        );
    }
    let experts: Vec<String> = plan
        .models
        .iter()
        .enumerate()
        .filter(|(i, _)| recipe.base != Some(*i))
        .map(|(_, m)| m.model.reference.to_string())
        .collect();
    let hub_models = plan
        .models
        .iter()
        .map(|m| m.model.reference.path.trim_start_matches("hf:").to_owned())
        .filter(|p| super::reference::is_repository(p) && !std::path::Path::new(p).exists())
        .collect();
    let language = match recipe.dialect {
        Dialect::Mergekit => "yaml",
        Dialect::Loom => "toml",
    };
    card::CardInfo {
        title: recipe.name.clone().unwrap_or_else(|| {
            folder
                .target()
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or("merged model")
                .to_owned()
        }),
        hub_models,
        library: "transformers".to_owned(),
        tag: String::new(),
        summary: format!(
            "A merge of {} models, written as {}",
            experts.len(),
            main_dtype(plan).torch_name()
        ),
        method: format!("{}: {}", recipe.method, plan.method.spec().summary),
        reference: Some(plan.method.spec().source.to_owned()),
        base: recipe
            .base
            .map(|b| plan.models[b].model.reference.to_string()),
        models: experts,
        parameters,
        recipe: recipe.text.clone().map(|text| (language.to_owned(), text)),
        versions: vec![("polyloom".to_owned(), env!("CARGO_PKG_VERSION").to_owned())],
    }
}

fn pairs(value: Option<&Value>) -> Vec<(String, String)> {
    value
        .and_then(Value::as_object)
        .map(|o| o.iter().map(|(k, v)| (k.clone(), v.to_string())).collect())
        .unwrap_or_default()
}
