//! Systems under test: models, adapters beside a base, heads on a base. What several need is opened once.

mod outputs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyloom::MergeError;
use polyloom::plan::reference::{Places, locate};
use polyloom::recipe::Dialect;
use polyloom_core::Checkpoint;
use polyloom_core::peft::AdapterFolder;

use super::content::{self, Hashes};
use super::family::{self, Opened, heads_below, listed};
use super::fit;
use super::head::Head;
use super::rows::Reader;
use crate::calibrate::Calibration;
use crate::error::{Error, Result};
use crate::image::PREPROCESSOR;
use crate::models::lora::{Lora, LowRank};
use crate::models::open::{Model, Trunk};
use crate::models::{Plain, Source, peft};
use crate::weave::{Meta, Woven, meta as woven};

/// What is named as a model: where its parts lie.
#[derive(Debug, Clone)]
pub struct System {
    /// As it was named.
    pub reference: String,
    /// Its own folder: that of the adapter, of the heads, else of the model.
    pub folder: PathBuf,
    /// The model that is opened.
    pub base: PathBuf,
    /// The adapter beside it.
    pub adapter: Option<PathBuf>,
    /// Folders of heads, the first that has one counts.
    pub heads: Vec<PathBuf>,
    /// It is a woven model: [`Self::folder`] holds shared vector, parts and router.
    pub woven: bool,
    /// What was fitted for its own heads after training; of models of tables.
    pub calibration: Option<Arc<Calibration>>,
}

impl System {
    /// Finds the parts of `MODEL`, `MODEL+ADAPTER`, a PEFT folder, or a folder of heads alone (`heads/` and a
    /// `polyloom.json` with `base`). `base` and `heads` go before what the folders say.
    ///
    /// # Errors
    /// What is not there; an adapter without a base.
    pub fn find(reference: &str, base: Option<&str>, heads: Option<&Path>) -> Result<Self> {
        let given = family::named(reference)?.reference;
        let here = Places::default();
        let revision = given.revision.as_deref();
        let path = locate(&given.path, revision, Dialect::Loom, &here)?;
        let beside = |folder: &Path, name: Option<&str>, file: &str, key: &str| {
            let found = match (base, name) {
                (Some(base), _) => locate(base, None, Dialect::Loom, &here),
                (None, Some(name)) => {
                    let places = Places {
                        recipe_folder: Some(folder.to_owned()),
                        ..Places::default()
                    };
                    locate(name, None, Dialect::Mergekit, &places)
                }
                (None, None) => Err(MergeError::plan(
                    "no-base",
                    format!("names no base (`{key}`)"),
                )),
            };
            found.map_err(|e| match base {
                Some(_) => e,
                None => e
                    .at(folder.join(file).display().to_string())
                    .hint("--base MODEL names the base"),
            })
        };
        let woven = given.adapter.is_none() && Meta::is_there(&path);
        let (folder, base, adapter) = if woven {
            let said = Meta::read(&path)?.base.path;
            let base = beside(&path, Some(&said), woven::FILE, "base.path")?;
            (path, base, None)
        } else if let Some((adapter, revision)) = &given.adapter {
            let adapter = locate(adapter, revision.as_deref(), Dialect::Loom, &here)?;
            (adapter.clone(), path, Some(adapter))
        } else if path.join("adapter_config.json").exists() {
            let file = path.join("adapter_config.json");
            let config = polyloom_core::checkpoint::read_json(&file)?;
            let key = "base_model_name_or_path";
            let name = config[key].as_str().filter(|n| !n.is_empty());
            let base = beside(&path, name, "adapter_config.json", key)?;
            (path.clone(), base, Some(path))
        } else if path.join("heads").is_dir() && !path.join("config.json").exists() {
            let said = family::provenance(&path)?;
            let base = beside(&path, said["base"].as_str(), "polyloom.json", "base")?;
            (path, base, None)
        } else {
            (path.clone(), path, None)
        };
        let own = [folder.join("heads"), base.join("heads")];
        Ok(Self {
            calibration: Calibration::beside(&folder)?.map(Arc::new),
            reference: reference.to_owned(),
            heads: match heads {
                Some(folder) => vec![folder.to_owned()],
                None => own.to_vec(),
            },
            folder,
            base,
            adapter,
            woven,
        })
    }

    /// What prepares pictures, where its own folder says so in place of its base's.
    #[must_use]
    pub fn preprocessor(&self) -> Option<PathBuf> {
        let file = self.folder.join(PREPROCESSOR);
        (self.woven && file.is_file()).then_some(file)
    }

    /// Its name in tables: that of its folder.
    #[must_use]
    pub fn name(&self) -> String {
        let folder = self.folder.canonicalize();
        let folder = folder.as_deref().unwrap_or(&self.folder);
        let name = folder.file_name().unwrap_or(self.folder.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Tasks that it has heads for: its own list, else those of the files.
    ///
    /// # Errors
    /// Folders that cannot be read.
    pub fn tasks(&self) -> Result<Vec<String>> {
        let own = listed(&self.folder)?;
        if !own.is_empty() {
            return Ok(own);
        }
        for root in &self.heads {
            let found = heads_below(root)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// The head file for a task and target, if there is one.
    ///
    /// # Errors
    /// Folders that cannot be read, a file that is no head.
    pub fn head(&self, task: &str, target: &str) -> Result<Option<(Head, PathBuf)>> {
        for root in &self.heads {
            let names = heads_below(root)?;
            let of = names.iter().find(|n| **n == fit::full(task, target));
            let of = of.or_else(|| names.iter().find(|n| fit::is_for(n, task, target)));
            if let Some(name) = of {
                let file = Head::path(root, name);
                let mut head = Head::read(&file, name)?;
                // Heads of another folder are not those that it was fitted for.
                let own = *root == self.folder.join("heads");
                if let Some(calibration) = self.calibration.as_ref().filter(|_| own) {
                    head.calibration = calibration.of(name, &head.labels, &self.folder)?;
                }
                return Ok(Some((head, file)));
            }
        }
        Ok(None)
    }

    /// Tokens that texts were cut to when it was trained or woven, where its `polyloom.json` says so.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn max_length(&self) -> Result<Option<usize>> {
        let file = self.folder.join("polyloom.json");
        if !file.exists() {
            return Ok(None);
        }
        let told = polyloom_core::checkpoint::read_json(&file)?;
        let length = |table: &str| told["recipe"][table]["max_length"].as_u64();
        let length = length("train").or_else(|| length("weave"));
        Ok(length.map(|n| n as usize))
    }

    /// The fingerprint of its weights, by which a merge tells whose statistics a file holds.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        family::fingerprint(&self.base, self.adapter.as_deref())
    }

    /// Hash of its content: configuration, tokenizer, weights, adapter, heads.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn hash(&self, hashes: &mut Hashes) -> Result<String> {
        let mut folders = vec![&self.base];
        folders.extend(&self.adapter);
        folders.extend(self.woven.then_some(&self.folder));
        folders.extend(&self.heads);
        content::of(&folders, hashes)
    }
}

/// A base in memory, for all systems that stand on it.
pub struct Base {
    /// The model.
    pub opened: Opened,
    /// How inputs are read.
    pub reader: Reader,
    path: PathBuf,
    headers: Checkpoint,
}

impl Base {
    /// Opens a base. Texts are cut to `most` tokens.
    ///
    /// # Errors
    /// As [`Opened::open`] and [`Reader::of`].
    pub fn open(path: &Path, most: Option<usize>) -> Result<Self> {
        Self::prepared(path, most, None)
    }

    /// The same, with a file like `preprocessor_config.json` in place of that of the folder.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Reader::prepared`].
    pub fn prepared(path: &Path, most: Option<usize>, pictures: Option<&Path>) -> Result<Self> {
        let opened = Opened::open(&path.display().to_string())?;
        Self::of(path, opened, most, pictures)
    }

    /// A system on a base of its own, all of it in weights: an adapter is folded in.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn whole(system: &System, most: Option<usize>) -> Result<Self> {
        if system.woven {
            let what = "is a woven model, whose weights depend on the input";
            let error = MergeError::plan("woven", what).at(system.folder.display().to_string());
            return Err(error
                .hint("eval, predict and run ask it for the tasks of its heads")
                .into());
        }
        let opened = match &system.adapter {
            Some(adapter) => Opened::folded(&system.base, adapter)?,
            None => Opened::open(&system.base.display().to_string())?,
        };
        Self::of(&system.base, opened, most, None)
    }

    fn of(
        path: &Path,
        opened: Opened,
        most: Option<usize>,
        pictures: Option<&Path>,
    ) -> Result<Self> {
        Ok(Self {
            reader: Reader::prepared(&opened.model, most, pictures)?,
            headers: Checkpoint::open(path)?,
            path: path.to_owned(),
            opened,
        })
    }

    /// The base itself, ready to run.
    #[must_use]
    pub fn alone(&self) -> Ready<'_> {
        Ready {
            base: self,
            change: Change::None,
            warnings: self.opened.warnings.clone(),
        }
    }

    /// A system on this base, ready to run.
    ///
    /// # Errors
    /// An adapter that does not fit.
    pub fn ready(&self, system: &System) -> Result<Ready<'_>> {
        if system.woven {
            let fingerprint = family::fingerprint(&self.path, None)?;
            let woven = Woven::open(&system.folder, &self.opened, &fingerprint)?;
            return Ok(Ready {
                base: self,
                change: Change::Woven(Box::new(woven)),
                warnings: self.opened.warnings.clone(),
            });
        }
        let Some(adapter) = &system.adapter else {
            return Ok(self.alone());
        };
        let own = |name: &str| {
            let head = |stem: &str| name == stem || name.starts_with(&format!("{stem}."));
            // A head is read as a tensor, not as a layer of the trunk.
            head("classifier") || head("pre_classifier") || head("lm_head")
        };
        let folder = AdapterFolder::open(adapter)?;
        Ok(match peft::parts(&folder, &self.headers, &own)? {
            Some(parts) => Ready {
                base: self,
                change: Change::Beside(parts.modules),
                warnings: parts.warnings,
            },
            None => {
                let folded = Opened::folded(&self.path, adapter)?;
                Ready {
                    base: self,
                    warnings: folded.warnings.clone(),
                    change: Change::Folded(Box::new(folded)),
                }
            }
        })
    }
}

enum Change {
    None,
    /// Low-rank parts beside the base.
    Beside(HashMap<String, LowRank>),
    /// Weights of its own.
    Folded(Box<Opened>),
    /// Parts that are chosen by input.
    Woven(Box<Woven>),
}

/// A system in memory.
pub struct Ready<'b> {
    base: &'b Base,
    change: Change,
    /// Things to tell the user.
    pub warnings: Vec<String>,
}

impl Ready<'_> {
    fn opened(&self) -> &Opened {
        match &self.change {
            Change::Folded(opened) => opened,
            _ => &self.base.opened,
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.opened().model
    }

    /// Whether it has weights of its own instead of parts beside the base's.
    #[must_use]
    pub fn is_folded(&self) -> bool {
        matches!(self.change, Change::Folded(_))
    }

    /// Whether it gives texts vectors that are meant to be compared. A woven model does not: its weights depend on the input.
    #[must_use]
    pub fn embeds(&self) -> bool {
        self.woven().is_none() && self.model().embeds()
    }

    /// Whether it answers in text.
    #[must_use]
    pub fn speaks(&self) -> bool {
        matches!(self.model().trunk, Trunk::Decoder(_))
    }

    /// The classifier that the model itself brings, as a head.
    ///
    /// # Errors
    /// Tensors of a classifier that are not there.
    pub fn own_head(&self) -> Result<Option<Head>> {
        let opened = self.opened();
        fit::own_head(&opened.model, &opened.config)
    }

    /// The woven model that it is, if it is one.
    #[must_use]
    pub fn woven(&self) -> Option<&Woven> {
        match &self.change {
            Change::Woven(woven) => Some(woven),
            _ => None,
        }
    }

    /// Runs with its weights and those of heads.
    ///
    /// # Errors
    /// What `run` reports; a woven model, whose weights depend on the input.
    pub fn with<T>(
        &self,
        heads: &[&Head],
        run: impl FnOnce(&Model, &dyn Source) -> Result<T>,
    ) -> Result<T> {
        let model = self.model();
        let tensors = heads.iter().flat_map(|h| h.tensors());
        let plain: Plain = model.weights.with(tensors);
        match &self.change {
            Change::Woven(woven) => {
                let what = "is a woven model, whose weights depend on the input";
                let error = MergeError::plan("woven", what);
                Err(error
                    .at(woven.folder.display().to_string())
                    .hint("eval, predict and run ask it for the tasks of its heads")
                    .into())
            }
            Change::Beside(modules) => {
                let lora = Lora {
                    base: &plain,
                    modules: modules.clone(),
                    dropout: 0.0,
                };
                run(model, &lora)
            }
            _ => run(model, &plain),
        }
    }
}

/// What runs with models and their weights.
pub type Run<'a, T> = &'a mut dyn FnMut(&[(&Model, &dyn Source)]) -> Result<T>;

/// Runs with the weights of several systems at once, in their order, without heads.
///
/// # Errors
/// What `run` reports.
pub fn together<T>(systems: &[&Ready<'_>], run: Run<'_, T>) -> Result<T> {
    fn next<T>(left: &[&Ready<'_>], held: &[(&Model, &dyn Source)], run: Run<'_, T>) -> Result<T> {
        let Some((first, rest)) = left.split_first() else {
            return run(held);
        };
        first.with(&[], |model, source| {
            let mut held = held.to_vec();
            held.push((model, source));
            next(rest, &held, run)
        })
    }
    next(systems, &[], run)
}

/// What a model without heads for a task is told.
#[must_use]
pub fn no_head(system: &System, task: &str, target: &str) -> Error {
    let roots: Vec<String> = system
        .heads
        .iter()
        .map(|r| r.display().to_string())
        .collect();
    MergeError::plan(
        "no-head",
        format!("has no head for `{}`", fit::full(task, target)),
    )
    .at(system.folder.display().to_string())
    .hint(format!(
        "looked for {}.safetensors in {}; --heads DIR names another folder",
        fit::full(task, target),
        roots.join(" and ")
    ))
    .into()
}
