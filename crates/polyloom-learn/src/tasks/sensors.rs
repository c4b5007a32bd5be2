//! Pictures of several sensors: which stem reads a task's, and what it is shown.

use std::path::Path;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Input};
use polyloom_core::DType;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::family::Opened;
use super::rows::Shown;
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::image::Preparation;
use crate::models::fresh::fresh;
use crate::models::open::Model;
use crate::models::t3::{MODEL_TYPE, StemConfig, T3, sized, stem_for};
use crate::train::recipe::Objective;
use crate::train::{Given, Recipe};

/// Layers of decoders where nothing says how many.
const DECODER: usize = 1;

/// What shows pictures to the stems of a model: as they are, from -1 to 1.
#[derive(Debug, Clone)]
pub struct Sensors {
    stems: IndexMap<String, StemConfig>,
    /// Of every stem.
    prepared: Vec<Preparation>,
}

impl Sensors {
    /// Of a model.
    #[must_use]
    pub fn of(model: &T3) -> Self {
        let stems = model.config.stems.clone();
        let plain = |s: &StemConfig| Preparation::plain(s.image_size, s.num_channels);
        Self {
            prepared: stems.values().map(plain).collect(),
            stems,
        }
    }

    /// A picture of a task, or of none, as its stem takes it.
    ///
    /// # Errors
    /// No picture, and as [`stem_for`].
    pub fn show(&self, task: Option<&str>, input: &Input) -> Result<Shown> {
        let Input::Image { pixels, size } = input else {
            let what = "texts or rows, and the model is one of pictures";
            return Err(Error::shape("input", what));
        };
        let stem = stem_for(&self.stems, task, *size);
        let stem = stem.map_err(|what| Error::shape("input", what))?;
        let channels = size[2];
        if pixels.len() != size.iter().product::<usize>() {
            let what = format!("{} bytes for {}", pixels.len(), sized(*size));
            return Err(Error::shape("input", what));
        }
        let plane = |c: usize| pixels.iter().skip(c).step_by(channels).copied();
        Ok(Shown::Sensed(stem, (0..channels).flat_map(plane).collect()))
    }

    /// Height and width of the pictures of a stem; 0 of one that is none.
    #[must_use]
    pub fn side(&self, stem: usize) -> usize {
        self.prepared.get(stem).map_or(0, |p| p.size)
    }

    /// Pictures of one sensor as its stem takes them, `[images, channels, size, size]`, with the place of the stem.
    ///
    /// # Errors
    /// No pictures, or those of several sensors.
    pub fn pixels(&self, shown: &[&Shown]) -> Result<(usize, Value)> {
        let wrong = |what: &str| Error::shape("features", what);
        let Some(Shown::Sensed(stem, _)) = shown.first() else {
            return Err(wrong("no picture of a sensor"));
        };
        let of = self.prepared.get(*stem);
        let of = of.ok_or_else(|| wrong("a picture of a stem that is none"))?;
        let mut pixels = Vec::with_capacity(shown.len() * of.channels * of.size * of.size);
        for shown in shown {
            match shown {
                Shown::Sensed(other, planes) if other == stem => pixels.extend(of.values(planes)),
                _ => return Err(wrong("pictures of several sensors at once")),
            }
        }
        let shape = vec![shown.len(), of.channels, of.size, of.size];
        Ok((*stem, Value::constant(tensor(pixels, shape)?)))
    }
}

/// What a recipe says of a stem (`[train.new.stems.<sensor>]`); what it leaves out follows from the pictures of its tasks.
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
pub(super) fn of_new(recipe: &Recipe, config: &mut Json, tasks: &[Given]) -> Result<()> {
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
    let stems = assigned(&asked.unwrap_or_default(), patch, &sizes)?;
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

/// The stems of a new model.
fn assigned(
    asked: &IndexMap<String, Asked>,
    patch: Option<usize>,
    sizes: &Sizes<'_>,
) -> Result<IndexMap<String, StemConfig>> {
    let mut stems = IndexMap::new();
    let mut of: IndexMap<&str, String> = IndexMap::new();
    for (name, asked) in asked {
        for id in &asked.tasks {
            let Some((id, _)) = sizes.iter().find(|(known, _)| known == id) else {
                let all: Vec<&str> = sizes.iter().map(|(id, _)| *id).collect();
                return Err(bad(
                    format!("`train.new.stems.{name}` names task `{id}`, which is not learned"),
                    &format!("learned are {}", all.join(", ")),
                ));
            };
            if let Some(other) = of.insert(id, name.clone()) {
                let what = format!("task `{id}` is of two sensors, `{other}` and `{name}`");
                return Err(bad(what, "one stem reads a task"));
            }
        }
    }
    for (name, asked) in asked {
        let own = sizes.iter().filter(|(id, _)| of.get(id) == Some(name));
        let size = size_of(name, asked, own)?;
        stems.insert(
            name.clone(),
            stem(name, asked.patch_size.or(patch), size, &asked.tasks)?,
        );
    }
    for (id, size) in sizes.iter().filter(|(id, _)| !of.contains_key(id)) {
        let name = match stem_for(&stems, Some(*id), *size) {
            Ok(place) => stems.get_index(place).map(|(name, _)| name.clone()),
            // Several read them.
            Err(what) if stems.values().any(|s| s.size() == *size) => {
                return Err(bad(
                    format!("task `{id}` has {what}"),
                    "`tasks` of one of these stems",
                ));
            }
            Err(_) => None,
        };
        let name = name.unwrap_or_else(|| sized(*size).replace(" x ", "x"));
        if !stems.contains_key(&name) {
            stems.insert(name.clone(), stem(&name, patch, *size, &[])?);
        }
        if let Some(stem) = stems.get_mut(&name) {
            stem.tasks.push((*id).to_owned());
        }
    }
    match stems.iter().find(|(_, s)| s.tasks.is_empty()) {
        None => Ok(stems),
        Some((name, s)) => Err(bad(
            format!(
                "no task has pictures of {} for the stem `{name}`",
                sized(s.size())
            ),
            "leave it out, or name a task with such pictures",
        )),
    }
}

/// The size of the pictures of a stem: what it says, and what those of its tasks have.
fn size_of<'a>(
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
        let what =
            format!("`train.new.stems.{name}` says neither tasks nor the size of its pictures");
        return Err(bad(what, "tasks = [...], or image_size and num_channels"));
    };
    match found {
        Some((id, size)) if size != [side, side, channels] => Err(bad(
            format!(
                "`train.new.stems.{name}` reads pictures of {}, and those of `{id}` are {}",
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
    name: &str,
    patch: Option<usize>,
    size: [usize; 3],
    tasks: &[String],
) -> Result<StemConfig> {
    let Some(patch_size) = patch else {
        let what = format!(
            "stem `{name}` (pictures of {}) says no patch_size",
            sized(size)
        );
        return Err(bad(
            what,
            "`train.new.patch_size` for all stems, or `patch_size` of this one; it divides the size of pictures",
        ));
    };
    Ok(StemConfig {
        image_size: size[0],
        num_channels: size[2],
        patch_size,
        tasks: tasks.to_vec(),
    })
}

impl Opened {
    /// Makes a base with stems ready for a recipe: its stems name the tasks that are learned, and where patches are rebuilt
    /// there are decoders, drawn by the seed where the base has none. Nothing for other models.
    ///
    /// # Errors
    /// A task whose pictures no stem reads, or several.
    pub(super) fn sense(&mut self, recipe: &Recipe, tasks: &[Given]) -> Result<()> {
        let Some(model) = self.model.sensors() else {
            return Ok(());
        };
        let mut stems = model.config.stems.clone();
        let lacks = model.config.num_decoder_layers.is_none();
        let place = self.model.folder.display().to_string();
        for (id, size) in sizes(recipe, tasks)? {
            let found = stem_for(&stems, Some(id), size).map_err(|what| {
                let error = MergeError::plan("no-stem", format!("task `{id}` has {what}"));
                error
                    .at(place.clone())
                    .hint("a new model ([train.new]) has a stem for each sensor")
            })?;
            let stem = stems.get_index_mut(found).map(|(_, stem)| stem);
            if let Some(stem) = stem.filter(|s| !s.tasks.iter().any(|t| t == id)) {
                stem.tasks.push(id.to_owned());
            }
        }
        self.config["stems"] = json!(stems);
        let decoders = recipe.train.objective == Objective::Reconstruct && lacks;
        if decoders {
            self.config["num_decoder_layers"] = json!(DECODER);
        }
        let mut new = Vec::new();
        if decoders {
            for (name, shape, values) in fresh(&self.config, recipe.seed)? {
                if name.starts_with("decoders.") {
                    self.stored.push((name.clone(), DType::F32, shape.clone()));
                    new.push((name, tensor(values, shape)?));
                }
            }
        }
        let weights = self.model.weights.with(new);
        let folder = self.model.folder.clone();
        self.model = Model::of(Path::new(&folder), &self.config, weights)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> IndexMap<String, Asked> {
        toml::from_str(text).unwrap()
    }

    const SIZES: [(&str, [usize; 3]); 3] = [
        ("pen/a", [28, 28, 1]),
        ("pen/b", [28, 28, 1]),
        ("camera/c", [32, 32, 3]),
    ];

    fn told(text: &str, patch: Option<usize>) -> String {
        let error = assigned(&asked(text), patch, &SIZES.to_vec()).unwrap_err();
        error.to_string()
    }

    #[test]
    fn pictures_of_one_size_are_one_sensor() {
        let stems = assigned(&asked(""), Some(4), &SIZES.to_vec()).unwrap();
        let names: Vec<&String> = stems.keys().collect();
        assert_eq!(names, ["28x28x1", "32x32x3"]);
        assert_eq!(stems[0].tasks, ["pen/a", "pen/b"]);
        assert_eq!((stems[1].size(), stems[1].patch_size), ([32, 32, 3], 4));
        // A stem of its own for one of two; the other joins what is left for its size.
        let text = "[pen]\ntasks = [\"pen/b\"]\npatch_size = 7\n[camera]\nimage_size = 32\nnum_channels = 3\n";
        let error = told(
            &format!("{text}[scan]\nimage_size = 28\nnum_channels = 1\n"),
            Some(4),
        );
        assert!(
            error.contains("task `pen/a`") && error.contains("`pen` and `scan`"),
            "{error}"
        );
        let stems = assigned(&asked(text), Some(4), &SIZES.to_vec()).unwrap();
        assert_eq!(stems["pen"].tasks, ["pen/b", "pen/a"]);
        assert_eq!(
            (stems["pen"].patch_size, stems["camera"].patch_size),
            (7, 4)
        );
        assert_eq!(stems["camera"].tasks, ["camera/c"]);
    }

    #[test]
    fn odd_sensors_are_refused() {
        let twice = "[a]\ntasks = [\"pen/a\"]\n[b]\ntasks = [\"pen/a\"]\n";
        assert!(told(twice, Some(4)).contains("two sensors, `a` and `b`"));
        assert!(
            told("[a]\ntasks = [\"pen/x\"]\n", Some(4)).contains("`pen/x`, which is not learned")
        );
        let both = "[a]\ntasks = [\"pen/a\", \"camera/c\"]\n";
        assert!(told(both, Some(4)).contains("are 28 x 28 x 1, of `camera/c` 32 x 32 x 3"));
        assert!(told("[a]\n", Some(4)).contains("neither tasks nor the size"));
        let other = "[a]\ntasks = [\"pen/a\"]\nimage_size = 14\n";
        assert!(told(other, Some(4)).contains("reads pictures of 14 x 14 x 1"));
        let idle = "[a]\nimage_size = 8\nnum_channels = 2\n";
        assert!(told(idle, Some(4)).contains("no task has pictures of 8 x 8 x 2"));
        assert!(
            told("", None).contains("stem `28x28x1` (pictures of 28 x 28 x 1) says no patch_size")
        );
    }

    #[test]
    fn a_task_or_a_size_chooses_the_stem() {
        let text = "[pen]\ntasks = [\"pen/a\"]\n[scan]\ntasks = [\"pen/b\"]\n";
        let stems = assigned(&asked(text), Some(4), &SIZES.to_vec()).unwrap();
        let chosen = |task: Option<&str>, size| stem_for(&stems, task, size);
        assert_eq!(chosen(Some("pen/b"), [28, 28, 1]), Ok(1));
        assert_eq!(chosen(Some("pen/b/target"), [28, 28, 1]), Ok(1));
        assert_eq!(chosen(None, [32, 32, 3]), Ok(2));
        let error = chosen(Some("pen/ab"), [28, 28, 1]).unwrap_err();
        assert!(error.contains("`pen` and `scan`"), "{error}");
        let error = chosen(None, [32, 32, 1]).unwrap_err();
        assert!(
            error.contains("which no stem reads; there are `pen` 28 x 28 x 1"),
            "{error}"
        );
        let error = chosen(Some("pen/a"), [32, 32, 3]).unwrap_err();
        assert!(
            error.contains("its stem `pen` reads 28 x 28 x 1"),
            "{error}"
        );
    }
}
