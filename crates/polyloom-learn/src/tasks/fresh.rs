//! Models made from nothing, with their tokenizers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Example, Input};
use polyloom::evaluate::board::score::sessions::{Log, Named, apart};
use polyloom_core::DType;
use serde_json::{Value as Json, json};

use super::encoder;
use super::family::Opened;
use super::fit::{full, of_group};
use super::language;
use super::rows::none_counts;
use super::sensors;
use crate::engine::tensor;
use crate::error::{Error, Result};
use crate::models::Plain;
use crate::models::fresh::fresh;
use crate::models::open::Model;
use crate::models::{forest, table};
use crate::table::{Fitting, Groups, Preparation, Settings};
use crate::text::Text;
use crate::tokenizer::{Made, byte_pairs};
use crate::train::{Given, Recipe};

/// Families that go on with a text, and what `transformers` calls them.
const SPEAKERS: [(&str, &str); 6] = [
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("gemma", "GemmaForCausalLM"),
    ("gemma2", "Gemma2ForCausalLM"),
];

/// Entries of a vocabulary that is made, where nothing says how many.
const VOCABULARY: u64 = 4096;

impl Opened {
    /// A model made from nothing: `train.new` says what its `config.json` does. `tokenizer` in it names a folder with the
    /// tokenizer of a model of texts, or its `tokenizer.json`. A decoder without one gets byte pairs of the tasks' training
    /// texts, `vocab_size` of them at most; its special tokens and the size that came out go into the configuration.
    ///
    /// # Errors
    /// An architecture that is not made, values that are none of JSON, a tokenizer that is not there or has more entries
    /// than the model, and as [`language::lines`] and [`byte_pairs`].
    pub fn fresh(recipe: &Recipe, tasks: &[Given]) -> Result<Self> {
        let table = recipe.train.new.clone().unwrap_or_default();
        let mut config = serde_json::to_value(table)
            .map_err(|e| MergeError::plan("bad-recipe", format!("`train.new`: {e}")))?;
        let given = config.as_object_mut().and_then(|c| c.remove("tokenizer"));
        let folder = match given.as_ref().and_then(Json::as_str) {
            Some(place) => tokenizer_folder(Path::new(place)),
            // No such folder: nothing is read from where the program happens to run.
            None => PathBuf::from("<a new model>"),
        };
        sensors::of_new(recipe, &mut config, tasks)?;
        let mut warnings = Vec::new();
        let trees = config["model_type"] == forest::MODEL_TYPE;
        let table = match trees || config["model_type"] == table::MODEL_TYPE {
            true => Some(Box::new(prepared(recipe, &mut config, tasks, trees)?)),
            false if config["goals"].is_null() => {
                for key in ["moe", "task_expert"] {
                    if config.get(key).is_some() {
                        mixed(&mut config, key)?;
                        routed(&mut config[key], &format!("train.new.{key}"), tasks)?;
                    }
                }
                None
            }
            false => {
                let what = "`train.new.goals` says what the goals of a model of tables are";
                return Err(MergeError::plan("bad-recipe", what)
                    .hint("leave it out, or model_type = \"polyloom-table\"")
                    .into());
            }
        };
        let class = SPEAKERS
            .iter()
            .find(|(name, _)| config["model_type"] == *name);
        let made = match class {
            Some((_, class)) => {
                let made = match given {
                    None => Some(made(recipe, &config, tasks)?),
                    Some(_) => None,
                };
                speaks(&mut config, class, made.as_ref(), &folder, &mut warnings)?;
                made
            }
            None => None,
        };
        let (mut tensors, mut stored) = (Vec::new(), Vec::new());
        let begun = match trees {
            true => Vec::new(),
            false => fresh(&config, recipe.seed).map_err(said)?,
        };
        for (name, shape, values) in begun {
            stored.push((name.clone(), DType::F32, shape.clone()));
            tensors.push((name, tensor(values, shape)?));
        }
        let model = Model::of(&folder, &config, Plain::new(tensors));
        let mut model = model.map_err(said)?;
        model.tokenizer = made;
        model.table = table;
        Ok(Self {
            model,
            config,
            stored,
            whole: HashMap::new(),
            warnings,
        })
    }
}

/// What is wrong with the configuration of a new model is wrong with the recipe.
fn said(error: Error) -> Error {
    let what = match error {
        Error::Config { what } => what,
        Error::File { file, what, .. } if file.ends_with("config.json") => what,
        other => return other,
    };
    MergeError::plan("bad-recipe", format!("`train.new`: {what}")).into()
}

/// What prepares rows of tables, fitted on the tasks' training rows; puts goals, numbers and vocabularies into the
/// configuration, and takes `prepare` ([`Settings`]) out of it. Trees read numbers as they are, and every word.
fn prepared(
    recipe: &Recipe,
    config: &mut Json,
    tasks: &[Given],
    trees: bool,
) -> Result<Preparation> {
    let t = &recipe.train;
    let bad = |what: String| MergeError::plan("bad-recipe", what);
    let settings = config.as_object_mut().and_then(|c| c.remove("prepare"));
    let settings: Settings = match settings {
        None if trees => Settings::of_trees(),
        None => Settings::default(),
        Some(given) => {
            let usual = match trees {
                true => Settings::of_trees(),
                false => Settings::default(),
            };
            let wrong = |e: serde_json::Error| bad(format!("`train.new.prepare`: {e}"));
            // What is not said is as without the table.
            let mut all = serde_json::to_value(usual).map_err(wrong)?;
            match (&mut all, given) {
                (Json::Object(all), Json::Object(given)) => all.extend(given),
                (all, given) => *all = given,
            }
            serde_json::from_value(all).map_err(wrong)?
        }
    };
    let encoder = settings.embed.as_deref().map(encoder::of).transpose()?;
    let log = sessions(recipe, config, tasks, trees)?;
    let grouped = by_group(config, tasks)?;
    let named = modalities(config)?;
    let mut fitting = Fitting::new(settings)?;
    if let Some(column) = grouped {
        fitting = fitting.by_group(column);
    }
    if named.is_some() {
        fitting = fitting.marking();
    }
    if let Some(encoder) = encoder {
        fitting = fitting.encoding(encoder);
    }
    let mut width = 1;
    let mut read_log = None;
    for task in tasks {
        let id = &task.spec.id;
        let read = examples::read_weighed(&task.spec, &task.loader(), &t.split)?;
        let classes = read.asked.iter().map(|a| a.classes.len());
        width = classes.fold(width, usize::max);
        let rows = read.rows;
        if log.as_ref().is_some_and(Named::asks_items) {
            read_log = Some(see_log(&mut fitting, &task.spec.id, &rows)?);
            continue;
        }
        let all = rows.len();
        if all > 0 && rows.iter().all(|r| r.weight <= 0.0) {
            return Err(none_counts(&task.spec, all));
        }
        for (i, row) in rows.iter().enumerate() {
            let Input::Row {
                columns, fields, ..
            } = &row.input
            else {
                let what = format!("task `{id}` has no rows of a table");
                return Err(bad(what)
                    .hint("a model of tables learns tasks with `[table]`; images and texts have models of their own")
                    .into());
            };
            // Rows that count nothing are as if they were not there.
            if row.weight > 0.0 && examples::is_taken(i, all, t.limit) {
                fitting.see(columns, fields)?;
            }
        }
    }
    let together = fitting.together();
    let mut made = fitting.finish()?;
    match (log, read_log) {
        (Some(named), Some(log)) => made = made.with_items(named, &log)?,
        (Some(named), None) => {
            let columns = tasks.iter().filter_map(|t| t.spec.table.as_ref());
            let columns = columns.flat_map(|t| t.history.clone()).collect();
            made = made.with_history(named, columns)?;
        }
        (None, _) => {}
    }
    let goals = goals(tasks, made.groups())?;
    if let Some(map) = config.as_object_mut() {
        let mut known = vec![
            ("goals", json!(goals)),
            ("categories", json!(made.categories())),
        ];
        if let Some(named) = named {
            known.push(("modalities", json!(made.modalities(&named, &together)?)));
        }
        match trees {
            true => {
                let (numbers, words) = made.names();
                known.push(("numbers", json!(numbers)));
                known.push(("words", json!(words)));
                known.push(("width", json!(width)));
            }
            false => {
                known.push(("numeric", json!(made.numeric())));
                if made.history().is_some() {
                    known.push(("history", json!(made.history_fields())));
                }
            }
        }
        for (key, value) in known {
            if map.insert(key.into(), value).is_some() {
                let what = format!("`train.new.{key}` follows from the tasks");
                return Err(bad(what).hint("leave it out").into());
            }
        }
    }
    Ok(made)
}

/// The columns of the log of a task of sessions, or of single rows that see what was before them; `None` where rows are read
/// alone.
///
/// # Errors
/// Sessions for an architecture that does not read them and the other way round, several tasks, sessions in two splits.
fn sessions(recipe: &Recipe, config: &Json, tasks: &[Given], trees: bool) -> Result<Option<Named>> {
    let name = config["architecture"].as_str().unwrap_or_default();
    let mut all = table::architectures();
    let own = all.find(|a| !trees && a.spec().name == name);
    let reads = own.is_some_and(table::Architecture::reads_sessions);
    let of_history = own.is_some_and(|a| a.spec().uses.contains(&table::Common::History));
    let of = tasks
        .iter()
        .find_map(|t| Named::of(&t.spec).map(|n| (t, n)));
    let bad = |what: String, hint: &str| {
        let error = MergeError::plan("bad-recipe", what).hint(hint);
        Err(error.into())
    };
    match (of, reads, tasks.len()) {
        (None, false, _) => Ok(None),
        (Some((task, named)), false, n) if !named.asks_items() => match (of_history, n) {
            (true, 1) => {
                apart(&task.spec, &task.loader())?;
                Ok(Some(named))
            }
            (true, n) => bad(
                format!(
                    "a model whose rows see what was before them learns one task, and {n} are named"
                ),
                "name one",
            ),
            (false, _) => bad(
                format!(
                    "task `{}` shows rows what was before them (`table.history`), which this model does not read",
                    task.spec.id
                ),
                "--model dtrn reads it; without `session` and `history` in `[table]` rows are read alone",
            ),
        },
        (Some((task, named)), true, 1) => {
            let t = &recipe.train;
            let keys = [
                ("train.balance", t.balance.is_some()),
                ("train.representation", t.representation.is_some()),
            ];
            if let Some((key, _)) = keys.iter().find(|(_, there)| *there) {
                return bad(
                    format!(
                        "`{key}` does not go with sessions: heads of items and of classes see different parts of the model"
                    ),
                    "leave it out",
                );
            }
            apart(&task.spec, &task.loader())?;
            Ok(Some(named))
        }
        (None, true, _) => bad(
            format!("architecture `{name}` reads sessions, and the task names no column of them"),
            "`table.session`, `table.order` and `table.item` of its spec, or --session, --order and --item for a table",
        ),
        (Some((task, _)), false, _) => bad(
            format!(
                "task `{}` is of sessions, which this model does not read",
                task.spec.id
            ),
            "--model m2trec reads sessions",
        ),
        (Some(_), true, n) => bad(
            format!("a model of sessions learns one task, and {n} are named"),
            "name one",
        ),
    }
}

/// Fits to the items of a log, each as often as it has rows; gives the log.
fn see_log(fitting: &mut Fitting, id: &str, rows: &[Example]) -> Result<Arc<Log>> {
    let Some(Input::Visit { log, .. }) = rows.first().map(|r| &r.input) else {
        let what = format!("task `{id}` has no training row whose item is asked for");
        return Err(MergeError::plan("empty-task", what)
            .hint("`polyloom tasks check` shows its rows; `sample` of its targets says which rows are asked")
            .into());
    };
    for step in &log.steps {
        fitting.see(&log.columns, &log.fields[step.item as usize])?;
    }
    Ok(log.clone())
}

/// The columns of every modality by name, where the architecture reads modalities or the recipe names them: none for those
/// that are found. Takes the key out.
fn modalities(config: &mut Json) -> Result<Option<IndexMap<String, Vec<String>>>> {
    let said = config.as_object_mut().and_then(|c| c.remove("modalities"));
    let Some(said) = said else {
        let name = config["architecture"].as_str().unwrap_or_default();
        let of_networks = config["model_type"] == table::MODEL_TYPE;
        let reads = |a: &dyn table::Architecture| {
            a.spec().name == name && a.spec().uses.contains(&table::Common::Modalities)
        };
        let reads = of_networks && table::architectures().any(reads);
        return Ok(reads.then(IndexMap::new));
    };
    let found: IndexMap<String, Vec<String>> = serde_json::from_value(said).map_err(|e| {
        MergeError::plan("bad-recipe", format!("`train.new.modalities`: {e}"))
            .hint("modalities = { labs = [\"sodium\", \"urea\"], history = [\"age\"] }: columns by modality, in the order of reading")
    })?;
    match found.is_empty() {
        false => Ok(Some(found)),
        true => {
            let what = "`train.new.modalities` names none";
            let error = MergeError::plan("bad-recipe", what);
            Err(error
                .hint("leave it out: columns that the same rows lack are one then")
                .into())
        }
    }
}

/// The column whose values have goals of their own, where `goals` in the configuration asks for it; takes the key out.
fn by_group(config: &mut Json, tasks: &[Given]) -> Result<Option<String>> {
    let bad = |what: String, hint: &str| {
        let error = MergeError::plan("bad-recipe", what).hint(hint);
        Err(error.into())
    };
    let said = config.as_object_mut().and_then(|c| c.remove("goals"));
    match said.as_ref().map(Json::as_str) {
        None | Some(Some("targets")) => return Ok(None),
        Some(Some("groups")) => {}
        _ => {
            return bad(
                format!("`train.new.goals` is {}", said.unwrap_or_default()),
                "\"targets\": a goal for each target; \"groups\": one for each group of rows and target. Their names follow from the tasks",
            );
        }
    }
    let [task] = tasks else {
        return bad(
            format!(
                "`goals = \"groups\"` is of one task, and {} are named",
                tasks.len()
            ),
            "name one, or put the tables together",
        );
    };
    match task.spec.task_group() {
        Some(column) => Ok(Some(column.to_owned())),
        None => bad(
            format!(
                "task `{}` has no groups that are tasks of their own",
                task.spec.id
            ),
            "`table.group = \"COLUMN\"` in its spec, or --group COLUMN for a table",
        ),
    }
}

/// Whether the architecture has experts. Those of a decoder are without biases and, unless it is said otherwise, of one gate.
fn mixed(config: &mut Json, key: &str) -> Result<()> {
    let model = config["model_type"].as_str().unwrap_or_default();
    if model == "vit" || (model, key) == ("bert", "moe") {
        return Ok(());
    }
    if key == "moe" && SPEAKERS.iter().any(|(name, _)| *name == model) {
        if config["mlp_bias"] == json!(true) {
            let what = "`train.new.mlp_bias`: experts of decoders have no biases";
            return Err(MergeError::plan("bad-recipe", what).into());
        }
        if let Some(moe) = config[key].as_object_mut() {
            moe.entry("gate").or_insert(json!("shared"));
        }
        return Ok(());
    }
    let what = format!("`train.new.{key}`: a model of the type `{model}` has no experts");
    let error = MergeError::plan("bad-recipe", what);
    Err(error.hint("model_type = \"vit\" has, and with `moe` \"bert\" and decoders; models of tables have architectures with experts (`mmoe`)").into())
}

/// Puts the goals that experts are chosen by into their configuration, which a recipe has under `key`.
pub(super) fn routed(moe: &mut Json, key: &str, tasks: &[Given]) -> Result<()> {
    let bad = |what: String| MergeError::plan("bad-recipe", what);
    let Some(moe) = moe.as_object_mut() else {
        return Err(bad(format!("`{key}` is a table")).into());
    };
    let goals = json!(goals(tasks, None)?);
    if moe.insert("goals".into(), goals).is_some() {
        let what = format!("`{key}.goals` follows from the tasks");
        return Err(bad(what).hint("leave it out").into());
    }
    Ok(())
}

/// Names of the goals: of every target, or of every group of every target.
pub(super) fn goals(tasks: &[Given], groups: Option<&Groups>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for task in tasks {
        let id = &task.spec.id;
        for asked in examples::asked(&task.spec)? {
            match groups {
                None => found.push(full(id, &asked.target)),
                Some(groups) => {
                    let of = |group: &String| of_group(id, group, &asked.target);
                    found.extend(groups.values.iter().map(of));
                }
            }
        }
    }
    Ok(found)
}

/// The folder of a tokenizer that is named by its folder or its file.
fn tokenizer_folder(place: &Path) -> PathBuf {
    match place.file_name() {
        Some(name) if name == "tokenizer.json" => {
            place.parent().unwrap_or(Path::new(".")).to_owned()
        }
        _ => place.to_owned(),
    }
}

/// Byte pairs of all that is learned of the tasks' training rows.
fn made(recipe: &Recipe, config: &Json, tasks: &[Given]) -> Result<Made> {
    let t = &recipe.train;
    let learn = t.language.as_ref().map(|l| l.learn).unwrap_or_default();
    let mut texts = Vec::new();
    for task in tasks {
        let (loader, prompt) = (
            task.loader(),
            t.language.as_ref().and_then(|l| l.prompt.as_deref()),
        );
        let lines = language::lines(&task.spec, &loader, &t.split, learn, prompt, t.limit)?;
        texts.extend(lines.into_iter().map(|l| l.given + &l.learned));
    }
    let size = config["vocab_size"].as_u64().unwrap_or(VOCABULARY);
    byte_pairs(&texts, usize::try_from(size).unwrap_or(usize::MAX))
}

/// Puts into the configuration of a decoder what its tokenizer says: entries, special tokens, the class.
fn speaks(
    config: &mut Json,
    class: &str,
    made: Option<&Made>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let text = match made {
        Some(made) => Text::read(&made.tokenizer, usize::MAX)?,
        None => Text::open(folder, usize::MAX)?,
    };
    let (size, asked) = (text.size() as u64, config["vocab_size"].as_u64());
    let fits = asked.is_none_or(|n| n >= size);
    let Some(map) = config.as_object_mut() else {
        return Ok(());
    };
    match (made, asked) {
        (Some(_), Some(n)) if n != size => {
            warnings.push(format!(
                "the tasks' texts have {size} byte pairs; the vocabulary has that many entries, not {n}"
            ));
            map.insert("vocab_size".into(), json!(size));
        }
        (None, Some(n)) if !fits => {
            let what =
                format!("`train.new.vocab_size` is {n}, and the tokenizer has {size} entries");
            return Err(MergeError::plan("bad-recipe", what)
                .at(folder.display().to_string())
                .hint(format!("vocab_size = {size}, or leave it out"))
                .into());
        }
        (_, Some(_)) => {}
        (_, None) => {
            map.insert("vocab_size".into(), json!(size));
        }
    }
    // `transformers` has numbers of its own where a file says none.
    if let Some(end) = text.ends().first() {
        map.entry("eos_token_id").or_insert(json!(end));
    }
    if made.is_some() {
        for key in ["bos_token_id", "pad_token_id"] {
            map.entry(key).or_insert(json!(text.pad()));
        }
    }
    // With experts it is none that `transformers` knows.
    if map.get("moe").is_none() {
        map.entry("architectures").or_insert(json!([class]));
    }
    Ok(())
}
