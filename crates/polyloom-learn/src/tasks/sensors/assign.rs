//! Which stem reads the pictures of which task: what a recipe says, made whole by the pictures themselves.

use std::collections::HashSet;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Input};
use polyloom_core::DType;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::engine::tensor;
use crate::error::{Error, Result};
use crate::models::fresh::fresh;
use crate::models::open::Model;
use crate::models::t3::{MODEL_TYPE, StemConfig, TRUNK, sized, stem_for};
use crate::tasks::Opened;
use crate::train::recipe::{Method, Objective};
use crate::train::{Given, Recipe};

/// Layers of decoders where nothing says how many.
const DECODER: usize = 1;

/// What a recipe says of a stem (`[train.new.stems.<sensor>]`, of a base `[train.stems.<sensor>]`); what it leaves out follows from the pictures of its tasks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    tasks: Vec<String>,
    image_size: Option<usize>,
    num_channels: Option<usize>,
    patch_size: Option<usize>,
}

fn bad(what: String, hint: &str) -> Error {
    MergeError::plan("bad-recipe", what)
        .hint(hint.to_owned())
        .into()
}

/// Puts the stems of a new model into its configuration: those that the recipe names, and one for each size of pictures of
/// the other tasks. Takes `patch_size`, which is of stems that say none, out of it.
///
/// # Errors
/// A task of two sensors, one that is not learned, tasks of one sensor whose pictures differ, a size that the recipe and the
/// pictures do not share, a stem that no task reads or that says no patches.
pub(in crate::tasks) fn of_new(recipe: &Recipe, config: &mut Json, tasks: &[Given]) -> Result<()> {
    if recipe.train.stems.is_some() {
        let what = "`train.stems` adds stems to a base, and the model is a new one";
        return Err(bad(what.into(), "[train.new.stems] is for new models"));
    }
    if config["model_type"] != MODEL_TYPE {
        return Ok(());
    }
    let Some(map) = config.as_object_mut() else {
        return Ok(());
    };
    let parsed = |what: &str, e: serde_json::Error| {
        bad(
            format!("`train.new.{what}`: {e}"),
            "[train.new.stems.camera] tasks = [\"vision/sign_digits\"], patch_size = 4",
        )
    };
    let patch = map.remove("patch_size").map(serde_json::from_value);
    let patch: Option<usize> = patch.transpose().map_err(|e| parsed("patch_size", e))?;
    let asked = map.remove("stems").map(serde_json::from_value);
    let asked: Option<IndexMap<String, Asked>> =
        asked.transpose().map_err(|e| parsed("stems", e))?;
    match (
        recipe.train.objective,
        map.contains_key("num_decoder_layers"),
    ) {
        (Objective::Reconstruct, false) => {
            map.insert("num_decoder_layers".into(), json!(DECODER));
        }
        (Objective::Reconstruct, true) => {}
        (_, true) => {
            let what = "`train.new.num_decoder_layers`: decoders learn by `objective = \"reconstruct\"` alone";
            return Err(bad(what.into(), "leave it out"));
        }
        (_, false) => {}
    }
    let sizes = sizes(recipe, tasks)?;
    let naming = Naming {
        key: "train.new.stems",
        known: None,
        patch,
    };
    let stems = naming.assigned(&asked.unwrap_or_default(), &sizes)?;
    map.insert("stems".into(), json!(stems));
    Ok(())
}

/// Tasks with the size of their pictures (height, width, channels).
type Sizes<'a> = Vec<(&'a str, [usize; 3])>;

/// The size of the pictures of every task: that of its first row.
fn sizes<'a>(recipe: &Recipe, tasks: &'a [Given]) -> Result<Sizes<'a>> {
    let one = |task: &'a Given| {
        let (id, split) = (&*task.spec.id, &recipe.train.split);
        let read = examples::read(&task.spec, &task.loader(), split)?;
        match read.rows.first().map(|r| &r.input) {
            Some(Input::Image { size, .. }) if size[0] == size[1] => Ok((id, *size)),
            Some(Input::Image { size, .. }) => Err(bad(
                format!(
                    "task `{id}`: pictures of {}, and stems read squares",
                    sized(*size)
                ),
                "a model of type \"vit\" brings pictures to one size",
            )),
            Some(_) => Err(bad(
                format!(
                    "task `{id}` has no pictures, which a model of the type `{MODEL_TYPE}` reads"
                ),
                "models of texts and of tables have types of their own",
            )),
            None => Err(bad(
                format!("task `{id}` has no rows in split `{split}`"),
                "train.split names the split that is learned from",
            )),
        }
    };
    tasks.iter().map(one).collect()
}

/// Where stems are named, and what there is beside them.
struct Naming<'a> {
    /// The table of the recipe.
    key: &'a str,
    /// The stems of a base; none of a new model, whose tasks get stems by the size of their pictures.
    known: Option<IndexMap<String, StemConfig>>,
    /// Height and width of the patches of stems that say none.
    patch: Option<usize>,
}

impl Naming<'_> {
    /// All stems, with the tasks that they read: those of a base, those that are asked for, and of a new model one for each
    /// size of pictures that is left.
    fn assigned(
        &self,
        asked: &IndexMap<String, Asked>,
        sizes: &Sizes<'_>,
    ) -> Result<IndexMap<String, StemConfig>> {
        let key = self.key;
        let mut stems = self.known.clone().unwrap_or_default();
        if let Some(name) = asked.keys().find(|name| stems.contains_key(*name)) {
            let what = format!("`{key}.{name}`: the base has a stem of this name");
            return Err(bad(
                what,
                "another name; tasks of its pictures read it without a word",
            ));
        }
        let of = self.named(asked, sizes)?;
        for (name, asked) in asked {
            let own = sizes.iter().filter(|(id, _)| of.get(id) == Some(name));
            let size = self.size_of(name, asked, own)?;
            let made = self.stem(name, asked.patch_size, size, &asked.tasks)?;
            stems.insert(name.clone(), made);
        }
        for (id, size) in sizes.iter().filter(|(id, _)| !of.contains_key(id)) {
            let (name, made) = self.reading(&stems, id, *size)?;
            let stem = stems.entry(name);
            let stem = stem.or_insert_with(|| made);
            if !stem.tasks.iter().any(|t| t == id) {
                stem.tasks.push((*id).to_owned());
            }
        }
        let mut new = stems.iter().filter(|(name, _)| asked.contains_key(*name));
        match new.find(|(_, s)| s.tasks.is_empty()) {
            None => Ok(stems),
            Some((name, s)) => {
                let size = sized(s.size());
                let what = format!("no task has pictures of {size} for the stem `{name}`");
                Err(bad(what, "leave it out, or name a task with such pictures"))
            }
        }
    }

    /// The stems that name tasks.
    fn named<'a>(
        &self,
        asked: &IndexMap<String, Asked>,
        sizes: &Sizes<'a>,
    ) -> Result<IndexMap<&'a str, String>> {
        let mut of = IndexMap::new();
        let all = asked.iter();
        for (name, id) in all.flat_map(|(name, a)| a.tasks.iter().map(move |id| (name, id))) {
            let Some((id, _)) = sizes.iter().find(|(known, _)| known == id) else {
                let all: Vec<&str> = sizes.iter().map(|(id, _)| *id).collect();
                let what = format!(
                    "`{}.{name}` names task `{id}`, which is not learned",
                    self.key
                );
                return Err(bad(what, &format!("learned are {}", all.join(", "))));
            };
            let known = self.known.iter().flatten();
            let mut known = known.filter(|(_, s)| s.tasks.iter().any(|t| t == id));
            let other = known.next().map(|(other, _)| other.clone());
            if let Some(other) = other.or_else(|| of.insert(*id, name.clone())) {
                let what = format!("task `{id}` is of two sensors, `{other}` and `{name}`");
                return Err(bad(what, "one stem reads a task"));
            }
        }
        Ok(of)
    }

    /// The stem for the pictures of a task that none names: one that is there, or one by their size.
    fn reading(
        &self,
        stems: &IndexMap<String, StemConfig>,
        id: &str,
        size: [usize; 3],
    ) -> Result<(String, StemConfig)> {
        let said = match stem_for(stems, Some(id), size) {
            Ok(place) => match stems.get_index(place) {
                Some((name, stem)) => return Ok((name.clone(), stem.clone())),
                None => String::new(),
            },
            Err(said) => said,
        };
        let name = sized(size).replace(" x ", "x");
        let several = stems.values().any(|s| s.size() == size);
        if several || self.known.is_some() || stems.contains_key(&name) {
            let what = format!("task `{id}` has {said}");
            let hint = match several {
                true => format!("`tasks` of one of these stems ({})", self.key),
                false => format!("[{}.NAME] tasks = [\"{id}\"] is a stem for it", self.key),
            };
            return Err(bad(what, &hint));
        }
        let made = self.stem(&name, None, size, &[])?;
        Ok((name, made))
    }

    /// The size of the pictures of a stem: what it says, and what those of its tasks have.
    fn size_of<'a>(
        &self,
        name: &str,
        asked: &Asked,
        own: impl Iterator<Item = &'a (&'a str, [usize; 3])>,
    ) -> Result<[usize; 3]> {
        let mut found: Option<(&str, [usize; 3])> = None;
        for (id, size) in own {
            match found {
                Some((first, other)) if other != *size => {
                    let what = format!(
                        "stem `{name}`: pictures of `{first}` are {}, of `{id}` {}",
                        sized(other),
                        sized(*size)
                    );
                    return Err(bad(
                        what,
                        "a sensor has pictures of one size: a stem for each",
                    ));
                }
                _ => found = Some((*id, *size)),
            }
        }
        let side = asked.image_size.or(found.map(|(_, s)| s[0]));
        let channels = asked.num_channels.or(found.map(|(_, s)| s[2]));
        let (Some(side), Some(channels)) = (side, channels) else {
            let what = format!(
                "`{}.{name}` says neither tasks nor the size of its pictures",
                self.key
            );
            return Err(bad(what, "tasks = [...], or image_size and num_channels"));
        };
        match found {
            Some((id, size)) if size != [side, side, channels] => Err(bad(
                format!(
                    "`{}.{name}` reads pictures of {}, and those of `{id}` are {}",
                    self.key,
                    sized([side, side, channels]),
                    sized(size)
                ),
                "leave out image_size and num_channels: they follow from the tasks",
            )),
            _ => Ok([side, side, channels]),
        }
    }

    /// A stem as configurations have it.
    fn stem(
        &self,
        name: &str,
        patch: Option<usize>,
        size: [usize; 3],
        tasks: &[String],
    ) -> Result<StemConfig> {
        let Some(patch_size) = patch.or(self.patch) else {
            let what = format!(
                "stem `{name}` (pictures of {}) says no patch_size",
                sized(size)
            );
            return Err(bad(
                what,
                "`patch_size` of this stem, or `train.new.patch_size` for all of a new model; it divides the size of pictures",
            ));
        };
        Ok(StemConfig {
            image_size: size[0],
            num_channels: size[2],
            patch_size,
            tasks: tasks.to_vec(),
        })
    }
}

impl Opened {
    /// Makes a base with stems ready for a recipe: it gets the stems that the recipe adds, its stems name the tasks that are
    /// learned, and where patches are rebuilt there are decoders. What is new is drawn by the seed. Nothing for other models.
    ///
    /// # Errors
    /// A task whose pictures no stem reads, or several; stems that cannot be added, to a model without any, or where the base
    /// is not written.
    pub(in crate::tasks) fn sense(&mut self, recipe: &Recipe, tasks: &[Given]) -> Result<()> {
        let place = self.model.folder.display().to_string();
        let asked = recipe.train.stems.clone();
        let Some(model) = self.model.sensors() else {
            let what = "`train.stems` adds stems, and the base has none";
            return match asked {
                None => Ok(()),
                Some(_) => Err(MergeError::plan("bad-recipe", what)
                    .at(place)
                    .hint(format!("a base of the type `{MODEL_TYPE}`"))
                    .into()),
            };
        };
        if asked.is_some() && recipe.train.method != Method::Full {
            let what =
                "`train.stems` adds stems, which `method = \"full\"` alone learns and writes";
            return Err(bad(what.into(), "train.method = \"full\""));
        }
        let asked: IndexMap<String, Asked> = match asked {
            None => IndexMap::new(),
            Some(asked) => toml::Value::Table(asked)
                .try_into()
                .map_err(|e: toml::de::Error| {
                    let what = format!("`train.stems`: {}", e.message());
                    bad(
                        what,
                        "[train.stems.camera] tasks = [\"vision/sign_digits\"], patch_size = 4",
                    )
                })?,
        };
        let naming = Naming {
            key: "train.stems",
            known: Some(model.config.stems.clone()),
            patch: None,
        };
        let lacks = model.config.num_decoder_layers.is_none();
        let stems = naming.assigned(&asked, &sizes(recipe, tasks)?);
        let stems = stems.map_err(|e| match e {
            Error::Merge(e) => e.at(place).into(),
            other => other,
        })?;
        self.config["stems"] = json!(stems);
        if recipe.train.objective == Objective::Reconstruct && lacks {
            self.config["num_decoder_layers"] = json!(DECODER);
        }
        let there: HashSet<&str> = self.stored.iter().map(|(name, ..)| &**name).collect();
        let (mut new, mut stored) = (Vec::new(), Vec::new());
        for (name, shape, values) in fresh(&self.config, recipe.seed)? {
            if !there.contains(&*name) && !name.starts_with(TRUNK) {
                stored.push((name.clone(), DType::F32, shape.clone()));
                new.push((name, tensor(values, shape)?));
            }
        }
        let weights = self.model.weights.with(new);
        self.model = Model::of(&self.model.folder, &self.config, weights)?;
        self.stored.extend(stored);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
